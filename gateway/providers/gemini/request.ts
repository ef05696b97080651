/**
 * Hub → Gemini.
 * Source: https://ai.google.dev/api/generate-content (v1beta, 2026) and the pages on function calling, thinking and
 * thought signatures beside it.
 */
import type { Json } from '../../dialects/dialect.ts';
import { ownSeal } from '../../dialects/gemini/seals.ts';
import { invalid } from '../../hub/fields.ts';
import type {
  HubMessage,
  HubPart,
  HubRequest,
  HubTool,
  MediaPart,
  OutputFormat,
  ReasoningPart,
  ReasoningWish,
  ToolCallPart,
  ToolResultPart,
} from '../../hub/request.ts';
import { isJsonObject, parseJson, structureOf } from '../../json.ts';
import type { CallFacts } from '../provider.ts';
import { isMadeUp } from './ids.ts';

/** Writes the body of `generateContent` and `streamGenerateContent`. */
export function writeRequest(request: HubRequest, { model }: CallFacts): Json {
  return {
    ...writePrompt(request, model),
    toolConfig: toolConfigOf(request),
    generationConfig: generationConfigOf(request, model),
    serviceTier: serviceTierOf(request),
    store: request.used.has('store') ? false : undefined,
  };
}

/** Writes what the model reads: the part that counting tokens needs as well. */
export function writePrompt({ messages, tools }: HubRequest, model: string): Json {
  const system = messages.filter(({ role }) => role === 'system').flatMap(({ parts }) => parts.flatMap(textParts));
  const contents = new Contents(model);
  for (const message of messages) if (message.role !== 'system') contents.add(message);
  if (contents.list.length === 0)
    throw invalid(messages[0]?.at ?? 'messages', 'cannot be all: a user’s turn is missing');
  return {
    systemInstruction: system.length === 0 ? undefined : { parts: system },
    contents: contents.list,
    tools: tools.length === 0 ? undefined : [{ functionDeclarations: tools.map(declarationOf) }],
  };
}

function textParts(part: HubPart): Json[] {
  return part.type === 'text' && part.text !== '' ? [{ text: part.text }] : [];
}

// --- Turns --------------------------------------------------------------------------------------------------------

/** A thought's seal for calls that this model never made: without any it answers 400 (the page on thought signatures). */
const NO_SEAL = 'skip_thought_signature_validator';

/** Whether a model checks the seals of its calls and is told how much to think by a level: Gemini 3 and later. */
function isThirdGeneration(model: string): boolean {
  return /gemini-(?![12]\b)/.test(model);
}

/** Turns, as they are gathered: which tools were called, by what name and in what order, since results tell neither. */
class Contents {
  readonly list: Json[] = [];
  private readonly model: string;
  private readonly names = new Map<string, string>();
  /** Calls of the newest assistant turn, in their order. */
  private order: string[] = [];
  /** The results that stand last, by their calls' places. */
  private results: { place: number; part: Json }[] | undefined;

  constructor(model: string) {
    this.model = model;
  }

  add(message: HubMessage): void {
    const { role, parts, at } = message;
    const results = parts.filter((part) => part.type === 'tool-result');
    if (results.length > 0) this.addResults(results, at);
    const rest = parts.filter((part) => part.type !== 'tool-result');
    if (role === 'assistant') this.push('model', this.modelParts(rest, at));
    else
      this.push(
        'user',
        rest.map((part) => userPart(part, at)),
      );
  }

  private push(role: string, parts: Json[]): void {
    if (parts.length === 0) return;
    this.results = undefined;
    this.list.push({ role, parts });
  }

  private modelParts(parts: HubPart[], at: string): Json[] {
    const calls = parts.filter((part) => part.type === 'tool-call');
    for (const { id, name } of calls) this.names.set(id, name);
    if (calls.length > 0) this.order = calls.map(({ id }) => id);
    const written = parts.flatMap((part) => modelPart(part, at));
    const first = written.find((part) => part.functionCall !== undefined);
    // Of parallel calls only the first bears one.
    const isSealed = calls.some(({ signature }) => signature !== undefined);
    if (first !== undefined && !isSealed && isThirdGeneration(this.model)) first.thoughtSignature = NO_SEAL;
    return written;
  }

