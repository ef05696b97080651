/** rate-limit by a real Redis: what is admitted, what is refused in which words, what is reserved, settled and given back. */
import { afterEach, describe, expect, test } from 'vitest';
import { Desk, factsOf, keyHolder, person } from '../plugins/rate-limit/support.ts';
import { realServer } from './servers.ts';

const redis = realServer('redis');
const open: Desk[] = [];
let made = 0;

/** A limiter with counts of its own. */
function desk(config: Record<string, unknown>, name = `test:${process.pid}:${made++}:`): Desk {
  const limiter = new Desk({ redis: redis.url, prefix: name, deadline: '2s', ...config });
  open.push(limiter);
  return limiter;
}

afterEach(async () => {
  await Promise.all(open.splice(0).map((one) => one.plugin.close()));
});

const TEN = { max: 10, window: '1m' };

describe.skipIf(!redis.here)('requests', () => {
  test.each(['sliding', 'gcra'])('S1-40: %s lets ten through in a minute; the eleventh is 429', async (algorithm) => {
    const limiter = desk({ limits: [{ ...TEN, algorithm }], body: 'rate limit exceeded' });
    expect(await limiter.passing(10)).toBe(10);
    const { status, body, contentType, headers } = await limiter.refused();
    expect({ status, body, contentType }).toEqual({
      status: 429,
      body: 'rate limit exceeded',
      contentType: 'text/plain',
    });
    expect(headers).toMatchObject({
      'x-ratelimit-limit': '10',
      'x-ratelimit-remaining': '0',
      'x-ratelimit-reset': expect.stringMatching(/^\d+$/),
      'retry-after': expect.stringMatching(/^\d+$/),
    });
  });

  test('S1-40: a person reads until when, a program in which pair of headers', async () => {
    const limiter = desk({ limits: [{ ...TEN, per: 'identity' }] });
    await limiter.passing(10, person('ann'));
    const { message, headers, code } = await limiter.refused(person('ann'));
    expect(code).toBe('rate_limit_exceeded');
    expect(message).toMatch(/^You have used your 10 requests for this minute\. Try again in (1 minute|\d+ seconds)\.$/);
    expect(headers).toMatchObject({
      'ratelimit-policy': '"requests-per-identity";q=10;w=60',
      ratelimit: expect.stringMatching(/^"requests-per-identity";r=0;t=\d+$/),
      'x-ratelimit-limit-requests': '10',
      'x-ratelimit-remaining-requests': '0',
      'x-ratelimit-reset-requests': expect.stringMatching(/^(1m0s|\d+s)$/),
    });
  });

  test('S1-43: what no limit counts passes without headers', async () => {
    const limiter = desk({ limits: [{ max: 1, window: '1m', routes: ['/openai'] }] });
    for (let i = 0; i < 5; i++) expect(await limiter.allowed({ route: '/gemini' })).toEqual({});
  });

  test('S2-12, S2-24: a bucket per tenant and model: 10 at once, each apart', async () => {
    const limiter = desk({ limits: [{ per: ['tenant', 'model'], requestsPerMinute: 60, burst: 10 }] });
    const passed = await limiter.passing(40, person('a', 'tenant-A'));
    // One comes back each second; a slow machine may see some more pass.
    expect(passed).toBeGreaterThanOrEqual(10);
    expect(passed).toBeLessThan(20);
    expect(await limiter.passing(10, person('b', 'tenant-B'))).toBe(10);
    expect(await limiter.passing(10, { ...person('a', 'tenant-A'), model: 'llama-8b' })).toBe(10);
  });

  test('two replicas count together', async () => {
    const name = `test:${process.pid}:together:`;
    const [one, two] = [desk({ limits: [TEN] }, name), desk({ limits: [TEN] }, name)];
    expect((await one.passing(8)) + (await two.passing(8))).toBe(10);
  });

  test('several limits take all or nothing, and the one that takes longest speaks', async () => {
    const limiter = desk({
      limits: [
        { name: 'mine', per: 'identity', max: 2, window: '1m' },
        { name: 'all', per: 'all', max: 3, window: '1h' },
      ],
    });
    expect(await limiter.passing(10, person('ann'))).toBe(2);
    expect((await limiter.allowed(person('bob'))).headers?.ratelimit).toMatch(/^"all";r=0;/);
    expect((await limiter.refused(person('ann'))).headers?.ratelimit).toMatch(/^"all";r=0;/);
  });

  test('background tasks are told apart by a header', async () => {
    const limiter = desk({
      limits: [
        { name: 'prompts', per: 'identity', max: 2, window: '1m', headers: { 'x-openwebui-task': '' } },
        { name: 'tasks', per: 'identity', max: 6, window: '1m', headers: { 'x-openwebui-task': '*' } },
      ],
    });
    const chat = { ...person('ann'), headers: { 'x-openwebui-task': '' } };
    const task = { ...person('ann'), headers: { 'x-openwebui-task': 'title_generation' } };
    expect(await limiter.passing(10, task)).toBe(6);
    expect(await limiter.passing(1, chat)).toBe(1);
    expect(await limiter.passing(3, person('ann'))).toBe(1);
  });

  test('each value of a header can have a count of its own', async () => {
    const limiter = desk({ limits: [{ per: ['identity', 'header:x-team'], max: 1, window: '1m' }] });
    const of = (team: string) => ({ ...person('ann'), headers: { 'x-team': team } });
    expect(await limiter.passing(3, of('red'))).toBe(1);
    expect(await limiter.passing(3, of('x'.repeat(5000)))).toBe(1);
    expect(await limiter.passing(3, of('y'.repeat(5000)))).toBe(1);
  });
});

