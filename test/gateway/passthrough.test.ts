/** The rest of a vendor's API through a route: what goes on, what stays here, and that no guarded call gets through so. */
import { describe, expect, test } from 'vitest';
import { openConnection, type RawRequest, send } from '../support/client.ts';
import { startGateway, testPlugin } from '../support/gateway.ts';
import type { Script } from '../support/script.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';

const PII = { at: 'local:pii-guard', config: { rules: ['email'], action: 'mask' } };

/** Nobody may use what has no model's name, but where the header says so. */
const gatekeeper = testPlugin('gatekeeper', {
  authorize: ({ request, resources }) => ({
    allow: { decisions: resources.map(({ name }) => name !== 'passthrough' || request.headers?.['x-may'] === 'yes') },
  }),
});

async function started(answer: Script = { whole: '{"id":"file-1"}' }) {
  const upstream = await startScriptedUpstream();
  upstream.always(answer);
  const provider = (kind: string) => ({ kind, baseUrl: `${upstream.url}/v1`, key: 'provider-key' });
  const gateway = await startGateway(
    {
      providers: { openai: provider('openai'), anthropic: provider('anthropic'), gemini: provider('gemini') },
      models: { 'gpt-5': 'openai' },
      plugins: { pii: PII, gatekeeper: { at: 'local:gatekeeper', headers: ['x-may'] } },
      routes: {
        '/': { passthrough: 'openai' },
        '/anthropic': { passthrough: 'anthropic' },
        '/gemini': { passthrough: 'gemini' },
        '/shut': { passthrough: 'openai', plugins: ['pii'] },
        '/open': { passthrough: { provider: 'openai', unguarded: true }, plugins: ['pii'] },
        '/judged': { passthrough: 'openai', plugins: ['gatekeeper'] },
      },
    },
    { factories: [gatekeeper], log: 'info' },
  );
  return {
    upstream,
    gateway,
    /** Sends a path as it is; `fetch` and `URL` would tidy it up. */
    async ask(path: string, request: RawRequest = {}) {
      const connection = await openConnection(gateway.url);
      await connection.request({ path, ...request });
      return connection.response();
    },
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

describe('what goes on', () => {
  test('is path, query, method and body, byte for byte, with the provider’s key', async () => {
    await using rig = await started();
    const body = Buffer.from([0, 255, 13, 10, 128]);
    const headers = { 'content-type': 'multipart/form-data; boundary=x' };
    const response = await rig.ask('/v1/files?a=1&purpose=x%20y', { method: 'PUT', body, headers });
    expect([response.status, await response.text()]).toEqual([200, '{"id":"file-1"}']);
    const [request] = rig.upstream.requests;
    expect([request!.method, request!.path]).toEqual(['PUT', '/v1/files?a=1&purpose=x%20y']);
    expect(request!.body).toEqual(body);
    expect(request!.headerValues('content-type')).toEqual(['multipart/form-data; boundary=x']);
    expect(request!.headerValues('authorization')).toEqual(['Bearer provider-key']);
  });

  test('comes back as it comes, streams too', async () => {
    await using rig = await started({ stream: { events: ['data: 1\n\n', 'data: 2\n\n'], end: 'close-without-done' } });
    const response = await rig.ask('/v1/events');
    expect([response.header('content-type'), await response.text()]).toEqual([
      'text/event-stream',
      'data: 1\n\ndata: 2\n\n',
    ]);
  });

  test('may have no body at all', async () => {
    await using rig = await started({ raw: 'HTTP/1.1 204 No Content\r\n\r\n' });
    expect((await rig.ask('/v1/files/1', { method: 'DELETE' })).status).toBe(204);
    rig.upstream.next({ raw: 'HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n' });
    expect((await rig.ask('/v1/files/1', { method: 'HEAD' })).status).toBe(200);
  });
});

describe('what stays here', () => {
  const CREDENTIALS = ['authorization', 'x-api-key', 'x-goog-api-key', 'api-key', 'cookie', 'proxy-authorization'];

  test.each(['', '/anthropic', '/gemini'])('are the client’s credentials, on the route “%s”', async (route) => {
    await using rig = await started();
    const headers = Object.fromEntries(CREDENTIALS.map((name) => [name, 'client-secret']));
    const query = 'key=client-secret&%6bey=client-secret&key%ff=1&%6bey=client-secret%ff&KEY=client-secret&a=b';
    const more =
      'access_token=client-secret&api-key=client-secret&X-Amz-Security-Token=client-secret&$key=client-secret';
    await rig.ask(`${route}/v1/files?${query}&${more}`, { headers });
    const [request] = rig.upstream.requests;
    expect(request!.path).toBe('/v1/files?key%ff=1&a=b');
    expect(JSON.stringify(request!.headers)).not.toContain('client-secret');
    expect(rig.gateway.logText).not.toContain('client-secret');
  });

  test('is where a provider sends people, and what it says of the gateway’s key', async () => {
    await using rig = await started();
    for (const [status, code] of [
      [302, 'upstream_bad_answer'],
      [307, 'upstream_bad_answer'],
      [401, 'upstream_refused_key'],
      [403, 'upstream_refused_key'],
    ] as const) {
      rig.upstream.next({ status, whole: '{"error":"sk-pro…key"}', headers: { location: 'http://elsewhere/?sig=1' } });
      const response = await rig.ask('/v1/files');
      expect([response.status, response.header('location')]).toEqual([502, undefined]);
      expect(await response.json()).toMatchObject({ error: { code } });
    }
    expect(rig.upstream.requests).toHaveLength(4);
  });

  test('is what it says of its account', async () => {
    await using rig = await started({
      whole: '{}',
      headers: { 'openai-organization': 'org-1', 'set-cookie': 'a=b', 'x-ratelimit-limit-requests': '9', server: 'x' },
    });
    const response = await rig.ask('/v1/files');
    for (const name of ['openai-organization', 'set-cookie', 'x-ratelimit-limit-requests', 'server']) {
      expect(response.header(name)).toBeUndefined();
    }
  });

  test('is an answer in an encoding that nobody asked for', async () => {
    await using rig = await started({ whole: 'x', headers: { 'content-encoding': 'gzip' } });
    expect((await rig.ask('/v1/files')).status).toBe(502);
  });

  test('are methods that would have the key sent back', async () => {
    await using rig = await started();
    for (const method of ['TRACE', 'PURGE', 'PROPFIND']) {
      const response = await rig.ask('/v1/files', { method });
      expect([response.status, response.header('allow')]).toEqual([405, 'GET, HEAD, POST, PUT, PATCH, DELETE']);
    }
    expect(rig.upstream.requests).toEqual([]);
  });
});

describe('a call that a dialect knows', () => {
  const BODY = { model: 'gpt-forbidden', messages: [{ role: 'user', content: 'jane@example.org' }] };

  test.each([
    '/v1/Chat/Completions',
    '/V1/messages',
    '/v1%2fchat%2Fcompletions',
    '/v1%252fchat%252fcompletions',
    '/v1/chat%5ccompletions',
    '/v1\\chat\\completions',
    '/v1/chat/completions%20',
    '/v1/chat/completions%00',
    '/v1/chat/completions;a=b',
    '/v1/chat;a=b/completions',
    '/v1/chat/completions%2f',
    '/v1/chat/completions%3fa',
    '/v1/chat/completions%23a',
    '/v1/x%2f..%2fchat/completions',
    '/v1/chat/./completions%2f.',
    '/v1/messages/COUNT_TOKENS',
    '/V1BETA/models/x:generateContent',
    '/v1beta/models/x:GENERATECONTENT',
    '/v1beta/models/x%3AgenerateContent%20',
    '/v1beta%2fmodels/x:streamGenerateContent',
  ])('is not passed on as something else: %s', async (path) => {
    await using rig = await started();
    for (const route of ['', '/open']) {
      const response = await rig.ask(`${route}${path}`, { method: 'POST', body: BODY });
      expect([400, 404, 405]).toContain(response.status);
      expect(await response.text()).not.toContain('jane');
    }
    expect(rig.upstream.requests).toEqual([]);
  });

  test.each(['/v1/chat/completions/', '//v1//chat/completions', '/v1/chat/completions?x', '/v1/x/../chat/completions'])(
    'is that call, however it is written: %s',
    async (path) => {
      await using rig = await started();
      const response = await rig.ask(`/open${path}`, { method: 'POST', body: { ...BODY, model: 'gpt-5' } });
      expect(response.status).toBe(200);
      expect(rig.upstream.requests[0]!.body.toString()).not.toContain('jane');
      expect((await rig.ask(path, { method: 'POST', body: BODY })).status).toBe(404);
      expect(rig.upstream.requests).toHaveLength(1);
    },
  );

  test('is refused by GET, and never streamed unasked', async () => {
    await using rig = await started();
    expect((await rig.ask('/v1/chat/completions')).status).toBe(405);
    expect((await rig.ask('/gemini/v1beta/models/x:streamGenerateContent', { method: 'POST', body: {} })).status).toBe(
      400,
    );
    expect(rig.upstream.requests).toEqual([]);
  });
});

describe('who may', () => {
  test('is for the authorizers to say, by the name “passthrough”', async () => {
    await using rig = await started();
    expect((await rig.ask('/judged/v1/files')).status).toBe(403);
    expect((await rig.ask('/judged/v1/files', { headers: { 'x-may': 'yes' } })).status).toBe(200);
    expect(rig.upstream.requests).toHaveLength(1);
  });

  test('is nobody where guards could not read along, unless the config says otherwise', async () => {
    await using rig = await started();
    expect((await send(`${rig.gateway.url}/shut/v1/files`)).status).toBe(403);
    expect((await send(`${rig.gateway.url}/open/v1/files`)).status).toBe(200);
  });
});

test('a provider’s broken answer is not taken for a whole one', async () => {
  await using rig = await started({ stream: { events: ['data: 1\n\n'], end: 'cut' } });
  const response = await rig.ask('/v1/events');
  await expect(response.text()).rejects.toThrow();
});

test('a client that asks for a WebSocket gets a plain answer', async () => {
  await using rig = await started({ status: 400, whole: '{}' });
  const headers = {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-key': 'x',
    'sec-websocket-version': '13',
  };
  expect((await rig.ask('/v1/realtime', { headers })).status).toBe(400);
  expect(rig.upstream.requests[0]!.headerValues('upgrade')).toEqual([]);
});
