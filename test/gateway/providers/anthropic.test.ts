/** What goes to Anthropic, and what its answers, streams and errors mean. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { anthropicMessages } from '../../../gateway/dialects/anthropic-messages/dialect.ts';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { GatewayError } from '../../../gateway/errors.ts';
import type { Feature } from '../../../gateway/hub/features.ts';
import type { HubEvent } from '../../../gateway/hub/reply.ts';
import type { HubMessage, HubPart, HubRequest } from '../../../gateway/hub/request.ts';
import { readError } from '../../../gateway/providers/anthropic/error.ts';
import { readCount, readMessages } from '../../../gateway/providers/anthropic/reply.ts';
import { writeCount, writeMessages } from '../../../gateway/providers/anthropic/request.ts';
import { MessagesReader } from '../../../gateway/providers/anthropic/stream.ts';
import type { Bounds } from '../../../gateway/providers/anthropic/thinking.ts';
import { cutAt, cutOffsets } from '../../support/cuts.ts';
import { fixtureNames, requestFixture, streamFixture } from '../../support/fixture.ts';
import { saidBy, saidByReply } from '../../support/hub-events.ts';

const BOUNDS: Bounds = { maxTokens: 4096, thinking: 'auto' };
const OLD = 'claude-sonnet-4-5';
const NEW = 'claude-opus-4-7';

function hub(messages: HubMessage[], more: Partial<HubRequest> = {}): HubRequest {
  return { messages, tools: [], used: new Map(), unknown: [], ...more };
}

function says(role: HubMessage['role'], ...parts: (HubPart | string)[]): HubMessage {
  return {
    role,
    parts: parts.map((part) => (typeof part === 'string' ? { type: 'text', text: part } : part)),
    at: `at ${role}`,
  };
}

/** The request as it goes out, without what JSON leaves out. */
function written(request: HubRequest, model = OLD, bounds = BOUNDS): Json {
  return JSON.parse(JSON.stringify(writeMessages(request, { model, stream: false }, bounds))) as Json;
}

const HELLO = [says('user', 'Hello')];
const CALL: HubPart = { type: 'tool-call', id: 'c1', name: 'clock', arguments: '' };
const RESULT: HubPart = { type: 'tool-result', id: 'c1', parts: [{ type: 'text', text: 'noon' }] };
const TOOLS = [{ name: 'clock' }];

/** The message of what is thrown, which names the client's field. */
function refusalOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof GatewayError && error.code === 'invalid_request') return error.message;
    throw error;
  }
  return 'nothing was refused';
}

function used(feature: Feature, path: string): HubRequest['used'] {
  return new Map([[feature, path]]);
}

