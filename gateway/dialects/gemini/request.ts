/** Gemini's requests → hub. Source: https://ai.google.dev/api/generate-content#request-body (v1beta, 2026). */
import type { Feature } from '../../hub/features.ts';
import { Fields, invalid } from '../../hub/fields.ts';
import type {
  HubMessage,
  HubPart,
  HubRequest,
  HubTool,
  MediaPart,
  MediaSource,
  ReasoningWish,
  ToolResultPart,
} from '../../hub/request.ts';
import type { Json } from '../dialect.ts';
import { toJsonSchema } from './schema.ts';
import { readSeal } from './seals.ts';
import { camelKeys } from './spelling.ts';

/** Reads a request into the hub. */
export function toHub(body: Json): HubRequest {
  return new RequestReader().read(open(body, ''));
}

function open(source: unknown, path: string): Fields {
  return new Fields(camelKeys(source, path), path);
}

/** An object inside another, by either of its names. */
function inner(fields: Fields, name: string): Fields | undefined {
  const value = fields.any(name);
  return value === undefined ? undefined : open(value, fields.at(name));
}

function inners(fields: Fields, name: string): Fields[] {
  return (fields.list(name) ?? []).map((item, i) => open(item, `${fields.at(name)}[${i}]`));
}

class RequestReader {
  private readonly request: HubRequest = { messages: [], tools: [], used: new Map(), unknown: [] };
  /** Calls that no result has answered yet: results without an id answer them by name and in their order. */
  private open: { id: string; name: string }[] = [];
  private calls = 0;

  read(body: Fields): HubRequest {
    const { request } = this;
    this.readSystem(body);
    for (const content of inners(body, 'contents')) this.readContent(content);
    if (request.messages.at(-1)?.role === 'assistant') this.used('prefill', request.messages.at(-1)!.at);
    this.readTools(body);
    this.readToolConfig(body);
    const config = inner(body, 'generationConfig');
    if (config !== undefined) this.readConfig(config);
    this.readRest(body);
    this.close(body);
    return request;
  }

  private used(feature: Feature, path: string): void {
    if (!this.request.used.has(feature)) this.request.used.set(feature, path);
  }

  /** What nobody has read of an object has no word in the hub. */
  private close(fields: Fields): void {
    this.request.unknown.push(...fields.unread());
  }

  /** What stands beside the conversation; the model is named by the path. */
  private readRest(body: Fields): void {
    const { request } = this;
    body.skip('model');
    if (body.boolean('store') === false) this.used('store', body.at('store'));
    request.serviceTier = body.string('serviceTier')?.toLowerCase();
    if (request.serviceTier === 'unspecified') request.serviceTier = undefined;
    if (request.serviceTier !== undefined) this.used('service-tier', body.at('serviceTier'));
    const labels = body.json('labels');
    if (labels === undefined) return;
    this.used('metadata', body.at('labels'));
    request.metadata = Object.fromEntries(Object.entries(labels).map(([name, value]) => [name, String(value)]));
  }

  private readSystem(body: Fields): void {
    const system = inner(body, 'systemInstruction');
    if (system === undefined) return;
    this.used('system', system.path);
    system.skip('role');
    const parts = inners(system, 'parts').map((part) => this.readSystemPart(part));
    if (parts.length > 0) this.request.messages.push({ role: 'system', parts, at: system.path });
    this.close(system);
  }

  private readSystemPart(part: Fields): HubPart {
    const text = part.needString('text');
    this.close(part);
    return { type: 'text', text };
  }

  // --- Turns ---

  private readContent(content: Fields): void {
    const role = content.word('role', ['user', 'model', 'function', 'tool']) ?? 'user';
    const parts = inners(content, 'parts').flatMap((part) => this.readPart(part, role === 'model'));
    this.close(content);
    if (role === 'model') this.addAssistant(parts, content.path);
    else this.addUser(parts, content.path);
  }

  /** Official clients keep each piece of a streamed answer as a turn of its own: together they are the answer. */
  private addAssistant(parts: HubPart[], at: string): void {
    let last = this.request.messages.at(-1);
    if (last?.role !== 'assistant') {
      last = { role: 'assistant', parts: [], at };
      this.request.messages.push(last);
    }
    for (const part of parts) addPart(last, part);
  }

