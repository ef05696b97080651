/**
 * JSON from outside, read so that what was inspected is what goes upstream. Parsers differ on duplicate keys (first or
 * last wins) and on invalid UTF-8, so a body with either is refused instead of guessed at.
 */
import { isUtf8 } from 'node:buffer';
import type { Json } from './dialects/dialect.ts';
import { GatewayError } from './errors.ts';

/** Bounds on a body's shape. */
export interface JsonLimits {
  /** Deepest nesting of objects and arrays. */
  depth: number;
}

/** A JSON object, and what was learnt of its text. */
export interface ReadJson {
  body: Json;
  /** Whether it has numbers that a JavaScript number may not hold. */
  hasLongNumbers: boolean;
}

/** Reads a JSON object; throws `invalid_json` with a sentence that says what is wrong, never what it contained. */
export function readJson(bytes: Buffer, limits: JsonLimits): ReadJson {
  if (bytes.length === 0) throw refused('The request has no body; send a JSON object.');
  if (!isUtf8(bytes)) throw refused('The body is not valid UTF-8.');
  const text = bytes.toString('utf8');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw refused('The body is not valid JSON.');
  }
  if (!isJsonObject(value)) throw refused('The body must be a JSON object.');
  const { problem, hasLongNumbers } = structureOf(text, limits.depth);
  if (problem !== undefined) throw refused(problem);
  return { body: value, hasLongNumbers };
}

function refused(message: string): GatewayError {
  return new GatewayError('invalid_json', message);
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const STRUCTURE = /["{}[\]]/g;
const AFTER_KEY = /\s*:/y;

/** What a body is made of, strings left aside. */
interface Structure {
  problem: string | undefined;
  hasLongNumbers: boolean;
}

/**
 * Looks for an object with the same key twice, for nesting beyond `depth` and for long numbers, in a text that is known
 * to be JSON. Strings are skipped by `indexOf`, which is ten times as fast as any loop over their characters and, unlike
 * one regular expression for a whole string, needs no stack.
 */
export function structureOf(text: string, depth: number): Structure {
  const open: (Set<string> | undefined)[] = [];
  let hasLongNumbers = false;
  let from = 0;
  STRUCTURE.lastIndex = 0;
  while (STRUCTURE.test(text)) {
    const at = STRUCTURE.lastIndex - 1;
    if (at - from >= LONG) hasLongNumbers ||= LONG_NUMBER.test(text.slice(from, at));
    from = at + 1;
    const mark = text.charCodeAt(at);
    if (mark === QUOTE) {
      const end = stringEnd(text, at + 1);
      STRUCTURE.lastIndex = end + 1;
      from = end + 1;
      const keys = open.at(-1);
      if (keys !== undefined && isKey(text, end + 1) && isKnown(keys, text.slice(at + 1, end))) {
        return { problem: 'The body has an object with the same key twice.', hasLongNumbers };
      }
    } else if (mark === 0x7b || mark === 0x5b) {
      if (open.push(mark === 0x7b ? new Set() : undefined) > depth) {
        return { problem: `The body is nested deeper than ${depth} levels.`, hasLongNumbers };
      }
    } else open.pop();
  }
  return { problem: undefined, hasLongNumbers };
}

/** Numbers of fewer digits are held exactly (2^53 has 16), but `1e400` is not: it needs five signs. */
const LONG = 5;
const LONG_NUMBER = /[\d.]{16,}|\d[eE]/;

/** The offset of the quote that ends the string which begins at `from`: one with an even number of backslashes before. */
function stringEnd(text: string, from: number): number {
  for (let end = text.indexOf('"', from); ; end = text.indexOf('"', end + 1)) {
    let slash = end;
    while (text.charCodeAt(slash - 1) === BACKSLASH) slash -= 1;
    if ((end - slash) % 2 === 0) return end;
  }
}

function isKey(text: string, after: number): boolean {
  if (text.charCodeAt(after) === COLON) return true;
  AFTER_KEY.lastIndex = after;
  return AFTER_KEY.test(text);
}

/** Remembers a key, and tells whether it was there already, however it was spelt. */
function isKnown(keys: Set<string>, spelling: string): boolean {
  const key = spelling.includes('\\') ? (JSON.parse(`"${spelling}"`) as string) : spelling;
  if (keys.has(key)) return true;
  keys.add(key);
  return false;
}

/** Reads a provider's JSON; `undefined` when it is none. */
export function parseJson(bytes: Buffer | string): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}

/** Deepest nesting of a provider's answer that is looked into: what reads it calls itself at every level. */
const MAX_DEPTH = 1_000;

/** Whether a value is nested deeper than anything that reads it could follow. */
export function isTooDeep(value: unknown, left = MAX_DEPTH): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (left === 0) return true;
  const inner: unknown[] = Array.isArray(value) ? value : Object.values(value);
  return inner.some((one) => isTooDeep(one, left - 1));
}

/** Whether a JSON value is an object. */
export function isJsonObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The content type of a body that came without one. */
export function contentTypeOf(body: string): string {
  return isJsonObject(parseJson(body)) ? 'application/json' : 'text/plain; charset=utf-8';
}

/**
 * Writes a body that was changed. Numbers keep their spelling where a JavaScript number could not hold them: a 64-bit
 * seed must not be rounded because a mask was put in elsewhere.
 *
 * @param original the bytes that `body` was parsed from
 * @param rewrite changes the body
 */
export function serialise({ body, hasLongNumbers }: ReadJson, original: Buffer, rewrite: (body: Json) => void): string {
  const exact = hasLongNumbers ? (JSON.parse(original.toString('utf8'), keepNumber as Reviver) as Json) : body;
  rewrite(exact);
  return JSON.stringify(exact);
}

type Reviver = (key: string, value: unknown) => unknown;

/** TC39 "JSON.parse source text access", in V8 since 11.4 and not yet in TypeScript's library. */
function keepNumber(_key: string, value: unknown, context: { source?: string }): unknown {
  if (typeof value !== 'number' || context.source === undefined || String(value) === context.source) return value;
  return (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON(context.source);
}
