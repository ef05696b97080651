/** Who lost the connection gets the rest: what clients see, who may, and until when. */
import { describe, expect, test } from 'vitest';
import { chunk, textStream, usageOf } from '../../support/chunks.ts';
import { Gate } from '../../support/gate.ts';
import { testPlugin } from '../../support/gateway.ts';
import { readSse } from '../../support/sse.ts';
import { errorOf, soon } from '../chat.ts';
import { ask, askRest, numbered, type Rig, readUntil, startRig, streamOf } from './resuming.ts';
import { DONE, dataOf, END, says } from './words.ts';

const NOBODYS = 'A'.repeat(22);

/** A stream that says `first`, waits for the gate, and says `second`. */
function inTwo(first: string, gate: Gate, second: string) {
  return { stream: { events: [says(first), gate, says(second), END] } };
}

/** Reads to the end of a stream that says some words. */
async function finished(rig: Rig, headers: Record<string, string> = {}): Promise<string> {
  rig.upstream.next({ stream: { events: textStream('Some words.') } });
  const response = await ask(rig, headers);
  await response.bytes();
  return streamOf(response);
}

/** Loses the connection, and waits until the gateway knows. */
async function leave(rig: Rig, begun: Awaited<ReturnType<typeof ask>>): Promise<void> {
  begun.connection.destroy();
  await soon(() => rig.gateway.gateway.streams.find(streamOf(begun))?.isAttached).toBe(false);
}

/** In characters: more than the sockets on the way to a slow client take. */
const LONG_TEXT = 1_500 * 20_000;

function* longText() {
  for (let i = 0; i < 1_500; i += 1) yield says('x'.repeat(20_000));
  yield END;
}

async function statusOfRest(rig: Rig, id: string): Promise<number> {
  const { status, connection } = await askRest(rig, id);
  connection.destroy();
  return status;
}

