/** A broken stream ends in exactly one error event and never in a [DONE]; before its first event it is a plain error. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { choice, chunk, completion, errorBody, frame, textStream } from '../../support/chunks.ts';
import type { RawResponse } from '../../support/client.ts';
import { Gate } from '../../support/gate.ts';
import { startGateway, type TestGateway } from '../../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { readSse, type SseResult } from '../../support/sse.ts';
import { askStream, dataOf, openStream, readStream } from './chat.ts';

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  const provider = { kind: 'openai-compatible', baseUrl: `${upstream.url}/v1` };
  gateway = await startGateway({
    providers: { up: provider, impatient: { ...provider, timeouts: { idle: '50ms', firstByte: '50ms' } } },
    models: { '*': 'up', impatient: { provider: 'impatient', model: 'any-model' } },
    plugins: { pii: { at: 'local:pii-guard', config: { rules: ['email'] } } },
    routes: { '/plain': {}, '/pii': { plugins: ['pii'] } },
  });
});

afterAll(async () => {
  await gateway.stop();
  await upstream.close();
});

const FIRST = chunk([choice(0, { role: 'assistant', content: '' })]);
const END = chunk([choice(0, {}, 'stop')]);
const says = (content: string) => chunk([choice(0, { content })]);

interface ErrorBody {
  error: { message: string; type: string; param: null; code: string };
}

/** An answer that is a plain error, in the dialect. */
async function plainError(response: RawResponse, status = 502): Promise<ErrorBody['error']> {
  expect(response.status).toBe(status);
  expect(response.header('content-type')).toBe('application/json');
  const body = await response.json<ErrorBody>();
  expect(Object.keys(body)).toEqual(['error']);
  expect(Object.keys(body.error).sort()).toEqual(['code', 'message', 'param', 'type']);
  return body.error;
}

/** A stream that broke: whole events, then one error event, then nothing. */
function expectBroken(result: SseResult): void {
  expect(result.errors).toHaveLength(1);
  expect(result.errors[0]).toMatchObject({ message: expect.any(String), type: 'server_error', param: null });
  expect(dataOf(result).at(-1)).toBe(JSON.stringify({ error: result.errors[0] }));
  expect(result.done).toBe(false);
  expect(result.rawText).not.toContain('[DONE]');
  expect(result.cut).toBeUndefined();
  expect(result.rawText.endsWith('\n\n')).toBe(true);
}

