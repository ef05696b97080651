/** Gemini behind OpenAI's dialect and behind its own, on one route. */
import { expect, test } from 'vitest';
import { ask } from '../gateway/chat.ts';
import { send } from '../support/client.ts';
import { startGateway } from '../support/gateway.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { type ChatCompletion, startExample } from './example.ts';

const MODEL = 'gemini-2.5-flash-lite';
const HELLO = { model: MODEL, messages: [{ role: 'user', content: 'Hi, this is a hello world test. ' }] };

/** What Gemini answers to it. */
const ANSWER = {
  candidates: [{ content: { parts: [{ text: 'Hello, World!' }], role: 'model' }, finishReason: 'STOP', index: 0 }],
  usageMetadata: {
    promptTokenCount: 11,
    candidatesTokenCount: 4,
    totalTokenCount: 15,
    promptTokensDetails: [{ modality: 'TEXT', tokenCount: 11 }],
  },
  modelVersion: MODEL,
  responseId: 'mAitaLmkHPPlz7IPvtfUqQ4',
};

test('S1-20: Gemini answers an OpenAI client without a credential, in the exact shape', async () => {
  await using upstream = await startScriptedUpstream();
  await using gateway = await startGateway({
    providers: { gemini: { kind: 'gemini', key: 'AIza-of-google', baseUrl: `${upstream.url}/v1beta` } },
    models: { '*': 'gemini' },
    routes: { '/gemini': {} },
  });
  upstream.next({ whole: ANSWER });
  const completion = await (await ask(gateway, HELLO, { route: '/gemini' })).json<ChatCompletion>();
  expect(completion).toEqual({
    id: expect.any(String),
    object: 'chat.completion',
    created: expect.any(Number),
    model: MODEL,
    choices: [
      {
        index: 0,
        message: expect.objectContaining({ role: 'assistant', content: 'Hello, World!' }),
        logprobs: null,
        finish_reason: 'stop',
      },
    ],
    usage: expect.objectContaining({ prompt_tokens: 11, completion_tokens: 4, total_tokens: 15 }),
  });
  const [request] = upstream.requests;
  expect(request?.path).toBe(`/v1beta/models/${MODEL}:generateContent`);
  expect(request?.headers).toContainEqual(['x-goog-api-key', 'AIza-of-google']);
  expect(JSON.parse(String(request?.body))).toEqual({
    contents: [{ role: 'user', parts: [{ text: 'Hi, this is a hello world test. ' }] }],
  });
});

test('S1-24: the same route of the default config speaks Gemini’s own API, in its shape', async () => {
  await using example = await startExample('gateway/default.yaml');
  const body = { contents: [{ parts: [{ text: 'Hi, this is a hello world test. ' }] }] };
  const path = `${example.gateway.url}/gemini/v1beta/models/${MODEL}`;
  const response = await send(`${path}:generateContent`, { body });
  expect([response.status, response.header('content-type')]).toEqual([200, 'application/json']);
  expect(await response.json<object>()).toMatchObject({
    candidates: [
      {
        content: { role: 'model', parts: [{ text: expect.stringContaining('hello world test') }] },
        finishReason: 'STOP',
        index: 0,
      },
    ],
    usageMetadata: { promptTokenCount: expect.any(Number), totalTokenCount: expect.any(Number) },
    modelVersion: expect.any(String),
  });
  const stream = await send(`${path}:streamGenerateContent?alt=sse`, { body });
  expect(stream.header('content-type')).toContain('text/event-stream');
  const last = (await stream.text()).trim().split('\n\n').at(-1) ?? '';
  expect(JSON.parse(last.replace(/^data: /, ''))).toMatchObject({ candidates: [{ finishReason: 'STOP' }] });
});
