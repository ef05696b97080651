/** Payment cards: issuer ranges (ISO/IEC 7812) and the Luhn digit. */
import type { ActiveRule } from '../rules.ts';
import { NONE, UNDECIDED } from './detector.ts';
import { type DigitGroups, isSeparator } from './digit-groups.ts';
import type { NumberRule } from './numbers.ts';

const MIN = 13;
const BEGINS = [
  { from: 4, to: 4 },
  { from: 13, to: 19 },
];
const MAX = 19;
const digits = new Uint8Array(MAX);

/** Lag: from the first digit while at most 19 digits in card grouping have come, so at most 23 characters. */
export function cardRule(rule: ActiveRule, lenient: boolean): NumberRule {
  return { rule, begins: BEGINS, match: (groups, group) => matchCard(groups, group, lenient) };
}

function matchCard(groups: DigitGroups, group: number, lenient: boolean): number {
  const start = groups.starts[group]!;
  const first = groups.code(start);
  if (first < 50 || first > 54 || !groups.opensAt(start, 'point')) return NONE;
  const size = groups.size(group);
  if (size > MAX) return NONE;
  if (!isIssuer(leading(groups, group), Math.min(size, 4))) return NONE;
  if (groups.grows(group)) return UNDECIDED;
  if (size >= MIN) return checked(groups, group, group, size, lenient);
  return size === 4 ? grouped(groups, group, lenient) : NONE;
}

/** Up to four leading digits of a group as a number. */
function leading(groups: DigitGroups, group: number): number {
  const start = groups.starts[group]!;
  let value = 0;
  for (let at = start; at < start + 4 && at < groups.ends[group]!; at++) value = value * 10 + groups.code(at) - 48;
  return value;
}

/** Whether an issuer's range begins with these (one to four) digits. */
function isIssuer(value: number, size: number): boolean {
  const scale = 10 ** (4 - size);
  const low = value * scale;
  const high = low + scale - 1;
  return RANGES.some(([from, to]) => low <= to && high >= from);
}

/** First four digits and lengths: Mir, Mastercard's 2-series, Diners, Amex, JCB, Visa, Mastercard, Discover, UnionPay, Maestro. */
const RANGES: readonly [number, number, readonly number[]][] = [
  [2200, 2204, [16]],
  [2221, 2720, [16]],
  [3000, 3059, [14, 16]],
  [3095, 3095, [14, 16]],
  [3400, 3499, [15]],
  [3528, 3589, [16, 17, 18, 19]],
  [3600, 3699, [14, 16]],
  [3700, 3799, [15]],
  [3800, 3999, [14, 16]],
  [4000, 4999, [13, 16, 19]],
  [5018, 5018, [16, 18, 19]],
  [5020, 5020, [16, 18, 19]],
  [5038, 5038, [16, 18, 19]],
  [5100, 5599, [16]],
  [5893, 5893, [16, 18, 19]],
  [6011, 6011, [16, 17, 18, 19]],
  [6200, 6299, [16, 17, 18, 19]],
  [6304, 6304, [16, 18, 19]],
  [6440, 6599, [16, 17, 18, 19]],
  [6759, 6763, [16, 18, 19]],
];

/** Cards in groups: fours and a shorter last group, or the 4-6-5 and 4-6-4 of Amex and Diners. */
function grouped(groups: DigitGroups, group: number, lenient: boolean): number {
  let best: number = NONE;
  let total = 4;
  for (let last = group; total < MAX; ) {
    const gap = groups.single(last, groups.code(groups.ends[last]!));
    if (gap === UNDECIDED) return UNDECIDED;
    if (gap === NONE) return best;
    last++;
    const size = groups.size(last);
    if (groups.grows(last) && size <= 6) return UNDECIDED;
    total += size;
    if (size <= 4 || (last === group + 2 && total === 15)) {
      const end = checked(groups, group, last, total, lenient);
      if (end === UNDECIDED) return UNDECIDED;
      if (end !== NONE) best = end;
    }
    if (size !== 4 && !(size === 6 && last === group + 1)) return best;
  }
  return best;
}

/** The end of a card made of some groups, when issuer, length, check digit and surroundings are right. */
function checked(groups: DigitGroups, first: number, last: number, total: number, lenient: boolean): number {
  if (total < MIN || total > MAX) return NONE;
  const end = groups.ends[last]!;
  if (!hasIssuer(leading(groups, first), total) || !(lenient || passesLuhn(groups, first, last))) return NONE;
  return groups.closesAt(end, 'point');
}

function hasIssuer(value: number, total: number): boolean {
  return RANGES.some(([from, to, lengths]) => value >= from && value <= to && lengths.includes(total));
}

function passesLuhn(groups: DigitGroups, first: number, last: number): boolean {
  let count = 0;
  for (let at = groups.starts[first]!; at < groups.ends[last]!; at++) {
    const code = groups.code(at);
    if (!isSeparator(code)) digits[count++] = code - 48;
  }
  return luhn(digits, count);
}

/** ISO/IEC 7812-1, annex B: the sum of the digits, every second one from the right doubled, is a multiple of ten. */
export function luhn(values: ArrayLike<number>, count: number): boolean {
  let sum = 0;
  for (let index = count - 1, double = false; index >= 0; index--, double = !double) {
    const digit = values[index]!;
    sum += double ? (digit > 4 ? 2 * digit - 9 : 2 * digit) : digit;
  }
  return sum % 10 === 0;
}
