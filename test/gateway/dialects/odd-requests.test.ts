/** What no client should send, in every dialect: refused with a 4xx in that dialect's own shape, and nothing goes upstream. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type RawRequest, type RawResponse, send } from '../../support/client.ts';
import { replyFixture } from '../../support/fixture.ts';
import { startGateway, type TestGateway } from '../../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  const kinds = ['openai', 'anthropic', 'gemini', 'cohere'];
  const providers = Object.fromEntries(
    kinds.map((kind) => [kind, { kind, baseUrl: `${upstream.url}/v1`, key: 'k', unmapped: 'leave-out' }]),
  );
  gateway = await startGateway(
    {
      providers,
      models: Object.fromEntries(kinds.map((kind) => [kind, kind])),
      plugins: { pii: { at: 'local:pii-guard', config: { rules: ['email'], action: 'mask' } } },
      routes: { '/': { plugins: ['pii'] }, '/plain': {} },
      limits: { body: '256KiB' },
    },
    { log: 'info' },
  );
});

afterAll(async () => {
  await gateway.stop();
  await upstream.close();
});

interface Dialect {
  name: string;
  path: (model: string) => string;
  /** A request that is right. */
  body: (model: string) => Record<string, unknown>;
  /** The list of what is said. */
  said: string;
  shape: object;
}

const MESSAGES = [{ role: 'user', content: 'Hello' }];
const MESSAGE = expect.stringMatching(/^[A-Z].*\.$/s);
const DIALECTS: Dialect[] = [
  {
    name: 'openai-chat',
    path: () => '/v1/chat/completions',
    body: (model) => ({ model, messages: MESSAGES }),
    said: 'messages',
    shape: { error: { message: MESSAGE, type: 'invalid_request_error', code: expect.any(String) } },
  },
  {
    name: 'openai-responses',
    path: () => '/v1/responses',
    body: (model) => ({ model, input: MESSAGES }),
    said: 'input',
    shape: { error: { message: MESSAGE, type: 'invalid_request_error', code: expect.any(String) } },
  },
  {
    name: 'openai-embeddings',
    path: () => '/v1/embeddings',
    body: (model) => ({ model, input: ['Hello'] }),
    said: 'input',
    shape: { error: { message: MESSAGE, type: 'invalid_request_error', code: expect.any(String) } },
  },
  {
    name: 'anthropic-messages',
    path: () => '/v1/messages',
    body: (model) => ({ model, max_tokens: 9, messages: MESSAGES }),
    said: 'messages',
    shape: { type: 'error', error: { type: expect.any(String), message: MESSAGE } },
  },
  {
    name: 'anthropic-count-tokens',
    path: () => '/v1/messages/count_tokens',
    body: (model) => ({ model, messages: MESSAGES }),
    said: 'messages',
    shape: { type: 'error', error: { type: expect.any(String), message: MESSAGE } },
  },
  {
    name: 'gemini',
    path: (model) => `/v1beta/models/${model}:generateContent`,
    body: () => ({ contents: [{ parts: [{ text: 'Hello' }] }] }),
    said: 'contents',
    shape: { error: { code: expect.any(Number), message: MESSAGE, status: expect.stringMatching(/^[A-Z_]+$/) } },
  },
  {
    name: 'gemini-count-tokens',
    path: (model) => `/v1beta/models/${model}:countTokens`,
    body: () => ({ contents: [{ parts: [{ text: 'Hello' }] }] }),
    said: 'contents',
    shape: { error: { code: expect.any(Number), message: MESSAGE, status: expect.stringMatching(/^[A-Z_]+$/) } },
  },
];

const JSON_TYPE = { 'Content-Type': 'application/json' };

/** Asks on both routes, with a guard and without, for a model of each vendor. */
async function answersTo(dialect: Dialect, request: (model: string) => RawRequest): Promise<RawResponse[]> {
  const answers: RawResponse[] = [];
  for (const route of ['', '/plain']) {
    for (const model of ['openai', 'anthropic', 'gemini', 'cohere']) {
      const { headers = JSON_TYPE, ...rest } = request(model);
      answers.push(await send(`${gateway.url}${route}${dialect.path(model)}`, { method: 'POST', headers, ...rest }));
    }
  }
  return answers;
}

