/** Plays an answer on a socket: at the model's pace, or broken in the way that its behaviour says. */
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Behaviour, type Strike, strikeAt } from './behaviour.ts';
import type { Reply, StreamReply, WholeReply } from './format.ts';
import { Refusal } from './model.ts';

const KEEP_ALIVE = ': keep-alive\n\n';
const GARBAGE = '\u0000\u0001 this is neither an event nor JSON \ufffd}{\n\n';

/** One request's way back. */
export interface Exchange {
  response: ServerResponse;
  /** Aborted when the client leaves. */
  gone: AbortSignal;
  refuse(refusal: Refusal): WholeReply;
}

/** @throws AbortError as soon as the client has gone */
export async function play(exchange: Exchange, reply: Reply, behaviour: Behaviour): Promise<void> {
  if (behaviour.hang) return untilGone(exchange);
  await pause(exchange, behaviour.latency);
  if (behaviour.reset) return reset(exchange);
  if ('stream' in reply) return playStream(exchange, reply, behaviour);
  const strike = reply.status === 200 ? strikeAt(behaviour, Number.POSITIVE_INFINITY) : undefined;
  return strike === undefined ? writeWhole(exchange, reply) : breakWhole(exchange, reply, strike);
}

async function playStream(exchange: Exchange, reply: StreamReply, behaviour: Behaviour): Promise<void> {
  const { response } = exchange;
  response.writeHead(200, {
    'content-type': reply.contentType ?? 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no',
  });
  response.flushHeaders();
  let tokens = 0;
  let sent = 0;
  for (const piece of reply.stream) {
    const strike = tokens > 0 || piece.token ? strikeAt(behaviour, tokens) : undefined;
    if (strike !== undefined) return breakStream(exchange, reply, { strike, next: piece.bytes, sent, behaviour });
    if (piece.token) await beSilent(exchange, reply, behaviour, delayBefore(tokens, behaviour));
    if (piece.token) tokens += 1;
    await write(exchange, piece.bytes);
    sent += 1;
  }
  response.end();
}

function delayBefore(tokens: number, behaviour: Behaviour): number {
  const delay = behaviour['token-delay'] ?? 0;
  return tokens === 0 ? (behaviour['first-token-delay'] ?? delay) : delay;
}

interface Breakage {
  strike: Strike;
  /** What would have gone out next. */
  next: string | Uint8Array;
  /** How many pieces went out before. */
  sent: number;
  behaviour: Behaviour;
}

async function breakStream(exchange: Exchange, reply: StreamReply, breakage: Breakage): Promise<void> {
  const { strike, next, sent, behaviour } = breakage;
  if (strike === 'stall-after') return beSilent(exchange, reply, behaviour, Number.POSITIVE_INFINITY);
  if (strike === 'reset-after') return reset(exchange);
  if (strike === 'truncate-after') await write(exchange, half(next));
  if (strike === 'garbage-after') await write(exchange, GARBAGE);
  if (strike === 'error-after') await write(exchange, reply.failure(failure(behaviour), sent));
  exchange.response.end();
}

function failure({ code }: Behaviour): Refusal {
  return new Refusal(500, 'The simulated model broke off, because it was told to.', code);
}

async function breakWhole(exchange: Exchange, reply: WholeReply, strike: Strike): Promise<void> {
  const { response } = exchange;
  if (strike === 'error-after') return writeWhole(exchange, exchange.refuse(failure({})));
  const bytes = Buffer.from(JSON.stringify(reply.json));
  const isCut = strike === 'reset-after' || strike === 'stall-after';
  response.writeHead(200, { ...jsonHeaders(reply), ...(isCut ? { 'content-length': bytes.length } : {}) });
  response.flushHeaders();
  if (strike === 'garbage-after') await write(exchange, GARBAGE);
  else if (strike !== 'end-after') await write(exchange, half(bytes));
  if (strike === 'reset-after') return reset(exchange);
  if (strike === 'stall-after') return untilGone(exchange);
  response.end();
}

function writeWhole({ response }: Exchange, reply: WholeReply): void {
  const body = Buffer.from(JSON.stringify(reply.json));
  response.writeHead(reply.status, { ...jsonHeaders(reply), 'content-length': body.length });
  response.end(body);
}

function jsonHeaders({ headers }: WholeReply): Record<string, string> {
  return { 'content-type': 'application/json', ...headers };
}

function half(bytes: string | Uint8Array): Buffer {
  const buffer = Buffer.from(bytes);
  return buffer.subarray(0, Math.ceil(buffer.length / 2));
}

/** The time in which the model says nothing; the vendor's keep-alives go out in it, if the behaviour has them. */
async function beSilent(exchange: Exchange, reply: StreamReply, behaviour: Behaviour, ms: number): Promise<void> {
  const every = behaviour.keepalives ?? Number.POSITIVE_INFINITY;
  let left = ms;
  for (; left > every; left -= every) {
    await pause(exchange, every);
    await write(exchange, reply.keepAlive ?? KEEP_ALIVE);
  }
  return left === Number.POSITIVE_INFINITY ? untilGone(exchange) : pause(exchange, left);
}

async function pause({ gone }: Exchange, ms = 0): Promise<void> {
  if (ms > 0) await sleep(ms, undefined, { signal: gone });
  gone.throwIfAborted();
}

async function untilGone({ gone }: Exchange): Promise<void> {
  if (!gone.aborted) await once(gone, 'abort');
  gone.throwIfAborted();
}

async function write({ response, gone }: Exchange, bytes: string | Uint8Array): Promise<void> {
  gone.throwIfAborted();
  if (bytes.length > 0 && !response.write(bytes)) await once(response, 'drain', { signal: gone });
}

/** Waits until the operating system has taken what was written, so that the reset comes after it. */
async function reset({ response }: Exchange): Promise<void> {
  const { socket } = response;
  await new Promise<void>((resolve) => socket?.write('', () => resolve()));
  socket?.resetAndDestroy();
}
