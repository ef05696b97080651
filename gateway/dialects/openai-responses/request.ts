/**
 * A response's request, read into the hub.
 * Source: https://platform.openai.com/docs/api-reference/responses/create.
 */
import { Fields, invalid } from '../../hub/fields.ts';
import { leave, use } from '../../hub/noted.ts';
import type {
  Citation,
  HubMessage,
  HubPart,
  HubRequest,
  HubTool,
  MediaPart,
  MediaSource,
  TextPart,
} from '../../hub/request.ts';
import type { Json } from '../dialect.ts';
import {
  EFFORTS,
  fileData,
  type PartReaders,
  readAudio,
  readContent,
  readFormat,
  readNotes,
  readRefusal,
  readTools,
  readVerbosity,
  sourceOf,
} from '../openai-chat/fields.ts';
import { openSeal } from './seals.ts';

/** Reads a request; throws `invalid_request` with a sentence that names the field. */
export function toHub(body: Json): HubRequest {
  const fields = new Fields(body);
  const hub: HubRequest = { messages: [], tools: [], used: new Map(), unknown: [] };
  readInstructions(fields, hub);
  readInput(fields, hub);
  readTools(fields, hub, readTool, (choice) => choice);
  readSampling(fields, hub);
  readLogprobs(fields, hub);
  readText(fields, hub);
  readReasoning(fields, hub);
  readNotes(fields, hub);
  readManner(fields, hub);
  // The pipeline has read these: they name the target and the way of answering, not the answer.
  fields.skip('model', 'stream', 'stream_options');
  hub.unknown.push(...fields.unread());
  return hub;
}

// --- Items --------------------------------------------------------------------------------------------------------

/** What the reading of one item needs of those before it. */
interface Chat {
  hub: HubRequest;
  /** Names of the tools that were called, by the calls' ids. */
  called: Map<string, string>;
  /** The seal of the call that comes next. */
  seal: string | undefined;
}

function readInstructions(fields: Fields, hub: HubRequest): void {
  const instructions = fields.string('instructions');
  if (instructions === undefined || instructions === '') return;
  use(hub, 'system', 'instructions');
  hub.messages.push({ role: 'system', parts: [{ type: 'text', text: instructions }], at: 'instructions' });
}

function readInput(fields: Fields, hub: HubRequest): void {
  const input = fields.any('input');
  if (input === undefined) throw invalid('input', 'is missing');
  if (typeof input === 'string') {
    hub.messages.push({ role: 'user', parts: textParts(input), at: 'input' });
    return;
  }
  if (!Array.isArray(input)) throw invalid('input', 'must be a string or a list');
  const chat: Chat = { hub, called: new Map(), seal: undefined };
  for (const item of fields.objects('input') ?? []) readItem(item, chat);
  const last = hub.messages.at(-1);
  if (last?.role === 'assistant' && !last.parts.some(({ type }) => type === 'tool-call')) use(hub, 'prefill', last.at);
}

function textParts(text: string): HubPart[] {
  return text === '' ? [] : [{ type: 'text', text }];
}

function readItem(item: Fields, chat: Chat): void {
  const read = ITEMS.get(item.string('type') ?? untyped(item));
  if (read === undefined) {
    chat.hub.unknown.push(item.path);
    return;
  }
  // Names and states that a server gave it.
  item.skip('id', 'status');
  read(item, chat);
  leave(chat.hub, item);
}

/** Only messages and references may leave out their type. */
function untyped(item: Fields): string {
  return item.has('role') ? 'message' : item.has('id') ? 'item_reference' : '';
}

const ITEMS = new Map<string, (item: Fields, chat: Chat) => void>([
  ['message', readMessage],
  ['function_call', readCall],
  ['function_call_output', readResult],
  ['reasoning', readThought],
  ['item_reference', refuseReference],
]);

function refuseReference(item: Fields): void {
  throw invalid(
    item.path,
    'refers to an item of an earlier answer, which is kept nowhere. Send the item itself (`store: false` makes most clients do so)',
  );
}

/** What follows another turn of the model or of the tools belongs to it, as one message. */
function add(chat: Chat, role: 'assistant' | 'tool', part: HubPart[], at: string): void {
  const last = chat.hub.messages.at(-1);
  if (last?.role === role) last.parts.push(...part);
  else chat.hub.messages.push({ role, parts: part, at });
}

const ROLES = ['user', 'assistant', 'system', 'developer'] as const;

