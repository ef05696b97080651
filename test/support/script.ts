/** What a test tells the scripted upstream to do with one request, and how that becomes pieces of bytes. */
import { cutAt } from './cuts.ts';
import { Gate } from './gate.ts';

/**
 * One thing in a stream: an object goes out as `data: <JSON>` and a blank line, a string or bytes go out as they are,
 * and at a gate the upstream sends nothing until the test opens it.
 */
export type StreamItem = object | string | Buffer | Gate;

/** How bytes are cut into writes: each event, each byte, as few as can be, at absolute offsets, or by a function. */
export type Chunking = 'event' | 'byte' | 'whole' | number[] | ((bytes: Buffer) => Buffer[]);

/** How a body goes out. */
export interface BodyScript {
  /** `event` by default. What is not cut by event or byte is joined up to the next gate and cut then. */
  chunking?: Chunking;
  /** Time between two writes in milliseconds; 0 by default. */
  paceMs?: number;
  /** Breaks the connection after this many bytes of the body; with `end: 'reset'` by a reset. */
  cutAfterBytes?: number;
}

/** A stream of events. The items may come from a generator, so that a huge answer need not be held. */
export interface StreamScript extends BodyScript {
  events: Iterable<StreamItem>;
  /** After this many events nothing is sent until the test calls the request's `release()`. */
  stallAfterEvents?: number;
  /**
   * `done` (default) adds `data: [DONE]` and ends; `close-without-done` ends as HTTP should, without it; `cut` drops the
   * connection in the middle of the body; `reset` does so by a TCP reset; `open` ends nothing until `release()`.
   */
  end?: 'done' | 'close-without-done' | 'cut' | 'reset' | 'open';
}

/** What comes before the body. */
interface OpeningScript {
  /** 200 by default. */
  status?: number;
  headers?: Record<string, string | string[]>;
  /** `application/json` by default, `text/event-stream` for a stream. */
  contentType?: string;
  /** Time between the request's end and the answer's headers in milliseconds; 0 by default. */
  latencyMs?: number;
  /** The headers are not sent before this gate opens. */
  after?: Gate;
  /** The request's body is not read before this gate opens. */
  readBodyAfter?: Gate;
  /** Answers without waiting for the request's body. */
  early?: boolean;
}

/**
 * One answer: `whole` has a Content-Length; `raw` goes to the socket in place of HTTP, which is then closed;
 * `fault` resets or closes the connection before any headers, or keeps silent until `release()` and then closes.
 */
export type Script = OpeningScript &
  (
    | (BodyScript & { whole: object | string | Buffer })
    | { stream: StreamScript }
    | { raw: string | Buffer }
    | { fault: 'reset' | 'close' | 'silence' }
  );

/** The bytes of one item. */
function bytesOf(item: object | string | Buffer): Buffer {
  if (Buffer.isBuffer(item)) return item;
  return Buffer.from(typeof item === 'string' ? item : `data: ${JSON.stringify(item)}\n\n`);
}

/** The bytes of a whole body. */
export function bytesOfWhole(whole: object | string | Buffer): Buffer {
  return typeof whole === 'string' || Buffer.isBuffer(whole) ? bytesOf(whole) : Buffer.from(JSON.stringify(whole));
}

/** A stream's items with the stall and the end that its script asks for; `released` is the gate of `release()`. */
export function* itemsOf(
  { events, stallAfterEvents, end = 'done' }: StreamScript,
  released: Gate,
): Iterable<StreamItem> {
  let sent = 0;
  if (stallAfterEvents === 0) yield released;
  for (const item of events) {
    yield item;
    if (item instanceof Gate) continue;
    sent += 1;
    if (sent === stallAfterEvents) yield released;
  }
  if (end === 'done') yield 'data: [DONE]\n\n';
  if (end === 'open') yield released;
}

/** The pieces to write, one by one, and the gates to wait at between them. */
export function* piecesOf(items: Iterable<StreamItem>, chunking: Chunking = 'event'): Generator<Buffer | Gate> {
  if (chunking === 'event' || chunking === 'byte') {
    for (const item of items) {
      if (item instanceof Gate) yield item;
      else yield* chunking === 'event' ? [bytesOf(item)] : eachByte(bytesOf(item));
    }
    return;
  }
  let joined: Buffer[] = [];
  let offset = 0;
  for (const item of items) {
    if (!(item instanceof Gate)) {
      joined.push(bytesOf(item));
      continue;
    }
    yield* cut(Buffer.concat(joined), offset, chunking);
    offset += joined.reduce((length, bytes) => length + bytes.length, 0);
    joined = [];
    yield item;
  }
  yield* cut(Buffer.concat(joined), offset, chunking);
}

function eachByte(bytes: Buffer): Buffer[] {
  return Array.from(bytes, (_, at) => bytes.subarray(at, at + 1));
}

function cut(bytes: Buffer, offset: number, chunking: Exclude<Chunking, 'event' | 'byte'>): Buffer[] {
  if (bytes.length === 0 || chunking === 'whole') return bytes.length === 0 ? [] : [bytes];
  return Array.isArray(chunking) ? cutAt(chunking.map((at) => at - offset))(bytes) : chunking(bytes);
}
