import { createHmac, randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { generateKeyPair, SignJWT, UnsecuredJWT } from 'jose';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Identity } from '../../../proto/contract.ts';
import { startIssuer, type TestIssuer } from '../../support/issuer.ts';
import { ask, bearer, configOf, identityIn, inputWith, pluginFor, reasonIn, rejection } from './support.ts';

afterEach(() => {
  vi.useRealTimers();
});

async function verdictOn(token: string, issuer: TestIssuer, more: object = {}, settings: object = {}) {
  await using plugin = pluginFor(configOf(issuer, { ...more }, { ...settings }));
  return await bearer(plugin, token);
}

describe('a token of the issuer', () => {
  it('says who brings it', async () => {
    await using issuer = await startIssuer();
    const answer = await verdictOn(await issuer.token(), issuer, { claims: ['azp', 'sid', 'scope', 'nothing'] });
    expect(identityIn(answer)).toEqual({
      subject: 'f3a1c2d4-0001',
      issuer: issuer.url,
      username: 'mcp-user',
      email: 'user@mcp.example.com',
      groups: ['finance'],
      roles: ['supply-chain', 'ai-agents'],
      claims: { azp: 'openweb-ui', sid: 'session-1', scope: 'openid email profile' },
    });
  });

  it.each(['RS256', 'PS256', 'ES256', 'EdDSA'])('may be signed with %s', async (alg) => {
    await using issuer = await startIssuer({ alg });
    expect(identityIn(await verdictOn(await issuer.token(), issuer)).username).toBe('mcp-user');
  });

  it.each([
    ['its audience is a list', { aud: ['other', 'account'] }, {}],
    ['its header says at+jwt', {}, { typ: 'at+jwt' }],
    ['its header says no type', {}, { typ: undefined }],
    ['the claim typ is absent', { typ: undefined }, {}],
    ['it names no key', {}, { kid: undefined }],
    ['it expired within the clock skew', { exp: Math.floor(Date.now() / 1000) - 5 }, {}],
    ['it begins within the clock skew', { nbf: Math.floor(Date.now() / 1000) + 5 }, {}],
  ])('is good when %s', async (_why, claims, header) => {
    await using issuer = await startIssuer();
    expect(identityIn(await verdictOn(await issuer.token(claims, header), issuer)).username).toBe('mcp-user');
  });

  it.each([
    [{ 'organization.name': 'acme' }, { tenant: 'organization.name' }, { tenant: 'acme' }],
    [{ org: { name: 'acme' } }, { tenant: 'org.name' }, { tenant: 'acme' }],
    [
      { resource_access: { 'my.client': { roles: ['r'] } } },
      { roles: ['resource_access.my.client.roles', 'realm_access.roles'] },
      { roles: ['r', 'supply-chain', 'ai-agents'] },
    ],
    [
      { preferred_username: undefined },
      { username: ['preferred_username', 'email'] },
      { username: 'user@mcp.example.com' },
    ],
    [{ email_verified: false }, {}, { email: undefined }],
    [{ email_verified: 'true' }, {}, { email: undefined }],
    [{ email_verified: undefined }, { unverifiedEmail: true }, { email: 'user@mcp.example.com' }],
    [{ groups: 'lonely' }, {}, { groups: ['lonely'] }],
    [{ groups: ['ok', 7, '', 'two\r\nlines', { a: 1 }, 'ok'] }, {}, { groups: ['ok'] }],
    [{ groups: undefined, realm_access: null }, {}, { groups: undefined, roles: undefined }],
    [{ preferred_username: 'x'.repeat(600) }, {}, { username: undefined }],
    [{ preferred_username: ['a'] }, { username: 'constructor.name' }, { username: undefined }],
  ] as [object, object, Partial<Identity>][])(
    'claims %o by the mapping %o are %o',
    async (claims, identity, expected) => {
      await using issuer = await startIssuer();
      const made = identityIn(await verdictOn(await issuer.token({ ...claims }), issuer, { identity }));
      const named = Object.keys(expected).map((key) => [key, made[key as keyof Identity]]);
      expect(Object.fromEntries(named)).toEqual(expected);
    },
  );

  it('has no more groups than can be handled', async () => {
    await using issuer = await startIssuer();
    const groups = Array.from({ length: 600 }, (_, index) => `g${index}`);
    expect(identityIn(await verdictOn(await issuer.token({ groups }), issuer)).groups).toHaveLength(500);
  });

  it('is remembered: the second time the answer comes at once', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(configOf(issuer));
    const input = inputWith({ authorization: `Bearer ${await issuer.token()}` });
    const first = await plugin.authenticate!(input);
    expect(plugin.authenticate!(input)).toBe(first);
  });

  it('is forgotten when it expires', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    await using issuer = await startIssuer();
    await using plugin = pluginFor(configOf(issuer, { clockSkew: '0s' }));
    const token = await issuer.token();
    identityIn(await bearer(plugin, token));
    vi.setSystemTime(Date.now() + 899_000);
    identityIn(await bearer(plugin, token));
    vi.setSystemTime(Date.now() + 1_000);
    expect(reasonIn(await bearer(plugin, token))).toBe('expired');
  });

  it('is forgotten when there are more than may be remembered, those that came last excepted', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(configOf(issuer, {}, { maxTokens: 2 }));
    const inputs = await Promise.all(
      ['a', 'b', 'c'].map(async (sub) => inputWith({ authorization: `Bearer ${await issuer.token({ sub })}` })),
    );
    for (const input of inputs) await plugin.authenticate!(input);
    expect(inputs.map((input) => plugin.authenticate!(input) instanceof Promise).sort()).toEqual([false, false, true]);
  });

  it('cannot be changed by who gets the identity', async () => {
    await using issuer = await startIssuer();
    const identity = identityIn(await verdictOn(await issuer.token(), issuer));
    expect(() => identity.groups!.push('admin')).toThrow(TypeError);
  });

  it('is verified once when it comes many times at once', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(configOf(issuer));
    const token = await issuer.token();
    const answers = await Promise.all(Array.from({ length: 100 }, () => bearer(plugin, token)));
    expect(new Set(answers).size).toBe(1);
    expect(issuer.asked.certs).toBe(1);
  });

  it('is found among several issuers by its own', async () => {
    await using one = await startIssuer();
    await using other = await startIssuer({ path: '/realms/other', alg: 'ES256' });
    await using plugin = pluginFor({
      issuers: [configOf(one).issuers[0], { ...configOf(other).issuers[0], audience: ['gateway'] }],
    });
    expect(identityIn(await bearer(plugin, await one.token())).issuer).toBe(one.url);
    expect(identityIn(await bearer(plugin, await other.token({ aud: 'gateway' }))).issuer).toBe(other.url);
    expect(reasonIn(await bearer(plugin, await other.token()))).toBe('wrong_audience');
  });
});

