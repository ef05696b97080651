/** What goes to Gemini, and what its answers, streams and errors mean. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { marked } from '../../../gateway/dialects/gemini/seals.ts';
import { GatewayError } from '../../../gateway/errors.ts';
import type { HubEvent } from '../../../gateway/hub/reply.ts';
import type { HubPart, HubRequest, ReasoningWish } from '../../../gateway/hub/request.ts';
import { readCount } from '../../../gateway/providers/gemini/count.ts';
import { readEmbeddings } from '../../../gateway/providers/gemini/embeddings.ts';
import { gemini } from '../../../gateway/providers/gemini/provider.ts';
import { readReply } from '../../../gateway/providers/gemini/reply.ts';
import type { ChatEndpoint, Provider } from '../../../gateway/providers/provider.ts';
import { cutAt, cutBySizes, cutOffsets, pieceSizes } from '../../support/cuts.ts';
import { fixtureNames, replyFixture, streamFixture } from '../../support/fixture.ts';
import { errorOf, hubRequest, orGatewayError, readPieces, says } from '../../support/hub.ts';
import { saidBy, saidByReply } from '../../support/hub-events.ts';

const OLD = 'gemini-2.5-flash';
const NEW = 'gemini-3-pro-preview';
const COMMON = {
  kind: 'gemini',
  key: 'AIza-key',
  timeouts: { connect: 1, firstByte: 1, idle: 1 },
  streamUsage: true,
  unmapped: 'refuse',
};

const provider = made();
const chat = provider.endpoints.chat[0] as ChatEndpoint;

function made(settings: Json = {}): Provider {
  return gemini.make('google', { ...COMMON, ...settings } as never);
}

/** The request as it goes out, without what JSON leaves out. */
function written(more: Partial<HubRequest> = {}, model = OLD): Json {
  return JSON.parse(JSON.stringify(chat.write(hubRequest(more), { model, stream: false })));
}

