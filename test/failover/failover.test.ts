/** S3-04 S3-14 S4-20 The failover table, as `npm run test:failover` prints it. */
import { expect, test } from 'vitest';
import { type Scenario, scenarios, startRig } from './scenarios.ts';

const AT_ONCE = 12;
const groups = Map.groupBy(scenarios(), ({ dialect, first }) => `${dialect} at ${first}`);

test.each([...groups.keys()])(
  '%s: every fault ends in the answer or in a typed error',
  { timeout: 60_000 },
  async (name) => {
    const all = groups.get(name)!;
    await using rig = await startRig(all);
    const waiting: Scenario[] = [...all];
    const wrong: object[] = [];
    await Promise.all(
      Array.from({ length: AT_ONCE }, async () => {
        for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
          const { isRight, ...result } = await rig.run(next);
          if (!isRight) wrong.push(result);
        }
      }),
    );
    expect(wrong).toEqual([]);
  },
);
