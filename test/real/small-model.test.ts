/**
 * A real language model behind the gateway.
 *
 *     SMALL_MODEL_URL=http://127.0.0.1:9100/v1 npm run test:real -- small-model
 *
 * Any server will do that speaks OpenAI's chat completions and repeats a sentence when it is asked to; what is asked
 * about slots needs llama.cpp's `GET /slots`. With SMALL_MODEL_API_KEY, the key that the server wants, keys are tested too.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { send } from '../support/client.ts';
import { configFor, startGateway, type TestGateway } from '../support/gateway.ts';
import { readSse, type SseResult, SseStream } from '../support/sse.ts';

const { SMALL_MODEL_URL, SMALL_MODEL_API_KEY } = process.env;
const EMAIL = 'jane.roe@example.com';
const REPEAT = (address: string) => `Repeat exactly this text: Write to ${address} today.`;
const RAMBLE = { ...chat('Tell me a very long story about the sea.'), max_tokens: 3_000 };

/** The server without `/v1`. */
let server: string;
let model: string;
let gateway: TestGateway;

beforeAll(async () => {
  [server, model] = await findModel();
  const plugins = {
    masks: { at: 'local:pii-guard', config: { rules: ['email'], action: 'mask' } },
    restores: { at: 'local:pii-guard', config: { rules: ['email'], action: 'restore' } },
  };
  const config = configFor(server, { plugins, provider: { key: SMALL_MODEL_API_KEY ?? 'any' } });
  config.routes = { '/': {}, '/masks': { plugins: ['masks'] }, '/restores': { plugins: ['restores'] } };
  gateway = await startGateway(config, { log: 'info' });
});

afterAll(() => gateway?.stop());

describe('a personal e-mail address', () => {
  test('is not what the model reads: the prompt has as many tokens as one with a mask in it', async () => {
    const tokens = async (route: string, address: string) =>
      (await whole(route, { ...chat(REPEAT(address)), max_tokens: 1 })).usage.prompt_tokens;
    const [plain, masked] = [await tokens('', EMAIL), await tokens('', '<EMAIL_1>')];
    expect(masked).not.toBe(plain);
    expect(await tokens('/masks', EMAIL)).toBe(masked);
    expect(await tokens('/restores', EMAIL)).toBe(masked);
  });

  test('cannot be repeated by the model, whole and streamed', async () => {
    const prompt = chat(REPEAT(EMAIL));
    const answer = await whole('/masks', prompt);
    expect(answer.choices[0].message.content).toContain('<EMAIL_1>');
    const result = await stream('/masks', prompt);
    expect(result.content[0]).toContain('<EMAIL_1>');
    for (const seen of [JSON.stringify(answer), result.rawText]) expect(seen.toLowerCase()).not.toContain('roe@');
  });

  test('comes back with `restore` where the model repeats the mask, whole and streamed', async () => {
    const prompt = chat(REPEAT(EMAIL));
    expect((await whole('/restores', prompt)).choices[0].message.content).toContain(EMAIL);
    const result = await stream('/restores', prompt);
    expect(result.content[0]).toContain(EMAIL);
    expect(result.rawText).not.toContain('EMAIL_1');
    expect(result).toMatchObject({ done: true, errors: [], finish: ['stop'] });
  });

  test('is in no line of the log', () => {
    expect(gateway.logged.length).toBeGreaterThan(0);
    expect(gateway.logText).not.toMatch(/roe@|EMAIL_1/i);
  });
});

describe('usage', () => {
  test('of a whole answer is recorded as the model counted it', async () => {
    const { usage } = await whole('', chat('Say hi.'));
    await lastRecord({ inputTokens: usage.prompt_tokens, outputTokens: usage.completion_tokens, status: 200 });
  });

  test.each(['', '/masks'])('of a stream on `%s` is recorded also when the client does not want it', async (route) => {
    const wanted = await stream(route, { ...chat('Say hi.'), stream_options: { include_usage: true } });
    const { prompt_tokens: inputTokens, completion_tokens: outputTokens } = wanted.usage as Usage;
    expect(outputTokens).toBeGreaterThan(0);
    await lastRecord({ inputTokens, outputTokens, streamed: true });
    const unwanted = await stream(route, chat('Say hi.'));
    expect(unwanted.usage).toBeUndefined();
    expect(unwanted).toMatchObject({ done: true, errors: [] });
    await lastRecord({ inputTokens, streamed: true });
    expect(gateway.logged.at(-1)).not.toHaveProperty('estimated');
  });
});

test.each(['', '/masks'])('`max_tokens` ends an answer on `%s` with `length`', async (route) => {
  const body = { ...chat('Tell me a long story.'), max_tokens: 8 };
  const { choices, usage } = await whole(route, body);
  expect(choices[0].finish_reason).toBe('length');
  expect(usage.completion_tokens).toBe(8);
  expect(await stream(route, body)).toMatchObject({ finish: ['length'], done: true, errors: [] });
});

test.each(['', '/masks'])('a client that leaves a stream on `%s` frees its slot', async (route) => {
  const response = await post(route, { ...RAMBLE, stream: true });
  await new SseStream(response).until(({ content }) => (content[0] ?? '').length > 20);
  await expect(busySlots()).resolves.toBe(1);
  response.connection.destroy();
  await expect.poll(busySlots, { timeout: 5_000 }).toBe(0);
  await lastRecord({ outcome: 'aborted' });
});

