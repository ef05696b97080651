/** A chat that one vendor's model has answered before goes on with another's. */
import { expect, test } from 'vitest';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { configFor, startGateway } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { ask, says } from '../chat.ts';

const CALL = { id: 'c', type: 'function', function: { name: 'f', arguments: '{}' } };
const SEAL = { extra_content: { google: { thought_signature: 'c2VhbA==' } } };
const RESULT = { role: 'tool', tool_call_id: 'c', content: 'done' };

/** A history as a client sends it that keeps all it was told. */
const THOUGHT = {
  model: 'm',
  messages: [
    { role: 'user', content: 'Hi' },
    {
      role: 'assistant',
      content: null,
      reasoning_content: 'Hm',
      reasoning: 'Hm',
      reasoning_details: [{ type: 'reasoning.text', text: 'Hm', signature: 'c2lnbmVk' }],
      tool_calls: [{ ...CALL, ...SEAL }],
    },
    RESULT,
  ],
  later_field: true,
};
const PLAIN = [{ role: 'user', content: 'Hi' }, { role: 'assistant', content: null, tool_calls: [CALL] }, RESULT];

async function received(kind: string, body: object | string): Promise<string> {
  await using upstream = await startScriptedUpstream();
  await using gateway = await startGateway(configFor(upstream.url, { provider: { kind } }));
  upstream.next(says());
  expect((await ask(gateway, body)).status).toBe(200);
  return upstream.requests[0]!.body.toString();
}

test.each(['openai', 'azure', 'groq', 'mistral', 'cerebras'])(
  'thoughts and seals of others do not reach %s, which would refuse them',
  async (kind) => {
    const body = JSON.parse(await received(kind, THOUGHT)) as Json;
    expect(body.messages).toEqual(PLAIN);
  },
);

test.each(['openai-compatible', 'deepseek', 'openrouter', 'vllm'])('they reach %s, byte for byte', async (kind) => {
  const text = JSON.stringify(THOUGHT, null, 1);
  expect(await received(kind, text)).toBe(text);
});

test.each(['openai', 'mistral'])('where there are none, %s gets the client’s own bytes', async (kind) => {
  const text = JSON.stringify({ model: 'm', messages: PLAIN }, null, 1);
  expect(await received(kind, text)).toBe(text);
});

test('a stream of Mistral’s is not asked for its usage, which it tells anyway', async () => {
  const body = { model: 'm', messages: PLAIN, stream: true };
  expect(JSON.parse(await received('mistral', body))).toEqual(body);
  const asked = { ...body, stream_options: { include_usage: true } };
  expect(JSON.parse(await received('mistral', asked))).toEqual(body);
});
