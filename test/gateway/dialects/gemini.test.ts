/** What clients of Gemini's API say and read: into the hub and out of it, and what guards see of it. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Json, StreamEvent } from '../../../gateway/dialects/dialect.ts';
import { gemini } from '../../../gateway/dialects/gemini/dialect.ts';
import { toJsonSchema } from '../../../gateway/dialects/gemini/schema.ts';
import { marked, readSeal, writeSeal } from '../../../gateway/dialects/gemini/seals.ts';
import { geminiCountTokens } from '../../../gateway/dialects/gemini-count-tokens/dialect.ts';
import { geminiEmbedding, geminiEmbeddings } from '../../../gateway/dialects/gemini-embeddings/dialect.ts';
import { findCall, findListing } from '../../../gateway/dialects/registry.ts';
import { GatewayError } from '../../../gateway/errors.ts';
import type { HubEvent, HubReply, ReplyPart } from '../../../gateway/hub/reply.ts';
import type { HubRequest } from '../../../gateway/hub/request.ts';
import { readReply } from '../../../gateway/providers/gemini/reply.ts';
import { writeRequest } from '../../../gateway/providers/gemini/request.ts';
import { GeminiReader } from '../../../gateway/providers/gemini/stream.ts';
import { fixtureNames, replyFixture, requestFixture, streamFixture } from '../../support/fixture.ts';
import { orGatewayError, readPieces } from '../../support/hub.ts';
import { hubStream, saidBy, saidByReply } from '../../support/hub-events.ts';

const PATH = '/v1beta/models/gemini-2.5-flash';

function hub(body: Json): HubRequest {
  return gemini.toHub(body);
}

function asked(...parts: Json[]): Json {
  return { contents: [{ role: 'user', parts }] };
}

function problemOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof GatewayError) return error.message;
    throw error;
  }
  return 'nothing was refused';
}

/** The body without what JSON leaves out. */
function plain(body: unknown): Json {
  return JSON.parse(JSON.stringify(body)) as Json;
}

describe('the path', () => {
  test.each([
    [`${PATH}:generateContent`, '', { model: 'gemini-2.5-flash', stream: false }],
    [`${PATH}:streamGenerateContent`, 'alt=sse', { model: 'gemini-2.5-flash', stream: true }],
    [`${PATH}:streamGenerateContent`, '%24alt=sse', { model: 'gemini-2.5-flash', stream: true }],
    ['/v1/models/a%2Fb:generateContent', '', { model: 'a/b', stream: false }],
    ['/v1alpha/models/anthropic.claude-v1:0:generateContent', '', { model: 'anthropic.claude-v1:0', stream: false }],
    ['/v1/projects/p/locations/eu/publishers/google/models/g:generateContent', '', { model: 'g', stream: false }],
    ['/v1beta1/publishers/google/models/g:generateContent', 'key=secret', { model: 'g', stream: false }],
  ])('names model and stream: %s?%s', (path, query, facts) => {
    expect(findCall(path, query)).toEqual({ dialect: gemini, path: facts });
  });

  test('says how a stream is asked for', () => {
    const problem = problemOf(() => findCall(`${PATH}:streamGenerateContent`, 'key=x'));
    expect(problem).toContain('add `?alt=sse` to the path');
    expect(problemOf(() => findCall('/v1beta/models/%ff:generateContent', ''))).toContain('`model`');
  });

  test('asks for the models in Gemini’s own way, or in OpenAI’s', () => {
    const listed = (path: string, headers = {}) => {
      const listing = findListing(path, headers);
      return [listing?.dialect.name, listing?.id];
    };
    expect(listed('/v1beta/models')).toEqual(['gemini', undefined]);
    expect(listed('/v1beta/models/a/b')).toEqual(['gemini', 'a/b']);
    expect(listed('/v1/models', { 'x-goog-api-key': 'k' })).toEqual(['gemini', undefined]);
    expect(listed('/v1/models')[0]).not.toBe('gemini');
    expect(JSON.parse(gemini.modelList([{ id: 'm', ownedBy: 'x' }]))).toMatchObject({
      models: [{ name: 'models/m', displayName: 'm', supportedGenerationMethods: ['generateContent', 'countTokens'] }],
    });
  });
});

