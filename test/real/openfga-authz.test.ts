/**
 * openfga-authz before a real OpenFGA: the demo's model and tuples (001.10, S1-93, S1-94), lists that agree with checks,
 * names that try to be something else, and servers that lose their memory.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { OpenFgaApi, type TupleKey } from '@openfga/sdk';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { idOf } from '../../plugins/openfga-authz/ids.ts';
import { openfgaAuthz } from '../../plugins/openfga-authz/plugin.ts';
import type { Identity, Plugin, Resource } from '../../proto/contract.ts';
import { errorOf, soon } from '../gateway/chat.ts';
import { MODEL, mayUse, seed, TUPLES, type World } from '../plugins/openfga-authz/demo.ts';
import { type Guarded, startGuarded } from '../plugins/openfga-authz/gateway.ts';
import { toolCallCompletion } from '../support/chunks.ts';
import { freePort } from '../support/free-port.ts';
import { realServer } from './servers.ts';

const openfga = realServer('openfga');
const api = new OpenFgaApi({ apiUrl: openfga.url || 'http://127.0.0.1:1' });
const model = JSON.parse(readFileSync(MODEL, 'utf8'));
const RUN = `wardgate-test-${process.pid}`;

/** The program itself, where this machine has it: some tests stop and start one of their own. */
const { XDG_CACHE_HOME = join(homedir(), '.cache'), WARDGATE_CACHE = join(XDG_CACHE_HOME, 'wardgate') } = process.env;
const PROGRAM = process.env.OPENFGA_PROGRAM ?? join(WARDGATE_CACHE, 'bin/openfga');

const stores: string[] = [];
let counter = 0;

/** A store of its own for a test, with these tuples; gone after all of them. */
async function storeWith(tuples: TupleKey[] = [], definition: object = model): Promise<{ name: string; id: string }> {
  const name = `${RUN}-${counter++}`;
  const { id } = await api.createStore({ name }, {});
  stores.push(id);
  await api.writeAuthorizationModel(id, definition as never, {});
  await write(id, tuples);
  return { name, id };
}

async function write(id: string, tuples: TupleKey[]): Promise<void> {
  for (let start = 0; start < tuples.length; start += 100) {
    await api.write(
      id,
      { writes: { tuple_keys: tuples.slice(start, start + 100), on_duplicate: 'ignore' } } as never,
      {},
    );
  }
}

function tupleOf(line: string): TupleKey {
  const [user, relation, object] = line.split(' ') as [string, string, string];
  return { user, relation, object };
}

const demoTuples = parse(readFileSync(TUPLES, 'utf8')) as TupleKey[];

afterAll(async () => {
  for (const id of stores) await api.deleteStore(id, {});
});

