/** While Redis is away: a share of each limit, counted in this process alone. */
import { msUntil, type Rate, take } from '../quota/bucket.ts';
import { Buckets, type Held } from '../quota/buckets.ts';
import type { Limit } from './config.ts';
import type { Check, Reading } from './engine.ts';

/** Days of the longest month. */
const MONTH_MS = 31 * 86_400_000;
/** Requests whose share may be given back; of those beyond, the oldest is not. */
const MAX_OPEN = 10_000;

interface Taken {
  bucket: Held;
  unit: string;
  amount: number;
}

/** What one limit is asked for. */
export interface Asked {
  limit: Limit;
  check: Check;
}

/** See the head of this file. */
export class LocalShares {
  readonly #buckets: Buckets;
  readonly #clock: () => number;
  readonly #lifetimeMs: number;
  readonly #open = new Map<string, Taken[]>();

  /** @param clock tells milliseconds and never goes back */
  constructor(maxKeys: number, lifetimeMs: number, clock: () => number) {
    this.#buckets = new Buckets(maxKeys);
    this.#lifetimeMs = lifetimeMs;
    this.#clock = clock;
  }

  /** Takes from all or from none; a reading for each. Where there is no room for more counts, nobody agrees. */
  decide(id: string, asked: readonly Asked[]): Reading[] {
    const now = this.#clock();
    const claims = asked.map(({ limit, check }) => ({ check, bucket: this.#look(limit, check.key, now) }));
    const fresh = claims.filter(({ bucket }) => !bucket.kept).length;
    const hasRoom = fresh === 0 || this.#buckets.hasRoom(fresh, now);
    const waits = claims.map(({ check, bucket }) => {
      const wait = msUntil(bucket, bucket.rate, Math.max(1, check.take + check.least), now);
      return hasRoom ? wait : Math.max(1000, wait);
    });
    const taken = waits.every((wait) => wait === 0) ? claims.map((claim) => this.#take(claim, now)) : undefined;
    if (taken !== undefined) this.#remember(id, taken);
    return claims.map(({ bucket }, i) => readingOf(bucket, waits[i]!, taken?.[i]?.amount ?? 0, now));
  }

  /** Charges what was used in place of what was taken. @param usedOf by unit; undefined for what is not given back */
  settle(id: string, usedOf: (unit: string) => number | undefined): void {
    const now = this.#clock();
    for (const { bucket, unit, amount } of this.#open.get(id) ?? []) {
      const used = usedOf(unit);
      if (used !== undefined) take(bucket, bucket.rate, used - amount, now);
    }
    this.#open.delete(id);
  }

  #look({ meter, share }: Limit, key: string, now: number): Held {
    const part = (amount: number) => Math.max(1, Math.floor(amount * share));
    const perFill = part(meter.kind === 'bucket' ? Math.min(meter.step, meter.max) : meter.max);
    const span = meter.kind === 'leases' ? this.#lifetimeMs : meter.span === 'month' ? MONTH_MS : meter.span;
    const rate: Rate = { max: part(meter.max), perFill, intervalMs: span };
    return this.#buckets.look(key, rate, now);
  }

  #take({ check, bucket }: { check: Check; bucket: Held }, now: number): Taken {
    const amount = check.take + Math.min(check.most, Math.max(check.least, bucket.level - check.take));
    take(bucket, bucket.rate, amount, now);
    this.#buckets.keep(check.key, bucket);
    return { bucket, unit: check.unit, amount };
  }

  #remember(id: string, taken: Taken[]): void {
    this.#open.set(id, taken);
    const [oldest] = this.#open.keys();
    if (this.#open.size > MAX_OPEN) this.#open.delete(oldest!);
  }
}

function readingOf(bucket: Held, waitMs: number, reserved: number, now: number): Reading {
  const { rate, level } = bucket;
  return {
    agrees: waitMs === 0,
    left: level,
    wholeMs: msUntil(bucket, rate, rate.max, now),
    moreMs: level < rate.max ? msUntil(bucket, rate, level + 1, now) : 0,
    waitMs,
    reserved,
  };
}
