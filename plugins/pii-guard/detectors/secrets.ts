/**
 * API keys and other secrets: by their issuers' prefixes, by a word such as `token=` before something random, and in the
 * user part of a connection string. Formats from the issuers' documentation and secret scanners; lengths are lower bounds,
 * since a key that is a little longer is a key all the same.
 */
import { isAlphanumeric, isDigit, isToken } from '../characters.ts';
import type { View } from '../normalize.ts';
import type { ActiveRule } from '../rules.ts';
import { type Detector, type Match, NONE, UNDECIDED } from './detector.ts';
import type { NumberRule } from './numbers.ts';
import { RUN_MIN, visitRuns } from './tokens.ts';

/** No key is longer; what is, is taken for data. */
const KEY_MAX = 512;

interface Family {
  prefix: string;
  /** What the rest is made of, beside letters and digits: `upper` and `hex` narrow it. */
  body: 'alphanumeric' | 'upper' | 'hex' | 'word' | 'dash' | 'base64' | 'dotted';
  min: number;
  max?: number;
  /** Refuses what has no digit, such as `sk-learn-cross-validation`. */
  digit?: boolean;
}

const FAMILIES: Family[] = [
  { prefix: 'sk-', body: 'dash', min: 20, digit: true },
  { prefix: 'sess-', body: 'alphanumeric', min: 32, digit: true },
  { prefix: 'ek_', body: 'word', min: 32, digit: true },
  ...['AKIA', 'AGPA', 'AIDA', 'AROA', 'AIPA', 'ANPA', 'ANVA', 'ASIA'].map((prefix) => aws(prefix, 16)),
  aws('A3T', 17),
  { prefix: 'ABSK', body: 'base64', min: 40, digit: true },
  ...['ghp_', 'gho_', 'ghu_', 'ghs_', 'ghr_'].map((prefix): Family => ({ prefix, body: 'alphanumeric', min: 36 })),
  { prefix: 'github_pat_', body: 'word', min: 60 },
  { prefix: 'glpat-', body: 'dotted', min: 20 },
  { prefix: 'npm_', body: 'alphanumeric', min: 36 },
  { prefix: 'hf_', body: 'alphanumeric', min: 30 },
  { prefix: 'gsk_', body: 'alphanumeric', min: 40 },
  { prefix: 'SG.', body: 'dotted', min: 48 },
  ...['shpat_', 'shpca_', 'shppa_', 'shpss_'].map((prefix): Family => ({ prefix, body: 'alphanumeric', min: 32 })),
  ...['sk_live_', 'rk_live_', 'sk_test_', 'rk_test_'].map(
    (prefix): Family => ({ prefix, body: 'alphanumeric', min: 16 }),
  ),
  { prefix: 'whsec_', body: 'base64', min: 24 },
  { prefix: 'tskey-', body: 'dash', min: 16, digit: true },
  { prefix: 'pypi-AgEI', body: 'dash', min: 16 },
  ...['xoxa-', 'xoxb-', 'xoxe-', 'xoxo-', 'xoxp-', 'xoxr-', 'xoxs-', 'xapp-'].map(
    (prefix): Family => ({ prefix, body: 'dash', min: 10, digit: true }),
  ),
  ...['dop_v1_', 'doo_v1_', 'dor_v1_'].map((prefix): Family => ({ prefix, body: 'hex', min: 64 })),
  { prefix: 'dapi', body: 'hex', min: 32, digit: true },
  { prefix: 'AIza', body: 'dash', min: 35 },
  { prefix: 'GOCSPX-', body: 'dash', min: 20 },
  { prefix: 'ya29.', body: 'dotted', min: 20 },
  { prefix: 'AC', body: 'hex', min: 32, max: 32, digit: true },
  { prefix: 'SK', body: 'hex', min: 32, max: 32, digit: true },
];

function aws(prefix: string, length: number): Family {
  return { prefix, body: 'upper', min: length, max: length };
}

/** The families by the code of their first character. */
const BY_FIRST: (Family[] | undefined)[] = Array.from({ length: 128 }, (_, code) => {
  const families = FAMILIES.filter((family) => family.prefix.charCodeAt(0) === code);
  return families.length > 0 ? families : undefined;
});

const BODIES: Record<Family['body'], (code: number) => boolean> = {
  alphanumeric: isAlphanumeric,
  upper: (code) => isDigit(code) || (code >= 65 && code <= 90),
  hex: (code) => isDigit(code) || (code >= 97 && code <= 102),
  word: (code) => isAlphanumeric(code) || code === 95,
  dash: (code) => isAlphanumeric(code) || code === 95 || code === 45,
  dotted: (code) => isAlphanumeric(code) || code === 95 || code === 45 || code === 46,
  base64: (code) => isToken(code) || code === 61,
};

