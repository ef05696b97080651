/** A Redis that dies, hangs, is full, forgets its scripts, or hands over: what each limit does then, and how it recovers. */
import { describe, expect, test } from 'vitest';
import { RedisLink } from '../../plugins/redis/link.ts';
import { Desk, keyHolder, person } from '../plugins/rate-limit/support.ts';
import { type OwnRedis, startRedis } from './redis.ts';
import { realServer } from './servers.ts';

const { here } = realServer('redis');
const POLL = { timeout: 15_000, interval: 100 };

/** One limit for each of the three ways to do without Redis. */
const LIMITS = ['reject', 'allow', 'local'].map((onRedisLoss) => ({
  ...{ name: onRedisLoss, per: 'all', max: 100, window: '1h', share: 0.05 },
  ...{ onRedisLoss, routes: [`/${onRedisLoss}`] },
}));

function desk(redis: string | string[], config: object = {}): Desk {
  return new Desk({ redis, limits: LIMITS, deadline: '500ms', ...config });
}

async function expectWithoutRedis(limiter: Desk): Promise<void> {
  expect(await limiter.refused({ route: '/reject' })).toEqual({
    code: 'quota_unavailable',
    status: 503,
    message: 'Your quota cannot be looked up at the moment. Try again in some seconds.',
    headers: { 'retry-after': '2' },
  });
  expect(await limiter.passing(200, { route: '/allow' })).toBe(200);
  // Five of a hundred are this process's share.
  expect(await limiter.passing(200, { route: '/local' })).toBe(5);
  const { status, headers } = await limiter.refused({ route: '/local' });
  expect([status, headers?.['x-ratelimit-limit']]).toEqual([429, '5']);
}

/** Until requests are counted in Redis again. */
async function expectRecovery(limiter: Desk): Promise<void> {
  await expect.poll(() => limiter.passing(1, { route: '/reject' }), POLL).toBe(1);
}

describe.skipIf(!here)('S1-45: each limit does as it was told', () => {
  test('and what waits for it is settled also when the config has changed meanwhile', async () => {
    await using redis = await startRedis('--appendfsync', 'always');
    const config = { limits: [{ name: 'one', type: 'tokens', max: 100, window: '1h', per: 'all' }] };
    const before = await desk(redis.url, config).ready();
    const { grant } = await before.allowed();
    await redis.kill();
    await before.settle(grant, 100);
    await before.plugin.close();
    await redis.start();
    await using after = await desk(redis.url, config).ready();
    await expect.poll(() => after.passing(1), POLL).toBe(0);
  });

  test('while Redis is dead, and counts on where it stood when Redis is back', async () => {
    await using redis = await startRedis();
    await using limiter = await desk(redis.url).ready();
    expect(await limiter.passing(60, { route: '/reject' })).toBe(60);
    await redis.kill();
    await expectWithoutRedis(limiter);
    await redis.start();
    await expectRecovery(limiter);
    const passed = await limiter.passing(100, { route: '/reject' });
    expect(passed).toBeGreaterThan(0);
    expect(passed).toBeLessThan(40);
  });

  test('while Redis hangs: the answers come before it goes on', async () => {
    await using redis = await startRedis();
    await using limiter = await desk(redis.url).ready();
    expect(await limiter.passing(3, { route: '/reject' })).toBe(3);
    redis.pause();
    await limiter.refused({ route: '/reject' });
    expect(await limiter.passing(3, { route: '/allow' })).toBe(3);
    await expectWithoutRedis(limiter);
    redis.resume();
    await expectRecovery(limiter);
  });

  test('while Redis sleeps (DEBUG SLEEP), what was reserved unseen goes back', async () => {
    await using redis = await startRedis('--enable-debug-command', 'yes');
    await using limiter = await desk(redis.url, { limits: [{ per: 'all', type: 'concurrent', max: 3 }] }).ready();
    const together = async () => {
      const answers = await Promise.all([1, 2, 3].map(() => limiter.ask()));
      for (const answer of answers) if ('allow' in answer) await limiter.settle(answer.allow.grant);
      return answers.filter((answer) => 'allow' in answer).length;
    };
    expect(await together()).toBe(3);
    const sleeping = redis.command('DEBUG', 'SLEEP', '2');
    await expect.poll(together, { timeout: 1900, interval: 20 }).toBe(0);
    await sleeping;
    await expect.poll(together, POLL).toBe(3);
  });

  test('while Redis is full', async () => {
    await using redis = await startRedis();
    await using limiter = await desk(redis.url).ready();
    expect(await limiter.passing(60, { route: '/reject' })).toBe(60);
    await redis.command('CONFIG', 'SET', 'maxmemory', '1mb');
    await expectWithoutRedis(limiter);
    await redis.command('CONFIG', 'SET', 'maxmemory', '0');
    expect(await limiter.passing(60, { route: '/reject' })).toBe(40);
  });

  test('while there never was one', async () => {
    await using limiter = desk('redis://127.0.0.1:1');
    await expectWithoutRedis(limiter);
  });

  test('beyond the requests that may wait for it', async () => {
    await using redis = await startRedis();
    await using limiter = await desk(redis.url, { maxInFlight: 10, deadline: '5s' }).ready();
    await limiter.allowed({ route: '/reject' });
    expect(await limiter.passing(50, { route: '/reject' })).toBe(10);
    expect(await limiter.passing(10, { route: '/reject' })).toBe(10);
  });
});

