/** What goes to OpenAI's Responses, and what its answers, streams and errors mean. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { toHub } from '../../../gateway/dialects/openai-responses/request.ts';
import type { GatewayError } from '../../../gateway/errors.ts';
import { FEATURES, type Feature, HINTS } from '../../../gateway/hub/features.ts';
import type { HubEvent } from '../../../gateway/hub/reply.ts';
import type { HubPart, HubRequest } from '../../../gateway/hub/request.ts';
import { readResponse } from '../../../gateway/providers/openai/responses/reply.ts';
import { writeResponse } from '../../../gateway/providers/openai/responses/request.ts';
import { openReader } from '../../../gateway/providers/openai/responses/stream.ts';
import { RESPONSES_SUPPORTS } from '../../../gateway/providers/openai/responses/supports.ts';
import { cutAt, cutOffsets } from '../../support/cuts.ts';
import { fixtureNames, replyFixture, requestFixture, streamFixture } from '../../support/fixture.ts';
import { errorOf, hubRequest, orGatewayError, readPieces, says } from '../../support/hub.ts';
import { saidBy, saidByReply } from '../../support/hub-events.ts';

const VENDOR = 'openai-responses';
const MODEL = 'gpt-5.1';

/** The request as it goes out. */
function written(request: Partial<HubRequest>, model = MODEL): Json {
  const body = writeResponse(hubRequest(request), { model, stream: false });
  return JSON.parse(JSON.stringify(body)) as Json;
}

/** The items that go out for one message. */
function items(...parts: HubPart[]): unknown {
  return written({ messages: [says('assistant', ...parts)] }).input;
}

function used(feature: Feature, path: string): HubRequest['used'] {
  return new Map([[feature, path]]);
}

