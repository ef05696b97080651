/**
 * Phone numbers. Candidates are made here, from groups of digits and what speaks for a phone (a `+`, a trunk `0`,
 * brackets, the shape of a country, a word such as "call"); libphonenumber-js judges them by its full metadata. North American
 * numbers are judged by shape alone: it costs 40 µs to ask the library, and refuses the fictional 555 numbers.
 */
import { type CountryCode, isPossiblePhoneNumber, isValidPhoneNumber } from 'libphonenumber-js/max';
import { isDigit, isWord } from '../characters.ts';
import type { ActiveRule } from '../rules.ts';
import { NONE, UNDECIDED } from './detector.ts';
import type { DigitGroups } from './digit-groups.ts';
import type { NumberRule } from './numbers.ts';

const PLUS = 43;
const OPEN = 40;
const CLOSE = 41;
const ZERO = 48;
/** ITU-T E.164: at most fifteen digits; `00` may stand before them. */
const E164_MAX = 15;
const DIGITS_MAX = E164_MAX + 2;
const MIN_DIGITS = 8;
const GROUPS_MAX = 8;

/** What may stand between two groups of a phone number, and how such a separator begins. */
const GAPS = new Set([' ', '-', '.', '/', '(', ')', ' (', ') ', ')-', '-(', ')(', ')/', ' - ', ') (', ' / ']);
const GAP_BEGINS = new Set(['', ...[...GAPS].flatMap((gap) => [gap, gap.slice(0, 1), gap.slice(0, 2)])]);
const GAP_MAX = 3;

