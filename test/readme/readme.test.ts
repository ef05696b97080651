/** Every command and config of the README works, and its tables are complete. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { configSchema } from '../../gateway/config/schema.ts';
import { ERRORS } from '../../gateway/errors.ts';
import { VENDORS } from '../../gateway/providers/registry.ts';
import { startGateway } from '../support/gateway.ts';
import { type Block, blocks, madeUp, README, table } from './blocks.ts';

const all = blocks();
const PORTS = { 'http://127.0.0.1:3000': /listens on (\S+?),/, 'http://127.0.0.1:15020': /metrics on (\S+?)\/metrics/ };

describe('the commands, with the gateway that npm start runs', () => {
  let gateway: ChildProcess;
  const urls: Record<string, string> = {};

  beforeAll(async () => {
    const addresses = ['--listen', '127.0.0.1:0', '--metrics', '127.0.0.1:0'];
    const { WARDGATE_CONFIG: _, ...env } = process.env;
    gateway = spawn(process.execPath, ['gateway/main.ts', ...addresses], { env, stdio: ['ignore', 'ignore', 'pipe'] });
    const banner = await printedBy(gateway, 'Try it:');
    for (const [url, pattern] of Object.entries(PORTS)) urls[url] = pattern.exec(banner)![1]!;
  });
  afterAll(async () => {
    gateway.kill('SIGKILL');
    await once(gateway, 'exit');
  });

  const runnable = all.flatMap((block, i) =>
    block.mark === 'run' ? [[firstLine(block), block, all[i + 1]] as const] : [],
  );

  test('are there', () => expect(runnable.length).toBeGreaterThan(4));

  test.each(runnable)('%s', { timeout: 30_000 }, async (_title, block, next) => {
    const command = Object.entries(urls).reduce((text, [from, to]) => text.replaceAll(from, to), block.text);
    const { stdout } = await promisify(execFile)('bash', ['-euo', 'pipefail', '-c', command]);
    if (next?.mark === 'prints') expect(stdout).toMatch(patternOf(next.text));
    else expect(stdout).not.toBe('');
  });
});

describe('the configs', () => {
  const configs = all.filter((block) => block.language === 'yaml');

  test.each(configs.map((block) => [block.line, block] as const))('at line %i', async (_line, { text }) => {
    const wanted = [...text.matchAll(/\$\{(\w+)\}/g)].map(([, name]) => [name, madeUp(name!)]);
    const config = { ...(parse(text) as object), listen: '127.0.0.1:0', metrics: false };
    const gateway = await startGateway(config, { environment: Object.fromEntries(wanted) });
    await gateway.stop();
  });

  test('have presets for every kind that the text names, and the text names every preset', () => {
    const paragraph = /Kinds that bring their base URL.*?\n\n/s.exec(README)![0];
    const named = [...paragraph.matchAll(/`([a-z-]+)`/g)].map(([, name]) => name);
    expect(named.sort()).toEqual(VENDORS.flatMap(({ kinds }) => Object.keys(kinds)).sort());
  });
});

describe('the tables', () => {
  test('have every key of the config with its default', () => {
    const rows = table('key', 'default', 'means').map(([key, value]) => [plain(key!), plain(value!)]);
    const schema = z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any' });
    const keys = configKeys(schema as Schema);
    expect(rows.map(([key]) => key).sort()).toEqual(Object.keys(keys).sort());
    const wrong = rows.filter(([key, value]) => keys[key!] !== undefined && keys[key!] !== value);
    expect(wrong).toEqual([]);
  });

  test('have every error with its status', () => {
    const rows = table('status', 'code', 'when').map(([status, code]) => [plain(code!), { status: Number(status) }]);
    const wanted = Object.entries(ERRORS).map(([code, { status }]) => [code, { status }]);
    expect(Object.fromEntries(rows)).toEqual(Object.fromEntries(wanted));
  });

  test('have every plugin with its hooks', () => {
    const rows = table('plugin', 'hooks', 'does');
    const inMain = [...readFileSync('gateway/main.ts', 'utf8').matchAll(/plugins\/([a-z-]+)\/plugin\.ts/g)];
    expect(rows.map(([link]) => /\[(.+?)\]/.exec(link!)![1]).sort()).toEqual(inMain.map(([, name]) => name).sort());
  });
});

test('every example is shown', () => {
  const shown = table('example', 'shows').map(([link]) => /\]\((.+?)\)/.exec(link!)![1]);
  expect(shown.sort()).toEqual(globSync('examples/*.yaml').sort());
});

test('every link leads to a file', () => {
  const links = [...README.matchAll(/\]\(([^)#]+)\)/g)]
    .map(([, path]) => path!)
    .filter((path) => !/^https?:/.test(path));
  expect(links.filter((path) => !existsSync(path))).toEqual([]);
});

test('every npm script that is named exists', () => {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> };
  const named = [...README.matchAll(/npm run (?:-s )?([\w:-]+)/g)].map(([, name]) => name!);
  expect(named.filter((name) => !(name in scripts))).toEqual([]);
});

function firstLine({ text }: Block): string {
  return text.split('\n')[0]!.slice(0, 80);
}

/** What a block shows, line for line and in order; `…` stands for anything. */
function patternOf(text: string): RegExp {
  const literal = (part: string) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const lines = text.trimEnd().split('\n');
  return new RegExp(lines.map((line) => line.split('…').map(literal).join('[^]*?')).join('[^]*?\\n'));
}

