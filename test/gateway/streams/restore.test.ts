/** Reversible masks: the provider never sees the original, the person who asked always does. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { SegmentsInput } from '../../../proto/contract.ts';
import { completion, deltaStream, textStream, toolCallCompletion, toolCallStream } from '../../support/chunks.ts';
import { pieceSizes } from '../../support/cuts.ts';
import { startGateway, type TestGateway, testPlugin } from '../../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { askWhole, readStream } from './chat.ts';
import { dripped } from './drip.ts';
import { cut } from './woven.ts';

/** Originals that JSON must escape. */
const AWKWARD = { 'NAME-1': 'Jane "JR" Roe', 'NAME-12': 'back\\slash\nand line', 'NAME-2': 'tab\t— 🙂 \u0007' };

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  const placeholders = Object.entries(AWKWARD).map(([placeholder, original]) => ({ placeholder, original }));
  const names = testPlugin('names', {
    request: ({ segments }: SegmentsInput) => ({
      rewrite: {
        segments: segments.map(({ id, text }) => ({
          id,
          text: placeholders.reduce(
            (masked, { placeholder, original }) => masked.replaceAll(original, placeholder),
            text,
          ),
        })),
        placeholders,
      },
    }),
  });
  gateway = await startGateway(
    {
      providers: { up: { kind: 'openai-compatible', baseUrl: `${upstream.url}/v1` } },
      models: { '*': 'up' },
      plugins: {
        pii: { at: 'local:pii-guard', config: { rules: ['email', 'credit-card'], action: 'restore' } },
        names: { at: 'local:names' },
      },
      routes: {
        '/pii': { plugins: ['pii'] },
        '/names': { plugins: ['names'] },
        '/both': { plugins: ['names', 'pii'] },
      },
    },
    { factories: [names], log: 'debug' },
  );
});

afterAll(async () => {
  await gateway.stop();
  await upstream.close();
});

const MAIL = 'jane.roe@example.com';
const OTHER = 'joe@example.org';
const prompt = (content: string) => ({ messages: [{ role: 'user', content }] });
const ASKED = prompt(`I am ${MAIL}, he is ${OTHER}, and ${MAIL} again.`);

/** The prompt as the provider got it in the newest request. */
function promptUpstream(): string {
  const { messages } = upstream.requests.at(-1)!.json<{ messages: { content: string }[] }>();
  return messages[0]!.content;
}

test('the provider sees masks, the same for equal values, and the client its own words', async () => {
  upstream.next({ whole: completion('Hello <EMAIL_1> and <EMAIL_2>.') });
  const body = await (await askWhole(gateway, '/pii', ASKED)).json<{ choices: { message: { content: string } }[] }>();
  expect(promptUpstream()).toBe('I am <EMAIL_1>, he is <EMAIL_2>, and <EMAIL_1> again.');
  expect(upstream.requests.at(-1)!.body.toString()).not.toContain('example');
  expect(body.choices[0]!.message.content).toBe(`Hello ${MAIL} and ${OTHER}.`);
});

test('a mask is restored wherever deltas cut it', async () => {
  const text = 'To <EMAIL_1>, <EMAIL_2>!';
  for (let one = 1; one < text.length; one += 1) {
    const deltas = [text.slice(0, one), text.slice(one, one + 3), text.slice(one + 3)].map((content) => ({ content }));
    upstream.next({ stream: { events: deltaStream([deltas]) } });
    const { content, done } = await readStream(gateway, '/pii', ASKED);
    expect(content).toEqual([`To ${MAIL}, ${OTHER}!`]);
    expect(done).toBe(true);
  }
  expect(upstream.requests.at(-1)!.body.toString()).not.toContain('example');
});

test('a mask said in single characters that come as single bytes is restored', async () => {
  const deltas = cut('To <EMAIL_1>, <EMAIL_2>!', [1]).map((content) => ({ content }));
  upstream.next({ stream: { events: dripped(deltaStream([deltas])) } });
  expect((await readStream(gateway, '/pii', ASKED)).content).toEqual([`To ${MAIL}, ${OTHER}!`]);
});

test('what only looks like a mask stays as it is', async () => {
  const text = '<EMAIL_9> <EMAIL_> <EMAIL_1 > <email_1> <<EMAIL_3>> EMAIL_1 <EMAIL_1';
  upstream.next({ stream: { events: textStream(text, { size: 3 }) } }, { whole: completion(text) });
  expect((await readStream(gateway, '/pii', ASKED)).content).toEqual([text]);
  expect(await (await askWhole(gateway, '/pii', ASKED)).json()).toMatchObject({
    choices: [{ message: { content: text } }],
  });
});

