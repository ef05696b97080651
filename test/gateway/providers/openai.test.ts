import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { openaiChat } from '../../../gateway/dialects/openai-chat/dialect.ts';
import { GatewayError } from '../../../gateway/errors.ts';
import { FEATURES } from '../../../gateway/hub/features.ts';
import type { HubEvent } from '../../../gateway/hub/reply.ts';
import type { HubPart, HubRequest } from '../../../gateway/hub/request.ts';
import { openai } from '../../../gateway/providers/openai/provider.ts';
import type { ChatEndpoint, Endpoint } from '../../../gateway/providers/provider.ts';
import { cutAt, cutBySizes, cutOffsets, pieceSizes } from '../../support/cuts.ts';
import { fixtureNames, replyFixture, requestFixture, streamFixture } from '../../support/fixture.ts';
import { errorOf, hubRequest, orGatewayError, readPieces, says } from '../../support/hub.ts';
import { saidBy, saidByReply } from '../../support/hub-events.ts';

const provider = openai.make('up', {
  kind: 'openai',
  baseUrl: 'https://proxy.example/openai/v1/?tenant=a',
  key: 'sk-key',
  headers: { 'OpenAI-Organization': 'org-1' },
  timeouts: { connect: 1, firstByte: 1, idle: 1 },
  streamUsage: true,
  unmapped: 'refuse',
});
const chat = provider.endpoints.chat[0] as ChatEndpoint;
const embeddings = provider.endpoints.embeddings![0] as Endpoint<'embeddings'>;
const FACTS = { model: 'gpt-4o-mini', stream: false };

function written(more: Partial<HubRequest>): Json {
  return chat.write(hubRequest(more), FACTS);
}

function messagesOf(...messages: HubRequest['messages']): Json[] {
  return written({ messages }).messages as Json[];
}

function eventsOf(pieces: Buffer[]): HubEvent[] {
  return readPieces(chat.openReader(), pieces);
}

/** Ids that were made up are of the moment. */
function withoutMadeUp(events: HubEvent[]): HubEvent[] {
  return events.map((event) => (event.type === 'tool-call' ? { ...event, id: 'id' } : event));
}

function frames(...bodies: unknown[]): Buffer {
  return Buffer.from(bodies.map((body) => `data: ${JSON.stringify(body)}\n\n`).join(''));
}

describe('the call', () => {
  test('goes below the base URL, whose query stays', () => {
    expect(provider.origin).toBe('https://proxy.example');
    expect(chat.path(FACTS)).toBe('/openai/v1/chat/completions?tenant=a');
    expect(embeddings.path(FACTS)).toBe('/openai/v1/embeddings?tenant=a');
  });

  test('carries the key and the config’s headers, and says that it is JSON unless it is something else', async () => {
    const json = await provider.sign({ method: 'POST', path: '/x', headers: ['x-request-id', 'r'], body: '{}' });
    expect(json.headers).toEqual([
      ...['content-type', 'application/json', 'accept-encoding', 'identity', 'user-agent', 'wardgate'],
      ...['authorization', 'Bearer sk-key', 'openai-organization', 'org-1', 'x-request-id', 'r'],
    ]);
    const form = ['content-type', 'multipart/form-data; boundary=b'];
    for (const call of [
      { method: 'POST', path: '/x', headers: form, body: '--b' },
      { method: 'GET', path: '/x', headers: [], body: undefined },
    ]) {
      expect((await provider.sign(call)).headers).not.toContain('application/json');
    }
  });
});