describe('the rest of a stream', () => {
  test('has the ids, the head and the bytes that it would have had', async () => {
    await using rig = await startRig();
    const gate = new Gate();
    rig.upstream.next(inTwo('first ', gate, 'second'));
    const begun = await ask(rig);
    const stream = streamOf(begun);
    expect(await readUntil(begun, '\n\n')).toBe(numbered(stream, [dataOf(says('first '))]).toString());
    begun.connection.destroy();
    const rest = await askRest(rig, `${stream}-1`);
    gate.open();
    expect(rest.status).toBe(200);
    expect(rest.header('content-type')).toBe(begun.header('content-type'));
    expect(rest.header('x-accel-buffering')).toBe('no');
    expect(rest.header('x-wardgate-resumed')).toBe(`${stream}-1`);
    expect(rest.headerValues('x-request-id')).toHaveLength(1);
    expect(rest.header('x-request-id')).not.toBe(begun.header('x-request-id'));
    expect(await rest.text()).toBe(numbered(stream, [dataOf(says('second')), dataOf(END), DONE], 2).toString());
    expect(rig.upstream.requests).toHaveLength(1);
  });

  test('is settled as if the client had stayed', async () => {
    const gate = new Gate();
    const told: unknown[] = [];
    const observer = testPlugin('observer', { observe: (input) => void told.push(input) });
    await using rig = await startRig(
      true,
      { plugins: { observer: { at: 'local:observer' } } },
      { factories: [observer], log: 'info', metrics: true },
    );
    const usage = usageOf(3, 4);
    rig.upstream.next({ stream: { events: [says('a'), gate, END, chunk([], { usage }), says('')] } });
    const begun = await ask(rig);
    await readUntil(begun, '\n\n');
    await leave(rig, begun);
    gate.open();
    await soon(() => told.length).toBe(1);
    expect(told[0]).toMatchObject({ outcome: 'finished', status: 200 });
    await (await askRest(rig, `${streamOf(begun)}-1`)).bytes();
    await soon(() => rig.gateway.logged.length).toBe(2);
    const [first, second] = rig.gateway.logged;
    expect(second).toMatchObject({ status: 200, outcome: 'finished', resumedFrom: `${first!.requestId}#1` });
    expect(rig.gateway.logText).not.toContain(streamOf(begun));
    const metrics = await (await fetch(`${rig.gateway.metricsUrl}/metrics`)).text();
    expect(metrics).toContain('wardgate_resumes_total{outcome="resumed"} 1');
    expect(metrics).toContain('wardgate_resumable_streams 1');
  });

  test('can be asked for by POST with any body, and again and again', async () => {
    await using rig = await startRig();
    const stream = await finished(rig);
    const url = `${rig.gateway.url}/v1/chat/completions`;
    const first = await (await fetch(url, { headers: { 'last-event-id': `${stream}-1` } })).text();
    const headers = { 'last-event-id': `${stream}-1` };
    const second = await (await fetch(url, { method: 'POST', headers, body: 'not json at all' })).text();
    expect(first).toContain('[DONE]');
    expect(second).toBe(first);
    expect((await fetch(url, { method: 'PUT', headers })).status).toBe(405);
  });

  test('is nothing, by 204, when the client has all of a finished stream', async () => {
    await using rig = await startRig();
    const stream = await finished(rig);
    const whole = await (await askRest(rig, `${stream}-0`)).text();
    const last = /id: (.*)\ndata: \[DONE\]/.exec(whole)![1]!;
    const nothing = await askRest(rig, last);
    expect(nothing.status).toBe(204);
    expect(nothing.header('x-wardgate-resumed')).toBe(last);
  });

  test('ends with the error event, when the stream did', async () => {
    await using rig = await startRig();
    rig.upstream.next({ stream: { events: [says('half ')], end: 'cut' } });
    const begun = await ask(rig);
    const seen = await readSse(begun);
    expect(seen.errors).toMatchObject([{ code: 'stream_broken' }]);
    const again = await readSse(await askRest(rig, `${streamOf(begun)}-1`));
    expect(again.rawText).toBe(seen.rawText.slice(seen.rawText.indexOf(`id: ${streamOf(begun)}-2`)));
    expect(again.errors).toEqual(seen.errors);
    expect(again.done).toBe(false);
  });

  test('is what the client was shown: guarded, and with its masks undone', async () => {
    const gate = new Gate();
    const pii = { at: 'local:pii-guard', config: { rules: ['email'], action: 'restore' } };
    await using rig = await startRig(true, { plugins: { pii } });
    rig.upstream.next(inTwo('Write to <EMAIL_', gate, '1>, not to joe@example.com.'));
    const begun = await ask(rig, {}, 'I am jane@example.com.');
    await readUntil(begun, '\n\n');
    begun.connection.destroy();
    const rest = await askRest(rig, `${streamOf(begun)}-0`);
    gate.open();
    const { content, done } = await readSse(rest);
    expect(done).toBe(true);
    expect(content[0]).toMatch(/^Write to jane@example\.com, not to <EMAIL\w*>\.$/);
    expect(rig.upstream.requests[0]!.body.toString()).not.toContain('jane');
    const again = await readSse(await askRest(rig, `${streamOf(begun)}-0`));
    expect(again.content).toEqual(content);
  });
});

describe('two connections', () => {
  test('take turns: the later one gets the rest, the earlier one is cut off', async () => {
    await using rig = await startRig();
    const gate = new Gate();
    rig.upstream.next(inTwo('first ', gate, 'second'));
    const begun = await ask(rig);
    const stream = streamOf(begun);
    await readUntil(begun, '\n\n');
    const second = await askRest(rig, `${stream}-0`);
    await expect(begun.bytes()).rejects.toThrow();
    const third = await askRest(rig, `${stream}-1`);
    await expect(second.bytes()).rejects.toThrow();
    gate.open();
    expect(await third.text()).toBe(numbered(stream, [dataOf(says('second')), dataOf(END), DONE], 2).toString());
  });
});

describe('who may not', () => {
  const AUTHENTICATED = { plugins: { who: { at: 'local:who' } }, route: { identity: 'optional' } };

  test.each([
    ['another subject', { 'X-Who': 'mallory@here' }],
    ['the same subject of another issuer', { 'X-Who': 'jane@there' }],
    ['a stranger', {}],
  ])('%s gets the words that an unknown id gets', async (_name, headers) => {
    await using rig = await startRig(true, AUTHENTICATED);
    const stream = await finished(rig, { 'X-Who': 'jane@here' });
    const refused = await errorOf(await askRest(rig, `${stream}-1`, headers as Record<string, string>));
    const unknown = await errorOf(await askRest(rig, `${NOBODYS}-1`, headers as Record<string, string>));
    expect(refused).toMatchObject({ status: 410, code: 'resume_expired' });
    expect(refused).toEqual(unknown);
    expect(await statusOfRest(rig, `${stream}-1`)).toBe(410);
    expect((await askRest(rig, `${stream}-1`, { 'X-Who': 'jane@here' })).status).toBe(200);
  });

  test('a client of another route gets them, too', async () => {
    await using rig = await startRig(true, {
      routes: { '/': { resume: true }, '/other': { resume: true } },
    });
    rig.upstream.next({ stream: { events: textStream('Some words.') } });
    const response = await ask({ gateway: { url: `${rig.gateway.url}/other` } });
    await response.bytes();
    expect(await statusOfRest(rig, `${streamOf(response)}-1`)).toBe(410);
  });
});

