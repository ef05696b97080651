/** What could not be told to Redis, and is told again when it is back. Settling is safe to repeat. */

/** Between two tries, in milliseconds. */
const RETRY_MS = 500;
/** How long it goes on after it was closed, in milliseconds: a config may change while Redis is away. */
const LINGER_MS = 60_000;

export type Task = () => Promise<unknown>;

/** See the head of this file. At most `max` tasks wait; of those beyond, the oldest is dropped. */
export class Outbox {
  readonly #max: number;
  readonly #tasks: Task[] = [];
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  #atEnd: (() => void) | undefined;

  constructor(max: number) {
    this.#max = max;
  }

  /** How many wait. */
  get size(): number {
    return this.#tasks.length;
  }

  /** Does it now, and later if that fails. */
  async do(task: Task): Promise<void> {
    await task().catch(() => this.add(task));
  }

  /** Does it later. */
  add(task: Task): void {
    if (this.#tasks.length >= this.#max) this.#tasks.shift();
    this.#tasks.push(task);
    this.#wait();
  }

  /** Tries all once more, oldest first, until one fails; that one is the last next time, so that it holds up no other. */
  async flush(): Promise<void> {
    for (let task = this.#tasks[0]; task !== undefined; task = this.#tasks[0]) {
      const isDone = await task().then(
        () => true,
        () => false,
      );
      // Another flush may have come first.
      const isFirst = this.#tasks[0] === task;
      if (isFirst) this.#tasks.shift();
      if (isDone) continue;
      if (isFirst) this.#tasks.push(task);
      break;
    }
    if (this.#tasks.length === 0) this.#atEnd?.();
    this.#wait();
  }

  /** Tries all once more, and again for up to a minute, also after this has resolved. @param atEnd called then, once */
  async close(atEnd: () => void): Promise<void> {
    const timer = setTimeout(() => this.#atEnd?.(), LINGER_MS).unref();
    this.#atEnd = () => {
      this.#atEnd = undefined;
      this.#closed = true;
      clearTimeout(timer);
      clearTimeout(this.#timer);
      atEnd();
    };
    await this.flush();
  }

  #wait(): void {
    if (this.#timer !== undefined || this.#tasks.length === 0 || this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.flush();
    }, RETRY_MS);
    this.#timer.unref();
  }
}
