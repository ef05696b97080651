import { describe, expect, it, vi } from 'vitest';
import { oidcAuth } from '../../../plugins/oidc-auth/plugin.ts';
import { servePlugin } from '../../../plugins/serve.ts';
import { Browser } from '../../support/browser.ts';
import { completion } from '../../support/chunks.ts';
import { send } from '../../support/client.ts';
import { configFor, startGateway } from '../../support/gateway.ts';
import { CLIENT, startIssuer, type TestIssuer } from '../../support/issuer.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { configOf } from './support.ts';

const body = { model: 'm', messages: [{ role: 'user', content: 'Hi' }] };

vi.spyOn(process, 'emitWarning').mockImplementation(() => {});

async function lab(issuer: TestIssuer, route: object = {}, more: Record<string, unknown> = {}) {
  const upstream = await startScriptedUpstream();
  upstream.always({ whole: completion('Hello!') });
  const sso = { at: 'local:oidc-auth', config: configOf(issuer, more), onFault: 'reject' };
  const keys = { at: 'local:api-key-auth', config: { prefix: 'sk-', keys: [{ key: 'sk-demo', subject: 'ci' }] } };
  const config = configFor(upstream.url, { plugins: { sso, keys }, route: { ...route } });
  const gateway = await startGateway(config, { log: 'debug' });
  const ask = (headers: Record<string, string | string[]> = {}) =>
    send(`${gateway.url}/v1/chat/completions`, { headers, body });
  const stop = async () => {
    await gateway.stop();
    await upstream.close();
  };
  return { gateway, upstream, ask, [Symbol.asyncDispose]: stop };
}

describe('a gateway with oidc-auth', () => {
  it('S1-33: answers who brings a good token, and keeps the token from the provider', async () => {
    await using issuer = await startIssuer();
    await using it = await lab(issuer, { identityHeaders: { 'x-user': 'username' } });
    const answer = await it.ask({ authorization: `Bearer ${await issuer.token()}`, 'x-user': 'somebody-else' });
    expect(answer.status).toBe(200);
    const [sent] = it.upstream.requests;
    expect(sent!.header('authorization')).toBe('Bearer upstream-key');
    expect(sent!.header('x-user')).toBe('mcp-user');
  });

  it('tells the client a sentence and the challenge, and the log the reason', async () => {
    await using issuer = await startIssuer();
    await using it = await lab(issuer);
    const token = await issuer.token({ aud: 'other' });
    const answer = await it.ask({ authorization: `Bearer ${token}` });
    expect(answer.status).toBe(401);
    expect(answer.header('www-authenticate')).toMatch(/^Bearer realm="wardgate", error="invalid_token", /);
    const text = await answer.text();
    expect(JSON.parse(text)).toMatchObject({
      error: { message: 'Your sign-in is not valid here. Sign out and in again.', code: 'invalid_token' },
    });
    expect(text + JSON.stringify(answer.headers)).not.toContain('audience');
    expect(it.gateway.logText).toContain('wrong_audience=1');
    expect(it.gateway.logText).not.toContain(token.slice(0, 20));
    expect(it.upstream.requests).toEqual([]);
  });

  it('refuses two Authorization headers, which are the same or not', async () => {
    await using issuer = await startIssuer();
    await using it = await lab(issuer);
    const token = `Bearer ${await issuer.token()}`;
    for (const other of [token, 'Bearer sk-demo', 'Basic eDp5']) {
      expect((await it.ask({ authorization: [token, other] })).status).toBe(401);
      expect((await it.ask({ authorization: [other, token] })).status).toBe(401);
    }
    expect(it.gateway.logText).toContain('duplicate_credentials=1');
  });

  it('stands beside another authenticator, and a stranger gets the challenge', async () => {
    await using issuer = await startIssuer();
    await using it = await lab(issuer);
    expect((await it.ask({ authorization: 'Bearer sk-demo' })).status).toBe(200);
    expect((await it.ask({ authorization: `Bearer ${await issuer.token()}` })).status).toBe(200);
    const stranger = await it.ask();
    expect(stranger.status).toBe(401);
    expect(stranger.headerValues('www-authenticate').join()).toContain('Bearer realm="wardgate"');
  });

  it('starts while the issuer is down, answers 503 until it is there, and never 401', async () => {
    await using issuer = await startIssuer();
    const authorization = `Bearer ${await issuer.token()}`;
    await issuer.stop();
    await using it = await lab(issuer);
    for (let i = 0; i < 5; i++) expect((await it.ask({ authorization })).status).toBe(503);
    expect((await it.ask({ authorization: 'Bearer sk-demo' })).status).toBe(200);
    await issuer.start();
    const status = async () => expect((await it.ask({ authorization })).status).toBe(200);
    await vi.waitFor(status, { timeout: 10_000, interval: 50 });
    expect(it.gateway.logText).toContain('"fault":"issuer_unavailable: ');
  });

  it('loses no request when keys rotate under load', async () => {
    await using issuer = await startIssuer();
    await using it = await lab(issuer);
    const statuses: number[] = [];
    let rotating = true;
    const client = async () => {
      while (rotating) {
        const { status, connection } = await it.ask({ authorization: `Bearer ${await issuer.token()}` });
        connection.destroy();
        statuses.push(status);
      }
    };
    const clients = Array.from({ length: 8 }, client);
    for (let round = 0; round < 5; round++) {
      await issuer.rotate();
      const reached = statuses.length + 40;
      await vi.waitFor(() => expect(statuses.length).toBeGreaterThan(reached), { timeout: 10_000 });
    }
    rotating = false;
    await Promise.all(clients);
    expect(new Set(statuses)).toEqual(new Set([200]));
    expect(issuer.asked.certs).toBeGreaterThanOrEqual(6);
  });

  it.each(['grpc', 'http'] as const)(
    'has it as a service of its own over %s: tokens, pages and cookies come through',
    async (way) => {
      await using issuer = await startIssuer();
      const upstream = await startScriptedUpstream();
      const service = await servePlugin(oidcAuth, { [way]: '127.0.0.1:0' });
      const base = 'http://gateway.test';
      const login = { clientId: CLIENT.id, clientSecret: CLIENT.secret, publicUrl: base, cookieSecret: 'c'.repeat(32) };
      const sso = { at: way === 'grpc' ? service.grpcUrl : service.httpUrl, config: configOf(issuer, {}, { login }) };
      const gateway = await startGateway(configFor(upstream.url, { models: { m: 'up' }, plugins: { sso } }));
      const browser = new Browser({ [base]: gateway.url });
      const page = await browser.visit(`${base}/v1/models`, { headers: { accept: 'text/html' } });
      const authorization = `Bearer ${await issuer.token()}`;
      const answer = await fetch(`${gateway.url}/v1/models`, { headers: { authorization } });
      expect([page.status, answer.status]).toEqual([200, 200]);
      expect(browser.cookieFor(base)).toMatch(/^wardgate=1~/);
      const out = await browser.visit(`${base}/oauth2/logout`, {
        headers: { 'sec-fetch-site': 'same-origin' },
        follow: false,
      });
      expect(out.status).toBe(303);
      expect(browser.cookieFor(base)).toBe('');
      await gateway.stop();
      await service.close();
      await upstream.close();
    },
  );
});
