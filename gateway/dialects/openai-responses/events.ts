/**
 * The guard's face of a streamed response.
 * Source: https://platform.openai.com/docs/api-reference/responses-streaming. Text comes in `….delta` events; `….done`
 * events, the ends of parts and items and the last event, which holds the whole response, say it again.
 */
import { objectOf, textOf } from '../../hub/fields.ts';
import { isJsonObject } from '../../json.ts';
import { type EventPart, emptyEvent, type Json, NONE, type StreamEvent } from '../dialect.ts';
import { isLongNumber } from '../segments.ts';
import { isCall, itemTools, TOLD, UNREAD } from './items.ts';
import { isSealed, unseal } from './seals.ts';
import { readUsage } from './usage.ts';

/** Frames an event's object, with its type as the name of the event. */
export function frame(body: Json): string {
  const name = textOf(body.type) ?? '';
  return `${/^[\w.]+$/.test(name) ? `event: ${name}\n` : ''}data: ${JSON.stringify(body)}\n\n`;
}

/** Reads the data of one event; throws a SyntaxError when it is not a JSON object. */
export function readEvent(data: string): StreamEvent {
  const event = emptyEvent();
  // No mark of this format, but some servers send it after the last event.
  if (data === '[DONE]') return event;
  const body: unknown = JSON.parse(data);
  if (!isJsonObject(body)) throw new SyntaxError('an event must be an object');
  event.body = body;
  const type = textOf(body.type) ?? '';
  if (type === 'error' || body.error) event.error = messageOf(body.error ?? body);
  else if (/^response\.[a-z_]+$/.test(type) || isJsonObject(body.response)) readResponse(event, type, body);
  else if (isJsonObject(body.item)) readItem(event, body, body.item, type.endsWith('.done'));
  else if (isJsonObject(body.part)) readPart(event, body, body.part, type.endsWith('.done'));
  else if (type.endsWith('.delta') && typeof body.delta === 'string') readDelta(event, body, type);
  else if (type.endsWith('.done')) readEnd(event, body, type);
  else readBeside(event, body, () => false);
  return event;
}

function messageOf(error: unknown): string {
  return textOf(error) ?? textOf(objectOf(error)?.message) ?? 'error';
}

// --- The response itself ------------------------------------------------------------------------------------------

/** The beginning, the state and the end of an answer: events that hold the whole response. */
function readResponse(event: StreamEvent, type: string, body: Json): void {
  const response = objectOf(body.response) ?? {};
  event.model = textOf(response.model);
  event.usage = readUsage(response.usage);
  if (response.error || type === 'response.failed' || type === 'response.cancelled') {
    event.error = messageOf(response.error);
  }
  if (type === 'response.completed' || type === 'response.incomplete') {
    event.finished = ['0'];
    event.done = true;
  }
  // A copy of all texts in one, which the official servers do not send.
  if ('output_text' in response) {
    delete response.output_text;
    event.isTrimmed = true;
  }
  readBeside(event, body, (key) => key === 'response' && isJsonObject(body.response));
  readBeside(event, response, (key) => TOLD.has(key));
  if (Array.isArray(response.output)) readOutput(event, response.output);
  else if ('output' in response && response.output !== null) {
    delete response.output;
    event.isTrimmed = true;
  }
}

function readOutput(event: StreamEvent, output: unknown[]): void {
  const sealed: Json[] = [];
  // What is no item is nobody's.
  readBeside(event, output as unknown as Json, (key) => isJsonObject(output[Number(key)]));
  output.forEach((item, i) => {
    if (!isJsonObject(item)) return;
    addTools(event, itemTools(item, i));
    const before = event.repeats.length;
    walk({ event, index: i, isRepeat: true }, item, []);
    if (!isSealed(item)) return;
    sealed.push(item);
    event.closed = [...event.closed, ...channelsOf(event, before)];
  });
  if (sealed.length > 0) event.unseal = () => sealed.forEach(unseal);
}

