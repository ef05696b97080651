/** Anthropic's official client and Vercel's, unmodified: passed through to Anthropic, and translated to other formats. */
import { createAnthropic } from '@ai-sdk/anthropic';
import Anthropic, {
  APIError,
  AuthenticationError,
  BadRequestError,
  NotFoundError,
  PermissionDeniedError,
  RateLimitError,
} from '@anthropic-ai/sdk';
import type { ContentBlock, MessageParam, RawMessageStreamEvent, Tool } from '@anthropic-ai/sdk/resources/messages';
import { generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { streamFixture } from '../support/fixture.ts';
import { Gate } from '../support/gate.ts';
import { startGateway, type TestGateway, testPlugin } from '../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { REFUSING, routeForEach } from './refusing-plugins.ts';

let simulator: Simulator;
let upstream: ScriptedUpstream;
let gateway: TestGateway;

/** The name of the model says which provider answers, and so what a message is translated to. */
const PASSED = 'claude';
const MODELS = [PASSED, 'gpt', 'gemini', 'bedrock', 'compatible'];

beforeAll(async () => {
  simulator = await startSimulator({ tokenDelayMs: 0, models: { busy: 'status=529', 'wrong-key': 'status=401' } });
  upstream = await startScriptedUpstream();
  const key = 'sk-provider';
  const factories = [...REFUSING, loud];
  gateway = await startGateway(
    {
      providers: {
        anthropic: { kind: 'anthropic', baseUrl: `${simulator.url}/v1`, key },
        scripted: { kind: 'anthropic', baseUrl: `${upstream.url}/v1` },
        openai: { kind: 'openai', baseUrl: `${simulator.url}/v1`, key },
        compatible: { kind: 'openai-compatible', baseUrl: `${simulator.url}/v1`, key },
        gemini: { kind: 'gemini', baseUrl: `${simulator.url}/v1beta`, key },
        bedrock: { kind: 'bedrock', baseUrl: simulator.url, region: 'us-east-1', key },
      },
      models: {
        [PASSED]: 'anthropic',
        busy: 'anthropic',
        'wrong-key': 'anthropic',
        scripted: 'scripted',
        'broken-gpt': { provider: 'openai', model: 'gpt~error-after=3;token-delay=10' },
        gpt: 'openai',
        compatible: 'compatible',
        gemini: 'gemini',
        bedrock: { provider: 'bedrock', model: 'anthropic.claude-sonnet-4-5-20250929-v1:0' },
      },
      ...routeForEach(factories),
    },
    { factories },
  );
});

afterAll(async () => {
  await gateway.stop();
  await upstream.close();
  await simulator.close();
});

function client(route = ''): Anthropic {
  return new Anthropic({ baseURL: `${gateway.url}${route}`, apiKey: 'sk-client', maxRetries: 0 });
}

const user = (content: string): MessageParam[] => [{ role: 'user', content }];
const CLOCK: Tool = {
  name: 'clock',
  description: 'Tells the time of day.',
  input_schema: { type: 'object', properties: { place: { type: 'string' } } },
};

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const one of source) all.push(one);
  return all;
}

function textOf(content: ContentBlock[]): string {
  return content.flatMap((block) => (block.type === 'text' ? [block.text] : [])).join('');
}

function callsOf(content: ContentBlock[]) {
  return content.filter((block) => block.type === 'tool_use');
}

const GRID = ['', '/pii'].flatMap((route) => MODELS.map((model) => ({ route, model })));

