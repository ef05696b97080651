/** rate-limit in the gateway: the seeds' limits as a client sees them, and a stream that ends where its grant does. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ask, prompt } from '../gateway/chat.ts';
import { completion, textStream, usageOf } from '../support/chunks.ts';
import { Gate } from '../support/gate.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { readSse } from '../support/sse.ts';
import { commandTo } from './redis.ts';
import { realServer } from './servers.ts';

const redis = realServer('redis');
const prefix = `test:${process.pid}:gateway:`;
const POLL = { timeout: 10_000, interval: 50 };

const limits = [
  { name: 'openai', max: 10, window: '1m', routes: ['/openai'] },
  { name: 'anthropic', type: 'tokens', max: 500, window: '1m', routes: ['/anthropic'] },
  { name: 'bedrock', type: 'tokens', max: 200, window: '1m', routes: ['/bedrock'] },
  { name: 'cut', type: 'tokens', max: 60, window: '1h', reserve: 'with-answer', routes: ['/cut'] },
  { name: 'refused', type: 'tokens', max: 60, window: '1h', reserve: 'with-answer', routes: ['/refused'] },
  { name: 'prompts', max: 2, window: '1h', routes: ['/webui'], headers: { 'x-openwebui-task': '' } },
  { name: 'open', type: 'concurrent', max: 1, routes: ['/open'] },
];

let upstream: ScriptedUpstream;
let gateways: TestGateway[] = [];

beforeAll(async () => {
  if (!redis.here) return;
  upstream = (await startScriptedUpstream()).always({ whole: completion('Hi', { usage: usageOf(1, 1) }) });
  const keys = ['agw_sk_demo', 'agw_sk_cheap'].map((key, i) => ({
    ...{ key, subject: key },
    budget: [
      { usd: 0.005, per: '24h' },
      { tokens: 50, per: '1h' },
    ][i],
  }));
  const config = {
    providers: { up: { kind: 'openai-compatible', baseUrl: `${upstream.url}/v1`, key: 'upstream-key' } },
    models: { '*': 'up' },
    prices: { 'gpt-4o-mini': { input: 100, output: 100 } },
    plugins: {
      quota: {
        at: 'local:rate-limit',
        deadline: '5s',
        headers: ['x-openwebui-task'],
        config: { redis: redis.url, prefix, deadline: '2s', limits, keyBudgets: true, body: 'rate limit exceeded' },
      },
      keys: { at: 'local:api-key-auth', config: { keys } },
    },
    routes: {
      '/keyed/openai': { plugins: ['keys', 'quota'] },
      ...Object.fromEntries(
        ['/openai', '/anthropic', '/bedrock', '/gemini', '/cut', '/refused', '/open', '/webui'].map((path) => [
          path,
          { plugins: ['quota'] },
        ]),
      ),
    },
  };
  gateways = await Promise.all([startGateway(config), startGateway(config)]);
});

afterAll(async () => {
  for (const gateway of gateways) await gateway.stop();
  await upstream?.close();
});

function call(path: string, body: object = {}, key?: string, replica = 0) {
  const headers: Record<string, string> = key === undefined ? {} : { authorization: `Bearer ${key}` };
  const { url } = gateways[replica]!;
  return ask({ ...gateways[replica]!, url: `${url}${path}` }, prompt('Hello!', { model: 'gpt-4o-mini', ...body }), {
    headers,
  });
}

/** The next answer costs so many tokens. */
function costs(tokens: number) {
  upstream.next({ whole: completion('Long.', { usage: usageOf(0, tokens) }) });
}

/** What a count has left, by Redis itself. */
async function usedOf(key: string) {
  const [used, held] = (await commandTo(redis.url, ['HMGET', prefix + key, 'used', 'held'])) as string[];
  return { used: Number(used), held: Number(held) };
}

