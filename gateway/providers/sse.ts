/** Reads a provider's server-sent events: cuts the bytes into frames and hands their data to the vendor's own reader. */

import type { Json } from '../dialects/dialect.ts';
import { asGatewayError, GatewayError } from '../errors.ts';
import { badAnswer } from '../hub/fields.ts';
import type { HubEvent } from '../hub/reply.ts';
import { isJsonObject } from '../json.ts';
import { FrameReader, frameData } from '../stream/frames.ts';
import type { StreamReader } from './provider.ts';

/** A stream of JSON objects in server-sent events. */
export abstract class SseReader implements StreamReader {
  private readonly frames = new FrameReader();

  push(bytes: Buffer): HubEvent[] {
    const events: HubEvent[] = [];
    let whole = 0;
    try {
      for (const frame of this.cut(bytes)) {
        this.readFrame(frame, events);
        whole = events.length;
      }
    } catch (error) {
      // What came before it in the same piece is passed on first.
      if (whole === 0) throw error;
      events.splice(whole, Number.POSITIVE_INFINITY, { type: 'error', error: asGatewayError(error) });
    }
    return events;
  }

  end(): HubEvent[] {
    const events: HubEvent[] = [];
    const last = this.frames.end();
    if (last !== undefined) this.readFrame(last, events);
    // Half an event is no end of anything.
    if (this.frames.incomplete.trim() === '') this.closed(events);
    return events;
  }

  private cut(bytes: Buffer): string[] {
    try {
      return this.frames.push(bytes);
    } catch (cause) {
      throw new GatewayError('upstream_bad_answer', 'The provider sent an event that is too long.', { cause });
    }
  }

  private readFrame(frame: string, events: HubEvent[]): void {
    const data = frameData(frame);
    if (data === undefined || data === '') return;
    if (data === '[DONE]') {
      this.done(events);
      return;
    }
    this.read(parsed(data), events);
  }

  /** One event's object. */
  protected abstract read(body: Json, events: HubEvent[]): void;
  /** `[DONE]`, where the format has it. */
  protected done(_events: HubEvent[]): void {}
  /** The connection was closed at the border of an event. */
  protected closed(_events: HubEvent[]): void {}
}

function parsed(data: string): Json {
  let body: unknown;
  try {
    body = JSON.parse(data);
  } catch {
    throw badAnswer();
  }
  if (!isJsonObject(body)) throw badAnswer();
  return body;
}
