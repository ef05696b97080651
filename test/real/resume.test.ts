/** S3-04, S3-14: a stream that one replica writes is gone on with at another, by a Redis of the test's own. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { redisStreams } from '../../plugins/redis/streams.ts';
import { LEASE_MS } from '../../proto/store.ts';
import { errorOf } from '../gateway/chat.ts';
import {
  ask,
  askRest,
  numbered,
  readAndLeave,
  readUntil,
  streamOf,
  WHO,
  wholeEvents,
} from '../gateway/resume/resuming.ts';
import { DONE, dataOf, END, says } from '../gateway/resume/words.ts';
import { textStream } from '../support/chunks.ts';
import { Gate } from '../support/gate.ts';
import { configFor, startGateway, type TestGateway } from '../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { readSse } from '../support/sse.ts';
import { startProcess } from './gateway-process.ts';
import { type OwnRedis, startRedis } from './redis.ts';

const POLL = { timeout: 20_000, interval: 50 };

let redis: OwnRedis;
let upstream: ScriptedUpstream;
beforeAll(async () => {
  redis = await startRedis();
});
afterAll(() => redis[Symbol.asyncDispose]());
beforeEach(async () => {
  upstream = await startScriptedUpstream();
  return () => upstream.close();
});

function configOf(resume: object = {}, more: Record<string, unknown> = {}) {
  return configFor(upstream.url, {
    redis: redis.url,
    plugins: {},
    route: { resume: { store: 'redis', ...resume }, identity: 'optional' },
    ...more,
  });
}

/** Two replicas in this process. */
async function startTwo(resume: object = {}) {
  const options = { factories: [WHO], openStreams: async (urls: string[]) => redisStreams(urls) };
  const config = configOf(resume, { plugins: { who: { at: 'local:who' } } });
  const start = () => startGateway(config, options);
  const [a, b] = await Promise.all([start(), start()]);
  return {
    a: { gateway: a },
    b: { gateway: b },
    async [Symbol.asyncDispose]() {
      await Promise.all([a.stop(), b.stop()]);
    },
  };
}

type At = { gateway: TestGateway };

/** Waits until Redis knows a stream up to an event. */
function stored(stream: string, last: number) {
  return expect.poll(() => redis.command('HGET', `wardgate:stream:${stream}`, 'last'), POLL).toBe(String(last));
}

async function beginAt(at: At, gate: Gate, headers: Record<string, string> = {}): Promise<string> {
  upstream.next({ stream: { events: [says('first '), gate, says('second'), END] } });
  const begun = await ask(at, headers);
  await readUntil(begun, '\n\n');
  begun.connection.destroy();
  await stored(streamOf(begun), 1);
  return streamOf(begun);
}

const restOf = (stream: string) => numbered(stream, [dataOf(says('second')), dataOf(END), DONE], 2).toString();

