import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { send } from '../support/client.ts';
import { readSse } from '../support/sse.ts';

let simulator: Simulator;
let openai: OpenAI;

beforeAll(async () => {
  simulator = await startSimulator({ tokenDelayMs: 0 });
  openai = new OpenAI({ baseURL: `${simulator.url}/v1`, apiKey: 'any', maxRetries: 0 });
});
afterAll(() => simulator.close());

const user = (content: string) => ({ role: 'user' as const, content });
const search = {
  type: 'function' as const,
  function: {
    name: 'search_documents',
    parameters: { type: 'object', properties: { limit: { type: 'number' }, query: { type: 'string' } } },
  },
};
const clock = { type: 'function' as const, function: { name: 'clock' } };

function post(body: object) {
  return send(`${simulator.url}/v1/chat/completions`, { body });
}

async function stream(body: object) {
  return readSse(await post({ model: 'any', stream: true, ...body }));
}

describe('a whole answer', () => {
  test('has the shape of a chat completion and says that it is simulated (S1-20)', async () => {
    const request = { model: 'gemini-2.5-flash-lite', messages: [user('Hi, this is a hello world test. ')] };
    const response = await post(request);
    expect(response.status).toBe(200);
    expect(response.header('content-type')).toBe('application/json');
    expect(response.header('x-simulated')).toBe('true');
    expect(await response.json()).toMatchObject({
      id: expect.stringMatching(/^chatcmpl-/),
      object: 'chat.completion',
      created: expect.any(Number),
      model: 'gemini-2.5-flash-lite',
      system_fingerprint: 'fp_simulated',
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: 'You said: Hi, this is a hello world test. ' },
          finish_reason: 'stop',
        },
      ],
      usage: { prompt_tokens: 8, completion_tokens: 11, total_tokens: 19 },
    });
  });

  test('answers the newest user message, whatever else was said', async () => {
    const messages = [
      { role: 'system' as const, content: 'Be brief.' },
      user('first'),
      { role: 'assistant' as const, content: 'You said: first' },
      user('second'),
    ];
    const answer = await openai.chat.completions.create({ model: 'any', messages });
    expect(answer.choices[0]?.message.content).toBe('You said: second');
  });

  test('joins content parts and names what is not text', async () => {
    const content = [
      { type: 'text' as const, text: 'look' },
      { type: 'image_url' as const, image_url: { url: 'data:,' } },
      { type: 'text' as const, text: 'here' },
    ];
    const answer = await openai.chat.completions.create({ model: 'any', messages: [{ role: 'user', content }] });
    expect(answer.choices[0]?.message.content).toBe('You said: look\n[image_url]\nhere');
  });

  test('ends at max_tokens with finish_reason length', async () => {
    for (const limit of ['max_tokens', 'max_completion_tokens']) {
      const { choices, usage } = await (await post({ model: 'any', messages: [user('hello')], [limit]: 2 })).json();
      expect(choices).toMatchObject([{ message: { content: 'You said' }, finish_reason: 'length' }]);
      expect(usage).toMatchObject({ completion_tokens: 2 });
    }
  });

  test('does not cut a character in two at max_tokens', async () => {
    const response = await post({ model: 'any', messages: [user('a😀')], max_tokens: 3 });
    expect(await response.json()).toMatchObject({ choices: [{ message: { content: 'You said: a' } }] });
  });

  test('ends before a stop sequence', async () => {
    const answer = await openai.chat.completions.create({
      model: 'any',
      messages: [user('one two three')],
      stop: [' three', 'absent'],
    });
    expect(answer.choices[0]).toMatchObject({ message: { content: 'You said: one two' }, finish_reason: 'stop' });
  });

  test('ends before the stop sequence that comes first, not the one that is named first', async () => {
    const answer = await openai.chat.completions.create({
      model: 'any',
      messages: [user('one two three')],
      stop: ['three', 'two'],
    });
    expect(answer.choices[0]?.message.content).toBe('You said: one ');
  });

  test('has n choices and counts the tokens of each', async () => {
    const answer = await openai.chat.completions.create({ model: 'any', messages: [user('hi')], n: 3 });
    expect(answer.choices.map((choice) => [choice.index, choice.message.content])).toEqual([
      [0, 'You said: hi'],
      [1, 'You said: hi'],
      [2, 'You said: hi'],
    ]);
    expect(answer.usage?.completion_tokens).toBe(9);
  });

  test('is JSON when response_format asks for it', async () => {
    for (const type of ['json_object', 'json_schema']) {
      const response = await post({ model: 'any', messages: [user('hi "you"')], response_format: { type } });
      const { choices } = await response.json<{ choices: { message: { content: string } }[] }>();
      expect(JSON.parse(choices[0]?.message.content ?? '')).toEqual({ said: 'hi "you"' });
    }
  });
});

