/**
 * `npm run bench`: gateways side by side on this machine, in one run. Traffic stays on 127.0.0.1.
 *
 * Every round measures every scenario on every gateway in turn, so that a slow minute of the machine hits all of them.
 * The gateway that is measured has a core to itself where `taskset` is there; the others are held by SIGSTOP.
 */
import { type ChildProcess, fork, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { arch, cpus, platform, release, tmpdir, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { GATEWAYS, type Running, servePlugin } from './gateways.ts';
import type { FromLoad, Job, Load } from './load.ts';
import type { FromPluginCalls } from './plugin-calls.ts';
import { CORES, cpuNs, endAllNow, type Held, memoryMb } from './processes.ts';
import { markdown, type PluginCallSample, type Results, type Sample } from './report.ts';
import { type Scenario, scenarios } from './scenarios.ts';

const HERE = dirname(fileURLToPath(import.meta.url));

const HELP = `Measures gateways side by side on this machine.

  npm run bench                      about 10 minutes
  npm run bench -- --quick           about 1 minute: rough figures

Options
  --rounds N         default 3; 1 with --quick
  --seconds S        of each measurement; default 2.5; 0.5 with --quick
  --only A,B         of ${GATEWAYS.map((gateway) => gateway.id).join(', ')}
  --scenarios A,B    of ${scenarios(1, 1)
    .map((scenario) => scenario.id)
    .join(', ')}, plugin-calls
  --out FILE         without suffix; default test/bench/results/latest; FILE.json and FILE.md are written
`;

/** No measurement is begun so many milliseconds after the first, however slow the machine. */
const LIMIT_MS = { full: 10.5 * 60_000, quick: 65_000 };

interface Options {
  rounds: number;
  seconds: number;
  quick: boolean;
  only: string[] | undefined;
  scenarios: Scenario[];
  pluginCalls: boolean;
  out: string;
}

/** What everything is measured with. */
interface Rig {
  upstream: ChildProcess;
  load: ChildProcess;
  upstreamPort: number;
  folder: string;
}

/** What is measured: a gateway, or the upstream itself. */
type Target = Pick<Running, 'port' | 'headers' | 'processes'> & { id: string };

async function main(): Promise<void> {
  const options = readOptions();
  if (CORES) spawnSync('taskset', ['-cp', CORES.harness, String(process.pid)]);
  const folder = mkdtempSync(join(tmpdir(), 'wardgate-bench-'));
  process.on('exit', () => {
    endAllNow();
    rmSync(folder, { recursive: true, force: true });
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1));
  const upstream = fork(join(HERE, 'upstream.ts'));
  const [{ port: upstreamPort }] = (await once(upstream, 'message')) as [{ port: number }];
  const rig: Rig = { upstream, load: fork(join(HERE, 'load.ts')), upstreamPort, folder };
  const stopped = (code: number | null) => {
    say(`a part of the bench stopped (${code})`);
    process.exit(1);
  };
  for (const child of [rig.upstream, rig.load]) child.on('exit', stopped);
  const results = emptyResults(options);
  const targets = await startTargets(rig, options, results);
  await rounds(rig, options, targets, results);
  for (const target of targets) await Promise.all(target.processes.map((held) => held.end()));
  for (const child of [rig.upstream, rig.load]) child.off('exit', stopped).disconnect();
  write(options.out, results);
}

function readOptions(): Options {
  const string = { type: 'string' } as const;
  const boolean = { type: 'boolean' } as const;
  const { values } = parseArgs({
    options: {
      rounds: string,
      seconds: string,
      only: string,
      scenarios: string,
      out: string,
      quick: boolean,
      help: { ...boolean, short: 'h' },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    process.exit(0);
  }
  const quick = values.quick ?? false;
  const seconds = number('--seconds', values.seconds ?? (quick ? '0.5' : '2.5'), 60);
  const all = scenarios(seconds, seconds < 0.5 ? 0.1 : 1);
  const wanted = list('--scenarios', values.scenarios, [...all.map((one) => one.id), 'plugin-calls']);
  const ids = GATEWAYS.map((gateway) => gateway.id);
  return {
    rounds: number('--rounds', values.rounds ?? (quick ? '1' : '3'), 20),
    seconds,
    quick,
    only: list('--only', values.only, ids),
    scenarios: all.filter((scenario) => wanted === undefined || wanted.includes(scenario.id)),
    pluginCalls: wanted === undefined || wanted.includes('plugin-calls'),
    out: values.out ?? join(HERE, 'results/latest'),
  };
}

function number(option: string, text: string, most: number): number {
  const value = Number(text);
  if (!(value > 0 && value <= most)) throw new Error(`${option} wants a number up to ${most}, not ${text}`);
  return value;
}

function list(option: string, text: string | undefined, known: string[]): string[] | undefined {
  const names = text?.split(',');
  const strange = names?.find((name) => !known.includes(name));
  if (strange !== undefined) throw new Error(`${option} knows ${known.join(', ')}, not ${strange}`);
  return names;
}

function emptyResults({ rounds, seconds, quick }: Options): Results {
  const processor = cpus()[0]?.model.trim() ?? 'unknown';
  const memoryGb = Math.round(totalmem() / 1024 ** 3);
  return {
    date: new Date().toISOString().slice(0, 16).replace('T', ' ').concat(' UTC'),
    machine: {
      processor,
      cores: cpus().length,
      memoryGb,
      system: `${platform()} ${release()} ${arch()}`,
      pinned: CORES !== undefined,
    },
    versions: { 'Node.js': process.version },
    settings: { rounds, seconds, quick },
    absent: {},
    titles: { direct: 'no gateway', ...Object.fromEntries(GATEWAYS.map(({ id, title }) => [id, title])) },
    scenarios: {},
    pluginCalls: {},
  };
}

/** Starts every gateway, warms it up, and holds it. What cannot be had is noted, and the run goes on without. */
async function startTargets(rig: Rig, options: Options, results: Results): Promise<Target[]> {
  const targets: Target[] = [{ id: 'direct', port: rig.upstreamPort, headers: {}, processes: [] }];
  for (const { id, title, start } of GATEWAYS) {
    if (options.only !== undefined && !options.only.includes(id)) continue;
    const folder = mkdtempSync(join(rig.folder, `${id}-`));
    try {
      const running = await start({ folder, upstreamPort: rig.upstreamPort });
      targets.push({ ...running, id });
      results.versions[running.name] = running.version;
      say(`${title}: started`);
    } catch (error) {
      results.absent[id] = (error as Error).message;
      say(`${title}: absent: ${(error as Error).message}`);
      continue;
    }
    for (const scenario of options.scenarios.filter(({ kind }) => kind === 'whole' || kind === 'stream')) {
      await warm(rig, targets.at(-1)!, scenario, Math.min(options.seconds / 2, 1.5));
    }
    await hold(targets.at(-1)!);
  }
  return targets;
}

async function rounds(rig: Rig, options: Options, targets: Target[], results: Results): Promise<void> {
  const limit = performance.now() + (options.quick ? LIMIT_MS.quick : LIMIT_MS.full);
  for (let round = 1; round <= options.rounds; round++) {
    if (options.pluginCalls) await measurePluginCalls(rig, options.seconds, results);
    for (const scenario of options.scenarios) {
      for (const target of targets) {
        if (performance.now() > limit) {
          results.cutShort = `The time was up in round ${round}, at ${scenario.id}: the rest was not measured.`;
          return say(results.cutShort);
        }
        const sample = await measure(rig, target, scenario, options.seconds);
        keep(results, scenario, target.id, sample);
        say(
          `round ${round}/${options.rounds}  ${scenario.id.padEnd(14)} ${target.id.padEnd(17)} ${inShort(scenario, sample)}`,
        );
      }
    }
  }
}

/** Load that is not measured: compiles hot code at the start, and wakes a process that was held. */
async function warm(rig: Rig, target: Target, { body, load }: Scenario, seconds: number): Promise<void> {
  const less = { connections: Math.min(load.connections, 16), rampSeconds: 0, warmSeconds: 0, once: false };
  const quick = body.replace(/bench n=\d+ m=\d+/, 'bench n=20 m=0');
  await run(rig, target, { ...load, ...less, body: quick, seconds });
}

async function measure(rig: Rig, target: Target, scenario: Scenario, seconds: number): Promise<Sample> {
  for (const held of target.processes) held.resume();
  await sleep(30);
  await warm(rig, target, scenario, Math.min(seconds / 8, 0.4));
  if (scenario.load.once) await dropConnections(rig);
  const sample = await run(rig, target, { ...scenario.load, body: scenario.body });
  await hold(target);
  return sample;
}

/** So that a burst finds no connection open, whoever came before. */
async function dropConnections({ upstream }: Rig): Promise<void> {
  upstream.send('drop');
  await once(upstream, 'message');
  await sleep(100);
}

async function run(rig: Rig, target: Target, job: Omit<Job, 'port' | 'path' | 'headers'>): Promise<Sample> {
  const { port, headers, processes } = target;
  const gateway = processes.map((held) => held.child.pid!);
  const harness = [rig.upstream.pid!, rig.load.pid!];
  const used = () => ({ gateway: gateway.length > 0 ? cpuNs(gateway) : undefined, harness: cpuNs(harness) });
  rig.load.send({ ...job, port, headers, path: '/v1/chat/completions' } satisfies Job);
  await heard(rig.load, 'begin');
  const before = used();
  const { load } = (await heard(rig.load, 'end')) as { at: 'end'; load: Load };
  const after = used();
  const memory = gateway.length > 0 ? memoryMb(gateway) : undefined;
  rig.load.send('close');
  await heard(rig.load, 'closed');
  const per = (count: number) => perCount(before.gateway, after.gateway, count);
  return {
    ...load,
    cpuPerRequest: job.stream ? undefined : per(load.requests),
    cpuPerEvent: job.stream ? per(load.events) : undefined,
    memoryMb: memory,
    harness: perCount(before.harness, after.harness, load.seconds * 1e6),
  };
}

/** Microseconds for each. */
function perCount(before: number | undefined, after: number | undefined, count: number): number | undefined {
  return before === undefined || after === undefined || count === 0 ? undefined : (after - before) / 1000 / count;
}

async function heard(child: ChildProcess, at: string): Promise<FromLoad | FromPluginCalls> {
  const [message] = (await once(child, 'message')) as [FromLoad | FromPluginCalls];
  if (message.at !== at) throw new Error(`the bench is out of step: ${message.at} in place of ${at}`);
  return message;
}

/** Lets what is left over from dropped connections finish, for up to two seconds, then holds the processes. */
async function hold(target: Target): Promise<void> {
  const pids = target.processes.map((held) => held.child.pid!);
  for (let i = 0; i < 20 && pids.length > 0; i++) {
    const before = cpuNs(pids) ?? 0;
    await sleep(100);
    if ((cpuNs(pids) ?? 0) - before < 5e6) break;
  }
  for (const held of target.processes) held.hold();
}

function keep(results: Results, { id, title, kind }: Scenario, gateway: string, sample: Sample): void {
  results.scenarios[id] ??= { title, kind, gateways: {} };
  const { gateways } = results.scenarios[id];
  gateways[gateway] = [...(gateways[gateway] ?? []), sample];
}

/** What one plugin call costs on either side, in process and by the ways of our own contract. */
async function measurePluginCalls(rig: Rig, seconds: number, results: Results): Promise<void> {
  const service = await servePlugin('./test/bench/allow.ts', rig.folder);
  const ways = {
    'in process': 'local:allow',
    'gRPC, one session': service.grpcUrl,
    'HTTP/1.1 with JSON': service.httpUrl,
  };
  for (const [way, at] of Object.entries(ways)) {
    const sample = await pluginCalls(at, Math.min(seconds, 2), service.process);
    results.pluginCalls[way] = [...(results.pluginCalls[way] ?? []), sample];
    say(
      `plugin call  ${way.padEnd(20)} ${sample.caller?.toFixed(1) ?? '–'} + ${sample.plugin?.toFixed(1) ?? '–'} µs of CPU`,
    );
  }
  await service.process.end();
}

async function pluginCalls(at: string, seconds: number, service: Held): Promise<PluginCallSample> {
  const caller = fork(join(HERE, 'plugin-calls.ts'));
  const isRemote = !at.startsWith('local:');
  caller.send({ at, seconds });
  const used = () => ({ caller: cpuNs([caller.pid!]), plugin: isRemote ? cpuNs([service.child.pid!]) : undefined });
  await heard(caller, 'begin');
  const before = used();
  const { calls } = (await heard(caller, 'end')) as { at: 'end'; calls: number };
  const after = used();
  caller.disconnect();
  return {
    caller: perCount(before.caller, after.caller, calls),
    plugin: perCount(before.plugin, after.plugin, calls),
  };
}

function inShort({ kind }: Scenario, sample: Sample): string {
  const { latency, firstByte, late, cpuPerRequest, cpuPerEvent, memoryMb: memory, errors, firstError } = sample;
  const parts = {
    latency: `p50 ${latency?.p50.toFixed(2)} ms`,
    whole: `${Math.round(sample.requests / sample.seconds)} requests/s`,
    'first-byte': `first byte ${firstByte?.p50.toFixed(2)} ms`,
    stream: `${Math.round(sample.events / sample.seconds)} events/s`,
    paced: `late ${late?.p50.toFixed(2)} ms`,
    burst: `first byte ${firstByte?.p50.toFixed(1)} ms`,
    memory: `${memory?.toFixed(0) ?? '–'} MB`,
  };
  const cpu = cpuPerRequest ?? cpuPerEvent;
  const faults = errors > 0 ? `  ${errors} faults: ${firstError}` : '';
  return `${parts[kind].padStart(18)}${cpu === undefined ? '' : `  ${cpu.toFixed(1)} µs CPU each`}${faults}`;
}

function write(out: string, results: Results): void {
  mkdirSync(dirname(out), { recursive: true });
  const text = markdown(results);
  writeFileSync(`${out}.json`, `${JSON.stringify(results, rounded, 2)}\n`);
  writeFileSync(`${out}.md`, text);
  process.stdout.write(`${text}\nWritten: ${out}.json and ${out}.md\n`);
}

/** Three digits after the point are more than a bench knows. */
function rounded(_key: string, value: unknown): unknown {
  return typeof value === 'number' ? Math.round(value * 1000) / 1000 : value;
}

function say(line: string): void {
  process.stderr.write(`bench: ${line}\n`);
}

main().catch((error: Error) => {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exit(1);
});
