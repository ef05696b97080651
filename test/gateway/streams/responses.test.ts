/** Responses that pass through the gateway: guarded, bounded, broken and rescued, as the official client sees them. */
import fc from 'fast-check';
import OpenAI, { APIError } from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { openaiResponses } from '../../../gateway/dialects/openai-responses/dialect.ts';
import type { HubEvent } from '../../../gateway/hub/reply.ts';
import { type Simulator, startSimulator } from '../../../simulator/server.ts';
import { send } from '../../support/client.ts';
import { pieceSizes } from '../../support/cuts.ts';
import { fixtureNames, replyFixture, streamFixture } from '../../support/fixture.ts';
import { startGateway, type TestGateway, testPlugin } from '../../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { wordGuard } from './asked-guard.ts';
import { dripped } from './drip.ts';

let upstream: ScriptedUpstream;
let simulator: Simulator;
let gateway: TestGateway;

const noClocks = testPlugin('no-clocks', {
  authorize: ({ resources }) => ({ allow: { decisions: resources.map(({ name }) => name !== 'clock') } }),
});
const quota = testPlugin('quota', { limit: () => ({ allow: { outputTokens: 20, grant: 'g' } }) });

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  simulator = await startSimulator({ tokenDelayMs: 0 });
  const simulated = (model: string) => ({ provider: 'simulated', model });
  gateway = await startGateway(
    {
      providers: {
        up: { kind: 'openai', baseUrl: `${upstream.url}/v1`, key: 'sk-provider' },
        open: { kind: 'openai', baseUrl: `${upstream.url}/v1`, storedResponses: 'allow' },
        simulated: { kind: 'openai', baseUrl: `${simulator.url}/v1` },
        anthropic: { kind: 'anthropic', baseUrl: `${simulator.url}/v1`, key: 'k' },
      },
      models: {
        breaking: { targets: [simulated('gpt~reset-after=3'), simulated('gpt')] },
        crossing: { targets: [simulated('gpt~reset-after=3'), { provider: 'anthropic', model: 'claude' }] },
        thoughtful: { targets: [simulated('gpt~reset-after=6'), simulated('gpt')] },
        open: 'open',
        '*': 'up',
      },
      plugins: {
        pii: { at: 'local:pii-guard', config: { rules: ['email'] } },
        secret: { at: 'local:secret-guard' },
        quota: { at: 'local:quota' },
        tools: { at: 'local:no-clocks', actions: ['tool.call'] },
      },
      routes: {
        '/': {},
        '/pii': { plugins: ['pii'] },
        '/two': { plugins: ['secret', 'pii'] },
        '/quota': { plugins: ['quota'] },
        '/tools': { plugins: ['tools'] },
      },
    },
    { factories: [noClocks, quota, wordGuard('secret-guard', 'S3CRET')] },
  );
});

function client(route = ''): OpenAI {
  return new OpenAI({ baseURL: `${gateway.url}${route}/v1`, apiKey: 'sk-client', maxRetries: 0 });
}

afterAll(async () => {
  await gateway.stop();
  await Promise.all([upstream.close(), simulator.close()]);
});

const ASK = { model: 'any', input: 'Hello' };

/** The raw bytes of a streamed answer. */
async function raw(route: string, body: object = {}): Promise<string> {
  const response = await send(`${gateway.url}${route}/v1/responses`, { body: { ...ASK, stream: true, ...body } });
  return response.text();
}

/** What a server sends that says these things. */
function streamOf(events: HubEvent[]): string {
  const writer = openaiResponses.openWriter({ model: 'gpt', wantsUsage: true });
  return events.map((event) => writer.write(event)).join('');
}

/** A text in pieces. */
function cutText(text: string, sizes: number[]): string[] {
  const pieces: string[] = [];
  for (let at = 0, i = 0; at < text.length; i += 1) {
    const end = at + sizes[i % sizes.length]!;
    pieces.push(text.slice(at, end));
    at = end;
  }
  return pieces;
}

/** A stream of this length in single bytes would take long. */
const bytePieces = pieceSizes.map((sizes) => sizes.map((size) => size * 10));

const MAIL = 'ann@example.org';
const FINISHED: HubEvent[] = [
  { type: 'finish', choice: 0, finish: 'stop' },
  { type: 'usage', usage: { inputTokens: 3, outputTokens: 4 } },
  { type: 'end' },
];

