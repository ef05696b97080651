/** What OPA decided a moment ago: bounded in number and in time. */
import type { CacheConfig } from './config.ts';
import type { Decision } from './decision.ts';

interface Entry {
  decision: Decision;
  /** By the clock that was given, in milliseconds. */
  until: number;
}

/** Remembers decisions; what was decided first goes first. */
export class Remembered {
  readonly #config: CacheConfig;
  readonly #clock: () => number;
  readonly #entries = new Map<string, Entry>();

  /** @param clock tells milliseconds and never goes back */
  constructor(config: CacheConfig, clock: () => number) {
    this.#config = config;
    this.#clock = clock;
  }

  /** How many are remembered. */
  get size(): number {
    return this.#entries.size;
  }

  /** The decision, as long as it holds. */
  get(key: string): Decision | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    if (this.#clock() < entry.until) return entry.decision;
    this.#entries.delete(key);
    return undefined;
  }

  /** @param askedAt when the question left: a decision is as old as its question */
  set(key: string, decision: Decision, askedAt: number): void {
    const { allowed, denied, entries } = this.#config;
    // A list of models that is partly denied holds no longer than its shortest part.
    const holds = decision.decisions.includes(false) ? Math.min(denied, allowed) : allowed;
    this.#entries.delete(key);
    this.#entries.set(key, { decision, until: askedAt + holds });
    if (this.#entries.size <= entries) return;
    const [oldest] = this.#entries.keys();
    this.#entries.delete(oldest!);
  }
}