/** The channels of the repeats from one on. */
function channelsOf({ repeats }: StreamEvent, from: number): string[] {
  return repeats.slice(from).flatMap(({ channels }) => channels);
}

// --- Items and parts ----------------------------------------------------------------------------------------------

/** What is known of the event whose strings are read. */
interface Walk {
  event: StreamEvent;
  /** The item's place in the output. */
  index: number;
  /** Whether it says again what deltas have said. */
  isRepeat: boolean;
}

function readItem(event: StreamEvent, body: Json, item: Json, isRepeat: boolean): void {
  const index = indexOf(body.output_index);
  addTools(event, itemTools(item, index));
  walk({ event, index, isRepeat }, item, []);
  readBeside(event, body, (key) => key === 'item');
  if (!isRepeat) return;
  event.closed = channelsOf(event, 0);
  if (isSealed(item)) event.unseal = () => unseal(item);
}

function readPart(event: StreamEvent, body: Json, part: Json, isRepeat: boolean): void {
  const isSummary = body.summary_index !== undefined;
  const place = isSummary
    ? ['summary', `${indexOf(body.summary_index)}`]
    : ['content', `${indexOf(body.content_index)}`];
  walk({ event, index: indexOf(body.output_index), isRepeat }, part, place);
  readBeside(event, body, (key) => key === 'part');
  if (isRepeat) event.closed = channelsOf(event, 0);
}

function addTools(event: StreamEvent, tools: StreamEvent['tools']): void {
  if (tools.length > 0) event.tools = [...event.tools, ...tools];
}

/**
 * Every string of an item, or of a part of it at `path`: text of a channel where deltas bring it as well, else judged for
 * itself. Ids and the like are no text.
 */
function walk(about: Walk, holder: Json, path: string[]): void {
  for (const key of Object.keys(holder)) {
    const value = holder[key];
    const at = [...path, key];
    if (typeof value === 'string') readString(about, holder, key, at);
    else if (isLongNumber(value)) addPart(about.event, holder, key, '0/extra');
    else if (typeof value === 'object' && value !== null && !UNREAD.has(key)) walk(about, value as Json, at);
  }
}

function readString({ event, index, isRepeat }: Walk, holder: Json, key: string, path: string[]): void {
  const channel = channelAt(path.join('/'), holder, index);
  if (channel !== undefined && isRepeat) addRepeat(event, holder, key, channel);
  else if (channel !== undefined) addPart(event, holder, key, channel);
  else if (!UNREAD.has(key) && !isPicture(key, holder) && !(key === 'name' && isCall(holder))) {
    addPart(event, holder, key, '0/extra');
  }
}

/** What a picture is made of. */
function isPicture(key: string, holder: Json): boolean {
  return key === 'partial_image_b64' || (key === 'result' && holder.type === 'image_generation_call');
}

/** Places in an item whose text is streamed, and the channels that they belong to; `$I` is the item's place. */
const CHANNELS: [RegExp, string][] = [
  [/^content\/(\d+)\/text$/, '0/text/$I/$1'],
  [/^content\/(\d+)\/refusal$/, '0/refusal/$I/$1'],
  [/^summary\/(\d+)\/text$/, '0/reasoning/$I/summary/$1'],
  [/^arguments$/, '0/tool-arguments/$I'],
  [/^input$/, '0/tool-arguments/$I/custom'],
  [/^code$/, '0/field/$I/0/code_interpreter_call_code'],
  [/^operation\/diff$/, '0/field/$I/0/apply_patch_call_operation_diff'],
  [/^action\/commands\/(\d+)$/, '0/field/$I/$1/shell_call_command'],
];

function channelAt(path: string, holder: Json, index: number): string | undefined {
  for (const [pattern, channel] of CHANNELS) {
    const found = pattern.exec(path);
    if (found === null) continue;
    const number = found[1] ?? '0';
    if (holder.type === 'reasoning_text') return `0/reasoning/${index}/content/${number}`;
    return channel.replace('$I', `${index}`).replace('$1', number);
  }
  return undefined;
}

