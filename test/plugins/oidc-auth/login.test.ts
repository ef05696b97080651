import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Identity } from '../../../proto/contract.ts';
import { Browser } from '../../support/browser.ts';
import { completion } from '../../support/chunks.ts';
import { configFor, startGateway, type TestGateway, testPlugin } from '../../support/gateway.ts';
import { CLIENT, startIssuer, type TestIssuer } from '../../support/issuer.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { configOf } from './support.ts';

const SECRET = 'a-secret-of-at-least-thirty-two-characters';
const PAGE = { accept: 'text/html,*/*;q=0.8' };
const warnings = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});

afterEach(() => {
  vi.useRealTimers();
  warnings.mockClear();
});

interface Lab extends AsyncDisposable {
  issuer: TestIssuer;
  gateway: TestGateway;
  browser: Browser;
  /** As browsers know the gateway. */
  base: string;
  /** Whom the gateway has seen at each request that passed. */
  seen: (Identity | undefined)[];
  reload(login: Record<string, unknown>, issuer?: TestIssuer): Promise<boolean>;
}

/** A gateway that people sign in at, and a browser. */
async function lab(login: Record<string, unknown> = {}, base = 'http://gateway.test'): Promise<Lab> {
  const issuer = await startIssuer();
  const upstream = await startScriptedUpstream();
  upstream.always({ whole: completion('Hello!') });
  const seen: (Identity | undefined)[] = [];
  const witness = testPlugin('witness', {
    authorize({ request, resources }) {
      seen.push(request.identity);
      return { allow: { decisions: resources.map(() => true) } };
    },
  });
  const config = (more: Record<string, unknown>, at = issuer) => {
    const settings = {
      clientId: CLIENT.id,
      clientSecret: CLIENT.secret,
      publicUrl: base,
      cookieSecret: SECRET,
      ...more,
    };
    const sso = { at: 'local:oidc-auth', config: configOf(at, { claims: ['scope'] }, { login: settings }) };
    return configFor(upstream.url, { models: { m: 'up' }, plugins: { sso, witness: { at: 'local:witness' } } });
  };
  const gateway = await startGateway(config(login), { factories: [witness], log: 'debug' });
  const browser = new Browser({ [base]: gateway.url });
  issuer.backchannelLogoutUri = `${gateway.url}/oauth2/backchannel-logout`;
  return {
    issuer,
    gateway,
    browser,
    base,
    seen,
    reload: (more, at) => gateway.reload(config(more, at)),
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
      await issuer.stop();
    },
  };
}

function chat(messages: string): string {
  return JSON.stringify({ model: 'm', messages: [{ role: 'user', content: messages }] });
}

/** A page of the gateway's own asks a model. */
async function askModel({ browser, base }: Lab, headers: Record<string, string> = { 'sec-fetch-site': 'same-origin' }) {
  const all = { 'content-type': 'application/json', ...headers };
  return browser.visit(`${base}/v1/chat/completions`, { method: 'POST', body: chat('Hi'), headers: all });
}

async function signIn(it: Lab): Promise<void> {
  const { status } = await it.browser.visit(`${it.base}/v1/models`, { headers: PAGE });
  expect(status).toBe(200);
}

