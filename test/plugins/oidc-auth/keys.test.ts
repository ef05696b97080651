import { afterEach, describe, expect, it, vi } from 'vitest';
import type { AllowOrReject, Plugin } from '../../../proto/contract.ts';
import { Gate } from '../../support/gate.ts';
import { startIssuer } from '../../support/issuer.ts';
import { bearer, configOf, identityIn, pluginFor, reasonIn } from './support.ts';

const warnings = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});

afterEach(() => {
  warnings.mockClear();
});

/** Brings a token until the answer is as wanted: what happens in the background shows sooner or later. */
async function eventually(plugin: Plugin, token: string, wanted: (answer: AllowOrReject) => boolean): Promise<void> {
  await vi.waitFor(
    async () => {
      expect(wanted(await bearer(plugin, token))).toBe(true);
    },
    { timeout: 10_000, interval: 20 },
  );
}

const isKnown = (answer: AllowOrReject) => 'allow' in answer && answer.allow.identity !== undefined;

describe('the issuer’s keys', () => {
  it('are fetched when the first token comes, and not before', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(configOf(issuer));
    expect(issuer.asked).toEqual({});
    identityIn(await bearer(plugin, await issuer.token()));
    identityIn(await bearer(plugin, await issuer.token()));
    expect(issuer.asked).toEqual({ 'openid-configuration': 1, certs: 1 });
  });

  it('may be named in the config: then no document is fetched', async () => {
    await using issuer = await startIssuer();
    const metadata = { jwks_uri: `${issuer.url}/protocol/openid-connect/certs` };
    await using plugin = pluginFor(configOf(issuer, { metadata }));
    identityIn(await bearer(plugin, await issuer.token()));
    expect(issuer.asked).toEqual({ certs: 1 });
  });

  it('are found by an inner address while tokens name the public one', async () => {
    await using issuer = await startIssuer();
    const publicName = 'https://sso.example/realms/mcp-realm';
    issuer.document = { issuer: publicName };
    const discoveryUrl = `${issuer.url}/.well-known/openid-configuration`;
    await using plugin = pluginFor(configOf(issuer, { issuer: publicName, discoveryUrl }));
    expect(identityIn(await bearer(plugin, await issuer.token({ iss: publicName }))).issuer).toBe(publicName);
    expect(reasonIn(await bearer(plugin, await issuer.token()))).toBe('foreign_issuer');
  });

  it('a rotation under load fails no request, with the old key published or not', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(configOf(issuer));
    identityIn(await bearer(plugin, await issuer.token()));
    for (const withdraw of [false, true]) {
      const before = await Promise.all(Array.from({ length: 50 }, (_, i) => issuer.token({ sub: `a${i}` })));
      for (const token of before) identityIn(await bearer(plugin, token));
      await issuer.rotate({ withdraw });
      const after = await Promise.all(Array.from({ length: 50 }, (_, i) => issuer.token({ sub: `b${i}` })));
      const old = withdraw ? [] : before;
      const answers = await Promise.all([...old, ...after].map((token) => bearer(plugin, token)));
      for (const answer of answers) identityIn(answer);
    }
  });

  it('a rotation is noticed also by tokens that name no key', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(configOf(issuer));
    identityIn(await bearer(plugin, await issuer.token({}, { kid: undefined })));
    await issuer.rotate({ withdraw: true });
    identityIn(await bearer(plugin, await issuer.token({}, { kid: undefined })));
    await issuer.rotate();
    identityIn(await bearer(plugin, await issuer.token({}, { kid: undefined })));
  });

  it('a new key is found also when a look has left just before it was there', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(configOf(issuer));
    identityIn(await bearer(plugin, await issuer.token()));
    const gate = new Gate();
    let served = issuer.asked.certs!;
    issuer.instead = (request, response) => {
      const { instead } = issuer;
      // The keys of before the rotation, sent after it.
      const body = JSON.stringify(stale);
      void gate.opened.then(() => {
        if (issuer.instead === instead) issuer.instead = undefined;
        served += request.url?.endsWith('certs') ? 1 : 0;
        response.writeHead(200, { 'content-type': 'application/json' }).end(body);
      });
    };
    const stale = { keys: [] as object[] };
    stale.keys = (await keysOf(issuer)) ?? [];
    const madeUp = bearer(plugin, await issuer.token({}, { kid: 'made-up' }));
    await vi.waitFor(() => expect(issuer.asked.certs).toBeGreaterThan(served));
    await issuer.rotate();
    const answer = bearer(plugin, await issuer.token());
    gate.open();
    identityIn(await answer);
    expect(reasonIn(await madeUp)).toBe('unknown_key');
  });

  it('are not asked for with each made-up key id', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(configOf(issuer, {}, { keyCooldown: '1s' }));
    identityIn(await bearer(plugin, await issuer.token()));
    const [header, ...rest] = (await issuer.token()).split('.');
    const fields = JSON.parse(Buffer.from(header!, 'base64url').toString()) as object;
    const madeUp = (i: number) => [
      Buffer.from(JSON.stringify({ ...fields, kid: `k${i}` })).toString('base64url'),
      ...rest,
    ];
    const answers = await Promise.all(Array.from({ length: 3000 }, (_, i) => bearer(plugin, madeUp(i).join('.'))));
    expect(new Set(answers.map(reasonIn))).toEqual(new Set(['unknown_key']));
    expect(issuer.asked.certs).toBeLessThanOrEqual(3);
    // Meanwhile a rotation is still noticed.
    await issuer.rotate();
    identityIn(await bearer(plugin, await issuer.token()));
  });

  it('are as new as they can be where the cool-down is longer than anybody waits', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(configOf(issuer, {}, { keyCooldown: '1h', keyRefresh: '1s' }));
    identityIn(await bearer(plugin, await issuer.token()));
    await issuer.rotate();
    const token = await issuer.token();
    expect(reasonIn(await bearer(plugin, token))).toBe('unknown_key');
    expect(issuer.asked.certs).toBe(1);
    // Until they are fetched anew without being asked for.
    await eventually(plugin, token, isKnown);
  });

  it('that are withdrawn take with them what they have signed', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(configOf(issuer, {}, { keyRefresh: '1s' }));
    const token = await issuer.token();
    identityIn(await bearer(plugin, token));
    await issuer.rotate({ withdraw: true });
    await eventually(plugin, token, (answer) => !isKnown(answer));
    expect(reasonIn(await bearer(plugin, token))).toBe('unknown_key');
  });

  it('are refused when they are more than any issuer has, or no key set', async () => {
    await using issuer = await startIssuer();
    for (const body of [
      '{"keys":{}}',
      '{"keys":[]}',
      '[]',
      'null',
      `{"keys":[${Array(200).fill('{"kty":"RSA"}').join()}]}`,
      '<html>',
    ]) {
      issuer.instead = (request, response) => {
        if (request.url?.endsWith('certs')) return void response.writeHead(200).end(body);
        const jwks_uri = `${issuer.url}/certs`;
        response
          .writeHead(200, { 'content-type': 'application/json' })
          .end(JSON.stringify({ issuer: issuer.url, jwks_uri }));
      };
      await using plugin = pluginFor(configOf(issuer));
      await expect(bearer(plugin, await issuer.token()), body).rejects.toThrow();
    }
  });
});