describe.each(['/pii', '/two'])('on a route %s', (route) => {
  test('whatever a text is cut into, no event shows what a guard has masked, the last one neither', async () => {
    await fc.assert(
      fc.asyncProperty(pieceSizes, bytePieces, async (texts, bytes) => {
        const say = (type: 'text' | 'reasoning' | 'refusal', text: string): HubEvent[] =>
          cutText(text, texts).map((piece) => ({ type, choice: 0, text: piece }));
        const args = cutText(JSON.stringify({ to: MAIL, n: 1 }), texts);
        const stream = streamOf([
          ...say('reasoning', `Ask ${MAIL}, I think.`),
          ...say('text', `Write to ${MAIL} or to ${MAIL}`),
          ...say('refusal', `Not to ${MAIL}!`),
          { type: 'citation', choice: 0, citation: { url: 'https://a.example', title: MAIL } },
          { type: 'tool-call', choice: 0, call: 0, id: 'c1', name: 'send' },
          ...args.map((text): HubEvent => ({ type: 'tool-arguments', choice: 0, call: 0, text })),
          ...FINISHED,
        ]);
        const script = () => ({ stream: { events: dripped(stream, bytes), end: 'close-without-done' as const } });
        upstream.next(script(), script());
        expect(await raw(route)).not.toContain('example.org');
        const final = await client(route).responses.stream(ASK).finalResponse();
        const mask = '<EMAIL>';
        expect(final.output_text).toBe(`Write to ${mask} or to ${mask}`);
        expect(final.output).toMatchObject([
          { type: 'reasoning', summary: [{ text: `Ask ${mask}, I think.` }] },
          {
            content: [
              { text: `Write to ${mask} or to ${mask}` },
              { refusal: `Not to ${mask}!` },
              { annotations: [{ title: mask }] },
            ],
          },
          { type: 'function_call', arguments: JSON.stringify({ to: mask, n: 1 }) },
        ]);
      }),
      { numRuns: 12 },
    );
  });

  test('a whole answer is masked as its stream is', async () => {
    const text = (said: string): HubEvent => ({ type: 'text', choice: 0, text: said });
    upstream.next({ stream: { events: [streamOf([text(`To ${MAIL}.`), ...FINISHED])], end: 'close-without-done' } });
    const streamed = await client(route).responses.stream(ASK).finalResponse();
    const choices = [{ index: 0, parts: [{ type: 'text' as const, text: `To ${MAIL}.` }], finish: 'stop' as const }];
    upstream.next({ whole: openaiResponses.fromHub({ choices }, 'gpt') });
    const whole = await client(route).responses.create(ASK);
    expect([streamed.output_text, whole.output_text]).toEqual(['To <EMAIL>.', 'To <EMAIL>.']);
  });

  test('thoughts that were masked lose another vendor’s seal of them, and no other thoughts do', async () => {
    const think = (text: string, signature: string): HubEvent[] => [
      { type: 'reasoning', choice: 0, text },
      { type: 'signature', choice: 0, signature },
      { type: 'part-end', choice: 0 },
    ];
    const seals = async (...events: HubEvent[]) => {
      upstream.next({ stream: { events: [streamOf([...events, ...FINISHED])], end: 'close-without-done' } });
      const { output } = await client(route).responses.stream(ASK).finalResponse();
      return output.map((item) => (item.type === 'reasoning' ? item.encrypted_content : undefined));
    };
    expect(await seals(...think('Hm.', 'EqQB'))).toEqual(['signature.EqQB']);
    expect(await seals(...think(`Ask ${MAIL}.`, 'EqQB'))).toEqual([undefined]);
    // OpenAI's own holds all that it thought, whatever of it is shown.
    expect(await seals(...think(`Ask ${MAIL}.`, 'gAAAAAB1'))).toEqual(['gAAAAAB1']);
  });
});

describe('what nobody looks at', () => {
  test.each(fixtureNames('replies', 'openai-responses'))('passes byte for byte, and is metered (%s)', async (name) => {
    const bytes = streamFixture('openai-responses', name);
    upstream.next({ stream: { events: [bytes], end: 'close-without-done' } });
    expect(await raw('')).toBe(bytes.toString());
    const whole = JSON.stringify(replyFixture('openai-responses', name), null, 1);
    upstream.next({ whole });
    const response = await send(`${gateway.url}/v1/responses`, { body: ASK });
    expect(await response.text()).toBe(whole);
  });

  test('passes on its way up as well, unknown fields and all', async () => {
    upstream.next({ whole: replyFixture('openai-responses', 'text') });
    const body = '{"never_heard_of": {"a":[1.0]}, "input":"Hello",  "model":"any","tools":[{"type":"web_search"}]}';
    const headers = { 'content-type': 'application/json' };
    await (await send(`${gateway.url}/v1/responses`, { body, headers })).text();
    const request = upstream.requests.at(-1)!;
    expect(request.path).toBe('/v1/responses');
    expect(request.body.toString()).toBe(body);
  });

  test('may refer to what is stored where the config says so', async () => {
    upstream.next({ whole: replyFixture('openai-responses', 'text') });
    await client().responses.create({ ...ASK, model: 'open', previous_response_id: 'resp_1' });
    expect(upstream.requests.at(-1)!.json()).toMatchObject({ previous_response_id: 'resp_1' });
    const before = upstream.requests.length;
    const refused = {
      previous_response_id: 'resp_1',
      conversation: 'conv_1',
      input: [{ id: 'msg_1' }],
      background: true,
    };
    for (const [field, value] of Object.entries(refused)) {
      const response = await send(`${gateway.url}/v1/responses`, { body: { ...ASK, [field]: value } });
      const { error } = JSON.parse(await response.text()) as { error: Json };
      expect([response.status, error.param]).toEqual([400, field === 'input' ? 'input[0]' : field]);
      expect(error.message).toMatch(
        field === 'background' ? /asks the provider to keep/ : /which may be another user’s/,
      );
    }
    expect(upstream.requests).toHaveLength(before);
  });

  test('has no thoughts of another vendor, which answered before: OpenAI would refuse their seals', async () => {
    const thought = (text: string, signature?: string) => ({ type: 'reasoning' as const, text, signature });
    const parts = [thought('Hm.', 'EqQB'), thought('Well.'), thought('Own.', 'gAAAAAB1')];
    const { output } = openaiResponses.fromHub({ id: 'msg_1', choices: [{ index: 0, parts, finish: 'stop' }] }, 'm');
    const stored = { type: 'reasoning', id: 'rs_0a1b2c', summary: [] };
    const input = [...(output as Json[]), stored, { role: 'user', content: 'So?' }];
    upstream.next({ whole: replyFixture('openai-responses', 'text') });
    await (await send(`${gateway.url}/v1/responses`, { body: { ...ASK, input } })).text();
    expect(upstream.requests.at(-1)!.json()).toMatchObject({ input: input.slice(2) });
  });
});