describe('a person with a browser', () => {
  it('opens a page, signs in at the issuer and is back on the page', async () => {
    await using it = await lab();
    const { status, way, text } = await it.browser.visit(`${it.base}/v1/models`, { headers: PAGE });
    expect(way.map((url) => new URL(url).pathname)).toEqual([
      '/v1/models',
      '/oauth2/login',
      '/realms/mcp-realm/protocol/openid-connect/auth',
      '/oauth2/callback',
      '/v1/models',
    ]);
    expect(status).toBe(200);
    expect(JSON.parse(text)).toMatchObject({ object: 'list' });
    expect(it.seen.at(-1)).toEqual({
      subject: 'sub-of-mcp-user',
      issuer: it.issuer.url,
      username: 'mcp-user',
      email: 'user@mcp.example.com',
      groups: ['finance'],
      roles: ['supply-chain', 'ai-agents'],
      claims: { scope: 'openid email profile' },
    });
  });

  it('goes to the issuer with PKCE, state, nonce and a redirect URI that no Host header makes', async () => {
    await using it = await lab();
    const answer = await fetch(`${it.gateway.url}/oauth2/login`, {
      redirect: 'manual',
      headers: { host: 'evil.example', 'x-forwarded-host': 'evil.example' },
    });
    const query = new URL(answer.headers.get('location')!).searchParams;
    expect(Object.fromEntries(query)).toMatchObject({
      response_type: 'code',
      client_id: CLIENT.id,
      redirect_uri: 'http://gateway.test/oauth2/callback',
      scope: 'openid profile email',
      code_challenge_method: 'S256',
    });
    for (const name of ['state', 'nonce', 'code_challenge']) expect(query.get(name)!.length).toBeGreaterThan(40);
  });

  it('a program without a credential is not sent there, but challenged', async () => {
    await using it = await lab();
    const answer = await fetch(`${it.gateway.url}/v1/models`, { redirect: 'manual' });
    expect(answer.status).toBe(401);
    expect(answer.headers.get('www-authenticate')).toBe('Bearer realm="wardgate"');
  });

  it('gets cookies that scripts cannot read and other sites cannot send', async () => {
    await using it = await lab();
    await signIn(it);
    for (const line of it.browser.linesSet) expect(line).toMatch(/; Path=\/; HttpOnly; SameSite=Lax; Max-Age=\d+$/);
    await using over = await lab({}, 'https://gateway.test');
    await signIn(over);
    for (const line of over.browser.linesSet)
      expect(line).toMatch(/^__Host-wardgate.*; Path=\/; HttpOnly; SameSite=Lax; Secure; /);
  });

  it('may have begun in several tabs', async () => {
    await using it = await lab();
    const begun = [];
    for (const page of ['/a', '/b', '/c']) {
      const login = `${it.base}/oauth2/login?return=${page}`;
      begun.push((await it.browser.visit(login, { follow: false })).headers.get('location')!);
    }
    for (const [index, location] of begun.entries()) {
      const { way } = await it.browser.visit(location);
      expect(way.at(-1)).toBe(`${it.base}/${'abc'[index]}`);
    }
  });

  it('is told when the issuer refuses', async () => {
    await using it = await lab();
    it.issuer.user = undefined;
    const { status, text, headers } = await it.browser.visit(`${it.base}/v1/models`, { headers: PAGE });
    expect(status).toBe(403);
    expect(text).toContain('The sign-in was refused or went wrong.');
    expect(text).toContain('href="http://gateway.test/oauth2/login?return=%2Fv1%2Fmodels"');
    expect(headers.get('content-security-policy')).toContain("frame-ancestors 'none'");
    expect(String(warnings.mock.calls[0]?.[0])).toBe('oidc-auth: a sign-in failed: access_denied');
  });

  it('is told when the issuer cannot be reached', async () => {
    await using it = await lab();
    await it.issuer.stop();
    const { status, text } = await it.browser.visit(`${it.base}/v1/models`, { headers: PAGE });
    expect(status).toBe(503);
    expect(text).toContain('The sign-in service cannot be reached.');
  });

  it.each([
    ['https://evil.example/'],
    ['//evil.example/'],
    ['/\\evil.example/'],
    ['/%5cevil.example/../..//evil.example'],
    ['/..//evil.example/'],
    ['/a/..//evil.example/'],
    ['javascript:alert(1)'],
    ['/ok\r\nset-cookie: a=b'],
    ['/\t/evil.example'],
    ['evil'],
    ['/oauth2/logout'],
    [`/${'x'.repeat(3000)}`],
  ])('is never sent to %.60j afterwards', async (back) => {
    await using it = await lab();
    const { way } = await it.browser.visit(`${it.base}/oauth2/login?return=${encodeURIComponent(back)}`);
    const last = way.at(-1)!;
    expect(new URL(last).origin).toBe(it.base);
    expect(last.slice(it.base.length)).toMatch(/^\/(?:%5cevil.*)?$/);
    expect(last).not.toMatch(/\/\/evil|logout/);
  });
});

