/** Bedrock and Cohere behind the official clients of other vendors; AWS's own client through a route that passes on. */
import Anthropic from '@anthropic-ai/sdk';
import { BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand } from '@aws-sdk/client-bedrock-runtime';
import OpenAI, { APIError } from 'openai';
import type { ChatCompletionMessageParam } from 'openai/resources/chat/completions';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { overHttp1 } from '../support/aws-http1.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';

const SECRET = { accessKeyId: 'AKIDGATEWAY', secretAccessKey: 'a/secret+of/the=gateway' };
const CLAUDE = 'global.anthropic.claude-sonnet-4-20250514-v1:0';
const MODELS = [CLAUDE, 'command-a-reasoning-08-2025'];

let simulator: Simulator;
let gateway: TestGateway;

beforeAll(async () => {
  simulator = await startSimulator({
    tokenDelayMs: 0,
    wrongKeys: ['wrong'],
    awsSecrets: { [SECRET.accessKeyId]: SECRET.secretAccessKey },
  });
  const aws = { kind: 'bedrock', region: 'us-west-2', baseUrl: simulator.url };
  gateway = await startGateway({
    providers: {
      bedrock: { ...aws, ...SECRET },
      forged: { ...aws, ...SECRET, secretAccessKey: 'another' },
      unknown: { ...aws, accessKeyId: 'AKIDNOBODY', secretAccessKey: 'another' },
      bearer: { ...aws, key: 'ABSKkey' },
      wrong: { ...aws, key: 'wrong' },
      cohere: { kind: 'cohere', baseUrl: `${simulator.url}/v2`, key: 'co-key' },
    },
    models: {
      [CLAUDE]: 'bedrock',
      [MODELS[1]!]: 'cohere',
      'embed-v4.0': 'cohere',
      forged: { provider: 'forged', model: CLAUDE },
      unknown: { provider: 'unknown', model: CLAUDE },
      bearer: { provider: 'bearer', model: CLAUDE },
      wrong: { provider: 'wrong', model: CLAUDE },
      'any~error-after=3;token-delay=10': 'bedrock',
      'any~status=429;retry-after=7': 'bedrock',
      arn: { provider: 'bedrock', model: 'arn:aws:bedrock:us-west-2:1:application-inference-profile/a.b' },
    },
    plugins: { pii: { at: 'local:pii-guard', config: { rules: ['email'] } } },
    routes: { '/bedrock': {}, '/pii': { plugins: ['pii'] }, '/aws': { passthrough: 'bedrock' } },
  });
});

afterAll(async () => {
  await gateway.stop();
  await simulator.close();
});

function openai(route = '/bedrock'): OpenAI {
  return new OpenAI({ baseURL: `${gateway.url}${route}/v1`, apiKey: 'sk-client', maxRetries: 0 });
}

function post(body: object): Promise<Response> {
  const headers = { 'content-type': 'application/json' };
  return fetch(`${gateway.url}/bedrock/v1/chat/completions`, { method: 'POST', headers, body: JSON.stringify(body) });
}

function asked(model: string, content = 'Good morning') {
  return { model, messages: [{ role: 'user' as const, content }] };
}

const CLOCK = {
  type: 'function' as const,
  function: { name: 'clock', parameters: { type: 'object', properties: { place: { type: 'string' } } } },
};

