/** When to try again: delays that double, with jitter, so that many gateways do not fall upon one plugin together. */

export interface BackoffOptions {
  /** First delay in milliseconds; default 100. */
  firstMs?: number;
  /** Longest delay in milliseconds; default 10000. */
  maxMs?: number;
}

/** One thing that is tried again and again, until it is told to rest. Its timer never keeps the process alive. */
export class Backoff {
  private readonly firstMs: number;
  private readonly maxMs: number;
  private delayMs: number;
  private timer: NodeJS.Timeout | undefined;

  constructor({ firstMs = 100, maxMs = 10_000 }: BackoffOptions = {}) {
    this.firstMs = firstMs;
    this.maxMs = maxMs;
    this.delayMs = firstMs;
  }

  /** Runs `attempt` after the next delay, or after `afterMs`. A second call before that replaces the first. */
  again(attempt: () => unknown, afterMs?: number): void {
    const delay = afterMs ?? this.delayMs * (0.8 + 0.4 * Math.random());
    this.delayMs = Math.min(this.delayMs * 2, this.maxMs);
    clearTimeout(this.timer);
    this.timer = setTimeout(attempt, delay).unref();
  }

  /** It went well: the next delay is the first again. */
  reset(): void {
    this.delayMs = this.firstMs;
    this.stop();
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }
}

/**
 * Waits for a promise, but no longer than `ms`; whatever comes of it is somebody else's to handle.
 */
export async function atMost(promise: Promise<unknown>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const enough = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([promise.catch(() => {}), enough]);
  clearTimeout(timer);
}

/** How long `connect` waits for a plugin elsewhere to describe itself, in milliseconds, before it goes on without. */
export const FIRST_ATTEMPT_MS = 1_000;

/** How long one attempt to describe may take, in milliseconds. */
export const DESCRIBE_MS = 5_000;

/** A plugin that refused is asked again after this time, in milliseconds: it may have been replaced. */
export const REFUSED_AGAIN_MS = 30_000;