describe('a request', () => {
  test.each(fixtureNames('requests', 'openai-chat'))('that came as a chat completion is one again: %s', (name) => {
    const { used: _used, unknown, ...hub } = openaiChat.toHub(requestFixture('openai-chat', name));
    expect(unknown).toEqual([]);
    const again = openaiChat.toHub(chat.write(openaiChat.toHub(requestFixture('openai-chat', name)), FACTS));
    const { used: _again, unknown: _none, ...back } = again;
    expect(back).toEqual(withoutLeftOut(hub as HubRequest));
  });

  /** What the table says is left out. */
  function withoutLeftOut(hub: HubRequest): Partial<HubRequest> {
    const messages = hub.messages.map((message) => ({
      ...message,
      parts: message.parts
        .filter(({ type }) => type !== 'reasoning')
        .map(({ cache: _cache, citations: _citations, ...part }: HubPart & { cache?: string; citations?: unknown }) =>
          'parts' in part ? { ...part, parts: part.parts } : part,
        ),
    }));
    return { ...hub, messages } as Partial<HubRequest>;
  }

  test('names the bound, the user and the model as OpenAI does', () => {
    expect(written({ maxOutputTokens: 7, user: 'jo' })).toMatchObject({
      model: 'gpt-4o-mini',
      max_completion_tokens: 7,
      safety_identifier: 'jo',
    });
    const long = written({ user: 'u'.repeat(65) }).safety_identifier;
    expect(long).toMatch(/^[0-9a-f]{64}$/);
    expect(written({ user: 'u'.repeat(65) }).safety_identifier).toBe(long);
  });

  test('asks for the usage of a stream, unless the config does not want it', () => {
    const streamed = { ...FACTS, stream: true };
    expect(chat.write(hubRequest(), streamed)).toMatchObject({ stream: true, stream_options: { include_usage: true } });
    expect(chat.write(hubRequest(), FACTS)).not.toHaveProperty('stream');
    const silent = openai.make('up', {
      kind: 'openai',
      timeouts: { connect: 1, firstByte: 1, idle: 1 },
      streamUsage: false,
      unmapped: 'refuse',
    });
    expect(silent.endpoints.chat[0]!.write(hubRequest(), streamed)).not.toHaveProperty('stream_options');
  });

  test('pieces of text are one string, with a blank line between what others wrote', () => {
    expect(
      messagesOf(says('system', 'Be brief.', 'Be kind.'), says('user', 'a', 'b'), says('assistant', 'c', 'd')),
    ).toEqual([
      { role: 'system', content: 'Be brief.\n\nBe kind.' },
      { role: 'user', content: 'a\n\nb' },
      { role: 'assistant', content: 'cd' },
    ]);
  });

  test('each tool result is a message, before what else the turn says, and an error says that it is one', () => {
    const result = (id: string, isError: boolean): HubPart => ({
      type: 'tool-result',
      id,
      isError,
      parts: [
        { type: 'text', text: 'one' },
        { type: 'text', text: 'two' },
      ],
    });
    expect(messagesOf(says('user', 'And then?', result('a', false), result('b', true)))).toEqual([
      { role: 'tool', tool_call_id: 'a', content: 'one\n\ntwo' },
      { role: 'tool', tool_call_id: 'b', content: 'Error: one\n\ntwo' },
      { role: 'user', content: 'And then?' },
    ]);
  });

  test('earlier thoughts and Google’s seals stay here: OpenAI refuses fields that it does not know', () => {
    const [message] = messagesOf(
      says(
        'assistant',
        { type: 'reasoning', text: 'Hm', signature: 'c2lnbmVk' },
        { type: 'tool-call', id: 'c', name: 'f', arguments: '', signature: 'c2VhbA==' },
      ),
    );
    expect(message).toEqual({
      role: 'assistant',
      content: null,
      tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: '{}' } }],
    });
  });

  test('documents are files, or text where they are text', () => {
    const [message] = messagesOf(
      says(
        'user',
        { type: 'file', source: { kind: 'data', mediaType: 'application/pdf', data: 'JVBE' } },
        { type: 'file', source: { kind: 'id', id: 'file-1' } },
        { type: 'file', name: 'notes.txt', source: { kind: 'text', mediaType: 'text/plain', text: 'Buy milk.' } },
      ),
    );
    expect(message!.content).toEqual([
      { type: 'file', file: { filename: 'document.pdf', file_data: 'data:application/pdf;base64,JVBE' } },
      { type: 'file', file: { file_id: 'file-1' } },
      { type: 'text', text: 'notes.txt:\n\nBuy milk.' },
    ]);
  });

  test.each<[string, Partial<HubRequest>]>([
    ['stop_sequences', { stop: ['a', 'b', 'c', 'd', 'e'], used: new Map([['stop', 'stop_sequences']]) }],
    [
      'messages[0]',
      {
        messages: [says('user', { type: 'audio', source: { kind: 'data', mediaType: 'audio/ogg', data: 'T2dn' } })],
      },
    ],
  ])('a value without a counterpart is refused by the client’s name for it: %s', (param, more) => {
    expect(() => written(more)).toThrow(expect.objectContaining({ code: 'invalid_request', details: { param } }));
  });

  test('what chooses among tools is not sent without tools', () => {
    const choice = { toolChoice: 'none', parallelToolCalls: false } as const;
    expect(written(choice)).not.toHaveProperty('tool_choice');
    expect(written(choice)).not.toHaveProperty('parallel_tool_calls');
    expect(written({ ...choice, tools: [{ name: 'f' }] })).toMatchObject({
      tools: [{ type: 'function', function: { name: 'f' } }],
      tool_choice: 'none',
      parallel_tool_calls: false,
    });
  });

  test.each([
    [{ effort: 'xhigh' }, 'xhigh'],
    [{ off: true }, 'none'],
    [{ budget: 1024 }, 'low'],
    [{ budget: 8192 }, 'medium'],
    [{ budget: 8193 }, 'high'],
    [{ shown: true }, undefined],
  ] as const)('how much to think is an effort: %j is %s', (reasoning, effort) => {
    const used = new Map([['reasoning', 'thinking'] as const]);
    expect(written({ reasoning, used }).reasoning_effort).toBe(effort);
  });

  test('thinking that nobody spoke of is not spoken of', () => {
    expect(written({ reasoning: { off: true } })).not.toHaveProperty('reasoning_effort');
  });

  test('the table decides on every feature', () => {
    expect(Object.keys(chat.supports).sort()).toEqual(Object.keys(FEATURES).sort());
    expect(Object.keys(embeddings.supports).sort()).toEqual(Object.keys(FEATURES).sort());
  });
});

