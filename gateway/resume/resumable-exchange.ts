/**
 * The exchange of a streamed answer that outlives its client. Until the first event nothing can be resumed, so a client
 * that goes before that is gone; after it the provider is told nothing, and the answer is kept.
 */
import type { Exchange } from '../exchange.ts';
import type { KeptStream, Producer } from './kept-stream.ts';
import { Numberer } from './numbered.ts';

/** Begins to keep a stream with this head; undefined when it cannot be kept. */
export type Keep = (head: string[], producer: Producer) => KeptStream | undefined;

export class ResumableExchange implements Exchange {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly headers: Exchange['headers'];
  readonly startedAt: number;
  private readonly client: Exchange;
  private readonly keep: Keep;
  private kept: { stream: KeptStream; numberer: Numberer } | undefined;
  private readonly drainListeners: (() => void)[] = [];
  private goneListeners: (() => void)[] = [];

  constructor(client: Exchange, keep: Keep) {
    this.client = client;
    this.keep = keep;
    this.method = client.method;
    this.path = client.path;
    this.query = client.query;
    this.headers = client.headers;
    this.startedAt = client.startedAt;
    client.onDrain(() => {
      if (this.kept === undefined) this.drained();
    });
    client.onGone(() => {
      if (this.kept === undefined) this.abandoned();
    });
  }

  get gone(): boolean {
    return this.kept === undefined ? this.client.gone : this.kept.stream.isGone;
  }

  get committed(): boolean {
    return this.client.committed;
  }

  readBody(limit: number): Promise<Buffer> {
    return this.client.readBody(limit);
  }

  reply(status: number, headers: string[], body: string | Buffer): void {
    this.client.reply(status, headers, body);
  }

  open(status: number, headers: string[]): void {
    if (this.committed || this.gone) return;
    const stream = this.keep(headers, { drained: () => this.drained(), abandoned: () => this.abandoned() });
    if (stream === undefined) {
      this.client.open(status, headers);
      return;
    }
    this.kept = { stream, numberer: new Numberer(stream.id) };
    this.client.open(status, [...headers, 'x-wardgate-stream-id', stream.id]);
    void stream.attach(this.client, 0);
  }

  write(chunk: string | Buffer): boolean {
    const { kept } = this;
    return kept === undefined ? this.client.write(chunk) : kept.stream.write(kept.numberer.push(chunk));
  }

  end(): void {
    if (this.kept === undefined) this.client.end();
    else this.kept.stream.finish();
  }

  destroy(): void {
    this.client.destroy();
    this.kept?.stream.giveUp();
  }

  onDrain(listener: () => void): void {
    this.drainListeners.push(listener);
  }

  onGone(listener: () => void): void {
    if (this.gone) listener();
    else this.goneListeners.push(listener);
  }

  private drained(): void {
    for (const listener of this.drainListeners) listener();
  }

  private abandoned(): void {
    const listeners = this.goneListeners;
    this.goneListeners = [];
    for (const listener of listeners) listener();
  }
}
