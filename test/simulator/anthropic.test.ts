import Anthropic from '@anthropic-ai/sdk';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { send } from '../support/client.ts';

let simulator: Simulator;
let anthropic: Anthropic;

beforeAll(async () => {
  simulator = await startSimulator({ tokenDelayMs: 0, wrongKeys: ['sk-ant-wrong'] });
  anthropic = new Anthropic({ baseURL: simulator.url, apiKey: 'any', maxRetries: 0 });
});
afterAll(() => simulator.close());

const user = (content: Anthropic.MessageParam['content']) => ({ role: 'user' as const, content });
const ask = (content: string) => ({ model: 'claude', max_tokens: 1000, messages: [user(content)] });
const search: Anthropic.Tool = {
  name: 'search_documents',
  input_schema: { type: 'object', properties: { limit: { type: 'number' }, query: { type: 'string' } } },
};
const clock: Anthropic.Tool = { name: 'clock', input_schema: { type: 'object' } };

describe('the official client', () => {
  test('reads a whole message', async () => {
    const message = await anthropic.messages.create(ask('Hello there, world'));
    expect(message).toMatchObject({
      id: expect.stringMatching(/^msg_/),
      type: 'message',
      role: 'assistant',
      model: 'claude',
      content: [{ type: 'text', text: 'You said: Hello there, world' }],
      stop_reason: 'end_turn',
      stop_sequence: null,
      usage: { input_tokens: 5, output_tokens: 7, cache_read_input_tokens: 0 },
    });
  });

  test('reads a stream, event by event', async () => {
    const stream = anthropic.messages.stream(ask('Hello there, world'));
    const types: string[] = [];
    for await (const event of stream) types.push(event.type);
    expect(types).toEqual([
      'message_start',
      'content_block_start',
      ...Array.from({ length: 5 }, () => 'content_block_delta'),
      'content_block_stop',
      'message_delta',
      'message_stop',
    ]);
    expect(await stream.finalMessage()).toMatchObject({
      content: [{ type: 'text', text: 'You said: Hello there, world' }],
      stop_reason: 'end_turn',
      usage: { input_tokens: 5, output_tokens: 7 },
    });
  });

  test('calls two tools at once, and sends their results back', async () => {
    const request = { ...ask('call all tools'), tools: [search, clock] };
    const message = await anthropic.messages.stream(request).finalMessage();
    expect(message).toMatchObject({
      stop_reason: 'tool_use',
      content: [
        { type: 'tool_use', name: 'search_documents', input: { query: 'call all tools' } },
        { type: 'tool_use', name: 'clock', input: { text: 'call all tools' } },
      ],
    });
    const results = message.content.map((block, at) => {
      return {
        type: 'tool_result' as const,
        tool_use_id: (block as Anthropic.ToolUseBlock).id,
        content: `result ${at}`,
      };
    });
    const messages = [...request.messages, { role: 'assistant' as const, content: message.content }, user(results)];
    const answer = await anthropic.messages.create({ ...request, messages });
    expect(answer.content).toMatchObject([{ type: 'text', text: 'The tool returned: result 0\nresult 1' }]);
  });

  test('gets a tool’s input in as many deltas as the message asks for', async () => {
    const stream = anthropic.messages.stream({ ...ask('call tool with 100 deltas'), tools: [search] });
    const parts: string[] = [];
    stream.on('streamEvent', (event) => {
      if (event.type === 'content_block_delta' && event.delta.type === 'input_json_delta')
        parts.push(event.delta.partial_json);
    });
    const message = await stream.finalMessage();
    expect(parts.filter((part) => part !== '')).toHaveLength(100);
    expect(JSON.parse(parts.join(''))).toEqual((message.content[0] as Anthropic.ToolUseBlock).input);
  });

  test('sees thoughts with a signature, and may send them back as they were only', async () => {
    const thinking = { type: 'enabled' as const, budget_tokens: 1024 };
    const request = { ...ask('call tool'), max_tokens: 2000, thinking, tools: [clock] };
    const { content, usage } = await anthropic.messages.stream(request).finalMessage();
    expect(content).toMatchObject([
      {
        type: 'thinking',
        thinking: 'The user wants an answer to: call tool',
        signature: expect.stringMatching(/^.{40,}/),
      },
      { type: 'tool_use', name: 'clock' },
    ]);
    expect(usage.output_tokens_details?.thinking_tokens).toBeGreaterThan(0);
    const results = [
      { type: 'tool_result' as const, tool_use_id: (content[1] as Anthropic.ToolUseBlock).id, content: 'noon' },
    ];
    const next = (replayed: Anthropic.ContentBlockParam[]) => {
      return anthropic.messages.create({
        ...request,
        messages: [...request.messages, { role: 'assistant' as const, content: replayed }, user(results)],
      });
    };
    expect((await next(content)).content.at(-1)).toMatchObject({ text: 'The tool returned: noon' });
    await expect(
      next([{ ...content[0], signature: 'forged' } as Anthropic.ThinkingBlock, content[1]!]),
    ).rejects.toThrow(/signature/);
    await expect(next([content[1]!])).rejects.toThrow(/thinking block/);
  });

  test('reads why a message ended', async () => {
    const cut = await anthropic.messages.create({ ...ask('hello'), max_tokens: 2 });
    expect([cut.stop_reason, cut.content]).toEqual(['max_tokens', [{ type: 'text', text: 'You said' }]]);
    const stopped = await anthropic.messages.create({ ...ask('one two'), stop_sequences: [' two'] });
    expect([stopped.stop_reason, stopped.stop_sequence]).toEqual(['stop_sequence', ' two']);
    const refused = await anthropic.messages.create(ask('please refuse to answer'));
    expect([refused.stop_reason, refused.stop_details?.type]).toEqual(['refusal', 'refusal']);
  });

  test('reads citations', async () => {
    const { content } = await anthropic.messages.stream(ask('cite a source')).finalMessage();
    expect(content).toMatchObject([
      {
        text: 'You said: cite a source',
        citations: [{ type: 'web_search_result_location', cited_text: 'You said: cite a source' }],
      },
    ]);
  });

  test('counts tokens and lists models', async () => {
    const { messages } = ask('twelve chars');
    expect(await anthropic.messages.countTokens({ model: 'claude', messages })).toEqual({ input_tokens: 3 });
    expect((await anthropic.models.list()).data).toMatchObject([{ type: 'model', id: 'simulated' }]);
    expect(await anthropic.models.retrieve('claude-x')).toMatchObject({ id: 'claude-x' });
  });
});