describe.skipIf(!redis.here)('tokens', () => {
  const tokens = (max: number, rest: object = {}) =>
    desk({ limits: [{ per: 'all', type: 'tokens', max, window: '1m', ...rest }] });

  test('S1-41, S1-42: one long answer passes and is charged after; the next is 429', async () => {
    for (const [max, used] of [
      [500, 650],
      [200, 201],
    ] as const) {
      const limiter = tokens(max);
      const { grant, outputTokens } = await limiter.allowed();
      expect(outputTokens).toBeUndefined();
      await limiter.settle(grant, used);
      expect(await limiter.refused()).toMatchObject({ status: 429, headers: { 'x-ratelimit-remaining': '0' } });
    }
  });

  test('S1-41: a prompt that is larger than the limit is refused by itself', async () => {
    const limiter = tokens(500, { reserve: true });
    const { message, headers } = await limiter.refused({}, { estimatedInputTokens: 501 });
    expect(message).toBe('This request is estimated at 501 tokens, and there are at most 500 at once. Shorten it.');
    expect(headers).toMatchObject({ 'x-should-retry': 'false' });
    expect(headers).not.toHaveProperty('retry-after');
  });

  test('S4-01, S4-02, S4-03: with one token left a call is admitted and charged after; the next is 429', async () => {
    const limiter = desk({
      limits: [{ type: 'tokens', max: 1, window: '100s', algorithm: 'gcra', debt: false, body: 'rate limit exceeded' }],
    });
    const { grant } = await limiter.allowed();
    await limiter.settle(grant, 25);
    const { status, body, headers } = await limiter.refused();
    expect([status, body]).toEqual([429, 'rate limit exceeded']);
    // What the answer cost beyond the bucket is forgiven.
    expect(Number(headers?.['retry-after'])).toBeLessThanOrEqual(100);
  });

  test('a debt is carried, unless the config forgives it', async () => {
    for (const debt of [true, false]) {
      const limiter = desk({ limits: [{ type: 'tokens', max: 10, window: '10s', algorithm: 'gcra', debt }] });
      const { grant } = await limiter.allowed();
      await limiter.settle(grant, 110);
      const wait = Number((await limiter.refused()).headers?.['retry-after']);
      if (debt) expect(wait).toBeGreaterThan(90);
      else expect(wait).toBeLessThanOrEqual(1);
    }
  });

  test('what is reserved counts at once, and what was not used comes back', async () => {
    const limiter = tokens(100, { reserve: true });
    const { grant } = await limiter.allowed({}, { estimatedInputTokens: 70 });
    expect((await limiter.refused({}, { estimatedInputTokens: 60 })).message).toMatch(
      /^This request is estimated at 60 tokens, and there are 30 left\. Try again in /,
    );
    await limiter.settle(grant, 20);
    const { headers } = await limiter.allowed({}, { estimatedInputTokens: 60 });
    expect(headers?.['x-ratelimit-remaining-tokens']).toBe('20');
  });

  test('a request that was rejected later, or failed, gets all back', async () => {
    const limiter = tokens(100, { reserve: true });
    for (const outcome of ['rejected', 'failed'] as const) {
      const { grant } = await limiter.allowed({}, { estimatedInputTokens: 100 });
      await limiter.settle(grant, undefined, { outcome });
    }
    expect(await limiter.passing(1, {}, { estimatedInputTokens: 100 })).toBe(1);
  });

  test.each([1e300, Number.POSITIVE_INFINITY, Number.NaN, -5, 0.5])(
    'a provider that reports %d tokens breaks nothing',
    async (tokens) => {
      for (const algorithm of ['sliding', 'fixed', 'gcra']) {
        const limiter = tokensBy(algorithm);
        await limiter.settle((await limiter.allowed()).grant, tokens);
        const answer = await limiter.ask();
        if (tokens < 1e300) expect(answer).toHaveProperty('allow');
        if (tokens === 1e300) expect(answer).toMatchObject({ reject: { headers: { 'x-ratelimit-remaining': '0' } } });
      }
    },
  );

  test('odd names are counted apart', async () => {
    const limiter = desk({ limits: [{ per: ['identity', 'tenant'], max: 1, window: '1m' }] });
    const names = ['a|tenant=b', 'a', '\u0000', 'ü🙂', '\ud800', '{x}', 'a\r\nDEL', 'x'.repeat(100_000), '*', '%7C'];
    for (const name of names) expect(await limiter.passing(2, person(name, 'b'))).toBe(1);
  });

  const tokensBy = (algorithm: string) => tokens(100, { algorithm });

  test('a settlement counts once, however often it is told', async () => {
    const limiter = tokens(100, { reserve: true });
    const { grant } = await limiter.allowed({}, { estimatedInputTokens: 50 });
    await Promise.all([limiter.settle(grant, 30), limiter.settle(grant, 30), limiter.settle(grant, 99)]);
    await limiter.settle(grant);
    expect((await limiter.allowed({}, { estimatedInputTokens: 0 })).headers?.['x-ratelimit-remaining']).toBe('70');
  });

  test('a grant pays for as many answer tokens as are left, and no more are reserved', async () => {
    const limiter = tokens(100, { reserve: 'with-answer', answerTokens: 60 });
    expect((await limiter.allowed({}, { maxOutputTokens: 30 })).outputTokens).toBe(30);
    const { outputTokens, grant, renewMs } = await limiter.allowed({}, { maxOutputTokens: 1000 });
    expect([outputTokens, renewMs]).toEqual([50, 20_000]);
    await limiter.refused({}, { maxOutputTokens: 1 });
    await limiter.settle(grant, 20);
    expect((await limiter.allowed()).outputTokens).toBe(30);
  });

  test('a reservation that nobody renews expires; a renewed one does not', async () => {
    const limiter = desk({
      reservation: '2s',
      limits: [{ type: 'tokens', max: 100, window: '1h', reserve: true, per: 'identity' }],
    });
    const [dead, alive] = await Promise.all(
      ['dead', 'alive'].map((name) => limiter.allowed(person(name), { estimatedInputTokens: 100 })),
    );
    const ask = (name: string) => limiter.passing(1, person(name), { estimatedInputTokens: 100 });
    await expect
      .poll(
        async () => {
          await limiter.renew(alive!.grant);
          return ask('dead');
        },
        { timeout: 10_000, interval: 200 },
      )
      .toBe(1);
    expect(await ask('alive')).toBe(0);
    // What comes after the expiry is charged all the same, and once.
    await limiter.settle(dead!.grant, 40);
    await limiter.settle(dead!.grant, 40);
    await limiter.renew(dead!.grant);
    const { readings } = await peekAt(limiter, 'dead');
    expect(readings[0]?.left).toBe(100 - 40 - 100);
  });

  async function peekAt(limiter: Desk, subject: string) {
    return limiter.plugin.engine.peek([
      {
        key: `tokens-per-identity|identity=${subject}|issuer=`,
        ...{ kind: 'sliding', span: 3_600_000, step: 1, max: 100, unit: 'tokens', take: 0, least: 0, most: 0 },
      },
    ]);
  }
});