/** Words that announce a phone number right before it. */
export const PHONE_CONTEXT =
  /(?:phone|fax|mobile|mobil|cell|handy|whatsapp|signal|sms|telefon\w*|téléphone|telefono|teléfono|celular|tel|call(?: me| us)?|dial|ring|text(?: me)?|reach(?: me| us)?|contact|(?:my|his|her|our|your|their) (?:new )?number)[^0-9a-z]{0,3}(?:number|no|nr|is|at|on|num|#|me|us|[^0-9a-z]){0,6}$/i;

interface Phones {
  valid(digits: string, groups: DigitGroups): boolean;
  possible(digits: string, groups: DigitGroups): boolean;
  national(digits: string, regions: readonly CountryCode[], groups: DigitGroups): boolean;
  regions: readonly CountryCode[];
  /** Those of the regions where a national number may begin with 0: all but North America. */
  trunk: readonly CountryCode[];
  northAmerican: boolean;
}

/** Lag: from the `+`, bracket or first digit while at most 15 digits in at most 8 groups have come: at most 40 characters. */
export function phoneRule(rule: ActiveRule, regions: readonly CountryCode[]): NumberRule {
  const phones = judge(regions);
  return {
    rule,
    begins: [{ from: 1, to: DIGITS_MAX }],
    match: (groups, group) => matchPhone(groups, group, phones),
    begin: beginOf,
    tail,
  };
}

function judge(regions: readonly CountryCode[]): Phones {
  return {
    valid: (digits, groups) => ask(groups, `+${digits}`, () => isValidPhoneNumber(`+${digits}`)),
    possible: (digits, groups) => ask(groups, `?${digits}`, () => isPossiblePhoneNumber(`+${digits}`)),
    national: (digits, among, groups) =>
      ask(groups, `${among}:${digits}`, () => among.some((region) => isValidPhoneNumber(digits, region))),
    regions,
    trunk: regions.filter((region) => region !== 'US' && region !== 'CA'),
    northAmerican: regions.some((region) => region === 'US' || region === 'CA'),
  };
}

/** Answers of the library are kept for one scan: the same number often stands in a text more than once. */
function ask(groups: DigitGroups, key: string, answer: () => boolean): boolean {
  const known = groups.answers.get(key);
  if (known !== undefined) return known;
  const result = answer();
  groups.answers.set(key, result);
  return result;
}

function hasPlus(groups: DigitGroups, start: number): boolean {
  const previous = groups.code(start - 1);
  return previous === PLUS || (previous === OPEN && groups.code(start - 2) === PLUS);
}

function beginOf(groups: DigitGroups, group: number): number {
  const start = groups.starts[group]!;
  if (hasPlus(groups, start)) return groups.code(start - 1) === PLUS ? start - 1 : start - 2;
  return hasBracket(groups, group) ? start - 1 : start;
}

function hasBracket(groups: DigitGroups, group: number): boolean {
  const start = groups.starts[group]!;
  if (groups.code(start - 1) !== OPEN || isWord(groups.code(start - 2))) return false;
  const size = groups.size(group);
  return size <= 5 && (groups.grows(group) || (size >= 2 && groups.code(groups.ends[group]!) === CLOSE));
}

/** A `+` or a bracket at the end may begin a number. */
function tail(text: string, from: number): number {
  let at = text.length;
  if (at > from && text.charCodeAt(at - 1) === OPEN) at--;
  if (at > from && text.charCodeAt(at - 1) === PLUS) at--;
  return at > from && isWord(text.charCodeAt(at - 1)) ? text.length : at;
}

function matchPhone(groups: DigitGroups, group: number, phones: Phones): number {
  if (groups.size(group) > DIGITS_MAX) return NONE;
  const start = groups.starts[group]!;
  if (hasPlus(groups, start)) return international(groups, group, phones);
  const previous = groups.code(start - 1);
  if (isWord(previous) || ((previous === 45 || previous === 46) && isDigit(groups.code(start - 2)))) return NONE;
  const bracket = hasBracket(groups, group);
  if (bracket && groups.grows(group)) return UNDECIDED;
  const shaped = phones.northAmerican ? northAmerican(groups, group, bracket) : NONE;
  if (shaped !== NONE) return shaped;
  return national(groups, group, bracket, phones);
}

/** Where the groups that a number may take stop, and whether more may come. */
let undecided = false;

function reach(groups: DigitGroups, first: number, maxDigits: number): number {
  let total = groups.size(first);
  undecided = false;
  for (let last = first; ; last++) {
    if (total > maxDigits) return last - 1;
    if (groups.grows(last)) undecided = true;
    if (undecided || total === maxDigits || last - first === GROUPS_MAX - 1) return last;
    const gap = gapAfter(groups, last);
    if (gap === UNDECIDED) undecided = true;
    if (gap !== 1) return last;
    total += groups.size(last + 1);
  }
}

/** Whether the next group continues a phone number: 1, NONE or UNDECIDED. */
function gapAfter(groups: DigitGroups, group: number): number {
  const end = groups.ends[group]!;
  if (group + 1 < groups.count && groups.starts[group + 1]! - end <= GAP_MAX) {
    return GAPS.has(groups.text.slice(end, groups.starts[group + 1])) ? 1 : NONE;
  }
  if (groups.unknown === -1 || groups.unknown - end > GAP_MAX) return NONE;
  return GAP_BEGINS.has(groups.text.slice(end)) ? UNDECIDED : NONE;
}

function international(groups: DigitGroups, group: number, phones: Phones): number {
  const start = groups.starts[group]!;
  const before = groups.code(beginOf(groups, group) - 1);
  if (isWord(before) || before === PLUS || groups.code(start) === ZERO) return NONE;
  const plan = groups.code(start) === 49 ? 11 : E164_MAX;
  const last = reach(groups, group, plan);
  if (undecided) return UNDECIDED;
  return (
    longest(groups, group, last, (digits) => (plan === 11 ? isNorthAmerican(digits) : phones.valid(digits, groups))) ||
    longest(groups, group, last, (digits) => last > group && plan !== 11 && phones.possible(digits, groups)) ||
    NONE
  );
}

function isNorthAmerican(digits: string): boolean {
  return digits.length === 11 && digits[1]! >= '2';
}

/** The end of the longest number made of groups that is accepted; 0 when there is none. */
function longest(groups: DigitGroups, first: number, last: number, accepts: (digits: string) => boolean): number {
  for (let to = last; to >= first; to--) {
    const digits = groups.digits(first, to);
    if (digits.length < MIN_DIGITS) return 0;
    const end = closes(groups, groups.ends[to]!);
    if (end !== NONE && accepts(digits)) return end;
  }
  return 0;
}

/** A phone number may end before an extension (`x123`) but not within a word. */
function closes(groups: DigitGroups, end: number): number {
  if (end === groups.unknown) return UNDECIDED;
  const next = groups.code(end);
  if (!isWord(next)) return end;
  if (next !== 120 && next !== 88) return NONE;
  if (end + 1 === groups.unknown) return UNDECIDED;
  return isDigit(groups.code(end + 1)) ? end : NONE;
}

/** `(415) 555-2671`, `415-555-2671`, `1 415 555 2671`: area code from 2 on, exchange too when only spaces separate. */
function northAmerican(groups: DigitGroups, group: number, bracket: boolean): number {
  if (!bracket && groups.size(group) === 1 && groups.code(groups.starts[group]!) === 49) {
    if (groups.grows(group)) return UNDECIDED;
    const gap = gapAfter(groups, group);
    return gap === 1 ? threeThreeFour(groups, group + 1, group) : gap;
  }
  return threeThreeFour(groups, group, group);
}

function threeThreeFour(groups: DigitGroups, group: number, first: number): number {
  if (groups.code(groups.starts[group]!) < 50) return NONE;
  for (let index = 0; index < 3; index++) {
    const size = index === 2 ? 4 : 3;
    if (groups.grows(group + index) && groups.size(group + index) <= size) return UNDECIDED;
    if (groups.size(group + index) !== size) return NONE;
    if (index === 2) break;
    const gap = gapAfter(groups, group + index);
    if (gap !== 1) return gap;
  }
  const onlySpaces = groups.code(groups.ends[group]!) === 32 && groups.code(groups.ends[group + 1]!) === 32;
  if (onlySpaces && groups.code(groups.starts[group + 1]!) < 50) return NONE;
  if (isIdentifier(groups, first)) return NONE;
  return closesAlone(groups, groups.ends[group + 2]!);
}

/** Behind a number that has no `+`, neither a word nor a further number by hyphen or dot may follow. */
function closesAlone(groups: DigitGroups, end: number): number {
  const closed = closes(groups, end);
  return closed === end && !isWord(groups.code(end)) ? groups.closesAt(end, 'point or hyphen') : closed;
}

/** `ORD-415-555-2671` is no phone number, `Phone/415-555-2671` is. */
function isIdentifier(groups: DigitGroups, group: number): boolean {
  const start = groups.starts[group]!;
  const previous = groups.code(start - 1);
  const ties = previous === 45 || previous === 46 || previous === 47 || previous === 92 || previous === 35;
  return ties && isWord(groups.code(start - 2)) && !PHONE_CONTEXT.test(groups.view.context(start));
}

/** All other national ways to write a number, judged by the library for the configured regions. */
function national(groups: DigitGroups, group: number, bracket: boolean, phones: Phones): number {
  const pair = indianOrBrazilian(groups, group, phones);
  if (pair !== NONE) return pair;
  const start = groups.starts[group]!;
  const zero =
    groups.code(start) === ZERO &&
    (groups.size(group) > 1 || groups.grows(group)) &&
    (phones.trunk.length > 0 || isDoubleZero(groups, start));
  const last = reach(groups, group, DIGITS_MAX);
  const more = undecided;
  if (last < group || (!more && digitsBetween(groups, group, last) < MIN_DIGITS)) return NONE;
  if (!zero && !bracket && !((groups.size(group) > 1 || groups.grows(group)) && hasContext(groups, group))) return NONE;
  if (more) return UNDECIDED;
  if (isIdentifier(groups, group)) return NONE;
  return longestNational(groups, group, last, phones);
}

/** `00…`, or a `0` at the end that may become one. */
function isDoubleZero(groups: DigitGroups, start: number): boolean {
  return start + 1 === groups.unknown || groups.code(start + 1) === ZERO;
}

function longestNational(groups: DigitGroups, group: number, last: number, phones: Phones): number {
  for (let to = last; to >= group; to--) {
    const digits = groups.digits(group, to);
    if (digits.length < MIN_DIGITS) return NONE;
    const end = closesAlone(groups, groups.ends[to]!);
    if (end !== NONE && accepted(groups, group, to, digits, phones)) return end;
  }
  return NONE;
}

function hasContext(groups: DigitGroups, group: number): boolean {
  // No word ends in a digit, so most groups of a longer number need not be asked.
  if (isDigit(groups.code(groups.starts[group]! - 2))) return false;
  return PHONE_CONTEXT.test(groups.view.context(groups.starts[group]!));
}

function digitsBetween(groups: DigitGroups, first: number, last: number): number {
  let total = 0;
  for (let group = first; group <= last; group++) total += groups.size(group);
  return total;
}

function accepted(groups: DigitGroups, group: number, to: number, digits: string, phones: Phones): boolean {
  if (digits.startsWith('00'))
    return (to > group || hasContext(groups, group)) && phones.valid(digits.slice(2), groups);
  if (digits[0] !== '0') return phones.national(digits, phones.regions, groups);
  if (isDate(groups, group, to) || isSsnShaped(groups, group, to)) return false;
  if ((to === group || digits.length < 9) && !isMobile(digits) && !hasContext(groups, group)) return false;
  return phones.national(digits, phones.trunk, groups);
}

/** Mobile numbers as they are written without a space: British 07…, German 015… to 017…, Israeli 05…. */
function isMobile(digits: string): boolean {
  return /^(?:07[0-9]{9}|01[5-7][0-9]{8,9}|05[0-9]{8})$/.test(digits);
}

/** 01.02.2024 and whatever follows, 01-02-24, 05 2024. */
function isDate(groups: DigitGroups, group: number, to: number): boolean {
  if (groups.size(group) !== 2 || groups.size(group + 1) !== 2) return false;
  return (
    (to >= group + 2 && groups.size(group + 2) === 4) || (to <= group + 2 && digitsBetween(groups, group, to) <= 8)
  );
}

/** 078-05-1120: never a phone number, and the library would take 20 µs to say so. */
function isSsnShaped(groups: DigitGroups, group: number, to: number): boolean {
  return to === group + 2 && groups.size(group) === 3 && groups.size(group + 1) === 2 && groups.size(to) === 4;
}

/** Indian `98765 43210` and Brazilian `11 91234-5678`, when no other number stands beside as in the row of a table. */
function indianOrBrazilian(groups: DigitGroups, group: number, phones: Phones): number {
  const start = groups.starts[group]!;
  const size = groups.size(group);
  if (groups.code(start) < 49 || isDigit(groups.code(start - 2))) return NONE;
  const isIndian = groups.code(start) >= 54 && phones.regions.includes('IN');
  const isBrazilian = phones.regions.includes('BR');
  if (groups.grows(group) && ((isIndian && size <= 5) || (isBrazilian && size <= 2))) return UNDECIDED;
  const indian = isIndian && size === 5;
  if (!indian && !(isBrazilian && size === 2)) return NONE;
  const end = indian ? pairEnd(groups, group) : brazilianEnd(groups, group);
  if (end < 0) return end;
  const digits = groups.text.slice(start, end).replace(/[^0-9]/g, '');
  return phones.national(digits, indian ? ['IN'] : ['BR'], groups) ? closesAlone(groups, end) : NONE;
}

function pairEnd(groups: DigitGroups, group: number): number {
  const end = groups.shaped(group, [5, 5]);
  if (end < 0) return end;
  const next = groups.single(group + 1, 32);
  return next === UNDECIDED ? UNDECIDED : next === 1 ? NONE : end;
}

function brazilianEnd(groups: DigitGroups, group: number): number {
  const gap = groups.single(group, 32);
  if (gap !== 1) return gap;
  const middle = groups.size(group + 1);
  if (groups.grows(group + 1)) return middle <= 5 ? UNDECIDED : NONE;
  if (middle !== 4 && middle !== 5) return NONE;
  const hyphen = groups.single(group + 1, 45);
  if (hyphen !== 1) return hyphen;
  if (groups.grows(group + 2)) return groups.size(group + 2) <= 4 ? UNDECIDED : NONE;
  return groups.size(group + 2) === 4 ? groups.ends[group + 2]! : NONE;
}
