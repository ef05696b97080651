import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ConfigProblem, type Plugin, type PluginFactory } from '../../proto/contract.ts';
import { echo } from '../contract/echo-plugin.ts';
import { authorize, limit } from '../contract/facts.ts';
import { connectTo } from '../contract/ways.ts';

const SOURCE = (name: string) =>
  `{ name: '${name}', create: () => ({ describe: () => ({ contract: 1, name: '${name}', version: '1', hooks: ['limit'], rewrites: false }), limit: () => ({ allow: {} }) }) }`;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'plugin-'));
  await writeFile(join(folder, 'default.ts'), `export default ${SOURCE('a')};\nexport const other = ${SOURCE('b')};`);
  await writeFile(join(folder, 'named.ts'), `export const LIMIT = 3;\nexport const only = ${SOURCE('c')};`);
  await writeFile(join(folder, 'two.ts'), `export const one = ${SOURCE('d')};\nexport const two = ${SOURCE('e')};`);
  await writeFile(join(folder, 'none.ts'), 'export const nothing = 1;');
  await writeFile(join(folder, 'broken.ts'), 'export const = 1;');
});
afterAll(() => rm(folder, { recursive: true }));

describe('a plugin in process', () => {
  test('is up at once, and answers without a promise where it needs none', async () => {
    const connection = await connectTo('local:echo', {}, { echo });
    expect(connection).toMatchObject({ state: 'up', problem: undefined, description: { name: 'echo' } });
    expect(connection.ask('authorize', authorize('a', 'dear'))).toEqual({ allow: { decisions: [true, false] } });
  });

  test('stops the start with all that is wrong with its config', async () => {
    const refused = connectTo('local:echo', { config: { refuse: true } }, { echo });
    await expect(refused).rejects.toThrow(ConfigProblem);
    await expect(refused).rejects.toMatchObject({ problems: [{ path: ['refuse'], message: 'must not be true' }] });
  });

  test('is closed once', async () => {
    let closed = 0;
    const closing: PluginFactory = { name: 'x', create: () => ({ ...echo.create({}), close: () => void closed++ }) };
    const connection = await connectTo('local:x', {}, { x: closing });
    await connection.close();
    await connection.close();
    expect(closed).toBe(1);
  });

  test.each([
    [{ contract: 2 }, 'speaks version 2 of the contract, this gateway speaks 1'],
    [{ hooks: [] }, 'must describe its hooks as a list of authenticate, authorize'],
    [{ hooks: ['toString'] }, 'must describe its hooks'],
    [{ name: '' }, 'without a name'],
    [{ gate: 1 }, 'gate'],
  ])('that describes itself with %j is refused', async (wrong, message) => {
    const made = echo.create({});
    const odd = {
      name: 'x',
      create: () => ({ ...made, describe: () => ({ ...made.describe(), ...wrong }) }) as unknown as Plugin,
    };
    await expect(connectTo('local:x', {}, { x: odd })).rejects.toThrow(message);
  });
});

describe('a plugin in a file', () => {
  test.each([
    ['default.ts', 'a'],
    ['named.ts', 'c'],
  ])('%s', async (file, name) => {
    const connection = await connectTo(`local:./${file}`, { baseDir: folder });
    expect(connection.description?.name).toBe(name);
    expect(connection.ask('limit', limit())).toEqual({ allow: {} });
  });

  test('is found by its absolute path too', async () => {
    const connection = await connectTo(`local:${join(folder, 'named.ts')}`, { baseDir: '/nowhere' });
    expect(connection.description?.name).toBe('c');
  });

  test.each([
    ['two.ts', 'local:./two.ts exports more than one plugin and no default'],
    ['none.ts', 'local:./none.ts exports no plugin'],
    ['broken.ts', 'local:./broken.ts cannot be loaded'],
    ['missing.ts', 'local:./missing.ts cannot be loaded'],
  ])('%s is refused with the reason', async (file, message) => {
    await expect(connectTo(`local:./${file}`, { baseDir: folder })).rejects.toThrow(message);
  });
});

describe('an `at` that makes no sense', () => {
  test.each([
    ['local:nobody', 'there is no plugin `nobody` (there is: echo); a file is written local:./file.ts'],
    ['local:toString', 'there is no plugin `toString`'],
    ['ftp://host', '`at` must begin with one of local:, grpc:, grpcs:, http:, https:, webhook:'],
    ['toString:x', '`at` must begin with one of'],
    ['pii-guard', '`at` must begin with one of'],
    ['grpc://host', 'grpc:// is followed by host:port'],
    ['grpc://host:1/path', 'grpc:// is followed by host:port'],
    ['http:host', 'http:// is followed by host:port'],
    ['http://jo:pw@host', 'a password belongs into `headers`'],
    ['http://host/?a=b', '`at` has neither a query nor a fragment'],
    ['webhook://', 'webhook:// is followed by host:port'],
  ])('%s', async (at, message) => {
    await expect(connectTo(at, {}, { echo })).rejects.toThrow(message);
  });

  test('a certificate that cannot be read', async () => {
    const tls = { ca: './no-such.pem' };
    await expect(connectTo('grpcs://host:1', { options: { tls } })).rejects.toThrow('tls.ca cannot be read: ENOENT');
    await expect(connectTo('https://host:1', { options: { tls } })).rejects.toThrow('tls.ca cannot be read: ENOENT');
  });
});
