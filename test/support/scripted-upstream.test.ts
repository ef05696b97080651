import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import * as chunks from './chunks.ts';
import { openConnection, send } from './client.ts';
import { cutAt, cutBySizes, cutOffsets, pieceSizes } from './cuts.ts';
import { Gate } from './gate.ts';
import { type ScriptedUpstream, startScriptedUpstream } from './scripted-upstream.ts';
import { readSse, SseStream } from './sse.ts';

let upstream: ScriptedUpstream;
beforeEach(async () => {
  upstream = await startScriptedUpstream();
});
afterEach(() => upstream.close());

const post = (body: object = {}) => send(`${upstream.url}/v1/chat/completions?a=b`, { body });
const hello = chunks.textStream('Hello 😀 world');

describe('a request is recorded', () => {
  test('as it came: method, path with query, headers with duplicates, the bytes of the body', async () => {
    upstream.next({ whole: {} });
    const headers = { 'X-Twice': ['1', '2'], 'content-type': 'text/plain' };
    await send(`${upstream.url}/path?q=1`, { method: 'PUT', headers, body: Buffer.from([0xff, 0x00]) });
    const request = await upstream.arrived();
    expect(request).toMatchObject({ method: 'PUT', path: '/path?q=1', body: Buffer.from([0xff, 0x00]) });
    expect(request.headerValues('x-twice')).toEqual(['1', '2']);
    expect(request.headers).toContainEqual(['X-Twice', '1']);
    expect(await request.closed).toBe('answered');
  });

  test('with a 500 that says so when nothing was scripted', async () => {
    const response = await post();
    expect(response.status).toBe(500);
    expect(await response.text()).toContain('scripted nothing for request 0');
  });

  test('and answered by a function of it, once by next and then by always', async () => {
    upstream.next({ whole: 'first' }).always((request) => ({ whole: request.method }));
    expect(await (await post()).text()).toBe('first');
    expect(await (await post()).text()).toBe('POST');
  });

  test('with its body unread until the test says so', async () => {
    const readBodyAfter = new Gate();
    upstream.next({ whole: 'read', readBodyAfter });
    const answer = post({ text: 'hello' });
    const request = await upstream.arrived();
    expect(request.body.length).toBe(0);
    readBodyAfter.open();
    expect(await (await answer).text()).toBe('read');
    expect(request.json()).toEqual({ text: 'hello' });
  });

  test('and may be answered before its body has come', async () => {
    upstream.next({ whole: 'no', status: 413, early: true });
    const connection = await openConnection(upstream.url);
    await connection.send('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n');
    expect((await connection.response()).status).toBe(413);
    connection.destroy();
  });
});

