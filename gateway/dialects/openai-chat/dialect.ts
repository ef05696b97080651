/**
 * OpenAI chat completions: `POST /v1/chat/completions`.
 * Source: https://platform.openai.com/docs/api-reference/chat (fields as of 2026), and the compatible servers' extras
 * (`reasoning_content`, `reasoning`; tool calls without an index).
 */
import type { Usage } from '../../../proto/contract.ts';
import type { ErrorShape } from '../../errors.ts';
import { isJsonObject, parseJson } from '../../json.ts';
import { openReader } from '../../providers/openai/stream.ts';
import {
  type ChatDialect,
  type EventPart,
  emptyEvent,
  type Json,
  type ModelRequest,
  NONE,
  type OutputLimitField,
  type ReplyFacts,
  type StreamEvent,
  type ToolCall,
} from '../dialect.ts';
import { escapePointer, isLongNumber, unescapePointer, writeTexts } from '../segments.ts';
import { readHead } from '../turns.ts';
import { fromHub } from './reply.ts';
import { toHub } from './request.ts';
import { choicesOf, REPLY_FACTS, replySegments, requestSegments, SEALS } from './segments.ts';
import { openWriter } from './stream.ts';

export const openaiChat: ChatDialect = {
  name: 'openai-chat',
  operation: 'chat',
  asksUsage: true,
  paths: ['/v1/chat/completions', '/chat/completions'],
  readRequest,
  requestSegments,
  replySegments,
  replyTools,
  writeSegments,
  replyFacts: (body) => ({ usage: readUsage(body.usage), model: text(body.model) }),
  skimReply,
  rename: (body, model) => {
    body.model = model;
  },
  limitOutput,
  markLimited,
  cutShort,
  readEvent,
  skimEvents,
  textEvent,
  frame: (body) => `data: ${JSON.stringify(body)}\n\n`,
  errorBody,
  errorFrame: (error) => `data: ${errorBody(error)}\n\n`,
  modelList: (models) => JSON.stringify({ object: 'list', data: models.map(modelEntry) }),
  modelEntry: (model) => JSON.stringify(modelEntry(model)),
  toHub,
  fromHub,
  openReader: () => openReader('gateway'),
  openWriter,
};

function modelEntry({ id, ownedBy }: { id: string; ownedBy: string }): Json {
  return { id, object: 'model', created: 0, owned_by: ownedBy };
}

// --- Requests -----------------------------------------------------------------------------------------------------

function readRequest(body: Json): ModelRequest {
  return {
    body,
    ...readHead(body),
    wantsUsage: isJsonObject(body.stream_options) && body.stream_options.include_usage === true,
    // Some servers take a number in a string as well.
    choices: Number(body.n) > 1 ? Math.floor(Number(body.n)) : 1,
    maxOutputTokens: outputBound(body),
  };
}

/** Servers differ in which field they obey, so the larger one counts; 0 and odd values bound nothing everywhere. */
function outputBound(body: Json): number | undefined {
  const given = boundsOf(body).map((field) => body[field]);
  return given.length > 0 && given.every(isBound) ? Math.max(...given) : undefined;
}

/** The fields in which a client bounds the answer. */
function boundsOf(body: Json): OutputLimitField[] {
  return (['max_completion_tokens', 'max_tokens'] as const).filter((field) => (body[field] ?? null) !== null);
}

function isBound(value: unknown): value is number {
  return typeof value === 'number' && value >= 1;
}

// --- Replies ------------------------------------------------------------------------------------------------------

function replyTools(body: Json): ToolCall[] {
  const tools: ToolCall[] = [];
  choicesOf(body).forEach((choice, i) => {
    if (isJsonObject(choice)) tools.push(...messageTools(choice.message, `${i}`));
  });
  return tools;
}

/** The tool calls of a message or of a delta. What calls something without saying what is one without a name. */
function messageTools(message: unknown, choice: string): ToolCall[] {
  if (!isJsonObject(message)) return [];
  const { tool_calls: calls, function_call: single } = message;
  const tools: ToolCall[] = [];
  const nameless = { call: `${choice}/tool-arguments/unknown`, name: undefined };
  if (isJsonObject(single)) tools.push({ call: `${choice}/tool-arguments/function`, name: text(single.name) });
  else if (single) tools.push(nameless);
  if (!Array.isArray(calls)) return calls ? [...tools, nameless] : tools;
  calls.forEach((call: unknown, position) => {
    if (!isJsonObject(call)) {
      if (call) tools.push(nameless);
      return;
    }
    const index = typeof call.index === 'number' ? call.index : position;
    const id = call.index === undefined ? text(call.id) : undefined;
    for (const name of calledNames(call)) tools.push({ call: `${choice}/tool-arguments/${index}`, id, name });
  });
  return tools;
}

