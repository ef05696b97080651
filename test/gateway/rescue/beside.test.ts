/** S3-14 A rescue beside what else happens to a stream: quotas, authorized tools, resuming, reloads, breakers. */
import { expect, test } from 'vitest';
import type { ObserveInput } from '../../../proto/contract.ts';
import { choice, chunk, textStream, toolCallStream, usageOf } from '../../support/chunks.ts';
import { openConnection, send } from '../../support/client.ts';
import { Gate } from '../../support/gate.ts';
import { testPlugin } from '../../support/gateway.ts';
import { readSse, SseStream } from '../../support/sse.ts';
import { soon } from '../chat.ts';
import { broken, chat, rig } from './rig.ts';

const says = (text: string) => chunk([choice(0, { content: text })]);
const hello = (count: number) => says('x'.repeat(count));

test('a quota bounds both parts together, and is charged for what was seen of them', async () => {
  const observed: ObserveInput[] = [];
  const quota = testPlugin('quota', {
    limit: () => ({ allow: { outputTokens: 20, grant: 'g' } }),
    observe: (input) => void observed.push(input),
  });
  await using one = await rig({ plugins: { quota: { at: 'local:quota' } } }, { factories: [quota] });
  one.up[0]!.next(broken([hello(40)]));
  one.up[1]!.next({ stream: { events: Array.from({ length: 50 }, () => hello(10)) } });
  const { content, finish, done, usage } = await one.stream();
  expect(one.up[1]!.requests[0]!.json().max_tokens).toBe(10);
  expect({ finish, done }).toEqual({ finish: ['length'], done: true });
  expect(content[0]!.length).toBeLessThanOrEqual(100);
  await soon(() => observed.length).toBe(1);
  expect(observed[0]!.usage!.outputTokens).toBe(Math.ceil(content[0]!.length / 4));
  expect(usage?.completion_tokens).toBe(observed[0]!.usage!.outputTokens);
});

test('a tool that the second provider calls is authorized before the client sees it', async () => {
  const tools = testPlugin('tools', {
    describe: () => ({
      contract: 1,
      name: 'tools',
      version: '1.0.0',
      hooks: ['authorize'],
      rewrites: false,
      actions: ['tool.call'],
    }),
    authorize: ({ resources }) => ({ allow: { decisions: resources.map(({ name }) => name !== 'pay') } }),
  });
  await using one = await rig({ plugins: { tools: { at: 'local:tools' } } }, { factories: [tools] });
  for (const [name, isAllowed] of [
    ['pay', false],
    ['look', true],
  ] as const) {
    one.up[0]!.next(broken([says('Let me see. ')]));
    one.up[1]!.next({ stream: { events: toolCallStream([{ name, arguments: { amount: 5 } }]) } });
    const { content, toolCalls, finish, errors, rawText } = await one.stream();
    expect(content).toEqual(['Let me see. ']);
    expect(finish).toEqual([isAllowed ? 'tool_calls' : undefined]);
    expect(errors).toHaveLength(isAllowed ? 0 : 1);
    if (isAllowed) expect(toolCalls).toMatchObject([[{ name: 'look', arguments: '{"amount":5}' }]]);
    else expect(rawText).not.toContain('amount');
  }
});

test('a client that comes back gets the rescued stream as it was', async () => {
  await using one = await rig({ routes: { '/': { resume: true } } });
  const gate = new Gate();
  one.up[0]!.next(broken([says('One ')]));
  one.up[1]!.next({ stream: { events: [gate, ...textStream('two three')] } });
  const client = await openConnection(one.gateway.url);
  await client.request({ path: '/v1/chat/completions', body: chat() });
  const stream = new SseStream(await client.response());
  let id = '';
  while (stream.result.content[0] !== 'One ') id = (await stream.next())!.id!;
  client.destroy();
  gate.open();
  const rest = await send(`${one.gateway.url}/v1/chat/completions`, { headers: { 'Last-Event-ID': id } });
  const { content, finish, done, errors } = await readSse(rest);
  expect({ content, finish, done, errors }).toEqual({
    content: ['two three'],
    finish: ['stop'],
    done: true,
    errors: [],
  });
});

test('a new config during a rescue changes nothing for the stream', async () => {
  await using one = await rig();
  const gate = new Gate();
  one.up[0]!.next(broken([says('One ')]));
  one.up[1]!.next({ after: gate, stream: { events: textStream('two') } });
  const stream = new SseStream(await send(`${one.gateway.url}/v1/chat/completions`, { body: chat() }));
  await stream.until(({ content }) => content[0] === 'One ');
  await one.up[1]!.arrived();
  expect(await one.gateway.reload({ routes: { '/': {} }, providers: {}, models: {} })).toBe(true);
  gate.open();
  const { content, done } = await stream.rest();
  expect({ content, done }).toEqual({ content: ['One two'], done: true });
});

test('a client that leaves a provider on trial decides nothing: the next request tries it again', async () => {
  await using one = await rig({ kinds: ['vllm'], model: { breaker: { failures: 1, cooldown: '20ms' } } });
  one.up[0]!.next({ whole: {}, status: 500 });
  await one.stream();
  const never = new Gate();
  one.up[0]!.next({ after: never, stream: { events: [] } });
  const client = await openConnection(one.gateway.url);
  await soon(async () => {
    // Refused until the time is up.
    if (one.up[0]!.requests.length < 2) await client.request({ path: '/v1/chat/completions', body: chat() });
    return one.up[0]!.requests.length;
  }).toBe(2);
  client.destroy();
  await one.up[0]!.requests[1]!.closed;
  await soon(() => one.gateway.logged.some(({ outcome }) => outcome === 'aborted')).toBe(true);
  one.up[0]!.next({ stream: { events: textStream('well', { usage: usageOf(1, 1) }) } });
  expect((await one.stream()).content).toEqual(['well']);
});

test('a slow reader gets a long rescued answer whole', async () => {
  await using one = await rig();
  const piece = 'y'.repeat(1_000);
  one.up[0]!.next(broken([says('One ')]));
  one.up[1]!.next({
    stream: { events: [...Array.from({ length: 3_000 }, () => says(piece)), chunk([choice(0, {}, 'stop')])] },
  });
  const stream = new SseStream(await send(`${one.gateway.url}/v1/chat/completions`, { body: chat() }));
  await stream.until(({ content }) => (content[0] ?? '').startsWith('One '));
  // Nothing is read until the provider has had to wait.
  await one.up[1]!.arrived();
  const written = () => one.up[1]!.requests[0]!.bytesWritten;
  let before = -1;
  await soon(() => {
    const isStill = written() === before && before > 0;
    before = written();
    return isStill;
  }).toBe(true);
  const { content, done } = await stream.rest();
  expect({ length: content[0]!.length, done }).toEqual({ length: 4 + 3_000_000, done: true });
});
