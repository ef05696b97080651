/**
 * Structured logs. They never hold a prompt, an answer, a credential or what a guard matched: fields are named one by
 * one where they are written, and nothing else goes in.
 */
import { type Logger, pino } from 'pino';

export type Log = Pick<Logger, 'debug' | 'info' | 'warn' | 'error' | 'isLevelEnabled'>;

/** A log to standard output, one JSON object a line, written in the background. */
export function openLog(level: string): { log: Logger; flush(): void } {
  const destination = pino.destination({ dest: 1, sync: false, minLength: 4096 });
  const log = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination,
  );
  const timer = setInterval(() => destination.flush(), 200);
  timer.unref();
  return {
    log,
    flush() {
      clearInterval(timer);
      try {
        destination.flushSync();
      } catch {
        // The descriptor is not open yet or already closed: there is nothing left to lose.
      }
    },
  };
}
