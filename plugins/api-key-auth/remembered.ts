/**
 * What the store said of the keys that were presented, remembered for a short time.
 *
 * An answer is believed for `refresh`; then the store is asked again before the key is used, so a revoked key stops
 * within that time on every gateway. When the store does not answer, an answer is believed for `outage`, so that a restart
 * of Redis goes unnoticed; keys that were not seen since then cannot be judged, which is a fault and not a no.
 */
import { KeyFault } from './faults.ts';
import type { KeyRecord } from './record.ts';
import type { KeySource } from './store.ts';

/** How long an unknown key stays unknown at most, in milliseconds: somebody may be waiting for it to be issued. */
const UNKNOWN_MS = 1_000;
/** How long a store that did not answer is not asked again, in milliseconds. */
const PAUSE_MS = 500;
/** Known and unknown keys that are remembered, each: a flood of guesses drives out no known one. */
const MAX_REMEMBERED = 10_000;

export interface Patience {
  /** Milliseconds, all three. */
  refresh: number;
  outage: number;
  /** How long an answer is waited for. */
  timeout: number;
}

interface Remembered<T> {
  value: T | undefined;
  /** When the store said so, by the clock. */
  at: number;
}

/** Looks keys up. `T` is what the caller makes of a record, once. */
export class RememberedKeys<T> {
  readonly #source: KeySource;
  readonly #patience: Patience;
  readonly #read: (record: KeyRecord) => T;
  readonly #clock: () => number;
  readonly #known = new Map<string, Remembered<T>>();
  readonly #unknown = new Map<string, Remembered<T>>();
  readonly #asked = new Map<string, Promise<T | undefined>>();
  #quietUntil = Number.NEGATIVE_INFINITY;

  constructor(source: KeySource, patience: Patience, read: (record: KeyRecord) => T, clock = () => performance.now()) {
    this.#source = source;
    this.#patience = patience;
    this.#read = read;
    this.#clock = clock;
  }

  /**
   * What was made of an id's record; undefined where there is none. At once where it is remembered.
   *
   * @throws KeyFault when the store does not answer and the key was not seen for too long
   */
  find(id: string): T | undefined | Promise<T | undefined> {
    const remembered = this.#known.get(id) ?? this.#unknown.get(id);
    const now = this.#clock();
    if (remembered !== undefined && now - remembered.at < this.#believed(remembered)) return remembered.value;
    if (now < this.#quietUntil) return this.#withoutStore(id, 'the key store did not answer a moment ago');
    // Asked once for all that wait for it.
    const asked = this.#asked.get(id) ?? this.#ask(id);
    this.#asked.set(id, asked);
    return asked;
  }

  #believed({ value }: Remembered<T>): number {
    const { refresh } = this.#patience;
    return value === undefined ? Math.min(refresh, UNKNOWN_MS) : refresh;
  }

  async #ask(id: string): Promise<T | undefined> {
    const at = this.#clock();
    try {
      const record = await within(this.#source.get(id), this.#patience.timeout);
      const value = record && this.#read(record);
      this.#remember(id, { value, at });
      return value;
    } catch (error) {
      // One entry that cannot be read says nothing of the others.
      if (error instanceof KeyFault) throw error;
      this.#quietUntil = this.#clock() + PAUSE_MS;
      return this.#withoutStore(id, (error as Error).message);
    } finally {
      this.#asked.delete(id);
    }
  }

  #withoutStore(id: string, reason: string): T {
    const known = this.#known.get(id);
    if (known?.value !== undefined && this.#clock() - known.at < this.#patience.outage) return known.value;
    throw new KeyFault('key_store_unavailable', `the key store cannot be asked: ${reason}`);
  }

  #remember(id: string, remembered: Remembered<T>): void {
    this.#known.delete(id);
    this.#unknown.delete(id);
    const kind = remembered.value === undefined ? this.#unknown : this.#known;
    kind.set(id, remembered);
    // The one that was asked about longest ago goes first.
    if (kind.size > MAX_REMEMBERED) kind.delete(kind.keys().next().value!);
  }
}

function within<T>(answer: Promise<T>, ms: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms);
    answer.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
