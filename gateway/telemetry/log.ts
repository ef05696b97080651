/**
 * Structured logs. They never hold a prompt, an answer, a credential or what a guard matched: fields are named one by
 * one where they are written, and nothing else goes in.
 */
import { write, writeSync } from 'node:fs';
import { type Logger, pino } from 'pino';

export type Log = Pick<Logger, 'debug' | 'info' | 'warn' | 'error'>;

/** Where the lines of requests go: one object each. */
export type AccessLog = (line: object) => void;

/** The gateway's log. */
export interface OpenLog {
  log: Logger;
  access: AccessLog;
  /** Writes what is left, at the end of the process. */
  flush(): void;
}

/** A log to standard output, one JSON object a line, written in the background. */
export function openLog(level: string): OpenLog {
  // One writer for both, and not pino's own: that one waits for ever when the disk is full.
  const lines = new LineWriter(1);
  const log = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    { write: (line: string) => lines.write(line) },
  );
  // A process that crashes still tells why.
  process.once('exit', () => lines.close());
  return {
    log,
    access: log.isLevelEnabled('info') ? (line) => lines.write(accessText(line)) : () => {},
    flush: () => lines.close(),
  };
}

/** The same shape as pino's lines; pino itself takes five times as long for one. */
function accessText(line: object): string {
  return `{"level":"info","time":"${new Date().toISOString()}",${JSON.stringify(line).slice(1, -1)},"msg":"request"}\n`;
}

/** Lines are gathered up to this size, in bytes, or for {@link FLUSH_MS}: a write for each costs more than the line. */
const GATHERED = 65_536;
const FLUSH_MS = 200;

/**
 * Writes lines to a descriptor in large pieces: one fills while the other is written. When the reader is slower than the
 * gateway, the gateway waits for it rather than keep lines without bound.
 */
class LineWriter {
  private readonly descriptor: number;
  private filling = Buffer.allocUnsafe(GATHERED);
  private spare = Buffer.allocUnsafe(GATHERED);
  private length = 0;
  private isWriting = false;
  private readonly timer: NodeJS.Timeout;

  constructor(descriptor: number) {
    this.descriptor = descriptor;
    this.timer = setInterval(() => this.flush(), FLUSH_MS);
    this.timer.unref();
  }

  write(line: string): void {
    // A UTF-16 unit takes three bytes at most.
    if (this.length + line.length * 3 > GATHERED) {
      this.flush();
      if (this.length > 0) this.flushSync();
      if (line.length * 3 > GATHERED) {
        writeAll(this.descriptor, Buffer.from(line));
        return;
      }
    }
    this.length += this.filling.write(line, this.length, 'utf8');
  }

  close(): void {
    clearInterval(this.timer);
    this.flushSync();
  }

  private flush(): void {
    if (this.length === 0 || this.isWriting) return;
    const full = this.filling;
    const piece = full.subarray(0, this.length);
    this.filling = this.spare;
    this.spare = full;
    this.length = 0;
    this.isWriting = true;
    write(this.descriptor, piece, (error, written) => {
      this.isWriting = false;
      if (!error && written < piece.length) writeAll(this.descriptor, piece.subarray(written));
    });
  }

  private flushSync(): void {
    writeAll(this.descriptor, this.filling.subarray(0, this.length));
    this.length = 0;
  }
}

/** Writes everything now. What cannot be written is lost: a log must not stop the gateway. */
function writeAll(descriptor: number, bytes: Buffer): void {
  let from = 0;
  try {
    while (from < bytes.length) from += writeSync(descriptor, bytes, from);
  } catch {
    // The reader has gone, or a non-blocking descriptor is full.
  }
}