describe.each(GRID)('on the route “$route”, the model $model', ({ route, model }) => {
  const ask = { model, max_tokens: 512 };

  test('answers whole', async () => {
    const message = await client(route).messages.create({ ...ask, messages: user('Good morning') });
    expect(textOf(message.content)).toBe('You said: Good morning');
    expect(message).toMatchObject({ type: 'message', role: 'assistant', stop_reason: 'end_turn', stop_sequence: null });
    expect(message.usage.input_tokens).toBe(3);
    expect(message.usage.output_tokens).toBeGreaterThan(0);
  });

  test('answers as a stream that the client puts together', async () => {
    const stream = client(route).messages.stream({ ...ask, messages: user('Good morning') });
    const deltas: string[] = [];
    stream.on('text', (text) => deltas.push(text));
    const message = await stream.finalMessage();
    expect(textOf(message.content)).toBe('You said: Good morning');
    expect(deltas.length).toBeGreaterThan(1);
    expect(message.stop_reason).toBe('end_turn');
    expect([message.usage.input_tokens, message.usage.output_tokens > 0]).toEqual([3, true]);
  });

  test('obeys the system’s words, which really reach it', async () => {
    const system = [{ type: 'text' as const, text: 'x'.repeat(40) }];
    const message = await client(route).messages.create({ ...ask, system, messages: user('Good morning') });
    expect(message.usage.input_tokens).toBe(13);
  });

  test('calls tools, side by side, and is told their results', async () => {
    const tools = [CLOCK, { ...CLOCK, name: 'calendar' }];
    const messages = user('call all tools');
    const stream = client(route).messages.stream({ ...ask, messages, tools });
    const asked = await stream.finalMessage();
    expect(asked.stop_reason).toBe('tool_use');
    const calls = callsOf(asked.content);
    expect(calls.map(({ name, input }) => [name, input])).toEqual([
      ['clock', { place: 'call all tools' }],
      ['calendar', { place: 'call all tools' }],
    ]);
    const whole = await client(route).messages.create({ ...ask, messages, tools });
    expect(callsOf(whole.content).map(({ name }) => name)).toEqual(['clock', 'calendar']);
    const results = calls.map(({ id }, i) => ({
      type: 'tool_result' as const,
      tool_use_id: id,
      content: `result ${i}`,
    }));
    const answered = await client(route).messages.create({
      ...ask,
      tools,
      messages: [...messages, { role: 'assistant', content: asked.content }, { role: 'user', content: results }],
    });
    expect(textOf(answered.content)).toContain('The tool returned: result 0\nresult 1');
  });

  test('passes a hundred deltas of arguments on as they come', async () => {
    const events: RawMessageStreamEvent[] = await collect(
      await client(route).messages.create({
        ...ask,
        messages: user('call tool with 100 deltas'),
        tools: [CLOCK],
        stream: true,
      }),
    );
    const pieces = events.flatMap((event) =>
      event.type === 'content_block_delta' && event.delta.type === 'input_json_delta' ? [event.delta.partial_json] : [],
    );
    // Gemini tells a call at once.
    expect(pieces.filter((piece) => piece !== '')).toHaveLength(model === 'gemini' ? 1 : 100);
    expect(Object.keys(JSON.parse(pieces.join('')))).toEqual(['place']);
  });

  test('says that its length or a stop sequence ended it', async () => {
    const long = await client(route).messages.create({ model, max_tokens: 16, messages: user('say 500 words') });
    expect(long.stop_reason).toBe('max_tokens');
    const stream = client(route).messages.stream({ model, max_tokens: 16, messages: user('say 500 words') });
    expect((await stream.finalMessage()).stop_reason).toBe('max_tokens');
    const stopped = await client(route).messages.create({
      ...ask,
      messages: user('say 20 words'),
      stop_sequences: ['w10'],
    });
    expect(textOf(stopped.content)).toBe('w1 w2 w3 w4 w5 w6 w7 w8 w9 ');
  });

  test('shows its thoughts, which come back sealed', async () => {
    const thinking = { type: 'enabled', budget_tokens: 1024 } as const;
    // OpenAI's models are told an effort and not a number.
    const wish = ['gpt', 'compatible'].includes(model) ? { output_config: { effort: 'low' as const } } : { thinking };
    const messages = user('call tool');
    const asking = { model, max_tokens: 4096, tools: [CLOCK], ...wish };
    const asked = await client(route)
      .messages.stream({ ...asking, messages })
      .finalMessage();
    const thoughts = asked.content.filter((block) => block.type === 'thinking');
    expect(thoughts.map((thought) => thought.thinking).join('')).toMatch(/\w/);
    const [call] = callsOf(asked.content);
    const result = { type: 'tool_result' as const, tool_use_id: call!.id, content: 'noon' };
    const answered = await client(route).messages.create({
      ...asking,
      messages: [...messages, { role: 'assistant', content: asked.content }, { role: 'user', content: [result] }],
    });
    expect(textOf(answered.content)).toContain('The tool returned: noon');
  });

  test('answers by a schema', async () => {
    const schema = {
      type: 'object',
      properties: { said: { type: 'string' } },
      required: ['said'],
      additionalProperties: false,
    };
    const message = await client(route).messages.create({
      ...ask,
      messages: user('Good morning'),
      output_config: { format: { type: 'json_schema', schema } },
    });
    expect(JSON.parse(textOf(message.content))).toEqual({ said: 'Good morning' });
  });

  test('answers Vercel’s client, streaming, with tools', async () => {
    const anthropic = createAnthropic({ baseURL: `${gateway.url}${route}/v1`, apiKey: 'sk-client' });
    const asked: unknown[] = [];
    const clock = tool({
      inputSchema: jsonSchema<{ place?: string }>(CLOCK.input_schema as object),
      execute: (input) => {
        asked.push(input);
        return 'noon';
      },
    });
    const { text, usage } = await generateText({
      model: anthropic(model),
      maxOutputTokens: 99,
      prompt: 'Good morning',
    });
    expect(text).toBe('You said: Good morning');
    expect(usage.inputTokens).toBe(3);
    const streamed = streamText({
      model: anthropic(model),
      maxOutputTokens: 99,
      prompt: 'call tool',
      tools: { clock },
      stopWhen: stepCountIs(2),
    });
    expect(await collect(streamed.textStream).then((pieces) => pieces.join(''))).toContain('noon');
    expect(asked).toEqual([{ place: 'call tool' }]);
  });

  test('counts tokens', async () => {
    const { input_tokens: counted } = await client(route).messages.countTokens({
      model,
      messages: user('Good morning'),
    });
    expect(counted).toBeGreaterThan(0);
    if (model === PASSED) expect(counted).toBe(3);
  });
});