describe('a request', () => {
  test('is read by both names of its fields', () => {
    const body = {
      system_instruction: { parts: [{ text: 'Be brief.' }] },
      contents: [{ parts: [{ inline_data: { mime_type: 'image/png', data: 'A_-A' } }] }],
      generation_config: { max_output_tokens: 5, stop_sequences: ['x'], candidate_count: 2 },
      tool_config: { function_calling_config: { mode: 'ANY' } },
      tools: [{ function_declarations: [{ name: 'clock', parameters_json_schema: { type: 'object', a_b: 1 } }] }],
    };
    expect(gemini.readRequest(body, { model: 'm' })).toMatchObject({ maxOutputTokens: 5, choices: 2 });
    const request = hub(body);
    expect(request.unknown).toEqual([]);
    expect(request).toMatchObject({
      messages: [
        { role: 'system', parts: [{ type: 'text', text: 'Be brief.' }] },
        // One alphabet of base64 is known everywhere.
        { role: 'user', parts: [{ type: 'image', source: { kind: 'data', mediaType: 'image/png', data: 'A/+A' } }] },
      ],
      maxOutputTokens: 5,
      stop: ['x'],
      choices: 2,
      toolChoice: 'required',
      tools: [{ name: 'clock', parameters: { type: 'object', a_b: 1 } }],
    });
  });

  test.each<[Json, string]>([
    [{}, '`contents` is missing or not a list'],
    [{ contents: 'hello' }, '`contents` is missing or not a list'],
    [{ contents: ['hello'] }, '`contents` must be a list of objects'],
    [{ ...asked(), generationConfig: 1 }, '`generationConfig` must be an object'],
    [{ ...asked(), generation_config: 1 }, '`generation_config` must be an object'],
    [{ ...asked(), generationConfig: {}, generation_config: {} }, 'has a field twice, by both of its names'],
    [{ ...asked(), generationConfig: { topK: 1, top_k: 2 } }, '`generationConfig` has a field twice'],
  ])('that is none names the field: %j', (body, problem) => {
    expect(problemOf(() => gemini.readRequest(body, { model: 'm' }))).toContain(problem);
  });

  test.each<[Json, string]>([
    [asked({ text: 1 }), '`contents[0].parts[0].text` must be a string'],
    [asked({ inlineData: { data: '' } }), '`contents[0].parts[0].inlineData.mimeType` is missing'],
    [asked({ functionCall: { name: 'a' } }), 'in a turn of the role `model` alone'],
    [asked({ functionResponse: { name: 'a', response: {} } }), 'answers a call that is not in the conversation'],
    [{ contents: [{ role: 'system', parts: [] }] }, '`contents[0].role` must be one of'],
    [{ contents: [], systemInstruction: 'Be brief.' }, '`systemInstruction` must be an object'],
    [{ contents: [], generationConfig: { topK: '3' } }, '`generationConfig.topK` must be a number'],
    [{ contents: [], generationConfig: { thinkingConfig: { thinkingLevel: 'A LOT' } } }, 'must be one of MINIMAL'],
    [{ contents: [], tools: [{ functionDeclarations: [{}] }] }, '`tools[0].functionDeclarations[0].name` is missing'],
  ])('with an odd field names it: %j', (body, problem) => {
    expect(problemOf(() => hub(body))).toContain(problem);
  });

  test.each<[Json, string[]]>([
    [{ safetySettings: [{ category: 'HARM_CATEGORY_HARASSMENT' }] }, ['safetySettings']],
    [{ cachedContent: 'cachedContents/1' }, ['cachedContent']],
    [{ tools: [{ googleSearch: {} }, { code_execution: {} }] }, ['tools[0].googleSearch', 'tools[1].codeExecution']],
    [
      { generationConfig: { speechConfig: {}, newOne: 1 } },
      ['generationConfig.speechConfig', 'generationConfig.newOne'],
    ],
    [{ generationConfig: { responseModalities: ['TEXT', 'IMAGE'] } }, ['generationConfig.responseModalities']],
    [{ generationConfig: { responseMimeType: 'text/x.enum' } }, ['generationConfig.responseMimeType']],
    [{ toolConfig: { retrievalConfig: {} } }, ['toolConfig.retrievalConfig']],
    [{ contents: [{ parts: [{ executableCode: { code: '1' } }] }] }, ['contents[0].parts[0].executableCode']],
    [{ contents: [{ parts: [{ text: 'a', videoMetadata: {} }] }] }, ['contents[0].parts[0].videoMetadata']],
    [{ model: 'models/m', store: true, generationConfig: { responseModalities: ['TEXT'] } }, []],
  ])('tells what has no word elsewhere: %j', (more, unknown) => {
    expect(hub({ ...asked({ text: 'hi' }), ...more }).unknown).toEqual(unknown);
  });

  test('tells a field that nobody knows, wherever it stands', () => {
    const x = { newOne: 1 };
    const call = { functionCall: { name: 'f', ...x } };
    const result = { functionResponse: { name: 'f', response: {}, parts: [{ ...x }], ...x } };
    const body = {
      systemInstruction: { parts: [{ text: 'a', ...x }], ...x },
      contents: [
        { role: 'model', parts: [call], ...x },
        { parts: [result, { inlineData: { mimeType: 'a/b', data: '', ...x } }, { fileData: { fileUri: 'u', ...x } }] },
      ],
      tools: [{ functionDeclarations: [{ name: 'f', ...x }], ...x }],
      toolConfig: { functionCallingConfig: { ...x }, ...x },
      generationConfig: { thinkingConfig: { ...x }, ...x },
      ...x,
    };
    expect(hub(body).unknown.sort()).toEqual(
      [
        'systemInstruction.parts[0]',
        'systemInstruction',
        'contents[0].parts[0].functionCall',
        'contents[0]',
        'contents[1].parts[0].functionResponse.parts[0]',
        'contents[1].parts[0].functionResponse',
        'contents[1].parts[1].inlineData',
        'contents[1].parts[2].fileData',
        'tools[0].functionDeclarations[0]',
        'tools[0]',
        'toolConfig.functionCallingConfig',
        'toolConfig',
        'generationConfig.thinkingConfig',
        'generationConfig',
      ]
        .map((path) => `${path}.newOne`)
        .concat('newOne')
        .sort(),
    );
  });

  test('has no turn for instructions that say nothing', () => {
    expect(hub({ ...asked({ text: 'a' }), systemInstruction: { parts: [] } }).messages).toHaveLength(1);
  });

  test('keeps thoughts apart that were sealed apart', () => {
    const thought = (text: string, seal: string) => ({ text, thought: true, thoughtSignature: seal });
    const contents = [{ role: 'model', parts: [thought('a', 'c2Vz'), thought('b', 'YWFh')] }];
    expect(hub({ contents }).messages[0]?.parts).toEqual([
      { type: 'reasoning', text: 'a', signature: marked('c2Vz') },
      { type: 'reasoning', text: 'b', signature: marked('YWFh') },
    ]);
  });

  test('notes what was used, and where', () => {
    const { used } = hub(requestFixture('gemini', 'text'));
    expect(Object.fromEntries(used)).toEqual({
      temperature: 'generationConfig.temperature',
      'top-p': 'generationConfig.topP',
      'top-k': 'generationConfig.topK',
      'max-tokens': 'generationConfig.maxOutputTokens',
      stop: 'generationConfig.stopSequences',
      seed: 'generationConfig.seed',
      'presence-penalty': 'generationConfig.presencePenalty',
      'frequency-penalty': 'generationConfig.frequencyPenalty',
    });
    const image = hub(requestFixture('gemini', 'image'));
    expect(image.used.get('image.data')).toBe('contents[0].parts[1].inlineData');
    expect(image.used.get('image.url')).toBe('contents[0].parts[2].fileData');
    const held = 'https://generativelanguage.googleapis.com/v1beta/files/a';
    expect([...hub(asked({ fileData: { fileUri: held, mimeType: 'application/pdf' } })).used.keys()]).toEqual([
      'file.id',
    ]);
    expect([...hub(asked({ fileData: { fileUri: 'gs://a/b.png', mimeType: 'image/png' } })).used.keys()]).toEqual([
      'image.id',
    ]);
    const more = { ...asked({ text: 'a' }), store: false, labels: { team: 'a' }, serviceTier: 'FLEX' };
    expect(Object.fromEntries(hub(more).used)).toEqual({
      store: 'store',
      metadata: 'labels',
      'service-tier': 'serviceTier',
    });
    expect(hub(more)).toMatchObject({ serviceTier: 'flex', metadata: { team: 'a' } });
  });

  test('pairs calls without ids with their results, by name and order', () => {
    const request = hub({
      contents: [
        {
          role: 'model',
          parts: [{ functionCall: { name: 'a' } }, { functionCall: { name: 'b' } }, { functionCall: { name: 'a' } }],
        },
        {
          parts: [
            { functionResponse: { name: 'b', response: { result: 'B' } } },
            { functionResponse: { name: 'a', response: { output: 'A1' } } },
            { functionResponse: { name: 'a', response: { error: 'A2' } } },
            { text: 'so?' },
          ],
        },
      ],
    });
    expect(request.messages.map(({ role, parts }) => [role, parts])).toEqual([
      [
        'assistant',
        ['a', 'b', 'a'].map((name, i) => expect.objectContaining({ id: `call_${i}`, name, arguments: '{}' })),
      ],
      [
        'tool',
        [
          { type: 'tool-result', id: 'call_1', name: 'b', parts: [{ type: 'text', text: 'B' }] },
          { type: 'tool-result', id: 'call_0', name: 'a', parts: [{ type: 'text', text: 'A1' }] },
          { type: 'tool-result', id: 'call_2', name: 'a', parts: [{ type: 'text', text: 'A2' }], isError: true },
        ],
      ],
      ['user', [{ type: 'text', text: 'so?' }]],
    ]);
    expect(request.used.get('tool-result.error')).toBe('contents[1].parts[2].functionResponse.response');
  });

  test('puts the pieces of an answer together that a client kept as turns', () => {
    const turn = (...parts: Json[]) => ({ role: 'model', parts });
    const { messages, used } = hub({
      contents: [
        turn({ text: 'Hm', thought: true }),
        turn({ text: '.', thought: true, thoughtSignature: writeSeal({ signature: 'EqQB' }) }),
        turn({ text: 'Good ' }),
        turn({ text: 'day' }, { text: '', thoughtSignature: 'c2Vz' }),
      ],
    });
    expect(messages).toEqual([
      {
        role: 'assistant',
        at: 'contents[0]',
        parts: [
          { type: 'reasoning', text: 'Hm.', signature: 'EqQB' },
          { type: 'text', text: 'Good day' },
          { type: 'reasoning', text: '', signature: marked('c2Vz') },
        ],
      },
    ]);
    expect(used.get('prefill')).toBe('contents[0]');
  });

  test.each<[Json, Partial<HubRequest>]>([
    [{ functionCallingConfig: { mode: 'NONE' } }, { toolChoice: 'none' }],
    [{ functionCallingConfig: { mode: 'ANY' } }, { toolChoice: 'required' }],
    [{ functionCallingConfig: { mode: 'ANY', allowedFunctionNames: ['b'] } }, { toolChoice: { name: 'b' } }],
    [{ functionCallingConfig: { mode: 'ANY', allowedFunctionNames: ['b', 'a'] } }, { toolChoice: 'required' }],
    [
      { functionCallingConfig: { mode: 'VALIDATED' } },
      {
        tools: [
          { name: 'a', strict: true },
          { name: 'b', strict: true },
        ],
      },
    ],
  ])('chooses tools: %j', (toolConfig, expected) => {
    const tools = [{ functionDeclarations: [{ name: 'a' }, { name: 'b' }] }];
    expect(hub({ ...asked(), tools, toolConfig })).toMatchObject(expected);
  });

  test('needs no word for tools that may be used', () => {
    const toolConfig = { functionCallingConfig: { mode: 'AUTO' } };
    expect(hub({ ...asked(), toolConfig })).toMatchObject({ used: new Map(), unknown: [] });
    expect(hub({ ...asked(), toolConfig })).not.toHaveProperty('toolChoice');
  });

  test.each<[Json, HubRequest['reasoning']]>([
    [{ thinkingBudget: 0 }, { off: true }],
    [{ thinkingBudget: -1 }, undefined],
    [
      { thinkingBudget: 99, includeThoughts: true },
      { budget: 99, shown: true },
    ],
    [{ thinkingLevel: 'HIGH' }, { effort: 'high' }],
    [{ includeThoughts: false }, { shown: false }],
  ])('says how much to think: %j', (thinkingConfig, reasoning) => {
    expect(hub({ ...asked(), generationConfig: { thinkingConfig } }).reasoning).toEqual(reasoning);
  });

  test.each(fixtureNames('requests', 'gemini'))('goes to Gemini as it came, through the hub: %s', (name) => {
    const body = requestFixture('gemini', name);
    const once = hub(body);
    const again = hub(plain(writeRequest(once, { model: 'gemini-2.5-flash', stream: false })));
    expect(once.unknown).toEqual([]);
    const { used, messages, reasoning, ...rest } = once;
    const { used: _used, messages: said, reasoning: wished, ...same } = again;
    expect(same).toEqual(rest);
    // A level is a budget for this model, and a file’s name has no place.
    expect(wished === undefined).toBe(reasoning === undefined);
    const bare = (list: HubRequest['messages']) => plain(list.map(({ role, parts }) => [role, parts]));
    if (name === 'file') expect(used.has('file.data')).toBe(true);
    else if (name !== 'parallel-tools' && name !== 'tool-result') expect(bare(said)).toEqual(bare(messages));
  });

  test('of any shape is read, or refused by name', () => {
    const names = [
      'contents',
      'parts',
      'text',
      'role',
      'functionCall',
      'functionResponse',
      'inlineData',
      'inline_data',
    ];
    const more = ['tools', 'functionDeclarations', 'name', 'args', 'response', 'generationConfig', 'responseSchema'];
    const odd = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 6 },
        fc.constantFrom(null, true, -1, 1e300, '', 'model', 'a'),
        fc.array(tie('value'), { maxLength: 3 }),
        fc.dictionary(fc.constantFrom(...names, ...more, '__proto__', 'type', 'properties'), tie('value'), {
          maxKeys: 4,
        }),
      ),
    })).value;
    fc.assert(
      fc.property(odd, odd, odd, (contents, tools, generationConfig) => {
        const body = plain({ contents, tools, generationConfig, systemInstruction: tools });
        gemini.requestSegments(body);
        orGatewayError(() => gemini.readRequest(body, { model: 'm' }));
        orGatewayError(() => hub(body));
        for (const dialect of [geminiCountTokens, geminiEmbedding, geminiEmbeddings]) {
          const other = plain({ generateContentRequest: contents, content: contents, requests: tools });
          orGatewayError(() => {
            dialect.readRequest(other, { model: 'm' });
            dialect.requestSegments(other);
            dialect.toHub(other);
          });
        }
      }),
      { numRuns: 1_000 },
    );
  });
});

