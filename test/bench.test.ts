import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import type { Results } from './bench/report.ts';

const folder = mkdtempSync(join(tmpdir(), 'wardgate-bench-test-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Tiny, so that what it measures is noise: what is looked at is that all of it works. */
const TINY = ['--rounds', '1', '--seconds', '0.1', '--only', 'wardgate,wardgate-grpc'];
const SCENARIOS = ['whole-1k', 'stream', 'streams-burst'];

test('npm run bench measures, and writes its results as JSON and Markdown', { timeout: 60_000 }, async () => {
  const out = join(folder, 'results');
  const bench = await run(...TINY, '--scenarios', SCENARIOS.join(','), '--out', out);
  expect(bench.stderr).not.toContain('faults');
  expect(bench.code).toBe(0);
  const results = JSON.parse(readFileSync(`${out}.json`, 'utf8')) as Results;
  expect(results.absent).toEqual({});
  expect(Object.keys(results.scenarios)).toEqual(SCENARIOS);
  for (const { gateways } of Object.values(results.scenarios)) {
    expect(Object.keys(gateways)).toEqual(['direct', 'wardgate', 'wardgate-grpc']);
    expect(Object.values(gateways).flatMap((samples) => samples.map((sample) => sample.errors))).toEqual([0, 0, 0]);
  }
  // A burst counts requests; how many fit into a time is the machine's business.
  const burst = Object.values(results.scenarios['streams-burst']!.gateways);
  expect(burst.map(([sample]) => sample!.requests)).toEqual([50, 50, 50]);
  expect(readFileSync(`${out}.md`, 'utf8')).toMatch(/^\| Wardgate, no hooks +\|/m);
});

test('npm run bench says what is wrong with its options', async () => {
  expect(await run('--only', 'apache')).toMatchObject({ code: 1, stderr: expect.stringContaining('not apache') });
});

async function run(...args: string[]): Promise<{ code: number; stderr: string }> {
  const bench = spawn(process.execPath, ['test/bench/run.ts', ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  bench.stderr.on('data', (data) => (stderr += String(data)));
  const [code] = (await once(bench, 'close')) as [number];
  return { code, stderr };
}
