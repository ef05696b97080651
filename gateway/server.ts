/** The first door: HTTP with SSE, by Fastify. It turns a request into an {@link Exchange} and hands it to the pipeline. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify';
import { ERRORS, type ErrorCode, GatewayError } from './errors.ts';
import type { Exchange } from './exchange.ts';
import type { Gateway } from './gateway.ts';
import { serve } from './pipeline.ts';

/** What the server needs of the config; fixed until a restart. */
export interface ServerOptions {
  /** Longest head of a request, in bytes. */
  maxHeaderSize: number;
  /** Longest time that a request may take to arrive, in milliseconds. */
  requestTimeout: number;
}

/** Makes the server. `isDraining` tells whether it is about to stop: answers then close their connection. */
export function makeServer(gateway: Gateway, options: ServerOptions, isDraining: () => boolean): FastifyInstance {
  const app = fastify({
    logger: false,
    http: {
      maxHeaderSize: options.maxHeaderSize,
      joinDuplicateHeaders: true,
      requestTimeout: options.requestTimeout,
      // How often Node looks for requests that take too long; its own 30 s would make any shorter limit 30 s.
      connectionsCheckingInterval: Math.min(10_000, Math.max(50, options.requestTimeout / 4)),
    },
    keepAliveTimeout: 75_000,
    requestTimeout: options.requestTimeout,
    forceCloseConnections: 'idle',
    exposeHeadRoutes: false,
    clientErrorHandler: refuseMalformed,
    frameworkErrors: (_error, _request, reply: FastifyReply) => {
      void reply.code(400).type('application/json').send(plainError('invalid_request', 'The path is malformed.'));
    },
  });
  app.get('/healthz', (_request, reply) => reply.send({ status: 'ok' }));
  app.get('/readyz', (_request, reply) =>
    reply.code(isDraining() ? 503 : 200).send({ status: isDraining() ? 'draining' : 'ready' }),
  );
  // Taken over before Fastify parses anything: the body stays unread until the pipeline wants it, so that a stranger
  // cannot make us read one. `done` is never called: the rest of Fastify's lifecycle is not for these requests.
  const take = (request: FastifyRequest, reply: FastifyReply) => {
    reply.hijack();
    void serve(new HttpExchange(request.raw, reply.raw, isDraining()), gateway);
  };
  app.all('/*', { onRequest: (request, reply, _done) => take(request, reply) }, () => {});
  app.setNotFoundHandler(take);
  return app;
}

/** One HTTP request and its answer. */
class HttpExchange implements Exchange {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly headers: Exchange['headers'];
  readonly startedAt = performance.now();
  gone = false;
  committed = false;
  private readonly request: IncomingMessage;
  private readonly response: ServerResponse;
  private readonly closes: boolean;
  private isBodyRead = false;
  private goneListeners: (() => void)[] = [];

  constructor(request: IncomingMessage, response: ServerResponse, closes: boolean) {
    this.request = request;
    this.response = response;
    this.closes = closes;
    this.method = request.method ?? 'GET';
    this.path = normalisedPath(request.url ?? '/');
    this.query = queryOf(request.url ?? '/');
    this.headers = request.headers as Exchange['headers'];
    response.once('close', () => this.closed());
  }

  private closed(): void {
    const listeners = this.goneListeners;
    this.goneListeners = [];
    if (this.response.writableFinished) return;
    this.gone = true;
    for (const listener of listeners) listener();
  }

  onGone(listener: () => void): void {
    if (this.gone) listener();
    else this.goneListeners.push(listener);
  }

  onDrain(listener: () => void): void {
    this.response.on('drain', listener);
  }

