/** Failover as the demos show it: on a limit (001.8) and on a wrong key (004.3), in front of simulated providers. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { startSimulator } from '../../simulator/server.ts';
import { ask, errorOf, prompt } from '../gateway/chat.ts';
import { send } from '../support/client.ts';
import { startGateway } from '../support/gateway.ts';
import type { ChatCompletion } from './example.ts';

/** The example's gateway, a provider that is always at its limit, and one that is well but for a wrong key. */
async function demo(edit: (text: string) => string = (text) => text) {
  const full = await startSimulator({ tokenDelayMs: 0, models: { '*': 'status=429;retry-after=60' } });
  const well = await startSimulator({ tokenDelayMs: 0, wrongKeys: ['wrong-on-purpose'] });
  const environment = {
    FULL_URL: `${full.url}/v1`,
    OPENAI_BASE_URL: `${well.url}/v1`,
    ANTHROPIC_BASE_URL: `${well.url}/v1`,
  };
  const text = edit(readFileSync('examples/failover.yaml', 'utf8'));
  const gateway = await startGateway(text, { environment, log: 'info', metrics: true });
  return {
    full,
    gateway,
    hello: (route: string) => ask(gateway, prompt('Hello', { model: 'gpt-5' }), { route }),
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await full.close();
      await well.close();
    },
  };
}

async function modelOf(response: Awaited<ReturnType<typeof ask>>): Promise<string> {
  expect(response.status).toBe(200);
  return (await response.json<ChatCompletion>()).model;
}

test('S1-75: the dummy answers every POST with 429, Retry-After and a rate_limit_error', async () => {
  await using one = await demo();
  const response = await send(`${one.full.url}/v1/chat/completions`, {
    body: prompt('x'),
    headers: { 'content-type': 'application/json' },
  });
  expect([response.status, response.header('retry-after')]).toEqual([429, '60']);
  expect(response.header('content-type')).toContain('application/json');
});

test('S1-76, S1-77: where one try is wanted the first call shows the limit, the second is served by the other model', async () => {
  await using one = await demo();
  const first = await one.hello('/failover/once');
  expect(first.header('retry-after')).toBe('60');
  expect(await errorOf(first)).toMatchObject({ status: 429, type: 'rate_limit_error' });
  expect(await modelOf(await one.hello('/failover/once'))).toContain('gpt-4o');
});

test('S1-78: the first call is already answered by the other; the first target is left alone, then tried again', async () => {
  await using one = await demo((text) => text.replaceAll('10s', '100ms'));
  expect(await modelOf(await one.hello('/failover/openai'))).toContain('gpt-4o');
  const attempts = () => one.gateway.logged.filter(({ msg }) => msg === 'request').map((line) => line.attempts);
  await expect.poll(attempts).toEqual([2]);
  await expect
    .poll(async () => {
      expect(await modelOf(await one.hello('/failover/openai'))).toContain('gpt-4o');
      return attempts();
    })
    .toEqual(expect.arrayContaining([2, undefined, 2]));
});

test('S4-20, S4-21: on a wrong key the other provider answers a request that names no model', async () => {
  await using one = await demo();
  const response = await ask(
    one.gateway,
    { messages: [{ role: 'user', content: 'Testing failover' }] },
    { route: '/failover/ai' },
  );
  expect(await modelOf(response)).toContain('gpt-5');
  expect(response.received.toString()).not.toContain('wrong-on-purpose');
  await expect
    .poll(() => one.gateway.logged.find(({ msg }) => msg === 'request'))
    .toMatchObject({ provider: 'openai', attempts: 2, status: 200 });
});

test('S4-21: with a good key the first provider answers in the client’s dialect', async () => {
  await using one = await demo((text) => text.replace('ANTHROPIC_API_KEY:-wrong-on-purpose', 'NO_KEY:-sk-ant-good'));
  const response = await ask(one.gateway, prompt('Testing failover'), { route: '/failover/ai' });
  expect(await modelOf(response)).toContain('claude-3-5-haiku');
});
