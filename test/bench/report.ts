/** The results as they are kept (JSON) and as they are read (Markdown). */

import type { Load } from './load.ts';
import type { Scenario } from './scenarios.ts';

/** One measurement. */
export interface Sample extends Load {
  /** Microseconds of CPU of all the gateway's processes, per request, and per event where events are what counts. */
  cpuPerRequest?: number;
  cpuPerEvent?: number;
  memoryMb?: number;
  /** What upstream and client used of one core: near 1 they are the limit, not the gateway. */
  harness?: number;
}

/** Microseconds of CPU for one plugin call. */
export interface PluginCallSample {
  caller?: number;
  plugin?: number;
}

export interface Results {
  date: string;
  machine: { processor: string; cores: number; memoryGb: number; system: string; pinned: boolean };
  versions: Record<string, string>;
  settings: { rounds: number; seconds: number; quick: boolean };
  /** Says what is missing when the machine was too slow for all of it. */
  cutShort?: string;
  /** Why a gateway is missing. */
  absent: Record<string, string>;
  titles: Record<string, string>;
  /** By scenario, then by gateway: a sample of each round. */
  scenarios: Record<string, { title: string; kind: Scenario['kind']; gateways: Record<string, Sample[]> }>;
  /** By way: a sample of each round. */
  pluginCalls: Record<string, PluginCallSample[]>;
}

interface Column {
  title: string;
  of(sample: Sample): number | undefined;
}

const CPU_REQUEST: Column = { title: 'CPU µs/request', of: (sample) => sample.cpuPerRequest };
const CPU_EVENT: Column = { title: 'CPU µs/event', of: (sample) => sample.cpuPerEvent };
const FIRST_50: Column = { title: 'first byte p50 ms', of: (sample) => sample.firstByte?.p50 };
const FIRST_99: Column = { title: 'first byte p99 ms', of: (sample) => sample.firstByte?.p99 };
const LATENCY_50: Column = { title: 'p50 ms', of: (sample) => sample.latency?.p50 };
const LATENCY_99: Column = { title: 'p99 ms', of: (sample) => sample.latency?.p99 };
const MEMORY: Column = { title: 'memory MB', of: (sample) => sample.memoryMb };
const FAULTS: Column = { title: 'faults', of: (sample) => sample.errors };
const HARNESS: Column = { title: 'rig’s core', of: (sample) => sample.harness };

/** What a kind of scenario shows. `added`: also as the difference to no gateway; `ratio`: also as a multiple of nginx. */
const TABLES: Record<Scenario['kind'], { columns: Column[]; added?: Column[]; ratio?: Column }> = {
  latency: { columns: [LATENCY_50, LATENCY_99, FAULTS], added: [LATENCY_50, LATENCY_99] },
  whole: {
    columns: [
      { title: 'requests/s', of: (sample) => sample.requests / sample.seconds },
      LATENCY_50,
      LATENCY_99,
      CPU_REQUEST,
      HARNESS,
      FAULTS,
    ],
    ratio: CPU_REQUEST,
  },
  'first-byte': { columns: [FIRST_50, FIRST_99, FAULTS], added: [FIRST_50, FIRST_99] },
  stream: {
    columns: [
      { title: 'events/s', of: (sample) => sample.events / sample.seconds },
      FIRST_50,
      CPU_EVENT,
      HARNESS,
      FAULTS,
    ],
    ratio: CPU_EVENT,
  },
  paced: {
    columns: [
      { title: 'events late p50 ms', of: (sample) => sample.late?.p50 },
      { title: 'p99 ms', of: (sample) => sample.late?.p99 },
      FIRST_50,
      CPU_EVENT,
      MEMORY,
      HARNESS,
      FAULTS,
    ],
    ratio: CPU_EVENT,
  },
  burst: {
    columns: [FIRST_50, FIRST_99, { title: 'all done after s', of: (sample) => sample.seconds }, FAULTS],
    added: [FIRST_50, FIRST_99],
  },
  memory: { columns: [MEMORY, { title: 'events late p99 ms', of: (sample) => sample.late?.p99 }, FAULTS] },
};

