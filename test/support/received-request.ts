/** A request as the scripted upstream received it, and what has become of it. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { Gate } from './gate.ts';
import { type HeaderList, valuesOf } from './header-list.ts';

/** How a request ended: the answer went out whole, the script broke it off, or the other side left before its end. */
export type Ending = 'answered' | 'cut' | 'left';

/** One recorded request. Times are milliseconds of `performance.now()`. */
export class ReceivedRequest {
  readonly method: string;
  /** With the query, exactly as received. */
  readonly path: string;
  /** Names and values exactly as received, in order, with duplicates. */
  readonly headers: HeaderList = [];
  readonly arrivedAtMs = performance.now();
  /** Resolves when the whole body has been read; never, when the other side left before its end. */
  readonly bodyRead: Promise<void>;
  /** Resolves when the answer has gone out, or the connection has. */
  readonly closed: Promise<Ending>;
  closedAtMs: number | undefined;
  /** Bytes of the answer's body that the operating system has taken so far. */
  bytesWritten = 0;
  /** Set by the upstream when its script breaks the connection. */
  brokenByScript = false;
  readonly released = new Gate();
  readonly #chunks: Buffer[] = [];
  readonly #bodyRead = Promise.withResolvers<void>();

  constructor(incoming: IncomingMessage, response: ServerResponse) {
    this.method = incoming.method ?? '';
    this.path = incoming.url ?? '';
    for (let at = 0; at < incoming.rawHeaders.length; at += 2) {
      this.headers.push([incoming.rawHeaders[at]!, incoming.rawHeaders[at + 1]!]);
    }
    this.bodyRead = this.#bodyRead.promise;
    this.closed = new Promise((resolve) => {
      response.once('close', () => {
        this.closedAtMs = performance.now();
        resolve(this.brokenByScript ? 'cut' : response.writableFinished ? 'answered' : 'left');
      });
    });
  }

  /** The body's bytes as far as they have been read. */
  get body(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  /** The body as JSON; wait for `bodyRead` first unless the request has been answered. */
  json<T = Record<string, unknown>>(): T {
    return JSON.parse(this.body.toString()) as T;
  }

  /** All values of a header, whatever the case of its name. */
  headerValues(name: string): string[] {
    return valuesOf(this.headers, name);
  }

  /** The first value of a header. */
  header(name: string): string | undefined {
    return valuesOf(this.headers, name)[0];
  }

  /** Ends a stall, a silence or an open end that the script asked for. */
  release(): void {
    this.released.open();
  }

  /** Resolves with `bytesWritten` once that has not grown for `quietMs` (100 by default): the reader is not reading. */
  async untilStuck(quietMs = 100): Promise<number> {
    let before = -1;
    while (before !== this.bytesWritten) {
      before = this.bytesWritten;
      await sleep(quietMs);
    }
    return before;
  }

  /** Reads the body; called by the upstream when its script says so. */
  read(incoming: IncomingMessage): void {
    incoming.on('data', (chunk: Buffer) => this.#chunks.push(chunk));
    incoming.on('end', () => this.#bodyRead.resolve());
  }
}
