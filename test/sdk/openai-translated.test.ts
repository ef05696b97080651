/** The official OpenAI client and Vercel's, unmodified, in front of every vendor that speaks another format. */
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import OpenAI, { APIError } from 'openai';
import type { ChatCompletionMessageParam, ChatCompletionTool } from 'openai/resources/chat/completions';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';

let simulator: Simulator;
let gateway: TestGateway;

const MODELS = {
  azure: 'gpt-5-mini',
  anthropic: 'claude-sonnet-4-5',
  gemini: 'gemini-3-flash',
  vertex: 'gemini-3-pro',
  bedrock: 'global.anthropic.claude-sonnet-4-20250514-v1:0',
  cohere: 'command-a-reasoning-08-2025',
};
const VENDORS = Object.keys(MODELS) as (keyof typeof MODELS)[];
/** Those whose thoughts are sealed and have to come back as they were. */
const SEALING = ['anthropic', 'gemini', 'vertex', 'bedrock'] as const;

beforeAll(async () => {
  simulator = await startSimulator({ tokenDelayMs: 0 });
  const key = 'provider-key';
  const google = { project: 'p', location: 'eu', token: 'ya29.good' };
  gateway = await startGateway({
    providers: {
      azure: { kind: 'azure', baseUrl: simulator.url, key },
      anthropic: { kind: 'anthropic', baseUrl: `${simulator.url}/v1`, key },
      gemini: { kind: 'gemini', baseUrl: `${simulator.url}/v1beta`, key },
      vertex: { kind: 'vertex', baseUrl: `${simulator.url}/v1`, ...google },
      bedrock: { kind: 'bedrock', baseUrl: simulator.url, region: 'us-east-1', key },
      cohere: { kind: 'cohere', baseUrl: `${simulator.url}/v2`, key },
    },
    models: Object.fromEntries(
      VENDORS.flatMap((vendor) => [
        [vendor, { provider: vendor, model: MODELS[vendor] }],
        [`${vendor}-breaks`, { provider: vendor, model: `${MODELS[vendor]}~error-after=3` }],
        [`${vendor}-busy`, { provider: vendor, model: `${MODELS[vendor]}~status=429;retry-after=7` }],
      ]),
    ),
    plugins: { pii: { at: 'local:pii-guard', config: { rules: ['email'], action: 'mask' } } },
    routes: { '/': {}, '/pii': { plugins: ['pii'] } },
  });
});

afterAll(async () => {
  await gateway.stop();
  await simulator.close();
});

function client(route = ''): OpenAI {
  return new OpenAI({ baseURL: `${gateway.url}${route}/v1`, apiKey: 'client-key', maxRetries: 0 });
}

const say = (content: string): ChatCompletionMessageParam[] => [{ role: 'user', content }];

const WEATHER: ChatCompletionTool = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'The weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
};

