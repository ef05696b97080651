/** Gemini's dialect through the gateway: what passes as it is, what guards and authorizers do to it, and how it breaks. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { type RawResponse, send } from '../../support/client.ts';
import { fixtureNames, requestFixture, streamFixture } from '../../support/fixture.ts';
import { startGateway, type TestGateway, testPlugin } from '../../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  const tools = testPlugin('tools', {
    describe: () => ({
      contract: 1,
      name: 'tools',
      version: '1',
      hooks: ['authorize'],
      rewrites: false,
      actions: ['tool.call'],
    }),
    authorize: ({ resources }) => ({ allow: { decisions: resources.map(({ name }) => name !== 'evil') } }),
  });
  gateway = await startGateway(
    {
      providers: {
        google: { kind: 'gemini', baseUrl: `${upstream.url}/v1beta`, key: 'AIza-good' },
        other: { kind: 'openai-compatible', baseUrl: `${upstream.url}/v1` },
      },
      models: { alias: { provider: 'google', model: 'gemini-3-flash' }, gpt: 'other', '*': 'google' },
      plugins: {
        tools: { at: 'local:tools' },
        pii: { at: 'local:pii-guard', config: { rules: ['email'] } },
      },
      routes: { '/': {}, '/pii': { plugins: ['pii'] }, '/tools': { plugins: ['tools'] } },
    },
    { factories: [tools] },
  );
});

afterAll(async () => {
  await gateway.stop();
  await upstream.close();
});

const HELLO = { contents: [{ parts: [{ text: 'Hi' }] }] };

function generate(body: object | string, { route = '', model = 'gemini-2.5-flash' } = {}): Promise<RawResponse> {
  return send(`${gateway.url}${route}/v1beta/models/${model}:generateContent`, {
    body,
    headers: { 'content-type': 'application/json', 'x-goog-api-key': 'client-key' },
  });
}

function stream(route = '', model = 'gemini-2.5-flash', body: object = HELLO): Promise<RawResponse> {
  return send(`${gateway.url}${route}/v1beta/models/${model}:streamGenerateContent?alt=sse&key=client-key`, { body });
}

/** The events of a streamed answer. */
async function eventsOf(response: RawResponse): Promise<Json[]> {
  const frames = (await response.text()).split(/\r?\n\r?\n/).filter((frame) => frame.startsWith('data:'));
  return frames.map((frame) => JSON.parse(frame.slice('data:'.length)) as Json);
}

function chunk(parts: Json[], more: Json = {}): Json {
  return { candidates: [{ content: { parts, role: 'model' }, index: 0, ...more }], modelVersion: 'm', responseId: 'r' };
}

function script(...events: Json[]) {
  return { stream: { events, end: 'close-without-done' as const } };
}

/** All text of a stream, thoughts aside. */
function textOf(events: Json[]): string {
  return events
    .flatMap(({ candidates }) => (candidates as { content?: { parts?: Json[] } }[]) ?? [])
    .flatMap(({ content }) => content?.parts ?? [])
    .map(({ text, thought }) => (thought ? '' : (text ?? '')))
    .join('');
}

describe('where Gemini speaks to Gemini', () => {
  test('a request goes out byte for byte, by the provider’s name for the model and with its key', async () => {
    upstream.next({ whole: { candidates: [{ content: { parts: [{ text: 'a' }] }, finishReason: 'STOP' }] } });
    const body = ' {"contents":[{"parts":[{"text":"\\u0048i"}]}], "safetySettings" :[], "newField":1e2} ';
    const response = await generate(body, { model: 'alias' });
    expect(response.status).toBe(200);
    const request = upstream.requests.at(-1)!;
    expect(String(request.body)).toBe(body);
    expect(request.path).toBe('/v1beta/models/gemini-3-flash:generateContent');
    expect(request.headers).toContainEqual(['x-goog-api-key', 'AIza-good']);
    expect(JSON.stringify(request.headers)).not.toContain('client-key');
  });

  test.each(fixtureNames('streams', 'gemini').filter((name) => name !== 'error'))(
    'a stream comes back byte for byte: %s',
    async (name) => {
      const bytes = streamFixture('gemini', name);
      upstream.next({ stream: { events: [bytes], chunking: 'byte', end: 'close-without-done' } });
      expect(await (await stream()).text()).toBe(bytes.toString());
      // The client's key stood in the query: it goes nowhere.
      expect(upstream.requests.at(-1)?.path).toBe('/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse');
    },
  );

  test('a stream that breaks off ends in an error, and in no reason to stop', async () => {
    for (const route of ['', '/pii']) {
      const begun = [chunk([{ text: 'Good ' }])];
      upstream.next({ stream: { events: begun, stallAfterEvents: 1, end: 'close-without-done' } });
      const response = await stream(route);
      // The head has come: the answer has begun.
      upstream.requests.at(-1)!.release();
      const events = await eventsOf(response);
      expect(textOf(events)).toBe('Good ');
      expect(events.at(-1)).toMatchObject({ error: { code: 502, status: 'UNAVAILABLE' } });
      expect(JSON.stringify(events)).not.toContain('finishReason');
    }
  });
});

