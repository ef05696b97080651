/** What a person reads of a limit, and what tells a client library when to come back. */
import type { Part } from './keys.ts';

/** Client libraries ignore a `retry-after` above 60 s and try again at once, unless they are told not to. */
const SDK_PATIENCE_SECONDS = 60;

/** A limit as its sentences speak of it. */
export interface Told {
  parts: readonly Part[];
  max: number;
  type: 'requests' | 'tokens';
  /** Such as ` for this minute`. */
  span: string;
}

/** Headers that say when to come back; a wait without end says not to. */
export function retryHeaders(waitMs: number): Record<string, string> {
  const wait = seconds(waitMs);
  if (wait <= SDK_PATIENCE_SECONDS) return { 'retry-after': String(wait) };
  if (wait === Number.POSITIVE_INFINITY) return { 'x-should-retry': 'false' };
  return { 'retry-after': String(wait), 'x-should-retry': 'false' };
}

/** One sentence on the limit and one on what to do. */
export function sentence(told: Told, needed: number, left: number, waitMs: number): string {
  return sentenceOf(told.parts, {
    most: amount(told.max, told.type),
    bound: String(told.max),
    needed: `${needed} tokens`,
    fits: needed <= told.max,
    left: left > 0 ? String(left) : undefined,
    span: told.span,
    waitMs,
  });
}

/** The parts of a {@link sentence}, for what is not counted in requests or tokens. */
export interface Amounts {
  /** All that may be used, and the same where its unit has been named. */
  most: string;
  bound: string;
  needed: string;
  /** Whether what is needed can ever be had. */
  fits: boolean;
  /** Undefined when there is nothing. */
  left: string | undefined;
  span: string;
  waitMs: number;
}

/** See {@link sentence}. */
export function sentenceOf(parts: readonly Part[], { most, bound, needed, fits, left, span, waitMs }: Amounts): string {
  if (!fits) {
    return `This request is estimated at ${needed}, and ${owned(parts)} at most ${bound} at once. Shorten it.`;
  }
  const again = tryAgain(waitMs);
  if (left !== undefined) {
    return `This request is estimated at ${needed}, and ${owned(parts)} ${left} left. ${again}`;
  }
  return `${used(parts)} ${most}${span}. ${again}`;
}

/** When to come back. */
export function tryAgain(waitMs: number): string {
  return `Try again in ${inWords(waitMs)}.`;
}

function owned(parts: readonly Part[]): string {
  if (parts.includes('identity')) return 'you have';
  if (parts.includes('key')) return 'your key has';
  if (parts.includes('group')) return 'your group has';
  return parts.includes('tenant') ? 'your organisation has' : 'there are';
}

function used(parts: readonly Part[]): string {
  if (parts.includes('identity')) return 'You have used your';
  if (parts.includes('key')) return 'Your key has used its';
  if (parts.includes('group')) return 'Your group has used its';
  return parts.includes('tenant') ? 'Your organisation has used its' : 'Everybody together has used the';
}

/** `10 requests`, `1 token`. */
export function amount(max: number, type: string): string {
  return max === 1 ? `1 ${type.slice(0, -1)}` : `${max} ${type}`;
}

/** The time that an amount is for: a calendar word where one fits, else its length. */
export function spanOf(ms: number): string {
  const words = inWords(ms);
  return words.startsWith('1 ') ? ` for this ${words.slice(2)}` : ` for these ${words}`;
}

const UNITS: [number, string][] = [
  [86_400, 'day'],
  [3600, 'hour'],
  [60, 'minute'],
];

/** `42 seconds`, `3 minutes`: rounded up, in the largest unit of which it is two or exactly one. */
export function inWords(ms: number): string {
  const total = seconds(ms);
  for (const [size, unit] of UNITS) {
    if (total === size || total >= 2 * size) return amount(Math.ceil(total / size), `${unit}s`);
  }
  return amount(total, 'seconds');
}

/** Whole seconds, rounded up. */
export function seconds(ms: number): number {
  return Math.ceil(ms / 1000);
}