describe('a request for a response', () => {
  test('is not stored, and asks for the seals of thoughts where the model thinks', () => {
    expect(written({})).toEqual({
      model: MODEL,
      input: [{ role: 'user', content: [{ type: 'input_text', text: 'hello' }] }],
      include: ['reasoning.encrypted_content'],
      store: false,
    });
    for (const model of ['gpt-4.1', 'gpt-5-chat-latest', 'my-deployment']) {
      expect(written({}, model).include).toBeUndefined();
    }
    const asked = { reasoning: { effort: 'low' as const }, used: used('reasoning', 'reasoning_effort') };
    expect(written(asked, 'my-deployment').include).toEqual(['reasoning.encrypted_content']);
  });

  test('asks for a stream when the client did', () => {
    expect(writeResponse(hubRequest(), { model: MODEL, stream: true }).stream).toBe(true);
  });

  test('has thoughts, texts and calls as items in their order', () => {
    const seal = 'gAAAAABp1';
    expect(
      items(
        { type: 'reasoning', text: 'Weighing.', signature: seal },
        { type: 'text', text: 'One' },
        { type: 'refusal', text: 'No' },
        { type: 'tool-call', id: 'c1', name: 'clock', arguments: '' },
        { type: 'text', text: 'Two' },
        { type: 'reasoning', text: '', redacted: seal },
      ),
    ).toEqual([
      { type: 'reasoning', summary: [{ type: 'summary_text', text: 'Weighing.' }], encrypted_content: seal },
      {
        role: 'assistant',
        content: [
          { type: 'output_text', text: 'One', annotations: [] },
          { type: 'refusal', refusal: 'No' },
        ],
      },
      { type: 'function_call', call_id: 'c1', name: 'clock', arguments: '{}' },
      { role: 'assistant', content: [{ type: 'output_text', text: 'Two', annotations: [] }] },
      { type: 'reasoning', summary: [], encrypted_content: seal },
    ]);
  });

  test('leaves out thoughts that OpenAI has not sealed: it would refuse them', () => {
    expect(
      items(
        { type: 'reasoning', text: 'Claude’s', signature: 'EqQBCkYIARgC' },
        { type: 'reasoning', text: '', redacted: 'EmwKAhgB' },
        { type: 'reasoning', text: 'of nobody' },
        { type: 'text', text: 'One' },
      ),
    ).toEqual([{ role: 'assistant', content: [{ type: 'output_text', text: 'One', annotations: [] }] }]);
  });

  test('joins a summary and its seal that another format has told apart', () => {
    expect(
      items({ type: 'reasoning', text: 'Weighing.' }, { type: 'reasoning', text: '', redacted: 'gAAAAABp1' }),
    ).toEqual([
      { type: 'reasoning', summary: [{ type: 'summary_text', text: 'Weighing.' }], encrypted_content: 'gAAAAABp1' },
    ]);
  });

  test('has results of tools as text, or as parts where there is more than text', () => {
    const image: HubPart = { type: 'image', source: { kind: 'url', url: 'https://example.org/a.png' } };
    const text: HubPart = { type: 'text', text: 'noon' };
    const result = (parts: HubPart[], isError = false) =>
      (written({ messages: [says('tool', { type: 'tool-result', id: 'c1', parts, isError })] }).input as Json[])[0];
    expect(result([text])).toEqual({ type: 'function_call_output', call_id: 'c1', output: 'noon' });
    expect(result([text], true)?.output).toBe('Error: noon');
    const parts = [
      { type: 'input_text', text: 'noon' },
      { type: 'input_image', image_url: 'https://example.org/a.png', detail: 'auto' },
    ];
    expect(result([text, image])?.output).toEqual(parts);
    expect(result([text, image], true)?.output).toEqual([{ type: 'input_text', text: 'Error:' }, ...parts]);
  });

  test.each<[HubPart, Json]>([
    [
      { type: 'image', source: { kind: 'data', mediaType: 'image/png', data: 'AA' }, detail: 'low' },
      { type: 'input_image', image_url: 'data:image/png;base64,AA', detail: 'low' },
    ],
    [
      { type: 'image', source: { kind: 'id', id: 'file-1' } },
      { type: 'input_image', file_id: 'file-1', detail: 'auto' },
    ],
    [
      { type: 'file', source: { kind: 'data', mediaType: 'application/pdf', data: 'AA' }, name: 'a.pdf' },
      { type: 'input_file', filename: 'a.pdf', file_data: 'data:application/pdf;base64,AA' },
    ],
    [
      { type: 'file', source: { kind: 'url', url: 'https://example.org/a.pdf' } },
      { type: 'input_file', file_url: 'https://example.org/a.pdf' },
    ],
    [
      { type: 'file', source: { kind: 'id', id: 'file-1' } },
      { type: 'input_file', file_id: 'file-1' },
    ],
    [
      { type: 'file', source: { kind: 'text', mediaType: 'text/plain', text: 'words' }, name: 'a.txt' },
      { type: 'input_text', text: 'a.txt:\n\nwords' },
    ],
  ])('sends %o', (part, expected) => {
    expect(written({ messages: [says('user', part)] }).input).toEqual([{ role: 'user', content: [expected] }]);
  });

  test('says of each tool whether its schema is enforced: unsaid it would be', () => {
    const parameters = { type: 'object', properties: {} };
    const tools = [{ name: 'clock' }, { name: 'sum', description: 'Adds.', parameters, strict: true }];
    const body = written({ tools, toolChoice: { name: 'sum' }, parallelToolCalls: false });
    expect(body.tools).toEqual([
      { type: 'function', name: 'clock', parameters, strict: false },
      { type: 'function', name: 'sum', description: 'Adds.', parameters, strict: true },
    ]);
    expect(body).toMatchObject({ tool_choice: { type: 'function', name: 'sum' }, parallel_tool_calls: false });
    expect(written({ toolChoice: 'none' }).tool_choice).toBeUndefined();
  });

  test('says how to answer', () => {
    const schema = { type: 'object' };
    const body = written({
      maxOutputTokens: 99,
      temperature: 0.5,
      topP: 0.9,
      logprobs: true,
      topLogprobs: 2,
      format: { type: 'json-schema', schema },
      verbosity: 'low',
      reasoning: { budget: 9000, shown: true },
      used: used('reasoning', 'thinking'),
      serviceTier: 'standard_only',
      user: 'u'.repeat(65),
      metadata: { team: 'blue' },
    });
    expect(body).toMatchObject({
      max_output_tokens: 99,
      temperature: 0.5,
      top_p: 0.9,
      include: ['reasoning.encrypted_content', 'message.output_text.logprobs'],
      top_logprobs: 2,
      text: { format: { type: 'json_schema', name: 'answer', schema, strict: false }, verbosity: 'low' },
      reasoning: { effort: 'high', summary: 'auto' },
      service_tier: 'default',
      metadata: { team: 'blue' },
    });
    expect(body.safety_identifier).toMatch(/^[\da-f]{64}$/);
    expect(written({ format: { type: 'json' } }).text).toEqual({ format: { type: 'json_object' } });
    const off = written({ reasoning: { off: true }, used: used('reasoning', 'reasoning_effort') });
    expect(off.reasoning).toEqual({ effort: 'none' });
  });

  test('names the client’s field where the bound is too small for OpenAI', () => {
    const request = { maxOutputTokens: 5, used: used('max-tokens', 'max_tokens') };
    expect(() => written(request)).toThrow('The field `max_tokens` must be 16 at least for this provider.');
  });

  test('is what the client sent, read and written again', () => {
    for (const name of fixtureNames('requests', VENDOR).filter((one) => one !== 'audio')) {
      const read = toHub(requestFixture(VENDOR, name));
      const again = toHub(writeResponse(read, { model: MODEL, stream: false }));
      const { used: _used, unknown: _unknown, ...rest } = read;
      expect(withoutPlaces(again), name).toMatchObject(withoutPlaces(rest));
    }
  });

  test('leaves out hints alone', () => {
    const out = Object.keys(FEATURES).filter((feature) => RESPONSES_SUPPORTS[feature as Feature] === 'left out');
    expect(out.filter((feature) => !HINTS.has(feature as Feature))).toEqual([]);
  });
});

