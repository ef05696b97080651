import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { apiKeyAuth } from '../../../plugins/api-key-auth/plugin.ts';
import type {
  Action,
  AllowOrReject,
  AuthenticateInput,
  AuthorizeInput,
  Identity,
  Reject,
} from '../../../proto/contract.ts';
import { ConfigProblem } from '../../../proto/contract.ts';
import { verdictProblem } from '../../../proto/verdict.ts';
import { ask as askGateway, errorOf, prompt, says } from '../../gateway/chat.ts';
import { send } from '../../support/client.ts';
import { configFor, startGateway, testPlugin } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';

const DEMO = {
  keys: [
    { key: 'sk-demo-123', subject: 'demo-a', tenant: 'tenant-A' },
    { key: 'sk-demo-456', subject: 'demo-b', tenant: 'tenant-B' },
  ],
};

/** What a client without a key of ours is told. */
const NOT_MINE = { allow: { challenge: 'Bearer realm="wardgate"' } };

/** What travels in the identity of a key's holder. */
function claimsOf(key: string, more: object = {}) {
  return { 'api-key': { id: sha256(key).slice('sha256:'.length, 'sha256:'.length + 16), ...more } };
}

function sha256(key: string): string {
  return `sha256:${createHash('sha256').update(key).digest('hex')}`;
}

function inputWith(headers?: Record<string, string>): AuthenticateInput {
  return { request: { id: 'r1', method: 'POST', path: '/v1/chat/completions', route: '/', headers } };
}

/** Asks a fresh plugin, and checks that the contract accepts its answer. */
function ask(headers?: Record<string, string>, config: unknown = DEMO): AllowOrReject {
  const input = inputWith(headers);
  const answer = apiKeyAuth.create(config).authenticate!(input) as AllowOrReject;
  expect(verdictProblem('authenticate', input, answer)).toBeUndefined();
  return answer;
}

function rejection(answer: AllowOrReject): Reject {
  expect(answer).toHaveProperty('reject');
  return (answer as { reject: Reject }).reject;
}

function tenantOf(answer: AllowOrReject): string | undefined {
  return 'allow' in answer ? answer.allow.identity?.tenant : undefined;
}

function problemsOf(config: unknown): { path: (string | number)[]; message: string }[] {
  try {
    apiKeyAuth.create(config);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigProblem);
    return (error as ConfigProblem).problems;
  }
  return [];
}

afterEach(() => {
  vi.useRealTimers();
});

describe('a key that is known', () => {
  it('S2-06: sk-demo-123 belongs to tenant-A, sk-demo-456 to tenant-B', () => {
    expect(ask({ authorization: 'Bearer sk-demo-123' })).toEqual({
      allow: {
        identity: {
          subject: 'demo-a',
          issuer: 'api-key-auth',
          tenant: 'tenant-A',
          claims: claimsOf('sk-demo-123'),
        },
      },
    });
    expect(tenantOf(ask({ authorization: 'Bearer sk-demo-456' }))).toBe('tenant-B');
  });

  it.each([
    [{ authorization: 'bearer   sk-demo-123 ' }],
    [{ 'x-api-key': 'sk-demo-123' }],
    [{ 'api-key': ' sk-demo-123' }],
    [{ 'x-goog-api-key': 'sk-demo-123' }],
    [{ authorization: 'Bearer sk-demo-123', 'x-api-key': 'sk-demo-123' }],
  ])('is found in %o', (headers) => {
    expect(tenantOf(ask(headers as Record<string, string>))).toBe('tenant-A');
  });

  it('may be written as its hash, in capitals too', () => {
    const keys = [{ hash: sha256('sk-secret').replace(/[a-f]/g, (digit) => digit.toUpperCase()), name: 'ci' }];
    expect(ask({ 'x-api-key': 'sk-secret' }, { keys })).toEqual({
      allow: { identity: { subject: 'ci', issuer: 'api-key-auth', claims: claimsOf('sk-secret') } },
    });
  });

  it('brings groups, roles and user name', () => {
    const keys = [{ key: 'k', subject: 's', username: 'u', groups: ['g'], roles: ['r'] }];
    expect(ask({ 'x-api-key': 'k' }, { keys })).toMatchObject({
      allow: { identity: { username: 'u', groups: ['g'], roles: ['r'] } },
    });
  });

  it('is looked for only in the headers that the config names', () => {
    const config = { ...DEMO, headers: ['X-Goog-Api-Key'] };
    expect(tenantOf(ask({ 'x-goog-api-key': 'sk-demo-123' }, config))).toBe('tenant-A');
    expect(ask({ authorization: 'Bearer sk-demo-123' }, config)).toEqual(NOT_MINE);
  });

  it('cannot be changed by who gets the identity', () => {
    const answer = ask({ 'x-api-key': 'sk-demo-123' }) as { allow: { identity: { tenant: string } } };
    expect(() => {
      answer.allow.identity.tenant = 'tenant-B';
    }).toThrow(TypeError);
  });
});

