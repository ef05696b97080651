import OpenAI from 'openai';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { openaiEmbeddings } from '../../../gateway/dialects/openai-embeddings/dialect.ts';
import type { Segment } from '../../../proto/contract.ts';
import { startSimulator } from '../../../simulator/server.ts';
import { send } from '../../support/client.ts';
import { configFor, startGateway, testPlugin } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { errorOf } from '../chat.ts';

const JSON_TYPE = { 'Content-Type': 'application/json' };
const REPLY = {
  object: 'list',
  data: [{ object: 'embedding', index: 0, embedding: [0.5, -2] }],
  model: 'e-1',
  usage: { prompt_tokens: 3, total_tokens: 3 },
};

describe('a request', () => {
  test.each<[string, unknown, unknown]>([
    ['one text', 'a', ['a']],
    ['many texts', ['a', 'b'], ['a', 'b']],
    ['the token ids of one', [1, 2], [[1, 2]]],
    ['the token ids of many', [[1], [2, 3]], [[1], [2, 3]]],
  ])('has %s', (_, input, expected) => {
    const hub = openaiEmbeddings.toHub({ model: 'm', input });
    expect(hub.input).toEqual(expected);
    expect(hub.used.get('token-input')).toBe(Array.isArray(hub.input[0]) ? 'input' : undefined);
    expect(hub.unknown).toEqual([]);
  });

  test('says how long the vectors are, whose they are, and what nobody knows', () => {
    const hub = openaiEmbeddings.toHub({ input: 'a', dimensions: 256, user: 'jo', encoding_format: 'base64', mood: 1 });
    expect(hub).toMatchObject({ dimensions: 256, user: 'jo', unknown: ['mood'] });
    expect([...hub.used]).toEqual([
      ['dimensions', 'dimensions'],
      ['user', 'user'],
    ]);
  });

  test.each<[string, Json]>([
    ['input', {}],
    ['input', { input: [] }],
    ['input', { input: { text: 'a' } }],
    ['input[1]', { input: ['a', 7] }],
    ['input[0]', { input: [[]] }],
    ['input[0]', { input: [-1] }],
    ['dimensions', { input: 'a', dimensions: 0 }],
    ['encoding_format', { input: 'a', encoding_format: 'hex' }],
  ])('that is none is refused by its place: %s of %j', (param, body) => {
    expect(() => openaiEmbeddings.toHub(body)).toThrow(
      expect.objectContaining({ code: 'invalid_request', details: { param } }),
    );
  });
});

describe('an answer', () => {
  const reply = { model: 'e-1', vectors: [[0.5, -2], [1]], usage: { inputTokens: 3, outputTokens: 0 } };

  test('has its vectors as numbers, or as base64 where that is wanted', () => {
    const bytes = Buffer.from(new Float32Array([0.5, -2]).buffer).toString('base64');
    expect(openaiEmbeddings.fromHub(reply, 'm', {})).toEqual({
      object: 'list',
      data: [
        { object: 'embedding', index: 0, embedding: [0.5, -2] },
        { object: 'embedding', index: 1, embedding: [1] },
      ],
      model: 'e-1',
      usage: { prompt_tokens: 3, total_tokens: 3 },
    });
    const body = openaiEmbeddings.fromHub({ vectors: reply.vectors }, 'm', { encoding_format: 'base64' });
    expect(body).toMatchObject({ model: 'm', data: [{ embedding: bytes }, {}], usage: { prompt_tokens: 0 } });
  });
});

