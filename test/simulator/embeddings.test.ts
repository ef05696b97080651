import OpenAI from 'openai';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { send } from '../support/client.ts';

let simulator: Simulator;
let openai: OpenAI;

beforeAll(async () => {
  simulator = await startSimulator({});
  openai = new OpenAI({ baseURL: `${simulator.url}/v1`, apiKey: 'any', maxRetries: 0 });
});
afterAll(() => simulator.close());

const model = 'text-embedding-3-small';

test('the official client, which asks for base64, reads the same vectors as one that asks for numbers', async () => {
  const input = ['one', 'two', 'one'];
  const encoded = await openai.embeddings.create({ model, input, dimensions: 16 });
  const plain = await openai.embeddings.create({ model, input, dimensions: 16, encoding_format: 'float' });
  expect(encoded.data).toEqual(plain.data);
  const [one, two, again] = plain.data.map(({ embedding }) => embedding);
  expect(one).toHaveLength(16);
  expect(again).toEqual(one);
  expect(two).not.toEqual(one);
  expect(Math.hypot(...(one ?? []))).toBeCloseTo(1);
  expect(plain).toMatchObject({ object: 'list', model, usage: { prompt_tokens: 3, total_tokens: 3 } });
});

test('one text, tokens, and lists of tokens are embedded too, with 1536 numbers by default', async () => {
  for (const input of ['one', [1, 2], [[1, 2], [3]]]) {
    const { data } = await openai.embeddings.create({ model, input });
    expect(data).toHaveLength(Array.isArray(input) && Array.isArray(input[0]) ? 2 : 1);
    expect(data[0]?.embedding).toHaveLength(1536);
  }
});

test('an empty input is refused', async () => {
  const response = await send(`${simulator.url}/v1/embeddings`, { body: { model, input: [] } });
  expect([response.status, await response.json()]).toMatchObject([400, { error: { param: 'input' } }]);
});