describe('Google’s schemas', () => {
  test('become JSON Schema', () => {
    const schema = {
      type: 'OBJECT',
      properties: {
        min_items: { type: 'STRING', format: 'enum', enum: ['a'], nullable: true },
        list: { type: 'ARRAY', items: { type: 'INTEGER', format: 'int32' }, min_items: '1', maxItems: 3 },
        any: { any_of: [{ type: 'NULL' }, { type: 'NUMBER' }], nullable: true },
        type: { type: 'TYPE_UNSPECIFIED', example: 'x' },
      },
      propertyOrdering: ['list'],
      required: ['list'],
    };
    expect(toJsonSchema(schema)).toEqual({
      type: 'object',
      properties: {
        min_items: { type: ['string', 'null'], enum: ['a', null] },
        list: { type: 'array', items: { type: 'integer', format: 'int32' }, minItems: 1, maxItems: 3 },
        any: { anyOf: [{ type: 'null' }, { type: 'number' }, { type: 'null' }] },
        type: { examples: ['x'] },
      },
      required: ['list'],
    });
  });

  test('keep a property by any name', () => {
    const properties = JSON.parse('{"__proto__":{"type":"STRING"}}') as Json;
    expect(JSON.stringify(toJsonSchema({ properties }))).toBe('{"properties":{"__proto__":{"type":"string"}}}');
  });
});