test('a tool that may not be called stops the stream before its arguments', async () => {
  const calls = (name: string): HubEvent[] => [
    { type: 'text', choice: 0, text: 'Let me see.' },
    { type: 'tool-call', choice: 0, call: 0, id: 'c1', name },
    { type: 'tool-arguments', choice: 0, call: 0, text: '{"a":"SEEN"}' },
    ...FINISHED,
  ];
  upstream.next({ stream: { events: [streamOf(calls('calendar'))], end: 'close-without-done' } });
  expect(await raw('/tools')).toContain('SEEN');
  upstream.next({ stream: { events: [streamOf(calls('clock'))], end: 'close-without-done' } });
  const stopped = await raw('/tools');
  expect(stopped).not.toContain('SEEN');
  expect(stopped).toContain('tool_not_allowed');
});

describe('a quota', () => {
  test('is told to the provider, and marks the answer that it ended', async () => {
    const cut = replyFixture('openai-responses', 'length');
    upstream.next({ whole: cut });
    const whole = await client('/quota').responses.create(ASK);
    expect(upstream.requests.at(-1)!.json()).toMatchObject({ max_output_tokens: 20 });
    expect(whole).toHaveProperty('wardgate.code', 'quota_exhausted');
    upstream.next({ stream: { events: [streamFixture('openai-responses', 'length')], end: 'close-without-done' } });
    expect(await raw('/quota')).toContain('quota_exhausted');
  });

  test('ends a stream that would go on', async () => {
    const said: HubEvent[] = Array.from({ length: 40 }, (_one, i) => ({ type: 'text', choice: 0, text: `word ${i} ` }));
    upstream.next({ stream: { events: [streamOf(said)], end: 'open' } });
    const final = await client('/quota').responses.stream(ASK).finalResponse();
    expect(final).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } });
    expect(final).toHaveProperty('wardgate.code', 'quota_exhausted');
    expect(final.output_text).toContain('word 0 word 1 ');
  });
});

describe('a stream that breaks', () => {
  test('ends in an error event, and is no finished answer to the client', async () => {
    const events = dripped(streamFixture('openai-responses', 'error').toString(), [400]);
    upstream.next({ stream: { events, end: 'close-without-done' } });
    const stream = await client().responses.create({ ...ASK, stream: true });
    const types: string[] = [];
    const read = async () => {
      for await (const event of stream) types.push(event.type);
    };
    await expect(read()).rejects.toThrow(APIError);
    expect(types).toContain('response.output_text.delta');
    expect(types).not.toContain('response.completed');
  });

  test.each(['breaking', 'crossing'])('is gone on with by another target, in one answer (%s)', async (model) => {
    const stream = client().responses.stream({ model, input: 'Good morning to you all' });
    const started: unknown[] = [];
    for await (const event of stream) if (event.type === 'response.created') started.push(event);
    const final = await stream.finalResponse();
    expect(final.output_text).toBe('You said: Good morning to you all');
    expect(final.status).toBe('completed');
    expect(started).toHaveLength(1);
  });

  test('is gone on with in its own place, after thoughts that were not shown', async () => {
    const input = 'Good morning to you all';
    const final = await client()
      .responses.stream({ model: 'thoughtful', input, reasoning: { effort: 'high' } })
      .finalResponse();
    expect(final.output_text).toBe(`You said: ${input}`);
  });

  test('before it has said anything is a plain error', async () => {
    const error = { type: 'error', code: 'server_error', message: 'Down.', param: null, sequence_number: 0 };
    upstream.always({ stream: { events: [openaiResponses.frame(error)], end: 'close-without-done' } });
    const response = await send(`${gateway.url}/v1/responses`, { body: { ...ASK, stream: true } });
    expect(response.status).toBeGreaterThanOrEqual(500);
    expect(JSON.parse(await response.text())).toHaveProperty('error.code');
  });
});
