/** Every text of a request and of a reply in this dialect, with its place. */
import type { Channel, Role, Segment } from '../../../proto/contract.ts';
import { GatewayError } from '../../errors.ts';
import { isJsonObject } from '../../json.ts';
import type { Json } from '../dialect.ts';
import { escapePointer, Segments } from '../segments.ts';

// --- Requests -----------------------------------------------------------------------------------------------------

/** Every piece of text that the model will read. */
export function requestSegments(body: Json): Segment[] {
  const segments = new Segments();
  const messages = body.messages as Json[];
  const newest = messages.findLastIndex((message) => message.role === 'user');
  messages.forEach((message, i) => {
    // The system's words are no turn: they stand for the whole chat.
    messageSegments(segments, `/messages/${i}`, message, i < newest && roleOf(message.role) !== 'system');
  });
  for (const [key, value] of Object.entries(body)) {
    if (SETTINGS.has(key)) continue;
    segments.deep(`/${escapePointer(key)}`, value, 'system', DEFINITIONS.has(key) ? 'tool-definition' : 'text', false);
  }
  return segments.list;
}

/** What says how to answer, and nothing that the model reads. What stands in no list is read: servers add fields. */
const SETTINGS = new Set([
  ...['messages', 'model', 'stream', 'stream_options', 'n', 'temperature', 'top_p', 'top_k', 'min_p', 'stop', 'seed'],
  ...['max_tokens', 'max_completion_tokens', 'frequency_penalty', 'presence_penalty', 'logit_bias', 'logprobs'],
  ...['top_logprobs', 'tool_choice', 'function_call', 'parallel_tool_calls', 'modalities', 'audio', 'verbosity'],
  ...['reasoning_effort', 'service_tier', 'user', 'safety_identifier', 'metadata', 'store', 'prompt_cache_key'],
  ...['prompt_cache_retention', 'cache_salt', 'session_id', 'request_id'],
]);

const DEFINITIONS = new Set(['tools', 'functions', 'response_format']);

interface Place {
  role: Role;
  channel: Channel;
  old: boolean;
}

function messageSegments(segments: Segments, path: string, message: Json, old: boolean): void {
  const role = roleOf(message.role);
  const place: Place = { role, channel: role === 'tool' ? 'tool-result' : 'text', old };
  contentSegments(segments, `${path}/content`, message.content, place);
  segments.deep(`${path}/name`, message.name, role, 'text', old);
  segments.deep(`${path}/refusal`, message.refusal, role, 'refusal', old);
  segments.deep(`${path}/reasoning_content`, message.reasoning_content, role, 'reasoning', old);
  segments.deep(`${path}/reasoning`, message.reasoning, role, 'reasoning', old);
  thoughtSegments(segments, `${path}/reasoning_details`, message.reasoning_details, place);
  callsSegments(segments, `${path}/tool_calls`, message.tool_calls, place);
  calledSegments(segments, `${path}/function_call`, message.function_call, { ...place, field: 'arguments' });
  imageSegments(segments, `${path}/images`, message.images, place);
  if (isJsonObject(message.audio))
    mediaSegments(segments, `${path}/audio`, message.audio, { ...place, channel: 'text', field: 'data' });
  else segments.deep(`${path}/audio`, message.audio, role, 'text', old);
  restSegments(segments, path, message, OWN_FIELDS, { ...place, channel: 'text' });
}

/** A message's fields that are read above, or that only name something. */
const OWN_FIELDS = new Set([
  'role',
  'content',
  'name',
  'refusal',
  'reasoning_content',
  'reasoning',
  'reasoning_details',
  'tool_calls',
  'tool_call_id',
  'function_call',
  'images',
  'audio',
]);

/** All fields but some. */
function restSegments(segments: Segments, path: string, holder: Json, but: ReadonlySet<string>, place: Place): void {
  const { role, channel, old } = place;
  for (const [key, value] of Object.entries(holder)) {
    if (!but.has(key)) segments.deep(`${path}/${escapePointer(key)}`, value, role, channel, old);
  }
}

/** Thoughts as OpenRouter has them. Their seals are the vendor's, and no model reads them: a rewrite would break them. */
function thoughtSegments(segments: Segments, path: string, details: unknown, { role, old }: Place): void {
  if (!Array.isArray(details)) {
    segments.deep(path, details, role, 'reasoning', old);
    return;
  }
  details.forEach((detail: unknown, i) => {
    if (!isJsonObject(detail)) segments.deep(`${path}/${i}`, detail, role, 'reasoning', old);
    else restSegments(segments, `${path}/${i}`, detail, SEALS, { role, channel: 'reasoning', old });
  });
}

/** Fields of a thought that hold no text. */
export const SEALS: ReadonlySet<string> = new Set(['type', 'format', 'id', 'index', 'signature', 'data']);

function imageSegments(segments: Segments, path: string, images: unknown, place: Place): void {
  if (!Array.isArray(images)) segments.deep(path, images, place.role, 'text', place.old);
  else contentSegments(segments, path, images, place);
}

function contentSegments(segments: Segments, path: string, content: unknown, place: Place): void {
  const { role, channel, old } = place;
  if (!Array.isArray(content)) {
    segments.deep(path, content, role, channel, old);
    return;
  }
  content.forEach((part: unknown, i) => {
    if (isJsonObject(part)) partSegments(segments, `${path}/${i}`, part, place);
    else segments.deep(`${path}/${i}`, part, role, channel, old);
  });
}

