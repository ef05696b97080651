/**
 * Structured logs. They never hold a prompt, an answer, a credential or what a guard matched: fields are named one by
 * one where they are written, and nothing else goes in.
 */
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

/** Lines are gathered up to this length, in UTF-16 units, or for {@link FLUSH_MS}: one write for each costs more than the line. */
const GATHERED = 32_768;
const FLUSH_MS = 200;

/** A log to standard output, one JSON object a line, written in the background. */
export function openLog(level: string): OpenLog {
  const destination = pino.destination({ dest: 1, sync: false });
  const log = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination,
  );
  let lines = '';
  const write = () => {
    if (lines === '') return;
    destination.write(lines);
    lines = '';
  };
  const timer = setInterval(write, FLUSH_MS);
  timer.unref();
  return {
    log,
    access: log.isLevelEnabled('info') ? accessLines : () => {},
    flush() {
      clearInterval(timer);
      write();
      try {
        destination.flushSync();
      } catch {
        // The descriptor is not open yet or already closed: there is nothing left to lose.
      }
    },
  };

  /** The same shape as pino's lines; pino itself takes five times as long for one. */
  function accessLines(line: object): void {
    lines += `{"level":"info","time":"${new Date().toISOString()}",${JSON.stringify(line).slice(1, -1)},"msg":"request"}\n`;
    if (lines.length > GATHERED) write();
  }
}