describe('through the gateway', () => {
  test('a request of the same format passes byte for byte, and its answer too', async () => {
    await using upstream = await startScriptedUpstream();
    await using gateway = await startGateway(configFor(upstream.url));
    upstream.next({ whole: REPLY });
    const body = '{ "model":"m", "input": "a", "later_field": 1 }';
    const answer = await send(`${gateway.url}/v1/embeddings`, { body, headers: JSON_TYPE });
    expect(await answer.json()).toEqual(REPLY);
    expect(upstream.requests[0]!.path).toBe('/v1/embeddings');
    expect(upstream.requests[0]!.body.toString()).toBe(body);
  });

  test('a guard reads each text, and what it changes goes upstream', async () => {
    const seen: Segment[] = [];
    const mask = testPlugin('mask', {
      request: async ({ segments }) => {
        seen.push(...segments);
        return { rewrite: { segments: segments.map(({ id }) => ({ id, text: '***' })) } };
      },
    });
    await using upstream = await startScriptedUpstream();
    await using gateway = await startGateway(configFor(upstream.url, { plugins: { mask: { at: 'local:mask' } } }), {
      factories: [mask],
    });
    upstream.always({ whole: REPLY });
    for (const input of ['one', ['one', 'two']]) {
      await send(`${gateway.url}/v1/embeddings`, { body: { model: 'm', input }, headers: JSON_TYPE });
    }
    expect(seen.map(({ path, text, role }) => [path, text, role])).toEqual([
      ['/input', 'one', 'user'],
      ['/input/0', 'one', 'user'],
      ['/input/1', 'two', 'user'],
    ]);
    expect(upstream.requests.map((request) => request.json<Json>().input)).toEqual(['***', ['***', '***']]);
  });

  test('token ids, which no guard can read, do not pass one', async () => {
    const witness = testPlugin('witness', { request: async () => ({ allow: {} }) });
    await using upstream = await startScriptedUpstream();
    await using gateway = await startGateway(
      configFor(upstream.url, { plugins: { witness: { at: 'local:witness' } } }),
      {
        factories: [witness],
      },
    );
    for (const input of [
      [1, 2],
      [[1], [2]],
      ['text', [1]],
    ]) {
      const answer = await send(`${gateway.url}/v1/embeddings`, { body: { model: 'm', input }, headers: JSON_TYPE });
      expect(await errorOf(answer)).toMatchObject({ status: 400, param: 'input' });
    }
    expect(upstream.requests).toHaveLength(0);
  });

  test('an unmodified OpenAI client gets its vectors from OpenAI and from others', async () => {
    const simulator = await startSimulator({ tokenDelayMs: 0 });
    onTestFinished(() => simulator.close());
    const kinds = {
      openai: { kind: 'openai', baseUrl: `${simulator.url}/v1` },
      gemini: { kind: 'gemini', baseUrl: `${simulator.url}/v1beta`, key: 'k' },
      cohere: { kind: 'cohere', baseUrl: `${simulator.url}/v2`, key: 'k' },
    };
    await using gateway = await startGateway({
      providers: kinds,
      models: Object.fromEntries(Object.keys(kinds).map((name) => [name, name])),
      routes: { '/': {} },
    });
    const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'none', maxRetries: 0 });
    for (const model of Object.keys(kinds)) {
      const { data, usage } = await client.embeddings.create({ model, input: ['one', 'two'] });
      expect(data.map(({ index }) => index)).toEqual([0, 1]);
      for (const { embedding } of data) {
        expect(embedding.length).toBeGreaterThan(1);
        expect(embedding.every((value) => Number.isFinite(value))).toBe(true);
      }
      expect(usage.total_tokens).toBeGreaterThanOrEqual(0);
    }
  });

  test('what the provider has no word for is refused by name', async () => {
    await using upstream = await startScriptedUpstream();
    await using gateway = await startGateway(
      configFor(upstream.url, { provider: { kind: 'gemini', baseUrl: `${upstream.url}/v1beta` } }),
    );
    const body = { model: 'm', input: [[1, 2]] };
    const answer = await send(`${gateway.url}/v1/embeddings`, { body, headers: JSON_TYPE });
    expect(await errorOf(answer)).toMatchObject({ status: 400, param: 'input' });
    expect(upstream.requests).toHaveLength(0);
  });
});
