/**
 * The one place that opens connections to providers: undici's dispatcher, with the body as one buffer.
 *
 * An answer is handed over as soon as its head is there; what arrives before anybody listens is kept. Pausing stops
 * reading from the socket, so a slow client slows its provider.
 */
import { Pool } from 'undici';
import { GatewayError } from './errors.ts';
import type { Provider, UpstreamCall } from './providers/provider.ts';

/** Takes an answer's body as it comes. */
export interface BodyListener {
  data(chunk: Buffer): void;
  end(): void;
  /** The connection broke, or the provider fell silent. Not called after {@link UpstreamReply.abort}. */
  failed(error: Error): void;
}

/** An answer whose head has been read. */
export interface UpstreamReply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  listen(listener: BodyListener): void;
  /** Reads the whole body; rejects above `limit` bytes. */
  collect(limit: number): Promise<Buffer>;
  pause(): void;
  resume(): void;
  /** Closes the connection: the provider stops working. */
  abort(): void;
}

/** A request under way: `reply` settles with its head, `abort` stops it at any time. */
export interface UpstreamRequest {
  readonly reply: Promise<UpstreamReply>;
  abort(): void;
}

/** The connection pools, one for each origin and set of timeouts. They outlive a reload of the config. */
export class Upstream {
  private readonly pools = new Map<string, Pool>();

  /** Sends a request. Rejects with `upstream_unreachable` or `upstream_timeout` when no answer begins. */
  send(provider: Provider, call: UpstreamCall, body: string | Buffer | undefined): UpstreamRequest {
    const exchange = new Dispatch(provider);
    const { firstByte, idle } = provider.timeouts;
    const options = {
      path: call.path,
      method: call.method as 'POST',
      headers: call.headers,
      body: body ?? null,
      headersTimeout: firstByte,
      bodyTimeout: idle,
    };
    try {
      this.poolOf(provider).dispatch(options, exchange);
    } catch (error) {
      exchange.onResponseError(null, error as Error);
    }
    return exchange;
  }

  async close(): Promise<void> {
    await Promise.all([...this.pools.values()].map((pool) => pool.destroy()));
  }

  private poolOf(provider: Provider): Pool {
    const key = `${provider.origin} ${provider.timeouts.connect}`;
    let pool = this.pools.get(key);
    if (pool === undefined) {
      pool = new Pool(provider.origin, {
        connections: null,
        pipelining: 1,
        connect: { timeout: provider.timeouts.connect },
        keepAliveTimeout: 60_000,
        allowH2: false,
      });
      this.pools.set(key, pool);
    }
    return pool;
  }
}

interface Controller {
  abort(reason: Error): void;
  pause(): void;
  resume(): void;
}

/** One request to a provider: undici's handler on one side, the reply on the other. */
class Dispatch implements UpstreamRequest, UpstreamReply {
  readonly reply: Promise<UpstreamReply>;
  status = 0;
  headers: UpstreamReply['headers'] = {};
  private readonly provider: Provider;
  private controller: Controller | undefined;
  private settle: { resolve(reply: UpstreamReply): void; reject(error: Error): void } | undefined;
  private listener: BodyListener | undefined;
  private early: Buffer[] = [];
  private state: 'open' | 'ended' | 'failed' | 'aborted' = 'open';
  private failure: Error | undefined;
  private onAbort: (() => void) | undefined;

  constructor(provider: Provider) {
    this.provider = provider;
    this.reply = new Promise((resolve, reject) => {
      this.settle = { resolve, reject };
    });
  }

  // --- undici's side ---

  onRequestStart(controller: Controller): void {
    this.controller = controller;
    if (this.state === 'aborted') controller.abort(GONE);
  }

  onResponseStart(_controller: Controller, status: number, headers: UpstreamReply['headers']): void {
    if (status < 200) return;
    this.status = status;
    this.headers = headers;
    this.settle?.resolve(this);
  }

  onResponseData(_controller: Controller, chunk: Buffer): void {
    if (this.listener) this.listener.data(chunk);
    else this.early.push(chunk);
  }

  onResponseEnd(): void {
    if (this.state !== 'open') return;
    this.state = 'ended';
    this.listener?.end();
    this.letGo();
  }

  onResponseError(_controller: Controller | null, error: Error): void {
    if (this.state !== 'open') {
      this.settle?.reject(GONE);
      return;
    }
    this.state = 'failed';
    this.failure = error;
    if (this.status === 0) this.settle?.reject(unreachable(this.provider.name, error));
    else this.listener?.failed(error);
    this.letGo();
  }

  /**
   * Drops what leads to the connection and to those who waited. A finished request that still points there keeps younger
   * ones alive in the garbage collector's eyes: without this every collection takes 25 ms in place of 1, and memory
   * doubles (measured at 32 connections on Node 24).
   */
  private letGo(): void {
    this.controller = undefined;
    this.onAbort = undefined;
    this.listener = undefined;
    this.settle = undefined;
  }

  // --- the pipeline's side ---

  listen(listener: BodyListener): void {
    if (this.state === 'open') this.listener = listener;
    const { early } = this;
    this.early = [];
    for (const chunk of early) listener.data(chunk);
    if (this.state === 'ended') listener.end();
    else if (this.state === 'failed') listener.failed(this.failure as Error);
  }

  collect(limit: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      let length = 0;
      this.onAbort = () => reject(GONE);
      this.listen({
        data: (chunk) => {
          length += chunk.length;
          if (length <= limit) chunks.push(chunk);
          else {
            reject(
              new GatewayError(
                'upstream_bad_answer',
                `The answer of the provider “${this.provider.name}” is too long.`,
              ),
            );
            this.abort();
          }
        },
        end: () => resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)),
        failed: (error) => reject(broken(this.provider.name, error)),
      });
    });
  }

  pause(): void {
    this.controller?.pause();
  }

  resume(): void {
    this.controller?.resume();
  }

  abort(): void {
    if (this.state !== 'open') return;
    this.state = 'aborted';
    this.controller?.abort(GONE);
    this.onAbort?.();
  }
}

/** Why a request was given up: not the provider's fault, and never shown. */
export const GONE = new Error('the request was given up');
GONE.name = 'AbortError';

function unreachable(name: string, cause: Error & { code?: string }): GatewayError {
  if (cause.code === 'UND_ERR_HEADERS_TIMEOUT' || cause.code === 'UND_ERR_CONNECT_TIMEOUT') {
    return new GatewayError('upstream_timeout', `The provider “${name}” did not answer in time. Try again.`, { cause });
  }
  return new GatewayError('upstream_unreachable', `The provider “${name}” cannot be reached. Try again in a moment.`, {
    cause,
  });
}

function broken(name: string, cause: Error): GatewayError {
  return new GatewayError('upstream_bad_answer', `The provider “${name}” broke off its answer. Try again.`, { cause });
}
