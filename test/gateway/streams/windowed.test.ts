/** Guards that know whole answers only are asked about streams window by window. */
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { PluginFactory, SegmentsInput } from '../../../proto/contract.ts';
import { guardFrom } from '../../../proto/scanner.ts';
import { choice, chunk, textStream, toolCallStream } from '../../support/chunks.ts';
import { Gate } from '../../support/gate.ts';
import { startGateway, type TestGateway, testPlugin } from '../../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { wordScanner } from './asked-guard.ts';
import { openStream, readStream } from './chat.ts';

const WORD = 'S3CRET';
const windows: string[] = [];

function wholeGuard(name: string, action: 'mask' | 'reject'): PluginFactory {
  const { response } = guardFrom(wordScanner(WORD, action), { code: 'word_found', message: () => 'Not this word.' });
  return testPlugin(name, {
    response(input: SegmentsInput) {
      windows.push(...input.segments.map(({ text }) => text));
      return response(input);
    },
  });
}

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  const window = { size: 20, overlap: 8 };
  gateway = await startGateway(
    {
      providers: { up: { kind: 'openai-compatible', baseUrl: `${upstream.url}/v1` } },
      models: { '*': 'up' },
      plugins: {
        mask: { at: 'local:mask', window },
        reject: { at: 'local:reject', window },
        silent: { at: 'local:silent', window, deadline: '20ms' },
        rough: { at: 'local:rough', window },
        narrowed: { at: 'local:pii-guard', hooks: ['request', 'response'], config: { rules: ['email'] } },
      },
      routes: Object.fromEntries(
        ['mask', 'reject', 'silent', 'rough', 'narrowed'].map((name) => [`/${name}`, { plugins: [name] }]),
      ),
    },
    {
      factories: [
        wholeGuard('mask', 'mask'),
        wholeGuard('reject', 'reject'),
        testPlugin('silent', { response: () => new Promise(() => {}) }),
        testPlugin('rough', {
          response: ({ segments }) => ({
            rewrite: {
              segments: segments.map(({ id, text }) => ({ id, text: text.replaceAll(/"?\b\d{4}\b"?/g, '<PIN>') })),
            },
          }),
        }),
      ],
    },
  );
});

afterAll(async () => {
  await gateway.stop();
  await upstream.close();
});

test('a value no longer than the overlap is masked wherever it lies and however the text is cut', async () => {
  const filler = fc.string({ unit: fc.constantFrom('a', 'S', '3', ' ', '🙂', 'é'), maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(
      fc.array(filler, { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 1, max: 30 }),
      async (parts, size) => {
        const text = parts.join(WORD);
        upstream.next({ stream: { events: textStream(text, { size }) } });
        const { content, done, finish } = await readStream(gateway, '/mask');
        expect(content).toEqual([text.replaceAll(WORD, '<WORD>')]);
        expect(finish).toEqual(['stop']);
        expect(done).toBe(true);
      },
    ),
    { numRuns: 120 },
  );
}, 30_000);

test('a value that lies across the border of two windows is masked at every place', async () => {
  for (let at = 0; at < 50; at += 1) {
    const text = `${'-'.repeat(at)}${WORD}${'-'.repeat(50 - at)}`;
    upstream.next({ stream: { events: textStream(text, { size: 3 }) } });
    expect((await readStream(gateway, '/mask')).content).toEqual([text.replace(WORD, '<WORD>')]);
  }
});

test('the guard is asked once a window is full, and once more at the end', async () => {
  windows.length = 0;
  const gates = [new Gate(), new Gate()];
  const said = (content: string) => chunk([choice(0, { content })]);
  const events = [
    said('0123456789'),
    said('0123456789'),
    gates[0]!,
    said('the end'),
    gates[1]!,
    chunk([choice(0, {}, 'stop')]),
  ];
  upstream.next({ stream: { events } });
  const stream = await openStream(gateway, '/mask');
  await stream.until(({ content }) => content[0] === '012345678901');
  gates[0]!.open();
  gates[1]!.open();
  expect((await stream.rest()).content).toEqual(['01234567890123456789the end']);
  expect(windows).toEqual(['01234567890123456789', '23456789the end']);
});

test('a rejection stops the stream before the window has been shown', async () => {
  const gate = new Gate();
  const clean = chunk([choice(0, { content: 'x'.repeat(30) })]);
  const bad = chunk([choice(0, { content: `${'y'.repeat(15)}${WORD}${'z'.repeat(15)}` })]);
  upstream.next({ stream: { events: [clean, gate, bad, chunk([choice(0, {}, 'stop')])] } });
  const stream = await openStream(gateway, '/reject');
  await stream.until(({ content }) => content[0] === 'x'.repeat(22));
  gate.open();
  const result = await stream.rest();
  expect(result).toMatchObject({
    content: ['x'.repeat(22)],
    done: false,
    errors: [{ code: 'word_found', param: 'reject' }],
  });
  expect(result.rawText).not.toContain('yyy');
});

test('a guard that does not answer about a window stops the stream', async () => {
  const gate = new Gate();
  const role = chunk([choice(0, { role: 'assistant', content: '' })]);
  upstream.next({ stream: { events: [role, gate, chunk([choice(0, { content: 'x'.repeat(30) })])] } });
  const stream = await openStream(gateway, '/silent');
  await stream.next();
  gate.open();
  expect(await stream.rest()).toMatchObject({ content: [''], errors: [{ code: 'guard_unavailable' }], done: false });
});

test('masked tool arguments are still JSON', async () => {
  for (const size of [1, 4, 60]) {
    upstream.next({
      stream: {
        events: toolCallStream([{ name: 'open', arguments: '{"pin": 1234, "say": "at 4321 sharp"}' }], { size }),
      },
    });
    const { toolCalls } = await readStream(gateway, '/rough');
    expect(JSON.parse(toolCalls[0]![0]!.arguments)).toEqual({ pin: '<PIN>', say: 'at <PIN> sharp' });
  }
});

test('a guard whose mount leaves out `stream` guards streams by its `response` hook', async () => {
  upstream.next({ stream: { events: textStream('Write to jane@example.com, please.') } });
  const { content, rawText } = await readStream(gateway, '/narrowed');
  expect(content).toEqual(['Write to <EMAIL>, please.']);
  expect(rawText).not.toContain('jane');
});
