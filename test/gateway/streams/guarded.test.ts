import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { PluginFactory } from '../../../proto/contract.ts';
import { choice, chunk, deltaStream, frame, textStream, toolCallStream, usageOf } from '../../support/chunks.ts';
import { pieceSizes } from '../../support/cuts.ts';
import { startGateway, type TestGateway } from '../../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { readSse } from '../../support/sse.ts';
import { wordGuard } from './asked-guard.ts';
import { askStream, askWhole, dataOf, readStream } from './chat.ts';
import { dripped } from './drip.ts';
import { wildStream } from './framing.ts';
import { cut, ENTITIES, eventsOf, NOTHING, RULES, rhythm, wholeOf, woven, wovenChoice } from './woven.ts';

let upstream: ScriptedUpstream;
let gateway: TestGateway;

const secretGuard = wordGuard('secret-guard', 'S3CRET');
/** Looks for what no generated text begins to say. */
const absentGuard = wordGuard('absent-guard', '\uE000KEY');
/** Answers the same, but never at once. */
const lateSecretGuard: PluginFactory = {
  name: 'late-secret-guard',
  create(config) {
    const guard = secretGuard.create(config);
    return {
      ...guard,
      async stream(input) {
        await new Promise(setImmediate);
        return guard.stream!(input);
      },
    };
  },
};

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  const pii = (config: object) => ({ at: 'local:pii-guard', config });
  gateway = await startGateway(
    {
      providers: { up: { kind: 'openai-compatible', baseUrl: `${upstream.url}/v1` } },
      models: { '*': 'up' },
      plugins: {
        pii: pii({ rules: RULES }),
        strict: pii({ rules: RULES, action: 'reject' }),
        secret: { at: 'local:secret-guard' },
        absent: { at: 'local:absent-guard' },
        late: { at: 'local:late-secret-guard' },
      },
      routes: {
        '/plain': {},
        '/pii': { plugins: ['pii'] },
        '/strict': { plugins: ['strict'] },
        '/two': { plugins: ['secret', 'pii'] },
        '/late': { plugins: ['pii', 'late'] },
        '/secret': { plugins: ['secret'] },
        '/clean': { plugins: ['absent'] },
      },
    },
    { factories: [secretGuard, lateSecretGuard, absentGuard] },
  );
});

afterAll(async () => {
  await gateway.stop();
  await upstream.close();
});

