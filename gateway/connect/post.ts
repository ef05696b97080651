/** JSON posted to a plugin, and what came back: what `http:` and `webhook:` have in common. */
import { Pool } from 'undici';
import { PluginFault } from '../../proto/contract.ts';
import { MAX_MESSAGE } from '../../proto/grpc.ts';
import { type Endpoint, EndpointProblem, PluginUnavailable, toldFault } from './connection.ts';
import { readTls } from './tls.ts';

/** Connections to one plugin, unless the mount says otherwise. */
const MAX_CONNECTIONS = 100;
/** A connection that carries nothing is closed after this time, in milliseconds: before most servers do it. */
const KEEP_ALIVE_MS = 4_000;
/** How long opening a connection may take, in milliseconds. */
const CONNECT_MS = 2_000;
/** A call that nobody cancels is given up after this time, in milliseconds: deadlines are set elsewhere. */
const LONGEST_MS = 60_000;

/** Statuses by which a proxy in front of a plugin says that the plugin is away. */
const AWAY = new Set([502, 503, 504]);

export interface HttpTarget {
  /** Scheme, host and port. */
  origin: string;
  /** Path that goes before every other, without a slash at its end. */
  base: string;
  /** Sent with every call; names in lower case. */
  headers: Record<string, string>;
}

/** Reads `at`. @throws {@link EndpointProblem} when it is no such URL */
export function httpTarget(endpoint: Endpoint, secure: boolean): HttpTarget {
  const { at, options } = endpoint;
  const url = URL.parse(at.replace(/^[a-z-]+:/, secure ? 'https:' : 'http:'));
  if (!url?.host || !/^[a-z-]+:\/\//.test(at))
    throw new EndpointProblem(`${at.split(':')[0]}:// is followed by host:port`);
  if (url.username || url.password) throw new EndpointProblem('a password belongs into `headers`, not into `at`');
  if (url.search || url.hash) throw new EndpointProblem('`at` has neither a query nor a fragment');
  const lower = Object.entries(options.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]);
  return { origin: url.origin, base: url.pathname.replace(/\/+$/, ''), headers: Object.fromEntries(lower) };
}

/** What came back, read whole. */
export interface HttpAnswer {
  status: number;
  contentType: string;
  body: Buffer;
}

/** The connections to one plugin. */
export class Poster {
  private readonly pool: Pool;
  private readonly target: HttpTarget;

  constructor(endpoint: Endpoint, target: HttpTarget) {
    const { ca, cert, key, serverName } = readTls(endpoint);
    this.target = target;
    this.pool = new Pool(target.origin, {
      connections: endpoint.options.connections ?? MAX_CONNECTIONS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      headersTimeout: LONGEST_MS,
      bodyTimeout: LONGEST_MS,
      allowH2: false,
      connect: { ca, cert, key, servername: serverName, timeout: CONNECT_MS },
    });
  }

  /**
   * Posts JSON and reads the answer whole, whatever its status.
   *
   * @throws {@link PluginUnavailable} when there was no answer, {@link PluginFault} when it is larger than 16 MiB
   */
  post(path: string, json: string, headers: Record<string, string>, signal?: AbortSignal): Promise<HttpAnswer> {
    const body = Buffer.from(json);
    if (body.length > MAX_MESSAGE)
      return Promise.reject(new PluginFault('too_large', 'the call is larger than 16 MiB'));
    return this.send('POST', path, { 'content-type': 'application/json', ...headers }, body, signal);
  }

  get(path: string, signal?: AbortSignal): Promise<HttpAnswer> {
    return this.send('GET', path, {}, undefined, signal);
  }