describe('a stream', () => {
  test('has the role, the content in pieces, an empty delta with the finish, and [DONE]', async () => {
    const said = await stream({ messages: [user('Hello there, world')] });
    expect(said).toMatchObject({ content: ['You said: Hello there, world'], finish: ['stop'], done: true, errors: [] });
    expect(said.chunks.map((chunk) => chunk.choices[0]?.delta)).toEqual([
      { role: 'assistant', content: '', refusal: null },
      { content: 'You ' },
      { content: 'said: ' },
      { content: 'Hello ' },
      { content: 'there, ' },
      { content: 'world' },
      {},
    ]);
    expect(new Set(said.chunks.map((chunk) => chunk.id)).size).toBe(1);
    expect(said.chunks.every((chunk) => chunk.object === 'chat.completion.chunk' && !('usage' in chunk))).toBe(true);
    expect(said.events.at(-1)?.data).toBe('[DONE]');
  });

  test('has a usage chunk without choices when asked, and usage null in all others', async () => {
    const said = await stream({ messages: [user('hi')], stream_options: { include_usage: true } });
    const last = said.chunks.at(-1);
    expect(last).toMatchObject({ choices: [], usage: { prompt_tokens: 1, completion_tokens: 3, total_tokens: 4 } });
    expect(said.chunks.slice(0, -1).every((chunk) => chunk.usage === null)).toBe(true);
  });

  test('says each of n choices in turn', async () => {
    const said = await stream({ messages: [user('hi')], n: 2 });
    expect(said).toMatchObject({ content: ['You said: hi', 'You said: hi'], finish: ['stop', 'stop'] });
  });

  test('is read by the official client', async () => {
    const parts = openai.chat.completions.stream({ model: 'any', messages: [user('Hello 😀 world')] });
    const answer = await parts.finalChatCompletion();
    expect(answer.choices[0]).toMatchObject({
      message: { content: 'You said: Hello 😀 world' },
      finish_reason: 'stop',
    });
  });
});

describe('what is told in other fields than content', () => {
  test('thoughts, as servers show them that speak this format; they count among the answer’s tokens', async () => {
    const request = { messages: [user('hi')], reasoning_effort: 'low' };
    const said = await stream({ ...request, stream_options: { include_usage: true } });
    expect(said).toMatchObject({ reasoning: ['The user wants an answer to: hi'], content: ['You said: hi'] });
    const usage = { completion_tokens: 11, completion_tokens_details: { reasoning_tokens: 8 } };
    expect(said.chunks.at(-1)).toMatchObject({ usage });
    const whole = await (await post({ model: 'any', ...request })).json();
    const message = { reasoning_content: 'The user wants an answer to: hi', content: 'You said: hi' };
    expect(whole).toMatchObject({ choices: [{ message }], usage });
    expect(await stream({ messages: [user('hi')], reasoning_effort: 'none' })).toMatchObject({ reasoning: [''] });
  });

  test('a refusal', async () => {
    const said = await stream({ messages: [user('please refuse to answer')] });
    expect(said).toMatchObject({ refusal: ['I cannot help with that.'], content: [''], finish: ['stop'] });
    const { choices } = await (await post({ model: 'any', messages: [user('please refuse to answer')] })).json();
    expect(choices).toMatchObject([{ message: { refusal: 'I cannot help with that.', content: null } }]);
  });

  test('where the answer is from', async () => {
    const { choices } = await (await post({ model: 'any', messages: [user('cite a source')] })).json();
    const citation = { type: 'url_citation', url_citation: { start_index: 0, end_index: 23 } };
    expect(choices).toMatchObject([{ message: { annotations: [citation] } }]);
    const { chunks } = await stream({ messages: [user('cite a source')] });
    expect(chunks.at(-2)?.choices[0]?.delta).toMatchObject({ annotations: [citation] });
  });

  test('how likely each token was', async () => {
    const request = { messages: [user('hi')], logprobs: true };
    const { choices } = await (await post({ model: 'any', ...request })).json();
    const tokens = ['You ', 'said: ', 'hi'].map((token) => ({ token, logprob: Math.log(0.9) }));
    expect(choices).toMatchObject([{ logprobs: { content: tokens } }]);
    const { chunks } = await stream(request);
    expect(
      chunks.flatMap((chunk) => (chunk.choices[0] as never as { logprobs: object | null }).logprobs ?? []),
    ).toMatchObject(tokens.map((token) => ({ content: [token] })));
  });

  test('that the prompt was filtered', async () => {
    const response = await post({ model: 'any', messages: [user('block this prompt')] });
    expect([response.status, await response.json()]).toMatchObject([
      400,
      { error: { code: 'content_policy_violation' } },
    ]);
  });
});