describe('a guard', () => {
  test('masks text that comes in pieces, and thoughts, and arguments', async () => {
    const events = [
      chunk([{ text: 'to jo@exam', thought: true }]),
      chunk([{ text: 'ple.com.', thought: true }]),
      chunk([{ text: 'Write to jo@' }]),
      chunk([{ text: 'example.com now' }]),
      chunk([
        { functionCall: { name: 'mail', args: { to: ['jo@example.com'], copies: 2 } }, thoughtSignature: 'c2Vz' },
      ]),
      chunk([{ text: '' }], { finishReason: 'STOP' }),
    ];
    upstream.next(script(...events));
    const masked = await eventsOf(await stream('/pii'));
    const text = JSON.stringify(masked);
    expect(text).not.toMatch(/jo@|example\.com/);
    expect(textOf(masked)).toMatch(/^Write to <\w+> now$/);
    const calls = masked.flatMap(({ candidates }) => (candidates as Json[])[0]?.content as { parts: Json[] });
    expect(calls.flatMap(({ parts }) => parts).find(({ functionCall }) => functionCall)).toMatchObject({
      functionCall: { name: 'mail', args: { to: [expect.stringMatching(/^<\w+>$/)], copies: 2 } },
      thoughtSignature: 'c2Vz',
    });
    expect(masked.at(-1)).toMatchObject({ candidates: [{ finishReason: 'STOP' }] });
  });

  test('masks a whole answer, and the prompt by either of its names', async () => {
    upstream.next({
      whole: { candidates: [{ content: { parts: [{ text: 'jo@example.com' }] }, finishReason: 'STOP' }] },
    });
    const body = { ...HELLO, system_instruction: { parts: [{ text: 'Ask jo@example.com' }] } };
    expect(await (await generate(body, { route: '/pii' })).text()).not.toContain('jo@example.com');
    const sent = String(upstream.requests.at(-1)?.body);
    expect(sent).toMatch(/"system_instruction":\{"parts":\[\{"text":"Ask <\w+>"\}\]\}/);
  });
});

describe('an authorizer of tools', () => {
  const call = (name: string) =>
    chunk([{ functionCall: { name, args: { secret: 'top-secret' } } }], { finishReason: 'STOP' });

  test('lets a client have what it may call', async () => {
    upstream.next({ whole: call('good') }, script(call('good')));
    expect(await (await generate(HELLO, { route: '/tools' })).text()).toContain('top-secret');
    expect(await (await stream('/tools')).text()).toContain('top-secret');
  });

  test('keeps the rest from it, before any argument is seen', async () => {
    upstream.next({ whole: call('evil') }, script(chunk([{ text: 'a' }]), call('good'), call('evil')));
    const whole = await generate(HELLO, { route: '/tools' });
    expect([whole.status, (await whole.text()).includes('top-secret')]).toEqual([403, false]);
    const text = await (await stream('/tools')).text();
    expect(text).toContain('"status":"PERMISSION_DENIED"');
    expect(text).not.toContain('"name":"evil"');
  });
});