describe.skipIf(!redis.here)('money', () => {
  const price = { input: 2, output: 10 };

  test('is reserved by the price, bounds the answer, and is settled by the true cost', async () => {
    const limiter = desk({
      limits: [{ per: 'identity', type: 'cost', max: 0.01, window: 'day', reserve: 'with-answer', answerTokens: 2000 }],
    });
    // 1000 prompt tokens cost 0.002 USD; 0.008 are left for the answer, at 10 USD per million.
    const { outputTokens, grant } = await limiter.allowed(person('ann'), { estimatedInputTokens: 1000, price });
    expect(outputTokens).toBe(800);
    expect((await limiter.refused(person('ann'), { price })).message).toMatch(
      /^You have used your \$0\.01 for this day\. Try again in /,
    );
    await limiter.settle(grant, 900, { costUsd: 0.004 });
    const { headers } = await limiter.allowed(person('ann'), { price, maxOutputTokens: 0, estimatedInputTokens: 0 });
    expect(headers).toMatchObject({
      'x-ratelimit-limit': '0.01',
      'x-ratelimit-remaining': '0.006',
      'ratelimit-policy': '"cost-per-identity";q=10000;w=86400;qu="usd-micros"',
    });
  });

  test('S1-95: the budget of a key ends with 429; another key has its own', async () => {
    const limiter = desk({ keyBudgets: true });
    const [demo, cheap] = [
      keyHolder('agw_sk_demo', { usd: 0.005, per: '24h' }),
      keyHolder('agw_sk_cheap', { tokens: 50, per: '1h' }),
    ];
    const { grant } = await limiter.allowed(demo, { price });
    await limiter.settle(grant, 1000, { costUsd: 0.0051 });
    const refused = await limiter.refused(demo, { price });
    expect(refused).toMatchObject({
      status: 429,
      code: 'budget_exceeded',
      contentType: 'application/json',
      headers: { 'retry-after': expect.stringMatching(/^\d+$/) },
    });
    expect(JSON.parse(refused.body!)).toEqual({
      error: { message: 'Budget exceeded', type: 'rate_limit_error', code: 'budget_exceeded' },
    });
    const small = await limiter.allowed(cheap, { price });
    await limiter.settle(small.grant, 50);
    await limiter.refused(cheap, { price });
    expect(await limiter.allowed(keyHolder('without'), { price })).toEqual({});
  });

  test('S1-95: a budget that cannot be read lets nobody pass', async () => {
    const limiter = desk({ keyBudgets: true });
    for (const budget of [{ usd: -1 }, { per: '1h' }, { tokens: 'all' }, { tokens: 1, per: 'soon' }]) {
      await expect(limiter.ask(keyHolder('odd', budget))).rejects.toThrow();
    }
  });
});