test.each(['7', 'abc', `${NOBODYS}`, `${NOBODYS}-`, `${NOBODYS}-01`, `${NOBODYS}-1x`, `${NOBODYS}-${'9'.repeat(40)}`])(
  'an id that is none (%s) is a 400 that names the header',
  async (id) => {
    await using rig = await startRig();
    expect(await errorOf(await askRest(rig, id))).toMatchObject({
      status: 400,
      code: 'invalid_request',
      param: 'last-event-id',
    });
  },
);

test('an event that was never sent is not waited for', async () => {
  await using rig = await startRig();
  const gate = new Gate();
  rig.upstream.next(inTwo('first ', gate, 'second'));
  const begun = await ask(rig);
  await readUntil(begun, '\n\n');
  expect(await statusOfRest(rig, `${streamOf(begun)}-2`)).toBe(410);
});

describe('S3-10: which streams are kept', () => {
  test.each([
    ['always', undefined, true],
    ['always', 'false', false],
    ['asked', undefined, false],
    ['asked', 'true', true],
  ])('with `when: %s` and the client’s word %s: %s', async (when, said, isKept) => {
    await using rig = await startRig({ when });
    rig.upstream.next({ stream: { events: textStream('Some words.') } });
    const response = await ask(rig, said === undefined ? {} : { 'x-wardgate-stream-resume': said });
    expect(response.header('x-wardgate-stream-id') !== undefined).toBe(isKept);
    expect((await response.text()).startsWith('id: ')).toBe(isKept);
  });

  test('none without the setting, and `Last-Event-ID` means nothing there', async () => {
    await using rig = await startRig(false);
    rig.upstream.next({ stream: { events: textStream('Some words.') } });
    const response = await ask(rig, { 'x-wardgate-stream-resume': 'true', 'last-event-id': `${NOBODYS}-1` });
    expect(response.status).toBe(200);
    expect(await response.text()).not.toContain('id: ');
  });

  test('whole answers are as they were', async () => {
    await using rig = await startRig();
    rig.upstream.next({ whole: { id: 'x', object: 'chat.completion', choices: [], model: 'm', created: 1 } });
    const url = `${rig.gateway.url}/v1/chat/completions`;
    const body = JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'x' }] });
    const response = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    expect(response.headers.get('x-wardgate-stream-id')).toBeNull();
    expect(response.status).toBe(200);
  });
});