describe('an answer', () => {
  const CASES = fixtureNames('streams', 'openai').filter((name) => name !== 'error');

  test.each(CASES)('whole or streamed says the same: %s', (name) => {
    const whole = saidByReply(chat.read(replyFixture('openai', name)));
    const streamed = saidBy(eventsOf([streamFixture('openai', name)]).filter((event) => !isOfOthers(event)));
    expect(streamed).toEqual(whole);
    expect(whole.finish).toBeDefined();
    expect(whole.usage!.inputTokens).toBeGreaterThan(0);
  });

  function isOfOthers(event: HubEvent): boolean {
    return 'choice' in event && event.choice > 0;
  }

  test('tells of itself', () => {
    const { choices: _choices, ...head } = chat.read(replyFixture('openai', 'cache-usage'));
    expect(head).toEqual({
      id: 'chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG',
      model: 'gpt-4o-mini-2024-07-18',
      created: 1741570283,
      serviceTier: 'default',
      usage: { inputTokens: 2006, outputTokens: 4, cachedInputTokens: 1920, cacheWriteTokens: 64, reasoningTokens: 0 },
    });
  });

  test('keeps several choices apart', () => {
    const { choices } = chat.read(replyFixture('openai', 'choices'));
    expect(choices).toEqual([
      { index: 0, parts: [{ type: 'text', text: 'Red' }], finish: 'stop' },
      { index: 1, parts: [{ type: 'text', text: 'Blue' }], finish: 'length' },
    ]);
  });

  test('log probabilities stand beside their text', () => {
    const texts = eventsOf([streamFixture('openai', 'logprobs')]).filter(({ type }) => type === 'text');
    expect(texts).toMatchObject([
      { text: 'Yes', logprobs: [{ token: 'Yes', logprob: -0.03, top: [{ token: 'Yes' }, { token: 'No' }] }] },
      { text: '!', logprobs: [{ token: '!' }] },
    ]);
    expect(chat.read(replyFixture('openai', 'logprobs')).choices[0]!.logprobs).toHaveLength(2);
  });

  test('a tool call’s arguments come as they came', () => {
    const events = eventsOf([streamFixture('openai', 'tools')]).filter((event) => 'choice' in event);
    expect(events).toEqual([
      { type: 'tool-call', choice: 0, call: 0, id: 'call_abc', name: 'get_weather' },
      { type: 'tool-arguments', choice: 0, call: 0, text: '{"ci' },
      { type: 'tool-arguments', choice: 0, call: 0, text: 'ty":"Pa' },
      { type: 'tool-arguments', choice: 0, call: 0, text: 'ris"}' },
      { type: 'finish', choice: 0, finish: 'tool-calls' },
    ]);
  });

  test('an error in the middle of a stream ends it', () => {
    const events = eventsOf([streamFixture('openai', 'error')]);
    expect(errorOf(events)).toMatchObject({ code: 'upstream_failed', status: 502 });
    expect(saidBy(events)).toMatchObject({ text: 'Hel', hasEnded: false, finish: undefined });
  });

  test('one without a choice is none', () => {
    for (const body of [{}, { choices: [] }, { choices: {} }, { choices: [{ message: null }] }, { choices: ['a'] }]) {
      expect(() => chat.read(body)).toThrow(expect.objectContaining({ code: 'upstream_bad_answer' }));
    }
  });

  test('an error in a 200 is the error that it says it is', () => {
    const error = { code: 429, message: 'Rate limit exceeded' };
    expect(() => chat.read({ error })).toThrow(expect.objectContaining({ code: 'upstream_rate_limited' }));
  });
});

