/** Issued keys: how they are made, and what is remembered of what the store said. Real Redis: test/real/api-key-auth.test.ts. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it, vi } from 'vitest';
import { readConfig } from '../../../plugins/api-key-auth/config.ts';
import { digestOf, idOf, isMistyped, newKey, startOf } from '../../../plugins/api-key-auth/key.ts';
import { ApiKeyAuth, apiKeyAuth } from '../../../plugins/api-key-auth/plugin.ts';
import { type KeyRecord, readRecord } from '../../../plugins/api-key-auth/record.ts';
import type { AllowOrReject } from '../../../proto/contract.ts';
import { ConfigProblem } from '../../../proto/contract.ts';

describe('a new key', () => {
  it('has a readable begin, 256 bits and a checksum, and is never the same', () => {
    const keys = Array.from({ length: 1_000 }, () => newKey('wg_'));
    expect(new Set(keys).size).toBe(1_000);
    for (const key of keys) expect(key).toMatch(/^wg_[0-9A-Za-z]{49}$/);
    expect(startOf(keys[0]!, 'wg_')).toBe(keys[0]!.slice(0, 7));
    expect(idOf(digestOf(keys[0]!))).toMatch(/^[0-9a-f]{16}$/);
  });

  it('shows a typo: any one character changed, swapped, lost or added', () => {
    const key = newKey('wg_');
    expect(isMistyped(key)).toBe(false);
    for (let i = 3; i < key.length; i++) {
      const other = key[i] === 'a' ? 'b' : 'a';
      expect(isMistyped(key.slice(0, i) + other + key.slice(i + 1))).toBe(true);
      expect(isMistyped(key.slice(0, i) + key.slice(i + 1))).toBe(true);
      expect(isMistyped(key.slice(0, i) + other + key.slice(i))).toBe(true);
      if (i > 3 && key[i] !== key[i - 1]) {
        expect(isMistyped(key.slice(0, i - 1) + key[i] + key[i - 1] + key.slice(i + 1))).toBe(true);
      }
    }
  });

  it('may begin with more', () => {
    const key = newKey('wg_team-a_');
    expect([isMistyped(key), isMistyped(`${key}x`), isMistyped('wg_')]).toEqual([false, true, true]);
  });

  it.each(['sk-123', '', 'eyJhbGciOi.e30.x', newKey('sk_team_')])('of another make is not judged by it: %s', (key) => {
    expect(isMistyped(key)).toBe(false);
  });
});

/** A store in which keys are put by the test, and which may be away or silent. */
function fakeStore() {
  const records = new Map<string, KeyRecord>();
  const store = {
    asked: 0,
    mode: 'up' as 'up' | 'away' | 'silent',
    records,
    async get(id: string): Promise<KeyRecord | undefined> {
      store.asked += 1;
      if (store.mode === 'away') throw new Error('The client is offline');
      if (store.mode === 'silent') return new Promise(() => {});
      const record = records.get(id);
      return record && readRecord(JSON.stringify(record));
    },
    close() {},
    issue(fields: Partial<KeyRecord> = {}): string {
      const key = newKey('wg_');
      const digest = digestOf(key);
      const own = { version: 1, digest: digest.toString('hex'), start: startOf(key, 'wg_') } as const;
      records.set(idOf(digest), { ...own, subject: 'ci', created: new Date().toISOString(), ...fields });
      return key;
    },
    change(key: string, fields: Partial<KeyRecord>) {
      const id = idOf(digestOf(key));
      records.set(id, { ...records.get(id)!, ...fields });
    },
  };
  return store;
}

/** A plugin with a store and a clock of its own. */
function pluginWith(store: ReturnType<typeof fakeStore>, config: object = {}) {
  const clock = { now: 1_000_000 };
  const redis = { url: 'redis://store.example', timeout: '50ms' };
  const plugin = new ApiKeyAuth(readConfig({ redis, ...config }), store, () => clock.now);
  const ask = async (key: string): Promise<AllowOrReject> => {
    const request = { id: 'r1', method: 'POST', path: '/', route: '/', headers: { 'x-api-key': key } };
    return plugin.authenticate({ request });
  };
  return { clock, plugin, ask };
}

const KNOWN = { allow: { identity: expect.objectContaining({ subject: 'ci' }) } };
const refusedAs = (message: RegExp) => ({
  reject: expect.objectContaining({ code: 'invalid_api_key', status: 401, message: expect.stringMatching(message) }),
});