test('a client that leaves before a whole answer frees its slot', async () => {
  const gone = new AbortController();
  const asked = fetch(`${gateway.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model, ...RAMBLE }),
    signal: gone.signal,
  }).catch((error: Error) => error.name);
  await expect.poll(busySlots, { timeout: 5_000 }).toBe(1);
  gone.abort();
  expect(await asked).toBe('AbortError');
  // llama.cpp looks for the client only after a second in which it was not asked for anything else.
  await sleep(1_500);
  await expect.poll(busySlots, { timeout: 8_000, interval: 1_500 }).toBe(0);
  await lastRecord({ outcome: 'aborted' });
});

describe('the official client', () => {
  const client = () => new OpenAI({ baseURL: `${gateway.url}/restores/v1`, apiKey: 'of-a-client' });
  const messages = [{ role: 'user' as const, content: REPEAT(EMAIL) }];

  test('reads a whole answer', async () => {
    const answer = await client().chat.completions.create({ model, messages, temperature: 0 });
    expect(answer.choices[0]?.message.content).toContain(EMAIL);
    expect(answer.choices[0]?.finish_reason).toBe('stop');
  });

  test('reads a stream, with its usage', async () => {
    const runner = client().chat.completions.stream({
      model,
      messages,
      temperature: 0,
      stream_options: { include_usage: true },
    });
    const answer = await runner.finalChatCompletion();
    expect(answer.choices[0]?.message.content).toContain(EMAIL);
    expect(answer.usage?.completion_tokens).toBeGreaterThan(0);
  });

  test('sees the models', async () => {
    const open = await startGateway({ ...configFor(server), models: { [model]: 'up' } });
    const names = await new OpenAI({ baseURL: `${open.url}/v1`, apiKey: 'any' }).models.list();
    expect(names.data.map(({ id }) => id)).toEqual([model]);
    await open.stop();
  });
});

describe.skipIf(SMALL_MODEL_API_KEY === undefined)('keys (only with SMALL_MODEL_API_KEY)', () => {
  const ask = (url: string, key: string) =>
    send(`${url}/v1/chat/completions`, {
      headers: { authorization: `Bearer ${key}` },
      body: { ...chat('Say hi.'), model, max_tokens: 4 },
    });

  test('the model sees the gateway’s key, whatever key the client sends', async () => {
    expect((await ask(server, 'of-a-client')).status).toBe(401);
    expect((await ask(gateway.url, 'of-a-client')).status).toBe(200);
  });

  test('the client’s key never goes upstream, not even when it is the right one', async () => {
    const wrong = await startGateway(configFor(server, { provider: { key: 'wrong-key-of-the-gateway' } }));
    const keyless = await startGateway(configFor(server, { provider: { key: undefined } }));
    for (const { url } of [wrong, keyless]) {
      const response = await ask(url, SMALL_MODEL_API_KEY as string);
      expect(response.status).toBeGreaterThanOrEqual(500);
      expect(await response.text()).not.toContain('wrong-key-of-the-gateway');
    }
    await Promise.all([wrong.stop(), keyless.stop()]);
  });
});

interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
}

interface Answer {
  choices: [{ message: { content: string }; finish_reason: string }];
  usage: Usage;
}

function chat(content: string) {
  return { messages: [{ role: 'user', content }], temperature: 0 };
}

function post(route: string, body: object) {
  return send(`${gateway.url}${route}/v1/chat/completions`, { body: { model, ...body } });
}

async function whole(route: string, body: object): Promise<Answer> {
  const response = await post(route, body);
  expect(response.status, String(response.received)).toBe(200);
  return response.json<Answer>();
}

async function stream(route: string, body: object): Promise<SseResult> {
  const response = await post(route, { ...body, stream: true });
  expect(response.status).toBe(200);
  return readSse(response);
}

function lastRecord(wanted: object) {
  return expect.poll(() => gateway.logged.at(-1), { timeout: 5_000 }).toMatchObject(wanted);
}

async function findModel(): Promise<[server: string, model: string]> {
  if (SMALL_MODEL_URL === undefined) {
    throw new Error('Set SMALL_MODEL_URL to a server that speaks OpenAI’s API, such as http://127.0.0.1:9100/v1.');
  }
  const body = await fromModel(SMALL_MODEL_URL, '/models').catch((cause) => {
    throw new Error(`There is no model at SMALL_MODEL_URL (${SMALL_MODEL_URL}): ${cause.message}.`, { cause });
  });
  const { data } = body as { data: { id: string }[] };
  return [SMALL_MODEL_URL.replace(/\/v1\/?$/, ''), data[0]!.id];
}

async function fromModel(base: string, path: string): Promise<unknown> {
  const response = await fetch(base + path, { headers: { authorization: `Bearer ${SMALL_MODEL_API_KEY ?? 'any'}` } });
  if (!response.ok) throw new Error(`it answers with status ${response.status}`);
  return response.json();
}

async function busySlots(): Promise<number> {
  const slots = (await fromModel(server, '/slots')) as { is_processing: boolean }[];
  return slots.filter(({ is_processing }) => is_processing).length;
}
