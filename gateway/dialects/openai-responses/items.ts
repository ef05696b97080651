/** The text in requests and whole answers: both are lists of items of the same kinds. */
import type { Channel, Role, Segment } from '../../../proto/contract.ts';
import { badAnswer, objectsOf, textOf } from '../../hub/fields.ts';
import { isJsonObject } from '../../json.ts';
import type { Json, ToolCall } from '../dialect.ts';
import { escapePointer, Segments, writeTexts } from '../segments.ts';
import { unseal } from './seals.ts';

// --- Requests -----------------------------------------------------------------------------------------------------

/** Every piece of text that the model will read. */
export function requestSegments(body: Json): Segment[] {
  const segments = new Segments();
  for (const [key, value] of Object.entries(body)) {
    const [role, channel] =
      (Object.hasOwn(REQUEST_FIELDS, key) && REQUEST_FIELDS[key]) || (['system', 'text'] as const);
    if (!SETTINGS.has(key)) segments.deep(`/${escapePointer(key)}`, value, role, channel, false);
  }
  if (isJsonObject(body.text)) {
    const { verbosity: _verbosity, ...text } = body.text;
    segments.deep('/text', text, 'system', 'tool-definition', false);
  } else segments.deep('/text', body.text, 'system', 'text', false);
  if (!Array.isArray(body.input)) segments.deep('/input', body.input, 'user', 'text', false);
  else {
    const newest = body.input.findLastIndex((item) => isJsonObject(item) && item.role === 'user');
    body.input.forEach((item: unknown, i) => {
      const role = roleOf(item);
      // The system's words are no turn: they stand for the whole chat.
      itemSegments(segments, `/input/${i}`, item, { role, old: i < newest && role !== 'system' });
    });
  }
  return segments.list;
}

/** What is not the system's text among what a model reads beside the items. */
const REQUEST_FIELDS: Record<string, [Role, Channel]> = {
  tools: ['system', 'tool-definition'],
  prompt: ['user', 'text'],
};

/** What says how to answer, and nothing that the model reads; `input` and `text` are read for themselves. */
const SETTINGS = new Set([
  ...['input', 'text', 'model', 'background', 'context_management', 'conversation', 'include', 'max_output_tokens'],
  ...['max_tool_calls', 'metadata', 'parallel_tool_calls', 'previous_response_id', 'prompt_cache_key', 'reasoning'],
  ...['prompt_cache_options', 'prompt_cache_retention', 'safety_identifier', 'service_tier', 'store', 'stream'],
  ...['stream_options', 'temperature', 'tool_choice', 'top_logprobs', 'top_p', 'truncation', 'user'],
]);

const ROLES: Record<string, Role> = { system: 'system', developer: 'system', user: 'user', assistant: 'assistant' };

/** Who speaks: a message says it, of the others the outputs are tools’ and the rest is the model’s. */
function roleOf(item: unknown): Role {
  if (!isJsonObject(item)) return 'user';
  const { role, type } = item;
  if (typeof role === 'string') return (Object.hasOwn(ROLES, role) && ROLES[role]) || 'user';
  if (typeof type !== 'string' || type === 'message') return 'user';
  return type.endsWith('_output') ? 'tool' : 'assistant';
}

// --- Items --------------------------------------------------------------------------------------------------------

/** Whose an item is. */
interface Place {
  role: Role;
  old: boolean;
}

/** The fields of an item that are no text: names and numbers of the vendor's, and what it has sealed. */
export const UNREAD = new Set([
  'type',
  'id',
  'call_id',
  'item_id',
  'role',
  'status',
  'phase',
  'encrypted_content',
  'logprobs',
]);

/** Fields whose text is of another kind than its item's. */
const CHANNELS: Record<string, Channel> = { arguments: 'tool-arguments', refusal: 'refusal' };

function itemSegments(segments: Segments, path: string, item: unknown, place: Place): void {
  const channel: Channel = place.role === 'tool' ? 'tool-result' : 'text';
  if (!isJsonObject(item)) {
    segments.deep(path, item, place.role, channel, place.old);
    return;
  }
  const isThought = item.type === 'reasoning';
  for (const [key, value] of Object.entries(item)) {
    const at = `${path}/${escapePointer(key)}`;
    if (UNREAD.has(key) || (key === 'name' && isCall(item))) continue;
    if (isMedia(item, key)) media(segments, at, value, place, 'image/png');
    else if (Array.isArray(value) && (key === 'content' || key === 'summary' || key === 'output')) {
      value.forEach((part: unknown, i) => {
        partSegments(segments, `${at}/${i}`, part, place, isThought ? 'reasoning' : channel);
      });
    } else segments.deep(at, value, place.role, kindOf(item, key, channel), place.old);
  }
}

/** Arguments of a function are JSON, which a rewrite has to keep. */
function kindOf(item: Json, key: string, channel: Channel): Channel {
  const own = Object.hasOwn(CHANNELS, key) ? CHANNELS[key] : undefined;
  return own !== undefined && typeof item[key] === 'string' ? own : channel;
}

/** Pictures that the model made. */
function isMedia(item: Json, key: string): boolean {
  return item.type === 'image_generation_call' && key === 'result';
}