async function keysOf(issuer: { url: string; instead: unknown }): Promise<object[]> {
  const { instead } = issuer;
  issuer.instead = undefined;
  const response = await fetch(`${issuer.url}/protocol/openid-connect/certs`);
  issuer.instead = instead;
  return ((await response.json()) as { keys: object[] }).keys;
}

describe('an issuer that is away', () => {
  it('at the start: a fault until it is there, and it is not asked for every request', async () => {
    await using issuer = await startIssuer();
    const token = await issuer.token();
    await issuer.stop();
    await using plugin = pluginFor(configOf(issuer));
    const code = 'issuer_unavailable';
    await expect(bearer(plugin, token)).rejects.toMatchObject({ code });
    await issuer.start();
    issuer.instead = (_request, response) => void response.writeHead(503).end();
    for (let i = 0; i < 50; i++) await expect(bearer(plugin, token)).rejects.toMatchObject({ code });
    expect(issuer.asked['openid-configuration'] ?? 0).toBeLessThan(10);
    issuer.instead = undefined;
    await vi.waitFor(async () => identityIn(await bearer(plugin, token)), { timeout: 10_000, interval: 20 });
  });

  it('later: what is known goes on, new tokens too; only a key that is not known cannot be judged', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(configOf(issuer, {}, { keyRefresh: '1s' }));
    const [known, fresh, madeUp] = [await issuer.token(), await issuer.token(), await issuer.token({}, { kid: 'x' })];
    identityIn(await bearer(plugin, known));
    await issuer.stop();
    await expect(bearer(plugin, madeUp)).rejects.toMatchObject({ code: 'issuer_unavailable' });
    identityIn(await bearer(plugin, known));
    identityIn(await bearer(plugin, fresh));
    await issuer.start();
    await eventually(plugin, madeUp, (answer) => 'reject' in answer);
    identityIn(await bearer(plugin, known));
  });

  it.each(['{"keys":[]}', '<html>', ''])('or talks nonsense (%j): the keys known before go on', async (body) => {
    await using issuer = await startIssuer();
    const metadata = { jwks_uri: `${issuer.url}/protocol/openid-connect/certs` };
    await using plugin = pluginFor(configOf(issuer, { metadata }, { keyRefresh: '1s' }));
    identityIn(await bearer(plugin, await issuer.token()));
    issuer.instead = (_request, response) => void response.writeHead(200).end(body);
    await vi.waitFor(() => expect(warnings).toHaveBeenCalled(), { timeout: 10_000, interval: 20 });
    expect(String(warnings.mock.calls[0]![0])).toContain('going on with the keys known');
    identityIn(await bearer(plugin, await issuer.token()));
  });

  it('is told of once, without anything of a token', async () => {
    await using issuer = await startIssuer();
    const token = await issuer.token();
    await issuer.stop();
    await using plugin = pluginFor(configOf(issuer));
    for (let i = 0; i < 3; i++) await bearer(plugin, token).catch(() => {});
    expect(warnings).toHaveBeenCalledTimes(1);
    const told = String(warnings.mock.calls[0]![0]);
    expect(told).toContain(`oidc-auth: ${issuer.url}: `);
    expect(told).toContain('ECONNREFUSED; its tokens cannot be checked');
  });

  it('so is one that does not answer', async () => {
    await using issuer = await startIssuer();
    issuer.instead = () => {};
    await using plugin = pluginFor(configOf(issuer, {}, { timeout: '200ms' }));
    await expect(bearer(plugin, await issuer.token())).rejects.toMatchObject({ code: 'issuer_unavailable' });
  });

  it('one that is slow is not waited for by each; what it sends at last does for all', async () => {
    await using issuer = await startIssuer();
    issuer.gate = new Gate();
    await using plugin = pluginFor(configOf(issuer, {}, { timeout: '50ms' }));
    const token = await issuer.token();
    for (let i = 0; i < 3; i++)
      await expect(bearer(plugin, token)).rejects.toMatchObject({ code: 'issuer_unavailable' });
    expect(issuer.asked).toEqual({ 'openid-configuration': 1 });
    issuer.gate.open();
    await vi.waitFor(async () => identityIn(await bearer(plugin, token)), { timeout: 5_000, interval: 20 });
    expect(issuer.asked).toEqual({ 'openid-configuration': 1, certs: 1 });
  });

  it('so is one whose answers are too long, though they would do', async () => {
    await using issuer = await startIssuer();
    issuer.document = { padding: 'x'.repeat(600_000) };
    await using plugin = pluginFor(configOf(issuer));
    await expect(bearer(plugin, await issuer.token())).rejects.toMatchObject({ code: 'issuer_unavailable' });
  });

  it('so is one that redirects, though it leads to an answer that would do', async () => {
    await using issuer = await startIssuer();
    await using other = await startIssuer();
    const certs = '/protocol/openid-connect/certs';
    other.instead = (_request, response) => void response.writeHead(302, { location: issuer.url + certs }).end();
    issuer.document = { jwks_uri: other.url + certs };
    await using plugin = pluginFor(configOf(issuer));
    await expect(bearer(plugin, await issuer.token())).rejects.toMatchObject({ code: 'issuer_unavailable' });
    expect(other.asked.certs).toBe(1);
    expect(issuer.asked.certs).toBeUndefined();
  });

  it.each([
    ['names another issuer', () => ({ issuer: 'http://127.0.0.1:1/realms/other' })],
    ['names a file for its keys', () => ({ jwks_uri: 'file:///etc/passwd' })],
    // Every machine answers to it, so the keys are there; but it is no name of this machine alone.
    [
      'names keys over plain http elsewhere',
      (url: string) => ({ jwks_uri: `${url.replace('127.0.0.1', '0.0.0.0')}/protocol/openid-connect/certs` }),
    ],
  ])('so is one whose document %s', async (_title, document) => {
    await using issuer = await startIssuer();
    issuer.document = document(issuer.url);
    const discoveryUrl = `${issuer.url}/.well-known/openid-configuration`;
    for (const more of [{}, { discoveryUrl }]) {
      await using plugin = pluginFor(configOf(issuer, more));
      await expect(bearer(plugin, await issuer.token())).rejects.toMatchObject({ code: 'issuer_unavailable' });
    }
    expect(issuer.asked.certs).toBeUndefined();
  });
});
