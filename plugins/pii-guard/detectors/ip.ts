/** IP addresses that may belong to a person: not loopback, unspecified or a netmask, and not what is rather a version. */
import { isIPv6 } from 'node:net';
import { isDigit, isHex, isWord } from '../characters.ts';
import type { View } from '../normalize.ts';
import type { ActiveRule } from '../rules.ts';
import { type Detector, NONE, UNDECIDED } from './detector.ts';
import type { DigitGroups } from './digit-groups.ts';
import type { NumberRule } from './numbers.ts';

const DOT = 46;
const COLON = 58;
const VERSION =
  /(?:^|[^a-z])(?:v|ver|version|versions|release|build|firmware|rev|revision|section|chapter|clause|§)[\s.:=#"'-]{0,3}$/i;

/** Lag: from the first digit, at most 15 characters and the two after it. */
export function ipv4Rule(rule: ActiveRule): NumberRule {
  return { rule, begins: [{ from: 1, to: 3 }], match: matchV4 };
}

function matchV4(groups: DigitGroups, group: number): number {
  const start = groups.starts[group]!;
  if (!isOctet(groups, group) || isTied(groups, start)) return NONE;
  for (let index = 0; index < 3; index++) {
    if (groups.grows(group + index)) return UNDECIDED;
    const gap = groups.single(group + index, DOT);
    if (gap !== 1) return gap;
    if (!isOctet(groups, group + index + 1)) return NONE;
  }
  const end = groups.closesAt(groups.ends[group + 3]!, 'point');
  if (end < 0) return end;
  return isPersonal(groups, group) && !VERSION.test(groups.view.context(start)) ? end : NONE;
}

function isOctet(groups: DigitGroups, group: number): boolean {
  const size = groups.size(group);
  const start = groups.starts[group]!;
  if (size > 3 || (size > 1 && groups.code(start) === 48)) return false;
  return size < 3 || Number(groups.text.slice(start, start + 3)) <= 255;
}

/** Part of a name (`app-1.2.3.4`, `Safari/1.2.3.4`), of a longer chain (`.1.2.3.4`) or of a word. */
function isTied(groups: DigitGroups, start: number): boolean {
  const previous = groups.code(start - 1);
  if (isWord(previous) || previous === DOT) return true;
  return (previous === 45 || previous === 47) && isWord(groups.code(start - 2)) && !isDigit(groups.code(start - 2));
}

function isPersonal(groups: DigitGroups, group: number): boolean {
  const first = Number(groups.text.slice(groups.starts[group], groups.ends[group]));
  return first !== 0 && first !== 127 && first !== 255;
}

const V6_MAX = 45;

/** Lag: from the first hexadecimal digit or colon, at most 46 characters. */
export function ipv6Detector(rule: ActiveRule): Detector {
  return (view, found) => {
    const { text, from } = view;
    let open = view.last ? text.length : trailingV6(text, from);
    for (let at = text.indexOf(':', from); at !== -1; at = text.indexOf(':', at + 1)) {
      const start = v6Start(text, at);
      const end = v6RunEnd(text, at);
      if (start >= from && start >= 0) {
        const match = matchV6(view, start, end);
        if (match === UNDECIDED) open = Math.min(open, start);
        else if (match !== NONE) found.push({ start, end: match, rule });
      }
      at = end - 1;
    }
    return open;
  };
}

function isV6Char(code: number): boolean {
  return isHex(code) || code === COLON || code === DOT;
}

/** Where the run around a position begins; -1 when it is too long to be an address or part of a word. */
function v6Start(text: string, at: number): number {
  let start = at;
  while (start > 0 && at - start <= V6_MAX && isV6Char(text.charCodeAt(start - 1))) start--;
  if (at - start > V6_MAX) return -1;
  while (start < at && text.charCodeAt(start) === DOT) start++;
  return start > 0 && isWord(text.charCodeAt(start - 1)) ? -1 : start;
}

function v6RunEnd(text: string, at: number): number {
  let end = at;
  while (end < text.length && isV6Char(text.charCodeAt(end))) end++;
  return end;
}

function trailingV6(text: string, from: number): number {
  const start = v6Start(text, text.length);
  return start < from ? text.length : start;
}

function matchV6(view: View, start: number, runEnd: number): number {
  const { text } = view;
  if (runEnd - start > V6_MAX + 1) return NONE;
  if (runEnd === text.length && !view.last) return UNDECIDED;
  if (runEnd < text.length && isWord(text.charCodeAt(runEnd))) return NONE;
  let end = runEnd;
  while (end > start && text.charCodeAt(end - 1) === DOT) end--;
  if (end - start > 2 && text.charCodeAt(end - 1) === COLON && text.charCodeAt(end - 2) !== COLON) end--;
  const address = text.slice(start, end);
  return isIPv6(address) && isPersonalV6(address) ? end : NONE;
}

/** `::1`, `::`, and what is rather code (`a[::2]`, `1::2`) are left alone; an embedded IPv4 address never is. */
function isPersonalV6(address: string): boolean {
  if (address.includes('.')) return true;
  const groups = address.split(':').filter((group) => group !== '');
  return (
    /[0-9]/.test(address) &&
    (groups.length >= 3 || (groups.length > 0 && groups[0]!.length >= 3 && !address.startsWith(':')))
  );
}