describe('a request to Anthropic', () => {
  test('has a bound on the answer, the config’s where the client gave none', () => {
    expect(written(hub(HELLO))).toEqual({
      model: OLD,
      max_tokens: 4096,
      messages: [{ role: 'user', content: [{ type: 'text', text: 'Hello' }] }],
    });
    expect(written(hub(HELLO, { maxOutputTokens: 7 }))).toMatchObject({ max_tokens: 7 });
    expect(written(hub(HELLO), OLD, { ...BOUNDS, maxTokens: 99 })).toMatchObject({ max_tokens: 99 });
  });

  test('asks for a stream when the client did', () => {
    expect(writeMessages(hub(HELLO), { model: OLD, stream: true }, BOUNDS).stream).toBe(true);
  });

  test('has the system’s words in front, wherever they stood', () => {
    const messages = [
      says('system', 'Be short.'),
      ...HELLO,
      says('system', { type: 'text', text: 'In French.', cache: '1h' }),
    ];
    expect(written(hub(messages))).toMatchObject({
      system: [
        { type: 'text', text: 'Be short.' },
        { type: 'text', text: 'In French.', cache_control: { type: 'ephemeral', ttl: '1h' } },
      ],
      messages: [{ role: 'user' }],
    });
  });

  test('joins turns of one role, with the results of tools before what the user says', () => {
    const messages = [
      ...HELLO,
      says('user', 'again'),
      says('assistant', 'Hm', CALL),
      says('user', 'Quick!'),
      says('tool', RESULT),
    ];
    expect(written(hub(messages, { tools: TOOLS })).messages).toEqual([
      {
        role: 'user',
        content: [
          { type: 'text', text: 'Hello' },
          { type: 'text', text: 'again' },
        ],
      },
      {
        role: 'assistant',
        content: [
          { type: 'text', text: 'Hm' },
          { type: 'tool_use', id: 'c1', name: 'clock', input: {} },
        ],
      },
      {
        role: 'user',
        content: [
          { type: 'tool_result', tool_use_id: 'c1', content: [{ type: 'text', text: 'noon' }] },
          { type: 'text', text: 'Quick!' },
        ],
      },
    ]);
  });

  test('leaves out text without a visible sign, which is refused there, and turns of nothing else', () => {
    const messages = [says('user', '', 'Hello', ' \n'), says('assistant', ' '), says('user', 'there')];
    expect(written(hub(messages)).messages).toEqual([
      {
        role: 'user',
        content: [
          { type: 'text', text: 'Hello' },
          { type: 'text', text: 'there' },
        ],
      },
    ]);
  });

  test('ends a text to go on from without white space', () => {
    const messages = [...HELLO, says('assistant', 'Good \n')];
    expect((written(hub(messages)).messages as Json[])[1]).toEqual({
      role: 'assistant',
      content: [{ type: 'text', text: 'Good' }],
    });
  });

  test('spells the ids of calls in the signs that are allowed, in the call and in its result alike', () => {
    const id = 'call:1/ü';
    const messages = [...HELLO, says('assistant', { ...CALL, id }), says('tool', { ...RESULT, id } as HubPart)];
    const [, call, result] = written(hub(messages)).messages as { content: Json[] }[];
    expect([call?.content[0]?.id, result?.content[0]?.tool_use_id]).toEqual(['call_1__', 'call_1__']);
  });

  test('carries images and documents by their bytes, their address or their file', () => {
    const parts: HubPart[] = [
      { type: 'image', source: { kind: 'data', mediaType: 'image/jpg', data: 'QUJD' } },
      { type: 'image', source: { kind: 'url', url: 'https://example.org/a.png' }, cache: '' },
      { type: 'image', source: { kind: 'id', id: 'file_1' } },
      { type: 'file', name: 'Offer', source: { kind: 'data', mediaType: 'application/pdf', data: 'JVBERg==' } },
      { type: 'file', source: { kind: 'data', mediaType: 'text/csv', data: 'YSxi' } },
      { type: 'file', source: { kind: 'text', mediaType: 'text/markdown', text: '# Hi' } },
      { type: 'file', source: { kind: 'url', url: 'https://example.org/a.pdf' } },
    ];
    expect((written(hub([says('user', ...parts)])).messages as Json[])[0]?.content).toEqual([
      { type: 'image', source: { type: 'base64', media_type: 'image/jpeg', data: 'QUJD' } },
      {
        type: 'image',
        source: { type: 'url', url: 'https://example.org/a.png' },
        cache_control: { type: 'ephemeral' },
      },
      { type: 'image', source: { type: 'file', file_id: 'file_1' } },
      { type: 'document', title: 'Offer', source: { type: 'base64', media_type: 'application/pdf', data: 'JVBERg==' } },
      { type: 'document', source: { type: 'text', media_type: 'text/plain', data: 'a,b' } },
      { type: 'document', source: { type: 'text', media_type: 'text/plain', data: '# Hi' } },
      { type: 'document', source: { type: 'url', url: 'https://example.org/a.pdf' } },
    ]);
  });

  test('offers tools with a schema each, and says which may be used', () => {
    const tools = [
      { name: 'clock' },
      { name: 'sum', description: 'Adds.', parameters: { properties: {} }, strict: true, cache: '5m' },
    ];
    expect(written(hub(HELLO, { tools })).tools).toEqual([
      { name: 'clock', input_schema: { type: 'object', properties: {} } },
      {
        name: 'sum',
        description: 'Adds.',
        input_schema: { type: 'object', properties: {} },
        strict: true,
        cache_control: { type: 'ephemeral', ttl: '5m' },
      },
    ]);
    const choice = (more: Partial<HubRequest>) => written(hub(HELLO, { tools, ...more })).tool_choice;
    expect(choice({})).toBeUndefined();
    expect(choice({ toolChoice: 'auto' })).toEqual({ type: 'auto' });
    expect(choice({ toolChoice: 'none', parallelToolCalls: false })).toEqual({ type: 'none' });
    expect(choice({ toolChoice: 'required' })).toEqual({ type: 'any' });
    expect(choice({ toolChoice: { name: 'sum' }, parallelToolCalls: false })).toEqual({
      type: 'tool',
      name: 'sum',
      disable_parallel_tool_use: true,
    });
    expect(choice({ parallelToolCalls: false })).toEqual({ type: 'auto', disable_parallel_tool_use: true });
    // Without tools the choice among them is refused there.
    expect(choice({ toolChoice: 'auto', tools: [] })).toBeUndefined();
  });

  test('has the settings under their names there', () => {
    const settings = { temperature: 0.3, topP: 0.8, topK: 5, stop: ['END'], user: 'u-1', serviceTier: 'default' };
    const schema = { type: 'object' };
    expect(written(hub(HELLO, { ...settings, format: { type: 'json-schema', schema } }))).toMatchObject({
      temperature: 0.3,
      top_p: 0.8,
      top_k: 5,
      stop_sequences: ['END'],
      metadata: { user_id: 'u-1' },
      service_tier: 'standard_only',
      output_config: { format: { type: 'json_schema', schema } },
    });
    expect(written(hub(HELLO, { serviceTier: 'priority' })).service_tier).toBe('auto');
  });

  test('of what each vendor sealed of its thoughts only Anthropic’s own goes back', () => {
    const thoughts: HubPart[] = [
      { type: 'reasoning', text: 'mine', signature: 'EqQBsig=' },
      { type: 'reasoning', text: '', redacted: 'EmwKdata' },
      { type: 'reasoning', text: 'unsealed' },
      { type: 'reasoning', text: 'OpenAI’s', redacted: 'gAAAAABo' },
      { type: 'reasoning', text: 'Gemini’s', signature: 'gemini:CiQB' },
    ];
    const messages = [...HELLO, says('assistant', ...thoughts, 'So.'), says('user', 'And?')];
    expect((written(hub(messages)).messages as Json[])[1]?.content).toEqual([
      { type: 'thinking', thinking: 'mine', signature: 'EqQBsig=' },
      { type: 'redacted_thinking', data: 'EmwKdata' },
      { type: 'text', text: 'So.' },
    ]);
  });

  test.each<[string, HubRequest, string]>([
    ['an assistant that begins', hub([says('assistant', 'Hi'), ...HELLO]), 'at assistant'],
    ['a system alone', hub([says('system', 'Hi')]), 'at system'],
    ['no message', hub([]), 'messages'],
    ['arguments that are no object', hub([...HELLO, says('assistant', { ...CALL, arguments: '[1]' })]), 'at assistant'],
    [
      'a system with an image',
      hub([says('system', { type: 'image', source: { kind: 'url', url: 'x' } })]),
      'at system',
    ],
    [
      'an image of another type',
      hub([says('user', { type: 'image', source: { kind: 'data', mediaType: 'image/bmp', data: '' } })]),
      'at user',
    ],
    [
      'a file of another type',
      hub([says('user', { type: 'file', source: { kind: 'data', mediaType: 'application/zip', data: '' } })]),
      'at user',
    ],
    [
      'a temperature above 1',
      hub(HELLO, { temperature: 1.5, used: used('temperature', 'temperature') }),
      'temperature',
    ],
    [
      'JSON without a schema',
      hub(HELLO, { format: { type: 'json' }, used: used('format.json', 'response_format') }),
      'response_format',
    ],
    ['a stop at the line’s end', hub(HELLO, { stop: ['\n'], used: used('stop', 'stop') }), 'stop'],
    ['another tier', hub(HELLO, { serviceTier: 'flex', used: used('service-tier', 'service_tier') }), 'service_tier'],
  ])('that holds %s is refused by the client’s name for it', (_what, request, path) => {
    expect(refusalOf(() => written(request))).toContain(`The field \`${path}\` `);
  });
});