describe.skipIf(!redis.here)('a config that changes', () => {
  const window = (span: string) => ({ limits: [{ type: 'tokens', max: 100, window: span, per: 'all', name: 'one' }] });

  test('is not undone by the answers that were begun before', async () => {
    const name = `test:${process.pid}:changed:`;
    const [old, now] = [desk(window('1m'), name), desk(window('2m'), name)];
    const before = await old.allowed();
    await now.settle((await now.allowed()).grant, 100);
    await old.renew(before.grant);
    await old.settle(before.grant, 10);
    await now.refused();
  });
});

describe.skipIf(!redis.here)('two configs at work at once', () => {
  const kinds = [
    ...[{ window: '1h' }, { window: '2h' }, { window: 'day' }, { window: 'month' }],
    ...[
      { window: '1h', algorithm: 'fixed' },
      { window: '1h', algorithm: 'gcra' },
    ],
  ];
  const pairs = kinds.flatMap((one, i) => kinds.slice(i + 1).map((other) => [one, other]));

  test.each(pairs)('admit together what each would alone: %j and %j', async (...configs) => {
    const name = `test:${process.pid}:${made++}:`;
    const desks = configs.map((one) => desk({ limits: [{ name: 'one', per: 'all', max: 10, ...one }] }, name));
    let passed = 0;
    for (let i = 0; i < 40; i++) passed += await desks[i % 2]!.passing(1);
    expect(passed).toBe(10);
  });

  test('and what is reserved stays reserved', async () => {
    const name = `test:${process.pid}:${made++}:`;
    const desks = ['1h', '2h'].map((window) =>
      desk({ limits: [{ name: 'one', per: 'all', max: 100, window, type: 'tokens', reserve: true }] }, name),
    );
    const { grant } = await desks[0]!.allowed({}, { estimatedInputTokens: 90 });
    await desks[1]!.refused({}, { estimatedInputTokens: 20 });
    await desks[0]!.settle(grant, 50);
    await desks[1]!.refused({}, { estimatedInputTokens: 60 });
    await desks[0]!.allowed({}, { estimatedInputTokens: 50 });
  });
});

