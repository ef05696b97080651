/** Issued keys against a real Redis: the command line as a process, two gateways, and a Redis that goes away and comes back. */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createClient } from '@redis/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { apiKeyAuth } from '../../plugins/api-key-auth/plugin.ts';
import { servePlugin } from '../../plugins/serve.ts';
import { ask, errorOf, prompt, says, soon } from '../gateway/chat.ts';
import { send } from '../support/client.ts';
import { configFor, startGateway, type TestGateway } from '../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { realServer } from './servers.ts';

const SCRIPT = fileURLToPath(new URL('../../plugins/api-key-auth/keys.ts', import.meta.url));
const redis = realServer('redis');
/** Entries of this run alone. */
const namespace = `test:${randomUUID()}:`;

interface Done {
  code: number;
  stdout: string;
  stderr: string;
}

function keys(...words: string[]): Promise<Done> {
  const env = { ...process.env, REDIS_URL: redis.url };
  return promisify(execFile)(process.execPath, [SCRIPT, ...words, '--namespace', namespace], { env }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    (error: Done) => error,
  );
}

interface Issued {
  key: string;
  id: string;
  state: string;
  expires?: string;
}

async function issue(...words: string[]): Promise<Issued> {
  return JSON.parse((await keys('issue', '--json', ...words)).stdout) as Issued;
}

async function listed(id: string): Promise<Record<string, unknown> | undefined> {
  const all = JSON.parse((await keys('list', '--json')).stdout) as Record<string, unknown>[];
  return all.find((one) => one.id === id);
}

/**
 * Stands before Redis: `closed` is a Redis that is not there; `silent` a network that swallows everything without a word,
 * for good on the connections that it met.
 */