describe('at another replica', () => {
  test('the rest comes while it is being written', async () => {
    await using two = await startTwo();
    const gate = new Gate();
    const stream = await beginAt(two.a, gate);
    const rest = await askRest(two.b, `${stream}-1`);
    expect(rest.header('content-type')).toContain('text/event-stream');
    expect(rest.header('x-wardgate-resumed')).toBe(`${stream}-1`);
    gate.open();
    expect(await rest.text()).toBe(restOf(stream));
    expect(upstream.requests).toHaveLength(1);
  });

  test('the rest of a finished stream is there, and nothing after its last event', async () => {
    await using two = await startTwo();
    const gate = new Gate();
    gate.open();
    const stream = await beginAtOpen(two.a, gate);
    expect(await (await askRest(two.b, `${stream}-1`)).text()).toBe(restOf(stream));
    expect((await askRest(two.b, `${stream}-4`)).status).toBe(204);
    expect((await askRest(two.b, `${stream}-5`)).status).toBe(410);
  });

  test('only the same identity gets it', async () => {
    await using two = await startTwo();
    const gate = new Gate();
    const stream = await beginAt(two.a, gate, { 'X-Who': 'jane@here' });
    for (const who of ['joe@here', 'jane@there', '']) {
      expect(await errorOf(await askRest(two.b, `${stream}-1`, { 'X-Who': who }))).toMatchObject({
        status: 410,
        code: 'resume_expired',
      });
    }
    const rest = await askRest(two.b, `${stream}-1`, { 'X-Who': 'jane@here' });
    gate.open();
    expect(await rest.text()).toBe(restOf(stream));
  });

  test('who reads there keeps the provider going beyond the grace, and who leaves there does not', async () => {
    await using two = await startTwo({ grace: '4s' });
    const gate = new Gate();
    const stream = await beginAt(two.a, gate);
    const rest = await askRest(two.b, `${stream}-1`);
    await sleep(6_500);
    expect(upstream.requests[0]!.closedAtMs).toBeUndefined();
    rest.connection.destroy();
    expect(await upstream.requests[0]!.closed).toBe('left');
    await expect.poll(() => statusAt(two.b, `${stream}-1`), POLL).toBe(410);
  });

  test('of two connections at two replicas the later one gets the rest', async () => {
    await using two = await startTwo();
    const gate = new Gate();
    upstream.next({ stream: { events: [says('first '), gate, says('second'), END] } });
    const begun = await ask(two.a);
    const stream = streamOf(begun);
    await readUntil(begun, '\n\n');
    await stored(stream, 1);
    const atB = await askRest(two.b, `${stream}-1`);
    await expect(begun.bytes()).rejects.toThrow();
    const atA = await askRest(two.a, `${stream}-1`);
    await expect(atB.bytes()).rejects.toThrow();
    // Redis tells the first replica for some seconds of who was at the second one.
    await sleep(3_500);
    gate.open();
    expect(await atA.text()).toBe(restOf(stream));
  });

  test('a slow client slows the provider, and gets everything', async () => {
    await using two = await startTwo();
    const LONG = 'x'.repeat(20_000);
    const total = 1_500;
    const gate = new Gate();
    function* events() {
      yield says('first ');
      yield gate;
      for (let i = 0; i < total; i += 1) yield says(LONG);
      yield END;
    }
    upstream.next({ stream: { events: events() } });
    const begun = await ask(two.a);
    await readUntil(begun, '\n\n');
    begun.connection.destroy();
    await stored(streamOf(begun), 1);
    const rest = await askRest(two.b, `${streamOf(begun)}-1`);
    await sleep(1_500);
    gate.open();
    const request = await upstream.arrived();
    expect(await request.untilStuck(2_500)).toBeLessThan((total * LONG.length) / 2);
    const text = await rest.text();
    expect(text.length).toBeGreaterThan(total * LONG.length);
    expect(text).toMatch(/data: \[DONE\]\n\n$/);
    expect([...text.matchAll(/^id: /gm)]).toHaveLength(total + 2);
  }, 90_000);

  test('every byte comes once, wherever the client is cut off and wherever it asks (100 streams)', async () => {
    await using two = await startTwo();
    for (let i = 0; i < 100; i += 1) {
      const gate = new Gate();
      const events = [...textStream('größe \u{1F600} words and words and words', { size: 3 })];
      const at = 1 + (i % (events.length - 1));
      upstream.next({ stream: { events: [...events.slice(0, at), gate, ...events.slice(at)] } });
      const begun = await ask(two.a);
      const stream = streamOf(begun);
      const expected = numbered(stream, [...events.map(dataOf), DONE]);
      const readable = numbered(stream, events.slice(0, at).map(dataOf)).length;
      const { bytes, lastId } = wholeEvents(await readAndLeave(begun, (i * 7_919) % readable));
      await stored(stream, at);
      const rest = await askRest(i % 3 === 0 ? two.a : two.b, lastId ?? `${stream}-0`);
      gate.open();
      expect(Buffer.concat([bytes, await rest.bytes()]).equals(expected), `stream ${i}`).toBe(true);
    }
  }, 60_000);
});

/** As `beginAt`, of a stream that comes to its end at once. */
async function beginAtOpen(at: At, gate: Gate): Promise<string> {
  upstream.next({ stream: { events: [says('first '), gate, says('second'), END] } });
  const begun = await ask(at);
  await begun.bytes();
  await expect.poll(() => redis.command('HGET', `wardgate:stream:${streamOf(begun)}`, 'ended'), POLL).toBe('1');
  return streamOf(begun);
}

async function statusAt(at: { gateway: { url: string } }, id: string): Promise<number> {
  const { status, connection } = await askRest(at, id);
  connection.destroy();
  return status;
}

