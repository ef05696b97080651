/** The official client and Vercel's, unmodified, asking for responses: passed through, and translated to other formats. */
import { createOpenAI } from '@ai-sdk/openai';
import { generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import OpenAI, { BadRequestError } from 'openai';
import type { Response, ResponseInput, ResponseStreamEvent } from 'openai/resources/responses/responses';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';

let simulator: Simulator;
let gateway: TestGateway;

/** The name of the model says which provider answers, and so what the response is translated to. */
const PASSED = 'passed';
const MODELS = [PASSED, 'chat', 'claude', 'gemini'];

beforeAll(async () => {
  simulator = await startSimulator({ tokenDelayMs: 0 });
  const key = 'sk-provider';
  gateway = await startGateway({
    providers: {
      openai: { kind: 'openai', baseUrl: `${simulator.url}/v1`, key },
      only: { kind: 'openai', baseUrl: `${simulator.url}/v1`, key, api: 'responses' },
      compatible: { kind: 'openai-compatible', baseUrl: `${simulator.url}/v1`, key },
      gemini: { kind: 'gemini', baseUrl: `${simulator.url}/v1beta`, key },
      anthropic: { kind: 'anthropic', baseUrl: `${simulator.url}/v1`, key },
    },
    models: { [PASSED]: 'openai', chat: 'compatible', claude: 'anthropic', gemini: 'gemini', only: 'only' },
    plugins: { pii: { at: 'local:pii-guard', config: { rules: ['email'] } } },
    routes: { '/': {}, '/pii': { plugins: ['pii'] } },
  });
});

afterAll(async () => {
  await gateway.stop();
  await simulator.close();
});

function client(route: string): OpenAI {
  return new OpenAI({ baseURL: `${gateway.url}${route}/v1`, apiKey: 'sk-client', maxRetries: 0 });
}

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const one of source) all.push(one);
  return all;
}

const CLOCK = {
  type: 'function' as const,
  name: 'clock',
  strict: false,
  parameters: { type: 'object', properties: { place: { type: 'string' } } },
};

const GRID = ['', '/pii'].flatMap((route) => MODELS.map((model) => ({ route, model })));