/** The parts that are media, by their types, and where each has its bytes or its address. */
const MEDIA_PARTS = new Map<unknown, string>([
  ['image_url', 'url'],
  ['video_url', 'url'],
  ['input_audio', 'data'],
  ['file', 'file_data'],
]);

function partSegments(segments: Segments, path: string, part: Json, place: Place): void {
  const field = MEDIA_PARTS.get(part.type);
  for (const [key, value] of Object.entries(part)) {
    const at = `${path}/${escapePointer(key)}`;
    if (key === 'type' && typeof value === 'string') continue;
    if (field !== undefined && key === part.type && isJsonObject(value))
      mediaSegments(segments, at, value, { ...place, field });
    else segments.deep(at, value, place.role, place.channel, place.old);
  }
}

/** What stands beside the bytes is text: a file's name, what is said in a sound. */
function mediaSegments(segments: Segments, path: string, media: Json, place: Place & { field: string }): void {
  const { role, old, field } = place;
  const value = media[field];
  restSegments(segments, path, media, new Set([field, ...MEDIA_NAMES]), place);
  if (typeof value === 'string') {
    const mediaType = /^data:([^;,]+)/.exec(value)?.[1] ?? typeOf(media, field);
    segments.media(`${path}/${field}`, value, { role, old, mediaType });
  } else segments.deep(`${path}/${field}`, value, role, place.channel, old);
}

const MEDIA_NAMES = ['detail', 'format', 'file_id', 'id', 'expires_at'];

/** Where the reference itself does not say it. */
function typeOf({ format }: Json, field: string): string {
  if (field !== 'data') return 'application/octet-stream';
  return typeof format === 'string' ? `audio/${format}` : 'audio/*';
}

// --- Tool calls ---------------------------------------------------------------------------------------------------

function callsSegments(segments: Segments, path: string, calls: unknown, place: Place): void {
  if (!Array.isArray(calls)) segments.deep(path, calls, place.role, 'text', place.old);
  else calls.forEach((call: unknown, i) => callSegments(segments, `${path}/${i}`, call, place));
}

function callSegments(segments: Segments, path: string, call: unknown, place: Place): void {
  if (!isJsonObject(call)) {
    segments.deep(path, call, place.role, 'text', place.old);
    return;
  }
  calledSegments(segments, `${path}/function`, call.function, { ...place, field: 'arguments' });
  calledSegments(segments, `${path}/custom`, call.custom, { ...place, field: 'input' });
  restSegments(segments, path, call, CALL_FIELDS, { ...place, channel: 'text' });
}

const CALL_FIELDS = new Set(['id', 'type', 'index', 'function', 'custom']);

/** The name of a tool says nothing to the model that its definition does not. */
function calledSegments(segments: Segments, path: string, called: unknown, place: Place & { field: string }): void {
  const { role, old, field } = place;
  if (!isJsonObject(called)) {
    segments.deep(path, called, role, 'text', old);
    return;
  }
  // Some servers send an object where a string belongs; only a string has to stay JSON.
  const isJson = field === 'arguments' && typeof called[field] === 'string';
  segments.deep(`${path}/${field}`, called[field], role, isJson ? 'tool-arguments' : 'text', old);
  restSegments(segments, path, called, new Set(['name', field]), { ...place, channel: 'text' });
}

const ROLES: Record<string, Role> = {
  system: 'system',
  developer: 'system',
  user: 'user',
  assistant: 'assistant',
  tool: 'tool',
  function: 'tool',
};

function roleOf(role: unknown): Role {
  return (typeof role === 'string' && Object.hasOwn(ROLES, role) && ROLES[role]) || 'user';
}

// --- Replies ------------------------------------------------------------------------------------------------------

/** Every piece of text that the model wrote, and what a server adds to it, such as sources. */
export function replySegments(body: Json): Segment[] {
  const segments = new Segments();
  const place: Place = { role: 'assistant', channel: 'text', old: false };
  choicesOf(body).forEach((choice, i) => {
    const path = `/choices/${i}`;
    if (!isJsonObject(choice)) segments.deep(path, choice, place.role, place.channel, false);
    else {
      const { message } = choice;
      if (isJsonObject(message)) messageSegments(segments, `${path}/message`, { role: 'assistant', ...message }, false);
      else segments.deep(`${path}/message`, message, place.role, place.channel, false);
      restSegments(segments, path, choice, CHOICE_FACTS, place);
    }
  });
  restSegments(segments, '', body, REPLY_FACTS, place);
  return segments.list;
}

/** What a choice has beside its text, and is none; log probabilities go when the text is changed. */
const CHOICE_FACTS = new Set(['index', 'message', 'finish_reason', 'native_finish_reason', 'logprobs']);

/** What a reply, or an event of a stream, tells of itself. */
export const REPLY_FACTS: ReadonlySet<string> = new Set([
  ...['choices', 'id', 'object', 'created', 'model', 'usage', 'service_tier', 'system_fingerprint', 'provider'],
  ...['x_groq', 'time_info'],
]);

/** @throws GatewayError when they are there and no list: a client would find them, and no guard */
export function choicesOf({ choices }: Json): unknown[] {
  if (choices === undefined || choices === null) return [];
  if (Array.isArray(choices)) return choices;
  throw new GatewayError('upstream_bad_answer', 'The provider’s answer is not what was asked for. Try again.');
}