describe('how much Claude is to think', () => {
  const high = { reasoning: { effort: 'high' } } as const;

  test.each([
    ['claude-3-7-sonnet-20250219', false],
    ['claude-opus-4-20250514', false],
    ['claude-opus-4@20250514', false],
    ['claude-haiku-4-5', false],
    ['claude-opus-4-6', true],
    ['claude-sonnet-5', true],
    ['claude-opus-5-5', true],
    ['my-own-name', true],
  ])('%s decides itself: %s', (model, isAdaptive) => {
    const body = written(hub(HELLO, high), model);
    if (isAdaptive) {
      expect(body).toMatchObject({
        thinking: { type: 'adaptive' },
        output_config: { effort: 'high' },
        max_tokens: 20_480,
      });
    } else {
      expect(body).toMatchObject({ thinking: { type: 'enabled', budget_tokens: 16_384 }, max_tokens: 20_480 });
      expect(body.output_config).toBeUndefined();
    }
  });

  test('may be said by the config where the name does not tell', () => {
    expect(written(hub(HELLO, high), 'mine', { ...BOUNDS, thinking: 'budget' }).thinking).toMatchObject({
      type: 'enabled',
    });
    expect(written(hub(HELLO, high), OLD, { ...BOUNDS, thinking: 'adaptive' }).thinking).toEqual({ type: 'adaptive' });
  });

  test('is a part of the answer’s bound, and leaves room for the answer', () => {
    const budget = (maxOutputTokens: number) => written(hub(HELLO, { ...high, maxOutputTokens })).thinking;
    expect(budget(20_000)).toEqual({ type: 'enabled', budget_tokens: 16_384 });
    expect(budget(4_000)).toEqual({ type: 'enabled', budget_tokens: 2_000 });
    expect(budget(1_025)).toEqual({ type: 'enabled', budget_tokens: 1_024 });
    expect(refusalOf(() => budget(1_024))).toContain('`max_tokens`');
  });

  test('as a number of tokens goes out as it is, or is refused', () => {
    const reasoning = { budget: 2_000 };
    expect(written(hub(HELLO, { reasoning, maxOutputTokens: 2_001 })).thinking).toEqual({
      type: 'enabled',
      budget_tokens: 2_000,
    });
    expect(written(hub(HELLO, { reasoning }), NEW)).toMatchObject({
      thinking: { budget_tokens: 2_000 },
      max_tokens: 6_096,
    });
    const path = used('reasoning', 'thinking.budget_tokens');
    expect(refusalOf(() => written(hub(HELLO, { reasoning, maxOutputTokens: 2_000, used: path })))).toContain(
      'thinking.budget_tokens',
    );
    expect(refusalOf(() => written(hub(HELLO, { reasoning: { budget: 512 }, used: path })))).toContain('1024');
  });

  test('can be nothing, and the thoughts can be hidden', () => {
    expect(written(hub(HELLO, { reasoning: { off: true } })).thinking).toBeUndefined();
    expect(written(hub(HELLO, { reasoning: { off: true } }), NEW).thinking).toEqual({ type: 'disabled' });
    expect(written(hub(HELLO, { reasoning: { shown: true } }), NEW).thinking).toEqual({
      type: 'adaptive',
      display: 'summarized',
    });
    expect(written(hub(HELLO, { reasoning: { effort: 'low', shown: false } })).thinking).toEqual({
      type: 'enabled',
      budget_tokens: 2_048,
      display: 'omitted',
    });
  });

  test('is nothing for a call of tools whose thoughts were not kept, which would be refused', () => {
    const lost = [...HELLO, says('assistant', CALL), says('tool', RESULT)];
    const sealed = [
      ...HELLO,
      says('assistant', { type: 'reasoning', text: 'hm', signature: 'EqQB' }, CALL),
      says('tool', RESULT),
    ];
    expect(written(hub(lost, { ...high, tools: TOOLS })).thinking).toBeUndefined();
    expect(written(hub(sealed, { ...high, tools: TOOLS })).thinking).toMatchObject({ type: 'enabled' });
    expect(written(hub(lost, { ...high, tools: TOOLS }), NEW).thinking).toEqual({ type: 'adaptive' });
  });

  test.each<[string, Partial<HubRequest>, Feature]>([
    ['a temperature', { temperature: 0.5 }, 'temperature'],
    ['top_p', { topP: 0.5 }, 'top-p'],
    ['top_k', { topK: 5 }, 'top-k'],
    ['a tool that must be used', { toolChoice: 'required', tools: TOOLS }, 'tool-choice'],
  ])('leaves no room for %s', (_what, more, feature) => {
    const request = hub(HELLO, { ...high, ...more, used: used(feature, 'the_field') });
    expect(refusalOf(() => written(request))).toContain('The field `the_field` cannot');
  });

  test('takes a temperature of 1, which is none', () => {
    expect(written(hub(HELLO, { ...high, temperature: 1, topP: 0.97 }))).toMatchObject({ top_p: 0.97 });
    expect(written(hub(HELLO, { ...high, temperature: 1 })).temperature).toBeUndefined();
  });
});

