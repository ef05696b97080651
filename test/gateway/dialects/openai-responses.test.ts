/** OpenAI's Responses as clients speak it: what is read of a request, what guards see, and how answers are written. */
import fc from 'fast-check';
import { ResponseStream } from 'openai/lib/responses/ResponseStream';
import { describe, expect, test } from 'vitest';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { openaiResponses as dialect } from '../../../gateway/dialects/openai-responses/dialect.ts';
import { GatewayError } from '../../../gateway/errors.ts';
import type { Feature } from '../../../gateway/hub/features.ts';
import type { HubEvent, HubReply, ReplyPart } from '../../../gateway/hub/reply.ts';
import type { HubPart } from '../../../gateway/hub/request.ts';
import { readResponse } from '../../../gateway/providers/openai/responses/reply.ts';
import { openReader } from '../../../gateway/providers/openai/responses/stream.ts';
import { FrameReader, frameData } from '../../../gateway/stream/frames.ts';
import type { Segment } from '../../../proto/contract.ts';
import { fixtureNames, replyFixture, streamFixture } from '../../support/fixture.ts';
import { orGatewayError, readPieces } from '../../support/hub.ts';
import { hubStream, saidBy, saidByReply } from '../../support/hub-events.ts';

const VENDOR = 'openai-responses';

const ask = (more: Json = {}): Json => ({ model: 'm', input: 'Hi', ...more });
const given = (...input: Json[]): Json => ask({ input });
const turn = (...content: Json[]): Json => given({ role: 'user', content });
const CALL = { type: 'function_call', call_id: 'c1', name: 'clock', arguments: '{}' };

/** The parts of the last message. */
function parts(body: Json): HubPart[] {
  return dialect.toHub(body).messages.at(-1)?.parts ?? [];
}

