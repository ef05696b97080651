import { UnsecuredJWT } from 'jose';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Plugin, Respond } from '../../../proto/contract.ts';
import { verdictProblem } from '../../../proto/verdict.ts';
import { CLIENT, startIssuer, type TestIssuer } from '../../support/issuer.ts';
import { bearer, configOf, identityIn, inputWith, pluginFor, reasonIn, rejection } from './support.ts';

const PATH = '/oauth2/backchannel-logout';
const FORM = { 'content-type': 'application/x-www-form-urlencoded' };
const EVENTS = { 'http://schemas.openid.net/event/backchannel-logout': {} };
const warnings = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});

afterEach(() => {
  vi.useRealTimers();
  warnings.mockClear();
});

function config(issuer: TestIssuer, settings: object = {}) {
  return configOf(issuer, { backchannelLogout: CLIENT.id }, { ...settings });
}

async function tell(
  plugin: Plugin,
  body: string,
  headers: Record<string, string> = FORM,
  method = 'POST',
): Promise<Respond> {
  const { request } = inputWith(headers, { method, path: PATH });
  const answer = await plugin.endpoint!({ request, query: '', body });
  expect(verdictProblem('endpoint', {}, answer)).toBeUndefined();
  return answer.respond;
}

async function logout(plugin: Plugin, token: string): Promise<number> {
  return (await tell(plugin, new URLSearchParams({ logout_token: token }).toString())).status;
}

describe('a logout that the issuer announces', () => {
  it('stops the tokens of that session at once, remembered or not, and no others', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(config(issuer));
    const [known, fresh, other] = [
      await issuer.token(),
      await issuer.token(),
      await issuer.token({ sid: 'session-2' }),
    ];
    identityIn(await bearer(plugin, known));
    const { status, headers } = await tell(plugin, `logout_token=${await issuer.logoutToken()}`);
    expect({ status, headers }).toEqual({ status: 200, headers: { 'cache-control': 'no-store' } });
    for (const token of [known, fresh]) {
      const answer = await bearer(plugin, token);
      expect(reasonIn(answer)).toBe('logged_out');
      expect(rejection(answer).message).toBe('Your sign-in has expired. Sign out and in again.');
    }
    identityIn(await bearer(plugin, other));
  });

  it('of a person stops all that was issued to them before, and nothing after', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    await using issuer = await startIssuer();
    await using plugin = pluginFor(config(issuer));
    const [before, others] = [await issuer.token({ sid: 'a' }), await issuer.token({ sub: 'somebody-else' })];
    identityIn(await bearer(plugin, before));
    expect(await logout(plugin, await issuer.logoutToken({ sid: undefined }))).toBe(200);
    expect(reasonIn(await bearer(plugin, before))).toBe('logged_out');
    identityIn(await bearer(plugin, others));
    vi.setSystemTime(Date.now() + 2_000);
    identityIn(await bearer(plugin, await issuer.token({ sid: 'b' })));
    expect(reasonIn(await bearer(plugin, await issuer.token({ iat: undefined })))).toBe('logged_out');
  });

  it('is kept as long as a token may live; one that would live longer is refused from the start', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    await using issuer = await startIssuer();
    await using plugin = pluginFor(config(issuer, { maxTokenLife: '1h' }));
    const inSeconds = (seconds: number) => Math.floor(Date.now() / 1000) + seconds;
    const token = await issuer.token({ exp: inSeconds(3500) });
    expect(reasonIn(await bearer(plugin, await issuer.token({ exp: inSeconds(3700), sid: 'x' })))).toBe(
      'lives_too_long',
    );
    expect(await logout(plugin, await issuer.logoutToken())).toBe(200);
    vi.setSystemTime(Date.now() + 3_490_000);
    expect(reasonIn(await bearer(plugin, token))).toBe('logged_out');
    vi.setSystemTime(Date.now() + 200_000);
    expect(reasonIn(await bearer(plugin, token))).toBe('expired');
  });

  it.each([
    ['one header type', {}, { typ: 'JWT' }],
    ['no header type', {}, { typ: undefined }],
    ['no claim typ', { typ: undefined }, {}],
    ['several audiences', { aud: ['other', CLIENT.id] }, {}],
  ])('may come with %s', async (_title, claims, header) => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(config(issuer));
    expect(await logout(plugin, await issuer.logoutToken(claims, header))).toBe(200);
  });
});