/** How an attacker makes a token, and the reason that must be in the log. */
const ATTACKS: [string, string, (issuer: TestIssuer) => Promise<string>][] = [
  ['wrong_audience', 'one for another audience', (issuer) => issuer.token({ aud: 'other' })],
  ['wrong_audience', 'an audience that merely begins so', (issuer) => issuer.token({ aud: ['account2', 'acc'] })],
  ['wrong_audience', 'no audience', (issuer) => issuer.token({ aud: undefined })],
  ['expired', 'an old one', (issuer) => issuer.token({ exp: Math.floor(Date.now() / 1000) - 3600 })],
  ['missing_claim', 'one without an end', (issuer) => issuer.token({ exp: undefined })],
  ['missing_claim', 'an end that is a text', (issuer) => issuer.token({ exp: '9999999999' as never })],
  ['not_yet_valid', 'one from the future', (issuer) => issuer.token({ nbf: Math.floor(Date.now() / 1000) + 3600 })],
  [
    'not_yet_valid',
    'one issued in the future',
    (issuer) => issuer.token({ iat: Math.floor(Date.now() / 1000) + 3600 }),
  ],
  ['missing_claim', 'one without a subject', (issuer) => issuer.token({ sub: undefined })],
  ['missing_claim', 'a subject that is a list', (issuer) => issuer.token({ sub: ['a'] as never })],
  ['wrong_type', 'an ID token', (issuer) => issuer.token({ typ: 'ID' })],
  ['wrong_type', 'a refresh token', (issuer) => issuer.token({ typ: 'Refresh' })],
  ['wrong_type', 'an ID token of another vendor', (issuer) => issuer.token({ typ: undefined, nonce: 'n' })],
  ['wrong_type', 'a logout token', (issuer) => issuer.logoutToken({ aud: 'account' }, { typ: 'JWT' })],
  ['wrong_header_type', 'a logout token by its header', (issuer) => issuer.logoutToken({ aud: 'account' })],
  ['foreign_issuer', 'one of another realm', (issuer) => issuer.token({ iss: issuer.url.replace('mcp', 'other') })],
  ['foreign_issuer', 'an issuer with a slash more', (issuer) => issuer.token({ iss: `${issuer.url}/` })],
  ['foreign_issuer', 'no issuer', (issuer) => issuer.token({ iss: undefined })],
  ['foreign_issuer', 'an issuer that is a list', (issuer) => issuer.token({ iss: [issuer.url] as never })],
  ['alg_none', 'no signature', async (issuer) => new UnsecuredJWT(issuer.claims()).encode()],
  ['alg_none', 'no signature, oddly written', async (issuer) => handmade({ alg: 'nOnE' }, issuer.claims(), '')],
  ['alg_symmetric', 'HS256 with the public key', hs256WithPublicKey],
  ['alg_not_allowed', 'an algorithm that is not configured', (issuer) => signedElsewhere(issuer, 'ES384')],
  ['bad_signature', 'the key id with another key', (issuer) => signedElsewhere(issuer, 'RS256', { kid: issuer.kid })],
  ['bad_signature', 'another key and no key id', (issuer) => signedElsewhere(issuer, 'RS256')],
  ['unknown_key', 'another key', (issuer) => signedElsewhere(issuer, 'RS256', { kid: randomUUID() })],
  ['unknown_key', 'a key id that is a path', (issuer) => issuer.token({}, { kid: '../../../../dev/null' })],
  ['unknown_key', 'a key id that is a query', (issuer) => issuer.token({}, { kid: "' UNION SELECT 'key' --" })],
  ['unknown_key', 'a key id that every object has', (issuer) => issuer.token({}, { kid: '__proto__' })],
  ['unknown_key', 'no text in the key id', (issuer) => issuer.token({}, { kid: '' })],
  ['bad_key_id', 'a key id that is a list', (issuer) => rawHeader(issuer, { kid: [issuer.kid] })],
  ['bad_key_id', 'a key id as long as a book', (issuer) => issuer.token({}, { kid: 'k'.repeat(2000) })],
  ['bad_signature', 'a key brought along', keyBroughtAlong],
  [
    'bad_signature',
    'a key set brought along',
    (issuer) => signedElsewhere(issuer, 'RS256', { kid: issuer.kid, jku: 'http://127.0.0.1:1/keys' }),
  ],
  ['malformed', 'an extension that is critical', (issuer) => rawHeader(issuer, { crit: ['exp2'], exp2: 1 })],
  ['malformed', 'an algorithm that is a list', (issuer) => rawHeader(issuer, { alg: ['RS256'] })],
  ['malformed', 'a payload that is no JSON', async (issuer) => (await issuer.token()).replace(/\..*\./, '.e30x.')],
  ['malformed', 'a payload that is a list', async () => handmade({ alg: 'RS256' }, [] as never, 'x')],
  ['bad_signature', 'no signature under RS256', async (issuer) => (await issuer.token()).replace(/[^.]*$/, '')],
];