  /** The results of one turn's calls belong into one content, in the order of the calls. */
  private addResults(parts: ToolResultPart[], at: string): void {
    let { results } = this;
    if (results === undefined) {
      results = [];
      this.list.push({ role: 'user' });
    }
    for (const part of parts) {
      const name = part.name ?? this.names.get(part.id);
      if (name === undefined) throw invalid(at, 'answers a tool call that is not in the conversation');
      const place = this.order.indexOf(part.id);
      results.push({ place: place < 0 ? this.order.length : place, part: resultPart(part, name, at) });
    }
    results.sort((a, b) => a.place - b.place);
    this.list.at(-1)!.parts = results.map(({ part }) => part);
    this.results = results;
  }
}

function modelPart(part: HubPart, at: string): Json[] {
  if (part.type === 'tool-call') return [callPart(part, at)];
  if (part.type === 'reasoning') return thoughtParts(part);
  if (part.type === 'text' || part.type === 'refusal') return part.text === '' ? [] : [{ text: part.text }];
  return [userPart(part, at)];
}

/** Thoughts go back as thoughts; what another vendor sealed goes without its seal, which would be refused. */
function thoughtParts({ text, signature }: ReasoningPart): Json[] {
  const parts: Json[] = text === '' ? [] : [{ text, thought: true }];
  const seal = ownSeal(signature);
  if (seal !== undefined) parts.push({ text: '', thoughtSignature: seal });
  return parts;
}

function callPart({ id, name, arguments: text, signature }: ToolCallPart, at: string): Json {
  const args = text.trim() === '' ? {} : parseJson(text);
  if (!isJsonObject(args)) throw invalid(at, 'has a tool call whose arguments are not a JSON object');
  return { functionCall: { id: isMadeUp(id) ? undefined : id, name, args }, thoughtSignature: signature };
}

function resultPart({ id, parts, isError }: ToolResultPart, name: string, at: string): Json {
  const said = parts.flatMap((part) => (part.type === 'text' ? [part.text] : []));
  const media = parts.filter((part) => part.type !== 'text').map((part) => userPart(part, at));
  const response = responseOf(said.join('\n'), isError === true);
  return {
    functionResponse: {
      id: isMadeUp(id) ? undefined : id,
      name,
      response,
      parts: media.length === 0 ? undefined : media,
    },
  };
}

/** A result must be an object: text that is the JSON of one is sent as it, any other under the name that Google gives. */
function responseOf(text: string, isError: boolean): Json {
  const value = text.startsWith('{') ? parseJson(text) : undefined;
  // Numbers beyond 2^53 would be rounded.
  const isExact = isJsonObject(value) && !structureOf(text, MAX_DEPTH).hasLongNumbers;
  if (isError) return { error: isExact ? value : text };
  return isExact ? value : { output: text };
}

const MAX_DEPTH = 1_000;

function userPart(part: HubPart, at: string): Json {
  switch (part.type) {
    case 'text':
    case 'refusal':
      return { text: part.text };
    case 'image':
    case 'file':
    case 'audio':
    case 'video':
      return mediaPart(part, at);
    default:
      throw invalid(at, 'has a part that cannot stand in a turn of its role');
  }
}

function mediaPart({ source }: MediaPart, at: string): Json {
  switch (source.kind) {
    case 'data':
      return { inlineData: { mimeType: source.mediaType, data: source.data } };
    case 'text':
      return { inlineData: { mimeType: source.mediaType, data: Buffer.from(source.text).toString('base64') } };
    case 'url':
      return { fileData: { mimeType: source.mediaType ?? typeByName(source.url), fileUri: source.url } };
    default:
      throw invalid(at, 'cannot name another vendor’s file; send its bytes or its URL');
  }
}

