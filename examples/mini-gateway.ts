/**
 * `npm run demo:mini`: the gateway of mini-gateway.yaml at work, with nothing but this machine. It starts three simulated
 * providers (a fast one, a slow one, and one of which every third call fails), writes a config for them, starts the
 * gateway on a free port, sends requests, all at once unless it is told otherwise, and prints who answered, who was refused, and what is measured.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { parse, stringify } from 'yaml';
import { type Simulator, startSimulator } from '../simulator/server.ts';

const STRATEGIES = ['priority', 'weighted', 'round-robin', 'least-latency'];
const KEY = 'sk-demo-123';
const MODEL = 'gpt-mini';
const SAMPLES = 3;
const HELP = `Usage: npm run demo:mini -- [options]

  --strategy <name>   ${STRATEGIES.join(', ')} (default round-robin)
  --requests <n>      how many are sent, 1 to 1000 (default 20)
  --at-once <n>       how many of them at a time (default all)
  --fail-every <n>    which calls of openai-flaky fail (default 3: every third; 1: all, so that its breaker opens)
  --help              show this text
`;

/** How the metrics name each provider and its model, and what it does, in the directives of the simulated model. */
const PROVIDERS = [
  { name: 'vllm-fast', system: 'vllm', model: MODEL, directives: 'latency=20' },
  { name: 'triton-slow', system: 'triton', model: MODEL, directives: 'latency=80' },
  { name: 'openai-flaky', system: 'openai', model: 'gpt-4o-mini', directives: 'latency=50' },
];

/** The states of a target's breaker, by the value of their metric. */
const BREAKER = ['closed', 'closed, but it has failed of late', 'half open', 'open'];

// Who pipes this into `head` reads no further.
process.stdout.on('error', () => process.exit());