  /** Results are turns of their own in the hub. */
  private addUser(parts: HubPart[], at: string): void {
    const results = parts.filter((part) => part.type === 'tool-result');
    const rest = parts.filter((part) => part.type !== 'tool-result');
    if (results.length > 0) this.request.messages.push({ role: 'tool', parts: results, at });
    if (rest.length > 0) this.request.messages.push({ role: 'user', parts: rest, at });
  }

  private readPart(part: Fields, isModel: boolean): HubPart[] {
    const parts = [
      ...this.readText(part, isModel),
      ...this.readInline(part),
      ...this.readFile(part),
      ...this.readCall(part, isModel),
      ...this.readResult(part),
    ];
    this.close(part);
    return parts;
  }

  private readText(part: Fields, isModel: boolean): HubPart[] {
    const text = part.string('text');
    const isThought = part.boolean('thought') === true;
    // A call's seal is read with the call.
    const seal = part.has('functionCall') ? undefined : part.string('thoughtSignature');
    const sealed = seal === undefined ? undefined : readSeal(seal);
    if ((isThought || seal !== undefined) && isModel) this.used('reasoning.history', part.path);
    if (isThought) return [{ type: 'reasoning', text: text ?? '', ...sealed }];
    const said: HubPart[] = text === undefined ? [] : [{ type: 'text', text }];
    return sealed === undefined ? said : [...said, { type: 'reasoning', text: '', ...sealed }];
  }

  private readInline(part: Fields): HubPart[] {
    const blob = inner(part, 'inlineData');
    if (blob === undefined) return [];
    const [mediaType, data, name] = [blob.needString('mimeType'), blob.needString('data'), blob.string('displayName')];
    this.close(blob);
    const type = kindOf(mediaType);
    this.used(`${type}.data`, blob.path);
    return [media(type, { kind: 'data', mediaType, data: standardBase64(data) }, name)];
  }

  private readFile(part: Fields): HubPart[] {
    const file = inner(part, 'fileData');
    if (file === undefined) return [];
    const [url, mediaType, name] = [file.needString('fileUri'), file.string('mimeType'), file.string('displayName')];
    this.close(file);
    const type = kindOf(mediaType ?? '');
    const isOpen = /^https?:/i.test(url) && !HELD.test(url);
    const source: MediaSource = isOpen ? { kind: 'url', url, mediaType } : { kind: 'id', id: url };
    this.used(fileFeature(type, isOpen), file.path);
    return [media(type, source, name)];
  }

  private readCall(part: Fields, isModel: boolean): HubPart[] {
    const call = inner(part, 'functionCall');
    if (call === undefined) return [];
    if (!isModel) throw invalid(call.path, 'can stand in a turn of the role `model` alone');
    const name = call.needString('name');
    const id = call.string('id') || `call_${this.calls}`;
    const args = JSON.stringify(call.json('args') ?? {});
    this.calls += 1;
    this.open.push({ id, name });
    this.used('tools', call.path);
    this.close(call);
    return [{ type: 'tool-call', id, name, arguments: args, signature: part.string('thoughtSignature') }];
  }

  private readResult(part: Fields): HubPart[] {
    const result = inner(part, 'functionResponse');
    if (result === undefined) return [];
    const name = result.needString('name');
    const id = this.answered(result.string('id'), name, result.path);
    const parts = this.readResponse(result.json('response') ?? {}, result);
    for (const item of inners(result, 'parts')) {
      this.used('tool-result.media', item.path);
      parts.parts.push(...this.readInline(item), ...this.readFile(item));
      this.close(item);
    }
    this.close(result);
    return [{ type: 'tool-result', id, name, ...parts }];
  }

  /** The id of the call that a result answers. */
  private answered(id: string | undefined, name: string, path: string): string {
    const exact = this.open.findIndex((call) => call.id === id);
    const place = exact < 0 ? this.open.findIndex((call) => call.name === name) : exact;
    if (place < 0) throw invalid(path, 'answers a call that is not in the conversation');
    return this.open.splice(place, 1)[0]!.id;
  }