describe.each(['/plain', '/pii'])('on a route %s', (route) => {
  test.each(['reset', 'close'] as const)('a %s before the headers is a plain error', async (fault) => {
    // A lost connection is tried once more.
    upstream.next({ fault }, { fault });
    expect((await plainError(await askStream(gateway, route))).code).toBe('upstream_unreachable');
  });

  test('an answer that is not HTTP is a plain error', async () => {
    upstream.next({ raw: 'nonsense\r\n\r\n' }, { raw: 'nonsense\r\n\r\n' });
    expect((await plainError(await askStream(gateway, route))).code).toBe('upstream_unreachable');
  });

  test('a provider that does not begin in time is a plain error', async () => {
    upstream.next({ fault: 'silence' });
    const index = upstream.requests.length;
    const response = await askStream(gateway, route, { model: 'impatient' });
    expect((await plainError(response, 504)).code).toBe('upstream_timeout');
    expect(await upstream.requests[index]!.closed).toBe('left');
  });

  test.each([
    ['an error object', [errorBody('overloaded')]],
    ['an event of type error', [frame({ message: 'overloaded' }, { event: 'error' })]],
    ['an event of type error with CRLF', [frame({ message: 'overloaded' }, { event: 'error', newline: '\r\n' })]],
  ])('a stream that begins with %s is a plain error', async (_name, events) => {
    upstream.next({ stream: { events, chunking: 'whole' } });
    const error = await plainError(await askStream(gateway, route));
    expect(error.code).toBe('upstream_failed');
  });

  test.each([
    ['garbage', ['<html>it works</html>']],
    ['events that are no JSON', ['data: it works\n\n']],
    ['nothing at all', []],
    ['half an event', ['data: {"choices":[{"ind']],
  ])('a stream of %s is a plain error', async (_name, events) => {
    upstream.next({ stream: { events, end: 'close-without-done' } });
    expect((await plainError(await askStream(gateway, route))).code).toMatch(/^(?:upstream_bad_answer|stream_broken)$/);
  });

  test.each(['text/html', 'application/json', 'text/plain; charset=utf-8'])(
    'a page of type %s is a plain error',
    async (contentType) => {
      upstream.next({ whole: '<html>login</html>', contentType });
      const error = await plainError(await askStream(gateway, route));
      expect(error.code).toBe('upstream_bad_answer');
      expect(error.message).not.toContain('html');
    },
  );

  test('a whole answer in place of a stream is passed on as one, guarded', async () => {
    upstream.next({ whole: completion('To jane@example.com') });
    const response = await askStream(gateway, route);
    expect(response.header('content-type')).toBe('application/json');
    const { choices } = await response.json<{ choices: { message: { content: string } }[] }>();
    expect(choices[0]!.message.content).toBe(route === '/pii' ? 'To <EMAIL>' : 'To jane@example.com');
  });

  test.each(['cut', 'reset'] as const)(
    'a stream that breaks at any byte (%s) ends in one error event',
    async (end) => {
      const text = 'Hi 🙂 to jane@x.org and you.';
      const events = textStream(text, { size: 9 });
      const stream = Buffer.from(`${events.map((event) => frame(event)).join('')}data: [DONE]\n\n`);
      const shown = route === '/pii' ? text.replace('jane@x.org', '<EMAIL>') : text;
      const step = end === 'cut' ? 1 : 11;
      for (let at = 0; at < stream.length - 1; at += step) {
        upstream.next({ stream: { events: [stream], chunking: 'whole', end, ...{ cutAfterBytes: at } } });
        const response = await askStream(gateway, route);
        if (response.status !== 200) {
          await plainError(response);
          continue;
        }
        const result = await readSse(response);
        expectBroken(result);
        // What is left of an address that was cut short is no address.
        const said = result.content[0] ?? '';
        expect(shown.startsWith(said) || text.startsWith(said)).toBe(true);
      }
    },
    30_000,
  );

  test('a stream that falls silent ends in an error event', async () => {
    const index = upstream.requests.length;
    upstream.next({ stream: { events: [FIRST, says('Hello, ')], end: 'open' } });
    const result = await readStream(gateway, route, { model: 'impatient' });
    expectBroken(result);
    expect(result.content).toEqual(['Hello, ']);
    expect(await upstream.requests[index]!.closed).toBe('left');
  });

  test.each([
    ['closes before a finish', []],
    ['closes in the middle of an event', [frame(END).slice(0, -9)]],
    ['closes in the middle of an event after its finish', [END, 'data: {"choices":[],"usa']],
  ])('a stream that %s ends in an error event', async (_name, tail) => {
    upstream.next({ stream: { events: [FIRST, says('Hello, '), ...tail], end: 'close-without-done' } });
    const result = await readStream(gateway, route);
    expectBroken(result);
    expect(result).toMatchObject({ content: ['Hello, '], errors: [{ code: 'stream_broken' }] });
  });

  test.each([
    ['an error object', errorBody('overloaded')],
    [
      'an event of type error',
      frame({ error: { message: 'overloaded', type: 'server_error', param: null } }, { event: 'error' }),
    ],
  ])('%s in the middle ends the stream, and nothing that follows it is passed on', async (_name, error) => {
    const gate = new Gate();
    const index = upstream.requests.length;
    upstream.next({ stream: { events: [FIRST, says('Hello, '), gate, error, says('more'), END] } });
    const stream = await openStream(gateway, route);
    await stream.until(({ content }) => content[0] === 'Hello, ');
    gate.open();
    const result = await stream.rest();
    expectBroken({ ...result, events: result.events.map((event) => ({ ...event, event: undefined })) });
    expect(result.content).toEqual(['Hello, ']);
    expect(['left', 'answered']).toContain(await upstream.requests[index]!.closed);
  });
});

test('an event that cannot be read cannot be guarded: it ends the stream', async () => {
  const gate = new Gate();
  upstream.next({
    stream: {
      events: [FIRST, says('Hello, '), gate, says('you '), 'data: {"choices": [\n\n', says('more'), END],
      chunking: 'whole',
    },
  });
  const stream = await openStream(gateway, '/pii');
  await stream.until(({ content }) => content[0] === 'Hello, ');
  gate.open();
  const result = await stream.rest();
  expectBroken(result);
  expect(result).toMatchObject({ content: ['Hello, you '], errors: [{ code: 'upstream_bad_answer' }] });
});

test.each([
  ['a whole address', 'Write to jane@example.com', 'Write to <EMAIL>'],
  ['the beginning of an address', 'Write to jane@exa', 'Write to jane@exa'],
])(
  '%s that a guard still holds when the stream breaks is judged and shown before the error',
  async (_name, said, shown) => {
    for (const end of ['cut', 'close-without-done'] as const) {
      const gate = new Gate();
      upstream.next({ stream: { events: [FIRST, says(said), gate], end } });
      const stream = await openStream(gateway, '/pii');
      await stream.until(({ content }) => content[0] === 'Write to ');
      gate.open();
      const result = await stream.rest();
      expectBroken(result);
      expect(result.content).toEqual([shown]);
    }
  },
);

test('a failure after the end mark is of no interest', async () => {
  for (const route of ['/plain', '/pii']) {
    const stream = `${[...textStream('Hello')].map((event) => frame(event)).join('')}data: [DONE]\n\n`;
    upstream.next({ stream: { events: [stream], end: 'cut' } });
    expect(await readStream(gateway, route)).toMatchObject({ content: ['Hello'], done: true, errors: [] });
  }
});
