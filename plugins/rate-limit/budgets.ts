/** The command line for what has been used: show and reset the counts of limits and budgets in Redis. */
import { parseArgs } from 'node:util';
import { durationMs } from '../../proto/config.ts';
import { duration } from '../quota/fields.ts';
import { inWords } from '../quota/words.ts';
import { RedisLink } from '../redis/link.ts';
import { Engine, type Meter, SCRIPTS } from './engine.ts';
import { NANO_USD } from './money.ts';

const HELP = `Shows what has been used of limits and budgets, and resets it. The counts are kept in Redis.

  npm run -s budgets -- show [which] [--json]     what is used, what is left, and when it comes back
  npm run -s budgets -- reset which [--json]      nothing is used any more; answers under way are charged when they end

Without npm: node plugins/rate-limit/budgets.ts show …

Which counts (several narrow it down; reset wants one at least)
  --key ID              of this API key, by the id that \`npm run keys -- list\` shows
  --subject WHO         of this person or program
  --limit NAME          of this limit, such as key-budget-usd
  --part NAME=VALUE     of another part of \`per\`, such as tenant=acme or model=gpt-4o
  --all                 all of them

Options of both
  --redis URL           default redis://localhost:6379                     environment: REDIS_URL
  --prefix TEXT         what the plugin's config has; default {wardgate}:limit:
  --timeout 5s          how long Redis may take for each answer
  --json                print JSON
  --help                this text

Exit codes: 0 done, 1 it failed, 2 the command was not understood, 3 there is no such count.
`;

const string = { type: 'string' } as const;
const boolean = { type: 'boolean' } as const;
const OPTIONS = {
  key: string,
  subject: string,
  limit: string,
  part: { type: 'string', multiple: true },
  all: boolean,
  redis: string,
  prefix: string,
  timeout: string,
  json: boolean,
  help: { type: 'boolean', short: 'h' },
} as const;

type Options = ReturnType<typeof readArguments>['values'];

/** The command cannot be understood: exit code 2. */
class Misuse extends Error {}

/** One count as it is shown. Money is in dollars. */
interface Row {
  limit: string;
  who: string;
  unit: string;
  used: number;
  reserved: number;
  max: number;
  left: number;
  /** Milliseconds until nothing is used any more. */
  wholeInMs: number;
}

/** A name in Redis, taken apart: the limit, and whom it counts. */
interface Name {
  key: string;
  limit: string;
  parts: Map<string, string>;
}