describe.each(DIALECTS)('$name', (dialect) => {
  async function isRefused(statuses: number[], request: (model: string) => RawRequest): Promise<void> {
    const before = upstream.requests.length;
    for (const answer of await answersTo(dialect, request)) {
      expect(statuses).toContain(answer.status);
      expect(await answer.json()).toMatchObject(dialect.shape);
    }
    expect(upstream.requests).toHaveLength(before);
  }

  const raw = (edit: (json: string) => string | Buffer) => (model: string) => ({
    body: edit(JSON.stringify(dialect.body(model))),
  });

  test.each<[string, number, (json: string) => string | Buffer]>([
    ['no body', 400, () => ''],
    ['no JSON', 400, (json) => `${json}}`],
    ['a list', 400, (json) => `[${json}]`],
    ['null', 400, () => 'null'],
    ['a key twice', 400, (json) => json.replace('{', '{"a":1,"a":2,')],
    ['a key twice, once escaped', 400, (json) => json.replace('{', '{"model":"x","\\u006dodel":"y",')],
    ['bytes that are no UTF-8', 400, (json) => Buffer.from(json.replace('Hello', 'é'), 'latin1')],
    ['a byte order mark', 400, (json) => `\ufeff${json}`],
    ['another encoding', 400, (json) => Buffer.from(json, 'utf16le')],
    ['too much nesting', 400, (json) => json.replace('"Hello"', `${'['.repeat(500)}${']'.repeat(500)}`)],
    ['more nesting than any stack has', 400, (json) => json.replace('"Hello"', `${'['.repeat(1e5)}${']'.repeat(1e5)}`)],
    ['too many bytes', 413, (json) => json.replace('Hello', 'x'.repeat(300_000))],
  ])('with %s', async (_what, status, edit) => {
    await isRefused([status], raw(edit));
  });

  test.each([null, 'x', 7, true, {}, [null], [7], [['x']], { __proto__: null, length: 1 }])(
    'that says %j',
    async (said) => {
      // One text is a prompt in some of them.
      if (typeof said === 'string' && dialect.said === 'input') return;
      if (said === null && dialect.name === 'openai-responses') return;
      // Ids of tokens.
      if (Array.isArray(said) && said[0] === 7 && dialect.name === 'openai-embeddings') return;
      await isRefused([400], (model) => ({ body: { ...dialect.body(model), [dialect.said]: said } }));
    },
  );

  test.each([
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/jsonp',
  ])('as %s', async (type) => {
    await isRefused([415], (model) => ({
      body: JSON.stringify(dialect.body(model)),
      headers: { 'Content-Type': type },
    }));
  });

  test('by another method', async () => {
    for (const method of ['GET', 'PUT', 'DELETE', 'PATCH']) {
      await isRefused([405], (model) => ({ method, body: dialect.body(model), headers: JSON_TYPE }));
    }
    for (const answer of await answersTo(dialect, () => ({ method: 'HEAD' }))) {
      expect([answer.status, await answer.text()]).toEqual([405, '']);
    }
  });

  test('for a stream with another word than true or false', async () => {
    if (dialect.name.startsWith('gemini') || dialect.name.endsWith('embeddings')) return;
    for (const stream of ['yes', 'true', 1, {}, []]) {
      await isRefused([400], (model) => ({ body: { ...dialect.body(model), stream } }));
    }
  });

  test('what is only odd is answered, or refused by its name', async () => {
    upstream.always({ status: 400, whole: { error: { message: 'Odd.' } } });
    for (const odd of [
      JSON.parse('{"__proto__":{"model":"x"},"constructor":{"prototype":{}}}') as object,
      { '\ud800': '\udfff', '': '' },
      {
        max_tokens: -1,
        max_output_tokens: -1,
        n: 1e308,
        generationConfig: { maxOutputTokens: -1, candidateCount: 1e308 },
      },
      { tools: [{ name: '../\u0000 \ud800', type: 'function', function: { name: '💥'.repeat(999) } }] },
      { temperature: 1e-320, seed: 1e29 },
    ]) {
      for (const answer of await answersTo(dialect, (model) => ({ body: { ...dialect.body(model), ...odd } }))) {
        if (answer.status === 200) continue;
        expect(answer.status).toBe(400);
        expect(await answer.json()).toMatchObject(dialect.shape);
      }
    }
  });
});

test('an answer that is nested deeper than any stack is the provider’s fault, and not the gateway’s', async () => {
  const deep = `${'[{"a":'.repeat(50_000)}1${'}]'.repeat(50_000)}`;
  const answers: Record<string, object> = {
    openai: replyFixture('openai', 'tools'),
    anthropic: replyFixture('anthropic', 'tools'),
    gemini: replyFixture('gemini', 'tools'),
  };
  for (const dialect of DIALECTS.filter(({ name }) => !/count|embed/.test(name))) {
    for (const [model, answer] of Object.entries(answers)) {
      const whole = JSON.stringify(answer).replace(/\{/, `{"deep":${deep},`);
      for (const route of ['', '/plain']) {
        upstream.next({ whole });
        const { status } = await send(`${gateway.url}${route}${dialect.path(model)}`, { body: dialect.body(model) });
        expect([200, 502]).toContain(status);
      }
    }
  }
});
