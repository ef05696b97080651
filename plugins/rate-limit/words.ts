/** What a person reads, and what a program reads, of limits in Redis. */
import { amount, retryHeaders, seconds, sentenceOf, spanOf, tryAgain } from '../quota/words.ts';
import type { Limit } from './config.ts';
import type { Reading } from './engine.ts';
import { NANO_USD } from './money.ts';

/** A limit and how it stands. */
export interface Standing {
  limit: Limit;
  reading: Reading;
  /** What the request needs of it. */
  needed: number;
}

const UNITS = {
  requests: '',
  tokens: ';qu="tokens"',
  cost: ';qu="usd-micros"',
  concurrent: ';qu="concurrent-requests"',
};

/** A limit as `RateLimit-Policy` has it; money in millionths of a dollar, for the draft knows only whole numbers. */
export function policyOf(name: string, type: Limit['type'], { max, span, kind, step }: Limit['meter']): string {
  const ms = kind === 'bucket' ? ((span as number) * max) / step : span === 'month' ? 31 * 86_400_000 : span;
  return `"${name}";q=${quantity(type, max)}${ms > 0 ? `;w=${seconds(ms)}` : ''}${UNITS[type]}`;
}

/**
 * Headers of the limit that has the smallest share left, and OpenAI's pair of the tightest ones of requests and tokens.
 * `x-ratelimit-*` in seconds (money in dollars), OpenAI's as `6m0s`.
 */
export function rateHeaders(standings: readonly Standing[]): Record<string, string> {
  const tightest = tightestOf(standings);
  if (tightest === undefined) return {};
  const { limit, reading } = tightest;
  return {
    'x-ratelimit-limit': figure(limit, limit.meter.max),
    'x-ratelimit-remaining': figure(limit, Math.max(0, reading.left)),
    'x-ratelimit-reset': String(seconds(reading.wholeMs)),
    ...detailed(standings, 'requests'),
    ...detailed(standings, 'tokens'),
    'ratelimit-policy': limit.policy,
    ratelimit: `"${limit.name}";r=${quantity(limit.type, Math.max(0, reading.left))};t=${seconds(reading.moreMs)}`,
  };
}

/** Of a refusal: the limit that takes longest, and when to come back. */
export function refusalHeaders(standing: Standing): Record<string, string> {
  return { ...rateHeaders([standing]), ...retryHeaders(standing.reading.waitMs) };
}

/** One sentence on the limit and one on what to do. */
export function sentence({ limit, reading, needed }: Standing): string {
  const { type, parts, meter } = limit;
  const { left, waitMs } = reading;
  if (type === 'concurrent') {
    return `${amount(meter.max, 'answers')} may be under way at a time, and as many are. ${tryAgain(waitMs)}`;
  }
  return sentenceOf(parts, {
    most: type === 'cost' ? dollars(meter.max) : amount(meter.max, type),
    bound: figure(limit, meter.max, '$'),
    needed: type === 'cost' ? dollars(needed) : amount(needed, 'tokens'),
    fits: waitMs !== Number.POSITIVE_INFINITY,
    left: left > 0 ? figure(limit, left, '$') : undefined,
    span: spanIn(meter),
    waitMs,
  });
}

/** The standing with the smallest share left. */
function tightestOf(standings: readonly Standing[]): Standing | undefined {
  const share = ({ limit, reading }: Standing) => reading.left / limit.meter.max;
  return standings.reduce<Standing | undefined>(
    (least, one) => (least === undefined || share(one) < share(least) ? one : least),
    undefined,
  );
}

function detailed(standings: readonly Standing[], type: 'requests' | 'tokens'): Record<string, string> {
  const tightest = tightestOf(standings.filter(({ limit }) => limit.type === type));
  if (tightest === undefined) return {};
  const { limit, reading } = tightest;
  return {
    [`x-ratelimit-limit-${type}`]: String(limit.meter.max),
    [`x-ratelimit-remaining-${type}`]: String(Math.max(0, reading.left)),
    [`x-ratelimit-reset-${type}`]: goDuration(reading.wholeMs),
  };
}

/** As Go writes it and OpenAI sends it: `20ms`, `1s`, `6m0s`, `2h0m0s`. */
export function goDuration(ms: number): string {
  if (ms < 1000) return `${Math.ceil(ms)}ms`;
  const total = seconds(ms);
  const [hours, minutes] = [Math.floor(total / 3600), Math.floor(total / 60) % 60];
  return `${hours > 0 ? `${hours}h` : ''}${total >= 60 ? `${minutes}m` : ''}${total % 60}s`;
}

function spanIn({ kind, span }: Limit['meter']): string {
  if (kind === 'bucket') return ' that may come at once';
  return span === 'month' ? ' for this month' : spanOf(span);
}

function figure({ type }: Limit, value: number, sign = ''): string {
  return type === 'cost' ? sign + decimal(value) : String(value);
}

function dollars(nano: number): string {
  return `$${decimal(nano)}`;
}

/** Dollars with at most six decimals, rounded up, so that little is not called nothing. */
function decimal(nano: number): string {
  return (Math.ceil(nano / 1000) / 1e6).toFixed(6).replace(/\.?0+$/, '');
}

function quantity(type: Limit['type'], value: number): number {
  return type === 'cost' ? Math.floor((value / NANO_USD) * 1e6) : value;
}
