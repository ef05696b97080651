/**
 * Patterns of the operator's own, in RE2 syntax and with RE2's linear time.
 *
 * They run in re2js and not in the native `re2`, whose binary is tied to the version of Node that ran the install. re2js is
 * slow on some patterns (1 to 250 µs per KB), so where a match must begin with a literal, only what follows that is looked at.
 */
import { RE2JS } from 're2js';
import type { View } from '../normalize.ts';
import { shapeOf } from '../pattern-shape.ts';
import type { ActiveRule } from '../rules.ts';
import type { Detector, Match } from './detector.ts';

interface Pattern {
  compiled: RE2JS;
  rule: ActiveRule;
  /** Finds the literals that a match begins with; undefined when it need not begin with any. */
  begin: RegExp | undefined;
  literals: string[];
  insensitive: boolean;
  max: number;
}

/**
 * A pattern is matched within one line; `^` and `$` are its ends.
 *
 * Lag: a pattern that begins with a literal holds nothing but that literal's begin until it has come. From there on (without
 * one: always) it holds as many characters as a match can be long; a pattern without such a bound, like
 * `password.*`, holds to the end of the line.
 */
export function customDetector(rule: ActiveRule, source: string): Detector {
  const pattern = prepare(rule, source);
  return (view, found) => {
    const { text, last, from } = view;
    const lineEnd = text.lastIndexOf('\n') + 1;
    matchLines(pattern, view, found);
    return last ? text.length : undecidedFrom(pattern, text, Math.max(from, lineEnd));
  };
}

function prepare(rule: ActiveRule, source: string): Pattern {
  const { prefixes, max, insensitive } = shapeOf(source);
  const begin = prefixes && new RegExp(prefixes.map(escaped).join('|'), insensitive ? 'giu' : 'gu');
  const literals = (prefixes ?? []).map((prefix) => (insensitive ? folded(prefix) : prefix));
  return { compiled: RE2JS.compile(source), rule, begin, literals, insensitive, max };
}

function escaped(literal: string): string {
  return literal.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
}

/** Unicode's simple case folding: upper case first brings ſ to s, lower case then the Kelvin sign to k. */
function folded(text: string): string {
  return text.toUpperCase().toLowerCase();
}

/** Looks at each line from the first place on where a match may begin. */
function matchLines(pattern: Pattern, view: View, found: Match[]): void {
  const { text } = view;
  let at = firstBegin(pattern, text, view.from);
  while (at !== -1) {
    const newline = text.indexOf('\n', at);
    const lineEnd = newline === -1 ? text.length : newline;
    matchLine(pattern, text, at, lineEnd, found);
    at = newline === -1 ? -1 : firstBegin(pattern, text, newline + 1);
  }
}

/** Where a match may begin first at or behind a position; -1 when nowhere. */
function firstBegin({ begin }: Pattern, text: string, from: number): number {
  if (begin === undefined) return from;
  begin.lastIndex = from;
  return begin.exec(text)?.index ?? -1;
}

function matchLine({ compiled, rule }: Pattern, text: string, from: number, lineEnd: number, found: Match[]): void {
  const lineStart = from === 0 ? 0 : text.lastIndexOf('\n', from - 1) + 1;
  const line = text.slice(lineStart, lineEnd);
  const matcher = compiled.matcher(line);
  for (let at = from - lineStart; at <= line.length && matcher.find(at); ) {
    const start = matcher.start();
    const end = matcher.end();
    if (end > start) found.push({ start: lineStart + start, end: lineStart + end, rule });
    at = end > start ? end : end + 1;
  }
}

/** The first position of the unfinished line at which a match may be made or changed by what comes. */
function undecidedFrom(pattern: Pattern, text: string, lineStart: number): number {
  const reach = Math.max(lineStart, text.length - pattern.max);
  if (pattern.begin === undefined) return reach;
  const next = firstBegin(pattern, text, reach);
  const partial = partialBegin(pattern, text, lineStart);
  return next === -1 ? partial : Math.min(next, partial);
}

/** Where the last few characters begin one of the literals. */
function partialBegin({ literals, insensitive }: Pattern, text: string, from: number): number {
  const longest = Math.max(...literals.map((literal) => literal.length));
  for (let start = Math.max(from, text.length - longest + 1); start < text.length; start++) {
    const rest = insensitive ? folded(text.slice(start)) : text.slice(start);
    if (literals.some((literal) => literal.startsWith(rest))) return start;
  }
  return text.length;
}