const now = () => Math.floor(Date.now() / 1000);
const FORGERIES: [string, (issuer: TestIssuer) => Promise<string>][] = [
  ['foreign_issuer', (issuer) => issuer.logoutToken({ iss: 'https://other.example' })],
  ['wrong_audience', (issuer) => issuer.logoutToken({ aud: 'account' })],
  ['expired', (issuer) => issuer.logoutToken({ iat: now() - 600, exp: now() - 500 })],
  ['not_yet_valid', (issuer) => issuer.logoutToken({ iat: now() + 600, exp: now() + 700 })],
  ['lives_too_long', (issuer) => issuer.logoutToken({ exp: now() + 86_400 })],
  ['missing_claim', (issuer) => issuer.logoutToken({ exp: undefined })],
  ['missing_claim', (issuer) => issuer.logoutToken({ iat: undefined })],
  ['missing_claim', (issuer) => issuer.logoutToken({ jti: undefined })],
  ['missing_claim', (issuer) => issuer.logoutToken({ events: undefined })],
  ['missing_claim', (issuer) => issuer.logoutToken({ sid: undefined, sub: undefined })],
  ['missing_claim', (issuer) => issuer.logoutToken({ sid: ['session-1'] })],
  ['wrong_type', (issuer) => issuer.logoutToken({ events: { 'http://schemas.openid.net/event/other': {} } })],
  [
    'wrong_type',
    (issuer) =>
      issuer.logoutToken({ events: { ...EVENTS, 'http://schemas.openid.net/event/backchannel-logout': true } }),
  ],
  ['wrong_type', (issuer) => issuer.logoutToken({ nonce: 'n' })],
  ['wrong_type', (issuer) => issuer.logoutToken({ typ: 'Bearer' })],
  ['missing_claim', (issuer) => issuer.token({ aud: CLIENT.id })],
  ['wrong_header_type', (issuer) => issuer.logoutToken({}, { typ: 'at+jwt' })],
  ['alg_none', async (issuer) => new UnsecuredJWT({ ...issuer.claims({ aud: CLIENT.id }), events: EVENTS }).encode()],
  ['bad_signature', async (issuer) => (await issuer.logoutToken()).replace(/\.[^.]*$/, '.AAAA')],
  ['malformed', async () => 'hello'],
];

describe('what is no such announcement changes nothing and is answered 400', () => {
  it.each(FORGERIES)('%s (%#)', async (reason, forge) => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(config(issuer));
    const token = await issuer.token();
    const { status, body, headers } = await tell(plugin, `logout_token=${await forge(issuer)}`);
    expect({ status, body, headers }).toEqual({
      status: 400,
      body: '{"error":"invalid_request"}',
      headers: { 'cache-control': 'no-store' },
    });
    identityIn(await bearer(plugin, token));
    const told = warnings.mock.calls.map(([message]) => String(message));
    if (told.length > 0) expect(told).toEqual([`oidc-auth: a logout token was refused: ${reason}`]);
  });

  it('the same token twice', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(config(issuer));
    const token = await issuer.logoutToken();
    expect(await logout(plugin, token)).toBe(200);
    expect(await logout(plugin, token)).toBe(400);
  });

  it('no form, no token, two tokens, another method', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(config(issuer));
    const token = await issuer.logoutToken();
    expect(
      (await tell(plugin, JSON.stringify({ logout_token: token }), { 'content-type': 'application/json' })).status,
    ).toBe(400);
    expect((await tell(plugin, '')).status).toBe(400);
    expect((await tell(plugin, `logout_token=${token}&logout_token=${token}`)).status).toBe(400);
    expect((await tell(plugin, '', {}, 'GET')).status).toBe(405);
    identityIn(await bearer(plugin, await issuer.token()));
  });

  it('cannot be judged while the issuer is away: a fault, so that the issuer tries again', async () => {
    await using issuer = await startIssuer();
    await using plugin = pluginFor(config(issuer));
    const token = await issuer.logoutToken();
    await issuer.stop();
    await expect(logout(plugin, token)).rejects.toMatchObject({ code: 'issuer_unavailable' });
    await issuer.start();
    await vi.waitFor(async () => expect(await logout(plugin, token)).toBe(200), { timeout: 5_000 });
  });
});
