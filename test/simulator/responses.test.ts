import OpenAI from 'openai';
import type { ResponseInput, ResponseStreamEvent, Tool } from 'openai/resources/responses/responses';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { send } from '../support/client.ts';

const openai = new OpenAI({ apiKey: 'any', maxRetries: 0 });
let simulator: Simulator;

beforeAll(async () => {
  simulator = await startSimulator({ tokenDelayMs: 0 });
  openai.baseURL = `${simulator.url}/v1`;
});
afterAll(() => simulator.close());

const ask = (input: string | ResponseInput) => ({ model: 'gpt-5', input });
const tool = (name: string, properties = {}): Tool => {
  return { type: 'function', name, strict: false, parameters: { type: 'object', properties } };
};
const tools = [tool('search_documents', { query: { type: 'string' } }), tool('clock')];

async function events(request: Parameters<typeof openai.responses.stream>[0]): Promise<ResponseStreamEvent[]> {
  const all: ResponseStreamEvent[] = [];
  for await (const event of openai.responses.stream(request)) all.push(event);
  return all;
}

describe('the official client', () => {
  test('reads a whole response', async () => {
    const response = await openai.responses.create(ask('Hello there, world'));
    expect(response.output_text).toBe('You said: Hello there, world');
    expect(response).toMatchObject({
      id: expect.stringMatching(/^resp_/),
      object: 'response',
      status: 'completed',
      model: 'gpt-5',
      output: [{ id: expect.stringMatching(/^msg_/), type: 'message', role: 'assistant', status: 'completed' }],
      usage: { input_tokens: 5, output_tokens: 7, total_tokens: 12, output_tokens_details: { reasoning_tokens: 0 } },
    });
  });

  test('reads a stream, event by event, numbered from 0', async () => {
    const all = await events(ask('Hello there, world'));
    expect(all.map(({ type }) => type)).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      ...Array.from({ length: 5 }, () => 'response.output_text.delta'),
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.completed',
    ]);
    expect(all.map(({ sequence_number: number }) => number)).toEqual(all.map((_, at) => at));
    expect(all.at(-1)).toMatchObject({ response: { status: 'completed', usage: { total_tokens: 12 } } });
  });

  test('calls two functions at once in a stream, and sends their results back', async () => {
    const final = await openai.responses.stream({ ...ask('call all tools'), tools }).finalResponse();
    expect(final.output).toMatchObject([
      { type: 'function_call', name: 'search_documents', arguments: '{"query":"call all tools"}', status: 'completed' },
      {
        type: 'function_call',
        name: 'clock',
        arguments: '{"text":"call all tools"}',
        call_id: expect.stringMatching(/^call_/),
      },
    ]);
    const results = final.output.map((item, at) => {
      const { call_id } = item as { call_id: string };
      return { type: 'function_call_output' as const, call_id, output: `result ${at}` };
    });
    const input = [{ role: 'user' as const, content: 'call all tools' }, ...final.output, ...results] as ResponseInput;
    const answer = await openai.responses.create({ ...ask(input), tools });
    expect(answer.output_text).toBe('The tool returned: result 0\nresult 1');
    const forgotten = openai.responses.create({ ...ask(input.slice(0, -1)), tools });
    await expect(forgotten).rejects.toThrow(/not followed by its result/);
  });

  test('gets a function’s arguments in as many deltas as the message asks for', async () => {
    const all = await events({ ...ask('call tool with 100 deltas'), tools });
    const deltas = all.filter(({ type }) => type === 'response.function_call_arguments.delta');
    expect(deltas).toHaveLength(100);
  });

  test('sees a summary of the reasoning, and an encrypted copy, when it asks for them', async () => {
    const reasoning = { effort: 'low' as const, summary: 'auto' as const };
    const request = { ...ask('hi'), reasoning, include: ['reasoning.encrypted_content' as const] };
    const response = await openai.responses.stream(request).finalResponse();
    expect(response.output[0]).toMatchObject({
      type: 'reasoning',
      summary: [{ type: 'summary_text', text: 'The user wants an answer to: hi' }],
      encrypted_content: expect.any(String),
    });
    expect(response.usage?.output_tokens_details.reasoning_tokens).toBe(8);
    const types = new Set((await events(request)).map(({ type }) => type));
    for (const name of ['part.added', 'text.delta', 'text.done', 'part.done']) {
      expect(types).toContain(`response.reasoning_summary_${name}`);
    }
    const hidden = await openai.responses.create({ ...ask('hi'), reasoning: { effort: 'low' } });
    expect(hidden.output[0]).toMatchObject({ type: 'reasoning', summary: [] });
  });

  test('reads an incomplete response, a refusal, and a citation', async () => {
    const cut = await openai.responses.stream({ ...ask('x'.repeat(100)), max_output_tokens: 16 }).finalResponse();
    expect(cut).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } });
    const refused = await openai.responses.stream(ask('please refuse to answer')).finalResponse();
    expect(refused.output[0]).toMatchObject({ content: [{ type: 'refusal', refusal: 'I cannot help with that.' }] });
    const cited = await openai.responses.stream(ask('cite a source')).finalResponse();
    expect(cited.output[0]).toMatchObject({
      content: [{ annotations: [{ type: 'url_citation', start_index: 0, end_index: 23 }] }],
    });
  });

  test('reads JSON, instructions and parts', async () => {
    const json = await openai.responses.create({ ...ask('hi'), text: { format: { type: 'json_object' } } });
    expect(JSON.parse(json.output_text)).toEqual({ said: 'hi' });
    const content = [
      { type: 'input_text' as const, text: 'look' },
      { type: 'input_image' as const, image_url: 'data:,', detail: 'auto' as const },
    ];
    const parts = await openai.responses.create({ ...ask([{ role: 'user', content }]), instructions: 'Be brief.' });
    expect(parts.output_text).toBe('You said: look\n[input_image]');
    expect(parts.usage?.input_tokens).toBe(7);
  });

  test('meets an error in the middle of a stream', async () => {
    await expect(events({ ...ask('one two three'), model: 'gpt-5~error-after=2' })).rejects.toThrow(/broke off/);
  });

  test('counts input tokens', async () => {
    const counted = await openai.responses.inputTokens.count(ask('twelve chars'));
    expect(counted).toMatchObject({ object: 'response.input_tokens', input_tokens: 3 });
  });
});

describe('what is refused, in OpenAI’s shape', () => {
  test.each([
    ['a response that was before', { previous_response_id: 'resp_1' }, { code: 'previous_response_not_found' }],
    ['too short an answer', { max_output_tokens: 2 }, { param: 'max_output_tokens' }],
    ['no input', { input: undefined }, { param: 'input', code: 'missing_required_parameter' }],
    ['a prompt that is filtered', { input: 'block this prompt' }, { code: 'content_policy_violation' }],
  ])('%s', async (_, change, error) => {
    const response = await send(`${simulator.url}/v1/responses`, { body: { ...ask('hi'), ...change } });
    expect([response.status, await response.json()]).toMatchObject([400, { error }]);
  });
});
