import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { openaiChat } from '../../../gateway/dialects/openai-chat/dialect.ts';
import { GatewayError } from '../../../gateway/errors.ts';
import type { Finish, HubEvent, HubReply } from '../../../gateway/hub/reply.ts';
import type { HubRequest } from '../../../gateway/hub/request.ts';
import { readChat } from '../../../gateway/providers/openai/reply.ts';
import { openReader } from '../../../gateway/providers/openai/stream.ts';
import { fixtureNames, replyFixture, requestFixture, streamFixture } from '../../support/fixture.ts';
import { orGatewayError, readPieces } from '../../support/hub.ts';
import { hubStream, saidBy, saidByReply } from '../../support/hub-events.ts';

const USER = { role: 'user', content: 'Hello' };

function read(more: Json = {}): HubRequest {
  return openaiChat.toHub({ model: 'm', messages: [USER], ...more });
}

function readMessages(...messages: Json[]): HubRequest['messages'] {
  return openaiChat.toHub({ model: 'm', messages }).messages;
}

function refusal(body: Json): GatewayError {
  try {
    openaiChat.toHub(body);
  } catch (error) {
    if (error instanceof GatewayError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

function written(events: HubEvent[], wantsUsage = true): string {
  const writer = openaiChat.openWriter({ model: 'asked', wantsUsage });
  return events.map((event) => writer.write(event)).join('');
}

/** The chunks of a stream, and whether `[DONE]` came last. */
function chunksOf(stream: string): { chunks: Json[]; isDone: boolean } {
  const data = stream.split('\n\n').filter((frame) => frame !== '');
  const isDone = data.at(-1) === 'data: [DONE]';
  const bodies = isDone ? data.slice(0, -1) : data;
  return { chunks: bodies.map((frame) => JSON.parse(frame.slice('data: '.length)) as Json), isDone };
}

/** Deltas and finishes of a stream, without what all chunks repeat. */
function deltasOf(events: HubEvent[]): unknown[] {
  const choices = chunksOf(written(events, false)).chunks.flatMap(({ choices: list }) => list as Json[]);
  return choices.map(({ index, delta, finish_reason: finish }) => [index, delta, ...(finish === null ? [] : [finish])]);
}

const FIRST = { role: 'assistant', content: '', refusal: null };

describe('a request', () => {
  test.each(fixtureNames('requests', 'openai-chat'))('is understood whole: %s', (name) => {
    expect(openaiChat.toHub(requestFixture('openai-chat', name)).unknown).toEqual([]);
  });

  test('of plain text uses nothing that has to be supported', () => {
    const quiet = {
      n: 1,
      store: true,
      logprobs: false,
      top_logprobs: 0,
      response_format: { type: 'text' },
      tool_choice: 'auto',
      parallel_tool_calls: true,
      service_tier: 'auto',
      stream: true,
      stream_options: { include_usage: true },
      modalities: ['text'],
      stop: [],
      logit_bias: {},
      metadata: {},
      user: '',
      temperature: null,
    };
    expect(read(quiet)).toMatchObject({ used: new Map(), unknown: [] });
  });

  test('says how to answer', () => {
    const hub = read({
      max_tokens: 10,
      max_completion_tokens: 20,
      temperature: 0.5,
      top_p: 0.9,
      top_k: 40,
      seed: 7,
      n: 3,
      stop: 'END',
      presence_penalty: 1,
      frequency_penalty: -1,
      logit_bias: { '50256': -100 },
      logprobs: true,
      top_logprobs: 4,
      reasoning_effort: 'high',
      verbosity: 'low',
      service_tier: 'flex',
      user: 'jo',
      metadata: { team: 'a' },
      store: false,
    });
    expect(hub).toMatchObject({
      maxOutputTokens: 20,
      temperature: 0.5,
      topP: 0.9,
      topK: 40,
      seed: 7,
      choices: 3,
      stop: ['END'],
      presencePenalty: 1,
      frequencyPenalty: -1,
      logitBias: { '50256': -100 },
      logprobs: true,
      topLogprobs: 4,
      reasoning: { effort: 'high' },
      verbosity: 'low',
      serviceTier: 'flex',
      user: 'jo',
      metadata: { team: 'a' },
    });
    expect([...hub.used]).toEqual([
      ['max-tokens', 'max_completion_tokens'],
      ['temperature', 'temperature'],
      ['top-p', 'top_p'],
      ['top-k', 'top_k'],
      ['seed', 'seed'],
      ['presence-penalty', 'presence_penalty'],
      ['frequency-penalty', 'frequency_penalty'],
      ['choices', 'n'],
      ['stop', 'stop'],
      ['logit-bias', 'logit_bias'],
      ['logprobs', 'logprobs'],
      ['reasoning', 'reasoning_effort'],
      ['verbosity', 'verbosity'],
      ['service-tier', 'service_tier'],
      ['user', 'user'],
      ['metadata', 'metadata'],
      ['store', 'store'],
    ]);
  });

  test.each([
    [{ reasoning_effort: 'none' }, { off: true }],
    [{ reasoning: { effort: 'xhigh', exclude: true } }, { effort: 'xhigh', shown: false }],
    [{ reasoning: { max_tokens: 2000 } }, { budget: 2000 }],
    [{ reasoning: { enabled: true } }, { effort: 'medium' }],
    [{ reasoning: { enabled: false } }, { off: true }],
    [{ reasoning: { effort: 'none' } }, { off: true }],
  ])('says how much to think: %j', (more, wish) => {
    expect(read(more).reasoning).toEqual(wish);
  });

  test('names tools and which to use', () => {
    const parameters = { type: 'object' };
    const tools = [{ type: 'function', function: { name: 'f', description: 'F.', parameters, strict: true } }];
    const hub = read({ tools, tool_choice: { type: 'function', function: { name: 'f' } }, parallel_tool_calls: false });
    expect(hub).toMatchObject({
      tools: [{ name: 'f', description: 'F.', parameters, strict: true }],
      toolChoice: { name: 'f' },
      parallelToolCalls: false,
    });
    expect([...hub.used.keys()]).toEqual([
      'tools.strict',
      'tools',
      'tool-choice',
      'tool-choice.name',
      'parallel-tools',
    ]);
    expect(read({ tools, tool_choice: 'required' }).used.get('tool-choice.required')).toBe('tool_choice');
    expect(read({ tools, tool_choice: 'none' }).used.get('tool-choice.none')).toBe('tool_choice');
  });

  test('wants JSON, by a schema or without one', () => {
    expect(read({ response_format: { type: 'json_object' } })).toMatchObject({
      format: { type: 'json' },
      used: new Map([['format.json', 'response_format']]),
    });
    const { json_schema: given } = requestFixture('openai-chat', 'json-schema').response_format as {
      json_schema: Json;
    };
    expect(read({ response_format: { type: 'json_schema', json_schema: given } })).toMatchObject({
      format: { type: 'json-schema', name: 'city', strict: true, schema: given.schema },
      used: new Map([['format.schema', 'response_format']]),
    });
  });

  test('tells what was said before: system words, names, refusals, citations', () => {
    const hub = openaiChat.toHub({
      messages: [
        { role: 'developer', content: 'Be brief.' },
        { role: 'user', content: 'Hi', name: 'jo' },
        {
          role: 'assistant',
          content: [
            { type: 'text', text: 'A' },
            { type: 'refusal', refusal: 'B' },
          ],
        },
        { role: 'system', content: 'Be kind.' },
        { role: 'user', content: [] },
      ],
    });
    expect(hub.messages).toEqual([
      { role: 'system', at: 'messages[0]', parts: [{ type: 'text', text: 'Be brief.' }] },
      { role: 'user', at: 'messages[1]', name: 'jo', parts: [{ type: 'text', text: 'Hi' }] },
      {
        role: 'assistant',
        at: 'messages[2]',
        parts: [
          { type: 'text', text: 'A' },
          { type: 'refusal', text: 'B' },
        ],
      },
      { role: 'system', at: 'messages[3]', parts: [{ type: 'text', text: 'Be kind.' }] },
      { role: 'user', at: 'messages[4]', parts: [] },
    ]);
    expect([...hub.used]).toEqual([
      ['system', 'messages[0]'],
      ['name', 'messages[1].name'],
      ['refusal', 'messages[2].content[1]'],
      ['system.later', 'messages[3]'],
    ]);
  });

  test('of a last message that is the assistant’s is one to go on from, unless it calls a tool', () => {
    const { messages } = requestFixture('openai-chat', 'tool-result') as { messages: Json[] };
    expect(read({ messages: [USER, { role: 'assistant', content: 'One,' }] }).used.get('prefill')).toBe('messages[1]');
    expect(openaiChat.toHub({ messages: messages.slice(0, 2) }).used.has('prefill')).toBe(false);
  });

  test('a tool’s result knows the name of what was called', () => {
    const { messages } = requestFixture('openai-chat', 'tool-result') as { messages: Json[] };
    expect(readMessages(...messages).slice(2)).toEqual([
      {
        role: 'tool',
        at: 'messages[2]',
        parts: [
          { type: 'tool-result', id: 'call_paris', name: 'get_weather', parts: [{ type: 'text', text: '18 °C' }] },
        ],
      },
      {
        role: 'tool',
        at: 'messages[3]',
        parts: [
          { type: 'tool-result', id: 'call_rome', name: 'get_weather', parts: [{ type: 'text', text: '25 °C' }] },
        ],
      },
    ]);
  });

  test('media stand inline, elsewhere or at the vendor', () => {
    const image = (url: string) => ({ type: 'image_url', image_url: { url } });
    const hub = read({
      messages: [
        {
          role: 'user',
          content: [
            image('data:IMAGE/PNG;charset=x;base64,AAAA'),
            image('https://example.com/a.png'),
            { type: 'input_audio', input_audio: { data: 'SUQz', format: 'mp3' } },
            { type: 'file', file: { file_id: 'file-1' } },
            { type: 'file', file: { file_data: 'JVBE', filename: 'a.pdf' } },
            { type: 'file', file: { file_data: 'https://example.com/a.pdf' } },
            { type: 'video_url', video_url: { url: 'data:video/mp4;base64,AAAA' } },
          ],
        },
      ],
    });
    expect(hub.messages[0]!.parts).toEqual([
      { type: 'image', source: { kind: 'data', mediaType: 'image/png', data: 'AAAA' } },
      { type: 'image', source: { kind: 'url', url: 'https://example.com/a.png' } },
      { type: 'audio', source: { kind: 'data', mediaType: 'audio/mpeg', data: 'SUQz' } },
      { type: 'file', source: { kind: 'id', id: 'file-1' } },
      { type: 'file', name: 'a.pdf', source: { kind: 'data', mediaType: 'application/pdf', data: 'JVBE' } },
      { type: 'file', source: { kind: 'url', url: 'https://example.com/a.pdf' } },
      { type: 'video', source: { kind: 'data', mediaType: 'video/mp4', data: 'AAAA' } },
    ]);
    expect([...hub.used.keys()]).toEqual([
      ...['image.data', 'image.url', 'audio.data', 'file.id', 'file.data', 'file.url', 'video.data'],
    ]);
  });

  test('hints for a cache stand at what they are about', () => {
    const content = [{ type: 'text', text: 'Long.', prompt_cache_breakpoint: { mode: 'explicit', ttl: '12h' } }];
    const tools = [{ type: 'function', function: { name: 'f' }, cache_control: { type: 'ephemeral' } }];
    const hub = read({ messages: [{ role: 'user', content }], tools });
    expect(hub.messages[0]!.parts).toEqual([{ type: 'text', text: 'Long.', cache: '12h' }]);
    expect(hub.tools[0]!.cache).toBe('');
    expect(hub).toMatchObject({ unknown: [] });
    expect(hub.used.get('cache')).toBe('messages[0].content[0].prompt_cache_breakpoint');
  });

  test.each<[string, Json]>([
    ['previous_field', { previous_field: 1 }],
    ['prediction', { prediction: { type: 'content', content: 'x' } }],
    ['web_search_options', { web_search_options: {} }],
    ['functions', { functions: [{ name: 'f' }] }],
    ['modalities', { modalities: ['text', 'audio'] }],
    ['response_format', { response_format: { type: 'grammar', grammar: 'x' } }],
    ['tools[0]', { tools: [{ type: 'custom', custom: { name: 'f' } }] }],
    ['tool_choice', { tool_choice: { type: 'allowed_tools', allowed_tools: {} } }],
    ['tools[0].function.examples', { tools: [{ type: 'function', function: { name: 'f', examples: [] } }] }],
    ['messages[0].content[0]', { messages: [{ role: 'user', content: [{ type: 'hologram' }] }] }],
    ['messages[0].mood', { messages: [{ ...USER, mood: 'good' }] }],
    ['messages[0].role', { messages: [{ role: 'function', name: 'f', content: 'x' }] }],
    ['messages[0].audio', { messages: [{ role: 'assistant', audio: { id: 'audio_1' } }] }],
    ['messages[0].tool_calls[0]', { messages: [{ role: 'assistant', tool_calls: [{ id: 'c', type: 'custom' }] }] }],
    ['messages[0].annotations[0]', { messages: [{ role: 'assistant', annotations: [{ type: 'file_citation' }] }] }],
    ['messages[0].content[0].image_url.detail', { messages: [image({ url: 'http://x/a', detail: 'original' })] }],
    ['messages[0].content[0].image_url.mood', { messages: [image({ url: 'http://x/a', mood: 'good' })] }],
  ])('what the hub has no word for is told by its place: %s', (path, more) => {
    expect(read(more).unknown).toContain(path);
  });

  function image(imageUrl: Json): Json {
    return { role: 'user', content: [{ type: 'image_url', image_url: imageUrl }] };
  }

  test.each<[string, Json]>([
    ['messages', { messages: undefined }],
    ['messages', { messages: {} }],
    ['messages[0]', { messages: ['x'] }],
    ['messages[0].role', { messages: [{ content: 'x' }] }],
    ['messages[0].role', { messages: [{ role: 'model', content: 'x' }] }],
    ['messages[0].content', { messages: [{ role: 'user', content: 7 }] }],
    ['messages[0].content[0].text', { messages: [{ role: 'user', content: [{ type: 'text' }] }] }],
    ['messages[0].tool_call_id', { messages: [{ role: 'tool', content: 'x' }] }],
    ['messages[0].tool_calls[0].id', { messages: [{ role: 'assistant', tool_calls: [{ function: { name: 'f' } }] }] }],
    ['messages[0].tool_calls[0].function', { messages: [{ role: 'assistant', tool_calls: [{ id: 'c' }] }] }],
    ['messages[0].content[0].image_url.url', { messages: [image({ url: 'ftp://x/a' })] }],
    ['messages[0].content[0].image_url.url', { messages: [image({ url: 'data:image/png,AAAA' })] }],
    ['max_tokens', { max_tokens: 0 }],
    ['max_completion_tokens', { max_completion_tokens: 1.5 }],
    ['temperature', { temperature: 'hot' }],
    ['n', { n: 0 }],
    ['stop', { stop: 7 }],
    ['stop', { stop: ['a', 7] }],
    ['logit_bias', { logit_bias: { 1: 'x' } }],
    ['top_logprobs', { top_logprobs: 2 }],
    ['reasoning_effort', { reasoning_effort: 'much' }],
    ['metadata', { metadata: { a: 1 } }],
    ['tools[0].function', { tools: [{ type: 'function' }] }],
    ['response_format.json_schema', { response_format: { type: 'json_schema' } }],
    ['tool_choice', { tool_choice: 'maybe' }],
  ])('what is no value of its field is refused by its place: %s', (param, more) => {
    const error = refusal({ model: 'm', messages: [USER], ...more });
    expect(error).toMatchObject({ code: 'invalid_request', status: 400, details: { param } });
    expect(error.message).toContain(`\`${param}\``);
  });

  test('odd JSON is refused or understood, never a fault', () => {
    const value = fc.jsonValue({ maxDepth: 3 });
    const field = fc.constantFrom(
      ...['messages', 'tools', 'tool_choice', 'stop', 'response_format', 'reasoning', 'logit_bias', 'metadata', 'n'],
      ...['store', 'user', 'modalities', '__proto__'],
    );
    const part = fc.dictionary(fc.constantFrom('type', 'text', 'image_url', 'file', 'input_audio'), value);
    const message = fc.dictionary(
      fc.constantFrom('role', 'content', 'tool_calls', 'reasoning_details', 'annotations', 'tool_call_id'),
      fc.oneof(value, fc.constantFrom('user', 'assistant', 'tool'), fc.array(part, { maxLength: 2 })),
    );
    fc.assert(
      fc.property(fc.dictionary(field, value), fc.array(message, { maxLength: 3 }), (body, messages) => {
        orGatewayError(() => void openaiChat.toHub({ messages, ...body }));
        orGatewayError(() => void openaiChat.toHub({ ...body, messages }));
      }),
      { numRuns: 1000 },
    );
  });
});

describe('thoughts', () => {
  const reply: HubReply = {
    choices: [
      {
        index: 0,
        finish: 'tool-calls',
        parts: [
          { type: 'reasoning', text: 'One.', signature: 'c2lnMQ==' },
          { type: 'reasoning', text: '', redacted: 'b3BhcXVl' },
          { type: 'reasoning', text: 'Two.', signature: 'c2lnMg==' },
          { type: 'text', text: 'So.' },
          { type: 'tool-call', id: 'c', name: 'f', arguments: '{}', signature: 'c2VhbA==' },
        ],
      },
    ],
  };

  test('keep their seals from an answer to the next request', () => {
    const { choices } = openaiChat.fromHub(reply, 'm') as { choices: { message: Json }[] };
    const [message] = readMessages(choices[0]!.message);
    expect(message!.parts).toEqual(reply.choices[0]!.parts);
  });

  test('keep them from a stream whose pieces the client joins', () => {
    const events: HubEvent[] = [
      { type: 'reasoning', choice: 0, text: 'On' },
      { type: 'reasoning', choice: 0, text: 'e.' },
      { type: 'signature', choice: 0, signature: 'c2lnMQ==' },
      { type: 'part-end', choice: 0 },
      { type: 'redacted', choice: 0, data: 'b3BhcXVl' },
      { type: 'reasoning', choice: 0, text: 'Two.' },
      { type: 'signature', choice: 0, signature: 'c2lnMg==' },
      { type: 'text', choice: 0, text: 'So.' },
      { type: 'tool-call', choice: 0, call: 0, id: 'c', name: 'f', signature: 'c2VhbA==' },
      { type: 'finish', choice: 0, finish: 'tool-calls' },
      { type: 'end' },
    ];
    const [message] = readMessages(joined(chunksOf(written(events)).chunks));
    expect(message!.parts).toEqual([
      ...reply.choices[0]!.parts.slice(0, 4),
      { type: 'tool-call', id: 'c', name: 'f', arguments: '{}', signature: 'c2VhbA==' },
    ]);
  });

  test('whose seal came without their text get the text of the message', () => {
    const message = { role: 'assistant', content: 'So.', reasoning_content: 'One.' };
    const details = [{ type: 'reasoning.text', signature: 'c2lnMQ==', index: 0 }];
    expect(readMessages({ ...message, reasoning_details: details })[0]!.parts[0]).toEqual({
      type: 'reasoning',
      text: 'One.',
      signature: 'c2lnMQ==',
    });
    expect(readMessages(message)[0]!.parts[0]).toEqual({ type: 'reasoning', text: 'One.' });
  });
});

/** Joins the deltas of the first choice as clients do: strings one after the other, lists by their items' `index`. */
function joined(chunks: Json[]): Json {
  const message: Json = {};
  for (const { choices } of chunks) {
    for (const { delta } of choices as { delta: Json }[]) merge(message, delta);
  }
  return message;
}

function merge(into: Json, delta: Json): void {
  for (const [key, value] of Object.entries(delta)) {
    const known = into[key];
    if (key === 'index' || key === 'type' || known === undefined || known === null) into[key] = structuredClone(value);
    else if (typeof known === 'string') into[key] = known + String(value);
    else if (Array.isArray(known)) {
      for (const item of value as Json[]) {
        const same = (known as Json[]).find(({ index }) => index === item.index);
        if (same === undefined) known.push(structuredClone(item));
        else merge(same, item);
      }
    } else merge(known as Json, value as Json);
  }
}

describe('a whole answer', () => {
  const PLAIN: HubReply = { choices: [{ index: 0, finish: 'stop', parts: [{ type: 'text', text: 'Hi' }] }] };

  test('S2-15: what the provider left out is filled in', () => {
    const body = openaiChat.fromHub(PLAIN, 'asked');
    expect(body).toEqual({
      id: expect.stringMatching(/^chatcmpl-[0-9a-f]{32}$/),
      object: 'chat.completion',
      created: expect.any(Number),
      model: 'asked',
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: 'Hi', refusal: null },
          logprobs: null,
          finish_reason: 'stop',
        },
      ],
      usage: { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 },
    });
    // Nobody is charged nothing because of it.
    expect(openaiChat.replyFacts(body).usage).toBeUndefined();
  });

  test('what the provider tells stays: its id first of all', () => {
    const usage = { inputTokens: 17, outputTokens: 20, cachedInputTokens: 5, cacheWriteTokens: 2, reasoningTokens: 9 };
    const told = { ...PLAIN, id: 'msg_01', model: 'claude', created: 1741570283, serviceTier: 'flex', usage };
    expect(openaiChat.fromHub(told, 'asked')).toMatchObject({
      id: 'msg_01',
      model: 'claude',
      created: 1741570283,
      service_tier: 'flex',
      usage: {
        prompt_tokens: 17,
        completion_tokens: 20,
        total_tokens: 37,
        prompt_tokens_details: { cached_tokens: 5, cache_write_tokens: 2 },
        completion_tokens_details: { reasoning_tokens: 9 },
      },
    });
  });

  test.each<[Finish, string]>([
    ['stop', 'stop'],
    ['stop-sequence', 'stop'],
    ['pause', 'stop'],
    ['length', 'length'],
    ['context-window', 'length'],
    ['tool-calls', 'tool_calls'],
    ['content-filter', 'content_filter'],
    ['refusal', 'content_filter'],
  ])('that ended for %s says %s, whole and streamed', (finish, reason) => {
    const { choices } = openaiChat.fromHub({ choices: [{ ...PLAIN.choices[0]!, finish }] }, 'm') as { choices: Json[] };
    expect(choices[0]!.finish_reason).toBe(reason);
    expect(deltasOf([{ type: 'finish', choice: 0, finish }]).at(-1)).toEqual([0, {}, reason]);
  });

  test('a refusal in words ends as any answer does', () => {
    const parts = [{ type: 'refusal' as const, text: 'No.' }];
    const body = openaiChat.fromHub({ choices: [{ index: 0, finish: 'refusal', parts }] }, 'm') as { choices: Json[] };
    expect(body.choices[0]).toMatchObject({ message: { content: null, refusal: 'No.' }, finish_reason: 'stop' });
    const events: HubEvent[] = [
      { type: 'refusal', choice: 0, text: 'No.' },
      { type: 'finish', choice: 0, finish: 'refusal' },
    ];
    expect(deltasOf(events)).toEqual([
      [0, FIRST],
      [0, { refusal: 'No.' }],
      [0, {}, 'stop'],
    ]);
  });

  test('citations stand at their place in the joined text', () => {
    const parts = [
      { type: 'text' as const, text: 'Goethe. ' },
      {
        type: 'text' as const,
        text: 'He wrote Faust.',
        citations: [
          { url: 'https://a', title: 'A', start: 3, end: 8 },
          { quote: 'Faust, a tragedy', document: 1 },
        ],
      },
    ];
    const body = openaiChat.fromHub({ choices: [{ index: 0, finish: 'stop', parts }] }, 'm') as { choices: Json[] };
    expect((body.choices[0]!.message as Json).annotations).toEqual([
      { type: 'url_citation', url_citation: { url: 'https://a', title: 'A', start_index: 11, end_index: 16 } },
      {
        type: 'url_citation',
        url_citation: {
          url: '',
          title: '',
          start_index: 8,
          end_index: 23,
          content: 'Faust, a tragedy',
          document_index: 1,
        },
      },
    ]);
  });

  test('a tool call without arguments has an empty object of them', () => {
    const parts = [{ type: 'tool-call' as const, id: 'c', name: 'f', arguments: '' }];
    expect(openaiChat.fromHub({ choices: [{ index: 0, finish: 'tool-calls', parts }] }, 'm')).toMatchObject({
      choices: [{ message: { content: null, tool_calls: [{ id: 'c', function: { name: 'f', arguments: '{}' } }] } }],
    });
  });

  test('made images are data URLs', () => {
    const media = { type: 'media' as const, mediaType: 'image/png', data: 'AAAA' };
    const body = openaiChat.fromHub({ choices: [{ index: 0, finish: 'stop', parts: [media] }] }, 'm');
    const image = { type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA' } };
    expect(body).toMatchObject({ choices: [{ message: { content: '', images: [image] } }] });
    expect(deltasOf([{ ...media, choice: 0 }]).at(-1)).toEqual([0, { images: [image] }]);
    expect(openaiChat.replySegments(body)).toMatchObject([{ channel: 'media', mediaType: 'image/png' }]);
  });

  test.each(fixtureNames('streams', 'openai').filter((name) => name !== 'error'))(
    'of OpenAI’s own is the same after the hub: %s',
    (name) => {
      const reply = readChat(replyFixture('openai', name), 'up');
      expect(readChat(openaiChat.fromHub(reply, 'm'), 'up')).toEqual(reply);
    },
  );
});

describe('a stream', () => {
  const start: HubEvent = { type: 'start', id: 'msg_01', model: 'claude', created: 1741570283 };
  const say = (text: string, choice = 0): HubEvent => ({ type: 'text', choice, text });
  const stop = (choice = 0): HubEvent => ({ type: 'finish', choice, finish: 'stop' });

  test('begins with the role, says its deltas, ends with its finish, its usage and [DONE]', () => {
    const usage: HubEvent = { type: 'usage', usage: { inputTokens: 17, outputTokens: 2 } };
    const { chunks, isDone } = chunksOf(written([start, say('Hel'), usage, say('lo'), stop(), { type: 'end' }]));
    const head = { id: 'msg_01', object: 'chat.completion.chunk', created: 1741570283, model: 'claude' };
    const chunk = (delta: Json, finish: string | null = null) => ({
      ...head,
      choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }],
      usage: null,
    });
    expect(chunks).toEqual([
      chunk(FIRST),
      chunk({ content: 'Hel' }),
      chunk({ content: 'lo' }),
      chunk({}, 'stop'),
      { ...head, choices: [], usage: { prompt_tokens: 17, completion_tokens: 2, total_tokens: 19 } },
    ]);
    expect(isDone).toBe(true);
  });

  test('of the counts that came, the last ones are told', () => {
    const count = (outputTokens: number): HubEvent => ({ type: 'usage', usage: { inputTokens: 3, outputTokens } });
    const { chunks } = chunksOf(written([count(1), say('Hi'), count(2), stop(), { type: 'end' }]));
    expect(chunks.at(-1)).toMatchObject({ usage: { completion_tokens: 2 } });
  });

  test('a seal ends its thought, and so does anything else: what is thought next is another', () => {
    const think = (text: string): HubEvent => ({ type: 'reasoning', choice: 0, text });
    const seal: HubEvent = { type: 'signature', choice: 0, signature: 'c2ln' };
    const events = [think('a'), think('b'), seal, think('c'), say('So.'), think('d'), { type: 'part-end', choice: 0 }];
    const indexes = deltasOf([...(events as HubEvent[]), think('e')]).flatMap((delta) => {
      const [, { reasoning_details: details = [] }] = delta as [number, { reasoning_details?: { index: number }[] }];
      return details.map(({ index }) => index);
    });
    expect(indexes).toEqual([0, 0, 0, 1, 2, 3]);
  });

  test('tells its usage only to who asked for it', () => {
    const events = [start, say('Hi'), stop(), { type: 'end' } as const];
    expect(written(events, false)).not.toContain('usage');
  });

  test('S2-15: what the provider left out is filled in, the same in every chunk', () => {
    const { chunks } = chunksOf(written([say('Hi'), say('!')]));
    const heads = new Set(chunks.map(({ id, created, model }) => JSON.stringify({ id, created, model })));
    expect(heads.size).toBe(1);
    expect(chunks[0]).toMatchObject({ id: expect.stringMatching(/^chatcmpl-/), model: 'asked' });
  });

  test('nothing goes out before there is content, so that another provider can still take over', () => {
    expect(written([start, { type: 'usage', usage: { inputTokens: 1, outputTokens: 0 } }])).toBe('');
  });

  test('that another provider goes on with keeps its id and its one beginning', () => {
    const { chunks } = chunksOf(written([start, say('a'), { ...start, id: 'other' }, say('b'), stop()]));
    expect(new Set(chunks.map(({ id }) => id))).toEqual(new Set(['msg_01']));
    expect(chunks.filter((chunk) => JSON.stringify(chunk).includes('"role"'))).toHaveLength(1);
  });

  test('keeps choices apart, each with a beginning and an end of its own', () => {
    expect(deltasOf([start, say('a'), say('x', 1), say('b'), stop(1), stop(), { type: 'end' }])).toEqual([
      [0, FIRST],
      [0, { content: 'a' }],
      [1, FIRST],
      [1, { content: 'x' }],
      [0, { content: 'b' }],
      [1, {}, 'stop'],
      [0, {}, 'stop'],
    ]);
  });

  test('tool calls keep their number, and every piece of arguments stays one', () => {
    expect(
      deltasOf([
        { type: 'tool-call', choice: 0, call: 0, id: 'a', name: 'f' },
        { type: 'tool-call', choice: 0, call: 1, id: 'b', name: 'g' },
        { type: 'tool-arguments', choice: 0, call: 1, text: '{' },
        { type: 'tool-arguments', choice: 0, call: 0, text: '{}' },
        { type: 'tool-arguments', choice: 0, call: 1, text: '}' },
        { type: 'finish', choice: 0, finish: 'tool-calls' },
      ]),
    ).toEqual([
      [0, FIRST],
      [0, { tool_calls: [{ index: 0, id: 'a', type: 'function', function: { name: 'f', arguments: '' } }] }],
      [0, { tool_calls: [{ index: 1, id: 'b', type: 'function', function: { name: 'g', arguments: '' } }] }],
      [0, { tool_calls: [{ index: 1, function: { arguments: '{' } }] }],
      [0, { tool_calls: [{ index: 0, function: { arguments: '{}' } }] }],
      [0, { tool_calls: [{ index: 1, function: { arguments: '}' } }] }],
      [0, {}, 'tool_calls'],
    ]);
  });

  test('citations stand at their place in the text so far', () => {
    const events: HubEvent[] = [
      say('Goethe. '),
      { type: 'part-end', choice: 0 },
      say('He wrote Faust.'),
      { type: 'citation', choice: 0, citation: { url: 'https://a', title: 'A', start: 3, end: 8 } },
      { type: 'citation', choice: 0, citation: { url: 'https://b' } },
    ];
    const places = deltasOf(events).flatMap((delta) => {
      const [, { annotations = [] }] = delta as [number, { annotations?: { url_citation: Json }[] }];
      return annotations.map(({ url_citation: { start_index, end_index } }) => [start_index, end_index]);
    });
    expect(places).toEqual([
      [11, 16],
      [8, 23],
    ]);
  });

  test('a choice that the provider left open is closed at the end', () => {
    expect(deltasOf([say('Hi'), { type: 'end' }]).at(-1)).toEqual([0, {}, 'stop']);
  });

  test('an error ends it, without [DONE]', () => {
    const error = new GatewayError('upstream_overloaded', 'The provider “up” is overloaded.');
    const stream = written([say('Hi'), { type: 'error', error }, say('more'), { type: 'end' }]);
    const { chunks, isDone } = chunksOf(stream);
    expect(isDone).toBe(false);
    expect(chunks.at(-1)).toEqual({
      error: { message: error.message, type: 'server_error', param: null, code: 'upstream_overloaded' },
    });
  });

  test('any legal run of events says the same after it was written and read', () => {
    fc.assert(
      fc.property(hubStream, (events) => {
        const again = readPieces(openReader('up'), [Buffer.from(written(events))]);
        const { finish, usage, ...said } = saidBy(events);
        const { finish: finishAgain, usage: usageAgain, ...saidAgain } = saidBy(again);
        expect(saidAgain).toEqual(said);
        expect(finishAgain).toBe(finish);
        expect(usageAgain ?? NOTHING).toEqual(usage ?? NOTHING);
      }),
      { numRuns: 500 },
    );
  });

  const NOTHING = { inputTokens: 0, outputTokens: 0 };

  test('any legal run of events is one that guards can read: all that is said is a part', () => {
    fc.assert(
      fc.property(hubStream, (events) => {
        const said = { text: '', reasoning: '' };
        for (const chunk of chunksOf(written(events)).chunks) {
          for (const { channel, text } of openaiChat.readEvent(JSON.stringify(chunk)).parts) {
            if (channel === '0/text') said.text += text;
            if (channel === '0/reasoning/reasoning_content') said.reasoning += text;
          }
        }
        expect(said).toEqual({ text: saidBy(events).text, reasoning: saidBy(events).reasoning });
      }),
    );
  });

  test.each(fixtureNames('streams', 'openai').filter((name) => name !== 'error'))(
    'of OpenAI’s own says the same after the hub as the whole answer: %s',
    (name) => {
      const stream = written(readPieces(openReader('up'), [streamFixture('openai', name)]));
      const again = readPieces(openReader('up'), [Buffer.from(stream)]).filter(
        (e) => !('choice' in e) || e.choice === 0,
      );
      expect(saidBy(again)).toEqual(saidByReply(readChat(replyFixture('openai', name), 'up')));
    },
  );
});

