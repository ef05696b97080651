/** What openfga-authz remembers: decisions for a short while, the store and its model until they are others. */
import { beforeEach, describe, expect, test } from 'vitest';
import { readConfig } from '../../../plugins/openfga-authz/config.ts';
import { OpenfgaAuthz } from '../../../plugins/openfga-authz/plugin.ts';
import type { AllowOrReject, Identity } from '../../../proto/contract.ts';
import { soon } from '../../gateway/chat.ts';
import { type FakeOpenfga, startFakeOpenfga } from './fake-openfga.ts';

const OTHER_MODEL = '01M7Z5DFR1EVN1ZB7PM5RAP7TK';
let now = 0;
let fga: FakeOpenfga;
let plugin: OpenfgaAuthz;

beforeEach(async () => {
  now = 0;
  fga = await startFakeOpenfga('user:bob can_use model:a');
  return async () => {
    plugin.close();
    await fga[Symbol.asyncDispose]();
  };
});

function make(config: object = {}): OpenfgaAuthz {
  plugin = new OpenfgaAuthz(readConfig({ apiUrl: fga.url, ...config }), () => now);
  return plugin;
}

function ask(names: string | string[], more: Partial<Identity> & { action?: string; signal?: AbortSignal } = {}) {
  const { action = 'model.use', signal, ...identity } = more;
  const request = {
    id: 'r',
    method: 'POST',
    path: '/',
    route: '/',
    identity: { subject: 's', username: 'bob', ...identity },
  };
  const resources = [names].flat().map((name) => ({ type: 'model' as const, name }));
  return plugin.authorize({ request, action: action as never, resources }, { signal });
}

async function decisions(answer: AllowOrReject | Promise<AllowOrReject>): Promise<boolean[]> {
  const verdict = await answer;
  return 'allow' in verdict ? verdict.allow.decisions! : [];
}

/** True when the answer was not known already. */
async function isAsked(answer: AllowOrReject | Promise<AllowOrReject>): Promise<boolean> {
  const isPromise = answer instanceof Promise;
  await answer;
  return isPromise;
}

describe('decisions', () => {
  test('are answered at once from memory, without a promise', async () => {
    make();
    const first = ask(['a', 'b']);
    expect(first).toBeInstanceOf(Promise);
    expect(await first).toEqual({ allow: { decisions: [true, false] } });
    expect(ask(['b', 'a', 'a'])).toEqual({ allow: { decisions: [false, true, true] } });
    expect(fga.asked).toHaveLength(1);
  });

  test('of yes hold for 10 seconds, of no for 2', async () => {
    make();
    await ask(['a', 'b']);
    now = 1999;
    expect(ask(['a', 'b'])).toEqual({ allow: { decisions: [true, false] } });
    now = 2000;
    expect(await isAsked(ask('b'))).toBe(true);
    now = 9999;
    expect(ask('a')).toEqual({ allow: { decisions: [true] } });
    now = 10_000;
    expect(await isAsked(ask('a'))).toBe(true);
  });

  test('that are no longer true are so for no longer than that', async () => {
    make({ cache: { allowed: '5s', denied: '1s' } });
    await ask(['a', 'b']);
    fga.allowed.clear();
    fga.allowed.add('user:bob can_use model:b');
    now = 1000;
    expect(await decisions(ask('b'))).toEqual([true]);
    now = 5000;
    expect(await decisions(ask('a'))).toEqual([false]);
  });

  test('only those that are missing are asked for, in a list', async () => {
    make();
    await ask('b');
    expect(await decisions(ask(['c', 'b', 'a', '']))).toEqual([false, false, true, false]);
    expect(fga.asked[1]?.body.checks?.map(({ tuple_key: key }) => key.object)).toEqual(['model:c', 'model:a']);
  });

  test('belong to one user with these groups', async () => {
    make({ groups: {} });
    await ask('a', { groups: ['x'] });
    expect(await isAsked(ask('a', { groups: ['x'], email: 'other' }))).toBe(false);
    for (const other of [
      { groups: ['y'] },
      { groups: ['x', 'y'] },
      { groups: [] },
      { username: 'ann', groups: ['x'] },
    ]) {
      expect(await isAsked(ask('a', other))).toBe(true);
    }
  });

  test('are kept apart for many groups with long names, too', async () => {
    make({ groups: {} });
    const groups = Array.from({ length: 100 }, (_, i) => `${'g'.repeat(100)}${i}`);
    await ask('a', { groups });
    expect(await isAsked(ask('a', { groups: groups.toReversed() }))).toBe(false);
    expect(await isAsked(ask('a', { groups: groups.slice(1) }))).toBe(true);
    expect(await isAsked(ask('a', { groups: [...groups, 'one-more'] }))).toBe(true);
  });

  test('are bounded in number; what was not asked for longest goes first', async () => {
    make({ cache: { entries: 3 } });
    await ask(['a', 'b', 'c']);
    await ask('a');
    await ask('d');
    expect(plugin.size).toBe(3);
    expect(await isAsked(ask(['a', 'c', 'd']))).toBe(false);
    expect(await isAsked(ask('b'))).toBe(true);
  });

  test.each([{ cache: false }, { consistency: 'HIGHER_CONSISTENCY' }])('are not remembered with %j', async (config) => {
    make(config);
    await ask('a');
    expect(await isAsked(ask('a'))).toBe(true);
    expect(plugin.size).toBe(0);
  });

  test('are not remembered when there were none', async () => {
    make({ retries: 0 });
    fga.odd = (path) => (path === '/check' ? { status: 500, body: {} } : undefined);
    await expect(ask('a')).rejects.toThrow('OpenFGA answered 500');
    fga.odd = () => undefined;
    expect(await decisions(ask('a'))).toEqual([true]);
  });

  test('ask for consistency as the config has it', async () => {
    make({ consistency: 'HIGHER_CONSISTENCY' });
    await ask('a');
    await ask(['a', 'b']);
    expect(fga.asked.map(({ body }) => body.consistency)).toEqual(['HIGHER_CONSISTENCY', 'HIGHER_CONSISTENCY']);
  });
});