describe('a guard', () => {
  test('masks what goes to the model, in whole answers and in streams', async () => {
    const messages = user('Write to jane@example.org');
    const whole = await client('/pii').messages.create({ model: PASSED, max_tokens: 99, messages });
    const stream = client('/pii').messages.stream({ model: 'gpt', max_tokens: 99, messages });
    for (const { content } of [whole, await stream.finalMessage()]) {
      expect(textOf(content)).toMatch(/^You said: Write to /);
      expect(textOf(content)).not.toContain('jane@');
    }
  });

  test('breaks the seal of thoughts that it changes, and leaves that of others', async () => {
    const thoughtOf = async (route: string, isStream: boolean) => {
      const stream = streamFixture('anthropic', 'reasoning').toString();
      upstream.next(isStream ? { stream: { events: [stream], end: 'close-without-done' } } : { whole: THOUGHTFUL });
      const messages = client(route).messages;
      const ask = { model: 'scripted', max_tokens: 99, messages: user('7 × 8?') };
      const { content } = isStream ? await messages.stream(ask).finalMessage() : await messages.create(ask);
      return content.find((block) => block.type === 'thinking');
    };
    for (const isStream of [true, false]) {
      expect(await thoughtOf('/pii', isStream)).toMatchObject({
        thinking: 'Seven times eight is 56.',
        signature: SEAL,
      });
      expect(await thoughtOf('/loud', isStream)).toMatchObject({ thinking: 'SEVEN TIMES EIGHT IS 56.', signature: '' });
    }
  });

  test('has the vendor not refuse a conversation whose thoughts it has changed', async () => {
    const ask = { model: 'scripted', max_tokens: 99 };
    upstream.next({ whole: THOUGHTFUL }, { whole: THOUGHTFUL });
    const { content } = await client('/loud').messages.create({ ...ask, messages: user('7 × 8?') });
    const messages = [...user('7 × 8?'), { role: 'assistant' as const, content }, ...user('Sure?')];
    await client('/loud').messages.create({ ...ask, messages });
    expect(upstream.requests.at(-1)!.json()).toEqual({
      ...ask,
      messages: [...user('7 × 8?'), { role: 'assistant', content: [{ type: 'text', text: '56' }] }, ...user('Sure?')],
    });
  });
});