describe('what is read of a request', () => {
  test('a text, with instructions before it', () => {
    expect(dialect.toHub(ask({ instructions: 'Be short.' })).messages).toEqual([
      { role: 'system', at: 'instructions', parts: [{ type: 'text', text: 'Be short.' }] },
      { role: 'user', at: 'input', parts: [{ type: 'text', text: 'Hi' }] },
    ]);
  });

  test('a turn of the model’s as one message: thoughts, texts and calls in their order', () => {
    const { messages } = dialect.toHub(
      given(
        { role: 'user', content: 'Hi' },
        {
          type: 'reasoning',
          id: 'rs_1',
          summary: [{ type: 'summary_text', text: 'Hm.' }],
          encrypted_content: 'gAAAA1',
        },
        { type: 'message', role: 'assistant', id: 'msg_1', content: [{ type: 'output_text', text: 'One' }] },
        { ...CALL, id: 'fc_1', status: 'completed' },
        { ...CALL, call_id: 'c2', name: 'sum' },
        { type: 'function_call_output', call_id: 'c1', output: 'noon' },
        { type: 'function_call_output', call_id: 'c2', output: [{ type: 'input_text', text: '7' }] },
        { role: 'assistant', content: 'Two' },
      ),
    );
    expect(messages).toEqual([
      { role: 'user', at: 'input[0]', parts: [{ type: 'text', text: 'Hi' }] },
      {
        role: 'assistant',
        at: 'input[1]',
        parts: [
          { type: 'reasoning', text: 'Hm.', signature: 'gAAAA1' },
          { type: 'text', text: 'One' },
          { type: 'tool-call', id: 'c1', name: 'clock', arguments: '{}' },
          { type: 'tool-call', id: 'c2', name: 'sum', arguments: '{}' },
        ],
      },
      {
        role: 'tool',
        at: 'input[5]',
        parts: [
          { type: 'tool-result', id: 'c1', name: 'clock', parts: [{ type: 'text', text: 'noon' }] },
          { type: 'tool-result', id: 'c2', name: 'sum', parts: [{ type: 'text', text: '7' }] },
        ],
      },
      { role: 'assistant', at: 'input[7]', parts: [{ type: 'text', text: 'Two' }] },
    ]);
  });

  test.each<[Json, HubPart]>([
    [
      { type: 'input_image', image_url: 'data:image/PNG;base64,AA', detail: 'low' },
      { type: 'image', source: { kind: 'data', mediaType: 'image/png', data: 'AA' }, detail: 'low' },
    ],
    [
      { type: 'input_image', image_url: 'https://example.org/a', detail: 'auto' },
      { type: 'image', source: { kind: 'url', url: 'https://example.org/a' }, detail: 'auto' },
    ],
    [
      { type: 'input_image', file_id: 'file-1' },
      { type: 'image', source: { kind: 'id', id: 'file-1' } },
    ],
    [
      { type: 'input_file', filename: 'a.txt', file_data: 'data:text/plain;base64,AA' },
      { type: 'file', source: { kind: 'data', mediaType: 'text/plain', data: 'AA' }, name: 'a.txt' },
    ],
    [
      { type: 'input_file', file_data: 'JVBERi0' },
      { type: 'file', source: { kind: 'data', mediaType: 'application/pdf', data: 'JVBERi0' } },
    ],
    [
      { type: 'input_file', file_url: 'https://example.org/a.pdf' },
      { type: 'file', source: { kind: 'url', url: 'https://example.org/a.pdf' } },
    ],
    [
      { type: 'input_file', file_id: 'file-1' },
      { type: 'file', source: { kind: 'id', id: 'file-1' } },
    ],
    [
      { type: 'input_audio', input_audio: { data: 'AA', format: 'mp3' } },
      { type: 'audio', source: { kind: 'data', mediaType: 'audio/mpeg', data: 'AA' } },
    ],
    [
      { type: 'input_text', text: 'a', prompt_cache_breakpoint: { mode: 'explicit', ttl: '30m' } },
      { type: 'text', text: 'a', cache: '30m' },
    ],
    [
      { type: 'refusal', refusal: 'No' },
      { type: 'refusal', text: 'No' },
    ],
  ])('the part %j', (part, expected) => {
    expect(parts(turn(part))).toEqual([expected]);
    expect(dialect.toHub(turn(part)).unknown).toEqual([]);
  });

  test('citations of pages and files', () => {
    const annotations = [
      { type: 'url_citation', url: 'https://a.example', title: 'A', start_index: 0, end_index: 3 },
      { type: 'file_citation', file_id: 'f', filename: 'b.pdf', index: 2 },
    ];
    const text = { type: 'output_text', text: 'One', annotations };
    expect(parts(given({ role: 'assistant', content: [text] }))).toEqual([
      {
        type: 'text',
        text: 'One',
        citations: [
          { url: 'https://a.example', title: 'A', start: 0, end: 3 },
          { title: 'b.pdf', document: 2 },
        ],
      },
    ]);
  });

  test('tools and what may be done with them', () => {
    const parameters = { type: 'object' };
    const tools = [{ type: 'function', name: 'clock', description: 'Tells.', parameters, strict: true }];
    const choice = { type: 'function', name: 'clock' };
    const hub = dialect.toHub(ask({ tools, tool_choice: choice, parallel_tool_calls: false }));
    expect(hub.tools).toEqual([{ name: 'clock', description: 'Tells.', parameters, strict: true }]);
    expect(hub).toMatchObject({ toolChoice: { name: 'clock' }, parallelToolCalls: false, unknown: [] });
  });

  test('how to answer', () => {
    const schema = { type: 'object' };
    const format = { type: 'json_schema', name: 'city', schema, strict: true, description: 'A city.' };
    const hub = dialect.toHub(
      ask({
        max_output_tokens: 99,
        temperature: 0.5,
        top_p: 0.9,
        top_logprobs: 2,
        text: { format, verbosity: 'low' },
        reasoning: { effort: 'high', summary: 'auto' },
        service_tier: 'flex',
        safety_identifier: 'u1',
        metadata: { team: 'blue' },
      }),
    );
    expect(hub).toMatchObject({
      maxOutputTokens: 99,
      temperature: 0.5,
      topP: 0.9,
      logprobs: true,
      topLogprobs: 2,
      format: { type: 'json-schema', name: 'city', schema, strict: true, description: 'A city.' },
      verbosity: 'low',
      reasoning: { effort: 'high', shown: true },
      serviceTier: 'flex',
      user: 'u1',
      metadata: { team: 'blue' },
      unknown: [],
    });
    expect(dialect.toHub(ask({ reasoning: { effort: 'none' } })).reasoning).toEqual({ off: true });
    expect(dialect.toHub(ask({ text: { format: { type: 'json_object' } } })).format).toEqual({ type: 'json' });
  });

  test.each<[Json, Feature, string]>([
    [ask({ instructions: 'a' }), 'system', 'instructions'],
    [given({ role: 'developer', content: 'a' }), 'system', 'input[0]'],
    [given({ role: 'user', content: 'a' }, { role: 'system', content: 'b' }), 'system.later', 'input[1]'],
    [given({ role: 'assistant', content: 'a' }), 'prefill', 'input[0]'],
    [turn({ type: 'input_image', image_url: 'data:image/png;base64,A' }), 'image.data', 'input[0].content[0]'],
    [turn({ type: 'input_image', image_url: 'https://a' }), 'image.url', 'input[0].content[0]'],
    [turn({ type: 'input_image', file_id: 'f' }), 'image.id', 'input[0].content[0]'],
    [turn({ type: 'input_image', file_id: 'f', detail: 'high' }), 'image.detail', 'input[0].content[0].detail'],
    [turn({ type: 'input_file', file_data: 'A' }), 'file.data', 'input[0].content[0]'],
    [turn({ type: 'input_file', file_url: 'https://a' }), 'file.url', 'input[0].content[0]'],
    [turn({ type: 'input_file', file_id: 'f' }), 'file.id', 'input[0].content[0]'],
    [turn({ type: 'input_audio', input_audio: { data: 'A', format: 'wav' } }), 'audio.data', 'input[0].content[0]'],
    [ask({ tools: [{ type: 'function', name: 'a' }] }), 'tools', 'tools'],
    [ask({ tools: [{ type: 'function', name: 'a', strict: true }] }), 'tools.strict', 'tools[0].strict'],
    [ask({ tool_choice: 'none' }), 'tool-choice.none', 'tool_choice'],
    [ask({ tool_choice: 'required' }), 'tool-choice.required', 'tool_choice'],
    [ask({ tool_choice: { type: 'function', name: 'a' } }), 'tool-choice.name', 'tool_choice'],
    [ask({ parallel_tool_calls: false }), 'parallel-tools', 'parallel_tool_calls'],
    [
      given(CALL, { type: 'function_call_output', call_id: 'c1', output: [{ type: 'input_file', file_id: 'f' }] }),
      'tool-result.media',
      'input[1].output',
    ],
    [ask({ max_output_tokens: 16 }), 'max-tokens', 'max_output_tokens'],
    [ask({ temperature: 0 }), 'temperature', 'temperature'],
    [ask({ top_p: 1 }), 'top-p', 'top_p'],
    [ask({ top_logprobs: 1 }), 'logprobs', 'top_logprobs'],
    [ask({ include: ['message.output_text.logprobs'] }), 'logprobs', 'include[0]'],
    [ask({ text: { format: { type: 'json_object' } } }), 'format.json', 'text.format'],
    [ask({ text: { format: { type: 'json_schema', name: 'a', schema: {} } } }), 'format.schema', 'text.format'],
    [ask({ reasoning: { effort: 'low' } }), 'reasoning', 'reasoning.effort'],
    [ask({ reasoning: { summary: 'auto' } }), 'reasoning.shown', 'reasoning.summary'],
    [given({ type: 'reasoning', summary: [], encrypted_content: 'gAAAA' }), 'reasoning.history', 'input[0]'],
    [ask({ text: { verbosity: 'low' } }), 'verbosity', 'text.verbosity'],
    [ask({ service_tier: 'flex' }), 'service-tier', 'service_tier'],
    [given({ role: 'assistant', content: [{ type: 'refusal', refusal: 'a' }] }), 'refusal', 'input[0].content[0]'],
    [ask({ prompt_cache_key: 'a' }), 'cache', 'prompt_cache_key'],
    [ask({ user: 'a' }), 'user', 'user'],
    [ask({ metadata: { a: 'b' } }), 'metadata', 'metadata'],
    [ask({ store: false }), 'store', 'store'],
  ])('%j uses %s', (body, feature, path) => {
    const hub = dialect.toHub(body);
    expect([hub.used.get(feature), hub.unknown]).toEqual([path, []]);
  });

  test('what says nothing is no use of anything', () => {
    const body = ask({
      stream: true,
      stream_options: { include_obfuscation: false },
      store: true,
      background: false,
      truncation: 'disabled',
      service_tier: 'auto',
      parallel_tool_calls: true,
      tool_choice: 'auto',
      include: ['reasoning.encrypted_content'],
      text: { format: { type: 'text' } },
      top_logprobs: 0,
      metadata: {},
      previous_response_id: null,
    });
    expect(dialect.toHub(body)).toMatchObject({ used: new Map(), unknown: [] });
  });

  test.each<[Json, string]>([
    [ask({ previous_response_id: 'resp_1' }), 'previous_response_id'],
    [ask({ conversation: 'conv_1' }), 'conversation'],
    [ask({ background: true }), 'background'],
    [ask({ truncation: 'auto' }), 'truncation'],
    [ask({ prompt: { id: 'p' } }), 'prompt'],
    [ask({ max_tool_calls: 3 }), 'max_tool_calls'],
    [ask({ never_heard_of: 1 }), 'never_heard_of'],
    [ask({ include: ['web_search_call.results'] }), 'include[0]'],
    [ask({ tools: [{ type: 'web_search' }] }), 'tools[0]'],
    [ask({ tools: [{ type: 'function', name: 'a', defer_loading: true }] }), 'tools[0].defer_loading'],
    [ask({ tool_choice: { type: 'allowed_tools', mode: 'auto', tools: [] } }), 'tool_choice'],
    [ask({ text: { format: { type: 'grammar' } } }), 'text.format'],
    [ask({ reasoning: { mode: 'pro' } }), 'reasoning.mode'],
    [given({ type: 'web_search_call', id: 'ws_1', status: 'completed' }), 'input[0]'],
    [given({ ...CALL, namespace: 'a' }), 'input[0].namespace'],
    [turn({ type: 'input_video', video: 'a' }), 'input[0].content[0]'],
    [turn({ type: 'input_image', file_id: 'f', detail: 'original' }), 'input[0].content[0].detail'],
    [turn({ type: 'input_text', text: 'a', odd: 1 }), 'input[0].content[0].odd'],
    [given({}), 'input[0]'],
  ])('%j has what the hub has no word for', (body, path) => {
    expect(dialect.toHub(body).unknown).toEqual([path]);
  });

  test.each<[Json, string]>([
    [{ model: 'm' }, 'The field `input` is missing.'],
    [ask({ instructions: 1 }), 'The field `instructions` must be a string.'],
    [given({ role: 'robot', content: 'a' }), 'The field `input[0].role` must be one of `user`'],
    [given({ type: 'function_call', name: 'a' }), 'The field `input[0].call_id` is missing.'],
    [given({ type: 'function_call_output', call_id: 'a' }), 'The field `input[0].output` is missing.'],
    [given({ type: 'item_reference', id: 'msg_1' }), 'The field `input[0]` refers to an item of an earlier answer'],
    [given({ id: 'msg_1' }), 'The field `input[0]` refers to an item of an earlier answer'],
    [turn({ type: 'input_text' }), 'The field `input[0].content[0].text` is missing.'],
    [turn({ type: 'input_image', image_url: 'ftp://a' }), 'must be an http(s) URL or a base64 data URL.'],
    [turn({ type: 'input_file', file_id: 'a', file_data: 'b' }), 'must have `file_data` or `file_id`, not both.'],
    [turn({ type: 'input_file' }), 'The field `input[0].content[0].file_data` is missing.'],
    [ask({ max_output_tokens: 0 }), 'The field `max_output_tokens` must be a whole number from 1 on.'],
    [ask({ metadata: { a: 1 } }), 'The field `metadata` must hold strings alone.'],
  ])('%j is a 400 that says: %s', (body, message) => {
    expect(() => dialect.toHub(body)).toThrow(GatewayError);
    expect(() => dialect.toHub(body)).toThrow(message);
  });

  test.each<[unknown, string]>([
    [{ input: 1 }, 'input'],
    [{ input: ['a'] }, 'input'],
    [{ input: 'a', model: 1 }, 'model'],
    [{ input: 'a', stream: 'yes' }, 'stream'],
  ])('%j is refused before anybody is asked', (body, param) => {
    expect(() => dialect.readRequest(body as Json, {})).toThrow(expect.objectContaining({ details: { param } }));
  });

  test('the model, the bound and whether it is streamed', () => {
    const body = ask({ stream: true, max_output_tokens: 20 });
    expect(dialect.readRequest(body, {})).toEqual({
      body,
      model: 'm',
      stream: true,
      wantsUsage: true,
      choices: 1,
      maxOutputTokens: 20,
    });
  });

  test('whatever it is, a 400 at most', () => {
    const words = [null, true, 1, '', 'message', 'user', 'function_call', 'input_text', 'reasoning', 'function'];
    const keys = [
      ...['type', 'role', 'content', 'text', 'summary', 'output', 'call_id', 'name', 'arguments', 'image_url', 'tools'],
      ...['file_data', 'annotations', 'input_audio', 'encrypted_content', 'caller', '__proto__', 'format', 'strict'],
    ];
    const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
      tree: fc.oneof(
        { depthSize: 'small' },
        fc.constantFrom<unknown>(...words),
        fc.array(tie('tree'), { maxLength: 3 }),
        fc.dictionary(fc.constantFrom(...keys), tie('tree'), { maxKeys: 5 }),
      ),
    }));
    const fields = ['input', 'instructions', 'tools', 'tool_choice', 'text', 'reasoning', 'include', 'metadata'];
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom(...fields), tree), (body) => {
        orGatewayError(() => dialect.readRequest(body, {}));
        orGatewayError(() => dialect.toHub(body));
        dialect.requestSegments(body);
      }),
      { numRuns: 500 },
    );
  });
});