describe('a stream', () => {
  const STREAMS = fixtureNames('streams', 'openai');

  test.each(STREAMS)('says the same wherever it is cut: %s', (name) => {
    const bytes = streamFixture('openai', name);
    const expected = eventsOf([bytes]);
    for (let at = 1; at < bytes.length; at += 1) expect(eventsOf(cutAt([at])(bytes))).toEqual(expected);
    const cut = fc.oneof(pieceSizes.map(cutBySizes), cutOffsets(bytes.length).map(cutAt));
    fc.assert(
      fc.property(cut, (pieces) => {
        expect(eventsOf(pieces(bytes))).toEqual(expected);
      }),
      { numRuns: 30 },
    );
  });

  test('that stops before its finish has no end, wherever it stops', () => {
    const bytes = streamFixture('openai', 'text');
    const finish = bytes.indexOf('"finish_reason":"stop"');
    for (let length = 0; length < finish; length += 1) {
      expect(eventsOf([bytes.subarray(0, length)]).map(({ type }) => type)).not.toContain('end');
    }
  });

  test('that has finished and is closed without [DONE] has ended, once', () => {
    const bytes = streamFixture('openai', 'text').toString().replace('data: [DONE]\n\n', '');
    expect(eventsOf([Buffer.from(bytes)]).filter(({ type }) => type === 'end')).toHaveLength(1);
    expect(eventsOf([streamFixture('openai', 'text')]).filter(({ type }) => type === 'end')).toHaveLength(1);
  });

  test('of which one choice has not finished has not ended when it is closed', () => {
    const text = streamFixture('openai', 'choices').toString();
    const open = text.slice(0, text.lastIndexOf('data:', text.indexOf('"finish_reason":"length"')));
    expect(saidBy(eventsOf([Buffer.from(open)])).hasEnded).toBe(false);
  });

  test('what is no event of the format is an error of the gateway’s own', () => {
    for (const data of ['data: {\n\n', 'data: []\n\n', 'data: "x"\n\n', 'data: 7\n\n']) {
      expect(() => eventsOf([Buffer.from(data)])).toThrow(expect.objectContaining({ code: 'upstream_bad_answer' }));
    }
  });

  test('tool calls beyond measure are not collected', () => {
    const calls = Array.from({ length: 1100 }, (_, index) => ({ index, id: `c${index}`, function: { name: 'f' } }));
    const body = { choices: [{ index: 0, delta: { tool_calls: calls } }] };
    expect(() => eventsOf([frames(body)])).toThrow(expect.objectContaining({ code: 'upstream_bad_answer' }));
  });
});