describe('an issued key', () => {
  it('brings the identity that it was issued for', async () => {
    const store = fakeStore();
    const { ask } = pluginWith(store);
    const key = store.issue({
      groups: ['g'],
      tenant: 't',
      name: 'nightly',
      models: ['gpt-4o*'],
      budget: { usd: 1, per: '24h' },
    });
    const claim = { id: idOf(digestOf(key)), name: 'nightly', models: ['gpt-4o*'], budget: { usd: 1, per: '24h' } };
    expect(await ask(key)).toEqual({
      allow: {
        identity: { subject: 'ci', issuer: 'api-key-auth', groups: ['g'], tenant: 't', claims: { 'api-key': claim } },
      },
    });
  });

  it('is looked up once in `refresh`, whoever asks at once', async () => {
    const store = fakeStore();
    const { ask, clock } = pluginWith(store);
    const key = store.issue();
    expect(await Promise.all(Array.from({ length: 20 }, () => ask(key)))).toEqual(Array(20).fill(KNOWN));
    expect(store.asked).toBe(1);
    clock.now += 1_999;
    await ask(key);
    expect(store.asked).toBe(1);
    clock.now += 1;
    await ask(key);
    expect(store.asked).toBe(2);
  });

  it('that is revoked stops within `refresh`', async () => {
    const store = fakeStore();
    const { ask, clock } = pluginWith(store);
    const key = store.issue();
    expect(await ask(key)).toEqual(KNOWN);
    store.change(key, { revoked: new Date().toISOString() });
    clock.now += 2_000;
    expect(await ask(key)).toEqual(refusedAs(/has been revoked/));
  });

  it('that was removed from the store stops too', async () => {
    const store = fakeStore();
    const { ask, clock } = pluginWith(store);
    const key = store.issue();
    await ask(key);
    store.records.clear();
    clock.now += 2_000;
    expect(await ask(key)).toEqual(refusedAs(/not known/));
  });

  it('that was removed is not taken for known again when the store goes away', async () => {
    const store = fakeStore();
    const { ask, clock } = pluginWith(store);
    const key = store.issue();
    await ask(key);
    store.records.clear();
    clock.now += 2_000;
    await ask(key);
    store.mode = 'away';
    clock.now += 2_000;
    await expect(ask(key)).rejects.toThrow('the key store cannot be asked');
  });

  it('expires to the millisecond, without a look into the store', async () => {
    const store = fakeStore();
    const { ask } = pluginWith(store);
    const expires = Date.now() + 60_000;
    const key = store.issue({ expires: new Date(expires).toISOString() });
    vi.useFakeTimers({ toFake: ['Date'], now: expires - 1 });
    expect(await ask(key)).toEqual(KNOWN);
    vi.setSystemTime(expires);
    expect(await ask(key)).toEqual(refusedAs(/has expired/));
    vi.useRealTimers();
    expect(store.asked).toBe(1);
  });

  it('that was not known yet works soon after it is issued', async () => {
    const store = fakeStore();
    const { ask, clock } = pluginWith(store);
    const key = store.issue();
    const record = store.records.get(idOf(digestOf(key)))!;
    store.records.clear();
    expect(await ask(key)).toEqual(refusedAs(/not known/));
    store.records.set(idOf(digestOf(key)), record);
    clock.now += 1_000;
    expect(await ask(key)).toEqual(KNOWN);
  });

  it('with a typo is told so, and not looked up', async () => {
    const store = fakeStore();
    const { ask } = pluginWith(store);
    expect(await ask(store.issue().slice(0, -1))).toEqual(refusedAs(/typo/));
    expect(store.asked).toBe(0);
  });

  it('does not pass for another one with the same id', async () => {
    const store = fakeStore();
    const { ask } = pluginWith(store);
    const key = store.issue();
    store.change(key, { digest: '0'.repeat(64) });
    expect(await ask(key)).toEqual(refusedAs(/not known/));
  });

  it('is remembered among at most 10,000, and guesses drive none out', async () => {
    const store = fakeStore();
    const { ask } = pluginWith(store);
    const key = store.issue();
    await ask(key);
    for (let i = 0; i < 12_000; i++) await ask(`guess-${i}`);
    expect(store.asked).toBe(12_001);
    await ask(key);
    expect(store.asked).toBe(12_001);
    await ask('guess-0');
    expect(store.asked).toBe(12_002);
  });
});