describe.skipIf(!redis.here)('the seeds’ limits, by two replicas', () => {
  test('S1-40: the eleventh call to /openai within a minute is 429, with body and headers', async () => {
    const statuses = [];
    for (let i = 0; i < 10; i++) statuses.push((await call('/openai', {}, undefined, i % 2)).status);
    expect(new Set(statuses)).toEqual(new Set([200]));
    const refused = await call('/openai', {}, undefined, 1);
    expect([refused.status, await refused.text()]).toEqual([429, 'rate limit exceeded']);
    expect(refused.header('x-ratelimit-limit')).toBe('10');
    expect(refused.header('x-ratelimit-remaining')).toBe('0');
    expect(Number(refused.header('x-ratelimit-reset'))).toBeGreaterThan(0);
    expect(Number(refused.header('retry-after'))).toBeGreaterThan(0);
  });

  test.each([
    ['S1-41', '/anthropic', 500],
    ['S1-42', '/bedrock', 200],
  ])('%s: on %s one answer of %i tokens passes, and the next call is 429', async (_row, path, tokens) => {
    costs(tokens);
    expect((await call(path)).status).toBe(200);
    await expect
      .poll(() => usedOf(`${path.slice(1)}|route=${encodeURIComponent(path)}`), POLL)
      .toMatchObject({ used: tokens });
    expect((await call(path, {}, undefined, 1)).status).toBe(429);
  });

  test('S1-43: /gemini has no limit', async () => {
    for (let i = 0; i < 15; i++) expect((await call('/gemini')).status).toBe(200);
  });

  test('a person’s prompts are counted, and what Open WebUI asks beside them is not', async () => {
    const asked = async (task: string) =>
      (await ask(gateways[0]!, prompt(), { route: '/webui', headers: { 'x-openwebui-task': task } })).status;
    for (const task of ['title_generation', '', 'follow_up_generation', 'tags_generation', '']) {
      expect(await asked(task)).toBe(200);
    }
    expect([await asked(''), await asked('title_generation')]).toEqual([429, 200]);
  });

  test('S1-95: the budget of a key ends with 429, and another key goes on', async () => {
    // 60 tokens at 100 USD per million are 0.006 USD.
    costs(60);
    expect((await call('/keyed/openai', {}, 'agw_sk_demo')).status).toBe(200);
    await expect.poll(async () => (await call('/keyed/openai', {}, 'agw_sk_demo', 1)).status, POLL).toBe(429);
    const refused = await call('/keyed/openai', {}, 'agw_sk_demo');
    expect(await refused.json()).toEqual({
      error: { message: 'Budget exceeded', type: 'rate_limit_error', code: 'budget_exceeded' },
    });
    expect(Number(refused.header('retry-after'))).toBeGreaterThan(0);
    costs(50);
    expect((await call('/keyed/openai', {}, 'agw_sk_cheap')).status).toBe(200);
    await expect.poll(async () => (await call('/keyed/openai', {}, 'agw_sk_cheap')).status, POLL).toBe(429);
    expect((await call('/keyed/openai', {}, 'wrong')).status).toBe(401);
  });
});

describe.skipIf(!redis.here)('a stream', () => {
  test('ends with `length` where its grant does, and the account is exact', async () => {
    upstream.next({ stream: { events: textStream('word '.repeat(500)) } });
    const result = await readSse(await call('/cut', { stream: true }));
    expect(result.finish).toEqual(['length']);
    expect(result.content[0]!.length).toBeLessThan(400);
    const key = `cut|route=${encodeURIComponent('/cut')}`;
    await expect.poll(() => usedOf(key), POLL).toMatchObject({ held: 0 });
    const { used } = await usedOf(key);
    expect(used).toBeGreaterThan(0);
    expect(used).toBeLessThanOrEqual(61);
  });

  test('S3-27: that is open keeps its place, and frees it when it ends', async () => {
    const end = new Gate();
    upstream.next({ stream: { events: [...textStream('Hi').slice(0, 2), end] } });
    const first = await call('/open', { stream: true });
    expect(first.status).toBe(200);
    expect((await call('/open', {}, undefined, 1)).status).toBe(429);
    end.open();
    await readSse(first);
    await expect.poll(async () => (await call('/open')).status, POLL).toBe(200);
  });

  test('that the provider refuses costs nothing', async () => {
    const key = `refused|route=${encodeURIComponent('/refused')}`;
    upstream.next({ status: 400, whole: { error: { message: 'no', type: 'invalid_request_error' } } });
    expect((await call('/refused')).status).toBe(400);
    await expect.poll(() => usedOf(key), POLL).toEqual({ used: 0, held: 0 });
    expect((await call('/refused')).status).toBe(200);
  });
});