describe.skipIf(!here)('nobody notices', () => {
  test('when Redis has forgotten the scripts', async () => {
    await using redis = await startRedis();
    await using limiter = await desk(redis.url, {
      limits: [{ type: 'tokens', max: 100, window: '1h', reserve: true }],
    }).ready();
    const { grant } = await limiter.allowed({}, { estimatedInputTokens: 50 });
    await redis.command('SCRIPT', 'FLUSH');
    await limiter.renew(grant);
    await redis.command('SCRIPT', 'FLUSH');
    await limiter.settle(grant, 20);
    await redis.command('SCRIPT', 'FLUSH');
    expect((await limiter.allowed({}, { estimatedInputTokens: 30 })).headers?.['x-ratelimit-remaining']).toBe('50');
  });
});

describe.skipIf(!here)('a failover', () => {
  test('to a replica that becomes the primary keeps what was counted', async () => {
    await using first = await startRedis();
    await using second = await replicaOf(first);
    await using limiter = await desk([first.url, second.url]).ready();
    expect(await limiter.passing(60, { route: '/reject' })).toBe(60);
    await expect.poll(async () => (await second.command('KEYS', '*')) as string[], POLL).toHaveLength(2);
    await first.kill();
    await expectWithoutRedis(limiter);
    await second.command('REPLICAOF', 'NO', 'ONE');
    await expectRecovery(limiter);
    expect(await limiter.passing(100, { route: '/reject' })).toBeLessThan(40);
  });

  test('is followed also when the old primary lives on as a replica', async () => {
    await using first = await startRedis();
    await using second = await replicaOf(first);
    await using limiter = await desk([first.url, second.url]).ready();
    expect(await limiter.passing(10, { route: '/reject' })).toBe(10);
    await second.command('REPLICAOF', 'NO', 'ONE');
    await first.command('REPLICAOF', '127.0.0.1', String(second.port));
    await limiter.refused({ route: '/reject' });
    await expectRecovery(limiter);
  });

  test('is not taken for one while there is only a replica', async () => {
    await using primary = await startRedis();
    await using replica = await replicaOf(primary);
    const link = new RedisLink({ urls: [replica.url], deadlineMs: 1000, maxInFlight: 10 });
    await link.tried;
    expect(link.up).toBe(false);
    await expect(link.send('PING')).rejects.toMatchObject({ loss: 'down', mayBeDone: false });
    link.close();
  });

  async function replicaOf(primary: OwnRedis): Promise<OwnRedis> {
    const redis = await startRedis('--replicaof', '127.0.0.1', String(primary.port));
    await expect.poll(async () => String(await redis.command('INFO', 'replication')), POLL).toContain('link_status:up');
    return redis;
  }
});

describe.skipIf(!here)('what is settled', () => {
  const limits = [{ per: 'identity', type: 'tokens', max: 100, window: 'month', reserve: true }];

  test('while Redis is away is charged when it is back, once', async () => {
    await using redis = await startRedis();
    await using limiter = await desk(redis.url, { limits }).ready();
    const { grant } = await limiter.allowed(person('ann'), { estimatedInputTokens: 50 });
    await redis.kill();
    await limiter.settle(grant, 30);
    await limiter.settle(grant, 30);
    await redis.start();
    await expect
      .poll(async () => {
        const answer = await limiter.ask(person('ann'), { estimatedInputTokens: 0 });
        return 'allow' in answer && answer.allow.headers?.['x-ratelimit-remaining'];
      }, POLL)
      .toBe('70');
  });

  test('of what was let through meanwhile is charged as well', async () => {
    await using redis = await startRedis();
    await using limiter = await desk(redis.url, {
      limits: limits.map((one) => ({ ...one, onRedisLoss: 'allow' })),
    }).ready();
    await redis.kill();
    const { grant } = await limiter.allowed(person('ann'));
    await redis.start();
    await limiter.settle(grant, 100);
    await expect.poll(() => limiter.passing(1, person('ann')), POLL).toBe(0);
  });

  test('S1-95: a budget survives the restart of everything', async () => {
    await using redis = await startRedis();
    const holder = keyHolder('agw_sk_demo', { usd: 0.005 });
    {
      await using limiter = await desk(redis.url, { limits: [], keyBudgets: true }).ready();
      await limiter.settle((await limiter.allowed(holder)).grant, 10, { costUsd: 0.006 });
      await limiter.refused(holder);
    }
    await redis.kill();
    await redis.start();
    await using limiter = await desk(redis.url, { limits: [], keyBudgets: true }).ready();
    expect((await limiter.refused(holder)).code).toBe('budget_exceeded');
    await limiter.allowed(keyHolder('agw_sk_cheap', { tokens: 50 }));
  });
});
