/** Anthropic's Messages as clients speak it: what is read of a request, what guards see, and how answers are written. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { anthropicCountTokens } from '../../../gateway/dialects/anthropic-count-tokens/dialect.ts';
import { anthropicMessages as dialect } from '../../../gateway/dialects/anthropic-messages/dialect.ts';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { GatewayError } from '../../../gateway/errors.ts';
import type { Feature } from '../../../gateway/hub/features.ts';
import type { HubEvent, HubReply } from '../../../gateway/hub/reply.ts';
import { readMessages } from '../../../gateway/providers/anthropic/reply.ts';
import { MessagesReader } from '../../../gateway/providers/anthropic/stream.ts';
import { FrameReader, frameData } from '../../../gateway/stream/frames.ts';
import { fixtureNames, requestFixture, streamFixture } from '../../support/fixture.ts';
import { hubStream, saidBy } from '../../support/hub-events.ts';

const ask = (more: Json = {}): Json => ({ max_tokens: 9, messages: [{ role: 'user', content: 'Hi' }], ...more });
const turn = (...content: Json[]): Json => ask({ messages: [{ role: 'user', content }] });
const answered = (...content: Json[]): Json =>
  ask({
    messages: [
      { role: 'user', content: 'Hi' },
      { role: 'assistant', content },
      { role: 'user', content: 'So?' },
    ],
  });

describe('what is read of a request', () => {
  test('a conversation with tools, each result a message of its own', () => {
    expect(dialect.toHub(requestFixture('anthropic-messages', 'parallel-tools')).messages).toEqual([
      { role: 'user', at: 'messages[0]', parts: [{ type: 'text', text: 'Paris and Berlin?' }] },
      {
        role: 'assistant',
        at: 'messages[1]',
        parts: [
          { type: 'text', text: 'I will look.' },
          { type: 'tool-call', id: 'toolu_01A', name: 'get_weather', arguments: '{"city":"Paris"}' },
          { type: 'tool-call', id: 'toolu_01B', name: 'get_weather', arguments: '{"city":"Berlin"}' },
        ],
      },
      {
        role: 'tool',
        at: 'messages[2]',
        parts: [
          { type: 'tool-result', id: 'toolu_01A', name: 'get_weather', parts: [{ type: 'text', text: '18 °C' }] },
          { type: 'tool-result', id: 'toolu_01B', name: 'get_weather', parts: [{ type: 'text', text: '12 °C' }] },
        ],
      },
      { role: 'user', at: 'messages[2]', parts: [{ type: 'text', text: 'In Fahrenheit, please.' }] },
    ]);
  });

  test('the system’s words in front and in the middle', () => {
    const { messages, used } = dialect.toHub(requestFixture('anthropic-messages', 'system'));
    expect(messages.map(({ role, at }) => [role, at])).toEqual([
      ['system', 'system'],
      ['user', 'messages[0]'],
      ['assistant', 'messages[1]'],
      ['system', 'messages[2]'],
      ['user', 'messages[3]'],
    ]);
    expect(messages[0]?.parts).toEqual([
      { type: 'text', text: 'You answer in rhymes.', cache: '1h' },
      { type: 'text', text: 'You are short.' },
    ]);
    expect(used.get('system.later')).toBe('messages[2]');
  });

  test('documents of every source', () => {
    const { messages } = dialect.toHub(requestFixture('anthropic-messages', 'file'));
    expect(messages[0]?.parts.slice(0, 3)).toEqual([
      {
        type: 'file',
        name: 'Offer',
        source: { kind: 'data', mediaType: 'application/pdf', data: 'JVBERi0xLjEKJcKlwrHDqwo=' },
      },
      { type: 'file', source: { kind: 'text', mediaType: 'text/plain', text: 'Grass is green.' } },
      { type: 'file', source: { kind: 'text', mediaType: 'text/plain', text: 'The sky is blue.\nSnow is white.' } },
    ]);
  });

  test('thoughts with their seals', () => {
    const { messages, reasoning } = dialect.toHub(requestFixture('anthropic-messages', 'reasoning'));
    expect(reasoning).toEqual({ budget: 2048, shown: true });
    expect(messages[1]?.parts.slice(0, 2)).toEqual([
      { type: 'reasoning', text: 'Seven times eight is 56.', signature: expect.stringMatching(/^EqQB/) },
      { type: 'reasoning', text: '', redacted: 'EmwKAhgBEgy3va3pzix0LafPsn4a' },
    ]);
  });

  test('the hint at the top that the last block is worth keeping', () => {
    expect(dialect.toHub(ask({ cache_control: { type: 'ephemeral' } })).messages[0]?.parts).toEqual([
      { type: 'text', text: 'Hi', cache: '' },
    ]);
  });

  test.each<[Json, Feature, string]>([
    [ask(), 'max-tokens', 'max_tokens'],
    [ask({ system: 'S' }), 'system', 'system'],
    [ask({ temperature: 0.5 }), 'temperature', 'temperature'],
    [ask({ top_p: 0.5 }), 'top-p', 'top_p'],
    [ask({ top_k: 5 }), 'top-k', 'top_k'],
    [ask({ stop_sequences: ['x'] }), 'stop', 'stop_sequences'],
    [ask({ metadata: { user_id: 'u' } }), 'user', 'metadata.user_id'],
    [ask({ service_tier: 'standard_only' }), 'service-tier', 'service_tier'],
    [ask({ thinking: { type: 'disabled' } }), 'reasoning', 'thinking'],
    [ask({ thinking: { type: 'enabled', budget_tokens: 2000 } }), 'reasoning', 'thinking'],
    [ask({ thinking: { type: 'adaptive', display: 'omitted' } }), 'reasoning.shown', 'thinking.display'],
    [ask({ output_config: { effort: 'max' } }), 'reasoning', 'output_config.effort'],
    [ask({ output_config: { format: { type: 'json_schema', schema: {} } } }), 'format.schema', 'output_config.format'],
    [ask({ output_format: { type: 'json_schema', schema: {} } }), 'format.schema', 'output_format'],
    [ask({ tools: [{ name: 'f', input_schema: {} }] }), 'tools', 'tools'],
    [ask({ tools: [{ type: 'custom', name: 'f', strict: true }] }), 'tools.strict', 'tools[0].strict'],
    [ask({ tool_choice: { type: 'any' } }), 'tool-choice.required', 'tool_choice'],
    [ask({ tool_choice: { type: 'tool', name: 'f' } }), 'tool-choice.name', 'tool_choice'],
    [ask({ tool_choice: { type: 'none' } }), 'tool-choice.none', 'tool_choice'],
    [
      ask({ tool_choice: { type: 'auto', disable_parallel_tool_use: true } }),
      'parallel-tools',
      'tool_choice.disable_parallel_tool_use',
    ],
    [turn({ type: 'image', source: { type: 'file', file_id: 'f' } }), 'image.id', 'messages[0].content[0]'],
    [turn({ type: 'image', source: { type: 'url', url: 'u' } }), 'image.url', 'messages[0].content[0]'],
    [turn({ type: 'document', source: { type: 'url', url: 'u' } }), 'file.url', 'messages[0].content[0]'],
    [turn({ type: 'document', source: { type: 'file', file_id: 'f' } }), 'file.id', 'messages[0].content[0]'],
    [
      turn({ type: 'text', text: 't', cache_control: { type: 'ephemeral' } }),
      'cache',
      'messages[0].content[0].cache_control',
    ],
    [
      turn({ type: 'tool_result', tool_use_id: 'c', is_error: true }),
      'tool-result.error',
      'messages[0].content[0].is_error',
    ],
    [answered({ type: 'thinking', thinking: 't', signature: 's' }), 'reasoning.history', 'messages[1].content[0]'],
    [
      answered({ type: 'text', text: 't', citations: [{ type: 'char_location', cited_text: 'q' }] }),
      'citations',
      'messages[1].content[0].citations',
    ],
    [
      ask({
        messages: [
          { role: 'user', content: 'Hi' },
          { role: 'assistant', content: 'Well' },
        ],
      }),
      'prefill',
      'messages[1]',
    ],
  ])('the field of %j is noted', (body, feature, path) => {
    const { used, unknown } = dialect.toHub(body);
    expect(used.get(feature)).toBe(path);
    expect(unknown).toEqual([]);
  });

  test('what says nothing is no use of anything', () => {
    const nothing = {
      stop_sequences: [],
      metadata: { user_id: null },
      service_tier: 'auto',
      thinking: { type: 'adaptive' },
      tool_choice: { type: 'auto' },
      speed: 'standard',
      output_config: {},
      tools: [],
      system: '',
      stream: true,
      temperature: null,
    };
    const { used, unknown, reasoning } = dialect.toHub(ask(nothing));
    expect([[...used.keys()], unknown, reasoning]).toEqual([['max-tokens'], [], undefined]);
  });

  test.each<[Json, string]>([
    [ask({ container: 'c' }), 'container'],
    [ask({ mcp_servers: [] }), 'mcp_servers'],
    [ask({ inference_geo: 'eu' }), 'inference_geo'],
    [ask({ speed: 'fast' }), 'speed'],
    [ask({ metadata: { note: 'x' } }), 'metadata.note'],
    [ask({ thinking: { type: 'between_tools' } }), 'thinking.type'],
    [ask({ output_config: { task_budget: {} } }), 'output_config.task_budget'],
    [ask({ tools: [{ type: 'web_search_20250305', name: 'web_search' }] }), 'tools[0]'],
    [ask({ tools: [{ name: 'f', defer_loading: true }] }), 'tools[0].defer_loading'],
    [ask({ tools: [{ name: 'f', input_examples: [{}] }] }), 'tools[0].input_examples'],
    [
      ask({ tools: [{ name: 'f', allowed_callers: ['direct', 'code_execution_20260120'] }] }),
      'tools[0].allowed_callers',
    ],
    [turn({ type: 'search_result', source: 's', title: 't', content: [] }), 'messages[0].content[0]'],
    [turn({ type: 'document', context: 'c', source: { type: 'url', url: 'u' } }), 'messages[0].content[0].context'],
    [
      turn({ type: 'document', citations: { enabled: true }, source: { type: 'url', url: 'u' } }),
      'messages[0].content[0].citations',
    ],
    [
      turn({ type: 'tool_result', tool_use_id: 'c', content: [{ type: 'tool_reference', tool_name: 'f' }] }),
      'messages[0].content[0].content[0]',
    ],
    [answered({ type: 'server_tool_use', id: 's', name: 'web_search', input: {} }), 'messages[1].content[0]'],
    [
      answered({ type: 'tool_use', id: 's', name: 'f', input: {}, caller: { type: 'code_execution_20260120' } }),
      'messages[1].content[0].caller',
    ],
  ])('%j has a field that nothing else has a word for: %s', (body, path) => {
    expect(dialect.toHub(body).unknown).toContain(path);
  });

  test.each<[Json, string]>([
    [ask({ max_tokens: 0 }), 'max_tokens'],
    [ask({ max_tokens: '9' }), 'max_tokens'],
    [ask({ temperature: 'hot' }), 'temperature'],
    [ask({ stop_sequences: [1] }), 'stop_sequences'],
    [ask({ system: 5 }), 'system'],
    [ask({ system: [{ type: 'text' }] }), 'system[0].text'],
    [ask({ thinking: 'much' }), 'thinking'],
    [ask({ thinking: { type: 'enabled' } }), 'thinking.budget_tokens'],
    [ask({ thinking: { type: 'hard' } }), 'thinking.type'],
    [ask({ output_config: { effort: 'huge' } }), 'output_config.effort'],
    [ask({ output_config: { format: { type: 'xml' } } }), 'output_config.format.type'],
    [ask({ tools: {} }), 'tools'],
    [ask({ tools: [{}] }), 'tools[0].name'],
    [ask({ tool_choice: { type: 'tool' } }), 'tool_choice.name'],
    [ask({ service_tier: 'best' }), 'service_tier'],
    [ask({ messages: undefined }), 'messages'],
    [ask({ messages: [{ role: 'user' }] }), 'messages[0].content'],
    [ask({ messages: [{ content: 'x' }] }), 'messages[0].role'],
    [ask({ messages: [{ role: 'tool', content: 'x' }] }), 'messages[0].role'],
    [turn({ text: 'x' }), 'messages[0].content[0].type'],
    [turn({ type: 'text', text: 5 }), 'messages[0].content[0].text'],
    [turn({ type: 'image' }), 'messages[0].content[0].source'],
    [turn({ type: 'image', source: { type: 'text', data: 'x' } }), 'messages[0].content[0].source.type'],
    [turn({ type: 'image', source: { type: 'base64', data: 'x' } }), 'messages[0].content[0].source.media_type'],
    [
      turn({ type: 'document', source: { type: 'content', content: [{ type: 'image' }] } }),
      'messages[0].content[0].source.content[0]',
    ],
    [
      turn({ type: 'text', text: 't', cache_control: { type: 'forever' } }),
      'messages[0].content[0].cache_control.type',
    ],
    [answered({ type: 'tool_use', id: 'c', name: 'f', input: [] }), 'messages[1].content[0].input'],
  ])('%j is refused by the name of its field: %s', (body, path) => {
    expect(() => dialect.toHub(body)).toThrow(`The field \`${path}\` `);
  });

  test('the model, the bound and whether it is streamed', () => {
    const { model, stream, maxOutputTokens, choices } = dialect.readRequest(ask({ model: 'm', stream: true }), {});
    expect([model, stream, maxOutputTokens, choices]).toEqual(['m', true, 9, 1]);
    for (const odd of [{ model: 5 }, { stream: 'yes' }, { messages: {} }, { messages: ['Hi'] }]) {
      const [field] = Object.keys(odd);
      expect(() => dialect.readRequest(ask(odd), {})).toThrow(`The field \`${field}\` `);
    }
  });

  test('whatever it is, a 400 at most', () => {
    const key = fc.constantFrom(
      'type',
      'role',
      'content',
      'text',
      'source',
      'input',
      'tools',
      'thinking',
      'cache_control',
      'messages',
      'system',
      '__proto__',
      'name',
      'id',
      'tool_use_id',
      'citations',
      'data',
    );
    const word = fc.constantFrom<unknown>(
      'text',
      'user',
      'assistant',
      'image',
      'document',
      'thinking',
      'tool_use',
      'tool_result',
      'base64',
      'content',
      5,
      null,
      true,
    );
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { depthSize: 'small' },
        word,
        fc.array(tie('tree'), { maxLength: 3 }),
        fc.dictionary(key, tie('tree'), { maxKeys: 5 }),
      ),
    })) as { tree: fc.Arbitrary<unknown> };
    fc.assert(
      fc.property(fc.dictionary(key, tree, { maxKeys: 5 }), fc.array(tree, { maxLength: 3 }), (body, messages) => {
        try {
          dialect.readRequest({ ...body, messages } as Json, {});
          dialect.requestSegments({ ...body, messages } as Json);
          dialect.toHub({ ...body, messages } as Json);
        } catch (error) {
          expect((error as GatewayError).status).toBe(400);
        }
      }),
      { numRuns: 1000 },
    );
  });
});

// --- Answers --------------------------------------------------------------------------------------------------------

describe('a whole answer', () => {
  const REPLY: HubReply = {
    id: 'chatcmpl-1',
    model: 'gpt-4o',
    serviceTier: 'default',
    choices: [
      {
        index: 0,
        finish: 'tool-calls',
        parts: [
          { type: 'reasoning', text: 'hm', signature: 'EqQB' },
          { type: 'reasoning', text: '', redacted: 'EmwK' },
          {
            type: 'text',
            text: 'Look.',
            citations: [
              { url: 'https://e.org', title: 'E' },
              { document: 2, quote: 'abc' },
            ],
          },
          { type: 'tool-call', id: 'c1', name: 'f', arguments: '{"a":1}' },
          { type: 'tool-call', id: 'c2', name: 'g', arguments: '' },
        ],
      },
    ],
    usage: { inputTokens: 100, outputTokens: 7, cachedInputTokens: 60, cacheWriteTokens: 10, reasoningTokens: 3 },
  };

  test('is a message', () => {
    expect(dialect.fromHub(REPLY, 'mine')).toEqual({
      id: 'chatcmpl-1',
      type: 'message',
      role: 'assistant',
      model: 'gpt-4o',
      content: [
        { type: 'thinking', thinking: 'hm', signature: 'EqQB' },
        { type: 'redacted_thinking', data: 'EmwK' },
        {
          type: 'text',
          text: 'Look.',
          citations: [
            {
              type: 'web_search_result_location',
              url: 'https://e.org',
              title: 'E',
              cited_text: '',
              encrypted_index: '',
            },
            {
              type: 'char_location',
              document_index: 2,
              document_title: null,
              cited_text: 'abc',
              start_char_index: 0,
              end_char_index: 3,
              file_id: null,
            },
          ],
        },
        { type: 'tool_use', id: 'c1', name: 'f', input: { a: 1 } },
        { type: 'tool_use', id: 'c2', name: 'g', input: {} },
      ],
      stop_reason: 'tool_use',
      stop_sequence: null,
      usage: {
        input_tokens: 30,
        cache_creation_input_tokens: 10,
        cache_read_input_tokens: 60,
        output_tokens: 7,
        output_tokens_details: { thinking_tokens: 3 },
        service_tier: 'standard',
      },
    });
  });

  test('reads again as what it was', () => {
    const again = readMessages(dialect.fromHub(REPLY, 'mine'), 'up');
    const [choice] = again.choices;
    expect({ ...again, choices: [] }).toEqual({ ...REPLY, choices: [] });
    expect(choice?.parts.slice(0, 2)).toEqual(REPLY.choices[0]?.parts.slice(0, 2));
    expect(choice?.finish).toBe('tool-calls');
  });

  test.each([
    ['stop', 'end_turn'],
    ['stop-sequence', 'stop_sequence'],
    ['length', 'max_tokens'],
    ['context-window', 'model_context_window_exceeded'],
    ['tool-calls', 'tool_use'],
    ['content-filter', 'refusal'],
    ['refusal', 'refusal'],
    ['pause', 'pause_turn'],
  ] as const)('that ended with %s says %s', (finish, reason) => {
    const reply: HubReply = {
      choices: [{ index: 0, parts: [], finish, stopSequence: finish === 'stop-sequence' ? 'END' : undefined }],
    };
    const message = dialect.fromHub(reply, 'mine');
    expect([message.stop_reason, message.stop_sequence]).toEqual([reason, finish === 'stop-sequence' ? 'END' : null]);
    expect(message).toMatchObject({
      model: 'mine',
      id: expect.stringMatching(/^msg_\w{32}$/),
      usage: { input_tokens: 0 },
    });
  });

  test('that is a refusal in words shows them, and says so', () => {
    const message = dialect.fromHub(
      { choices: [{ index: 0, parts: [{ type: 'refusal', text: 'No.' }], finish: 'stop' }] },
      'm',
    );
    expect(message).toMatchObject({ content: [{ type: 'text', text: 'No.' }], stop_reason: 'refusal' });
  });

  test('with arguments that are no JSON shows them as they are', () => {
    const part = { type: 'tool-call', id: 'c', name: 'f', arguments: '{"a":' } as const;
    const message = dialect.fromHub({ choices: [{ index: 0, parts: [part], finish: 'length' }] }, 'm');
    expect(message).toMatchObject({ content: [{ type: 'tool_use', input: { arguments: '{"a":' } }] });
  });
});

/** The objects of a written stream. */
function objectsOf(text: string): Json[] {
  const reader = new FrameReader();
  const frames = reader.push(Buffer.from(text));
  expect(reader.incomplete).toBe('');
  return frames.map((frame) => {
    const body = JSON.parse(frameData(frame)!) as Json;
    expect(frame.startsWith(`event: ${String(body.type)}\n`)).toBe(true);
    return body;
  });
}

