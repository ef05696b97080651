import { EventStreamCodec } from '@smithy/eventstream-codec';
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { GatewayError } from '../../../gateway/errors.ts';
import type { HubEvent } from '../../../gateway/hub/reply.ts';
import type { HubPart, HubRequest } from '../../../gateway/hub/request.ts';
import { bedrock } from '../../../gateway/providers/bedrock/provider.ts';
import type { ChatEndpoint, Endpoint, Provider } from '../../../gateway/providers/provider.ts';
import { cutAt, cutOffsets } from '../../support/cuts.ts';
import { fixtureNames, replyFixture, streamFixture } from '../../support/fixture.ts';
import { errorOf, hubRequest, orGatewayError, readPieces, says } from '../../support/hub.ts';
import { saidBy, saidByReply } from '../../support/hub-events.ts';
import { expectSameWhereverCut } from './cut-anywhere.ts';
import { SETTINGS } from './settings.ts';

const CLAUDE = 'global.anthropic.claude-sonnet-4-20250514-v1:0';
const ADAPTIVE = 'us.anthropic.claude-opus-4-6-v1';
const NOVA = 'amazon.nova-2-lite-v1:0';
const LLAMA = 'meta.llama3-3-70b-instruct-v1:0';

const COMMON = {
  kind: 'bedrock',
  region: 'us-west-2',
  accessKeyId: 'AKIDEXAMPLE',
  secretAccessKey: 'secret',
  ...SETTINGS,
};
const provider = made();
const chat = provider.endpoints.chat[0] as ChatEndpoint;

function made(settings: Json = {}): Provider {
  return bedrock.make('aws', { ...COMMON, ...settings } as never);
}

function written(more: Partial<HubRequest> = {}, model = CLAUDE): Json {
  return JSON.parse(JSON.stringify(chat.write(hubRequest(more), { model, stream: false })));
}