function readMessage(item: Fields, chat: Chat): void {
  const { hub } = chat;
  const word = item.word('role', ROLES);
  if (word === undefined) throw invalid(item.at('role'), 'is missing');
  // Which of two texts of a turn is the last word; the order tells it as well.
  item.skip('phase');
  const parts = readContent(item, 'content', PARTS, hub);
  if (word === 'assistant') {
    add(chat, 'assistant', parts, item.path);
    return;
  }
  const role: HubMessage['role'] = word === 'developer' ? 'system' : word;
  if (role === 'system') {
    use(hub, hub.messages.some((other) => other.role !== 'system') ? 'system.later' : 'system', item.path);
  }
  hub.messages.push({ role, parts, at: item.path });
}

function readCall(item: Fields, chat: Chat): void {
  const [id, name] = [item.needString('call_id'), item.needString('name')];
  readCaller(item, chat.hub);
  chat.called.set(id, name);
  const part: HubPart = { type: 'tool-call', id, name, arguments: item.string('arguments') ?? '' };
  if (chat.seal !== undefined) part.signature = chat.seal;
  chat.seal = undefined;
  add(chat, 'assistant', [part], item.path);
}

/** Who called: the model itself, or a program of the vendor's. */
function readCaller(item: Fields, hub: HubRequest): void {
  const caller = item.object('caller');
  if (caller !== undefined && caller.string('type') !== 'direct') hub.unknown.push(caller.path);
}

function readResult(item: Fields, chat: Chat): void {
  const id = item.needString('call_id');
  readCaller(item, chat.hub);
  if (!item.has('output')) throw invalid(item.at('output'), 'is missing');
  const parts = readContent(item, 'output', PARTS, chat.hub);
  if (parts.some(({ type }) => type !== 'text')) use(chat.hub, 'tool-result.media', item.at('output'));
  const name = item.string('name') ?? chat.called.get(id);
  add(chat, 'tool', [{ type: 'tool-result', id, parts, ...(name !== undefined && { name }) }], item.path);
}

/** Its summary, or all of it where a model shows that. */
function readThought(item: Fields, chat: Chat): void {
  const texts = [...readTexts(item, 'summary', chat.hub), ...readTexts(item, 'content', chat.hub)];
  const part = openSeal(texts.join('\n\n'), item.string('encrypted_content'));
  if ('call' in part) chat.seal = part.call;
  else if (part.text !== '' || part.redacted !== undefined || part.signature !== undefined) {
    use(chat.hub, 'reasoning.history', item.path);
    add(chat, 'assistant', [part], item.path);
  }
}

function readTexts(item: Fields, name: string, hub: HubRequest): string[] {
  return (item.objects(name) ?? []).map((part) => {
    part.skip('type');
    const text = part.needString('text');
    leave(hub, part);
    return text;
  });
}

// --- Content ------------------------------------------------------------------------------------------------------

const PARTS: PartReaders = new Map<string, (part: Fields, hub: HubRequest) => HubPart>([
  ['input_text', (part) => ({ type: 'text', text: part.needString('text') })],
  ['output_text', readOutputText],
  ['refusal', readRefusal],
  ['input_image', readImage],
  ['input_file', readFile],
  ['input_audio', readAudio],
]);

function readOutputText(part: Fields, hub: HubRequest): TextPart {
  // They repeat the text.
  part.skip('logprobs');
  const text: TextPart = { type: 'text', text: part.needString('text') };
  const citations = (part.objects('annotations') ?? []).map(readCitation);
  if (citations.length === 0) return text;
  use(hub, 'citations', part.at('annotations'));
  return { ...text, citations };
}

/** A page is cited by its address, a file by its name; other fields are the vendor's own. */
function readCitation(cited: Fields): Citation {
  const url = cited.string('url');
  const title = cited.string('title') ?? cited.string('filename');
  const isFile = cited.string('type') === 'file_citation';
  return {
    ...(url && { url }),
    ...(title && { title }),
    quote: cited.string('quote'),
    start: cited.number('start_index'),
    end: cited.number('end_index'),
    ...(isFile && { document: cited.number('index') }),
  };
}

function readImage(part: Fields, hub: HubRequest): MediaPart {
  const source = partSource(part, ['image_url', 'image_url']);
  const detail = part.word('detail', ['auto', 'low', 'high', 'original'] as const);
  use(hub, source.kind === 'id' ? 'image.id' : source.kind === 'url' ? 'image.url' : 'image.data', part.path);
  if (detail === 'low' || detail === 'high') use(hub, 'image.detail', part.at('detail'));
  else if (detail === 'original') hub.unknown.push(part.at('detail'));
  return { type: 'image', source, ...(detail && detail !== 'original' && { detail }) };
}

