/**
 * `npm run bench:decisions`: what it costs to know who asks and whether they may, in process and over one gRPC session.
 *
 * CPU is that of the gateway's side and of the plugin's own process, with eight questions under way; p50 is the time of
 * one question at a time, which is what a request waits for. OpenFGA and OPA are asked when OPENFGA_URL and OPA_URL say
 * where they are.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { arch, cpus, platform, release, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { connect } from '../../gateway/connect/connect.ts';
import type { Connection, HookInput } from '../../gateway/connect/connection.ts';
import { apiKeyAuth } from '../../plugins/api-key-auth/plugin.ts';
import { celAuthz } from '../../plugins/cel-authz/plugin.ts';
import { oidcAuth } from '../../plugins/oidc-auth/plugin.ts';
import { opaAuthz } from '../../plugins/opa-authz/plugin.ts';
import { openfgaAuthz } from '../../plugins/openfga-authz/plugin.ts';
import type { PluginFactory, RequestFacts } from '../../proto/contract.ts';
import { startIssuer, type TestIssuer } from '../support/issuer.ts';
import { servePlugin } from './gateways.ts';
import { cpuNs, endAllNow } from './processes.ts';

const HERE = dirname(fileURLToPath(import.meta.url));
const ROOT = join(HERE, '../..');
const AT_ONCE = 8;
/** Tokens that are brought once each; more would take longer to sign than to verify. */
const TOKENS = 3_000;

/** One question, again and again. */
interface Case {
  title: string;
  factory: PluginFactory;
  config: unknown;
  hook: 'authenticate' | 'authorize';
  /** The question with this number; undefined when there are no more that are new. */
  input(i: number): HookInput['authenticate' | 'authorize'] | undefined;
}

interface Figures {
  title: string;
  way: string;
  /** Microseconds of CPU for one question. */
  gateway: number;
  plugin: number | undefined;
  /** Milliseconds of one question at a time. */
  p50: number;
  asked: number;
}

const facts: RequestFacts = {
  id: 'bench',
  method: 'POST',
  path: '/v1/chat/completions',
  route: '/',
  model: 'gpt-4o',
  identity: { subject: 'alice', username: 'alice', roles: ['supply-chain'], groups: ['acme-eng'] },
};
const model = { request: facts, action: 'model.use' as const, resources: [{ type: 'model' as const, name: 'gpt-4o' }] };

function withBearer(token: string): HookInput['authenticate'] {
  return { request: { ...facts, identity: undefined, headers: { authorization: `Bearer ${token}` } } };
}

async function cases(issuer: TestIssuer): Promise<Case[]> {
  const tokens: string[] = [];
  for (let i = 0; i < TOKENS; i += 1) tokens.push(await issuer.token({ aud: 'gateway', sub: `person-${i}` }));
  const oidc = { issuers: [{ issuer: issuer.url, audience: 'gateway' }] };
  const remembered = withBearer(tokens[0]!);
  const keys = { keys: [{ key: 'sk-a-long-and-random-key', subject: 'jo' }] };
  const rules = { rules: [{ name: 'chain', allow: 'identity != null && "supply-chain" in identity.roles' }] };
  return [
    {
      title: 'authenticate: a token, remembered (oidc-auth)',
      factory: oidcAuth,
      config: oidc,
      hook: 'authenticate',
      input: () => remembered,
    },
    {
      title: 'authenticate: a token, first time (oidc-auth)',
      factory: oidcAuth,
      config: oidc,
      hook: 'authenticate',
      input: (i) => (i < TOKENS ? withBearer(tokens[i]!) : undefined),
    },
    {
      title: 'authenticate: an API key (api-key-auth)',
      factory: apiKeyAuth,
      config: keys,
      hook: 'authenticate',
      input: () => withBearer('sk-a-long-and-random-key'),
    },
    {
      title: 'authorize: a CEL rule (cel-authz)',
      factory: celAuthz,
      config: rules,
      hook: 'authorize',
      input: () => model,
    },
    ...openfgaCases(),
    ...(await opaCases()),
  ];
}

function openfgaCases(): Case[] {
  const apiUrl = process.env.OPENFGA_URL;
  if (apiUrl === undefined) return absent('OPENFGA_URL');
  const store = `bench-${process.pid}`;
  const seed = [
    join(ROOT, 'plugins/openfga-authz/seed.ts'),
    `--api-url=${apiUrl}`,
    `--store=${store}`,
    `--model=${join(ROOT, 'deploy/openfga/model.json')}`,
    `--tuples=${join(ROOT, 'deploy/openfga/tuples.yaml')}`,
  ];
  const seeded = spawnSync(process.execPath, seed, { encoding: 'utf8' });
  if (seeded.status !== 0) throw new Error(`OpenFGA could not be seeded: ${seeded.stderr}`);
  const base = { factory: openfgaAuthz, hook: 'authorize' as const };
  // Questions that are the same at the same time share one answer.
  const other = (i: number) => ({ ...model, resources: [{ type: 'model' as const, name: `model-${i % 1_000}` }] });
  return [
    { ...base, title: 'authorize: OpenFGA, remembered (openfga-authz)', config: { apiUrl, store }, input: () => model },
    {
      ...base,
      title: 'authorize: OpenFGA, each time (openfga-authz)',
      config: { apiUrl, store, cache: false },
      input: other,
    },
  ];
}

