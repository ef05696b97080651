import { createParser } from 'eventsource-parser';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { send } from '../support/client.ts';

let simulator: Simulator;

beforeAll(async () => {
  simulator = await startSimulator({ tokenDelayMs: 0, wrongKeys: ['wrong'] });
});
afterAll(() => simulator.close());

const user = (content: unknown) => ({ role: 'user', content });
const ask = (content: string) => ({ model: 'command-a', messages: [user(content)] });
const tool = (name: string, properties = {}) => {
  return { type: 'function', function: { name, parameters: { type: 'object', properties } } };
};
const tools = [tool('search_documents', { query: { type: 'string' } }), tool('clock')];

function post(path: string, body: object, key: string | undefined = 'any') {
  return send(simulator.url + path, { body, headers: key ? { authorization: `Bearer ${key}` } : {} });
}

async function chat(body: object): Promise<Record<string, never>> {
  return (await post('/v2/chat', body)).json();
}

interface Event {
  type: string;
  index?: number;
  delta?: { finish_reason?: string; message?: { tool_calls?: { function: { arguments: string } } } };
}

async function events(body: object): Promise<Event[]> {
  const data: string[] = [];
  const parser = createParser({ onEvent: (event) => data.push(event.data) });
  parser.feed(await (await post('/v2/chat', { ...body, stream: true })).text());
  expect(data.pop()).toBe('[DONE]');
  return data.map((text) => JSON.parse(text) as Event);
}

describe('chat', () => {
  test('has a whole answer', async () => {
    expect(await chat(ask('Hello there, world'))).toEqual({
      id: expect.any(String),
      finish_reason: 'COMPLETE',
      message: { role: 'assistant', content: [{ type: 'text', text: 'You said: Hello there, world' }] },
      usage: {
        billed_units: { input_tokens: 5, output_tokens: 7 },
        tokens: { input_tokens: 5, output_tokens: 7 },
        cached_tokens: 0,
      },
    });
  });

  test('has a stream, event by event', async () => {
    const all = await events(ask('Hello there, world'));
    expect(all.map(({ type }) => type)).toEqual([
      'message-start',
      'content-start',
      ...Array.from({ length: 5 }, () => 'content-delta'),
      'content-end',
      'message-end',
    ]);
    expect(all[2]).toEqual({ type: 'content-delta', index: 0, delta: { message: { content: { text: 'You ' } } } });
    expect(all.at(-1)?.delta).toMatchObject({ finish_reason: 'COMPLETE', usage: { tokens: { output_tokens: 7 } } });
  });

  test('calls two tools at once in a stream, and takes their results', async () => {
    const all = await events({ ...ask('call all tools'), tools });
    const types = all.map(({ type }) => type);
    expect(types.filter((type) => type === 'tool-call-start')).toHaveLength(2);
    expect(types.slice(1, types.indexOf('tool-call-start'))).toContain('tool-plan-delta');
    const args = [0, 1].map((index) => {
      const own = all.filter((event) => event.type === 'tool-call-delta' && event.index === index);
      return own.map(({ delta }) => delta?.message?.tool_calls?.function.arguments ?? '');
    });
    expect(args.map((parts) => JSON.parse(parts.join('')))).toEqual([
      { query: 'call all tools' },
      { text: 'call all tools' },
    ]);
    expect(all.at(-1)?.delta?.finish_reason).toBe('TOOL_CALL');

    const { message } = (await chat({ ...ask('call all tools'), tools })) as never as {
      message: { tool_calls: { id: string }[] };
    };
    const results = message.tool_calls.map(({ id }, at) => {
      const document = { data: `{"at":${at}}` };
      return { role: 'tool', tool_call_id: id, content: [{ type: 'document', document }] };
    });
    const messages = [user('call all tools'), message, ...results];
    const answer = await chat({ model: 'command-a', messages, tools });
    expect(answer).toMatchObject({ message: { content: [{ text: expect.stringContaining('The tool returned: ') }] } });
    expect((await post('/v2/chat', { model: 'command-a', messages: messages.slice(0, -1), tools })).status).toBe(400);
  });

  test('thinks, cites, and says why it ended', async () => {
    const thinking = { thinking: { type: 'enabled' } };
    expect(await chat({ ...ask('hi'), ...thinking })).toMatchObject({
      message: { content: [{ type: 'thinking', thinking: 'The user wants an answer to: hi' }, { type: 'text' }] },
    });
    const blocks = (await events({ ...ask('hi'), ...thinking })).filter(({ type }) => type === 'content-start');
    expect(blocks.map(({ index }) => index)).toEqual([0, 1]);
    const cited = await events(ask('cite a source'));
    expect(cited.find(({ type }) => type === 'citation-start')?.delta?.message).toMatchObject({
      citations: { start: 0, end: 23, text: 'You said: cite a source' },
    });
    expect(await chat({ ...ask('hello'), max_tokens: 2 })).toMatchObject({ finish_reason: 'MAX_TOKENS' });
    expect(await chat({ ...ask('one two'), stop_sequences: ['two'] })).toMatchObject({
      finish_reason: 'STOP_SEQUENCE',
    });
  });
});

test('texts are embedded', async () => {
  const body = { model: 'embed-v4', texts: ['one', 'two'], input_type: 'search_query', output_dimension: 8 };
  const answer = await (await post('/v2/embed', body)).json<{ embeddings: { float: number[][] } }>();
  expect(answer).toMatchObject({ texts: ['one', 'two'], meta: { billed_units: { input_tokens: 2 } } });
  expect(answer.embeddings.float.map(({ length }) => length)).toEqual([8, 8]);
});

test('errors have an id and a message', async () => {
  const error = { id: expect.any(String), message: expect.any(String) };
  for (const [path, key] of [
    ['/v2/chat', ''],
    ['/v2/chat', 'wrong'],
  ] as const) {
    const response = await post(path, ask('hi'), key);
    expect([response.status, await response.json()]).toEqual([401, error]);
  }
  const invalid = await post('/v2/chat', { model: 'command-a' });
  expect([invalid.status, await invalid.json()]).toEqual([400, error]);
  const blocked = await post('/v2/chat', ask('block this prompt'));
  expect([blocked.status, await blocked.json()]).toEqual([422, error]);
});