function base64(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

function handmade(header: object, payload: object, signature: string): string {
  return `${base64(header)}.${base64(payload)}.${signature}`;
}

async function hs256WithPublicKey(issuer: TestIssuer): Promise<string> {
  const unsigned = handmade({ alg: 'HS256', typ: 'JWT', kid: issuer.kid }, issuer.claims(), '').slice(0, -1);
  const mac = createHmac('sha256', await issuer.publicPem())
    .update(unsigned)
    .digest('base64url');
  return `${unsigned}.${mac}`;
}

async function signedElsewhere(issuer: TestIssuer, alg: string, header: object = {}): Promise<string> {
  const { privateKey } = await generateKeyPair(alg);
  return new SignJWT(issuer.claims()).setProtectedHeader({ alg, ...header }).sign(privateKey);
}

async function keyBroughtAlong(issuer: TestIssuer): Promise<string> {
  const { privateKey, publicKey } = await generateKeyPair('RS256', { extractable: true });
  const jwk = await crypto.subtle.exportKey('jwk', publicKey);
  const header = { alg: 'RS256', kid: issuer.kid, jwk, x5u: 'http://127.0.0.1:1/cert' };
  return new SignJWT(issuer.claims()).setProtectedHeader(header as { alg: string }).sign(privateKey);
}

/** A good token whose header was changed afterwards. */
async function rawHeader(issuer: TestIssuer, header: object): Promise<string> {
  const [, payload, signature] = (await issuer.token()).split('.');
  return `${base64({ alg: 'RS256', kid: issuer.kid, ...header })}.${payload}.${signature}`;
}

describe('a bad token is refused, with its reason for the log and none for the client:', () => {
  it.each(ATTACKS)('%s: %s', async (reason, _title, attack) => {
    await using issuer = await startIssuer();
    const answer = await verdictOn(await attack(issuer), issuer);
    const { code, status, headers, findings, message } = rejection(answer);
    expect({ code, status, findings }).toEqual({
      code: 'invalid_token',
      status: 401,
      findings: [{ label: reason, count: 1 }],
    });
    const sentence = reason === 'expired' ? 'Your sign-in has expired.' : 'Your sign-in is not valid here.';
    expect(message).toBe(`${sentence} Sign out and in again.`);
    expect(headers).toEqual({
      'www-authenticate': `Bearer realm="wardgate", error="invalid_token", error_description="${message}"`,
    });
  });

  it.each(['Bearer a.b.c, Bearer d.e.f', 'Bearer one,two', 'Basic eDp5, bearer eyJhbGciOiJub25lIn0.e30.'])(
    'duplicate_credentials: %s',
    async (authorization) => {
      await using issuer = await startIssuer();
      await using plugin = pluginFor(configOf(issuer));
      const answer = await ask(plugin, { authorization });
      expect(reasonIn(answer)).toBe('duplicate_credentials');
      expect(rejection(answer).message).toBe('The request carries more than one credential. Send exactly one.');
    },
  );

  it('a token of another realm with the same server', async () => {
    await using issuer = await startIssuer();
    await using other = await startIssuer({ path: '/realms/other' });
    expect(reasonIn(await verdictOn(await other.token(), issuer))).toBe('foreign_issuer');
    expect(reasonIn(await verdictOn(await other.token({ iss: issuer.url }), issuer))).toBe('unknown_key');
  });

  it('whatever of a good token is changed (property)', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(configOf(issuer));
    const token = await issuer.token();
    const character = fc.constantFrom(...'ABCxyz019-_.= ,\u00e9'.split(''));
    await fc.assert(
      fc.asyncProperty(fc.nat(token.length - 1), fc.nat(3), character, async (at, remove, insert) => {
        const mangled = token.slice(0, at) + insert + token.slice(at + remove);
        if (sameToken(mangled, token)) return;
        expect(await bearer(plugin, mangled)).not.toHaveProperty('allow.identity');
      }),
      { numRuns: 500 },
    );
  });

  it('whatever is sent in its place (property)', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(configOf(issuer));
    const part = fc.oneof(
      fc.string(),
      fc.json().map((one) => Buffer.from(one).toString('base64url')),
    );
    await fc.assert(
      fc.asyncProperty(part, part, part, async (header, payload, signature) => {
        const answer = await bearer(plugin, `${header}.${payload}.${signature}`);
        expect(answer).not.toHaveProperty('allow.identity');
      }),
      { numRuns: 300 },
    );
  });
});