describe('a client without a key of ours', () => {
  it.each([
    [undefined],
    [{}],
    [{ authorization: 'Bearer ' }],
    [{ 'x-api-key': '' }],
    [{ authorization: 'Basic c2stZGVtby0xMjM6' }],
    [{ authorization: 'Digest username="sk-demo-123", realm="x"' }],
    [{ authorization: 'sk-demo-123' }],
    [{ cookie: 'key=sk-demo-123' }],
  ])('S2-06: %o is nothing to have an opinion on', (headers) => {
    expect(ask(headers as Record<string, string> | undefined)).toEqual(NOT_MINE);
  });

  it('is left to the other authenticators when its credential lacks the prefix', () => {
    const config = { ...DEMO, prefix: 'sk-' };
    expect(ask({ authorization: 'Bearer eyJhbGciOiJSUzI1NiJ9.e30.x' }, config)).toEqual(NOT_MINE);
    expect(tenantOf(ask({ authorization: 'Bearer eyJhbGciOi.e30.x', 'x-api-key': 'sk-demo-123' }, config))).toBe(
      'tenant-A',
    );
  });
});

describe('a bad key', () => {
  it('S2-06: an unknown one is 401 with a challenge and a sentence for a person', () => {
    expect(rejection(ask({ authorization: 'Bearer sk-demo-124' }))).toEqual({
      code: 'invalid_api_key',
      message:
        'The API key is not known here. Check that it was copied whole, or ask the operator of this gateway for a new one.',
      status: 401,
      headers: { 'www-authenticate': 'Bearer realm="wardgate", error="invalid_token"' },
    });
  });

  it.each([
    [{ authorization: 'Bearer sk-demo-123, Bearer sk-demo-456' }],
    [{ authorization: 'Bearer sk-demo-123,sk-demo-123' }],
    [{ authorization: 'Basic eDp5, bearer sk-demo-123' }],
    [{ 'x-api-key': 'sk-demo-123, sk-demo-123' }],
    [{ authorization: 'Bearer sk-demo-123', 'x-api-key': 'sk-demo-456' }],
  ])('is also what comes twice: %o', (headers) => {
    const { code, message, status } = rejection(ask(headers as Record<string, string>));
    expect({ code, message, status }).toEqual({
      code: 'invalid_api_key',
      message: 'The request carries more than one API key. Send exactly one.',
      status: 401,
    });
  });

  it('is one that has expired, from the very millisecond on', () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    const config = { keys: [{ key: 'old', subject: 's', expires: '2027-01-31' }] };
    vi.setSystemTime('2027-01-30T23:59:59.999Z');
    expect(ask({ 'x-api-key': 'old' }, config)).toHaveProperty('allow.identity');
    vi.setSystemTime('2027-01-31T00:00:00.000Z');
    const { code, message } = rejection(ask({ 'x-api-key': 'old' }, config));
    expect(code).toBe('invalid_api_key');
    expect(message).toBe('The API key has expired. Ask the operator of this gateway for a new one.');
  });

  it('is never echoed', () => {
    const answers = [ask({ 'x-api-key': 'sk-very-secret' }), ask({ 'x-api-key': 'sk-very-secret, sk-demo-123' })];
    expect(JSON.stringify(answers)).not.toMatch(/very-secret|demo-123/);
  });

  it('is not remembered, however many are tried', () => {
    const plugin = apiKeyAuth.create(DEMO);
    for (let index = 0; index < 1000; index++) {
      expect(plugin.authenticate!(inputWith({ 'x-api-key': `guess-${index}` }))).toHaveProperty('reject');
    }
    expect(plugin.authenticate!(inputWith({ 'x-api-key': 'sk-demo-123' }))).toHaveProperty('allow.identity');
  });
});