// --- Answers ------------------------------------------------------------------------------------------------------

const PARTS: ReplyPart[] = [
  { type: 'reasoning', text: 'Hm.', signature: 'EqQB' },
  { type: 'reasoning', text: '', redacted: 'EmwK' },
  { type: 'reasoning', text: '', signature: 'EqQC' },
  { type: 'text', text: 'One', citations: [{ url: 'https://a.example', title: 'A', quote: 'q', start: 0, end: 3 }] },
  { type: 'text', text: 'Two', citations: [{ title: 'b.pdf', document: 2 }] },
  { type: 'tool-call', id: 'c1', name: 'clock', arguments: '', signature: 'CiQB' },
  { type: 'refusal', text: 'No' },
  { type: 'media', mediaType: 'image/png', data: 'AA==' },
];

function reply(more: Partial<HubReply> = {}, finish: HubReply['choices'][0]['finish'] = 'stop'): HubReply {
  return { id: 'msg_01abc', model: 'up', created: 7, choices: [{ index: 0, parts: PARTS, finish }], ...more };
}

describe('a whole answer', () => {
  test('is a response', () => {
    const usage = { inputTokens: 10, outputTokens: 4, cachedInputTokens: 5, cacheWriteTokens: 2, reasoningTokens: 1 };
    expect(dialect.fromHub(reply({ usage, serviceTier: 'priority' }), 'm')).toMatchObject({
      id: 'resp_01abc',
      object: 'response',
      created_at: 7,
      status: 'completed',
      error: null,
      incomplete_details: null,
      model: 'up',
      service_tier: 'priority',
      tools: [],
      usage: {
        input_tokens: 10,
        input_tokens_details: { cached_tokens: 5, cache_write_tokens: 2 },
        output_tokens: 4,
        output_tokens_details: { reasoning_tokens: 1 },
        total_tokens: 14,
      },
      output: [
        {
          id: 'rs_01abc_0',
          type: 'reasoning',
          summary: [{ type: 'summary_text', text: 'Hm.' }],
          encrypted_content: 'signature.EqQB',
        },
        { id: 'rs_01abc_1', type: 'reasoning', summary: [], encrypted_content: 'redacted.EmwK' },
        { id: 'rs_01abc_2', type: 'reasoning', summary: [], encrypted_content: 'signature.EqQC' },
        {
          id: 'msg_01abc_3',
          type: 'message',
          status: 'completed',
          role: 'assistant',
          content: [
            {
              type: 'output_text',
              text: 'One',
              annotations: [
                {
                  type: 'url_citation',
                  url: 'https://a.example',
                  title: 'A',
                  start_index: 0,
                  end_index: 3,
                  quote: 'q',
                },
              ],
            },
            { type: 'output_text', text: 'Two', annotations: [{ type: 'file_citation', filename: 'b.pdf', index: 2 }] },
          ],
        },
        { id: 'rs_01abc_4', type: 'reasoning', summary: [], encrypted_content: 'call.CiQB' },
        { id: 'fc_01abc_5', type: 'function_call', status: 'completed', call_id: 'c1', name: 'clock', arguments: '{}' },
        { id: 'msg_01abc_6', type: 'message', content: [{ type: 'refusal', refusal: 'No' }] },
        { id: 'ig_01abc_7', type: 'image_generation_call', status: 'completed', result: 'AA==' },
      ],
    });
  });

  test('comes back with the next request as what it was', () => {
    const { output } = dialect.fromHub(reply(), 'm') as { output: Json[] };
    const items = output.filter(({ type }) => type !== 'image_generation_call');
    const [asked] = dialect.toHub(given(...items)).messages;
    const [thought, hidden, sealed, one, two, call, refusal] = PARTS;
    const expected = [thought, hidden, sealed, one, two, { ...call, arguments: '{}' }, refusal];
    expect(asked?.parts).toMatchObject(expected);
  });

  test('has ids that OpenAI takes back, whatever the provider’s is', () => {
    for (const id of [undefined, '', 'x'.repeat(99), 'chatcmpl-a"b', 'resp_1']) {
      const { id: own, output } = dialect.fromHub(reply({ id }), 'm') as { id: string; output: { id: string }[] };
      expect(own).toMatch(/^resp_[\w-]{1,59}$/);
      for (const item of output) expect(item.id).toMatch(/^(msg|rs|fc|ig)_[\w-]{1,61}$/);
    }
  });

  test.each([
    ['length', 'incomplete', 'max_output_tokens'],
    ['context-window', 'incomplete', 'max_output_tokens'],
    ['content-filter', 'incomplete', 'content_filter'],
    ['refusal', 'completed', undefined],
    ['tool-calls', 'completed', undefined],
    ['stop-sequence', 'completed', undefined],
  ] as const)('that ended for its %s is %s', (finish, status, reason) => {
    const details = reason === undefined ? null : { reason };
    expect(dialect.fromHub(reply({}, finish), 'm')).toMatchObject({ status, incomplete_details: details });
  });

  test('has log probabilities with its text', () => {
    const logprobs = [{ token: 'a', logprob: -1, bytes: null, top: [{ token: 'b', logprob: -2 }] }];
    const choice = { index: 0, parts: [{ type: 'text' as const, text: 'a' }], finish: 'stop' as const, logprobs };
    const { output } = dialect.fromHub(reply({ choices: [choice] }), 'm') as { output: { content: Json[] }[] };
    expect(output[0]?.content[0]?.logprobs).toEqual([
      { token: 'a', logprob: -1, bytes: [], top_logprobs: [{ token: 'b', logprob: -2, bytes: [] }] },
    ]);
  });
});

