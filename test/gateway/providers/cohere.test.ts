import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { GatewayError } from '../../../gateway/errors.ts';
import type { HubEvent } from '../../../gateway/hub/reply.ts';
import type { HubPart, HubRequest } from '../../../gateway/hub/request.ts';
import { cohere } from '../../../gateway/providers/cohere/provider.ts';
import type { ChatEndpoint, Endpoint, Provider } from '../../../gateway/providers/provider.ts';
import { fixtureNames, replyFixture, streamFixture } from '../../support/fixture.ts';
import { errorOf, hubRequest, orGatewayError, readPieces, says } from '../../support/hub.ts';
import { saidBy, saidByReply } from '../../support/hub-events.ts';
import { expectSameWhereverCut } from './cut-anywhere.ts';
import { SETTINGS } from './settings.ts';

const MODEL = 'command-a-03-2025';
const THINKING = 'command-a-reasoning-08-2025';

const COMMON = {
  kind: 'cohere',
  key: 'co-key',
  inputType: 'search_document',
  ...SETTINGS,
};
const provider = made();
const chat = provider.endpoints.chat[0] as ChatEndpoint;

function made(settings: Json = {}): Provider {
  return cohere.make('cohere', { ...COMMON, ...settings } as never);
}

function written(more: Partial<HubRequest> = {}, model = MODEL): Json {
  return JSON.parse(JSON.stringify(chat.write(hubRequest(more), { model, stream: false })));
}

