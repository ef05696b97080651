/** Many buckets by key, bounded in number. */
import { type Bucket, type Rate, refill } from './bucket.ts';

/** Between two looks over all buckets while there is room. One over 100,000 of them takes about 5 ms. */
const SWEEP_MS = 60_000;
/** The same while there is no room: a flood of new keys must not keep the process looking. */
export const CROWDED_SWEEP_MS = 1000;

/** A bucket and whether it is remembered. */
export interface Held extends Bucket {
  rate: Rate;
  kept: boolean;
}

/** Remembers the buckets that are not full; a full one equals a new one, so forgetting it gives nothing away. */
export class Buckets {
  readonly #held = new Map<string, Held>();
  readonly #maxKeys: number;
  #sweptAt = 0;

  constructor(maxKeys: number) {
    this.#maxKeys = maxKeys;
  }

  /** How many are remembered. */
  get size(): number {
    return this.#held.size;
  }

  /** The refilled bucket of a key; a full one that is not yet remembered for a key that is new. */
  look(key: string, rate: Rate, now: number): Held {
    const held = this.#held.get(key);
    if (held === undefined) return { level: rate.max, since: now, rate, kept: false };
    refill(held, rate, now);
    return held;
  }

  /** Remembers what {@link look} made, once something has been taken from it. */
  keep(key: string, held: Held): void {
    if (held.kept) return;
    held.kept = true;
    this.#held.set(key, held);
  }

  /** Says whether `count` new keys have room, after forgetting the full buckets where that is due. */
  hasRoom(count: number, now: number): boolean {
    const crowded = this.#held.size + count > this.#maxKeys;
    if (now - this.#sweptAt >= (crowded ? CROWDED_SWEEP_MS : SWEEP_MS)) this.#sweep(now);
    return this.#held.size + count <= this.#maxKeys;
  }

  #sweep(now: number): void {
    this.#sweptAt = now;
    for (const [key, held] of this.#held) {
      refill(held, held.rate, now);
      if (held.level !== held.rate.max) continue;
      held.kept = false;
      this.#held.delete(key);
    }
  }
}
