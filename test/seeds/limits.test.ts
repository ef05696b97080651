/** Keys, limits and metrics, by the examples' configs. */
import { expect, test } from 'vitest';
import { ask, errorOf, prompt, soon } from '../gateway/chat.ts';
import { samples } from '../gateway/prometheus.ts';
import { send } from '../support/client.ts';
import { readSse } from '../support/sse.ts';
import { startExample } from './example.ts';

const hello = prompt('Hello!', { model: 'gpt-3.5-turbo' });

test('S4-01, S4-02, S4-03: a call is admitted while one token is left and charged after; the next is 429', async () => {
  await using example = await startExample('examples/local-rate-limit.yaml');
  const first = await ask(example.gateway, hello);
  expect([first.status, first.header('access-control-allow-origin')]).toEqual([200, '*']);
  await first.text();
  const second = await ask(example.gateway, hello);
  expect([second.status, await second.text()]).toEqual([429, 'rate limit exceeded']);
  expect(second.header('content-type')).toBe('text/plain');
  // The bucket fills by one token in 100 s, and what the answer cost beyond it is forgiven.
  expect(Number(second.header('retry-after'))).toBeLessThanOrEqual(100);
  expect(second.header('x-ratelimit-remaining')).toBe('0');
});

test('S4-02: a streamed answer is charged too', async () => {
  await using example = await startExample('examples/local-rate-limit.yaml');
  expect((await readSse(await ask(example.gateway, { ...hello, stream: true }))).done).toBe(true);
  await soon(() => example.gateway.logged.some(({ msg }) => msg === 'request')).toBe(true);
  expect((await ask(example.gateway, hello)).status).toBe(429);
});

const keyOf = (key: string) => ({ Authorization: `Bearer ${key}` });
const mini = (model = 'gpt-mini') => prompt('hello', { model });

test('S2-06: no key or an unknown one is 401; the two keys pass', async () => {
  await using example = await startExample('examples/mini-gateway.yaml');
  expect(await errorOf(await ask(example.gateway, mini()))).toMatchObject({ status: 401, code: 'unauthenticated' });
  const unknown = await ask(example.gateway, mini(), { headers: keyOf('sk-demo-999') });
  expect(await errorOf(unknown)).toMatchObject({ status: 401, code: 'invalid_api_key' });
  for (const key of ['sk-demo-123', 'sk-demo-456']) {
    expect((await ask(example.gateway, mini(), { headers: keyOf(key) })).status).toBe(200);
  }
});

test('S2-02: GET /health', async () => {
  await using example = await startExample('examples/mini-gateway.yaml');
  const response = await send(`${example.gateway.url}/health`, { headers: keyOf('sk-demo-123') });
  const health = await response.json<{ timestamp: number }>();
  expect(health).toEqual({ status: 'ok', timestamp: expect.any(Number) });
  expect(Math.abs(health.timestamp - Date.now() / 1000)).toBeLessThan(60);
  expect((await send(`${example.gateway.url}/healthz`)).status).toBe(200);
});

test('S2-03: GET /v1/models lists each model with its providers', async () => {
  await using example = await startExample('examples/mini-gateway.yaml');
  const response = await send(`${example.gateway.url}/v1/models`, { headers: keyOf('sk-demo-123') });
  expect(await response.json()).toEqual({
    object: 'list',
    data: [
      { id: 'gpt-mini', object: 'model', created: 0, owned_by: 'openai-flaky,vllm-fast,triton-slow' },
      { id: 'llama-8b', object: 'model', created: 0, owned_by: 'vllm-fast,triton-slow' },
    ],
  });
});

test('S2-12: a bucket for each tenant and model: 10 at once, and the 11th is 429', async () => {
  await using example = await startExample('examples/mini-gateway.yaml');
  const statuses = async (key: string, model: string, count: number) => {
    const answers = Array.from({ length: count }, () => ask(example.gateway, mini(model), { headers: keyOf(key) }));
    return (await Promise.all(answers)).map(({ status }) => status).sort();
  };
  // One comes back each second; a slow machine may see one more pass.
  const burst = await statuses('sk-demo-123', 'gpt-mini', 20);
  const passed = burst.filter((status) => status === 200).length;
  expect(new Set(burst)).toEqual(new Set([200, 429]));
  expect(passed).toBeGreaterThanOrEqual(10);
  expect(passed).toBeLessThan(15);
  expect(await statuses('sk-demo-123', 'llama-8b', 10)).toEqual(Array(10).fill(200));
  expect(await statuses('sk-demo-456', 'gpt-mini', 10)).toEqual(Array(10).fill(200));
  const refused = (
    await Promise.all(Array.from({ length: 12 }, () => ask(example.gateway, mini(), { headers: keyOf('sk-demo-456') })))
  ).at(-1)!;
  expect(await errorOf(refused)).toMatchObject({
    status: 429,
    message: 'Rate limit exceeded',
    type: 'rate_limit_error',
  });
});

test('S0-13: the series that the drag race’s back end reads, summed as it sums them', async () => {
  const environment = { OPENAI_API_KEY: 'a', GROQ_API_KEY: 'b' };
  await using example = await startExample('examples/drag-race.yaml', { environment });
  const race = (model: string, stream: boolean) =>
    ask(example.gateway, prompt('one two three four', { model, stream }));
  const whole = await (await race('gpt-4o-mini', false)).json<{
    usage: { prompt_tokens: number; completion_tokens: number };
  }>();
  await readSse(await race('gpt-4o-mini', true));
  await readSse(await race('llama-3.3-70b-versatile', true));
  await soon(() => example.gateway.logged.filter(({ msg }) => msg === 'request').length).toBe(3);
  const text = await (await send(`${example.gateway.metricsUrl}/metrics`)).text();
  const sum = (name: string, labels: Record<string, string>) =>
    samples(text, `agentgateway_gen_ai_${name}`)
      .filter((sample) => Object.entries(labels).every(([label, value]) => sample.labels[label] === value))
      .reduce((total, { value }) => total + value, 0);
  const { prompt_tokens: input, completion_tokens: output } = whole.usage;
  expect(sum('client_token_usage_sum', { gen_ai_token_type: 'input', gen_ai_system: 'openai' })).toBe(2 * input);
  expect(sum('client_token_usage_sum', { gen_ai_token_type: 'output', gen_ai_system: 'openai' })).toBe(2 * output);
  expect(sum('client_token_usage_sum', { gen_ai_token_type: 'output', gen_ai_system: 'groq' })).toBe(output);
  expect(sum('server_request_duration_count', { gen_ai_system: 'openai' })).toBe(2);
  expect(sum('server_request_duration_count', { gen_ai_system: 'groq' })).toBe(1);
  expect(sum('server_time_to_first_token_count', { gen_ai_system: 'openai' })).toBe(1);
  for (const name of ['server_request_duration', 'server_time_to_first_token', 'server_time_per_output_token']) {
    expect(sum(`${name}_count`, { gen_ai_system: 'groq' }), name).toBe(1);
    expect(sum(`${name}_sum`, { gen_ai_system: 'groq' }), name).toBeGreaterThan(0);
    // Seconds: none of this took longer than the test may.
    expect(sum(`${name}_sum`, { gen_ai_system: 'groq' }), name).toBeLessThan(15);
  }
});
