/** A question that is under way: who asks the same meanwhile waits for the same answer. */

/** One call that several may wait for. It is given up when nobody waits any longer, or when its time is over. */
export class Flight<T> {
  readonly #controller = new AbortController();
  readonly #answer: Promise<T>;
  /** Resolves when there is nothing to wait for any longer, however it went. */
  readonly ended: Promise<void>;
  #waiting = 0;

  /** @param late what is thrown when there is no answer `timeoutMs` from now */
  constructor(call: (signal: AbortSignal) => Promise<T>, timeoutMs: number, late: Error) {
    const { signal } = this.#controller;
    const timer = setTimeout(() => this.#controller.abort(late), timeoutMs);
    this.#answer = Promise.race([raised(signal), call(signal)]).finally(() => clearTimeout(timer));
    this.ended = this.#answer.then(
      () => {},
      () => {},
    );
  }

  /** True from the moment on when it can no longer be waited for. */
  get isGivenUp(): boolean {
    return this.#controller.signal.aborted;
  }

  /** The answer; or the reason of `signal`, when that is raised first. */
  async wait(signal: AbortSignal | undefined): Promise<T> {
    this.#waiting++;
    try {
      return await (signal === undefined ? this.#answer : Promise.race([raised(signal), this.#answer]));
    } finally {
      this.#waiting--;
      // After the answer this says nothing to anybody.
      if (this.#waiting === 0) this.#controller.abort(new DOMException('Nobody waits any longer.', 'AbortError'));
    }
  }
}

function raised(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
