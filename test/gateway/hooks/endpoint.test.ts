/** Paths that a plugin serves itself. */
import { expect, test } from 'vitest';
import type { EndpointInput, Plugin, Respond } from '../../../proto/contract.ts';
import { openConnection, send } from '../../support/client.ts';
import { configFor, startGateway, testPlugin } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { ask, contentOf, errorOf, says, soon } from '../chat.ts';

const describe = (endpoints: string[]) => () => ({
  contract: 1 as const,
  name: 'login',
  version: '1',
  hooks: ['authenticate' as const, 'endpoint' as const],
  rewrites: false,
  endpoints,
});

async function rig(answer: (input: EndpointInput) => unknown, parts: { mount?: object; routes?: object } = {}) {
  const upstream = await startScriptedUpstream();
  upstream.always(says('Hi there'));
  const plugin = {
    describe: describe(['/oauth2/callback', '/.well-known/meta']),
    authenticate: () => ({ allow: { identity: { subject: 'jo' } } }),
    endpoint: answer as Plugin['endpoint'],
  };
  const config = configFor(upstream.url, { plugins: { login: { at: 'local:login', ...parts.mount } } });
  const gateway = await startGateway(
    { ...config, ...(parts.routes && { routes: parts.routes }) },
    { factories: [testPlugin('login', plugin)], log: 'info' },
  );
  return {
    gateway,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

const done = (more: Partial<Respond> = {}) => ({ respond: { status: 200, body: 'done', ...more } });

test('a plugin answers at its own path with all that an answer has', async () => {
  let seen: EndpointInput | undefined;
  await using on = await rig((input) => {
    seen = input;
    const headers = { location: '/v1/models', 'Content-Length': '999', 'Transfer-Encoding': 'chunked' };
    return done({ status: 302, headers, cookies: ['s=1', 't=2'], contentType: 'text/html' });
  });
  const response = await send(`${on.gateway.url}/oauth2//callback?code=a%2Fb&state=1`, {
    headers: { Cookie: 'flow=1', 'X-Request-Id': 'req-7' },
  });
  expect(response.status).toBe(302);
  expect(response.header('location')).toBe('/v1/models');
  expect(response.header('content-type')).toBe('text/html');
  expect(response.header('content-length')).toBe('4');
  expect(response.header('transfer-encoding')).toBeUndefined();
  expect(response.header('x-request-id')).toBe('req-7');
  expect(response.headers.filter(([name]) => name.toLowerCase() === 'set-cookie')).toHaveLength(2);
  expect(await response.text()).toBe('done');
  expect(seen).toMatchObject({ query: 'code=a%2Fb&state=1', body: '' });
  expect(seen?.request).toMatchObject({ method: 'GET', path: '/oauth2/callback', headers: { cookie: 'flow=1' } });
});

test('nobody is asked who it is, and the query is in no log', async () => {
  const asked: string[] = [];
  await using on = await rig(({ request }) => {
    asked.push(request.path);
    return done();
  });
  await (await send(`${on.gateway.url}/.well-known/meta?code=secret-code`)).text();
  await soon(() => on.gateway.logged.find(({ msg }) => msg === 'request')).toMatchObject({
    path: '/.well-known/meta',
    status: 200,
    trace: expect.stringMatching(/^login\/endpoint=respond;ms=[\d.]+$/),
  });
  expect(on.gateway.logText).not.toContain('secret-code');
});

test('the path is there without a route around it, and only that path', async () => {
  await using on = await rig(() => done(), { routes: { '/openai': { plugins: ['login'] } } });
  expect((await send(`${on.gateway.url}/oauth2/callback`)).status).toBe(200);
  for (const path of ['/oauth2/callback/more', '/oauth2', '/openai/oauth2/callback', '/']) {
    expect((await send(`${on.gateway.url}${path}`)).status, path).toBe(404);
  }
  expect(await contentOf(await ask(on.gateway, undefined, { route: '/openai' }))).toBe('Hi there');
});

test('the form that an issuer sends arrives whole, whatever its type', async () => {
  let seen: EndpointInput | undefined;
  await using on = await rig((input) => {
    seen = input;
    return done();
  });
  const body = `logout_token=${'x'.repeat(5_000)}`;
  const headers = { 'Content-Type': 'application/x-www-form-urlencoded' };
  expect((await send(`${on.gateway.url}/oauth2/callback`, { body, headers })).status).toBe(200);
  expect(seen?.body).toBe(body);
});

test('a body above 64 KiB is refused, however it is framed', async () => {
  await using on = await rig(() => done());
  const long = 'x'.repeat(65_537);
  expect(await errorOf(await send(`${on.gateway.url}/oauth2/callback`, { body: long }))).toMatchObject({
    status: 413,
    code: 'body_too_large',
  });
  const connection = await openConnection(on.gateway.url);
  await connection.send(
    `POST /oauth2/callback HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${long.length.toString(16)}\r\n${long}\r\n`,
  );
  expect((await connection.response()).status).toBe(413);
});

test('other methods are refused', async () => {
  await using on = await rig(() => done());
  for (const method of ['PUT', 'DELETE', 'OPTIONS', 'HEAD']) {
    const response = await send(`${on.gateway.url}/oauth2/callback`, { method });
    expect(response.status, method).toBe(405);
    expect(response.header('allow')).toBe('GET, POST');
  }
});

test.each<[string, () => unknown]>([
  ['throws', () => Promise.reject(new Error('boom'))],
  ['answers nothing', () => undefined],
  ['answers a verdict of another hook', () => ({ allow: {} })],
  ['answers a status that none is', () => done({ status: 99 })],
  ['answers a redirect with a line break', () => done({ headers: { location: '/\r\nx: y' } })],
  ['answers more than 64 KiB', () => done({ body: 'x'.repeat(65_537) })],
  ['answers late', () => new Promise(() => {})],
])('a plugin that %s is a fault, also where faults are forgiven', async (_what, answer) => {
  await using on = await rig(answer, { mount: { onFault: 'allow', deadline: '50ms' } });
  expect(await errorOf(await send(`${on.gateway.url}/oauth2/callback`))).toMatchObject({
    status: 503,
    code: 'guard_unavailable',
  });
});

test.each([
  ['in shadow', { shadow: true }],
  ['mounted for other hooks', { hooks: ['authenticate'] }],
])('a plugin %s serves no path', async (_how, mount) => {
  await using on = await rig(() => done(), { mount });
  expect((await send(`${on.gateway.url}/oauth2/callback`)).status).toBe(404);
});

test.each(['/oauth2/../etc', 'oauth2', '/', '/a//b', '/a/', '/a?b', '/a/%41', '/ä'])(
  'a description with the path %s is refused at the start',
  async (path) => {
    const plugin = { describe: describe([path]), authenticate: () => ({ allow: {} }), endpoint: () => done() };
    const config = configFor('http://127.0.0.1:9', { plugins: { login: { at: 'local:login' } } });
    await expect(startGateway(config, { factories: [testPlugin('login', plugin)] })).rejects.toThrow(
      /endpoints as a list of at most 32 paths/,
    );
  },
);
