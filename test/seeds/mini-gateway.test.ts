/** The mini gateway, by its example's config in front of simulated providers: one fast, one slow, one flaky. */
import { execFile } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { ask, contentOf, errorOf, prompt } from '../gateway/chat.ts';
import { samples } from '../gateway/prometheus.ts';
import { send } from '../support/client.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';
import { readSse } from '../support/sse.ts';
import type { ChatCompletion } from './example.ts';

const TENANT_A = { Authorization: 'Bearer sk-demo-123' };
const KINDS = { 'openai-flaky': 'openai', 'vllm-fast': 'vllm', 'triton-slow': 'triton' } as const;
type Name = keyof typeof KINDS;
const NAMES = Object.keys(KINDS) as Name[];

type Config = Record<'providers' | 'models', Record<string, Record<string, unknown>>> & {
  plugins: { limit: { config: { limits: Record<string, unknown>[] } } };
};

interface Mini extends AsyncDisposable {
  gateway: TestGateway;
  /** One question to `gpt-mini`; the status of its answer. */
  asks(text?: string): Promise<number>;
  /** How many requests each provider has seen, in the order of `NAMES`. */
  seen(): number[];
  /** What the gateway measured of all series of this name with these labels, added up. */
  metric(name: string, labels: Record<string, string>): Promise<number>;
}

/** The example's config, with what the simulated providers do, and settings for each model in place of its own. */
async function startMini(behaviours: Partial<Record<Name, string>> = {}, model: object = {}): Promise<Mini> {
  const config = parse(readFileSync('examples/mini-gateway.yaml', 'utf8'), { merge: true }) as Config;
  const seen = new Map<Name, number>(NAMES.map((name) => [name, 0]));
  const simulators: Simulator[] = [];
  for (const name of NAMES) {
    const log = () => void seen.set(name, seen.get(name)! + 1);
    const simulator = await startSimulator({ tokenDelayMs: 0, models: { '*': behaviours[name] ?? '' }, log });
    simulators.push(simulator);
    config.providers[name]!.baseUrl = `${simulator.url}/v1`;
  }
  for (const [name, own] of Object.entries(config.models)) config.models[name] = { ...own, ...model };
  config.plugins.limit.config.limits[0]!.burst = 1000;
  const gateway = await startGateway(stringify(config), { metrics: true });
  return {
    gateway,
    async asks(text) {
      const response = await ask(gateway, prompt(text, { model: 'gpt-mini' }), { headers: TENANT_A });
      await response.bytes();
      return response.status;
    },
    seen: () => NAMES.map((name) => seen.get(name)!),
    async metric(name, labels) {
      const text = await (await send(`${gateway.metricsUrl}/metrics`)).text();
      const isMeant = (one: Record<string, string>) =>
        Object.entries(labels).every(([label, value]) => one[label] === value);
      return samples(text, name).reduce((total, one) => total + (isMeant(one.labels) ? one.value : 0), 0);
    },
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      for (const simulator of simulators) await simulator.close();
    },
  };
}

async function asksInTurn(mini: Mini, times: number): Promise<number[]> {
  const statuses: number[] = [];
  for (let at = 0; at < times; at++) statuses.push(await mini.asks());
  return statuses;
}

/** A circuit of a target, as its metric has it: 0 healthy, 1 degraded, 2 recovering, 3 failed. */
function circuitOf(mini: Mini, provider: Name): Promise<number> {
  const model = provider === 'openai-flaky' ? 'gpt-4o-mini' : 'gpt-mini';
  return mini.metric('wardgate_target_state', { provider, model });
}

