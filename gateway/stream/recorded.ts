/** A part of an answer that was passed on before, and broke off there. */
import { GatewayError } from '../errors.ts';
import type { BodyListener, UpstreamReply } from '../upstream.ts';
import { BROKEN } from './relay.ts';

export class Recorded implements UpstreamReply {
  readonly status = 200;
  readonly headers = { 'content-type': 'text/event-stream' };
  private readonly bytes: Buffer;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  listen(listener: BodyListener): void {
    listener.data(this.bytes);
    listener.failed(new GatewayError('stream_broken', BROKEN, { cause: 'the gateway that passed it on has vanished' }));
  }

  collect(): Promise<Buffer> {
    return Promise.resolve(this.bytes);
  }

  pause(): void {}

  resume(): void {}

  abort(): void {}
}