// --- Deltas and their ends ----------------------------------------------------------------------------------------

/** The kinds of text, by the event's name between `response.` and `.delta` or `.done`. */
const KINDS: Record<string, (item: number, part: number) => string> = {
  output_text: (item, part) => `0/text/${item}/${part}`,
  refusal: (item, part) => `0/refusal/${item}/${part}`,
  reasoning_text: (item, part) => `0/reasoning/${item}/content/${part}`,
  reasoning_summary_text: (item, part) => `0/reasoning/${item}/summary/${part}`,
  function_call_arguments: (item) => `0/tool-arguments/${item}`,
  mcp_call_arguments: (item) => `0/tool-arguments/${item}`,
  custom_tool_call_input: (item) => `0/tool-arguments/${item}/custom`,
};

function channelOf(body: Json, type: string): string {
  const name = type.replace(/^response\./, '').replace(/\.[a-z]+$/, '');
  const item = indexOf(body.output_index);
  const part = indexOf(body.content_index ?? body.summary_index ?? body.command_index);
  return Object.hasOwn(KINDS, name) ? KINDS[name]!(item, part) : `0/field/${item}/${part}/${name}`;
}

function readDelta(event: StreamEvent, body: Json, type: string): void {
  const channel = channelOf(body, type);
  event.bare = true;
  // Arguments of a call that nobody has announced are for nobody knows what.
  if (channel.includes('/tool-arguments/')) event.tools = [{ call: channel.replace('/custom', ''), name: undefined }];
  addPart(event, body, 'delta', channel);
  if (body.delta === '') trim(event, body);
  readBeside(event, body, (key) => key === 'delta');
}

/** Fields in which the end of a text says it again. */
const REPEATED = ['text', 'refusal', 'arguments', 'input', 'code', 'command', 'diff', 'transcript'];

function readEnd(event: StreamEvent, body: Json, type: string): void {
  const channel = channelOf(body, type);
  const said = REPEATED.find((field) => typeof body[field] === 'string') ?? '';
  event.closed = [channel];
  if (said !== '') addRepeat(event, body, said, channel);
  if (typeof body.text !== 'string' || body.text === '') trim(event, body);
  readBeside(event, body, (key) => key === said);
}

/** Fields of an event that carry no text. */
const NAMES = new Set(['type', 'item_id', 'obfuscation', 'partial_image_b64']);

/** What stands beside the fields that were read, and all of an event that this dialect does not know. */
function readBeside(event: StreamEvent, holder: Json, isRead: (key: string) => boolean): void {
  for (const key of Object.keys(holder)) {
    if (NAMES.has(key) || UNREAD.has(key) || isRead(key)) continue;
    const value = holder[key];
    if (typeof value === 'string' || isLongNumber(value)) addPart(event, holder, key, '0/extra');
    else if (typeof value === 'object' && value !== null) {
      const channel = channelOf(holder, textOf(holder.type) ?? '');
      readUnknown(event, value as Json, `${channel}/${key}`);
    }
  }
}

/** Log probabilities repeat the text; beside text that is not there they would tell it unseen. */
function trim(event: StreamEvent, holder: Json): void {
  if (!Array.isArray(holder.logprobs) || holder.logprobs.length === 0) return;
  holder.logprobs = [];
  event.isTrimmed = true;
}

/** Strings of an object that this dialect does not know: in a delta they may go on in the next one. */
function readUnknown(event: StreamEvent, holder: Json, path: string): void {
  for (const key of Object.keys(holder)) {
    const value = holder[key];
    const goesOn = path.includes('/delta') && /\.delta$/.test(textOf(event.body?.type) ?? '');
    if (typeof value === 'string') {
      if (!UNREAD.has(key)) addPart(event, holder, key, goesOn ? `${path}/${key}` : '0/extra');
    } else if (isLongNumber(value)) addPart(event, holder, key, '0/extra');
    else if (typeof value === 'object' && value !== null && !UNREAD.has(key)) {
      readUnknown(event, value as Json, `${path}/${key}`);
    }
  }
}

