/**
 * The circuit breaker of one target. Closed: everything passes. Open: nothing does, for the cooldown. Then half-open: one
 * probe passes, and what becomes of it closes the circuit or opens it again.
 *
 * It keeps no timer and no clock: whoever asks says what time it is, in milliseconds of a clock that never goes back.
 */

/** When a circuit opens, and for how long. */
export interface CircuitPolicy {
  /** Failures in a row that open it. */
  failures: number;
  /** How long it stays open, in milliseconds. */
  cooldownMs: number;
}

/** Stands for one attempt; what becomes of an attempt from before the circuit opened no longer counts. */
export type Permit = number;

/** A probe that nobody tells the end of makes room for another after this time, in milliseconds. */
const PROBE_MS = 60_000;

export class Circuit {
  private inARow = 0;
  /** When a probe may pass; undefined while closed. */
  private until: number | undefined;
  /** When the probe under way counts as lost; undefined: none is under way. */
  private probeUntil: number | undefined;
  /** The permit of all attempts since the circuit changed last. */
  private permit: Permit = 0;

  get isClosed(): boolean {
    return this.until === undefined;
  }

  /** Failures in a row so far. */
  get failures(): number {
    return this.inARow;
  }

  /** Whether a probe is under way. */
  isProbing(now: number): boolean {
    return this.probeUntil !== undefined && now < this.probeUntil;
  }

  /** Whether an attempt may be made now. */
  admits(now: number): boolean {
    return now >= this.opensAt(now);
  }

  /** The time from which a probe may pass; `now` or earlier when an attempt may be made. */
  opensAt(now: number): number {
    if (this.until === undefined) return now;
    return Math.max(this.until, this.probeUntil ?? 0);
  }

  /** An attempt is made, which `admits` has allowed. While half-open it is the probe. */
  enter(now: number): Permit {
    if (this.until !== undefined) {
      this.probeUntil = now + PROBE_MS;
      this.permit += 1;
    }
    return this.permit;
  }

  /**
   * An attempt has begun to answer. That closes the circuit on trial: the next failure opens it again, until an answer has
   * been whole.
   */
  began(permit: Permit, policy: CircuitPolicy): void {
    if (permit !== this.permit || this.until === undefined) return;
    this.close();
    this.inARow = policy.failures - 1;
  }

  /** An attempt went well. */
  succeeded(permit: Permit): void {
    if (permit === this.permit) this.close();
  }

  /** The target failed. */
  failed(permit: Permit, now: number, policy: CircuitPolicy): void {
    if (permit !== this.permit) return;
    this.inARow += 1;
    if (this.until === undefined && this.inARow < policy.failures) return;
    this.until = now + policy.cooldownMs;
    this.probeUntil = undefined;
    this.permit += 1;
  }

  /** An attempt ended without saying anything of the target, such as when its client has gone. */
  released(permit: Permit): void {
    if (permit === this.permit) this.probeUntil = undefined;
  }

  private close(): void {
    this.inARow = 0;
    this.until = undefined;
    this.probeUntil = undefined;
  }
}