describe('counting tokens', () => {
  test('asks for the prompt alone', () => {
    const request = hub(HELLO, { tools: TOOLS, maxOutputTokens: 7, temperature: 0.5, stop: ['x'], user: 'u' });
    expect(JSON.parse(JSON.stringify(writeCount(request, { model: OLD, stream: false }, BOUNDS)))).toEqual({
      model: OLD,
      messages: [{ role: 'user', content: [{ type: 'text', text: 'Hello' }] }],
      tools: [{ name: 'clock', input_schema: { type: 'object', properties: {} } }],
    });
    expect(readCount({ input_tokens: 12 })).toEqual({ inputTokens: 12 });
    expect(() => readCount({ input_tokens: 'many' })).toThrow(GatewayError);
  });
});

describe('what was read in the same format and is written again says the same', () => {
  /** What says the same in another way, so that both sides can be compared. */
  function normal(body: Json): Json {
    const copy = structuredClone(body);
    if (Array.isArray(copy.messages)) {
      for (const message of copy.messages as Json[]) {
        if (typeof message.content === 'string') message.content = [{ type: 'text', text: message.content }];
        for (const block of message.content as Json[]) {
          if (typeof block.content === 'string') block.content = [{ type: 'text', text: block.content }];
        }
      }
    }
    return copy;
  }

  // The others use what is moved, joined or left out on the way.
  test.each(
    fixtureNames('requests', 'anthropic-messages').filter((name) => !['system', 'file', 'citations'].includes(name)),
  )('the request “%s”', (name) => {
    const body = requestFixture('anthropic-messages', name);
    const request = anthropicMessages.toHub(body);
    expect(request.unknown).toEqual([]);
    expect(written(request)).toEqual(normal(body));
  });
});

