/** Which plugins are asked, at which hooks, in which order, and with what. */
import { expect, test } from 'vitest';
import type {
  Allow,
  AuthorizeInput,
  Hook,
  LimitInput,
  ObserveInput,
  Plugin,
  SegmentsInput,
} from '../../../proto/contract.ts';
import { textStream, usageOf } from '../../support/chunks.ts';
import { openConnection, send } from '../../support/client.ts';
import { Gate } from '../../support/gate.ts';
import { configFor, startGateway, testPlugin } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { readSse } from '../../support/sse.ts';
import { ask, contentOf, errorOf, prompt, says, soon } from '../chat.ts';

interface Call {
  plugin: string;
  hook: Hook;
  // biome-ignore lint/suspicious/noExplicitAny: a recorder of every hook's input
  input: any;
}

const ALLOW: Record<string, Allow> = {
  authenticate: { identity: { subject: 'jo', tenant: 'red' } },
  limit: { headers: { 'x-ratelimit-remaining': '9' }, grant: 'grant-1' },
};

/** Says yes at every hook, and writes down that it was asked. */
function recorder(name: string, calls: Call[]): Partial<Plugin> {
  const note = (hook: Hook, input: unknown) => void calls.push({ plugin: name, hook, input });
  const allow = (hook: Hook) => (input: unknown) => {
    note(hook, input);
    return { allow: ALLOW[hook] ?? {} };
  };
  return {
    authenticate: allow('authenticate'),
    authorize(input) {
      note('authorize', input);
      return { allow: { decisions: input.resources.map(() => true) } };
    },
    limit: allow('limit'),
    request: allow('request'),
    response: allow('response'),
    stream(input) {
      note('stream', input);
      return { release: { release: input.text, hold: '' } };
    },
    observe(input) {
      note('observe', input);
      return undefined;
    },
  };
}

function recorded(calls: Call[], ...names: string[]) {
  return {
    factories: names.map((name) => testPlugin(name, recorder(name, calls))),
    plugins: Object.fromEntries(names.map((name) => [name, { at: `local:${name}` }])),
  };
}

function hooksOf(calls: Call[]): string[] {
  return calls.map(({ plugin, hook }) => `${plugin}/${hook}`);
}

test('a whole answer passes every hook once, in the order of a request’s life', async () => {
  const calls: Call[] = [];
  const { factories, plugins } = recorded(calls, 'one', 'two');
  await using upstream = await startScriptedUpstream();
  upstream.always(() => {
    calls.push({ plugin: 'up', hook: 'stream', input: undefined });
    return says();
  });
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories });
  expect(await contentOf(await ask(gateway))).toBe('Hi there');
  await soon(() => hooksOf(calls).length).toBe(12);
  expect(hooksOf(calls)).toEqual([
    'one/authenticate', // the first identity counts: nobody else is asked who this is
    'one/authorize',
    'two/authorize',
    'one/limit',
    'two/limit',
    'one/request',
    'two/request',
    'up/stream',
    'one/response',
    'two/response',
    'one/observe',
    'two/observe',
  ]);
});

test('a stream asks the stream hook in place of the response hook', async () => {
  const calls: Call[] = [];
  const { factories, plugins } = recorded(calls, 'one');
  await using upstream = await startScriptedUpstream();
  upstream.next({ stream: { events: textStream('Hi there', { size: 100 }) } });
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories });
  const said = await readSse(await ask(gateway, prompt('Hello', { stream: true })));
  expect(said).toMatchObject({ content: ['Hi there'], done: true });
  await soon(() => hooksOf(calls).at(-1)).toBe('one/observe');
  const hooks = hooksOf(calls);
  expect(hooks.filter((hook) => hook === 'one/response')).toEqual([]);
  expect(hooks.slice(0, 4)).toEqual(['one/authenticate', 'one/authorize', 'one/limit', 'one/request']);
  expect(new Set(hooks.slice(4, -1))).toEqual(new Set(['one/stream']));
});