async function main(): Promise<number> {
  const { values: options, positionals } = readArguments();
  if (options.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const [command, ...more] = positionals;
  if (command !== 'show' && command !== 'reset') throw new Misuse('Say what to do: show or reset. --help tells more.');
  if (more.length > 0) throw new Misuse(`${command} does not want that many words.`);
  const wanted = partsOf(options);
  if (command === 'reset' && wanted.size === 0 && options.limit === undefined && !options.all) {
    throw new Misuse('Say which: --key, --subject, --limit, --part, or --all.');
  }
  const link = await open(options);
  try {
    return await run(link, command, options, wanted);
  } finally {
    link.close();
  }
}

async function run(link: RedisLink, command: 'show' | 'reset', options: Options, wanted: Map<string, string>) {
  const { prefix = '{wardgate}:limit:' } = options;
  const names = (await allNames(link, prefix)).filter(
    ({ limit, parts }) =>
      (options.limit ?? limit) === limit && [...wanted].every(([part, value]) => parts.get(part) === value),
  );
  const rows = await rowsOf(link, prefix, names);
  if (command === 'reset') {
    for (const { key } of names) await link.send('DEL', prefix + key, `${prefix + key}:log`, `${prefix + key}:held`);
  }
  if (options.json) process.stdout.write(`${JSON.stringify(rows, null, 2)}\n`);
  else if (rows.length > 0) process.stdout.write(table(rows));
  if (rows.length === 0) process.stderr.write('Nothing has been used of such a limit.\n');
  else if (command === 'reset') process.stderr.write(`Reset: ${rows.length}. The figures are those from before.\n`);
  return rows.length === 0 ? 3 : 0;
}

function readArguments() {
  try {
    return parseArgs({ allowPositionals: true, options: OPTIONS });
  } catch (error) {
    throw new Misuse((error as Error).message.split('\n')[0]);
  }
}

function partsOf({ key, subject, part = [] }: Options): Map<string, string> {
  const parts = new Map<string, string>();
  if (key !== undefined) parts.set('key', key);
  if (subject !== undefined) parts.set('identity', subject);
  for (const one of part) {
    const at = one.indexOf('=');
    if (at < 1) throw new Misuse('--part wants NAME=VALUE, such as tenant=acme.');
    parts.set(one.slice(0, at), one.slice(at + 1));
  }
  return parts;
}

async function open({ redis, timeout = '5s' }: Options): Promise<RedisLink> {
  const url = URL.parse(redis || process.env.REDIS_URL || 'redis://localhost:6379');
  if (url === null || !/^rediss?:$/.test(url.protocol)) throw new Misuse('--redis wants redis:// or rediss://.');
  if (!duration.safeParse(timeout).success) throw new Misuse('--timeout wants a number and its unit, such as 5s.');
  const link = new RedisLink({ urls: [url.href], deadlineMs: durationMs(timeout), maxInFlight: 100 });
  await link.tried;
  if (link.up) return link;
  link.close();
  // The URL may hold a password.
  throw new Error(`No primary Redis answers at ${url.host}. Start it, or name another with --redis.`);
}

async function allNames(link: RedisLink, prefix: string): Promise<Name[]> {
  const pattern = `${prefix.replace(/[\\*?[\]]/g, '\\$&')}*`;
  const found = new Set<string>();
  let cursor = '0';
  do {
    const [next, keys] = (await link.send('SCAN', cursor, 'MATCH', pattern, 'COUNT', '500', 'TYPE', 'hash')) as [
      string,
      string[],
    ];
    cursor = String(next);
    for (const key of keys) found.add(key.slice(prefix.length));
  } while (cursor !== '0');
  return [...found].sort().map(nameOf);
}

function nameOf(key: string): Name {
  const [limit = '', ...parts] = key.split('|');
  const pairs = parts.map((part): [string, string] => {
    const at = part.indexOf('=');
    return [part.slice(0, at), decodeURIComponent(part.slice(at + 1))];
  });
  return { key, limit, parts: new Map(pairs) };
}

async function rowsOf(link: RedisLink, prefix: string, names: readonly Name[]): Promise<Row[]> {
  const engine = new Engine(link, { prefix, lifetimeMs: 60_000 }, SCRIPTS);
  const rows = await Promise.all(names.map((name) => rowOf(link, engine, prefix, name)));
  return rows.filter((row) => row !== undefined);
}

async function rowOf(link: RedisLink, engine: Engine, prefix: string, name: Name): Promise<Row | undefined> {
  const fields = ['kind', 'span', 'step', 'max', 'unit', 'held'];
  const [kind, span, step, max, unit, held] = (await link.send('HMGET', prefix + name.key, ...fields)) as string[];
  if (kind == null) return undefined;
  const meter = {
    ...{ key: name.key, kind: kind as Meter['kind'], span: span === 'month' ? ('month' as const) : Number(span) },
    ...{ step: Number(step), max: Number(max), unit: unit! },
  };
  const { readings } = await engine.peek([{ ...meter, take: 0, least: 0, most: 0 }]);
  const { left, wholeMs } = readings[0]!;
  const shown = (amount: number) => (unit === 'cost' ? amount / NANO_USD : amount);
  return {
    limit: name.limit,
    who:
      [...name.parts]
        .filter(([, value]) => value !== '')
        .map((pair) => pair.join('='))
        .join(' ') || 'everybody',
    unit: unit === 'cost' ? 'USD' : unit!,
    used: shown(meter.max - left - Number(held)),
    reserved: shown(Number(held)),
    max: shown(meter.max),
    left: shown(left),
    wholeInMs: wholeMs,
  };
}

function table(rows: readonly Row[]): string {
  const head = ['LIMIT', 'WHO', 'USED', 'RESERVED', 'OF', 'LEFT', 'WHOLE IN'];
  const lines = rows.map((row) => [
    ...[row.limit, printable(row.who), figure(row.used), figure(row.reserved)],
    ...[`${figure(row.max)} ${row.unit}`, figure(row.left), row.wholeInMs > 0 ? inWords(row.wholeInMs) : '-'],
  ]);
  const widths = head.map((title, i) => Math.max(title.length, ...lines.map((line) => line[i]!.length)));
  return [head, ...lines]
    .map(
      (line) =>
        `${line
          .map((cell, i) => cell.padEnd(widths[i]!))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}

/** Dollars with at most six decimals; counts as they are. */
function figure(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toFixed(6).replace(/\.?0+$/, '');
}

/** A name may hold what a terminal would obey. */
function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, '�');
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: Error) => {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = error instanceof Misuse ? 2 : 1;
  },
);