function readFile(part: Fields, hub: HubRequest): MediaPart {
  const source = partSource(part, ['file_url', 'file_data']);
  const name = part.string('filename');
  use(hub, source.kind === 'id' ? 'file.id' : source.kind === 'url' ? 'file.url' : 'file.data', part.path);
  const detail = part.word('detail', ['auto', 'low', 'high'] as const);
  if (detail === 'low' || detail === 'high') hub.unknown.push(part.at('detail'));
  return { type: 'file', source, ...(name !== undefined && { name }) };
}

/** Where the bytes are: `fields` name the address and the data, which one field may hold both. */
function partSource(part: Fields, fields: [url: string, data: string]): MediaSource {
  const given = [...new Set([...fields, 'file_id'])].filter((name) => part.has(name));
  const [name, other] = given;
  if (name === undefined) throw invalid(part.at(fields[1]), 'is missing');
  if (other !== undefined) throw invalid(part.path, `must have \`${name}\` or \`${other}\`, not both`);
  const value = part.needString(name);
  if (name === 'file_id') return { kind: 'id', id: value };
  return name === 'file_data' ? fileData(value, part.at(name)) : sourceOf(value, part.at(name));
}

// --- Tools --------------------------------------------------------------------------------------------------------

function readTool(tool: Fields, hub: HubRequest): HubTool {
  const strict = tool.boolean('strict');
  if (strict) use(hub, 'tools.strict', tool.at('strict'));
  // Given at once and called by the model itself: so it is everywhere.
  if (tool.boolean('defer_loading')) hub.unknown.push(tool.at('defer_loading'));
  const callers = tool.strings('allowed_callers') ?? [];
  if (callers.some((caller) => caller !== 'direct')) hub.unknown.push(tool.at('allowed_callers'));
  const read: HubTool = {
    name: tool.needString('name'),
    description: tool.string('description'),
    parameters: tool.json('parameters'),
    strict,
  };
  leave(hub, tool);
  return read;
}

// --- How to answer ------------------------------------------------------------------------------------------------

function readSampling(fields: Fields, hub: HubRequest): void {
  const most = fields.number('max_output_tokens');
  if (most !== undefined) {
    if (!Number.isSafeInteger(most) || most < 1) throw invalid('max_output_tokens', 'must be a whole number from 1 on');
    hub.maxOutputTokens = most;
    use(hub, 'max-tokens', 'max_output_tokens');
  }
  hub.temperature = fields.number('temperature');
  if (hub.temperature !== undefined) use(hub, 'temperature', 'temperature');
  hub.topP = fields.number('top_p');
  if (hub.topP !== undefined) use(hub, 'top-p', 'top_p');
}

/** What to tell beside the answer. Seals of thoughts are told unasked. */
function readLogprobs(fields: Fields, hub: HubRequest): void {
  const most = fields.number('top_logprobs');
  if (most !== undefined && most > 0) {
    hub.topLogprobs = most;
    wantLogprobs(hub, 'top_logprobs');
  }
  fields.strings('include')?.forEach((word, i) => {
    if (word === 'message.output_text.logprobs') wantLogprobs(hub, `include[${i}]`);
    else if (word !== 'reasoning.encrypted_content') hub.unknown.push(`include[${i}]`);
  });
}

function wantLogprobs(hub: HubRequest, path: string): void {
  hub.logprobs = true;
  use(hub, 'logprobs', path);
}

function readText(fields: Fields, hub: HubRequest): void {
  const text = fields.object('text');
  if (text === undefined) return;
  readVerbosity(text, hub);
  const format = text.object('format');
  if (format !== undefined) readFormat(format, hub, (given) => given);
  leave(hub, text);
}

const SUMMARIES = ['auto', 'concise', 'detailed'] as const;

function readReasoning(fields: Fields, hub: HubRequest): void {
  const given = fields.object('reasoning');
  if (given === undefined) return;
  const effort = given.word('effort', EFFORTS);
  if (effort !== undefined) {
    hub.reasoning = effort === 'none' ? { off: true } : { effort };
    use(hub, 'reasoning', 'reasoning.effort');
  }
  for (const name of ['summary', 'generate_summary']) {
    if (given.word(name, SUMMARIES) === undefined) continue;
    hub.reasoning = { ...hub.reasoning, shown: true };
    use(hub, 'reasoning.shown', given.at(name));
  }
  leave(hub, given);
}

/** What every answer is that is not asked to be otherwise. */
function readManner(fields: Fields, hub: HubRequest): void {
  if (fields.boolean('background')) hub.unknown.push('background');
  if ((fields.string('truncation') ?? 'disabled') !== 'disabled') hub.unknown.push('truncation');
}