describe('a Redis that is away', () => {
  test('harms no stream, which can be resumed where it is written; elsewhere that is said, and mended', async () => {
    await using two = await startTwo();
    await redis.kill();
    try {
      const gate = new Gate();
      upstream.next({ stream: { events: [says('first '), gate, says('second'), END] } });
      const begun = await ask(two.a);
      const stream = streamOf(begun);
      await readUntil(begun, '\n\n');
      begun.connection.destroy();
      expect(await errorOf(await askRest(two.b, `${stream}-1`))).toMatchObject({
        status: 503,
        code: 'resume_unavailable',
      });
      const rest = await askRest(two.a, `${stream}-1`);
      gate.open();
      expect(await rest.text()).toBe(restOf(stream));
      await redis.start();
      await expect.poll(() => statusAt(two.b, `${stream}-1`), POLL).toBe(200);
      expect(await (await askRest(two.b, `${stream}-0`)).text()).toContain('first ');
    } finally {
      await redis.kill();
      await redis.start();
    }
  });
});

describe('a replica', () => {
  test('that is killed: what it has told is served elsewhere, and ends as broken, never as complete', async () => {
    const [a, b] = await Promise.all([startProcess(configOf()), startProcess(configOf())]);
    await using _a = a;
    await using _b = b;
    const gate = new Gate();
    upstream.next({ stream: { events: [says('first '), says('second '), gate] } });
    const begun = await ask({ gateway: a });
    const stream = streamOf(begun);
    await readUntil(begun, 'second');
    await stored(stream, 2);
    const reading = askRest({ gateway: b }, `${stream}-1`);
    const early = await reading;
    a.process.kill('SIGKILL');
    const since = performance.now();
    const cut = await readSse(early);
    expect(performance.now() - since).toBeLessThan(LEASE_MS + 5_000);
    expect(cut.content).toEqual(['second ']);
    expect(cut).toMatchObject({ errors: [{ code: 'stream_broken' }], done: false, finish: [undefined] });
    const late = await readSse(await askRest({ gateway: b }, `${stream}-0`));
    expect(late.content).toEqual(['first second ']);
    expect(late).toMatchObject({ errors: [{ code: 'stream_broken' }], done: false });
    expect(upstream.requests).toHaveLength(1);
    gate.open();
  });

  test('that stops lets a stream without a client come to its end, for another one to serve', async () => {
    const config = { ...configOf(), drain: '20s' };
    const [a, b] = await Promise.all([startProcess(config), startProcess(config)]);
    await using _a = a;
    await using _b = b;
    const gate = new Gate();
    const stream = await beginAt({ gateway: a as unknown as TestGateway }, gate);
    const ended = new Promise((resolve) => a.process.once('exit', resolve));
    a.process.kill('SIGTERM');
    const rest = await askRest({ gateway: b }, `${stream}-1`);
    gate.open();
    expect(await rest.text()).toBe(restOf(stream));
    await ended;
  });
});

test('Redis takes no events before those that come before them, and none twice', async () => {
  const store = redisStreams([redis.url]);
  const facts = { owner: 'o', head: [], requestId: 'r', route: '/', fingerprint: '' };
  const common = { oldest: 1, hasEnded: false, claims: false, keepMs: 10_000 };
  const look = { writer: '', reader: 'r', after: 0, takes: true };
  await store.write('holes', { ...common, facts, first: 1, events: ['a', 'b'] });
  await expect(store.write('holes', { ...common, first: 4, events: ['d'] })).rejects.toThrow();
  expect(await store.write('holes', { ...common, first: 2, events: ['b', 'c'] })).toBe(true);
  expect(await store.read('holes', look)).toMatchObject({ oldest: 1, newest: 3, events: ['a', 'b', 'c'] });
  expect(await store.write('unknown', { ...common, first: 2, events: ['b'] })).toBe(false);
  store.close();
});

test('streams in Redis run out by themselves', async () => {
  await using two = await startTwo({ window: '500ms' });
  const gate = new Gate();
  gate.open();
  const stream = await beginAtOpen(two.a, gate);
  await expect.poll(() => redis.command('KEYS', `wardgate:stream:${stream}*`), POLL).toEqual([]);
  expect(await statusAt(two.b, `${stream}-1`)).toBe(410);
});
