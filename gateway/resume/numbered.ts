/**
 * Gives every event of a stream its `id`. Source: WHATWG HTML, "Server-sent events": of several `id` lines in an event
 * the last one counts, and one in an event without data counts as well, so a provider's own are taken out.
 */
import { FrameReader, frameData } from '../stream/frames.ts';

/** What was written at a time. */
export interface Numbered {
  /** All of it, comments and the like included. */
  bytes: Buffer;
  /** The events in it, each a part of `bytes`. */
  events: Buffer[];
}

const BYTE_ORDER_MARK = '\xef\xbb\xbf';

export class Numberer {
  private readonly stream: string;
  /** As latin1, one character is one byte: what is not UTF-8 goes out as it came, too. */
  private readonly reader = new FrameReader('latin1');
  private number: number;
  private isFirst = true;

  /** @param number of the last event that was written before */
  constructor(stream: string, number = 0) {
    this.stream = stream;
    this.number = number;
  }

  /** Takes whole events. What is no whole event waits for the rest of it. */
  push(chunk: Buffer | string): Numbered {
    const frames = this.reader.push(typeof chunk === 'string' ? Buffer.from(chunk) : chunk);
    const last = this.reader.end();
    if (last !== undefined) frames.push(last);
    let out = '';
    const places: [from: number, to: number][] = [];
    for (const frame of frames) {
      const own = this.withoutMark(frame);
      const from = out.length;
      if (frameData(own) === undefined) out += withoutIds(own);
      else {
        out += this.numbered(own);
        places.push([from, out.length]);
      }
    }
    const bytes = Buffer.from(out, 'latin1');
    return { bytes, events: places.map(([from, to]) => bytes.subarray(from, to)) };
  }

  private numbered(frame: string): string {
    this.number += 1;
    return `id: ${this.stream}-${this.number}\n${isPlain(frame) ? frame : withoutIds(frame)}`;
  }

  /** It may stand at the very beginning of a stream only. */
  private withoutMark(frame: string): string {
    if (!this.isFirst) return frame;
    this.isFirst = false;
    return frame.startsWith(BYTE_ORDER_MARK) ? frame.slice(BYTE_ORDER_MARK.length) : frame;
  }
}

/** One line of data, as nearly all events are. */
function isPlain(frame: string): boolean {
  return frame.startsWith('data:') && frame.indexOf('\n') === frame.length - 2 && !frame.includes('\r');
}

/** Without `id` lines, and without blank lines at the beginning, which would part an event from the id before it. */
function withoutIds(frame: string): string {
  return frame.replace(/^[\r\n]+(?=[^\r\n])/, '').replace(/(?<![^\r\n])id(?::[^\r\n]*)?(?:\r\n|\n|\r)/g, '');
}