describe('a stream', () => {
  test('goes out event by event, ended by [DONE]', async () => {
    upstream.next({ stream: { events: hello } });
    const response = await post();
    const said = await readSse(response);
    expect(said).toMatchObject({ content: ['Hello 😀 world'], finish: ['stop'], done: true, cut: undefined });
    expect(response.header('content-type')).toBe('text/event-stream');
  });

  test('reaches the client in the pieces that were asked for', async () => {
    const events = ['abc', 'defg'];
    const end = 'close-without-done' as const;
    const pieces = async (chunking: 'byte' | 'whole' | number[] | ((bytes: Buffer) => Buffer[])) => {
      upstream.next({ stream: { events, end, chunking } });
      const received: string[] = [];
      for await (const piece of (await post()).chunks) received.push(piece.toString());
      return received;
    };
    expect(await pieces('byte')).toEqual(['a', 'b', 'c', 'd', 'e', 'f', 'g']);
    expect(await pieces('whole')).toEqual(['abcdefg']);
    expect(await pieces([2, 5])).toEqual(['ab', 'cde', 'fg']);
    expect(await pieces(cutBySizes([1, 3]))).toEqual(['a', 'bcd', 'e', 'fg']);
  });

  test('says the same however its bytes are cut', async () => {
    const scripted = chunks.toolCallStream([{ name: 'a', arguments: { text: '😀 ü' } }], {
      usage: chunks.usageOf(3, 4),
    });
    await fc.assert(
      fc.asyncProperty(pieceSizes, async (sizes) => {
        upstream.next({ stream: { events: scripted, chunking: cutBySizes(sizes) } });
        const said = await readSse(await post());
        expect(said.toolCalls).toEqual([[{ id: 'call_1', name: 'a', arguments: '{"text":"😀 ü"}' }]]);
        expect(said).toMatchObject({ finish: ['tool_calls'], usage: chunks.usageOf(3, 4), done: true });
      }),
      { numRuns: 25 },
    );
  });

  test('waits at gates and at its stall until the test goes on', async () => {
    const gate = new Gate();
    upstream.next({ stream: { events: [hello[0]!, gate, ...hello.slice(1)], stallAfterEvents: 3 } });
    const stream = new SseStream(await post());
    await stream.next();
    const request = await upstream.arrived();
    expect(stream.result.chunks.length).toBe(1);
    gate.open();
    await stream.until(({ chunks: seen }) => seen.length === 3);
    expect(stream.result.content).toEqual(['Hello 😀 ']);
    request.release();
    expect(await stream.rest()).toMatchObject({ content: ['Hello 😀 world'], done: true });
  });

  test('may end well but without [DONE]', async () => {
    upstream.next({ stream: { events: hello, end: 'close-without-done' } });
    expect(await readSse(await post())).toMatchObject({ finish: ['stop'], done: false, cut: undefined });
  });

  test.each(['cut', 'reset'] as const)('may be broken by a %s after any byte', async (end) => {
    upstream.next({ stream: { events: hello, cutAfterBytes: 100, end } });
    const said = await readSse(await post());
    expect(said.rawText.length).toBe(100);
    expect(said).toMatchObject({ done: false, cut: expect.any(Error) });
    expect(await (await upstream.arrived()).closed).toBe('cut');
  });

  test('may be malformed: BOM, CR, CRLF, comments, several data lines, no space, garbage, an error event', async () => {
    const [first] = hello;
    const events = [
      `\uFEFF: comment\n\n${chunks.frame(first!, { newline: '\r' })}`,
      chunks.frame(JSON.stringify(chunks.completion('x'), null, 1), { newline: '\r\n', space: false }),
      'garbage\n\n',
      chunks.frame(chunks.errorBody('overloaded', { code: 'busy' }), { event: 'error' }),
    ];
    upstream.next({ stream: { events, end: 'close-without-done' } });
    const said = await readSse(await post());
    expect(said.comments).toEqual(['comment']);
    expect(said.chunks.length).toBe(2);
    expect(said.errors).toEqual([{ message: 'overloaded', type: 'server_error', param: null, code: 'busy' }]);
  });

  test('shows that its reader is slow, and that it left', async () => {
    const block = chunks.chunk([chunks.choice(0, { content: 'x'.repeat(100_000) })]);
    const endless = (function* () {
      for (;;) yield block;
    })();
    upstream.next({ stream: { events: endless } });
    const response = await post();
    const request = await upstream.arrived();
    expect(await request.untilStuck()).toBeGreaterThan(0);
    response.connection.destroy();
    expect(await request.closed).toBe('left');
    expect(request.closedAtMs).toBeGreaterThan(request.arrivedAtMs);
  });
});

describe('an answer', () => {
  test('may be any status with any body and headers', async () => {
    const whole = chunks.errorBody('slow down', { type: 'requests', code: 'rate_limit_exceeded' });
    upstream.next({ status: 429, whole, headers: { 'Retry-After': '1' } });
    upstream.next({ status: 502, whole: '<html>Bad gateway</html>', contentType: 'text/html' });
    const limited = await post();
    expect([limited.status, limited.header('retry-after')]).toEqual([429, '1']);
    const html = await post();
    expect([html.status, html.header('content-type'), await html.text()]).toEqual([
      502,
      'text/html',
      '<html>Bad gateway</html>',
    ]);
  });

  test('may be cut in the middle of a whole body', async () => {
    upstream.next({ whole: 'x'.repeat(100), cutAfterBytes: 10 });
    const response = await post();
    await expect(response.text()).rejects.toThrow('90 of 100 bytes are missing');
    expect(response.received.length).toBe(10);
  });

  test('may wait for a gate or a time before its headers', async () => {
    const after = new Gate();
    upstream.next({ whole: 'late', after, latencyMs: 30 });
    const answer = post();
    await (await upstream.arrived()).bodyRead;
    const openedMs = performance.now();
    after.open();
    await answer;
    expect(performance.now() - openedMs).toBeGreaterThanOrEqual(29);
  });

  test.each(['reset', 'close'] as const)('may be a %s before any headers', async (fault) => {
    upstream.next({ fault });
    await expect(post()).rejects.toThrow(/ECONNRESET|closed/);
  });

  test('may never come', async () => {
    upstream.next({ fault: 'silence' });
    const connection = await openConnection(upstream.url);
    await connection.request({ path: '/' });
    const request = await upstream.arrived();
    expect(upstream.openConnections).toBe(1);
    connection.destroy();
    expect(await request.closed).toBe('left');
  });

  test('may be something other than HTTP', async () => {
    upstream.next({ raw: 'nonsense\r\n\r\n' });
    await expect(post()).rejects.toThrow('Not an HTTP/1 answer');
  });
});

test('cuts lose no byte', () => {
  const bytes = fc.uint8Array({ maxLength: 200 }).map((array) => Buffer.from(array));
  const cutBytes = bytes.chain((all) => fc.tuple(fc.constant(all), cutOffsets(all.length), pieceSizes));
  fc.assert(
    fc.property(cutBytes, ([all, offsets, sizes]) => {
      expect(Buffer.concat(cutAt(offsets)(all))).toEqual(all);
      expect(Buffer.concat(cutBySizes(sizes)(all))).toEqual(all);
    }),
  );
});
