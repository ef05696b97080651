import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { choice, chunk, frame, textStream, toolCallStream, usageChunk, usageOf } from '../../support/chunks.ts';
import { cutAt, cutBySizes, pieceSizes } from '../../support/cuts.ts';
import { Gate } from '../../support/gate.ts';
import { configFor, startGateway, type TestGateway } from '../../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { askStream, openStream, readStream } from './chat.ts';
import { drip } from './drip.ts';
import { wildStream } from './framing.ts';

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway(configFor(upstream.url));
});

afterAll(async () => {
  await gateway.stop();
  await upstream.close();
});

/** What the client received of a stream that comes in these pieces. */
async function received(stream: string | Buffer, cut: (bytes: Buffer) => Buffer[] = (bytes) => [bytes], body = {}) {
  upstream.next({ stream: { events: drip(cut(Buffer.from(stream))), end: 'close-without-done' } });
  return (await askStream(gateway, '', body)).bytes();
}

const byBytes = cutBySizes([1]);

const asksUsage = { stream_options: { include_usage: true } };

test('S3-01 any stream in any framing and any pieces reaches the client byte for byte', async () => {
  await fc.assert(
    fc.asyncProperty(wildStream, pieceSizes, async (stream, sizes) => {
      const bytes = await received(stream, cutBySizes(sizes), asksUsage);
      expect(bytes.toString()).toBe(stream);
    }),
    { numRuns: 150 },
  );
});

test.each(['\n', '\r\n', '\r'] as const)(
  'S3-01 a stream of single bytes, lines ended by %j, arrives unchanged',
  async (newline) => {
    const stream = `\uFEFF: hello${newline}${newline}${[...textStream('héllo 🙂 you')].map((event) => frame(event, { newline })).join('')}data: [DONE]${newline}${newline}`;
    expect((await received(stream, byBytes)).toString()).toBe(stream);
  },
);

test('S3-01 a stream cut in two at any byte arrives unchanged', async () => {
  const events = [
    frame(chunk([choice(0, { content: 'a🙂' })])),
    frame(chunk([choice(0, {}, 'stop')]), { newline: '\r\n' }),
  ];
  const stream = Buffer.from(`${events.join('')}data: [DONE]\n\n`);
  for (let at = 1; at < stream.length; at += 1) expect(await received(stream, cutAt([at]))).toEqual(stream);
}, 30_000);

test('bytes that are not UTF-8 arrive unchanged', async () => {
  const stream = Buffer.concat([
    Buffer.from(frame(chunk([choice(0, { content: 'x' })]))),
    Buffer.from('data: {"choices":[],"odd":"'),
    Buffer.from([0xff, 0xfe, 0x80]),
    Buffer.from('"}\n\n'),
    Buffer.from(`${frame(chunk([choice(0, {}, 'stop')]))}data: [DONE]\n\n`),
  ]);
  expect(await received(stream)).toEqual(stream);
});

test('an end mark without its blank line counts as an end', async () => {
  const stream = `${frame(chunk([choice(0, { content: 'x' })]))}${frame(chunk([choice(0, {}, 'stop')]))}data: [DONE]\n`;
  expect((await received(stream)).toString()).toBe(`${stream}\n`);
});

test('a stream of a server that ends without [DONE] is whole once its choices have finished', async () => {
  const stream = [...textStream('hello')].map((event) => frame(event)).join('');
  expect((await received(stream)).toString()).toBe(stream);
});

const usage = usageOf(3, 4);
const withUsage = (newline: '\n' | '\r\n' | '\r') =>
  textStream('hello you', { usage }).map((event) => frame(event, { newline }));

test.each(['\n', '\r\n', '\r'] as const)(
  'the usage event that only the gateway asked for is taken out, lines ended by %j',
  async (newline) => {
    const events = withUsage(newline);
    const expected = `${events.slice(0, -1).join('')}data: [DONE]${newline}${newline}`;
    for (const cut of [byBytes, cutBySizes([9999]), cutBySizes([7, 50])]) {
      const stream = `${events.join('')}data: [DONE]${newline}${newline}`;
      expect((await received(stream, cut)).toString()).toBe(expected);
    }
  },
);