  /** The names under which Google wants plain text and errors are taken off again. */
  private readResponse(response: Json, result: Fields): Pick<ToolResultPart, 'parts' | 'isError'> {
    const [name = '', ...others] = Object.keys(response);
    const isLone = others.length === 0 && ['output', 'result', 'error'].includes(name);
    const value = isLone ? response[name] : response;
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    if (isLone && name === 'error') this.used('tool-result.error', result.at('response'));
    return { parts: [{ type: 'text', text }], ...(isLone && name === 'error' && { isError: true }) };
  }

  // --- Tools ---

  private readTools(body: Fields): void {
    for (const tool of inners(body, 'tools')) {
      for (const declaration of inners(tool, 'functionDeclarations')) {
        this.used('tools', tool.path);
        this.request.tools.push(this.readDeclaration(declaration));
      }
      this.close(tool);
    }
  }

  private readDeclaration(declaration: Fields): HubTool {
    const schema = declaration.json('parameters');
    const parameters = declaration.json('parametersJsonSchema') ?? (schema && toJsonSchema(schema));
    const tool = { name: declaration.needString('name'), description: declaration.string('description'), parameters };
    this.close(declaration);
    return tool;
  }

  private readToolConfig(body: Fields): void {
    const config = inner(body, 'toolConfig');
    if (config === undefined) return;
    const calling = inner(config, 'functionCallingConfig');
    if (calling !== undefined) this.readCalling(calling);
    this.close(config);
  }

  private readCalling(calling: Fields): void {
    const { request } = this;
    const mode = calling.word('mode', ['AUTO', 'ANY', 'NONE', 'VALIDATED', 'MODE_UNSPECIFIED']) ?? 'AUTO';
    const isAny = mode === 'ANY';
    const allowed = isAny ? this.allowedNames(calling) : undefined;
    this.close(calling);
    if (mode === 'NONE') this.choose('none', 'tool-choice.none', calling.at('mode'));
    else if (allowed !== undefined)
      this.choose({ name: allowed }, 'tool-choice.name', calling.at('allowedFunctionNames'));
    else if (isAny) this.choose('required', 'tool-choice.required', calling.at('mode'));
    if (mode !== 'VALIDATED') return;
    this.used('tools.strict', calling.at('mode'));
    for (const tool of request.tools) tool.strict = true;
  }

  /** The one tool that may be used; several out of more cannot be said elsewhere. */
  private allowedNames(calling: Fields): string | undefined {
    const names = calling.strings('allowedFunctionNames') ?? [];
    const all = this.request.tools.every(({ name }) => names.includes(name));
    if (names.length > 1 && !all) this.request.unknown.push(calling.at('allowedFunctionNames'));
    return names.length === 1 ? names[0] : undefined;
  }

  private choose(choice: NonNullable<HubRequest['toolChoice']>, feature: Feature, path: string): void {
    this.request.toolChoice = choice;
    this.used('tool-choice', path);
    this.used(feature, path);
  }

  // --- Settings ---

  private readConfig(config: Fields): void {
    const { request } = this;
    for (const [name, feature, field] of NUMBERS) {
      const value = config.number(name);
      if (value === undefined) continue;
      request[field] = value;
      this.used(feature, config.at(name));
    }
    const stop = config.strings('stopSequences') ?? [];
    if (stop.length > 0) {
      request.stop = stop;
      this.used('stop', config.at('stopSequences'));
    }
    this.readChoices(config);
    this.readLogprobs(config);
    this.readFormat(config);
    this.readThinking(config);
    this.close(config);
  }

  private readChoices(config: Fields): void {
    const choices = config.number('candidateCount') ?? 1;
    if (choices === 1) return;
    this.request.choices = choices;
    this.used('choices', config.at('candidateCount'));
  }

  private readLogprobs(config: Fields): void {
    const [isWanted, most] = [config.boolean('responseLogprobs'), config.number('logprobs')];
    if (isWanted !== true) return;
    this.request.logprobs = true;
    this.request.topLogprobs = most;
    this.used('logprobs', config.at('responseLogprobs'));
  }

  private readFormat(config: Fields): void {
    const type = config.string('responseMimeType');
    const modalities = config.strings('responseModalities') ?? [];
    if (modalities.some((one) => one.toUpperCase() !== 'TEXT'))
      this.request.unknown.push(config.at('responseModalities'));
    const schema = this.readSchema(config);
    if (type === undefined || type === 'text/plain') return;
    if (type !== 'application/json') this.request.unknown.push(config.at('responseMimeType'));
    else if (schema === undefined) {
      this.request.format = { type: 'json' };
      this.used('format.json', config.at('responseMimeType'));
    } else this.request.format = { type: 'json-schema', schema };
  }