function writtenBy(events: HubEvent[]): Json[] {
  const writer = dialect.openWriter({ model: 'mine', wantsUsage: true });
  return objectsOf(events.map((event) => writer.write(event)).join(''));
}

/** Follows the protocol: one block after the other, unless both are tools; deltas inside their block alone. */
function checkProtocol(objects: Json[]): void {
  const open = new Map<unknown, string>();
  let next = 0;
  expect(objects[0]?.type).toBe('message_start');
  for (const { type, index, content_block: block } of objects.slice(1, -2)) {
    if (type === 'content_block_start') {
      expect(index).toBe(next);
      expect([...open.values()].every((kind) => kind === 'tool_use')).toBe(true);
      open.set(index, String((block as Json).type));
      next += 1;
    } else {
      expect(['content_block_delta', 'content_block_stop']).toContain(type);
      expect(open.has(index)).toBe(true);
      if (type === 'content_block_stop') open.delete(index);
    }
  }
  expect(open.size).toBe(0);
  expect(objects.slice(-2).map(({ type }) => type)).toEqual(['message_delta', 'message_stop']);
}

describe('a streamed answer', () => {
  test('of any kind follows the protocol and says what the hub said, delta by delta', () => {
    fc.assert(
      fc.property(hubStream, (events) => {
        const objects = writtenBy(events);
        checkProtocol(objects);
        const reader = new MessagesReader('up');
        const said = saidBy(reader.push(Buffer.from(objects.map(dialect.frame).join(''))));
        const { usage, ...wanted } = saidBy(events);
        expect(said).toMatchObject(wanted);
        expect(said.usage).toMatchObject(usage ?? { inputTokens: 0, outputTokens: 0 });
        const deltas = events.filter(({ type }) => ['text', 'reasoning', 'tool-arguments'].includes(type));
        expect(objects.filter(({ type }) => type === 'content_block_delta')).toHaveLength(deltas.length);
      }),
      { numRuns: 300 },
    );
  });

  test.each(fixtureNames('streams', 'anthropic').filter((name) => name !== 'error'))(
    'of Anthropic’s, “%s”, reads again as it was',
    (name) => {
      const events = new MessagesReader('up').push(streamFixture('anthropic', name));
      const objects = writtenBy(events);
      checkProtocol(objects);
      const again = saidBy(new MessagesReader('up').push(Buffer.from(objects.map(dialect.frame).join(''))));
      const said = saidBy(events);
      // A refusal's words have no place of their own here.
      expect(again).toEqual({ ...said, text: said.text + said.refusal, refusal: '' });
    },
  );

  test('begins with the provider’s id and model, and with what is known of the usage', () => {
    const [first] = writtenBy([
      { type: 'start', id: 'resp_1', model: 'gpt', usage: { inputTokens: 9, outputTokens: 0, cachedInputTokens: 4 } },
      { type: 'end' },
    ]);
    expect(first?.message).toMatchObject({
      id: 'resp_1',
      model: 'gpt',
      content: [],
      usage: { input_tokens: 5, cache_read_input_tokens: 4 },
    });
    const [other] = writtenBy([{ type: 'text', choice: 0, text: 'Hi' }, { type: 'end' }]);
    expect(other?.message).toMatchObject({
      id: expect.stringMatching(/^msg_/),
      model: 'mine',
      usage: { input_tokens: 0 },
    });
  });

  test('that another provider goes on with has one beginning and goes on in the block that is open', () => {
    const objects = writtenBy([
      { type: 'start', id: 'a', model: 'one' },
      { type: 'text', choice: 0, text: 'Good ' },
      { type: 'start', id: 'b', model: 'two' },
      { type: 'text', choice: 0, text: 'morning' },
      { type: 'finish', choice: 0, finish: 'stop' },
      { type: 'end' },
    ]);
    expect(objects.map(({ type }) => type)).toEqual([
      'message_start',
      'content_block_start',
      'content_block_delta',
      'content_block_delta',
      'content_block_stop',
      'message_delta',
      'message_stop',
    ]);
  });

  test('closes a call where its arguments end, and no sooner', () => {
    const call = (index: number): HubEvent => ({
      type: 'tool-call',
      choice: 0,
      call: index,
      id: `c${index}`,
      name: 'f',
    });
    const args = (index: number, text: string): HubEvent => ({ type: 'tool-arguments', choice: 0, call: index, text });
    const order = (...events: HubEvent[]) =>
      writtenBy([...events, { type: 'finish', choice: 0, finish: 'tool-calls' }, { type: 'end' }])
        .slice(1, -2)
        .map(({ type, index }) => `${String(type).slice('content_block_'.length)} ${String(index)}`);
    const one = ['start 0', 'delta 0', 'stop 0'];
    const text: HubEvent = { type: 'text', choice: 0, text: 'So.' };
    expect(order(call(0), args(0, '{"a":"}\\""}'), text)).toEqual([...one, 'start 1', 'delta 1', 'stop 1']);
    expect(order(call(0), args(0, '{}'), call(1))).toEqual([...one, 'start 1', 'stop 1']);
    expect(order(call(0), args(0, '{"a":"}'), call(1), args(0, '"}'))).toEqual([
      'start 0',
      'delta 0',
      'start 1',
      'delta 0',
      'stop 0',
      'stop 1',
    ]);
    expect(order(call(0), args(0, '{'), { type: 'part-end', choice: 0 }, text)).toEqual([
      ...one,
      'start 1',
      'delta 1',
      'stop 1',
    ]);
  });

  test('that is a refusal in words says so at its end', () => {
    const objects = writtenBy([
      { type: 'refusal', choice: 0, text: 'No.' },
      { type: 'finish', choice: 0, finish: 'stop' },
      { type: 'end' },
    ]);
    expect(objects.at(-2)).toMatchObject({ delta: { stop_reason: 'refusal' } });
  });

  test('that breaks ends in an error event and nothing after it', () => {
    const writer = dialect.openWriter({ model: 'm', wantsUsage: true });
    writer.write({ type: 'text', choice: 0, text: 'Hi' });
    const [error] = objectsOf(writer.write({ type: 'error', error: new GatewayError('upstream_overloaded', 'Busy.') }));
    expect(error).toEqual({
      type: 'error',
      error: { type: 'overloaded_error', message: 'Busy.', details: { error_code: 'upstream_overloaded' } },
    });
    expect(writer.write({ type: 'end' })).toBe('');
  });

  test('has room for the first choice alone, and none for pictures', () => {
    const objects = writtenBy([
      { type: 'text', choice: 0, text: 'A' },
      { type: 'text', choice: 1, text: 'B' },
      { type: 'media', choice: 0, mediaType: 'image/png', data: 'AA==' },
      { type: 'finish', choice: 0, finish: 'stop' },
      { type: 'end' },
    ]);
    expect(JSON.stringify(objects)).not.toMatch(/"B"|AA==/);
  });
});