describe('the config', () => {
  it('lists every problem with its place, and repeats no key', () => {
    const problems = problemsOf({
      prefix: 'sk-',
      tenants: [],
      keys: [
        { key: 'other-secret', subject: 'a', colour: 'red' },
        { subject: 'b' },
        { key: 'sk-1', hash: sha256('sk-1'), subject: 'c' },
        { key: 'sk-secret, with comma', subject: 'd', name: 'd', expires: 'tomorrow' },
        { hash: 'md5:123', subject: 'e' },
      ],
    });
    expect(problems.map((problem) => problem.path.join('.'))).toEqual(
      expect.arrayContaining(['tenants', 'keys.0.colour', 'keys.3.key', 'keys.3.expires', 'keys.4.hash']),
    );
    expect(JSON.stringify(problems)).not.toContain('secret');
  });

  it('says what each entry needs', () => {
    const keys = [{ subject: 'b' }, { key: 'sk-1', hash: sha256('sk-1'), subject: 'c' }, { key: 'other' }];
    expect(problemsOf({ prefix: 'sk-', keys })).toEqual([
      { path: ['keys', 0], message: 'Give either the `hash` of the key or, in a demo, the `key` itself.' },
      { path: ['keys', 1], message: 'Give either the `hash` of the key or, in a demo, the `key` itself.' },
      { path: ['keys', 2], message: 'Say whose key it is with `subject` (or `name`, which means the same).' },
      { path: ['keys', 2, 'key'], message: 'The key does not begin with `prefix`, so it would never be looked at.' },
    ]);
  });

  it.each([[undefined], [{}], [{ keys: [] }], [[]], ['keys']])('refuses %o', (config) => {
    expect(problemsOf(config)).not.toEqual([]);
  });

  it('refuses one key twice, in whichever spelling', () => {
    const keys = [
      { key: 'k', subject: 'a' },
      { hash: sha256('k'), subject: 'b' },
    ];
    expect(problemsOf({ keys })).toEqual([{ path: ['keys', 1], message: 'This key already stands further up.' }]);
  });

  it('describes itself with a JSON Schema that knows no other settings', () => {
    const description = apiKeyAuth.create(DEMO).describe();
    expect(description).toMatchObject({ contract: 1, name: 'api-key-auth', hooks: ['authenticate'], rewrites: false });
    expect(description.configSchema).toMatchObject({ type: 'object', additionalProperties: false });
  });
});

