/** E-mail addresses: found by their `@`, then outwards by character class, so that no input costs more than its length. */
import { isDigit, isLetterOrDigit, isLocalPart } from '../characters.ts';
import type { View } from '../normalize.ts';
import type { ActiveRule } from '../rules.ts';
import { type Detector, type Match, NONE, UNDECIDED } from './detector.ts';

/** RFC 5321, 4.5.3.1.1 and 4.5.3.1.2, in characters. */
const LOCAL_MAX = 64;
const DOMAIN_MAX = 253;
const LABEL_MAX = 63;
const DOT = 46;
const HYPHEN = 45;

/** Lag: the trailing run of up to 64 characters that may be a local part; up to 318 once an `@` follows it. */
export function emailDetector(rule: ActiveRule): Detector {
  return (view, found) => {
    const { text, from } = view;
    let open = view.last ? text.length : trailingLocalPart(text, from);
    for (let at = text.indexOf('@', from); at !== -1; at = text.indexOf('@', at + 1)) {
      const start = localStart(text, at);
      if (start < from || start === at) continue;
      const end = domainEnd(view, at + 1);
      if (end === UNDECIDED) open = Math.min(open, start);
      else if (end !== NONE) found.push({ start, end, rule } satisfies Match);
    }
    return open;
  };
}

function trailingLocalPart(text: string, from: number): number {
  const start = localStart(text, text.length);
  return start < from ? text.length : start;
}

/** Where the local part before `at` begins; `at` when there is none or it is too long. */
function localStart(text: string, at: number): number {
  let start = at;
  const floor = Math.max(0, at - LOCAL_MAX - 1);
  while (start > floor && isLocalPart(text.charCodeAt(start - 1))) start--;
  if (at - start > LOCAL_MAX) return at;
  while (start < at && isEdge(text.charCodeAt(start))) start++;
  return start;
}

/** Punctuation that no local part begins with: `.`, `-` and `'`. */
function isEdge(code: number): boolean {
  return code === DOT || code === HYPHEN || code === 39;
}

/** The end of the longest sane domain at a position. */
function domainEnd(view: View, start: number): number {
  const { text } = view;
  const limit = Math.min(text.length, start + DOMAIN_MAX);
  let labelStart = start;
  let labels = 0;
  let named = 0;
  let end = NONE;
  for (let at = start; ; at++) {
    if (at === text.length && !view.last) return UNDECIDED;
    const code = at < limit ? text.charCodeAt(at) : 0;
    if (isLetterOrDigit(code) || code === HYPHEN) continue;
    if (labels > 0 && (named > 0 || labels < 2)) end = Math.max(end, topLevelEnd(text, labelStart, at));
    if (code !== DOT || at === labelStart || at - labelStart > LABEL_MAX || text.charCodeAt(labelStart) === HYPHEN)
      return end;
    if (!isNumber(text, labelStart, at)) named++;
    labels++;
    labelStart = at + 1;
  }
}

/** The end of a top-level domain in a label: letters of any script, at least two, or `xn--…`; a hyphen may follow it. */
function topLevelEnd(text: string, start: number, labelEnd: number): number {
  if (text.startsWith('xn--', start) && labelEnd - start > 5 && labelEnd - start <= LABEL_MAX) return labelEnd;
  let end = start;
  while (end < labelEnd && isLetterOrDigit(text.charCodeAt(end)) && !isDigit(text.charCodeAt(end))) end++;
  const next = end < text.length ? text.charCodeAt(end) : 0;
  const closed = end === labelEnd ? !isLetterOrDigit(next) : next === HYPHEN;
  return end - start >= 2 && end - start <= LABEL_MAX && closed ? end : NONE;
}

function isNumber(text: string, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if (!isDigit(text.charCodeAt(at))) return false;
  return true;
}