describe.each(['/pii', '/two', '/late'])('on a route %s', (route) => {
  test('any answer in any deltas and any pieces is masked as the whole answer is, and stays well-formed', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(wovenChoice, { minLength: 1, maxLength: 3 }),
        rhythm,
        pieceSizes,
        async (said, beat, sizes) => {
          upstream.next({ stream: { events: dripped(eventsOf(said, beat), sizes) } }, { whole: wholeOf(said) });
          const streamed = await readStream(gateway, route, { n: said.length });
          const whole = await (await askWhole(gateway, route, { n: said.length })).text();
          const body = JSON.parse(whole) as {
            choices: { message: Record<string, unknown> & { tool_calls: { function: { arguments: string } }[] } }[];
          };
          for (const [i, wanted] of said.entries()) {
            const { message } = body.choices[i]!;
            expect(streamed.content[i]).toBe(wanted.content.masked);
            expect(message.content).toBe(wanted.content.masked);
            expect(streamed.reasoning[i]).toBe(wanted.reasoning.masked);
            expect(message.reasoning_content).toBe(wanted.reasoning.masked);
            expect(streamed.refusal[i]).toBe(wanted.refusal.masked);
            expect(message.refusal).toBe(wanted.refusal.masked);
            const tools = wanted.tools.map(({ masked }) => masked);
            expect(streamed.toolCalls[i]!.map((call) => call.arguments)).toEqual(tools);
            expect(message.tool_calls.map((call) => call.function.arguments)).toEqual(tools);
            for (const value of [wanted.content, wanted.reasoning, wanted.refusal, ...wanted.tools].flatMap(
              ({ values }) => values,
            )) {
              expect(streamed.rawText).not.toContain(value);
              expect(whole).not.toContain(value);
            }
            expect(streamed.toolCalls[i]!.map(({ id, name }) => `${id} ${name}`)).toEqual(
              tools.map((_, at) => `call_${at} send`),
            );
          }
          expect(streamed.finish).toEqual(said.map(() => 'stop'));
          const finishes = streamed.chunks.flatMap((one) => one.choices).filter((one) => one.finish_reason !== null);
          expect(finishes).toHaveLength(said.length);
          expect(dataOf(streamed).filter((data) => data === '[DONE]')).toHaveLength(1);
          expect(dataOf(streamed).at(-1)).toBe('[DONE]');
          expect(streamed.errors).toEqual([]);
        },
      ),
      { numRuns: 60 },
    );
  }, 30_000);

  test('nothing is said on a choice after its finish', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(wovenChoice, { minLength: 1, maxLength: 3 }), rhythm, async (said, beat) => {
        upstream.next({ stream: { events: eventsOf(said, beat), chunking: 'event' } });
        const { chunks } = await readStream(gateway, route, { n: said.length });
        const finished = new Set<number>();
        for (const { choices } of chunks) {
          for (const { index, delta, finish_reason } of choices) {
            if (finished.has(index)) expect(delta).toEqual({});
            if (finish_reason) finished.add(index);
          }
        }
      }),
      { numRuns: 25 },
    );
  }, 30_000);
});

test('a rejecting guard says the same of a stream and of the whole answer, and lets no value out', async () => {
  await fc.assert(
    fc.asyncProperty(woven, rhythm, async (text, beat) => {
      const said = [{ content: text, reasoning: NOTHING, refusal: NOTHING, tools: [] }];
      upstream.next({ stream: { events: eventsOf(said, beat) } }, { whole: wholeOf(said) });
      const answer = await askStream(gateway, '/strict');
      const streamed = await readSse(answer);
      const whole = await askWhole(gateway, '/strict');
      const isBad = text.values.length > 0;
      expect(whole.status).toBe(isBad ? 403 : 200);
      expect(streamed.done).toBe(!isBad);
      const error = { code: 'pii_detected', type: 'invalid_request_error', param: 'strict' };
      // A value in the first read is found before the stream has begun.
      if (answer.status === 403) expect(JSON.parse(streamed.rawText)).toMatchObject({ error });
      else expect(streamed.errors).toMatchObject(isBad ? [error] : []);
      expect(text.said.startsWith(streamed.content[0] ?? '')).toBe(true);
      for (const value of text.values) expect(streamed.rawText).not.toContain(value);
    }),
    { numRuns: 60 },
  );
}, 30_000);

test.each(ENTITIES)('$value is masked wherever two deltas cut it', async ({ value, mask }) => {
  for (let at = 1; at < value.length; at += 1) {
    const text = `Write to ${value}, please.`;
    const deltas = [text.slice(0, 9 + at), text.slice(9 + at)].map((content) => ({ content }));
    upstream.next({ stream: { events: deltaStream([deltas]) } });
    const { rawText, content } = await readStream(gateway, '/pii');
    expect(content).toEqual([`Write to ${mask}, please.`]);
    expect(rawText).not.toContain(value.slice(0, Math.max(at, 5)));
  }
});

test.each(ENTITIES)('$value said in single characters that come as single bytes is masked', async ({ value, mask }) => {
  const deltas = cut(`To ${value}, ${value}.`, [1]).map((content) => ({ content }));
  upstream.next({ stream: { events: dripped(deltaStream([deltas])) } });
  const { content, done } = await readStream(gateway, '/pii');
  expect(content).toEqual([`To ${mask}, ${mask}.`]);
  expect(done).toBe(true);
});