describe('where Gemini speaks to others', () => {
  test.each(fixtureNames('requests', 'gemini'))(
    'every request is written in OpenAI’s words, or refused by name: %s',
    async (name) => {
      upstream.next({
        status: 200,
        whole: { choices: [{ message: { content: 'ok' }, finish_reason: 'stop', index: 0 }] },
      });
      const response = await generate(requestFixture('gemini', name), { model: 'gpt' });
      const answer = await response.text();
      if (response.status === 200) expect(JSON.parse(answer)).toMatchObject({ candidates: [{ finishReason: 'STOP' }] });
      else expect([response.status, answer]).toEqual([400, expect.stringMatching(/The field `[\w.[\]]+`/)]);
      // A script that was not used would answer the next test.
      if (response.status !== 200) await (await generate(HELLO, { model: 'gpt' })).text();
    },
  );

  test('a stream of pieces of a call is one whole call', async () => {
    const delta = (more: Json, finish: string | null = null) => ({
      choices: [{ index: 0, delta: more, finish_reason: finish }],
    });
    const piece = (text: string) => delta({ tool_calls: [{ index: 0, function: { arguments: text } }] });
    const begin = { index: 0, id: 'c1', type: 'function', function: { name: 'clock', arguments: '' } };
    upstream.next({
      stream: {
        events: [
          delta({ content: 'Wait.' }),
          delta({ tool_calls: [begin] }),
          piece('{"zone"'),
          piece(':"CET"}'),
          delta({}, 'tool_calls'),
        ],
      },
    });
    const events = await eventsOf(await stream('', 'gpt'));
    expect(textOf(events)).toBe('Wait.');
    expect(JSON.stringify(events).match(/"functionCall":\{[^}]*\}/g)).toEqual([
      '"functionCall":{"id":"c1","name":"clock","args":{"zone":"CET"}',
    ]);
  });
});

describe('where OpenAI speaks to Gemini', () => {
  const ask = (messages: object[], more: object = {}) =>
    send(`${gateway.url}/v1/chat/completions`, { body: { model: 'alias', messages, ...more } });
  const tools = [{ type: 'function', function: { name: 'clock', parameters: { type: 'object' } } }];

  test('the seal of a call comes back to Gemini, whole and streamed', async () => {
    const call = chunk([{ functionCall: { name: 'clock', args: {} }, thoughtSignature: 'c2Vz' }], {
      finishReason: 'STOP',
    });
    const done = { whole: chunk([{ text: 'noon' }], { finishReason: 'STOP' }) };
    upstream.next({ whole: call }, done);
    const user = { role: 'user', content: 'now?' };
    const first = await (await ask([user], { tools })).json<{ choices: { message: Json; finish_reason: string }[] }>();
    const [{ message, finish_reason: finish }] = first.choices as [{ message: Json; finish_reason: string }];
    expect(finish).toBe('tool_calls');
    const [{ id }] = message.tool_calls as [{ id: string }];
    await (await ask([user, message as object, { role: 'tool', tool_call_id: id, content: 'noon' }], { tools })).text();
    expect(JSON.parse(String(upstream.requests.at(-1)?.body)).contents).toEqual([
      { role: 'user', parts: [{ text: 'now?' }] },
      { role: 'model', parts: [{ functionCall: { name: 'clock', args: {} }, thoughtSignature: 'c2Vz' }] },
      { role: 'user', parts: [{ functionResponse: { name: 'clock', response: { output: 'noon' } } }] },
    ]);
    upstream.next(script(call));
    expect(await (await ask([user], { tools, stream: true })).text()).toContain('"thought_signature":"c2Vz"');
  });

  test('a blocked prompt is an answer that was filtered', async () => {
    upstream.next({ whole: { promptFeedback: { blockReason: 'SAFETY' }, usageMetadata: { promptTokenCount: 3 } } });
    const answer = await (await ask([{ role: 'user', content: 'x' }])).json<Json>();
    expect(answer).toMatchObject({ choices: [{ finish_reason: 'content_filter' }], usage: { prompt_tokens: 3 } });
  });

  test('what Gemini has no word for is refused by the client’s own name', async () => {
    const response = await ask([{ role: 'user', content: 'x' }], { logit_bias: { 5: 1 } });
    expect([response.status, await response.text()]).toEqual([400, expect.stringContaining('`logit_bias`')]);
  });
});