// --- What guards see ------------------------------------------------------------------------------------------------

describe('the segments of a request', () => {
  test('hold every text that the model reads, with its role and channel', () => {
    const body = {
      model: 'm',
      max_tokens: 5,
      system: [{ type: 'text', text: 'S', cache_control: { type: 'ephemeral', ttl: '1h' } }],
      tools: [{ name: 'f', description: 'D', input_schema: { type: 'object', description: 'P' } }],
      messages: [
        { role: 'user', content: 'old' },
        {
          role: 'assistant',
          content: [
            { type: 'thinking', thinking: 'T', signature: 'EqQB' },
            { type: 'redacted_thinking', data: 'EmwK' },
            { type: 'tool_use', id: 'toolu_1', name: 'f', input: { q: 'I', n: 4111111111111111 } },
          ],
        },
        {
          role: 'user',
          content: [
            { type: 'tool_result', tool_use_id: 'toolu_1', content: [{ type: 'text', text: 'R' }] },
            { type: 'text', text: 'new' },
            { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'QUJD' } },
            {
              type: 'document',
              title: 'N',
              context: 'C',
              source: { type: 'text', media_type: 'text/plain', data: 'DOC' },
            },
            { type: 'document', source: { type: 'content', content: [{ type: 'text', text: 'B' }] } },
            { type: 'search_result', source: 'src', title: 'H', content: [{ type: 'text', text: 'F' }] },
            { type: 'odd', deep: { er: ['O'] } },
          ],
        },
      ],
      brand_new: { prompt: 'X' },
      metadata: { user_id: 'u' },
    };
    const segments = dialect
      .requestSegments(body as unknown as Json)
      .map(({ path, text, role, channel, old }) => [path, text, role, channel, old === true]);
    const last = '/messages/2/content';
    expect(segments).toEqual([
      ['/system/0/text', 'S', 'system', 'text', false],
      ['/messages/0/content', 'old', 'user', 'text', true],
      ['/messages/1/content/0/thinking', 'T', 'assistant', 'reasoning', true],
      ['/messages/1/content/2/input/q', 'I', 'assistant', 'text', true],
      ['/messages/1/content/2/input/n', '4111111111111111', 'assistant', 'text', true],
      [`${last}/0/content/0/text`, 'R', 'tool', 'tool-result', false],
      [`${last}/1/text`, 'new', 'user', 'text', false],
      [`${last}/2/source/data`, 'QUJD', 'user', 'media', false],
      [`${last}/3/title`, 'N', 'user', 'text', false],
      [`${last}/3/context`, 'C', 'user', 'text', false],
      [`${last}/3/source/data`, 'DOC', 'user', 'text', false],
      [`${last}/4/source/content/0/text`, 'B', 'user', 'text', false],
      [`${last}/5/source`, 'src', 'user', 'text', false],
      [`${last}/5/title`, 'H', 'user', 'text', false],
      [`${last}/5/content/0/text`, 'F', 'user', 'text', false],
      [`${last}/6/deep/er/0`, 'O', 'user', 'text', false],
      ['/tools/0/name', 'f', 'system', 'tool-definition', false],
      ['/tools/0/description', 'D', 'system', 'tool-definition', false],
      ['/tools/0/input_schema/type', 'object', 'system', 'tool-definition', false],
      ['/tools/0/input_schema/description', 'P', 'system', 'tool-definition', false],
      ['/brand_new/prompt', 'X', 'system', 'text', false],
    ]);
  });

  test('a turn of results alone is no new turn of the user’s', () => {
    const { messages } = requestFixture('anthropic-messages', 'tool-result') as { messages: Json[] };
    const old = dialect.requestSegments({ messages }).map((segment) => segment.old === true);
    expect(old).toEqual(old.map(() => false));
  });

  test('are written back in place; thoughts that were changed do not go on with their seal', () => {
    const body = structuredClone(requestFixture('anthropic-messages', 'reasoning'));
    dialect.writeSegments(
      body,
      new Map([
        ['/messages/1/content/0/thinking', '***'],
        ['/messages/2/content', 'B'],
      ]),
    );
    const messages = body.messages as { content: unknown }[];
    expect(messages[2]?.content).toBe('B');
    expect((messages[1]!.content as Json[]).map(({ type }) => type)).toEqual(['redacted_thinking', 'text']);
  });
});