test('a mask that the prompt already contains is not given to another value', async () => {
  const asked = prompt(`What does <EMAIL_1> mean? I am ${MAIL}.`);
  upstream.next({ stream: { events: textStream('<EMAIL_1> is not <EMAIL_2>.') } });
  const { content } = await readStream(gateway, '/pii', asked);
  expect(promptUpstream()).toBe('What does <EMAIL_1> mean? I am <EMAIL_2>.');
  expect(content).toEqual([`<EMAIL_1> is not ${MAIL}.`]);
});

test('an address that the model makes up is masked beside one that is restored', async () => {
  upstream.next({ stream: { events: textStream('<EMAIL_1>, not new@example.net.', { size: 2 }) } });
  expect((await readStream(gateway, '/pii', ASKED)).content).toEqual([`${MAIL}, not <EMAIL>.`]);
});

test('masks of one request are not restored in another', async () => {
  upstream.next({ stream: { events: textStream('It is <EMAIL_1>.') } });
  expect((await readStream(gateway, '/pii', prompt('Who was that?'))).content).toEqual(['It is <EMAIL_1>.']);
});

describe('originals with quotes, backslashes and line breaks', () => {
  const asked = prompt(Object.values(AWKWARD).join(' | '));
  const template = 'a NAME-1 b NAME-12 c NAME-2 d NAME-';
  const shown = `a ${AWKWARD['NAME-1']} b ${AWKWARD['NAME-12']} c ${AWKWARD['NAME-2']} d NAME-`;

  test('are restored in text and inside the JSON of tool arguments, in any deltas and any pieces', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 12 }), fc.boolean(), pieceSizes, async (size, interleaved, sizes) => {
        const calls = [
          { name: 'one', arguments: { text: template } },
          { name: 'two', arguments: { nested: [template], n: 1 } },
        ];
        upstream.next(
          { stream: { events: dripped(textStream(template, { size }), sizes) } },
          { stream: { events: dripped(toolCallStream(calls, { size, interleaved }), sizes) } },
        );
        expect((await readStream(gateway, '/names', asked)).content).toEqual([shown]);
        expect(promptUpstream()).toBe('NAME-1 | NAME-12 | NAME-2');
        const { toolCalls, finish } = await readStream(gateway, '/names', asked);
        const [first, second] = toolCalls[0]!.map((call) => JSON.parse(call.arguments) as object);
        expect(first).toEqual({ text: shown });
        expect(second).toEqual({ nested: [shown], n: 1 });
        expect(finish).toEqual(['tool_calls']);
      }),
      { numRuns: 40 },
    );
  });

  test('are restored in a whole answer', async () => {
    upstream.next(
      { whole: completion([template, template]) },
      { whole: toolCallCompletion([{ name: 'one', arguments: { text: template } }]) },
    );
    const text = await (await askWhole(gateway, '/names', asked)).json();
    expect(text).toMatchObject({ choices: [{ message: { content: shown } }, { message: { content: shown } }] });
    const { choices } = await (await askWhole(gateway, '/names', asked)).json<{
      choices: { message: { tool_calls: { function: { arguments: string } }[] } }[];
    }>();
    expect(JSON.parse(choices[0]!.message.tool_calls[0]!.function.arguments)).toEqual({ text: shown });
  });

  test('are restored beside those of another guard', async () => {
    upstream.next({ stream: { events: textStream('NAME-1 has <EMAIL_1>', { size: 3 }) } });
    const { content } = await readStream(gateway, '/both', prompt(`${AWKWARD['NAME-1']}: ${MAIL}`));
    expect(promptUpstream()).toBe('NAME-1: <EMAIL_1>');
    expect(content).toEqual([`${AWKWARD['NAME-1']} has ${MAIL}`]);
  });
});

test('masks are restored in reasoning and refusals too', async () => {
  const deltas = [{ reasoning_content: 'Think of <EMA' }, { reasoning_content: 'IL_1>' }, { refusal: 'Not <EMAIL_2>' }];
  upstream.next({ stream: { events: deltaStream([deltas]) } });
  expect(await readStream(gateway, '/pii', ASKED)).toMatchObject({
    reasoning: [`Think of ${MAIL}`],
    refusal: [`Not ${OTHER}`],
  });
});

test('a mask whose brackets a server escapes inside tool arguments is restored', async () => {
  for (const json of ['{"to":"\\u003cEMAIL_1\\u003e"}', '{"to":"\\u003CEMAIL_1\\u003E"}']) {
    for (const size of [1, 4, 99]) {
      upstream.next({ stream: { events: toolCallStream([{ name: 'send', arguments: json }], { size }) } });
      const { toolCalls } = await readStream(gateway, '/pii', ASKED);
      expect(JSON.parse(toolCalls[0]![0]!.arguments)).toEqual({ to: MAIL });
    }
  }
});

test('no original is logged', () => {
  expect(gateway.logText).toContain('"msg":"request"');
  for (const original of [MAIL, OTHER, 'Jane', 'slash']) expect(gateway.logText).not.toContain(original);
});
