/** What the plugin counts of itself, as Prometheus text. */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

/** Seconds. */
const BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];

/** One registry for each plugin instance. Labels are names from the config, never who asks. */
export class QuotaMetrics {
  readonly registry = new Registry();
  readonly #decisions = this.#counter('decisions_total', 'Requests decided, by outcome: admitted, refused, lost.', [
    'outcome',
  ]);
  readonly #refusals = this.#counter('refusals_total', 'Refusals, by the limit that takes longest.', ['limit']);
  readonly #reserved = this.#counter('reserved_total', 'Amounts reserved before the answer (cost: USD).', ['unit']);
  readonly #settled = this.#counter('settled_total', 'Amounts charged after the answer (cost: USD).', ['unit']);
  readonly #overshoot = this.#counter('overshoot_total', 'Amounts charged beyond a limit (cost: USD).', ['unit']);
  readonly #lost = this.#counter('redis_lost_total', 'Commands without an answer, by why.', ['loss']);
  readonly #latency = new Histogram({
    name: 'wardgate_quota_redis_seconds',
    help: 'Time that Redis took, by script.',
    labelNames: ['script'],
    buckets: BUCKETS,
    registers: [this.registry],
  });

  /** @param live figures that are read when the metrics are */
  constructor(live: { up(): boolean; waiting(): number }) {
    this.#gauge('redis_up', 'Whether a primary Redis is connected.', () => (live.up() ? 1 : 0));
    this.#gauge('unsettled', 'Settlements that wait for Redis to come back.', () => live.waiting());
  }

  decided(outcome: 'admitted' | 'refused' | 'lost'): void {
    this.#decisions.inc({ outcome });
  }

  refused(limit: string): void {
    this.#refusals.inc({ limit });
  }

  reserved(unit: string, amount: number): void {
    if (amount > 0) this.#reserved.inc({ unit }, shown(unit, amount));
  }

  settled(unit: string, used: number, beyond: number): void {
    if (used > 0) this.#settled.inc({ unit }, shown(unit, used));
    if (beyond > 0) this.#overshoot.inc({ unit }, shown(unit, beyond));
  }

  lost(loss: string): void {
    this.#lost.inc({ loss });
  }

  /** Times one script; its failure counts as well. */
  async timed<T>(script: string, asked: Promise<T>): Promise<T> {
    const begun = performance.now();
    try {
      return await asked;
    } finally {
      this.#latency.observe({ script }, (performance.now() - begun) / 1000);
    }
  }

  #counter<Label extends string>(name: string, help: string, labelNames: Label[]): Counter<Label> {
    return new Counter({ name: `wardgate_quota_${name}`, help, labelNames, registers: [this.registry] });
  }

  #gauge(name: string, help: string, read: () => number): void {
    const collect = function (this: Gauge) {
      this.set(read());
    };
    new Gauge({ name: `wardgate_quota_${name}`, help, registers: [this.registry], collect });
  }
}

function shown(unit: string, amount: number): number {
  return unit === 'cost' ? amount / 1e9 : amount;
}