describe('S2-01: one command', { timeout: 60_000 }, () => {
  const demo = async (...options: string[]) => {
    const { stdout } = await promisify(execFile)(process.execPath, ['examples/mini-gateway.ts', ...options]);
    return stdout;
  };
  const count = (text: string, label: string) => Number(new RegExp(`${label} *(\\d+)`).exec(text)?.[1]);

  test('sends 20 requests at once and prints who answered, who was refused, samples, seconds and metrics', async () => {
    const text = await demo();
    const answers = NAMES.map((name) => count(text, `  ${name}`));
    const answered = count(text, 'Answered requests:');
    // One token of the limit comes back each second, so a slow machine may see some more pass.
    expect(answered).toBeGreaterThanOrEqual(10);
    expect(answers.reduce((total, one) => total + one)).toBe(answered);
    expect(Math.min(...answers)).toBeGreaterThan(0);
    expect(count(text, 'Rate-limited requests:')).toBe(20 - answered);
    expect(count(text, 'Failed requests:')).toBe(0);
    expect(text).toMatch(/ openai-flaky +\d+ answered, [1-9]\d* failed calls, breaker closed/);
    expect(text).toMatch(/"content":"You said: hello \d+"/);
    expect(text).toMatch(/\nElapsed: \d+\.\d\d s\n/);
    expect(text).toContain('\n# TYPE wardgate_target_state gauge\n');
    expect((JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: object }).scripts).toMatchObject({
      'demo:mini': 'node examples/mini-gateway.ts',
    });
  });

  test('takes another strategy, and shows a breaker that is open', async () => {
    const fastest = await demo('--strategy', 'priority', '--requests', '5');
    expect(NAMES.map((name) => count(fastest, `  ${name}`))).toEqual([0, 5, 0]);
    const broken = await demo('--fail-every', '1');
    expect(broken).toMatch(/ openai-flaky +0 answered, \d+ failed calls, breaker (open|half open)/);
    expect(count(broken, 'Failed requests:')).toBe(0);
  });

  test('says what is wrong with its options', async () => {
    await expect(demo('--strategy', 'fastest')).rejects.toThrow(/--strategy must be one of priority, weighted/);
    await expect(demo('--requests', '0')).rejects.toThrow(/--requests must be a whole number from 1 to 1000/);
  });
});

test('S2-04: a chat completion, whole and streamed, in OpenAI’s shape', async () => {
  await using mini = await startMini();
  const hello = prompt('hello', { model: 'gpt-mini' });
  const completion = await (await ask(mini.gateway, hello, { headers: TENANT_A })).json<ChatCompletion>();
  expect(completion).toMatchObject({
    id: expect.stringMatching(/./),
    object: 'chat.completion',
    created: expect.any(Number),
    choices: [{ index: 0, message: { role: 'assistant', content: 'You said: hello' }, finish_reason: 'stop' }],
    usage: { prompt_tokens: 2, completion_tokens: 4, total_tokens: 6 },
  });
  const streamed = await readSse(await ask(mini.gateway, { ...hello, stream: true }, { headers: TENANT_A }));
  expect(streamed).toMatchObject({ content: ['You said: hello'], finish: ['stop'], done: true });
});

test('S2-05: GET /metrics tells requests, errors, statuses and times by provider and model', async () => {
  await using mini = await startMini({ 'vllm-fast': 'fail-first=1' }, { strategy: 'priority' });
  expect(await asksInTurn(mini, 2)).toEqual([200, 200]);
  const mine = { gen_ai_system: 'vllm', gen_ai_request_model: 'gpt-mini', status: '200' };
  await expect.poll(() => mini.metric('agentgateway_requests_total', mine), { timeout: 10_000 }).toBe(2);
  expect(await mini.metric('agentgateway_request_duration_seconds_count', mine)).toBe(2);
  expect(await mini.metric('wardgate_upstream_errors_total', { provider: 'vllm-fast' })).toBe(1);
});

test('S2-07: an alias stands for its providers in turn; other names are 404, no name and bad JSON 400', async () => {
  await using mini = await startMini({ 'openai-flaky': 'status=500', 'vllm-fast': 'status=500' });
  const error = async (body: object | string) => errorOf(await ask(mini.gateway, body, { headers: TENANT_A }));
  expect(await mini.asks()).toBe(200);
  expect(mini.seen().map((requests) => requests > 0)).toEqual([true, true, true]);
  expect(await error(prompt('x', { model: 'gpt-9' }))).toMatchObject({ status: 404, code: 'model_not_found' });
  expect(await error({ messages: [{ role: 'user', content: 'x' }] })).toMatchObject({ status: 400, param: 'model' });
  expect(await error('{"model":')).toMatchObject({ status: 400, type: 'invalid_request_error' });
});