test('the usage event stays when the client asked for it', async () => {
  const stream = `${withUsage('\n').join('')}data: [DONE]\n\n`;
  expect((await received(stream, byBytes, asksUsage)).toString()).toBe(stream);
});

test('the usage event is taken out wherever the reads are cut', async () => {
  const tail = `${frame(usageChunk(usage))}data: [DONE]\n\n`;
  const head = `${frame(chunk([choice(0, { content: 'x' })]))}${frame(chunk([choice(0, {}, 'stop')]))}`;
  for (let at = head.length - 2; at < head.length + tail.length; at += 7)
    expect((await received(head + tail, cutAt([at]))).toString()).toBe(`${head}data: [DONE]\n\n`);
});

test('usage in an event that says something stays', async () => {
  const event = { ...chunk([choice(0, {}, 'stop')]), usage };
  const stream = `${frame(chunk([choice(0, { content: 'x' })]))}${frame(event)}data: [DONE]\n\n`;
  expect((await received(stream)).toString()).toBe(stream);
});

test.each([
  ['asks for nothing', {}, { include_usage: true }],
  ['asks for it', asksUsage, { include_usage: true }],
  ['declines it', { stream_options: { include_usage: false } }, { include_usage: true }],
  [
    'has other options',
    { stream_options: { include_obfuscation: false } },
    { include_obfuscation: false, include_usage: true },
  ],
  ['has null options', { stream_options: null }, { include_usage: true }],
])('the provider is asked for usage exactly once when the client %s', async (_name, body, expected) => {
  const index = upstream.requests.length;
  upstream.next({ stream: { events: textStream('hi') } });
  await readStream(gateway, '', body);
  const text = upstream.requests[index]!.body.toString();
  expect(text.split('stream_options')).toHaveLength(2);
  expect(JSON.parse(text)).toMatchObject({ stream: true, stream_options: expected });
});

test('a provider that must not be asked for usage is not', async () => {
  await using plain = await startGateway(configFor(upstream.url, { provider: { streamUsage: false } }));
  const index = upstream.requests.length;
  upstream.next({ stream: { events: textStream('hi') } });
  await readStream(plain);
  expect(upstream.requests[index]!.body.toString()).not.toContain('stream_options');
});

test('S3-07 S3-11 a stream has the headers that keep proxies from buffering it', async () => {
  upstream.next({
    stream: { events: textStream('hi') },
    headers: { 'cache-control': 'no-store', 'x-accel-buffering': 'yes' },
  });
  const response = await askStream(gateway);
  await response.bytes();
  expect(response.status).toBe(200);
  expect(response.headerValues('content-type')).toEqual(['text/event-stream']);
  expect(response.headerValues('cache-control')).toEqual(['no-cache, no-transform']);
  expect(response.headerValues('x-accel-buffering')).toEqual(['no']);
  expect(response.headerValues('content-length')).toEqual([]);
  expect(response.headerValues('content-encoding')).toEqual([]);
  expect(response.headerValues('transfer-encoding')).toEqual(['chunked']);
});

test('S3-01 each event is with the client before the provider sends the next', async () => {
  const events = textStream('one two three four', { size: 5 });
  const gates = events.map(() => new Gate());
  upstream.next({ stream: { events: events.flatMap((event, i) => [gates[i]!, event]) } });
  const asked = openStream(gateway);
  gates[0]!.open();
  const stream = await asked;
  for (const [i, event] of events.entries()) {
    gates[i]!.open();
    expect((await stream.next())?.data).toBe(JSON.stringify(event));
  }
  expect((await stream.rest()).done).toBe(true);
});

test('S3-06 fragments of tool arguments arrive one by one as they come', async () => {
  const events = toolCallStream([{ name: 'search_documents', arguments: { query: 'wardgate' } }], { size: 3 });
  const gates = events.map(() => new Gate());
  upstream.next({ stream: { events: events.flatMap((event, i) => [gates[i]!, event]) } });
  gates[0]!.open();
  const stream = await openStream(gateway);
  for (const [i, event] of events.entries()) {
    gates[i]!.open();
    expect((await stream.next())?.data).toBe(JSON.stringify(event));
  }
});
