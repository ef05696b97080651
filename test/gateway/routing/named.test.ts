/** S3-10: a client says where to go on, among what the config allows. */
import { expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../../simulator/server.ts';
import { send } from '../../support/client.ts';
import { startGateway } from '../../support/gateway.ts';

function configOf({ url }: Simulator) {
  const base = `${url}/v1`;
  return {
    providers: {
      first: { kind: 'openai', baseUrl: base, key: 'k' },
      openai: { kind: 'openai', baseUrl: base, key: 'k' },
      anthropic: { kind: 'anthropic', baseUrl: base, key: 'k' },
    },
    models: {
      adaptive: {
        cooldown: { default: '1ms', max: '1ms' },
        targets: [
          { provider: 'first', model: 'error-503' },
          { provider: 'openai', model: 'gpt/a' },
          { provider: 'openai', model: 'gpt/b' },
          { provider: 'anthropic', model: 'claude' },
        ],
      },
    },
    routes: { '/': {} },
  };
}

async function ask(url: string, route?: string) {
  const headers: Record<string, string> = route === undefined ? {} : { 'X-Wardgate-Fallback-Route': route };
  const body = { model: 'adaptive', messages: [{ role: 'user', content: 'Hi' }] };
  const response = await send(`${url}/v1/chat/completions`, { headers, body });
  return {
    status: response.status,
    body: await response.json<{ model?: string; error?: { message: string; param: string } }>(),
  };
}

test('S3-10: where to go on is the client’s to say, in its order, and a target of the model’s', async () => {
  const simulator = await startSimulator({ tokenDelayMs: 0 });
  await using gateway = await startGateway(configOf(simulator));
  expect((await ask(gateway.url)).body.model).toBe('gpt/a');
  expect((await ask(gateway.url, 'anthropic/claude,openai')).body.model).toBe('claude');
  expect((await ask(gateway.url, 'openai/gpt/b, anthropic')).body.model).toBe('gpt/b');
  const wrong = await ask(gateway.url, 'anthropic/claude, evil/other');
  expect(wrong).toMatchObject({
    status: 400,
    body: { error: { param: 'x-wardgate-fallback-route', message: expect.stringContaining('anthropic/claude') } },
  });
  expect(wrong.body.error!.message).not.toContain('evil');
  await simulator.close();
});