try {
  await main();
} catch (error) {
  process.stderr.write(`demo: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      strategy: { type: 'string', default: 'round-robin' },
      requests: { type: 'string', default: '20' },
      'at-once': { type: 'string' },
      'fail-every': { type: 'string', default: '3' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return void process.stdout.write(HELP);
  if (!STRATEGIES.includes(values.strategy)) {
    throw new Error(`--strategy must be one of ${STRATEGIES.join(', ')}, not '${values.strategy}'.`);
  }
  const seen = await demonstrate({
    strategy: values.strategy,
    requests: wholeNumber('--requests', values.requests),
    atOnce: wholeNumber('--at-once', values['at-once'] ?? values.requests),
    failEvery: wholeNumber('--fail-every', values['fail-every']),
  });
  process.stdout.write(report(seen));
}

function wholeNumber(name: string, text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= 1000) return value;
  throw new Error(`${name} must be a whole number from 1 to 1000, not '${text}'.`);
}

interface Demo {
  strategy: string;
  requests: number;
  atOnce: number;
  failEvery: number;
}

/** What came of it. */
interface Seen {
  answers: Answer[];
  seconds: number;
  /** What the gateway measured, as Prometheus reads it. */
  metrics: string;
}

async function demonstrate({ strategy, failEvery, ...load }: Demo): Promise<Seen> {
  const folder = await mkdtemp(join(tmpdir(), 'mini-gateway-'));
  const simulators: Simulator[] = [];
  const urls: Record<string, string> = {};
  let gateway: ChildProcess | undefined;
  try {
    for (const { name, directives } of PROVIDERS) {
      const faults = name === 'openai-flaky' ? `;fail-every=${failEvery}` : '';
      const simulator = await startSimulator({ models: { '*': directives + faults } });
      simulators.push(simulator);
      urls[name] = `${simulator.url}/v1`;
    }
    const file = join(folder, 'mini-gateway.yaml');
    await writeFile(file, await configFor(urls, strategy));
    gateway = startGateway(file);
    const { url, metrics } = await addressesOf(gateway);
    gateway.stderr!.resume();
    process.stdout.write(`Three simulated providers, strategy ${strategy}, gateway at ${url}, config in ${file}\n\n`);
    const startMs = performance.now();
    const answers = await askAll(url, load);
    const seconds = (performance.now() - startMs) / 1000;
    return { answers, seconds, metrics: await (await fetch(metrics)).text() };
  } finally {
    gateway?.kill('SIGTERM');
    if (gateway && gateway.exitCode === null) await once(gateway, 'exit');
    for (const simulator of simulators) await simulator.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/** The example's config with the simulated providers in place of its own, and the strategy for each model. */
async function configFor(urls: Record<string, string>, strategy: string): Promise<string> {
  const text = await readFile(new URL('mini-gateway.yaml', import.meta.url), 'utf8');
  const config = parse(text) as Record<'providers' | 'models', Record<string, Record<string, unknown>>>;
  for (const [name, url] of Object.entries(urls)) config.providers[name]!.baseUrl = url;
  for (const model of Object.values(config.models)) model.strategy = strategy;
  return stringify(config);
}

function startGateway(file: string): ChildProcess {
  const main = join(import.meta.dirname, '../gateway/main.ts');
  const addresses = ['--listen', '127.0.0.1:0', '--metrics', '127.0.0.1:0'];
  return spawn(process.execPath, [main, '--config', file, ...addresses], { stdio: ['ignore', 'ignore', 'pipe'] });
}

/** The gateway says where it listens when it does. */
async function addressesOf(gateway: ChildProcess): Promise<{ url: string; metrics: string }> {
  let said = '';
  for await (const chunk of gateway.stderr!.setEncoding('utf8').iterator({ destroyOnReturn: false })) {
    said += chunk;
    const [, url, metrics] = /listens on (\S+), metrics on (\S+)/.exec(said) ?? [];
    if (url && metrics) return { url, metrics };
  }
  throw new Error(`the gateway did not start: ${said}`);
}

/** Each of those who ask at the same time asks again when it has its answer, until all is asked. */
async function askAll(url: string, { requests, atOnce }: Pick<Demo, 'requests' | 'atOnce'>): Promise<Answer[]> {
  const answers: Answer[] = [];
  let asked = 0;
  const askOn = async () => {
    for (let at = asked++; at < requests; at = asked++) answers[at] = await ask(url, `hello ${at + 1}`);
  };
  await Promise.all(Array.from({ length: atOnce }, askOn));
  return answers;
}

interface Answer {
  status: number;
  text: string;
}

async function ask(url: string, content: string): Promise<Answer> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: MODEL, messages: [{ role: 'user', content }] }),
  });
  return { status: response.status, text: await response.text() };
}

function report({ answers, seconds, metrics }: Seen): string {
  const answered = answers.filter(({ status }) => status === 200);
  const failed = answers.filter(({ status }) => status !== 200 && status !== 429);
  return [
    'Routing decisions:',
    ...PROVIDERS.map((provider) => `  ${provider.name.padEnd(14)} ${decision(metrics, provider)}`),
    `\nAnswered requests: ${answered.length}`,
    `Rate-limited requests: ${answers.length - answered.length - failed.length}`,
    `Failed requests: ${failed.length}`,
    '\nSample responses:',
    ...[...answered.slice(0, SAMPLES), ...failed.slice(0, 1)].map(({ text }) => `  ${text}`),
    `\nElapsed: ${seconds.toFixed(2)} s`,
    `\nMetrics:\n\n${metrics}`,
  ].join('\n');
}

function decision(metrics: string, { name, system, model }: (typeof PROVIDERS)[number]): string {
  const answered = sum(metrics, 'agentgateway_requests_total', [`gen_ai_system="${system}"`, 'status="200"']);
  const failures = sum(metrics, 'wardgate_upstream_errors_total', [`provider="${name}"`]);
  const state = sum(metrics, 'wardgate_target_state', [`provider="${name}"`, `model="${model}"`]);
  return `${answered} answered, ${failures} failed calls, breaker ${BREAKER[state] ?? 'unknown'}`;
}

/** Adds up the series of one name that have all these labels. */
function sum(metrics: string, name: string, labels: string[]): number {
  const series = metrics.split('\n').filter((line) => line.startsWith(`${name}{`));
  const meant = series.filter((line) => labels.every((label) => line.includes(label)));
  return meant.reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' '))), 0);
}
