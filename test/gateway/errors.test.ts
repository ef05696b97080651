/** Every error that the gateway may answer, and how each is reached: the table and this file must agree. */
import { describe, expect, test } from 'vitest';
import { ERRORS, type ErrorCode } from '../../gateway/errors.ts';
import { errorBody, textStream } from '../support/chunks.ts';
import { openConnection, type RawResponse, send } from '../support/client.ts';
import { Gate } from '../support/gate.ts';
import { configFor, startGateway, type TestGateway, testPlugin } from '../support/gateway.ts';
import type { Script } from '../support/script.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { readSse } from '../support/sse.ts';
import { type ApiError, ask, contentOf, errorOf, prompt, says, soon } from './chat.ts';

const stranger = testPlugin('stranger', { authenticate: () => ({ allow: {} }) });
const jailer = testPlugin('jailer', {
  authorize: ({ resources }) => ({ allow: { decisions: resources.map(() => false) } }),
});
const full = testPlugin('full', {
  limit: () => ({ reject: { code: 'rate_limited', message: 'rate limit exceeded' } }),
});
const prude = testPlugin('prude', { request: () => ({ reject: { code: 'content_rejected', message: 'No.' } }) });
const broken = testPlugin('broken', { request: () => null as never });
/** Moves a segment to where the body has nothing: to see what a defect of the gateway looks like. */
const saboteur = testPlugin('saboteur', {
  request({ segments }) {
    segments[0]!.id = '/no/such/place';
    return { rewrite: { segments: [{ id: '/no/such/place', text: 'x' }] } };
  },
});
const busy = testPlugin('busy', { recall: () => ({ reject: { code: 'conflict', message: 'Wait for the first.' } }) });
const factories = [stranger, jailer, busy, full, prude, broken, saboteur];

interface Rig {
  upstream: ScriptedUpstream;
  gateway: TestGateway;
}

type Reach = (rig: Rig) => Promise<RawResponse | ApiError>;

const scripted =
  (...scripts: Script[]): Reach =>
  ({ upstream, gateway }) => {
    upstream.next(...scripts);
    return ask(gateway);
  };
const on =
  (route: string): Reach =>
  ({ gateway }) =>
    ask(gateway, prompt(), { route });
const failing = (status: number): Script => ({ whole: errorBody('no'), status });

/** The last event of a stream that failed after it had begun. */
async function lastError(response: RawResponse): Promise<ApiError> {
  expect(response.status).toBe(200);
  const { errors, done } = await readSse(response);
  expect({ count: errors.length, done }).toEqual({ count: 1, done: false });
  return errors[0] as ApiError;
}

/** Asks for the rest of a stream that nobody knows. */
function askRest({ url }: TestGateway, route: string): Promise<RawResponse> {
  return send(`${url}${route}/v1/chat/completions`, { headers: { 'Last-Event-ID': `${'A'.repeat(22)}-1` } });
}