test('a value at the very end is masked before the finish', async () => {
  for (const { value, mask } of ENTITIES) {
    upstream.next({ stream: { events: textStream(`It is ${value}`, { size: 3 }) } });
    const { chunks, content, finish } = await readStream(gateway, '/pii');
    expect(content).toEqual([`It is ${mask}`]);
    expect(finish).toEqual(['stop']);
    expect(chunks.at(-1)!.choices[0]!.finish_reason).toBe('stop');
  }
});

test('S3-01 clean events come out byte for byte, in any framing and any pieces', async () => {
  await fc.assert(
    fc.asyncProperty(wildStream, pieceSizes, async (stream, sizes) => {
      upstream.next({ stream: { events: dripped(stream, sizes), end: 'close-without-done' } });
      const asksUsage = { stream_options: { include_usage: true } };
      const bytes = await (await askStream(gateway, '/clean', asksUsage)).bytes();
      expect(bytes.toString()).toBe(stream.replace(/^\uFEFF/, ''));
    }),
    { numRuns: 100 },
  );
}, 30_000);

test('S3-01 events before and after a masked one come out byte for byte', async () => {
  const odd = { ...chunk([choice(0, { content: 'clean one ', zz: 1 })]), x_unknown: { deep: [1, null] } };
  const stream = [
    frame(odd, { newline: '\r\n', space: false }),
    frame(chunk([choice(0, { content: 'S3CRET ' })])),
    ': still here\n\n',
    frame({ zz: 2, ...odd }),
  ];
  upstream.next({ stream: { events: [...stream, chunk([choice(0, {}, 'stop')])], chunking: 'whole' } });
  const { rawText, content } = await readStream(gateway, '/secret');
  expect(content).toEqual(['clean one <WORD> clean one ']);
  for (const at of [0, 2, 3]) expect(rawText).toContain(stream[at]!);
});

test('S3-06 fragments of tool arguments stay separate deltas when the guard finds nothing', async () => {
  const events = toolCallStream([{ name: 'search', arguments: { query: 'plain words only' } }], { size: 3 });
  upstream.next({ stream: { events } });
  const { chunks } = await readStream(gateway, '/secret');
  expect(chunks).toEqual(events);
});

test('the usage event that only the gateway asked for is taken out, and stays when the client asked', async () => {
  const usage = usageOf(3, 4);
  const events = textStream('To jane@example.com.', { usage });
  upstream.next({ stream: { events } }, { stream: { events } });
  const without = await readStream(gateway, '/pii');
  expect(without.usage).toBeUndefined();
  expect(without.chunks.every(({ choices }) => choices.length > 0)).toBe(true);
  const asked = await readStream(gateway, '/pii', { stream_options: { include_usage: true } });
  expect(asked.usage).toEqual(usage);
  expect(asked.content).toEqual(['To <EMAIL>.']);
});

test('many small events in one read go through a guard that answers at once', async () => {
  const text = 'hello you '.repeat(2_000);
  upstream.next({ stream: { events: textStream(text, { size: 2 }), chunking: 'whole' } });
  const { content, done } = await readStream(gateway, '/pii');
  expect(content).toEqual([text]);
  expect(done).toBe(true);
});

test('a number that is masked inside tool arguments leaves JSON behind', async () => {
  for (const size of [1, 2, 5, 40]) {
    const json = '{"card": 4111111111111111, "next": [5555555555554444], "n": -1.5e3, "t": true}';
    upstream.next({ stream: { events: toolCallStream([{ name: 'pay', arguments: json }], { size }) } });
    const { toolCalls } = await readStream(gateway, '/pii');
    expect(JSON.parse(toolCalls[0]![0]!.arguments)).toEqual({ card: '<CARD>', next: ['<CARD>'], n: -1500, t: true });
  }
});

test('what a guard adds behind the last text of a read is not lost', async () => {
  upstream.next({ stream: { events: toolCallStream([{ name: 'pay', arguments: '4111111111111111' }], { size: 40 }) } });
  const { toolCalls } = await readStream(gateway, '/pii');
  expect(toolCalls[0]![0]!.arguments).toBe('"<CARD>"');
});