function contentsOf(messages: HubRequest['messages'], model = OLD): unknown {
  return written({ messages }, model).contents;
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

const data = (mediaType: string) => ({ kind: 'data' as const, mediaType, data: 'AAAA' });
const call = (id: string, name: string, more: Json = {}): HubPart => ({
  type: 'tool-call',
  id,
  name,
  arguments: '{"a":1}',
  ...more,
});
const result = (id: string, text: string, more: Json = {}): HubPart => ({
  type: 'tool-result',
  id,
  parts: [{ type: 'text', text }],
  ...more,
});

describe('the address', () => {
  const path = (model: string, stream = false) => chat.path({ model, stream });

  test('is the model’s, and streams are asked for as events', () => {
    expect(provider.origin + path(OLD)).toBe(
      'https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent',
    );
    expect(path(OLD, true)).toBe('/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse');
    expect(path('tunedModels/mine')).toBe('/v1beta/tunedModels/mine:generateContent');
    expect(path('a?b#c')).toBe('/v1beta/models/a%3Fb%23c:generateContent');
    expect(
      made({ baseUrl: 'http://127.0.0.1:9/x/v1/' }).endpoints.count?.[0]?.path({ model: 'm', stream: false }),
    ).toBe('/x/v1/models/m:countTokens');
  });

  test('holds no key: it stands in a header', async () => {
    const signed = await provider.sign({ method: 'POST', path: path(OLD, true), headers: [], body: '{}' });
    expect(signed.path).not.toContain('key');
    expect(signed.headers.join(' ')).toContain('x-goog-api-key AIza-key');
    expect(signed.headers).toContain('application/json');
  });
});

describe('a request', () => {
  test('says its turns by Google’s roles, and the system’s words apart', () => {
    const messages = [says('system', 'Be brief.'), says('user', 'hello'), says('assistant', 'hi'), says('user', 'so?')];
    expect(written({ messages: [...messages, says('system', 'In verse.')] })).toEqual({
      systemInstruction: { parts: [{ text: 'Be brief.' }, { text: 'In verse.' }] },
      contents: [
        { role: 'user', parts: [{ text: 'hello' }] },
        { role: 'model', parts: [{ text: 'hi' }] },
        { role: 'user', parts: [{ text: 'so?' }] },
      ],
    });
  });

  test('with the system’s words alone is refused by name', () => {
    expect(refused({ messages: [says('system', 'Be brief.')] }).message).toContain('a user’s turn is missing');
  });

  test('bounds and steers the answer', () => {
    const body = written({
      maxOutputTokens: 9,
      temperature: 0.5,
      topP: 0.9,
      topK: 3,
      stop: ['END'],
      seed: 7,
      choices: 2,
      presencePenalty: 0.1,
      frequencyPenalty: 0.2,
      logprobs: true,
      topLogprobs: 2,
    });
    expect(body.generationConfig).toEqual({
      maxOutputTokens: 9,
      temperature: 0.5,
      topP: 0.9,
      topK: 3,
      stopSequences: ['END'],
      seed: 7,
      candidateCount: 2,
      presencePenalty: 0.1,
      frequencyPenalty: 0.2,
      responseLogprobs: true,
      logprobs: 2,
    });
  });

  test('wants JSON, by a schema where there is one', () => {
    const schema = { type: 'object', properties: { a: { type: ['string', 'null'] } } };
    expect(written({ format: { type: 'json' } }).generationConfig).toEqual({ responseMimeType: 'application/json' });
    expect(written({ format: { type: 'json-schema', schema } }).generationConfig).toEqual({
      responseMimeType: 'application/json',
      responseJsonSchema: schema,
    });
  });

  test('sends media as it is given, and a URL for Google to fetch', () => {
    const parts: HubPart[] = [
      { type: 'image', source: data('image/png'), detail: 'low' },
      { type: 'file', source: { kind: 'text', mediaType: 'text/plain', text: 'é' } },
      { type: 'image', source: { kind: 'url', url: 'https://example.com/a.JPG?x=1' } },
      { type: 'video', source: { kind: 'url', url: 'https://example.com/watch', mediaType: 'video/mp4' } },
      { type: 'audio', source: data('audio/wav') },
    ];
    expect(contentsOf([says('user', ...parts)])).toEqual([
      {
        role: 'user',
        parts: [
          { inlineData: { mimeType: 'image/png', data: 'AAAA' } },
          { inlineData: { mimeType: 'text/plain', data: 'w6k=' } },
          { fileData: { mimeType: 'image/jpeg', fileUri: 'https://example.com/a.JPG?x=1' } },
          { fileData: { mimeType: 'video/mp4', fileUri: 'https://example.com/watch' } },
          { inlineData: { mimeType: 'audio/wav', data: 'AAAA' } },
        ],
      },
    ]);
    const held: HubPart = { type: 'file', source: { kind: 'id', id: 'file-1' } };
    expect(refused({ messages: [says('user', held)] }).details.param).toBe('messages[0]');
  });

  test('names its tier in Google’s words', () => {
    const tier = (serviceTier: string) => written({ serviceTier }).serviceTier;
    expect([tier('auto'), tier('default'), tier('flex'), tier('priority')]).toEqual([
      undefined,
      'standard',
      'flex',
      'priority',
    ]);
    const used = new Map([['service-tier', 'service_tier'] as const]);
    expect(refused({ serviceTier: 'scale', used }).details.param).toBe('service_tier');
  });

  test('is not to be stored where the client said so', () => {
    expect(written({ used: new Map([['store', 'store'] as const]) }).store).toBe(false);
    expect(written()).not.toHaveProperty('store');
  });

  test.each<[ReasoningWish, string, Json]>([
    [{ effort: 'low' }, OLD, { thinkingBudget: 1024 }],
    [{ effort: 'max' }, OLD, { thinkingBudget: 24576 }],
    [{ effort: 'medium', shown: true }, NEW, { includeThoughts: true, thinkingLevel: 'medium' }],
    [{ effort: 'minimal' }, NEW, { thinkingLevel: 'low' }],
    [{ effort: 'minimal' }, 'gemini-flash-latest', { thinkingLevel: 'minimal' }],
    [{ effort: 'xhigh' }, NEW, { thinkingLevel: 'high' }],
    [{ budget: 5000 }, NEW, { thinkingBudget: 5000 }],
    [{ off: true }, OLD, { thinkingBudget: 0 }],
    [{ off: true }, 'gemini-2.5-pro', { thinkingBudget: 128 }],
    [{ off: true, effort: 'high' }, 'gemini-3-flash', { thinkingLevel: 'minimal' }],
    [{ shown: false }, OLD, { includeThoughts: false }],
  ])('tells how much to think: %j for %s', (reasoning, model, thinkingConfig) => {
    expect(written({ reasoning }, model).generationConfig).toEqual({ thinkingConfig });
  });
});

describe('tools', () => {
  const tool = { name: 'clock', description: 'The time.', parameters: { type: 'object' } };

  test('are declared with JSON Schema', () => {
    expect(written({ tools: [tool, { name: 'bare' }] }).tools).toEqual([
      {
        functionDeclarations: [
          { name: 'clock', description: 'The time.', parametersJsonSchema: { type: 'object' } },
          { name: 'bare' },
        ],
      },
    ]);
  });

  test.each<[HubRequest['toolChoice'], boolean, Json | undefined]>([
    [undefined, false, undefined],
    ['auto', false, { mode: 'AUTO' }],
    ['none', true, { mode: 'NONE' }],
    ['required', true, { mode: 'ANY' }],
    [{ name: 'clock' }, false, { mode: 'ANY', allowedFunctionNames: ['clock'] }],
    [undefined, true, { mode: 'VALIDATED' }],
    ['auto', true, { mode: 'VALIDATED' }],
  ])('are chosen: %j, strict %j', (toolChoice, strict, functionCallingConfig) => {
    const body = written({ tools: [{ ...tool, strict }], toolChoice });
    expect(body.toolConfig).toEqual(functionCallingConfig && { functionCallingConfig });
  });

  test('results of one turn are one turn, by name, in the order of the calls', () => {
    const messages = [
      says('user', 'both'),
      says('assistant', call('gcall_r_0_0', 'clock'), call('gcall_r_0_1', 'clock'), call('own', 'map')),
      says('tool', result('gcall_r_0_1', 'second')),
      says('tool', result('own', '{"at":1}')),
      says('tool', result('gcall_r_0_0', 'first', { isError: true })),
      says('user', 'and?'),
    ];
    expect((contentsOf(messages) as Json[]).slice(1)).toEqual([
      {
        role: 'model',
        parts: [
          { functionCall: { name: 'clock', args: { a: 1 } } },
          { functionCall: { name: 'clock', args: { a: 1 } } },
          { functionCall: { id: 'own', name: 'map', args: { a: 1 } } },
        ],
      },
      {
        role: 'user',
        parts: [
          { functionResponse: { name: 'clock', response: { error: 'first' } } },
          { functionResponse: { name: 'clock', response: { output: 'second' } } },
          { functionResponse: { id: 'own', name: 'map', response: { at: 1 } } },
        ],
      },
      { role: 'user', parts: [{ text: 'and?' }] },
    ]);
  });

  test.each([
    ['a text', 'noon', { output: 'noon' }],
    ['a list', '[1]', { output: '[1]' }],
    ['a number that JavaScript would round', '{"id":12345678901234567890}', { output: '{"id":12345678901234567890}' }],
    ['nothing', '', { output: '' }],
    ['an object', '{"a":{"b":null}}', { a: { b: null } }],
  ])('a result that is %s becomes an object', (_, text, response) => {
    const contents = contentsOf([says('assistant', call('c', 'clock')), says('tool', result('c', text))]) as Json[];
    expect(contents[1]?.parts).toMatchObject([{ functionResponse: { response } }]);
  });

  test('a result may hold media', () => {
    const shot = result('c', 'see', { parts: [{ type: 'image', source: data('image/png') }] });
    const contents = contentsOf([says('assistant', call('c', 'clock')), says('tool', shot)]) as Json[];
    expect(contents[1]?.parts).toMatchObject([
      { functionResponse: { response: { output: '' }, parts: [{ inlineData: { mimeType: 'image/png' } }] } },
    ]);
  });

  test('a result without its call, and arguments that are no object, are refused', () => {
    expect(refused({ messages: [says('tool', result('c', 'x'))] }).message).toContain('not in the conversation');
    const odd = call('c', 'clock', { arguments: '[1' });
    expect(refused({ messages: [says('assistant', odd)] }).details.param).toBe('messages[0]');
  });
});

describe('seals', () => {
  const parts = (messages: HubRequest['messages'], model = NEW) =>
    (contentsOf(messages, model) as { parts: Json[] }[])[0]!.parts;

  test('go back with their calls', () => {
    const [first, second] = parts([says('assistant', call('a', 'clock', { signature: 'c2Vz' }), call('b', 'clock'))]);
    expect([first?.thoughtSignature, second?.thoughtSignature]).toEqual(['c2Vz', undefined]);
  });

  test('are said to be missing once for a turn that has none, where the model wants one', () => {
    const turn = [says('assistant', 'Wait.', call('a', 'clock'), call('b', 'clock'))];
    expect(parts(turn).map(({ thoughtSignature }) => thoughtSignature)).toEqual([
      undefined,
      'skip_thought_signature_validator',
      undefined,
    ]);
    for (const model of [OLD, 'gemini-1.5-pro', 'gemini-2.0-flash', 'gemma-3'])
      expect(JSON.stringify(parts(turn, model))).not.toContain('skip_thought');
    expect(JSON.stringify(parts(turn, 'gemini-flash-latest'))).toContain('skip_thought');
  });

  test('of thoughts go back to Gemini alone', () => {
    const own: HubPart = { type: 'reasoning', text: 'Hm.', signature: marked('c2Vz') };
    const foreign: HubPart = { type: 'reasoning', text: 'Aha.', signature: 'EqQBCg==' };
    const redacted: HubPart = { type: 'reasoning', text: '', redacted: 'EmwK' };
    expect(parts([says('assistant', own, foreign, redacted, 'So.')])).toEqual([
      { text: 'Hm.', thought: true },
      { text: '', thoughtSignature: 'c2Vz' },
      { text: 'Aha.', thought: true },
      { text: 'So.' },
    ]);
  });
});

describe('an answer', () => {
  const read = (name: string) => readReply(replyFixture('gemini', name));

  test('says who wrote it, and counts thoughts as part of the answer', () => {
    expect(read('tools')).toMatchObject({
      id: 'xB9taJHqFsKqz7IPyb3Z0Ac',
      model: 'gemini-3-pro-preview',
      usage: { inputTokens: 38, outputTokens: 21, reasoningTokens: 9 },
    });
    expect(read('cache-usage').usage).toEqual({ inputTokens: 2100, outputTokens: 2, cachedInputTokens: 2048 });
  });

  test('that calls tools ends for that, whatever it says', () => {
    const [choice] = read('tools').choices;
    expect(choice).toMatchObject({
      finish: 'tool-calls',
      parts: [
        { type: 'text', text: 'I will look it up.' },
        {
          type: 'tool-call',
          name: 'get_weather',
          arguments: '{"city":"München"}',
          signature: expect.stringMatching(/^CiQBcs/),
        },
      ],
    });
  });

  test('calls without ids get some that no other answer has, and ids of Gemini’s stay', () => {
    const ids = read('parallel-tools').choices[0]!.parts.flatMap((part) =>
      part.type === 'tool-call' ? [part.id] : [],
    );
    expect(ids).toEqual(['gcall_taLmkHPPlz7IPvtfUqQ4_0_0', 'fc_clock']);
    const nameless = { ...replyFixture('gemini', 'parallel-tools'), responseId: undefined };
    const made = [readReply(nameless), readReply(nameless)].map(({ choices }) => choices[0]!.parts[0]);
    expect(made[0]).not.toEqual(made[1]);
    expect(JSON.stringify(made)).toMatch(/"gcall_[\w-]{20}_0_0"/);
  });

  test('keeps thoughts apart, and the seal with what it seals', () => {
    expect(read('reasoning').choices[0]!.parts).toEqual([
      { type: 'reasoning', text: 'Let me see. Two and two.' },
      { type: 'text', text: 'Four.' },
      { type: 'reasoning', text: '', signature: expect.stringMatching(/^gemini:CiQBcs/) },
    ]);
  });

  test('tells the place of a citation in characters, where Gemini counts bytes', () => {
    const [part] = read('citations').choices[0]!.parts;
    expect(part).toMatchObject({
      citations: [{ url: 'https://example.com/zurich', title: 'example.com', start: 0, end: 42 }],
    });
  });

  test('tells no place of a citation that lies outside of it, and one that begins after other letters', () => {
    const cited = (startIndex: number, endIndex: number) => {
      const citationMetadata = { citations: [{ startIndex, endIndex, uri: 'u' }] };
      const candidate = { content: { parts: [{ text: 'äöü' }] }, finishReason: 'STOP', citationMetadata };
      return readReply({ candidates: [candidate] }).choices[0]!.parts[0];
    };
    expect(cited(2, 6)).toMatchObject({ citations: [{ url: 'u', start: 1, end: 3 }] });
    expect(cited(2, 7)).not.toHaveProperty('citations[0].start');
    expect(cited(4, 2)).not.toHaveProperty('citations[0].start');
  });

  test('has several choices, and log probabilities', () => {
    expect(read('choices').choices.map(({ index, finish }) => [index, finish])).toEqual([
      [0, 'stop'],
      [1, 'stop'],
    ]);
    expect(read('logprobs').choices[0]!.logprobs).toEqual([
      {
        token: 'Good',
        logprob: -0.1,
        top: [
          { token: 'Good', logprob: -0.1 },
          { token: 'Hi', logprob: -2.5 },
        ],
      },
      {
        token: ' morning',
        logprob: -0.2,
        top: [
          { token: ' morning', logprob: -0.2 },
          { token: ' day', logprob: -1.9 },
        ],
      },
    ]);
  });

  test('to a prompt that was blocked is one without a word', () => {
    expect(read('refusal').choices).toEqual([{ index: 0, parts: [], finish: 'content-filter' }]);
  });

  test.each([
    ['STOP', 'stop'],
    ['MAX_TOKENS', 'length'],
    ['SAFETY', 'content-filter'],
    ['RECITATION', 'content-filter'],
    ['LANGUAGE', 'content-filter'],
    ['OTHER', 'content-filter'],
    ['SOMETHING_NEW', 'content-filter'],
    ['constructor', 'content-filter'],
  ])('that ended for %s: %s', (finishReason, finish) => {
    expect(readReply({ candidates: [{ finishReason }] }).choices).toMatchObject([{ finish, parts: [] }]);
  });

  test.each([
    ['no candidates', {}],
    ['a candidate that has not ended', { candidates: [{ content: { parts: [{ text: 'a' }] } }] }],
    ['a call of nothing', { candidates: [{ content: { parts: [{ functionCall: {} }] }, finishReason: 'STOP' }] }],
    ['a malformed call', { candidates: [{ finishReason: 'MALFORMED_FUNCTION_CALL' }] }],
  ])('with %s is none', (_, body) => {
    expect(() => readReply(body)).toThrow(expect.objectContaining({ code: 'upstream_bad_answer' }));
  });

  test('with arguments nested too deep to be written is none', () => {
    const deep = `${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`;
    const call = `{"functionCall":{"name":"f","args":${deep}}}`;
    const body = JSON.parse(`{"candidates":[{"finishReason":"STOP","content":{"parts":[${call}]}}]}`) as Json;
    expect(() => readReply(body)).toThrow(expect.objectContaining({ code: 'upstream_bad_answer' }));
  });

  test('of any shape is read, or is none', () => {
    const fields = ['candidates', 'content', 'parts', 'text', 'functionCall', 'args', 'name', 'finishReason', 'index'];
    const more = ['groundingMetadata', 'groundingChunks', 'groundingSupports', 'segment', 'usageMetadata', '__proto__'];
    const odd = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 5 },
        fc.constantFrom(null, true, -1, 0, 1e300, '', 'STOP'),
        fc.array(tie('value'), { maxLength: 3 }),
        fc.dictionary(fc.constantFrom(...fields, ...more), tie('value'), { maxKeys: 4 }),
      ),
    })).value;
    fc.assert(
      fc.property(odd, odd, (candidates, usageMetadata) => {
        const body = { candidates, usageMetadata, promptFeedback: candidates };
        orGatewayError(() => readReply(body));
        orGatewayError(() => readEmbeddings({ embeddings: candidates, usageMetadata }));
        orGatewayError(() => readCount({ totalTokens: candidates }));
        orGatewayError(() => {
          readPieces(chat.openReader(), [Buffer.from(`data: ${JSON.stringify(body)}\n\n`)]);
        });
        provider.readError(400, { error: candidates }, {});
      }),
      { numRuns: 1_000 },
    );
  });
});

