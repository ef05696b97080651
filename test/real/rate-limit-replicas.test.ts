/** Several gateways on one Redis, with clocks that disagree: what they admit together, by Redis's own clock. */
import { describe, expect, test } from 'vitest';
import type { Check } from '../../plugins/rate-limit/engine.ts';
import { Desk } from '../plugins/rate-limit/support.ts';
import { type Admission, mostWithin, startReplica, type Task } from './rate-limit-fleet.ts';
import { realServer } from './servers.ts';

const redis = realServer('redis');
const SPAN = 500;
const SKEWS = [0, 3_600_000, -86_400_000, 250];

/** Four processes with eight clients each. */
async function fleet(check: Check, rest: Partial<Task> = {}): Promise<Admission[]> {
  const prefix = `test:${process.pid}:fleet:${check.key}:`;
  const replicas = SKEWS.map((skewMs) =>
    startReplica({
      ...{ url: redis.url, prefix, lifetimeMs: 60_000, check, clients: 8, requests: 150, skewMs, beyond: 0 },
      ...rest,
    }),
  );
  return (await Promise.all(replicas.map(({ done }) => done))).flat();
}

const request = { span: SPAN, max: 20, unit: 'requests', take: 1, least: 0, most: 0 };

describe.skipIf(!redis.here)('N replicas × M clients', () => {
  test('S1-40: a sliding window admits no more than the limit over any window, and all of it', async () => {
    const admissions = await fleet({ key: 'log', kind: 'sliding', step: 1, ...request });
    expect(mostWithin(admissions, SPAN)).toBe(20);
  });

  test('a sliding window of many is as strict by slices', async () => {
    const admissions = await fleet({ key: 'slices', kind: 'sliding', step: 10, ...request, max: 300 });
    const most = mostWithin(admissions, SPAN);
    expect(most).toBeLessThanOrEqual(300);
    expect(most).toBeGreaterThan(200);
  });

  test('GCRA admits no more than its burst and what has come back', async () => {
    const admissions = await fleet({ key: 'gcra', kind: 'bucket', step: 20, ...request, max: 5 });
    for (const span of [1, 50, 200, SPAN, 2 * SPAN]) {
      expect(mostWithin(admissions, span)).toBeLessThanOrEqual(5 + Math.ceil((20 * span) / SPAN));
    }
  });

  test('a fixed window admits no more than the limit in each, and up to twice that over a border', async () => {
    const admissions = await fleet({ key: 'fixed', kind: 'fixed', step: 0, ...request });
    const windows = Map.groupBy(admissions, ({ at }) => Math.floor(at / SPAN));
    for (const inside of windows.values()) expect(inside.length).toBeLessThanOrEqual(20);
    expect(mostWithin(admissions, SPAN)).toBeLessThanOrEqual(40);
  });

  test('tokens go beyond the limit by no more than answers go beyond what was reserved for them', async () => {
    const tokens = { span: SPAN, step: 10, max: 1000, unit: 'tokens', take: 0, least: 1, most: 90 };
    const exact = await fleet({ key: 'tokens', kind: 'sliding', ...tokens });
    expect(mostWithin(exact, SPAN)).toBeLessThanOrEqual(1000);
    const over = await fleet({ key: 'over', kind: 'sliding', ...tokens }, { beyond: 10 });
    const beyond = mostWithin(
      over.map((one) => ({ ...one, amount: one.beyond })),
      SPAN,
    );
    expect(mostWithin(over, SPAN)).toBeLessThanOrEqual(1000 + beyond);
  });
});

test.skipIf(!redis.here)(
  'S3-27: kill -9 of a replica loses what it has reserved until that expires, and no more',
  async () => {
    const prefix = `test:${process.pid}:killed:`;
    const limits = [{ per: 'all', type: 'concurrent', max: 4 }];
    await using desk = new Desk({ redis: redis.url, prefix, deadline: '2s', reservation: '2s', limits });
    const check: Check = {
      ...{ key: 'concurrent-per-all', kind: 'leases', span: 0, step: 0, max: 4, unit: 'concurrent' },
      ...{ take: 0, least: 1, most: 1 },
    };
    const held = { url: redis.url, prefix, lifetimeMs: 2000, check, clients: 3, requests: 1, skewMs: 0, beyond: 0 };
    const replica = startReplica({ ...held, hold: true });
    await replica.done;
    replica.process.kill('SIGKILL');
    const { grant } = await desk.allowed();
    expect(await desk.passing(1)).toBe(0);
    const renewing = setInterval(() => void desk.renew(grant), 300);
    await expect.poll(() => desk.passing(4), { timeout: 10_000, interval: 200 }).toBe(3);
    clearInterval(renewing);
  },
);
