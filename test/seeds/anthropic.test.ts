/** Anthropic behind OpenAI's dialect, OpenAI behind Anthropic's, and both on one route. */
import { expect, test } from 'vitest';
import { startSimulator } from '../../simulator/server.ts';
import { ask, prompt } from '../gateway/chat.ts';
import { send } from '../support/client.ts';
import { startGateway } from '../support/gateway.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { readSse } from '../support/sse.ts';
import type { ChatCompletion } from './example.ts';

const HELLO = prompt('Hi, this is a hello world test. ', { model: 'claude-3-5-sonnet-20241022' });
const TO_CLAUDE = {
  providers: { anthropic: { kind: 'anthropic', key: 'sk-of-anthropic' } },
  models: { '*': 'anthropic' },
  routes: { '/anthropic': {} },
};

/** The config, with the providers' addresses moved to where the test listens. */
function movedTo<T extends { providers: Record<string, object> }>(url: string, config: T): T {
  const providers = Object.entries(config.providers).map(([name, one]) => [name, { ...one, baseUrl: `${url}/v1` }]);
  return { ...config, providers: Object.fromEntries(providers) };
}

/** What Anthropic answers to it. */
const MESSAGE = {
  id: 'msg_01XFDUDYJgAACzvnptvVoYEL',
  type: 'message',
  role: 'assistant',
  model: 'claude-3-5-sonnet-20241022',
  content: [{ type: 'text', text: 'Hello! Your test has reached me.' }],
  stop_reason: 'end_turn',
  stop_sequence: null,
  usage: { input_tokens: 17, cache_creation_input_tokens: 0, cache_read_input_tokens: 0, output_tokens: 20 },
};

test('S1-21, S1-23: Claude answers an OpenAI client, with the gateway’s key', async () => {
  await using upstream = await startScriptedUpstream();
  await using gateway = await startGateway(movedTo(upstream.url, TO_CLAUDE));
  upstream.next({ whole: MESSAGE });
  const completion = await (await ask(gateway, HELLO, { route: '/anthropic' })).json<ChatCompletion>();
  expect(completion).toMatchObject({
    id: MESSAGE.id,
    object: 'chat.completion',
    model: 'claude-3-5-sonnet-20241022',
    choices: [{ index: 0, message: { role: 'assistant', content: MESSAGE.content[0]!.text }, finish_reason: 'stop' }],
    usage: { prompt_tokens: 17, completion_tokens: 20, total_tokens: 37 },
  });
  const [request] = upstream.requests;
  expect([request!.method, request!.path]).toEqual(['POST', '/v1/messages']);
  const keys = ['x-api-key', 'anthropic-version', 'authorization'].map((name) => request!.header(name));
  expect(keys).toEqual(['sk-of-anthropic', '2023-06-01', undefined]);
});

test('S1-25: Claude’s stream comes in OpenAI’s chunks', async () => {
  await using simulator = await startedSimulator();
  await using gateway = await startGateway(movedTo(simulator.url, TO_CLAUDE));
  const body = { ...HELLO, stream: true, stream_options: { include_usage: true } };
  const said = await readSse(await ask(gateway, body, { route: '/anthropic' }));
  expect(said).toMatchObject({ content: ['You said: Hi, this is a hello world test. '], finish: ['stop'], done: true });
  expect(said.usage?.prompt_tokens).toBeGreaterThan(0);
});