describe('thoughts whose seal was broken', () => {
  const conversation = (...content: Json[]): Json => ({
    ...answered(...content),
    thinking: { type: 'enabled', budget_tokens: 2000 },
  });
  const BROKEN = { type: 'thinking', thinking: '***', signature: '' };
  const SEALED = { type: 'thinking', thinking: 'T', signature: 'EqQB' };
  const CALL = { type: 'tool_use', id: 'c', name: 'f', input: {} };
  const amended = (body: Json) => {
    dialect.readRequest(body, {}).amend?.(body);
    return [(body.messages as { content: unknown }[])[1]?.content, body.thinking !== undefined];
  };

  test('do not go back to the vendor, which would refuse the conversation', () => {
    expect(amended(conversation(BROKEN, { type: 'text', text: 'A' }))).toEqual([[{ type: 'text', text: 'A' }], true]);
    expect(amended(conversation(SEALED, BROKEN, CALL))).toEqual([[SEALED, CALL], true]);
    expect(dialect.readRequest(conversation(SEALED, CALL), {}).amend).toBeUndefined();
  });

  test('take the thinking with them where a call of a tool would have to come with it', () => {
    expect(amended(conversation(BROKEN, CALL))).toEqual([[CALL], false]);
    const adaptive = { ...conversation(BROKEN, CALL), thinking: { type: 'adaptive' } };
    expect(amended(adaptive)).toEqual([[CALL], true]);
  });

  test('leave no turn without content', () => {
    const body = conversation(BROKEN);
    dialect.readRequest(body, {}).amend?.(body);
    expect(body.messages).toHaveLength(2);
  });
});