describe('a strategy', () => {
  test('S2-08: round-robin asks the providers in turn', async () => {
    await using mini = await startMini();
    expect(await asksInTurn(mini, 6)).toEqual(Array(6).fill(200));
    expect(mini.seen()).toEqual([2, 2, 2]);
  });

  test('S2-09: weighted asks each by its weight: 2, 3 and 1 of 6', async () => {
    await using mini = await startMini({}, { strategy: 'weighted' });
    await asksInTurn(mini, 120);
    const [flaky, fast, slow] = mini.seen() as [number, number, number];
    // By chance alone these fail less than once in a million runs.
    expect(fast).toBeGreaterThan(30);
    expect(flaky).toBeGreaterThan(12);
    expect(slow).toBeGreaterThan(1);
    expect(slow).toBeLessThan(fast);
  });

  test('S2-10: least-latency tries each once, and then the fastest', async () => {
    const behaviours = { 'openai-flaky': 'latency=400', 'triton-slow': 'latency=400' };
    await using mini = await startMini(behaviours, { strategy: 'least-latency' });
    await asksInTurn(mini, 8);
    expect(mini.seen()).toEqual([1, 6, 1]);
  });

  test('S2-11: priority asks the lowest number while it is well', async () => {
    await using mini = await startMini({}, { strategy: 'priority' });
    await asksInTurn(mini, 4);
    expect(mini.seen()).toEqual([0, 4, 0]);
  });
});

describe('S2-13: a provider that fails', () => {
  test('is asked twice more, and then the next one', async () => {
    await using mini = await startMini({ 'vllm-fast': 'status=503' }, { strategy: 'priority' });
    expect(await mini.asks()).toBe(200);
    expect(mini.seen()).toEqual([0, 3, 1]);
  });

  test('is 502 when all others fail too, and the message names them', async () => {
    const all = Object.fromEntries(NAMES.map((name) => [name, 'status=500']));
    await using mini = await startMini(all, { retry: { perTarget: 1 } });
    const error = await errorOf(await ask(mini.gateway, prompt('x', { model: 'gpt-mini' }), { headers: TENANT_A }));
    expect(error.status).toBe(502);
    for (const name of NAMES) expect(error.message).toContain(name);
  });
});

test('S2-14: after three failures in a row a provider is not asked, until one request tries it and finds it well', async () => {
  const breaker = { failures: 3, cooldown: '2s' };
  await using mini = await startMini({ 'vllm-fast': 'fail-first=3' }, { strategy: 'priority', breaker });
  expect(await mini.asks()).toBe(200);
  expect(mini.seen()).toEqual([0, 3, 1]);
  expect(await circuitOf(mini, 'vllm-fast')).toBe(3);
  expect(await mini.asks()).toBe(200);
  expect(mini.seen()).toEqual([0, 3, 2]);
  await expect.poll(() => circuitOf(mini, 'vllm-fast'), { timeout: 10_000 }).toBe(2);
  expect(await mini.asks()).toBe(200);
  expect(mini.seen()).toEqual([0, 4, 2]);
  expect(await circuitOf(mini, 'vllm-fast')).toBeLessThan(2);
});