// --- Answers --------------------------------------------------------------------------------------------------------

function read(bytes: Buffer, cuts: number[] = []): HubEvent[] {
  const reader = new MessagesReader('claude');
  return [...cutAt(cuts)(bytes).flatMap((piece) => reader.push(piece)), ...reader.end()];
}

describe('a stream of Anthropic’s', () => {
  test('tells its beginning, its text and its end', () => {
    expect(read(streamFixture('anthropic', 'text'))).toEqual([
      {
        type: 'start',
        id: 'msg_01Text',
        model: 'claude-sonnet-4-5-20250929',
        serviceTier: 'default',
        usage: { inputTokens: 21, outputTokens: 1, cachedInputTokens: 0, cacheWriteTokens: 0 },
      },
      { type: 'text', choice: 0, text: 'Good' },
      { type: 'text', choice: 0, text: ' morning' },
      { type: 'text', choice: 0, text: ', wörld 🙂' },
      { type: 'part-end', choice: 0 },
      { type: 'finish', choice: 0, finish: 'stop' },
      { type: 'usage', usage: { inputTokens: 21, outputTokens: 9, cachedInputTokens: 0, cacheWriteTokens: 0 } },
      { type: 'end' },
    ]);
  });

  test('passes on the arguments of a call piece by piece', () => {
    const pieces = read(streamFixture('anthropic', 'tools')).filter(({ type }) => type === 'tool-arguments');
    expect(pieces.map((event) => (event as { text: string }).text)).toEqual([
      '{"city":',
      ' "Pa',
      'ris", "unit": "°C"}',
    ]);
  });

  test('numbers parallel calls, of which one may have no arguments', () => {
    const said = saidBy(read(streamFixture('anthropic', 'parallel-tools')));
    expect(said.calls).toEqual([
      { id: 'toolu_01A', name: 'get_weather', arguments: { city: 'Paris' } },
      { id: 'toolu_01B', name: 'clock', arguments: {} },
      { id: 'toolu_01C', name: 'get_weather', arguments: { city: 'Berlin' } },
    ]);
    expect(said.finish).toBe('tool-calls');
  });

  test('brings thoughts with their seals', () => {
    const said = saidBy(read(streamFixture('anthropic', 'reasoning')));
    expect(said).toMatchObject({
      reasoning: 'Seven times eight is 56.',
      text: '56',
      redacted: ['EmwKAhgBEgy3va3pzix0LafPsn4a'],
    });
    expect(said.signatures).toHaveLength(1);
    expect(said.usage?.reasoningTokens).toBe(22);
  });

  test('brings citations of documents and pages', () => {
    const cited = read(streamFixture('anthropic', 'citations')).filter(({ type }) => type === 'citation');
    expect(cited.map((event) => (event as { citation: object }).citation)).toEqual([
      { title: 'Colours', quote: 'Grass is green.', document: 0 },
      { url: 'https://example.org/grass', title: 'Grass', quote: 'Most grass is green.' },
    ]);
  });

  test('says why it refused, how it was stopped, and what the cache gave', () => {
    const refused = saidBy(read(streamFixture('anthropic', 'refusal')));
    expect(refused).toMatchObject({
      finish: 'refusal',
      refusal: 'This would help to break into computers.',
      text: 'I will',
    });
    expect(saidBy(read(streamFixture('anthropic', 'length'))).finish).toBe('length');
    const cached = saidBy(read(streamFixture('anthropic', 'cache-usage')));
    expect(cached).toMatchObject({ finish: 'stop-sequence', stopSequence: '\n\n' });
    // The end tells the answer’s tokens alone: those of the prompt stay.
    expect(cached.usage).toEqual({
      inputTokens: 2107,
      outputTokens: 3,
      cachedInputTokens: 2000,
      cacheWriteTokens: 100,
    });
  });

  test('that reports an error has no end', () => {
    const events = read(streamFixture('anthropic', 'error'));
    const last = events.at(-1);
    expect(last?.type === 'error' && last.error.code).toBe('upstream_overloaded');
    expect(events.some(({ type }) => type === 'end' || type === 'finish')).toBe(false);
  });

  test.each([
    ['rate_limit_error', 'upstream_rate_limited'],
    ['api_error', 'upstream_failed'],
    ['timeout_error', 'upstream_timeout'],
    ['authentication_error', 'upstream_refused_key'],
    ['invalid_request_error', 'upstream_invalid_request'],
    ['something_new', 'upstream_failed'],
  ])('%s in its middle is %s', (type, code) => {
    const [event] = read(
      Buffer.from(`event: error\ndata: ${JSON.stringify({ type: 'error', error: { type, message: 'm' } })}\n\n`),
    );
    expect(event?.type === 'error' && event.error.code).toBe(code);
  });

  test.each(fixtureNames('streams', 'anthropic'))(
    '“%s” says the same however it is cut, and no end when it is cut short',
    (name) => {
      const bytes = streamFixture('anthropic', name);
      const plain = (events: HubEvent[]) => events.map((event) => (event.type === 'error' ? event.error.shape : event));
      const whole = plain(read(bytes));
      for (let at = 1; at < bytes.length; at += 1) {
        expect(plain(read(bytes, [at]))).toEqual(whole);
        const short = read(bytes.subarray(0, at)).some(({ type }) => type === 'end');
        if (short) throw new Error(`an end after ${at} of ${bytes.length} bytes`);
      }
      fc.assert(
        fc.property(cutOffsets(bytes.length), (cuts) => {
          expect(plain(read(bytes, cuts))).toEqual(whole);
        }),
        { numRuns: 50 },
      );
    },
  );

  test.each(['text', 'error'])('says nothing after its end: “%s”', (name) => {
    const bytes = streamFixture('anthropic', name);
    expect(read(Buffer.concat([bytes, bytes]))).toHaveLength(read(bytes).length);
  });

  test('of the vendor’s own tools nothing is passed on, nor are events that are not known', () => {
    const frame = (body: Json) => `event: ${String(body.type)}\ndata: ${JSON.stringify(body)}\n\n`;
    const events = [
      {
        type: 'content_block_start',
        index: 0,
        content_block: { type: 'server_tool_use', id: 's', name: 'web_search', input: {} },
      },
      { type: 'content_block_delta', index: 0, delta: { type: 'input_json_delta', partial_json: '{}' } },
      { type: 'news', text: 'x' },
      { type: 'content_block_delta', index: 1, delta: { type: 'odd_delta', text: 'x' } },
    ];
    expect(read(Buffer.from(events.map(frame).join('')))).toEqual([]);
  });
});