async function startDoor() {
  const { hostname, port, username, password, pathname } = new URL(redis.url);
  let mode: 'open' | 'closed' | 'silent' = 'open';
  let pairs: [Socket, Socket][] = [];
  const server = createServer((client) => {
    if (mode === 'closed') {
      client.destroy();
      return;
    }
    const behind = connect({ host: hostname, port: Number(port) || 6379 });
    pairs.push([client, behind]);
    for (const [from, to] of [[client, behind] as const, [behind, client] as const]) {
      from.on('error', () => {}).on('close', () => to.destroy());
      from.on('data', (bytes) => {
        if (mode !== 'silent' && pairs.some((pair) => pair.includes(from))) to.write(bytes);
      });
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const user = password ? `${username}:${password}@` : '';
  const closeAll = () => {
    for (const socket of pairs.flat()) socket.destroy();
  };
  return {
    url: `redis://${user}127.0.0.1:${(server.address() as AddressInfo).port}${pathname}`,
    set(next: typeof mode) {
      if (next === 'closed') closeAll();
      if (mode === 'silent') pairs = [];
      mode = next;
    },
    async [Symbol.asyncDispose]() {
      closeAll();
      server.close();
      await once(server, 'close');
    },
  };
}

describe.skipIf(!redis.here)('issued keys in a real Redis', () => {
  let upstream: ScriptedUpstream;
  beforeAll(async () => {
    upstream = await startScriptedUpstream();
    upstream.always(() => says());
  });
  afterAll(async () => {
    await upstream[Symbol.asyncDispose]();
    const client = await createClient({ url: redis.url }).connect();
    for await (const names of client.scanIterator({ MATCH: `${namespace}*` }))
      if (names.length > 0) await client.del(names);
    client.destroy();
  });

  function start(url = redis.url, more: object = {}): Promise<TestGateway> {
    const config = { keys: [{ key: 'sk-config', subject: 'demo' }], redis: { url, namespace, ...more } };
    const plugins = { keys: { at: 'local:api-key-auth', config } };
    const models = { 'gpt-4o': 'up', 'gpt-4o-mini': 'up', 'llama3:8b': 'up' };
    return startGateway(configFor(upstream.url, { plugins, models }), { log: 'warn' });
  }

  const chat = (model = 'gpt-4o') => prompt('Hello', { model });
  const statusOf = async (gateway: TestGateway, key: string) =>
    (await ask(gateway, chat(), { headers: { authorization: `Bearer ${key}` } })).status;

  test('a key works as soon as it is issued, and only its hash is stored', async () => {
    await using gateway = await start();
    const { stdout, stderr, code } = await keys('issue', '--subject', 'ci', '--groups', 'a, b');
    const key = stdout.trim();
    expect(code).toBe(0);
    expect(key).toMatch(/^wg_[0-9A-Za-z]{49}$/);
    expect(stderr).toContain('shown this once');
    expect(await statusOf(gateway, key)).toBe(200);
    const client = await createClient({ url: redis.url }).connect();
    for await (const names of client.scanIterator({ MATCH: `${namespace}*` })) {
      for (const name of names) expect(name + (await client.get(name))).not.toContain(key.slice(8));
    }
    client.destroy();
    expect((await keys('list')).stdout).toContain(`${key.slice(0, 7)}…`);
  });

  test('S1-95: no key and a bad one are 401; a key is kept to its models', async () => {
    await using gateway = await start();
    expect((await ask(gateway, chat())).status).toBe(401);
    expect(await statusOf(gateway, 'agw_sk_unknown')).toBe(401);
    const { key } = await issue('--subject', 'cheap', '--models', 'gpt-4o-mini,llama*');
    const headers = { 'x-api-key': key };
    const list = await (await send(`${gateway.url}/v1/models`, { headers })).json<{ data: { id: string }[] }>();
    expect(list.data.map(({ id }) => id)).toEqual(['gpt-4o-mini', 'llama3:8b']);
    const refused = await ask(gateway, chat('gpt-4o'), { headers });
    expect([refused.status, await refused.json()]).toEqual([
      403,
      {
        error: {
          message: 'Model is not allowed for this API key',
          type: 'invalid_request_error',
          code: 'model_not_allowed',
        },
      },
    ]);
    expect((await ask(gateway, chat('llama3:8b'), { headers })).status).toBe(200);
  });

  test('a revoked key stops on two gateways within seconds, without a restart', async () => {
    await using one = await start();
    await using two = await start();
    const { key, id } = await issue('--subject', 'ci');
    expect([await statusOf(one, key), await statusOf(two, key)]).toEqual([200, 200]);
    expect((await keys('revoke', id)).code).toBe(0);
    // `refresh` is 2 s; the rest is the machine's.
    await expect.poll(() => statusOf(one, key), { interval: 50, timeout: 10_000 }).toBe(401);
    await expect.poll(() => statusOf(two, key), { interval: 50, timeout: 10_000 }).toBe(401);
    const answer = await ask(one, chat(), { headers: { authorization: `Bearer ${key}` } });
    expect(await errorOf(answer)).toMatchObject({
      code: 'invalid_api_key',
      message: 'The API key has been revoked. Ask the operator of this gateway for a new one.',
    });
    expect(await listed(id)).toMatchObject({ state: 'revoked', revoked: expect.any(String) });
    expect(await keys('rotate', id)).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('revoked already'),
    });
  });

  test('rotating gives a new key for the same holder; the old one goes on for the grace', async () => {
    await using gateway = await start(redis.url, { refresh: '100ms' });
    const old = await issue(
      '--subject',
      'ci',
      '--tenant',
      'acme',
      '--models',
      'gpt-4o',
      '--expires',
      '90d',
      '--budget-usd',
      '1',
    );
    const next = JSON.parse((await keys('rotate', old.id, '--grace', '1h', '--json')).stdout) as Issued;
    expect(next.key).not.toBe(old.key);
    expect(await listed(next.id)).toMatchObject({
      subject: 'ci',
      tenant: 'acme',
      models: ['gpt-4o'],
      budget: { usd: 1 },
    });
    expect([await statusOf(gateway, old.key), await statusOf(gateway, next.key)]).toEqual([200, 200]);
    const left = Date.parse(String((await listed(old.id))?.expires)) - Date.now();
    expect(left).toBeGreaterThan(3_500_000);
    expect(left).toBeLessThanOrEqual(3_600_000);
    expect(Date.parse(next.expires!) - Date.now()).toBeGreaterThan(89 * 86_400_000);
    expect((await keys('rotate', old.id)).stderr).toContain(`rotate ${next.id}`);

    const last = JSON.parse((await keys('rotate', next.id, '--grace', '0s', '--json')).stdout) as Issued;
    await expect.poll(() => statusOf(gateway, next.key), { interval: 20, timeout: 10_000 }).toBe(401);
    expect([await statusOf(gateway, last.key), await statusOf(gateway, old.key)]).toEqual([200, 200]);
  });

  test('two who rotate one key at once do not both get one', async () => {
    const { id } = await issue('--subject', 'ci');
    const done = await Promise.all([keys('rotate', id), keys('rotate', id)]);
    const won = done.filter(({ code }) => code === 0);
    expect(won).toHaveLength(1);
    expect(done.find(({ code }) => code === 1)).toMatchObject({
      stdout: '',
      stderr: expect.stringContaining('replaced'),
    });
  });

  test('show tells all but the hash; an id that is not there is said to be so', async () => {
    const { id, key } = await issue('--subject', 'ci', '--name', 'nightly', '--expires', '2099-01-31');
    const shown = await keys('show', id);
    expect(shown.stdout).toMatch(/^name +nightly$/m);
    expect(shown.stdout).toMatch(/^expires +2099-01-31T00:00:00.000Z$/m);
    expect(shown.stdout).not.toMatch(/digest|[0-9a-f]{64}/);
    expect(shown.stdout).not.toContain(key.slice(8));
    for (const command of ['show', 'revoke', 'rotate']) {
      expect(await keys(command, '0000000000000000')).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('no key'),
      });
    }
  });

  test('Redis restarts: who was seen goes on, others get 503 and not 401, and all is well when it is back', async () => {
    await using door = await startDoor();
    await using gateway = await start(door.url, { refresh: '100ms' });
    const [seen, unseen] = [await issue('--subject', 'seen'), await issue('--subject', 'unseen')];
    expect(await statusOf(gateway, seen.key)).toBe(200);
    door.set('closed');
    await expect.poll(() => statusOf(gateway, unseen.key), { interval: 20, timeout: 5_000 }).toBe(503);
    expect(await statusOf(gateway, seen.key)).toBe(200);
    expect(await statusOf(gateway, 'sk-config')).toBe(200);
    expect(gateway.logText).toContain('key_store_unavailable: the key store');
    expect(gateway.logText).not.toContain(unseen.key);
    door.set('open');
    await expect.poll(() => statusOf(gateway, unseen.key), { interval: 50, timeout: 10_000 }).toBe(200);
    await keys('revoke', seen.id);
    await expect.poll(() => statusOf(gateway, seen.key), { interval: 50, timeout: 10_000 }).toBe(401);
  });

  test('Redis is silent: nobody waits for it for long, and its connection is given up and made anew', async () => {
    await using door = await startDoor();
    await using gateway = await start(door.url, { refresh: '50ms', timeout: '100ms' });
    const [seen, unseen] = [await issue('--subject', 'seen'), await issue('--subject', 'unseen')];
    expect(await statusOf(gateway, seen.key)).toBe(200);
    door.set('silent');
    expect(await statusOf(gateway, unseen.key)).toBe(503);
    for (let i = 0; i < 20; i++) expect(await statusOf(gateway, seen.key)).toBe(200);
    // What was asked in the silence is never answered on that connection; it is given up after 3 s.
    door.set('open');
    await expect.poll(() => statusOf(gateway, unseen.key), { interval: 100, timeout: 20_000 }).toBe(200);
  });

  test('Redis is not there at the start: the gateway is, and knows the keys as soon as Redis comes', async () => {
    await using door = await startDoor();
    door.set('closed');
    await using gateway = await start(door.url);
    const { key } = await issue('--subject', 'late');
    expect(await statusOf(gateway, 'sk-config')).toBe(200);
    expect(await statusOf(gateway, key)).toBe(503);
    door.set('open');
    await expect.poll(() => statusOf(gateway, key), { interval: 50, timeout: 10_000 }).toBe(200);
    await soon(() => gateway.logText.includes(key)).toBe(false);
  });

  test('the plugin as a service of its own: issued, kept to its models, revoked, and a fault while Redis is away', async () => {
    await using door = await startDoor();
    const service = await servePlugin(apiKeyAuth, { grpc: '127.0.0.1:0' });
    try {
      const plugins = {
        keys: { at: service.grpcUrl, config: { redis: { url: door.url, namespace, refresh: '100ms', outage: '0s' } } },
      };
      const models = { 'gpt-4o': 'up', 'gpt-4o-mini': 'up' };
      await using gateway = await startGateway(configFor(upstream.url, { plugins, models }), { log: 'warn' });
      const { key, id } = await issue('--subject', 'ci', '--models', 'gpt-4o');
      await expect.poll(() => statusOf(gateway, key), { interval: 50, timeout: 10_000 }).toBe(200);
      const other = await ask(gateway, chat('gpt-4o-mini'), { headers: { 'x-api-key': key } });
      expect([other.status, await other.json()]).toMatchObject([403, { error: { code: 'model_not_allowed' } }]);
      door.set('closed');
      await expect.poll(() => statusOf(gateway, key), { interval: 50, timeout: 10_000 }).toBe(503);
      door.set('open');
      await expect.poll(() => statusOf(gateway, key), { interval: 50, timeout: 10_000 }).toBe(200);
      await keys('revoke', id);
      await expect.poll(() => statusOf(gateway, key), { interval: 50, timeout: 10_000 }).toBe(401);
    } finally {
      await service.close();
    }
  });

  test('an entry that is no key is a fault for its id alone, and is not listed', async () => {
    await using gateway = await start();
    const [good, broken] = [await issue('--subject', 'ci'), await issue('--subject', 'ci')];
    const client = await createClient({ url: redis.url }).connect();
    await client.set(namespace + broken.id, '{"version":2}');
    await client.set(`${namespace}other`, 'no key at all');
    client.destroy();
    expect(await statusOf(gateway, broken.key)).toBe(503);
    expect(await statusOf(gateway, good.key)).toBe(200);
    expect(await listed(broken.id)).toBeUndefined();
    expect(await keys('show', broken.id)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('no key of this version'),
    });
  });
});