describe('a streamed answer', () => {
  const write = (events: HubEvent[]) => {
    const writer = dialect.openWriter({ model: 'm', wantsUsage: true });
    return events.map((event) => writer.write(event)).join('');
  };
  const read = (stream: string) => readPieces(openReader('up'), [Buffer.from(stream)]);
  const bodies = (stream: string): Json[] =>
    new FrameReader().push(Buffer.from(stream)).map((frame) => JSON.parse(frameData(frame)!) as Json);

  /** The response that the last event holds. */
  const ended = (stream: string) => (bodies(stream).at(-1) as { response: Json & { output: Json[] } }).response;

  /** The official client puts it together, and throws where an event does not fit those before it. */
  const assembled = async (stream: string) => {
    const lines = bodies(stream).map((body) => `${JSON.stringify(body)}\n`);
    return await ResponseStream.fromReadableStream(new Response(lines.join('')).body!).finalResponse();
  };

  test('of any kind says what the hub said, delta by delta, and fits the official client', async () => {
    await fc.assert(
      fc.asyncProperty(hubStream, async (events) => {
        const stream = write(events);
        expect({ ...saidBy(read(stream)), usage: undefined }).toEqual({ ...saidBy(events), usage: undefined });
        const deltas = bodies(stream).filter(({ type }) => String(type).endsWith('.delta'));
        const pieces = events.filter(({ type }) => /^(text|reasoning|refusal|tool-arguments)$/.test(type));
        expect(deltas.map(({ delta }) => delta)).toEqual(pieces.map((piece) => (piece as { text: string }).text));
        const final = await assembled(stream);
        expect(final.output).toMatchObject(ended(stream).output);
        expect(saidByReply(readResponse(final as unknown as Json, 'up')).calls).toEqual(saidBy(events).calls);
      }),
      { numRuns: 100 },
    );
  });

  test('numbers its events, and names each', () => {
    fc.assert(
      fc.property(hubStream, (events) => {
        const stream = write(events);
        expect(bodies(stream).map((body) => body.sequence_number)).toEqual(bodies(stream).map((_body, i) => i));
        for (const frame of new FrameReader().push(Buffer.from(stream))) {
          const { type } = JSON.parse(frameData(frame)!) as { type: string };
          expect(frame).toMatch(new RegExp(`^event: ${type}\n`));
        }
        expect(stream).not.toContain('[DONE]');
      }),
    );
  });

  test.each(fixtureNames('replies', VENDOR))('of OpenAI’s own is written as it was said (%s)', (name) => {
    const events = readPieces(openReader('up'), [streamFixture(VENDOR, name)]);
    const stream = write(events);
    expect(saidBy(read(stream))).toEqual(saidBy(events));
    const [whole, last] = [replyFixture(VENDOR, name), ended(stream)];
    expect(last).toMatchObject({ id: whole.id, status: whole.status, usage: { total_tokens: expect.any(Number) } });
    const types = (output: unknown) => (output as Json[]).map(({ type }) => type);
    expect(types(last.output)).toEqual(types(whole.output));
  });

  test('has thoughts, their seals and those of calls as items', () => {
    const stream = write([
      { type: 'start', id: 'id-1' },
      { type: 'reasoning', choice: 0, text: 'Hm.' },
      { type: 'signature', choice: 0, signature: 'EqQB' },
      { type: 'reasoning', choice: 0, text: 'Well.' },
      { type: 'redacted', choice: 0, data: 'EmwK' },
      { type: 'signature', choice: 0, signature: 'EqQC' },
      { type: 'tool-call', choice: 0, call: 0, id: 'c1', name: 'clock', signature: 'CiQB' },
      { type: 'media', choice: 0, mediaType: 'image/png', data: 'AA==' },
      { type: 'finish', choice: 0, finish: 'tool-calls' },
      { type: 'end' },
    ]);
    const { output } = ended(stream);
    expect(output).toMatchObject([
      { type: 'reasoning', summary: [{ text: 'Hm.' }], encrypted_content: 'signature.EqQB' },
      { type: 'reasoning', summary: [{ text: 'Well.' }] },
      { type: 'reasoning', summary: [], encrypted_content: 'redacted.EmwK' },
      { type: 'reasoning', summary: [], encrypted_content: 'signature.EqQC' },
      { type: 'reasoning', summary: [], encrypted_content: 'call.CiQB' },
      { type: 'function_call', call_id: 'c1', arguments: '{}' },
      { type: 'image_generation_call', result: 'AA==' },
    ]);
  });

  test('cites in the text that is open', () => {
    const stream = write([
      { type: 'text', choice: 0, text: 'One' },
      { type: 'citation', choice: 0, citation: { url: 'https://a.example', title: 'A' } },
      { type: 'end' },
    ]);
    const annotation = { type: 'url_citation', url: 'https://a.example', title: 'A', start_index: 0, end_index: 3 };
    expect(bodies(stream)).toContainEqual(
      expect.objectContaining({ type: 'response.output_text.annotation.added', annotation_index: 0, annotation }),
    );
    expect(ended(stream).output).toMatchObject([{ content: [{ text: 'One', annotations: [annotation] }] }]);
  });

  test('that another provider goes on with has one beginning, and goes on in the item that is open', async () => {
    const begun = readPieces(openReader('up'), [streamFixture(VENDOR, 'text')]).slice(0, 3);
    const stream = write([
      ...begun,
      { type: 'start', id: 'other', model: 'other' },
      { type: 'text', choice: 0, text: ', world' },
      { type: 'finish', choice: 0, finish: 'stop' },
      { type: 'end' },
    ]);
    const whole = replyFixture(VENDOR, 'text') as { id: string; output: { id: string }[] };
    const final = await assembled(stream);
    expect(final.output_text).toBe('Good morning, world');
    expect(final).toMatchObject({ id: whole.id, output: [{ id: whole.output[0]?.id }] });
  });

  test('keeps the place of an item, though nothing was said before it', () => {
    const stream = write([
      { type: 'start', id: 'resp_1' },
      { type: 'text', choice: 0, text: 'One', item: { id: 'msg_7', index: 1 } },
      { type: 'end' },
    ]);
    const delta = bodies(stream).find(({ type }) => type === 'response.output_text.delta');
    expect(delta).toMatchObject({ item_id: 'msg_7', output_index: 1 });
    expect(ended(stream).output).toHaveLength(1);
  });

  test('that breaks ends in an error event and nothing after it', () => {
    const error = new GatewayError('stream_broken', 'Broken.');
    const stream = write([{ type: 'text', choice: 0, text: 'a' }, { type: 'error', error }, { type: 'end' }]);
    const events = bodies(stream);
    const sequence_number = events.length - 1;
    expect(events.at(-1)).toEqual({
      type: 'error',
      code: 'stream_broken',
      message: 'Broken.',
      param: null,
      sequence_number,
    });
  });

  test('has room for the first choice alone', () => {
    const stream = write([
      { type: 'text', choice: 0, text: 'a' },
      { type: 'text', choice: 1, text: 'b' },
      { type: 'finish', choice: 1, finish: 'length' },
      { type: 'end' },
    ]);
    expect(saidBy(read(stream))).toMatchObject({ text: 'a', finish: 'stop' });
  });
});