/** Lag: from a known prefix, or behind a word such as `token=`, at most 512 characters of one unbroken run. */
export function secretsDetector(rule: ActiveRule): Detector {
  return (view, found) => {
    const { text, from } = view;
    let open = text.length;
    const take = (start: number, end: number): void => {
      if (end === UNDECIDED) open = Math.min(open, start);
      else if (end !== NONE) found.push({ start, end, rule } satisfies Match);
    };
    const visit = (start: number, end: number): void => run(view, start, end, take);
    visitRuns(text, from, visit);
    if (!view.last) visitTail(view, visit);
    connections(view, take);
    return view.last ? open : Math.min(open, dottedAtEnd(text, from));
  };
}

/** A run at the end that is still too short to be found by its length. */
function visitTail(view: View, visit: (start: number, end: number) => void): void {
  const { text, from } = view;
  let start = text.length;
  while (start > from && text.length - start < RUN_MIN && isToken(text.charCodeAt(start - 1))) start--;
  if (start < text.length && !(start > from && isToken(text.charCodeAt(start - 1)))) visit(start, text.length);
}

type Take = (start: number, end: number) => void;

/** All keys that begin in a run of token characters. */
function run(view: View, start: number, end: number, take: Take): void {
  const { text, from } = view;
  for (let at = start; at < end; at++) {
    if (at > 0 && isAlphanumeric(text.charCodeAt(at - 1))) continue;
    const families = BY_FIRST[text.charCodeAt(at)];
    if (families) for (const family of families) take(at, familyEnd(view, at, family));
    take(at, webhookEnd(view, at));
  }
  dotted(view, start, take);
  if (start >= from && !(start > 0 && isToken(text.charCodeAt(start - 1)))) take(start, named(view, start, end));
}

const DOTTED = ['SG.', 'ya29.'];

/** Families whose prefix ends in a dot begin before the run. */
function dotted(view: View, start: number, take: Take): void {
  if (start === 0 || view.text.charCodeAt(start - 1) !== 46) return;
  for (const prefix of DOTTED) {
    const begin = start - prefix.length;
    if (begin < view.from || !view.text.startsWith(prefix, begin)) continue;
    if (begin > 0 && isAlphanumeric(view.text.charCodeAt(begin - 1))) continue;
    for (const family of FAMILIES) if (family.prefix === prefix) take(begin, familyEnd(view, begin, family));
  }
}

/** Where the text ends in one of these prefixes. */
function dottedAtEnd(text: string, from: number): number {
  if (text.charCodeAt(text.length - 1) !== 46) return text.length;
  const prefix = DOTTED.find((each) => text.endsWith(each)) ?? '';
  return Math.max(from, text.length - prefix.length);
}

/** The end of a key of a family that begins at a position. */
function familyEnd(view: View, start: number, family: Family): number {
  const { text } = view;
  const { prefix, min } = family;
  if (!text.startsWith(prefix, start)) {
    const rest = text.length - start;
    return !view.last && rest < prefix.length && prefix.startsWith(text.slice(start)) ? UNDECIDED : NONE;
  }
  const isBody = BODIES[family.body];
  const begin = start + prefix.length;
  const max = family.max ?? KEY_MAX;
  let end = begin;
  while (end < text.length && end - begin <= max && isBody(text.charCodeAt(end))) end++;
  if (end === text.length && !view.last && end - begin <= max) return UNDECIDED;
  if (end - begin > max || (family.max !== undefined && isAlphanumeric(end < text.length ? text.charCodeAt(end) : 0)))
    return NONE;
  while (end > begin && text.charCodeAt(end - 1) === 46) end--;
  if (end - begin < min || (family.digit && !/[0-9]/.test(text.slice(begin, end)))) return NONE;
  return end;
}

