/** What a program reads of a limit, and how its sentences speak of it. */
import { type Bucket, msUntil } from '../quota/bucket.ts';
import { seconds, spanOf, type Told } from '../quota/words.ts';
import type { Limit } from './config.ts';

/** Headers of a limit as it stands: `x-ratelimit-*` in seconds, and the IETF draft's `RateLimit` pair. */
export function rateHeaders(limit: Limit, bucket: Bucket, now: number): Record<string, string> {
  const { max } = limit.rate;
  const remaining = Math.max(0, bucket.level);
  const more = bucket.level < max ? msUntil(bucket, limit.rate, bucket.level + 1, now) : 0;
  return {
    'x-ratelimit-limit': String(max),
    'x-ratelimit-remaining': String(remaining),
    'x-ratelimit-reset': String(seconds(msUntil(bucket, limit.rate, max, now))),
    'ratelimit-policy': limit.policy,
    ratelimit: `"${limit.name}";r=${remaining};t=${seconds(more)}`,
  };
}

/**
 * A limit as `RateLimit-Policy` has it: what a full bucket holds, and the seconds that an empty one takes to be full.
 * The unit of tokens is not among the draft's, but left out it would mean requests.
 */
export function policyOf(name: string, type: Limit['type'], rate: Limit['rate']): string {
  const windowMs = Math.ceil(rate.max / rate.perFill) * rate.intervalMs;
  return `"${name}";q=${rate.max};w=${seconds(windowMs)}${type === 'tokens' ? ';qu="tokens"' : ''}`;
}

/** A limit as its sentences speak of it. */
export function told({ parts, type, rate }: Limit): Told {
  const span = rate.perFill < rate.max ? ' that may come at once' : spanOf(rate.intervalMs);
  return { parts, type, max: rate.max, span };
}