/** Where a message stood, what Responses says of itself, and hints for the cache are not told again. */
function withoutPlaces(value: unknown): object {
  const strings = JSON.stringify(value, (key, inner: unknown) => (UNTOLD.has(key) ? undefined : inner));
  return JSON.parse(strings) as object;
}

const UNTOLD = new Set(['at', 'used', 'unknown', 'cache', 'quote', 'description']);

// --- Answers ------------------------------------------------------------------------------------------------------

function read(bytes: Buffer): HubEvent[] {
  return readPieces(openReader('up'), [bytes]);
}

function sse(...events: Json[]): Buffer {
  return Buffer.from(events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join(''));
}

describe('a streamed response', () => {
  const whole = fixtureNames('replies', VENDOR);

  test.each(whole)('says the same as the whole one (%s)', (name) => {
    const reply = readResponse(replyFixture(VENDOR, name), 'up');
    const events = read(streamFixture(VENDOR, name));
    expect(saidBy(events)).toEqual(saidByReply(reply));
    expect(events[0]).toMatchObject({ type: 'start', id: reply.id, model: reply.model });
    expect(events.at(-1)).toEqual({ type: 'end' });
  });

  test.each(fixtureNames('streams', VENDOR))('gives the same events wherever it is cut (%s)', (name) => {
    const bytes = streamFixture(VENDOR, name);
    const expected = withoutCause(read(bytes));
    fc.assert(
      fc.property(cutOffsets(bytes.length), (cuts) => {
        expect(withoutCause(readPieces(openReader('up'), cutAt(cuts)(bytes)))).toEqual(expected);
      }),
      { numRuns: 50 },
    );
  });

  test('has no end where it is cut off', () => {
    const bytes = streamFixture(VENDOR, 'text');
    for (let length = 0; length < bytes.length - 1; length += 17) {
      expect(saidBy(read(bytes.subarray(0, length))).hasEnded).toBe(false);
    }
  });

  test('gives one event for each delta, with its log probabilities', () => {
    const events = read(streamFixture(VENDOR, 'logprobs'));
    expect(events.filter(({ type }) => type === 'text')).toEqual([
      {
        type: 'text',
        choice: 0,
        text: 'Yes',
        // What another provider goes on with keeps its name and its place.
        item: { id: expect.stringMatching(/^msg_/), index: 0 },
        logprobs: [
          {
            token: 'Yes',
            logprob: -0.01,
            bytes: [89, 101, 115],
            top: [
              { token: 'Yes', logprob: -0.01, bytes: [89, 101, 115] },
              { token: 'No', logprob: -4.6, bytes: [78, 111] },
            ],
          },
        ],
      },
      expect.objectContaining({ text: '.' }),
    ]);
  });

  test('tells tool calls as they come, and the end of each', () => {
    const events = read(streamFixture(VENDOR, 'parallel-tools'));
    expect(events.map((event) => ('call' in event ? `${event.type} ${event.call}` : event.type))).toEqual([
      'start',
      'text',
      'text',
      'part-end',
      'tool-call 0',
      'tool-arguments 0',
      'tool-arguments 0',
      'part-end',
      'tool-call 1',
      'tool-arguments 1',
      'part-end',
      'finish',
      'usage',
      'end',
    ]);
  });

  test('says at the end of an item what no delta has said', () => {
    const seal = 'gAAAAABp1';
    const message = {
      type: 'message',
      id: 'msg_1',
      content: [
        { type: 'output_text', text: 'One', annotations: [{ type: 'url_citation', url: 'https://a.example' }] },
        { type: 'refusal', refusal: 'No' },
      ],
    };
    const call = { type: 'function_call', id: 'fc_1', call_id: 'c1', name: 'clock', arguments: '{"a":1}' };
    const thought = { type: 'reasoning', id: 'rs_1', summary: [{ text: 'A' }, { text: 'B' }], encrypted_content: seal };
    const output = [thought, message, call];
    const done = output.map((item, i) => ({ type: 'response.output_item.done', output_index: i, item }));
    const end = { type: 'response.completed', response: { id: 'resp_1', status: 'completed', output } };
    expect(saidBy(read(sse(...done, end)))).toMatchObject({
      text: 'One',
      refusal: 'No',
      reasoning: 'A\n\nB',
      signatures: [seal],
      quotes: [''],
      calls: [{ id: 'c1', name: 'clock', arguments: { a: 1 } }],
      finish: 'tool-calls',
    });
    expect(saidByReply(readResponse(end.response, 'up'))).toMatchObject({ text: 'One', reasoning: 'A\n\nB' });
  });

  test.each<[string, string]>([
    ['max_output_tokens', 'length'],
    ['content_filter', 'content-filter'],
  ])('that is incomplete for its %s ended for its %s', (reason, finish) => {
    const response = { status: 'incomplete', incomplete_details: { reason }, output: [] };
    expect(saidBy(read(sse({ type: 'response.incomplete', response }))).finish).toBe(finish);
    expect(readResponse(response, 'up').choices[0]?.finish).toBe(finish);
  });

  test('of a picture has the picture', () => {
    const item = { type: 'image_generation_call', id: 'ig_1', result: 'AA==', output_format: 'webp' };
    const picture = { type: 'media', mediaType: 'image/webp', data: 'AA==' };
    const done = sse({ type: 'response.output_item.done', output_index: 0, item });
    expect(read(done)).toContainEqual({ ...picture, choice: 0 });
    expect(readResponse({ output: [item] }, 'up').choices[0]?.parts).toEqual([picture]);
  });
});