test('every hook is told what it needs to know, and no more', async () => {
  const calls: Call[] = [];
  const factories = [testPlugin('one', recorder('one', calls))];
  await using upstream = await startScriptedUpstream();
  upstream.next(says('Hi there', {}));
  const route = { context: { region: 'eu' }, plugins: ['one'] };
  const config = configFor(upstream.url, { plugins: { one: { at: 'local:one', headers: ['X-Team'] } } });
  config.routes = { '/openai': route };
  await using gateway = await startGateway(config, { factories });
  const headers = { 'X-Team': 'blue', 'X-Other': 'not named', 'X-Request-Id': 'req-42', Cookie: 'session=1' };
  const response = await ask(gateway, prompt('Hello', { max_tokens: 77 }), { headers, route: '/openai' });
  expect(response.header('x-request-id')).toBe('req-42');
  await response.text();
  await soon(() => calls.length).toBe(6);
  const [authenticate, authorize, limit, request, response_, observe] = calls.map(({ input }) => input);
  const known = { id: 'req-42', method: 'POST', path: '/openai/v1/chat/completions', route: '/openai' };
  const facts = {
    ...known,
    context: { region: 'eu' },
    model: 'test-model',
    provider: 'up',
    headers: { 'x-team': 'blue' },
  };
  expect(authenticate.request).toMatchObject({ ...known, headers: { 'x-team': 'blue', 'x-other': 'not named' } });
  expect(authenticate.request).not.toHaveProperty('model');
  for (const later of [authorize, limit, request, response_, observe]) {
    expect(later.request).toEqual({ ...facts, identity: { subject: 'jo', tenant: 'red' } });
  }
  expect(authorize as AuthorizeInput).toMatchObject({
    action: 'model.use',
    resources: [{ type: 'model', name: 'test-model' }],
  });
  expect(limit as LimitInput).toMatchObject({ estimatedInputTokens: expect.any(Number), maxOutputTokens: 77 });
  expect((request as SegmentsInput).segments).toEqual([
    { id: '/messages/0/content', role: 'user', channel: 'text', path: '/messages/0/content', text: 'Hello' },
  ]);
  expect((response_ as SegmentsInput).segments).toMatchObject([
    { role: 'assistant', channel: 'text', path: '/choices/0/message/content', text: 'Hi there' },
  ]);
  expect(observe as ObserveInput).toMatchObject({
    status: 200,
    outcome: 'finished',
    streamed: false,
    upstreamModel: 'test-model',
    provider: 'up',
    usage: { inputTokens: 5, outputTokens: 5 },
    grant: 'grant-1',
    durationMs: expect.any(Number),
  });
});

test('`hooks` asks a plugin at the named ones only', async () => {
  const calls: Call[] = [];
  const factories = [testPlugin('one', recorder('one', calls))];
  await using upstream = await startScriptedUpstream();
  upstream.next(says());
  const plugins = { one: { at: 'local:one', hooks: ['limit', 'observe'] } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories });
  await (await ask(gateway)).text();
  await soon(() => hooksOf(calls)).toEqual(['one/limit', 'one/observe']);
});

// --- authenticate -----------------------------------------------------------------------------------------------------

/** Knows one key. */
const doorman = (key: string) =>
  testPlugin('doorman', {
    authenticate({ request }) {
      const given = request.headers?.authorization;
      if (given === undefined) return { allow: {} };
      if (given === `Bearer ${key}`) return { allow: { identity: { subject: 'jo' } } };
      return {
        reject: {
          code: 'bad_key',
          message: 'This key is not known.',
          headers: { 'www-authenticate': 'Bearer error="x"' },
        },
      };
    },
  });

test('a stranger with an endless body is answered 401 at once, and the body is not read', async () => {
  await using upstream = await startScriptedUpstream();
  const plugins = { doorman: { at: 'local:doorman' } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories: [doorman('k')] });
  const connection = await openConnection(gateway.url);
  const head = 'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n';
  await connection.send(`${head}Transfer-Encoding: chunked\r\n\r\n`);
  await connection.send('5\r\n{"mod\r\n');
  const response = await connection.response();
  expect(await errorOf(response)).toMatchObject({ status: 401, code: 'unauthenticated', type: 'authentication_error' });
  expect(response.header('connection')).toBe('close');
  connection.destroy();
});

test('a stranger learns of no model, no path and no method', async () => {
  await using upstream = await startScriptedUpstream();
  const plugins = { doorman: { at: 'local:doorman' } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories: [doorman('k')] });
  for (const [method, path] of [
    ['GET', '/v1/models'],
    ['GET', '/v1/models/gpt-4o'],
    ['GET', '/v1/chat/completions'],
    ['POST', '/nothing/here'],
    ['GET', '/health'],
  ] as const) {
    expect((await errorOf(await send(gateway.url + path, { method }))).code, path).toBe('unauthenticated');
  }
});

