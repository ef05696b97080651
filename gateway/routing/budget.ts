/**
 * Bounds how much a model's requests are repeated, so that providers in trouble are not asked ever more: each request
 * earns a part of a repeat, and a few a second are free. What repeats is a second try at a target that the same request
 * has asked before, and a hedge; moving on to another target spreads the load rather than multiplying it.
 */

export interface BudgetPolicy {
  /** Repeats for each request. */
  ratio: number;
  /** Repeats a second that are free. */
  perSecond: number;
}

/** What is saved up lasts no longer than so many seconds of the free repeats, and is at least so many repeats. */
const MOST_SECONDS = 10;
const LEAST_MOST = 10;

export class RetryBudget {
  private readonly policy: BudgetPolicy;
  private tokens: number;
  private countedAt: number;

  /** @param now on a clock that never goes back, in milliseconds, as for all methods */
  constructor(policy: BudgetPolicy, now: number) {
    this.policy = policy;
    this.tokens = policy.perSecond;
    this.countedAt = now;
  }

  /** The most that can be saved up. */
  get most(): number {
    return this.policy.perSecond === 0 && this.policy.ratio === 0
      ? 0
      : Math.max(LEAST_MOST, this.policy.perSecond * MOST_SECONDS);
  }

  /** A request came in. */
  earn(now: number): void {
    this.refill(now);
    this.tokens = Math.min(this.most, this.tokens + this.policy.ratio);
  }

  /** Takes one repeat. Answers false when there is none left. */
  spend(now: number): boolean {
    this.refill(now);
    if (this.tokens < 1) return false;
    this.tokens -= 1;
    return true;
  }

  private refill(now: number): void {
    const seconds = Math.max(0, now - this.countedAt) / 1_000;
    this.countedAt = now;
    this.tokens = Math.min(this.most, this.tokens + seconds * this.policy.perSecond);
  }
}