describe('the segments of an answer', () => {
  const MESSAGE = {
    id: 'msg_1',
    model: 'm',
    content: [
      { type: 'thinking', thinking: 'T', signature: 'EqQB' },
      {
        type: 'text',
        text: 'A',
        citations: [{ type: 'char_location', cited_text: 'Q', document_title: 'D', document_index: 0 }],
      },
      { type: 'tool_use', id: 'toolu_1', name: 'f', input: { q: 'I', thinking: 'no thought' } },
      { type: 'server_tool_use', id: 's', name: 'web_search', input: { query: 'W' } },
      {
        type: 'web_search_tool_result',
        tool_use_id: 's',
        content: [{ type: 'web_search_result', title: 'H', encrypted_content: 'Eo8B' }],
      },
    ],
    stop_reason: 'refusal',
    stop_details: { type: 'refusal', explanation: 'E' },
    usage: { input_tokens: 3, output_tokens: 4, cache_read_input_tokens: 2 },
  };

  test('hold all that the model wrote', () => {
    expect(dialect.replySegments(MESSAGE).map(({ text, channel }) => [text, channel])).toEqual([
      ['T', 'reasoning'],
      ['A', 'text'],
      ['Q', 'text'],
      ['D', 'text'],
      ['I', 'text'],
      ['no thought', 'text'],
      ['W', 'text'],
      ['H', 'text'],
      ['E', 'refusal'],
    ]);
    expect(dialect.replyTools(MESSAGE)).toEqual([
      { call: '0/tool-arguments/2', name: 'f' },
      { call: '0/tool-arguments/3', name: 'web_search' },
    ]);
    expect(() => dialect.replySegments({ content: 'text' })).toThrow(GatewayError);
  });

  test('break the seal of the thoughts that they change, and no other', () => {
    const body = structuredClone(MESSAGE) as Json;
    dialect.writeSegments(
      body,
      new Map([
        ['/content/1/text', 'B'],
        ['/content/2/input/thinking', '***'],
      ]),
    );
    expect(body).toMatchObject({
      content: [{ signature: 'EqQB' }, { text: 'B' }, { input: { q: 'I', thinking: '***' } }, {}, {}],
    });
    dialect.writeSegments(body, new Map([['/content/0/thinking', '***']]));
    expect(body).toMatchObject({ content: [{ thinking: '***', signature: '' }, {}, {}, {}, {}] });
  });

  test('are metered without reading them where the text tells', () => {
    const facts = { model: 'm', usage: { inputTokens: 5, outputTokens: 4, cachedInputTokens: 2 } };
    expect(dialect.replyFacts(MESSAGE)).toEqual(facts);
    expect(dialect.skimReply(JSON.stringify(MESSAGE))).toEqual(facts);
    expect(dialect.skimReply(`${JSON.stringify(MESSAGE, null, 2)}\n`)).toEqual(facts);
    // A tool's input may hold such keys as well.
    const input = { usage: { input_tokens: 1, output_tokens: 1 }, model: 'x' };
    const odd = { model: 'm', usage: MESSAGE.usage, content: [{ type: 'tool_use', input }] };
    expect(dialect.skimReply(JSON.stringify(odd))).toBeUndefined();
    expect(
      dialect.skimReply(JSON.stringify({ content: [{ input }], usage: MESSAGE.usage, model: 'm' })),
    ).toBeUndefined();
    expect(dialect.skimReply('<html>')).toBeUndefined();
    expect(dialect.skimReply(`${JSON.stringify(MESSAGE).slice(0, -1)}x`)).toBeUndefined();
  });
});