describe.skipIf(!openfga.here)('001.10 the demo’s model and tuples, by the seed command', () => {
  const store = `${RUN}-demo`;
  let guarded: Guarded;

  beforeAll(async () => {
    await seed({ apiUrl: openfga.url, store, tuples: TUPLES });
    const { stores: made } = await api.listStores(10, undefined, store, {});
    stores.push(made[0]!.id);
    guarded = await startGuarded({ apiUrl: openfga.url, store }, undefined, { route: '/fga/openai' });
  });
  afterAll(() => guarded?.[Symbol.asyncDispose]());

  test('S1-93: mcp-user may not use gpt-3.5-turbo: 403', async () => {
    const error = await errorOf(await guarded.use('mcp-user', 'gpt-3.5-turbo'));
    expect(error).toMatchObject({ status: 403, code: 'forbidden' });
  });

  test('S1-94: mcp-user may use gpt-4o: 200', async () => {
    expect(await guarded.status('mcp-user', 'gpt-4o')).toBe(200);
  });

  test.each([
    ['alice', 'gpt-4o', 200, 'by her organisation’s provider'],
    ['bob', 'gpt-4o', 200, 'by his organisation’s provider'],
    ['erin', 'gpt-4o', 200, 'by a grant of her own'],
    ['dave', 'gpt-4o', 200, 'by an extra grant of the provider'],
    ['mcp-user', 'gpt-4o', 200, 'by a grant of its own'],
    ['bob', 'claude-35', 200, 'by his team'],
    ['alice', 'claude-35', 403, 'her team has none'],
    ['charlie', 'gpt-4o', 403, 'nobody knows him'],
    ['mcp-user', 'gpt-3.5-turbo', 403, 'its grant is for another model'],
  ])('001.10: %s can_use model:%s: %i, %s', async (user, name, status) => {
    expect(await guarded.status(user, name)).toBe(status);
  });

  test('001.10: dave can_use provider:openai: no, only extra_can_use', async () => {
    const ask = (config: object) => {
      const plugin = openfgaAuthz.create({ apiUrl: openfga.url, store, types: { server: 'provider' }, ...config });
      return decisionsOf(plugin, { username: 'dave' }, [{ type: 'server', name: 'openai' }]);
    };
    expect(await ask({})).toEqual([false]);
    expect(await ask({ relation: 'extra_can_use' })).toEqual([true]);
  });

  test('001.10: GET /v1/models lists just what each may use', async () => {
    expect(await guarded.list('alice')).toEqual(['gpt-3.5-turbo', 'gpt-4o']);
    expect(await guarded.list('bob')).toEqual(['claude-35', 'gpt-3.5-turbo', 'gpt-4o']);
    expect(await guarded.list('mcp-user')).toEqual(['gpt-4o']);
    expect(await guarded.list('charlie')).toEqual([]);
    expect(await guarded.list(undefined)).toEqual([]);
  });

  test('the subject is not the user: 001.10 names people by preferred_username', async () => {
    expect(await guarded.status({ subject: 'mcp-user', username: 'someone' }, 'gpt-4o')).toBe(403);
  });

  test('the model works as the demo has it, without the types that were added', async () => {
    const demo = ['user', 'team', 'org', 'provider', 'model'];
    const types = model.type_definitions.filter(({ type }: { type: string }) => demo.includes(type));
    const { name } = await storeWith(demoTuples, { ...model, type_definitions: types });
    await using small = await startGuarded({ apiUrl: openfga.url, store: name, groups: {} });
    expect([await small.status('bob', 'claude-35'), await small.status('alice', 'claude-35')]).toEqual([200, 403]);
    expect(await small.status({ username: 'zoe', groups: ['acme-ml'] }, 'claude-35')).toBe(200);
  });

  test('the model in OpenFGA’s own language names the same types and relations', () => {
    const lines = readFileSync('deploy/openfga/model.fga', 'utf8').split('\n');
    const named = lines.flatMap((line) => /^(?:type| {4}define) (\w+)/.exec(line)?.[1] ?? []);
    const types = model.type_definitions as { type: string; relations?: object }[];
    expect(named).toEqual(types.flatMap(({ type, relations = {} }) => [type, ...Object.keys(relations)]));
  });
});

