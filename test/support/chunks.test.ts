import OpenAI from 'openai';
import { expect, test } from 'vitest';
import * as chunks from './chunks.ts';
import { send } from './client.ts';
import { startScriptedUpstream } from './scripted-upstream.ts';
import { readSse } from './sse.ts';

async function said(events: chunks.ChatChunk[]) {
  await using upstream = await startScriptedUpstream();
  upstream.next({ stream: { events } });
  return readSse(await send(upstream.url, { body: {} }));
}

test('choices of different length take turns and all finish', async () => {
  const result = await said(chunks.textStream(['short', 'somewhat longer']));
  expect(result).toMatchObject({ content: ['short', 'somewhat longer'], finish: ['stop', 'stop'] });
  expect(result.chunks.map((chunk) => chunk.choices[0]?.index)).toEqual([0, 1, 0, 1, 0, 1, 1, 1, 0, 1]);
});

test('reasoning, by either name, is kept apart from content', async () => {
  for (const field of ['reasoning_content', 'reasoning'] as const) {
    const result = await said(chunks.reasoningStream('think first', 'then speak', { field }));
    expect(result).toMatchObject({ reasoning: ['think first'], content: ['then speak'] });
  }
});

test('a refusal is kept apart from content', async () => {
  expect(await said(chunks.refusalStream('I cannot.'))).toMatchObject({ refusal: ['I cannot.'], content: [''] });
});

test('tool calls with interleaved fragments are read by the official client', async () => {
  await using upstream = await startScriptedUpstream();
  const calls = [
    { name: 'first', arguments: { text: 'one' } },
    { name: 'second', arguments: { text: 'two' } },
  ];
  upstream.next({ stream: { events: chunks.toolCallStream(calls, { size: 3, interleaved: true }) } });
  const openai = new OpenAI({ baseURL: upstream.url, apiKey: 'any', maxRetries: 0 });
  const stream = openai.chat.completions.stream({ model: 'any', messages: [{ role: 'user', content: 'go' }] });
  const { choices } = await stream.finalChatCompletion();
  expect(choices[0]?.message.tool_calls).toMatchObject([
    { id: 'call_1', function: { name: 'first', arguments: '{"text":"one"}' } },
    { id: 'call_2', function: { name: 'second', arguments: '{"text":"two"}' } },
  ]);
});

test('whole answers have the shape of a chat completion', () => {
  expect(chunks.completion(['a', 'b'], { extra: { service_tier: 'default' } })).toMatchObject({
    object: 'chat.completion',
    service_tier: 'default',
    choices: [{ message: { content: 'a' } }, { index: 1, message: { content: 'b' }, finish_reason: 'stop' }],
  });
  expect(chunks.toolCallCompletion([{ name: 'clock', arguments: '{}' }])).toMatchObject({
    choices: [
      { message: { content: null, tool_calls: [{ function: { name: 'clock' } }] }, finish_reason: 'tool_calls' },
    ],
  });
});

test('any deltas make a stream, and usage may come with its content', async () => {
  const deltas = chunks.deltaStream([[{ content: 'a' }, { content: null, audio: { id: 'x' } }]], { finish: 'length' });
  const usage = chunks.usageOf(1, 2);
  const result = await said([...deltas, chunks.usageChunk(usage)]);
  expect(result).toMatchObject({ content: ['a'], finish: ['length'], usage });
});
