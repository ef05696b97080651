/**
 * The mock provider of the bench, a process of its own: an OpenAI-compatible server on bare sockets, so that it costs
 * little beside what is measured.
 *
 * A body with `"stream": true` gets server-sent events, else a whole answer. `bench n=100 m=20` in the body means 100
 * events with text, one each 20 ms; `m=0` means as fast as they are taken. Each event carries the time when it was
 * written, in microseconds of the machine's monotonic clock, in `system_fingerprint`.
 */

import type { AddressInfo } from 'node:net';
import { createServer, type Socket } from 'node:net';
import { microseconds, STAMP_DIGITS } from './clock.ts';

const WORDS = 'The quarterly review covered supply planning, hiring and the new support desk in plain words. '.match(
  /\S+\s/g,
)!;
const ID = 'chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT';
const MODEL = 'gpt-4o-mini-2024-07-18';

const WHOLE = wholeAnswer();
const STREAM_HEAD =
  'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n';
const STREAM_END = `${chunk('data: [DONE]\n\n')}0\r\n\r\n`;

/** Streams that wait for their next event, by pace. Equal paces come due in the order in which they were put in. */
const paced = new Map<number, Stream[]>();

class Stream {
  readonly socket: Socket;
  readonly total: number;
  readonly paceMs: number;
  sent = 0;
  dueMs = 0;

  constructor(socket: Socket, total: number, paceMs: number) {
    this.socket = socket;
    this.total = total;
    this.paceMs = paceMs;
  }

  begin(): void {
    this.socket.write(STREAM_HEAD + event({ role: 'assistant', content: '' }, null));
    if (this.paceMs === 0) this.pour();
    else this.wait(performance.now());
  }

  /** As fast as it is taken, eight events a turn, so that streams side by side take turns. */
  private pour(): void {
    for (let i = 0; i < 8 && this.sent < this.total; i++) this.socket.write(this.next());
    if (this.sent >= this.total) this.end();
    else if (this.socket.writableNeedDrain) this.socket.once('drain', () => this.pour());
    else setImmediate(() => this.pour());
  }

  wait(from: number): void {
    this.dueMs = from + this.paceMs;
    const queue = paced.get(this.paceMs) ?? [];
    queue.push(this);
    paced.set(this.paceMs, queue);
  }

  step(): void {
    if (this.socket.destroyed) return;
    this.socket.write(this.next());
    if (this.sent >= this.total) this.end();
    else this.wait(this.dueMs);
  }

  private next(): string {
    this.sent += 1;
    return event({ content: WORDS[this.sent % WORDS.length]! }, null);
  }

  private end(): void {
    this.socket.write(event({}, 'stop') + STREAM_END);
  }
}

function event(delta: object, finish: string | null): string {
  const stamp = String(microseconds()).padStart(STAMP_DIGITS, '0');
  const choice = `{"index":0,"delta":${JSON.stringify(delta)},"logprobs":null,"finish_reason":${JSON.stringify(finish)}}`;
  return chunk(
    `data: {"id":"${ID}","object":"chat.completion.chunk","created":1741569952,"model":"${MODEL}","system_fingerprint":"fp_${stamp}","choices":[${choice}]}\n\n`,
  );
}

/** All of it is ASCII: as many bytes as characters. */
function chunk(text: string): string {
  return `${text.length.toString(16)}\r\n${text}\r\n`;
}

function wholeAnswer(): string {
  const content = WORDS.join('').repeat(2).slice(0, 180);
  const message = { role: 'assistant', content, refusal: null, annotations: [] };
  const body = JSON.stringify({
    id: ID,
    object: 'chat.completion',
    created: 1741569952,
    model: MODEL,
    choices: [{ index: 0, message, logprobs: null, finish_reason: 'stop' }],
    usage: { prompt_tokens: 19, completion_tokens: 10, total_tokens: 29 },
    service_tier: 'default',
  });
  return `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
}

setInterval(() => {
  const now = performance.now();
  for (const queue of paced.values()) {
    let due = 0;
    while (due < queue.length && queue[due]!.dueMs <= now) due += 1;
    for (const stream of queue.splice(0, due)) stream.step();
  }
}, 1);

/** Reads requests on one connection, one after another. Clients of a bench do not pipeline. */
function serve(socket: Socket): void {
  let pending: Buffer = Buffer.alloc(0);
  socket.setNoDelay(true);
  socket.on('error', () => socket.destroy());
  socket.on('data', (bytes: Buffer) => {
    pending = pending.length === 0 ? bytes : Buffer.concat([pending, bytes]);
    const bodyAt = pending.indexOf('\r\n\r\n') + 4;
    if (bodyAt === 3) return;
    const head = pending.toString('latin1', 0, bodyAt);
    const body = bodyOf(head, pending.subarray(bodyAt));
    if (body === undefined) return;
    pending = Buffer.alloc(0);
    answer(socket, body);
  });
}

/** The body once all of it has come. */
function bodyOf(head: string, bytes: Buffer): Buffer | undefined {
  if (/\r\ntransfer-encoding: *chunked/i.test(head)) return bytes.includes('\r\n0\r\n\r\n') ? bytes : undefined;
  const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0);
  return bytes.length < length ? undefined : bytes;
}

function answer(socket: Socket, body: Buffer): void {
  if (!body.includes('"stream":true') && !body.includes('"stream": true')) {
    socket.write(WHOLE);
    return;
  }
  const at = body.indexOf('bench n=');
  const wish = /n=(\d+) m=(\d+)/.exec(at < 0 ? '' : body.toString('latin1', at, at + 40));
  new Stream(socket, Number(wish?.[1] ?? 100), Number(wish?.[2] ?? 0)).begin();
}

const sockets = new Set<Socket>();
const server = createServer((socket) => {
  sockets.add(socket);
  socket.on('close', () => sockets.delete(socket));
  serve(socket);
});
server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () =>
  process.send?.({ port: (server.address() as AddressInfo).port }),
);

// `drop`: closes every connection, so that the next burst finds none that is open.
process.on('message', () => {
  for (const socket of sockets) socket.destroy();
  process.send?.({ dropped: true });
});
process.on('disconnect', () => process.exit());