describe('an error inside an answer', () => {
  const ERRORS: [string, string, number][] = [
    ['server_error', 'upstream_failed', 502],
    ['rate_limit_exceeded', 'upstream_rate_limited', 429],
    ['server_is_overloaded', 'upstream_overloaded', 503],
    ['invalid_prompt', 'upstream_invalid_request', 400],
    ['context_length_exceeded', 'upstream_invalid_request', 400],
    ['image_content_policy_violation', 'upstream_invalid_request', 400],
  ];

  test.each(ERRORS)('%s is %s', (code, expected, status) => {
    const error = { code, message: 'What is wrong.' };
    const failures = [
      errorOf(read(sse({ type: 'error', ...error, param: null, sequence_number: 3 }))),
      errorOf(read(sse({ type: 'error', error, sequence_number: 3 }))),
      errorOf(read(sse({ type: 'response.failed', response: { status: 'failed', error } }))),
      thrown({ status: 'failed', error, output: [] }),
    ];
    for (const failure of failures) expect(failure).toMatchObject({ code: expected, status });
  });

  test('ends the stream: nothing follows', () => {
    const events = read(Buffer.concat([streamFixture(VENDOR, 'error'), streamFixture(VENDOR, 'text')]));
    expect(errorOf(events)?.code).toBe('upstream_failed');
    expect(saidBy(events).hasEnded).toBe(false);
  });

  test('an answer that has not ended is none', () => {
    for (const body of [{}, { output: {} }, { status: 'queued', output: [] }, { status: 'in_progress', output: [] }]) {
      expect(thrown(body)).toMatchObject({ code: 'upstream_bad_answer' });
    }
  });
});

