/** Private keys in PEM (RFC 7468) and PGP armour (RFC 9580): the block from its first line to its last. */
import type { View } from '../normalize.ts';
import type { ActiveRule } from '../rules.ts';
import { type Detector, NONE, UNDECIDED } from './detector.ts';

/** A block is at most so long: RSA with 16,384 bits takes 12.8 KB. */
const BLOCK_MAX = 16_384;
const BEGIN = '-----BEGIN ';
const HEADER = /-----BEGIN (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----/y;
const HEADER_MAX = 96;
const FOOTER = /-----END (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----/g;
/** What a block that has no last line may hold: lines of base64. */
const BODY_LINE = /[\s]{0,4}[A-Za-z0-9+/=]{20,}/y;

/** What follows where a text merely speaks of such a line: a short word and another one. */
const PROSE = /\s{0,8}[^\s:]{1,23} {1,4}[A-Za-z]/y;

/**
 * Lag: from `-----BEGIN ` to the end of the block, at most 16 KiB.
 *
 * A block whose last line does not come within that bound is masked as far as lines of base64 follow the first line, up to the
 * bound; what comes after it is not masked, for a detector keeps nothing between windows.
 */
export function privateKeyDetector(rule: ActiveRule): Detector {
  return (view, found) => {
    const { text, from } = view;
    let open = view.last ? text.length : beginAtEnd(text, from);
    const footers = new Footers(text);
    for (let at = text.indexOf(BEGIN, from); at !== -1; at = text.indexOf(BEGIN, at + 1)) {
      const end = blockEnd(view, at, footers);
      if (end === UNDECIDED) open = Math.min(open, at);
      else if (end !== NONE) found.push({ start: at, end, rule });
    }
    return open;
  };
}

/** The last lines of a text in order, each looked for once. */
class Footers {
  readonly #text: string;
  #searched = -1;
  #end = -1;

  constructor(text: string) {
    this.#text = text;
  }

  /** The end of the first last line behind a position; -1 when there is none. Positions must not go down. */
  after(at: number): number {
    if (this.#searched === -1 || (this.#end !== -1 && this.#searched < at)) {
      FOOTER.lastIndex = at;
      const match = FOOTER.exec(this.#text);
      this.#searched = match ? match.index : at;
      this.#end = match ? match.index + match[0].length : -1;
    }
    return this.#end;
  }
}

/** Where the text ends in a part of `-----BEGIN `, which only a hyphen among the last seven characters can be. */
function beginAtEnd(text: string, from: number): number {
  const end = text.length;
  let hyphen = end - 1;
  while (hyphen >= from && end - hyphen < 7 && text.charCodeAt(hyphen) !== 45) hyphen--;
  if (hyphen < from || text.charCodeAt(hyphen) !== 45) return end;
  for (let size = Math.min(BEGIN.length - 1, end - from); size > 0; size--) {
    if (BEGIN.startsWith(text.slice(end - size))) return end - size;
  }
  return end;
}

function blockEnd(view: View, start: number, footers: Footers): number {
  const { text, last } = view;
  HEADER.lastIndex = start;
  if (!HEADER.test(text)) {
    const rest = text.length - start;
    return !last && rest < HEADER_MAX && /^[A-Z0-9 -]*$/.test(text.slice(start)) ? UNDECIDED : NONE;
  }
  const body = HEADER.lastIndex;
  PROSE.lastIndex = body;
  if (PROSE.test(text)) return NONE;
  const end = footers.after(body);
  if (end !== -1 && end - start <= BLOCK_MAX) return end;
  if (!last && text.length - start < BLOCK_MAX) return UNDECIDED;
  return bodyEnd(text, body, start + BLOCK_MAX);
}

function bodyEnd(text: string, body: number, limit: number): number {
  let end = body;
  for (BODY_LINE.lastIndex = body; BODY_LINE.test(text) && end < limit; ) end = BODY_LINE.lastIndex;
  return end === body ? NONE : Math.min(end, limit);
}