// --- What guards see ------------------------------------------------------------------------------------------------

/** What the segments of a body are, by their places. */
function seen(segments: Segment[]): Record<string, string> {
  return Object.fromEntries(
    segments.map(({ path, role, channel, old, text }) => [path, `${role} ${channel}${old ? ' old' : ''}: ${text}`]),
  );
}

describe('the segments of a request', () => {
  const BODY: Json = {
    model: 'm',
    instructions: 'Be short.',
    tools: [{ type: 'function', name: 'clock', description: 'Tells.' }],
    text: { format: { type: 'json_schema', name: 'city', description: 'A city.' } },
    prompt: { id: 'p', variables: { name: 'Ann' } },
    input: [
      { role: 'developer', content: 'In French.' },
      { role: 'user', content: 'Old' },
      { type: 'reasoning', id: 'rs_1', summary: [{ type: 'summary_text', text: 'Hm.' }], encrypted_content: 'gAAAA' },
      { role: 'assistant', id: 'msg_1', content: [{ type: 'output_text', text: 'One', logprobs: [{ token: 'One' }] }] },
      { ...CALL, arguments: '{"a":"b"}' },
      { type: 'function_call_output', call_id: 'c1', output: 'noon' },
      { type: 'function_call_output', call_id: 'c2', output: [{ type: 'input_text', text: 'late' }] },
      { type: 'custom_tool_call', call_id: 'c3', name: 'sql', input: 'select' },
      { type: 'mcp_call', id: 'mcp_1', name: 'find', arguments: '{}', output: 'found' },
      {
        role: 'user',
        content: [
          { type: 'input_text', text: 'New' },
          { type: 'input_image', image_url: 'data:image/png;base64,AA', detail: 'low' },
          { type: 'input_file', filename: 'ann.pdf', file_data: 'data:application/pdf;base64,AA' },
          { type: 'input_audio', input_audio: { data: 'AA', format: 'wav' } },
          { type: 'never_heard_of', words: { deep: ['down'] } },
        ],
      },
      { role: 'assistant', content: [{ type: 'refusal', refusal: 'No' }] },
    ],
  };

  test('hold every text that the model reads, with its role and channel', () => {
    expect(seen(dialect.requestSegments(BODY))).toEqual({
      '/instructions': 'system text: Be short.',
      '/tools/0/type': 'system tool-definition: function',
      '/tools/0/name': 'system tool-definition: clock',
      '/tools/0/description': 'system tool-definition: Tells.',
      '/text/format/type': 'system tool-definition: json_schema',
      '/text/format/name': 'system tool-definition: city',
      '/text/format/description': 'system tool-definition: A city.',
      '/prompt/id': 'user text: p',
      '/prompt/variables/name': 'user text: Ann',
      '/input/0/content': 'system text: In French.',
      '/input/1/content': 'user text old: Old',
      '/input/2/summary/0/text': 'assistant reasoning old: Hm.',
      '/input/3/content/0/text': 'assistant text old: One',
      '/input/4/arguments': 'assistant tool-arguments old: {"a":"b"}',
      '/input/5/output': 'tool tool-result old: noon',
      '/input/6/output/0/text': 'tool tool-result old: late',
      '/input/7/input': 'assistant text old: select',
      '/input/8/arguments': 'assistant tool-arguments old: {}',
      '/input/8/output': 'assistant text old: found',
      '/input/9/content/0/text': 'user text: New',
      '/input/9/content/1/image_url': 'user media: data:image/png;base64,AA',
      '/input/9/content/2/filename': 'user text: ann.pdf',
      '/input/9/content/2/file_data': 'user media: data:application/pdf;base64,AA',
      '/input/9/content/3/input_audio/data': 'user media: AA',
      '/input/9/content/4/words/deep/0': 'user text: down',
      '/input/10/content/0/refusal': 'assistant refusal: No',
    });
    expect(seen(dialect.requestSegments(ask()))).toEqual({ '/input': 'user text: Hi' });
  });

  test('are written back in place, and what repeats them goes', () => {
    const body = structuredClone(BODY);
    dialect.writeSegments(body, new Map([['/input/3/content/0/text', 'Two']]));
    expect((body.input as Json[])[3]?.content).toEqual([{ type: 'output_text', text: 'Two', logprobs: [] }]);
  });
});

