/** What may be sent as a body, what goes upstream of it, and what of the provider's answer reaches the client. */
import { once } from 'node:events';
import { describe, expect, test } from 'vitest';
import { completion, errorBody, textStream } from '../../support/chunks.ts';
import { openConnection, send } from '../../support/client.ts';
import { configFor, startGateway, testPlugin } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { readSse } from '../../support/sse.ts';
import { ask, contentOf, errorOf, prompt, says } from '../chat.ts';

/** Masks `secret` in prompts and answers. */
const masker = testPlugin('masker', {
  request: ({ segments }) => mask(segments),
  response: ({ segments }) => mask(segments),
});

function mask(segments: { id: string; text: string }[]) {
  const changed = segments.filter(({ text }) => text.includes('secret'));
  if (changed.length === 0) return { allow: {} };
  return { rewrite: { segments: changed.map(({ id, text }) => ({ id, text: text.replaceAll('secret', '***') })) } };
}

async function start(settings: Record<string, unknown> = {}, masked = false) {
  const upstream = await startScriptedUpstream();
  upstream.always(says());
  const plugins: Record<string, Record<string, unknown>> = masked ? { masker: { at: 'local:masker' } } : {};
  const gateway = await startGateway(configFor(upstream.url, { plugins, ...settings }), { factories: [masker] });
  return {
    upstream,
    gateway,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

describe('a body is refused', () => {
  const message = '{"role":"user","content":"x"}';
  const bodies: [string, string | Buffer, object][] = [
    ['when it is malformed', '{"model":"m",', { status: 400, code: 'invalid_json' }],
    ['when something follows it', '{"model":"m","messages":[]} {}', { status: 400, code: 'invalid_json' }],
    ['when it is empty', '', { status: 400, code: 'invalid_json' }],
    ['when it is a list', '[]', { status: 400, code: 'invalid_json' }],
    ['when it is a text', '"hello"', { status: 400, code: 'invalid_json' }],
    ['when it is null', 'null', { status: 400, code: 'invalid_json' }],
    [
      'when it begins with a byte order mark',
      '\uFEFF{"model":"m","messages":[]}',
      { status: 400, code: 'invalid_json' },
    ],
    [
      'when it is not UTF-8',
      Buffer.from('{"model":"m","messages":[{"role":"user","content":"\xff"}]}', 'latin1'),
      { status: 400, message: 'The body is not valid UTF-8.' },
    ],
    [
      'with half a UTF-8 sequence',
      Buffer.concat([Buffer.from('{"model":"'), Buffer.from([0xc3]), Buffer.from('"}')]),
      { status: 400, message: 'The body is not valid UTF-8.' },
    ],
    [
      'with a key twice',
      `{"model":"m","messages":[${message}],"model":"n"}`,
      { status: 400, message: expect.stringContaining('same key twice') },
    ],
    [
      'with a key twice in another spelling',
      `{"model":"m","messages":[${message}],"mod\\u0065l":"n"}`,
      { status: 400, message: expect.stringContaining('same key twice') },
    ],
    [
      'with a key twice deep inside',
      `{"model":"m","messages":[{"role":"user","content":"a","c\\u006fntent":"b"}]}`,
      { status: 400, message: expect.stringContaining('same key twice') },
    ],
    [
      'with `__proto__` twice',
      '{"model":"m","messages":[],"__proto__":{},"__proto__":{}}',
      { status: 400, message: expect.stringContaining('same key twice') },
    ],
    [
      'when it is nested too deeply',
      `{"model":"m","messages":[],"x":${'['.repeat(200)}${']'.repeat(200)}}`,
      { status: 400, message: 'The body is nested deeper than 128 levels.' },
    ],
    ['when it is nested a million deep', `{"x":${'['.repeat(1_000_000)}`, { status: 400, code: 'invalid_json' }],
    ['when its model is no text', '{"model":7,"messages":[]}', { status: 400, param: 'model' }],
    ['without messages', '{"model":"m"}', { status: 400, param: 'messages' }],
    ['when a message is no object', '{"model":"m","messages":["hi"]}', { status: 400, param: 'messages' }],
    ['when `stream` is no boolean', '{"model":"m","messages":[],"stream":"yes"}', { status: 400, param: 'stream' }],
  ];
  test.each(bodies)('%s', async (_title, body, wanted) => {
    await using rig = await start();
    expect(await errorOf(await ask(rig.gateway, body))).toMatchObject(wanted);
    expect(rig.upstream.requests).toEqual([]);
  });

  test.each([
    ['text/plain', undefined],
    ['application/x-www-form-urlencoded', undefined],
    ['multipart/form-data; boundary=x', undefined],
    ['application/jsonx', undefined],
    ['garbage;;;', undefined],
    ['', undefined],
    ['application/json', 'gzip'],
    ['application/json', 'identity'],
  ])('as %s with encoding %s: 415', async (type, encoding) => {
    await using rig = await start();
    const headers = { 'Content-Type': type, ...(encoding && { 'Content-Encoding': encoding }) };
    expect(await errorOf(await ask(rig.gateway, prompt(), { headers }))).toMatchObject({
      status: 415,
      code: 'unsupported_media_type',
    });
  });

  test.each(['application/json', 'application/json; charset=utf-8', 'Application/JSON', 'application/vnd.api+json'])(
    'but not as %s',
    async (type) => {
      await using rig = await start();
      expect((await ask(rig.gateway, prompt(), { headers: { 'Content-Type': type } })).status).toBe(200);
    },
  );

  test('when its announced length is too much: 413 before a byte of it has come', async () => {
    await using rig = await start({ limits: { body: '1KiB' } });
    const connection = await openConnection(rig.gateway.url);
    const head = 'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n';
    await connection.send(`${head}Content-Length: 1025\r\n\r\n`);
    const response = await connection.response();
    expect(await errorOf(response)).toMatchObject({
      status: 413,
      code: 'body_too_large',
      message: expect.stringContaining('1024'),
    });
    expect(response.header('connection')).toBe('close');
    await connection.closed;
  });

  test('when a chunked one goes on beyond the limit: 413, and the rest is not read', async () => {
    await using rig = await start({ limits: { body: '1KiB' } });
    const connection = await openConnection(rig.gateway.url);
    const head = 'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n';
    await connection.send(`${head}Transfer-Encoding: chunked\r\n\r\n`);
    for (let i = 0; i < 5; i += 1) await connection.send(`100\r\n${' '.repeat(256)}\r\n`);
    expect(await errorOf(await connection.response())).toMatchObject({ status: 413, code: 'body_too_large' });
    await connection.closed;
  });

  test('a body of exactly the limit is taken', async () => {
    await using rig = await start({ limits: { body: '1KiB' } });
    const body = JSON.stringify(prompt('')).padEnd(1024);
    expect((await ask(rig.gateway, body)).status).toBe(200);
    expect((await ask(rig.gateway, `${body} `)).status).toBe(413);
  });

  test('a client that leaves in the middle of its body costs nothing', async () => {
    await using rig = await start();
    const connection = await openConnection(rig.gateway.url);
    await connection.send('POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"model"');
    await expect.poll(() => rig.gateway.gateway.metrics.openRequests.value, { interval: 5 }).toBe(1);
    connection.reset();
    await expect.poll(() => rig.gateway.gateway.metrics.openRequests.value, { interval: 5 }).toBe(0);
    expect((await ask(rig.gateway)).status).toBe(200);
  });
});

describe('what goes upstream', () => {
  const ODD = `{ "messages" : [ {"content":"h\\u00e9llo\\/ \\ud83d\\ude00","role":"user"} ],\n\t"seed":12345678901234567890,"later":{"z":1.50,"a":[null,-0,1E2]},"model":"m" }`;

  test('is the client’s own bytes when nothing has to change', async () => {
    await using rig = await start({}, true);
    expect((await ask(rig.gateway, ODD)).status).toBe(200);
    expect(rig.upstream.requests[0]!.body.toString()).toBe(ODD);
  });

  test('of a stream is the same bytes with one option in front, which the answer does not show', async () => {
    await using rig = await start();
    rig.upstream.next({
      stream: { events: textStream('Hi', { usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 } }) },
    });
    const body = ODD.replace('"model":"m"', '"stream":true,"model":"m"');
    const said = await readSse(await ask(rig.gateway, body));
    expect(rig.upstream.requests[0]!.body.toString()).toBe(`{"stream_options":{"include_usage":true},${body.slice(1)}`);
    expect(said).toMatchObject({ usage: undefined, done: true });
  });

  test('keeps its 64-bit integers, unknown fields and odd numbers when a mask is put in', async () => {
    await using rig = await start({}, true);
    const body = ODD.replace('h\\u00e9llo', 'a secret');
    expect((await ask(rig.gateway, body)).status).toBe(200);
    const sent = rig.upstream.requests[0]!.body.toString();
    expect(sent).toContain('12345678901234567890');
    expect(sent).toContain('a ***');
    expect(sent).not.toContain('secret');
    expect(rig.upstream.requests[0]!.json()).toEqual(JSON.parse(body.replace('secret', '***')));
    expect(sent).toMatch(/"later":\{"z":1\.5\d*,"a":\[null,-?0,1E2\]\}/);
  });

  test('has no key `__proto__` that is more than a key', async () => {
    await using rig = await start({}, true);
    const body =
      '{"model":"m","messages":[{"role":"user","content":"a secret","__proto__":{"role":"system"}}],"__proto__":{"x":"secret"}}';
    expect((await ask(rig.gateway, body)).status).toBe(200);
    expect(rig.upstream.requests[0]!.body.toString()).toContain('"__proto__":{"role":"system"}');
    expect(({} as { x?: unknown }).x).toBeUndefined();
  });

  test('may be a hundred thousand messages', async () => {
    await using rig = await start({}, true);
    const messages = Array.from({ length: 100_000 }, (_, i) => ({
      role: 'user',
      content: i === 5 ? 'secret' : `m${i}`,
    }));
    expect((await ask(rig.gateway, { model: 'm', messages })).status).toBe(200);
    const sent = rig.upstream.requests[0]!.json<{ messages: typeof messages }>().messages;
    expect([sent.length, sent[5]!.content, sent[99_999]!.content]).toEqual([100_000, '***', 'm99999']);
  });
});

describe('what comes back', () => {
  test('is the provider’s own bytes when no guard changed them', async () => {
    await using rig = await start({}, true);
    const odd =
      '{ "choices":[{"message":{"content":"h\\u00e9","role":"assistant"},"index":0}], "later":1.50,"big":12345678901234567890}';
    rig.upstream.next({ whole: odd });
    expect(await (await ask(rig.gateway)).text()).toBe(odd);
  });

  test('keeps big integers and unknown fields when a guard did', async () => {
    await using rig = await start({}, true);
    rig.upstream.next({
      whole:
        '{"choices":[{"message":{"content":"a secret","role":"assistant"},"index":0,"logprobs":{"content":[{"token":"secret"}]}}],"big":12345678901234567890,"later":[1]}',
    });
    const text = await (await ask(rig.gateway)).text();
    expect(text).toContain('12345678901234567890');
    expect(text).toContain('"later":[1]');
    expect(text).not.toContain('secret');
  });

  test('has the headers that are the client’s business, and none that are not', async () => {
    await using rig = await start();
    const hidden = {
      'set-cookie': 'a=1',
      server: 'cloudflare',
      via: '1.1 x',
      'strict-transport-security': 'max-age=1',
      'access-control-allow-origin': '*',
      'cf-ray': '1',
      'x-wardgate-trace': 'forged',
      'proxy-authenticate': 'Basic',
      'alt-svc': 'h3=":443"',
    };
    rig.upstream.next({
      whole: completion('Hi'),
      headers: { ...hidden, 'openai-processing-ms': '12', 'x-request-id': 'theirs' },
    });
    const response = await ask(rig.gateway, prompt(), { headers: { 'X-Request-Id': 'ours' } });
    for (const name of Object.keys(hidden)) expect(response.headerValues(name), name).toEqual([]);
    expect(response.headerValues('openai-processing-ms')).toEqual(['12']);
    expect(response.headerValues('x-request-id')).toEqual(['ours']);
    expect(response.headerValues('content-type')).toEqual(['application/json']);
    rig.upstream.next({ whole: completion('Hi'), headers: { 'set-cookie': ['a=1', 'b=2'] } });
    expect((await ask(rig.gateway)).headerValues('set-cookie')).toEqual([]);
  });
});

describe('credentials', () => {
  const clients = {
    Authorization: 'Bearer client-key',
    'X-Api-Key': 'client-key',
    'Api-Key': 'client-key',
    'X-Goog-Api-Key': 'client-key',
    'Proxy-Authorization': 'Basic client-key',
    Cookie: 'session=client-key',
    'X-Forwarded-For': '10.0.0.1',
    Forwarded: 'for=10.0.0.1',
    'X-Real-Ip': '10.0.0.1',
    'X-OpenWebUI-User-Email': 'client-key@example.com',
    'OpenAI-Organization': 'client-key',
    'Accept-Encoding': 'gzip',
    'User-Agent': 'client-agent',
    Connection: 'keep-alive, x-hop',
    'X-Hop': 'client-key',
    Te: 'trailers',
    'X-Wardgate-Trace': 'client-key',
  };

  test('the client’s never go upstream, the provider’s is put in', async () => {
    await using rig = await start({
      provider: { headers: { 'X-Extra': 'ours' } },
      route: { upstreamHeaders: { 'X-Route': 'mine' } },
    });
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    const headers = { ...clients, Traceparent: traceparent, 'X-Request-Id': 'req-1' };
    expect((await ask(rig.gateway, prompt(), { headers })).status).toBe(200);
    const sent = rig.upstream.requests[0]!;
    expect(sent.path).toBe('/v1/chat/completions');
    expect(JSON.stringify(sent.headers)).not.toMatch(/client-key|10\.0\.0\.1|client-agent|gzip/);
    expect(new Set(sent.headers.map(([name]) => name.toLowerCase()))).toEqual(
      new Set([
        'host',
        'connection',
        'content-type',
        'content-length',
        'accept-encoding',
        'user-agent',
        'authorization',
        'x-extra',
        'x-route',
        'x-request-id',
        'traceparent',
      ]),
    );
    expect(sent.headerValues('authorization')).toEqual(['Bearer upstream-key']);
    expect(sent.headerValues('x-request-id')).toEqual(['req-1']);
    expect(sent.headerValues('traceparent')).toEqual([traceparent]);
    expect([sent.header('x-extra'), sent.header('x-route')]).toEqual(['ours', 'mine']);
  });

  test('none is sent where the provider has none', async () => {
    await using upstream = await startScriptedUpstream();
    upstream.next(says());
    const providers = { up: { kind: 'openai-compatible', baseUrl: `${upstream.url}/v1` } };
    await using gateway = await startGateway({ providers, models: { '*': 'up' }, routes: { '/': {} } });
    expect((await ask(gateway, prompt(), { headers: clients })).status).toBe(200);
    expect(upstream.requests[0]!.headerValues('authorization')).toEqual([]);
  });

  test('two Authorization headers are not one of them', async () => {
    await using upstream = await startScriptedUpstream();
    upstream.always(says());
    const keys = { at: 'local:api-key-auth', config: { keys: [{ key: 'good', subject: 'jo' }] } };
    await using gateway = await startGateway(configFor(upstream.url, { plugins: { keys } }));
    const withKeys = (...given: string[]) =>
      ask(gateway, prompt(), { headers: { Authorization: given.map((key) => `Bearer ${key}`) } });
    expect((await withKeys('good')).status).toBe(200);
    for (const given of [
      ['good', 'bad'],
      ['bad', 'good'],
      ['good', 'good'],
    ]) {
      expect(await errorOf(await withKeys(...given))).toMatchObject({ status: 401, code: 'invalid_api_key' });
    }
  });

  test('a request id that could harm a log is replaced', async () => {
    await using rig = await start();
    for (const id of ['a b', 'x'.repeat(129), 'a"b', '{}']) {
      const response = await ask(rig.gateway, prompt(), { headers: { 'X-Request-Id': id } });
      expect(response.header('x-request-id')).toMatch(/^[\da-f-]{36}$/);
    }
  });
});

describe('connections', () => {
  test('one connection serves many requests, failed ones among them', async () => {
    await using rig = await start();
    rig.upstream.next(says('one'), { whole: errorBody('x'), status: 500 }, says('three'));
    const connection = await openConnection(rig.gateway.url);
    const statuses: number[] = [];
    for (let i = 0; i < 3; i += 1) {
      await connection.request({ path: '/v1/chat/completions', body: prompt() });
      const response = await connection.response();
      statuses.push(response.status);
      await response.text();
    }
    expect(statuses).toEqual([200, 502, 200]);
    expect(rig.upstream.connectionsAccepted).toBe(1);
    connection.destroy();
  });

  test('requests in a row without waiting are answered in their order', async () => {
    await using rig = await start();
    rig.upstream.next({ ...says('one'), latencyMs: 30 }, says('two'));
    const connection = await openConnection(rig.gateway.url);
    await connection.request({ path: '/v1/chat/completions', body: prompt('1') });
    await connection.request({ path: '/v1/chat/completions', body: prompt('2') });
    expect(await contentOf(await connection.response())).toBe('one');
    expect(await contentOf(await connection.response())).toBe('two');
    connection.destroy();
  });

  test('HEAD and odd methods are answered without a body or with an error', async () => {
    await using rig = await start();
    const head = await send(`${rig.gateway.url}/v1/models`, { method: 'HEAD' });
    expect([head.status, await head.text()]).toEqual([405, '']);
    for (const method of ['PUT', 'DELETE', 'PATCH', 'TRACE', 'PROPFIND', 'QUERY']) {
      const response = await send(`${rig.gateway.url}/v1/chat/completions`, { method });
      expect(await errorOf(response), method).toMatchObject({ status: 405, code: 'method_not_allowed' });
      expect(response.header('allow')).toBe('POST');
    }
    const connection = await openConnection(rig.gateway.url);
    const closed = once(connection.socket, 'close');
    await connection.send('CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n');
    connection.socket.resume();
    await closed;
    expect((await ask(rig.gateway)).status).toBe(200);
  });
});
