/** JSON web tokens (RFC 7515, RFC 7516): three or five parts, of which the first decodes to JSON with an algorithm. */
import { isAlphanumeric } from '../characters.ts';
import type { View } from '../normalize.ts';
import type { ActiveRule } from '../rules.ts';
import { type Detector, NONE, UNDECIDED } from './detector.ts';

/** A longer token is masked up to here. */
const TOKEN_MAX = 8_192;
/** base64url of `{"`, with which a header begins. A capital J is rare, so that is what is looked for. */
const BEGIN = 'eyJ';

/** Lag: from `ey…` to the end of the token, at most 8 KiB. */
export function jwtDetector(rule: ActiveRule): Detector {
  return (view, found) => {
    const { text, from } = view;
    let open = view.last ? text.length : beginAtEnd(text, from);
    for (let at = text.indexOf('J', from); at !== -1; at = text.indexOf('J', at + 1)) {
      const start = at - 2;
      if (start < from || !text.startsWith(BEGIN, start) || (start > 0 && isPart(text.charCodeAt(start - 1)))) continue;
      const end = tokenEnd(view, start);
      if (end === UNDECIDED) open = Math.min(open, start);
      else if (end !== NONE) found.push({ start, end, rule });
    }
    return open;
  };
}

function isPart(code: number): boolean {
  return isAlphanumeric(code) || code === 95 || code === 45;
}

function beginAtEnd(text: string, from: number): number {
  for (let size = BEGIN.length - 1; size > 0; size--) {
    const start = text.length - size;
    if (start >= from && BEGIN.startsWith(text.slice(start)))
      return start > 0 && isPart(text.charCodeAt(start - 1)) ? text.length : start;
  }
  return text.length;
}

function tokenEnd(view: View, start: number): number {
  const { text } = view;
  const limit = Math.min(text.length, start + TOKEN_MAX);
  const ends: number[] = [];
  let at = start;
  while (ends.length < 5) {
    while (at < limit && isPart(text.charCodeAt(at))) at++;
    if (at === text.length && !view.last && at < start + TOKEN_MAX)
      return isHopeless(text, start, ends) ? NONE : UNDECIDED;
    ends.push(at);
    if (at === limit || text.charCodeAt(at) !== 46) break;
    at++;
  }
  const parts = ends.length === 5 ? 5 : 3;
  if (ends.length < parts || !isHeader(text.slice(start, ends[0]))) return NONE;
  return ends[1]! - ends[0]! > 1 || parts === 5 ? ends[parts - 1]! : NONE;
}

/** Whether the first part is complete and no header, so that nothing need be held. */
function isHopeless(text: string, start: number, ends: number[]): boolean {
  return ends.length > 0 && !isHeader(text.slice(start, ends[0]));
}

/** The shortest header is `{"alg":"ES256"}` or so: 16 characters at least. */
function isHeader(part: string): boolean {
  if (part.length < 16) return false;
  try {
    const header: unknown = JSON.parse(Buffer.from(part, 'base64url').toString('utf8'));
    return typeof header === 'object' && header !== null && 'alg' in header;
  } catch {
    return false;
  }
}
