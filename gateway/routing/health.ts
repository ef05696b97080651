/**
 * What is known of the targets: one record for each provider and model there, shared by all the models of the config that
 * lead to it, and kept when the config is read again.
 */
import { Circuit, type CircuitPolicy, type Permit } from './circuit.ts';
import { Latency } from './latency.ts';

/**
 * `healthy`: nothing is wrong. `degraded`: it is over its limit, or has failed of late. `failed`: it is not asked.
 * `recovering`: it has failed, and the next request tries it, or one that tries it is under way.
 */
export const STATES = ['healthy', 'degraded', 'recovering', 'failed'] as const;
export type TargetState = (typeof STATES)[number];

export class TargetHealth {
  /** The provider's name in the config. */
  readonly provider: string;
  /** The model's name there; a pattern where clients choose it. */
  readonly model: string;
  readonly circuit = new Circuit();
  /** To the first token of a stream. */
  readonly streamed = new Latency();
  /** To the end of a whole answer. */
  readonly whole = new Latency();
  private coolUntil = Number.NEGATIVE_INFINITY;
  private cooledAt = Number.NEGATIVE_INFINITY;

  constructor(provider: string, model: string) {
    this.provider = provider;
    this.model = model;
  }

  /** How it is known to other replicas. */
  get key(): string {
    return `${this.provider}/${this.model}`;
  }

  latency(isStream: boolean): Latency {
    return isStream ? this.streamed : this.whole;
  }

  /** Whether it said that it is over its limit, and the time has not passed. */
  isCooling(now: number): boolean {
    return now < this.coolUntil;
  }

  /** When it wants to be asked again, on the clock of `now`. */
  get coolsUntil(): number {
    return this.coolUntil;
  }

  /** It wants to be left alone from now on for so many milliseconds. Answers false when that was known. */
  cool(now: number, ms: number): boolean {
    if (now + ms <= this.coolUntil) return false;
    this.coolUntil = now + ms;
    this.cooledAt = now;
    return true;
  }

  /** Whether it can be asked with no reason against it. */
  isReady(now: number): boolean {
    return !this.isCooling(now) && this.circuit.admits(now);
  }

  /** An attempt went well. If it began after the target had spoken of its limit, that is over as well. */
  succeeded(permit: Permit, startedAt: number): void {
    this.circuit.succeeded(permit);
    if (startedAt > this.cooledAt) this.coolUntil = Number.NEGATIVE_INFINITY;
  }

  failed(permit: Permit, now: number, policy: CircuitPolicy): void {
    this.circuit.failed(permit, now, policy);
  }

  state(now: number): TargetState {
    const { circuit } = this;
    if (!circuit.isClosed) return circuit.admits(now) || circuit.isProbing(now) ? 'recovering' : 'failed';
    return circuit.failures > 0 || this.isCooling(now) ? 'degraded' : 'healthy';
  }
}

export class HealthTable {
  private readonly targets = new Map<string, TargetHealth>();

  /** The record of a target, made when it is new. */
  of(provider: string, model: string): TargetHealth {
    const made = new TargetHealth(provider, model);
    const known = this.targets.get(made.key);
    if (known === undefined) this.targets.set(made.key, made);
    return known ?? made;
  }

  find(key: string): TargetHealth | undefined {
    return this.targets.get(key);
  }

  /** Forgets all others, so that it grows no larger than the config. */
  keep(used: ReadonlySet<TargetHealth>): void {
    for (const [key, one] of this.targets) if (!used.has(one)) this.targets.delete(key);
  }

  all(): Iterable<TargetHealth> {
    return this.targets.values();
  }
}