test('a text is masked also where a server sends it in a shape that the dialect does not have', async () => {
  const mail = 'jane.roe@example.com';
  const deltas = [
    { content: [{ type: 'text', text: `To ${mail} ` }] },
    { tool_calls: [{ index: 0, id: 'call_1', function: { name: 'send', arguments: { to: mail } } }] },
    { reasoning_details: [{ type: 'reasoning.text', text: mail }] },
    { audio: { transcript: mail } },
  ];
  const message = { role: 'assistant', content: `It is ${mail}` };
  const odd = chunk([{ ...choice(0, { content: 'x ' }), message } as never]);
  upstream.next({ stream: { events: [odd, ...deltaStream([deltas])] } });
  const { rawText, done } = await readStream(gateway, '/pii');
  expect(rawText).not.toContain('jane');
  // The message beside a delta repeats what the deltas say: it is left out.
  expect(rawText.match(/<EMAIL>/g)).toHaveLength(4);
  expect(rawText).not.toContain('It is');
  expect(done).toBe(true);
  upstream.next({ whole: { choices: [{ index: 0, message: { tool_calls: deltas[1]!.tool_calls } }] } });
  expect(await (await askWhole(gateway, '/pii')).text()).not.toContain('jane');
});

test.each([
  ['reasoning_details', (text: string) => ({ reasoning_details: [{ type: 'reasoning.text', text }] })],
  ['content parts', (text: string) => ({ content: [{ type: 'text', text }] })],
  ['an audio transcript', (text: string) => ({ audio: { transcript: text } })],
])('a text that goes on from event to event in %s is masked where it was split', async (_name, delta) => {
  const pieces = ['Write to ja', 'ne.roe@exa', 'mple.com, ', 'plea', 'se'];
  upstream.next({ stream: { events: deltaStream([pieces.map((piece) => delta(piece))]) } });
  const { rawText, done } = await readStream(gateway, '/pii');
  for (const piece of ['ja"', 'jane', 'roe', 'exa"', 'mple.com']) expect(rawText).not.toContain(piece);
  const shown = [...rawText.matchAll(/"(?:text|transcript)":"([^"]*)"/g)].map(([, text]) => text);
  expect(shown.filter((text) => text !== 'text').join('')).toBe('Write to <EMAIL>, please');
  expect(done).toBe(true);
});

test('a comment before the first event commits to nothing', async () => {
  const events = [': PROCESSING\n\n', 'data: {"error":{"message":"overloaded"}}\n\n'];
  for (const route of ['/pii', '/plain']) {
    upstream.next({ stream: { events } });
    const answer = await askWhole(gateway, route, { stream: true });
    expect(answer.status).toBe(502);
    expect(await answer.text()).toContain('upstream_failed');
  }
});

test('a stream in which one of two choices never finished has not finished', async () => {
  const said = chunk([choice(0, { content: 'a ' }), choice(1, { content: 'b ' })]);
  upstream.next({ stream: { events: [said, chunk([choice(0, {}, 'stop')])], end: 'close-without-done' } });
  const { errors, done } = await readStream(gateway, '/secret', { n: 2 });
  expect(errors).toMatchObject([{ code: 'stream_broken' }]);
  expect(done).toBe(false);
});

test.each(['\n', '\r\n', '\r'] as const)(
  'a guarded stream with lines ended by %j ends with its [DONE]',
  async (newline) => {
    const events = textStream('To jane@example.com.').map((event) => frame(event, { newline }));
    upstream.next({
      stream: { events: dripped(`${events.join('')}data: [DONE]${newline}${newline}`), end: 'close-without-done' },
    });
    expect(await readStream(gateway, '/pii')).toMatchObject({ content: ['To <EMAIL>.'], finish: ['stop'], done: true });
  },
);