test('nobody knows the caller: 401 with a challenge and what to do', async () => {
  await using upstream = await startScriptedUpstream();
  const plugins = { doorman: { at: 'local:doorman' } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories: [doorman('k')] });
  const response = await ask(gateway);
  expect(response.header('www-authenticate')).toMatch(/^Bearer/);
  expect((await errorOf(response)).message).toMatch(/^You are not signed in/);
});

test('a bad credential is refused at once, by the one whose it is', async () => {
  await using upstream = await startScriptedUpstream();
  const calls: Call[] = [];
  const plugins = { doorman: { at: 'local:doorman' }, other: { at: 'local:other' } };
  const factories = [doorman('k'), testPlugin('other', recorder('other', calls))];
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories });
  const response = await ask(gateway, prompt(), { headers: { Authorization: 'Bearer wrong' } });
  expect(response.header('www-authenticate')).toBe('Bearer error="x"');
  expect(await errorOf(response)).toMatchObject({ status: 401, code: 'bad_key', message: 'This key is not known.' });
  await soon(() => hooksOf(calls)).toEqual(['other/observe']);
});

test('several authenticators stand side by side: the one that knows the caller decides', async () => {
  await using upstream = await startScriptedUpstream();
  upstream.always(says());
  const subjects: unknown[] = [];
  const second = testPlugin('second', {
    authenticate: ({ request }) =>
      request.headers?.['x-key'] ? { allow: { identity: { subject: 'bo' } } } : { allow: {} },
    observe({ request }) {
      subjects.push(request.identity?.subject);
      return undefined;
    },
  });
  const plugins = { doorman: { at: 'local:doorman' }, second: { at: 'local:second' } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories: [doorman('k'), second] });
  expect((await ask(gateway, prompt(), { headers: { Authorization: 'Bearer k' } })).status).toBe(200);
  expect((await ask(gateway, prompt(), { headers: { 'X-Key': '1' } })).status).toBe(200);
  expect((await ask(gateway)).status).toBe(401);
  await soon(() => subjects).toEqual(['jo', 'bo', undefined]);
});

test('`identity: optional` lets a stranger pass to the authorizers, and still refuses a bad key', async () => {
  await using upstream = await startScriptedUpstream();
  upstream.always(says());
  const members = testPlugin('members', {
    authorize: ({ request, resources }) => ({
      allow: { decisions: resources.map(({ name }) => request.identity !== undefined || name === 'free') },
    }),
  });
  const plugins = { doorman: { at: 'local:doorman' }, members: { at: 'local:members' } };
  const config = configFor(upstream.url, { plugins, route: { identity: 'optional' } });
  await using gateway = await startGateway(config, { factories: [doorman('k'), members] });
  expect((await ask(gateway, prompt('x', { model: 'free' }))).status).toBe(200);
  expect(await errorOf(await ask(gateway))).toMatchObject({ status: 403, code: 'forbidden', param: 'model' });
  expect((await ask(gateway, prompt(), { headers: { Authorization: 'Bearer k' } })).status).toBe(200);
  expect((await ask(gateway, prompt(), { headers: { Authorization: 'Bearer no' } })).status).toBe(401);
});

test('a shadowed authenticator alone turns nobody away', async () => {
  await using upstream = await startScriptedUpstream();
  upstream.always(says());
  const plugins = { doorman: { at: 'local:doorman', shadow: true } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories: [doorman('k')] });
  expect((await ask(gateway)).status).toBe(200);
  expect((await ask(gateway, prompt(), { headers: { Authorization: 'Bearer wrong' } })).status).toBe(200);
});

// --- authorize --------------------------------------------------------------------------------------------------------