async function printedBy(child: ChildProcess, wanted: string): Promise<string> {
  let printed = '';
  for await (const text of child.stderr!) {
    printed += String(text);
    if (printed.includes(wanted)) return printed;
  }
  throw new Error(`the gateway did not start: ${printed}`);
}

function plain(cell: string): string {
  return cell.replaceAll('`', '').replaceAll('\\', '');
}

interface Schema {
  properties?: Record<string, Schema>;
  additionalProperties?: Schema | boolean;
  oneOf?: Schema[];
  anyOf?: Schema[];
  items?: Schema;
  type?: string;
  default?: unknown;
}

/** The paths of all settings, each with its default as the README writes it; undefined where the schema has none. */
function configKeys(schema: Schema, path = ''): Record<string, string | undefined> {
  const inner = [schema, ...(schema.anyOf ?? []), ...(schema.oneOf ?? [])];
  const keys = inner.flatMap(({ properties, additionalProperties, items }) => [
    ...Object.entries(properties ?? {}).map(([name, one]) => [path === '' ? name : `${path}.${name}`, one] as const),
    ...(typeof additionalProperties === 'object' ? [[`${path}.*`, additionalProperties] as const] : []),
    ...(items === undefined ? [] : [[`${path}[]`, items] as const]),
  ]);
  const deeper = keys.map(([key, one]) => configKeys(one, key));
  // Both are lists of targets, whose keys are there already.
  if (/\.fallbacks\.\w+$/.test(path)) return { [path]: undefined };
  const isSetting = path !== '' && !/(?:\[\]|^(?:providers|plugins|routes|prices)\.\*)$/.test(path);
  // A map of strings, or a list of plain values, is one setting.
  const isPlain = keys.every(([, one]) => isScalar(one));
  const own = isSetting && (keys.length === 0 || schema.anyOf || (isPlain && !schema.properties));
  const below = isPlain && !inner.some((one) => one.properties) ? [] : deeper;
  return Object.assign({}, ...below, own ? { [path]: written(schema.default) } : {}) as Record<string, string>;
}

function isScalar({ properties, additionalProperties, items, anyOf, oneOf }: Schema): boolean {
  return !properties && !items && !anyOf && !oneOf && typeof additionalProperties !== 'object';
}

function written(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (Array.isArray(value)) return `[${value.map((one) => (one === '*' ? '"*"' : one)).join(', ')}]`;
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}
