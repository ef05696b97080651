/**
 * A stream that no guard looks at: bytes go out as they came. Only whole events are passed on, so that what is added or
 * taken out never lands inside one; events are read until the first token, and where the usage or an error stands.
 */
import { GatewayError } from '../errors.ts';
import { FrameReader, frameData, isErrorFrame, MAX_FRAME } from './frames.ts';
import { BROKEN, Relay } from './relay.ts';

const LF = 0x0a;
const CR = 0x0d;

export class PassThrough extends Relay {
  private rest: Buffer | undefined;
  /** The last three reads, to see at the end whether the answer was finished. */
  private readonly last: [string, string, string] = ['', '', ''];

  protected pass(bytes: Buffer): void {
    const whole = this.rest === undefined ? bytes : Buffer.concat([this.rest, bytes]);
    const border = borderOf(whole);
    this.rest = border === whole.length ? undefined : whole.subarray(border);
    if (this.rest !== undefined && this.rest.length > MAX_FRAME)
      throw new GatewayError('upstream_bad_answer', 'The provider sent an event that is too long.');
    if (border > 0) this.passEvents(whole.subarray(0, border));
  }

  private passEvents(bytes: Buffer): void {
    // One byte, one character: cheap to make and to search; the bytes themselves go out.
    const text = bytes.toString('latin1');
    const { last } = this;
    last[0] = last[1];
    last[1] = last[2];
    last[2] = text;
    const isPlain =
      this.meter.hasContent &&
      this.context.choices === 1 &&
      !text.includes('"usage":{') &&
      !text.includes('"usage": {') &&
      !text.includes('"error"') &&
      !text.includes('event:');
    if (isPlain) {
      if (text.endsWith('[DONE]\n\n')) this.meter.isDone = true;
      else this.context.record.answerChars += text.length >> 4;
      this.write(bytes);
    } else this.passInspected(bytes);
  }

  private passInspected(bytes: Buffer): void {
    const reader = new FrameReader();
    const kept: string[] = [];
    let isWhole = true;
    const frames = reader.push(bytes);
    // The bytes end where an event does, so a CR at the very end is no half of a CRLF.
    const final = reader.end();
    if (final !== undefined) frames.push(final);
    for (const frame of frames) {
      const verdict = this.inspect(frame);
      if (verdict === 'drop') isWhole = false;
      else kept.push(frame);
      if (verdict === 'error') {
        this.write(kept.join(''));
        this.upstreamReported();
        return;
      }
    }
    this.write(isWhole ? bytes : kept.join(''));
  }

  private inspect(frame: string): 'keep' | 'drop' | 'error' {
    const data = frameData(frame);
    if (data === undefined) return 'keep';
    let event: ReturnType<typeof this.context.dialect.readEvent>;
    try {
      event = this.context.dialect.readEvent(data);
    } catch {
      if (!this.context.exchange.committed)
        throw new GatewayError('upstream_bad_answer', 'The provider’s answer is not a stream of events. Try again.');
      return isErrorFrame(frame) ? 'error' : 'keep';
    }
    this.meter.see(event);
    if (event.error !== undefined || isErrorFrame(frame)) {
      if (this.context.exchange.committed) return 'error';
      throw new GatewayError('upstream_failed', 'The provider reported an error instead of an answer. Try again.');
    }
    return event.usageOnly && !this.context.wantsUsage ? 'drop' : 'keep';
  }

  /** The provider's own error event has gone out; nothing may follow it, least of all a `[DONE]`. */
  private upstreamReported(): void {
    const { record, reply } = this.context;
    record.outcome = 'failed';
    record.code = 'upstream_failed';
    reply.abort();
    this.finish();
  }

  protected upstreamEnded(): void {
    const rest = this.rest?.toString('latin1').trim() ?? '';
    if (isDoneLine(rest)) {
      this.meter.isDone = true;
      this.write('data: [DONE]\n\n');
    }
    const isSeen = this.context.choices === 1 && this.last.some((text) => /"finish_reason":\s?"/.test(text));
    const isFinished = this.meter.hasFinished || isSeen;
    if (this.isDone || (isFinished && rest === '')) this.finish();
    else this.fail(new GatewayError('stream_broken', BROKEN));
  }

  protected upstreamBroke(error: GatewayError): void {
    // All that was needed had come: the connection's end is of no interest any more.
    if (this.isDone) this.finish();
    else this.fail(error);
  }

  private get isDone(): boolean {
    return this.meter.isDone || /(?:^|[\r\n])data: ?\[DONE\][\r\n]/.test(this.last[2]);
  }
}

/** Some servers leave out the blank line after `[DONE]`. */
function isDoneLine(rest: string): boolean {
  return rest === 'data: [DONE]' || rest === 'data:[DONE]';
}

/** Where the last whole event ends. */
function borderOf(bytes: Buffer): number {
  const { length } = bytes;
  if (bytes[length - 1] === LF && bytes[length - 2] === LF) return length;
  const lf = bytes.lastIndexOf('\n\n');
  const crlf = bytes.lastIndexOf('\r\n\r\n');
  const cr = bytes.includes(CR) ? bytes.lastIndexOf('\r\r') : -1;
  return Math.max(lf < 0 ? 0 : lf + 2, crlf < 0 ? 0 : crlf + 4, cr < 0 ? 0 : cr + 2);
}