describe('what Anthropic would refuse', () => {
  const refusal = async (body: object, headers: Record<string, string> = {}) => {
    const all = { 'x-api-key': 'any', 'anthropic-version': '2023-06-01', ...headers };
    const response = await send(`${simulator.url}/v1/messages`, { body, headers: all });
    const { request_id: id, ...answer } = await response.json();
    expect(id).toBe(response.header('request-id'));
    return { status: response.status, ...answer };
  };

  test('is refused in its shape', async () => {
    expect(await refusal({ model: 'claude', messages: [user('hi')] })).toEqual({
      status: 400,
      type: 'error',
      error: { type: 'invalid_request_error', message: "Missing required parameter: 'max_tokens'." },
    });
  });

  test.each([
    ['a field of another vendor', { stream_options: {} }, /stream_options/],
    [
      'a conversation that the assistant begins',
      { messages: [{ role: 'assistant', content: 'x' }, user('hi')] },
      /first message/,
    ],
    [
      'a beginning that ends with a space',
      { messages: [user('hi'), { role: 'assistant', content: 'You ' }] },
      /trailing whitespace/,
    ],
    [
      'a result without its call',
      { messages: [user([{ type: 'tool_result', tool_use_id: 'toolu_1', content: 'x' }])] },
      /toolu_1/,
    ],
    ['a budget above max_tokens', { thinking: { type: 'enabled', budget_tokens: 2000 } }, /budget_tokens/],
  ])('%s', async (_, change, message) => {
    const answer = await refusal({ ...ask('hi'), ...change });
    expect(answer).toMatchObject({ status: 400, error: { message: expect.stringMatching(message) } });
  });

  test('what its newest version takes no more, and the one before still does', async () => {
    const changes = [
      { temperature: 1 },
      { top_p: 0.9 },
      { messages: [user([{ type: 'text', text: 'hi', citations: [{}] as never }])] },
      { messages: [user('hi'), { role: 'assistant', content: [{ type: 'document' }] }, user('so')] },
    ];
    for (const change of changes) {
      const newest = await refusal({ ...ask('hi'), ...change }, { 'anthropic-version': '2026-10-21' });
      expect(newest).toMatchObject({ status: 400, error: { type: 'invalid_request_error' } });
    }
    const before = {
      body: { ...ask('hi'), temperature: 1 },
      headers: { 'x-api-key': 'any', 'anthropic-version': '2023-06-01' },
    };
    expect((await send(`${simulator.url}/v1/messages`, before)).status).toBe(200);
  });

  test('a call of a tool without its result', async () => {
    const call = { role: 'assistant', content: [{ type: 'tool_use', id: 'toolu_1', name: 'clock', input: {} }] };
    expect(await refusal({ ...ask('hi'), messages: [user('hi'), call, user('well?')] })).toMatchObject({
      status: 400,
      error: { message: expect.stringContaining("'toolu_1' is not followed") },
    });
  });

  test('a request without a key, with a wrong one, or without a version', async () => {
    const bare = await send(`${simulator.url}/v1/messages`, { body: ask('hi') });
    expect([bare.status, await bare.json()]).toMatchObject([401, { error: { type: 'authentication_error' } }]);
    const wrong = new Anthropic({ baseURL: simulator.url, apiKey: 'sk-ant-wrong', maxRetries: 0 });
    await expect(wrong.messages.create(ask('hi'))).rejects.toThrow(Anthropic.AuthenticationError);
    expect(await refusal(ask('hi'), { 'anthropic-version': '1' })).toMatchObject({ status: 400 });
  });
});

describe('at Vertex', () => {
  const model = '/v1/projects/p/locations/l/publishers/anthropic/models/claude-x';
  const headers = { authorization: 'Bearer any' };
  const { model: _, ...asked } = ask('hi');
  const body = { ...asked, anthropic_version: 'vertex-2023-10-16' };

  test('the model is in the path, the version in the body', async () => {
    const whole = await send(`${simulator.url}${model}:rawPredict`, { body, headers });
    expect(await whole.json()).toMatchObject({ model: 'claude-x', content: [{ text: 'You said: hi' }] });
    const streamed = await send(`${simulator.url}${model}:streamRawPredict`, { body, headers });
    expect(await streamed.text()).toContain('event: message_stop');
  });

  test('a token is needed, and neither another version nor a model in the body is taken', async () => {
    expect((await send(`${simulator.url}${model}:rawPredict`, { body })).status).toBe(401);
    for (const change of [{ anthropic_version: '2023-06-01' }, { model: 'claude-x' }]) {
      expect(
        (await send(`${simulator.url}${model}:rawPredict`, { body: { ...body, ...change }, headers })).status,
      ).toBe(400);
    }
  });
});