const SEAL = 'EqQBCkYIARgCKkDmSgN2XkB1hC8oV0mZ6s3TyUpJ9o4sQmZ1bGxTaWduYXR1cmU=';
const THOUGHTFUL = {
  id: 'msg_1',
  type: 'message',
  role: 'assistant',
  model: 'claude',
  content: [
    { type: 'thinking', thinking: 'Seven times eight is 56.', signature: SEAL },
    { type: 'text', text: '56' },
  ],
  stop_reason: 'end_turn',
  stop_sequence: null,
  usage: { input_tokens: 3, output_tokens: 4 },
};

/** Changes every text of an answer. */
const loud = testPlugin('loud', {
  stream: ({ text }) => ({ release: { release: text.toUpperCase(), hold: '' } }),
  response: ({ segments }) => ({
    rewrite: { segments: segments.map(({ id, text }) => ({ id, text: text.toUpperCase() })) },
  }),
});

describe('an error', () => {
  const messages = user('Hello');

  test.each([
    ['nobody', AuthenticationError, 'authentication_error', 'bad_key'],
    ['forbidden', PermissionDeniedError, 'permission_error', 'not_yours'],
    ['exhausted', RateLimitError, 'rate_limit_error', 'quota'],
  ])('of the plugin %s is the client’s own class of error', async (route, type, word, code) => {
    const error = await client(`/${route}`)
      .messages.create({ model: PASSED, max_tokens: 9, messages })
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(type);
    expect(error).toMatchObject({ type: word, errorCode: code });
    if (route === 'exhausted') expect((error as APIError).headers?.get('retry-after')).toBe('7');
  });

  test('of a request names the field', async () => {
    const bad = client().messages.create({ model: 'gpt', max_tokens: 9, messages, container: 'c' });
    await expect(bad).rejects.toThrow(BadRequestError);
    await expect(bad).rejects.toThrow(/The field `container` cannot/);
    await expect(bad).rejects.toMatchObject({ errorCode: 'unsupported_field', details: { param: 'container' } });
    const unknown = client().messages.create({ model: 'none', max_tokens: 9, messages });
    await expect(unknown).rejects.toThrow(NotFoundError);
  });

  test('of the provider’s is told as it is, or as the gateway’s own', async () => {
    const bad = client().messages.create({ model: PASSED, max_tokens: 9, messages: [] });
    await expect(bad).rejects.toThrow(BadRequestError);
    const create = (model: string) => client().messages.create({ model, max_tokens: 9, messages });
    await expect(create('busy')).rejects.toMatchObject({ status: 503, type: 'overloaded_error' });
    await expect(create('wrong-key')).rejects.toMatchObject({ status: 502, type: 'api_error' });
  });

  test.each(['scripted', 'broken-gpt'])('in the middle of a stream of %s is thrown after the text', async (model) => {
    const isShown = new Gate();
    const [text, error] = streamFixture('anthropic', 'error').toString().split('event: error');
    upstream.next({ stream: { events: [text!, isShown, `event: error${error}`], end: 'close-without-done' } });
    const stream = client().messages.stream({ model, max_tokens: 512, messages: user('say 50 words') });
    stream.on('text', () => isShown.open());
    const said: string[] = [];
    stream.on('text', (piece) => said.push(piece));
    const thrown = await stream.finalMessage().catch((reason: unknown) => reason);
    expect(thrown).toBeInstanceOf(APIError);
    expect(said.join('')).toBe(model === 'scripted' ? 'Well' : 'w1 w2 w3 ');
  });
});

describe('the models', () => {
  test('are listed in the vendor’s form', async () => {
    const listed = await collect(await client().models.list());
    expect(listed.map(({ id, type }) => [id, type])).toContainEqual([PASSED, 'model']);
    expect(await client().models.retrieve('gpt')).toMatchObject({ id: 'gpt', type: 'model', display_name: 'gpt' });
  });
});
