/**
 * What translation adds: the time to the first token and the CPU of a stream, asked for in one dialect and answered by a
 * vendor's format, against the same stream passed through raw.
 *
 *     npm run bench:translation -- [--streams 300] [--rounds 3]
 *
 * The upstream is the simulated model in a process of its own, which answers at once; the gateway is another, on a core of
 * its own where `taskset` is there. Ways are measured in turn, round by round, so that a slow minute hits all of them.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { stringify } from 'yaml';
import { CLIENTS } from '../failover/clients.ts';
import { freePort } from '../support/free-port.ts';
import { CORES, cpuNs } from './processes.ts';

const WORDS = 100;
const TEXT = `say ${WORDS} words`;

/** A dialect and who answers it; the first is the raw pass-through that the others are compared with. */
const WAYS = [
  { way: 'OpenAI chat → OpenAI (raw)', dialect: 'openai-chat', model: 'openai' },
  { way: 'OpenAI chat → OpenAI, rescue on', dialect: 'openai-chat', model: 'openai-rescued' },
  { way: 'OpenAI chat → Anthropic', dialect: 'openai-chat', model: 'anthropic' },
  { way: 'OpenAI chat → Bedrock', dialect: 'openai-chat', model: 'bedrock' },
  { way: 'OpenAI chat → Gemini', dialect: 'openai-chat', model: 'gemini' },
  { way: 'Anthropic → Anthropic (raw)', dialect: 'anthropic-messages', model: 'anthropic' },
  { way: 'Anthropic → OpenAI', dialect: 'anthropic-messages', model: 'openai' },
  { way: 'Responses → Anthropic', dialect: 'openai-responses', model: 'anthropic' },
] as const;

type Way = (typeof WAYS)[number];

interface Sample {
  firstMs: number[];
  cpuNs: number;
  streams: number;
  events: number;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { streams: { type: 'string', default: '300' }, rounds: { type: 'string', default: '3' } },
  });
  const folder = await mkdtemp(join(tmpdir(), 'wardgate-bench-'));
  const [upstreamPort, port] = [await freePort(), await freePort()];
  const file = join(folder, 'wardgate.yaml');
  await writeFile(file, stringify(configOf(`http://127.0.0.1:${upstreamPort}`)));
  const upstream = run(CORES?.harness, ['simulator/main.ts', '--port', `${upstreamPort}`, '--token-delay', '0']);
  const gateway = run(CORES?.gateway, [
    'gateway/main.ts',
    '--config',
    file,
    '--listen',
    `127.0.0.1:${port}`,
    '--metrics',
    'off',
  ]);
  try {
    await Promise.all([answers(`http://127.0.0.1:${upstreamPort}/health`), answers(`http://127.0.0.1:${port}/health`)]);
    print(await measure(`http://127.0.0.1:${port}`, gateway, Number(values.streams), Number(values.rounds)));
  } finally {
    upstream.kill('SIGKILL');
    gateway.kill('SIGKILL');
    await rm(folder, { recursive: true, force: true });
  }
}

function configOf(url: string): object {
  const aws = { region: 'us-east-1', accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' };
  return {
    log: { level: 'error', access: false },
    providers: {
      openai: { kind: 'openai', baseUrl: `${url}/v1`, key: 'k' },
      anthropic: { kind: 'anthropic', baseUrl: `${url}/v1`, key: 'k' },
      gemini: { kind: 'gemini', baseUrl: `${url}/v1beta`, key: 'k' },
      bedrock: { kind: 'bedrock', baseUrl: url, ...aws },
    },
    models: {
      openai: { provider: 'openai', model: 'sim' },
      anthropic: { provider: 'anthropic', model: 'sim' },
      gemini: { provider: 'gemini', model: 'sim' },
      bedrock: { provider: 'bedrock', model: 'sim' },
      'openai-rescued': {
        targets: [
          { provider: 'openai', model: 'sim' },
          { provider: 'anthropic', model: 'sim' },
        ],
      },
    },
    routes: { '/': {} },
  };
}

function run(core: string | undefined, args: string[]): ChildProcess {
  const command = [process.execPath, '--max-semi-space-size=8', ...args];
  const [program, ...rest] = core === undefined ? command : ['taskset', '-c', core, ...command];
  return spawn(program!, rest, { stdio: 'ignore' });
}

async function answers(url: string): Promise<void> {
  for (;;) {
    if (
      await fetch(url).then(
        ({ ok }) => ok,
        () => false,
      )
    )
      return;
    await sleep(50);
  }
}

async function measure(url: string, gateway: ChildProcess, streams: number, rounds: number): Promise<Map<Way, Sample>> {
  const samples = new Map<Way, Sample>(WAYS.map((way) => [way, { firstMs: [], cpuNs: 0, streams: 0, events: 0 }]));
  for (const way of WAYS) for (let i = 0; i < streams / 3; i += 1) await stream(url, way);
  for (let round = 0; round < rounds; round += 1) {
    for (const [way, sample] of samples) {
      const before = cpuNs([gateway.pid!]) ?? 0;
      for (let i = 0; i < streams; i += 1) {
        const { firstMs, events } = await stream(url, way);
        sample.firstMs.push(firstMs);
        sample.events += events;
      }
      sample.cpuNs += (cpuNs([gateway.pid!]) ?? 0) - before;
      sample.streams += streams;
    }
  }
  return samples;
}

/** One stream: when its first token was there, and how many events it had. */
function stream(url: string, { dialect, model }: Way): Promise<{ firstMs: number; events: number }> {
  const client = CLIENTS[dialect]!;
  const body = JSON.stringify(client.body(model, { text: TEXT, stream: true }));
  return new Promise((done, failed) => {
    const startedAt = performance.now();
    let firstMs = 0;
    let events = 0;
    const asked = request(`${url}${client.path(model, true)}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), ...client.headers },
    });
    asked.on('response', (response) => {
      response.on('data', (chunk: Buffer) => {
        const text = chunk.toString('latin1');
        // The first word is the same in every dialect.
        if (firstMs === 0 && text.includes('w1')) firstMs = performance.now() - startedAt;
        for (let at = text.indexOf('\n\n'); at >= 0; at = text.indexOf('\n\n', at + 2)) events += 1;
      });
      response.on('end', () =>
        response.statusCode === 200 ? done({ firstMs, events }) : failed(new Error(`status ${response.statusCode}`)),
      );
    });
    asked.on('error', failed);
    asked.end(body);
  });
}

function print(samples: Map<Way, Sample>): void {
  const raw = samples.get(WAYS[0])!;
  const rows = [...samples].map(([{ way }, sample]) => ({
    way,
    'first token p50 ms': quantile(sample.firstMs, 0.5).toFixed(2),
    'p99 ms': quantile(sample.firstMs, 0.99).toFixed(2),
    'added p50 ms': (quantile(sample.firstMs, 0.5) - quantile(raw.firstMs, 0.5)).toFixed(2),
    'CPU µs a stream': Math.round(sample.cpuNs / sample.streams / 1000),
    '× raw': (sample.cpuNs / sample.streams / (raw.cpuNs / raw.streams)).toFixed(2),
    'CPU µs an event': (sample.cpuNs / sample.events / 1000).toFixed(1),
  }));
  console.table(rows);
}

function quantile(values: number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
}

await main();