function signatureOf(token: string): string {
  return Buffer.from(token.split('.')[2] ?? '', 'base64url').toString('hex');
}

/** Differs in bits that base64url does not use, if at all: the bytes are the same. */
function sameToken(one: string, other: string): boolean {
  return (
    one.trim() === other ||
    (one.slice(0, one.lastIndexOf('.')) === other.slice(0, other.lastIndexOf('.')) &&
      signatureOf(one) === signatureOf(other))
  );
}

describe('what the config asks beyond that', () => {
  it.each([
    ['wrong_party', { azp: ['other'] }],
    ['wrong_header_type', { headerTyp: ['at+jwt'] }],
    ['wrong_type', { typ: ['DPoP'] }],
    ['missing_claim', { requiredClaims: ['tenant'] }],
    ['missing_claim', { requiredClaims: { tenant: 'a' } }],
    ['wrong_claim', { requiredClaims: { email_verified: false } }],
    ['wrong_claim', { requiredClaims: { 'realm_access.roles': ['admin', 'root'] } }],
    ['alg_not_allowed', { algorithms: ['ES256'] }],
  ])('%s: %o', async (reason, more) => {
    await using issuer = await startIssuer();
    expect(reasonIn(await verdictOn(await issuer.token(), issuer, more))).toBe(reason);
  });

  it.each([
    [{ audience: undefined, azp: 'openweb-ui' }],
    [{ requiredClaims: ['email', 'realm_access.roles'] }],
    [{ requiredClaims: { 'realm_access.roles': ['admin', 'ai-agents'], email_verified: true } }],
    [{ requiredScopes: ['email', 'openid'] }],
    [{ headerTyp: 'jwt' }],
  ])('%o is met', async (more) => {
    await using issuer = await startIssuer();
    identityIn(await verdictOn(await issuer.token(), issuer, more));
  });

  it('a scope that lacks is 403 and named (RFC 6750, section 3.1)', async () => {
    await using issuer = await startIssuer();
    const answer = await verdictOn(await issuer.token(), issuer, { requiredScopes: ['llm', 'email'] });
    const { code, status, headers } = rejection(answer);
    expect({ code, status }).toEqual({ code: 'insufficient_scope', status: 403 });
    expect(headers?.['www-authenticate']).toContain('error="insufficient_scope"');
    expect(headers?.['www-authenticate']).toContain('scope="llm email"');
  });
});

