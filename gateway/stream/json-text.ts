/**
 * Keeps masked tool arguments parseable: a mask that stands where JSON has no string (in place of a number, say) is
 * put into quotes. It knows only whether it is inside a string, so it works on a stream piece by piece.
 */
export class JsonText {
  /** Inside a string of the JSON itself. */
  private inString = false;
  private isEscaped = false;
  /** Inside a bare word that was no JSON and got quotes. */
  private inMask = false;
  /** What of a bare word has been seen so far, to tell `true` and `-1.5e3` from a mask. */
  private word = '';

  /**
   * The same text, with quotes where they are missing.
   *
   * @param last closes what is open
   * @param isMasked whether a guard changed it: a model's own text is followed, never mended
   */
  push(text: string, last: boolean, isMasked: boolean): string {
    let out = '';
    for (const char of text) {
      if (this.inString) out += this.within(char);
      else if (isMasked || this.inMask || this.word !== '') out += this.outside(char);
      else {
        this.inString = char === '"';
        out += char;
      }
    }
    return last ? out + this.endWord() : out;
  }

  private within(char: string): string {
    if (this.isEscaped) this.isEscaped = false;
    else if (char === '\\') this.isEscaped = true;
    else if (char === '"') this.inString = false;
    return char;
  }

  private outside(char: string): string {
    if (char === '"') {
      this.inString = true;
      return this.endWord() + char;
    }
    if (!this.inMask && STRUCTURE.has(char)) return this.endWord() + char;
    if (this.inMask && ENDS_MASK.has(char)) return this.endWord() + char;
    this.word += char;
    if (this.inMask) return this.flushMask();
    if (LITERAL_START.test(this.word)) return '';
    this.inMask = true;
    return `"${this.flushMask()}`;
  }

  private flushMask(): string {
    const text = JSON.stringify(this.word).slice(1, -1);
    this.word = '';
    return text;
  }

  private endWord(): string {
    if (this.inMask) {
      this.inMask = false;
      return '"';
    }
    const { word } = this;
    this.word = '';
    return word === '' || LITERAL.test(word) ? word : JSON.stringify(word);
  }
}

const STRUCTURE = new Set(['{', '}', '[', ']', ':', ',', ' ', '\t', '\n', '\r']);
const ENDS_MASK = new Set(['}', ']', ',', '\n', '\r']);
const LITERAL = /^(?:true|false|null|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)$/;
/** What a literal may look like while it is still coming. */
const LITERAL_START =
  /^(?:t(?:r(?:ue?)?)?|f(?:a(?:l(?:se?)?)?)?|n(?:u(?:ll?)?)?|-?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d*)?)?)$/;

/** The whole of a text, repaired at once. */
export function repairJson(text: string): string {
  return new JsonText().push(text, true, true);
}
