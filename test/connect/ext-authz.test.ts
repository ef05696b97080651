/** Services that authorise for Envoy, by the messages of the real protocol. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Connection, EndpointOptions } from '../../gateway/connect/connection.ts';
import type { AuthorizeInput, Reject, RequestFacts } from '../../proto/contract.ts';
import { verdictProblem } from '../../proto/verdict.ts';
import { authorize, facts, prompt } from '../contract/facts.ts';
import { connectTo } from '../contract/ways.ts';
import { ask, prompt as chat, errorOf, says } from '../gateway/chat.ts';
import { send } from '../support/client.ts';
import { configFor, startGateway } from '../support/gateway.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { type Asked, type AuthzServer, authzServer, plain } from './authz-server.ts';
import { freePort } from './foreign.ts';
import type { Answer, Refused } from './unary-server.ts';
import { itIsAUnaryWay } from './unary-way.ts';

const YES = { status: { code: 0 }, okResponse: {} };
const NO = { status: { code: 7 } };

async function withService(
  answer: (asked: Asked) => Answer | Refused,
  use: (connection: Connection, server: AuthzServer) => Promise<void>,
  options: EndpointOptions = {},
): Promise<void> {
  await using server = await authzServer(answer);
  const connection = await connectTo(server.at, { options });
  await use(connection, server).finally(() => connection.close());
}

/** What became of a question: a sound verdict, or the error. */
async function outcomeOf(connection: Connection, input = authorize('a'), signal?: AbortSignal): Promise<unknown> {
  try {
    const verdict = await connection.ask('authorize', input, { signal });
    expect(verdictProblem('authorize', input, verdict)).toBeUndefined();
    return verdict;
  } catch (error) {
    return error;
  }
}

async function outcomeOn(answer: Answer | Refused, input = authorize('a')): Promise<unknown> {
  let outcome: unknown;
  await withService(
    () => answer,
    async (connection) => {
      outcome = await outcomeOf(connection, input, AbortSignal.timeout(2_000));
    },
  );
  return outcome;
}

async function rejectionOn(deniedResponse: object, code = 7): Promise<Reject> {
  const outcome = await outcomeOn({ status: { code }, deniedResponse });
  expect(outcome).toHaveProperty('reject');
  return (outcome as { reject: Reject }).reject;
}

/** The one CheckRequest that a question becomes. */
async function askedWith(request: Partial<RequestFacts>, more: Partial<AuthorizeInput> = {}): Promise<Asked> {
  let asked: Asked[] = [];
  await withService(
    () => YES,
    async (connection, server) => {
      await connection.ask('authorize', { ...authorize('a'), ...more, request: { ...facts, ...request } });
      asked = server.asked;
    },
  );
  expect(asked).toHaveLength(1);
  return asked[0]!;
}