test('S2-15: providers of every kind get requests of their own form, and all answer in OpenAI’s', async () => {
  const aws = { accessKeyId: 'AKIDSIMULATED', secretAccessKey: 'a/secret+of/the=test' };
  await using simulator = await disposable({
    requireKey: true,
    awsSecrets: { [aws.accessKeyId]: aws.secretAccessKey },
  });
  const { url } = simulator;
  const google = { project: 'p', location: 'us-central1', token: 'any', baseUrl: `${url}/v1` };
  const providers: Record<string, object> = {
    vllm: { kind: 'vllm', key: 'any', baseUrl: `${url}/v1` },
    openai: { kind: 'openai', key: 'any', baseUrl: `${url}/v1` },
    azure: { kind: 'azure', key: 'any', baseUrl: url },
    'azure-deployments': { kind: 'azure', key: 'any', baseUrl: url, apiVersion: '2024-10-21' },
    anthropic: { kind: 'anthropic', key: 'any', baseUrl: `${url}/v1` },
    gemini: { kind: 'gemini', key: 'any', baseUrl: `${url}/v1beta` },
    vertex: { kind: 'vertex', ...google },
    'vertex-anthropic': { kind: 'vertex-anthropic', ...google },
    bedrock: { kind: 'bedrock', region: 'us-east-1', baseUrl: url, ...aws },
    cohere: { kind: 'cohere', key: 'any', baseUrl: `${url}/v2` },
  };
  const models = Object.fromEntries(Object.keys(providers).map((name) => [name, { provider: name, model: 'any:1' }]));
  await using gateway = await startGateway({ providers, models, routes: { '/': {} } });
  for (const model of Object.keys(providers)) {
    const completion = await (await ask(gateway, prompt('hello', { model }))).json<ChatCompletion>();
    expect(completion, model).toMatchObject({
      id: expect.stringMatching(/./),
      object: 'chat.completion',
      created: expect.any(Number),
      model: expect.stringMatching(/./),
      choices: [{ index: 0, message: { role: 'assistant', content: 'You said: hello' }, finish_reason: 'stop' }],
      usage: { prompt_tokens: 2, completion_tokens: 4, total_tokens: 6 },
    });
    const stream = await readSse(await ask(gateway, prompt('hello', { model, stream: true })));
    expect(stream, model).toMatchObject({ content: ['You said: hello'], finish: ['stop'], done: true });
  }
});

async function disposable(options: object): Promise<Simulator & AsyncDisposable> {
  const simulator = await startSimulator({ tokenDelayMs: 0, ...options });
  return { ...simulator, [Symbol.asyncDispose]: () => simulator.close() };
}

test('S2-16: an error is an object with a message, a type and a code, whatever went wrong', async () => {
  await using mini = await startMini();
  const wrong = { 400: 'not JSON', 404: prompt('x', { model: 'gpt-9' }), 401: prompt() };
  for (const [status, body] of Object.entries(wrong)) {
    const headers: Record<string, string> = status === '401' ? {} : TENANT_A;
    const error = await errorOf(await ask(mini.gateway, body, { headers }));
    expect(error).toMatchObject({
      status: Number(status),
      message: expect.stringMatching(/./),
      code: expect.any(String),
    });
  }
});

test('S2-17: the server runs from its config, on the port of the config or another', async () => {
  const config = parse(readFileSync('examples/mini-gateway.yaml', 'utf8'), { merge: true }) as { listen: string };
  expect(config.listen).toContain('127.0.0.1:8080');
  await using mini = await startMini({}, { strategy: 'weighted' });
  expect(new URL(mini.gateway.url).port).not.toBe('8080');
  expect(await contentOf(await ask(mini.gateway, prompt('x', { model: 'llama-8b' }), { headers: TENANT_A }))).toBe(
    'You said: x',
  );
});

test('S2-18: one command runs the tests of strategies, limits, retries, breakers, routes, server and formats', () => {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> };
  expect(scripts.test).toBe('vitest run');
  const parts = [
    'gateway/routing/strategies',
    'plugins/local-limit/arithmetic',
    'gateway/routing/circuit',
    'gateway/routing/gateway',
  ];
  for (const part of parts) expect(globSync(`test/${part}.test.ts`), part).toHaveLength(1);
  for (const part of ['gateway/http', 'gateway/dialects', 'gateway/providers']) {
    expect(globSync(`test/${part}/**/*.test.ts`).length, part).toBeGreaterThan(0);
  }
});
