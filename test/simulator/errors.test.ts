import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { send } from '../support/client.ts';

let simulator: Simulator;

beforeAll(async () => {
  simulator = await startSimulator({ tokenDelayMs: 0 });
});
afterAll(() => simulator.close());

const messages = [{ role: 'user' as const, content: 'hi' }];

async function refusal(body: string | object, path = '/v1/chat/completions') {
  const response = await send(simulator.url + path, { method: 'POST', body });
  expect(response.header('x-simulated')).toBe('true');
  return { status: response.status, ...(await response.json<{ error: Record<string, unknown> }>()).error };
}

describe('what cannot be answered is refused in the shape of OpenAI', () => {
  test('a body that is not JSON', async () => {
    expect(await refusal('{"model":')).toEqual({
      status: 400,
      message: 'We could not parse the JSON body of your request.',
      type: 'invalid_request_error',
      param: null,
      code: null,
    });
  });

  test('a body that is JSON but no object', async () => {
    expect(await refusal('[]')).toMatchObject({ status: 400, message: 'The body must be a JSON object.' });
  });

  test('a request without messages', async () => {
    expect(await refusal({ model: 'any' })).toEqual({
      status: 400,
      message: "Missing required parameter: 'messages'.",
      type: 'invalid_request_error',
      param: 'messages',
      code: 'missing_required_parameter',
    });
  });

  test('a field of the wrong kind', async () => {
    const answer = await refusal({ model: 'any', messages, n: 0 });
    expect(answer).toMatchObject({ status: 400, param: 'n', code: 'invalid_value' });
  });

  test('a tool that was not offered', async () => {
    const tool_choice = { type: 'function', function: { name: 'absent' } };
    expect(await refusal({ model: 'any', messages, tool_choice })).toMatchObject({ status: 400, param: 'tool_choice' });
  });

  test('a path that is not served', async () => {
    expect(await refusal({}, '/v1/absent')).toMatchObject({ status: 404, code: 'unknown_url' });
  });

  test('a method that is not served', async () => {
    const response = await send(`${simulator.url}/v1/chat/completions`);
    expect(response.status).toBe(405);
  });

  test('a body above 32 MiB', async () => {
    const content = 'a'.repeat(32 * 1024 * 1024);
    const answer = await refusal({ model: 'any', messages: [{ role: 'user', content }] });
    expect(answer).toMatchObject({ status: 413, type: 'invalid_request_error' });
  });
});

describe('a model named error-<status>', () => {
  test.each([400, 401, 403, 404, 429, 500, 503])('answers %i, also to a stream', async (status) => {
    const answer = await refusal({ model: `error-${status}`, messages, stream: true });
    const type = status === 429 ? 'requests' : status >= 500 ? 'server_error' : 'invalid_request_error';
    expect(answer).toMatchObject({ status, type });
  });

  test('says when to try again with a 429', async () => {
    const body = { model: 'error-429', messages };
    const response = await send(`${simulator.url}/v1/chat/completions`, { body });
    expect(response.header('retry-after')).toBe('1');
    expect(await response.json()).toMatchObject({ error: { code: 'rate_limit_exceeded' } });
  });

  test('is understood by the official client', async () => {
    const openai = new OpenAI({ baseURL: `${simulator.url}/v1`, apiKey: 'any', maxRetries: 0 });
    const asked = openai.chat.completions.create({ model: 'error-429', messages });
    await expect(asked).rejects.toThrow(OpenAI.RateLimitError);
  });
});

describe('beside chat', () => {
  test('health says that all is well', async () => {
    expect(await (await send(`${simulator.url}/health`)).json()).toEqual({ status: 'ok', simulated: true });
  });

  test('models are listed, and any name is one', async () => {
    const list = await (await send(`${simulator.url}/v1/models`)).json();
    expect(list).toMatchObject({ object: 'list', data: [{ id: 'simulated', object: 'model' }] });
    const one = await (await send(`${simulator.url}/v1/models/org/any-name`)).json();
    expect(one).toMatchObject({ id: 'org/any-name', object: 'model' });
  });
});
