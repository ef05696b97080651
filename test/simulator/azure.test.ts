import OpenAI, { AzureOpenAI } from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { send } from '../support/client.ts';

let simulator: Simulator;
let azure: AzureOpenAI;

beforeAll(async () => {
  simulator = await startSimulator({ tokenDelayMs: 0, wrongKeys: ['wrong'] });
  azure = new AzureOpenAI({ endpoint: simulator.url, apiKey: 'any', apiVersion: '2024-10-21', maxRetries: 0 });
});
afterAll(() => simulator.close());

const ask = (content: string) => ({ model: 'my-deployment', messages: [{ role: 'user' as const, content }] });

describe('the official client', () => {
  test('reads a whole answer of a deployment, with what the filter found', async () => {
    const answer = await azure.chat.completions.create(ask('hi'));
    expect(answer).toMatchObject({
      model: 'my-deployment',
      prompt_filter_results: [{ prompt_index: 0 }],
      choices: [{ message: { content: 'You said: hi' }, content_filter_results: { hate: { filtered: false } } }],
    });
  });

  test('reads a stream, whose first chunk has no choices', async () => {
    const chunks: OpenAI.ChatCompletionChunk[] = [];
    for await (const chunk of await azure.chat.completions.create({ ...ask('hi'), stream: true })) chunks.push(chunk);
    expect(chunks[0]).toMatchObject({ id: '', model: '', choices: [], prompt_filter_results: [{ prompt_index: 0 }] });
    expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')).toBe('You said: hi');
  });

  test('embeds', async () => {
    const { data } = await azure.embeddings.create({ model: 'my-embedder', input: 'one', dimensions: 4 });
    expect(data[0]?.embedding).toHaveLength(4);
  });

  test('reads responses and chat at the paths of v1', async () => {
    const v1 = new OpenAI({ baseURL: `${simulator.url}/openai/v1`, apiKey: 'any', maxRetries: 0 });
    expect((await v1.responses.create({ model: 'my-deployment', input: 'hi' })).output_text).toBe('You said: hi');
    expect((await v1.chat.completions.create(ask('hi'))).choices[0]?.message.content).toBe('You said: hi');
  });

  test('meets the filter', async () => {
    await expect(azure.chat.completions.create(ask('block this prompt'))).rejects.toMatchObject({
      status: 400,
      code: 'content_filter',
      param: 'prompt',
      error: { innererror: { code: 'ResponsibleAIPolicyViolation' } },
    });
  });
});

describe('what Azure would refuse', () => {
  const path = '/openai/deployments/my-deployment/chat/completions';
  const refusal = async (query: string, headers: Record<string, string>) => {
    const response = await send(simulator.url + path + query, { body: ask('hi'), headers });
    return [response.status, await response.json()];
  };

  test('a request without a key, and one with a wrong key', async () => {
    const error = { code: '401', message: expect.any(String) };
    expect(await refusal('?api-version=2024-10-21', {})).toEqual([401, { error }]);
    expect(await refusal('?api-version=2024-10-21', { 'api-key': 'wrong' })).toEqual([401, { error }]);
  });

  test('a request without an api-version', async () => {
    expect(await refusal('', { 'api-key': 'any' })).toMatchObject([404, { error: { code: '404' } }]);
  });

  test('a request to a path with too many percent signs', async () => {
    const response = await send(`${simulator.url}/openai/deployments/%zz/chat/completions?api-version=1`, {
      body: {},
      headers: { 'api-key': 'any' },
    });
    expect(response.status).toBe(400);
  });
});
