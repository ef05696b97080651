/**
 * What can be told of a regular expression without running it: the literals that a match must begin with, and how long a match
 * can get. It reads RE2 syntax that has already been compiled, so it need not find mistakes; what it does not know
 * it takes for anything.
 */

export interface Shape {
  /** Every match begins with one of these; undefined when nothing is known. */
  prefixes: string[] | undefined;
  /** Longest possible match in UTF-16 units. */
  max: number;
  /** Whether letters match in either case somewhere. */
  insensitive: boolean;
}

interface Part {
  /** Every match of the part begins with one of these. */
  prefixes: string[];
  /** Whether a match of the part is nothing but one of its prefixes. */
  exact: boolean;
  max: number;
}

const EMPTY: Part = { prefixes: [''], exact: true, max: 0 };
const ANY: Part = { prefixes: [''], exact: false, max: 2 };
/** More alternatives than these are not worth looking for one by one. */
const PREFIXES_MAX = 24;

export function shapeOf(pattern: string): Shape {
  const reader = new Reader(pattern);
  const { prefixes, max } = reader.alternatives();
  const useful = reader.understood && prefixes.every((prefix) => prefix.length >= 2);
  return {
    prefixes: useful ? prefixes : undefined,
    max: reader.understood ? max : Number.POSITIVE_INFINITY,
    insensitive: /\(\?[a-zA-Z]*i/.test(pattern),
  };
}

class Reader {
  readonly #pattern: string;
  #at = 0;
  understood = true;

  constructor(pattern: string) {
    this.#pattern = pattern;
  }

  alternatives(): Part {
    let result = this.#sequence();
    while (this.#take('|')) result = either(result, this.#sequence());
    return result;
  }

  #sequence(): Part {
    let result = EMPTY;
    while (this.#at < this.#pattern.length && !')|'.includes(this.#pattern[this.#at]!)) {
      result = both(result, this.#repeated(this.#atom()));
    }
    return result;
  }

  #take(text: string): boolean {
    if (!this.#pattern.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#pattern);
    if (found) this.#at += found[0].length;
    return found;
  }

  #atom(): Part {
    if (this.#take('(')) return this.#group();
    if (this.#pattern[this.#at] === '[') return this.#class();
    if (this.#take('.')) return ANY;
    if (this.#take('^') || this.#take('$')) return EMPTY;
    if (this.#pattern[this.#at] === '\\') return this.#escape();
    const char = String.fromCodePoint(this.#pattern.codePointAt(this.#at)!);
    this.#at += char.length;
    return literal(char);
  }

  #group(): Part {
    const flags = this.#match(/\?(?:P?<[A-Za-z0-9_]+>|[a-zA-Z-]*(:|(?=\))))/y);
    if (flags === null && this.#pattern[this.#at] === '?') this.understood = false;
    const inside = this.alternatives();
    this.#take(')');
    return inside;
  }

  #class(): Part {
    const found = this.#match(/\[\^?\]?(?:\\[pP]\{[^}]*\}|\\[\s\S]|\[:\^?[a-z]+:\]|[^\]\\])*\]/y);
    if (found === null) {
      this.understood = false;
      this.#at++;
      return ANY;
    }
    const chars = /^\[[^^\\[\]]{1,4}\]$/.test(found[0]) ? found[0].slice(1, -1) : '-';
    const plain = !/.-./.test(chars) && chars !== '-';
    const max = /^\[[ -Z_-~-]+\]$/.test(found[0]) ? 1 : 2;
    return plain ? { prefixes: Array.from(chars), exact: true, max } : { ...ANY, max };
  }

  #escape(): Part {
    if (this.#match(/\\[bBAz]/y)) return EMPTY;
    if (this.#match(/\\[dsw]/y)) return { ...ANY, max: 1 };
    if (this.#match(/\\(?:[DSW]|[pP](?:\{[^}]*\}|[A-Za-z]))/y)) return ANY;
    const char = this.#match(/\\([^A-Za-z0-9])/y);
    if (char) return literal(char[1]!);
    this.understood = false;
    this.#at += 2;
    return ANY;
  }

  #repeated(part: Part): Part {
    const found = this.#match(/(?:[*+?]|\{([0-9]+)(,([0-9]*))?\})\??/y);
    if (found === null) return part;
    const sign = found[0][0];
    const low = sign === '+' ? 1 : sign === '{' ? Number(found[1]) : 0;
    const high = sign === '?' ? 1 : sign !== '{' || found[3] === '' ? Infinity : Number(found[3] ?? found[1]);
    return this.#repeated(repeat(part, low, high));
  }
}

function literal(char: string): Part {
  return { prefixes: [char], exact: true, max: char.length };
}

function repeat(part: Part, low: number, high: number): Part {
  const max = part.max === 0 || high === 0 ? 0 : part.max * high;
  if (low === 0) return bounded({ prefixes: ['', ...part.prefixes], exact: part.exact && high === 1, max });
  return { prefixes: part.prefixes, exact: part.exact && low === 1 && high === 1, max };
}

function both(first: Part, second: Part): Part {
  const max = first.max + second.max;
  if (!first.exact) return { ...first, max };
  const prefixes = first.prefixes.flatMap((one) => second.prefixes.map((other) => one + other));
  if (prefixes.length > PREFIXES_MAX) return { prefixes: first.prefixes, exact: false, max };
  return { prefixes, exact: second.exact, max };
}

function either(first: Part, second: Part): Part {
  const prefixes = [...first.prefixes, ...second.prefixes];
  return bounded({ prefixes, exact: first.exact && second.exact, max: Math.max(first.max, second.max) });
}

function bounded(part: Part): Part {
  return part.prefixes.length > PREFIXES_MAX ? { ...part, prefixes: [''], exact: false } : part;
}