describe('questions that are under way', () => {
  test('are asked once for all who want to know', async () => {
    make();
    const answers = await Promise.all(Array.from({ length: 20 }, () => decisions(ask('a'))));
    expect(answers.flat()).toEqual(Array(20).fill(true));
    expect(fga.asked).toHaveLength(1);
    expect(fga.lookUps).toBe(2);
  });

  test('are asked anew by each who wants to see what was written before', async () => {
    make({ consistency: 'HIGHER_CONSISTENCY' });
    await Promise.all([ask('a'), ask('a')]);
    expect(fga.asked).toHaveLength(2);
  });

  test('go on for the others when one has left', async () => {
    make();
    await ask('warm');
    const leaving = new AbortController();
    const left = ask('a', { signal: leaving.signal });
    const stays = ask('a');
    leaving.abort(new Error('gone'));
    await expect(left).rejects.toThrow('gone');
    expect(await decisions(stays)).toEqual([true]);
    expect(fga.asked).toHaveLength(2);
  });

  test('are given up when nobody waits, and asked anew by the next', async () => {
    make({ timeout: '1h' });
    await ask('warm');
    fga.odd = () => 'hang';
    const leaving = new AbortController();
    const left = ask('a', { signal: leaving.signal });
    await soon(() => fga.asked.length).toBe(2);
    leaving.abort(new Error('gone'));
    await expect(left).rejects.toThrow('gone');
    // The SDK itself gives up after 10 seconds.
    await expect.poll(() => fga.openRequests, { timeout: 5000 }).toBe(0);
    fga.odd = () => undefined;
    expect(await decisions(ask('a'))).toEqual([true]);
  });

  test('that have just been given up are not waited for', async () => {
    make();
    await ask('warm');
    const leaving = new AbortController();
    const left = ask('a', { signal: leaving.signal }) as Promise<AllowOrReject>;
    const next = left.catch(() => decisions(ask('a')));
    leaving.abort(new Error('gone'));
    expect(await next).toEqual([true]);
  });

  test('do not begin for somebody who has left already', async () => {
    make();
    await expect(ask('a', { signal: AbortSignal.abort(new Error('gone')) })).rejects.toThrow('gone');
  });
});

