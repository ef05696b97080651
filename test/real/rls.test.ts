/**
 * rls:// before a real envoyproxy/ratelimit with the demo's limits. It counts by the minutes of the clock, so what needs
 * one minute is tried again when another has begun.
 */

import { createClient } from '@redis/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { forwarder, freePort } from '../connect/foreign.ts';
import { ask, errorOf, prompt, soon } from '../gateway/chat.ts';
import { type Example, startExample } from '../seeds/example.ts';
import type { RawResponse } from '../support/client.ts';
import { realServer } from './servers.ts';

const ratelimit = realServer('ratelimit');
const redis = realServer('redis');
const [HOST = '', PORT = ''] = ratelimit.url.split(':');

describe.skipIf(!ratelimit.here || !redis.here)('rls:// before envoyproxy/ratelimit', () => {
  // It counts in database 0, whichever the tests of other things use.
  const client = createClient({ url: new URL('/0', redis.here ? redis.url : 'redis://none').href });
  beforeAll(() => client.connect());
  afterAll(() => client.close());

  function demo(environment: Record<string, string> = {}): Promise<Example> {
    const address = { RATELIMIT_HOST: HOST, RATELIMIT_PORT: PORT };
    return startExample('examples/ratelimit.yaml', { environment: { ...address, ...environment } });
  }

  /** With nothing counted yet, and once more if the minute ended meanwhile. */
  async function inOneMinute<T>(run: () => Promise<T>): Promise<T> {
    for (;;) {
      const minute = minuteNow();
      const known = await client.keys('agentgateway_route_*');
      if (known.length > 0) await client.del(known);
      const outcome = await run();
      if (minuteNow() === minute) return outcome;
    }
  }

  /** What ratelimit has counted of a route since it was cleared, whichever minute it was. */
  async function counted(route: string): Promise<number> {
    const keys = await client.keys(`agentgateway_route_${route}_*`);
    const counts = keys.length === 0 ? [] : await client.mGet(keys);
    return counts.reduce((sum, count) => sum + Number(count), 0);
  }

  const minuteNow = () => Math.floor(Date.now() / 60_000);
  const words = (count: number) => prompt(Array<string>(count).fill('word').join(' '));
  const rateHeaders = (response: RawResponse) =>
    ['limit', 'remaining', 'reset'].map((name) => Number(response.header(`x-ratelimit-${name}`)));

  test('S1-40, S1-44: ten requests to /openai in a minute, and the 11th is 429', async () => {
    await using example = await demo();
    const answers = await inOneMinute(async () => {
      const answers: RawResponse[] = [];
      for (let i = 0; i < 11; i++) answers.push(await ask(example.gateway, prompt(), { route: '/openai' }));
      return answers;
    });
    expect(answers.map(({ status }) => status)).toEqual([...Array<number>(10).fill(200), 429]);
    expect(rateHeaders(answers[3]!)).toEqual([10, 6, expect.any(Number)]);
    const refused = answers[10]!;
    expect([refused.header('content-type'), await refused.text()]).toEqual(['text/plain', 'rate limit exceeded']);
    const [limit, remaining, reset] = rateHeaders(refused);
    expect([limit, remaining]).toEqual([10, 0]);
    expect(reset).toBeGreaterThan(0);
    expect(reset).toBeLessThanOrEqual(60);
    expect(refused.header('retry-after')).toBe(String(reset));
    expect(refused.header('ratelimit-policy')).toBe('"quota";q=10;w=60');
  });

  test('S1-40: eleven at once: ten are let in', async () => {
    await using example = await demo();
    const statuses = await inOneMinute(async () => {
      const asked = Array.from({ length: 11 }, () => ask(example.gateway, prompt(), { route: '/openai' }));
      return (await Promise.all(asked)).map(({ status }) => status).sort();
    });
    expect(statuses).toEqual([...Array<number>(10).fill(200), 429]);
  });

  test('S1-41: a long answer from /anthropic takes the 500 tokens, and the next call is 429', async () => {
    await using example = await demo();
    const statuses = await inOneMinute(async () => {
      const first = await ask(example.gateway, words(300), { route: '/anthropic' });
      const { usage } = await first.json<{ usage: { total_tokens: number } }>();
      expect(usage.total_tokens).toBeGreaterThan(500);
      // The prompt's estimate was counted before, the rest is on its way.
      await soon(() => counted('anthropic')).toBe(usage.total_tokens);
      return [first.status, (await ask(example.gateway, prompt(), { route: '/anthropic' })).status];
    });
    expect(statuses).toEqual([200, 429]);
  });

  test('S1-41: one huge prompt is refused by itself', async () => {
    await using example = await startExample(
      'examples/ratelimit.yaml',
      { environment: { RATELIMIT_HOST: HOST, RATELIMIT_PORT: PORT } },
      (text) => text.replace(/^ +rejection: .*\n/m, ''),
    );
    const refused = await inOneMinute(() => ask(example.gateway, words(1_000), { route: '/anthropic' }));
    expect(await errorOf(refused)).toMatchObject({
      status: 429,
      message: expect.stringMatching(
        /^This request is estimated at 12\d\d tokens, and the limit is 500 tokens per minute/,
      ),
    });
    expect(refused.header('x-should-retry')).toBe('false');
  });

  test('S1-42: /bedrock has 200 tokens, charged after the answer: the call that crosses them is served', async () => {
    await using example = await demo();
    const statuses = await inOneMinute(async () => {
      const first = await ask(example.gateway, words(200), { route: '/bedrock' });
      await first.text();
      await soon(() => counted('bedrock')).toBeGreaterThan(200);
      return [first.status, (await ask(example.gateway, prompt(), { route: '/bedrock' })).status];
    });
    expect(statuses).toEqual([200, 429]);
  });

  test('S1-42: a look counts nothing, and a stream is charged like a whole answer', async () => {
    await using example = await demo();
    await inOneMinute(async () => {
      const stream = await ask(example.gateway, { ...prompt('Hi'), stream: true }, { route: '/bedrock' });
      await stream.text();
      await soon(() => counted('bedrock')).toBeGreaterThan(0);
      const used = await counted('bedrock');
      const second = await ask(example.gateway, prompt('Hi'), { route: '/bedrock' });
      expect(rateHeaders(second).slice(0, 2)).toEqual([200, 200 - used]);
      await soon(() => counted('bedrock')).toBeGreaterThan(used);
    });
  });

  test('S1-43: /gemini sends no descriptor, so nothing is counted and nothing refused', async () => {
    await using example = await demo();
    const answers = await inOneMinute(async () => {
      const asked = Array.from({ length: 15 }, () => ask(example.gateway, words(300), { route: '/gemini' }));
      return Promise.all(asked);
    });
    expect(answers.every(({ status }) => status === 200)).toBe(true);
    expect(answers[0]!.header('x-ratelimit-limit')).toBeUndefined();
    expect(await counted('gemini')).toBe(0);
  });

  test.each(['reject', 'allow'])(
    'S1-45: the limiter is taken away and comes back, with onFault: %s',
    async (onFault) => {
      const port = await freePort();
      await using example = await demo({
        RATELIMIT_HOST: '127.0.0.1',
        RATELIMIT_PORT: String(port),
        RATELIMIT_FAULT: onFault,
      });
      const status = async () => (await ask(example.gateway, words(1_000), { route: '/anthropic' })).status;
      expect(await status()).toBe(onFault === 'allow' ? 200 : 503);
      {
        await using _there = await forwarder(ratelimit.url, port);
        await soon(status).toBe(429);
      }
      await soon(status).toBe(onFault === 'allow' ? 200 : 503);
    },
  );

  test('a domain that it does not know, or a descriptor deeper than its tree, has no limit', async () => {
    const edit = (from: string, to: string) =>
      startExample('examples/ratelimit.yaml', { environment: { RATELIMIT_HOST: HOST, RATELIMIT_PORT: PORT } }, (text) =>
        text.replace(from, to),
      );
    for (const [from, to] of [
      ['domain: agentgateway', 'domain: another'],
      ['{ route: "{context.requests}" }', '{ route: "{context.requests}", deeper: x }'],
    ] as const) {
      await using example = await edit(from, to);
      const asked = Array.from({ length: 12 }, () => ask(example.gateway, prompt(), { route: '/openai' }));
      expect((await Promise.all(asked)).map(({ status }) => status)).toEqual(Array(12).fill(200));
    }
  });
});
