/** S3-04 S3-14 Streams that break after their beginning, as the client sees them. */
import { expect, test } from 'vitest';
import { choice, chunk, errorBody, textStream, toolCallStream, usageChunk, usageOf } from '../../support/chunks.ts';
import { openConnection, send } from '../../support/client.ts';
import { Gate } from '../../support/gate.ts';
import { SseStream } from '../../support/sse.ts';
import { soon } from '../chat.ts';
import { broken, chat, claudeBegins, claudeEnds, claudeEvent, claudeSays, rig } from './rig.ts';

const says = (text: string) => chunk([choice(0, { content: text })]);
const role = chunk([choice(0, { role: 'assistant', content: '' })]);
const stops = chunk([choice(0, {}, 'stop')]);

test('S3-14: the next provider gets what was said as a prefix, and the client one answer with what both cost', async () => {
  await using one = await rig();
  one.up[0]!.next(broken([role, says('Hello wor'), usageChunk(usageOf(10, 3))]));
  one.up[1]!.next({ stream: { events: textStream('ld, and good night', { id: 'other', usage: usageOf(20, 5) }) } });
  const { content, finish, done, errors, usage, chunks } = await one.stream();
  expect({ content, finish, done, errors }).toEqual({
    content: ['Hello world, and good night'],
    finish: ['stop'],
    done: true,
    errors: [],
  });
  expect([usage?.prompt_tokens, usage?.completion_tokens]).toEqual([30, 8]);
  expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
  expect(chunks.filter(({ choices }) => choices[0]?.delta.role !== undefined)).toHaveLength(1);
  expect(one.up[1]!.requests[0]!.json().messages).toMatchObject([
    { role: 'user' },
    { role: 'assistant', content: 'Hello wor' },
  ]);
});

test.each([
  ['an error event', errorBody('it burns')],
  ['what is no JSON', 'data: {nonsense\n\n'],
  ['an event named error', 'event: error\ndata: {"message":"it burns"}\n\n'],
])('%s in the read that brought the first words: the next provider answers from the start', async (_name, fault) => {
  for (const rescue of ['continue', 'off']) {
    await using one = await rig({ model: { rescue } });
    one.up[0]!.next(broken([role, says('Hello'), fault], { chunking: 'whole' }));
    one.up[1]!.next({ stream: { events: textStream('Good day') } });
    const { content, finish, errors } = await one.stream();
    expect({ content, finish, errors }).toEqual({ content: ['Good day'], finish: ['stop'], errors: [] });
    expect(one.up[1]!.requests[0]!.json().messages).toHaveLength(1);
  }
});

test('an error behind the finish in the first read is of no interest', async () => {
  await using one = await rig();
  one.up[0]!.next(broken([role, says('Hello'), stops, errorBody('too late')], { chunking: 'whole' }));
  const { content, finish, done, errors } = await one.stream();
  expect({ content, finish, done, errors }).toEqual({ content: ['Hello'], finish: ['stop'], done: true, errors: [] });
  expect(one.up[1]!.requests).toHaveLength(0);
});

test.each([
  ['error event', errorBody('it burns')],
  ['nonsense', 'data: {nonsense\n\n'],
  ['JSON that is no object', 'data: 5\n\n'],
])('words before %s in the same read reach the client, and the next goes on behind them', async (_name, fault) => {
  await using one = await rig();
  const gate = new Gate();
  one.up[0]!.next(broken([role, says('One '), gate, says('two '), fault, says('LOST')], { chunking: 'whole' }));
  one.up[1]!.next({ stream: { events: textStream('three') } });
  const response = await send(`${one.gateway.url}/v1/chat/completions`, { body: chat() });
  const stream = new SseStream(response);
  await stream.until(({ content }) => content[0] === 'One ');
  gate.open();
  const { content, errors } = await stream.rest();
  expect({ content, errors }).toEqual({ content: ['One two three'], errors: [] });
  expect(one.up[1]!.requests).toHaveLength(1);
});