describe('a store that does not answer', () => {
  it.each(['away', 'silent'] as const)('(%s) keeps nobody out who was seen, until `outage` is over', async (mode) => {
    const store = fakeStore();
    const { ask, clock } = pluginWith(store);
    const key = store.issue();
    await ask(key);
    store.mode = mode;
    clock.now += 29_000;
    expect(await ask(key)).toEqual(KNOWN);
    clock.now += 1_000;
    await expect(ask(key)).rejects.toThrow('the key store cannot be asked');
  });

  it('is a fault for those who were not seen, and not a no', async () => {
    const store = fakeStore();
    const { ask } = pluginWith(store);
    const key = store.issue();
    store.mode = 'away';
    await expect(ask(key)).rejects.toThrow('the key store cannot be asked: The client is offline');
    await expect(ask('anything')).rejects.toThrow('the key store did not answer a moment ago');
  });

  it('is not asked again for half a second, then it is, and all is well', async () => {
    const store = fakeStore();
    const { ask, clock } = pluginWith(store);
    const key = store.issue();
    store.mode = 'away';
    await expect(ask(key)).rejects.toThrow();
    store.mode = 'up';
    clock.now += 499;
    await expect(ask(key)).rejects.toThrow();
    expect(store.asked).toBe(1);
    clock.now += 1;
    expect(await ask(key)).toEqual(KNOWN);
  });

  it('does not concern the keys of the config, nor those who show none', async () => {
    const store = fakeStore();
    const { ask } = pluginWith(store, { keys: [{ key: 'sk-1', subject: 'ci' }], prefix: ['sk-', 'wg_'] });
    store.mode = 'away';
    expect(await ask('sk-1')).toEqual(KNOWN);
    expect(await ask('eyJ.a.b')).toHaveProperty('allow.challenge');
    expect(store.asked).toBe(0);
  });

  it('is not taken for away because one entry is no key', async () => {
    const store = fakeStore();
    const { ask } = pluginWith(store);
    const [good, bad] = [store.issue(), store.issue()];
    store.change(bad, { subject: '' });
    await expect(ask(bad)).rejects.toThrow('no key of this version');
    expect(await ask(good)).toEqual(KNOWN);
  });
});

describe('the config of the store', () => {
  const refused = (redis: object) => {
    try {
      apiKeyAuth.create({ redis });
    } catch (error) {
      expect(error).toBeInstanceOf(ConfigProblem);
      return (error as ConfigProblem).problems;
    }
    throw new Error('this config was taken');
  };

  it.each([
    [{}, 'redis.url'],
    [{ url: 'http://secret-host' }, 'redis.url'],
    [{ url: 'redis:secret' }, 'redis.url'],
    [{ url: 'redis://h', refresh: 2 }, 'redis.refresh'],
    [{ url: 'redis://h', outage: 'long' }, 'redis.outage'],
    [{ url: 'redis://h', timeout: '0s' }, 'redis.timeout'],
    [{ url: 'redis://h', namespace: '' }, 'redis.namespace'],
    [{ url: 'redis://h', cache: '30s' }, 'redis.cache'],
  ])('refuses %j at %s', (redis, path) => {
    const problems = refused(redis);
    expect(problems.map((problem) => problem.path.join('.'))).toContain(path);
    expect(JSON.stringify(problems)).not.toContain('secret');
  });

  it('that nothing answers at is not seen at the start: the keys of the config work all the same', async () => {
    const keys = [{ key: 'sk-1', subject: 'ci' }];
    const plugin = apiKeyAuth.create({ keys, redis: { url: 'redis://127.0.0.1:1' } });
    const request = (key: string) => ({ id: 'r', method: 'GET', path: '/', route: '/', headers: { 'x-api-key': key } });
    expect(await plugin.authenticate!({ request: request('sk-1') })).toEqual(KNOWN);
    await expect((async () => plugin.authenticate!({ request: request('other') }))()).rejects.toThrow(
      'cannot be asked',
    );
    await plugin.close!();
  });
});

describe('keys.ts', () => {
  const script = fileURLToPath(new URL('../../../plugins/api-key-auth/keys.ts', import.meta.url));
  const run = async (...words: string[]) => {
    const env = { ...process.env, REDIS_URL: '' };
    const done = promisify(execFile)(process.execPath, [script, ...words], { env });
    return done.then(
      ({ stdout }) => ({ code: 0, stdout, stderr: '' }),
      (error: { code: number; stdout: string; stderr: string }) => error,
    );
  };

  it('tells what it does', async () => {
    expect(await run('--help')).toMatchObject({ code: 0, stdout: expect.stringContaining('rotate ID') });
  });

  it.each([
    [[], 'issue, list, show, revoke, rotate'],
    [['constructor'], 'issue, list, show, revoke, rotate'],
    [['issue', '--subject', 'ci'], '--redis redis://localhost:6379, or REDIS_URL'],
    [['list', '--redis', 'http://localhost'], 'redis:// or rediss://'],
    [['revoke'], 'by its id, 16 hexadecimal digits'],
    [['revoke', 'wg_not-an-id'], 'by its id, 16 hexadecimal digits'],
    [['list', 'more'], 'does not want that many words'],
    [['list', '--subject', 'ci'], '--subject does not go with list'],
    [['list', '--nothing'], '--nothing'],
  ])('%j is not understood, and says what to do', async (words, told) => {
    const { code, stderr, stdout } = await run(...words);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain(told);
    expect(stderr).not.toContain('    at ');
  });

  it('says when Redis cannot be used, without the password', async () => {
    const { code, stderr } = await run('list', '--redis', 'redis://user:hunter2@127.0.0.1:1');
    expect(code).toBe(1);
    expect(stderr).toMatch(/^Redis at 127\.0\.0\.1:1 cannot be used \(.*ECONNREFUSED.*\)\. Start it, or name another/);
    expect(stderr).not.toContain('hunter2');
  });
});
