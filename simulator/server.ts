/** The sockets of the simulated model: finds the route, reads the body, writes the answer at a model's pace. */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Reply, Route, StreamPiece, WireFormat } from './format.ts';
import { Refusal } from './model.ts';
import { openaiChat } from './openai-chat.ts';

const FORMATS: [WireFormat, ...WireFormat[]] = [openaiChat];
const MAX_BODY_BYTES = 32 * 1024 * 1024;

/** How to start the simulated model. */
export interface SimulatorOptions {
  /** Address to listen on; `127.0.0.1` by default. */
  host?: string;
  /** Port to listen on; 0, the default, takes a free one. */
  port?: number;
  /** Time between two tokens of a stream in milliseconds; 15 by default, 0 for as fast as the client reads. */
  tokenDelayMs?: number;
  /** Gets one line per request, without its text; silent by default. */
  log?: (line: string) => void;
}

/** A running simulated model. */
export interface Simulator {
  /** Where it listens, such as `http://127.0.0.1:9100`; the base URL for OpenAI clients is this plus `/v1`. */
  url: string;
  /** Stops listening, gives answers in flight `graceMs` (0 by default) to end, then breaks them off. */
  close(graceMs?: number): Promise<void>;
}

/** Starts a simulated model; resolves when it listens, rejects when the address cannot be had. */
export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  const { host = '127.0.0.1', port = 0, tokenDelayMs = 15, log = () => {} } = options;
  const server = createServer((request, response) => {
    response.on('close', () => setImmediate(() => dropIdleWhenClosing(server)));
    void serve(request, response, tokenDelayMs, log);
  });
  server.listen(port, host);
  await once(server, 'listening');
  const bound = (server.address() as AddressInfo).port;
  const name = host.includes(':') ? `[${host}]` : host;
  return { url: `http://${name}:${bound}`, close: (graceMs = 0) => stop(server, graceMs) };
}

/** `server.close` drops the connections that are idle at that time; those that become idle later are dropped here. */
function dropIdleWhenClosing(server: Server): void {
  if (!server.listening) server.closeIdleConnections();
}

async function stop(server: Server, graceMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  const deadline = setTimeout(() => server.closeAllConnections(), graceMs);
  await closed;
  clearTimeout(deadline);
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  tokenDelayMs: number,
  log: (line: string) => void,
): Promise<void> {
  const path = pathOf(request);
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  response.setHeader('x-simulated', 'true');
  response.setHeader('x-request-id', `req_${randomUUID().replaceAll('-', '')}`);
  try {
    const reply = await replyTo(request, path);
    if ('stream' in reply) await writeStream(response, reply.stream, tokenDelayMs, gone.signal);
    else writeJson(response, reply);
    log(`${request.method} ${path} ${reply.status}`);
  } catch (error) {
    if (!gone.signal.aborted) response.destroy();
    log(`${request.method} ${path} ${gone.signal.aborted ? 'the client left' : `failed: ${error}`}`);
  }
}

function pathOf(request: IncomingMessage): string {
  const path = (request.url ?? '/').split('?')[0] ?? '/';
  return path.length > 1 ? path.replace(/\/$/, '') : path;
}

/** Every request gets a reply: what cannot be answered is refused in the words of its format. */
async function replyTo(request: IncomingMessage, path: string): Promise<Reply> {
  if (path === '/health') return { status: 200, json: { status: 'ok', simulated: true } };
  const format = FORMATS.find(({ routes }) => routes.some((route) => route.path.test(path)));
  try {
    const bytes = await readBody(request);
    const route = routeFor(format, request.method, path);
    return route.answer(route.method === 'GET' ? undefined : parse(bytes), { ...route.path.exec(path)?.groups });
  } catch (error) {
    if (error instanceof Refusal) return (format ?? FORMATS[0]).refuse(error);
    throw error;
  }
}

function routeFor(format: WireFormat | undefined, method: string | undefined, path: string): Route {
  const routes = format?.routes.filter((route) => route.path.test(path)) ?? [];
  if (routes.length === 0) throw new Refusal(404, `Unknown request URL: ${path}.`, 'unknown_url');
  const route = routes.find((candidate) => candidate.method === method);
  if (!route) throw new Refusal(405, `Not allowed to ${method} on ${path}.`, 'method_not_supported');
  return route;
}

/** Reads to the end even when the body is too large, so that the client gets the 413 and not a reset. */
async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length <= MAX_BODY_BYTES) chunks.push(chunk);
    else chunks.length = 0;
  }
  if (length > MAX_BODY_BYTES) throw new Refusal(413, `The body is larger than ${MAX_BODY_BYTES} bytes.`);
  return Buffer.concat(chunks);
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString());
  } catch {
    throw new Refusal(400, 'We could not parse the JSON body of your request.');
  }
}

type WholeReply = Exclude<Reply, { stream: unknown }>;

function writeJson(response: ServerResponse, { status, headers, json }: WholeReply): void {
  const body = Buffer.from(JSON.stringify(json));
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length, ...headers });
  response.end(body);
}

/** @throws AbortError as soon as the client has gone */
async function writeStream(
  response: ServerResponse,
  pieces: Iterable<StreamPiece>,
  tokenDelayMs: number,
  gone: AbortSignal,
): Promise<void> {
  response.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no',
  });
  for (const { bytes, token } of pieces) {
    if (token && tokenDelayMs > 0) await sleep(tokenDelayMs, undefined, { signal: gone });
    gone.throwIfAborted();
    if (!response.write(bytes)) await once(response, 'drain', { signal: gone });
  }
  response.end();
}
