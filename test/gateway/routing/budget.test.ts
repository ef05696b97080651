/** The retry budget: repeats stay under a part of the requests and a few a second, whatever comes. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { RetryBudget } from '../../../gateway/routing/budget.ts';

const step = fc.oneof(
  fc.record({ wait: fc.integer({ min: 0, max: 5_000 }) }),
  fc.constant({ request: true as const }),
  fc.constant({ repeats: 50 }),
);

describe('the retry budget', () => {
  test('is never exceeded', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 2, noNaN: true }),
        fc.double({ min: 0, max: 20, noNaN: true }),
        fc.array(step, { maxLength: 100 }),
        (ratio, perSecond, steps) => {
          const budget = new RetryBudget({ ratio, perSecond }, 0);
          let now = 0;
          let requests = 0;
          let repeats = 0;
          for (const one of steps) {
            if ('wait' in one) now += one.wait;
            else if ('request' in one) {
              requests += 1;
              budget.earn(now);
            } else for (let i = 0; i < one.repeats; i += 1) if (budget.spend(now)) repeats += 1;
            expect(repeats).toBeLessThanOrEqual(ratio * requests + (now / 1_000) * perSecond + perSecond + 1e-6);
          }
        },
      ),
    );
  });

  test('lets one repeat in five requests pass, and what is free comes back with time', () => {
    const budget = new RetryBudget({ ratio: 0.2, perSecond: 1 }, 0);
    expect([budget.spend(0), budget.spend(0)]).toEqual([true, false]);
    for (let i = 0; i < 4; i += 1) budget.earn(0);
    expect(budget.spend(0)).toBe(false);
    budget.earn(0);
    expect([budget.spend(0), budget.spend(0)]).toEqual([true, false]);
    expect(budget.spend(1_000)).toBe(true);
  });

  test('saves up ten seconds at most', () => {
    const budget = new RetryBudget({ ratio: 0, perSecond: 2 }, 0);
    const spent = Array.from({ length: 100 }, () => budget.spend(3_600_000)).filter(Boolean);
    expect(spent).toHaveLength(20);
  });

  test('of nothing allows nothing', () => {
    const budget = new RetryBudget({ ratio: 0, perSecond: 0 }, 0);
    budget.earn(0);
    expect(budget.spend(1e9)).toBe(false);
  });
});