test('the same from a provider that is translated, with nobody to go on: the words come before the error', async () => {
  await using one = await rig({ kinds: ['anthropic'] });
  const gate = new Gate();
  one.up[0]!.next(
    broken(
      [...claudeBegins(), claudeSays('One '), gate, claudeSays('two '), 'data: {nonsense\n\n', claudeSays('LOST')],
      {
        chunking: 'whole',
      },
    ),
  );
  const stream = new SseStream(await send(`${one.gateway.url}/v1/chat/completions`, { body: chat() }));
  await stream.until(({ content }) => content[0] === 'One ');
  gate.open();
  const { content, finish, done, errors } = await stream.rest();
  expect({ content, finish, done }).toEqual({ content: ['One two '], finish: [undefined], done: false });
  expect(errors).toMatchObject([{ code: 'stream_broken' }]);
});

test('a stream that ends with an error as its last event is rescued once', async () => {
  await using one = await rig({ kinds: ['anthropic', 'vllm', 'vllm'] });
  one.up[0]!.next(
    broken([...claudeBegins(), claudeSays('One '), 'event: error\ndata: {"type":"error","error":{}}\n\r']),
  );
  for (const upstream of one.up.slice(1)) upstream.always({ stream: { events: textStream('two') } });
  const { content, errors } = await one.stream();
  expect({ content, errors }).toEqual({ content: ['One two'], errors: [] });
  expect(one.up[2]!.requests).toHaveLength(0);
});

test('JSON that does not parse after the join is no finished answer', async () => {
  await using one = await rig({ kinds: ['vllm', 'vllm', 'vllm'] });
  one.up[0]!.next(broken([role, says('{"name":"A')]));
  one.up[1]!.next({ stream: { events: [role, says('nn", {'), stops], chunking: 'whole' } });
  const { content, finish, done, errors } = await one.stream({ response_format: { type: 'json_object' } });
  expect({ content, finish, done }).toEqual({ content: ['{"name":"Ann", {'], finish: [undefined], done: false });
  expect(errors).toMatchObject([{ code: 'stream_broken' }]);
  expect(one.up[2]!.requests).toHaveLength(0);
});

test('JSON that parses after the join is one', async () => {
  await using one = await rig();
  one.up[0]!.next(broken([role, says('{"name":"A')]));
  one.up[1]!.next({ stream: { events: textStream('nn"}') } });
  const { content, finish, errors } = await one.stream({ response_format: { type: 'json_object' } });
  expect({ content, finish, errors }).toEqual({ content: ['{"name":"Ann"}'], finish: ['stop'], errors: [] });
});

test('a replay that says something else is refused, and the next one asked; it is no fault of its provider', async () => {
  await using one = await rig({
    kinds: ['openai', 'openai', 'openai'],
    model: { breaker: { failures: 1, cooldown: '1m' }, rescue: 'replay' },
  });
  one.up[0]!.next(broken([role, says('Hello wor')]));
  one.up[1]!.next({ stream: { events: textStream('Good day') } }, { stream: { events: textStream('Fine') } });
  one.up[2]!.next({ stream: { events: textStream('Hello world') } });
  const { content, errors } = await one.stream();
  expect({ content, errors }).toEqual({ content: ['Hello world'], errors: [] });
  // The first one is left alone now, the second is not.
  expect((await one.stream()).content).toEqual(['Fine']);
  expect(one.up[0]!.requests).toHaveLength(1);
});

test('a bound on the answer is a bound on both parts together', async () => {
  await using one = await rig();
  one.up[0]!.next(broken([role, says('x'.repeat(40))]));
  one.up[1]!.next({ stream: { events: textStream('y') } });
  await one.stream({ max_tokens: 100 });
  expect(one.up[1]!.requests[0]!.json().max_tokens).toBe(90);
  one.up[0]!.next(broken([role, says('x'.repeat(40))]));
  one.up[1]!.next({ stream: { events: textStream('y') } });
  await one.stream({ max_tokens: 5 });
  expect(one.up[1]!.requests[1]!.json().max_tokens).toBe(1);
});