describe('the segments of an answer', () => {
  const output = [
    {
      id: 'rs_1',
      type: 'reasoning',
      summary: [{ type: 'summary_text', text: 'Hm.' }],
      encrypted_content: 'signature.EqQB',
    },
    { id: 'rs_2', type: 'reasoning', summary: [], content: [{ type: 'reasoning_text', text: 'Well.' }] },
    {
      id: 'msg_1',
      type: 'message',
      content: [
        { type: 'output_text', text: 'One', annotations: [{ type: 'url_citation', url: 'https://a', title: 'A' }] },
        { type: 'refusal', refusal: 'No' },
      ],
    },
    { id: 'fc_1', ...CALL },
    { id: 'ig_1', type: 'image_generation_call', result: 'AA' },
    { id: 'ws_1', type: 'web_search_call', action: { type: 'search', query: 'q' } },
  ];

  test('hold all that the model wrote', () => {
    expect(seen(dialect.replySegments({ output, output_text: 'One' }))).toEqual({
      '/output/0/summary/0/text': 'assistant reasoning: Hm.',
      '/output/1/content/0/text': 'assistant reasoning: Well.',
      '/output/2/content/0/text': 'assistant text: One',
      '/output/2/content/0/annotations/0/type': 'assistant text: url_citation',
      '/output/2/content/0/annotations/0/url': 'assistant text: https://a',
      '/output/2/content/0/annotations/0/title': 'assistant text: A',
      '/output/2/content/1/refusal': 'assistant refusal: No',
      '/output/3/arguments': 'assistant tool-arguments: {}',
      '/output/4/result': 'assistant media: AA',
      '/output/5/action/type': 'assistant text: search',
      '/output/5/action/query': 'assistant text: q',
      '/output_text': 'assistant text: One',
    });
    expect(() => dialect.replySegments({ output: 'One' })).toThrow(GatewayError);
  });

  test('are all that there is, whatever the answer looks like', () => {
    const types = ['message', 'reasoning', 'function_call', 'image_generation_call', 'output_text', 'odd'];
    const keys = [
      'content',
      'summary',
      'text',
      'arguments',
      'annotations',
      'result',
      'image_url',
      'input_audio',
      'odd',
    ];
    const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
      tree: fc.oneof(
        { depthSize: 'small' },
        fc.constantFrom<unknown>('SECRET', 'SECRET', null, 7),
        fc.array(tie('tree'), { maxLength: 3 }),
        fc
          .tuple(fc.constantFrom(...types), fc.dictionary(fc.constantFrom(...keys, '__proto__'), tie('tree')))
          .map(([type, fields]) => ({ ...fields, type })),
      ),
    }));
    fc.assert(
      fc.property(fc.array(tree), fc.dictionary(fc.constantFrom(...keys), tree), (list, fields) => {
        // As JSON.parse makes it, `__proto__` included.
        const body = JSON.parse(JSON.stringify({ ...fields, text: {}, output: list })) as Json;
        const segments = dialect.replySegments(body);
        dialect.replyTools(body);
        dialect.writeSegments(body, new Map(segments.map(({ id }) => [id, 'masked'])));
        expect(JSON.stringify(body)).not.toContain('SECRET');
      }),
      { numRuns: 500 },
    );
  });

  test('break the seal of the thoughts that they change, and no other', () => {
    const body = { output: structuredClone(output) };
    dialect.writeSegments(body, new Map([['/output/2/content/0/text', 'Two']]));
    expect(body.output[0]).toHaveProperty('encrypted_content');
    dialect.writeSegments(body, new Map([['/output/0/summary/0/text', 'Oh.']]));
    expect(body.output[0]).toEqual({
      ...output[0],
      summary: [{ type: 'summary_text', text: 'Oh.' }],
      encrypted_content: undefined,
    });
  });

  test('name every tool, the vendor’s own by their kinds', () => {
    const calls = [
      { type: 'function_call', call_id: 'c1', name: 'clock' },
      { type: 'custom_tool_call', call_id: 'c2', name: 'sql' },
      { type: 'mcp_call', id: 'mcp_1', name: 'find' },
      { type: 'web_search_call', id: 'ws_1' },
      { type: 'local_shell_call', call_id: 'c3' },
      { type: 'function_call', call_id: 'c4' },
      { type: 'never_heard_of', call_id: 'c5' },
      { type: 'message', id: 'msg_1' },
      { type: 'function_call_output', call_id: 'c1' },
    ];
    expect(dialect.replyTools({ output: calls }).map(({ name }) => name)).toEqual([
      ...['clock', 'sql', 'find', 'web_search', 'local_shell', undefined, 'never_heard_of'],
    ]);
  });

  test.each(fixtureNames('replies', VENDOR))('are metered without reading them where the text tells (%s)', (name) => {
    const body = replyFixture(VENDOR, name);
    for (const text of [JSON.stringify(body), JSON.stringify(body, null, 1)]) {
      const skimmed = dialect.skimReply(text);
      if (name === 'tools') expect(skimmed).toBeUndefined();
      else expect(skimmed).toEqual(dialect.replyFacts(body));
    }
  });

  test('are read whole where the client’s own words might be taken for the usage', () => {
    const body = { ...replyFixture(VENDOR, 'text'), metadata: { usage: 'a' } };
    expect(dialect.skimReply(JSON.stringify(body))).toBeUndefined();
    const schema = { format: { type: 'json_schema', schema: { usage: { input_tokens: 0 } } } };
    expect(dialect.skimReply(JSON.stringify({ ...replyFixture(VENDOR, 'text'), text: schema }))).toBeUndefined();
    expect(dialect.skimReply('{"id":"resp_1"')).toBeUndefined();
  });
});