  readBody(limit: number): Promise<Buffer> {
    const tooLarge = () =>
      new GatewayError('body_too_large', `The request is larger than ${limit} bytes, which is the most that is taken.`);
    if (Number(this.headers['content-length'] ?? 0) > limit) return Promise.reject(tooLarge());
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      let length = 0;
      const { request } = this;
      request.on('data', (chunk: Buffer) => {
        length += chunk.length;
        if (length <= limit) chunks.push(chunk);
        else {
          request.removeAllListeners('data');
          request.pause();
          reject(tooLarge());
        }
      });
      request.once('end', () => {
        this.isBodyRead = true;
        resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks));
      });
      request.once('error', (cause) =>
        reject(new GatewayError('invalid_request', 'The request broke off.', { cause })),
      );
    });
  }

  reply(status: number, headers: string[], body: string | Buffer): void {
    if (this.committed || this.gone) return;
    this.committed = true;
    if (status !== 204) headers.push('content-length', String(Buffer.byteLength(body)));
    if (this.closes || (!this.isBodyRead && hasBody(this.headers))) headers.push('connection', 'close');
    this.response.writeHead(status, headers);
    if (this.method === 'HEAD') this.response.end();
    else if (typeof body === 'string') this.response.end(body, 'utf8');
    else if (body.length > ONE_WRITE) this.response.end(body);
    // As a string of the same bytes the body joins the head in one write, which saves a tenth of a small request.
    else this.response.end(body.toString('latin1'), 'latin1');
  }

  open(status: number, headers: string[]): void {
    if (this.committed || this.gone) return;
    this.committed = true;
    if (this.closes) headers.push('connection', 'close');
    this.response.writeHead(status, headers);
  }

  write(chunk: string | Buffer): boolean {
    return this.gone || this.response.write(chunk);
  }

  end(): void {
    this.response.end();
  }

  destroy(): void {
    this.response.destroy();
  }
}

/** Up to this size, in bytes, an answer goes out in one piece with its head. */
const ONE_WRITE = 16_384;

/** Whether the client announced a body: if it goes unread, the connection cannot be used again. */
function hasBody(headers: Exchange['headers']): boolean {
  return headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0';
}

/** Characters that need no escape in a path (RFC 3986, "unreserved"). */
const UNRESERVED = /%(?:2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])/g;

/** The path that rules are matched against: one spelling for each, so that none can be dodged. */
function normalisedPath(url: string): string {
  const query = url.indexOf('?');
  let path = query < 0 ? url : url.slice(0, query);
  // Absolute form (RFC 9112, 3.2.2), as proxies send it.
  if (!path.startsWith('/')) path = path.replace(/^[a-z][a-z0-9+.-]*:\/\/[^/]*/i, '') || '/';
  if (path.includes('%')) path = path.replace(UNRESERVED, decodeURIComponent);
  if (path.includes('//')) path = path.replace(/\/{2,}/g, '/');
  if (path.includes('/.')) path = withoutDots(path);
  return path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
}

function queryOf(url: string): string {
  const from = url.indexOf('?');
  return from < 0 ? '' : url.slice(from + 1);
}

/** RFC 3986, 5.2.4. */
function withoutDots(path: string): string {
  const out: string[] = [];
  for (const segment of path.slice(1).split('/')) {
    if (segment === '..') out.pop();
    else if (segment !== '.') out.push(segment);
  }
  return `/${out.join('/')}`;
}

/** What the HTTP parser refuses never becomes a request: too long a head, two lengths, a bare CR … */
function refuseMalformed(error: Error & { code?: string }, socket: Duplex): void {
  // Behind the head of an answer that has begun, these bytes would stand inside that answer.
  const answering = (socket as { _httpMessage?: ServerResponse | null })._httpMessage;
  if (error.code === 'ECONNRESET' || !socket.writable || answering?.headersSent) {
    socket.destroy();
    return;
  }
  const [status, code, message] = MALFORMED[error.code ?? ''] ?? [
    400,
    'invalid_request',
    'The request is not valid HTTP.',
  ];
  const body = plainError(code, message);
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_TEXT[status]}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  );
}

const MALFORMED: Record<string, [number, ErrorCode, string]> = {
  HPE_HEADER_OVERFLOW: [431, 'invalid_request', 'The request’s headers are too long.'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'body_timeout', 'The request took too long to arrive.'],
};

const STATUS_TEXT: Record<number, string> = {
  400: 'Bad Request',
  408: 'Request Timeout',
  431: 'Request Header Fields Too Large',
};

function plainError(code: ErrorCode, message: string): string {
  return JSON.stringify({ error: { message, type: ERRORS[code].type, param: null, code } });
}
