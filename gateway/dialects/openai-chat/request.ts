/**
 * A chat completion's request, read into the hub.
 * Source: https://platform.openai.com/docs/api-reference/chat/create, and what compatible servers have made common beside
 * it: `reasoning_content`, `reasoning_details` and `reasoning` (OpenRouter), `cache_control`, `top_k`, `video_url`,
 * `prefix` (DeepSeek, Mistral) and `extra_content.google.thought_signature` (Google).
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
  ReasoningPart,
  ReasoningWish,
  ToolCallPart,
} from '../../hub/request.ts';
import type { Json } from '../dialect.ts';
import { type Chat, readTurns } from '../turns.ts';
import {
  EFFORTS,
  fileData,
  needObject,
  type PartReaders,
  readAudio,
  readCache,
  readContent,
  readFormat,
  readNotes,
  readRefusal,
  readTools,
  readVerbosity,
  sourceOf,
} from './fields.ts';

/** Reads a request; throws `invalid_request` with a sentence that names the field. */
export function toHub(body: Json): HubRequest {
  const fields = new Fields(body);
  const hub: HubRequest = { messages: [], tools: [], used: new Map(), unknown: [] };
  // The pipeline has read these: they name the target and the way of answering, not the answer.
  fields.skip('model', 'stream', 'stream_options');
  readTurns(fields, hub, readMessage);
  readTools(fields, hub, readTool, (choice) => needObject(choice, 'function'));
  readBounds(fields, hub);
  readSampling(fields, hub);
  readLogprobs(fields, hub);
  const format = fields.object('response_format');
  if (format !== undefined) readFormat(format, hub, (given) => needObject(given, 'json_schema'));
  readReasoning(fields, hub);
  readNotes(fields, hub);
  readModalities(fields, hub);
  hub.unknown.push(...fields.unread());
  return hub;
}

// --- Messages -----------------------------------------------------------------------------------------------------

const ROLES = ['system', 'developer', 'user', 'assistant', 'tool', 'function'] as const;

function readMessage(fields: Fields, chat: Chat): void {
  const { hub } = chat;
  const word = fields.word('role', ROLES);
  if (word === undefined) throw invalid(fields.at('role'), 'is missing');
  if (word === 'function') {
    hub.unknown.push(fields.at('role'));
    return;
  }
  const role = word === 'developer' ? 'system' : word;
  const message: HubMessage = { role, parts: partsOf(fields, role, chat), at: fields.path };
  const name = fields.string('name');
  if (role === 'system') {
    use(hub, hub.messages.some((other) => other.role !== 'system') ? 'system.later' : 'system', fields.path);
  }
  if (name !== undefined && role !== 'tool') {
    use(hub, 'name', fields.at('name'));
    message.name = name;
  }
  hub.messages.push(message);
  leave(hub, fields);
}

function partsOf(fields: Fields, role: HubMessage['role'], chat: Chat): HubPart[] {
  if (role === 'tool') return [toolResult(fields, chat)];
  if (role !== 'assistant') return readContent(fields, 'content', PARTS, chat.hub);
  fields.skip('prefix');
  const content = readContent(fields, 'content', PARTS, chat.hub);
  readAnnotations(fields, content, chat.hub);
  return [
    ...earlierThoughts(fields, chat.hub),
    ...content,
    ...earlierRefusal(fields, chat.hub),
    ...toolCalls(fields, chat),
  ];
}

function earlierRefusal(fields: Fields, hub: HubRequest): HubPart[] {
  const text = fields.string('refusal');
  if (text === undefined || text === '') return [];
  use(hub, 'refusal', fields.at('refusal'));
  return [{ type: 'refusal', text }];
}

function toolResult(fields: Fields, chat: Chat): HubPart {
  const id = fields.needString('tool_call_id');
  const parts = readContent(fields, 'content', PARTS, chat.hub);
  const media = parts.find(({ type }) => type !== 'text');
  if (media !== undefined) use(chat.hub, 'tool-result.media', fields.at('content'));
  return { type: 'tool-result', id, name: fields.string('name') ?? chat.called.get(id), parts };
}

function toolCalls(fields: Fields, { hub, called }: Chat): ToolCallPart[] {
  const calls: ToolCallPart[] = [];
  for (const call of fields.objects('tool_calls') ?? []) {
    const kind = call.string('type') ?? 'function';
    if (kind !== 'function') {
      hub.unknown.push(call.path);
      continue;
    }
    const part = readToolCall(call, hub);
    called.set(part.id, part.name);
    calls.push(part);
  }
  return calls;
}

function readToolCall(call: Fields, hub: HubRequest): ToolCallPart {
  call.skip('index');
  const target = call.object('function');
  if (target === undefined) throw invalid(call.at('function'), 'is missing');
  const part: ToolCallPart = {
    type: 'tool-call',
    id: call.needString('id'),
    name: target.needString('name'),
    arguments: target.string('arguments') ?? '',
  };
  const extra = call.object('extra_content');
  const google = extra?.object('google');
  const signature = google?.string('thought_signature');
  if (signature !== undefined) part.signature = signature;
  leave(hub, call, target, extra, google);
  return part;
}

