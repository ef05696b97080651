/** Where an identity goes: to the provider and into metrics as far as the config says, into the log, nowhere else. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Identity, RequestFacts } from '../../proto/contract.ts';
import { completion, usageOf } from '../support/chunks.ts';
import { send } from '../support/client.ts';
import { configFor, startGateway, testPlugin } from '../support/gateway.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { ask, says, soon } from './chat.ts';
import { samples } from './prometheus.ts';

const JO: Identity = {
  subject: '7f3a',
  issuer: 'https://sso.example/realms/demo',
  username: 'jo',
  email: 'jo@corp.example',
  groups: ['staff', 'a,b'],
  tenant: 'acme',
  claims: { azp: 'openweb-ui', level: 3, deep: { no: 1 }, 'https://x.example/role': 'lead' },
};

/** A gateway where the header `x-who` says who it is; what an authorizer was shown is kept. */
async function rig(parts: {
  route?: object;
  who?: (name: string) => Identity | undefined;
  [setting: string]: unknown;
}) {
  const { who = () => JO, ...settings } = parts;
  const upstream = await startScriptedUpstream();
  upstream.always(says('Hi', { whole: completion('Hi', { usage: usageOf(10, 5) }) }));
  const shown: RequestFacts[] = [];
  const sso = testPlugin('sso', {
    authenticate: ({ request }) => ({ allow: { identity: who(request.headers?.['x-who'] ?? '') } }),
    authorize({ request, resources }) {
      shown.push(request);
      return { allow: { decisions: resources.map(() => true) } };
    },
  });
  const plugins = { sso: { at: 'local:sso', headers: ['x-user', 'x-who'] } };
  const config = configFor(upstream.url, { plugins, ...settings } as Parameters<typeof configFor>[1]);
  const gateway = await startGateway(config, { factories: [sso], metrics: true, log: 'info' });
  return {
    upstream,
    gateway,
    shown,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

/** What the provider was sent. */
function sent({ upstream }: Awaited<ReturnType<typeof rig>>): Record<string, string> {
  return Object.fromEntries(upstream.requests[0]!.headers);
}

describe('headers to the provider', () => {
  const identityHeaders = {
    'X-User': 'username',
    'x-mail': 'email',
    'x-groups': 'groups',
    'x-roles': 'roles',
    'x-azp': 'claims.azp',
    'x-level': 'claims.level',
    'x-deep': 'claims.deep',
    'x-proto': 'claims.constructor',
    'x-role': 'claims.https://x.example/role',
  };

  test('have what the config names and the identity has', async () => {
    await using on = await rig({ route: { identityHeaders } });
    await (await ask(on.gateway)).text();
    const headers = sent(on);
    expect(headers).toMatchObject({
      'x-user': 'jo',
      'x-mail': 'jo@corp.example',
      'x-groups': 'staff,a%2Cb',
      'x-azp': 'openweb-ui',
      'x-level': '3',
      'x-role': 'lead',
    });
    for (const absent of ['x-roles', 'x-deep', 'x-proto']) expect(headers).not.toHaveProperty(absent);
  });

  test('are absent where the config names none', async () => {
    await using on = await rig({});
    await (await ask(on.gateway)).text();
    const all = JSON.stringify(sent(on));
    for (const value of ['jo', '7f3a', 'acme', 'openweb-ui']) expect(all).not.toContain(`"${value}"`);
  });

  test('cannot be forged: a client’s own are seen by no plugin and no provider', async () => {
    await using on = await rig({ route: { identityHeaders, identity: 'optional' }, who: () => undefined });
    await (await ask(on.gateway, undefined, { headers: { 'X-USER': 'admin', 'x-who': 'kept' } })).text();
    expect(sent(on)).not.toHaveProperty('x-user');
    expect(on.shown[0]!.headers).toEqual({ 'x-who': 'kept' });
  });

  test('carry any text as visible ASCII', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary', minLength: 1, maxLength: 40 }), async (username) => {
        await using on = await rig({
          route: { identityHeaders: { 'x-user': 'username' } },
          who: () => ({ subject: 'x', username }),
        });
        await (await ask(on.gateway)).text();
        const header = sent(on)['x-user'];
        expect(header).toMatch(/^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/);
        expect(decodeURIComponent(header!)).toBe(username.toWellFormed());
      }),
      { numRuns: 30 },
    );
  }, 60_000);

  test.each([
    ['authorization', 'username', /is not for this/],
    ['cookie', 'username', /is not for this/],
    ['X-Request-Id', 'subject', /is not for this/],
    ['user-agent', 'username', /is not for this/],
    ['x-user', 'password', /must be subject, issuer/],
    ['x-user', 'claims.', /must be subject, issuer/],
  ])('named %s: %s are refused at the start', async (name, field, problem) => {
    await expect(rig({ route: { identityHeaders: { [name]: field } } })).rejects.toThrow(problem);
  });
});