describe('seals', () => {
  test('of any vendor come back as they went out, however a client spells base64', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), fc.boolean(), (text, isRedacted) => {
        const sealed = isRedacted ? { redacted: text } : { signature: text };
        const written = writeSeal(sealed)!;
        expect(written).toMatch(/^[A-Za-z0-9+/]*={0,2}$/);
        expect(readSeal(written)).toEqual(sealed);
        expect(readSeal(written.replaceAll('+', '-').replaceAll('/', '_'))).toEqual(sealed);
      }),
    );
  });

  test('of Gemini’s own stay as they are', () => {
    expect(writeSeal(readSeal('CiQBcs=='))).toBe('CiQBcs==');
    expect(writeSeal({})).toBeUndefined();
  });
});

describe('an answer', () => {
  const reply = (parts: ReplyPart[], more: Partial<HubReply['choices'][0]> = {}): HubReply => ({
    choices: [{ index: 0, parts, finish: 'stop', ...more }],
  });
  const first = (body: Json) => (body.candidates as Json[])[0]!;

  test('has all that the hub has', () => {
    const parts: ReplyPart[] = [
      { type: 'reasoning', text: 'Hm.', signature: 'EqQB' },
      { type: 'text', text: 'Hi' },
      { type: 'tool-call', id: 'c1', name: 'clock', arguments: '', signature: 'c2Vz' },
      { type: 'media', mediaType: 'image/png', data: 'AAAA' },
    ];
    const usage = { inputTokens: 5, outputTokens: 9, cachedInputTokens: 2, reasoningTokens: 4 };
    const body = gemini.fromHub({ ...reply(parts, { finish: 'tool-calls' }), id: 'r1', created: 0, usage }, 'asked');
    expect(body).toEqual({
      candidates: [
        {
          content: {
            role: 'model',
            parts: [
              { text: 'Hm.', thought: true, thoughtSignature: writeSeal({ signature: 'EqQB' }) },
              { text: 'Hi' },
              { functionCall: { id: 'c1', name: 'clock', args: {} }, thoughtSignature: 'c2Vz' },
              { inlineData: { mimeType: 'image/png', data: 'AAAA' } },
            ],
          },
          finishReason: 'STOP',
          index: 0,
        },
      ],
      usageMetadata: {
        promptTokenCount: 5,
        cachedContentTokenCount: 2,
        candidatesTokenCount: 5,
        thoughtsTokenCount: 4,
        totalTokenCount: 14,
      },
      modelVersion: 'asked',
      createTime: '1970-01-01T00:00:00.000Z',
      responseId: 'r1',
    });
  });

  test('of no time that there is has none', () => {
    expect(gemini.fromHub({ ...reply([]), created: 1e300 }, 'm')).not.toHaveProperty('createTime');
  });

  test('that is a refusal says so in its reason', () => {
    expect(first(gemini.fromHub(reply([{ type: 'refusal', text: 'No.' }]), 'm'))).toMatchObject({
      content: { parts: [{ text: 'No.' }] },
      finishReason: 'SAFETY',
    });
  });

  test('tells its sources with places in bytes', () => {
    const citations = [
      { url: 'https://example.com', title: 'E', start: 3, end: 4 },
      { quote: 'said', title: 'Doc' },
    ];
    expect(
      first(
        gemini.fromHub(
          reply([
            { type: 'text', text: 'wör', citations: [] },
            { type: 'text', text: 'äbcö', citations },
          ]),
          'm',
        ),
      ),
    ).toMatchObject({
      groundingMetadata: {
        groundingChunks: [
          { web: { uri: 'https://example.com', title: 'E' } },
          { retrievedContext: { title: 'Doc', text: 'said' } },
        ],
        groundingSupports: [
          { segment: { partIndex: 1, startIndex: 4, endIndex: 6, text: 'ö' }, groundingChunkIndices: [0] },
          { segment: { partIndex: 1, startIndex: 0, endIndex: 6, text: 'äbcö' }, groundingChunkIndices: [1] },
        ],
      },
    });
  });

  test('whose length cut off a call has none; one that is broken otherwise is no answer', () => {
    const half: ReplyPart = { type: 'tool-call', id: 'c', name: 'clock', arguments: '{"a":' };
    expect(first(gemini.fromHub(reply([half], { finish: 'length' }), 'm'))).toMatchObject({
      content: { parts: [] },
      finishReason: 'MAX_TOKENS',
    });
    expect(() => gemini.fromHub(reply([half]), 'm')).toThrow(GatewayError);
  });

  test.each(['text', 'tools', 'parallel-tools', 'reasoning', 'logprobs', 'choices', 'length', 'cache-usage'])(
    'of Gemini is the same through the hub: %s',
    (name) => {
      const once = readReply(replyFixture('gemini', name));
      expect(readReply(plain(gemini.fromHub(once, 'm')))).toEqual(once);
    },
  );
});

