/**
 * A stream that no guard looks at: bytes go out as they came. Only whole events are passed on, so that what is added or
 * taken out never lands inside one; events are read until the first token, and where the usage or an error stands.
 */
import type { StreamEvent } from '../dialects/dialect.ts';
import { GatewayError } from '../errors.ts';
import { borderOf, FrameReader, frameData, isErrorFrame, MAX_FRAME } from './frames.ts';
import { BROKEN, Relay } from './relay.ts';

export class PassThrough extends Relay {
  private rest: Buffer | undefined;

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
    const kind = this.meter.hasContent && this.context.choices === 1 ? this.context.dialect.skimEvents(text) : 'read';
    if (kind !== 'read') {
      if (kind === 'done') this.meter.isDone = true;
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
    let event: StreamEvent;
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
    if (this.meter.isDone || (this.meter.hasFinished && rest === '')) this.finish();
    else this.fail(new GatewayError('stream_broken', BROKEN));
  }

  protected upstreamBroke(error: GatewayError): void {
    // All that was needed had come: the connection's end is of no interest any more.
    if (this.meter.isDone) this.finish();
    else this.fail(error);
  }
}

/** Some servers leave out the blank line after `[DONE]`. */
function isDoneLine(rest: string): boolean {
  return rest === 'data: [DONE]' || rest === 'data:[DONE]';
}
