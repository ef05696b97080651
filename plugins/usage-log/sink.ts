/**
 * Where lines go: appended to a file or to standard output, never waited for, never more than so much in memory.
 *
 * Sonic-boom does nearly this, but its flush at exit tries a full disk again for ever, and the process hangs.
 */
import { close, openSync, write } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { ConfigProblem } from '../../proto/contract.ts';

const STDOUT = 1;
/** Lines wait this long for company, in milliseconds, so that one write carries many. */
const BATCH_MS = 20;
const FILE_BATCH_BYTES = 65_536;
/** Up to this size (PIPE_BUF on Linux) a write to a pipe is not torn apart by another's, such as the gateway's own log. */
const PIPE_BATCH_BYTES = 4096;
/** A pipe that is full is tried again after this time, in milliseconds, a disk that failed after the other. */
const FULL_PIPE_MS = 50;
const FAILED_DISK_MS = 1000;
/** How long closing waits for a disk that does not answer, in milliseconds. */
const CLOSE_MS = 5000;

const writeSome = promisify(write);

export interface SinkOptions {
  /** `stdout` or a file. */
  to: string;
  /** Bytes that may wait. */
  maxBuffer: number;
}

/** Appends lines in the background; what does not fit into its buffer is dropped and counted. */
export class Sink {
  readonly #to: string;
  readonly #fd: number;
  readonly #maxBuffer: number;
  /** Each line with its size in bytes. */
  #waiting: { line: string; bytes: number }[] = [];
  /** Bytes waiting or being written. */
  #bytes = 0;
  #dropped = 0;
  #draining: Promise<void> | undefined;
  #warned = false;
  #closing = false;
  /** Set when nothing more can be written: the pipe's reader is gone, or the disk failed while closing. */
  #broken = false;

  /** @throws ConfigProblem when the file cannot be opened */
  constructor({ to, maxBuffer }: SinkOptions) {
    this.#to = to;
    this.#fd = to === 'stdout' ? STDOUT : openForAppending(to);
    this.#maxBuffer = maxBuffer;
  }

  /** Lines lost since the last one that was taken. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Takes a line, or drops it when too many are waiting. */
  write(line: string): void {
    const bytes = Buffer.byteLength(line);
    if (this.#broken || this.#closing || this.#bytes + bytes > this.#maxBuffer) {
      this.#dropped++;
      return;
    }
    this.#dropped = 0;
    this.#bytes += bytes;
    this.#waiting.push({ line, bytes });
    this.#draining ??= this.#drain();
  }

  /** Writes out what is waiting, and gives up on a disk that fails or takes longer than 5 s. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    const late = new AbortController();
    const deadline = sleep(CLOSE_MS, undefined, { signal: late.signal }).catch(() => {});
    await Promise.race([this.#draining, deadline]);
    late.abort();
    const lost = this.#dropped + this.#waiting.length;
    if (lost > 0) this.#warn(`${lost} lines could not be written to ${this.#to}`);
    // A write that never returns still holds its descriptor, and closing it under the write could hit another file.
    if (this.#fd !== STDOUT && this.#draining === undefined) await promisify(close)(this.#fd).catch(() => {});
  }

  async #drain(): Promise<void> {
    await sleep(BATCH_MS);
    while (this.#waiting.length > 0 && !this.#broken) await this.#writeBatch();
    this.#draining = undefined;
  }

  async #writeBatch(): Promise<void> {
    const lines = this.#nextLines();
    let rest = Buffer.from(lines.map(({ line }) => line).join(''));
    const bytes = rest.length;
    while (rest.length > 0 && !this.#broken) rest = await this.#writeRest(rest);
    this.#bytes -= bytes;
    if (rest.length > 0) this.#dropped += lines.length;
  }

  /** As many whole lines as go into one write, at least one. */
  #nextLines(): { line: string; bytes: number }[] {
    const most = this.#fd === STDOUT ? PIPE_BATCH_BYTES : FILE_BATCH_BYTES;
    let count = 0;
    let bytes = 0;
    for (const next of this.#waiting) {
      bytes += next.bytes;
      if (count > 0 && bytes > most) break;
      count++;
    }
    return this.#waiting.splice(0, count);
  }

  async #writeRest(rest: Buffer<ArrayBuffer>): Promise<Buffer<ArrayBuffer>> {
    try {
      const { bytesWritten } = await writeSome(this.#fd, rest);
      this.#warned = false;
      return rest.subarray(bytesWritten);
    } catch (error) {
      await this.#recover(error as NodeJS.ErrnoException);
      return rest;
    }
  }

  async #recover({ code }: NodeJS.ErrnoException): Promise<void> {
    if (code === 'EAGAIN') return sleep(FULL_PIPE_MS);
    if (!this.#warned) this.#warn(`cannot write to ${this.#to} (${code}); lines wait up to ${this.#maxBuffer} bytes`);
    this.#warned = true;
    // Lines for a reader that has gone will never be read; those for a disk may be when it has room again.
    this.#broken = code === 'EPIPE' || this.#closing;
    if (!this.#broken) await sleep(FAILED_DISK_MS);
  }

  #warn(message: string): void {
    process.emitWarning(`usage-log: ${message}`, 'UsageLogWarning');
  }
}

function openForAppending(path: string): number {
  try {
    return openSync(path, 'a', 0o640);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new ConfigProblem([{ path: ['to'], message: `The file cannot be opened for appending (${code}).` }]);
  }
}