describe('a stream', () => {
  const NAMES = fixtureNames('streams', 'gemini');
  const events = (name: string, cut: (bytes: Buffer) => Buffer[] = (bytes) => [bytes]): HubEvent[] =>
    readPieces(chat.openReader(), cut(streamFixture('gemini', name)));

  test('says text as it comes, its usage so far, and its end', () => {
    expect(events('text').map((event) => (event.type === 'text' ? event.text : event.type))).toEqual([
      ...['start', 'Good', 'usage', ' morning, wör', 'usage', 'ld 🙂', 'finish', 'usage', 'end'],
    ]);
  });

  test('brings a call whole, and its part ends with it', () => {
    expect(events('tools').filter(({ type }) => /tool|part|finish/.test(type))).toMatchObject([
      { type: 'tool-call', call: 0, name: 'get_weather', id: 'gcall_taJHqFsKqz7IPyb3Z0Ac_0_0' },
      { type: 'tool-arguments', call: 0, text: '{"city":"München"}' },
      { type: 'part-end' },
      { type: 'finish', finish: 'tool-calls' },
    ]);
  });

  test.each(NAMES.filter((name) => name !== 'error'))('says what the whole answer says: %s', (name) => {
    const [streamed, whole] = [saidBy(events(name)), saidByReply(readReply(replyFixture('gemini', name)))];
    if (name === 'choices') streamed.text = whole.text;
    expect(streamed).toEqual(whole);
  });

  test.each(NAMES)('is the same wherever it is cut: %s', (name) => {
    const bytes = streamFixture('gemini', name);
    const whole = events(name);
    const shape = (list: HubEvent[]) => list.map((event) => (event.type === 'error' ? event.error.message : event));
    for (let at = 1; at < bytes.length; at += 1) expect(shape(events(name, cutAt([at])))).toEqual(shape(whole));
    fc.assert(
      fc.property(cutOffsets(bytes.length), pieceSizes, (offsets, sizes) => {
        expect(shape(events(name, cutAt(offsets)))).toEqual(shape(whole));
        expect(shape(events(name, cutBySizes(sizes)))).toEqual(shape(whole));
      }),
      { numRuns: 30 },
    );
  });

  test.each(NAMES)('that breaks off never reads as one that ended: %s', (name) => {
    const bytes = streamFixture('gemini', name);
    const last = bytes.lastIndexOf('data:');
    for (let at = 0; at < last; at += 1) {
      const cut = readPieces(chat.openReader(), [bytes.subarray(0, at)]);
      expect(cut.some(({ type }) => type === 'end')).toBe(false);
    }
  });

  test('whose second choice goes on has not ended with the first', () => {
    const bytes = streamFixture('gemini', 'choices');
    expect(saidBy(readPieces(chat.openReader(), [bytes.subarray(0, bytes.lastIndexOf('data:'))])).hasEnded).toBe(false);
  });

  test('that fails in the middle says why, and nothing after it', () => {
    const list = events('error');
    expect(errorOf(list)).toMatchObject({ code: 'upstream_overloaded' });
    const bytes = Buffer.concat([streamFixture('gemini', 'error'), streamFixture('gemini', 'text')]);
    expect(readPieces(chat.openReader(), [bytes])).toHaveLength(list.length);
  });

  test('tells a citation once, though later events repeat it', () => {
    const bytes = streamFixture('gemini', 'citations');
    const chunk = bytes.subarray(bytes.lastIndexOf('data:')).toString().replace('"finishReason":"STOP",', '');
    const cited = readPieces(chat.openReader(), [Buffer.from(chunk), bytes]).filter(({ type }) => type === 'citation');
    expect(cited).toHaveLength(1);
  });

  test('that is no JSON is none', () => {
    expect(() => chat.openReader().push(Buffer.from('data: {"a\n\n'))).toThrow(
      expect.objectContaining({ code: 'upstream_bad_answer' }),
    );
  });
});