test('a client that goes before the first event is gone: the call upstream ends', async () => {
  await using rig = await startRig();
  rig.upstream.next({ fault: 'silence' });
  const leaving = new AbortController();
  const asked = fetch(`${rig.gateway.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'm', stream: true, messages: [{ role: 'user', content: 'x' }] }),
    signal: leaving.signal,
  });
  const request = await rig.upstream.arrived();
  leaving.abort();
  await expect(asked).rejects.toThrow();
  expect(await request.closed).toBe('left');
});

describe('time', () => {
  test('a finished stream is kept for its window', async () => {
    await using rig = await startRig({ window: '50ms' });
    const stream = await finished(rig);
    await expect.poll(() => statusOfRest(rig, `${stream}-1`), { timeout: 5_000 }).toBe(410);
    expect(rig.gateway.gateway.metrics.resumableStreams.value).toBe(0);
  });

  test('a stream that nobody comes back for is given up after its grace, and told so', async () => {
    await using rig = await startRig({ grace: '50ms' }, {}, { log: 'info' });
    rig.upstream.next({ stream: { events: [says('first ')], end: 'open' } });
    const begun = await ask(rig);
    await readUntil(begun, '\n\n');
    begun.connection.destroy();
    expect(await (await rig.upstream.arrived()).closed).toBe('left');
    await soon(() => rig.gateway.logged[0]).toMatchObject({ outcome: 'aborted', status: 200, estimated: true });
    expect(await errorOf(await askRest(rig, `${streamOf(begun)}-1`))).toMatchObject({ code: 'resume_expired' });
  });

  test('who comes back within the grace stops the clock', async () => {
    await using rig = await startRig({ grace: '2s' });
    const gate = new Gate();
    rig.upstream.next(inTwo('first ', gate, 'second'));
    const begun = await ask(rig);
    await readUntil(begun, '\n\n');
    begun.connection.destroy();
    const rest = await askRest(rig, `${streamOf(begun)}-1`);
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    gate.open();
    expect(await rest.text()).toContain('[DONE]');
  });
});

describe('bounds', () => {
  const LONG = 'x'.repeat(20_000);

  test.each([
    ['its size', { size: '64KiB' }],
    ['the route’s total', { total: '64KiB' }],
  ])('without a client a stream that outgrows %s is given up', async (_name, resume) => {
    await using rig = await startRig(resume);
    const gate = new Gate();
    const events = [says('first '), gate, ...Array.from({ length: 10 }, () => says(LONG))];
    rig.upstream.next({ stream: { events, end: 'open' } });
    const begun = await ask(rig);
    await readUntil(begun, '\n\n');
    await leave(rig, begun);
    gate.open();
    expect(await (await rig.upstream.arrived()).closed).toBe('left');
    expect(await statusOfRest(rig, `${streamOf(begun)}-1`)).toBe(410);
  });

  test('of a long stream that a client reads, the newest is kept', async () => {
    await using rig = await startRig({ size: '64KiB' });
    rig.upstream.next({ stream: { events: [...Array.from({ length: 20 }, () => says(LONG)), END] } });
    const begun = await ask(rig);
    const whole = await begun.text();
    const stream = streamOf(begun);
    expect(whole).toContain(`id: ${stream}-22\ndata: [DONE]`);
    expect(await statusOfRest(rig, `${stream}-1`)).toBe(410);
    const rest = await askRest(rig, `${stream}-20`);
    expect(await rest.text()).toBe(numbered(stream, [dataOf(END), DONE], 21).toString());
  });

  test('what a client was handed before it left makes room for what comes after', async () => {
    await using rig = await startRig({ size: '64KiB' });
    const gate = new Gate();
    const events = [...Array.from({ length: 10 }, () => says(LONG)), gate, says(LONG), says(LONG), END];
    rig.upstream.next({ stream: { events } });
    const begun = await ask(rig);
    const stream = streamOf(begun);
    await readUntil(begun, `id: ${stream}-10\n`);
    begun.connection.destroy();
    await soon(() => rig.gateway.gateway.streams.find(stream)?.isAttached).toBe(false);
    gate.open();
    await (await rig.upstream.arrived()).closed;
    const rest = await askRest(rig, `${stream}-10`);
    const expected = numbered(stream, [dataOf(says(LONG)), dataOf(says(LONG)), dataOf(END), DONE], 11);
    expect((await rest.bytes()).equals(expected)).toBe(true);
  });

  test('complete answers make room for new ones; when all are being written, a new one is not kept', async () => {
    await using rig = await startRig({ streams: 1 });
    const first = await finished(rig);
    rig.upstream.next({ stream: { events: [says('second ')], end: 'open' } });
    const second = await ask(rig);
    await readUntil(second, '\n\n');
    expect(await statusOfRest(rig, `${first}-1`)).toBe(410);
    rig.upstream.next({ stream: { events: textStream('third') } });
    const third = await ask(rig);
    expect(third.header('x-wardgate-stream-id')).toBeUndefined();
    expect(await third.text()).not.toContain('id: ');
  });

  test('all answers of a route share what the route may keep', async () => {
    await using rig = await startRig({ size: '64KiB', total: '64KiB' });
    const say = async () => {
      rig.upstream.next({ stream: { events: [says(LONG), says(LONG), END] } });
      const response = await ask(rig);
      await response.bytes();
      return streamOf(response);
    };
    const first = await say();
    const second = await say();
    expect(await statusOfRest(rig, `${first}-1`)).toBe(410);
    expect(await statusOfRest(rig, `${second}-1`)).toBe(200);
  });

  test('a slow client that came back slows the provider, and gets everything', async () => {
    await using rig = await startRig({ size: '1MiB' });
    const total = 2_000;
    const gate = new Gate();
    function* events() {
      yield says('first ');
      yield gate;
      for (let i = 0; i < total; i += 1) yield says(LONG);
      yield END;
    }
    rig.upstream.next({ stream: { events: events() } });
    const begun = await ask(rig);
    await readUntil(begun, '\n\n');
    begun.connection.destroy();
    const rest = await askRest(rig, `${streamOf(begun)}-1`);
    gate.open();
    const request = await rig.upstream.arrived();
    expect(await request.untilStuck(1_000)).toBeLessThan((total * LONG.length) / 2);
    let length = 0;
    let tail = '';
    for await (const piece of rest.chunks) {
      length += piece.length;
      tail = (tail + piece.toString('latin1')).slice(-100);
    }
    expect(length).toBeGreaterThan(total * LONG.length);
    expect(tail).toMatch(/data: \[DONE\]\n\n$/);
  }, 60_000);
});

describe('the gateway’s own ends', () => {
  test('a reload loses no stream', async () => {
    await using rig = await startRig();
    const gate = new Gate();
    rig.upstream.next(inTwo('first ', gate, 'second'));
    const begun = await ask(rig);
    await readUntil(begun, '\n\n');
    begun.connection.destroy();
    expect(await rig.gateway.reload()).toBe(true);
    const rest = await askRest(rig, `${streamOf(begun)}-1`);
    gate.open();
    expect(await rest.text()).toContain('[DONE]');
  });

  test('a stop waits for no stream whose client has gone', async () => {
    await using rig = await startRig(true, { drain: '1h' });
    rig.upstream.next({ stream: { events: [says('first ')], end: 'open' } });
    const begun = await ask(rig);
    await readUntil(begun, '\n\n');
    await leave(rig, begun);
    await rig.gateway.stop();
    expect(await (await rig.upstream.arrived()).closed).toBe('left');
  });

  test('a stop tells a client that is there', async () => {
    await using rig = await startRig();
    rig.upstream.next({ stream: { events: [says('first ')], end: 'open' } });
    const begun = await ask(rig);
    await readUntil(begun, '\n\n');
    const [{ errors, rawText }] = await Promise.all([readSse(begun), rig.gateway.stop()]);
    expect(errors).toMatchObject([{ code: 'draining' }]);
    expect(rawText).toContain(`id: ${streamOf(begun)}-2`);
  });
});

test('heartbeats reach whoever is there, and are not kept', async () => {
  await using rig = await startRig(true, { heartbeat: '100ms' });
  const gate = new Gate();
  rig.upstream.next(inTwo('first ', gate, 'second'));
  const begun = await ask(rig);
  await readUntil(begun, ': ping\n\n');
  begun.connection.destroy();
  const rest = await askRest(rig, `${streamOf(begun)}-1`);
  await readUntil(rest, ': ping\n\n');
  gate.open();
  await rest.bytes();
  expect(await (await askRest(rig, `${streamOf(begun)}-1`)).text()).not.toContain('ping');
});

test('a client that leaves while a guard thinks has the text that the guard allows', async () => {
  const gate = new Gate();
  const asked = new Gate();
  const thinking = new Gate();
  const slow = testPlugin('slow', {
    async stream({ text }) {
      if (text.includes('second')) {
        asked.open();
        await thinking.opened;
      }
      return { release: { release: text.toUpperCase(), hold: '' } };
    },
  });
  const plugins = { slow: { at: 'local:slow', deadline: '60s' } };
  await using rig = await startRig(true, { plugins }, { factories: [slow] });
  rig.upstream.next(inTwo('first ', gate, 'second'));
  const begun = await ask(rig);
  await readUntil(begun, '\n\n');
  gate.open();
  await asked.opened;
  await leave(rig, begun);
  thinking.open();
  const { content, done } = await readSse(await askRest(rig, `${streamOf(begun)}-0`));
  expect({ content, done }).toEqual({ content: ['FIRST SECOND'], done: true });
});

test('a slow client that leaves holds the provider up no longer', async () => {
  await using rig = await startRig({ size: '128MiB' });
  rig.upstream.next({ stream: { events: longText() } });
  const begun = await ask(rig);
  const request = await rig.upstream.arrived();
  expect(await request.untilStuck(500)).toBeLessThan(LONG_TEXT);
  begun.connection.destroy();
  expect(await request.closed).toBe('answered');
}, 60_000);

test('a stream that is not kept is given to a slow client whole all the same', async () => {
  await using rig = await startRig({ streams: 1 });
  rig.upstream.next({ stream: { events: [says('first ')], end: 'open' } });
  await readUntil(await ask(rig), '\n\n');
  rig.upstream.next({ stream: { events: longText() } });
  const response = await ask(rig);
  const request = await rig.upstream.arrived(1);
  expect(await request.untilStuck(500)).toBeLessThan(LONG_TEXT);
  expect((await response.bytes()).length).toBeGreaterThan(LONG_TEXT);
}, 60_000);