describe.skipIf(!openfga.here)('the seed command', () => {
  test('run twice changes nothing, and says so', async () => {
    const store = `${RUN}-seed`;
    const first = await seed({ apiUrl: openfga.url, store, tuples: TUPLES });
    const [, id = ''] = /\((\w{26})\): made/.exec(first) ?? [];
    stores.push(id);
    expect(first).toMatch(/^store \S+ \(\w{26}\): made\nmodel \w{26}: written\ntuples: 15 written, 0 there already\n$/);
    const before = await everything(id);
    expect(await seed({ apiUrl: openfga.url, store, tuples: TUPLES })).toMatch(
      /: there already\nmodel \w{26}: there already\ntuples: 0 written, 15 there already\n$/,
    );
    expect(await everything(id)).toEqual(before);
  });

  test('writes a new version of a model that differs, and only the tuples that are missing', async () => {
    const { name, id } = await storeWith(demoTuples.slice(0, 5));
    const folder = await mkdtemp(join(tmpdir(), 'wardgate-seed-'));
    const other = { ...model, type_definitions: [...model.type_definitions, { type: 'robot' }] };
    await writeFile(join(folder, 'model.json'), JSON.stringify(other));
    const more = { apiUrl: openfga.url, store: name, tuples: TUPLES, model: join(folder, 'model.json') };
    expect(await seed(more)).toMatch(/written\ntuples: 10 written, 5 there already\n$/);
    expect(await seed(more)).toMatch(/there already\ntuples: 0 written, 15 there already\n$/);
    expect((await everything(id)).models).toHaveLength(2);
    await rm(folder, { recursive: true });
  });

  test('run twice at once makes one store', async () => {
    const store = `${RUN}-race`;
    const runs = await Promise.all([1, 2, 3].map(() => seed({ apiUrl: openfga.url, store, tuples: TUPLES })));
    const { stores: made } = await api.listStores(10, undefined, store, {});
    stores.push(...made.map(({ id }) => id));
    expect(made).toHaveLength(1);
    expect(new Set(runs.map((text) => /\((\w{26})\)/.exec(text)?.[1]))).toEqual(new Set([made[0]!.id]));
    expect((await everything(made[0]!.id)).tuples).toHaveLength(15);
  });

  test.each([
    [
      'a tuple whose name is not escaped',
      "- { user: 'user:bob', relation: can_use, object: 'model:llama3:8b' }",
      /0\.object: Write type:ID\. .*llama3%3A8b/,
    ],
    ['what is no list', 'tuples: []', /Write a list of tuples/],
    [
      'a tuple that the model does not know',
      "- { user: 'user:bob', relation: nope, object: 'model:x' }",
      /OpenFGA answered 400: .*nope/,
    ],
  ])('refuses %s, and says what is right', async (_what, text, message) => {
    const folder = await mkdtemp(join(tmpdir(), 'wardgate-seed-'));
    const tuples = join(folder, 'tuples.yaml');
    await writeFile(tuples, text);
    const { name } = await storeWith();
    const failure = await seed({ apiUrl: openfga.url, store: name, tuples }).catch((error) => error);
    expect(failure.stderr).toMatch(message);
    expect(failure.code).toBeGreaterThan(0);
    await rm(folder, { recursive: true });
  });

  async function everything(id: string) {
    const { authorization_models: models } = await api.readAuthorizationModels(id, 50, undefined, {});
    const { tuples } = await api.read(id, {}, {});
    return { models: models.map((one) => one.id), tuples };
  }
});

describe.skipIf(!openfga.here)('lists and checks', () => {
  const NAMES = ['ann', 'b:ob', '*', 'x#member', 'Jürgen', 'a b', 'u%2A', 'f@g.h'];
  const TEAMS = ['red', 'blue/1', 't:x', '*'];
  const THINGS = ['gpt-4o', 'llama3:8b', 'a/b c', '*', '模型', 'm#can_use', 'm%3A', 'Q+w'];
  const FEW = ['o1', 'o:2'];
  const some = (a: string[], b: string[]) =>
    fc.uniqueArray(fc.tuple(fc.constantFrom(...a), fc.constantFrom(...b)), { maxLength: 5, selector: String });
  const worlds: fc.Arbitrary<World> = fc.record({
    inOrg: some(NAMES, FEW),
    inTeam: some(NAMES, TEAMS),
    entitled: some(FEW, FEW),
    extra: some(NAMES, FEW),
    teamHasProvider: some(TEAMS, FEW),
    owns: some(FEW, THINGS),
    teamHasModel: some(TEAMS, THINGS),
    granted: some(NAMES, THINGS),
  });

  test('agree for every user and model, with each other and with the model read by hand', async () => {
    const { id } = await storeWith();
    const plugins = [
      { listing: 'batch' },
      { listing: 'list-objects' },
      { listing: 'list-objects', listMaxResults: 2 },
      { listing: 'list-objects', listDeadline: '0.001ms' },
    ].map((more) => openfgaAuthz.create({ apiUrl: openfga.url, storeId: id, groups: {}, cache: false, ...more }));
    const models = THINGS.map((name) => ({ type: 'model' as const, name }));
    const groups = fc.uniqueArray(fc.constantFrom(...TEAMS), { maxLength: 2 });
    await fc.assert(
      fc.asyncProperty(worlds, fc.tuple(...NAMES.map(() => groups)), async (world, tokens) => {
        await replaceTuples(id, tuplesOf(world));
        for (const [i, username] of NAMES.entries()) {
          const who = { username, groups: tokens[i]! };
          const expected = THINGS.map((name) => mayUse(world, username, who.groups, name));
          const checked = models.map(async (one) => (await decisionsOf(plugins[0]!, who, [one]))[0]);
          expect(await Promise.all(checked)).toEqual(expected);
          for (const plugin of plugins) expect(await decisionsOf(plugin, who, models, 'model.list')).toEqual(expected);
        }
      }),
      { numRuns: 25, endOnFailure: true },
    );
    for (const plugin of plugins) await plugin.close?.();
  }, 120_000);

  test('agree when OpenFGA’s list is cut at 1,000', async () => {
    const all = Array.from({ length: 1100 }, (_, i) => ({ type: 'model' as const, name: `m${i}:x` }));
    const { id } = await storeWith(all.map(({ name }) => tupleOf(`user:bob can_use model:${idOf(name)}`)));
    const plugin = openfgaAuthz.create({ apiUrl: openfga.url, storeId: id, listing: 'list-objects', timeout: '30s' });
    const models = [...all, { type: 'model' as const, name: 'm0' }];
    const decisions = await decisionsOf(plugin, { username: 'bob' }, models, 'model.list');
    expect(decisions.filter(Boolean)).toHaveLength(1100);
    expect(decisions.at(-1)).toBe(false);
    await plugin.close?.();
  });

  function tuplesOf(world: World): TupleKey[] {
    const lines = (pairs: [string, string][], a: string, relation: string, b: string) =>
      pairs.map(([x, y]) => tupleOf(`${a}:${idOf(x)} ${relation} ${b}:${idOf(y)}`));
    return [
      ...lines(world.inOrg, 'user', 'member', 'org'),
      ...lines(world.inTeam, 'user', 'member', 'team'),
      ...lines(world.entitled, 'org', 'entitled_orgs', 'provider'),
      ...lines(world.extra, 'user', 'extra_can_use', 'provider'),
      ...lines(world.teamHasProvider, 'team', 'allowed_teams', 'provider'),
      ...lines(world.owns, 'provider', 'provider', 'model'),
      ...lines(world.teamHasModel, 'team', 'allowed_teams', 'model'),
      ...lines(world.granted, 'user', 'can_use', 'model'),
    ];
  }

  async function replaceTuples(id: string, tuples: TupleKey[]): Promise<void> {
    const { tuples: old } = await api.read(id, { page_size: 100 }, {});
    const keys = old.map(({ key: { user, relation, object } }) => ({ user, relation, object }));
    if (keys.length > 0) await api.write(id, { deletes: { tuple_keys: keys } } as never, {});
    await write(id, tuples);
  }
});