function refused(more: Partial<HubRequest>, model = CLAUDE): GatewayError {
  try {
    written(more, model);
  } catch (error) {
    if (error instanceof GatewayError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

function userBlocks(...parts: HubPart[]): unknown {
  return (written({ messages: [says('user', ...parts)] }).messages as Json[])[0]?.content;
}

const streamOf = (name: string): Buffer => streamFixture('bedrock', `${name}.bin`);
const replyOf = (name: string): Json => replyFixture('bedrock', name);
const STREAMS = fixtureNames('streams', 'bedrock');

/** Without the id and the time, which are of the moment. */
function eventsOf(pieces: Buffer[]): HubEvent[] {
  return readPieces(chat.openReader(), pieces).map((event) => (event.type === 'start' ? { type: 'start' } : event));
}

const codec = new EventStreamCodec(
  (bytes) => Buffer.from(bytes as Uint8Array).toString(),
  (text) => Buffer.from(text),
);

function message(type: string, body: unknown, kind = 'event'): Buffer {
  const headers = {
    ':message-type': { type: 'string' as const, value: kind },
    [kind === 'event' ? ':event-type' : ':exception-type']: { type: 'string' as const, value: type },
  };
  return Buffer.from(codec.encode({ headers, body: Buffer.from(JSON.stringify(body)) }));
}

describe('the address', () => {
  const path = (model: string, stream = false) => chat.path({ model, stream });

  test('is the region’s, and a stream has a path of its own', () => {
    expect(provider.origin).toBe('https://bedrock-runtime.us-west-2.amazonaws.com');
    expect(made({ region: 'cn-north-1' }).origin).toBe('https://bedrock-runtime.cn-north-1.amazonaws.com.cn');
    expect(path('a.b', true)).toBe('/model/a.b/converse-stream');
    expect(provider.endpoints.count?.[0]?.path({ model: 'a.b', stream: false })).toBe('/model/a.b/count-tokens');
  });

  test('holds ids and ARNs in one segment', () => {
    expect(path(CLAUDE)).toBe('/model/global.anthropic.claude-sonnet-4-20250514-v1%3A0/converse');
    expect(path('arn:aws:bedrock:us-west-2:1:inference-profile/a.b')).toBe(
      '/model/arn%3Aaws%3Abedrock%3Aus-west-2%3A1%3Ainference-profile%2Fa.b/converse',
    );
    expect(path("a'(!)*/../b")).toBe('/model/a%27%28%21%29%2A%2F..%2Fb/converse');
  });

  test('needs a region, from the config, the environment or the base URL', () => {
    vi.stubEnv('AWS_REGION', undefined);
    vi.stubEnv('AWS_DEFAULT_REGION', undefined);
    expect(() => made({ region: undefined })).toThrow('has no `region`: set it, or AWS_REGION in the environment');
    const baseUrl = 'https://vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com/sub/';
    expect(made({ region: undefined, baseUrl }).endpoints.chat[0]?.path({ model: 'm', stream: false })).toBe(
      '/sub/model/m/converse',
    );
    vi.stubEnv('AWS_DEFAULT_REGION', 'eu-north-1');
    expect(made({ region: undefined }).origin).toContain('.eu-north-1.');
  });
});

describe('a request', () => {
  test('says its turns, and the system’s words in front', () => {
    const messages = [says('system', 'Be brief.'), says('user', 'hello'), says('assistant', 'hi'), says('user', 'so?')];
    expect(written({ messages: [...messages, says('system', 'In verse.')] })).toEqual({
      system: [{ text: 'Be brief.' }, { text: 'In verse.' }],
      messages: [
        { role: 'user', content: [{ text: 'hello' }] },
        { role: 'assistant', content: [{ text: 'hi' }] },
        { role: 'user', content: [{ text: 'so?' }] },
      ],
    });
  });

  test('joins neighbours of one role and drops blank texts, which Bedrock refuses', () => {
    const messages = [says('user', 'a', ' \n'), says('assistant', ''), says('user', 'b')];
    expect(written({ messages }).messages).toEqual([{ role: 'user', content: [{ text: 'a' }, { text: 'b' }] }]);
  });

  test('bounds and shapes the answer', () => {
    const bounds = { maxOutputTokens: 100, temperature: 0.5, topP: 0.9, topK: 40, stop: ['three'] };
    expect(written({ ...bounds, metadata: { team: 'red' }, serviceTier: 'flex' })).toMatchObject({
      inferenceConfig: { maxTokens: 100, temperature: 0.5, topP: 0.9, stopSequences: ['three'] },
      additionalModelRequestFields: { top_k: 40 },
      additionalModelResponseFieldPaths: ['/stop_sequence'],
      requestMetadata: { team: 'red' },
      serviceTier: { type: 'flex' },
    });
    expect(written({ topK: 40 }, NOVA).additionalModelRequestFields).toEqual({ inferenceConfig: { topK: 40 } });
    expect(written({ stop: ['x'] }, LLAMA).additionalModelResponseFieldPaths).toBeUndefined();
    expect(written({ serviceTier: 'auto' }).serviceTier).toBeUndefined();
  });

  test('asks for JSON by a schema', () => {
    const schema = { type: 'object', properties: { a: { type: 'string' } } };
    const format = { type: 'json-schema', schema, name: 'thing', description: 'A thing.', strict: true } as const;
    expect(written({ format }).outputConfig).toEqual({
      textFormat: {
        type: 'json_schema',
        structure: { jsonSchema: { schema: JSON.stringify(schema), name: 'thing', description: 'A thing.' } },
      },
    });
  });

  test('carries the operator’s guardrail', () => {
    const [guarded] = made({ guardrail: { id: 'gr-1', version: 'DRAFT' } }).endpoints.chat;
    expect(guarded?.write(hubRequest(), { model: CLAUDE, stream: false }).guardrailConfig).toEqual({
      guardrailIdentifier: 'gr-1',
      guardrailVersion: 'DRAFT',
    });
  });

  test.each([
    ['temperature', { temperature: 1.5, used: new Map([['temperature', 'temperature']]) }, 'must be from 0 to 1'],
    ['top_k', { topK: 4, used: new Map([['top-k', 'top_k']]) }, 'cannot be said to this model on Bedrock'],
    ['service_tier', { serviceTier: 'scale', used: new Map([['service-tier', 'service_tier']]) }, 'must be auto, d'],
    ['response_format', { format: { type: 'json' } }, 'must have a schema'],
    ['parallel_tool_calls', { parallelToolCalls: false, tools: [{ name: 'a' }] }, 'cannot be said to this model'],
    ['reasoning', { reasoning: { budget: 2000 } }, 'cannot be a number of tokens'],
    ['metadata', { metadata: { note: 'a;b' } }, 'must be of letters'],
  ] as [string, Partial<HubRequest>, string][])(
    'is refused for its %s, by the client’s name for it',
    (param, more, why) => {
      const error = refused(more, LLAMA);
      expect(error.code).toBe('invalid_request');
      expect(error.details.param).toBe(param);
      expect(error.message).toContain(why);
    },
  );
});

describe('media', () => {
  const data = (mediaType: string) => ({ kind: 'data' as const, mediaType, data: 'AAAA' });

  test('go along as bytes, by their format', () => {
    expect(
      userBlocks(
        { type: 'image', source: data('image/JPEG; q=1'), detail: 'low' },
        { type: 'file', source: data('application/pdf'), name: 'Report (2024)/final_v2.pdf' },
        { type: 'audio', source: data('audio/wav') },
        { type: 'video', source: data('video/quicktime') },
        { type: 'file', source: { kind: 'text', mediaType: 'text/plain', text: 'ab' } },
      ),
    ).toEqual([
      { image: { format: 'jpeg', source: { bytes: 'AAAA' } } },
      { document: { format: 'pdf', name: 'Report (2024) final v2 pdf', source: { bytes: 'AAAA' } } },
      { audio: { format: 'wav', source: { bytes: 'AAAA' } } },
      { video: { format: 'mov', source: { bytes: 'AAAA' } } },
      { document: { format: 'txt', name: 'document', source: { bytes: 'YWI=' } } },
    ]);
  });

  test('documents never share a name, whatever they were called', () => {
    const names = fc.array(fc.string({ unit: 'grapheme', maxLength: 300 }), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(names, (given) => {
        const blocks = userBlocks(
          ...given.map((name) => ({ type: 'file' as const, source: data('text/csv'), name })),
        ) as { document: { name: string } }[];
        const told = blocks.map(({ document }) => document.name);
        expect(new Set(told).size).toBe(given.length);
        for (const name of told) expect(name).toMatch(/^(?! )(?!.*\s\s)[A-Za-z0-9\s()[\]-]{1,200}$/);
      }),
    );
  });

  test.each<[string, HubPart, string]>([
    ['an image type', { type: 'image', source: data('image/tiff') }, 'send png, jpeg, gif, webp'],
    ['a URL', { type: 'image', source: { kind: 'url', url: 'https://example.com/a.png' } }, 'needs it inline'],
    // It would be read with the gateway's rights.
    ['an address in S3', { type: 'file', source: { kind: 'url', url: 's3://bucket/a.pdf' } }, 'needs it inline'],
    ['a vendor’s file id', { type: 'file', source: { kind: 'id', id: 'file-1' } }, 'needs it inline'],
  ])('refuses %s by the place of its message', (_, part, why) => {
    const error = refused({ messages: [says('user', part)] });
    expect(error.details.param).toBe('messages[0]');
    expect(error.message).toContain(why);
  });
});

describe('tools', () => {
  const tool = { name: 'clock', description: 'The time.', parameters: { type: 'object' }, strict: true };
  const call: HubPart = { type: 'tool-call', id: 'call_1', name: 'clock', arguments: '' };
  const result: HubPart = { type: 'tool-result', id: 'call_1', parts: [{ type: 'text', text: '' }] };
  const talk = [says('user', 'hello'), says('assistant', call), says('tool', result)];

  test('are declared, and one is chosen', () => {
    expect(
      written({ tools: [tool, { name: 'bare', description: '' }], toolChoice: { name: 'bare' } }).toolConfig,
    ).toEqual({
      tools: [
        {
          toolSpec: {
            name: 'clock',
            description: 'The time.',
            inputSchema: { json: { type: 'object' } },
            strict: true,
          },
        },
        { toolSpec: { name: 'bare', inputSchema: { json: { type: 'object', properties: {} } } } },
      ],
      toolChoice: { tool: { name: 'bare' } },
    });
    expect(written({ tools: [tool], toolChoice: 'required' }).toolConfig).toMatchObject({ toolChoice: { any: {} } });
    expect(written({ tools: [tool], toolChoice: 'auto' }).toolConfig).toMatchObject({ toolChoice: { auto: {} } });
  });

  test('are left out when none may be used, which cannot be said once some were', () => {
    expect(written({ tools: [tool], toolChoice: 'none' }).toolConfig).toBeUndefined();
    const used = new Map([['tool-choice.none', 'tool_choice'] as const]);
    expect(refused({ messages: talk, tools: [tool], toolChoice: 'none', used }).details.param).toBe('tool_choice');
  });

  test('of an earlier time are declared all the same: Bedrock wants it', () => {
    const { toolConfig } = written({ messages: talk });
    expect(toolConfig).toMatchObject({ tools: [{ toolSpec: { name: 'clock', description: 'No longer available.' } }] });
  });

  test('one at a time: Claude’s own choice says it, and Converse’s does not stand beside it', () => {
    const body = written({ tools: [tool], toolChoice: 'required', parallelToolCalls: false });
    expect(body.additionalModelRequestFields).toEqual({
      tool_choice: { type: 'any', disable_parallel_tool_use: true },
    });
    expect(body.toolConfig).not.toHaveProperty('toolChoice');
  });

  test('calls and results go back; neighbouring results are one turn, with what the user adds', () => {
    const media: HubPart = {
      type: 'tool-result',
      id: 'call_2',
      isError: true,
      parts: [{ type: 'image', source: { kind: 'data', mediaType: 'image/png', data: 'AAAA' } }],
    };
    expect(written({ messages: [...talk, says('tool', media), says('user', 'and?')], tools: [tool] }).messages).toEqual(
      [
        { role: 'user', content: [{ text: 'hello' }] },
        { role: 'assistant', content: [{ toolUse: { toolUseId: 'call_1', name: 'clock', input: {} } }] },
        {
          role: 'user',
          content: [
            { toolResult: { toolUseId: 'call_1', content: [{ text: '' }] } },
            {
              toolResult: {
                toolUseId: 'call_2',
                content: [{ image: { format: 'png', source: { bytes: 'AAAA' } } }],
                status: 'error',
              },
            },
            { text: 'and?' },
          ],
        },
      ],
    );
  });

  test('ids of other vendors fit, and call and result keep the same one', () => {
    const id = fc.string({ minLength: 1, maxLength: 90, size: 'max' });
    const ids = fc.uniqueArray(id, { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(ids, (given) => {
        const calls = given.map((id): HubPart => ({ type: 'tool-call', id, name: 'clock', arguments: '{}' }));
        const results = given.map((id): HubPart => ({ type: 'tool-result', id, parts: [] }));
        const [asked, answered] = written({ messages: [says('assistant', ...calls), says('tool', ...results)] })
          .messages as { content: { toolUse?: Json; toolResult?: Json }[] }[];
        const called = asked!.content.map(({ toolUse }) => toolUse?.toolUseId);
        expect(answered!.content.map(({ toolResult }) => toolResult?.toolUseId)).toEqual(called);
        expect(new Set(called).size).toBe(given.length);
        for (const id of called) expect(id).toMatch(/^[\w-]{1,64}$/);
      }),
    );
  });

  test('arguments that are no object are refused', () => {
    const odd: HubPart = { type: 'tool-call', id: 'a', name: 'clock', arguments: '[1]' };
    expect(refused({ messages: [says('assistant', odd)] }).message).toContain('arguments that are no JSON object');
  });
});

describe('thoughts and caches', () => {
  const sealed: HubPart = { type: 'reasoning', text: 'Hm.', signature: 'EqQBCg==' };

  test('go back to Claude sealed, or not at all', () => {
    const thoughts: HubPart[] = [
      sealed,
      { type: 'reasoning', text: '', redacted: 'EmwKAhgB' },
      { type: 'reasoning', text: 'unsealed' },
      { type: 'reasoning', text: 'of another vendor', signature: 'gAAAAABo' },
      { type: 'reasoning', text: 'of yet another', signature: 'gemini:CikBcVRo' },
      { type: 'reasoning', text: '', redacted: 'gAAAAABo' },
      { type: 'reasoning', text: '', redacted: 'no base64' },
    ];
    const messages = [says('user', 'a'), says('assistant', ...thoughts, 'b')];
    const contentOf = (model: string) => (written({ messages }, model).messages as Json[])[1]?.content;
    expect(contentOf(CLAUDE)).toEqual([
      { reasoningContent: { reasoningText: { text: 'Hm.', signature: 'EqQBCg==' } } },
      { reasoningContent: { redactedContent: 'EmwKAhgB' } },
      { text: 'b' },
    ]);
    expect(contentOf(LLAMA)).toEqual([{ text: 'b' }]);
  });

  test.each<[string, string, HubRequest['reasoning'], Json]>([
    ['an effort as a budget', CLAUDE, { effort: 'low' }, { thinking: { type: 'enabled', budget_tokens: 2048 } }],
    ['a budget', CLAUDE, { budget: 5000 }, { thinking: { type: 'enabled', budget_tokens: 5000 } }],
    ['an effort', ADAPTIVE, { effort: 'high', shown: true }, { thinking: { type: 'adaptive', display: 'summarized' } }],
    ['no thinking', ADAPTIVE, { off: true }, { thinking: { type: 'disabled' } }],
    ['an effort', NOVA, { effort: 'xhigh' }, { reasoningConfig: { type: 'enabled', maxReasoningEffort: 'high' } }],
    ['an effort', 'openai.gpt-oss-120b-1:0', { effort: 'minimal' }, { reasoning_effort: 'low' }],
  ])('says %s to %s', (_, model, reasoning, fields) => {
    expect(written({ reasoning }, model).additionalModelRequestFields).toEqual(fields);
  });

  test('says an effort beside it where the model decides itself, and to models it does not know', () => {
    expect(written({ reasoning: { effort: 'max' } }, ADAPTIVE).outputConfig).toEqual({ effort: 'max' });
    const other = written({ reasoning: { effort: 'medium' } }, LLAMA);
    expect(other.outputConfig).toEqual({ effort: 'medium' });
    expect(other.additionalModelRequestFields).toBeUndefined();
  });

  test('says nothing to models that think only when asked', () => {
    for (const model of [CLAUDE, NOVA, LLAMA, 'openai.gpt-oss-20b-1:0'])
      expect(written({ reasoning: { off: true } }, model)).not.toHaveProperty('additionalModelRequestFields');
    const used = new Map([['reasoning', 'reasoning_effort'] as const]);
    expect(refused({ reasoning: { off: true }, used }, 'openai.gpt-oss-20b-1:0').details.param).toBe(
      'reasoning_effort',
    );
  });

  test('a budget fits the bound of the answer, or is refused by it', () => {
    const thinking = (maxOutputTokens: number) =>
      written({ reasoning: { effort: 'high' }, maxOutputTokens }).additionalModelRequestFields;
    expect(thinking(4096)).toEqual({ thinking: { type: 'enabled', budget_tokens: 2048 } });
    expect(thinking(1100)).toEqual({ thinking: { type: 'enabled', budget_tokens: 1024 } });
    const error = refused({ reasoning: { effort: 'high' }, maxOutputTokens: 500 });
    expect(error.details.param).toBe('max_tokens');
  });

  test('a tool loop whose thoughts the client did not keep goes on without thinking', () => {
    const call: HubPart = { type: 'tool-call', id: 'a', name: 'clock', arguments: '{}' };
    const result: HubPart = { type: 'tool-result', id: 'a', parts: [] };
    const asked = (...parts: HubPart[]) =>
      written({ messages: [says('assistant', ...parts), says('tool', result)], reasoning: { effort: 'low' } });
    expect(asked(call)).not.toHaveProperty('additionalModelRequestFields');
    expect(asked(sealed, call)).toHaveProperty('additionalModelRequestFields.thinking');
  });

  test('hints become cache points', () => {
    const messages = [
      says('system', { type: 'text', text: 'Long.', cache: '' }),
      says('user', { type: 'text', text: 'doc', cache: '1h' }, 'ask'),
    ];
    expect(written({ messages, tools: [{ name: 'clock', cache: '7d' }] })).toMatchObject({
      system: [{ text: 'Long.' }, { cachePoint: { type: 'default' } }],
      messages: [{ content: [{ text: 'doc' }, { cachePoint: { type: 'default', ttl: '1h' } }, { text: 'ask' }] }],
      toolConfig: { tools: [{ toolSpec: { name: 'clock' } }, { cachePoint: { type: 'default' } }] },
    });
  });
});

describe('an answer', () => {
  test('is read with what it is named and counted by', () => {
    const before = Date.now();
    const reply = chat.read(replyOf('text'));
    const ms = Number(/^bedrock-(\d{13})$/.exec(reply.id ?? '')?.[1]);
    expect(ms).toBeGreaterThanOrEqual(before);
    expect(reply.created).toBe(Math.floor(ms / 1000));
    expect(reply).toMatchObject({
      choices: [{ index: 0, parts: [{ type: 'text', text: 'Grüße aus der Ferne 👋!' }], finish: 'stop' }],
      usage: { inputTokens: 12, outputTokens: 9 },
    });
  });

  test('counts what the cache gave and took among the prompt', () => {
    const reply = chat.read(replyOf('cache-usage'));
    expect(reply.usage).toEqual({
      inputTokens: 4 + 2048 + 512,
      outputTokens: 5,
      cachedInputTokens: 2048,
      cacheWriteTokens: 512,
    });
    expect(reply.serviceTier).toBe('priority');
  });

  test('tells the sources of what it says', () => {
    expect(chat.read(replyOf('citations')).choices[0]?.parts[1]).toEqual({
      type: 'text',
      text: 'Gym memberships are free.',
      citations: [
        { url: 'https://example.com/handbook', title: 'Handbook', quote: 'Gyms are free.', document: 1 },
        { url: 'https://example.com/news', title: 'News', quote: 'It rained.', document: undefined },
      ],
    });
  });

  test('takes a source for an address only where it is one', () => {
    const citations = [
      { title: 'Handbook', source: 'shelf 3', location: { documentPage: { documentIndex: 0, start: 2 } } },
    ];
    const content = [{ citationsContent: { content: [{ text: 'a' }, { text: 'b' }], citations } }];
    const reply = chat.read({ output: { message: { content } }, stopReason: 'end_turn' });
    expect(reply.choices[0]?.parts).toEqual([
      { type: 'text', text: 'ab', citations: [{ url: undefined, title: 'Handbook', quote: undefined, document: 0 }] },
    ]);
  });

  test.each([
    ['end_turn', 'stop'],
    ['stop_sequence', 'stop-sequence'],
    ['tool_use', 'tool-calls'],
    ['max_tokens', 'length'],
    ['model_context_window_exceeded', 'context-window'],
    ['guardrail_intervened', 'content-filter'],
    ['content_filtered', 'content-filter'],
    ['something new', 'stop'],
  ])('that ends with %s has the finish %s', (stopReason, finish) => {
    expect(chat.read({ ...replyOf('text'), stopReason }).choices[0]?.finish).toBe(finish);
  });

  test('that the model garbled is an error, not a finished answer', () => {
    const garbled = { ...replyOf('text'), stopReason: 'malformed_tool_use' };
    expect(() => chat.read(garbled)).toThrow('The model wrote an answer that cannot be read. Try again.');
  });

  test('leaves out what was asked of Bedrock’s own tools', () => {
    const content = [
      { toolUse: { type: 'server_tool_use', name: 'grounding', toolUseId: 'a', input: {} } },
      { text: 'b' },
    ];
    const reply = chat.read({ output: { message: { content } }, stopReason: 'end_turn' });
    expect(reply.choices[0]?.parts).toEqual([{ type: 'text', text: 'b' }]);
  });

  test('of any other shape is an error of the gateway’s own', () => {
    expect(() => chat.read({})).toThrow(GatewayError);
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), fc.jsonValue(), (output, content, usage) => {
        for (const body of [
          { output, usage },
          { output: { message: { content } }, usage, stopReason: content },
        ])
          orGatewayError(() => chat.read(body as Json));
      }),
    );
  });
});

describe('a stream', () => {
  test.each(STREAMS.filter((name) => name !== 'error'))('of %s says what the whole answer says', (name) => {
    const said = saidBy(eventsOf([streamOf(name)]));
    expect(said).toEqual(saidByReply(chat.read(replyOf(name))));
    expect(said.hasEnded).toBe(true);
  });

  test.each(STREAMS)('of %s is the same wherever it is cut', (name) => {
    expectSameWhereverCut(streamOf(name), eventsOf);
  });

  test('begins with its name, ends its blocks, and passes each piece on as it came', () => {
    const [start, ...rest] = readPieces(chat.openReader(), [streamOf('tools')]);
    expect(start).toMatchObject({ type: 'start', id: expect.stringMatching(/^bedrock-\d{13}$/) });
    expect(rest).toEqual([
      { type: 'text', choice: 0, text: 'I will look' },
      { type: 'text', choice: 0, text: ' it up.' },
      { type: 'part-end', choice: 0 },
      { type: 'tool-call', choice: 0, call: 0, id: 'tooluse_kZJMlvQmRJ6eAyJE5GIl7Q', name: 'get_weather' },
      ...['', '{"ci', 'ty": "Mün', 'chen"', '}'].map((text) => ({ type: 'tool-arguments', choice: 0, call: 0, text })),
      { type: 'part-end', choice: 0 },
      { type: 'finish', choice: 0, finish: 'tool-calls', stopSequence: undefined },
      { type: 'usage', usage: expect.objectContaining({ inputTokens: 380, outputTokens: 54 }) },
      { type: 'end' },
    ]);
  });

  test('that is cut short never ends', () => {
    const bytes = streamOf('text');
    const stop = bytes.indexOf('messageStop');
    fc.assert(
      fc.property(fc.integer({ min: 0, max: bytes.length - 1 }), (length) => {
        const events = eventsOf([bytes.subarray(0, length)]);
        if (length < stop) expect(events.map(({ type }) => type)).not.toContain('finish');
        // The usage alone is missing where it stops between two messages, after the stop.
        const last = events.at(-1)?.type;
        if (last === 'end') expect(events.map(({ type }) => type)).toContain('finish');
      }),
    );
  });

  test('that is closed after the stop, without its usage, is complete', () => {
    const bytes = streamOf('text');
    const metadata = message('metadata', {});
    expect(metadata.length).toBeGreaterThan(0);
    const lengths: number[] = [];
    for (let at = 0; at < bytes.length; at += bytes.readUInt32BE(at)) lengths.push(at);
    const withoutUsage = bytes.subarray(0, lengths.at(-1));
    expect(eventsOf([withoutUsage]).slice(-2)).toEqual([
      { type: 'finish', choice: 0, finish: 'stop', stopSequence: undefined },
      { type: 'end' },
    ]);
    expect(eventsOf([bytes.subarray(0, bytes.length - 1)]).at(-1)?.type).toBe('finish');
  });

  test.each([
    ['throttlingException', 'upstream_rate_limited', 429],
    ['serviceUnavailableException', 'upstream_overloaded', 503],
    ['modelTimeoutException', 'upstream_timeout', 504],
    ['modelStreamErrorException', 'upstream_failed', 502],
    ['internalServerException', 'upstream_failed', 502],
    ['validationException', 'upstream_invalid_request', 400],
    ['accessDeniedException', 'upstream_refused_key', 502],
    ['newException', 'upstream_failed', 502],
  ])('that breaks with a %s ends in %s', (type, code, status) => {
    const error = errorOf(eventsOf([message(type, { message: 'Because.' }, 'exception'), message('messageStop', {})]));
    expect(error?.code).toBe(code);
    expect(error?.status).toBe(status);
  });

  test('that breaks without an exception’s name ends in an error as well', () => {
    const text = (value: string) => ({ type: 'string' as const, value });
    const headers = {
      ':message-type': text('error'),
      ':error-code': text('ThrottlingException'),
      ':error-message': text('a'),
    };
    const bytes = Buffer.from(codec.encode({ headers, body: Buffer.alloc(0) }));
    expect(errorOf(eventsOf([bytes]))?.code).toBe('upstream_rate_limited');
  });

  test('that is damaged ends in an error after what was whole', () => {
    const bytes = Buffer.from(streamOf('text'));
    bytes[300]! ^= 1;
    const events = eventsOf([bytes]);
    expect(events.length).toBeGreaterThan(1);
    expect(errorOf(events)?.code).toBe('upstream_bad_answer');
  });

  test.each([
    ['text that is no stream', Buffer.from('{"message":"no"}')],
    ['a message beyond all bounds', Buffer.from([0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0])],
    ['a message below all bounds', Buffer.alloc(16)],
    ['arguments of a call without a name', message('contentBlockDelta', { delta: { toolUse: { input: '{' } } })],
    ['a call without a name', message('contentBlockStart', { start: { toolUse: { toolUseId: 'a' } } })],
    ['an answer that the model garbled', message('messageStop', { stopReason: 'malformed_model_output' })],
    ['a body that is no object', message('messageStart', [1])],
  ])('with %s is an error', (_, bytes) => {
    const events = eventsOf([bytes]);
    expect(errorOf(events)?.code).toBe('upstream_bad_answer');
    expect(events.map(({ type }) => type)).not.toContain('end');
  });

  test('of odd events, or of odd bytes, never throws anything else', () => {
    const type = fc.constantFrom(
      'messageStart',
      'contentBlockStart',
      'contentBlockDelta',
      'contentBlockStop',
      'messageStop',
      'metadata',
      'x',
    );
    const delta = fc.record({
      contentBlockIndex: fc.jsonValue(),
      start: fc.record({ toolUse: fc.jsonValue(), image: fc.jsonValue() }),
      delta: fc.record({
        text: fc.jsonValue(),
        toolUse: fc.jsonValue(),
        reasoningContent: fc.jsonValue(),
        citation: fc.jsonValue(),
        image: fc.jsonValue(),
      }),
      usage: fc.jsonValue(),
      stopReason: fc.jsonValue(),
    });
    const event = fc.tuple(type, fc.oneof(delta, fc.jsonValue()));
    fc.assert(
      fc.property(fc.array(event, { maxLength: 6 }), (events) => {
        orGatewayError(() => eventsOf(events.map(([name, body]) => message(name, body))));
      }),
    );
    const bytes = streamOf('reasoning');
    fc.assert(
      fc.property(cutOffsets(bytes.length), fc.nat(bytes.length - 1), fc.nat(255), (offsets, at, value) => {
        const broken = Buffer.from(bytes);
        broken[at] = value;
        orGatewayError(() => eventsOf(cutAt(offsets)(broken)));
      }),
    );
  });

  test('leaves out what Bedrock’s own tools are asked and answer', () => {
    const start = (contentBlockIndex: number, begun: object) =>
      message('contentBlockStart', { contentBlockIndex, start: begun });
    const events = eventsOf([
      start(0, { toolUse: { type: 'server_tool_use', name: 'grounding', toolUseId: 'a' } }),
      message('contentBlockDelta', { contentBlockIndex: 0, delta: { toolUse: { input: '{}' } } }),
      message('contentBlockStop', { contentBlockIndex: 0 }),
      start(1, { toolResult: { toolUseId: 'a', type: 'grounding' } }),
      message('contentBlockDelta', { contentBlockIndex: 1, delta: { toolResult: [{ text: 'found' }] } }),
      message('contentBlockStop', { contentBlockIndex: 1 }),
    ]);
    expect(events).toEqual([{ type: 'start' }]);
  });

  test('with an image beyond all bounds is an error', () => {
    const bytes = Buffer.alloc(9 * 1024 * 1024).toString('base64');
    const piece = message('contentBlockDelta', { contentBlockIndex: 0, delta: { image: { source: { bytes } } } });
    const start = message('contentBlockStart', { contentBlockIndex: 0, start: { image: { format: 'png' } } });
    expect(errorOf(eventsOf([start, piece]))).toBeUndefined();
    expect(errorOf(eventsOf([start, piece, piece]))?.code).toBe('upstream_bad_answer');
  });

  test('an image comes in one piece', () => {
    const image = (bytes: string) =>
      message('contentBlockDelta', { contentBlockIndex: 1, delta: { image: { source: { bytes } } } });
    const events = eventsOf([
      message('messageStart', {}),
      message('contentBlockStart', { contentBlockIndex: 1, start: { image: { format: 'webp' } } }),
      image(Buffer.from('ab').toString('base64')),
      image(Buffer.from('cde').toString('base64')),
      message('contentBlockStop', { contentBlockIndex: 1 }),
    ]);
    expect(events[1]).toEqual({
      type: 'media',
      choice: 0,
      mediaType: 'image/webp',
      data: Buffer.from('abcde').toString('base64'),
    });
  });
});

describe('errors', () => {
  const told = (status: number, type: string, message = 'Because.') =>
    provider.readError(status, { message }, { 'x-amzn-errortype': type });

  test.each<[number, string, string, number | undefined]>([
    [400, 'ValidationException:http://internal.amazon.com/', 'upstream_invalid_request', 400],
    [404, 'ResourceNotFoundException', 'upstream_invalid_request', 404],
    [429, 'ThrottlingException', 'upstream_rate_limited', undefined],
    [400, 'ThrottlingException:http://internal.amazon.com/', 'upstream_rate_limited', undefined],
    [400, 'com.amazon.coral#ServiceQuotaExceededException', 'upstream_rate_limited', undefined],
    [429, 'ModelNotReadyException', 'upstream_overloaded', undefined],
    [503, 'ServiceUnavailableException', 'upstream_overloaded', undefined],
    [408, 'ModelTimeoutException', 'upstream_timeout', undefined],
    [424, 'ModelErrorException', 'upstream_failed', undefined],
    [500, 'InternalServerException', 'upstream_failed', undefined],
    [403, 'AccessDeniedException', 'upstream_refused_key', undefined],
    [403, 'InvalidSignatureException', 'upstream_refused_key', undefined],
  ])('%i %s is %s', (status, type, code, shown) => {
    const error = told(status, type);
    expect(error.code).toBe(code);
    expect(error.details.status).toBe(shown);
  });

  test('say which it was: the model’s end, the account’s rights, or credentials that are too old', () => {
    const retired = 'This model version has reached the end of its life.';
    expect(told(404, 'ResourceNotFoundException', retired)).toMatchObject({
      message: retired,
      details: { publicCode: 'model_not_found' },
    });
    expect(told(403, 'AccessDeniedException', 'User: arn:aws:iam::1:user/x is not authorized').message).toBe(
      'The provider “aws” does not let the gateway’s AWS account use this model in this region. Ask the gateway’s operator to see to it.',
    );
    expect(told(403, 'ExpiredTokenException').message).toContain('credentials have expired');
    expect(told(403, 'UnrecognizedClientException').message).toContain('does not accept the gateway’s AWS credentials');
    expect(told(400, 'ValidationException', 'Input is too long for requested model.').details.publicCode).toBe(
      'context_length_exceeded',
    );
  });

  test('of any shape are told in words', () => {
    fc.assert(
      fc.property(fc.integer({ min: 300, max: 599 }), fc.jsonValue(), (status, body) => {
        expect(provider.readError(status, body, {}).message).toMatch(/./);
      }),
    );
  });
});

describe('counting and vectors', () => {
  const count = provider.endpoints.count?.[0] as Endpoint<'count'>;
  const embeddings = provider.endpoints.embeddings?.[0] as Endpoint<'embeddings'>;
  const texts = (...input: (string | number[])[]) => ({ input, used: new Map(), unknown: [] });

  test('counts the prompt', () => {
    const body = count.write(hubRequest({ maxOutputTokens: 5 }), { model: CLAUDE, stream: false });
    expect(JSON.parse(JSON.stringify(body))).toEqual({
      input: { converse: { messages: [{ role: 'user', content: [{ text: 'hello' }] }] } },
    });
    expect(count.read({ inputTokens: 15 })).toEqual({ inputTokens: 15 });
    expect(() => count.read({ inputTokens: '15' })).toThrow(GatewayError);
  });

  test('makes vectors of one text with Titan, of many with Cohere’s models', () => {
    const titan = { model: 'amazon.titan-embed-text-v2:0', stream: false };
    const cohere = { model: 'cohere.embed-v4:0', stream: false };
    expect(embeddings.path(titan)).toBe('/model/amazon.titan-embed-text-v2%3A0/invoke');
    expect(embeddings.write({ ...texts('a'), dimensions: 256 }, titan)).toEqual({ inputText: 'a', dimensions: 256 });
    expect(embeddings.write(texts('a', 'b'), cohere)).toMatchObject({
      texts: ['a', 'b'],
      input_type: 'search_document',
    });
    expect(() => embeddings.write(texts('a', 'b'), titan)).toThrow('The field `input` must be one text');
    expect(() => embeddings.write(texts([1, 2]), titan)).toThrow('not token ids');
    expect(embeddings.read({ embedding: [0.5, 1], inputTextTokenCount: 3 })).toEqual({
      vectors: [[0.5, 1]],
      usage: { inputTokens: 3, outputTokens: 0 },
    });
    expect(embeddings.read({ embeddings: { float: [[1], [2]] } }).vectors).toEqual([[1], [2]]);
    expect(embeddings.read({ embeddings: [[1], [2]] }).vectors).toEqual([[1], [2]]);
    expect(() => embeddings.read({ embedding: ['x'] })).toThrow(GatewayError);
    expect(() => embeddings.read({})).toThrow(GatewayError);
  });
});