test('S1-95: the list of models is filtered in one call, and a forbidden model is 403', async () => {
  const asked: AuthorizeInput[] = [];
  const only = testPlugin('only', {
    authorize(input) {
      asked.push(input);
      return { allow: { decisions: input.resources.map(({ name }) => name.startsWith('cheap')) } };
    },
  });
  await using upstream = await startScriptedUpstream();
  const models = { 'cheap-1': 'up', smart: 'up', 'cheap-2': 'up' };
  const config = configFor(upstream.url, { plugins: { only: { at: 'local:only' } }, models });
  await using gateway = await startGateway(config, { factories: [only] });
  const { data } = await (await send(`${gateway.url}/v1/models`)).json<{ data: { id: string }[] }>();
  expect(data.map(({ id }) => id)).toEqual(['cheap-1', 'cheap-2']);
  expect(asked).toMatchObject([
    { action: 'model.list', resources: ['cheap-1', 'smart', 'cheap-2'].map((name) => ({ type: 'model', name })) },
  ]);
  expect((await send(`${gateway.url}/v1/models/smart`)).status).toBe(404);
  expect((await send(`${gateway.url}/v1/models/cheap-1`)).status).toBe(200);
  expect((await ask(gateway, prompt('x', { model: 'smart' }))).status).toBe(403);
  expect(upstream.requests).toEqual([]);
});

test('every authorizer must agree', async () => {
  const voter = (name: string, yes: string[]) =>
    testPlugin(name, {
      authorize: ({ resources }) => ({ allow: { decisions: resources.map((r) => yes.includes(r.name)) } }),
    });
  await using upstream = await startScriptedUpstream();
  const plugins = { a: { at: 'local:a' }, b: { at: 'local:b' } };
  const config = configFor(upstream.url, { plugins, models: { x: 'up', y: 'up', z: 'up' } });
  await using gateway = await startGateway(config, { factories: [voter('a', ['x', 'y']), voter('b', ['y', 'z'])] });
  const { data } = await (await send(`${gateway.url}/v1/models`)).json<{ data: { id: string }[] }>();
  expect(data.map(({ id }) => id)).toEqual(['y']);
});

// --- limit ------------------------------------------------------------------------------------------------------------

test('a limit’s headers are on the answer, also when a later limit refuses', async () => {
  const first = testPlugin('first', { limit: () => ({ allow: { headers: { 'x-ratelimit-remaining': '3' } } }) });
  const second = testPlugin('second', {
    limit: ({ request }) =>
      request.model === 'costly'
        ? { reject: { code: 'too_much', message: 'Wait a minute.', headers: { 'retry-after': '60' } } }
        : { allow: { headers: { 'x-second': 'yes' } } },
  });
  await using upstream = await startScriptedUpstream();
  upstream.always(says());
  const plugins = { first: { at: 'local:first' }, second: { at: 'local:second' } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories: [first, second] });
  const fine = await ask(gateway);
  expect([fine.status, fine.header('x-ratelimit-remaining'), fine.header('x-second')]).toEqual([200, '3', 'yes']);
  const refused = await ask(gateway, prompt('x', { model: 'costly' }));
  expect([refused.header('x-ratelimit-remaining'), refused.header('retry-after')]).toEqual(['3', '60']);
  expect(await errorOf(refused)).toMatchObject({ status: 429, code: 'too_much', type: 'rate_limit_error' });
});

/** Reserves, and remembers what came back. */
function reserver(returned: ObserveInput[], name = 'reserver', grant = 'reserved-7') {
  return testPlugin(name, {
    limit: () => ({ allow: { grant } }),
    observe(input) {
      returned.push(input);
      return undefined;
    },
  });
}

test('a grant comes back to the plugin that gave it, with the true usage of a stream', async () => {
  const mine: ObserveInput[] = [];
  const other: ObserveInput[] = [];
  const factories = [reserver(mine), reserver(other, 'other', 'other-8')];
  await using upstream = await startScriptedUpstream();
  upstream.next({ stream: { events: textStream('Hi', { usage: usageOf(11, 22) }) } });
  const plugins = { reserver: { at: 'local:reserver' }, other: { at: 'local:other' } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories });
  await readSse(await ask(gateway, prompt('Hello', { stream: true })));
  await soon(() => [...mine, ...other].map(({ grant }) => grant)).toEqual(['reserved-7', 'other-8']);
  expect(mine[0]).toMatchObject({ streamed: true, outcome: 'finished', usage: { inputTokens: 11, outputTokens: 22 } });
});