function refused(more: Partial<HubRequest>): GatewayError {
  try {
    written(more);
  } catch (error) {
    if (error instanceof GatewayError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

const STREAMS = fixtureNames('streams', 'cohere');

function eventsOf(pieces: Buffer[]): HubEvent[] {
  return readPieces(chat.openReader(), pieces);
}

function streamed(...events: unknown[]): Buffer {
  return Buffer.from(events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join(''));
}

describe('a call', () => {
  test('goes to version 2 with the gateway’s key', async () => {
    expect(provider.origin).toBe('https://api.cohere.com');
    expect(chat.path({ model: MODEL, stream: true })).toBe('/v2/chat');
    const { headers } = await provider.sign({ method: 'POST', path: '/v2/chat', headers: [], body: '{}' });
    expect(headers).toEqual(expect.arrayContaining(['content-type', 'application/json', 'Bearer co-key']));
  });
});

describe('a request', () => {
  test('says its turns where they stand', () => {
    const messages = [
      says('system', 'Be brief.'),
      says('user', 'hello'),
      says('assistant', 'hi', ''),
      says('user', 'so?'),
    ];
    expect(written({ messages: [...messages, says('system', 'In verse.'), says('assistant', '')] })).toEqual({
      model: MODEL,
      stream: false,
      messages: [
        { role: 'system', content: [{ type: 'text', text: 'Be brief.' }] },
        { role: 'user', content: [{ type: 'text', text: 'hello' }] },
        { role: 'assistant', content: [{ type: 'text', text: 'hi' }] },
        { role: 'user', content: [{ type: 'text', text: 'so?' }] },
        { role: 'system', content: [{ type: 'text', text: 'In verse.' }] },
      ],
    });
  });

  test('bounds and shapes the answer', () => {
    const schema = { type: 'object' };
    const bounds = { maxOutputTokens: 100, temperature: 0.5, topP: 0.9, topK: 40, stop: ['three'], seed: 7 };
    const penalties = { presencePenalty: 0.1, frequencyPenalty: 1 };
    expect(written({ ...bounds, ...penalties, format: { type: 'json-schema', schema, name: 'x' } })).toMatchObject({
      max_tokens: 100,
      temperature: 0.5,
      p: 0.9,
      k: 40,
      stop_sequences: ['three'],
      seed: 7,
      presence_penalty: 0.1,
      frequency_penalty: 1,
      response_format: { type: 'json_object', json_schema: schema },
    });
    expect(written({ format: { type: 'json' } }).response_format).toEqual({ type: 'json_object' });
  });

  test.each<[HubRequest['reasoning'], Json | undefined]>([
    [undefined, undefined],
    [{ off: true }, { type: 'disabled' }],
    [{ effort: 'low' }, { type: 'enabled', token_budget: 2048 }],
    [{ effort: 'high' }, { type: 'enabled' }],
    [{ budget: 500 }, { type: 'enabled', token_budget: 500 }],
  ])('thinks as wished: %j', (reasoning, thinking) => {
    expect(written({ reasoning }).thinking).toEqual(thinking);
  });

  test('shows images', () => {
    const parts: HubPart[] = [
      { type: 'image', source: { kind: 'data', mediaType: 'image/png', data: 'AAAA' }, detail: 'low' },
      { type: 'image', source: { kind: 'url', url: 'https://example.com/a.png' } },
    ];
    expect(written({ messages: [says('user', 'see', ...parts)] }).messages).toEqual([
      {
        role: 'user',
        content: [
          { type: 'text', text: 'see' },
          { type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA', detail: 'low' } },
          { type: 'image_url', image_url: { url: 'https://example.com/a.png' } },
        ],
      },
    ]);
  });

  test.each<[string, Partial<HubRequest>, string]>([
    ['presence_penalty', { presencePenalty: -1, used: new Map([['presence-penalty', 'presence_penalty']]) }, '0 to 1'],
    ['frequency_penalty', { frequencyPenalty: 2 }, '0 to 1'],
    ['service_tier', { serviceTier: 'flex' }, 'auto or default'],
    [
      'messages[0]',
      { messages: [says('user', { type: 'image', source: { kind: 'id', id: 'a' } })] },
      'inline or by URL',
    ],
    ['messages[0]', { messages: [says('user', pdf())] }, 'text and images'],
    ['messages[0]', { messages: [says('tool', { type: 'tool-result', id: 'a', parts: [pdf()] })] }, 'more than text'],
  ])('is refused for its %s, by the client’s name for it', (param, more, why) => {
    const error = refused(more);
    expect(error.code).toBe('invalid_request');
    expect(error.details.param).toBe(param);
    expect(error.message).toContain(why);
  });
});

function pdf(): HubPart {
  return { type: 'file', source: { kind: 'data', mediaType: 'application/pdf', data: 'AAAA' } };
}

describe('tools', () => {
  const clock = { name: 'clock', description: 'The time.', parameters: { type: 'object' }, strict: true };
  const declared = { name: 'clock', description: 'The time.', parameters: { type: 'object' } };
  const weather = { name: 'weather' };

  test('are declared, and may be forbidden, demanded or named', () => {
    expect(written({ tools: [clock, weather] })).toMatchObject({
      tools: [
        { type: 'function', function: declared },
        { type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: {} } } },
      ],
      strict_tools: true,
    });
    expect(written({ tools: [clock], toolChoice: 'none' }).tool_choice).toBe('NONE');
    expect(written({ tools: [clock], toolChoice: 'required' }).tool_choice).toBe('REQUIRED');
    expect(written({ tools: [clock], toolChoice: 'auto' })).not.toHaveProperty('tool_choice');
    expect(written({ tools: [clock, weather], toolChoice: { name: 'clock' } })).toMatchObject({
      tools: [{ function: declared }],
      tool_choice: 'REQUIRED',
    });
    expect(written({ toolChoice: 'required' })).not.toHaveProperty('tool_choice');
  });

  const call: HubPart = { type: 'tool-call', id: 'a', name: 'clock', arguments: '' };
  const results: HubPart[] = [
    { type: 'tool-result', id: 'a', parts: [{ type: 'text', text: 'noon' }] },
    { type: 'tool-result', id: 'b', isError: true, parts: [{ type: 'text', text: 'down' }] },
  ];

  test('calls and results go back, each result in a message of its own before what is added', () => {
    expect(written({ messages: [says('assistant', call), says('user', 'and?', ...results)] }).messages).toEqual([
      {
        role: 'assistant',
        tool_calls: [{ id: 'a', type: 'function', function: { name: 'clock', arguments: '{}' } }],
      },
      { role: 'tool', tool_call_id: 'a', content: 'noon' },
      { role: 'tool', tool_call_id: 'b', content: [{ type: 'document', document: { data: { error: 'down' } } }] },
      { role: 'user', content: [{ type: 'text', text: 'and?' }] },
    ]);
  });

  test('thoughts go back in the words of the model, or not at all', () => {
    const messages = [says('assistant', { type: 'reasoning', text: 'Hm.' }, 'hi', call)];
    const sent = (model: string) => (written({ messages }, model).messages as Json[])[0];
    expect(sent(THINKING)).toMatchObject({ content: [{ type: 'thinking', thinking: 'Hm.' }, { type: 'text' }] });
    expect(sent(THINKING)).not.toHaveProperty('tool_plan');
    expect(sent(MODEL)).toMatchObject({ content: [{ type: 'text' }], tool_plan: 'Hm.' });
    expect(JSON.stringify(sent('command-next'))).not.toContain('Hm.');
  });
});

describe('an answer', () => {
  test('is read with its plan, its calls and its usage', () => {
    expect(chat.read(replyFixture('cohere', 'tools'))).toEqual({
      id: 'c14c80c3-18eb-4519-9460-6c92edd8cfb4',
      choices: [
        {
          index: 0,
          parts: [
            { type: 'reasoning', text: 'I will look up the weather.' },
            {
              type: 'tool-call',
              id: 'get_weather_ey9nb0t5zbjc',
              name: 'get_weather',
              arguments: '{"city": "München"}',
            },
          ],
          finish: 'tool-calls',
        },
      ],
      usage: { inputTokens: 1537, outputTokens: 24, cachedInputTokens: undefined },
    });
    expect(chat.read(replyFixture('cohere', 'cache-usage')).usage?.cachedInputTokens).toBe(2048);
  });

  test('tells its sources', () => {
    expect(chat.read(replyFixture('cohere', 'citations')).choices[0]?.parts[0]).toMatchObject({
      citations: [
        { start: 0, end: 15, title: 'Handbook', url: 'https://example.com/handbook', quote: 'Gyms are free.' },
      ],
    });
  });

  test('puts its sources beside the text that they are of', () => {
    const content = [
      { type: 'thinking', thinking: 'Hm.' },
      { type: 'text', text: 'a' },
      { type: 'text', text: 'b' },
    ];
    const citations = [{ start: 0, end: 1, content_index: 2, sources: [{ type: 'tool', id: 'clock:0' }] }];
    const { choices } = chat.read({ message: { content, citations }, finish_reason: 'COMPLETE' });
    expect(choices[0]?.parts).toEqual([
      { type: 'reasoning', text: 'Hm.' },
      { type: 'text', text: 'a' },
      { type: 'text', text: 'b', citations: [expect.objectContaining({ start: 0, end: 1, title: 'clock:0' })] },
    ]);
  });

  test.each([
    ['ERROR', 'upstream_failed'],
    ['TIMEOUT', 'upstream_timeout'],
  ])('that was broken off with %s is no finished answer', (reason, code) => {
    const body = { ...replyFixture('cohere', 'text'), finish_reason: reason };
    expect(() => chat.read(body)).toThrow(expect.objectContaining({ code }));
  });

  test('of any other shape is an error of the gateway’s own', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), fc.jsonValue(), (message, content, usage) => {
        const parts = { content, tool_calls: content, citations: usage };
        for (const body of [
          { message, usage },
          { message: parts, usage, finish_reason: content },
        ])
          orGatewayError(() => chat.read(body as Json));
      }),
    );
    expect(() => chat.read({})).toThrow(GatewayError);
  });
});