describe('what the service is told', () => {
  test('the request, with what the mount shows of its headers and no others', async () => {
    const before = Math.floor(Date.now() / 1_000);
    const { request, contextExtensions } = (await askedWith({ headers: { 'x-team': 'red', host: 'llm.example' } }))
      .attributes;
    expect(request.time.seconds).toBeGreaterThanOrEqual(before);
    expect(request.http).toEqual({
      id: 'req-1',
      method: 'POST',
      path: '/openai/v1/chat/completions',
      host: 'llm.example',
      scheme: 'http',
      protocol: 'HTTP/1.1',
      size: -1,
      headers: {
        'x-team': 'red',
        host: 'llm.example',
        ':method': 'POST',
        ':path': '/openai/v1/chat/completions',
        ':scheme': 'http',
      },
    });
    expect(contextExtensions).toEqual({ tier: 'gold' });
  });

  test('the claims of the token where Envoy puts them, and what is to be done', async () => {
    const { filterMetadata } = (await askedWith({})).attributes.metadataContext;
    expect(plain(filterMetadata['envoy.filters.http.jwt_authn']!)).toEqual({
      jwt_payload: {
        sub: 'jo',
        iss: 'https://sso.example/realms/demo',
        groups: ['staff'],
        level: 3,
        nested: { list: [1, 'two', null] },
      },
    });
    expect(plain(filterMetadata.wardgate!)).toEqual({
      action: 'model.use',
      resources: [{ type: 'model', name: 'a' }],
      route: '/openai',
      model: 'gpt-4o-mini',
      provider: 'openai',
    });
  });

  test('a token’s names for the rest of an identity; its own roles count before ours', async () => {
    const identity = { subject: 'jo', username: 'jo.b', email: 'jo@corp.example', roles: ['staff'], tenant: 't' };
    const { filterMetadata } = (await askedWith({ identity })).attributes.metadataContext;
    expect(plain(filterMetadata['envoy.filters.http.jwt_authn']!).jwt_payload).toEqual({
      sub: 'jo',
      preferred_username: 'jo.b',
      email: 'jo@corp.example',
      realm_access: { roles: ['staff'] },
    });
    expect(plain(filterMetadata.wardgate!)).toMatchObject({ tenant: 't' });
    const claims = { realm_access: { roles: ['of-the-token'] }, sub: 'somebody else' };
    const other = (await askedWith({ identity: { ...identity, claims } })).attributes.metadataContext.filterMetadata;
    expect(plain(other['envoy.filters.http.jwt_authn']!).jwt_payload).toMatchObject({ ...claims, sub: 'jo' });
  });

  test('nothing of a token when nobody is known', async () => {
    const { filterMetadata } = (await askedWith({ identity: undefined })).attributes.metadataContext;
    expect(Object.keys(filterMetadata)).toEqual(['wardgate']);
  });

  test('a whole body as JSON of just its length, whatever the client called it', async () => {
    const body = '{"model":"größe"}';
    const headers = { 'content-type': 'text/x-other', 'content-length': '3', 'x-envoy-auth-partial-body': 'true' };
    const { http } = (await askedWith({ body, bodySize: 19, headers })).attributes.request;
    expect(http).toMatchObject({ body, size: 19 });
    expect(http.headers).toMatchObject({
      'content-type': 'application/json',
      'content-length': '19',
      'x-envoy-auth-partial-body': 'false',
    });
  });

  test('a cut body, and that it is one', async () => {
    const { http } = (await askedWith({ body: '{"mod', bodySize: 90_000 })).attributes.request;
    expect(http).toMatchObject({ body: '{"mod', size: 90_000 });
    expect(http.headers).toMatchObject({ 'content-length': '90000', 'x-envoy-auth-partial-body': 'true' });
  });

  test('no body when none is shown', async () => {
    const { http } = (await askedWith({})).attributes.request;
    expect(http).not.toHaveProperty('body');
    expect(Object.keys(http.headers)).not.toContain('content-length');
  });

  test('text that is no Unicode with a mark in its place', async () => {
    const { filterMetadata } = (await askedWith({ model: 'a\ud800b' })).attributes.metadataContext;
    expect(plain(filterMetadata.wardgate!).model).toBe('a\ufffdb');
  });

  test('the mount’s own headers as metadata', () =>
    withService(
      () => YES,
      async (connection, server) => {
        await connection.ask('authorize', authorize('a'));
        expect(server.metadata[0]).toMatchObject({ 'x-key': 'ours' });
      },
      { headers: { 'X-Key': 'ours' } },
    ));

  test('one check for a whole list, whose answer counts for all of it', () =>
    withService(
      () => YES,
      async (connection, server) => {
        const input: AuthorizeInput = { ...authorize('a', 'b', 'c'), action: 'model.list' };
        expect(await outcomeOf(connection, input)).toEqual({ allow: { decisions: [true, true, true] } });
        expect(server.asked).toHaveLength(1);
        expect(plain(server.asked[0]!.attributes.metadataContext.filterMetadata.wardgate!)).toMatchObject({
          action: 'model.list',
        });
      },
    ));

  test('only of authorize', () =>
    withService(
      () => YES,
      async (connection) => {
        expect(connection.description).toMatchObject({ hooks: ['authorize'], actions: ['model.use', 'model.list'] });
        expect(() => connection.ask('request', prompt('hello'))).toThrow('does not answer');
      },
    ));
});

describe('a yes', () => {
  test.each([
    ['status OK with what is to be changed', { ...YES, okResponse: { headers: [] } }],
    ['status OK alone, as opa-envoy says true', { status: {} }],
    ['status OK in bytes, with fields that are not read', Buffer.from('0a0208001a0232002200', 'hex')],
  ])('%s', async (_title, answer) => {
    expect(await outcomeOn(answer)).toEqual({ allow: { decisions: [true] } });
  });
});