describe('a whole answer of Anthropic’s', () => {
  const MESSAGE = {
    id: 'msg_01',
    type: 'message',
    role: 'assistant',
    model: 'claude-sonnet-4-5-20250929',
    content: [
      { type: 'thinking', thinking: 'hm', signature: 'EqQB' },
      { type: 'redacted_thinking', data: 'EmwK' },
      {
        type: 'text',
        text: 'Green',
        citations: [{ type: 'page_location', cited_text: 'q', document_index: 1, document_title: null }],
      },
      { type: 'tool_use', id: 'toolu_1', name: 'clock', input: { zone: 'UTC' } },
      { type: 'server_tool_use', id: 's', name: 'web_search', input: {} },
    ],
    stop_reason: 'tool_use',
    stop_sequence: null,
    usage: {
      input_tokens: 10,
      cache_read_input_tokens: 5,
      cache_creation_input_tokens: 2,
      output_tokens: 4,
      service_tier: 'priority',
    },
  };

  test('is read part by part', () => {
    expect(readMessages(MESSAGE, 'claude')).toEqual({
      id: 'msg_01',
      model: 'claude-sonnet-4-5-20250929',
      serviceTier: 'priority',
      choices: [
        {
          index: 0,
          finish: 'tool-calls',
          parts: [
            { type: 'reasoning', text: 'hm', signature: 'EqQB' },
            { type: 'reasoning', text: '', redacted: 'EmwK' },
            { type: 'text', text: 'Green', citations: [{ quote: 'q', document: 1 }] },
            { type: 'tool-call', id: 'toolu_1', name: 'clock', arguments: '{"zone":"UTC"}' },
          ],
        },
      ],
      usage: { inputTokens: 17, outputTokens: 4, cachedInputTokens: 5, cacheWriteTokens: 2 },
    });
  });

  test('says the same as the stream of it', () => {
    const parts = readMessages(MESSAGE, 'claude');
    const writer = anthropicMessages.openWriter({ model: 'm', wantsUsage: true });
    const events: HubEvent[] = [
      { type: 'start', id: 'msg_01' },
      { type: 'reasoning', choice: 0, text: 'hm' },
      { type: 'signature', choice: 0, signature: 'EqQB' },
      { type: 'redacted', choice: 0, data: 'EmwK' },
      { type: 'text', choice: 0, text: 'Green' },
      { type: 'citation', choice: 0, citation: { quote: 'q', document: 1 } },
      { type: 'tool-call', choice: 0, call: 0, id: 'toolu_1', name: 'clock' },
      { type: 'tool-arguments', choice: 0, call: 0, text: '{"zone":"UTC"}' },
      { type: 'finish', choice: 0, finish: 'tool-calls' },
      { type: 'usage', usage: parts.usage! },
      { type: 'end' },
    ];
    const streamed = read(Buffer.from(events.map((event) => writer.write(event)).join('')));
    expect(saidBy(streamed)).toEqual(saidByReply(parts));
  });

  test('that is none is an error of the provider’s', () => {
    expect(() => readMessages({}, 'claude')).toThrow('not what was asked for');
    expect(() => readMessages({ type: 'error', error: { type: 'overloaded_error', message: 'm' } }, 'claude')).toThrow(
      'overloaded',
    );
  });
});