function withoutCause(events: HubEvent[]): unknown[] {
  return events.map((event) => (event.type === 'error' ? event.error.shape : event));
}

function thrown(body: Json): GatewayError {
  try {
    readResponse(body, 'up');
  } catch (error) {
    return error as GatewayError;
  }
  throw new Error('nothing was thrown');
}

describe('odd JSON of the provider', () => {
  const KEYS = [
    ...['type', 'output', 'content', 'text', 'refusal', 'summary', 'arguments', 'delta', 'item', 'part', 'response'],
    ...['usage', 'input_tokens', 'status', 'incomplete_details', 'reason', 'error', 'code', 'message', 'annotations'],
    ...['logprobs', 'token', 'logprob', 'bytes', 'output_index', 'content_index', 'call_id', '__proto__', 'result'],
  ];
  const WORDS = ['message', 'reasoning', 'function_call', 'output_text', 'refusal', 'incomplete', 'completed', ''];
  const { odd } = fc.letrec<{ odd: unknown; object: Json }>((tie) => ({
    odd: fc.oneof(
      { depthSize: 'small' },
      fc.constantFrom<unknown>(null, true, -1, 3, 1e308, ...WORDS),
      fc.array(tie('odd'), { maxLength: 3 }),
      tie('object'),
    ),
    object: fc.dictionary(fc.constantFrom(...KEYS), tie('odd'), { maxKeys: 6 }),
  }));
  const object = fc.dictionary(fc.constantFrom(...KEYS), odd, { maxKeys: 8 });
  const type = fc.constantFrom(
    ...['created', 'completed', 'incomplete', 'failed', 'output_item.added', 'output_item.done', 'content_part.added'],
    ...['output_text.delta', 'output_text.annotation.added', 'refusal.delta', 'function_call_arguments.delta'],
    ...['reasoning_summary_text.delta', 'reasoning_text.delta', 'never.heard.of'],
  );

  test('is a GatewayError at worst', () => {
    fc.assert(
      fc.property(object, (body) => {
        orGatewayError(() => readResponse(body, 'up'));
      }),
      { numRuns: 500 },
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(type, object), { maxLength: 6 }), (events) => {
        orGatewayError(() => read(sse(...events.map(([name, body]) => ({ ...body, type: `response.${name}` })))));
      }),
      { numRuns: 500 },
    );
  });
});
