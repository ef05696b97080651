/** What could not be told to Redis, and is told again when it is back. Settling is safe to repeat. */

/** Between two tries, in milliseconds. */
const RETRY_MS = 500;

export type Task = () => Promise<unknown>;

/** See the head of this file. At most `max` tasks wait; of those beyond, the oldest is dropped. */
export class Outbox {
  readonly #max: number;
  readonly #tasks: Task[] = [];
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

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

  /** Tries all once more, oldest first, until one fails. */
  async flush(): Promise<void> {
    for (let task = this.#tasks[0]; task !== undefined; task = this.#tasks[0]) {
      try {
        await task();
      } catch {
        break;
      }
      if (this.#tasks[0] === task) this.#tasks.shift();
    }
    this.#wait();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
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