describe('a no', () => {
  test('S1-91: without more, as opa-envoy says false: 403 and an empty body', async () => {
    expect(await outcomeOn(NO)).toMatchObject({ reject: { code: 'policy_denied', status: 403, body: '' } });
    expect(await rejectionOn({ status: { code: 403 } })).toMatchObject({ status: 403, body: '' });
  });

  test('with its own status, headers and body', async () => {
    const headers = [
      { header: { key: 'WWW-Authenticate', value: 'Bearer realm="x"' } },
      { header: { key: 'x-raw', rawValue: Buffer.from('caf\xe9', 'latin1') } },
      { header: { key: 'content-type', value: 'application/problem+json' } },
      { header: { key: 'set-cookie', value: 'a=1' } },
      { header: { key: 'set-cookie', value: 'b=2' } },
      { header: { key: 'x-empty', value: '' } },
      { header: { key: 'x-kept', value: '' }, keepEmptyValue: true },
    ];
    expect(await rejectionOn({ status: { code: 401 }, headers, body: '{"no":1}' }, 16)).toEqual({
      code: 'policy_denied',
      message: expect.any(String),
      status: 401,
      headers: { 'www-authenticate': 'Bearer realm="x"', 'x-raw': 'caf\xe9', 'x-kept': '' },
      cookies: ['a=1', 'b=2'],
      body: '{"no":1}',
      contentType: 'application/problem+json',
    });
  });

  test.each([
    ['{"error":{"message":"no"}}', 'application/json'],
    ['no', 'text/plain; charset=utf-8'],
    ['[1]', 'text/plain; charset=utf-8'],
  ])('the body %s without a type is %s', async (body, contentType) => {
    expect(await rejectionOn({ status: { code: 403 }, body })).toMatchObject({ body, contentType });
  });

  test.each([0, 200, 302, 399, 600, -1, 2_147_483_647])('the status %i is none for a rejection: 403', async (code) => {
    expect(await rejectionOn({ status: { code } })).toMatchObject({ status: 403 });
  });

  test('a very long body is cut', async () => {
    expect((await rejectionOn({ body: 'x'.repeat(100_000) })).body).toHaveLength(65_536);
  });

  const twice = (first: object, second: object) => [
    { header: { key: 'x-a', value: '1' }, ...first },
    { header: { key: 'X-A', value: '2' }, ...second },
  ];
  test.each([
    ['nothing set', twice({}, {}), '1, 2'],
    ['append', twice({}, { append: { value: true } }), '1, 2'],
    ['append before append_action', twice({}, { append: { value: true }, appendAction: 2 }), '1, 2'],
    ['append: false', twice({}, { append: { value: false } }), '2'],
    ['ADD_IF_ABSENT', twice({}, { appendAction: 1 }), '1'],
    ['OVERWRITE_IF_EXISTS_OR_ADD', twice({}, { appendAction: 2 }), '2'],
    ['OVERWRITE_IF_EXISTS', twice({}, { appendAction: 3 }), '2'],
    ['OVERWRITE_IF_EXISTS of none', [{ header: { key: 'x-a', value: '1' }, appendAction: 3 }], undefined],
  ])('one header twice, with %s', async (_title, headers, expected) => {
    expect((await rejectionOn({ headers })).headers).toEqual(expected === undefined ? {} : { 'x-a': expected });
  });

  test.each([
    ['a line break', { key: 'x-a', value: 'a\r\nset-cookie: b' }],
    ['a name with a space', { key: 'x a', value: 'b' }],
    ['no name', { value: 'b' }],
    ['no header', undefined],
    ['a pseudo header', { key: ':status', value: '200' }],
    ['Host', { key: 'Host', value: 'elsewhere' }],
    ['a length', { key: 'content-length', value: '0' }],
    ['a framing', { key: 'Transfer-Encoding', value: 'chunked' }],
    ['a value beyond Latin-1', { key: 'x-a', value: '漢' }],
    ['two values', { key: 'x-a', value: 'a', rawValue: Buffer.from('b') }],
    ['40 KB', { key: 'x-a', value: 'a'.repeat(40_000) }],
  ])('a header with %s is not sent, nor what came with it: 500, and still a no', async (_title, header) => {
    const reject = await rejectionOn({ status: { code: 401 }, headers: [{ header }], body: 'secret' });
    expect(reject).toEqual({ code: 'policy_denied', message: expect.any(String), status: 500, body: '' });
  });

  test('with a yes beside its status is a no', async () => {
    expect(await outcomeOn({ status: { code: 7 }, okResponse: {} })).toHaveProperty('reject');
  });
});

