/** International bank account numbers: length by country (ISO 13616 registry) and the check digits of ISO 7064 (mod 97). */
import { isAlphanumeric, isAsciiLetter, isDigit, isWord } from '../characters.ts';
import type { View } from '../normalize.ts';
import type { ActiveRule } from '../rules.ts';
import { NONE, UNDECIDED } from './detector.ts';
import type { NumberRule } from './numbers.ts';

const LENGTHS: Record<string, number> = Object.fromEntries(
  `AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24
   FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32
   LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24
   RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30`
    .split(/\s+/)
    .map((entry) => [entry.slice(0, 2), Number(entry.slice(2))]),
);

/** Lag: from the country code while the country's length has not come: at most 33 characters and 8 separators. */
export function ibanRule(rule: ActiveRule): NumberRule {
  return {
    rule,
    begins: [{ from: 2, to: 31 }],
    match: (groups, group) => {
      const start = groups.starts[group]! - 2;
      return start >= 0 && begins(groups.text, start) ? ibanEnd(groups.view, start) : NONE;
    },
    begin: (groups, group) => groups.starts[group]! - 2,
    tail: countryAtEnd,
  };
}

/** A country code, or its first letter, at the end of the text. */
function countryAtEnd(text: string, from: number): number {
  const end = text.length;
  for (let start = Math.max(from, end - 2); start < end; start++) {
    if (opens(text, start) && isAsciiLetter(text.charCodeAt(start)) && (start === end - 1 || isCountry(text, start)))
      return start;
  }
  return end;
}

function opens(text: string, start: number): boolean {
  return start === 0 || !isWord(text.charCodeAt(start - 1));
}

function isCountry(text: string, start: number): boolean {
  return LENGTHS[text.slice(start, start + 2).toUpperCase()] !== undefined;
}

function begins(text: string, start: number): boolean {
  return (
    isAsciiLetter(text.charCodeAt(start)) &&
    isAsciiLetter(text.charCodeAt(start + 1)) &&
    opens(text, start) &&
    isCountry(text, start)
  );
}

function ibanEnd(view: View, start: number): number {
  const { text } = view;
  const length = LENGTHS[text.slice(start, start + 2).toUpperCase()]!;
  let compact = '';
  for (let at = start; ; at++) {
    if (compact.length === length) return closed(view, at, compact);
    if (at === text.length) return view.last ? NONE : UNDECIDED;
    const code = text.charCodeAt(at);
    if (isAlphanumeric(code)) {
      if ((compact.length === 2 || compact.length === 3) && !isDigit(code)) return NONE;
      compact += text[at];
    } else if (!(code === 32 || code === 45) || !isGroupEnd(text, at, compact.length)) return NONE;
  }
}

/** Separators stand behind every fourth character, one at a time. */
function isGroupEnd(text: string, at: number, length: number): boolean {
  return length >= 4 && length % 4 === 0 && isAlphanumeric(text.charCodeAt(at - 1));
}

function closed(view: View, end: number, compact: string): number {
  if (!hasValidCheck(compact.toUpperCase())) return NONE;
  if (end === view.text.length) return view.last ? end : UNDECIDED;
  return isWord(view.text.charCodeAt(end)) ? NONE : end;
}

/** ISO 7064: with the first four characters moved to the end and A = 10 … Z = 35 the number leaves 1 when divided by 97. */
function hasValidCheck(compact: string): boolean {
  let rest = 0;
  for (const char of compact.slice(4) + compact.slice(0, 4)) {
    const value = Number.parseInt(char, 36);
    rest = (value > 9 ? rest * 100 + value : rest * 10 + value) % 97;
  }
  return rest === 1;
}