describe('what is nobody’s here', () => {
  it.each([
    [{}],
    [{ authorization: '' }],
    [{ authorization: 'Bearer' }],
    [{ authorization: 'Bearer sk-demo-123' }],
    [{ authorization: 'Bearer one.two.three' }],
    [{ authorization: 'Basic dXNlcjpwYXNz' }],
    [{ authorization: 'Digest username="a", realm="b"' }],
    [{ 'x-api-key': 'sk-demo-123' }],
  ])('%o: no opinion, and the challenge', async (headers) => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(configOf(issuer));
    expect(await ask(plugin, headers as Record<string, string>)).toEqual({
      allow: { challenge: 'Bearer realm="wardgate"' },
    });
    expect(issuer.asked).toEqual({});
  });

  it.each(['sk-demo-123', 'wrong', 'one.two.three'])(
    'is no bearer token where the config says so: %s is refused',
    async (token) => {
      await using issuer = await startIssuer();
      expect(reasonIn(await verdictOn(token, issuer, {}, { opaque: 'reject' }))).toBe('malformed');
    },
  );

  it('is a JWT of another issuer where the config says so', async () => {
    await using issuer = await startIssuer();
    const token = await issuer.token({ iss: 'https://other.example' });
    const answer = await verdictOn(token, issuer, {}, { foreign: 'ignore' });
    expect(answer).toEqual({ allow: { challenge: 'Bearer realm="wardgate"' } });
  });
});