/** What a tool call, or a piece of one, names; an empty piece names nothing, and calls nothing either. */
function calledNames(call: Json): (string | undefined)[] {
  const named = [call.function, call.custom].filter(isJsonObject);
  const { index: _index, id: _id, type: _type, ...rest } = call;
  const said = (named.length > 0 ? named : [rest]).filter((one) => Object.values(one).some((value) => value));
  return said.map(({ name }) => text(name));
}

/**
 * Quotes inside strings are escaped, so `"usage":` can be nothing but a key; the last one is the reply's own, and the
 * first `"model":` too.
 */
function skimReply(reply: string): ReplyFacts | undefined {
  const [start, end] = [reply.lastIndexOf('"usage":'), reply.trimEnd().length];
  if (reply[0] !== '{' || reply[end - 1] !== '}' || start < 0) return undefined;
  const usage = objectAt(reply, start + '"usage":'.length);
  return usage && { usage: readUsage(usage), model: /"model": ?"([^"\\]*)"/.exec(reply)?.[1] };
}

/** The flat or nested object that begins at an offset, when no string of it holds a brace. */
function objectAt(json: string, from: number): Json | undefined {
  let depth = 0;
  for (let i = from; i < json.length; i += 1) {
    const char = json.charCodeAt(i);
    if (char === 0x7b) depth += 1;
    else if (char === 0x7d) depth -= 1;
    else if (depth === 0 && char !== 0x20) return undefined;
    if (depth === 0 && char === 0x7d) {
      const value = parseJson(json.slice(from, i + 1));
      return isJsonObject(value) ? value : undefined;
    }
  }
  return undefined;
}

/** Besides the text itself, its copies go: log probabilities repeat every token. */
function writeSegments(body: Json, rewritten: ReadonlyMap<string, string>): void {
  writeTexts(body, rewritten);
  if (rewritten.size === 0 || !Array.isArray(body.choices)) return;
  for (const choice of body.choices) if (isJsonObject(choice) && choice.logprobs) choice.logprobs = null;
}

function readUsage(usage: unknown): Usage | undefined {
  if (!isJsonObject(usage)) return undefined;
  const { prompt_tokens: input, completion_tokens: output } = usage;
  // No answer costs nothing: noughts stand where the provider told none.
  if (tokens(input) === 0 && tokens(output) === 0) return undefined;
  const cached = isJsonObject(usage.prompt_tokens_details) ? usage.prompt_tokens_details.cached_tokens : undefined;
  const reasoning = isJsonObject(usage.completion_tokens_details)
    ? usage.completion_tokens_details.reasoning_tokens
    : undefined;
  return {
    inputTokens: tokens(input),
    outputTokens: tokens(output),
    ...(typeof cached === 'number' && { cachedInputTokens: tokens(cached) }),
    ...(typeof reasoning === 'number' && { reasoningTokens: tokens(reasoning) }),
  };
}

function tokens(value: unknown): number {
  return typeof value === 'number' && value >= 0 && Number.isFinite(value) ? value : 0;
}

// --- Streams ------------------------------------------------------------------------------------------------------

function readEvent(data: string): StreamEvent {
  const event = emptyEvent();
  if (data === '[DONE]') {
    event.done = true;
    return event;
  }
  const body: unknown = JSON.parse(data);
  if (!isJsonObject(body)) throw new SyntaxError('an event must be an object');
  event.body = body;
  event.model = text(body.model);
  if (body.error) event.error = isJsonObject(body.error) ? String(body.error.message ?? 'error') : String(body.error);
  if (body.usage) event.usage = readUsage(body.usage);
  const choices = body.choices ? choicesOf(body) : NONE;
  event.usageOnly = Array.isArray(body.choices) && choices.length === 0 && isJsonObject(body.usage);
  event.bare = choices.length > 0 && !body.usage;
  choices.forEach((choice: unknown, i) => {
    if (isJsonObject(choice)) readChoice(event, choice);
    else readExtra(event, {}, choices as unknown as Json, `${i}`, 0);
  });
  for (const key in body) if (!REPLY_FACTS.has(key) && !EVENT_FACTS.has(key)) readExtra(event, {}, body, key, 0);
  return event;
}

