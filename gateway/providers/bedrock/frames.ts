/**
 * AWS event streams: messages with typed headers, framed by their length and guarded by checksums, cut anywhere.
 * Source: https://smithy.io/2.0/aws/amazon-eventstream.html
 */
import { EventStreamCodec } from '@smithy/eventstream-codec';
import type { Json } from '../../dialects/dialect.ts';
import { GatewayError } from '../../errors.ts';
import { badAnswer } from '../../hub/fields.ts';
import { isJsonObject, parseJson } from '../../json.ts';

/** The longest message that is taken, in bytes; AWS writes payloads of 16 MiB at most. */
const MAX_MESSAGE = 17 * 1024 * 1024;

/** One message. */
export interface Message {
  /** `event`, `exception` or `error`. */
  kind: string;
  /** Which event or exception, such as `contentBlockDelta`; the code of an `error`. */
  type: string;
  body: Json;
}

/** Puts messages together from bytes that come in pieces. */
export class MessageReader {
  private readonly codec = new EventStreamCodec(toText, (text) => Buffer.from(text));
  private pieces: Buffer[] = [];
  private held = 0;

  /**
   * Hands over each message that is complete now.
   * @throws GatewayError `upstream_bad_answer` when the bytes are no such messages
   */
  push(bytes: Buffer, each: (message: Message) => void): void {
    if (bytes.length === 0) return;
    this.pieces.push(bytes);
    this.held += bytes.length;
    for (let length = this.nextLength(); this.held >= length; length = this.nextLength())
      each(this.decode(this.take(length)));
  }

  /** Whether a message has begun that never ended. */
  get isCut(): boolean {
    return this.held > 0;
  }

  /** How long the next message is; infinite while that cannot be told. */
  private nextLength(): number {
    if (this.held < 4) return Number.POSITIVE_INFINITY;
    if (this.pieces[0]!.length < 4) this.pieces = [Buffer.concat(this.pieces)];
    const length = this.pieces[0]!.readUInt32BE(0);
    if (length > MAX_MESSAGE) throw badAnswer();
    return length;
  }

  private take(length: number): Buffer {
    const all = this.pieces.length === 1 ? this.pieces[0]! : Buffer.concat(this.pieces);
    this.held = all.length - length;
    this.pieces = this.held > 0 ? [all.subarray(length)] : [];
    return all.subarray(0, length);
  }

  private decode(bytes: Buffer): Message {
    let message: ReturnType<EventStreamCodec['decode']>;
    try {
      message = this.codec.decode(bytes);
    } catch (cause) {
      throw new GatewayError('upstream_bad_answer', 'The provider sent an event that is damaged.', { cause });
    }
    const header = (name: string) => {
      const value = Object.hasOwn(message.headers, name) ? message.headers[name]!.value : undefined;
      return typeof value === 'string' ? value : '';
    };
    const kind = header(':message-type');
    if (kind === 'error') return { kind, type: header(':error-code'), body: { message: header(':error-message') } };
    const body = message.body.length === 0 ? {} : parseJson(toText(message.body));
    if (!isJsonObject(body)) throw badAnswer();
    return { kind, type: header(kind === 'exception' ? ':exception-type' : ':event-type'), body };
  }
}

function toText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}