describe('Claude on Bedrock, asked for a chat completion', () => {
  test('answers in OpenAI’s shape, named by the time, with the gateway’s credentials (S1-22, S1-23)', async () => {
    const before = Date.now();
    const response = await post(asked(CLAUDE, 'Hi, this is a hello world test. '));
    expect(response.status).toBe(200);
    const body = (await response.json()) as Record<string, unknown>;
    expect(body).toMatchObject({
      object: 'chat.completion',
      model: CLAUDE,
      choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant' } }],
      usage: { prompt_tokens: expect.any(Number), completion_tokens: expect.any(Number) },
    });
    const ms = Number(/^bedrock-(\d+)$/.exec(String(body.id))?.[1]);
    expect(ms).toBeGreaterThanOrEqual(before);
    expect(body.created).toBe(Math.floor(ms / 1000));
  });

  test('streams server-sent events, whatever frames came (S1-25)', async () => {
    const response = await post({ ...asked(CLAUDE), stream: true });
    expect(response.headers.get('content-type')).toMatch(/^text\/event-stream/);
    const text = await response.text();
    expect(text).toMatch(/^data: \{"id":"bedrock-\d+","object":"chat.completion.chunk"/);
    expect(text).toMatch(/data: \[DONE\]\n\n$/);
  });

  test('answers by an ARN, and with a key of Bedrock’s own', async () => {
    for (const model of ['arn', 'bearer']) {
      const { choices } = await openai().chat.completions.create(asked(model));
      expect(choices[0]?.message.content).toBe('You said: Good morning');
    }
  });

  test.each([
    ['forged', 'does not accept the gateway’s signature: its secret key or its clock is wrong'],
    ['unknown', 'does not accept the gateway’s AWS credentials'],
    ['wrong', 'does not let the gateway’s AWS account use this model in this region'],
  ])('fails as the gateway’s own fault when its credentials are %s', async (model, why) => {
    const attempt = openai().chat.completions.create(asked(model));
    await expect(attempt).rejects.toMatchObject({ status: 502, code: 'upstream_refused_key' });
    await expect(attempt).rejects.toThrow(why);
  });

  test('says when to come back', async () => {
    const attempt = openai().chat.completions.create(asked('any~status=429;retry-after=7'));
    await expect(attempt).rejects.toMatchObject({ status: 429 });
    const error = (await attempt.catch((thrown: unknown) => thrown)) as APIError;
    expect(error.headers?.get('retry-after')).toBe('7');
  });

  test('breaks off in the middle of a stream with an error, never with an end', async () => {
    const stream = await openai().chat.completions.create({
      ...asked('any~error-after=3;token-delay=10', 'say 9 words'),
      stream: true,
    });
    const finishes: unknown[] = [];
    const read = async () => {
      for await (const { choices } of stream) finishes.push(choices[0]?.finish_reason);
    };
    await expect(read()).rejects.toThrow(APIError);
    expect(finishes.length).toBeGreaterThan(0);
    expect(finishes.every((finish) => finish === null)).toBe(true);
  });

  test.each([
    ['seed', { seed: 1 }],
    ['n', { n: 2 }],
    ['logprobs', { logprobs: true }],
    ['response_format', { response_format: { type: 'json_object' as const } }],
    ['messages[0].content[0]', imageByUrl()],
  ])('names the field that it has no word for: %s', async (field, more) => {
    const attempt = openai().chat.completions.create({ ...asked(CLAUDE), ...more });
    await expect(attempt).rejects.toMatchObject({ status: 400, param: expect.stringContaining(field) });
  });
});

function imageByUrl(): { messages: ChatCompletionMessageParam[] } {
  const part = { type: 'image_url' as const, image_url: { url: 'https://example.com/a.png' } };
  return { messages: [{ role: 'user', content: [part] }] };
}

const GRID = ['/bedrock', '/pii'].flatMap((route) => MODELS.map((model) => ({ route, model })));

describe.each(GRID)('on the route $route, $model (S3-21)', ({ route, model }) => {
  test('streams in OpenAI’s chunks, with one name, and its usage when asked (S1-25)', async () => {
    const options = { stream: true as const, stream_options: { include_usage: true } };
    const stream = await openai(route).chat.completions.create({ ...asked(model, 'say 20 words'), ...options });
    const ids = new Set<string>();
    let text = '';
    let usage: unknown;
    for await (const chunk of stream) {
      ids.add(chunk.id);
      text += chunk.choices[0]?.delta.content ?? '';
      usage = chunk.usage ?? usage;
    }
    expect(text).toBe(Array.from({ length: 20 }, (_, i) => `w${i + 1}`).join(' '));
    expect(ids.size).toBe(1);
    expect(usage).toMatchObject({ completion_tokens: expect.any(Number) });
  });

  test('calls tools side by side, and is told their results', async () => {
    const tools = [CLOCK, { ...CLOCK, function: { ...CLOCK.function, name: 'calendar' } }];
    const messages: ChatCompletionMessageParam[] = [{ role: 'user', content: 'call all tools' }];
    const stream = openai(route).chat.completions.stream({ model, messages, tools });
    const { message, finish_reason } = (await stream.finalChatCompletion()).choices[0]!;
    expect(finish_reason).toBe('tool_calls');
    const calls = message.tool_calls ?? [];
    expect(calls.map((call) => call.type === 'function' && call.function.name)).toEqual(['clock', 'calendar']);
    const results = calls.map(({ id }) => ({ role: 'tool' as const, tool_call_id: id, content: 'noon' }));
    const answer = await openai(route).chat.completions.create({
      model,
      messages: [...messages, message, ...results],
      tools,
    });
    expect(answer.choices[0]?.message.content).toContain('The tool returned: noon');
  });

  test('passes a hundred deltas of arguments on as they come', async () => {
    const request = { ...asked(model, 'call tool with 100 deltas'), tools: [CLOCK], stream: true as const };
    let deltas = 0;
    for await (const { choices } of await openai(route).chat.completions.create(request))
      deltas += choices[0]?.delta.tool_calls?.filter((call) => call.function?.arguments).length ?? 0;
    expect(deltas).toBe(100);
  });

  test('writes JSON by a schema', async () => {
    const schema = { type: 'object', properties: { said: { type: 'string' } } };
    const answer = await openai(route).chat.completions.create({
      ...asked(model),
      response_format: { type: 'json_schema', json_schema: { name: 'said', schema } },
    });
    expect(JSON.parse(answer.choices[0]?.message.content ?? '')).toHaveProperty('said');
  });

  test('thinks, and is sent its thoughts back as they were', async () => {
    const messages: ChatCompletionMessageParam[] = [{ role: 'user', content: 'call tool' }];
    const wish = { reasoning_effort: 'low' as const, tools: [CLOCK] };
    const { choices } = await openai(route).chat.completions.create({ model, messages, ...wish });
    const message = choices[0]!.message as ChatCompletionMessageParam & { reasoning_content?: string };
    expect(message.reasoning_content).toMatch(/\w/);
    const [call] = choices[0]?.message.tool_calls ?? [];
    const result = { role: 'tool' as const, tool_call_id: call?.id ?? '', content: 'noon' };
    const answer = await openai(route).chat.completions.create({
      model,
      messages: [...messages, message, result],
      ...wish,
    });
    expect(answer.choices[0]?.message.content).toContain('The tool returned: noon');
  });

  test('says that its length ended it', async () => {
    const answer = await openai(route).chat.completions.create({ ...asked(model, 'say 500 words'), max_tokens: 16 });
    expect(answer.choices[0]?.finish_reason).toBe('length');
  });

  test('answers Anthropic’s client, whole and streamed', async () => {
    const anthropic = new Anthropic({ baseURL: `${gateway.url}${route}`, apiKey: 'sk-client', maxRetries: 0 });
    const request = { ...asked(model), max_tokens: 1_000, system: 'Be brief.' };
    const whole = await anthropic.messages.create(request);
    expect(whole.content).toMatchObject([{ type: 'text', text: 'You said: Good morning' }]);
    const streamed = await anthropic.messages.stream(request).finalMessage();
    expect(streamed.content).toMatchObject([{ type: 'text', text: 'You said: Good morning' }]);
    expect(streamed.stop_reason).toBe('end_turn');
  });
});

test('Cohere turns texts into vectors', async () => {
  const { data, usage } = await openai().embeddings.create({ model: 'embed-v4.0', input: ['a', 'b'], dimensions: 256 });
  expect(data.map(({ embedding }) => embedding.length)).toEqual([256, 256]);
  expect(usage.prompt_tokens).toBeGreaterThan(0);
});

test('the length of a prompt is Bedrock’s own count', async () => {
  const anthropic = new Anthropic({ baseURL: `${gateway.url}/bedrock`, apiKey: 'sk-client', maxRetries: 0 });
  const count = await anthropic.messages.countTokens(asked(CLAUDE, 'one two three four'));
  expect(count.input_tokens).toBeGreaterThan(0);
});

describe('AWS’s own client on a route that passes everything on', () => {
  const client = () =>
    new BedrockRuntimeClient({
      region: 'eu-central-1',
      endpoint: `${gateway.url}/aws`,
      credentials: { accessKeyId: 'AKIDCLIENT', secretAccessKey: 'of the client', sessionToken: 'theirs' },
      requestHandler: overHttp1 as never,
      maxAttempts: 1,
    });
  const input = { modelId: CLAUDE, messages: [{ role: 'user' as const, content: [{ text: 'Good morning' }] }] };

  test('is answered with the gateway’s credentials in place of its own, whole and streamed', async () => {
    const answer = await client().send(new ConverseCommand(input));
    expect(answer.output?.message?.content).toEqual([{ text: 'You said: Good morning' }]);
    const { stream } = await client().send(new ConverseStreamCommand(input));
    let text = '';
    for await (const event of stream ?? []) text += event.contentBlockDelta?.delta?.text ?? '';
    expect(text).toBe('You said: Good morning');
  });

  test('reads Bedrock’s own errors', async () => {
    const attempt = client().send(new ConverseCommand({ ...input, modelId: 'any~status=429' }));
    await expect(attempt).rejects.toMatchObject({ name: 'ThrottlingException' });
  });
});