describe('a stream', () => {
  const chunksOf = (frames: string): Json[] =>
    frames.split('\n\n').flatMap((frame) => (frame === '' ? [] : [JSON.parse(frame.slice('data: '.length)) as Json]));
  const written = (events: HubEvent[]): string => {
    const writer = gemini.openWriter({ model: 'asked', wantsUsage: true });
    return events.map((event) => writer.write(event)).join('');
  };

  test('has every piece of text as an event of its own, and its reasons and its usage in the last', () => {
    const chunks = chunksOf(
      written([
        { type: 'start', id: 'r1', model: 'm1', created: 0 },
        { type: 'text', choice: 0, text: 'Good ' },
        { type: 'text', choice: 0, text: 'day' },
        { type: 'finish', choice: 0, finish: 'stop' },
        { type: 'usage', usage: { inputTokens: 1, outputTokens: 2 } },
        { type: 'end' },
      ]),
    );
    const head = { modelVersion: 'm1', createTime: '1970-01-01T00:00:00.000Z', responseId: 'r1' };
    expect(chunks).toEqual([
      { candidates: [{ content: { parts: [{ text: 'Good ' }], role: 'model' }, index: 0 }], ...head },
      { candidates: [{ content: { parts: [{ text: 'day' }], role: 'model' }, index: 0 }], ...head },
      {
        candidates: [{ content: { parts: [{ text: '' }], role: 'model' }, finishReason: 'STOP', index: 0 }],
        usageMetadata: { promptTokenCount: 1, candidatesTokenCount: 2, totalTokenCount: 3 },
        ...head,
      },
    ]);
  });

  test('gathers a call until it is whole', () => {
    const begun: HubEvent[] = [
      { type: 'tool-call', choice: 0, call: 0, id: 'a', name: 'clock' },
      { type: 'tool-arguments', choice: 0, call: 0, text: '{"a":' },
      { type: 'part-end', choice: 0 },
    ];
    expect(written(begun)).toBe('');
    const rest: HubEvent[] = [
      { type: 'tool-arguments', choice: 0, call: 0, text: '"}"}' },
      { type: 'part-end', choice: 0 },
    ];
    expect(chunksOf(written([...begun, ...rest]))).toMatchObject([
      { candidates: [{ content: { parts: [{ functionCall: { id: 'a', name: 'clock', args: { a: '}' } } }] } }] },
    ]);
  });

  test('does not gather without bound', () => {
    const piece: HubEvent = { type: 'tool-arguments', choice: 0, call: 0, text: ' '.repeat(1024 * 1024) };
    const call: HubEvent = { type: 'tool-call', choice: 0, call: 0, id: 'a', name: 'clock' };
    expect(() => written([call, ...Array<HubEvent>(9).fill(piece)])).toThrow(GatewayError);
  });

  test('goes on under one name when another provider goes on with it', () => {
    const chunks = chunksOf(
      written([
        { type: 'start', id: 'r1', model: 'm1' },
        { type: 'text', choice: 0, text: 'a' },
        { type: 'start', id: 'r2', model: 'm2' },
        { type: 'text', choice: 0, text: 'b' },
      ]),
    );
    expect(chunks.map(({ responseId, modelVersion }) => [responseId, modelVersion])).toEqual([
      ['r1', 'm1'],
      ['r1', 'm1'],
    ]);
  });

  test('that fails ends in an error of Google’s shape', () => {
    const error = new GatewayError('upstream_overloaded', 'Try again.');
    expect(chunksOf(written([{ type: 'error', error }]))).toEqual([
      {
        error: {
          code: 503,
          message: 'Try again.',
          status: 'UNAVAILABLE',
          details: [
            {
              '@type': 'type.googleapis.com/google.rpc.ErrorInfo',
              reason: 'upstream_overloaded',
              domain: 'wardgate',
            },
          ],
        },
      },
    ]);
  });

  test('says what the events said, whatever they were', () => {
    fc.assert(
      fc.property(hubStream, (events) => {
        const read = saidBy(readPieces(new GeminiReader('g'), [Buffer.from(written(events))]));
        const said = saidBy(events);
        const byId = (calls: typeof said.calls) => calls.toSorted((a, b) => a.id.localeCompare(b.id));
        expect({ ...read, calls: byId(read.calls) }).toEqual({
          ...said,
          // A refusal is a text here.
          calls: byId(said.calls),
        });
      }),
    );
  });

  test.each(fixtureNames('streams', 'gemini').filter((name) => name !== 'error'))(
    'of Gemini is the same through the hub: %s',
    (name) => {
      const once = readPieces(new GeminiReader('g'), [streamFixture('gemini', name)]);
      const again = readPieces(new GeminiReader('g'), [Buffer.from(written(once))]);
      expect(saidBy(again)).toEqual(saidBy(once));
    },
  );
});