/** JSON that looks like an answer in places. */
const odd: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constantFrom(null, true, 0, -1, 1e300, '', 'stop', 'text', '__proto__'),
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(
      fc.constantFrom(
        ...['choices', 'delta', 'message', 'content', 'tool_calls', 'function', 'arguments', 'name', 'index', 'usage'],
        ...['finish_reason', 'logprobs', 'reasoning_details', 'annotations', 'images', 'error', 'type', 'text', 'id'],
        ...['url_citation', 'top_logprobs', 'data', 'embedding', 'thinking', 'function_call', 'x_groq', '__proto__'],
      ),
      tie('value'),
      { maxKeys: 6 },
    ),
  ),
})).value;

test('odd JSON from a provider is an answer or an error of the gateway’s own, never a fault', () => {
  const body = fc.dictionary(fc.constantFrom('choices', 'error', 'usage', 'id', 'model', 'data', 'citations'), odd);
  fc.assert(
    fc.property(body, (value) => {
      orGatewayError(() => void chat.read(value));
      orGatewayError(() => void embeddings.read(value));
      orGatewayError(() => void eventsOf([frames(value)]));
      provider.readError(400, value, {});
    }),
    { numRuns: 2000 },
  );
});

describe('an error', () => {
  const told = (status: number, body: unknown, headers = {}) => provider.readError(status, body, headers);

  test('of the client is told as the provider told it', () => {
    const error = {
      message: 'Too long.',
      type: 'invalid_request_error',
      param: 'messages',
      code: 'context_length_exceeded',
    };
    expect(told(400, { error })).toMatchObject({
      code: 'upstream_invalid_request',
      message: 'Too long.',
      details: { status: 400, publicCode: 'context_length_exceeded', param: 'messages' },
    });
  });

  test.each([
    ['a list', [{ error: { message: 'No.' } }]],
    ['a string', { error: 'No.' }],
    ['the bare fields', { object: 'error', message: 'No.', code: 400 }],
    ['FastAPI’s sentence', { detail: 'No.' }],
  ])('is read from %s', (_, body) => {
    expect(told(400, body).message).toBe('No.');
  });

  test('names the place that FastAPI names', () => {
    const detail = [{ type: 'extra_forbidden', loc: ['body', 'seed'], msg: 'Extra inputs are not permitted' }];
    const expected = 'seed: Extra inputs are not permitted';
    expect(told(422, { detail }).message).toBe(expected);
    expect(told(422, { object: 'error', message: { detail } }).message).toBe(expected);
  });

  test('of the gateway’s own key is not the client’s', () => {
    for (const status of [401, 403]) {
      expect(told(status, { error: { message: 'Incorrect API key provided: sk-key.' } })).toMatchObject({
        code: 'upstream_refused_key',
        message: expect.not.stringContaining('sk-key'),
      });
    }
  });

  test.each([
    [{ 'retry-after': '7' }, 7000],
    [{ 'retry-after-ms': '1500', 'retry-after': '7' }, 1500],
    [{ 'x-ratelimit-reset-requests': '20ms', 'x-ratelimit-reset-tokens': '6m0s' }, 360_000],
    [
      { 'x-ratelimit-reset-requests': '1s', 'x-ratelimit-remaining-requests': '0', 'x-ratelimit-reset-tokens': '1h' },
      1000,
    ],
    [{ 'x-ratelimit-reset-requests': '1m30.5s' }, 90_500],
    [{ 'x-ratelimit-reset-requests': '12' }, 12_000],
    [{ 'x-ratelimit-reset-requests': 'soon', 'x-ratelimit-reset-tokens': '' }, undefined],
    [{}, undefined],
  ])('of its rate limit says how long to wait: %j', (headers, ms) => {
    const error = told(429, { error: { message: 'Slow down.', code: 'rate_limit_exceeded' } }, headers);
    expect(error).toMatchObject({ code: 'upstream_rate_limited', details: { publicCode: 'rate_limit_exceeded' } });
    expect(error.retryAfterMs).toBe(ms);
  });

  test('of a used up account is not worth trying again', () => {
    const error = {
      message: 'You exceeded your current quota',
      type: 'insufficient_quota',
      code: 'insufficient_quota',
    };
    for (const told of [provider.readError(429, { error }, { 'retry-after': '1' }), provider.readError(402, {}, {})]) {
      expect(told).toMatchObject({
        code: 'upstream_rate_limited',
        details: { publicCode: 'insufficient_quota', headers: { 'x-should-retry': 'false' } },
      });
      expect(told.retryAfterMs).toBeUndefined();
      expect(told.message).toContain('used up');
    }
  });
});