test('S1-24: OpenAI answers an Anthropic client, and the system’s blocks really reach it', async () => {
  await using simulator = await startedSimulator();
  await using gateway = await startGateway(
    movedTo(simulator.url, {
      providers: { openai: { kind: 'openai', key: 'sk-of-openai' } },
      models: { 'gpt-4o-mini': 'openai' },
      routes: { '/compat/anthropic': { model: 'gpt-4o-mini' } },
    }),
  );
  const messages = [{ role: 'user', content: 'Hello!' }];
  const countOf = async (system: object[]) => {
    const response = await send(`${gateway.url}/compat/anthropic/v1/messages`, {
      headers: { 'anthropic-version': '2023-06-01', 'x-api-key': 'sk-of-the-client' },
      body: { model: 'claude-3-5-haiku-latest', max_tokens: 50, system, messages },
    });
    const message = await response.json<{ usage: { input_tokens: number } }>();
    expect(message).toMatchObject({
      type: 'message',
      role: 'assistant',
      content: [{ type: 'text', text: 'You said: Hello!' }],
      stop_reason: 'end_turn',
    });
    return message.usage.input_tokens;
  };
  const without = await countOf([]);
  expect(await countOf([{ type: 'text', text: 'x'.repeat(400) }])).toBe(without + 100);
});

test('S4-04: both dialects on one route, with one limit for both', async () => {
  await using simulator = await startedSimulator();
  await using gateway = await startGateway(
    movedTo(simulator.url, {
      providers: { anthropic: { kind: 'anthropic', key: 'sk-of-anthropic' } },
      models: { 'claude-haiku-4-5-20251001': 'anthropic' },
      plugins: {
        limit: {
          at: 'local:local-limit',
          config: {
            limits: [
              { name: 'tokens', per: 'route', type: 'tokens', maxTokens: 1, tokensPerFill: 1, fillInterval: '100s' },
            ],
            body: 'rate limit exceeded',
          },
        },
      },
      routes: { '/': { plugins: ['limit'], passthrough: 'anthropic' } },
    }),
  );
  const hello = { model: 'claude-haiku-4-5-20251001', max_tokens: 50, messages: [{ role: 'user', content: 'Hello!' }] };
  const first = await send(`${gateway.url}/v1/messages`, { body: hello });
  expect([first.status, (await first.json<{ content: object[] }>()).content]).toEqual([
    200,
    [{ type: 'text', text: 'You said: Hello!' }],
  ]);
  for (const again of [await ask(gateway, hello), await send(`${gateway.url}/v1/messages`, { body: hello })]) {
    expect([again.status, await again.text()]).toEqual([429, 'rate limit exceeded']);
  }
  const models = await send(`${gateway.url}/v1/models`, { headers: { 'anthropic-version': '2023-06-01' } });
  expect(await models.json()).toMatchObject({ data: [{ type: 'model', id: 'claude-haiku-4-5-20251001' }] });
});

test('S4-32: the route’s model wins, and the client’s key stays here', async () => {
  await using upstream = await startScriptedUpstream();
  await using gateway = await startGateway(
    movedTo(upstream.url, {
      providers: { anthropic: { kind: 'anthropic', key: 'sk-of-anthropic' } },
      models: { 'claude-3-5-haiku-latest': 'anthropic' },
      routes: { '/': { model: 'claude-3-5-haiku-latest' } },
    }),
  );
  upstream.next({ whole: MESSAGE });
  const headers = { 'anthropic-version': '2023-06-01', 'x-api-key': 'sk-of-the-client' };
  const messages = [
    { role: 'system', content: 'You are brief.' },
    { role: 'user', content: 'Hello!' },
  ];
  const response = await ask(gateway, { model: 'claude-sonnet-4-5', messages }, { headers });
  expect(response.status).toBe(200);
  const [request] = upstream.requests;
  expect(request!.headerValues('x-api-key')).toEqual(['sk-of-anthropic']);
  expect(request!.headerValues('anthropic-version')).toEqual(['2023-06-01']);
  expect(request!.json()).toEqual({
    model: 'claude-3-5-haiku-latest',
    max_tokens: 4096,
    system: [{ type: 'text', text: 'You are brief.' }],
    messages: [{ role: 'user', content: [{ type: 'text', text: 'Hello!' }] }],
  });
});

async function startedSimulator() {
  const simulator = await startSimulator({ tokenDelayMs: 0 });
  return { url: simulator.url, [Symbol.asyncDispose]: () => simulator.close() };
}
