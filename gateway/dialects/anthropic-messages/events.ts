/** What guards see of a streamed message: its text by channels, one for each block. */
import { isJsonObject } from '../../json.ts';
import { type EventPart, emptyEvent, type Json, NONE, type StreamEvent } from '../dialect.ts';
import { escapePointer, unescapePointer } from '../segments.ts';
import { readUsage } from './usage.ts';

/** Reads the data of one event; throws a SyntaxError when it is none. */
export function readEvent(data: string): StreamEvent {
  const body: unknown = JSON.parse(data);
  if (!isJsonObject(body)) throw new SyntaxError('an event must be an object');
  const event = emptyEvent();
  event.body = body;
  const read = typeof body.type === 'string' ? EVENTS.get(body.type) : undefined;
  if (read === undefined) readUnknown(event, body);
  else read(event, body);
  return event;
}

/** The events by type. */
const EVENTS = new Map<string, (event: StreamEvent, body: Json) => void>([
  ['message_start', readStart],
  ['content_block_start', readBlockStart],
  ['content_block_delta', readBlockDelta],
  ['content_block_stop', readBlockStop],
  ['message_delta', readEnd],
  ['message_stop', readStop],
  ['ping', () => {}],
  ['error', readError],
]);

function readStart(event: StreamEvent, { message }: Json): void {
  if (!isJsonObject(message)) return;
  event.usage = readUsage(message.usage);
  if (typeof message.model === 'string') event.model = message.model;
  const { usage: _usage, model: _model, role: _role, ...said } = message;
  readUnknown(event, said);
}

function readBlockStart(event: StreamEvent, body: Json): void {
  const { content_block: block } = body;
  if (!isJsonObject(block)) {
    readUnknown(event, body);
    return;
  }
  const index = indexOf(body);
  const { type } = block;
  if (typeof type === 'string' && type.endsWith('tool_use')) {
    event.tools = [
      { call: `0/tool-arguments/${index}`, name: typeof block.name === 'string' ? block.name : undefined },
    ];
  }
  for (const key of Object.keys(block)) {
    const channel = type === key ? BLOCK_TEXTS[key] : undefined;
    if (channel !== undefined && typeof block[key] === 'string') addPart(event, block, key, `0/${channel}/${index}`);
    else if (!isOpaque(block, key) && key !== 'name') readUnknownField(event, block, key);
  }
}

/** The fields of blocks whose text goes on in deltas: they are named as their type is. */
const BLOCK_TEXTS: Readonly<Record<string, string>> = { text: 'text', thinking: 'reasoning' };

/** The deltas that carry text, with its field and the kind of channel. */
const DELTAS = new Map<unknown, { field: string; kind: string }>([
  ['text_delta', { field: 'text', kind: 'text' }],
  ['thinking_delta', { field: 'thinking', kind: 'reasoning' }],
  ['input_json_delta', { field: 'partial_json', kind: 'tool-arguments' }],
]);

function readBlockDelta(event: StreamEvent, body: Json): void {
  const { delta } = body;
  if (!isJsonObject(delta)) {
    readUnknown(event, body);
    return;
  }
  const index = indexOf(body);
  const known = DELTAS.get(delta.type);
  event.bare = known !== undefined;
  if (known?.kind === 'tool-arguments') event.tools = [{ call: `0/tool-arguments/${index}`, name: undefined }];
  if (delta.type === 'signature_delta') readSignature(event, delta, index);
  for (const key of Object.keys(delta)) {
    if (known?.field === key && typeof delta[key] === 'string') addPart(event, delta, key, `0/${known.kind}/${index}`);
    else if (isOpaque(delta, key)) continue;
    else {
      event.bare = false;
      readUnknownField(event, delta, key, known === undefined ? `0/field/${index}/${String(delta.type)}` : undefined);
    }
  }
}

/** It seals the thoughts before it, so they end here; where a guard changed them, it would be a lie. */
function readSignature(event: StreamEvent, delta: Json, index: number): void {
  event.closed = [`0/reasoning/${index}`];
  event.unseal = () => {
    delta.signature = '';
  };
}

function readBlockStop(event: StreamEvent, body: Json): void {
  const index = indexOf(body);
  event.closed = ['text', 'reasoning', 'tool-arguments'].map((kind) => `0/${kind}/${index}`);
}

function readEnd(event: StreamEvent, { delta, usage }: Json): void {
  event.usage = readUsage(usage);
  if (!isJsonObject(delta)) return;
  const { stop_reason: reason, stop_sequence: _sequence, ...said } = delta;
  if (typeof reason === 'string') event.finished = ['0'];
  readUnknown(event, said);
}

function readStop(event: StreamEvent): void {
  event.done = true;
}

function readError(event: StreamEvent, { error }: Json): void {
  event.error = isJsonObject(error) && typeof error.message === 'string' ? error.message : 'error';
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

/** Every string of an object, each judged for itself. */
function readUnknown(event: StreamEvent, holder: Json): void {
  for (const key of Object.keys(holder)) if (!isOpaque(holder, key)) readUnknownField(event, holder, key);
}

/** `channel` is where a string of the holder's own goes on from event to event. */
function readUnknownField(event: StreamEvent, holder: Json, key: string, channel?: string): void {
  const value = holder[key];
  if (typeof value === 'string') {
    addPart(event, holder, key, channel === undefined ? '0/extra' : `${channel}/${escapePointer(key)}`);
  } else if (typeof value === 'object' && value !== null) readUnknown(event, value as Json);
}

function addPart(event: StreamEvent, holder: Json, key: string, channel: string): void {
  const part: EventPart = {
    channel,
    text: holder[key] as string,
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
  return kind === 'field' ? { type, [unescapePointer(field)]: text } : { type: 'text_delta', text };
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