describe('tools', () => {
  test('are called when required, with the message in the first string argument', async () => {
    const answer = await openai.chat.completions.create({
      model: 'any',
      messages: [user('Find it')],
      tools: [search, clock],
      tool_choice: 'required',
    });
    expect(answer.choices[0]).toMatchObject({
      finish_reason: 'tool_calls',
      message: {
        content: null,
        tool_calls: [
          {
            id: expect.stringMatching(/^call_/),
            type: 'function',
            function: { name: 'search_documents', arguments: '{"query":"Find it"}' },
          },
        ],
      },
    });
  });

  test('are called by name, by tool_choice or by the message', async () => {
    const byChoice = { messages: [user('now')], tool_choice: { type: 'function', function: { name: 'clock' } } };
    const byMessage = { messages: [user('please use the tool clock')] };
    for (const request of [byChoice, byMessage]) {
      const said = await stream({ tools: [search, clock], ...request });
      expect(said.toolCalls[0]?.[0]?.name).toBe('clock');
      expect(said.finish).toEqual(['tool_calls']);
    }
  });

  test('come in fragments in a stream, the first with id and name (S3-06)', async () => {
    const said = await stream({ messages: [user('call tool with this text')], tools: [search] });
    const fragments = said.chunks.flatMap((chunk) => (chunk.choices[0]?.delta.tool_calls ?? []) as object[]);
    expect(fragments.length).toBeGreaterThan(4);
    expect(fragments[0]).toMatchObject({
      index: 0,
      type: 'function',
      function: { name: 'search_documents', arguments: '' },
    });
    expect(fragments[1]).toEqual({ index: 0, function: { arguments: '{"query"' } });
    expect(JSON.parse(said.toolCalls[0]?.[0]?.arguments ?? '')).toEqual({ query: 'call tool with this text' });
  });

  test('are left alone when nobody asks, and when tool_choice is none', async () => {
    const unasked = await stream({ messages: [user('hello')], tools: [search] });
    expect(unasked.content).toEqual(['You said: hello']);
    const none = await stream({ messages: [user('call tool')], tools: [search], tool_choice: 'none' });
    expect(none.content).toEqual(['You said: call tool']);
  });

  test('are called at once when the message says so and the client can take it', async () => {
    const request = { messages: [user('call tool clock and call tool search_documents')], tools: [search, clock] };
    const both = await stream(request);
    expect(both.toolCalls[0]?.map(({ name }) => name)).toEqual(['clock', 'search_documents']);
    const one = await stream({ ...request, parallel_tool_calls: false });
    expect(one.toolCalls[0]?.map(({ name }) => name)).toEqual(['clock']);
  });

  test('are called after thoughts', async () => {
    const said = await stream({ messages: [user('call tool')], tools: [search], reasoning_effort: 'low' });
    expect(said.reasoning).toEqual(['The user wants an answer to: call tool']);
    expect(said.toolCalls[0]).toMatchObject([{ name: 'search_documents', arguments: '{"query":"call tool"}' }]);
  });

  test('are not called by an answer that has begun with words', async () => {
    const messages = [user('call tool'), { role: 'assistant', content: 'You said:' }];
    expect(await stream({ messages, tools: [search] })).toMatchObject({ content: [' call tool'], finish: ['stop'] });
  });

  test('have their results reported, not called again', async () => {
    const call = { id: 'call_1', type: 'function', function: { name: 'clock', arguments: '{}' } };
    const messages = [
      user('call tool'),
      { role: 'assistant', content: null, tool_calls: [call] },
      { role: 'tool', tool_call_id: 'call_1', content: 'noon' },
    ];
    const said = await stream({ messages, tools: [clock], tool_choice: 'required' });
    expect(said).toMatchObject({ content: ['The tool returned: noon'], finish: ['stop'] });
  });
});
