/** oidc-auth before a real Redis: logouts reach all replicas, survive restarts, and a Redis that is away is no surprise. */
import { randomUUID } from 'node:crypto';
import { createClient } from '@redis/client';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { oidcAuth } from '../../plugins/oidc-auth/plugin.ts';
import type { Plugin, PluginFault } from '../../proto/contract.ts';
import { Cuttable } from '../support/cuttable.ts';
import { CLIENT, startIssuer, type TestIssuer } from '../support/issuer.ts';
import { realServer } from './servers.ts';

const redis = realServer('redis');

describe.skipIf(!redis.here)('logouts in a real Redis', () => {
  let issuer: TestIssuer;
  const plugins: Plugin[] = [];
  const prefixes: string[] = [];

  beforeAll(async () => {
    vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    issuer = await startIssuer();
  });

  afterAll(async () => {
    for (const plugin of plugins) await plugin.close?.();
    const client = createClient({ url: redis.url });
    await client.connect();
    for (const prefix of prefixes) await client.del(`${prefix}logouts`);
    await client.close();
    await issuer.stop();
    vi.restoreAllMocks();
  });

  function replica(prefix: string, more: object = {}): Plugin {
    prefixes.push(prefix);
    const plugin = oidcAuth.create({
      issuers: [{ issuer: issuer.url, audience: 'account', backchannelLogout: CLIENT.id }],
      redis: { url: redis.url, prefix, ...more },
    });
    plugins.push(plugin);
    return plugin;
  }

  async function isLetIn(plugin: Plugin, token: string): Promise<boolean> {
    const headers = { authorization: `Bearer ${token}` };
    const answer = await plugin.authenticate!({ request: { id: 'r', method: 'POST', path: '/', route: '/', headers } });
    return 'allow' in answer && answer.allow.identity !== undefined;
  }

  async function logOut(plugin: Plugin, claims: object): Promise<number> {
    const body = `logout_token=${await issuer.logoutToken({ ...claims })}`;
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    const request = { id: 'r', method: 'POST', path: '/oauth2/backchannel-logout', route: '', headers };
    return (await plugin.endpoint!({ request, query: '', body })).respond.status;
  }

  async function stops(plugin: Plugin, token: string): Promise<void> {
    await vi.waitFor(async () => expect(await isLetIn(plugin, token)).toBe(false), { timeout: 5_000, interval: 20 });
  }

  /** Redis behind a door of our own. */
  async function behindDoor(): Promise<{ door: Cuttable; url: string }> {
    const door = await new Cuttable(redis.url).open();
    const url = new URL(redis.url);
    url.host = door.address;
    return { door, url: url.href };
  }

  test('a logout at one replica stops the tokens at the others, and at one that starts later', async () => {
    const prefix = `test:${randomUUID()}:`;
    const [one, two] = [replica(prefix), replica(prefix)];
    const [mine, theirs] = [await issuer.token({ sid: 'mine' }), await issuer.token({ sid: 'theirs' })];
    for (const token of [mine, theirs]) expect(await isLetIn(two, token)).toBe(true);
    expect(await logOut(one, { sid: 'mine' })).toBe(200);
    expect(await isLetIn(one, mine)).toBe(false);
    await stops(two, mine);
    expect(await isLetIn(two, theirs)).toBe(true);
    const late = replica(prefix);
    expect(await isLetIn(late, mine)).toBe(false);
    expect(await isLetIn(late, theirs)).toBe(true);
  });

  test('what is kept runs out by itself', async () => {
    const prefix = `test:${randomUUID()}:`;
    expect(await logOut(replica(prefix), { sid: 'a' })).toBe(200);
    const client = createClient({ url: redis.url });
    await client.connect();
    const left = await client.pTTL(`${prefix}logouts`);
    await client.close();
    expect(left).toBeGreaterThan(86_000_000);
    expect(left).toBeLessThanOrEqual(86_400_000);
  });

  test('what others write there breaks nothing', async () => {
    const prefix = `test:${randomUUID()}:`;
    const client = createClient({ url: redis.url });
    await client.connect();
    const score = Date.now() + 60_000;
    const values = ['no json', '[]', 'null', '{"issuer":1}', `{"issuer":"${issuer.url}","sub":7,"at":1,"until":1e15}`];
    await client.zAdd(
      `${prefix}logouts`,
      values.map((value) => ({ score, value })),
    );
    const plugin = replica(prefix);
    expect(await isLetIn(plugin, await issuer.token())).toBe(true);
    for (const value of values) await client.publish(`${prefix}logout`, value);
    await client.close();
    expect(await isLetIn(plugin, await issuer.token())).toBe(true);
  });

  test('while Redis is away the logouts known here count, and are told when it is back', async () => {
    const prefix = `test:${randomUUID()}:`;
    const { door, url } = await behindDoor();
    await using _door = door;
    const [cut, other] = [replica(prefix, { url }), replica(prefix)];
    const tokens = [
      await issuer.token({ sid: 'x' }),
      await issuer.token({ sid: 'y' }),
      await issuer.token({ sid: 'z' }),
    ];
    for (const token of tokens) {
      expect(await isLetIn(cut, token)).toBe(true);
      expect(await isLetIn(other, token)).toBe(true);
    }
    await door.shut();
    expect(await logOut(cut, { sid: 'x' })).toBe(200);
    expect(await logOut(other, { sid: 'y' })).toBe(200);
    expect(await isLetIn(cut, tokens[0]!)).toBe(false);
    expect(await isLetIn(cut, tokens[1]!)).toBe(true);
    await door.open();
    await stops(cut, tokens[1]!);
    await stops(other, tokens[0]!);
    expect(await isLetIn(cut, tokens[2]!)).toBe(true);
  });

  test('while Redis is away nobody is let in where the config says so', async () => {
    const { door, url } = await behindDoor();
    await using _door = door;
    const plugin = replica(`test:${randomUUID()}:`, { url, onFault: 'reject' });
    const token = await issuer.token();
    expect(await isLetIn(plugin, token)).toBe(true);
    await door.shut();
    const refused = async () =>
      expect(await isLetIn(plugin, token).catch((error: PluginFault) => error.code)).toBe('logouts_unavailable');
    await vi.waitFor(refused, { timeout: 10_000, interval: 20 });
    await door.open();
    await vi.waitFor(async () => expect(await isLetIn(plugin, token)).toBe(true), { timeout: 10_000, interval: 20 });
  });

  test('a Redis that was never there: what is known here counts', async () => {
    const plugin = replica(`test:${randomUUID()}:`, { url: 'redis://127.0.0.1:1' });
    const token = await issuer.token({ sid: 'lonely' });
    expect(await isLetIn(plugin, token)).toBe(true);
    expect(await logOut(plugin, { sid: 'lonely' })).toBe(200);
    expect(await isLetIn(plugin, token)).toBe(false);
  });
});
