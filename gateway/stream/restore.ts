/**
 * Undoes reversible masks in the answer to the person who asked: after all guards, across chunk borders, and with the
 * escapes that JSON wants inside tool arguments.
 */
import type { Placeholder } from '../../proto/contract.ts';

/** The placeholders of one request. Kept for that request alone and never logged. */
export class Restorer {
  private readonly originals: Map<string, string>;
  private readonly pattern: RegExp;
  private readonly longest: number;

  constructor(placeholders: Placeholder[]) {
    this.originals = new Map(
      placeholders.flatMap(({ placeholder, original }) => spellings(placeholder).map((name) => [name, original])),
    );
    const names = [...this.originals.keys()].sort((a, b) => b.length - a.length);
    this.pattern = new RegExp(names.map((name) => name.replace(/[$()*+.?[\\\]^{|}]/g, '\\$&')).join('|'), 'g');
    this.longest = names[0]?.length ?? 0;
  }

  /** A whole text. */
  restore(text: string, isJson: boolean): string {
    return text.replace(this.pattern, (name) => {
      const original = this.originals.get(name) as string;
      return isJson ? JSON.stringify(original).slice(1, -1) : original;
    });
  }

  /** Where the beginning of a placeholder starts that may go on in the next piece; the text's length when none does. */
  openAt(text: string): number {
    for (let at = Math.max(0, text.length - this.longest + 1); at < text.length; at += 1) {
      const tail = text.slice(at);
      for (const name of this.originals.keys()) if (name.length > tail.length && name.startsWith(tail)) return at;
    }
    return text.length;
  }
}

/** A mask as it stands, and as it looks in the JSON of servers that escape what HTML would read (Go's encoder does). */
function spellings(placeholder: string): string[] {
  if (!/[&<>]/.test(placeholder)) return [placeholder];
  const escaped = placeholder.replace(/[&<>]/g, (sign) => `\\u00${sign.charCodeAt(0).toString(16)}`);
  return [placeholder, escaped, escaped.replace(/\\u00../g, (code) => `\\u${code.slice(2).toUpperCase()}`)];
}