/** What an event tells of itself beside a reply's facts. */
const EVENT_FACTS = new Set(['error', 'obfuscation']);

/** What a choice has beside its text, and tells nobody anything; log probabilities go with the text. */
const CHOICE_FIELDS = new Set([
  ...['index', 'delta', 'message', 'text', 'finish_reason', 'native_finish_reason', 'logprobs'],
]);

function skimEvents(events: string): 'plain' | 'done' | 'read' {
  const isRead =
    events.includes('"usage":{') ||
    events.includes('"usage": {') ||
    events.includes('"finish_reason":"') ||
    events.includes('"finish_reason": "') ||
    events.includes('"error"') ||
    events.includes('event:');
  if (isRead) return 'read';
  if (events.endsWith('[DONE]\n\n')) return 'done';
  return events.includes('[DONE]') ? 'read' : 'plain';
}

function numberOf({ index }: Json): number {
  return typeof index === 'number' ? index : 0;
}

function readChoice(event: StreamEvent, choice: Json): void {
  const index = numberOf(choice);
  if (typeof choice.finish_reason === 'string') {
    if (event.finished === NONE) event.finished = [];
    event.finished.push(`${index}`);
    event.bare = false;
  }
  const { delta } = choice;
  for (const said of [delta, choice.message]) {
    const tools = messageTools(said, `${index}`);
    if (tools.length > 0) event.tools = [...event.tools, ...tools];
  }
  readBeside(event, choice, index);
  for (const key in choice) if (!CHOICE_FIELDS.has(key)) readExtra(event, choice, choice, key, index);
  if (isJsonObject(delta)) for (const key in delta) readDelta(event, choice, delta, key, index);
  // Log probabilities repeat the text; beside text that is not there they would tell it unseen.
  if (choice.logprobs && !event.parts.some(({ channel, text: own }) => own !== '' && channel.startsWith(`${index}/`))) {
    choice.logprobs = null;
    event.isTrimmed = true;
  }
}

/** Some servers say the whole message beside, or in place of, the delta. */
function readBeside(event: StreamEvent, choice: Json, index: number): void {
  if ('message' in choice) {
    event.bare = false;
    if (isJsonObject(choice.delta)) {
      // It repeats what the deltas say, a prefix more each time: nothing could be held back in it.
      delete choice.message;
      event.isTrimmed = true;
    } else readUnknown(event, { choice, holder: choice, key: 'message', index, path: '' });
  }
  if (typeof choice.text === 'string') addPart(event, choice, choice, 'text', `${index}/choice-text`);
}

/** The delta's own fields that carry text, by the kind of channel. */
const TEXT_FIELDS: Record<string, string> = {
  content: 'text',
  refusal: 'refusal',
  reasoning_content: 'reasoning/reasoning_content',
  reasoning: 'reasoning/reasoning',
};

function readDelta(event: StreamEvent, choice: Json, delta: Json, key: string, index: number): void {
  const value = delta[key];
  if (value === null || value === undefined) return;
  const kind = TEXT_FIELDS[key];
  if (kind !== undefined && typeof value === 'string') addPart(event, choice, delta, key, `${index}/${kind}`);
  else if (key === 'role') event.bare = false;
  else if (key === 'tool_calls' && Array.isArray(value)) {
    value.forEach((call: unknown, i) => {
      if (isJsonObject(call)) readToolCall(event, choice, call, `${index}/tool-arguments/`, i);
      else readExtra(event, choice, value as unknown as Json, `${i}`, index);
    });
  } else if (key === 'reasoning_details' && Array.isArray(value)) {
    value.forEach((detail, position) => {
      readThought(
        event,
        { choice, holder: value as unknown as Json, key: `${position}`, index, path: `/${key}` },
        detail,
      );
    });
  } else if (key === 'function_call' && isJsonObject(value)) {
    event.bare &&= value.name === undefined;
    const channel = `${index}/tool-arguments/function`;
    readArguments(event, choice, { holder: value, key: 'arguments', channel, call: 0 });
  } else {
    event.bare = false;
    readUnknown(event, { choice, holder: delta, key, index, path: '' });
  }
}