describe('the store', () => {
  test('and its newest model are found by name, once, and named in each question', async () => {
    fga.stores.unshift({ id: '01M7Z5DFQRA1W19MXBD0K2D4D5', name: 'wardgate-2' });
    make();
    await ask('a');
    await ask('b');
    expect(fga.lookUps).toBe(2);
    expect(fga.asked.map(({ body }) => body.authorization_model_id)).toEqual([fga.modelId, fga.modelId]);
  });

  test('that is not there is a fault with the command that makes it; when it is there, all is well', async () => {
    fga.stores[0]!.name = 'other';
    make({ store: 'acme' });
    await expect(ask('a')).rejects.toMatchObject({
      name: 'PluginFault',
      code: 'openfga_no_store',
      message: expect.stringContaining(`node plugins/openfga-authz/seed.ts --api-url ${fga.url} --store acme --model`),
    });
    fga.stores[0]!.name = 'acme';
    expect(await decisions(ask('a'))).toEqual([true]);
  });

  test('that has no model is a fault with the command that makes one', async () => {
    make();
    fga.odd = (path) => (path === '/authorization-models' ? { body: { authorization_models: [] } } : undefined);
    await expect(ask('a')).rejects.toMatchObject({
      code: 'openfga_no_model',
      message: expect.stringContaining('seed.ts'),
    });
  });

  test('whose name another one has, too, is nobody’s to choose', async () => {
    fga.stores.push({ id: '01M7Z5DFQRA1W19MXBD0K2D4D5', name: 'wardgate' });
    make();
    await expect(ask('a')).rejects.toThrow('several stores of this name. Write `storeId` instead');
    plugin.close();
    make({ storeId: fga.stores[0]!.id });
    expect(await decisions(ask('a'))).toEqual([true]);
  });

  test.each([{}, { stores: 'x' }, 'hello', { stores: [null] }])('is not looked for in %j', async (body) => {
    make({ retries: 0 });
    fga.odd = (path) => (path === '/stores' ? { body } : undefined);
    await expect(ask('a')).rejects.toThrow();
  });

  test.each([
    ['that was made anew', '01M7Z5DFQRA1W19MXBD0K2D4D5'],
    ['whose model was made anew', '01M7Z4S8R85YC77WJEVBFDHFHP'],
  ])('%s is found within the same question, and what was decided before is forgotten', async (_what, id) => {
    make();
    await ask(['a', 'b']);
    expect(plugin.size).toBe(2);
    fga.stores[0]!.id = id;
    fga.modelId = OTHER_MODEL;
    expect(await decisions(ask('c'))).toEqual([false]);
    expect(await isAsked(ask('a'))).toBe(true);
  });

  test('is looked up again after a minute, beside the questions, so that a newer model is used', async () => {
    make();
    await ask(['a', 'b']);
    const isOld = fga.modelId;
    fga.knownModels.push(fga.modelId);
    fga.modelId = OTHER_MODEL;
    now = 59_999;
    await ask('c');
    expect(fga.lookUps).toBe(2);
    now = 60_000;
    await ask('d');
    await soon(() => fga.lookUps).toBe(4);
    await soon(() => plugin.size).toBe(0);
    await ask('e');
    expect(fga.asked.map(({ body }) => body.authorization_model_id)).toEqual([isOld, isOld, isOld, OTHER_MODEL]);
  });

  test('that is another one by the time of an answer is not what that is remembered for', async () => {
    make();
    await ask('b');
    fga.odd = (path, body) => {
      if (path === '/check' && body.tuple_key?.object === 'model:a') return slow.promise;
      return undefined;
    };
    const slow = Promise.withResolvers<undefined>();
    const asked = ask('a');
    await soon(() => fga.asked.length).toBe(2);
    fga.knownModels.push(fga.modelId);
    fga.modelId = OTHER_MODEL;
    now = 60_000;
    await ask('c');
    await soon(() => fga.lookUps).toBe(4);
    await soon(() => plugin.size).toBe(0);
    slow.resolve(undefined);
    expect(await decisions(asked)).toEqual([true]);
    expect(plugin.size).toBe(0);
  });

  test('that is found to be gone a minute later is asked no longer, though it goes on answering', async () => {
    make({ cache: false });
    await ask('a');
    const { id } = fga.stores[0]!;
    fga.odd = (path) => (path === '/stores' ? { body: { stores: [], continuation_token: '' } } : undefined);
    now = 60_000;
    await ask('a');
    await soon(() => fga.lookUps).toBe(3);
    await expect(ask('a')).rejects.toThrow('no store named wardgate');
    expect(fga.stores[0]!.id).toBe(id);
  });

  test('stays when it cannot be looked up again for the moment', async () => {
    make({ cache: false, retries: 0 });
    await ask('a');
    fga.odd = (path) => (path === '/stores' ? { status: 500, body: {} } : undefined);
    now = 60_000;
    expect(await decisions(ask('a'))).toEqual([true]);
    await soon(() => fga.lookUps).toBe(3);
    expect(await decisions(ask('a'))).toEqual([true]);
  });

  test('whose model subtracts, and a token with too many groups, are a fault: what is left out may forbid', async () => {
    fga.model.model = { can_use: { difference: { base: { this: {} }, subtract: { this: {} } } } };
    make({ groups: { max: 2 } });
    await expect(ask('a', { groups: ['x', 'y', 'z'] })).rejects.toThrow('more groups than OpenFGA takes');
    expect(await decisions(ask('a', { groups: ['x', 'y'] }))).toEqual([true]);
  });

  test('whose model has no such group is a fault', async () => {
    fga.model.team = {};
    make({ groups: {} });
    await expect(ask('a', { groups: ['x'] })).rejects.toThrow('no relation member of team');
    expect(await decisions(ask('a', { groups: [] }))).toEqual([true]);
  });
});

describe('credentials', () => {
  test('as a preshared key are a bearer token', async () => {
    make({ credentials: { token: 'preshared' } });
    await ask('a');
    expect(fga.asked[0]?.headers.authorization).toBe('Bearer preshared');
  });

  test('of a client are changed for a token first', async () => {
    const credentials = { issuer: fga.url, audience: 'fga', clientId: 'c', clientSecret: 's' };
    fga.odd = (path) => (path === '/oauth/token' ? { body: { access_token: 'minted', expires_in: 3600 } } : undefined);
    make({ credentials });
    await ask('a');
    await ask('b');
    expect(fga.asked.filter(({ path }) => path === '/check').map(({ headers }) => headers.authorization)).toEqual([
      'Bearer minted',
      'Bearer minted',
    ]);
    expect(fga.asked.filter(({ path }) => path === '/oauth/token')).toHaveLength(1);
  });
});
