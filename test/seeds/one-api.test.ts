/** One API for several providers: the rows of the drag race, of the demo's first calls, and of the browser's. */
import OpenAI from 'openai';
import { expect, test } from 'vitest';
import { loadConfig } from '../../gateway/config/load.ts';
import { ask, contentOf, prompt, soon } from '../gateway/chat.ts';
import { send } from '../support/client.ts';
import { startGateway } from '../support/gateway.ts';
import { readSse } from '../support/sse.ts';
import { type ChatCompletion, startExample } from './example.ts';

const DRAG_RACE = 'examples/drag-race.yaml';
const KEYS = { OPENAI_API_KEY: 'sk-of-openai', GROQ_API_KEY: 'gsk-of-groq' };
const RACERS = ['gpt-4o-mini', 'llama-3.3-70b-versatile'];

test('S0-01: one file with two models, as the document writes it: presets, and bare $VAR from the environment', async () => {
  const text = `llm: {models: [
    {name: gpt-4o-mini, provider: openai, params: {apiKey: "$OPENAI_API_KEY"}},
    {name: llama-3.3-70b-versatile, provider: groq, params: {apiKey: "$GROQ_API_KEY"}}]}`;
  await using gateway = await startGateway(text, { environment: KEYS });
  const route = gateway.gateway.snapshot.route('/v1/chat/completions')!;
  const targets = RACERS.map((name) => route.findModel(name)!.targets[0]!.provider);
  const calls = await Promise.all(
    targets.map(async (provider) => {
      const path = provider.endpoints.chat[0]!.path({ model: 'm', stream: false });
      const call = await provider.sign({ method: 'POST', path, headers: [], body: '{}' });
      return { origin: provider.origin, ...call };
    }),
  );
  expect(calls).toMatchObject([
    { origin: 'https://api.openai.com', path: '/v1/chat/completions' },
    { origin: 'https://api.groq.com', path: '/openai/v1/chat/completions' },
  ]);
  expect(calls.map(({ headers }) => headers.filter((value) => value.startsWith('Bearer ')))).toEqual([
    ['Bearer sk-of-openai'],
    ['Bearer gsk-of-groq'],
  ]);
});

test('S0-01: a key that is not in the environment is named', async () => {
  await expect(loadConfig(DRAG_RACE, { OPENAI_API_KEY: 'x' })).rejects.toThrow(
    /line \d+: llm\.models\.1\.params\.apiKey: the environment variable GROQ_API_KEY is not set; set it or write/,
  );
});

test('S0-02: both models at one URL, whose default port is 4000', async () => {
  const { config } = await loadConfig(DRAG_RACE, KEYS);
  expect(config.listen).toMatch(/:4000$/);
  await using example = await startExample(DRAG_RACE, { environment: KEYS });
  for (const model of RACERS) {
    const completion = await (await ask(example.gateway, prompt('hello', { model }))).json<ChatCompletion>();
    expect([completion.model, completion.choices[0]!.message.content]).toEqual([model, 'You said: hello']);
  }
  expect((await ask(example.gateway, prompt('x', { model: 'gpt-9' }))).status).toBe(404);
});

test.each(RACERS)('S0-03: an unmodified OpenAI client, whole and streaming: %s', async (model) => {
  await using example = await startExample(DRAG_RACE, { environment: KEYS });
  const client = new OpenAI({ baseURL: `${example.gateway.url}/v1`, apiKey: 'unused' });
  const messages = [{ role: 'user' as const, content: 'one two three' }];
  const whole = await client.chat.completions.create({ model, messages });
  expect(whole.choices[0]?.message.content).toBe('You said: one two three');
  let streamed = '';
  let chunks = 0;
  for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
    streamed += chunk.choices[0]?.delta.content ?? '';
    chunks += 1;
  }
  expect(streamed).toBe('You said: one two three');
  expect(chunks).toBeGreaterThan(3);
  expect((await client.models.list()).data.map(({ id }) => id)).toEqual(RACERS);
});

test('S1-20: the default config’s /gemini route, with no credential, in the exact shape', async () => {
  await using example = await startExample('gateway/default.yaml');
  const body = {
    model: 'gemini-2.5-flash-lite',
    messages: [{ role: 'user', content: 'Hi, this is a hello world test. ' }],
  };
  const response = await ask(example.gateway, body, { route: '/gemini' });
  expect([response.status, response.header('content-type')]).toEqual([200, 'application/json']);
  const completion = await response.json<ChatCompletion>();
  expect(completion).toMatchObject({
    id: expect.any(String),
    object: 'chat.completion',
    created: expect.any(Number),
    model: 'gemini-2.5-flash-lite',
    choices: [
      {
        index: 0,
        finish_reason: 'stop',
        message: { role: 'assistant', content: expect.stringContaining('hello world test') },
      },
    ],
  });
  const { prompt_tokens: input, completion_tokens: output, total_tokens: total } = completion.usage;
  expect(input > 0 && output > 0 && total === input + output).toBe(true);
  expect(completion.choices).toHaveLength(1);
});