describe.skipIf(!openfga.here)('names that try to be something else', () => {
  let guarded: Guarded;

  beforeAll(async () => {
    const lines = [
      'user:bob can_use model:gpt-4o',
      'user:bob member team:acme-ml',
      'team:acme-ml allowed_teams model:claude-35',
      'user:%2A can_use model:gpt-3.5-turbo',
      'user:* can_use tool:clock',
    ];
    const { name } = await storeWith(lines.map(tupleOf));
    const config = { apiUrl: openfga.url, store: name, groups: {}, anonymous: 'user:anonymous' };
    guarded = await startGuarded(config, ['gpt-4o', 'claude-35', 'gpt-3.5-turbo', '*']);
  });
  afterAll(() => guarded?.[Symbol.asyncDispose]());

  test.each([
    '*',
    'user:bob',
    'bob#member',
    'bob ',
    ' bob',
    'bob\n',
    'bob\u0000',
    'BOB',
    'b\u043eb',
    '%62ob',
    'bob%20',
    'team:acme-ml#member',
    '',
    'bob\ud800',
  ])('a user named %j is not bob', async (username) => {
    expect(await guarded.status({ username }, 'gpt-4o')).toBe(403);
    expect(await guarded.status({ username }, 'claude-35')).toBe(403);
  });

  test('a user named * is one person, not everybody', async () => {
    expect(await guarded.status('*', 'gpt-3.5-turbo')).toBe(200);
    expect(await guarded.status('bob', 'gpt-3.5-turbo')).toBe(403);
    expect(await guarded.status(undefined, 'gpt-3.5-turbo')).toBe(403);
  });

  test.each([
    'acme-ml#member',
    'team:acme-ml',
    '*',
    'acme-ml ',
    '%61cme-ml',
    'ACME-ML',
    'acme-ml\n',
    'x member team:acme-ml',
  ])('a group named %j is not acme-ml', async (group) => {
    expect(await guarded.status({ username: 'eve', groups: [group] }, 'claude-35')).toBe(403);
    expect(await guarded.status({ username: 'eve', groups: [group, 'acme-ml'] }, 'claude-35')).toBe(200);
  });

  test.each(['gpt-4o#can_use', 'model:gpt-4o', 'gpt-4o:x', ' gpt-4o', '*', 'gpt%2D4o'])(
    'a model named %j is not gpt-4o',
    async (name) => {
      expect(await guarded.status('bob', name)).toBe(403);
    },
  );

  test('what everybody may use, everybody may use, strangers with a name included', async () => {
    const { name } = await storeWith([tupleOf('user:* can_use tool:clock')]);
    const plugin = openfgaAuthz.create({ apiUrl: openfga.url, store: name, anonymous: 'user:anonymous' });
    const clock: Resource[] = [
      { type: 'tool', name: 'clock' },
      { type: 'tool', name: 'clock:2' },
    ];
    expect(await decisionsOf(plugin, { username: 'anyone:at#all' }, clock, 'tool.call')).toEqual([true, false]);
    expect(await decisionsOf(plugin, undefined, clock, 'tool.call')).toEqual([true, false]);
    await plugin.close?.();
  });
});

