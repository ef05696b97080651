/** What OpenFGA decided a moment ago: bounded in number and in time, a no for a shorter time than a yes. */
import type { CacheConfig } from './config.ts';

interface Decision {
  isAllowed: boolean;
  /** By the clock that the cache was given, in milliseconds. */
  until: number;
}

/** Remembers decisions; what was not asked for longest goes first. */
export class Decisions {
  readonly #config: CacheConfig | false;
  readonly #clock: () => number;
  readonly #known = new Map<string, Decision>();
  #epoch = 0;

  /** @param clock tells milliseconds and never goes back */
  constructor(config: CacheConfig | false, clock: () => number) {
    this.#config = config;
    this.#clock = clock;
  }

  /** How many are remembered. */
  get size(): number {
    return this.#known.size;
  }

  /** Changes when all is forgotten; what was asked before that must not be remembered after it. */
  get epoch(): number {
    return this.#epoch;
  }

  /** The decision, as long as it holds. */
  get(key: string): boolean | undefined {
    const decision = this.#known.get(key);
    if (decision === undefined) return undefined;
    this.#known.delete(key);
    if (decision.until <= this.#clock()) return undefined;
    this.#known.set(key, decision);
    return decision.isAllowed;
  }

  /** @param askedAt when the question left: a decision is as old as its question */
  set(key: string, isAllowed: boolean, askedAt: number): void {
    if (this.#config === false) return;
    const holds = isAllowed ? this.#config.allowed : this.#config.denied;
    if (holds === 0) return;
    this.#known.delete(key);
    this.#known.set(key, { isAllowed, until: askedAt + holds });
    if (this.#known.size <= this.#config.entries) return;
    const [oldest] = this.#known.keys();
    this.#known.delete(oldest!);
  }

  clear(): void {
    this.#epoch++;
    this.#known.clear();
  }
}