// --- Guards -------------------------------------------------------------------------------------------------------

/** Every text of a value, with the numbers that may be a card's. */
function stringsIn(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(stringsIn) : [];
}

describe('a guard', () => {
  test('sees every text of a request with its place, and may write it', () => {
    const body: Json = {
      system_instruction: { parts: [{ text: 'sys' }] },
      contents: [
        { role: 'user', parts: [{ text: 'old' }] },
        {
          role: 'model',
          parts: [
            { text: 'thought', thought: true },
            { functionCall: { name: 'f', args: { a: ['arg'], card: 4111111111111111 } }, thoughtSignature: 'c2Vz' },
          ],
        },
        { role: 'user', parts: [{ functionResponse: { name: 'f', response: { output: 'result' } } }] },
        {
          parts: [
            { text: 'new' },
            { inline_data: { mime_type: 'image/png', data: 'AAAA', displayName: 'a name' } },
            { odd: { deep: 'odd' } },
            { thoughtSignature: 'not base64!' },
          ],
        },
      ],
      tools: [
        { functionDeclarations: [{ name: 'f', description: 'described', parameters: { description: 'a parameter' } }] },
      ],
      generationConfig: { responseSchema: { description: 'a schema' }, stopSequences: ['unread'] },
      unknownField: 'unknown',
      safetySettings: [{ category: 'HARM' }],
    };
    const segments = gemini.requestSegments(body);
    expect(segments.map(({ text, role, channel, old = false }) => [text, role, channel, old])).toEqual([
      ['sys', 'system', 'text', false],
      ['old', 'user', 'text', true],
      ['thought', 'assistant', 'reasoning', true],
      ['arg', 'assistant', 'text', true],
      ['4111111111111111', 'assistant', 'text', true],
      ['result', 'tool', 'tool-result', true],
      ['new', 'user', 'text', false],
      ['AAAA', 'user', 'media', false],
      ['a name', 'user', 'text', false],
      ['odd', 'user', 'text', false],
      ['not base64!', 'user', 'text', false],
      ['f', 'system', 'tool-definition', false],
      ['described', 'system', 'tool-definition', false],
      ['a parameter', 'system', 'tool-definition', false],
      ['a schema', 'system', 'tool-definition', false],
      ['unknown', 'system', 'text', false],
    ]);
    gemini.writeSegments(body, new Map(segments.map(({ id }) => [id, '*'])));
    expect(new Set(gemini.requestSegments(body).map(({ text }) => text))).toEqual(new Set(['*']));
  });

  test('takes what came after the newest turn of the user for new', () => {
    const contents = [
      { parts: [{ text: 'before' }] },
      { role: 'user', parts: [{ text: 'newest' }] },
      { role: 'model', parts: [{ functionCall: { name: 'f', args: { a: 'called' } } }] },
      { role: 'user', parts: [{ functionResponse: { name: 'f', response: { a: 'answered' } } }] },
    ];
    const segments = gemini.requestSegments({ contents });
    expect(segments.filter(({ old }) => old).map(({ text }) => text)).toEqual(['before']);
  });

  test('sees digits in the place of a seal', () => {
    const parts = [{ text: 'a', thoughtSignature: '4111111111111111' }];
    expect(gemini.requestSegments({ contents: [{ parts }] }).map(({ text }) => text)).toEqual([
      'a',
      '4111111111111111',
    ]);
  });

  test('sees every text of an answer, and tools that it asks for', () => {
    const body = replyFixture('gemini', 'citations');
    const texts = gemini.replySegments(body).map(({ text }) => text);
    expect(texts).toEqual(
      expect.arrayContaining([
        'Zürich is the largest city of Switzerland.',
        'https://example.com/zurich',
        'largest city',
      ]),
    );
    expect(gemini.replyTools(replyFixture('gemini', 'parallel-tools')).map(({ name }) => name)).toEqual([
      'get_weather',
      'clock',
    ]);
    const probable = replyFixture('gemini', 'logprobs');
    gemini.writeSegments(probable, new Map([['/candidates/0/content/parts/0/text', '*']]));
    expect(JSON.stringify(probable)).not.toContain('Good');
    expect(() => gemini.replySegments({ candidates: 'text' })).toThrow(GatewayError);
  });

  test('sees every text of an event', () => {
    const chunk = {
      candidates: [
        {
          content: {
            parts: [
              { text: 'said' },
              { text: 'thought', thought: true },
              { functionCall: { name: 'f', args: { a: 'arg', card: 4111111111111111 } }, thoughtSignature: 'c2Vz' },
              { executableCode: { code: 'code' } },
              { inlineData: { mimeType: 'image/png', data: 'AAAA' } },
              'bare',
            ],
            role: 'model',
            more: 'beside',
          },
          finishMessage: 'message',
          groundingMetadata: { webSearchQueries: ['query'] },
          index: 1,
        },
        'odd',
      ],
      promptFeedback: { blockReasonMessage: 'blocked' },
      modelVersion: 'm',
    };
    const event = gemini.readEvent(JSON.stringify(chunk));
    expect(event.parts.map(({ channel, text, isWhole }) => [channel, text, isWhole])).toEqual([
      ['1/extra', 'beside', true],
      ['1/text', 'said', false],
      ['1/reasoning', 'thought', false],
      ['1/tool-arguments/custom', 'arg', true],
      ['1/tool-arguments/custom', '4111111111111111', true],
      ['1/extra', 'code', true],
      ['1/extra', 'image/png', true],
      ['1/extra', 'bare', true],
      ['1/extra', 'message', true],
      ['1/extra', 'query', true],
      ['0/extra', 'odd', true],
      ['0/extra', 'blocked', true],
    ]);
    for (const part of event.parts) part.set('*');
    expect(stringsIn(event.body).filter((text) => !['*', 'm', 'f', 'model', 'c2Vz', 'AAAA'].includes(text))).toEqual(
      [],
    );
    expect(event.tools).toEqual([{ call: '1/tool-arguments', id: 'f', name: 'f' }]);
  });

  test('follows arguments that come in pieces', () => {
    const piece = (call: Json) =>
      gemini.readEvent(JSON.stringify({ candidates: [{ content: { parts: [{ functionCall: call }] } }] }));
    const first = piece({ name: 'f', partialArgs: [{ jsonPath: '$.a', stringValue: 'bo' }], willContinue: true });
    const second = piece({ partialArgs: [{ jsonPath: '$.a', stringValue: 'b' }], willContinue: true });
    expect([first, second].flatMap(({ parts }) => parts).map(({ channel, text }) => [channel, text])).toEqual([
      ['0/piece/$.a', 'bo'],
      ['0/piece/$.a', 'b'],
    ]);
    expect([first.tools, second.tools, piece({}).tools]).toEqual([
      [{ call: '0/tool-arguments', id: 'f', name: 'f' }],
      [{ call: '0/tool-arguments', name: undefined }],
      [],
    ]);
    const held = gemini.readEvent(JSON.stringify(gemini.textEvent({}, '0/piece/$.a', 'held')));
    expect(held.parts).toMatchObject([{ channel: '0/piece/$.a', text: 'held' }]);
  });

  test.each(['0/text', '1/reasoning'])('may have what it held said later: %s', (channel) => {
    const like = { responseId: 'r', modelVersion: 'm', candidates: [], usageMetadata: {} };
    const event = gemini.readEvent(JSON.stringify(gemini.textEvent(like, channel, 'held')));
    expect(event.parts).toMatchObject([{ channel, text: 'held' }]);
    expect(event).toMatchObject({ bare: true, model: 'm', finished: [], body: { responseId: 'r' } });
  });

  test('is told what an event is', () => {
    const read = (body: Json): StreamEvent => gemini.readEvent(JSON.stringify(body));
    const events = streamFixture('gemini', 'text').toString().split('\r\n\r\n').slice(0, -1);
    const [first, , last] = events.map((frame) => gemini.readEvent(frame.slice('data: '.length)));
    expect(first).toMatchObject({
      finished: [],
      usage: { inputTokens: 5, outputTokens: 1 },
      bare: false,
      error: undefined,
    });
    expect(last).toMatchObject({ finished: ['0'], usage: { outputTokens: 4 }, model: 'gemini-2.5-flash' });
    expect(read({ promptFeedback: { blockReason: 'OTHER' } }).finished).toEqual(['0']);
    expect(read({ error: { message: 'No.' } }).error).toBe('No.');
    expect(() => gemini.readEvent('[]')).toThrow(SyntaxError);
    expect(() => read({ candidates: {} })).toThrow(GatewayError);
  });

  test('never meets log probabilities of text that it changed, or could not see', () => {
    const frames = streamFixture('gemini', 'logprobs').toString().split('\r\n\r\n');
    const event = gemini.readEvent(frames[0]!.slice('data: '.length));
    expect(JSON.stringify(event.body)).toContain('logprobsResult');
    event.parts[0]!.set('*');
    expect(JSON.stringify(event.body)).not.toContain('logprobsResult');
    const alone = gemini.readEvent('{"candidates":[{"logprobsResult":{"chosenCandidates":[{"token":"x"}]}}]}');
    expect([alone.isTrimmed, JSON.stringify(alone.body)]).toEqual([true, '{"candidates":[{}]}']);
  });

  test('may leave unread what is nothing but text', () => {
    const chunk = (more: Json) =>
      `data: ${JSON.stringify({ candidates: [{ content: { parts: [{ text: '"error": "finishReason"' }] }, ...more }] })}\n\n`;
    expect(gemini.skimEvents(chunk({}))).toBe('plain');
    expect(gemini.skimEvents(chunk({ finishReason: 'STOP' }))).toBe('read');
    for (const name of fixtureNames('streams', 'gemini'))
      expect(gemini.skimEvents(streamFixture('gemini', name).toString('latin1'))).toBe('read');
  });

  test('of usage alone need not parse an answer', () => {
    const skim = (body: unknown) => gemini.skimReply(Buffer.from(JSON.stringify(body, null, 2)).toString('latin1'));
    for (const name of ['text', 'reasoning', 'cache-usage', 'citations']) {
      const body = replyFixture('gemini', name);
      expect(skim(body)).toEqual(gemini.replyFacts(body));
    }
    // Its arguments could have a field of that name.
    expect(skim(replyFixture('gemini', 'tools'))).toBeUndefined();
    expect(
      skim({ candidates: [{ content: { parts: [{ text: '"usageMetadata": {"promptTokenCount":9}' }] } }] }),
    ).toBeUndefined();
    expect(gemini.skimReply('[]')).toBeUndefined();
  });
});