/** How each code is reached. The type makes this complete: a new code without a case does not compile. */
const CASES: Record<ErrorCode, Reach> = {
  invalid_request: ({ gateway }) => ask(gateway, { model: 'm', messages: 'hello' }),
  invalid_json: ({ gateway }) => ask(gateway, '{'),
  missing_model: ({ gateway }) => ask(gateway, { messages: [] }),
  async unsupported_field({ gateway }) {
    const asked = { model: 'test-model', max_tokens: 9, container: 'c', messages: [{ role: 'user', content: 'x' }] };
    const response = await send(`${gateway.url}/v1/messages`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(asked),
    });
    // Anthropic's form keeps the gateway's code among the details.
    const { error } = await response.json<{ error: ApiError & { details: { error_code: string } } }>();
    return { ...error, status: response.status, code: error.details.error_code };
  },
  unsupported_media_type: ({ gateway }) => ask(gateway, 'a=b', { headers: { 'Content-Type': 'text/plain' } }),
  body_too_large: ({ gateway }) => ask(gateway, prompt('x'.repeat(20_000))),
  async body_timeout({ gateway }) {
    const connection = await openConnection(gateway.url);
    await connection.send(
      'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{',
    );
    return connection.response();
  },
  not_found: ({ gateway }) => send(`${gateway.url}/v1/nothing`),
  model_not_found: ({ gateway }) => ask(gateway, prompt('x', { model: 'nobody' })),
  method_not_allowed: ({ gateway }) => send(`${gateway.url}/v1/chat/completions`),
  unauthenticated: on('/stranger'),
  forbidden: on('/jailer'),
  conflict: ({ gateway }) => ask(gateway, prompt(), { route: '/busy', headers: { 'Idempotency-Key': 'k' } }),
  rate_limited: on('/full'),
  content_rejected: on('/prude'),
  guard_unavailable: on('/broken'),
  // A lost connection is tried once more.
  upstream_unreachable: scripted({ fault: 'reset' }, { fault: 'reset' }),
  upstream_failed: scripted(failing(500)),
  upstream_refused_key: scripted(failing(401)),
  upstream_bad_answer: scripted({ whole: '<html>hello</html>', contentType: 'text/html' }),
  upstream_timeout: scripted({ fault: 'silence' }),
  upstream_overloaded: scripted(failing(503)),
  upstream_rate_limited: scripted({ whole: errorBody('slow down', { code: 'upstream_rate_limited' }), status: 429 }),
  upstream_invalid_request: scripted({
    whole: errorBody('bad temperature', { code: 'upstream_invalid_request', type: 'invalid_request_error' }),
    status: 400,
  }),
  async stream_broken({ upstream, gateway }) {
    upstream.next({ stream: { events: textStream('Hello').slice(0, 2), end: 'close-without-done' } });
    return lastError(await ask(gateway, prompt('x', { stream: true })));
  },
  async draining({ upstream, gateway }) {
    upstream.next({ stream: { events: [...textStream('Hello').slice(0, 2), new Gate()] } });
    const response = await ask(gateway, prompt('x', { stream: true }));
    await response.chunks.next();
    const stopped = gateway.stop();
    const error = await lastError(response);
    await stopped;
    return error;
  },
  resume_expired: ({ gateway }) => askRest(gateway, '/kept'),
  resume_unavailable: ({ gateway }) => askRest(gateway, '/shared'),
  internal: on('/saboteur'),
};

