/** S2-08 to S2-11: which target the strategies choose. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compileCondition } from '../../../gateway/routing/condition.ts';
import { Latency } from '../../../gateway/routing/latency.ts';
import { FAILED, modelOf, run } from './models.ts';

const fine = () => undefined;

/** How often each target was asked. */
function shares(asked: string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of asked) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}

/** A generator of numbers from 0 to 1, the same each time (mulberry32). */
function chance(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

describe('S2-11: priority', () => {
  test('asks the lowest first, then the next; of several the first in the list', () => {
    const targets = [
      { name: 'c', priority: 2 },
      { name: 'a', priority: 1 },
      { name: 'b', priority: 1 },
    ];
    expect(run(modelOf(targets).plan(), () => FAILED)).toEqual(['a', 'b', 'c']);
  });

  test('without priorities is the order of the list', () => {
    expect(run(modelOf(['a', 'b', 'c']).plan(), () => FAILED)).toEqual(['a', 'b', 'c']);
  });
});

describe('S2-08: round-robin', () => {
  test('asks each in turn', () => {
    const { plan } = modelOf(['a', 'b', 'c'], { strategy: 'round-robin' });
    const asked = Array.from({ length: 7 }, () => run(plan(), fine)[0]);
    expect(asked).toEqual(['a', 'b', 'c', 'a', 'b', 'c', 'a']);
  });

  test('is even when many requests are under way at once', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 6 }), fc.array(fc.nat(30), { maxLength: 200 }), (size, ends) => {
        const names = Array.from({ length: size }, (_, i) => `t${i}`);
        const { plan } = modelOf(names, { strategy: 'round-robin' });
        const open: (() => void)[] = [];
        const asked: string[] = [];
        for (const end of ends) {
          const one = plan();
          const { target } = one.next()!;
          asked.push(target.provider.name);
          open.push(() => one.tell(target, { ok: true, durationMs: 1 }));
          for (const done of open.splice(0, end % 3)) done();
        }
        const counts = Object.values(shares([...names, ...asked]));
        expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
      }),
    );
  });

  test('stays even among those that fit a request', () => {
    const when = compileCondition('stream');
    const { plan } = modelOf(['a', { name: 'b', when }, { name: 'c', when }], { strategy: 'round-robin' });
    const asked = Array.from({ length: 6 }, (_, i) => run(plan({ streamed: i !== 0 }), fine)[0]);
    expect(asked).toEqual(['a', 'b', 'c', 'a', 'b', 'c']);
  });
});

describe('S2-09: weighted', () => {
  test('gives each its share', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 10 }), { minLength: 2, maxLength: 5 }),
        fc.integer(),
        (weights, seed) => {
          const total = weights.reduce((sum, weight) => sum + weight, 0);
          fc.pre(total > 0);
          const { plan, clock } = modelOf(
            weights.map((weight, i) => ({ name: `t${i}`, weight })),
            { strategy: 'weighted' },
          );
          clock.random = chance(seed);
          const counts = shares(Array.from({ length: 2_000 }, () => run(plan(), fine)[0]!));
          for (const [i, weight] of weights.entries()) {
            const share = weight / total;
            // Six standard deviations: once in five hundred million.
            const margin = 6 * Math.sqrt(2_000 * share * (1 - share));
            expect(Math.abs((counts[`t${i}`] ?? 0) - 2_000 * share)).toBeLessThanOrEqual(margin);
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  test('with nothing but zeros asks the first; one of weight 0 is asked when all others fail', () => {
    const zeros = [
      { name: 'a', weight: 0 },
      { name: 'b', weight: 0 },
    ];
    expect(run(modelOf(zeros, { strategy: 'weighted' }).plan(), fine)).toEqual(['a']);
    const spare = modelOf([{ name: 'spare', weight: 0 }, 'a', 'b'], { strategy: 'weighted' });
    spare.clock.random = () => 0.999999;
    expect(run(spare.plan(), () => FAILED)).toEqual(['b', 'a', 'spare']);
  });
});

describe('S2-10: least latency', () => {
  const TIMES: Record<string, number> = { slow: 1_000, fast: 100, middle: 300 };

  function asks(one: ReturnType<typeof modelOf>, times = TIMES): string {
    const plan = one.plan();
    const { target } = plan.next()!;
    plan.began(target, times[target.provider.name]!);
    plan.tell(target, { ok: true, durationMs: 5_000 });
    return target.provider.name;
  }

  test('tries each once, then asks the one whose streams begin the soonest', () => {
    const one = modelOf(['slow', 'fast', 'middle'], { strategy: 'least-latency' });
    const asked = Array.from({ length: 10 }, () => asks(one));
    expect(asked).toEqual(['slow', 'fast', 'middle', ...Array(7).fill('fast')]);
  });

  test('tries a slow one again now and then, and so finds out when it has become fast', () => {
    const one = modelOf(['slow', 'fast'], { strategy: 'least-latency' });
    const before = shares(Array.from({ length: 1_000 }, () => asks(one)));
    expect(before.slow).toBeGreaterThanOrEqual(5);
    expect(before.slow).toBeLessThanOrEqual(50);
    const after = shares(Array.from({ length: 2_000 }, () => asks(one, { slow: 10, fast: 100 })));
    expect(after.slow).toBeGreaterThan(1_000);
  });

  test('sends no crowd to a target that is being tried: the others take turns', () => {
    const { plan } = modelOf(['a', 'b', 'c'], { strategy: 'least-latency' });
    const asked = Array.from({ length: 9 }, () => plan().next()!.target.provider.name);
    expect(shares(asked)).toEqual({ a: 3, b: 3, c: 3 });
  });

  test('takes whole answers, which are slower, for themselves', () => {
    const one = modelOf(['a', 'b'], { strategy: 'least-latency' });
    const whole = (ms: number) => {
      const plan = one.plan({ streamed: false });
      const { target } = plan.next()!;
      plan.tell(target, { ok: true, durationMs: ms });
      return target.provider.name;
    };
    expect([whole(9_000), whole(8_000), whole(8_000)]).toEqual(['a', 'b', 'b']);
    expect([asks(one, { a: 50, b: 60 }), asks(one, { a: 50, b: 60 }), asks(one, { a: 50, b: 60 })]).toEqual([
      'a',
      'b',
      'a',
    ]);
  });

  test('the percentile is there after twenty answers, and forgets those of long ago', () => {
    const latency = new Latency();
    for (let i = 0; i < 19; i += 1) latency.add(10);
    expect(latency.p95).toBeUndefined();
    latency.add(500);
    expect(latency.p95).toBe(500);
    for (let i = 1; i <= 100; i += 1) latency.add(i);
    expect(latency.p95).toBe(96);
  });
});
