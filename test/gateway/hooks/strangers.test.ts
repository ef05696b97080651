/** What a stranger is told: the challenges of all who were asked, a place to sign in, and cookies. */
import { expect, test } from 'vitest';
import type { Allow, Plugin } from '../../../proto/contract.ts';
import { send } from '../../support/client.ts';
import { configFor, startGateway, testPlugin } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { ask, contentOf, errorOf, says } from '../chat.ts';

function answering(name: string, allow: Allow) {
  return testPlugin(name, { authenticate: () => ({ allow }) } satisfies Partial<Plugin>);
}

async function rig(allows: Record<string, Allow>, route: Record<string, unknown> = {}) {
  const upstream = await startScriptedUpstream();
  upstream.always(says('Hi there'));
  const factories = Object.entries(allows).map(([name, allow]) => answering(name, allow));
  const plugins = Object.fromEntries(Object.keys(allows).map((name) => [name, { at: `local:${name}` }]));
  const gateway = await startGateway(configFor(upstream.url, { plugins, route }), { factories });
  return {
    upstream,
    gateway,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

const BEARER = { challenge: 'Bearer realm="sso", resource_metadata="https://gw.example/meta"' };
const BASIC = { challenge: 'Basic realm="keys"' };

test('a request that nobody knew is refused with the challenges of all who were asked', async () => {
  await using on = await rig({ sso: BEARER, keys: BASIC, quiet: {} });
  const response = await ask(on.gateway);
  expect(await errorOf(response)).toMatchObject({ status: 401, code: 'unauthenticated' });
  expect(response.header('www-authenticate')).toBe(`${BEARER.challenge}, ${BASIC.challenge}`);
  expect(on.upstream.requests).toHaveLength(0);
});

test('without a challenge of any plugin the gateway has one of its own', async () => {
  await using on = await rig({ quiet: {} });
  expect((await ask(on.gateway)).header('www-authenticate')).toBe('Bearer realm="wardgate"');
});

test('the message is for the person in front of a chat program, who can only sign out and in again', async () => {
  await using on = await rig({ quiet: {} });
  expect((await errorOf(await ask(on.gateway))).message).toMatch(/not signed in.*Sign out and in again/);
});

test('a page is sent to where one signs in, and is not kept by anybody', async () => {
  await using on = await rig({ sso: { ...BEARER, login: '/oauth2/login?to=%2Fv1%2Fmodels' }, keys: BASIC });
  const response = await send(`${on.gateway.url}/v1/models`, { headers: { Accept: 'text/html,*/*;q=0.8' } });
  expect(response.status).toBe(302);
  expect(response.header('location')).toBe('/oauth2/login?to=%2Fv1%2Fmodels');
  expect(response.header('cache-control')).toBe('no-store');
  expect(await response.text()).toBe('');
});

test.each([
  ['a program', { headers: { Accept: 'application/json' } }, '/v1/models'],
  ['a script that sends no Accept', {}, '/v1/models'],
  ['a form', { method: 'POST', body: { model: 'x' }, headers: { Accept: 'text/html' } }, '/v1/chat/completions'],
])('%s is refused, not sent to where one signs in', async (_who, request, path) => {
  await using on = await rig({ sso: { ...BEARER, login: '/oauth2/login' } });
  const response = await send(`${on.gateway.url}${path}`, request);
  expect(response.status).toBe(401);
  expect(response.header('location')).toBeUndefined();
});

test('an authenticator that was never reached makes nobody known, also where its faults are forgiven', async () => {
  await using upstream = await startScriptedUpstream();
  const sso = { at: 'grpc://127.0.0.1:1', onFault: 'allow', hooks: ['authenticate'] };
  await using gateway = await startGateway(configFor(upstream.url, { plugins: { sso } }));
  expect((await send(`${gateway.url}/v1/models`)).status).toBe(401);
});

test('where strangers may pass nobody is sent to sign in', async () => {
  await using on = await rig({ sso: { ...BEARER, login: '/oauth2/login' } }, { identity: 'optional' });
  const response = await send(`${on.gateway.url}/v1/models`, { headers: { Accept: 'text/html' } });
  expect(response.status).toBe(200);
});

test('cookies and headers of an authenticator are on the answer, each cookie a header of its own', async () => {
  const identity = { subject: 'jo' };
  const allow = { identity, cookies: ['a=1; Path=/', 'b=2; Path=/'], headers: { 'X-Session': 'renewed' } };
  await using on = await rig({ sso: allow });
  const response = await ask(on.gateway);
  expect(await contentOf(response)).toBe('Hi there');
  expect(response.headers.filter(([name]) => name.toLowerCase() === 'set-cookie').map(([, value]) => value)).toEqual(
    allow.cookies,
  );
  expect(response.header('x-session')).toBe('renewed');
});

test('a refusal may take a cookie away', async () => {
  await using upstream = await startScriptedUpstream();
  const reject = { code: 'session_over', message: 'Sign in again.', cookies: ['a=; Max-Age=0'] };
  const factories = [testPlugin('sso', { authenticate: () => ({ reject }) })];
  const config = configFor(upstream.url, { plugins: { sso: { at: 'local:sso' } } });
  await using gateway = await startGateway(config, { factories });
  const response = await ask(gateway);
  expect(response.header('set-cookie')).toBe('a=; Max-Age=0');
  expect(await errorOf(response)).toMatchObject({ status: 401, code: 'session_over' });
});

test.each<[string, object]>([
  ['a challenge with a line break', { challenge: 'Bearer\r\nx: y' }],
  ['a login elsewhere without a scheme', { login: '//evil.example' }],
  ['a login by a script', { login: 'javascript:alert(1)' }],
  ['a login with a line break', { login: '/login\r\nset-cookie: a=1' }],
  ['a cookie that is no text', { cookies: [1] }],
  ['a cookie with a line break', { cookies: ['a=1\r\nx: y'] }],
  ['more cookies than a browser takes', { cookies: Array.from({ length: 17 }, () => 'a=1') }],
])('%s is a fault', async (_what, allow) => {
  await using on = await rig({ sso: allow });
  const response = await send(`${on.gateway.url}/v1/models`, { headers: { Accept: 'text/html' } });
  expect(await errorOf(response)).toMatchObject({ status: 503, code: 'guard_unavailable' });
});
