/**
 * Stops asking a plugin that cannot be reached, so that its callers need not wait for what will fail anyway.
 *
 * Only what shows that a plugin is out of reach counts: {@link PluginUnavailable} and lateness. A plugin that answers
 * with a fault is there, and a client that knows how to make it stumble must not be able to shut it off for others.
 */
import { type BreakerOptions, PluginUnavailable } from './connection.ts';

export class Breaker {
  private readonly limit: number;
  private readonly openMs: number;
  private readonly maxOpenMs: number;
  private readonly now: () => number;
  private failures = 0;
  private waitMs: number;
  /** When the next call may try, on the clock of `now`; undefined while closed. */
  private until: number | undefined;
  private trying = false;

  /** @param now a monotonic clock in milliseconds */
  constructor(options: BreakerOptions = {}, now: () => number = () => performance.now()) {
    this.limit = options.failures ?? 5;
    this.openMs = options.openMs ?? 1_000;
    this.maxOpenMs = options.maxOpenMs ?? 30_000;
    this.waitMs = this.openMs;
    this.now = now;
  }

  get open(): boolean {
    return this.until !== undefined;
  }

  /** Must be called before asking. @throws {@link PluginUnavailable} while open, except for one trial at a time. */
  enter(): void {
    if (this.until === undefined) return;
    if (this.trying || this.now() < this.until) {
      throw new PluginUnavailable('the plugin has failed too often of late', 'breaker_open');
    }
    this.trying = true;
  }

  /** Passes an answer on, and learns from what became of it. */
  watch<T>(answer: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    return answer.then(
      (value) => {
        this.reset();
        return value;
      },
      (error: unknown) => {
        this.learn(error, signal);
        throw error;
      },
    );
  }

  /** Learns from a failure. */
  learn(error: unknown, signal: AbortSignal | undefined): void {
    if (signal?.aborted) {
      if (isLateness(signal)) this.fail();
      else this.trying = false;
    } else if (error instanceof PluginUnavailable) this.fail();
    else this.reset();
  }

  /** It was reached: closed, and as if nothing had been. */
  reset(): void {
    this.failures = 0;
    this.waitMs = this.openMs;
    this.until = undefined;
    this.trying = false;
  }

  private fail(): void {
    this.failures += 1;
    if (this.trying) {
      this.trying = false;
      this.waitMs = Math.min(this.waitMs * 2, this.maxOpenMs);
    } else if (this.failures < this.limit || this.until !== undefined) return;
    this.until = this.now() + this.waitMs;
  }
}

function isLateness(signal: AbortSignal): boolean {
  return signal.reason instanceof Error && signal.reason.name === 'TimeoutError';
}
