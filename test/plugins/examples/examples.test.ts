import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { completion, deltaStream, textStream } from '../../support/chunks.ts';
import { type RawResponse, send } from '../../support/client.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { readSse } from '../../support/sse.ts';
import { type Example, startExample } from './running.ts';

const NODE = process.execPath;

/** The three ways, each by its config and the command that its README gives. */
const EXAMPLES: { way: string; config: string; guard?: (port: number) => [string, ...string[]] }[] = [
  { way: 'in process', config: 'in-process.yaml' },
  {
    way: 'as a service',
    config: 'service.yaml',
    guard: () => [NODE, 'plugins/examples/code-name-service.ts'],
  },
  {
    way: 'as a service, by serve.ts',
    config: 'service.yaml',
    guard: (port) => [
      NODE,
      ...['plugins/serve.ts', './plugins/examples/code-name.ts'],
      ...['--grpc', `127.0.0.1:${port}`, '--http', 'off'],
    ],
  },
  { way: 'in Python', config: 'python.yaml', guard: (port) => ['python3', 'plugins/examples/guard.py', String(port)] },
];

const TEXT = 'BlueBird and bluebirds, a blue bird, bluebluebird, Blueberry and blueb';
const MASKED = '[project] and [project]s, a blue bird, blue[project], Blueberry and blueb';

describe.each(EXAMPLES)('the code-name guard $way', ({ config, guard }) => {
  let model: ScriptedUpstream;
  let example: Example;
  beforeAll(async () => {
    model = await startScriptedUpstream();
    example = await startExample(config, model.url, guard);
  });
  afterAll(async () => {
    await example?.[Symbol.asyncDispose]();
    await model.close();
  });

  const ask = (messages: object[], stream = false): Promise<RawResponse> =>
    send(`${example.url}/v1/chat/completions`, { body: { model: 'any', messages, stream } });
  const user = (content: string) => ({ role: 'user', content });

  test('refuses a prompt with the name, and the model hears nothing of it', async () => {
    const asked = model.requests.length;
    const response = await ask([user('When is BlueBird due?')]);
    expect(response.status).toBe(403);
    expect(await response.json()).toMatchObject({
      error: { code: 'code_name', message: expect.stringContaining('must not leave the house') },
    });
    expect(model.requests.length).toBe(asked);
  });

  test('lets a chat go on after a refused prompt, without it', async () => {
    model.next({ whole: completion('Hello') });
    const response = await ask([user('When is bluebird due?'), { role: 'assistant', content: 'Sorry.' }, user('Hi')]);
    expect(response.status).toBe(200);
    expect(model.requests.at(-1)!.body.toString()).not.toContain('bluebird');
  });

  test('lets the result of a tool through to the model', async () => {
    model.next({ whole: completion('Hello') });
    const call = { id: 'call_1', type: 'function', function: { name: 'search', arguments: '{}' } };
    const found = { role: 'tool', tool_call_id: 'call_1', content: 'Bluebird is due in May.' };
    const response = await ask([user('What is due?'), { role: 'assistant', content: null, tool_calls: [call] }, found]);
    expect(response.status).toBe(200);
    expect(model.requests.at(-1)!.body.toString()).toContain('Bluebird is due in May.');
  });

  test('masks a whole answer', async () => {
    model.next({ whole: completion(TEXT) });
    const answer = await (await ask([user('What is due?')])).json<{ choices: { message: { content: string } }[] }>();
    expect(answer.choices[0]?.message.content).toBe(MASKED);
  });

  test('masks a stream, wherever it is cut in two', { timeout: 60_000 }, async () => {
    for (let at = 0; at <= TEXT.length; at++) {
      const deltas = [TEXT.slice(0, at), TEXT.slice(at)].map((content) => ({ content }));
      model.next({ stream: { events: deltaStream([deltas]) } });
      expect(await streamed(await ask([user('What is due?')], true)), `cut at ${at}`).toBe(MASKED);
    }
  });

  test.each([1, 2, 3, 5, 8])('masks a stream that comes in pieces of %i', async (size) => {
    model.next({ stream: { events: textStream(TEXT, { size }), paceMs: 1 } });
    expect(await streamed(await ask([user('What is due?')], true))).toBe(MASKED);
  });

  test('releases text that cannot become the name before the stream ends', async () => {
    model.next({ stream: { events: textStream('plain words', { size: 20 }), stallAfterEvents: 2 } });
    const asked = model.requests.length;
    const response = await ask([user('What is due?')], true);
    for await (const bytes of response.chunks) if (String(bytes).includes('plain words')) break;
    (await model.arrived(asked)).release();
    response.connection.destroy();
  });
});

async function streamed(response: RawResponse): Promise<string | undefined> {
  const { content, done, errors } = await readSse(response);
  expect(errors).toEqual([]);
  expect(done).toBe(true);
  return content[0];
}

test.each(['code-name.ts', 'code-name-service.ts', 'guard.py'])('%s has at most 30 lines', (file) => {
  expect(readFileSync(`plugins/examples/${file}`, 'utf8').trimEnd().split('\n').length).toBeLessThanOrEqual(30);
});
