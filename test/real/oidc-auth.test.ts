/** oidc-auth before a real Keycloak: rows S1-30 … S1-35, attacks, keys that rotate, a Keycloak that is away, logins and logouts. */
import { createHmac, createPublicKey } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { decodeJwt, decodeProtectedHeader, generateKeyPair, type JWK, SignJWT, UnsecuredJWT } from 'jose';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { Browser } from '../support/browser.ts';
import { completion } from '../support/chunks.ts';
import { type RawResponse, send } from '../support/client.ts';
import { Cuttable } from '../support/cuttable.ts';
import { configFor, startGateway, type TestGateway } from '../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { copyOfDemoRealm, type KeycloakRealm, type RealTokens } from './keycloak-realm.ts';
import { realServer } from './servers.ts';

const keycloak = realServer('keycloak');
const PAGE = { accept: 'text/html,*/*;q=0.8' };
const BASE = 'http://gateway.test';
/** How long Keycloak is away, in milliseconds; `KEYCLOAK_AWAY_MS=60000` makes it the minute of the demo. */
const AWAY_MS = Number(process.env.KEYCLOAK_AWAY_MS ?? 5_000);

describe.skipIf(!keycloak.here)('oidc-auth and a real Keycloak', () => {
  let door: Cuttable;
  let realm: KeycloakRealm;
  let upstream: ScriptedUpstream;
  let gateway: TestGateway;

  beforeAll(async () => {
    vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    door = await new Cuttable(keycloak.url).open();
    realm = await copyOfDemoRealm(keycloak.url, `http://${door.address}`);
    upstream = await startScriptedUpstream();
    upstream.always({ whole: completion('Hello!') });
    gateway = await startGateway(configOf(), { log: 'info' });
    const backchannel = { 'backchannel.logout.url': `${gateway.url}/oauth2/backchannel-logout` };
    await realm.changeClient('openweb-ui', {}, backchannel);
    await realm.changeClient(
      'wardgate',
      { redirectUris: [`${BASE}/oauth2/callback`] },
      {
        ...backchannel,
        'post.logout.redirect.uris': `${BASE}/*`,
      },
    );
  });

  afterAll(async () => {
    await gateway?.stop();
    await upstream?.close();
    await realm?.[Symbol.asyncDispose]();
    await door?.shut();
    vi.restoreAllMocks();
  });

  function configOf(more: object = {}) {
    const issuer = {
      issuer: realm.issuer,
      audience: 'account',
      backchannelLogout: ['openweb-ui'],
      clockSkew: '1s',
      ...more,
    };
    const login = { clientId: 'wardgate', clientSecret: 'changeme', publicUrl: BASE, cookieSecret: 'c'.repeat(32) };
    const sso = { at: 'local:oidc-auth', config: { issuers: [issuer], login, keyRefresh: '1s' } };
    return configFor(upstream.url, { models: { 'gpt-4o': 'up' }, plugins: { sso } });
  }

  function ask(headers: Record<string, string | string[]> = {}, at = gateway): Promise<RawResponse> {
    const body = { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hi' }] };
    return send(`${at.url}/v1/chat/completions`, { headers, body });
  }

  async function statusFor(token: string): Promise<number> {
    const { status, connection } = await ask({ authorization: `Bearer ${token}` });
    connection.destroy();
    return status;
  }

  /** The last line of the log, where the reason stands. */
  function lastTrace(at = gateway): string {
    return String(at.logged.at(-1)!.trace);
  }

  describe('S1-33, S1-34: tokens', () => {
    test('of the realm are answered', async () => {
      expect(await statusFor((await realm.tokens()).access_token)).toBe(200);
      expect(gateway.logged.at(-1)).toMatchObject({ username: 'mcp-user' });
    });

    test('S1-30: without one it is 401, with a sentence and the challenge', async () => {
      const answer = await ask();
      expect(answer.status).toBe(401);
      expect(answer.header('www-authenticate')).toBe('Bearer realm="wardgate"');
    });

    test('of the demo’s own realm, at a gateway for another one, are foreign', async () => {
      const form = { grant_type: 'password', client_id: 'openweb-ui', client_secret: 'changeme' };
      const body = new URLSearchParams({ ...form, username: 'mcp-user', password: 'user123' });
      const url = `http://${door.address}/realms/mcp-realm/protocol/openid-connect/token`;
      const { access_token: token } = (await (await fetch(url, { method: 'POST', body })).json()) as {
        access_token: string;
      };
      expect(await statusFor(token)).toBe(401);
      expect(lastTrace()).toContain('foreign_issuer=1');
    });

    test('of which the gateway is not the audience are refused', async () => {
      await using strict = await startGateway(configOf({ audience: 'somebody-else' }), { log: 'info' });
      const { access_token: token } = await realm.tokens();
      expect((await ask({ authorization: `Bearer ${token}` }, strict)).status).toBe(401);
      expect(lastTrace(strict)).toContain('wrong_audience=1');
    });

    test('that have expired are refused', async () => {
      await realm.changeClient('openweb-ui', {}, { 'access.token.lifespan': '2' });
      const { access_token: token } = await realm.tokens();
      await realm.changeClient('openweb-ui', {}, { 'access.token.lifespan': '900' });
      await vi.waitFor(async () => expect(await statusFor(token)).toBe(401), { timeout: 10_000, interval: 200 });
      expect(lastTrace()).toContain('expired=1');
    });
  });

  describe('attacks with a real token', () => {
    const attacks: [string, (token: string, tokens: RealTokens) => Promise<string> | string][] = [
      ['wrong_audience', (_token, { id_token }) => id_token],
      ['alg_symmetric', (_token, { refresh_token }) => refresh_token],
      ['alg_none', (token) => new UnsecuredJWT(decodeJwt(token)).encode()],
      ['alg_symmetric', signedWithPublicKey],
      ['bad_signature', (token) => signedElsewhere(token, decodeProtectedHeader(token).kid)],
      ['unknown_key', (token) => signedElsewhere(token, '../../etc/passwd')],
      ['unknown_key', async (token) => signedElsewhere(token, (await keys()).find(({ use }) => use === 'enc')!.kid)],
      ['bad_signature', (token) => token.replace(/\.(.)/, (_all, first) => `.${first}`).replace(/.....$/, 'AAAAA')],
      ['bad_signature', (token) => withPayload(token, { ...decodeJwt(token), preferred_username: 'root' })],
    ];

    let tokens: RealTokens;

    beforeAll(async () => {
      tokens = await realm.tokens();
    });

    test.each(attacks)('%s (%#)', async (reason, attack) => {
      expect(await statusFor(await attack(tokens.access_token, tokens))).toBe(401);
      expect(lastTrace()).toContain(`${reason}=1`);
    });

    test('an ID token, where the gateway is the client', async () => {
      await using client = await startGateway(configOf({ audience: 'openweb-ui' }), { log: 'info' });
      expect((await ask({ authorization: `Bearer ${tokens.id_token}` }, client)).status).toBe(401);
      expect(lastTrace(client)).toContain('wrong_type=1');
    });

    test('two Authorization headers', async () => {
      const header = `Bearer ${tokens.access_token}`;
      expect((await ask({ authorization: [header, header] })).status).toBe(401);
      expect(lastTrace()).toContain('duplicate_credentials=1');
    });
  });

  async function keys(): Promise<JWK[]> {
    const response = await fetch(`${realm.issuer}/protocol/openid-connect/certs`);
    return ((await response.json()) as { keys: JWK[] }).keys;
  }

  async function signedWithPublicKey(token: string): Promise<string> {
    const { kid } = decodeProtectedHeader(token);
    const jwk = (await keys()).find((one) => one.kid === kid)!;
    const pem = createPublicKey({ key: jwk as never, format: 'jwk' }).export({ type: 'spki', format: 'pem' });
    const header = Buffer.from(JSON.stringify({ alg: 'HS256', typ: 'JWT', kid })).toString('base64url');
    const unsigned = `${header}.${token.split('.')[1]}`;
    return `${unsigned}.${createHmac('sha256', pem).update(unsigned).digest('base64url')}`;
  }

  async function signedElsewhere(token: string, kid: string | undefined): Promise<string> {
    const { privateKey } = await generateKeyPair('RS256');
    return new SignJWT(decodeJwt(token)).setProtectedHeader({ alg: 'RS256', typ: 'JWT', kid }).sign(privateKey);
  }

  function withPayload(token: string, payload: object): string {
    const [header, , signature] = token.split('.');
    return `${header}.${Buffer.from(JSON.stringify(payload)).toString('base64url')}.${signature}`;
  }

  test('keys that rotate under load fail no request', { timeout: 180_000 }, async () => {
    const statuses: number[] = [];
    const kids = new Set<string | undefined>();
    let rotating = true;
    const client = async () => {
      let tokens = await realm.tokens();
      while (rotating) {
        tokens = await realm.refreshed(tokens);
        kids.add(decodeProtectedHeader(tokens.access_token).kid);
        statuses.push(await statusFor(tokens.access_token));
      }
    };
    const clients = Array.from({ length: 3 }, client);
    const patience = { timeout: 30_000, interval: 20 };
    const sees = (count: number) => vi.waitFor(() => expect(kids.size).toBe(count), patience);
    try {
      await sees(1);
      for (const count of [2, 3, 4]) {
        await realm.rotateKeys(200 + count);
        await sees(count);
      }
    } finally {
      rotating = false;
      await Promise.allSettled(clients);
    }
    expect(new Set(statuses)).toEqual(new Set([200]));
  });

  test('holders of valid tokens do not notice that Keycloak is away', { timeout: AWAY_MS + 60_000 }, async () => {
    const session = await realm.tokens();
    const held = await Promise.all(
      Array.from({ length: 5 }, async () => (await realm.refreshed(session)).access_token),
    );
    const fresh = (await realm.refreshed(session)).access_token;
    for (const token of held) expect(await statusFor(token)).toBe(200);
    await door.shut();
    const end = performance.now() + AWAY_MS;
    const statuses = new Set<number>();
    while (performance.now() < end) {
      for (const token of held) statuses.add(await statusFor(token));
      await sleep(20);
    }
    expect(statuses).toEqual(new Set([200]));
    // One that nobody has seen is verified with the keys known.
    expect(await statusFor(fresh)).toBe(200);
    // A gateway that starts now cannot verify, and says so.
    await using late = await startGateway(configOf(), { log: 'info' });
    expect((await ask({ authorization: `Bearer ${fresh}` }, late)).status).toBe(503);
    await door.open();
    const answered = async () => expect((await ask({ authorization: `Bearer ${fresh}` }, late)).status).toBe(200);
    await vi.waitFor(answered, { timeout: 20_000, interval: 100 });
  });

  describe('logins and logouts', () => {
    async function signIn(user = 'mcp-user'): Promise<Browser> {
      const browser = new Browser({ [BASE]: gateway.url });
      const form = await browser.visit(`${BASE}/v1/models`, { headers: PAGE });
      expect(form.text).toContain('kc-form-login');
      const page = await browser.submit(form, { username: user, password: 'user123' });
      expect(page.url).toBe(`${BASE}/v1/models`);
      expect(page.status).toBe(200);
      return browser;
    }

    const models = async (browser: Browser) => (await browser.visit(`${BASE}/v1/models`)).status;

    test('a person signs in by Keycloak’s form and is who they are', async () => {
      const browser = await signIn();
      const { text } = await browser.visit(`${BASE}/oauth2/userinfo`);
      expect(JSON.parse(text)).toMatchObject({
        issuer: realm.issuer,
        username: 'mcp-user',
        email: 'user@mcp.example.com',
        groups: ['mcp-demo'],
        roles: expect.arrayContaining(['supply-chain', 'ai-agents']),
      });
    });

    test('signing out ends the session here and at Keycloak, without a question', async () => {
      const browser = await signIn();
      const copy = browser.cookieFor(BASE);
      const page = await browser.visit(`${BASE}/oauth2/userinfo`, { headers: PAGE });
      const { way } = await browser.submit(page, {});
      expect(way.at(-1)).toBe(`${BASE}/`);
      expect(await models(browser)).toBe(401);
      expect((await fetch(`${gateway.url}/v1/models`, { headers: { cookie: copy } })).status).toBe(401);
      const again = await browser.visit(`${BASE}/v1/models`, { headers: PAGE });
      expect(again.text).toContain('kc-form-login');
    });

    test('a session that ends at Keycloak ends here: the token and the cookie stop within seconds', async () => {
      const { access_token: token } = await realm.tokens();
      const browser = await signIn();
      expect([await statusFor(token), await models(browser)]).toEqual([200, 200]);
      const [user] = await realm.read<{ id: string }[]>('/users?username=mcp-user&exact=true');
      await realm.change('POST', `/users/${user!.id}/logout`);
      const stopped = async () => expect([await statusFor(token), await models(browser)]).toEqual([401, 401]);
      await vi.waitFor(stopped, { timeout: 5_000, interval: 50 });
      await statusFor(token);
      expect(lastTrace()).toContain('logged_out=1');
    });

    test('tokens behind a session are refreshed by Keycloak, once for all who ask', async () => {
      await realm.changeClient('wardgate', {}, { 'access.token.lifespan': '30' });
      const browser = await signIn();
      await realm.changeClient('wardgate', {}, { 'access.token.lifespan': '900' });
      const before = browser.cookieFor(BASE);
      const answers = await Promise.all(
        Array.from({ length: 10 }, () => fetch(`${gateway.url}/v1/models`, { headers: { cookie: before } })),
      );
      expect(answers.map(({ status }) => status)).toEqual(Array(10).fill(200));
      expect(new Set(answers.map(({ headers }) => headers.getSetCookie().join())).size).toBe(1);
    });
  });
});