describe('labels of metrics', () => {
  const metricLabels = { user_id: 'subject', user_name: 'username' };

  async function people(on: Awaited<ReturnType<typeof rig>>, name: string): Promise<string[]> {
    const all = samples(await (await send(`${on.gateway.metricsUrl}/metrics`)).text());
    return all.filter((sample) => sample.name === name).map(({ labels }) => `${labels.user_id}/${labels.user_name}`);
  }

  test('tell people apart in requests, tokens and cost, and call a stranger unknown', async () => {
    const who = (name: string) => (name === '' ? undefined : { subject: `id-${name}`, username: name });
    await using on = await rig({
      metricLabels,
      who,
      route: { identity: 'optional' },
      prices: { 'test-model': { input: 1, output: 1 } },
    });
    for (const name of ['ann', 'bob', 'ann', ''])
      await (await ask(on.gateway, undefined, { headers: { 'x-who': name } })).text();
    const expected = ['id-ann/ann', 'id-bob/bob', 'unknown/unknown'];
    expect(await people(on, 'agentgateway_requests_total')).toEqual(expected);
    expect(await people(on, 'agentgateway_gen_ai_client_cost_usd_total')).toEqual(expected);
    expect(new Set(await people(on, 'agentgateway_gen_ai_client_token_usage_sum'))).toEqual(new Set(expected));
  });

  test('are bounded: who comes after the last is other', async () => {
    await using on = await rig({ metricLabels, metricPeople: 3, who: (name) => ({ subject: name }) });
    for (let i = 0; i < 10; i += 1) await (await ask(on.gateway, undefined, { headers: { 'x-who': `p${i}` } })).text();
    expect(await people(on, 'agentgateway_requests_total')).toEqual([
      'p0/unknown',
      'p1/unknown',
      'p2/unknown',
      'other/other',
    ]);
  });

  test('are well-formed: halves of characters make no two series that look the same', async () => {
    const who = (name: string) => ({
      subject: 'x'.repeat(127) + String.fromCodePoint(Number(name)),
      username: '\ud83d',
    });
    await using on = await rig({ metricLabels, who });
    // Their first halves differ, and are the last unit that a label takes.
    for (const name of [0x1f600, 0x1f920])
      await (await ask(on.gateway, undefined, { headers: { 'x-who': String(name) } })).text();
    expect(await people(on, 'agentgateway_requests_total')).toEqual([`${'x'.repeat(127)}\ufffd/\ufffd`]);
  });

  test('are absent by default', async () => {
    await using on = await rig({});
    await (await ask(on.gateway)).text();
    expect(await people(on, 'agentgateway_requests_total')).toEqual(['undefined/undefined']);
  });

  test.each(['route', 'gen_ai_system', 'le', '__name__', 'user-name'])('named %s are refused', async (label) => {
    await expect(rig({ metricLabels: { [label]: 'subject' } })).rejects.toThrow(/label/);
  });
});

test('the log says who it was, and nothing more of the identity', async () => {
  await using on = await rig({});
  await (await ask(on.gateway)).text();
  await soon(() => on.gateway.logged.find(({ msg }) => msg === 'request')).toMatchObject({
    subject: '7f3a',
    username: 'jo',
    tenant: 'acme',
  });
  for (const value of ['corp.example', 'staff', 'openweb-ui']) expect(on.gateway.logText).not.toContain(value);
});
