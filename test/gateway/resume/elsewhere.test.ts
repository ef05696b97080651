/** The rest of a stream at another replica, by a store that does what the test says; a real one is in test/real. */
import { expect, test } from 'vitest';
import { Gate } from '../../support/gate.ts';
import { configFor, startGateway } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { readSse } from '../../support/sse.ts';
import { errorOf } from '../chat.ts';
import { ask, askRest, numbered, readUntil, streamOf } from './resuming.ts';
import { SharedMemory } from './shared-memory.ts';
import { DONE, dataOf, END, says } from './words.ts';

/** A stream of five events, cut off from its client after the second; the rest comes when the gate opens. */
async function startTwo(resume: object = {}) {
  const upstream = await startScriptedUpstream();
  const memory = new SharedMemory();
  const config = configFor(upstream.url, {
    redis: 'redis://127.0.0.1:9',
    heartbeat: '100ms',
    route: { resume: { store: 'redis', ...resume } },
  });
  const start = async () => ({ gateway: await startGateway(config, { openStreams: async () => memory.open() }) });
  const [a, b] = await Promise.all([start(), start()]);
  const gate = new Gate();
  upstream.next({ stream: { events: [says('one '), says('two '), gate, says('three'), END] } });
  const begun = await ask(a);
  const stream = streamOf(begun);
  await readUntil(begun, 'two');
  begun.connection.destroy();
  await expect.poll(() => memory.streams.get(stream)?.events.length).toBe(3);
  return {
    a,
    b,
    memory,
    gate,
    stream,
    kept: memory.streams.get(stream)!,
    all: [dataOf(says('one ')), dataOf(says('two ')), dataOf(says('three')), dataOf(END), DONE],
    async [Symbol.asyncDispose]() {
      memory.isAway = false;
      await Promise.all([a.gateway.stop(), b.gateway.stop()]);
      await upstream.close();
    },
  };
}

test('comes in pieces, while it is being written', async () => {
  await using two = await startTwo();
  const rest = await askRest(two.b, `${two.stream}-0`);
  two.gate.open();
  expect(await rest.text()).toBe(numbered(two.stream, two.all).toString());
});

test('has heartbeats while nothing comes', async () => {
  await using two = await startTwo();
  const rest = await askRest(two.b, `${two.stream}-2`);
  await readUntil(rest, ': ping\n\n');
  two.gate.open();
  expect((await readSse(rest)).done).toBe(true);
});

test('ends with an error event when its writer is dead, and with that again', async () => {
  await using two = await startTwo();
  let rest = await askRest(two.b, `${two.stream}-1`);
  two.memory.dead.add(two.kept.writer);
  for (let turn = 0; turn < 2; turn += 1) {
    const { content, errors, done } = await readSse(rest);
    expect({ content, errors, done }).toMatchObject({
      content: ['two '],
      errors: [{ code: 'stream_broken' }],
      done: false,
    });
    rest = await askRest(two.b, `${two.stream}-1`);
  }
});

test('is an error at once when its writer died before it told what the client has', async () => {
  await using two = await startTwo();
  two.memory.dead.add(two.kept.writer);
  expect(await errorOf(await askRest(two.b, `${two.stream}-3`))).toMatchObject({ status: 502, code: 'stream_broken' });
});

test('is waited for when the client has more of it than the store', async () => {
  await using two = await startTwo();
  const rest = await askRest(two.b, `${two.stream}-3`);
  two.gate.open();
  expect(await rest.text()).toBe(numbered(two.stream, two.all.slice(3), 4).toString());
});

test('is never complete for a client that has more of it than there was', async () => {
  await using two = await startTwo();
  const rest = await askRest(two.b, `${two.stream}-9`);
  two.gate.open();
  expect(await readSse(rest)).toMatchObject({ errors: [{ code: 'stream_broken' }], done: false });
});

test('is none when the store has let go of what the client lacks', async () => {
  await using two = await startTwo();
  two.kept.oldest = 2;
  expect(await errorOf(await askRest(two.b, `${two.stream}-0`))).toMatchObject({ status: 410, code: 'resume_expired' });
  const rest = await askRest(two.b, `${two.stream}-1`);
  expect(rest.status).toBe(200);
});

test('ends as broken when the store loses it meanwhile', async () => {
  await using two = await startTwo();
  const rest = await askRest(two.b, `${two.stream}-1`);
  await readUntil(rest, 'two');
  two.memory.streams.delete(two.stream);
  expect(await readSse(rest)).toMatchObject({ errors: [{ code: 'stream_broken' }], done: false });
});

test('goes on when a store that was away comes back', async () => {
  await using two = await startTwo();
  const rest = await askRest(two.b, `${two.stream}-1`);
  await readUntil(rest, 'two');
  two.memory.isAway = true;
  await new Promise((resolve) => setTimeout(resolve, 300));
  two.gate.open();
  two.memory.isAway = false;
  const { content, errors, done } = await readSse(rest);
  expect({ content, errors, done }).toEqual({ content: ['three'], errors: [], done: true });
});

test('ends with an error event when the store stays away', async () => {
  await using two = await startTwo();
  const rest = await askRest(two.b, `${two.stream}-1`);
  await readUntil(rest, 'two');
  two.memory.isAway = true;
  expect(await readSse(rest)).toMatchObject({ errors: [{ code: 'resume_unavailable' }], done: false });
}, 20_000);

test('belongs to the one who asked last', async () => {
  await using two = await startTwo();
  const first = await askRest(two.b, `${two.stream}-1`);
  const second = await askRest(two.b, `${two.stream}-1`);
  await expect(first.bytes()).rejects.toThrow();
  two.gate.open();
  expect((await readSse(second)).done).toBe(true);
});

test('is not kept by the store when the writer gives it up', async () => {
  await using two = await startTwo({ grace: '100ms' });
  await expect.poll(() => two.memory.streams.size, { timeout: 5_000 }).toBe(0);
  expect(await errorOf(await askRest(two.b, `${two.stream}-1`))).toMatchObject({ status: 410 });
});

test('needs a Redis in the config', async () => {
  const config = configFor('http://127.0.0.1:9', { route: { resume: { store: 'redis' } } });
  await expect(startGateway(config)).rejects.toThrow('resume.store: needs the setting `redis`');
});
