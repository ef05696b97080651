/** An upstream over a real socket that does with each request what the test has scripted, and records it. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { errorBody } from './chunks.ts';
import { Gate } from './gate.ts';
import { ReceivedRequest } from './received-request.ts';
import { type BodyScript, bytesOfWhole, itemsOf, piecesOf, type Script, type StreamItem } from './script.ts';

/** A script, or a function that makes one from the request (its headers have arrived, its body may not have). */
export type ScriptSource = Script | ((request: ReceivedRequest) => Script);

/** Starts an upstream on a free port of 127.0.0.1. */
export async function startScriptedUpstream(): Promise<ScriptedUpstream> {
  const upstream = new ScriptedUpstream();
  await upstream.listen();
  return upstream;
}

export class ScriptedUpstream {
  /** Every request so far, in order of arrival. */
  readonly requests: ReceivedRequest[] = [];
  /** Connections accepted so far; fewer than requests when connections are used again. */
  connectionsAccepted = 0;
  readonly #queue: ScriptSource[] = [];
  #fallback: ScriptSource | undefined;
  readonly #sockets = new Set<Socket>();
  readonly #waiting = new Map<number, PromiseWithResolvers<ReceivedRequest>>();
  readonly #server = createServer({ keepAliveTimeout: 60_000 }, (incoming, response) => {
    void this.#serve(incoming, response);
  });

  constructor() {
    this.#server.on('connection', (socket) => {
      this.connectionsAccepted += 1;
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
  }

  async listen(): Promise<void> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  /** Such as `http://127.0.0.1:40123`, without a path. */
  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Connections that are open now. */
  get openConnections(): number {
    return this.#sockets.size;
  }

  /** Scripts the next requests that have no script yet, one each. */
  next(...scripts: ScriptSource[]): this {
    this.#queue.push(...scripts);
    return this;
  }

  /** Scripts every request for which `next` has nothing left. Without it such a request gets a 500 that says so. */
  always(script: ScriptSource): this {
    this.#fallback = script;
    return this;
  }

  /** Resolves with a request, counted from 0, as soon as its headers have arrived. */
  arrived(index = 0): Promise<ReceivedRequest> {
    const request = this.requests[index];
    if (request) return Promise.resolve(request);
    const waiting = this.#waiting.get(index) ?? Promise.withResolvers<ReceivedRequest>();
    this.#waiting.set(index, waiting);
    return waiting.promise;
  }

  /** Drops every connection and stops listening. */
  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const request = new ReceivedRequest(incoming, response);
    const index = this.requests.push(request) - 1;
    const source = this.#queue.shift() ?? this.#fallback ?? unscripted(index);
    this.#waiting.get(index)?.resolve(request);
    const script = typeof source === 'function' ? source(request) : source;
    const bodyRead = receive(request, incoming, script.readBodyAfter);
    if (!script.early) await Promise.race([bodyRead, request.closed]);
    if (script.after) await Promise.race([script.after.opened, request.closed]);
    if (script.latencyMs) await sleep(script.latencyMs);
    if (request.closedAtMs === undefined) await play(script, request, response);
  }
}

function unscripted(index: number): Script {
  return { whole: errorBody(`The test has scripted nothing for request ${index}.`), status: 500 };
}

async function receive(request: ReceivedRequest, incoming: IncomingMessage, after?: Gate): Promise<void> {
  if (after) await after.opened;
  request.read(incoming);
  await request.bodyRead;
}

async function play(script: Script, request: ReceivedRequest, response: ServerResponse): Promise<void> {
  const socket = response.socket!;
  if ('fault' in script) {
    if (script.fault === 'silence') await Promise.race([request.released.opened, request.closed]);
    return breakOff(request, socket, script.fault === 'reset');
  }
  if ('raw' in script) {
    request.brokenByScript = true;
    return void socket.end(script.raw);
  }
  if ('whole' in script) {
    const bytes = bytesOfWhole(script.whole);
    const length = { 'content-length': String(bytes.length) };
    response.writeHead(script.status ?? 200, headersOf(script, 'application/json', length));
    return playBody([bytes], script, { request, response, end: 'close-without-done' });
  }
  response.writeHead(script.status ?? 200, headersOf(script, 'text/event-stream', { 'cache-control': 'no-cache' }));
  response.flushHeaders();
  const { stream } = script;
  return playBody(itemsOf(stream, request.released), stream, { request, response, end: stream.end ?? 'done' });
}

function headersOf(script: Script, contentType: string, more: Record<string, string>) {
  return { 'content-type': script.contentType ?? contentType, ...more, ...script.headers };
}

interface Exchange {
  request: ReceivedRequest;
  response: ServerResponse;
  end: 'done' | 'close-without-done' | 'cut' | 'reset' | 'open';
}

async function playBody(items: Iterable<StreamItem>, script: BodyScript, exchange: Exchange): Promise<void> {
  const { request, response, end } = exchange;
  const socket = response.socket!;
  let left = script.cutAfterBytes ?? Number.POSITIVE_INFINITY;
  for (const piece of piecesOf(items, script.chunking)) {
    if (left === 0 || request.closedAtMs !== undefined) break;
    if (piece instanceof Gate) {
      await Promise.race([piece.opened, request.closed]);
      continue;
    }
    await write(piece.subarray(0, left), request, response);
    left -= Math.min(left, piece.length);
    if (script.paceMs) await sleep(script.paceMs);
  }
  if (left === 0 || end === 'cut' || end === 'reset') breakOff(request, socket, end === 'reset');
  else response.end();
}

/** Waits until the operating system has taken the bytes, so that a cut comes after them and a slow reader is felt. */
async function write(bytes: Buffer, request: ReceivedRequest, response: ServerResponse): Promise<void> {
  if (bytes.length === 0) return;
  const taken = new Promise<void>((resolve) => response.write(bytes, () => resolve()));
  await Promise.race([taken, request.closed]);
  if (request.closedAtMs === undefined) request.bytesWritten += bytes.length;
}

function breakOff(request: ReceivedRequest, socket: Socket, reset: boolean): void {
  if (request.closedAtMs !== undefined) return;
  request.brokenByScript = true;
  if (reset) socket.resetAndDestroy();
  else socket.destroy();
}