describe.skipIf(!openfga.here)('grants', () => {
  test('of a token’s groups hold for that token alone', async () => {
    const { name } = await storeWith(demoTuples);
    await using guarded = await startGuarded({ apiUrl: openfga.url, store: name, groups: { prefix: 'acme-' } });
    expect(await guarded.status({ username: 'zoe', groups: ['acme-ml'] }, 'claude-35')).toBe(200);
    expect(await guarded.status({ username: 'zoe' }, 'claude-35')).toBe(403);
    expect(await guarded.list({ username: 'zoe', groups: ['acme-ml', 'globex-research'] })).toEqual(['claude-35']);
    // What is in the store already may be told again.
    expect(await guarded.status({ username: 'bob', groups: ['acme-ml', 'acme-eng'] }, 'claude-35')).toBe(200);
  });

  test('of tools decide on the tool calls of a model, where the config says so', async () => {
    const lines = ['user:ann can_use model:gpt-4o', 'user:bob can_use model:gpt-4o', 'user:bob can_use tool:search'];
    const { name } = await storeWith(lines.map(tupleOf));
    await using guarded = await startGuarded({ apiUrl: openfga.url, store: name, tools: true });
    await using open = await startGuarded({ apiUrl: openfga.url, store: name });
    const calls = [{ name: 'search', arguments: { q: 'weather' } }];
    for (const { upstream } of [guarded, open]) upstream.always({ whole: toolCallCompletion(calls) });
    expect(await guarded.status('bob', 'gpt-4o')).toBe(200);
    expect(await guarded.status('ann', 'gpt-4o')).toBe(403);
    expect(await open.status('ann', 'gpt-4o')).toBe(200);
  });

  test('are seen by the next request with HIGHER_CONSISTENCY, and so is their end', async () => {
    const { name, id } = await storeWith(demoTuples);
    await using guarded = await startGuarded({ apiUrl: openfga.url, store: name, consistency: 'HIGHER_CONSISTENCY' });
    const grant = tupleOf('user:charlie can_use model:gpt-4o');
    expect(await guarded.status('charlie', 'gpt-4o')).toBe(403);
    await write(id, [grant]);
    expect(await guarded.status('charlie', 'gpt-4o')).toBe(200);
    await api.write(id, { deletes: { tuple_keys: [grant] } } as never, {});
    expect(await guarded.status('charlie', 'gpt-4o')).toBe(403);
  });

  test('show when what is remembered has run out', async () => {
    const { name, id } = await storeWith(demoTuples);
    const cache = { allowed: '10s', denied: '50ms' };
    await using guarded = await startGuarded({ apiUrl: openfga.url, store: name, cache });
    expect(await guarded.status('charlie', 'gpt-4o')).toBe(403);
    await write(id, [tupleOf('user:charlie can_use model:gpt-4o')]);
    await expect.poll(() => guarded.status('charlie', 'gpt-4o'), { timeout: 5000 }).toBe(200);
  });

  test('with 100 groups are decided, and 101 are not too many', async () => {
    const { name } = await storeWith(demoTuples);
    const models = Array.from({ length: 60 }, (_, i) => `m${i}`);
    await using guarded = await startGuarded({ apiUrl: openfga.url, store: name, groups: {} }, [
      'claude-35',
      ...models,
    ]);
    const others = Array.from({ length: 99 }, (_, i) => `${'g'.repeat(200)}${i}`);
    const who = { username: 'zoe', groups: ['acme-ml', ...others] };
    expect(await guarded.list(who)).toEqual(['claude-35']);
    expect(await guarded.status({ ...who, groups: [...who.groups, 'one-more'] }, 'claude-35')).toBe(200);
  });
});