describe('a stream', () => {
  test.each(STREAMS.filter((name) => name !== 'error'))('of %s says what the whole answer says', (name) => {
    const said = saidBy(eventsOf([streamFixture('cohere', name)]));
    expect(said).toEqual(saidByReply(chat.read(replyFixture('cohere', name))));
    expect(said.hasEnded).toBe(true);
  });

  test.each(STREAMS)('of %s is the same wherever it is cut', (name) => {
    expectSameWhereverCut(streamFixture('cohere', name), eventsOf);
  });

  test('passes each piece on as it came', () => {
    expect(eventsOf([streamFixture('cohere', 'tools')])).toEqual([
      { type: 'start', id: 'c14c80c3-18eb-4519-9460-6c92edd8cfb4' },
      ...['I ', 'will ', 'look ', 'up ', 'the ', 'weather.'].map((text) => ({ type: 'reasoning', choice: 0, text })),
      { type: 'tool-call', choice: 0, call: 0, id: 'get_weather_ey9nb0t5zbjc', name: 'get_weather' },
      ...['{"ci', 'ty": "Mün', 'chen"', '}'].map((text) => ({ type: 'tool-arguments', choice: 0, call: 0, text })),
      { type: 'part-end', choice: 0 },
      { type: 'finish', choice: 0, finish: 'tool-calls' },
      { type: 'usage', usage: { inputTokens: 1537, outputTokens: 24, cachedInputTokens: undefined } },
      { type: 'end' },
    ]);
  });

  test('takes arguments that come with the name, and nothing after its end', () => {
    const called = { id: 'a', type: 'function', function: { name: 'clock', arguments: '{}' } };
    const bytes = streamed(
      { type: 'tool-call-start', index: 4, delta: { message: { tool_calls: called } } },
      { type: 'message-end', delta: { finish_reason: 'TOOL_CALL' } },
      { type: 'content-delta', delta: { message: { content: { text: 'more' } } } },
    );
    expect(eventsOf([bytes])).toEqual([
      { type: 'start' },
      { type: 'tool-call', choice: 0, call: 0, id: 'a', name: 'clock' },
      { type: 'tool-arguments', choice: 0, call: 0, text: '{}' },
      { type: 'finish', choice: 0, finish: 'tool-calls' },
      { type: 'end' },
    ]);
  });

  test('that is cut before its last event never ends', () => {
    const bytes = streamFixture('cohere', 'text');
    for (let length = 0; length < bytes.length - 1; length += 1) {
      const types = eventsOf([bytes.subarray(0, length)]).map(({ type }) => type);
      expect(types).not.toContain('end');
      expect(types).not.toContain('finish');
    }
  });

  test('that the provider breaks off ends in an error', () => {
    const error = errorOf(eventsOf([streamFixture('cohere', 'error')]));
    expect(error?.code).toBe('upstream_failed');
    expect(error?.message).not.toContain('Internal');
    const unnamed = streamed({ type: 'message-end', delta: { error: 'Internal error' } });
    expect(errorOf(eventsOf([unnamed]))?.code).toBe('upstream_failed');
  });

  test('of odd events never throws anything else', () => {
    const type = fc.constantFrom(
      'message-start',
      'content-start',
      'content-delta',
      'tool-plan-delta',
      'tool-call-start',
      'tool-call-delta',
      'citation-start',
      'message-end',
    );
    const message = fc.record({
      content: fc.jsonValue(),
      tool_calls: fc.jsonValue(),
      citations: fc.jsonValue(),
      tool_plan: fc.jsonValue(),
    });
    const delta = fc.oneof(
      fc.jsonValue(),
      fc.record({ message: fc.oneof(fc.jsonValue(), message), usage: fc.jsonValue(), finish_reason: fc.jsonValue() }),
    );
    const event = fc.record({ type, index: fc.jsonValue(), id: fc.jsonValue(), delta });
    fc.assert(
      fc.property(fc.array(event, { maxLength: 6 }), (events) => {
        orGatewayError(() => eventsOf([streamed(...events)]));
      }),
    );
    for (const odd of ['data: [1]\n\n', 'data: {"a":\n\n'])
      expect(() => eventsOf([Buffer.from(odd)])).toThrow(GatewayError);
    expect(() => eventsOf([streamed({ type: 'tool-call-delta', index: 3 })])).toThrow(GatewayError);
  });
});