async function opaCases(): Promise<Case[]> {
  const url = process.env.OPA_URL;
  if (url === undefined) return absent('OPA_URL');
  const policy = 'package bench\nallow if "supply-chain" in input.identity.roles\n';
  await fetch(`${url}/v1/policies/bench`, { method: 'PUT', body: policy });
  const config = { url, path: 'bench/allow' };
  return [
    {
      title: 'authorize: OPA, each time (opa-authz)',
      factory: opaAuthz,
      config,
      hook: 'authorize',
      input: () => model,
    },
  ];
}

function absent(name: string): [] {
  process.stderr.write(`bench: ${name} is not set: not measured\n`);
  return [];
}

/** Asks for this long, or until nothing is new; answers how many and how much CPU. */
async function measure(connection: Connection, { hook, input }: Case, seconds: number, pids: number[]) {
  const used = () => ({ gateway: process.cpuUsage(), plugin: pids.length > 0 ? cpuNs(pids) : undefined });
  const until = performance.now() + seconds * 1000;
  let asked = 0;
  const before = used();
  const one = async () => {
    while (performance.now() < until) {
      const question = input(asked);
      if (question === undefined) return;
      asked += 1;
      await connection.ask(hook, question as never);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
  const { user, system } = process.cpuUsage(before.gateway);
  const plugin = before.plugin === undefined ? undefined : (used().plugin! - before.plugin) / 1000 / asked;
  return { asked, gateway: (user + system) / asked, plugin };
}

async function p50(connection: Connection, { hook, input }: Case, from: number): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < 300; i += 1) {
    const question = input(from + i);
    if (question === undefined) break;
    const startedAt = performance.now();
    await connection.ask(hook, question as never);
    times.push(performance.now() - startedAt);
  }
  return times.sort((a, b) => a - b)[times.length >> 1] ?? Number.NaN;
}

async function run(one: Case, way: string, seconds: number, folder: string): Promise<Figures> {
  const service = way === 'in process' ? undefined : await servePlugin(one.factory.name, folder);
  const at = service?.grpcUrl ?? `local:${one.factory.name}`;
  const log = { info() {}, warn() {} };
  const endpoint = { name: 'bench', at, config: one.config, baseDir: '.', options: {}, log };
  const connection = await connect(endpoint, { [one.factory.name]: one.factory });
  try {
    // The first questions fetch keys, open connections and compile; where each is new, they come from the far end.
    const isNew = one.input(TOKENS) === undefined;
    const waited = await p50(connection, one, isNew ? TOKENS - 300 : 0);
    const pids = service === undefined ? [] : [service.process.child.pid!];
    const warm: Case = isNew
      ? { ...one, input: (i) => (i < TOKENS / 4 ? one.input(TOKENS - 301 - i) : undefined) }
      : one;
    await measure(connection, warm, seconds / 4, pids);
    const most = isNew ? TOKENS / 2 : Number.POSITIVE_INFINITY;
    const fresh: Case = { ...one, input: (i) => (i < most ? one.input(i) : undefined) };
    const figures = await measure(connection, fresh, seconds, pids);
    return { title: one.title, way, p50: waited, ...figures };
  } finally {
    await connection.close();
    await service?.process.end();
  }
}

const HEAD = ['question', 'way', 'gateway’s CPU µs', 'plugin’s CPU µs', 'p50 µs', 'asked'];
/** The first of the columns that hold figures. */
const FIGURES = 2;

/** Markdown as the formatter writes it. */
function table(all: Figures[]): string {
  const rows = all.map(({ title, way, gateway, plugin, p50: waited, asked }) => [
    title,
    way,
    gateway.toFixed(1),
    plugin?.toFixed(1) ?? '',
    (waited * 1000).toFixed(0),
    String(asked),
  ]);
  const widths = HEAD.map((head, i) => Math.max(head.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: string[]) =>
    `| ${cells.map((cell, i) => (i < FIGURES ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join(' | ')} |`;
  const rule = widths.map((width, i) => (i < FIGURES ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`));
  return [line(HEAD), line(rule), ...rows.map(line)].join('\n');
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { seconds: { type: 'string', default: '2' }, out: { type: 'string' } } });
  const folder = mkdtempSync(join(tmpdir(), 'wardgate-bench-'));
  process.on('exit', () => {
    endAllNow();
    rmSync(folder, { recursive: true, force: true });
  });
  await using issuer = await startIssuer();
  const all: Figures[] = [];
  for (const one of await cases(issuer)) {
    for (const way of ['in process', 'gRPC, one session']) {
      all.push(await run(one, way, Number(values.seconds), folder));
      process.stderr.write(`bench: ${one.title}, ${way}\n`);
    }
  }
  const machine = `${cpus()[0]?.model.trim()}, ${cpus().length} cores, ${platform()} ${release()} ${arch()}, Node.js ${process.version}`;
  const date = new Date().toISOString().slice(0, 16).replace('T', ' ');
  const text = `# Who asks, and may they\n\n${date} UTC · ${machine}\n\n${AT_ONCE} questions under way for the CPU, one at a time for p50. The plugin’s CPU over gRPC is that of its own process.\n\n${table(all)}\n`;
  writeFileSync(values.out ?? join(HERE, 'results/decisions.md'), text);
  process.stdout.write(`${text}\n`);
  process.exit(0);
}

main().catch((error: Error) => {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exit(1);
});