/** What a response repeats of the client's own request is not looked at. */
function echo(body: Json | undefined): Json {
  const { text: _text, ...response } = (body?.response ?? {}) as Json;
  return body?.response !== null && typeof body?.response === 'object' ? { response } : {};
}

describe('the events of a stream', () => {
  const event = (body: Json) => dialect.readEvent(JSON.stringify(body));
  const place = { item_id: 'msg_1', output_index: 2, content_index: 1 };

  test.each<[Json, string]>([
    [{ type: 'response.output_text.delta', ...place }, '0/text/2/1'],
    [{ type: 'response.refusal.delta', ...place }, '0/refusal/2/1'],
    [{ type: 'response.reasoning_text.delta', ...place }, '0/reasoning/2/content/1'],
    [{ type: 'response.reasoning_summary_text.delta', output_index: 2, summary_index: 3 }, '0/reasoning/2/summary/3'],
    [{ type: 'response.function_call_arguments.delta', output_index: 2 }, '0/tool-arguments/2'],
    [{ type: 'response.custom_tool_call_input.delta', output_index: 2 }, '0/tool-arguments/2/custom'],
    [{ type: 'response.code_interpreter_call_code.delta', output_index: 2 }, '0/field/2/0/code_interpreter_call_code'],
    [{ type: 'response.never_heard_of.delta', output_index: 2 }, '0/field/2/0/never_heard_of'],
  ])('%j is text of the channel %s, and is written as it', (body, channel) => {
    const read = event({ ...body, delta: 'One' });
    expect(read.parts.map((part) => [part.channel, part.text, part.isWhole])).toEqual([[channel, 'One', false]]);
    expect(read.bare).toBe(true);
    const like = dialect.remember!({}, { type: 'response.output_item.added', output_index: 2, item: { id: 'msg_1' } });
    const made = dialect.textEvent(like, channel, 'Two');
    expect(made).toMatchObject({ type: body.type, output_index: 2, item_id: 'msg_1', delta: 'Two' });
    expect(event(made).parts[0]?.channel).toBe(channel);
  });

  test.each(fixtureNames('replies', VENDOR))('say again in the end what they said before (%s)', (name) => {
    const said = new Map<string, string>();
    let repeated = 0;
    for (const frame of new FrameReader().push(streamFixture(VENDOR, name))) {
      const read = dialect.readEvent(frameData(frame)!);
      for (const { channel, text, isWhole } of read.parts)
        if (!isWhole) said.set(channel, (said.get(channel) ?? '') + text);
      for (const { channels, text } of read.repeats) {
        expect(channels.map((channel) => said.get(channel)).join('')).toBe(text);
        repeated += 1;
      }
    }
    // At the end of a text, of its part where it has one, of its item, and of the answer.
    expect(repeated).toBeGreaterThanOrEqual(3);
  });

  test('may begin an item or a part with text', () => {
    const channels = (body: Json) => event(body).parts.map(({ channel, text }) => `${channel}: ${text}`);
    const [part, item] = [
      { type: 'output_text', text: 'One' },
      { ...CALL, id: 'fc_1' },
    ];
    expect(channels({ type: 'response.content_part.added', ...place, part })).toEqual(['0/text/2/1: One']);
    expect(channels({ type: 'response.output_item.added', output_index: 2, item })).toEqual(['0/tool-arguments/2: {}']);
    const summary = { type: 'summary_text', text: 'Hm.' };
    const thought = { type: 'response.reasoning_summary_part.added', output_index: 2, summary_index: 3, part: summary };
    expect(channels(thought)).toEqual(['0/reasoning/2/summary/3: Hm.']);
  });

  test('close what they end', () => {
    expect(event({ type: 'response.output_text.done', ...place, text: 'One' }).closed).toEqual(['0/text/2/1']);
    const part = { type: 'output_text', text: 'One' };
    expect(event({ type: 'response.content_part.done', ...place, part }).closed).toEqual(['0/text/2/1']);
    const item = { type: 'function_call', call_id: 'c1', name: 'clock', arguments: '{}' };
    expect(event({ type: 'response.output_item.done', output_index: 2, item }).closed).toEqual(['0/tool-arguments/2']);
    const end = event({ type: 'response.completed', response: { output: [], usage: { input_tokens: 1 }, model: 'm' } });
    expect(end).toMatchObject({ finished: ['0'], done: true, model: 'm', usage: { inputTokens: 1, outputTokens: 0 } });
  });

  test('tell tools: a piece of arguments is for one that was announced', () => {
    const item = { id: 'fc_1', type: 'function_call', call_id: 'c1', name: 'clock', arguments: '' };
    const call = '0/tool-arguments/2';
    expect(event({ type: 'response.output_item.added', output_index: 2, item }).tools).toEqual([
      { call, id: 'c1', name: 'clock' },
    ]);
    const delta = { type: 'response.function_call_arguments.delta', output_index: 2, delta: '{' };
    expect(event(delta).tools).toEqual([{ call, name: undefined }]);
    expect(event({ type: 'response.completed', response: { output: [item] } }).tools).toHaveLength(1);
  });

  test.each<[Json, string]>([
    [{ type: 'error', code: 'a', message: 'Wrong.' }, 'Wrong.'],
    [{ type: 'error', error: { message: 'Wrong.' } }, 'Wrong.'],
    [{ type: 'response.failed', response: { error: { message: 'Wrong.' } } }, 'Wrong.'],
    [{ type: 'response.failed' }, 'error'],
  ])('%j is an error', (body, message) => {
    expect(event(body).error).toBe(message);
  });

  test('hide nothing: what they hold beside their text is judged for itself', () => {
    const secrets: Json[] = [
      { type: 'response.output_text.delta', delta: 'a', aside: 'SECRET' },
      { type: 'response.output_text.annotation.added', ...place, annotation: { title: 'SECRET' } },
      { type: 'response.output_item.added', item: { type: 'web_search_call', action: { query: 'SECRET' } } },
      { type: 'response.output_item.done', item: { type: 'message', content: [{ type: 'odd', words: 'SECRET' }] } },
      { type: 'response.completed', response: { output: [{ type: 'mcp_call', output: 'SECRET' }] } },
      { type: 'response.never_heard_of', words: 'SECRET' },
      { type: 'response.created', response: { id: 'resp_1', words: 'SECRET' } },
      { type: 'response.completed', response: { output: [], deep: [{ down: 'SECRET' }] } },
      { type: 'response.output_item.done', item: { type: 'message' }, aside: { words: 'SECRET' } },
      { type: 'response.content_part.added', part: { type: 'output_text', text: '' }, aside: 'SECRET' },
      { type: 'response.output_text.done', text: '', aside: 'SECRET' },
      { type: 'response.never.heard', deep: [{ down: 'SECRET' }] },
      { type: 'response.shell_call_output_content.delta', delta: { stdout: 'SECRET' } },
      { odd: 'SECRET' },
    ];
    for (const body of secrets) {
      const read = event(body);
      const texts = [...read.parts, ...read.repeats];
      expect(
        texts.map(({ text }) => text),
        JSON.stringify(body),
      ).toContain('SECRET');
      for (const text of texts) text.set('masked');
      expect(JSON.stringify(read.body)).not.toContain('SECRET');
    }
  });

  test('hide nothing, whatever they look like, and are no defect', () => {
    const types = ['created', 'completed', 'output_item.added', 'output_item.done', 'content_part.done', 'odd'].concat(
      ...['output_text', 'function_call_arguments', 'odd'].map((name) => [`${name}.delta`, `${name}.done`]),
    );
    const keys = ['response', 'item', 'part', 'delta', 'text', 'content', 'summary', 'arguments', 'annotations', 'odd'];
    const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
      tree: fc.oneof(
        { depthSize: 'small' },
        fc.constantFrom<unknown>('SECRET', 'SECRET', null, 7),
        fc.array(tie('tree'), { maxLength: 2 }),
        fc.dictionary(fc.constantFrom(...keys, '__proto__', 'output_index'), tie('tree'), { maxKeys: 4 }),
      ),
    }));
    const body = fc.dictionary(fc.constantFrom(...keys, 'output_index', 'content_index'), tree, { maxKeys: 5 });
    fc.assert(
      fc.property(fc.constantFrom(...types), body, (type, fields) => {
        const json = JSON.stringify({ ...fields, type: `response.${type}` });
        const read = dialect.readEvent(json);
        for (const part of [...read.parts, ...read.repeats]) part.set('masked');
        expect(JSON.stringify({ ...read.body, ...echo(read.body) })).not.toContain('SECRET');
        for (const { channel } of read.parts) dialect.textEvent(dialect.remember!({}, read.body!), channel, 'a');
      }),
      { numRuns: 1000 },
    );
  });

  test('lose what repeats their text when it is changed', () => {
    const body = {
      type: 'response.output_text.delta',
      ...place,
      delta: 'One',
      logprobs: [{ token: 'One' }],
      obfuscation: 'x',
    };
    const read = event(body);
    read.parts[0]!.set('Two');
    expect(read.body).toEqual({ type: body.type, ...place, delta: 'Two', logprobs: [] });
    expect(event({ ...body, delta: '' })).toMatchObject({ isTrimmed: true, body: { logprobs: [] } });
    const copied = event({ type: 'response.completed', response: { output: [], output_text: 'One' } });
    expect(copied.isTrimmed).toBe(true);
    expect(copied.body?.response).toEqual({ output: [] });
  });

  test('are told from those that must be read by a look at them', () => {
    const delta = dialect.frame({ type: 'response.output_text.delta', ...place, delta: 'One' });
    expect(dialect.skimEvents(delta + delta)).toBe('plain');
    for (const name of ['text', 'length', 'error']) {
      const frames = new FrameReader().push(streamFixture(VENDOR, name));
      expect(dialect.skimEvents(delta + frames.at(-1)!)).toBe('read');
    }
    expect(dialect.skimEvents(dialect.frame({ type: 'response.failed', response: {} }))).toBe('read');
  });

  test('that are none are told', () => {
    expect(() => dialect.readEvent('1')).toThrow(SyntaxError);
    expect(dialect.readEvent('[DONE]').done).toBe(false);
  });
});

