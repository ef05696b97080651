/** A real Prometheus scrapes a gateway that counts in a real Redis, and every panel of the dashboard gets an answer. */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { queriesOf, readDashboard } from '../deploy/panels.ts';
import { ask, prompt } from '../gateway/chat.ts';
import { completion, textStream, usageOf } from '../support/chunks.ts';
import { freePort } from '../support/free-port.ts';
import { configFor, startGateway } from '../support/gateway.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { realServer } from './servers.ts';

const redis = realServer('redis');
const { WARDGATE_CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'wardgate') } = process.env;
const [PROMETHEUS, PROMTOOL] = ['prometheus', 'promtool'].map((name) => join(WARDGATE_CACHE, 'bin', name));
/** Only while Redis is away is there anything to show. */
const MAY_BE_EMPTY = ['Scripts without an answer'];

test.skipIf(!existsSync(PROMTOOL!))('promtool finds nothing wrong with the scrape config', () => {
  execFileSync(PROMTOOL!, ['check', 'config', 'deploy/prometheus/prometheus.yml'], { stdio: 'pipe' });
});

async function startPrometheus(target: string) {
  const folder = await mkdtemp(join(tmpdir(), 'wardgate-prometheus-'));
  const listen = `127.0.0.1:${await freePort()}`;
  const config = {
    global: { scrape_interval: '500ms' },
    scrape_configs: [{ job_name: 'gateway', static_configs: [{ targets: [target] }] }],
  };
  await writeFile(join(folder, 'prometheus.yml'), JSON.stringify(config));
  const flags = [
    `--config.file=${folder}/prometheus.yml`,
    `--storage.tsdb.path=${folder}/data`,
    `--web.listen-address=${listen}`,
  ];
  const child = spawn(PROMETHEUS!, flags, { stdio: 'ignore' });
  return {
    async query(
      query: string,
    ): Promise<{ status: string; error?: string; data: { result: { value: [number, string] }[] } }> {
      return (await fetch(`http://${listen}/api/v1/query?query=${encodeURIComponent(query)}`)).json() as never;
    },
    async [Symbol.asyncDispose]() {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await ended;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

describe.skipIf(!redis.here || !existsSync(PROMETHEUS!))('“Wardgate: quotas”', () => {
  test('every panel is answered by Prometheus, and shows what happened', async () => {
    const limits = [
      { name: 'answers', type: 'tokens', max: 200, window: '1h', reserve: 'with-answer', answerTokens: 50 },
      { name: 'money', type: 'cost', max: 100, window: '1h', reserve: true },
    ];
    await using upstream = await startScriptedUpstream();
    const config = configFor(upstream.url, {
      prices: { 'test-model': { input: 1000, output: 1000 } },
      plugins: {
        quota: {
          at: 'local:rate-limit',
          deadline: '5s',
          config: { redis: redis.url, prefix: `test:${process.pid}:dashboard:`, deadline: '2s', limits },
        },
      },
    });
    await using gateway = await startGateway(config, { metrics: true });
    await using prometheus = await startPrometheus(new URL(gateway.metricsUrl!).host);
    const traffic = async () => {
      upstream.always({ whole: completion('Hi', { usage: usageOf(1, 1) }) });
      expect((await ask(gateway)).status).toBe(200);
      upstream.next({ stream: { events: textStream('word '.repeat(500)) } });
      await (await ask(gateway, prompt('x', { stream: true }))).text();
      upstream.next({ whole: completion('Hi', { usage: usageOf(1, 300_000) }) });
      await (await ask(gateway, prompt('x', { max_tokens: 1 }))).text();
      await (await ask(gateway)).text();
    };
    await traffic();
    const queries = queriesOf(readDashboard('quotas'), '1h').filter(([title]) => !MAY_BE_EMPTY.includes(title));
    for (const [title, query] of queries) {
      await expect
        .poll(
          async () => {
            const { status, error, data } = await prometheus
              .query(query)
              .catch(() => ({ status: 'starting', error: '', data: undefined }));
            return status === 'success' ? data!.result.length > 0 : `${status}: ${error}`;
          },
          { timeout: 20_000, interval: 200, message: `${title}: ${query}` },
        )
        .toBe(true);
    }
    expect((await prometheus.query('min(wardgate_quota_redis_up)')).data.result[0]!.value[1]).toBe('1');
  });
});
