/**
 * Server-sent events as frames: the raw text of one event each, its blank line included.
 * Source: WHATWG HTML, "Server-sent events": lines end in LF, CRLF or CR; a blank line ends an event.
 */
import { StringDecoder } from 'node:string_decoder';

/** The longest event that is taken, in UTF-16 units; a longer one breaks the stream. */
export const MAX_FRAME = 8 * 1024 * 1024;

/** Cuts text that comes in pieces into frames. Characters and line ends may be cut anywhere. */
export class FrameReader {
  private readonly decoder: StringDecoder;
  private rest = '';
  private isFirst = true;

  /** @param encoding `latin1` keeps bytes as they are, one character each; a byte order mark then stays, too */
  constructor(encoding: 'utf8' | 'latin1' = 'utf8') {
    this.decoder = new StringDecoder(encoding);
  }

  /** The frames that are complete now. Throws a RangeError when one grows beyond {@link MAX_FRAME}. */
  push(chunk: Buffer): string[] {
    let text = this.rest + this.decoder.write(chunk);
    if (this.isFirst && text !== '') {
      this.isFirst = false;
      if (text.charCodeAt(0) === 0xfeff) text = text.slice(1);
    }
    const frames = text.includes('\r') ? this.cutMixed(text) : this.cutLf(text);
    if (this.rest.length > MAX_FRAME) throw new RangeError('an event is too long');
    return frames;
  }

  /**
   * The last frame, once nothing more will come: a blank line may have ended in a CR that could have become a CRLF, and
   * some servers leave out the blank line after `[DONE]`.
   */
  end(): string | undefined {
    this.rest += this.decoder.end();
    const { rest } = this;
    const isEnded = ENDS_IN_CR.test(rest);
    if (!isEnded && !DONE.test(rest)) return undefined;
    this.rest = '';
    return isEnded ? rest : 'data: [DONE]\n\n';
  }

  /** What is left of an event that never ended; to be asked after {@link end}. */
  get incomplete(): string {
    return this.rest;
  }

  private cutLf(text: string): string[] {
    const frames: string[] = [];
    let from = 0;
    for (let end = text.indexOf('\n\n'); end !== -1; end = text.indexOf('\n\n', from)) {
      frames.push(text.slice(from, end + 2));
      from = end + 2;
    }
    this.rest = text.slice(from);
    return frames;
  }

  private cutMixed(text: string): string[] {
    const frames: string[] = [];
    let from = 0;
    BLANK.lastIndex = 0;
    for (let match = BLANK.exec(text); match !== null; match = BLANK.exec(text)) {
      // A CR at the very end may be half a CRLF: the next piece tells.
      if (BLANK.lastIndex === text.length && match[0].endsWith('\r')) break;
      frames.push(text.slice(from, BLANK.lastIndex));
      from = BLANK.lastIndex;
    }
    this.rest = text.slice(from);
    return frames;
  }
}

const ENDS_IN_CR = /[\r\n]\r$/;
const DONE = /^data: ?\[DONE\]\s*$/;
/** A CRLF is one line end, never two: a CR counts alone only where no LF follows. */
const BLANK = /(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))/g;

/** The data of a frame: its `data` lines joined with LF; `undefined` when it has none (a comment, an id alone). */
export function frameData(frame: string): string | undefined {
  if (frame.startsWith('data: ') && frame.indexOf('\n') === frame.length - 2) return frame.slice(6, -2);
  let data: string | undefined;
  for (const line of frame.split(/\r\n|\n|\r/)) {
    if (line !== 'data' && !line.startsWith('data:')) continue;
    const value = line.slice(line.startsWith('data: ') ? 6 : 5);
    data = data === undefined ? value : `${data}\n${value}`;
  }
  return data;
}

/** Whether a frame names the event type `error`, as some providers mark a fault in mid-stream. */
export function isErrorFrame(frame: string): boolean {
  return /(?:^|[\r\n])event: ?error(?:[\r\n]|$)/.test(frame);
}

const LF = 0x0a;
const CR = 0x0d;

/** Where the last whole event ends in a run of bytes; 0 when none does. */
export function borderOf(bytes: Buffer): number {
  const { length } = bytes;
  if (bytes[length - 1] === LF && bytes[length - 2] === LF) return length;
  const lf = bytes.lastIndexOf('\n\n');
  const crlf = bytes.lastIndexOf('\r\n\r\n');
  const cr = bytes.includes(CR) ? bytes.lastIndexOf('\r\r') : -1;
  return Math.max(lf < 0 ? 0 : lf + 2, crlf < 0 ? 0 : crlf + 4, cr < 0 ? 0 : cr + 2);
}
