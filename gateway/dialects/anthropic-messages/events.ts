/** What guards see of a streamed message: its text by channels, one for each block. */
import { isJsonObject } from '../../json.ts';
import { type EventPart, emptyEvent, type Json, NONE, type StreamEvent } from '../dialect.ts';
import { escapePointer, isLongNumber, unescapePointer } from '../segments.ts';
import { readUsage } from './usage.ts';

/** Reads the data of one event; throws a SyntaxError when it is none. */
export function readEvent(data: string): StreamEvent {
  const body: unknown = JSON.parse(data);
  if (!isJsonObject(body)) throw new SyntaxError('an event must be an object');
  const event = emptyEvent();
  event.body = body;
  const known = typeof body.type === 'string' ? EVENTS.get(body.type) : undefined;
  const inner = known?.field === undefined ? undefined : body[known.field];
  known?.read(event, isJsonObject(inner) ? inner : {}, indexOf(body));
  if (isJsonObject(body.usage)) event.usage = readUsage(body.usage);
  for (const key of Object.keys(body)) {
    if (EVENT_FIELDS.has(key) || (key === known?.field && isJsonObject(inner))) continue;
    event.bare = false;
    readUnknownField(event, body, key);
  }
  return event;
}

/** What every event may say of itself. */
const EVENT_FIELDS = new Set(['type', 'index', 'usage', 'request_id']);

interface KnownEvent {
  /** Where it holds what it tells. */
  field?: string;
  /** Reads what stands there. */
  read(event: StreamEvent, inner: Json, index: number): void;
}

/** The events by type. */
const EVENTS = new Map<string, KnownEvent>([
  ['message_start', { field: 'message', read: readStart }],
  ['content_block_start', { field: 'content_block', read: readBlockStart }],
  ['content_block_delta', { field: 'delta', read: readBlockDelta }],
  ['content_block_stop', { read: readBlockStop }],
  ['message_delta', { field: 'delta', read: readEnd }],
  ['message_stop', { read: readStop }],
  ['error', { field: 'error', read: readError }],
]);

const HEAD_FIELDS = new Set(['usage', 'model', 'role']);

function readStart(event: StreamEvent, message: Json): void {
  event.usage = readUsage(message.usage);
  if (typeof message.model === 'string') event.model = message.model;
  readUnknown(event, message, HEAD_FIELDS);
}

function readBlockStart(event: StreamEvent, block: Json, index: number): void {
  const { type } = block;
  if (typeof type === 'string' && type.endsWith('tool_use')) {
    event.tools = [
      { call: `0/tool-arguments/${index}`, name: typeof block.name === 'string' ? block.name : undefined },
    ];
  }
  for (const key of Object.keys(block)) {
    const channel = type === key ? BLOCK_TEXTS.get(key) : undefined;
    if (channel !== undefined && typeof block[key] === 'string') addPart(event, block, key, `0/${channel}/${index}`);
    else if (key === 'input') readInput(event, block, key);
    else if (!isOpaque(block, key) && key !== 'name') readUnknownField(event, block, key);
  }
}

/** Arguments that come whole: an `id` among them is the model's word, and no name of the vendor's. */
function readInput(event: StreamEvent, holder: Json, key: string): void {
  const value = holder[key];
  if (typeof value !== 'object' || value === null) readUnknownField(event, holder, key);
  else for (const inner of Object.keys(value)) readInput(event, value as Json, inner);
}

/** The fields of blocks whose text goes on in deltas: they are named as their type is. */
const BLOCK_TEXTS = new Map([
  ['text', 'text'],
  ['thinking', 'reasoning'],
]);

/** The deltas that carry text, with its field and the kind of channel. */
const DELTAS = new Map<unknown, { field: string; kind: string }>([
  ['text_delta', { field: 'text', kind: 'text' }],
  ['thinking_delta', { field: 'thinking', kind: 'reasoning' }],
  ['input_json_delta', { field: 'partial_json', kind: 'tool-arguments' }],
]);

function readBlockDelta(event: StreamEvent, delta: Json, index: number): void {
  const known = DELTAS.get(delta.type);
  event.bare = known !== undefined;
  if (known?.kind === 'tool-arguments') event.tools = [{ call: `0/tool-arguments/${index}`, name: undefined }];
  if (delta.type === 'signature_delta') readSignature(event, delta, index);
  for (const key of Object.keys(delta)) {
    if (known?.field === key && typeof delta[key] === 'string') addPart(event, delta, key, `0/${known.kind}/${index}`);
    else if (isOpaque(delta, key)) continue;
    else {
      event.bare = false;
      readUnknownField(event, delta, key, known === undefined ? goingOn(delta, index) : undefined);
    }
  }
}