describe('a key that is kept to some models', () => {
  const config = {
    keys: [
      { key: 'sk-cheap', subject: 'cheap', models: ['gpt-4o-mini', 'llama*'] },
      { key: 'sk-all', subject: 'all' },
    ],
  };

  function authorized(identity: Identity | undefined, names: string[], action: Action = 'model.use', type = 'model') {
    const resources = names.map((name) => ({ type: type as 'model', name }));
    const input: AuthorizeInput = { request: { ...inputWith().request, identity }, action, resources };
    const answer = apiKeyAuth.create(config).authorize!(input) as AllowOrReject;
    expect(verdictProblem('authorize', input, answer)).toBeUndefined();
    return answer;
  }

  function identityOf(key: string): Identity {
    return (ask({ 'x-api-key': key }, config) as { allow: { identity: Identity } }).allow.identity;
  }

  it('carries them, and its budget, in its identity', () => {
    const keys = [{ key: 'k', subject: 's', models: ['a'], budget: { usd: 0.005, per: '24h' } }];
    expect(ask({ 'x-api-key': 'k' }, { keys })).toMatchObject({
      allow: { identity: { claims: claimsOf('k', { models: ['a'], budget: { usd: 0.005, per: '24h' } }) } },
    });
  });

  it('S1-95: another model is 403 model_not_allowed', () => {
    const answer = rejection(authorized(identityOf('sk-cheap'), ['gpt-4o']));
    expect([answer.status, answer.contentType, answer.body]).toEqual([
      403,
      'application/json',
      '{"error":{"message":"Model is not allowed for this API key","type":"invalid_request_error","code":"model_not_allowed"}}',
    ]);
    expect(authorized(identityOf('sk-cheap'), ['gpt-4o-mini'])).toEqual({ allow: { decisions: [true] } });
    expect(authorized(identityOf('sk-all'), ['gpt-4o'])).toEqual({ allow: { decisions: [true] } });
  });

  it('S1-95: sees only these, and a * stands for any ending', () => {
    const names = ['gpt-4o', 'gpt-4o-mini', 'gpt-4o-mini-2024', 'llama', 'llama3:8b', 'my-llama'];
    expect(authorized(identityOf('sk-cheap'), names, 'model.list')).toEqual({
      allow: { decisions: [false, true, false, true, true, false] },
    });
    expect(authorized(identityOf('sk-cheap'), [], 'model.list')).toEqual({ allow: { decisions: [] } });
  });

  it('is not kept from tools, and says nothing of those whom others know', () => {
    expect(authorized(identityOf('sk-cheap'), ['search'], 'tool.call', 'tool')).toEqual({
      allow: { decisions: [true] },
    });
    const foreign = { subject: 's', issuer: 'https://sso.example', claims: claimsOf('k', { models: ['a'] }) };
    expect(authorized(foreign, ['gpt-4o'])).toEqual({ allow: { decisions: [true] } });
    expect(authorized(undefined, ['gpt-4o'])).toEqual({ allow: { decisions: [true] } });
  });

  it.each([[undefined], [{}], [{ 'api-key': 'x' }], [{ 'api-key': { id: 'x', models: 'gpt-4o' } }]])(
    'is a fault where its claim was lost on the way: %j',
    (claims) => {
      expect(() => authorized({ subject: 's', issuer: 'api-key-auth', claims }, ['gpt-4o'])).toThrow(/key/);
    },
  );

  it('is asked about models only where there is such a key', () => {
    expect(apiKeyAuth.create(DEMO).describe().hooks).toEqual(['authenticate']);
    expect(apiKeyAuth.create(config).describe().hooks).toEqual(['authenticate', 'authorize']);
  });

  it.each([
    [{ models: [] }, 'keys.0.models'],
    [{ models: ['a*b'] }, 'keys.0.models.0'],
    [{ budget: {} }, 'keys.0.budget'],
    [{ budget: { usd: -1 } }, 'keys.0.budget.usd'],
    [{ budget: { tokens: 1.5 } }, 'keys.0.budget.tokens'],
    [{ budget: { usd: 1, per: 'day' } }, 'keys.0.budget.per'],
    [{ budget: { usd: 1, per: '0h' } }, 'keys.0.budget.per'],
  ])('is written rightly: not %j', (fields, path) => {
    const problems = problemsOf({ keys: [{ key: 'k', subject: 's', ...fields }] });
    expect(problems.map((problem) => problem.path.join('.'))).toContain(path);
  });
});