describe.skipIf(!redis.here)('open answers', () => {
  test('S3-27: a key has so many at a time; one that ends makes room', async () => {
    const limiter = desk({ limits: [{ per: 'key', type: 'concurrent', max: 3 }] });
    const grants = await Promise.all([1, 2, 3].map(async () => (await limiter.allowed(keyHolder('k'))).grant));
    const { message, headers } = await limiter.refused(keyHolder('k'));
    expect(message).toBe('3 answers may be under way at a time, and as many are. Try again in 1 second.');
    expect(headers).toMatchObject({
      'retry-after': '1',
      'ratelimit-policy': '"concurrent-per-key";q=3;qu="concurrent-requests"',
    });
    expect(await limiter.passing(5, keyHolder('other'))).toBe(3);
    await limiter.settle(grants[0], 10);
    await limiter.settle(grants[0], 10);
    expect(await limiter.passing(5, keyHolder('k'))).toBe(1);
  });

  test('are given back when nobody waits for the decision any more', async () => {
    const limiter = desk({ limits: [{ per: 'all', type: 'concurrent', max: 1 }] });
    const input = { request: factsOf(), estimatedInputTokens: 1 };
    await limiter.plugin.limit(input, { signal: AbortSignal.abort() });
    expect(await limiter.passing(2)).toBe(1);
  });

  test('S3-27: those of a replica that has died make room when their lease ends', async () => {
    const name = `test:${process.pid}:leases:`;
    const config = { reservation: '2s', limits: [{ per: 'all', type: 'concurrent', max: 2 }] };
    const [dead, alive] = [desk(config, name), desk(config, name)];
    expect(await dead.passing(2)).toBe(2);
    await dead.plugin.close();
    expect(await alive.passing(1)).toBe(0);
    await expect.poll(() => alive.passing(1), { timeout: 10_000, interval: 200 }).toBe(1);
  });
});
