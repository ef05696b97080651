/**
 * The load client of the bench, a process of its own, on bare sockets. It does one job at a time: the parent sends the
 * job, hears `begin` and `end` at the borders of what is measured, and says `close` when it has looked at the processes.
 */
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { microseconds, STAMP_DIGITS } from './clock.ts';

export interface Job {
  port: number;
  path: string;
  headers: Record<string, string>;
  body: string;
  stream: boolean;
  connections: number;
  /** Seconds that are measured, after `warmSeconds` that are not. */
  seconds: number;
  warmSeconds: number;
  /** Connections are opened over this time; 0 opens them all at once. */
  rampSeconds: number;
  /** One request per connection; what is measured begins with the first and ends with the last. */
  once: boolean;
}

/** Times in milliseconds. */
export interface Load {
  seconds: number;
  requests: number;
  events: number;
  errors: number;
  /** The first thing that went wrong. */
  firstError?: string;
  latency?: Quantiles;
  /** From the request to the first bytes of the answer's body. */
  firstByte?: Quantiles;
  /** From an event's being written by the upstream to its being read here. */
  late?: Quantiles;
}

export interface Quantiles {
  p50: number;
  p99: number;
}

export type FromLoad = { at: 'begin' } | { at: 'end'; load: Load } | { at: 'closed' };

/** How long a burst may take, in seconds. */
const ONCE_LIMIT = 20;

/** What has been counted since the measuring began. */
class Counts {
  requests = 0;
  events = 0;
  errors = 0;
  firstError: string | undefined;
  readonly latency: number[] = [];
  readonly firstByte: number[] = [];
  readonly late: number[] = [];

  failed(reason: string): void {
    this.errors += 1;
    this.firstError ??= reason;
  }

  load(seconds: number): Load {
    const { requests, events, errors, firstError } = this;
    const quantiles = {
      latency: quantilesOf(this.latency),
      firstByte: quantilesOf(this.firstByte),
      late: quantilesOf(this.late),
    };
    return { seconds, requests, events, errors, firstError, ...quantiles };
  }
}

function quantilesOf(values: number[]): Quantiles | undefined {
  if (values.length === 0) return undefined;
  const sorted = Float64Array.from(values).sort();
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]! / 1000;
  return { p50: at(0.5), p99: at(0.99) };
}

/** One connection: a request, its answer, and the next request. */
class Connection {
  private readonly run: Run;
  private readonly socket: Socket;
  private readonly parser = new Parser((text) => this.bodyText(text));
  private startedAt = 0;
  private sawByte = false;
  private sawDone = false;
  private text = '';
  private isBusy = false;

  constructor(run: Run) {
    this.run = run;
    this.socket = connect({ port: run.job.port, host: '127.0.0.1', noDelay: true });
    this.socket.on('connect', () => this.send());
    this.socket.on('data', (bytes: Buffer) => this.read(bytes));
    this.socket.on('error', (error) => this.lost(error.message));
    this.socket.on('close', () => this.lost('the connection was closed in the middle of an answer'));
  }

  close(): void {
    this.isBusy = false;
    this.socket.destroy();
  }

  private send(): void {
    this.isBusy = true;
    this.sawByte = this.sawDone = false;
    this.text = '';
    this.startedAt = microseconds();
    this.socket.write(this.run.request);
  }

  private read(bytes: Buffer): void {
    if (this.parser.push(bytes)) this.answered();
  }

  /** A piece of the answer's body. */
  private bodyText(text: string): void {
    const { counts, job } = this.run;
    const now = microseconds();
    if (!this.sawByte) {
      this.sawByte = true;
      counts.firstByte.push(now - this.startedAt);
      this.run.heardFirst();
    }
    if (job.stream) this.events(text, now);
  }

  private events(text: string, now: number): void {
    const { counts } = this.run;
    const all = this.text + text;
    let from = 0;
    for (let end = all.indexOf('\n\n'); end >= 0; end = all.indexOf('\n\n', from)) {
      const stampAt = all.indexOf('"fp_', from);
      if (stampAt >= 0 && stampAt < end) {
        counts.events += 1;
        counts.late.push(now - Number(all.slice(stampAt + 4, stampAt + 4 + STAMP_DIGITS)));
      } else if (all.startsWith('data: [DONE]', from)) this.sawDone = true;
      from = end + 2;
    }
    this.text = all.slice(from);
  }

  private answered(): void {
    const { counts, job } = this.run;
    this.isBusy = false;
    if (this.parser.status !== 200) counts.failed(`status ${this.parser.status}`);
    else if (job.stream && !this.sawDone) counts.failed('a stream ended without [DONE]');
    else {
      counts.requests += 1;
      counts.latency.push(microseconds() - this.startedAt);
    }
    if (job.once) this.run.answeredOnce();
    else if (!this.run.isOver) this.send();
  }

  private lost(reason: string): void {
    if (!this.isBusy && this.startedAt !== 0) return;
    this.isBusy = false;
    this.startedAt = 1;
    this.run.counts.failed(reason);
    this.run.answeredOnce();
  }
}