describe.each(GRID)('on the route “$route”, the model $model', ({ route, model }) => {
  test('answers whole', async () => {
    const response = await client(route).responses.create({ model, input: 'Good morning' });
    expect(response.output_text).toBe('You said: Good morning');
    expect(response).toMatchObject({ object: 'response', status: 'completed', error: null, model });
    expect(response.id).toMatch(/^resp_/);
    expect(response.usage?.output_tokens).toBeGreaterThan(0);
  });

  test('answers as a stream that the client puts together', async () => {
    const stream = client(route).responses.stream({ model, input: 'Good morning' });
    const events = await collect(stream);
    const response = await stream.finalResponse();
    expect(response.output_text).toBe('You said: Good morning');
    const deltas = events.filter((event) => event.type === 'response.output_text.delta');
    expect(deltas.length).toBeGreaterThan(1);
    expect(deltas.map(({ delta }) => delta).join('')).toBe('You said: Good morning');
    expect(events.at(-1)?.type).toBe('response.completed');
    expect(events.map((event) => event.sequence_number)).toEqual(events.map((_event, i) => i));
  });

  test('calls tools, side by side, and is told their results', async () => {
    const tools = [CLOCK, { ...CLOCK, name: 'calendar' }];
    const input = [{ role: 'user' as const, content: 'call all tools' }];
    const stream = client(route).responses.stream({ model, input, tools });
    const asked = await stream.finalResponse();
    const calls = asked.output.filter((item) => item.type === 'function_call');
    expect(calls.map(({ name }) => name)).toEqual(['clock', 'calendar']);
    const whole = await client(route).responses.create({ model, input, tools });
    expect(namesOf(whole)).toEqual(['clock', 'calendar']);
    const outputs = calls.map(({ call_id }, i) => ({
      type: 'function_call_output' as const,
      call_id,
      output: `result ${i}`,
    }));
    const answered = await client(route).responses.create({
      model,
      input: [...input, ...(asked.output as ResponseInput), ...outputs],
      tools,
    });
    expect(answered.output_text).toContain('The tool returned:');
  });

  test('passes a hundred deltas of arguments on as they come', async () => {
    const input = 'call tool with 100 deltas';
    const events: ResponseStreamEvent[] = await collect(
      await client(route).responses.create({ model, input, tools: [CLOCK], stream: true }),
    );
    const deltas = events.filter((event) => event.type === 'response.function_call_arguments.delta');
    // Gemini tells a call at once.
    expect(deltas).toHaveLength(model === 'gemini' ? 1 : 100);
  });

  test('says that its length ended it', async () => {
    const response = await client(route).responses.create({ model, input: 'say 500 words', max_output_tokens: 16 });
    expect(response).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } });
    const stream = client(route).responses.stream({ model, input: 'say 500 words', max_output_tokens: 16 });
    expect((await collect(stream)).at(-1)?.type).toBe('response.incomplete');
  });

  test('shows its thoughts, which come back sealed', async () => {
    const input = [{ role: 'user' as const, content: 'call tool' }];
    const wish = { reasoning: { effort: 'medium' as const, summary: 'auto' as const }, store: false };
    const asked = await client(route)
      .responses.stream({ model, input, tools: [CLOCK], include: ['reasoning.encrypted_content'], ...wish })
      .finalResponse();
    const thoughts = asked.output.filter((item) => item.type === 'reasoning');
    expect(thoughts[0]?.summary.map(({ text }) => text).join('')).toMatch(/\w/);
    // Chat completions of a compatible server have no seal.
    expect(thoughts.some((thought) => thought.encrypted_content)).toBe(model !== 'chat');
    const call = asked.output.find((item) => item.type === 'function_call')!;
    const output = { type: 'function_call_output' as const, call_id: call.call_id, output: 'noon' };
    const answered = await client(route).responses.create({
      model,
      input: [...input, ...(asked.output as ResponseInput), output],
      tools: [CLOCK],
      ...wish,
    });
    expect(answered.output_text).toContain('The tool returned: noon');
  });

  test('answers Vercel’s client, streaming, with tools', async () => {
    const openai = createOpenAI({ baseURL: `${gateway.url}${route}/v1`, apiKey: 'sk-client' });
    const asked: unknown[] = [];
    const clock = tool({
      inputSchema: jsonSchema<{ place?: string }>(CLOCK.parameters as object),
      execute: (input) => {
        asked.push(input);
        return 'noon';
      },
    });
    const { text } = await generateText({ model: openai(model), prompt: 'Good morning' });
    expect(text).toBe('You said: Good morning');
    const streamed = streamText({
      model: openai(model),
      prompt: 'call tool',
      tools: { clock },
      stopWhen: stepCountIs(2),
      // What it has stored it would refer to by id.
      providerOptions: { openai: { store: false } },
    });
    expect(await collect(streamed.textStream).then((pieces) => pieces.join(''))).toContain('noon');
    expect(asked).toHaveLength(1);
  });
});

function namesOf({ output }: Response): string[] {
  return output.flatMap((item) => (item.type === 'function_call' ? [item.name] : []));
}

describe('what is stored in the gateway’s account', () => {
  test.each([PASSED, 'chat'])('cannot be referred to by a client of the model %s', async (model) => {
    const attempt = client('').responses.create({ model, input: 'Hello', previous_response_id: 'resp_1' });
    await expect(attempt).rejects.toThrow(BadRequestError);
    await expect(attempt).rejects.toMatchObject({ param: 'previous_response_id' });
    const reference = { type: 'item_reference' as const, id: 'msg_1' };
    const referring = client('').responses.create({ model, input: [reference, { role: 'user', content: 'Hello' }] });
    await expect(referring).rejects.toMatchObject({ status: 400, param: 'input[0]' });
  });
});

describe('a chat client whose provider is asked by Responses', () => {
  test('is answered whole and as a stream, with tools', async () => {
    const messages = [{ role: 'user' as const, content: 'Good morning' }];
    const whole = await client('').chat.completions.create({ model: 'only', messages });
    expect(whole.choices[0]?.message.content).toBe('You said: Good morning');
    const stream = client('').chat.completions.stream({ model: 'only', messages });
    expect(await stream.finalContent()).toBe('You said: Good morning');
  });
});