describe('the callback believes nothing that this browser has not begun', () => {
  it.each([
    ['no cookie', (it: Lab) => it.browser.cookies.clear()],
    [
      'a cookie that was changed',
      (it: Lab) => {
        const jar = it.browser.cookies.get(it.base)!;
        for (const [name, value] of jar) jar.set(name, `${value.slice(0, -2)}AA`);
      },
    ],
  ])('%s', async (_title, spoil) => {
    await using it = await lab();
    const toIssuer = (await it.browser.visit(`${it.base}/oauth2/login`, { follow: false })).headers.get('location')!;
    const back = (await it.browser.visit(toIssuer, { follow: false })).headers.get('location')!;
    spoil(it);
    const { status, text } = await it.browser.visit(back);
    expect(status).toBe(400);
    expect(text).toContain('This sign-in was not begun in this browser');
  });

  it('a code that another browser got (login CSRF), a code twice, an issuer mixed up', async () => {
    await using it = await lab();
    const begin = async (browser: Browser) => {
      const toIssuer = (await browser.visit(`${it.base}/oauth2/login`, { follow: false })).headers.get('location')!;
      return new URL((await browser.visit(toIssuer, { follow: false })).headers.get('location')!);
    };
    const other = new Browser({ [it.base]: it.gateway.url });
    const [mine, theirs] = [await begin(it.browser), await begin(other)];
    expect((await it.browser.visit(theirs.href)).status).toBe(400);
    const crossed = new URL(mine);
    crossed.searchParams.set('code', theirs.searchParams.get('code')!);
    expect((await it.browser.visit(crossed.href)).status).toBe(403);
    const again = await begin(it.browser);
    const mixed = new URL(again);
    mixed.searchParams.set('iss', 'http://127.0.0.1:1/realms/evil');
    expect((await it.browser.visit(mixed.href)).status).toBe(403);
    expect((await it.browser.visit(again.href)).status).toBe(400);
  });
});

