/** What Prometheus sees: names, labels, sums, and that nobody can make it grow without end. */
import { describe, expect, test } from 'vitest';
import { completion, textStream, usageOf } from '../support/chunks.ts';
import { openConnection, send } from '../support/client.ts';
import { configFor, startGateway, type TestGateway, testPlugin } from '../support/gateway.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { readSse } from '../support/sse.ts';
import { ask, prompt, soon } from './chat.ts';
import { type Sample, samples } from './prometheus.ts';

async function scrape(gateway: TestGateway): Promise<Sample[]> {
  const response = await send(`${gateway.metricsUrl}/metrics`);
  expect(response.header('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
  return samples(await response.text());
}

function total(all: Sample[], name: string, labels: Record<string, string> = {}): number {
  return all
    .filter(
      (sample) => sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value),
    )
    .reduce((sum, { value }) => sum + value, 0);
}

const finder = testPlugin('finder', {
  request: ({ segments }) =>
    segments[0]!.text.includes('bad')
      ? { reject: { code: 'bad_words', message: 'No.', findings: [{ label: 'BAD', count: 3 }] } }
      : { allow: { findings: [{ label: 'FINE', count: 1 }] } },
  observe: () => undefined,
});

/** Three whole answers, two streams, two rejections and one failure of the provider. */
async function traffic(names?: string[]) {
  const upstream = await startScriptedUpstream();
  const usage = usageOf(100, 50);
  const whole = { whole: completion('Hi', { usage, model: 'm-2026-01' }) };
  const stream = { stream: { events: textStream('Hi there', { usage, model: 'm-2026-01' }) } };
  upstream.next(whole, whole, whole, stream, stream, { whole: '', status: 500 });
  const config = configFor(upstream.url, {
    provider: { kind: 'groq' },
    plugins: { finder: { at: 'local:finder' }, quiet: { at: 'local:finder', shadow: true, hooks: ['request'] } },
    prices: { 'm-2026-01': { input: 2, output: 4 } },
    ...(names && { metricNames: names }),
  });
  const gateway = await startGateway(config, { factories: [finder], metrics: true, log: 'info' });
  for (let i = 0; i < 3; i += 1) await (await ask(gateway)).text();
  for (let i = 0; i < 2; i += 1) await readSse(await ask(gateway, prompt('x', { stream: true })));
  for (let i = 0; i < 2; i += 1) await (await ask(gateway, prompt('bad'))).text();
  await (await ask(gateway)).text();
  await soon(() => gateway.logged.filter(({ msg }) => msg === 'request').length).toBe(8);
  return {
    gateway,
    all: await scrape(gateway),
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

describe('S0-13, S1-50: both families of names', () => {
  const families = [
    ['agentgateway_', '', 'gen_ai_system', 'route'],
    ['', '_seconds', 'gen_ai_provider_name', 'wardgate_route'],
  ] as const;
  test.each(families)('%sgen_ai_…%s', async (prefix, seconds, provider, route) => {
    await using run = await traffic();
    const labels = {
      [provider]: 'groq',
      [route]: '/',
      gen_ai_request_model: 'test-model',
      gen_ai_response_model: 'm-2026-01',
      gen_ai_operation_name: 'chat',
    };
    const usage = `${prefix}gen_ai_client_token_usage`;
    expect(total(run.all, `${usage}_sum`, { ...labels, gen_ai_token_type: 'input' })).toBe(500);
    expect(total(run.all, `${usage}_sum`, { ...labels, gen_ai_token_type: 'output' })).toBe(250);
    expect(total(run.all, `${usage}_bucket`, { ...labels, gen_ai_token_type: 'input', le: '64' })).toBe(0);
    expect(total(run.all, `${usage}_bucket`, { ...labels, gen_ai_token_type: 'input', le: '256' })).toBe(5);
    const count = (name: string) => total(run.all, `${prefix}gen_ai_server_${name}${seconds}_count`, labels);
    expect(count('request_duration')).toBe(5);
    expect(count('time_to_first_token')).toBe(2);
    expect(count('time_per_output_token')).toBe(2);
  });

  test.each([
    ['otel', /^gen_ai_client_token_usage_sum\{/m, /agentgateway_/],
    ['agentgateway', /^agentgateway_gen_ai_client_token_usage_sum\{/m, /^gen_ai_/m],
  ])('or one of them alone: %s', async (family, there, notThere) => {
    await using run = await traffic([family]);
    const text = await (await send(`${run.gateway.metricsUrl}/metrics`)).text();
    expect(text).toMatch(there);
    expect(text).not.toMatch(notThere);
  });
});

test('requests by status, reason, provider and model; cost; faults of providers', async () => {
  await using run = await traffic();
  const requests = (labels: Record<string, string>) =>
    total(run.all, 'agentgateway_requests_total', { route: '/', method: 'POST', protocol: 'llm', ...labels });
  expect(requests({})).toBe(8);
  expect(requests({ status: '200', gen_ai_system: 'groq', gen_ai_request_model: 'test-model' })).toBe(5);
  expect(requests({ status: '403', reason: 'bad_words' })).toBe(2);
  expect(requests({ status: '502', reason: 'upstream_failed' })).toBe(1);
  expect(total(run.all, 'agentgateway_request_duration_seconds_count')).toBe(8);
  // 5 × (100 × 2 + 50 × 4) USD per million.
  expect(total(run.all, 'agentgateway_gen_ai_client_cost_usd_total')).toBeCloseTo(0.002, 9);
  expect(total(run.all, 'wardgate_upstream_errors_total', { provider: 'up', reason: 'upstream_failed' })).toBe(1);
  expect(total(run.all, 'wardgate_open_requests')).toBe(0);
  expect(total(run.all, 'wardgate_open_streams')).toBe(0);
  expect(run.all.some(({ name, labels }) => name === 'wardgate_build_info' && labels.version !== '')).toBe(true);
});

test('plugins by hook and verdict, what they found, and how long they took', async () => {
  await using run = await traffic();
  const calls = (labels: Record<string, string>) => total(run.all, 'wardgate_plugin_calls_total', labels);
  expect(calls({ plugin: 'finder', hook: 'request', verdict: 'allow' })).toBe(6);
  expect(calls({ plugin: 'finder', hook: 'request', verdict: 'reject' })).toBe(2);
  expect(calls({ plugin: 'finder', hook: 'observe', verdict: 'allow' })).toBe(8);
  expect(calls({ plugin: 'quiet', verdict: 'shadow_allow' })).toBe(6);
  expect(total(run.all, 'wardgate_plugin_findings_total', { plugin: 'finder', label: 'BAD' })).toBe(6);
  expect(total(run.all, 'wardgate_plugin_duration_seconds_count', { plugin: 'finder', hook: 'request' })).toBe(8);
});

test('the second port has metrics and health, the first one only health', async () => {
  await using run = await traffic();
  const status = async (path: string, url = run.gateway.url) => (await send(url + path)).status;
  expect(await status('/metrics')).toBe(404);
  expect([await status('/healthz'), await status('/readyz'), await status('/health')]).toEqual([200, 200, 200]);
  const second = run.gateway.metricsUrl!;
  expect(await status('/v1/models', second)).toBe(404);
  expect([await status('/healthz', second), await status('/health', second)]).toEqual([200, 200]);
  const ready = await (await send(`${second}/readyz`)).json();
  expect(ready).toEqual({ status: 'ready', plugins: { finder: { state: 'up' }, quiet: { state: 'up' } } });
});

test('odd names of models, ids, methods and paths make no series without end', async () => {
  await using upstream = await startScriptedUpstream();
  let answers = 0;
  upstream.always(() => {
    answers += 1;
    return { whole: completion('Hi', { model: `r-${answers}` }) };
  });
  await using gateway = await startGateway(configFor(upstream.url), { metrics: true });
  let next = 0;
  const worker = async () => {
    const connection = await openConnection(gateway.url);
    while (next < 2_600) {
      next += 1;
      const odd = `m-${next}-"{}\\é`;
      await connection.request({ path: '/v1/chat/completions', body: prompt('x', { model: odd }) });
      await (await connection.response()).text();
    }
    connection.destroy();
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  for (let i = 0; i < 20; i += 1) await (await send(`${gateway.url}/path/${i}`, { method: 'PUT' })).text();
  // A page of this size is for a real client.
  const page = await (await fetch(`${gateway.metricsUrl}/metrics`)).text();
  const all = samples(page);
  const series = (name: string) => all.filter((sample) => sample.name === name).length;
  for (const name of ['agentgateway_requests_total', 'agentgateway_gen_ai_client_cost_usd_total']) {
    expect(series(name), name).toBeLessThanOrEqual(2_001);
  }
  for (const name of ['gen_ai_server_request_duration_seconds_count', 'agentgateway_gen_ai_client_token_usage_count']) {
    expect(series(name), name).toBeLessThanOrEqual(301);
  }
  // In UTF-16 units: what a scrape costs.
  expect(page.length).toBeLessThan(16_000_000);
  expect(total(all, 'agentgateway_requests_total')).toBe(2_620);
  expect(total(all, 'agentgateway_requests_total', { gen_ai_request_model: 'other' })).toBeGreaterThan(500);
  expect(all.every(({ labels }) => labels.route !== '/path/1')).toBe(true);
}, 30_000);

test.each(['constructor', '__proto__', 'toString'])(
  'a model called `%s` costs nothing, rather than no number',
  async (model) => {
    await using upstream = await startScriptedUpstream();
    upstream.always({ whole: completion('Hi', { model }) });
    const prices = { other: { input: 1, output: 1 } };
    await using gateway = await startGateway(configFor(upstream.url, { prices }), { metrics: true, log: 'info' });
    expect((await ask(gateway, prompt('x', { model }))).status).toBe(200);
    await soon(() => gateway.logText).toContain('"msg":"request"');
    expect(total(await scrape(gateway), 'agentgateway_gen_ai_client_cost_usd_total')).toBe(0);
    expect(gateway.logText).not.toContain('costUsd');
  },
);

test('a name of a model that is a whole book is refused, and kept out of the log and the metrics', async () => {
  await using upstream = await startScriptedUpstream();
  await using gateway = await startGateway(configFor(upstream.url), { metrics: true, log: 'info' });
  const response = await ask(gateway, prompt('x', { model: 'x'.repeat(100_000) }));
  expect([response.status, upstream.requests.length]).toEqual([404, 0]);
  expect((await response.text()).length).toBeLessThan(1_000);
  await soon(() => gateway.logText.length).toBeGreaterThan(0);
  expect(gateway.logText.length).toBeLessThan(5_000);
  expect(JSON.stringify(await scrape(gateway))).not.toContain('xxxxxxxxxxxx');
});

test('the figures of plugins in process stand beside the gateway’s, once for all instances, and one that fails hides none', async () => {
  const counting = testPlugin('counting', {
    observe: () => undefined,
    metrics: () => '# TYPE wardgate_counting_total counter\nwardgate_counting_total 7\n',
  });
  const broken = testPlugin('broken', { observe: () => undefined, metrics: () => Promise.reject(new Error('boom')) });
  await using upstream = await startScriptedUpstream();
  const plugins = { a: { at: 'local:counting' }, b: { at: 'local:counting' }, c: { at: 'local:broken' } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), {
    factories: [counting, broken],
    metrics: true,
  });
  const all = await scrape(gateway);
  expect(all.filter(({ name }) => name === 'wardgate_counting_total').map(({ value }) => value)).toEqual([7]);
  expect(total(all, 'wardgate_open_requests')).toBe(0);
});