/** `patience` is how long it waits for a client's body and for a provider's answer: long, but where that is the point. */
async function startRig(patience = '20s'): Promise<Rig & AsyncDisposable> {
  const upstream = await startScriptedUpstream();
  const names = factories.map(({ name }) => name);
  const config = configFor(upstream.url, {
    provider: { timeouts: { firstByte: patience } },
    models: { 'test-model': 'up' },
    plugins: Object.fromEntries(names.map((name) => [name, { at: `local:${name}` }])),
    limits: { body: '10KiB', bodyTime: patience },
  });
  const shared = { '/kept': { resume: true }, '/shared': { resume: { store: 'redis' } } };
  config.redis = 'redis://127.0.0.1:9';
  config.routes = { '/': {}, ...shared, ...Object.fromEntries(names.map((name) => [`/${name}`, { plugins: [name] }])) };
  const openStreams = () => Promise.reject(new Error('there is no Redis'));
  const gateway = await startGateway(config, { factories, log: 'info', openStreams });
  return {
    upstream,
    gateway,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

test.each(Object.keys(CASES) as ErrorCode[])(
  '%s is reached, with its status, its type and a sentence',
  async (code) => {
    await using rig = await startRig(code.endsWith('_timeout') ? '200ms' : undefined);
    const reached = await CASES[code](rig);
    const { status, type } = ERRORS[code];
    const error = 'headers' in reached ? await errorOf(reached) : { status, ...reached };
    expect({ code: error.code, status: error.status, type: error.type }).toEqual({ code, status, type });
    expect(error.message).toMatch(/^\S.*[.!?]$|^rate limit exceeded$|^bad temperature$/);
    // What the parser answers never became a request.
    if (code !== 'body_timeout') await soon(() => rig.gateway.logged.some((line) => line.code === code)).toBe(true);
  },
);

test('the table has a case for each of its codes, and no other', () => {
  expect(Object.keys(CASES).sort()).toEqual(Object.keys(ERRORS).sort());
});

test('a defect of the gateway tells the client nothing of itself, and the log its kind', async () => {
  await using rig = await startRig();
  const { message } = await errorOf((await CASES.internal(rig)) as RawResponse);
  expect(message).toBe('The gateway failed. The fault has been logged; try again.');
  await soon(() => rig.gateway.logged.find((line) => line.code === 'internal')?.cause).toBe('TypeError');
});

describe('a provider that', () => {
  const refusals: [string, Script, object, Record<string, string>][] = [
    [
      'refuses our key (401)',
      { whole: errorBody('Incorrect API key provided: upstream-key'), status: 401 },
      { status: 502, code: 'upstream_refused_key' },
      {},
    ],
    [
      'refuses our account (403)',
      { whole: errorBody('account upstream-key is blocked'), status: 403 },
      { status: 502, code: 'upstream_refused_key' },
      {},
    ],
    [
      'is at its limit passes on when to come back',
      { whole: errorBody('slow down', { code: 'rate_limit_exceeded' }), status: 429, headers: { 'retry-after': '17' } },
      { status: 429, code: 'rate_limit_exceeded', message: expect.stringContaining('17 seconds') },
      { 'retry-after': '17' },
    ],
    [
      'is at its limit in its own words',
      { whole: errorBody('x', { code: 'insufficient_quota' }), status: 429 },
      { status: 429, code: 'insufficient_quota', type: 'insufficient_quota' },
      {},
    ],
    [
      'finds the request wrong (400)',
      {
        whole: errorBody('temperature must be below 2', {
          code: 'too_hot',
          param: 'temperature',
          type: 'invalid_request_error',
        }),
        status: 400,
      },
      { status: 400, code: 'too_hot', message: 'temperature must be below 2', param: 'temperature' },
      {},
    ],
    [
      'finds the request wrong (422) with a text as error',
      { whole: { error: 'tools are not supported' }, status: 422 },
      { status: 422, message: 'tools are not supported', code: 'invalid_request' },
      {},
    ],
    [
      'wraps its error into a list',
      { whole: [errorBody('bad field')], status: 400 },
      { status: 400, message: 'bad field' },
      {},
    ],
    [
      'does not know the model (404)',
      { whole: errorBody('no such model', { code: 'model_not_found' }), status: 404 },
      { status: 404, code: 'model_not_found', message: 'no such model' },
      {},
    ],
    [
      'is overloaded (529)',
      { whole: errorBody('x'), status: 529, headers: { 'retry-after': '3' } },
      { status: 503, code: 'upstream_overloaded' },
      { 'retry-after': '3' },
    ],
    [
      'answers an error as HTML',
      { whole: '<html>Bad gateway</html>', contentType: 'text/html', status: 502 },
      { status: 502, code: 'upstream_failed' },
      {},
    ],
    [
      'answers an error without a body',
      { whole: '', status: 400 },
      { status: 400, message: expect.stringContaining('status 400') },
      {},
    ],
    ['answers a list', { whole: [1, 2] }, { status: 502, code: 'upstream_bad_answer' }, {}],
    ['answers nothing (200, empty)', { whole: '' }, { status: 502, code: 'upstream_bad_answer' }, {}],
    ['answers 204', { whole: '', status: 204 }, { status: 502, code: 'upstream_bad_answer' }, {}],
    [
      'sends us elsewhere (302)',
      { whole: '', status: 302, headers: { location: 'http://127.0.0.1:1/' } },
      { status: 502, code: 'upstream_bad_answer' },
      {},
    ],
    [
      'compresses although asked not to',
      { whole: Buffer.from([31, 139, 8]), headers: { 'content-encoding': 'gzip' } },
      { status: 502, code: 'upstream_bad_answer' },
      {},
    ],
    [
      'cuts its answer short',
      { whole: '{"id":"x"', cutAfterBytes: 5 },
      { status: 502, code: 'upstream_bad_answer' },
      {},
    ],
    ['closes without a word', { fault: 'close' }, { status: 502, code: 'upstream_unreachable' }, {}],
    ['is no HTTP server', { raw: 'SSH-2.0-OpenSSH_9.6\r\n' }, { status: 502, code: 'upstream_unreachable' }, {}],
    ['keeps silent', { fault: 'silence' }, { status: 504, code: 'upstream_timeout' }, {}],
    [
      'streams to one who did not ask for it',
      { stream: { events: textStream('Hi') } },
      { status: 502, code: 'upstream_bad_answer' },
      {},
    ],
  ];
  test.each(refusals)('%s', async (_title, script, wanted, headers) => {
    await using rig = await startRig('fault' in script && script.fault === 'silence' ? '200ms' : undefined);
    rig.upstream.always(script);
    const response = await ask(rig.gateway);
    expect(await errorOf(response)).toMatchObject(wanted);
    for (const name of ['retry-after', 'location']) expect(response.header(name)).toBe(headers[name]);
    expect(response.received.toString()).not.toContain('upstream-key');
  });

  test('streams without end to one who did not ask for it is left', async () => {
    await using rig = await startRig();
    rig.upstream.next({ stream: { events: [...textStream('Hi'), new Gate()] } });
    expect((await ask(rig.gateway)).status).toBe(502);
    expect(await (await rig.upstream.arrived()).closed).toBe('left');
  });

  test('sends an endless answer is left at the limit', async () => {
    await using upstream = await startScriptedUpstream();
    upstream.next(says('x'.repeat(300_000)));
    await using gateway = await startGateway(configFor(upstream.url, { limits: { reply: '100KiB' } }));
    expect(await errorOf(await ask(gateway))).toMatchObject({ status: 502, code: 'upstream_bad_answer' });
  });

  test('is not there at all', async () => {
    const upstream = await startScriptedUpstream();
    await using gateway = await startGateway(configFor(upstream.url));
    await upstream.close();
    expect(await errorOf(await ask(gateway))).toMatchObject({ status: 502, code: 'upstream_unreachable' });
  });
});

describe('failover to the second target', () => {
  const passing: [string, Script][] = [
    ['429', failing(429)],
    ['500', failing(500)],
    ['503', failing(503)],
    ['504', failing(504)],
    ['a reset', { fault: 'reset' }],
    ['silence', { fault: 'silence' }],
  ];

  async function startPair(firstByte = '20s') {
    const [first, second] = [await startScriptedUpstream(), await startScriptedUpstream()];
    const timeouts = { firstByte };
    const provider = (url: string, key: string) => ({ kind: 'openai-compatible', baseUrl: `${url}/v1`, key, timeouts });
    const targets = [
      { provider: 'first', model: 'one' },
      { provider: 'second', model: 'two' },
    ];
    const gateway = await startGateway({
      providers: { first: provider(first.url, 'key-1'), second: provider(second.url, 'key-2') },
      models: { best: { targets } },
      routes: { '/': {} },
    });
    return {
      first,
      second,
      gateway,
      async [Symbol.asyncDispose]() {
        await gateway.stop();
        await first.close();
        await second.close();
      },
    };
  }

  test.each(passing)('on %s', async (title, script) => {
    await using pair = await startPair(title === 'silence' ? '200ms' : undefined);
    pair.first.next(script);
    pair.second.next(says('from the second'));
    expect(await contentOf(await ask(pair.gateway, prompt('x', { model: 'best' })))).toBe('from the second');
    expect([pair.first, pair.second].map(({ requests }) => requests[0]!.json().model)).toEqual(['one', 'two']);
    expect(pair.second.requests[0]!.header('authorization')).toBe('Bearer key-2');
  });

  test('but not on the client’s own mistake', async () => {
    await using pair = await startPair();
    pair.first.next({ whole: errorBody('bad field'), status: 400 });
    expect(await errorOf(await ask(pair.gateway, prompt('x', { model: 'best' })))).toMatchObject({ status: 400 });
    expect(pair.second.requests).toEqual([]);
  });

  test('S2-13 the failures of all are told when nobody is left', async () => {
    await using pair = await startPair();
    pair.first.next(failing(500));
    pair.second.next({ ...failing(429), headers: { 'retry-after': '5' } });
    const response = await ask(pair.gateway, prompt('x', { model: 'best' }));
    expect(await errorOf(response)).toMatchObject({
      status: 502,
      message: expect.stringMatching(/^All providers failed: “\w+” \(failed\), “\w+” \(at its rate limit\)\./),
    });
  });

  test('how long to wait is told when all are at their limit', async () => {
    await using pair = await startPair();
    pair.first.next({ ...failing(429), headers: { 'retry-after': '9' } });
    pair.second.next({ ...failing(429), headers: { 'retry-after': '5' } });
    const response = await ask(pair.gateway, prompt('x', { model: 'best' }));
    expect([response.status, response.header('retry-after')]).toEqual([429, '5']);
  });
});
