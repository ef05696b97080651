/**
 * What a reader would see: a copy of a text without the disguises that hide data from a pattern, and the way back to
 * the offsets of the original.
 *
 * Each unit of the copy stands for one character or one whole escape of the original, so a match of the copy covers
 * whole escapes. Decoding looks at most {@link ESCAPE} units ahead and {@link INVISIBLE_RUN} units back, so that it
 * gives the same copy however the text is cut.
 */

/** The longest escape that is decoded, `%F0%9F%98%80`, in UTF-16 units. */
const ESCAPE = 12;
/** So many units of invisible characters in a row are ignored; the next one separates like any other character. */
const INVISIBLE_RUN = 12;
/** How far before a match words of context may stand, in units of the original: less than the look-behind by {@link ESCAPE}. */
const CONTEXT = 48;

/** A text prepared for detectors. Offsets are those of {@link text} unless they are called raw. */
export interface View {
  /** The look-behind and the window after it, normalised. */
  readonly text: string;
  /** Where the window begins: no match begins before. */
  readonly from: number;
  /** Whether the text ends for good where `text` ends. */
  readonly last: boolean;
  /** The text of up to {@link CONTEXT} raw units before a position. */
  context(at: number): string;
  /** Raw offset, counted from the window's begin, of the character at a position. */
  rawStart(at: number): number;
  /** Raw offset, counted from the window's begin, behind the character before a position. */
  rawEnd(at: number): number;
}

/** Prepares a window; the copy is only made when the text holds anything to decode. */
export function normalize(before: string, text: string, last: boolean): View {
  const all = before === '' ? text : before + text;
  if (isPlain(all)) return new PlainView(all, before.length, last);
  const known = last ? all.length : Math.max(before.length, all.length - unfinished(all));
  return new Decoder(all, before.length, known, last).view();
}

/** True for ASCII without the three characters that begin an escape. `byteLength` is vectorised: 0.1 µs per KB. */
function isPlain(text: string): boolean {
  return (
    Buffer.byteLength(text) === text.length &&
    text.indexOf('%') === -1 &&
    text.indexOf('\\') === -1 &&
    text.indexOf('&') === -1
  );
}

class PlainView implements View {
  readonly text: string;
  readonly from: number;
  readonly last: boolean;

  constructor(text: string, from: number, last: boolean) {
    this.text = text;
    this.from = from;
    this.last = last;
  }

  context(at: number): string {
    return this.text.slice(at > CONTEXT ? at - CONTEXT : 0, at);
  }

  rawStart(at: number): number {
    return at - this.from;
  }

  rawEnd(at: number): number {
    return at - this.from;
  }
}

/** Offsets of a copy: each mark says where a stretch that runs parallel to the original begins. */
interface Marks {
  copy: number[];
  raw: number[];
  /** Raw length of the first character of the stretch; all others have length 1. */
  width: number[];
}

class DecodedView implements View {
  readonly text: string;
  readonly from: number;
  readonly last: boolean;
  readonly #marks: Marks;
  readonly #rawFrom: number;
  readonly #rawLength: number;
  /** The context that was asked for last: several rules ask for the same. */
  #contextAt = -1;
  #context = '';

  constructor(copy: Pick<View, 'text' | 'from' | 'last'>, marks: Marks, rawFrom: number, rawLength: number) {
    this.text = copy.text;
    this.from = copy.from;
    this.last = copy.last;
    this.#marks = marks;
    this.#rawFrom = rawFrom;
    this.#rawLength = rawLength;
  }

