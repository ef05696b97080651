/** Which route a path belongs to, and that no spelling of it dodges the route's guards. */
import { describe, expect, test } from 'vitest';
import { openConnection, send } from '../../support/client.ts';
import { startGateway, testPlugin } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { ask, errorOf, prompt, says } from '../chat.ts';

/** Lets nobody pass, and says on which route it stood. */
const wall = testPlugin('wall', {
  authenticate: ({ request }) => ({ reject: { code: 'walled', message: `Closed: ${request.route} ${request.path}` } }),
});

async function start() {
  const upstream = await startScriptedUpstream();
  upstream.always(says());
  const gateway = await startGateway(
    {
      providers: { up: { kind: 'openai-compatible', baseUrl: `${upstream.url}/v1` } },
      models: { 'test-model': 'up', 'meta/llama-3': 'up', 'llama3:8b': 'up' },
      plugins: { wall: { at: 'local:wall' } },
      routes: { '/': {}, '/guarded': { plugins: ['wall'] }, '/guarded/open': {}, '/models': { plugins: ['wall'] } },
    },
    { factories: [wall], log: 'info' },
  );
  return {
    upstream,
    gateway,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

/** Sends a path as it is; `fetch` and `URL` would tidy it up. */
async function post(url: string, path: string) {
  const connection = await openConnection(url);
  await connection.request({ method: 'POST', path, body: prompt() });
  return connection.response();
}

const END = '/v1/chat/completions';

describe('to a guarded route', () => {
  test.each([
    `/guarded${END}`,
    `//guarded${END}`,
    `/guarded//v1//chat/completions`,
    `/guarded${END}/`,
    `/guarded${END}?x=/open`,
    `/%67uarded${END}`,
    `/guarded/%76%31/chat/completions`,
    `/./guarded${END}`,
    `/x/../guarded${END}`,
    `/x/%2e%2e/guarded${END}`,
    `/x/%2E%2E/guarded${END}`,
    `/x/.%2e/guarded${END}`,
    `/guarded/open/..${END}`,
    `/guarded/open/%2e%2e${END}`,
    `/../../guarded${END}`,
    `http://elsewhere.example/guarded${END}`,
    `HTTP://user:pw@elsewhere.example:1/guarded${END}`,
    `/guarded/./v1/./chat/./completions`,
  ])('%s', async (path) => {
    await using rig = await start();
    const { message, code } = await errorOf(await post(rig.gateway.url, path));
    expect([code, message]).toEqual(['walled', `Closed: /guarded /guarded${END}`]);
    expect(rig.upstream.requests).toEqual([]);
  });
});

describe('to nothing, and never to the model', () => {
  test.each([
    `/guarded%2Fv1/chat/completions`,
    `/guarded%2fopen/..%2f..${END}`,
    `/guardedx${END}`,
    `/Guarded${END}`,
    `/guarded;x=1${END}`,
    `/guarded\\..${END}`,
    `/guarded%5c..${END}`,
    `/%2567uarded${END}`,
    `/guarded/%252e%252e${END}`,
    `/v1/chat/completions%00`,
    `/v1/chat/completions%20`,
    `/v1/chat%2Fcompletions`,
    '/constructor',
    '/__proto__',
    '/toString',
    '/v1/models/constructor/x',
    '/%',
    '/%zz',
    '/%c0%ae%c0%ae/guarded',
    `/${'x'.repeat(5_000)}`,
    '*',
  ])('%s', async (path) => {
    await using rig = await start();
    const { status } = await errorOf(await post(rig.gateway.url, path));
    expect(status).toBeGreaterThanOrEqual(400);
    expect(status).toBeLessThan(500);
    expect(rig.upstream.requests).toEqual([]);
  });
});

test('the longest prefix wins, on whole segments', async () => {
  await using rig = await start();
  expect((await post(rig.gateway.url, `/guarded/open${END}`)).status).toBe(200);
  expect((await post(rig.gateway.url, END)).status).toBe(200);
  expect((await post(rig.gateway.url, `/guarded/opening${END}`)).status).toBe(401);
});

test('a route named like an endpoint is the route', async () => {
  await using rig = await start();
  expect((await errorOf(await send(`${rig.gateway.url}/models`))).code).toBe('walled');
});

test('the prefix is not sent upstream, nor is the query', async () => {
  await using rig = await start();
  expect((await post(rig.gateway.url, `/guarded/open${END}?api-version=1`)).status).toBe(200);
  expect(rig.upstream.requests[0]!.path).toBe('/v1/chat/completions');
});

test('without a route for it a path is 404', async () => {
  await using upstream = await startScriptedUpstream();
  const providers = { up: { kind: 'openai-compatible', baseUrl: upstream.url } };
  await using gateway = await startGateway({ providers, models: { m: 'up' }, routes: { '/only': {} } });
  for (const path of ['/', '/v1/chat/completions', '/onl', '/only.', '/onlyx/v1/models']) {
    expect(await errorOf(await send(gateway.url + path))).toMatchObject({ status: 404, code: 'not_found' });
  }
  expect((await send(`${gateway.url}/only/v1/models`)).status).toBe(200);
});

describe('models', () => {
  test('of a route that fixes its model there is that one, also when it has its name from a pattern', async () => {
    const routes = { '/': {}, '/fixed': { model: 'a' }, '/pattern': { model: 'llama3:8b', models: ['llama*'] } };
    const providers = { up: { kind: 'openai-compatible', baseUrl: 'http://127.0.0.1:9/v1' } };
    await using gateway = await startGateway({ providers, models: { a: 'up', b: 'up', 'llama*': 'up' }, routes });
    const listed = async (prefix: string) => {
      const { data } = await (await send(`${gateway.url}${prefix}/v1/models`)).json<{ data: { id: string }[] }>();
      return data.map(({ id }) => id);
    };
    expect(await listed('')).toEqual(['a', 'b']);
    expect(await listed('/fixed')).toEqual(['a']);
    expect(await listed('/pattern')).toEqual(['llama3:8b']);
    expect((await send(`${gateway.url}/fixed/v1/models/b`)).status).toBe(404);
  });

  test.each(['__proto__', 'constructor', 'toString', 'hasOwnProperty', ''])('`%s` is none', async (model) => {
    await using rig = await start();
    const { status } = await errorOf(await ask(rig.gateway, prompt('x', { model })));
    expect(status).toBe(model === '' ? 400 : 404);
    expect((await send(`${rig.gateway.url}/v1/models/${model || 'x'}`)).status).toBe(404);
  });

  test('an unknown one is told which there are', async () => {
    await using rig = await start();
    expect(await errorOf(await ask(rig.gateway, prompt('x', { model: 'gpt-9' })))).toMatchObject({
      status: 404,
      code: 'model_not_found',
      param: 'model',
      message: 'There is no such model here. There is: test-model, meta/llama-3, llama3:8b.',
    });
  });

  test.each(['test-model', 'meta/llama-3', 'meta%2Fllama-3', 'llama3:8b', 'llama3%3A8b'])(
    '%s is described',
    async (path) => {
      await using rig = await start();
      const response = await send(`${rig.gateway.url}/v1/models/${path}`);
      expect(await response.json()).toEqual({
        id: decodeURIComponent(path),
        object: 'model',
        created: 0,
        owned_by: 'up',
      });
    },
  );
});