describe('a quota', () => {
  test('bounds the answer where the client did, or could have', () => {
    const bounded = (body: Json) => {
      gemini.limitOutput(body, 10, 'max_tokens');
      return body;
    };
    expect(bounded({})).toEqual({ generationConfig: { maxOutputTokens: 10 } });
    expect(bounded({ generation_config: { max_output_tokens: 20, topK: 1 } })).toEqual({
      generation_config: { max_output_tokens: 10, topK: 1 },
    });
    expect(bounded({ generationConfig: { maxOutputTokens: 5 } })).toEqual({ generationConfig: { maxOutputTokens: 5 } });
  });

  test('says that it cut an answer', () => {
    const body = replyFixture('gemini', 'length');
    expect(gemini.markLimited(body)).toBe(true);
    expect(JSON.stringify(body)).toContain('your quota is used up');
    expect(gemini.markLimited(replyFixture('gemini', 'text'))).toBe(false);
    const end = gemini.cutShort({ responseId: 'r' }, ['0', '1'], { inputTokens: 1, outputTokens: 2 });
    expect(gemini.readEvent(end.slice('data: '.length))).toMatchObject({
      finished: ['0', '1'],
      usage: { inputTokens: 1, outputTokens: 2 },
      body: { responseId: 'r' },
    });
  });
});