describe('beside another authenticator', () => {
  const tokens = testPlugin('tokens', {
    authenticate: ({ request }) =>
      request.headers?.authorization?.startsWith('Bearer eyJ')
        ? { allow: { identity: { subject: 'jo', issuer: 'https://sso.example' } } }
        : { allow: { challenge: 'Bearer realm="sso"' } },
  });
  const chat = prompt('Hello', { model: 'gpt-4o' });

  async function started(upstreamUrl: string) {
    const config = { prefix: ['sk-', 'wg_'], keys: [{ key: 'sk-1', subject: 'ci', models: ['gpt-4o'] }] };
    const plugins = { keys: { at: 'local:api-key-auth', config }, tokens: { at: 'local:tokens' } };
    const models = { 'gpt-4o': 'up', 'gpt-5': 'up' };
    return startGateway(configFor(upstreamUrl, { plugins, models }), { factories: [tokens] });
  }

  it('keys and tokens both pass, on one route', async () => {
    await using upstream = await startScriptedUpstream();
    upstream.always(() => says());
    await using gateway = await started(upstream.url);
    const shown: Record<string, string>[] = [
      { 'x-api-key': 'sk-1' },
      { authorization: 'Bearer sk-1' },
      { authorization: 'Bearer eyJ.a.b' },
    ];
    for (const headers of shown) expect((await askGateway(gateway, chat, { headers })).status).toBe(200);
  });

  it('a bad key of ours is refused at once, and who shows nothing is told every way to come in', async () => {
    await using upstream = await startScriptedUpstream();
    await using gateway = await started(upstream.url);
    const bad = await askGateway(gateway, chat, { headers: { authorization: 'Bearer sk-2' } });
    expect(await errorOf(bad)).toMatchObject({ status: 401, code: 'invalid_api_key' });
    const nobody = await askGateway(gateway, chat);
    expect(await errorOf(nobody)).toMatchObject({ status: 401, code: 'unauthenticated' });
    expect(nobody.headerValues('www-authenticate').join(', ')).toBe('Bearer realm="wardgate", Bearer realm="sso"');
  });

  it('S1-95: the models of a key, through the gateway; a person’s token is not kept to them', async () => {
    await using upstream = await startScriptedUpstream();
    upstream.always(() => says());
    await using gateway = await started(upstream.url);
    const key = { headers: { 'x-api-key': 'sk-1' } };
    const refused = await askGateway(gateway, prompt('Hello', { model: 'gpt-5' }), key);
    expect([refused.status, refused.header('content-type'), await refused.text()]).toEqual([
      403,
      'application/json',
      '{"error":{"message":"Model is not allowed for this API key","type":"invalid_request_error","code":"model_not_allowed"}}',
    ]);
    const list = await (await send(`${gateway.url}/v1/models`, key)).json<{ data: { id: string }[] }>();
    expect(list.data.map(({ id }) => id)).toEqual(['gpt-4o']);
    const token = { headers: { authorization: 'Bearer eyJ.a.b' } };
    expect((await askGateway(gateway, prompt('Hello', { model: 'gpt-5' }), token)).status).toBe(200);
  });
});

describe('hash.ts', () => {
  const script = fileURLToPath(new URL('../../../plugins/api-key-auth/hash.ts', import.meta.url));

  it('prints the line that stands for the key on standard input', () => {
    const line = execFileSync(process.execPath, [script], { input: 'sk-demo-123\n', encoding: 'utf8' });
    expect(line).toBe(`- { hash: '${sha256('sk-demo-123')}', subject: whose-key-it-is }\n`);
  });

  it('refuses what is no key', () => {
    expect(() => execFileSync(process.execPath, [script], { input: 'a key', stdio: 'pipe' })).toThrow('exactly one');
  });
});