describe('odd JSON of a provider', () => {
  /** Keys and values of the format, put together at random. */
  const { tree } = fc.letrec((tie) => ({
    leaf: fc.oneof(
      fc.constantFrom(null, true, -1, 1e308, 3, '', 'text', 'tool_use', 'thinking', 'message'),
      fc.string({ maxLength: 5 }),
    ),
    tree: fc.oneof({ depthSize: 'small' }, tie('leaf'), fc.array(tie('tree'), { maxLength: 3 }), tie('object')),
    object: fc.dictionary(
      fc.constantFrom(
        'type',
        'content',
        'text',
        'thinking',
        'usage',
        'input_tokens',
        'output_tokens',
        'input',
        'id',
        'name',
        'citations',
        'stop_reason',
        'stop_details',
        'explanation',
        'delta',
        'content_block',
        'message',
        'index',
        'error',
        '__proto__',
        'signature',
        'data',
        'partial_json',
        'citation',
      ),
      tie('tree'),
      { maxKeys: 6 },
    ),
  })) as { tree: fc.Arbitrary<unknown> };
  const types = fc.constantFrom(
    'message_start',
    'content_block_start',
    'content_block_delta',
    'content_block_stop',
    'message_delta',
    'message_stop',
    'error',
    'ping',
  );
  const object = fc.dictionary(
    fc.constantFrom('content', 'usage', 'stop_reason', 'delta', 'message', 'content_block', 'index', 'error'),
    tree,
    { maxKeys: 6 },
  );

  test('is read, or is an error of the provider’s, and never a defect', () => {
    fc.assert(
      fc.property(object, (body) => {
        try {
          readMessages(body as Json, 'claude');
        } catch (error) {
          expect(error).toBeInstanceOf(GatewayError);
        }
      }),
      { numRuns: 500 },
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(types, object), { maxLength: 8 }), (events) => {
        const text = events.map(([type, body]) => `data: ${JSON.stringify({ ...body, type })}\n\n`).join('');
        for (const event of read(Buffer.from(text))) {
          if (event.type === 'usage') expect(event.usage.inputTokens).toBeGreaterThanOrEqual(0);
        }
      }),
      { numRuns: 500 },
    );
    expect(() => read(Buffer.from('data: {"type"\n\n'))).toThrow(GatewayError);
    expect(() => read(Buffer.from('data: [1]\n\n'))).toThrow(GatewayError);
    const deep = JSON.parse(`{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`);
    const call = { type: 'tool_use', id: 'c', name: 'f', input: deep };
    expect(() => readMessages({ content: [call] }, 'claude')).toThrow(GatewayError);
  });

  test('is an error that can be read, whatever it is', () => {
    fc.assert(
      fc.property(tree, fc.integer({ min: 300, max: 599 }), (body, status) => {
        expect(readError('claude', status, body, {}).message).not.toBe('');
      }),
      { numRuns: 300 },
    );
  });
});