describe.skipIf(!openfga.here || !existsSync(PROGRAM))('an OpenFGA of our own', () => {
  test('that is stopped, started without its memory and seeded again is used again, without a restart here', async () => {
    const port = await freePort();
    const apiUrl = `http://127.0.0.1:${port}`;
    const store = 'wardgate';
    await using guarded = await startGuarded({ apiUrl, store, cache: false });
    expect(await guarded.status('bob', 'gpt-4o')).toBe(503);
    // It waits for the server, which comes up beside it.
    const seeding = seed({ apiUrl, store, tuples: TUPLES, wait: '60' });
    const first = await startOpenfga(port);
    await seeding;
    expect(await guarded.status('bob', 'gpt-4o')).toBe(200);
    await first[Symbol.asyncDispose]();
    expect(await guarded.status('bob', 'gpt-4o')).toBe(503);
    await using _second = await startOpenfga(port);
    await expect.poll(() => healthy(apiUrl), { timeout: 20_000 }).toBe(true);
    expect(await guarded.status('bob', 'gpt-4o')).toBe(503);
    await soon(() => guarded.faults.at(-1)).toMatch(/openfga_no_store: .*seed\.ts --api-url \S+ --store wardgate/);
    await seed({ apiUrl, store, tuples: TUPLES });
    expect([await guarded.status('bob', 'gpt-4o'), await guarded.status('bob', 'nope')]).toEqual([200, 404]);
  });

  test('that wants a key is asked with it, and a wrong one is a fault', async () => {
    const port = await freePort();
    const apiUrl = `http://127.0.0.1:${port}`;
    await using _server = await startOpenfga(port, '--authn-method=preshared', '--authn-preshared-keys=let-me-in');
    await seed({ apiUrl, store: 'wardgate', tuples: TUPLES }, { FGA_API_TOKEN: 'let-me-in' });
    await using guarded = await startGuarded({ apiUrl, credentials: { token: 'let-me-in' } });
    expect(await guarded.status('bob', 'gpt-4o')).toBe(200);
    await using stranger = await startGuarded({ apiUrl, credentials: { token: 'let-me-out' } });
    expect(await stranger.status('bob', 'gpt-4o')).toBe(503);
    await soon(() => stranger.faults).toEqual([expect.stringMatching(/openfga_refused: .*Check `credentials`/)]);
    expect(stranger.gateway.logText).not.toContain('let-me');
    const failure = await seed({ apiUrl, store: 'wardgate' }).catch((error) => error);
    expect(failure).toMatchObject({ code: 1, stderr: expect.stringContaining('OpenFGA answered 401') });
  });

  /** It is killed at the end: asked to stop, it would wait for the gateway's connections to end. */
  async function startOpenfga(port: number, ...more: string[]): Promise<AsyncDisposable> {
    const grpc = await freePort();
    const args = ['run', `--http-addr=127.0.0.1:${port}`, `--grpc-addr=127.0.0.1:${grpc}`, '--metrics-enabled=false'];
    const options = ['--playground-enabled=false', '--log-level=error', ...more];
    const child = spawn(PROGRAM, [...args, ...options], { stdio: 'ignore' });
    const ended = once(child, 'exit');
    return {
      async [Symbol.asyncDispose]() {
        child.kill('SIGKILL');
        await ended;
      },
    };
  }

  async function healthy(url: string): Promise<boolean> {
    const response = await fetch(`${url}/healthz`).catch(() => undefined);
    return response?.ok === true;
  }
});

async function decisionsOf(
  plugin: Plugin,
  who: Partial<Identity> | undefined,
  resources: Resource[],
  action = 'model.use',
): Promise<boolean[]> {
  const identity = who && { subject: 's', ...who };
  const request = { id: 'r', method: 'POST', path: '/', route: '/', identity };
  const verdict = await plugin.authorize!({ request, action: action as never, resources });
  return 'allow' in verdict ? verdict.allow.decisions! : [];
}
