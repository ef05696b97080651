/**
 * The arithmetic of a token bucket. It starts full; each whole interval puts `perFill` tokens back, up to `max`.
 *
 * The interval begins when a token is taken from a full bucket, so a full bucket has no past: it equals a new one and
 * may be forgotten. Levels are whole numbers, and below zero while a debt is being paid off.
 */
export interface Rate {
  max: number;
  perFill: number;
  /** Milliseconds. */
  intervalMs: number;
}

export interface Bucket {
  level: number;
  /** When the current interval began, in milliseconds of the clock. */
  since: number;
}

/** Puts in what the time since the last look has earned. */
export function refill(bucket: Bucket, rate: Rate, now: number): void {
  const fills = Math.floor((now - bucket.since) / rate.intervalMs);
  if (fills < 1) return;
  bucket.level = Math.min(rate.max, bucket.level + fills * rate.perFill);
  bucket.since += fills * rate.intervalMs;
}

/** Takes tokens from a refilled bucket, or gives them back when `tokens` is negative. */
export function take(bucket: Bucket, rate: Rate, tokens: number, now: number): void {
  if (bucket.level === rate.max) bucket.since = now;
  bucket.level = Math.min(rate.max, bucket.level - tokens);
}

/**
 * Milliseconds until a refilled bucket holds `tokens`; 0 when it does already, endless when it never will. With a
 * fractional interval the sum may round to nothing just before the refill is due: whoever is let in then takes the
 * level below zero by what the refill brings a moment later, so nothing is given away.
 */
export function msUntil(bucket: Bucket, rate: Rate, tokens: number, now: number): number {
  if (tokens <= bucket.level) return 0;
  if (tokens > rate.max) return Number.POSITIVE_INFINITY;
  const fills = Math.ceil((tokens - bucket.level) / rate.perFill);
  return Math.max(0, bucket.since + fills * rate.intervalMs - now);
}