describe('the events of a stream', () => {
  const event = (body: Json) => dialect.readEvent(JSON.stringify(body));
  const delta = (index: number, said: Json) => event({ type: 'content_block_delta', index, delta: said });

  test('carry text on one channel for each block', () => {
    const parts = [
      delta(0, { type: 'thinking_delta', thinking: 'T' }),
      delta(1, { type: 'text_delta', text: 'A' }),
      delta(2, { type: 'input_json_delta', partial_json: '{"' }),
    ].flatMap(({ parts: own, bare }) => own.map(({ channel, text }) => [channel, text, bare]));
    expect(parts).toEqual([
      ['0/reasoning/0', 'T', true],
      ['0/text/1', 'A', true],
      ['0/tool-arguments/2', '{"', true],
    ]);
  });

  test('of other kinds are read as well: what goes on under a name of its own, and the rest for itself', () => {
    const texts = (read: ReturnType<typeof event>) =>
      read.parts.map(({ channel, text, isWhole }) => [channel, text, isWhole]);
    expect(
      texts(delta(1, { type: 'citations_delta', citation: { cited_text: 'Q', encrypted_index: 'Eo8B', title: 'H' } })),
    ).toEqual([
      ['0/extra', 'Q', true],
      ['0/extra', 'H', true],
    ]);
    expect(texts(delta(1, { type: 'new_delta', words: 'W' }))).toEqual([['0/field/1/new_delta/words', 'W', false]]);
    expect(texts(delta(1, { type: 'text_delta', text: 'A', aside: 'B' }))).toEqual([
      ['0/text/1', 'A', false],
      ['0/extra', 'B', true],
    ]);
    const block = { type: 'tool_use', id: 'x', name: 'f', input: { q: 'I' } };
    expect(texts(event({ type: 'content_block_start', index: 0, content_block: block }))).toEqual([
      ['0/extra', 'I', true],
    ]);
    expect(texts(event({ type: 'content_block_start', index: 0, content_block: { type: 'text', text: 'A' } }))).toEqual(
      [['0/text/0', 'A', false]],
    );
    expect(texts(event({ type: 'unheard_of', note: { of: 'N' } }))).toEqual([['0/extra', 'N', true]]);
    expect(
      texts(event({ type: 'message_delta', delta: { stop_reason: 'refusal', stop_details: { explanation: 'E' } } })),
    ).toEqual([['0/extra', 'E', true]]);
  });

  test('have no string that a guard does not see and cannot change, wherever it stands', () => {
    const key = fc.constantFrom(
      'text',
      'delta',
      'content_block',
      'message',
      'stop_reason',
      'input',
      'content',
      'note',
      'citation',
      'toString',
    );
    const word = fc.constantFrom('text_delta', 'tool_use', 'thinking', 5, null, { toString: 1 });
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { depthSize: 'small' },
        word,
        fc.constant('SECRET'),
        fc.array(tie('tree'), { maxLength: 2 }),
        fc.dictionary(fc.oneof(key, fc.constant('type')), tie('tree'), { maxKeys: 5 }),
      ),
    })) as { tree: fc.Arbitrary<unknown> };
    const types = [
      'message_start',
      'content_block_start',
      'content_block_delta',
      'content_block_stop',
      'message_delta',
      'ping',
      'new',
    ];
    fc.assert(
      fc.property(fc.constantFrom(...types), fc.dictionary(key, tree, { maxKeys: 4 }), (type, body) => {
        const read = event({ ...body, type });
        for (const part of read.parts) part.set('***');
        // Why an answer ended and what something is are words of the protocol's.
        const shown = JSON.stringify(read.body, (name, value) =>
          ['type', 'stop_reason'].includes(name) ? undefined : value,
        );
        expect(shown).not.toContain('SECRET');
      }),
      { numRuns: 1000 },
    );
  });

  test('tell tools, ends, usage and errors', () => {
    const block = { type: 'tool_use', id: 'x', name: 'f', input: {} };
    expect(event({ type: 'content_block_start', index: 2, content_block: block }).tools).toEqual([
      { call: '0/tool-arguments/2', name: 'f' },
    ]);
    expect(delta(2, { type: 'input_json_delta', partial_json: '' }).tools).toEqual([
      { call: '0/tool-arguments/2', name: undefined },
    ]);
    expect(event({ type: 'content_block_stop', index: 2 }).closed).toContain('0/tool-arguments/2');
    expect(
      event({ type: 'message_start', message: { model: 'm', usage: { input_tokens: 3, output_tokens: 1 } } }),
    ).toMatchObject({
      model: 'm',
      usage: { inputTokens: 3, outputTokens: 1 },
      parts: [],
    });
    expect(
      event({ type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 5 } }),
    ).toMatchObject({
      finished: ['0'],
      usage: { outputTokens: 5 },
    });
    expect(event({ type: 'message_stop' }).done).toBe(true);
    expect(event({ type: 'error', error: { type: 'overloaded_error', message: 'Busy' } }).error).toBe('Busy');
    expect(event({ type: 'error' }).error).toBe('error');
    expect(() => dialect.readEvent('[]')).toThrow(SyntaxError);
  });

  test('can be changed, and a seal be broken', () => {
    const read = delta(1, { type: 'text_delta', text: 'A' });
    read.parts[0]?.set('B');
    expect(read.body).toMatchObject({ delta: { type: 'text_delta', text: 'B' } });
    const seal = delta(0, { type: 'signature_delta', signature: 'EqQB' });
    expect([seal.parts, seal.closed, seal.bare]).toEqual([[], ['0/reasoning/0'], false]);
    seal.unseal?.();
    expect(seal.body).toMatchObject({ delta: { signature: '' } });
  });

  test.each(['0/text/3', '0/reasoning/3', '0/tool-arguments/3', '0/field/3/new_delta/words'])(
    'made for text that was held are read on its own channel: %s',
    (channel) => {
      const made = dialect.textEvent({}, channel, 'held');
      expect(dialect.readEvent(JSON.stringify(made)).parts.map((part) => [part.channel, part.text])).toEqual([
        [channel, 'held'],
      ]);
    },
  );

  test('are told from those that must be read by a look at them', () => {
    fc.assert(
      fc.property(hubStream, (events) => {
        const objects = writtenBy(events);
        for (let from = 0; from < objects.length; from += 1) {
          const run = objects.slice(from, from + 3);
          const read = run.map((body) => dialect.readEvent(JSON.stringify(body)));
          const kind = dialect.skimEvents(run.map(dialect.frame).join(''));
          const isSilent = read.every(
            ({ usage, finished, error, tools }) =>
              !usage && finished.length === 0 && !error && tools.every(({ name }) => name === undefined),
          );
          if (kind !== 'read') expect(isSilent).toBe(true);
          expect(kind === 'done').toBe(
            isSilent &&
              read.at(-1)?.done === true &&
              run.slice(0, -1).every(({ type }) => type === 'content_block_delta'),
          );
        }
      }),
      { numRuns: 50 },
    );
    const text =
      'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"event: message_stop \\"error\\""}}\n\n';
    expect(dialect.skimEvents(`${text}event: ping\ndata: {"type": "ping"}\n\n`)).toBe('plain');
    expect(dialect.skimEvents(`${text}event: error\ndata: {"type":"error"}\n\n`)).toBe('read');
    expect(dialect.skimEvents(text.replaceAll('\n', '\r\n'))).toBe('read');
    expect(dialect.skimEvents('data: {"type":"message_stop"}\n\n')).toBe('read');
    expect(dialect.skimEvents(text.repeat(10_000))).toBe('read');
  });
});