describe('a quota', () => {
  test('bounds the answer', () => {
    const bounded = (body: Json) => {
      dialect.limitOutput(body, 50, 'max_tokens');
      return body.max_output_tokens;
    };
    expect([bounded({}), bounded({ max_output_tokens: 20 }), bounded({ max_output_tokens: 99 })]).toEqual([50, 20, 50]);
  });

  test('marks the answer that it cut, and the event that ends it', () => {
    const cut = { status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } };
    const [body, event] = [{ ...cut }, { type: 'response.incomplete', response: { ...cut } }];
    expect([dialect.markLimited(body), dialect.markLimited(event)]).toEqual([true, true]);
    expect(body).toHaveProperty('wardgate.code', 'quota_exhausted');
    expect(event.response).toHaveProperty('wardgate.code', 'quota_exhausted');
    expect(dialect.markLimited({ status: 'completed', incomplete_details: null })).toBe(false);
  });

  test('ends a stream as one that was cut', () => {
    const response = { id: 'resp_1', model: 'm', status: 'in_progress', output: [] };
    const like = dialect.remember!({}, { type: 'response.created', sequence_number: 4, response });
    const frame = dialect.cutShort(like, ['0'], { inputTokens: 3, outputTokens: 4 });
    expect(dialect.readEvent(frameData(frame)!)).toMatchObject({
      done: true,
      usage: { inputTokens: 3, outputTokens: 4 },
    });
    expect(JSON.parse(frameData(frame)!)).toMatchObject({
      type: 'response.incomplete',
      response: {
        id: 'resp_1',
        status: 'incomplete',
        incomplete_details: { reason: 'max_output_tokens' },
        wardgate: { code: 'quota_exhausted' },
      },
    });
    // Clients keep what they were shown.
    expect(frame).not.toContain('"output":');
  });
});