function indexOf(value: unknown): number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : 0;
}

function addPart(event: StreamEvent, holder: Json, key: string, channel: string): void {
  const part: EventPart = {
    channel,
    text: String(holder[key]),
    isWhole: channel === '0/extra',
    set: (text) => rewrite(event, holder, key, text),
  };
  if (event.parts === NONE) event.parts = [part];
  else event.parts.push(part);
}

function addRepeat(event: StreamEvent, holder: Json, key: string, channel: string): void {
  const set = (text: string) => rewrite(event, holder, key, text);
  event.repeats = [...event.repeats, { channels: [channel], text: holder[key] as string, set }];
}

/** What repeats or measures the text must not outlive it. */
function rewrite({ body }: StreamEvent, holder: Json, key: string, text: string): void {
  holder[key] = text;
  if (holder.logprobs) holder.logprobs = [];
  if (body && 'obfuscation' in body) delete body.obfuscation;
}

// --- Events of the gateway's own ----------------------------------------------------------------------------------

/**
 * What events of the gateway's own have to repeat: the response as it began, the ids of its items by their places, and
 * the number of the last event.
 */
export function remember(like: Json, body: Json): Json {
  const { response: head, items } = like as { response?: Json; items?: Map<number, string> };
  const { output: _output, ...response } = objectOf(body.response) ?? {};
  const known = items ?? new Map<number, string>();
  const isKnown = head?.id !== undefined;
  const id = textOf(body.item_id) ?? textOf(objectOf(body.item)?.id);
  if (id !== undefined && known.size < MAX_ITEMS) known.set(indexOf(body.output_index), id);
  return { response: isKnown ? head : response, items: known, sequence_number: body.sequence_number };
}

/** The most items of an answer whose ids are kept. */
const MAX_ITEMS = 1_024;

/** A delta for text that was held when its channel ended. */
export function textEvent(like: Json, channel: string, text: string): Json {
  const [, kind = '', item = '0', ...rest] = channel.split('/');
  const items = like.items as Map<number, string> | undefined;
  const place = { item_id: items?.get(Number(item)) ?? '', output_index: Number(item) };
  return { ...deltaFor(kind, rest, text), ...place, sequence_number: like.sequence_number ?? 0 };
}

function deltaFor(kind: string, [first = '0', second = '0', ...inner]: string[], delta: string): Json {
  switch (kind) {
    case 'text':
      return { type: 'response.output_text.delta', content_index: Number(first), delta, logprobs: [] };
    case 'refusal':
      return { type: 'response.refusal.delta', content_index: Number(first), delta };
    case 'reasoning':
      return first === 'summary'
        ? { type: 'response.reasoning_summary_text.delta', summary_index: Number(second), delta }
        : { type: 'response.reasoning_text.delta', content_index: Number(second), delta };
    case 'tool-arguments':
      return first === 'custom'
        ? { type: 'response.custom_tool_call_input.delta', delta }
        : { type: 'response.function_call_arguments.delta', delta };
    default:
      return { type: `response.${second}.delta`, content_index: Number(first), delta: nested(inner.slice(1), delta) };
  }
}

/** The field that the keys lead to, with the text in it. */
function nested(keys: string[], text: string): unknown {
  return keys.reduceRight<unknown>((inner, key) => ({ [key]: inner }), text);
}

/** What a run of events is, by a look at its text; what only sounds like an end is read all the same. */
export function skimEvents(text: string): 'plain' | 'read' {
  return /response\.(?:completed|incomplete|failed|cancelled)|"error"|event: ?error|"usage":/.test(text)
    ? 'read'
    : 'plain';
}
