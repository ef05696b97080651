/** Personal numbers of the United States, Canada and the United Kingdom. */
import type { ActiveRule } from '../rules.ts';
import { luhn } from './cards.ts';
import { NONE, UNDECIDED } from './detector.ts';
import type { DigitGroups } from './digit-groups.ts';
import type { NumberRule } from './numbers.ts';
import { PHONE_CONTEXT } from './phone.ts';

/** How such a number is written, checked, and announced when it is written without separators. */
interface Kind {
  sizes: readonly number[];
  valid(digits: string): boolean;
  context: RegExp;
  /** Phone numbers look the same: with hyphens or dots, or where a phone is spoken of, it needs a word of context too. */
  likePhone?: boolean;
}

const SSN: Kind = {
  sizes: [3, 2, 4],
  valid: isSsn,
  context: /(?:^|[^a-z])(?:ssn|ss#|ss no|social[- ]?sec|soc\.? ?sec)/i,
};

const ITIN: Kind = {
  sizes: [3, 2, 4],
  valid: (digits) => digits[0] === '9' && isItinGroup(Number(digits.slice(3, 5))),
  context: /(?:^|[^a-z])(?:itin|taxpayer|tax id)/i,
};

const SIN: Kind = {
  sizes: [3, 3, 3],
  valid: (digits) => digits[0] !== '0' && digits[0] !== '8' && luhn(Array.from(digits, Number), 9),
  context: /(?:^|[^a-z])(?:sin(?:$|[^a-z])|social insurance|assurance sociale)/i,
};

const NHS: Kind = {
  sizes: [3, 3, 4],
  valid: isNhs,
  context: /(?:^|[^a-z])(?:nhs|national health|patient)/i,
  likePhone: true,
};

/** Lag: from the first digit, at most 12 characters and, behind a hyphen, dot or slash, the one after it. */
export const ssnRule = (rule: ActiveRule): NumberRule => personal(rule, SSN);
export const itinRule = (rule: ActiveRule): NumberRule => personal(rule, ITIN);
export const sinRule = (rule: ActiveRule): NumberRule => personal(rule, SIN);
export const nhsRule = (rule: ActiveRule): NumberRule => personal(rule, NHS);

function personal(rule: ActiveRule, kind: Kind): NumberRule {
  const total = kind.sizes.reduce((sum, size) => sum + size, 0);
  return {
    rule,
    begins: [
      { from: 3, to: 3 },
      { from: total, to: total },
    ],
    match(groups, group) {
      const size = groups.size(group);
      const bare = size === total || (groups.grows(group) && size < total);
      if (!bare && size !== kind.sizes[0]) return NONE;
      if (!groups.opensAt(groups.starts[group]!, 'point or hyphen')) return NONE;
      const end = groups.shaped(group, kind.sizes);
      if (end === UNDECIDED) return UNDECIDED;
      if (end !== NONE) return needsContext(groups, group, kind) ? NONE : closed(groups, group, group + 2, kind);
      return bare ? matchBare(groups, group, kind) : NONE;
    },
  };
}

function needsContext(groups: DigitGroups, group: number, kind: Kind): boolean {
  if (!kind.likePhone) return false;
  const context = groups.view.context(groups.starts[group]!);
  const isPhone = groups.code(groups.ends[group]!) !== 32 || PHONE_CONTEXT.test(context);
  return isPhone && !kind.context.test(context);
}

/** A number without separators counts only when a word of context stands near before it. */
function matchBare(groups: DigitGroups, group: number, kind: Kind): number {
  const start = groups.starts[group]!;
  if (!kind.context.test(groups.view.context(start))) return NONE;
  return groups.grows(group) ? UNDECIDED : closed(groups, group, group, kind);
}

function closed(groups: DigitGroups, first: number, last: number, kind: Kind): number {
  return kind.valid(groups.digits(first, last)) ? groups.closesAt(groups.ends[last]!, 'point or hyphen') : NONE;
}

/**
 * What the Social Security Administration never issues is refused (area 000, 666, 900–999, group 00, serial 0000), and
 * so is one digit nine times. Famous samples such as 078-05-1120 are not: who types one means a number like it.
 */
function isSsn(digits: string): boolean {
  const area = digits.slice(0, 3);
  if (area === '000' || area === '666' || digits[0] === '9') return false;
  if (digits.slice(3, 5) === '00' || digits.slice(5) === '0000') return false;
  return digits !== digits[0]!.repeat(9);
}

/** IRS publication 1915: the middle group is 50–65, 70–88, 90–92 or 94–99. */
function isItinGroup(group: number): boolean {
  return (group >= 50 && group <= 65) || (group >= 70 && group <= 88) || (group >= 90 && group !== 93);
}

/** NHS data dictionary: weights 10 … 2, check digit 11 − sum mod 11, where 11 is written 0 and 10 is not issued. */
function isNhs(digits: string): boolean {
  let sum = 0;
  for (let index = 0; index < 9; index++) sum += Number(digits[index]) * (10 - index);
  const check = (11 - (sum % 11)) % 11;
  return check === Number(digits[9]) && digits !== digits[0]!.repeat(10);
}