describe('an error', () => {
  const error = (code: number, status: string, details: Json[] = []) => ({
    error: { code, message: 'What is wrong.', status, details },
  });
  const type = (name: string) => ({ '@type': `type.googleapis.com/google.rpc.${name}` });

  test.each<[number, unknown, string]>([
    [
      400,
      error(400, 'INVALID_ARGUMENT', [{ ...type('ErrorInfo'), reason: 'API_KEY_INVALID' }]),
      'upstream_refused_key',
    ],
    [400, error(400, 'INVALID_ARGUMENT'), 'upstream_invalid_request'],
    [403, error(403, 'PERMISSION_DENIED'), 'upstream_refused_key'],
    [404, error(404, 'NOT_FOUND'), 'upstream_invalid_request'],
    [500, error(500, 'INTERNAL'), 'upstream_failed'],
    [503, [error(503, 'UNAVAILABLE')], 'upstream_overloaded'],
    [504, error(504, 'DEADLINE_EXCEEDED'), 'upstream_timeout'],
    [502, undefined, 'upstream_failed'],
  ])('%i %j is %s', (status, body, code) => {
    expect(provider.readError(status, body, {}).code).toBe(code);
  });

  test('of the client’s own is told as Google told it, in a list as well', () => {
    const violation = { ...type('BadRequest'), fieldViolations: [{ field: 'contents[0].parts' }] };
    for (const body of [error(400, 'INVALID_ARGUMENT', [violation]), [error(400, 'INVALID_ARGUMENT', [violation])]]) {
      expect(provider.readError(400, body, {})).toMatchObject({
        message: 'What is wrong.',
        details: { status: 400, publicCode: 'INVALID_ARGUMENT', param: 'contents[0].parts' },
      });
    }
  });

  test.each([
    ['34s', 34_000],
    ['0.5s', 500],
    ['soon', undefined],
  ])('of a limit tells how long to wait: %s', (retryDelay, retryAfterMs) => {
    const body = error(429, 'RESOURCE_EXHAUSTED', [{ ...type('RetryInfo'), retryDelay }]);
    const read = provider.readError(429, body, {});
    expect([read.code, read.retryAfterMs]).toEqual(['upstream_rate_limited', retryAfterMs]);
  });
});

