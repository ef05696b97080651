/** The model that was allowed is the model that is asked upstream, in every dialect and however it is named. */
import { describe, expect, test } from 'vitest';
import { openConnection } from '../support/client.ts';
import { startGateway, testPlugin } from '../support/gateway.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';

const CHAT = { messages: [{ role: 'user', content: 'Hello' }] };
const TURN = { parts: [{ text: 'Hello' }] };

/** How each dialect names a model: in the body, or in the path. */
const DIALECTS: [string, (model: string) => { path: string; body: object }][] = [
  ['openai-chat', (model) => ({ path: '/v1/chat/completions', body: { model, ...CHAT } })],
  ['openai-responses', (model) => ({ path: '/v1/responses', body: { model, input: 'Hello' } })],
  ['openai-embeddings', (model) => ({ path: '/v1/embeddings', body: { model, input: 'Hello' } })],
  ['anthropic-messages', (model) => ({ path: '/v1/messages', body: { model, max_tokens: 9, ...CHAT } })],
  ['anthropic-count-tokens', (model) => ({ path: '/v1/messages/count_tokens', body: { model, ...CHAT } })],
  ['gemini', (model) => ({ path: pathOf(model, 'generateContent'), body: { contents: [TURN] } })],
  ['gemini-count-tokens', (model) => ({ path: pathOf(model, 'countTokens'), body: { contents: [TURN] } })],
  ['gemini-embedding', (model) => ({ path: pathOf(model, 'embedContent'), body: { content: TURN } })],
];

function pathOf(model: string, method: string): string {
  return `/v1beta/models/${encodeURIComponent(model.toWellFormed())}:${method}`;
}

/** Every model may be asked for whose name begins as it should, and is asked by the name that the client gave. */
async function started() {
  const upstream = await startScriptedUpstream();
  upstream.always({ whole: {} });
  const asked: string[] = [];
  const authz = testPlugin('authz', {
    authorize({ resources }) {
      asked.push(...resources.map(({ name }) => name));
      return { allow: { decisions: resources.map(({ name }) => name.startsWith('may')) } };
    },
  });
  const at = (kind: string, path: string) => ({ kind, baseUrl: `${upstream.url}${path}`, key: 'k' });
  const gateway = await startGateway(
    {
      providers: {
        gemini: at('gemini', '/v1beta'),
        vertex: { ...at('vertex', '/v1'), project: 'p', token: 't' },
        azure: { ...at('azure', '/openai'), apiVersion: '2024-10-21' },
        bedrock: { ...at('bedrock', ''), region: 'us-west-2' },
      },
      models: { 'may-a*': 'gemini', 'may-v*': 'vertex', 'may-z*': 'azure', 'may-b*': 'bedrock', '*': 'gemini' },
      plugins: { authz: { at: 'local:authz' } },
      routes: { '/': { plugins: ['authz'] } },
    },
    { factories: [authz], log: 'info' },
  );
  return {
    upstream,
    asked,
    async ask({ path, body }: { path: string; body: object }) {
      const connection = await openConnection(gateway.url);
      await connection.request({ path, body });
      const response = await connection.response();
      return { status: response.status, text: await response.text() };
    },
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

describe.each(DIALECTS)('%s', (_name, request) => {
  test.each([
    'may-a/../models/must-not',
    'may-a/..',
    'may-a/.',
    'may-a//x',
    'may-v/../../must-not',
    'may-z/../must-not',
    'may-b/../must-not',
    'may-a\\..\\must-not',
    'may-a\u0000',
    'may-a\r\nx-evil: 1',
    'may-a\ud800',
    `may-a${'x'.repeat(10_000)}`,
  ])('a name that would lead elsewhere is no model: %j', async (model) => {
    await using rig = await started();
    const { status, text } = await rig.ask(request(model));
    // A path that cannot be written so was never the name.
    if (!model.isWellFormed() && status < 400) return;
    expect([400, 404]).toContain(status);
    expect(text).toContain('error');
    expect(rig.upstream.requests).toEqual([]);
  });

  test('another model is asked for nothing', async () => {
    await using rig = await started();
    for (const model of ['must-not', 'models/may-a', ' may-a', 'constructor']) {
      expect((await rig.ask(request(model))).status).toBe(403);
    }
    expect(rig.upstream.requests).toEqual([]);
  });

  test.each(['may-a b', 'may-a?key=1', 'may-a#x', 'may-a%2e%2e', 'may-a:x', 'may-ä'])(
    'what is allowed is what is asked: %s',
    async (model) => {
      await using rig = await started();
      await rig.ask(request(model));
      expect(rig.asked).toEqual([model]);
      const [request_] = rig.upstream.requests;
      if (request_ === undefined) return;
      const { pathname, search } = new URL(request_.path, 'http://up');
      expect(decodeURIComponent(pathname)).toMatch(/^\/v1beta\/models\//);
      expect(decodeURIComponent(pathname)).toContain(`/models/${model}:`);
      expect(search).toBe('');
    },
  );
});

describe('a body that names a model beside its path', () => {
  test.each([
    ['generateContent', { model: 'models/must-not', contents: [TURN] }],
    ['countTokens', { generateContentRequest: { model: 'models/must-not', contents: [TURN] } }],
    ['countTokens', { model: 'must-not', contents: [TURN] }],
    ['embedContent', { model: 'models/must-not', content: TURN }],
    [
      'batchEmbedContents',
      {
        requests: [
          { model: 'models/may-a', content: TURN },
          { model: 'x', content: TURN },
        ],
      },
    ],
    ['generateContent', { model: { of: 'may-a' }, contents: [TURN] }],
  ])('is refused where it is another one: %s %j', async (method, body) => {
    await using rig = await started();
    const { status, text } = await rig.ask({ path: pathOf('may-a', method), body });
    expect([status, text]).toEqual([400, expect.stringContaining('must be the model that the path names')]);
    expect(rig.upstream.requests).toEqual([]);
  });

  test('is taken where it is the same', async () => {
    await using rig = await started();
    const inner = { model: 'models/may-a', contents: [TURN] };
    for (const [method, body] of [
      ['generateContent', inner],
      ['countTokens', { generateContentRequest: inner }],
      ['embedContent', { model: 'may-a', content: TURN }],
      ['batchEmbedContents', { requests: [{ model: 'projects/p/models/may-a', content: TURN }] }],
    ] as const) {
      expect((await rig.ask({ path: pathOf('may-a', method), body })).status).toBe(200);
    }
    expect(rig.upstream.requests.map(({ path }) => path)).toHaveLength(4);
    expect(rig.upstream.requests[0]!.json()).toEqual({ contents: [TURN] });
  });
});

test.each(['models', 'fallbacks'])('other models that a provider might try are not taken: %s', async (field) => {
  await using rig = await started();
  const body = { model: 'may-a', ...CHAT, [field]: ['must-not'] };
  const { status, text } = await rig.ask({ path: '/v1/chat/completions', body });
  expect([status, text]).toEqual([400, expect.stringContaining(`\`${field}\` is not taken`)]);
  expect(rig.upstream.requests).toEqual([]);
});