  private readSchema(config: Fields): Json | undefined {
    for (const name of ['responseJsonSchema', '_responseJsonSchema']) {
      const schema = config.json(name);
      if (schema === undefined) continue;
      this.used('format.schema', config.at(name));
      return schema;
    }
    const schema = config.json('responseSchema');
    if (schema !== undefined) this.used('format.schema', config.at('responseSchema'));
    return schema && toJsonSchema(schema);
  }

  private readThinking(config: Fields): void {
    const thinking = inner(config, 'thinkingConfig');
    if (thinking === undefined) return;
    const [shown, budget, level] = [
      thinking.boolean('includeThoughts'),
      thinking.number('thinkingBudget'),
      thinking.string('thinkingLevel'),
    ];
    this.close(thinking);
    if (shown !== undefined) this.used('reasoning.shown', thinking.at('includeThoughts'));
    const amount = amountOf(budget, level, thinking.at('thinkingLevel'));
    if (amount !== undefined)
      this.used('reasoning', thinking.at(budget === undefined ? 'thinkingLevel' : 'thinkingBudget'));
    if (shown !== undefined || amount !== undefined) this.request.reasoning = { shown, ...amount };
  }
}

/** Numbers that the hub has by the same meaning. */
const NUMBERS = [
  ['maxOutputTokens', 'max-tokens', 'maxOutputTokens'],
  ['temperature', 'temperature', 'temperature'],
  ['topP', 'top-p', 'topP'],
  ['topK', 'top-k', 'topK'],
  ['seed', 'seed', 'seed'],
  ['presencePenalty', 'presence-penalty', 'presencePenalty'],
  ['frequencyPenalty', 'frequency-penalty', 'frequencyPenalty'],
] as const;

const LEVELS = ['minimal', 'low', 'medium', 'high'] as const;

/** How much to think; a budget of −1 leaves it to the model. */
function amountOf(budget: number | undefined, level: string | undefined, path: string): ReasoningWish | undefined {
  if (budget !== undefined) return budget < 0 ? undefined : budget === 0 ? { off: true } : { budget };
  if (level === undefined || level === 'THINKING_LEVEL_UNSPECIFIED') return undefined;
  const effort = LEVELS.find((one) => one === level.toLowerCase());
  if (effort !== undefined) return { effort };
  throw invalid(path, 'must be one of MINIMAL, LOW, MEDIUM and HIGH');
}

/** Pieces of one thought, or of one text, are put together again: other vendors seal a whole thought. */
function addPart(message: HubMessage, part: HubPart): void {
  const last = message.parts.at(-1);
  const goesOn = last?.type === 'reasoning' && last.signature === undefined && last.redacted === undefined;
  if (part.type === 'reasoning' && part.redacted === undefined && goesOn) {
    last.text += part.text;
    if (part.signature !== undefined) last.signature = part.signature;
  } else if (part.type === 'text' && last?.type === 'text') last.text += part.text;
  else message.parts.push(part);
}

// --- Media --------------------------------------------------------------------------------------------------------

/** Files that Google holds, or that its own accounts alone can read. */
const HELD = /^https:\/\/generativelanguage\.googleapis\.com\//i;

function kindOf(mediaType: string): MediaPart['type'] {
  const kind = mediaType.split('/')[0];
  return kind === 'image' || kind === 'audio' || kind === 'video' ? kind : 'file';
}

function media(type: MediaPart['type'], source: MediaSource, name: string | undefined): MediaPart {
  return { type, source, ...(name !== undefined && { name }) };
}

/** Sound has no form but inline elsewhere, and films none by a vendor's id: as files both are refused by their place. */
function fileFeature(type: MediaPart['type'], isOpen: boolean): Feature {
  if (type === 'image') return isOpen ? 'image.url' : 'image.id';
  if (type === 'video' && isOpen) return 'video.url';
  return isOpen ? 'file.url' : 'file.id';
}

/** ProtoJSON takes both alphabets; elsewhere only the first is known. */
function standardBase64(data: string): string {
  return /[-_]/.test(data) ? data.replaceAll('-', '+').replaceAll('_', '/') : data;
}