test('half a character is no prefix: the answer is made anew', async () => {
  await using one = await rig();
  one.up[0]!.next(broken([role, says('Good \ud83d')]));
  one.up[1]!.next({ stream: { events: [role, says('Good \ud83d'), says('\ude00!'), stops] } });
  const { content, errors } = await one.stream();
  expect({ content, errors }).toEqual({ content: ['Good 😀!'], errors: [] });
  expect(one.up[1]!.requests[0]!.json().messages).toHaveLength(1);
});

test('white space before the join is said once, also where it comes in pieces', async () => {
  await using one = await rig();
  one.up[0]!.next(broken([role, says('One \n\n')]));
  one.up[1]!.next({ stream: { events: [role, says(' '), says('\n'), says('\ntwo'), stops] } });
  expect((await one.stream()).content).toEqual(['One \n\ntwo']);
  expect(one.up[1]!.requests[0]!.json().messages).toMatchObject([{}, { content: 'One' }]);
});

test('thoughts of the second provider are not joined to those of the first', async () => {
  await using one = await rig();
  const thinks = (reasoning: string) => chunk([choice(0, { reasoning_content: reasoning })]);
  one.up[0]!.next(broken([role, thinks('Hm. ')]));
  one.up[1]!.next({ stream: { events: [role, thinks('So. '), says('Hello'), stops] } });
  const { reasoning, content } = await one.stream();
  expect({ reasoning, content }).toEqual({ reasoning: ['Hm. '], content: ['Hello'] });
});

test('an answer that is too long to be kept is not gone on with', async () => {
  await using one = await rig({ limits: { reply: '1KiB' } });
  one.up[0]!.next(broken([role, says('x'.repeat(1_000)), says('y'.repeat(100))]));
  expect((await one.stream()).errors).toMatchObject([{ code: 'stream_broken' }]);
  expect(one.up[1]!.requests).toHaveLength(0);
});

test('joined JSON that its bound has cut is told as that', async () => {
  await using one = await rig();
  one.up[0]!.next(broken([role, says('{"name":"A')]));
  one.up[1]!.next({ stream: { events: textStream('nn', { finish: 'length' }) } });
  const { content, finish, errors } = await one.stream({ response_format: { type: 'json_object' } });
  expect({ content, finish, errors }).toEqual({ content: ['{"name":"Ann'], finish: ['length'], errors: [] });
});

test('a stream that is lost behind its usage has one usage and one end', async () => {
  await using one = await rig();
  one.up[0]!.next(broken([role, says('Hello'), stops, usageChunk(usageOf(3, 4))], { end: 'reset' }));
  const { content, chunks, done, finish, usage } = await one.stream();
  expect({ content, done, finish, usage }).toEqual({
    content: ['Hello'],
    done: true,
    finish: ['stop'],
    usage: usageOf(3, 4),
  });
  expect(chunks.filter(({ choices }) => choices.length === 0)).toHaveLength(1);
});

test('an end without its blank line is an end', async () => {
  await using one = await rig();
  one.up[0]!.next(broken([role, says('Hello'), stops, 'data: [DONE]']));
  const { content, done, errors } = await one.stream();
  expect({ content, done, errors }).toEqual({ content: ['Hello'], done: true, errors: [] });
});

test('a translated stream that is closed behind its finish is complete', async () => {
  await using one = await rig({ kinds: ['anthropic'] });
  one.up[0]!.next(broken([...claudeBegins(10), claudeSays('Hello'), ...claudeEnds(7).slice(0, 2)]));
  const { content, finish, done, usage } = await one.stream();
  expect({ content, finish, done }).toEqual({ content: ['Hello'], finish: ['stop'], done: true });
  expect([usage?.prompt_tokens, usage?.completion_tokens]).toEqual([10, 7]);
});

test('tool calls that have begun are not made again', async () => {
  await using one = await rig();
  one.up[0]!.next(broken(toolCallStream([{ name: 'pay', arguments: { amount: 5 } }]).slice(0, 3)));
  const { errors, finish } = await one.stream();
  expect(finish).toEqual([undefined]);
  expect(errors).toMatchObject([{ code: 'stream_broken' }]);
  expect(one.up[1]!.requests).toHaveLength(0);
});