  context(at: number): string {
    if (this.#contextAt === at) return this.#context;
    const floor = this.#raw(at) - CONTEXT;
    let start = at;
    while (start > 0 && this.#raw(start - 1) >= floor) start--;
    this.#contextAt = at;
    this.#context = this.text.slice(start, at);
    return this.#context;
  }

  rawStart(at: number): number {
    return this.#raw(at) - this.#rawFrom;
  }

  rawEnd(at: number): number {
    const mark = this.#mark(at - 1);
    const { copy, raw, width } = this.#marks;
    const end = copy[mark] === at - 1 ? raw[mark]! + width[mark]! : raw[mark]! + at - copy[mark]!;
    return end - this.#rawFrom;
  }

  #raw(at: number): number {
    if (at >= this.text.length) return this.#rawLength;
    const mark = this.#mark(at);
    return this.#marks.raw[mark]! + at - this.#marks.copy[mark]!;
  }

  /** The last mark at or before a position, by bisection. */
  #mark(at: number): number {
    const { copy } = this.#marks;
    let low = 0;
    let high = copy.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (copy[middle]! <= at) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

const KEEP = 1;
const DROP = 2;
/** What becomes of a non-ASCII code unit: 0 not asked yet, {@link KEEP}, {@link DROP}, else the ASCII code it reads as. */
const classes = new Uint8Array(65_536);

/** Unicode's default ignorable code points: format characters, fillers, joiners, variation selectors, tags. */
const INVISIBLE = /^\p{Default_Ignorable_Code_Point}$|^\p{Cf}$/u;
const SPACE = /^[\p{Zs}]$/u;
const DASH = /^[\p{Pd}\u2043\u2212]$/u;
const DECIMAL = /^\p{Nd}$/u;

function classify(char: string): number {
  if (INVISIBLE.test(char)) return DROP;
  if (SPACE.test(char)) return 32;
  if (char === '\u2028' || char === '\u2029' || char === '\u0085') return 10;
  if (DASH.test(char)) return 45;
  if (DECIMAL.test(char)) return 48 + decimalValue(char.codePointAt(0)!);
  const compatible = char.normalize('NFKC');
  const code = compatible.charCodeAt(0);
  return compatible.length === 1 && code > 32 && code < 127 ? code : KEEP;
}

/** Unicode keeps decimal digits in runs of ten that begin with zero, so the value is the distance from the run's begin. */
function decimalValue(point: number): number {
  const normal = String.fromCodePoint(point).normalize('NFKC');
  if (normal.length === 1 && normal >= '0' && normal <= '9') return normal.charCodeAt(0) - 48;
  let start = point;
  while (DECIMAL.test(String.fromCodePoint(start - 1))) start--;
  return (point - start) % 10;
}

function classOf(code: number): number {
  const known = classes[code]!;
  if (known !== 0) return known;
  const answer = classify(String.fromCharCode(code));
  classes[code] = answer;
  return answer;
}

/** Walks the original once and copies it in stretches. */
class Decoder {
  readonly #all: string;
  readonly #rawFrom: number;
  readonly #known: number;
  readonly #last: boolean;
  readonly #marks: Marks = { copy: [0], raw: [0], width: [1] };
  #copy = '';
  #copied = 0;
  #from = -1;
  #changed = false;
  #invisibleUntil = -1;
  #invisibleFrom = -1;

  constructor(all: string, rawFrom: number, known: number, last: boolean) {
    this.#all = all;
    this.#rawFrom = rawFrom;
    this.#known = known;
    this.#last = last;
  }

  view(): View {
    const all = this.#all;
    const known = this.#known;
    for (let at = 0; at < known; ) {
      const code = all.charCodeAt(at);
      if (code < 128 && code !== 37 && code !== 38 && code !== 92) at++;
      else at += this.#special(at, code);
    }
    if (!this.#changed)
      return new PlainView(known === all.length ? all : all.slice(0, known), this.#rawFrom, this.#last);
    this.#flush(known);
    return new DecodedView({ text: this.#copy, from: this.#from, last: this.#last }, this.#marks, this.#rawFrom, known);
  }

  /** Handles a character that may need replacing and returns how many raw units it takes. */
  #special(at: number, code: number): number {
    if (code < 128) {
      const length = readEscape(this.#all, at, this.#known);
      if (length === 0) return 1;
      this.#decoded(at, length, escaped);
      return length;
    }
    if (code >= 0xd800 && code < 0xdc00) return this.#astral(at);
    const to = classOf(code);
    if (to !== KEEP) this.#replace(at, 1, to);
    return 1;
  }

  #astral(at: number): number {
    const point = this.#all.codePointAt(at)!;
    if (point < 0x10000) return 1;
    const to = classify(String.fromCodePoint(point));
    if (to !== KEEP) this.#replace(at, 2, to);
    return 2;
  }

  #decoded(at: number, length: number, point: number): void {
    if (point < 128) this.#put(at, length, String.fromCharCode(point));
    else if (point >= 0x10000) this.#replace(at, length, classify(String.fromCodePoint(point)), '\ufffd');
    else this.#replace(at, length, classOf(point), String.fromCharCode(point));
  }

  #replace(at: number, length: number, to: number, kept = ''): void {
    if (to === KEEP) this.#put(at, length, kept);
    else if (to !== DROP) this.#put(at, length, String.fromCharCode(to));
    else if (this.#ignores(at, length)) this.#put(at, length, '');
    else this.#put(at, length, '\ufffd');
  }

  #ignores(at: number, length: number): boolean {
    if (this.#invisibleUntil !== at) this.#invisibleFrom = at;
    this.#invisibleUntil = at + length;
    return at + length - this.#invisibleFrom <= INVISIBLE_RUN;
  }

  #put(at: number, length: number, char: string): void {
    this.#changed = true;
    this.#flush(at);
    if (char !== '') this.#mark(at, length);
    this.#copy += char;
    this.#copied = at + length;
    this.#mark(at + length, 1);
  }

  /** Copies what stands unchanged before a raw position, and notes where the window begins. */
  #flush(at: number): void {
    if (this.#from < 0 && at >= this.#rawFrom) {
      this.#from = this.#copy.length + Math.max(0, this.#rawFrom - this.#copied);
    }
    if (at > this.#copied) this.#copy += this.#all.slice(this.#copied, at);
    this.#copied = Math.max(at, this.#copied);
  }

  #mark(raw: number, width: number): void {
    const { copy, raw: raws, width: widths } = this.#marks;
    const index = copy[copy.length - 1] === this.#copy.length ? copy.length - 1 : copy.length;
    copy[index] = this.#copy.length;
    raws[index] = raw;
    widths[index] = width;
  }
}

const NAMED: Record<string, number> = {
  '&commat;': 64,
  '&period;': 46,
  '&nbsp;': 32,
  '&ensp;': 32,
  '&emsp;': 32,
  '&thinsp;': 32,
  '&hyphen;': 45,
  '&dash;': 45,
  '&ndash;': 45,
  '&mdash;': 45,
  '&minus;': 45,
  '&lowbar;': 95,
  '&plus;': 43,
  '&colon;': 58,
  '&sol;': 47,
  '&bsol;': 92,
  '&num;': 35,
  '&lpar;': 40,
  '&rpar;': 41,
  '&lt;': 60,
  '&gt;': 62,
  '&amp;': 38,
  '&quot;': 34,
  '&apos;': 39,
  '&equals;': 61,
  '&percnt;': 37,
  '&shy;': 0xad,
  '&zwj;': 0x200d,
  '&zwnj;': 0x200c,
  '&Tab;': 9,
  '&NewLine;': 10,
};
const ENTITY = /&(?:#(?:[0-9]{1,8}|[xX][0-9a-fA-F]{1,6});|[A-Za-z]{2,8};)/y;
const BACKSLASH = /\\(?:u[0-9a-fA-F]{4}|u\{[0-9a-fA-F]{1,6}\}|x[0-9a-fA-F]{2}|[nrt/"])/y;
const PERCENT = /%(?:[c-fC-F][0-9a-fA-F](?:%[89abAB][0-9a-fA-F]){1,3}|[0-9a-fA-F]{2})/y;
const CONTROLS: Record<string, number> = { '\\n': 10, '\\r': 13, '\\t': 9, '\\/': 47, '\\"': 34 };
const INVALID = 0xfffd;

/** The code point that {@link readEscape} has read last. */
let escaped = 0;

/** Reads the escape at a position: returns its raw length and leaves its code point in {@link escaped}; 0 when there is none. */
function readEscape(all: string, at: number, known: number): number {
  const start = all.charCodeAt(at);
  const pattern = start === 37 ? PERCENT : start === 38 ? ENTITY : BACKSLASH;
  pattern.lastIndex = at;
  const found = pattern.exec(all)?.[0];
  if (found === undefined || at + found.length > known) return 0;
  if (start === 37) return readPercent(found);
  const point =
    start === 38 ? entityPoint(found) : (CONTROLS[found] ?? Number.parseInt(found.replace(/[^0-9a-fA-F]/g, ''), 16));
  if (point === undefined) return 0;
  escaped = point > 0x10ffff ? INVALID : point;
  return found.length;
}

function entityPoint(entity: string): number | undefined {
  if (entity[1] !== '#') return NAMED[entity];
  return entity[2] === 'x' || entity[2] === 'X'
    ? Number.parseInt(entity.slice(3), 16)
    : Number.parseInt(entity.slice(2), 10);
}

/** Percent-encoded UTF-8; bytes that are none are single characters that mean nothing. */
function readPercent(found: string): number {
  const lead = Number.parseInt(found.slice(1, 3), 16);
  const length = lead < 0x80 ? 3 : lead < 0xe0 ? 6 : lead < 0xf0 ? 9 : 12;
  escaped = lead;
  if (lead < 0x80) return 3;
  escaped = INVALID;
  if (found.length < length) return 3;
  try {
    escaped = decodeURIComponent(found.slice(0, length)).codePointAt(0)!;
    return length;
  } catch {
    return 3;
  }
}

const UNFINISHED =
  /(?:%[0-9a-fA-F]?|%[c-fC-F][0-9a-fA-F](?:%[89abAB][0-9a-fA-F]){0,2}(?:%[89abAB]?)?|&(?:#(?:[0-9]{0,8}|[xX][0-9a-fA-F]{0,6})|[A-Za-z]{0,8})|\\(?:u[0-9a-fA-F]{0,3}|u\{[0-9a-fA-F]{0,6}|x[0-9a-fA-F]?)?|[\ud800-\udbff])$/;

/** How many units at the end of a text may be the begin of an escape or of a surrogate pair. */
function unfinished(all: string): number {
  const tail = all.slice(-ESCAPE);
  const at = tail.search(UNFINISHED);
  return at === -1 ? 0 : tail.length - at;
}