  /** undici's dispatcher with one buffer each way: half the cost of `request`. */
  private send(
    method: 'GET' | 'POST',
    path: string,
    extra: Record<string, string>,
    body: Buffer | undefined,
    signal: AbortSignal | undefined,
  ): Promise<HttpAnswer> {
    if (signal?.aborted) return Promise.reject(cancelled());
    const headers = { accept: 'application/json', ...this.target.headers, ...extra };
    return new Promise((resolve, reject) => {
      const answer = new Answer(resolve, reject, signal);
      this.pool.dispatch({ method, path: this.target.base + path, headers, body }, answer);
    });
  }

  async close(): Promise<void> {
    await this.pool.destroy();
  }
}

type Controller = Parameters<NonNullable<Parameters<Pool['dispatch']>[1]['onRequestStart']>>[0];

/** Gathers one answer. */
class Answer {
  private readonly resolve: (answer: HttpAnswer) => void;
  private readonly reject: (error: PluginFault) => void;
  private readonly signal: AbortSignal | undefined;
  private readonly chunks: Buffer[] = [];
  private size = 0;
  private status = 0;
  private contentType = '';
  private controller: Controller | undefined;

  constructor(resolve: (answer: HttpAnswer) => void, reject: (error: PluginFault) => void, signal?: AbortSignal) {
    this.resolve = resolve;
    this.reject = reject;
    this.signal = signal;
    signal?.addEventListener('abort', this.cancel, { once: true });
  }

  private readonly cancel = () => {
    this.fail(cancelled());
  };

  onRequestStart(controller: Controller): void {
    this.controller = controller;
    // It may have waited for a free connection until nobody waits for it any more.
    if (this.signal?.aborted) controller.abort(cancelled());
  }

  onResponseStart(
    _controller: Controller,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    this.status = status;
    this.contentType = String(headers['content-type'] ?? '');
  }

  onResponseData(_controller: Controller, chunk: Buffer): void {
    this.size += chunk.length;
    if (this.size > MAX_MESSAGE) this.fail(new PluginFault('too_large', 'the answer is larger than 16 MiB'));
    else this.chunks.push(chunk);
  }

  onResponseEnd(): void {
    this.done();
    const body = this.chunks.length === 1 ? this.chunks[0]! : Buffer.concat(this.chunks);
    this.resolve({ status: this.status, contentType: this.contentType, body });
  }

  onResponseError(_controller: Controller | null, error: Error): void {
    this.done();
    // What a parser says of garbage may quote it: only the code is taken over.
    const { code } = error as NodeJS.ErrnoException;
    this.reject(error instanceof PluginFault ? error : new PluginUnavailable(`no answer: ${code ?? 'unknown error'}`));
  }

  private fail(error: PluginFault): void {
    this.done();
    this.reject(error);
    this.controller?.abort(error);
  }

  private done(): void {
    this.signal?.removeEventListener('abort', this.cancel);
  }
}

function cancelled(): PluginFault {
  return new PluginFault('cancelled', 'nobody waits for the answer');
}

/**
 * The JSON of a good answer.
 *
 * @throws {@link PluginUnavailable} for 502, 503 and 504, {@link PluginFault} for anything else that is not 2xx and JSON
 */
export function jsonOf({ status, contentType, body }: HttpAnswer): unknown {
  if (AWAY.has(status)) throw new PluginUnavailable(`the plugin answered ${status}`);
  if (status < 200 || status > 299)
    throw faultIn(body) ?? new PluginFault('bad_status', `the plugin answered ${status}`);
  if (!/^application\/([\w.-]+\+)?json\s*(;|$)/i.test(contentType)) {
    throw new PluginFault('bad_answer', 'the answer is not application/json');
  }
  try {
    return JSON.parse(body.toString());
  } catch {
    throw new PluginFault('bad_answer', 'the answer is not JSON');
  }
}

/** A fault that the plugin tells with its status, as `serve.ts` does. */
function faultIn(body: Buffer): PluginFault | undefined {
  try {
    const { fault } = JSON.parse(body.toString()) as { fault?: { code?: unknown } };
    return fault?.code === undefined ? undefined : toldFault(fault.code);
  } catch {
    return undefined;
  }
}