test('a stall is rescued, and what the stalled provider says later is not heard', async () => {
  await using one = await rig({ model: { timeouts: { stall: '100ms' } } });
  const late = new Gate();
  one.up[0]!.next(broken([role, says('One '), late, says('LATE')]));
  one.up[1]!.next({ stream: { events: [role, says('two'), late, stops] } });
  const stream = new SseStream(await send(`${one.gateway.url}/v1/chat/completions`, { body: chat() }));
  await stream.until(({ content }) => content[0] === 'One two');
  late.open();
  expect((await stream.rest()).content).toEqual(['One two']);
});

// --- What it cost ---

test('a broken part costs no less than what it said, whatever its beginning told', async () => {
  await using one = await rig({ kinds: ['anthropic', 'vllm'] });
  one.up[0]!.next(broken([...claudeBegins(10), claudeSays('x'.repeat(400))]));
  one.up[1]!.next({ stream: { events: textStream('end', { usage: usageOf(120, 7) }) } });
  const { usage } = await one.stream();
  expect([usage?.prompt_tokens, usage?.completion_tokens]).toEqual([130, 107]);
});

test('a last part whose provider tells no usage is estimated, and added', async () => {
  await using one = await rig();
  one.up[0]!.next(broken([role, says('x'.repeat(40)), usageChunk(usageOf(10, 10))]));
  one.up[1]!.next({ stream: { events: textStream('y'.repeat(80)) } });
  const { usage } = await one.stream();
  expect(usage?.completion_tokens).toBe(30);
  expect(usage!.prompt_tokens).toBeGreaterThan(10);
});

test('an answer of a translated provider that tells no usage is estimated, whole and streamed', async () => {
  await using one = await rig({ kinds: ['anthropic'] });
  const begin = { type: 'message_start', message: { id: 'm', type: 'message', role: 'assistant', content: [] } };
  const end = { type: 'message_delta', delta: { stop_reason: 'end_turn' } };
  one.up[0]!.next({
    stream: {
      events: [claudeEvent(begin), claudeSays('x'.repeat(40)), claudeEvent(end), claudeEvent({ type: 'message_stop' })],
      end: 'close-without-done',
    },
  });
  await one.stream();
  await soon(() => one.gateway.logged.some(({ outputTokens }) => outputTokens === 10)).toBe(true);
  const content = [{ type: 'text', text: 'x'.repeat(80) }];
  one.up[0]!.next({ whole: { type: 'message', role: 'assistant', content, stop_reason: 'end_turn' } });
  const body = chat({ stream: undefined, stream_options: undefined });
  await (await send(`${one.gateway.url}/v1/chat/completions`, { body })).text();
  await soon(() => one.gateway.logged.some(({ outputTokens }) => outputTokens === 20)).toBe(true);
});

test('who leaves in the middle pays for what was said, not for the one token that the beginning tells', async () => {
  await using one = await rig({ kinds: ['anthropic'] });
  const gate = new Gate();
  one.up[0]!.next(broken([...claudeBegins(10), claudeSays('x'.repeat(400)), gate, ...claudeEnds()]));
  const body = { model: 'best', stream: true, max_tokens: 500, messages: [{ role: 'user', content: 'Hello' }] };
  const client = await openConnection(one.gateway.url);
  await client.request({ path: '/v1/messages', body });
  for await (const bytes of (await client.response()).chunks) if (bytes.includes('xxx')) break;
  client.destroy();
  await soon(() => one.gateway.logged.some(({ outputTokens }) => outputTokens === 100)).toBe(true);
});

test('where nobody can go on, all that was asked is paid', async () => {
  await using one = await rig();
  one.up[0]!.next(broken([role, says('x'.repeat(40)), usageChunk(usageOf(10, 10))]));
  one.up[1]!.always(broken([role, says('y'.repeat(40)), usageChunk(usageOf(20, 10))]));
  const { errors } = await one.stream();
  expect(errors).toMatchObject([{ code: 'stream_broken' }]);
  await soon(() => one.gateway.logged.some(({ inputTokens }) => Number(inputTokens) >= 30)).toBe(true);
});

