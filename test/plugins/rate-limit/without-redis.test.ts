/** What holds without any Redis: local shares, and nobody who waits. */
import { describe, expect, test } from 'vitest';
import { rateLimit } from '../../../plugins/rate-limit/plugin.ts';
import { servePlugin } from '../../../plugins/serve.ts';
import { Desk, NOWHERE, person } from './support.ts';

function desk(limits: object[], rest: object = {}) {
  const time = { now: 1_000_000 };
  const limiter = new Desk({ redis: NOWHERE, onRedisLoss: 'local', limits, ...rest }, () => time.now);
  return { limiter, time, [Symbol.asyncDispose]: () => limiter.plugin.close() };
}

describe('S1-45: a local share', () => {
  test('of requests comes back with the window', async () => {
    await using on = desk([{ max: 100, window: '1m', share: 0.1 }]);
    expect(await on.limiter.passing(50)).toBe(10);
    expect((await on.limiter.refused()).headers?.['x-ratelimit-limit']).toBe('10');
    on.time.now += 60_000;
    expect(await on.limiter.passing(50)).toBe(10);
  });

  test('of tokens is reserved, settled and given back', async () => {
    await using on = desk([{ type: 'tokens', max: 400, window: 'day', reserve: true }]);
    const { grant } = await on.limiter.allowed({}, { estimatedInputTokens: 100 });
    await on.limiter.refused({}, { estimatedInputTokens: 1 });
    await on.limiter.settle(grant, 40);
    await on.limiter.settle(grant, 40);
    const { headers } = await on.limiter.allowed({}, { estimatedInputTokens: 50 });
    expect(headers?.['x-ratelimit-remaining']).toBe('10');
  });

  test('bounds the answer as Redis would', async () => {
    await using on = desk([{ type: 'tokens', max: 400, window: 'day', reserve: 'with-answer' }]);
    expect((await on.limiter.allowed({}, { estimatedInputTokens: 30 })).outputTokens).toBe(70);
  });

  test('of open answers is freed by those that end', async () => {
    await using on = desk([{ type: 'concurrent', max: 8 }]);
    const { grant } = await on.limiter.allowed();
    await on.limiter.allowed();
    await on.limiter.refused();
    await on.limiter.settle(grant);
    await on.limiter.allowed();
    await on.limiter.refused();
  });

  test('is taken from all limits or from none', async () => {
    await using on = desk([
      { name: 'mine', per: 'identity', max: 40, window: '1m' },
      { name: 'all', per: 'all', max: 48, window: '1h' },
    ]);
    expect(await on.limiter.passing(20, person('ann'))).toBe(10);
    expect(await on.limiter.passing(20, person('bob'))).toBe(2);
  });

  test('has bounded memory', async () => {
    await using on = desk([{ per: 'identity', max: 8, window: '1h' }], { maxKeys: 3 });
    for (const name of ['a', 'b', 'c']) await on.limiter.allowed(person(name));
    expect((await on.limiter.refused(person('d'))).headers?.['retry-after']).toBe('1');
    await on.limiter.allowed(person('a'));
  });
});

test('one limit that needs Redis is enough to refuse, and takes from no other', async () => {
  await using on = desk([
    { name: 'a', per: 'all', max: 4, window: '1h' },
    { name: 'b', per: 'all', max: 4, window: '1h', models: ['dear'], onRedisLoss: 'reject' },
  ]);
  expect((await on.limiter.refused({ model: 'dear' })).code).toBe('quota_unavailable');
  expect(await on.limiter.passing(3)).toBe(1);
});

test('a grant that is none is a fault, and a missing one is nothing', async () => {
  await using on = desk([{ max: 4, window: '1h' }]);
  await expect(on.limiter.settle('nonsense', 5)).rejects.toThrow();
  await on.limiter.settle(undefined, 5);
});

test('as a service it shows its figures', async () => {
  const config = { redis: NOWHERE, onRedisLoss: 'local', limits: [{ name: 'figures', max: 4, window: '1h' }] };
  const service = await servePlugin(rateLimit, { http: '127.0.0.1:0', config });
  try {
    const input = { request: { id: 'r', method: 'POST', path: '/', route: '/' }, estimatedInputTokens: 1 };
    for (let i = 0; i < 2; i++) {
      await fetch(`${service.httpUrl}/limit`, { method: 'POST', body: JSON.stringify(input) });
    }
    const response = await fetch(`${service.httpUrl}/metrics`);
    expect(response.headers.get('content-type')).toContain('version=0.0.4');
    const text = await response.text();
    expect(text).toContain('wardgate_quota_refusals_total{limit="figures"} 1');
    expect(text).toContain('wardgate_quota_redis_up 0');
    expect(text).toMatch(/wardgate_quota_redis_lost_total\{loss="down"\} \d/);
  } finally {
    await service.close();
  }
});