describe('guards read', () => {
  const texts = (message: Json) => openaiChat.replySegments({ choices: [{ message }] }).map(({ text }) => text);

  test('thoughts wherever they stand, but no seals', () => {
    const details = [
      { type: 'reasoning.text', text: 'one', signature: 'c2ln', index: 0 },
      { type: 'reasoning.summary', summary: 'two' },
      { type: 'reasoning.encrypted', data: 'b3BhcXVl' },
    ];
    expect(texts({ reasoning_content: 'a', reasoning: 'b', reasoning_details: details })).toEqual([
      ...['a', 'b', 'one', 'two'],
    ]);
    expect(texts({ reasoning_details: 'odd', reasoning: { text: 'odd too' } })).toEqual(['odd too', 'odd']);
  });

  test('streamed thoughts, those of an index as one text, which comes back in their form', () => {
    const detail = { type: 'reasoning.text', text: 'one', format: 'x', index: 3 };
    const choices = [{ index: 0, delta: { reasoning_details: [detail, { data: 'b3BhcXVl' }, { other: ['odd'] }] } }];
    const { body, parts, bare } = openaiChat.readEvent(JSON.stringify({ id: 'c', choices }));
    expect(parts.map(({ channel, text }) => [channel, text])).toEqual([
      ['0/thought/3/text', 'one'],
      ['0/extra', 'odd'],
    ]);
    expect(bare).toBe(false);
    expect(openaiChat.textEvent(body!, '0/thought/3/text', 'rest')).toMatchObject({
      choices: [{ index: 0, delta: { reasoning_details: [{ type: 'reasoning.text', text: 'rest', index: 3 }] } }],
    });
    expect(openaiChat.textEvent(body!, '0/thought/1/summary', 'rest')).toMatchObject({
      choices: [{ delta: { reasoning_details: [{ type: 'reasoning.summary', summary: 'rest', index: 1 }] } }],
    });
  });

  test('fields that nobody knows, and the words of sounds', () => {
    expect(texts({ content: 'a', aside: { deep: ['b'] } })).toEqual(['a', 'b']);
    const audio = { id: 'audio_1', data: 'UklG', transcript: 'spoken', expires_at: 1741570283 };
    expect(openaiChat.replySegments({ choices: [{ message: { audio } }] })).toMatchObject([
      { channel: 'text', text: 'spoken' },
      { channel: 'media', text: 'UklG' },
    ]);
  });

  test('odd events and answers without a fault, and write into them what was changed', () => {
    const value = fc.jsonValue({ maxDepth: 1, depthSize: 'xsmall' });
    const few = { maxLength: 2 };
    const detail = fc.dictionary(fc.constantFrom('index', 'text', 'function', 'custom', 'signature'), value, {
      maxKeys: 3,
    });
    const delta = fc.dictionary(
      fc.constantFrom('content', 'reasoning_details', 'tool_calls', 'function_call', 'images', 'audio', 'role', 'odd'),
      fc.oneof(value, fc.array(detail, few)),
      { maxKeys: 3 },
    );
    const choice = fc.dictionary(
      fc.constantFrom('index', 'delta', 'message', 'finish_reason', 'logprobs', 'text'),
      fc.oneof(value, delta),
      { maxKeys: 4 },
    );
    const body = fc.dictionary(
      fc.constantFrom('choices', 'usage', 'error', 'model'),
      fc.oneof(value, fc.array(choice, few)),
      { maxKeys: 3 },
    );
    fc.assert(
      fc.property(body, (odd) => {
        orGatewayError(() => {
          const event = openaiChat.readEvent(JSON.stringify(odd));
          for (const part of event.parts) {
            part.set('changed');
            openaiChat.textEvent(event.body!, part.channel, 'changed');
          }
        });
        orGatewayError(() => {
          const copy = structuredClone(odd);
          const segments = openaiChat.replySegments(copy);
          openaiChat.replyTools(copy);
          openaiChat.replyFacts(copy);
          openaiChat.writeSegments(copy, new Map(segments.map(({ id }) => [id, 'changed'])));
          expect(openaiChat.replySegments(copy).every(({ text }) => text === 'changed')).toBe(true);
        });
      }),
      { numRuns: 1000 },
    );
  });

  test('what some servers put into the prompt beside the messages', () => {
    const body = {
      messages: [],
      documents: [{ source: { text: 'a' } }],
      chat_template: 'b',
      chat_template_kwargs: { x: 'c' },
    };
    expect(openaiChat.requestSegments(body).map(({ text }) => text)).toEqual(['a', 'b', 'c']);
  });
});