describe('a quota', () => {
  test('bounds the answer, and the thoughts with it', () => {
    const limited = (body: Json, most: number) => {
      dialect.limitOutput(body, most, 'max_tokens');
      return body;
    };
    expect(limited({}, 5)).toEqual({ max_tokens: 5 });
    expect(limited({ max_tokens: 3 }, 5)).toEqual({ max_tokens: 3 });
    const thinking = { type: 'enabled', budget_tokens: 2000 };
    expect(limited({ max_tokens: 9000, thinking: { ...thinking } }, 1500)).toEqual({
      max_tokens: 1500,
      thinking: { ...thinking, budget_tokens: 1499 },
    });
    expect(limited({ max_tokens: 9000, thinking: { ...thinking } }, 1000)).toEqual({ max_tokens: 1000 });
  });

  test('marks the answer that it cut', () => {
    const message = { stop_reason: 'max_tokens' } as Json;
    expect(dialect.markLimited(message)).toBe(true);
    expect(message.wardgate).toMatchObject({ code: 'quota_exhausted' });
    expect(dialect.markLimited({ type: 'message_delta', delta: { stop_reason: 'max_tokens' } })).toBe(true);
    expect(dialect.markLimited({ stop_reason: 'end_turn' })).toBe(false);
  });

  test('ends a stream as one that was cut', () => {
    const like = { type: 'content_block_delta', index: 1, delta: {} };
    const objects = objectsOf(dialect.cutShort(like, ['0'], { inputTokens: 3, outputTokens: 4 }));
    expect(objects).toMatchObject([
      { type: 'content_block_stop', index: 1 },
      {
        type: 'message_delta',
        delta: { stop_reason: 'max_tokens' },
        usage: { input_tokens: 3, output_tokens: 4 },
        wardgate: { code: 'quota_exhausted' },
      },
      { type: 'message_stop' },
    ]);
    expect(objectsOf(dialect.cutShort({ type: 'content_block_stop', index: 1 }, ['0'], undefined))).toHaveLength(2);
  });
});