/** The results as Markdown: medians of the rounds. */
export function markdown(results: Results): string {
  const { date, machine, settings, absent, titles } = results;
  const versions = Object.entries(results.versions).map(([name, version]) => `${name} ${version}`);
  const missing = Object.entries(absent).map(([id, reason]) => `- ${titles[id]} is absent: ${reason}`);
  const sections = Object.values(results.scenarios).map((scenario) => table(scenario, titles));
  return [
    '# Side by side',
    '',
    `${date} · ${machine.processor}, ${machine.cores} cores, ${machine.memoryGb} GB · ${machine.system}`,
    '',
    `${versions.join(' · ')}`,
    '',
    `Medians of ${settings.rounds} interleaved rounds of ${settings.seconds} s. ${
      machine.pinned
        ? 'Each gateway had one core to itself; upstream, client and driver shared the others.'
        : 'Nothing was pinned to a core (no `taskset`, or one core): read the figures as rough.'
    } While one was measured the others were held. “× nginx” is against nginx in this same run; “added” is against no gateway at all. Where the rig’s core is near 1 the rig was the limit, not the gateway. CPU is counted over all processes of a gateway${
      machine.system.startsWith('linux') ? '' : ' on Linux only'
    }.`,
    '',
    'Every prompt has four personal data in each KB, so the guarded gateways mask while the others pass it on.',
    ...(missing.length > 0 ? ['', ...missing] : []),
    ...(results.cutShort ? ['', results.cutShort] : []),
    ...sections.flatMap((section) => ['', ...section]),
    ...pluginTable(results.pluginCalls),
    '',
  ].join('\n');
}

function table(scenario: Results['scenarios'][string], titles: Record<string, string>): string[] {
  const { columns, added = [], ratio } = TABLES[scenario.kind];
  const medians = (id: string, column: Column) => median((scenario.gateways[id] ?? []).map(column.of));
  const row = (id: string) => [
    titles[id] ?? id,
    ...columns.map((column) => figure(medians(id, column))),
    ...added.map((column) => figure(minus(medians(id, column), medians('direct', column)))),
    ...(ratio ? [figure(over(medians(id, ratio), medians('nginx', ratio)))] : []),
  ];
  const head = [
    '',
    ...columns.map((column) => column.title),
    ...added.map((column) => `added ${column.title}`),
    ...(ratio ? [`${ratio.title.split(' ')[0]} × nginx`] : []),
  ];
  return [`## ${scenario.title}`, '', ...rows([head, ...Object.keys(scenario.gateways).map(row)])];
}

function pluginTable(calls: Results['pluginCalls']): string[] {
  if (Object.keys(calls).length === 0) return [];
  const body = Object.entries(calls).map(([way, samples]) => {
    const caller = median(samples.map((sample) => sample.caller));
    const plugin = median(samples.map((sample) => sample.plugin));
    return [way, figure(caller), figure(plugin)];
  });
  const head = ['', 'gateway’s side, CPU µs/call', 'plugin’s side, CPU µs/call'];
  return ['', '## A plugin call with 1 KB of text, 32 at a time', '', ...rows([head, ...body])];
}

/** A table as the formatter writes it, figures to the right. */
function rows(lines: string[][]): string[] {
  const widths = lines[0]!.map((_, i) => Math.max(3, ...lines.map((cells) => cells[i]!.length)));
  const pad = (cell: string, i: number) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!));
  const rule = widths.map((width, i) => (i === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`));
  const [head, ...body] = lines.map((cells) => cells.map(pad));
  return [head!, rule, ...body].map((cells) => `| ${cells.join(' | ')} |`);
}

function median(values: (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined).sort((a, b) => a - b);
  const middle = known.length >> 1;
  return known.length % 2 === 1 || known.length === 0 ? known[middle] : (known[middle - 1]! + known[middle]!) / 2;
}

function minus(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a - b;
}

function over(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || !b ? undefined : a / b;
}

function figure(value: number | undefined): string {
  if (value === undefined) return '–';
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString('en-US');
  return Number.isInteger(value) ? String(value) : value.toFixed(size >= 10 ? 1 : 2);
}
