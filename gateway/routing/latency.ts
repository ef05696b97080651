/** How long one target takes to begin its answers: a moving average for the choice, and the slowest few for hedging. */

/** The weight of the newest answer in the moving average. */
const ALPHA = 0.3;
/** Each request that went elsewhere makes a target look a little faster, so that a slow one is tried again now and then. */
const FORGETTING = 0.98;
/** A target that was tried and has not answered is tried again when so many requests went elsewhere. */
const TRY_AGAIN = 50;
/** How many of the newest answers the percentile is made from, and how many it takes at least. */
const KEPT = 100;
const LEAST = 20;

export class Latency {
  private average: number | undefined;
  private wasTried = false;
  private passedOver = 0;
  private readonly newest: number[] = [];
  private count = 0;
  private slow: number | undefined;

  /**
   * What the least-latency strategy compares, lower first: the average in milliseconds, less what passing over has taken
   * off. Below 0: to be tried before all others. Infinity: being tried for the first time.
   */
  get rank(): number {
    if (this.average !== undefined) return this.average * FORGETTING ** this.passedOver;
    return this.wasTried && this.passedOver < TRY_AGAIN ? Number.POSITIVE_INFINITY : -1;
  }

  /** The time in milliseconds that one answer in twenty exceeds; undefined before there were enough of them. */
  get p95(): number | undefined {
    if (this.newest.length < LEAST) return undefined;
    this.slow ??= this.newest.toSorted((a, b) => a - b)[Math.floor(this.newest.length * 0.95)]!;
    return this.slow;
  }

  /** It was chosen: those who choose meanwhile need not try it as well. */
  chosen(): void {
    this.wasTried = true;
    this.passedOver = 0;
  }

  /** Another was chosen. */
  passed(): void {
    this.passedOver += 1;
  }

  /** An answer began after so many milliseconds. */
  add(ms: number): void {
    this.average = this.average === undefined ? ms : ALPHA * ms + (1 - ALPHA) * this.average;
    this.newest[this.count % KEPT] = ms;
    this.count += 1;
    this.slow = undefined;
  }
}