/**
 * What the model thought before: with its seals in `reasoning_details`, else as text alone. Where a detail is a seal
 * without its text, the text is that of the whole message.
 */
function earlierThoughts(fields: Fields, hub: HubRequest): HubPart[] {
  const plain = fields.string('reasoning_content') ?? fields.string('reasoning');
  fields.skip('reasoning');
  const details = fields.objects('reasoning_details') ?? [];
  const parts = details.flatMap((detail) => readDetail(detail, hub));
  if (plain !== undefined && plain !== '' && !parts.some(({ text }) => text !== '')) {
    const sealed = parts.find(({ signature }) => signature !== undefined);
    if (sealed === undefined) parts.unshift({ type: 'reasoning', text: plain });
    else sealed.text = plain;
  }
  if (parts.length > 0)
    use(hub, 'reasoning.history', fields.at(details.length > 0 ? 'reasoning_details' : 'reasoning_content'));
  return parts;
}

function readDetail(detail: Fields, hub: HubRequest): ReasoningPart[] {
  detail.skip('id', 'index', 'format');
  const kind = detail.string('type');
  const part: ReasoningPart = { type: 'reasoning', text: '' };
  if (kind === 'reasoning.text') {
    part.text = detail.string('text') ?? '';
    part.signature = detail.string('signature');
  } else if (kind === 'reasoning.summary') part.text = detail.string('summary') ?? '';
  else if (kind === 'reasoning.encrypted') part.redacted = detail.string('data');
  else {
    hub.unknown.push(detail.path);
    return [];
  }
  leave(hub, detail);
  return [part];
}

/** Citations belong to the message's text; ours stand at its first piece. */
function readAnnotations(fields: Fields, content: HubPart[], hub: HubRequest): void {
  const citations: Citation[] = [];
  for (const annotation of fields.objects('annotations') ?? []) {
    const cited = annotation.string('type') === 'url_citation' ? annotation.object('url_citation') : undefined;
    if (cited === undefined) hub.unknown.push(annotation.path);
    else citations.push(readCitation(cited));
    leave(hub, cited);
  }
  const text = content.find((part) => part.type === 'text');
  if (citations.length === 0 || text === undefined) return;
  use(hub, 'citations', fields.at('annotations'));
  text.citations = citations;
}

function readCitation(cited: Fields): Citation {
  const url = cited.string('url');
  return {
    ...(url && { url }),
    title: cited.string('title'),
    quote: cited.string('content'),
    start: cited.number('start_index'),
    end: cited.number('end_index'),
    document: cited.number('document_index'),
  };
}

// --- Content ------------------------------------------------------------------------------------------------------

const PARTS: PartReaders = new Map<string, (part: Fields, hub: HubRequest) => HubPart>([
  ['text', (part) => ({ type: 'text', text: part.needString('text') })],
  ['refusal', readRefusal],
  ['image_url', readImage],
  ['input_audio', readAudio],
  ['file', readFile],
  ['video_url', readVideo],
]);

function readImage(part: Fields, hub: HubRequest): MediaPart {
  const image = needObject(part, 'image_url');
  const source = sourceOf(image.needString('url'), image.at('url'));
  use(hub, source.kind === 'data' ? 'image.data' : 'image.url', part.path);
  const detail = image.word('detail', ['auto', 'low', 'high', 'original'] as const);
  if (detail === 'low' || detail === 'high') use(hub, 'image.detail', image.at('detail'));
  else if (detail === 'original') hub.unknown.push(image.at('detail'));
  leave(hub, image);
  return { type: 'image', source, ...(detail && detail !== 'original' && { detail }) };
}

function readVideo(part: Fields, hub: HubRequest): MediaPart {
  const video = needObject(part, 'video_url');
  const source = sourceOf(video.needString('url'), video.at('url'));
  use(hub, source.kind === 'data' ? 'video.data' : 'video.url', part.path);
  leave(hub, video);
  return { type: 'video', source };
}

function readFile(part: Fields, hub: HubRequest): MediaPart {
  const file = needObject(part, 'file');
  const name = file.string('filename');
  const source = fileSource(file);
  use(hub, source.kind === 'id' ? 'file.id' : source.kind === 'url' ? 'file.url' : 'file.data', part.path);
  leave(hub, file);
  return { type: 'file', source, ...(name !== undefined && { name }) };
}

function fileSource(file: Fields): MediaSource {
  const id = file.string('file_id');
  const data = file.string('file_data');
  if (id !== undefined && data !== undefined) throw invalid(file.path, 'must have `file_data` or `file_id`, not both');
  if (id !== undefined) return { kind: 'id', id };
  if (data === undefined) throw invalid(file.at('file_data'), 'is missing');
  return fileData(data, file.at('file_data'));
}

// --- Tools --------------------------------------------------------------------------------------------------------