describe('errors and vectors', () => {
  test.each<[number, string]>([
    [400, 'upstream_invalid_request'],
    [401, 'upstream_refused_key'],
    [404, 'upstream_invalid_request'],
    [422, 'upstream_invalid_request'],
    [429, 'upstream_rate_limited'],
    [498, 'upstream_refused_key'],
    [500, 'upstream_failed'],
    [503, 'upstream_overloaded'],
    [504, 'upstream_timeout'],
  ])('%i is %s', (status, code) => {
    const error = provider.readError(status, { message: 'Because.' }, {});
    expect(error.code).toBe(code);
    if (code === 'upstream_invalid_request') expect(error.message).toBe('Because.');
  });

  test('texts become vectors, 96 at a time', () => {
    const embeddings = provider.endpoints.embeddings?.[0] as Endpoint<'embeddings'>;
    const facts = { model: 'embed-v4.0', stream: false };
    const texts = (...input: (string | number[])[]) => ({ input, used: new Map(), unknown: [] });
    expect(embeddings.path(facts)).toBe('/v2/embed');
    expect(embeddings.write({ ...texts('a', 'b'), dimensions: 256 }, facts)).toEqual({
      model: 'embed-v4.0',
      texts: ['a', 'b'],
      input_type: 'search_document',
      embedding_types: ['float'],
      output_dimension: 256,
    });
    expect(() => embeddings.write(texts(...Array(97).fill('a')), facts)).toThrow('must be 96 texts at most');
    expect(() => embeddings.write(texts([1]), facts)).toThrow('not token ids');
    const query = made({ inputType: 'search_query' }).endpoints.embeddings?.[0];
    expect(query?.write(texts('a'), facts)).toMatchObject({ input_type: 'search_query' });
    const answer = { embeddings: { float: [[1, 2]] }, meta: { billed_units: { input_tokens: 4 } } };
    expect(embeddings.read(answer)).toEqual({ vectors: [[1, 2]], usage: { inputTokens: 4, outputTokens: 0 } });
    for (const odd of [{}, { embeddings: { float: [['x']] } }, { embeddings: [[1]] }])
      expect(() => embeddings.read(odd)).toThrow(GatewayError);
  });
});
