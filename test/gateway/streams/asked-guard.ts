/** A stream guard that answers when the test says so, and guards as small as can be. */
import type { PluginFactory, StreamInput, StreamVerdict } from '../../../proto/contract.ts';
import { guardFrom, type Scanner } from '../../../proto/scanner.ts';
import { testPlugin } from '../../support/gateway.ts';

/** One question that waits for its answer. */
export interface Asked {
  input: StreamInput;
  signal: AbortSignal | undefined;
  answer(verdict: StreamVerdict): void;
  /** Lets the text through, but for a tail to see again. */
  release(hold?: string): void;
}

/** Keeps every question open until the test answers it. */
export class AskedGuard {
  readonly factory: PluginFactory;
  /** All questions so far, in order. */
  readonly asked: Asked[] = [];
  /** The most questions that were open at the same time on one channel. */
  mostOpen = 0;
  /** Answers further questions at once by letting everything through. */
  isOpen = false;
  readonly #open = new Map<string, number>();
  readonly #waiting: ((asked: Asked) => void)[] = [];
  #taken = 0;

  constructor(name: string) {
    this.factory = testPlugin(name, {
      stream: (input, options) => (this.isOpen ? passed(input) : this.#ask(input, options?.signal)),
    });
  }

  /** The next question that has not been taken. */
  next(): Promise<Asked> {
    const asked = this.asked[this.#taken];
    if (asked) {
      this.#taken += 1;
      return Promise.resolve(asked);
    }
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #ask(input: StreamInput, signal: AbortSignal | undefined): Promise<StreamVerdict> {
    const { promise, resolve } = Promise.withResolvers<StreamVerdict>();
    const key = `${input.request.id} ${input.channel}`;
    this.#count(key, 1);
    const answer = (verdict: StreamVerdict) => {
      this.#count(key, -1);
      resolve(verdict);
    };
    const asked = { input, signal, answer, release: (hold = '') => answer(passed(input, hold)) };
    this.asked.push(asked);
    const waiting = this.#waiting.shift();
    if (waiting) {
      this.#taken += 1;
      waiting(asked);
    }
    return promise;
  }

  #count(key: string, by: number): void {
    const open = (this.#open.get(key) ?? 0) + by;
    this.#open.set(key, open);
    this.mostOpen = Math.max(this.mostOpen, open);
  }
}

/** Lets a window through as it is, but for the tail to hold. */
function passed(input: StreamInput, hold = ''): StreamVerdict {
  return { release: { release: input.text.slice(0, input.text.length - hold.length), hold } };
}

/** Finds one word anywhere: the smallest scanner there is. */
export function wordScanner(word: string, action: 'mask' | 'reject' = 'mask'): Scanner {
  return {
    scan(text, _before, last) {
      const spans = [];
      for (let at = text.indexOf(word); at !== -1; at = text.indexOf(word, at + word.length))
        spans.push({ start: at, end: at + word.length, label: 'WORD', action, mask: '<WORD>' });
      return { spans, settled: last ? text.length : text.length - heldOf(text, word).length };
    },
  };
}

/** The longest tail of a text that may be the beginning of the word. */
export function heldOf(text: string, word: string): string {
  for (let size = word.length - 1; size > 0; size -= 1)
    if (text.endsWith(word.slice(0, size))) return word.slice(0, size);
  return '';
}

/** A guard that masks, or rejects, one word. */
export function wordGuard(name: string, word: string, action: 'mask' | 'reject' = 'mask'): PluginFactory {
  const options = { code: 'word_found', message: () => 'There is a word in it that may not be said.' };
  return testPlugin(name, guardFrom(wordScanner(word, action), options));
}
