/** What a person reads, and what a program reads, of a limit. */
import { type Bucket, msUntil } from './bucket.ts';
import type { Limit } from './config.ts';

/** Client libraries ignore a `retry-after` above 60 s and try again at once, unless they are told not to. */
const SDK_PATIENCE_SECONDS = 60;

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

/** Headers that say when to come back; a wait without end says not to. */
export function retryHeaders(waitMs: number): Record<string, string> {
  const wait = seconds(waitMs);
  if (wait <= SDK_PATIENCE_SECONDS) return { 'retry-after': String(wait) };
  if (wait === Number.POSITIVE_INFINITY) return { 'x-should-retry': 'false' };
  return { 'retry-after': String(wait), 'x-should-retry': 'false' };
}

/**
 * A limit as `RateLimit-Policy` has it: what a full bucket holds, and the seconds that an empty one takes to be full.
 * The unit of tokens is not among the draft's, but left out it would mean requests.
 */
export function policyOf(name: string, type: Limit['type'], rate: Limit['rate']): string {
  const windowMs = Math.ceil(rate.max / rate.perFill) * rate.intervalMs;
  return `"${name}";q=${rate.max};w=${seconds(windowMs)}${type === 'tokens' ? ';qu="tokens"' : ''}`;
}

/** One sentence on the limit and one on what to do. */
export function sentence(limit: Limit, needed: number, bucket: Bucket, waitMs: number): string {
  const { rate, type } = limit;
  if (needed > rate.max) {
    return `This request is estimated at ${needed} tokens, and ${owned(limit)} at most ${rate.max} at once. Shorten it.`;
  }
  const again = `Try again in ${inWords(waitMs)}.`;
  if (bucket.level > 0) {
    return `This request is estimated at ${needed} tokens, and ${owned(limit)} ${bucket.level} left. ${again}`;
  }
  return `${used(limit)} ${amount(rate.max, type)}${span(rate)}. ${again}`;
}

function owned({ parts }: Limit): string {
  if (parts.includes('identity')) return 'you have';
  if (parts.includes('group')) return 'your group has';
  return parts.includes('tenant') ? 'your organisation has' : 'there are';
}

function used({ parts }: Limit): string {
  if (parts.includes('identity')) return 'You have used your';
  if (parts.includes('group')) return 'Your group has used its';
  return parts.includes('tenant') ? 'Your organisation has used its' : 'Everybody together has used the';
}

function amount(max: number, type: Limit['type']): string {
  return max === 1 ? `1 ${type.slice(0, -1)}` : `${max} ${type}`;
}

/** The time that the amount is for: a calendar word where one fits, else its length. */
function span(rate: Limit['rate']): string {
  if (rate.perFill < rate.max) return ' that may come at once';
  const words = inWords(rate.intervalMs);
  return words.startsWith('1 ') ? ` for this ${words.slice(2)}` : ` for these ${words}`;
}

const UNITS: [number, string][] = [
  [86_400, 'day'],
  [3600, 'hour'],
  [60, 'minute'],
];

/** `42 seconds`, `3 minutes`: rounded up, in the largest unit of which it is two or exactly one. */
function inWords(ms: number): string {
  const total = seconds(ms);
  for (const [size, unit] of UNITS) {
    if (total === size || total >= 2 * size) return plural(Math.ceil(total / size), unit);
  }
  return plural(total, 'second');
}

function plural(count: number, unit: string): string {
  return `${count} ${unit}${count === 1 ? '' : 's'}`;
}

/** Whole seconds, rounded up. */
function seconds(ms: number): number {
  return Math.ceil(ms / 1000);
}
