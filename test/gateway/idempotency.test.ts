/** A whole request that is sent again with the same `Idempotency-Key`. */
import { expect, test } from 'vitest';
import type { Plugin, RecallInput, RememberInput, Respond } from '../../proto/contract.ts';
import { completion, textStream } from '../support/chunks.ts';
import { openConnection } from '../support/client.ts';
import { configFor, startGateway, testPlugin } from '../support/gateway.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { readSse } from '../support/sse.ts';
import { ask, errorOf, prompt, says, soon } from './chat.ts';

/** A plugin that remembers in a map. */
async function rig(overrides: Partial<Plugin> = {}, mount: object = {}) {
  const upstream = await startScriptedUpstream();
  const asked: RecallInput[] = [];
  const told: RememberInput[] = [];
  const answers = new Map<string, Respond>();
  const limited: string[] = [];
  const memory = testPlugin('memory', {
    recall(input) {
      asked.push(input);
      const known = answers.get(input.key);
      return known === undefined ? { allow: { grant: `claim-${asked.length}` } } : { respond: known };
    },
    remember(input) {
      told.push(input);
      const { key, outcome, status = 0, contentType, body } = input;
      if (outcome === 'answered') answers.set(key, { status, contentType, body });
      return undefined;
    },
    limit({ request }) {
      limited.push(request.id);
      return { allow: {} };
    },
    ...overrides,
  });
  const config = configFor(upstream.url, { plugins: { memory: { at: 'local:memory', ...mount } } });
  const gateway = await startGateway(config, { factories: [memory], log: 'info' });
  return {
    upstream,
    gateway,
    asked,
    told,
    limited,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

const headers = { 'Idempotency-Key': 'order-1' };

test('is answered as it was the first time, without a provider and without a charge', async () => {
  await using on = await rig();
  const whole = JSON.stringify(completion('Grüße 🙂'));
  on.upstream.next({ whole });
  const first = await ask(on.gateway, undefined, { headers });
  expect(await first.text()).toBe(whole);
  expect(first.header('idempotent-replayed')).toBeUndefined();
  await soon(() => on.told.length).toBe(1);
  const second = await ask(on.gateway, undefined, { headers });
  expect(await second.text()).toBe(whole);
  expect(second.status).toBe(200);
  expect(second.header('idempotent-replayed')).toBe('true');
  expect(second.header('content-type')).toBe('application/json');
  expect(on.upstream.requests).toHaveLength(1);
  expect(on.limited).toHaveLength(1);
  expect(on.told).toHaveLength(1);
});

test('the plugin is told the key, what was asked, its claim and the answer', async () => {
  await using on = await rig();
  on.upstream.always(says());
  await (await ask(on.gateway, undefined, { headers })).text();
  await soon(() => on.told.length).toBe(1);
  const { key, fingerprint } = on.asked[0]!;
  expect(key).toBe('order-1');
  expect(fingerprint).toMatch(/^[0-9a-f]{64}$/);
  expect(on.told[0]).toMatchObject({ key, fingerprint, grant: 'claim-1', outcome: 'answered', status: 200 });
});

test('another body has another fingerprint, and so has another path', async () => {
  await using on = await rig();
  on.upstream.always(says());
  await (await ask(on.gateway, prompt('one'), { headers })).text();
  await (await ask(on.gateway, prompt('two'), { headers: { 'Idempotency-Key': 'order-2' } })).text();
  expect(new Set(on.asked.map(({ fingerprint }) => fingerprint)).size).toBe(2);
});

test('a request without a key, or for a stream, is not looked up', async () => {
  await using on = await rig();
  on.upstream.next(says(), { stream: { events: textStream('Hi') } });
  await (await ask(on.gateway)).text();
  await readSse(await ask(on.gateway, prompt('x', { stream: true }), { headers }));
  expect(on.asked).toEqual([]);
});

test('what failed may be sent again', async () => {
  await using on = await rig();
  on.upstream.next({ whole: '', status: 500 }, says('Now it works'));
  expect((await ask(on.gateway, undefined, { headers })).status).toBe(502);
  await soon(() => on.told.length).toBe(1);
  expect(on.told[0]).toMatchObject({ outcome: 'failed', grant: 'claim-1' });
  expect(on.told[0]).not.toHaveProperty('body');
  expect((await ask(on.gateway, undefined, { headers })).status).toBe(200);
});

test('what its client left before the answer may be sent again', async () => {
  await using on = await rig();
  on.upstream.next({ fault: 'silence' });
  const connection = await openConnection(on.gateway.url);
  await connection.request({ path: '/v1/chat/completions', body: prompt(), headers });
  await soon(() => on.upstream.requests.length).toBe(1);
  connection.socket.destroy();
  await soon(() => on.told.length).toBe(1);
  expect(on.told[0]).toMatchObject({ outcome: 'failed' });
});

test('one that is still being answered is a conflict', async () => {
  const reject = { code: 'idempotency_in_progress', message: 'Wait for the first.', headers: { 'retry-after': '1' } };
  await using on = await rig({ recall: () => ({ reject }) });
  const response = await ask(on.gateway, undefined, { headers });
  expect(response.header('retry-after')).toBe('1');
  expect(await errorOf(response)).toMatchObject({ status: 409, code: 'idempotency_in_progress' });
  expect(on.upstream.requests).toHaveLength(0);
  expect(on.told).toHaveLength(0);
});

test.each(['', ' ', 'x'.repeat(256), 'a b', 'ä'])('the key %j is refused', async (key) => {
  await using on = await rig();
  const response = await ask(on.gateway, undefined, { headers: { 'Idempotency-Key': key } });
  expect(await errorOf(response)).toMatchObject({ status: 400, param: 'idempotency-key' });
});

test('one in shadow answers nothing, and its claims are given back all the same', async () => {
  await using on = await rig({}, { shadow: true });
  on.upstream.always(says('Fresh'));
  for (let i = 1; i <= 2; i += 1) {
    const response = await ask(on.gateway, undefined, { headers });
    expect(response.header('idempotent-replayed')).toBeUndefined();
    await response.text();
    await soon(() => on.told.length).toBe(1);
  }
  expect(on.upstream.requests).toHaveLength(2);
  expect(on.told[0]).toMatchObject({ grant: 'claim-1', outcome: 'answered' });
});

test('a plugin that fails is a fault: nothing is sent twice by accident', async () => {
  await using on = await rig({ recall: () => Promise.reject(new Error('away')) });
  expect(await errorOf(await ask(on.gateway, undefined, { headers }))).toMatchObject({ status: 503 });
  expect(on.upstream.requests).toHaveLength(0);
});