describe('what else a client is told', () => {
  test.each([
    [400, 'invalid_request_error'],
    [401, 'authentication_error'],
    [402, 'billing_error'],
    [403, 'permission_error'],
    [404, 'not_found_error'],
    [409, 'conflict_error'],
    [413, 'request_too_large'],
    [415, 'invalid_request_error'],
    [429, 'rate_limit_error'],
    [500, 'api_error'],
    [502, 'api_error'],
    [503, 'overloaded_error'],
    [504, 'timeout_error'],
  ])('an error of status %i is of the type %s', (status, type) => {
    const body = JSON.parse(dialect.errorBody({ status, type: 'x', code: 'some_code', message: 'M', param: 'p' }));
    expect(body).toEqual({
      type: 'error',
      error: { type, message: 'M', details: { error_code: 'some_code', param: 'p' } },
    });
  });

  test('the models, in the vendor’s form to those who speak its version', () => {
    expect(
      JSON.parse(
        dialect.modelList([
          { id: 'a', ownedBy: 'x' },
          { id: 'b', ownedBy: 'x' },
        ]),
      ),
    ).toEqual({
      data: ['a', 'b'].map((id) => ({ type: 'model', id, display_name: id, created_at: '1970-01-01T00:00:00Z' })),
      has_more: false,
      first_id: 'a',
      last_id: 'b',
    });
    expect(JSON.parse(dialect.modelList([]))).toMatchObject({ data: [], first_id: null, last_id: null });
    const version = { 'anthropic-version': '2023-06-01' };
    expect([
      dialect.listing?.('/v1/models', version),
      dialect.listing?.('/models/a/b', version),
      dialect.listing?.('/v1/models', {}),
      dialect.listing?.('/v1/messages', version),
    ]).toEqual(['', 'a/b', undefined, undefined]);
  });

  test('the length of a prompt', () => {
    expect(anthropicCountTokens.fromHub({ inputTokens: 12 })).toEqual({ input_tokens: 12 });
    expect(anthropicCountTokens.readRequest(ask({ model: 'm', stream: true }), {}).stream).toBe(false);
    expect(anthropicCountTokens.toHub(ask()).messages).toHaveLength(1);
    expect(anthropicCountTokens.requestSegments(ask()).map(({ text }) => text)).toEqual(['Hi']);
  });
});