test('a grant comes back when a later hook refuses', async () => {
  const returned: ObserveInput[] = [];
  const strict = testPlugin('strict', { request: () => ({ reject: { code: 'no', message: 'No.' } }) });
  await using upstream = await startScriptedUpstream();
  const plugins = { reserver: { at: 'local:reserver' }, strict: { at: 'local:strict' } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), {
    factories: [reserver(returned), strict],
  });
  expect((await ask(gateway)).status).toBe(403);
  await expect
    .poll(() => returned)
    .toMatchObject([{ grant: 'reserved-7', outcome: 'rejected', code: 'no', status: 403 }]);
  expect(returned[0]).not.toHaveProperty('usage.inputTokens');
});

test('a grant comes back when the client leaves a stream, with what was counted', async () => {
  const returned: ObserveInput[] = [];
  const gate = new Gate();
  await using upstream = await startScriptedUpstream();
  upstream.next({ stream: { events: [...textStream('A few words').slice(0, 3), gate] } });
  const plugins = { reserver: { at: 'local:reserver' } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories: [reserver(returned)] });
  const response = await ask(gateway, prompt('Hello', { stream: true }));
  await response.chunks.next();
  response.connection.destroy();
  await expect
    .poll(() => returned)
    .toMatchObject([{ grant: 'reserved-7', outcome: 'aborted', usage: { estimated: true } }]);
  expect(await (await upstream.arrived()).closed).toBe('left');
});

test('a grant comes back when the client leaves before the answer began', async () => {
  const returned: ObserveInput[] = [];
  await using upstream = await startScriptedUpstream();
  upstream.next({ fault: 'silence' });
  const plugins = { reserver: { at: 'local:reserver' } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories: [reserver(returned)] });
  const connection = await openConnection(gateway.url);
  await connection.request({ path: '/v1/chat/completions', body: prompt() });
  const request = await upstream.arrived();
  connection.destroy();
  expect(await request.closed).toBe('left');
  await soon(() => returned).toMatchObject([{ grant: 'reserved-7', outcome: 'aborted', status: 499 }]);
});

// --- observe ----------------------------------------------------------------------------------------------------------

test('an observer that never answers delays no reply, and is asked exactly once', async () => {
  const seen: string[] = [];
  const slow = testPlugin('slow', {
    observe({ request }) {
      seen.push(request.id);
      return new Promise(() => {});
    },
  });
  await using upstream = await startScriptedUpstream();
  upstream.always(says());
  const plugins = { slow: { at: 'local:slow' } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories: [slow] });
  const connection = await openConnection(gateway.url);
  for (const id of ['a', 'b', 'c']) {
    await connection.request({ path: '/v1/chat/completions', body: prompt(), headers: { 'X-Request-Id': id } });
    expect(await contentOf(await connection.response())).toBe('Hi there');
  }
  connection.destroy();
  await soon(() => seen).toEqual(['a', 'b', 'c']);
});

test('an observer that fails harms nobody, not even the next observer', async () => {
  const seen: string[] = [];
  const thrower = testPlugin('thrower', {
    observe: () => {
      throw new Error('disk full');
    },
  });
  const after = testPlugin('after', { observe: ({ outcome }) => void seen.push(outcome) as undefined });
  await using upstream = await startScriptedUpstream();
  upstream.always(says());
  const plugins = { thrower: { at: 'local:thrower' }, after: { at: 'local:after' } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories: [thrower, after] });
  expect((await ask(gateway)).status).toBe(200);
  await soon(() => seen).toEqual(['finished']);
});

test('every end of a request is observed once: finished, rejected, failed', async () => {
  const seen: [number, string, string | undefined][] = [];
  const witness = testPlugin('witness', {
    observe: ({ status, outcome, code }) => void seen.push([status, outcome, code]) as undefined,
  });
  await using upstream = await startScriptedUpstream();
  upstream.next(says(), { whole: '<html>', status: 500 }).always({ fault: 'reset' });
  const plugins = { witness: { at: 'local:witness' } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { factories: [witness] });
  for (const body of [prompt(), prompt(), prompt(), '{']) await (await ask(gateway, body)).text();
  await (await send(`${gateway.url}/nothing`)).text();
  await soon(() => seen.length).toBe(5);
  expect(seen).toEqual([
    [200, 'finished', undefined],
    [502, 'failed', 'upstream_failed'],
    [502, 'failed', 'upstream_unreachable'],
    [400, 'failed', 'invalid_json'],
    [404, 'failed', 'not_found'],
  ]);
});