/** The media type that a URL's extension tells; undefined where it tells none. */
function typeByName(url: string): string | undefined {
  const extension = /\.([a-z0-9]+)(?:[?#]|$)/i.exec(url)?.[1]?.toLowerCase();
  return extension !== undefined && Object.hasOwn(TYPES, extension) ? TYPES[extension] : undefined;
}

const TYPES: Record<string, string> = {
  png: 'image/png',
  jpg: 'image/jpeg',
  jpeg: 'image/jpeg',
  webp: 'image/webp',
  gif: 'image/gif',
  heic: 'image/heic',
  pdf: 'application/pdf',
  txt: 'text/plain',
  md: 'text/markdown',
  csv: 'text/csv',
  html: 'text/html',
  mp3: 'audio/mp3',
  wav: 'audio/wav',
  mp4: 'video/mp4',
  mov: 'video/quicktime',
  webm: 'video/webm',
};

// --- Tools --------------------------------------------------------------------------------------------------------

function declarationOf({ name, description, parameters }: HubTool): Json {
  return { name, description, parametersJsonSchema: parameters };
}

function toolConfigOf({ toolChoice, tools }: HubRequest): Json | undefined {
  const isStrict = tools.some(({ strict }) => strict === true);
  const config = callingConfigOf(toolChoice, isStrict);
  return config && { functionCallingConfig: config };
}

function callingConfigOf(choice: HubRequest['toolChoice'], isStrict: boolean): Json | undefined {
  if (typeof choice === 'object') return { mode: 'ANY', allowedFunctionNames: [choice.name] };
  if (choice === 'none') return { mode: 'NONE' };
  if (choice === 'required') return { mode: 'ANY' };
  // Both modes above hold to the schemas by themselves.
  if (isStrict) return { mode: 'VALIDATED' };
  return choice === 'auto' ? { mode: 'AUTO' } : undefined;
}

// --- Settings -----------------------------------------------------------------------------------------------------

function generationConfigOf(request: HubRequest, model: string): Json | undefined {
  const config: Json = {
    maxOutputTokens: request.maxOutputTokens,
    temperature: request.temperature,
    topP: request.topP,
    topK: request.topK,
    stopSequences: request.stop,
    seed: request.seed,
    candidateCount: request.choices,
    presencePenalty: request.presencePenalty,
    frequencyPenalty: request.frequencyPenalty,
    responseLogprobs: request.logprobs,
    logprobs: request.topLogprobs === 0 ? undefined : request.topLogprobs,
    ...formatOf(request.format),
    thinkingConfig: request.reasoning && thinkingOf(request.reasoning, model),
  };
  return Object.values(config).some((value) => value !== undefined) ? config : undefined;
}

function formatOf(format: OutputFormat | undefined): Json {
  if (format === undefined) return {};
  const json = { responseMimeType: 'application/json' };
  return format.type === 'json' ? json : { ...json, responseJsonSchema: format.schema };
}

/** Efforts as tokens, as Google's own OpenAI-compatible endpoint takes them for models that know budgets only. */
const BUDGETS = { minimal: 1_024, low: 1_024, medium: 8_192, high: 24_576, xhigh: 24_576, max: 24_576 } as const;

function thinkingOf(wish: ReasoningWish, model: string): Json | undefined {
  const amount = amountOf(wish, model);
  if (amount === undefined && wish.shown === undefined) return undefined;
  return { includeThoughts: wish.shown, ...amount };
}

function amountOf({ off, effort, budget }: ReasoningWish, model: string): Json | undefined {
  // The larger models always think: a little is the least.
  const isLarge = /\bpro\b/.test(model);
  const knowsLevels = isThirdGeneration(model);
  if (off) return knowsLevels ? { thinkingLevel: isLarge ? 'low' : 'minimal' } : { thinkingBudget: isLarge ? 128 : 0 };
  if (budget !== undefined) return { thinkingBudget: budget };
  if (effort === undefined) return undefined;
  if (!knowsLevels) return { thinkingBudget: BUDGETS[effort] };
  if (effort === 'xhigh' || effort === 'max') return { thinkingLevel: 'high' };
  return { thinkingLevel: effort === 'minimal' && isLarge ? 'low' : effort };
}

const TIERS: Record<string, string> = {
  default: 'standard',
  standard: 'standard',
  standard_only: 'standard',
  flex: 'flex',
  priority: 'priority',
};

function serviceTierOf({ serviceTier, used }: HubRequest): string | undefined {
  if (serviceTier === undefined || serviceTier === 'auto') return undefined;
  if (Object.hasOwn(TIERS, serviceTier)) return TIERS[serviceTier];
  throw invalid(
    used.get('service-tier') ?? 'service_tier',
    'cannot be met by this provider: it has `default`, `flex` and `priority`',
  );
}
