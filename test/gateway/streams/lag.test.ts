/** How late a guarded text is, and what a slow guard does to a stream. No clock is asked: the provider waits at gates. */
import { expect, test } from 'vitest';
import { type ChatChunk, choice, chunk, textStream } from '../../support/chunks.ts';
import { Gate } from '../../support/gate.ts';
import { configFor, startGateway } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { SseStream } from '../../support/sse.ts';
import { AskedGuard, heldOf, wordGuard } from './asked-guard.ts';
import { askAndLeave, askStream, openStream, readStream } from './chat.ts';

async function start(guard: AskedGuard, policy: Record<string, unknown> = {}) {
  const upstream = await startScriptedUpstream();
  const plugins = { asked: { at: `local:${guard.factory.name}`, deadline: '60s', ...policy } };
  const gateway = await startGateway(configFor(upstream.url, { plugins }), { factories: [guard.factory] });
  return {
    upstream,
    gateway,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

/** What has reached the gateway's sockets before this has been read when it resolves: it takes several turns of its loop. */
async function gatewayCaughtUp(gateway: { url: string }): Promise<void> {
  for (let turn = 0; turn < 3; turn += 1) await (await fetch(`${gateway.url}/healthz`)).text();
}

const says = (content: string) => chunk([choice(0, { content })]);
const END = chunk([choice(0, {}, 'stop')]);

test('all but the tail that a guard holds is with the client before the provider says more', async () => {
  await using upstream = await startScriptedUpstream();
  const plugins = { word: { at: 'local:word' } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), {
    factories: [wordGuard('word', 'S3CRET')],
  });
  const text = 'S3CRET is S3C, then S3CRE and S3CRET again; SSS3CRET S3CRE!';
  const events = textStream(text, { size: 3 });
  const gates = events.map(() => new Gate());
  upstream.next({ stream: { events: events.flatMap((event, i) => [event, gates[i]!]) } });
  const stream = await openStream(gateway);
  let said = '';
  for (const [i, event] of events.entries()) {
    said += (event.choices[0]?.delta.content as string | undefined) ?? '';
    const shown = said.slice(0, said.length - heldOf(said, 'S3CRET').length).replaceAll('S3CRET', '<WORD>');
    if (i < events.length - 1) await stream.until(({ content }) => content[0] === shown);
    gates[i]!.open();
  }
  expect((await stream.rest()).content).toEqual([text.replaceAll('S3CRET', '<WORD>')]);
});

test('text before the beginning of an address is with the client before the provider says more', async () => {
  await using upstream = await startScriptedUpstream();
  const plugins = { pii: { at: 'local:pii-guard', config: { rules: ['email', 'credit-card'] } } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }));
  for (const [before, begun, rest] of [
    ['Write to ', 'jane.roe@exam', 'ple.com.'],
    ['The card is ', '4111 1111', ' 1111 1111.'],
  ] as const) {
    const gate = new Gate();
    upstream.next({ stream: { events: [says(before), says(begun), gate, says(rest), END] } });
    const stream = await openStream(gateway);
    await stream.until(({ content }) => content[0] === before);
    gate.open();
    const { content } = await stream.rest();
    expect(content[0]).toMatch(new RegExp(`^${before}<[A-Z]+>\\.$`));
  }
});

test('S3-06 the name of a tool is with the client while its arguments are held', async () => {
  await using upstream = await startScriptedUpstream();
  const plugins = { pii: { at: 'local:pii-guard', config: { rules: ['email'] } } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }));
  const gate = new Gate();
  const call = (fragment: object) => chunk([choice(0, { tool_calls: [{ index: 0, ...fragment }] })]);
  const first = call({ id: 'call_1', type: 'function', function: { name: 'search_documents', arguments: '' } });
  const held = call({ function: { arguments: '{"to":"jane@exa' } });
  upstream.next({ stream: { events: [first, held, gate, call({ function: { arguments: 'mple.com"}' } }), END] } });
  const stream = await openStream(gateway);
  expect((await stream.next())?.data).toBe(JSON.stringify(first));
  await stream.until(({ toolCalls }) => toolCalls[0]?.[0]?.arguments === '{"to":"');
  gate.open();
  expect((await stream.rest()).toolCalls[0]![0]!.arguments).toBe('{"to":"<EMAIL>"}');
});