describe('an error of Anthropic’s', () => {
  const body = (type: string, message = 'No.', details?: object) => ({
    type: 'error',
    error: { type, message, details },
  });

  test.each([
    [400, 'invalid_request_error', 'upstream_invalid_request', 'invalid_request'],
    [401, 'authentication_error', 'upstream_refused_key', undefined],
    [403, 'permission_error', 'upstream_refused_key', undefined],
    [404, 'not_found_error', 'upstream_invalid_request', 'model_not_found'],
    [413, 'request_too_large', 'upstream_invalid_request', 'request_too_large'],
    [429, 'rate_limit_error', 'upstream_rate_limited', 'rate_limit_exceeded'],
    [500, 'api_error', 'upstream_failed', undefined],
    [504, 'timeout_error', 'upstream_timeout', undefined],
    [529, 'overloaded_error', 'upstream_overloaded', undefined],
  ])('%i %s is %s', (status, type, code, publicCode) => {
    const error = readError('claude', status, body(type), {});
    expect([error.code, error.details.publicCode]).toEqual([code, publicCode]);
  });

  test('keeps the vendor’s own code', () => {
    const error = readError(
      'claude',
      400,
      body('invalid_request_error', 'No.', { error_code: 'image_dimensions_too_large' }),
      {},
    );
    expect(error.details.publicCode).toBe('image_dimensions_too_large');
  });

  test.each([
    [402, body('billing_error')],
    [400, body('invalid_request_error', 'Your credit balance is too low to access the API.')],
    [429, body('rate_limit_error', 'No.', { error_code: 'enforced_spend_limit_reached' })],
  ])('%i for an empty account is the operator’s business, and not to be tried again', (status, told) => {
    const error = readError('claude', status, told, {});
    expect(error.details).toMatchObject({ publicCode: 'insufficient_quota', headers: { 'x-should-retry': 'false' } });
    expect(error.message).toContain('operator');
  });

  test('tells how long to wait, by the limit that is used up', () => {
    const soon = new Date(Date.now() + 20_000).toISOString();
    const late = new Date(Date.now() + 90_000).toISOString();
    const headers = {
      'anthropic-ratelimit-requests-remaining': '3',
      'anthropic-ratelimit-requests-reset': late,
      'anthropic-ratelimit-input-tokens-remaining': '0',
      'anthropic-ratelimit-input-tokens-reset': soon,
    };
    const { retryAfterMs } = readError('claude', 429, body('rate_limit_error'), headers);
    expect(retryAfterMs).toBeGreaterThan(10_000);
    expect(retryAfterMs).toBeLessThanOrEqual(20_000);
    expect(readError('claude', 429, body('rate_limit_error'), { ...headers, 'retry-after': '7' }).retryAfterMs).toBe(
      7000,
    );
  });
});
