/**
 * Patterns of the operator's own, in RE2 syntax and with RE2's linear time.
 *
 * They run in re2js and not in the native `re2`, whose binary is tied to the version of Node that ran the install. re2js is slow
 * (60–190 µs per KB and pattern), so where the pattern must begin with a literal, only lines that hold it are looked at.
 */
import { RE2JS } from 're2js';
import type { View } from '../normalize.ts';
import { shapeOf } from '../pattern-shape.ts';
import type { ActiveRule } from '../rules.ts';
import type { Detector, Match } from './detector.ts';

/**
 * A pattern is matched within one line; `^` and `$` are its ends.
 *
 * Lag: where the length of a match is bounded, so many characters and one, from the pattern's literal on if it begins with one; else from
 * the literal (without one: from the line's beginning) to the end of the line.
 */
export function customDetector(rule: ActiveRule, pattern: string): Detector {
  const compiled = RE2JS.compile(pattern);
  const { prefixes, max, insensitive } = shapeOf(pattern);
  const begin = prefixes && new RegExp(prefixes.map(escaped).join('|'), insensitive ? 'giu' : 'gu');
  const literals = (prefixes ?? []).map((prefix) => (insensitive ? folded(prefix) : prefix));

  return (view, found) => {
    const { text, last } = view;
    let lineStart = view.from;
    let open = text.length;
    while (lineStart <= text.length) {
      const newline = text.indexOf('\n', lineStart);
      const lineEnd = newline === -1 ? text.length : newline;
      const first = firstBegin(text, lineStart, lineEnd, begin);
      if (first !== -1) matchLine(compiled, view, first, lineEnd, rule, found);
      if (newline === -1 && !last) open = undecidedFrom(text, lineStart, first, { begin, literals, insensitive, max });
      if (newline === -1) break;
      lineStart = newline + 1;
    }
    return open;
  };
}

interface Bounds {
  begin: RegExp | undefined;
  literals: string[];
  insensitive: boolean;
  max: number;
}

/** Where a match may begin first in a line; -1 when nowhere. */
function firstBegin(text: string, from: number, lineEnd: number, begin: RegExp | undefined): number {
  if (begin === undefined) return from;
  begin.lastIndex = from;
  const found = begin.exec(text);
  return found !== null && found.index < lineEnd ? found.index : -1;
}

/** The first position of an unfinished line at which a match may be made or changed by what comes. */
function undecidedFrom(text: string, lineStart: number, first: number, bounds: Bounds): number {
  const reach = Math.max(lineStart, text.length - bounds.max - 1);
  if (bounds.begin === undefined) return reach;
  const next = reach <= first ? first : firstBegin(text, reach, text.length, bounds.begin);
  const partial = partialBegin(text, lineStart, bounds);
  return next === -1 ? partial : Math.min(next, partial);
}

/** Where the last few characters begin one of the literals. */
function partialBegin(text: string, from: number, { literals, insensitive }: Bounds): number {
  const longest = Math.max(...literals.map((literal) => literal.length));
  for (let start = Math.max(from, text.length - longest + 1); start < text.length; start++) {
    const rest = insensitive ? folded(text.slice(start)) : text.slice(start);
    if (literals.some((literal) => literal.startsWith(rest))) return start;
  }
  return text.length;
}

/** Unicode's simple case folding: upper case first brings ſ to s, lower case then the Kelvin sign to k. */
function folded(text: string): string {
  return text.toUpperCase().toLowerCase();
}

function escaped(literal: string): string {
  return literal.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
}

function matchLine(
  compiled: RE2JS,
  view: View,
  first: number,
  lineEnd: number,
  rule: ActiveRule,
  found: Match[],
): void {
  const lineStart = view.text.lastIndexOf('\n', first - 1) + 1;
  const line = view.text.slice(lineStart, lineEnd);
  const matcher = compiled.matcher(line);
  for (let at = first - lineStart; at <= line.length && matcher.find(at); ) {
    const start = matcher.start();
    const end = matcher.end();
    if (end > start) found.push({ start: lineStart + start, end: lineStart + end, rule });
    at = end > start ? end : end + 1;
  }
}