test('a slow guard is asked once at a time, and what arrives meanwhile joins the next window', async () => {
  const guard = new AskedGuard('slow');
  await using setup = await start(guard);
  const { gateway, upstream } = setup;
  const gate = new Gate();
  upstream.next({ stream: { events: [says('a '), gate, says('b '), says('c '), says('d '), END] } });
  const connection = await askAndLeave(gateway);
  const first = await guard.next();
  expect(first.input).toMatchObject({ channel: '0/text', text: 'a ', before: '', last: false });
  gate.open();
  await (await upstream.arrived()).closed;
  await gatewayCaughtUp(gateway);
  expect(guard.asked).toHaveLength(1);
  first.release(' ');
  const second = await guard.next();
  expect(second.input).toMatchObject({ channel: '0/text', text: ' b c d ', before: 'a', last: true });
  second.release();
  const result = await new SseStream(await connection.response()).rest();
  expect(result).toMatchObject({ content: ['a b c d '], finish: ['stop'], done: true });
  expect(guard.asked).toHaveLength(2);
  expect(guard.mostOpen).toBe(1);
});

test('the channels of a stream are asked about side by side, and each keeps its order', async () => {
  const guard = new AskedGuard('slow');
  await using setup = await start(guard);
  const { gateway, upstream } = setup;
  const both = (text: string) => chunk([choice(0, { content: text }), choice(1, { content: text.toUpperCase() })]);
  const ends = chunk([choice(0, {}, 'stop'), choice(1, {}, 'stop')]);
  upstream.next({ stream: { events: [both('a '), both('b '), ends], chunking: 'whole' } });
  const connection = await askAndLeave(gateway);
  const [first, second] = [await guard.next(), await guard.next()];
  expect([first.input.channel, second.input.channel]).toEqual(['0/text', '1/text']);
  second.release();
  first.release();
  const result = await new SseStream(await connection.response()).rest();
  expect(result).toMatchObject({ content: ['a b ', 'A B '], finish: ['stop', 'stop'], done: true });
});

test('a provider that runs ahead of a slow guard has to wait, and goes on when the guard does', async () => {
  const guard = new AskedGuard('slow');
  await using setup = await start(guard);
  const { gateway, upstream } = setup;
  const total = 3_000;
  const text = `${'word '.repeat(3_200)}`;
  function* events(): Generator<ChatChunk> {
    for (let i = 0; i < total; i += 1) yield says(text);
    yield END;
  }
  upstream.next({ stream: { events: events() } });
  const asked = askStream(gateway);
  const first = await guard.next();
  const request = await upstream.arrived();
  const stuckAt = await request.untilStuck();
  expect(stuckAt).toBeLessThan((total * text.length) / 2);
  guard.isOpen = true;
  first.release();
  let length = 0;
  for await (const piece of (await asked).chunks) length += piece.length;
  expect(length).toBeGreaterThan(total * text.length);
  expect(await request.closed).toBe('answered');
}, 30_000);

test('a rejection in the middle ends the stream with an error event, and the provider is let go', async () => {
  const guard = new AskedGuard('slow');
  await using setup = await start(guard);
  const { gateway, upstream } = setup;
  const gate = new Gate();
  upstream.next({ stream: { events: [says('a '), gate, says('b '), says('c ')], end: 'open' } });
  const opened = openStream(gateway);
  (await guard.next()).release();
  const stream = await opened;
  await stream.until(({ content }) => content[0] === 'a ');
  gate.open();
  (await guard.next()).answer({ reject: { code: 'not_fit', message: 'This may not be shown.', status: 451 } });
  const error = { message: 'This may not be shown.', type: 'invalid_request_error', param: 'asked', code: 'not_fit' };
  const result = await stream.rest();
  expect(result).toMatchObject({ content: ['a '], errors: [error], done: false, cut: undefined });
  expect(result.events.at(-1)!.data).toBe(JSON.stringify({ error }));
  expect(await (await upstream.arrived()).closed).toBe('left');
});

test('a guard that holds text for longer than its mount allows ends the stream', async () => {
  const guard = new AskedGuard('slow');
  await using setup = await start(guard, { hold: { time: '10ms' } });
  const { gateway, upstream } = setup;
  upstream.next({ stream: { events: [says('shown '), says('held')], end: 'open', chunking: 'whole' } });
  const asked = readStream(gateway);
  (await guard.next()).release('held');
  const result = await asked;
  expect(result).toMatchObject({ content: ['shown '], errors: [{ code: 'guard_hold_exceeded' }], done: false });
  expect(await (await upstream.arrived()).closed).toBe('left');
});

test('a guard sees no more than 64 characters of what it has released, as they came', async () => {
  const guard = new AskedGuard('slow');
  await using setup = await start(guard);
  const { gateway, upstream } = setup;
  const gate = new Gate();
  const text = `${'x'.repeat(60)}0123456789`;
  upstream.next({ stream: { events: [says(text), gate, END] } });
  const asked = readStream(gateway);
  (await guard.next()).answer({ release: { release: 'masked', hold: '89' } });
  gate.open();
  const second = await guard.next();
  expect(second.input).toMatchObject({ before: text.slice(-66, -2), text: '89', last: true });
  second.release();
  expect((await asked).content).toEqual(['masked89']);
});