/** A piece of a thought as OpenRouter streams it: the pieces of an `index` are one text. */
function readThought(event: StreamEvent, at: Unknown, detail: unknown): void {
  if (!isJsonObject(detail)) {
    readUnknown(event, at);
    return;
  }
  const thought = typeof detail.index === 'number' ? detail.index : Number(at.key);
  for (const key of Object.keys(detail)) {
    const isText = typeof detail[key] === 'string' && (key === 'text' || key === 'summary');
    if (isText) addPart(event, at.choice, detail, key, `${at.index}/thought/${thought}/${key}`);
    else if (!SEALS.has(key)) readUnknown(event, { ...at, holder: detail, key, path: `${at.path}/${at.key}` });
    else if (key === 'signature' || key === 'data') event.bare = false;
  }
}

/** Where a field that this dialect does not know stands. */
interface Unknown {
  choice: Json;
  holder: Json;
  key: string;
  index: number;
  /** JSON pointer of the holder inside the delta. */
  path: string;
}

/** Names under which providers stream text that goes on from event to event (`reasoning_details[0].text` and the like). */
const GOES_ON = new Set([
  'text',
  'content',
  'thinking',
  'summary',
  'transcript',
  'arguments',
  'input',
  'partial_json',
  'code',
  'output',
]);

/**
 * Strings in fields that this dialect does not know: under a name that says text each is a channel of its own; any other
 * (ids, types, signatures) is judged for itself.
 */
function readUnknown(event: StreamEvent, { choice, holder, key, index, path }: Unknown): void {
  const value = holder[key];
  const at = `${path}/${escapePointer(key)}`;
  if (typeof value === 'string' && GOES_ON.has(key)) addPart(event, choice, holder, key, `${index}/field${at}`);
  else if (typeof value === 'object' && value !== null) {
    for (const inner of Object.keys(value))
      readUnknown(event, { choice, holder: value as Json, key: inner, index, path: at });
  } else readExtra(event, choice, holder, key, index);
}

/** Every string inside a value, and every number that may be a card's, each judged for itself. */
function readExtra(event: StreamEvent, choice: Json, holder: Json, key: string, index: number): void {
  const value = holder[key];
  if (typeof value === 'string' || isLongNumber(value)) addPart(event, choice, holder, key, `${index}/extra`);
  else if (typeof value === 'object' && value !== null) {
    for (const inner of Object.keys(value)) readExtra(event, choice, value as Json, inner, index);
  }
}

/** What only names a call. */
const CALL_NAMES = new Set(['id', 'index', 'type']);

function readToolCall(event: StreamEvent, choice: Json, call: Json, channel: string, position: number): void {
  event.bare &&= call.id === undefined && call.type === undefined;
  const index = typeof call.index === 'number' ? call.index : position;
  const { function: called, custom } = call;
  if (isJsonObject(called)) {
    event.bare &&= called.name === undefined;
    readArguments(event, choice, { holder: called, key: 'arguments', channel: channel + index, call: index });
  }
  if (isJsonObject(custom))
    readArguments(event, choice, { holder: custom, key: 'input', channel: `${channel}${index}/custom`, call: index });
  for (const key in call) {
    const isName = CALL_NAMES.has(key) && typeof call[key] !== 'object';
    const isBody = (key === 'function' || key === 'custom') && isJsonObject(call[key]);
    if (!isName && !isBody) readOdd(event, choice, call, key);
  }
}

/** Where the arguments of a call stand, and which channel they are of. */
interface Arguments {
  holder: Json;
  key: string;
  channel: string;
  /** The call's place in the message. */
  call: number;
}

/** The arguments as text; some servers send an object where a string belongs. */
function readArguments(event: StreamEvent, choice: Json, { holder, key, channel, call }: Arguments): void {
  const index = numberOf(choice);
  for (const field in holder) {
    if (field === key && typeof holder[key] === 'string') addPart(event, choice, holder, key, channel);
    else if (field === key && isJsonObject(holder[key])) {
      event.bare = false;
      readUnknown(event, { choice, holder, key, index, path: `/tool_calls/${call}/function` });
    } else if (field !== 'name' || typeof holder.name !== 'string') readOdd(event, choice, holder, field);
  }
}

/** What does not belong there: an event that has it is not left out; `null` says nothing. */
function readOdd(event: StreamEvent, choice: Json, holder: Json, key: string): void {
  if (holder[key] !== null) event.bare = false;
  readExtra(event, choice, holder, key, numberOf(choice));
}