function readTool(tool: Fields, hub: HubRequest): HubTool {
  const given = needObject(tool, 'function');
  const strict = given.boolean('strict');
  if (strict) use(hub, 'tools.strict', given.at('strict'));
  const cache = readCache(tool, hub);
  const read: HubTool = {
    name: given.needString('name'),
    description: given.string('description'),
    parameters: given.json('parameters'),
    strict,
    cache,
  };
  leave(hub, tool, given);
  return read;
}

// --- How to answer ------------------------------------------------------------------------------------------------

function readBounds(fields: Fields, hub: HubRequest): void {
  const bounds = (['max_completion_tokens', 'max_tokens'] as const).filter((name) => fields.number(name) !== undefined);
  // Servers differ in which field they obey, so the larger one counts.
  const most = Math.max(...bounds.map((name) => fields.number(name) ?? 0));
  if (bounds[0] === undefined) return;
  if (!Number.isSafeInteger(most) || most < 1) throw invalid(bounds[0], 'must be a whole number from 1 on');
  hub.maxOutputTokens = most;
  use(hub, 'max-tokens', bounds[0]);
}

/** Plain numbers, by the client's name, the feature and the hub's name. */
const NUMBERS = [
  ['temperature', 'temperature', 'temperature'],
  ['top_p', 'top-p', 'topP'],
  ['top_k', 'top-k', 'topK'],
  ['seed', 'seed', 'seed'],
  ['presence_penalty', 'presence-penalty', 'presencePenalty'],
  ['frequency_penalty', 'frequency-penalty', 'frequencyPenalty'],
] as const;

function readSampling(fields: Fields, hub: HubRequest): void {
  for (const [name, feature, own] of NUMBERS) {
    const value = fields.number(name);
    if (value === undefined) continue;
    hub[own] = value;
    use(hub, feature, name);
  }
  const choices = fields.number('n');
  if (choices !== undefined && choices !== 1) {
    if (!Number.isSafeInteger(choices) || choices < 1) throw invalid('n', 'must be a whole number from 1 on');
    hub.choices = choices;
    use(hub, 'choices', 'n');
  }
  readStop(fields, hub);
  readBias(fields, hub);
}

function readStop(fields: Fields, hub: HubRequest): void {
  const stop = Array.isArray(fields.any('stop')) ? fields.strings('stop') : [fields.string('stop')];
  const sequences = (stop ?? []).filter((one) => one !== undefined && one !== '') as string[];
  if (sequences.length === 0) return;
  hub.stop = sequences;
  use(hub, 'stop', 'stop');
}

function readBias(fields: Fields, hub: HubRequest): void {
  const bias = fields.json('logit_bias');
  if (bias === undefined || Object.keys(bias).length === 0) return;
  const odd = Object.keys(bias).find((token) => typeof bias[token] !== 'number');
  if (odd !== undefined) throw invalid('logit_bias', 'must hold numbers alone');
  hub.logitBias = bias as Record<string, number>;
  use(hub, 'logit-bias', 'logit_bias');
}

function readLogprobs(fields: Fields, hub: HubRequest): void {
  const [wanted, most] = [fields.boolean('logprobs'), fields.number('top_logprobs')];
  if (wanted) {
    hub.logprobs = true;
    use(hub, 'logprobs', 'logprobs');
  }
  if (most === undefined || most === 0) return;
  if (!wanted) throw invalid('top_logprobs', 'needs `logprobs` to be true');
  hub.topLogprobs = most;
}

/** `reasoning_effort`, or OpenRouter's `reasoning`, which also knows tokens and whether the thoughts are shown. */
function readReasoning(fields: Fields, hub: HubRequest): void {
  const effort = fields.word('reasoning_effort', EFFORTS);
  if (effort !== undefined) {
    hub.reasoning = effort === 'none' ? { off: true } : { effort };
    use(hub, 'reasoning', 'reasoning_effort');
  }
  const given = fields.object('reasoning');
  if (given !== undefined) hub.reasoning = { ...hub.reasoning, ...readWish(given, hub) };
  readVerbosity(fields, hub);
}

function readWish(given: Fields, hub: HubRequest): ReasoningWish {
  const wish: ReasoningWish = {};
  const [effort, budget] = [given.word('effort', EFFORTS), given.number('max_tokens')];
  const [enabled, excluded] = [given.boolean('enabled'), given.boolean('exclude')];
  if (effort === 'none' || enabled === false) wish.off = true;
  else if (effort !== undefined) wish.effort = effort;
  else if (enabled && budget === undefined) wish.effort = 'medium';
  if (budget !== undefined) wish.budget = budget;
  if (Object.keys(wish).length > 0) use(hub, 'reasoning', given.path);
  if (excluded !== undefined) {
    wish.shown = !excluded;
    use(hub, 'reasoning.shown', given.at('exclude'));
  }
  leave(hub, given);
  return wish;
}

/** Text alone is what everybody answers with. */
function readModalities(fields: Fields, hub: HubRequest): void {
  const modalities = fields.strings('modalities');
  if (modalities?.some((kind) => kind !== 'text')) hub.unknown.push('modalities');
}