// --- Who is asked ---

test('S3-04: a provider that has no word for a value is passed over; if none has, the first one’s sentence is told', async () => {
  await using one = await rig({ kinds: ['anthropic', 'vllm'] });
  one.up[1]!.next({ stream: { events: textStream('warm') } });
  const warm = { temperature: 1.5 };
  expect((await one.stream(warm)).content).toEqual(['warm']);
  expect(one.up[0]!.requests).toHaveLength(0);
  await using two = await rig({ kinds: ['anthropic', 'anthropic'] });
  const response = await send(`${two.gateway.url}/v1/chat/completions`, { body: chat(warm) });
  expect(response.status).toBe(400);
  expect((await response.json<{ error: object }>()).error).toMatchObject({ param: 'temperature' });
});

test('a model that refuses a prefix is remembered where the replay shows that this was why', async () => {
  await using one = await rig({ kinds: ['vllm', 'vllm'] });
  const refusal = { whole: errorBody('no prefix', { type: 'invalid_request_error' }), status: 400 };
  for (const round of [0, 1]) {
    one.up[0]!.next(broken([role, says('Hello wor')]));
    if (round === 0) one.up[1]!.next(refusal);
    one.up[1]!.next({ stream: { events: textStream('Hello world') } });
    expect((await one.stream()).content).toEqual(['Hello world']);
  }
  expect(one.up[1]!.requests.map((request) => (request.json().messages as object[]).length)).toEqual([2, 1, 1]);
});

test('what else is wrong with a request shuts no model off from prefixes', async () => {
  await using one = await rig({ kinds: ['vllm', 'vllm'] });
  const refusal = { whole: errorBody('too long', { type: 'invalid_request_error' }), status: 400 };
  one.up[0]!.next(broken([role, says('Hello wor')]));
  one.up[1]!.next(refusal, refusal);
  expect((await one.stream()).errors).toMatchObject([{ code: 'stream_broken' }]);
  one.up[0]!.next(broken([role, says('Hello wor')]));
  one.up[1]!.next({ stream: { events: textStream('ld') } });
  expect((await one.stream()).content).toEqual(['Hello world']);
});

test('every vendor is told that it gets JSON', async () => {
  for (const kind of ['vllm', 'anthropic', 'gemini', 'cohere', 'openai']) {
    await using one = await rig({ kinds: [kind] });
    one.up[0]!.always({ whole: errorBody('no'), status: 400 });
    await one.stream();
    expect(one.up[0]!.requests[0]!.header('content-type')).toBe('application/json');
  }
});

// --- Who leaves ---

test('who leaves during a rescue leaves nothing open', async () => {
  await using one = await rig();
  const never = new Gate();
  one.up[0]!.next(broken([role, says('One ')]));
  one.up[1]!.next({ after: never, stream: { events: [] } });
  const client = await openConnection(one.gateway.url);
  await client.request({ path: '/v1/chat/completions', body: chat() });
  await new SseStream(await client.response()).until(({ content }) => content[0] === 'One ');
  const asked = await one.up[1]!.arrived();
  client.destroy();
  await asked.closed;
  await soon(() => one.gateway.logged.some(({ outcome }) => outcome === 'aborted')).toBe(true);
  expect(await one.metric('wardgate_open_streams')).toBe(0);
});

test('a gateway that stops during a rescue ends the stream with an error and asks no more', async () => {
  await using one = await rig({ drain: '50ms' });
  const never = new Gate();
  one.up[0]!.next(broken([role, says('One ')]));
  one.up[1]!.next({ after: never, stream: { events: [] } });
  const stream = new SseStream(await send(`${one.gateway.url}/v1/chat/completions`, { body: chat() }));
  await stream.until(({ content }) => content[0] === 'One ');
  const asked = await one.up[1]!.arrived();
  const stopped = one.gateway.stop();
  const { errors, finish } = await stream.rest();
  expect(errors).toHaveLength(1);
  expect(finish).toEqual([undefined]);
  await asked.closed;
  await stopped;
});
