import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Bench } from './support.ts';

const rate = fc
  .record({
    max: fc.integer({ min: 1, max: 12 }),
    fill: fc.integer({ min: 1, max: 12 }),
    ms: fc.integer({ min: 1, max: 40 }),
  })
  .map(({ max, fill, ms }) => ({ max, fill: Math.min(max, fill), ms }));

/** A request, or some milliseconds that pass. */
const step = fc.oneof(fc.constant('request' as const), fc.integer({ min: 1, max: 60 }));

/** Left to itself the library makes arrays of about ten elements, too few to empty a bucket and fill it again. */
const LONG = { minLength: 20, maxLength: 200, size: 'max' } as const;

/** A call, its estimate and what it used in the end, if anything. */
const call = fc.record({
  estimate: fc.integer({ min: 0, max: 15 }),
  used: fc.option(fc.integer({ min: 0, max: 30 }), { nil: undefined }),
});

/** The same bucket told in the plainest way: a clock that ticks through every millisecond. */
class TickingBucket {
  level: number;
  #ticks = 0;
  readonly #rate: { max: number; fill: number; ms: number };

  constructor(rate: { max: number; fill: number; ms: number }) {
    this.#rate = rate;
    this.level = rate.max;
  }

  tick(): void {
    this.#ticks++;
    if (this.#ticks < this.#rate.ms) return;
    this.#ticks = 0;
    this.level = Math.min(this.#rate.max, this.level + this.#rate.fill);
  }

  take(tokens: number): void {
    if (this.level === this.#rate.max) this.#ticks = 0;
    this.level = Math.min(this.#rate.max, this.level - tokens);
  }
}

/** Makes one call, from reservation to settlement, of the limiter and of its model. */
function callBoth(
  bench: Bench,
  model: TickingBucket,
  what: { estimate: number; used?: number },
  reserved: number,
): void {
  const answer = bench.ask({}, what.estimate);
  expect('allow' in answer).toBe(model.level >= Math.max(1, reserved));
  if ('reject' in answer) return;
  if (reserved > 0) model.take(reserved);
  bench.settle(what.used, { grant: answer.allow.grant });
  const owed = (what.used ?? 0) - reserved;
  if (owed !== 0) model.take(owed);
}

/** What the limiter says is left, asked with a request that takes nothing. */
function remaining(bench: Bench): number {
  const answer = bench.ask({}, 0);
  return Number(('allow' in answer ? answer.allow : answer.reject).headers?.['x-ratelimit-remaining']);
}

function limitOf(one: { max: number; fill: number; ms: number }, rest: object = {}): object {
  return { maxTokens: one.max, tokensPerFill: one.fill, fillInterval: `${one.ms}ms`, ...rest };
}

describe('the arithmetic, under any sequence of requests and waits', () => {
  it('S2-12: admits exactly what a bucket that ticks each millisecond admits', () => {
    fc.assert(
      fc.property(rate, fc.array(step, LONG), (one, steps) => {
        const bench = new Bench({ limits: [limitOf(one)] });
        const model = new TickingBucket(one);
        for (const what of steps) {
          if (what !== 'request') {
            bench.now += what;
            for (let ms = 0; ms < what; ms++) model.tick();
            continue;
          }
          const admitted = 'allow' in bench.ask();
          expect(admitted).toBe(model.level >= 1);
          if (admitted) model.take(1);
        }
      }),
    );
  });

  it('S2-12: never admits more in any stretch of time than a full bucket and its refills', () => {
    fc.assert(
      fc.property(rate, fc.array(step, LONG), (one, steps) => {
        const bench = new Bench({ limits: [limitOf(one)] });
        const at: number[] = [];
        for (const what of steps) {
          if (what !== 'request') bench.now += what;
          else if ('allow' in bench.ask()) at.push(bench.now);
        }
        for (let first = 0; first < at.length; first++) {
          for (let last = first; last < at.length; last++) {
            // The stretch may begin within an interval, so one refill more than whole intervals may fall into it.
            const refills = Math.floor((at[last]! - at[first]!) / one.ms) + 1;
            expect(last - first + 1).toBeLessThanOrEqual(one.max + refills * one.fill);
          }
        }
      }),
    );
  });

  it('S2-12: never admits too much when neither the clock nor the interval is whole', () => {
    const waits = fc.array(fc.oneof(fc.constantFrom(1, 1 / 3), fc.double({ min: 0, max: 3, noNaN: true })), LONG);
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1000 }),
        fc.integer({ min: 1, max: 5 }),
        waits,
        (perMinute, burst, taken) => {
          const bench = new Bench({ limits: [{ requestsPerMinute: perMinute, burst }] });
          const start = bench.now;
          let admitted = 0;
          for (const intervals of taken) {
            bench.now += (intervals * 60_000) / perMinute;
            if ('allow' in bench.ask()) admitted++;
            const earned = ((bench.now - start) * perMinute) / 60_000;
            expect(admitted).toBeLessThanOrEqual(burst + earned + 1e-6);
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  it('S4-02: owes exactly what was used, whatever was reserved, the debt included', () => {
    const steps = fc.array(fc.oneof(call, fc.integer({ min: 1, max: 60 })), LONG);
    fc.assert(
      fc.property(rate, fc.boolean(), steps, (one, reserve, taken) => {
        const bench = new Bench({ limits: [limitOf(one, { type: 'tokens', reserve })] });
        const model = new TickingBucket(one);
        for (const what of taken) {
          if (typeof what === 'number') {
            bench.now += what;
            for (let ms = 0; ms < what; ms++) model.tick();
          } else {
            callBoth(bench, model, what, reserve ? what.estimate : 0);
            expect(remaining(bench)).toBe(Math.max(0, model.level));
          }
        }
      }),
    );
  });

  it('admits at the moment that `retry-after` names', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 100 }),
        fc.integer({ min: 1, max: 120 }),
        fc.nat(120_000),
        (max, s, idle) => {
          const bench = new Bench({ limits: [{ maxTokens: max, tokensPerFill: 1, fillInterval: `${s}s` }] });
          bench.passing(max);
          bench.now += idle;
          const answer = bench.ask();
          if ('allow' in answer) return;
          const wait = Number(answer.reject.headers?.['retry-after']);
          bench.now += (wait - 1) * 1000;
          bench.refused();
          bench.now += 1000;
          bench.allowed();
        },
      ),
    );
  });
});