test('S1-07: one access line per request, with its facts and without its text', async () => {
  await using example = await startExample(DRAG_RACE, { environment: KEYS });
  await (await ask(example.gateway, prompt('a private matter', { model: 'gpt-4o-mini' }))).text();
  await readSse(await ask(example.gateway, prompt('a private matter', { model: 'gpt-4o-mini', stream: true })));
  await (await ask(example.gateway, '{')).text();
  await (await send(`${example.gateway.url}/v1/models`)).text();
  const lines = () => example.gateway.logged.filter(({ msg }) => msg === 'request');
  await soon(() => lines().length).toBe(4);
  expect(lines()).toMatchObject([
    {
      method: 'POST',
      path: '/v1/chat/completions',
      route: '/',
      status: 200,
      outcome: 'finished',
      model: 'gpt-4o-mini',
      upstreamModel: 'gpt-4o-mini',
      inputTokens: expect.any(Number),
      outputTokens: expect.any(Number),
      durationMs: expect.any(Number),
    },
    { status: 200, streamed: true, firstTokenMs: expect.any(Number), outputTokens: expect.any(Number) },
    { status: 400, outcome: 'failed', code: 'invalid_json' },
    { method: 'GET', path: '/v1/models', status: 200 },
  ]);
  expect(new Set(lines().map(({ requestId }) => requestId)).size).toBe(4);
  expect(example.gateway.logText).not.toMatch(/private matter|sk-of-openai/);
});

test('S1-31, S1-103: a browser’s preflight, and the headers on its streamed answer', async () => {
  await using example = await startExample('examples/guardrails.yaml');
  const origin = { Origin: 'http://localhost:9999' };
  const preflight = await send(`${example.gateway.url}/openai/v1/chat/completions`, {
    method: 'OPTIONS',
    headers: {
      ...origin,
      'Access-Control-Request-Method': 'POST',
      'Access-Control-Request-Headers': 'authorization,content-type',
    },
  });
  expect([preflight.status, preflight.header('access-control-allow-origin')]).toEqual([204, '*']);
  expect(preflight.header('access-control-allow-headers')).toBe('authorization,content-type');
  for (const route of ['/anthropic', '/gemini', '/bedrock']) {
    const response = await ask(example.gateway, prompt('hello', { stream: true }), { route, headers: origin });
    expect(response.header('access-control-allow-origin')).toBe('*');
    expect(await readSse(response)).toMatchObject({ content: ['You said: hello'], done: true });
  }
});

test('S3-01, S3-07: `stream: true` needs no other change, and its headers keep proxies from buffering', async () => {
  await using example = await startExample(DRAG_RACE, { environment: KEYS });
  const response = await ask(example.gateway, prompt('one two', { model: 'gpt-4o-mini', stream: true }));
  expect(response.header('content-type')).toMatch(/^text\/event-stream/);
  expect(response.headerValues('cache-control')).toEqual(['no-cache, no-transform']);
  expect(response.headerValues('x-accel-buffering')).toEqual(['no']);
  expect(response.headerValues('transfer-encoding')).toEqual(['chunked']);
  expect(response.header('connection')).toBe('keep-alive');
  expect(await readSse(response)).toMatchObject({ content: ['You said: one two'], finish: ['stop'], done: true });
});

test('S3-06: a tool call’s arguments come in pieces, as the model writes them', async () => {
  await using example = await startExample(DRAG_RACE, { environment: KEYS });
  const tools = [
    {
      type: 'function',
      function: { name: 'search_documents', parameters: { type: 'object', properties: { query: { type: 'string' } } } },
    },
  ];
  const body = prompt('find the long report about the harbour', {
    model: 'gpt-4o-mini',
    stream: true,
    tools,
    tool_choice: 'required',
  });
  const direct = await readSse(await ask(example.simulator, body));
  const said = await readSse(await ask(example.gateway, body));
  expect(said.toolCalls[0]![0]).toMatchObject({ name: 'search_documents' });
  const deltas = ({ chunks }: typeof said) =>
    chunks.flatMap(({ choices }) =>
      choices.map(({ delta }) => JSON.stringify(delta).replace(/"call_[^"]*"/, '"call"')),
    );
  expect(deltas(said).length).toBeGreaterThan(3);
  expect(deltas(said)).toEqual(deltas(direct));
});

test('the providers’ example answers by model and by path', async () => {
  const bases = ['OPENAI', 'GROQ', 'GEMINI', 'VLLM', 'OLLAMA'];
  const file = 'examples/real-providers.yaml';
  await using example = await startExample(file, {}, (text) =>
    bases.reduce((edited, name) => edited.replace(new RegExp(`\\$\\{${name}_BASE_URL:-[^}]*\\}`), '${UPSTREAM}'), text),
  );
  for (const [model, upstream] of [
    ['gpt-4o-mini', 'gpt-4o-mini'],
    ['local', 'Qwen/Qwen2.5-7B-Instruct'],
    ['llama3.2:1b', 'llama3.2:1b'],
    ['fast', 'llama-3.3-70b-versatile'],
  ] as const) {
    const response = await ask(example.gateway, prompt('hello', { model }));
    expect((await response.json<ChatCompletion>()).model).toBe(upstream);
  }
  const gemini = await ask(example.gateway, prompt('hello', { model: 'anything' }), { route: '/gemini' });
  expect((await gemini.json<ChatCompletion>()).model).toBe('gemini-2.5-flash-lite');
  expect((await ask(example.gateway, prompt('hello', { model: 'fast' }), { route: '/openai' })).status).toBe(404);
  expect(
    await contentOf(await ask(example.gateway, prompt('hello', { model: 'gpt-4o-mini' }), { route: '/openai' })),
  ).toBe('You said: hello');
});