describe('a session cookie', () => {
  it('counts for pages of the gateway, and not for what other sites make a browser send', async () => {
    await using it = await lab();
    await signIn(it);
    expect((await askModel(it)).status).toBe(200);
    expect((await askModel(it, { origin: it.base })).status).toBe(200);
    for (const headers of [
      { 'sec-fetch-site': 'cross-site' },
      { 'sec-fetch-site': 'same-site' },
      { 'sec-fetch-site': 'cross-site', origin: it.base },
      { origin: 'http://evil.example' },
      { origin: 'null' },
      {},
    ]) {
      const { status, text } = await askModel(it, headers as Record<string, string>);
      expect(status).toBe(403);
      expect(text).toContain('The request comes from another site');
    }
  });

  it('is worth nothing when anything of it was changed (property)', async () => {
    await using it = await lab();
    await signIn(it);
    const cookie = it.browser.cookieFor(it.base);
    const start = cookie.indexOf('=') + 1;
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: start, max: cookie.length - 2 }),
        fc.constantFrom(...'AQgw_-.~9'),
        async (at, put) => {
          fc.pre(cookie[at] !== put);
          const changed = cookie.slice(0, at) + put + cookie.slice(at + 1);
          const answer = await fetch(`${it.gateway.url}/v1/models`, { headers: { cookie: changed } });
          expect(answer.status).toBe(401);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('of one purpose does not serve another', async () => {
    await using it = await lab();
    await it.browser.visit(`${it.base}/oauth2/login`, { follow: false });
    const [, pending] = /=(.*)/.exec(it.browser.cookieFor(it.base))!;
    const answer = await fetch(`${it.gateway.url}/v1/models`, { headers: { cookie: `wardgate=${pending}` } });
    expect(answer.status).toBe(401);
  });

  it('outlives a change of secret while the old one is listed', async () => {
    await using it = await lab();
    await signIn(it);
    const next = `another-${SECRET}`;
    expect(await it.reload({ cookieSecret: [next, SECRET] })).toBe(true);
    expect((await askModel(it)).status).toBe(200);
    expect(await it.reload({ cookieSecret: next })).toBe(true);
    expect((await askModel(it)).status).toBe(401);
  });

  it('of an issuer that is no longer believed is over, and its tokens are shown to no other', async () => {
    await using other = await startIssuer();
    await using it = await lab();
    await signIn(it);
    expect(await it.reload({}, other)).toBe(true);
    expect((await askModel(it)).status).toBe(401);
    later(880);
    expect((await askModel(it)).status).toBe(401);
    expect(other.asked.token).toBeUndefined();
  });

  it('yields to a token that is sent along', async () => {
    await using it = await lab();
    await signIn(it);
    const authorization = `Bearer ${await it.issuer.token({ aud: 'other' })}`;
    expect((await askModel(it, { authorization, 'sec-fetch-site': 'same-origin' })).status).toBe(401);
  });

  it('is split when it is long, and worth nothing without all its parts', async () => {
    await using it = await lab();
    withGroups(it.issuer, 200);
    await signIn(it);
    const jar = it.browser.cookies.get(it.base)!;
    expect(jar.size).toBeGreaterThan(1);
    for (const line of it.browser.linesSet) expect(line.length).toBeLessThan(4096);
    expect(it.seen.at(-1)!.groups).toHaveLength(200);
    it.browser.cookies.set(it.base, new Map([...jar].slice(0, 1)));
    expect((await askModel(it)).status).toBe(401);
  });

  it('is not made of an account that fits into no cookie, and the person is told', async () => {
    await using it = await lab();
    withGroups(it.issuer, 499, 80);
    const { status, text } = await it.browser.visit(`${it.base}/v1/models`, { headers: PAGE });
    expect(status).toBe(500);
    expect(text).toContain('more groups and roles than a cookie holds');
  });

  it('leaves no token, code or cookie in the log', async () => {
    await using it = await lab();
    await signIn(it);
    await askModel(it);
    await askModel(it, { authorization: `Bearer ${await it.issuer.token({ aud: 'other' })}` });
    const cookie = [...it.browser.cookies.get(it.base)!.values()][0]!;
    expect(it.gateway.logText).toContain('wrong_audience');
    expect(it.gateway.logText).not.toMatch(/eyJ|[?&](?:code|state)=|Bearer e/);
    expect(it.gateway.logText).not.toContain(cookie.slice(2, 60));
  });
});

/** Everybody is in so many groups from now on. */
function withGroups(issuer: TestIssuer, count: number, length = 30): void {
  const token = issuer.token.bind(issuer);
  const groups = Array.from({ length: count }, (_, i) => `${i}-`.padEnd(length, 'g'));
  issuer.token = (more, header) => token({ ...more, groups }, header);
}

/** So many seconds later. Only the clock moves; nothing that waits is hurried. */
function later(seconds: number): void {
  const now = Date.now();
  vi.useFakeTimers({ toFake: ['Date'], now: now + seconds * 1000 });
}

describe('the tokens behind a session', () => {
  it('are refreshed once before they expire, for all who ask at the same time, and nobody is logged out', async () => {
    await using it = await lab();
    await signIn(it);
    const asked = it.issuer.asked.token!;
    const old = it.browser.cookieFor(it.base);
    later(850);
    const answers = await Promise.all(
      Array.from({ length: 40 }, () => fetch(`${it.gateway.url}/v1/models`, { headers: { cookie: old } })),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(it.issuer.asked.token).toBe(asked + 1);
    const lines = new Set(answers.map(({ headers }) => headers.getSetCookie().join()));
    expect(lines.size).toBe(1);
    const renewed = [...lines][0]!.split(';')[0]!;
    expect(renewed).toMatch(/^wardgate=/);
    // The old cookie and the new one are one session still, also at the next refresh.
    for (const cookie of [old, renewed]) {
      expect((await fetch(`${it.gateway.url}/v1/models`, { headers: { cookie } })).status).toBe(200);
    }
    later(850);
    const both = await Promise.all(
      [old, renewed, old, renewed].map((cookie) => fetch(`${it.gateway.url}/v1/models`, { headers: { cookie } })),
    );
    expect(both.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
    expect(it.issuer.asked.token).toBe(asked + 2);
  });

  it('a session that the issuer refuses to refresh ends with its tokens', async () => {
    await using it = await lab();
    await signIn(it);
    it.issuer.sessions.clear();
    later(850);
    expect((await askModel(it)).status).toBe(200);
    later(50);
    expect((await askModel(it)).status).toBe(401);
    expect(it.browser.linesSet.at(-1)).toMatch(/^wardgate=; .*Max-Age=0$/);
    const { way } = await it.browser.visit(`${it.base}/v1/models`, { headers: PAGE, follow: false });
    expect(way).toHaveLength(1);
  });

  it('an issuer that is away is not missed until they expire; then it is 503, and it is asked now and then', async () => {
    await using it = await lab();
    await signIn(it);
    it.issuer.instead = (_request, response) => void response.writeHead(503).end();
    later(850);
    const asked = it.issuer.asked.token!;
    for (let i = 0; i < 20; i++) expect((await askModel(it)).status).toBe(200);
    expect(it.issuer.asked.token).toBe(asked + 1);
    later(60);
    for (let i = 0; i < 20; i++) expect((await askModel(it)).status).toBe(503);
    expect(it.issuer.asked.token).toBeLessThanOrEqual(asked + 2);
    it.issuer.instead = undefined;
    later(10);
    expect((await askModel(it)).status).toBe(200);
  });

  it('do not carry a session beyond its own end', async () => {
    await using it = await lab({ sessionLife: '1h' });
    await signIn(it);
    for (let minutes = 0; minutes < 50; minutes += 14) {
      later(14 * 60);
      expect((await askModel(it)).status).toBe(200);
    }
    later(10 * 60);
    expect((await askModel(it)).status).toBe(401);
  });
});

it('an access token of somebody else lends nobody its roles', async () => {
  await using it = await lab();
  const token = it.issuer.token.bind(it.issuer);
  const others = { sub: 'somebody-else', realm_access: { roles: ['admin'] } };
  it.issuer.token = (more, header) => token(more?.typ === 'ID' ? more : { ...more, ...others }, header);
  await signIn(it);
  expect(it.seen.at(-1)).toMatchObject({ subject: 'sub-of-mcp-user', username: 'mcp-user' });
  expect(it.seen.at(-1)!.roles).toBeUndefined();
});

describe('signing out', () => {
  it('ends the session here and at the issuer, and a copy of the cookie with it', async () => {
    await using it = await lab();
    await signIn(it);
    const copy = it.browser.cookieFor(it.base);
    const page = await it.browser.visit(`${it.base}/oauth2/userinfo`, { headers: PAGE });
    expect(page.text).toContain('mcp-user');
    const { way } = await it.browser.submit(page, {});
    expect(new URL(way[1]!).pathname).toBe('/realms/mcp-realm/protocol/openid-connect/logout');
    expect(Object.fromEntries(new URL(way[1]!).searchParams)).toMatchObject({
      client_id: CLIENT.id,
      post_logout_redirect_uri: 'http://gateway.test/',
    });
    expect(way.at(-1)).toBe('http://gateway.test/');
    expect(it.browser.cookieFor(it.base)).not.toContain('wardgate=');
    expect(it.issuer.sessions.size).toBe(0);
    expect((await fetch(`${it.gateway.url}/v1/models`, { headers: { cookie: copy } })).status).toBe(401);
  });

  it('happens also while the issuer is away', async () => {
    await using it = await lab();
    await signIn(it);
    const copy = it.browser.cookieFor(it.base);
    await it.issuer.stop();
    const headers = { 'sec-fetch-site': 'same-origin' };
    await it.browser.visit(`${it.base}/oauth2/logout`, { method: 'POST', headers, follow: false });
    expect((await fetch(`${it.gateway.url}/v1/models`, { headers: { cookie: copy } })).status).toBe(401);
  });

  it('is asked about first when another site leads there', async () => {
    await using it = await lab();
    await signIn(it);
    for (const [method, headers] of [
      ['GET', { 'sec-fetch-site': 'cross-site' }],
      ['POST', { origin: 'http://evil.example' }],
      ['GET', {}],
    ] as const) {
      const { status, text } = await it.browser.visit(`${it.base}/oauth2/logout`, { method, headers });
      expect(status).toBe(200);
      expect(text).toContain('Sign out?');
    }
    expect((await askModel(it)).status).toBe(200);
  });

  it('at the issuer ends the session here at once', async () => {
    await using it = await lab();
    await signIn(it);
    expect((await askModel(it)).status).toBe(200);
    await it.issuer.endSession([...it.issuer.sessions.keys()][0]!);
    expect((await askModel(it)).status).toBe(401);
  });
});

describe('userinfo', () => {
  it('says who one is, to programs as JSON and to people as a page', async () => {
    await using it = await lab();
    expect((await it.browser.visit(`${it.base}/oauth2/userinfo`)).status).toBe(401);
    it.issuer.user = '<script>alert(1)</script>';
    const page = await it.browser.visit(`${it.base}/oauth2/userinfo`, { headers: PAGE });
    expect(page.url).toBe(`${it.base}/oauth2/userinfo`);
    expect(page.text).toContain('&#60;script&#62;alert(1)&#60;/script&#62;');
    expect(page.text).not.toContain('<script>');
    const { text, headers } = await it.browser.visit(`${it.base}/oauth2/userinfo`);
    expect(headers.get('cache-control')).toBe('no-store');
    expect(JSON.parse(text)).toMatchObject({ username: '<script>alert(1)</script>', groups: ['finance'] });
    expect(text).not.toMatch(/token|eyJ/i);
  });
});
