/**
 * Digits in a text as groups (`415`, `555`, `2671`): the common ground of all detectors of numbers, found once for all.
 */
import { isDigit, isWord } from '../characters.ts';
import { normalize, type View } from '../normalize.ts';
import { NONE, UNDECIDED } from './detector.ts';

const HYPHEN = 45;
const DOT = 46;
const SPACE = 32;
const DIGIT = /[0-9]/g;

const NO_VIEW = normalize('', '', true);

/** The maximal runs of ASCII digits in a window. One that goes on from before it has a digit beside it, which no rule allows. */
export class DigitGroups {
  view: View = NO_VIEW;
  text = '';
  /** Nothing is known from here on; -1 when the text ends for good. */
  unknown = -1;
  count = 0;
  /** What has been found out about the digits of this window, such as whether they are a valid phone number. */
  readonly answers = new Map<string, boolean>();
  readonly starts: number[] = [];
  readonly ends: number[] = [];

  /** Reads the groups of a window. The arrays are used again: one scan at a time. */
  read(view: View): void {
    const { text, from } = view;
    this.view = view;
    this.text = text;
    this.unknown = view.last ? -1 : text.length;
    this.count = 0;
    DIGIT.lastIndex = from;
    while (DIGIT.test(text)) {
      const start = DIGIT.lastIndex - 1;
      let end = start + 1;
      while (end < text.length && isDigit(text.charCodeAt(end))) end++;
      DIGIT.lastIndex = end;
      this.starts[this.count] = start;
      this.ends[this.count++] = end;
    }
  }

  /** Keeps nothing of a person's data from one text to the next. */
  forget(): void {
    if (this.answers.size > 0) this.answers.clear();
    this.view = NO_VIEW;
    this.text = '';
  }

  size(group: number): number {
    return this.ends[group]! - this.starts[group]!;
  }

  /** The digits of some groups without what separates them. */
  digits(first: number, last: number): string {
    let digits = '';
    for (let group = first; group <= last; group++) digits += this.text.slice(this.starts[group], this.ends[group]);
    return digits;
  }

  /** Whether a group may still grow. */
  grows(group: number): boolean {
    return this.ends[group] === this.unknown;
  }

  /** Code unit at an offset; 0 outside of the text. */
  code(at: number): number {
    return at >= 0 && at < this.text.length ? this.text.charCodeAt(at) : 0;
  }

  /** Whether a number may begin here: it is not part of a word, nor of a decimal or a longer chain such as `12-345`. */
  opensAt(start: number, chain: Chain): boolean {
    const previous = this.code(start - 1);
    if (isWord(previous)) return false;
    return !(ties(previous, chain) && isDigit(this.code(start - 2)));
  }

  /** Whether a number may end here: its end when it may. */
  closesAt(end: number, chain: Chain): number {
    if (end === this.unknown) return UNDECIDED;
    const next = this.code(end);
    if (isWord(next)) return NONE;
    if (!ties(next, chain)) return end;
    if (end + 1 === this.unknown) return UNDECIDED;
    return isDigit(this.code(end + 1)) ? NONE : end;
  }

  /**
   * Whether groups of these sizes follow one another with one and the same separator (space, hyphen or dot) between
   * them: where they end, or {@link NONE} or {@link UNDECIDED}. The end is not checked.
   */
  shaped(group: number, sizes: readonly number[]): number {
    const separator = this.code(this.ends[group]!);
    for (let index = 0; index < sizes.length; index++) {
      const at = group + index;
      if (index > 0) {
        const gap = this.single(at - 1, separator);
        if (gap !== 1) return gap;
      }
      if (this.grows(at) && this.size(at) <= sizes[index]!) return UNDECIDED;
      if (this.size(at) !== sizes[index]) return NONE;
    }
    return this.ends[group + sizes.length - 1]!;
  }

  /** Whether one separator stands between a group and the next: 1, {@link NONE} or {@link UNDECIDED}. */
  single(group: number, separator: number): number {
    const end = this.ends[group]!;
    if (end === this.unknown) return UNDECIDED;
    if (!isSeparator(separator) || this.code(end) !== separator) return NONE;
    if (end + 1 === this.unknown) return UNDECIDED;
    return group + 1 < this.count && this.starts[group + 1] === end + 1 ? 1 : NONE;
  }
}

export function isSeparator(code: number): boolean {
  return code === SPACE || code === HYPHEN || code === DOT;
}

/** What ties a number to digits beside it: a decimal point, or a hyphen as well. A space never does. */
export type Chain = 'point' | 'point or hyphen';

function ties(code: number, chain: Chain): boolean {
  return code === DOT || (code === HYPHEN && chain === 'point or hyphen');
}