/** Reads answers: the head, then a body by its length or in chunks. */
class Parser {
  status = 0;
  private readonly onBody: (text: string) => void;
  private pending = '';
  private state: 'head' | 'length' | 'size' | 'chunk' | 'end' = 'head';
  private left = 0;

  constructor(onBody: (text: string) => void) {
    this.onBody = onBody;
  }

  /** Takes bytes; true when an answer is complete. */
  push(bytes: Buffer): boolean {
    this.pending += bytes.toString('latin1');
    for (;;) {
      const before = this.pending.length;
      if (this.step()) return true;
      if (this.pending.length === before) return false;
    }
  }

  /** Takes the next part off what is pending, if it is there; true at the end of an answer. */
  private step(): boolean {
    if (this.state === 'head') return this.head();
    if (this.state === 'length') return this.take(this.left) && this.over();
    if (this.state === 'chunk') {
      if (this.take(this.left)) this.state = 'size';
      return false;
    }
    const line = this.pending.startsWith('\r\n') && this.state === 'size' ? 2 : 0;
    const end = this.pending.indexOf('\r\n', line);
    if (end < 0) return false;
    if (this.state === 'end') {
      this.pending = this.pending.slice(end + 2);
      return this.over();
    }
    this.left = Number.parseInt(this.pending.slice(line, end), 16);
    this.pending = this.pending.slice(end + 2);
    this.state = this.left === 0 ? 'end' : 'chunk';
    return false;
  }

  private head(): boolean {
    const end = this.pending.indexOf('\r\n\r\n');
    if (end < 0) return false;
    const head = this.pending.slice(0, end + 2).toLowerCase();
    this.pending = this.pending.slice(end + 4);
    this.status = Number(head.slice(9, 12));
    const length = /\r\ncontent-length: *(\d+)/.exec(head)?.[1];
    this.left = Number(length ?? 0);
    this.state = length === undefined ? 'size' : 'length';
    return this.state === 'length' && this.left === 0 && this.over();
  }

  /** Hands on up to `left` characters; true when that was all of them. */
  private take(left: number): boolean {
    const part = this.pending.slice(0, left);
    this.pending = this.pending.slice(part.length);
    this.left = left - part.length;
    if (part !== '') this.onBody(part);
    return this.left === 0;
  }

  private over(): boolean {
    this.state = 'head';
    return true;
  }
}

class Run {
  readonly job: Job;
  readonly request: Buffer;
  counts = new Counts();
  isOver = false;
  private readonly connections: Connection[] = [];
  private readonly allAnswered = Promise.withResolvers<void>();
  private readonly allHeard = Promise.withResolvers<void>();
  private answers = 0;
  private heard = 0;

  constructor(job: Job) {
    this.job = job;
    const headers = { host: '127.0.0.1', 'content-type': 'application/json', ...job.headers };
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    this.request = Buffer.from(
      `POST ${job.path} HTTP/1.1\r\n${lines.join('')}content-length: ${Buffer.byteLength(job.body)}\r\n\r\n${job.body}`,
    );
  }

  async go(): Promise<void> {
    const { job } = this;
    if (job.once) tell({ at: 'begin' });
    let startedAt = microseconds();
    await this.open();
    if (job.once) await Promise.race([this.allAnswered.promise, sleep(ONCE_LIMIT * 1000)]);
    else {
      await sleep(job.warmSeconds * 1000);
      // Streams that are to be held must all have begun.
      if (job.rampSeconds > 0) await Promise.race([this.allHeard.promise, sleep(ONCE_LIMIT * 1000)]);
      this.counts = new Counts();
      tell({ at: 'begin' });
      startedAt = microseconds();
      await sleep(job.seconds * 1000);
    }
    this.isOver = true;
    const missing = job.once ? job.connections - this.answers : 0;
    for (let i = 0; i < missing; i++) this.counts.failed(`no complete answer in ${ONCE_LIMIT} s`);
    tell({ at: 'end', load: this.counts.load((microseconds() - startedAt) / 1e6) });
  }

  private async open(): Promise<void> {
    const { connections, rampSeconds } = this.job;
    const startedAt = performance.now();
    for (let i = 0; i < connections; i++) {
      const ahead = startedAt + (i / connections) * rampSeconds * 1000 - performance.now();
      if (ahead > 1) await sleep(ahead);
      this.connections.push(new Connection(this));
    }
  }

  answeredOnce(): void {
    this.answers += 1;
    if (this.answers === this.job.connections) this.allAnswered.resolve();
  }

  heardFirst(): void {
    this.heard += 1;
    if (this.heard === this.job.connections) this.allHeard.resolve();
  }

  close(): void {
    for (const connection of this.connections) connection.close();
    tell({ at: 'closed' });
  }
}

function tell(message: FromLoad): void {
  process.send?.(message);
}

let run: Run | undefined;
process.on('message', (message: Job | 'close') => {
  if (message === 'close') run?.close();
  else {
    run = new Run(message);
    void run.go();
  }
});
process.on('disconnect', () => process.exit());
