/** Cooldowns that replicas share: two gateways, one real Redis. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { redisMarks } from '../../plugins/redis/marks.ts';
import { ask, contentOf, prompt, says } from '../gateway/chat.ts';
import { errorBody } from '../support/chunks.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { type OwnRedis, startRedis } from './redis.ts';
import { realServer } from './servers.ts';

const POLL = { timeout: 10_000, interval: 20 };
const LIMITED = { whole: errorBody('too many'), status: 429, headers: { 'retry-after': '60' } };

describe.skipIf(!realServer('redis').here)('two gateways with one Redis', () => {
  let redis: OwnRedis;
  let first: ScriptedUpstream;
  let second: ScriptedUpstream;
  const started: TestGateway[] = [];

  beforeAll(async () => {
    redis = await startRedis();
    first = (await startScriptedUpstream()).always(says('first'));
    second = (await startScriptedUpstream()).always(says('second'));
  });

  afterAll(async () => {
    for (const gateway of started) await gateway.stop();
    await first.close();
    await second.close();
    await redis[Symbol.asyncDispose]();
  });

  async function replica(model: string): Promise<TestGateway> {
    const provider = ({ url }: ScriptedUpstream) => ({ kind: 'openai-compatible', baseUrl: `${url}/v1`, key: 'k' });
    const gateway = await startGateway(
      {
        redis: redis.url,
        providers: { first: provider(first), second: provider(second) },
        models: { best: { targets: [{ provider: 'first', model }, { provider: 'second' }] } },
        routes: { '/': {} },
      },
      { openMarks: async (addresses) => redisMarks(addresses) },
    );
    started.push(gateway);
    return gateway;
  }

  async function answerOf(gateway: TestGateway): Promise<string> {
    return contentOf(await ask(gateway, prompt('x', { model: 'best' })));
  }

  test('a target that told one that it is over its limit is left alone by both, and by one that comes later', async () => {
    const [a, b] = [await replica('m1'), await replica('m1')];
    expect(await answerOf(b)).toBe('first');
    first.next(LIMITED);
    expect(await answerOf(a)).toBe('second');
    await expect.poll(() => answerOf(b), POLL).toBe('second');
    const late = await replica('m1');
    await expect.poll(() => answerOf(late), POLL).toBe('second');
  });

  test('without Redis each knows its own', async () => {
    const [a, b] = [await replica('m2'), await replica('m2')];
    await redis.kill();
    first.next(LIMITED);
    expect(await answerOf(a)).toBe('second');
    expect(await answerOf(a)).toBe('second');
    expect(await answerOf(b)).toBe('first');
    await redis.start();
  });

  test('a gateway starts and stops while Redis is away', async () => {
    await redis.kill();
    const gateway = await replica('m3');
    expect(await answerOf(gateway)).toBe('first');
    await gateway.stop();
    await redis.start();
  });
});
