/** idempotency by a real Redis: through two gateways, and with a Redis that goes away. */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { idempotency } from '../../plugins/idempotency/plugin.ts';
import type { Plugin, RequestFacts } from '../../proto/contract.ts';
import { ask, errorOf, prompt } from '../gateway/chat.ts';
import { factsOf, person } from '../plugins/rate-limit/support.ts';
import { completion } from '../support/chunks.ts';
import { configFor, startGateway } from '../support/gateway.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { startRedis } from './redis.ts';
import { realServer } from './servers.ts';

const redis = realServer('redis');
const PRINT = 'a'.repeat(64);
const POLL = { timeout: 15_000, interval: 100 };
let made = 0;

/** The plugin with keys of its own. */
function memory(config: object = {}): Plugin & AsyncDisposable {
  const prefix = `test:${process.pid}:again:${made++}:`;
  const plugin = idempotency.create({ redis: redis.url, prefix, deadline: '2s', ...config });
  return Object.assign(plugin, { [Symbol.asyncDispose]: async () => plugin.close!() });
}

function recall(plugin: Plugin, facts: Partial<RequestFacts> = {}, key = 'k', fingerprint = PRINT) {
  return plugin.recall!({ request: factsOf(facts), key, fingerprint });
}

async function remember(plugin: Plugin, grant: string | undefined, rest: object, facts: Partial<RequestFacts> = {}) {
  await plugin.remember!({
    ...{ request: factsOf(facts), key: 'k', fingerprint: PRINT, grant, outcome: 'answered' },
    ...{ status: 200, contentType: 'application/json', body: '{"ok":true}' },
    ...rest,
  });
}

async function claim(plugin: Plugin, facts: Partial<RequestFacts> = {}): Promise<string> {
  const verdict = await recall(plugin, facts);
  expect(verdict).toEqual({ allow: { grant: expect.any(String) } });
  return (verdict as { allow: { grant: string } }).allow.grant;
}

describe.skipIf(!redis.here)('S3-24: the same request through two replicas', () => {
  test('is answered once, by one provider call, and charged once', async () => {
    await using upstream = await startScriptedUpstream();
    upstream.next({ whole: JSON.stringify(completion('Once.')) });
    const shared = { redis: redis.url, prefix: `test:${process.pid}:twice:`, deadline: '2s' };
    const config = configFor(upstream.url, {
      plugins: {
        again: { at: 'local:idempotency', deadline: '5s', config: shared },
        quota: {
          at: 'local:rate-limit',
          deadline: '5s',
          config: { ...shared, limits: [{ per: 'all', max: 1, window: '1h' }] },
        },
      },
    });
    await using one = await startGateway(config);
    await using two = await startGateway(config);
    const headers = { 'idempotency-key': `order-${process.pid}` };
    const first = await ask(one, prompt('Hello'), { headers });
    const text = await first.text();
    expect([first.status, first.header('idempotent-replayed')]).toEqual([200, undefined]);
    await expect.poll(async () => (await ask(two, prompt('Hello'), { headers })).status, POLL).toBe(200);
    const again = await ask(two, prompt('Hello'), { headers });
    expect([again.status, again.header('idempotent-replayed'), await again.text()]).toEqual([200, 'true', text]);
    expect(upstream.requests).toHaveLength(1);
    const other = await ask(two, prompt('Something else'), { headers });
    expect(await errorOf(other)).toMatchObject({ status: 422, code: 'idempotency_key_reused' });
    // The one request of this hour is used up: only what was answered before is answered.
    expect((await ask(one, prompt('Hello'))).status).toBe(429);
    expect((await ask(one, prompt('Hello'), { headers })).status).toBe(200);
  });
});

describe.skipIf(!redis.here)('a key', () => {
  test('of a request that is being answered is 409, with when to try again', async () => {
    await using plugin = memory();
    const grant = await claim(plugin);
    expect(await recall(plugin)).toMatchObject({
      reject: { status: 409, code: 'idempotency_in_progress', headers: { 'retry-after': '5' } },
    });
    await remember(plugin, grant, {});
    expect(await recall(plugin)).toEqual({
      respond: { status: 200, contentType: 'application/json', body: '{"ok":true}' },
    });
  });

  test('is claimed by one of many at once', async () => {
    await using plugin = memory();
    const verdicts = await Promise.all(Array.from({ length: 50 }, () => recall(plugin)));
    expect(verdicts.filter((verdict) => 'allow' in verdict)).toHaveLength(1);
  });

  test('is free again when its request failed, or when its answer is too long', async () => {
    await using plugin = memory({ maxAnswer: 20 });
    await remember(plugin, await claim(plugin), { outcome: 'failed', body: undefined });
    await remember(plugin, await claim(plugin), { body: 'x'.repeat(21) });
    await claim(plugin);
  });

  test('belongs to who sent it, and to the route', async () => {
    await using plugin = memory();
    for (const who of ['ann', 'bob']) {
      const facts = person(who);
      await remember(plugin, await claim(plugin, facts), { body: who }, facts);
    }
    await claim(plugin, { ...person('ann'), route: '/other' });
    await claim(plugin, { identity: { subject: 'ann', issuer: 'https://elsewhere' } });
    expect(await recall(plugin, person('ann'))).toMatchObject({ respond: { body: 'ann' } });
    expect(await recall(plugin, person('ann'), 'k', 'b'.repeat(64))).toMatchObject({ reject: { status: 422 } });
  });

  test('is free again when the replica that claimed it has died, and a late answer does not replace a newer one', async () => {
    await using plugin = memory({ lease: '300ms' });
    const dead = await claim(plugin);
    await sleep(400);
    const grant = await claim(plugin);
    await remember(plugin, dead, { body: 'late' });
    await remember(plugin, dead, { outcome: 'failed' });
    await remember(plugin, grant, { body: 'mine' });
    expect(await recall(plugin)).toMatchObject({ respond: { body: 'mine' } });
  });

  test('is free again when nobody waits for the claim any more', async () => {
    await using plugin = memory();
    await plugin.recall!({ request: factsOf(), key: 'k', fingerprint: PRINT }, { signal: AbortSignal.abort() });
    await claim(plugin);
  });

  test('is forgotten after the window', async () => {
    await using plugin = memory({ window: '300ms' });
    await remember(plugin, await claim(plugin), {});
    await expect.poll(async () => 'allow' in (await recall(plugin)), POLL).toBe(true);
  });
});

describe.skipIf(!redis.here)('without Redis', () => {
  test.each([
    ['reject', { reject: { status: 503, code: 'idempotency_unavailable' } }],
    ['allow', { allow: {} }],
  ])('a request with a key is met with %s', async (onRedisLoss, expected) => {
    await using own = await startRedis();
    await using plugin = memory({ redis: own.url, onRedisLoss });
    const grant = await claim(plugin);
    await own.kill();
    await expect.poll(() => recall(plugin), POLL).toMatchObject(expected);
    await remember(plugin, grant, { body: 'kept for later' });
    await own.start();
    await expect.poll(() => recall(plugin), POLL).toMatchObject({ respond: { body: 'kept for later' } });
  });
});