function partSegments(segments: Segments, path: string, part: unknown, place: Place, channel: Channel): void {
  if (!isJsonObject(part)) {
    segments.deep(path, part, place.role, channel, place.old);
    return;
  }
  for (const [key, value] of Object.entries(part)) {
    const at = `${path}/${escapePointer(key)}`;
    if (UNREAD.has(key) || key === 'detail' || key === 'file_id' || key === 'prompt_cache_breakpoint') continue;
    if (MEDIA.has(key)) media(segments, at, value, place);
    else if (key === 'input_audio' && isJsonObject(value)) {
      const { data, format, ...rest } = value;
      media(segments, `${at}/data`, data, place, typeof format === 'string' ? `audio/${format}` : 'audio/wav');
      segments.deep(at, rest, place.role, channel, place.old);
    } else segments.deep(at, value, place.role, kindOf(part, key, channel), place.old);
  }
}

/** Fields of a part that refer to something that is no text. */
const MEDIA = new Set(['image_url', 'file_data', 'file_url']);

function media(segments: Segments, path: string, value: unknown, { role, old }: Place, type?: string): void {
  if (typeof value !== 'string') {
    segments.deep(path, value, role, 'text', old);
    return;
  }
  const mediaType = type ?? /^data:([^;,]{1,128})/.exec(value)?.[1] ?? 'application/octet-stream';
  segments.media(path, value, { role, old, mediaType });
}

// --- Answers ------------------------------------------------------------------------------------------------------

/** What a response tells of itself, and what it repeats of the client's request; all else may be the model's words. */
export const TOLD: ReadonlySet<string> = new Set([
  ...[
    'id',
    'object',
    'created_at',
    'completed_at',
    'status',
    'model',
    'usage',
    'error',
    'incomplete_details',
    'output',
  ],
  ...['background', 'conversation', 'instructions', 'max_output_tokens', 'max_tool_calls', 'metadata', 'reasoning'],
  ...['parallel_tool_calls', 'previous_response_id', 'prompt', 'prompt_cache_key', 'prompt_cache_retention', 'store'],
  ...['prompt_cache_options', 'safety_identifier', 'service_tier', 'temperature', 'text', 'tool_choice', 'tools'],
  ...['top_logprobs', 'top_p', 'truncation', 'user', 'wardgate'],
]);

/** Every piece of text that the model wrote. */
export function replySegments(body: Json): Segment[] {
  const segments = new Segments();
  outputOf(body).forEach((item, i) => {
    const role = roleOf(item) === 'tool' ? 'tool' : 'assistant';
    itemSegments(segments, `/output/${i}`, item, { role, old: false });
  });
  // Some servers say the whole text once more, in `output_text`.
  for (const [key, value] of Object.entries(body)) {
    if (!TOLD.has(key)) segments.deep(`/${escapePointer(key)}`, value, 'assistant', 'text', false);
  }
  return segments.list;
}

/** @throws GatewayError when it is there and no list: a client would find it, and no guard */
function outputOf({ output }: Json): unknown[] {
  if (output === undefined || output === null) return [];
  if (Array.isArray(output)) return output;
  throw badAnswer();
}

/** Every tool that the model asks for, or has used at the vendor's. */
export function replyTools(body: Json): ToolCall[] {
  return outputOf(body).flatMap((item, i) => (isJsonObject(item) ? itemTools(item, i) : []));
}

/** Kinds of calls that say themselves whom they call. */
const NAMED = new Set(['function', 'custom_tool', 'mcp', 'mcp_approval_request']);

/** The call that an item is; a tool of the vendor's own goes by its kind, such as `web_search`. */
export function itemTools(item: Json, index: number): ToolCall[] {
  if (!isCall(item)) return [];
  const kind = textOf(item.type)?.replace(/_call$/, '');
  const name = textOf(item.name) ?? (kind !== undefined && NAMED.has(kind) ? undefined : kind);
  return [{ call: `0/tool-arguments/${index}`, id: textOf(item.call_id) ?? textOf(item.id), name }];
}

/** What is not known to be something else and says whom it calls is a call too. */
export function isCall({ type, call_id: id, name }: Json): boolean {
  if (typeof type !== 'string') return id !== undefined || name !== undefined;
  if (type.endsWith('_call') || type === 'mcp_approval_request') return true;
  return (id ?? undefined) !== undefined && !type.endsWith('_output') && type !== 'program';
}

/** Besides the text itself, its copies go: log probabilities repeat every token. So do seals of what it was. */
export function writeSegments(body: Json, rewritten: ReadonlyMap<string, string>): void {
  writeTexts(body, rewritten);
  if (rewritten.size === 0) return;
  for (const item of [...objectsOf(body.input), ...objectsOf(body.output)]) {
    for (const part of objectsOf(item.content)) if (part.logprobs) part.logprobs = [];
  }
  for (const path of rewritten.keys()) {
    const [, list, index] = path.split('/');
    const item: unknown = list === 'output' && Array.isArray(body.output) ? body.output[Number(index)] : undefined;
    if (isJsonObject(item)) unseal(item);
  }
}