describe('vectors and counts', () => {
  test('texts go in one batch', () => {
    const endpoint = provider.endpoints.embeddings![0]!;
    const request = { input: ['a', 'b'], dimensions: 3, used: new Map(), unknown: [] };
    expect(endpoint.write(request, { model: 'embed', stream: false })).toEqual({
      requests: ['a', 'b'].map((text) => ({
        model: 'models/embed',
        content: { parts: [{ text }] },
        outputDimensionality: 3,
      })),
    });
    expect(endpoint.read({ embeddings: [{ values: [1, 2] }, { values: [3] }] }).vectors).toEqual([[1, 2], [3]]);
    expect(() => endpoint.read({ embeddings: [{ values: [1, 'x'] }] })).toThrow(GatewayError);
    const tokens = { input: [[1, 2]], used: new Map([['token-input', 'input'] as const]), unknown: [] };
    expect(() => endpoint.write(tokens, { model: 'embed', stream: false })).toThrow(
      'The field `input` cannot be token ids',
    );
  });

  test('a count reads instructions and tools too', () => {
    const endpoint = provider.endpoints.count![0]!;
    const request = hubRequest({ messages: [says('system', 'a'), says('user', 'b')], tools: [{ name: 'clock' }] });
    expect(JSON.parse(JSON.stringify(endpoint.write(request, { model: OLD, stream: false })))).toEqual({
      generateContentRequest: {
        model: `models/${OLD}`,
        systemInstruction: { parts: [{ text: 'a' }] },
        contents: [{ role: 'user', parts: [{ text: 'b' }] }],
        tools: [{ functionDeclarations: [{ name: 'clock' }] }],
      },
    });
    expect(endpoint.read({ totalTokens: 7 })).toEqual({ inputTokens: 7 });
    expect(() => endpoint.read({})).toThrow(GatewayError);
  });
});