describe('vectors', () => {
  test('are asked for as numbers', () => {
    const request = { input: ['a', [1, 2]], dimensions: 2, user: 'jo', used: new Map(), unknown: [] };
    expect(embeddings.write(request, FACTS)).toEqual({
      model: 'gpt-4o-mini',
      input: ['a', [1, 2]],
      dimensions: 2,
      user: 'jo',
      encoding_format: 'float',
    });
  });

  test('are read in the order of their texts, as numbers or as base64', () => {
    const bytes = Buffer.alloc(8);
    bytes.writeFloatLE(0.5, 0);
    bytes.writeFloatLE(-2, 4);
    const data = [
      { object: 'embedding', index: 1, embedding: bytes.toString('base64') },
      { object: 'embedding', index: 0, embedding: [1, 2] },
    ];
    expect(embeddings.read({ model: 'e', data, usage: { prompt_tokens: 3, total_tokens: 3 } })).toEqual({
      model: 'e',
      vectors: [
        [1, 2],
        [0.5, -2],
      ],
      usage: { inputTokens: 3, outputTokens: 0 },
    });
  });

  test.each([[{}], [{ data: [] }], [{ data: [{ embedding: [1, 'x'] }] }], [{ data: [{ embedding: 'abc' }] }]])(
    'that are none are an error: %j',
    (body) => {
      expect(() => embeddings.read(body)).toThrow(GatewayError);
    },
  );
});

test('arguments that are nested beyond measure are an error of the gateway’s own', () => {
  const deep = JSON.parse(`${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}`) as Json;
  const message = { tool_calls: [{ id: 'c', function: { name: 'f', arguments: deep } }] };
  expect(() => chat.read({ choices: [{ message }] })).toThrow(GatewayError);
});

test('calls with neither number nor id are told apart by their names', () => {
  const piece = (fn: Json) => ({ choices: [{ delta: { tool_calls: [{ function: fn }] } }] });
  const pieces = [{ name: 'f', arguments: '{' }, { arguments: '}' }, { name: 'g', arguments: '{}' }];
  expect(withoutMadeUp(eventsOf([frames(...pieces.map(piece))])).slice(1)).toEqual([
    { type: 'tool-call', choice: 0, call: 0, id: 'id', name: 'f' },
    { type: 'tool-arguments', choice: 0, call: 0, text: '{' },
    { type: 'tool-arguments', choice: 0, call: 0, text: '}' },
    { type: 'tool-call', choice: 0, call: 1, id: 'id', name: 'g' },
    { type: 'tool-arguments', choice: 0, call: 1, text: '{}' },
  ]);
});

test('made up ids of calls are the same for all pieces of a call', () => {
  const piece = (fn: Json) => ({ choices: [{ index: 0, delta: { tool_calls: [{ index: 0, function: fn }] } }] });
  const events = eventsOf([frames(piece({ name: 'f', arguments: '' }), piece({ arguments: '{}' }))]);
  expect(withoutMadeUp(events)).toEqual([
    { type: 'start' },
    { type: 'tool-call', choice: 0, call: 0, id: 'id', name: 'f' },
    { type: 'tool-arguments', choice: 0, call: 0, text: '{}' },
  ]);
  expect(events[1]).toMatchObject({ id: expect.stringMatching(/^call_\w{24}$/) });
});