const ANNOUNCED =
  /(?:(?:key|secret|token|passwd|password|pwd|passphrase|credentials?|signature|sig)["'`]?[ \t]{0,3}(?:[:=]|=>|is|:=)[ \t]{0,3}["'`]?|(?:bearer|basic)[ ])$/i;

/** Something random behind `key=`, `token: ` and the like, and 40 characters of base64 where AWS or a secret is spoken of. */
function named(view: View, start: number, runEnd: number): number {
  const { text } = view;
  if (runEnd - start > KEY_MAX) return NONE;
  const end = paddedEnd(text, runEnd);
  if (end === text.length && !view.last) return isAnnounced(view.context(start)) ? UNDECIDED : NONE;
  const value = text.slice(start, end);
  if (value.length < RUN_MIN || !LETTER.test(value) || !DIGIT.test(value)) return NONE;
  const context = view.context(start);
  if (!isAnnounced(context) || !isRandom(value)) return NONE;
  return value.length === 40 || ANNOUNCED.test(context) ? end : NONE;
}

/** Behind up to two signs of base64 padding. */
function paddedEnd(text: string, end: number): number {
  if (text.charCodeAt(end) !== 61) return end;
  return text.charCodeAt(end + 1) === 61 ? end + 2 : end + 1;
}

function isAnnounced(context: string): boolean {
  return ANNOUNCED.test(context) || /aws|secret/i.test(context);
}

const DIGIT = /[0-9]/;
const LETTER = /[A-Za-z]/;

/**
 * Shannon entropy above 3 bits a character for hexadecimal of 32 characters and more, above 3.5 for others of 20 and more that
 * have digits and letters: the thresholds of secret scanners, a little lower since a word announces the value.
 */
function isRandom(value: string): boolean {
  if (/^[0-9a-f]+$/i.test(value)) return value.length >= 32 && entropy(value) > 3;
  return entropy(value) > 3.5;
}

function entropy(value: string): number {
  const counts = new Map<string, number>();
  for (const char of value) counts.set(char, (counts.get(char) ?? 0) + 1);
  let bits = 0;
  for (const count of counts.values()) bits -= (count / value.length) * Math.log2(count / value.length);
  return bits;
}

/** Telegram's bot tokens, `123456789:AA…`: lag of at most 46 characters. */
export function telegramRule(rule: ActiveRule): NumberRule {
  return {
    rule,
    begins: [{ from: 8, to: 10 }],
    match(groups, group) {
      const size = groups.size(group);
      const end = groups.ends[group]!;
      if (size > 10 || isAlphanumeric(groups.code(groups.starts[group]! - 1))) return NONE;
      if (end === groups.unknown) return UNDECIDED;
      if (size < 8 || groups.code(end) !== 58) return NONE;
      let to = end + 1;
      while (to - end <= 36 && BODIES.dash(groups.code(to))) to++;
      if (to === groups.unknown && to - end <= 36) return UNDECIDED;
      return to - end === 36 ? to : NONE;
    },
  };
}

const WEBHOOK = 'hooks.slack.com/services/';
const WEBHOOK_PATH = /T[A-Z0-9]{6,16}\/B[A-Z0-9]{6,16}\/[A-Za-z0-9]{20,32}/y;
const WEBHOOK_MAX = 72;

/** The secret path of a Slack webhook, when one begins at a position. */
function webhookEnd(view: View, start: number): number {
  const { text } = view;
  if (text.charCodeAt(start) !== 84 || !view.context(start).endsWith(WEBHOOK)) return NONE;
  let end = start;
  while (end < text.length && end - start < WEBHOOK_MAX && BODIES.base64(text.charCodeAt(end))) end++;
  if (end === text.length && !view.last && end - start < WEBHOOK_MAX) return UNDECIDED;
  WEBHOOK_PATH.lastIndex = start;
  return WEBHOOK_PATH.test(text) ? WEBHOOK_PATH.lastIndex : NONE;
}

const AUTHORITY_MAX = 320;

function connections(view: View, take: Take): void {
  const { text, from } = view;
  for (let at = text.indexOf('://', Math.max(0, from - 3)); at !== -1; at = text.indexOf('://', at + 3)) {
    if (at + 3 >= from) take(at + 3, userInfo(view, at + 3));
  }
}

/** `user:password@host:port` behind `://` (RFC 3986, 3.2), as it stands in connection strings. */
function userInfo(view: View, start: number): number {
  const { text } = view;
  let end = start;
  let at = -1;
  while (end < text.length && end - start <= AUTHORITY_MAX && !endsAuthority(text.charCodeAt(end))) {
    if (text.charCodeAt(end) === 64) at = end;
    end++;
  }
  if (end === text.length && !view.last && end - start <= AUTHORITY_MAX) return UNDECIDED;
  if (at === -1) return NONE;
  const colon = text.indexOf(':', start);
  if (colon === -1 || colon >= at - 1) return NONE;
  while (end > at + 1 && !isAlphanumeric(text.charCodeAt(end - 1))) end--;
  return end;
}

/** White space, quotes, brackets, `/`, `?` and `#`. */
function endsAuthority(code: number): boolean {
  return (
    code <= 34 ||
    code === 35 ||
    code === 39 ||
    code === 47 ||
    code === 60 ||
    code === 62 ||
    code === 63 ||
    code === 92 ||
    code === 96
  );
}