function addPart(event: StreamEvent, choice: Json, holder: Json, key: string, channel: string): void {
  const part: EventPart = {
    channel,
    text: String(holder[key]),
    isWhole: channel.endsWith('/extra'),
    set(replaced) {
      holder[key] = replaced;
      // What repeats or measures the text must not outlive it.
      if (choice.logprobs) choice.logprobs = null;
      if (event.body && 'obfuscation' in event.body) delete event.body.obfuscation;
    },
  };
  if (event.parts === NONE) event.parts = [part];
  else event.parts.push(part);
}

function textEvent(like: Json, channel: string, value: string): Json {
  const [index = '0', kind, call, ...path] = channel.split('/');
  const place =
    kind === 'choice-text'
      ? { text: value }
      : { delta: kind === 'field' ? nested([call ?? '', ...path], value) : deltaFor(kind, call, value, channel) };
  return { ...eventHead(like), choices: [{ index: Number(index), ...place, finish_reason: null }] };
}

/** What every event of a stream repeats. */
function eventHead({ id, object, created, model, system_fingerprint }: Json): Json {
  return { id, object, created, model, ...(system_fingerprint !== undefined && { system_fingerprint }) };
}

/** The field that a pointer's keys name, with the value in it. */
function nested(keys: string[], value: string): Json {
  const [key = '', ...rest] = keys;
  const inner: unknown = rest.length === 0 ? value : nested(rest, value);
  const name = unescapePointer(key);
  if (rest.length === 0 || !/^\d+$/.test(rest[0] ?? '')) return { [name]: inner };
  const list: unknown[] = [];
  for (let i = 0; i < Math.min(Number(rest[0]), 16); i += 1) list.push({});
  list.push((inner as Json)[rest[0] ?? '']);
  return { [name]: list };
}

function deltaFor(kind: string | undefined, call: string | undefined, value: string, channel: string): Json {
  if (kind === 'thought') {
    const key = channel.endsWith('/summary') ? 'summary' : 'text';
    return { reasoning_details: [{ type: `reasoning.${key}`, [key]: value, index: Number(call) }] };
  }
  if (kind === 'reasoning' && call !== undefined) return { [call]: value };
  if (kind === 'refusal') return { refusal: value };
  if (kind !== 'tool-arguments') return { content: value };
  if (call === 'function') return { function_call: { arguments: value } };
  if (channel.endsWith('/custom')) return { tool_calls: [{ index: Number(call), custom: { input: value } }] };
  return { tool_calls: [{ index: Number(call), function: { arguments: value } }] };
}

// --- Quotas -------------------------------------------------------------------------------------------------------

/** Tells an answer that a quota cut apart from one that the model's own limit cut. */
const LIMITED = {
  code: 'quota_exhausted',
  message: 'The answer was cut because your quota is used up. Ask again when it is there again.',
};

function limitOutput(body: Json, most: number, field: OutputLimitField): void {
  const given = boundsOf(body);
  for (const one of given.length === 0 ? [field] : given) {
    const own = body[one];
    body[one] = isBound(own) ? Math.min(own, most) : most;
  }
}

function markLimited(body: Json): boolean {
  if (!Array.isArray(body.choices)) return false;
  const cut = body.choices.filter((choice) => isJsonObject(choice) && choice.finish_reason === 'length') as Json[];
  for (const choice of cut) choice.wardgate = LIMITED;
  return cut.length > 0;
}

function cutShort(like: Json, choices: string[], usage: Usage | undefined): string {
  const head = eventHead(like);
  const ended = choices.map((index) => ({
    index: Number(index),
    delta: {},
    finish_reason: 'length',
    wardgate: LIMITED,
  }));
  const events: Json[] = [{ ...head, choices: ended }];
  if (usage !== undefined) events.push({ ...head, choices: [], usage: writtenUsage(usage) });
  return `${events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join('')}data: [DONE]\n\n`;
}

function writtenUsage({ inputTokens, outputTokens }: Usage): Json {
  return {
    prompt_tokens: inputTokens,
    completion_tokens: outputTokens,
    total_tokens: inputTokens + outputTokens,
  };
}

// --- Errors -------------------------------------------------------------------------------------------------------

function errorBody({ message, type, code, param }: ErrorShape): string {
  return JSON.stringify({ error: { message, type, param: param ?? null, code } });
}

// --- JSON ---------------------------------------------------------------------------------------------------------

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