describe('no decision', () => {
  test.each<[string, Answer | Refused]>([
    ['an empty reply', {}],
    ['a reply that is not of the protocol', Buffer.from('ffffffff0f01', 'hex')],
    ['half a reply', Buffer.from('0a05', 'hex')],
    ['a yes without a status', { okResponse: {} }],
    ['a no without a status', { deniedResponse: { status: { code: 403 } } }],
    ['status OK with a no', { status: {}, deniedResponse: { status: { code: 403 } } }],
    ['a yes and a no', Buffer.from('0a0012001a00', 'hex')],
    ['an error of the service', { status: {}, errorResponse: {} }],
    ['an error of the service with status 7', { ...NO, errorResponse: { status: { code: 500 } } }],
    ['a reply of 2 MiB', { ...YES, deniedResponse: { body: 'x'.repeat(2 * 1024 * 1024) } }],
  ])('%s', async (_title, answer) => {
    expect(await outcomeOn(answer)).toMatchObject({ name: 'PluginFault' });
  });

  test('whatever the reply holds, only a plain OK is a yes', async () => {
    const header = fc.record({ key: fc.string(), value: fc.string() }, { requiredKeys: [] });
    const option = fc.record({ header, appendAction: fc.integer({ min: 0, max: 9 }) }, { requiredKeys: [] });
    const httpStatus = fc.record({ code: fc.integer({ min: -1, max: 700 }) });
    const denied = fc.record(
      { status: httpStatus, headers: fc.array(option, { maxLength: 3 }), body: fc.string() },
      { requiredKeys: [] },
    );
    const code = fc.oneof(fc.constant(0), fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }));
    const reply = fc.record(
      { status: fc.record({ code }), okResponse: fc.constant({}), deniedResponse: denied, errorResponse: denied },
      { requiredKeys: [] },
    );
    let answer: object = {};
    await withService(
      () => answer,
      async (connection) => {
        await fc.assert(
          fc.asyncProperty(reply, async (given) => {
            answer = given;
            const isYes =
              given.status?.code === 0 && given.deniedResponse === undefined && given.errorResponse === undefined;
            const outcome = await outcomeOf(connection);
            expect('allow' in (outcome as object)).toBe(isYes);
          }),
          { numRuns: 500 },
        );
      },
    );
  });

  test('whatever bytes come, they are a yes only when they say so', async () => {
    let bytes = Buffer.alloc(0);
    await withService(
      () => bytes,
      async (connection) => {
        await fc.assert(
          fc.asyncProperty(fc.uint8Array({ maxLength: 24 }), async (given) => {
            bytes = Buffer.from(given);
            const outcome = await outcomeOf(connection);
            // Field 1 is the status: without its tag there is none.
            if ('allow' in (outcome as object)) expect(bytes.includes(0x0a)).toBe(true);
          }),
          { numRuns: 500 },
        );
      },
    );
  });
});

describe('the way there', () => {
  itIsAUnaryWay({
    scheme: 'ext-authz',
    serve: authzServer,
    ask: (connection, signal) => outcomeOf(connection, authorize('a'), signal),
    yes: YES,
    service: 'Authorization',
  });

  test('a config makes no sense', async () => {
    await expect(connectTo('ext-authz://host:1', { config: { policy: 'x' } })).rejects.toThrow('takes no `config`');
  });
});

describe('through the gateway', () => {
  /** As the demo's policy decides. */
  function demo({ attributes: { request, contextExtensions } }: Asked): object {
    const { headers, body = '' } = request.http;
    const { model = '' } = JSON.parse(body || '{}') as { model?: string };
    const passes = headers['x-opa-passthrough-enabled'] === 'true' && model.startsWith('gpt-3.5');
    if (passes && contextExtensions?.environment === 'development') return YES;
    return { ...NO, deniedResponse: { status: { code: 403 } } };
  }

  async function withDemo(use: (gateway: { url: string }, asked: Asked[]) => Promise<void>): Promise<void> {
    await using upstream = await startScriptedUpstream();
    upstream.always(says());
    await using server = await authzServer(demo);
    const opa = { at: server.at, headers: ['x-opa-passthrough-enabled'], body: '8KiB' };
    const route = { plugins: ['opa'], identity: 'optional', context: { environment: 'development' } };
    const models = { 'gpt-4o': 'up', 'gpt-3.5-turbo': 'up' };
    const config = configFor(upstream.url, { plugins: { opa }, models });
    await using gateway = await startGateway({ ...config, routes: { '/opa/openai': route } });
    await use(gateway, server.asked);
  }

  test('S1-91, S1-92: the demo’s policy sees header, model and environment', () =>
    withDemo(async (gateway, asked) => {
      const route = '/opa/openai';
      const refused = await ask(gateway, chat('hello', { model: 'gpt-4o' }), { route });
      expect([refused.status, await refused.text()]).toEqual([403, '']);
      const headers = { 'x-opa-passthrough-enabled': 'true', authorization: 'Bearer secret', cookie: 'a=b' };
      const served = await ask(gateway, chat('hello', { model: 'gpt-3.5-turbo' }), { route, headers });
      expect(served.status).toBe(200);
      expect(JSON.stringify(asked)).not.toMatch(/secret|cookie/);
    }));

  test('a list of models is one check', () =>
    withDemo(async (gateway, asked) => {
      const response = await send(`${gateway.url}/opa/openai/v1/models`);
      expect([response.status, await response.text()]).toEqual([403, '']);
      expect(asked).toHaveLength(1);
    }));

  test('a service that is down: 503, and nothing reaches the provider', async () => {
    await using upstream = await startScriptedUpstream();
    const opa = { at: `ext-authz://127.0.0.1:${await freePort()}` };
    await using gateway = await startGateway(configFor(upstream.url, { plugins: { opa } }));
    expect(await errorOf(await ask(gateway))).toMatchObject({ status: 503, code: 'guard_unavailable' });
    expect(upstream.requests).toHaveLength(0);
  });
});