describe.each(VENDORS)('OpenAI’s client in front of %s', (model) => {
  test('gets a whole answer in its own shape', async () => {
    const completion = await client().chat.completions.create({ model, messages: say('Good morning') });
    expect(completion).toMatchObject({ object: 'chat.completion', choices: [{ index: 0, finish_reason: 'stop' }] });
    expect(completion.choices[0]!.message).toMatchObject({ role: 'assistant', content: 'You said: Good morning' });
    expect(completion.id).not.toBe('');
    expect(completion.created).toBeGreaterThan(1.7e9);
    const { prompt_tokens, completion_tokens, total_tokens } = completion.usage!;
    expect([prompt_tokens > 0, completion_tokens > 0]).toEqual([true, true]);
    expect(total_tokens).toBe(prompt_tokens + completion_tokens);
  });

  test('gets a stream with one id, and its usage at the end', async () => {
    const stream = client().chat.completions.stream({
      model,
      messages: say('one two three four'),
      stream_options: { include_usage: true },
    });
    const ids = new Set<string>();
    // Azure's first chunk, which has none, passes as it is.
    for await (const chunk of stream) if (chunk.id !== '') ids.add(chunk.id);
    const completion = await stream.finalChatCompletion();
    expect(completion.choices[0]!.message.content).toBe('You said: one two three four');
    expect(completion.choices[0]!.finish_reason).toBe('stop');
    expect(completion.usage!.completion_tokens).toBeGreaterThan(0);
    expect(ids.size).toBe(1);
  });

  test('calls a tool and tells its result, whole', async () => {
    const messages = say('call tool get_weather');
    const request = { model, messages, tools: [WEATHER] };
    const { choices } = await client().chat.completions.create(request);
    expect(choices[0]!.finish_reason).toBe('tool_calls');
    const [call] = choices[0]!.message.tool_calls!;
    expect(call).toMatchObject({ type: 'function', function: { name: 'get_weather' } });
    const result = { role: 'tool' as const, tool_call_id: call!.id, content: 'sunny' };
    const again = await client().chat.completions.create({
      ...request,
      messages: [...messages, choices[0]!.message, result],
    });
    expect(again.choices[0]!.message.content).toContain('sunny');
  });

  test('has its tool’s arguments streamed in pieces that make JSON', async () => {
    const stream = client().chat.completions.stream({
      model,
      messages: say('call tool get_weather'),
      tools: [WEATHER],
    });
    const { choices } = await stream.finalChatCompletion();
    const [call] = choices[0]!.message.tool_calls!;
    expect(call).toMatchObject({ type: 'function', function: { name: 'get_weather' } });
    if (call?.type !== 'function') throw new Error('no call');
    expect(JSON.parse(call.function.arguments)).toHaveProperty('city');
    expect(choices[0]!.finish_reason).toBe('tool_calls');
  });

  test('is told that the answer was cut for its length', async () => {
    const { choices } = await client().chat.completions.create({ model, messages: say('say 50 words'), max_tokens: 3 });
    expect(choices[0]!.finish_reason).toBe('length');
  });

  test('gets an error that it understands', async () => {
    const asked = client().chat.completions.create({ model: `${model}-busy`, messages: say('Hi') });
    const error = await asked.catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(APIError);
    expect(error).toMatchObject({ status: 429, type: 'rate_limit_error' });
  });

  test('gets an error in the middle of a stream that breaks, never an end', async () => {
    const messages = say('one two three four five six');
    const finishes: unknown[] = [];
    const reading = (async () => {
      // What breaks before the first piece has gone out is a plain error: that is good as well.
      const stream = await client().chat.completions.create({ model: `${model}-breaks`, messages, stream: true });
      for await (const chunk of stream) finishes.push(...chunk.choices.map((choice) => choice.finish_reason));
    })();
    await expect(reading).rejects.toBeInstanceOf(APIError);
    expect(finishes.filter((finish) => finish !== null)).toEqual([]);
  });

  test('has its text masked, in the prompt and so in the answer, whole and streamed', async () => {
    const messages = say('I am jo@example.com');
    const whole = await client('/pii').chat.completions.create({ model, messages });
    expect(whole.choices[0]!.message.content).not.toContain('jo@example.com');
    const stream = client('/pii').chat.completions.stream({ model, messages });
    expect((await stream.finalChatCompletion()).choices[0]!.message.content).toBe(whole.choices[0]!.message.content);
  });
});

describe.each(SEALING)('thoughts of %s', (model) => {
  test('come back sealed with the next request, and are taken', async () => {
    const messages = say('call tool get_weather');
    const request = { model, tools: [WEATHER], reasoning_effort: 'low' as const, max_completion_tokens: 8000 };
    const { choices } = await client().chat.completions.create({ ...request, messages });
    const { message } = choices[0]!;
    expect(JSON.stringify(message)).toMatch(/signature|reasoning\.encrypted/);
    const result = { role: 'tool' as const, tool_call_id: message.tool_calls![0]!.id, content: 'sunny' };
    const again = await client().chat.completions.create({ ...request, messages: [...messages, message, result] });
    expect(again.choices[0]!.message.content).toContain('sunny');
  });
});

const tools = {
  get_weather: tool({
    description: 'The weather of a city',
    inputSchema: jsonSchema<{ city: string }>({
      type: 'object',
      properties: { city: { type: 'string' } },
      required: ['city'],
      additionalProperties: false,
    }),
    execute: async ({ city }) => `sunny in ${city}`,
  }),
};

describe.each(VENDORS)('Vercel’s clients in front of %s', (model) => {
  const chat = () => createOpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'client-key' }).chat(model);
  const compatible = () =>
    createOpenAICompatible({ name: 'wardgate', baseURL: `${gateway.url}/v1`, includeUsage: true })(model);

  test('get text, whole and streamed', async () => {
    for (const made of [chat(), compatible()]) {
      expect((await generateText({ model: made, prompt: 'Hi', maxRetries: 0 })).text).toBe('You said: Hi');
      const streamed = streamText({ model: made, prompt: 'Hi', maxRetries: 0 });
      expect(await streamed.text).toBe('You said: Hi');
      expect((await streamed.usage).inputTokens).toBeGreaterThan(0);
    }
  });

  test('run a loop of tools to its end, streamed', async () => {
    for (const made of [chat(), compatible()]) {
      const prompt = 'call tool get_weather';
      const streamed = streamText({ model: made, prompt, tools, stopWhen: stepCountIs(3), maxRetries: 0 });
      expect(await streamed.text).toContain('sunny in');
      expect(await streamed.finishReason).toBe('stop');
    }
  });
});