/** Where the strings of a delta of an unknown type go on; undefined where it has none. */
function goingOn({ type }: Json, index: number): string | undefined {
  return typeof type === 'string' ? `0/field/${index}/${escapePointer(type)}` : undefined;
}

/** It seals the thoughts before it, so they end here; where a guard changed them, it would be a lie. */
function readSignature(event: StreamEvent, delta: Json, index: number): void {
  event.closed = [`0/reasoning/${index}`];
  event.unseal = () => {
    delta.signature = '';
  };
}

function readBlockStop(event: StreamEvent, _inner: Json, index: number): void {
  event.closed = ['text', 'reasoning', 'tool-arguments'].map((kind) => `0/${kind}/${index}`);
}

const END_FIELDS = new Set(['stop_reason', 'stop_sequence']);

function readEnd(event: StreamEvent, delta: Json): void {
  if (typeof delta.stop_reason === 'string') event.finished = ['0'];
  readUnknown(event, delta, END_FIELDS);
}

function readStop(event: StreamEvent): void {
  event.done = true;
}

function readError(event: StreamEvent, { message }: Json): void {
  event.error = typeof message === 'string' ? message : 'error';
}

function indexOf({ index }: Json): number {
  return typeof index === 'number' ? index : 0;
}

// --- What this dialect does not know --------------------------------------------------------------------------------

/** Fields that no person reads and that no guard may change: ids, types, and what the vendor has sealed. */
const OPAQUE = new Set(['type', 'id', 'tool_use_id', 'signature', 'encrypted_content', 'encrypted_index']);

/** Whether a field of a block or of a delta is sealed, or the name of something. */
export function isOpaque(holder: Json, key: string): boolean {
  return OPAQUE.has(key) || (key === 'data' && holder.type === 'redacted_thinking');
}

/** Every string of an object but those of some fields, each judged for itself. */
function readUnknown(event: StreamEvent, holder: Json, except: ReadonlySet<string> = NO_FIELDS): void {
  for (const key of Object.keys(holder)) {
    if (!isOpaque(holder, key) && !except.has(key)) readUnknownField(event, holder, key);
  }
}

const NO_FIELDS: ReadonlySet<string> = new Set();

/** `channel` is where a string of the holder's own goes on from event to event. */
function readUnknownField(event: StreamEvent, holder: Json, key: string, channel?: string): void {
  const value = holder[key];
  if (typeof value === 'string') {
    addPart(event, holder, key, channel === undefined ? '0/extra' : `${channel}/${escapePointer(key)}`);
  } else if (isLongNumber(value)) addPart(event, holder, key, '0/extra');
  else if (typeof value === 'object' && value !== null) readUnknown(event, value as Json);
}

function addPart(event: StreamEvent, holder: Json, key: string, channel: string): void {
  const part: EventPart = {
    channel,
    text: String(holder[key]),
    isWhole: channel === '0/extra',
    set(replaced) {
      holder[key] = replaced;
    },
  };
  if (event.parts === NONE) event.parts = [part];
  else event.parts.push(part);
}

// --- Events of the gateway's own ------------------------------------------------------------------------------------

/** An event for text that was held when its channel ended. */
export function textEvent(_like: Json, channel: string, text: string): Json {
  const [, kind = '', index = '0', type = '', field = ''] = channel.split('/');
  return { type: 'content_block_delta', index: Number(index), delta: deltaOf(kind, text, type, field) };
}

function deltaOf(kind: string, text: string, type: string, field: string): Json {
  for (const [name, known] of DELTAS) if (known.kind === kind) return { type: name, [known.field]: text };
  return kind === 'field'
    ? { type: unescapePointer(type), [unescapePointer(field)]: text }
    : { type: 'text_delta', text };
}

/** A run of events that carry text alone, as the vendor writes them, and the one that ends a stream. */
const PLAIN =
  /^(?:event: (?:content_block_delta|ping)\ndata: \{"type": ?"(?:content_block_delta|ping)"[^\r\n]*\n\n)*(?<stop>event: message_stop\ndata: \{"type": ?"message_stop"[^\r\n]*\n\n)?$/;

/** The longest run that is looked at so, in characters: the expression remembers its way through it. */
const MAX_RUN = 65_536;

/** What a run of events is, by a look at its text. */
export function skimEvents(text: string): 'plain' | 'done' | 'read' {
  const found = text.length > MAX_RUN ? null : PLAIN.exec(text);
  if (found === null) return 'read';
  return found.groups?.stop === undefined ? 'plain' : 'done';
}