describe('an error', () => {
  test.each([
    [400, 'invalid_request', 'INVALID_ARGUMENT'],
    [401, 'unauthenticated', 'UNAUTHENTICATED'],
    [403, 'forbidden', 'PERMISSION_DENIED'],
    [404, 'model_not_found', 'NOT_FOUND'],
    [413, 'body_too_large', 'INVALID_ARGUMENT'],
    [429, 'rate_limited', 'RESOURCE_EXHAUSTED'],
    [500, 'internal', 'INTERNAL'],
    [503, 'draining', 'UNAVAILABLE'],
    [400, 'FAILED_PRECONDITION', 'FAILED_PRECONDITION'],
  ])('with %i %s is %s', (status, code, word) => {
    const { error } = JSON.parse(gemini.errorBody({ status, code, type: 't', message: 'Why.' })) as { error: Json };
    expect(error).toMatchObject({ code: status, status: word, message: 'Why.', details: [{ reason: code }] });
  });

  test('names the field', () => {
    const shape = { status: 400, code: 'invalid_request', type: 't', message: 'Why.', param: 'contents' };
    expect(gemini.errorBody(shape)).toContain('"fieldViolations":[{"field":"contents","description":"Why."}]');
  });
});

describe('counting', () => {
  const inner = {
    model: 'models/a',
    contents: [{ parts: [{ text: 'b' }] }],
    systemInstruction: { parts: [{ text: 'c' }] },
  };

  test.each([
    ['a whole request inside', { generateContentRequest: inner }],
    ['a request’s fields', inner],
  ])('takes %s', (_, body) => {
    expect(findCall(`${PATH}:countTokens`, '')).toMatchObject({ dialect: { name: 'gemini-count-tokens' } });
    expect(geminiCountTokens.readRequest(body, { model: 'a' })).toMatchObject({ model: 'a', stream: false });
    expect(() => geminiCountTokens.readRequest(body, { model: 'b' })).toThrow('must be the model that the path names');
    expect(geminiCountTokens.toHub(body).messages.map(({ role }) => role)).toEqual(['system', 'user']);
    const segments = geminiCountTokens.requestSegments(body);
    expect(segments.map(({ text }) => text)).toEqual(['b', 'c']);
    const copy = plain(body);
    geminiCountTokens.writeSegments(copy, new Map(segments.map(({ id }) => [id, '*'])));
    geminiCountTokens.rename?.(copy, 'up');
    expect(stringsIn(copy).sort()).toEqual(['*', '*', 'models/up']);
    expect(geminiCountTokens.fromHub({ inputTokens: 7 })).toEqual({ totalTokens: 7 });
  });
});

describe('vectors', () => {
  test('are asked for by one text, or by many', () => {
    const one = { content: { parts: [{ text: 'a' }, { text: 'b' }] }, output_dimensionality: 3 };
    expect(geminiEmbedding.toHub(one)).toMatchObject({ input: ['ab'], dimensions: 3, unknown: [] });
    expect(geminiEmbedding.requestSegments(one).map(({ text }) => text)).toEqual(['a', 'b']);
    const many = {
      requests: [
        { model: 'models/x', content: { parts: [{ text: 'a' }] } },
        { content: { parts: [{ text: 'b' }] }, taskType: 'CLUSTERING', title: 'T' },
      ],
    };
    expect(geminiEmbeddings.toHub(many)).toMatchObject({
      input: ['a', 'b'],
      unknown: ['requests[1].taskType', 'requests[1].title'],
    });
    expect(geminiEmbeddings.requestSegments(many).map(({ text, path }) => [path, text])).toEqual([
      ['/requests/0/content/parts/0/text', 'a'],
      ['/requests/1/content/parts/0/text', 'b'],
      ['/requests/1/title', 'T'],
    ]);
    geminiEmbeddings.rename?.(many, 'up');
    expect(many.requests[0]?.model).toBe('models/up');
    expect(geminiEmbedding.fromHub({ vectors: [[1]] }, 'm', {})).toEqual({ embedding: { values: [1] } });
    const usage = { inputTokens: 3, outputTokens: 0 };
    expect(geminiEmbeddings.fromHub({ vectors: [[1], [2]], usage }, 'm', {})).toMatchObject({
      embeddings: [{ values: [1] }, { values: [2] }],
      usageMetadata: { promptTokenCount: 3 },
    });
  });

  test.each<[Json, string]>([
    [{}, '`requests` is missing or empty'],
    [{ requests: [{}] }, '`requests[0].content.parts` is missing or empty'],
    [{ requests: [1] }, '`requests[0]` must be an object'],
    [{ requests: [{ content: { parts: [{ text: 1 }] } }] }, '`requests[0].content.parts[0].text` must be a string'],
  ])('want texts: %j', (body, problem) => {
    expect(problemOf(() => geminiEmbeddings.readRequest(body, { model: 'm' }))).toContain(problem);
  });

  test('of one answer have one length', () => {
    const request = (outputDimensionality?: number) => ({ content: { parts: [{ text: 'a' }] }, outputDimensionality });
    const problem = problemOf(() => geminiEmbeddings.toHub({ requests: [request(), request(3)] }));
    expect(problem).toContain('`requests[1].outputDimensionality` must be the same for all requests');
  });
});

describe('what a whole answer and its stream say through the hub', () => {
  test.each(['text', 'tools', 'parallel-tools', 'reasoning', 'length', 'cache-usage'])('is the same: %s', (name) => {
    const whole = readReply(plain(gemini.fromHub(readReply(replyFixture('gemini', name)), 'm')));
    const writer = gemini.openWriter({ model: 'm', wantsUsage: true });
    const events = readPieces(new GeminiReader('g'), [streamFixture('gemini', name)]);
    const frames = events.map((event) => writer.write(event)).join('');
    expect(saidBy(readPieces(new GeminiReader('g'), [Buffer.from(frames)]))).toEqual(saidByReply(whole));
  });
});
