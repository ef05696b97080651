/** No place of a request, an answer or an event hides text from the guards: every one of the fixtures' places is tried. */
import { describe, expect, test } from 'vitest';
import { anthropicMessages } from '../../../gateway/dialects/anthropic-messages/dialect.ts';
import type { ChatDialect, Json } from '../../../gateway/dialects/dialect.ts';
import { gemini } from '../../../gateway/dialects/gemini/dialect.ts';
import { openaiChat } from '../../../gateway/dialects/openai-chat/dialect.ts';
import { openaiResponses } from '../../../gateway/dialects/openai-responses/dialect.ts';
import { fixtureNames, replyFixture, requestFixture, streamFixture } from '../../support/fixture.ts';

/** What is put into each place, and what guards see of it. */
const SECRETS = [
  { what: 'a text', value: 'jane@example.org', seen: 'jane@example.org' },
  { what: 'a text in an object in a list', value: [{ inner: 'jane@example.org' }], seen: 'jane@example.org' },
  { what: 'a number', value: 4111111111111111, seen: '4111111111111111' },
];
type Secret = (typeof SECRETS)[number];

/** Names, settings, counts and seals: no words of anybody, and nothing that a guard could change. */
const NO_TEXT = {
  request: [
    /\/(?:type|id|role|name|call_id|tool_call_id|tool_use_id|status|signature|encrypted_content|detail|format)$/,
    /\/(?:media_type|mimeType|responseMimeType|reasoning_effort|service_tier|effort|user_id)$/,
    /^\/(?:model|metadata|tool_choice|toolConfig|thinking|reasoning|include|prompt_cache_key|cachedContent)(?:\/|$)/,
    /\/(?:stop|stop_sequences|stopSequences|thinkingConfig|cache_control|prompt_cache_breakpoint)(?:\/|$)/,
    // A sealed thought.
    /\/content\/\d+\/data$/,
  ],
  answer: [
    /\/(?:type|id|role|name|call_id|item_id|status|object|model|modelVersion|responseId|service_tier)$/,
    /\/(?:signature|encrypted_content|encrypted_index|content_block\/data|content\/\d+\/data|obfuscation|system_fingerprint)$/,
    /\/(?:finish_reason|finishReason|stop_reason|stop_sequence|truncation)$/,
    /\/(?:usage|usageMetadata|incomplete_details)(?:\/|$)/,
    // They go when the text that they repeat is changed.
    /\/(?:logprobs|logprobsResult)(?:\/|$)/,
    // What a response repeats of its request.
    /^(?:\/response)?\/(?:tools|tool_choice|text|reasoning|metadata)(?:\/|$)/,
  ],
};

/** A place in a body: an existing text, an end of a list, or a field that nobody knows. */
interface Place {
  path: string;
  put(body: Json, value: unknown): void;
}

function* placesOf(value: unknown, keys: string[] = []): Generator<Place> {
  const path = `/${keys.join('/')}`;
  if (typeof value === 'string') yield { path, put: (body, secret) => set(body, keys, secret) };
  if (typeof value !== 'object' || value === null) return;
  const added = [...keys, Array.isArray(value) ? `${value.length}` : 'nobody_knows'];
  yield {
    path: path === '/' ? `/${added.at(-1)}` : `${path}/${added.at(-1)}`,
    put: (body, secret) => set(body, added, secret),
  };
  for (const [key, inner] of Object.entries(value)) yield* placesOf(inner, [...keys, key]);
}

function set(body: Json, keys: string[], value: unknown): void {
  const holder = keys.slice(0, -1).reduce<Json>((at, key) => at[key] as Json, body);
  holder[keys.at(-1)!] = value;
}

/** The places of a body in which guards do not see a secret. A refusal is fine as well. */
function hidden(body: Json, kind: keyof typeof NO_TEXT, { value, seen }: Secret, textsOf: (body: Json) => string[]) {
  return [...placesOf(body)]
    .filter(({ path, put }) => {
      if (NO_TEXT[kind].some((pattern) => pattern.test(path))) return false;
      const changed = structuredClone(body);
      put(changed, value);
      return !textsOf(changed).some((text) => text.includes(seen));
    })
    .map(({ path }) => path);
}

/** What guards see; a body that is refused counts as seen whole. */
function orRefused(body: Json, read: () => string[]): string[] {
  try {
    return read();
  } catch (error) {
    expect(error).toMatchObject({ name: expect.stringMatching(/GatewayError|SyntaxError/) });
    return [JSON.stringify(body)];
  }
}

function requestTexts(dialect: ChatDialect, body: Json): string[] {
  return orRefused(body, () => {
    dialect.readRequest(body, { model: 'any' });
    return dialect.requestSegments(body).map(({ text }) => text);
  });
}

function replyTexts(dialect: ChatDialect, body: Json): string[] {
  return orRefused(body, () => dialect.replySegments(body).map(({ text }) => text));
}

/** An event that reports an error does not reach a client where guards are. */
function eventTexts(dialect: ChatDialect, data: Json): string[] {
  return orRefused(data, () => {
    const { parts, repeats, error, body, isTrimmed } = dialect.readEvent(JSON.stringify(data));
    if (error !== undefined) return [JSON.stringify(data)];
    const texts = [...parts, ...repeats].map(({ text }) => text);
    // What was taken out is seen by nobody.
    const isGone = isTrimmed && !SECRETS.some(({ seen }) => JSON.stringify(body).includes(seen));
    return isGone ? [JSON.stringify(data)] : texts;
  });
}

function eventsOf(stream: Buffer): Json[] {
  const data = [...stream.toString().matchAll(/^data: ?(.*?)\r?$/gm)].map(([, text]) => text!);
  return data.filter((text) => text !== '[DONE]').map((text) => JSON.parse(text) as Json);
}

describe.each([
  { dialect: openaiChat, vendors: ['openai', 'openrouter', 'perplexity', 'azure', 'groq'] },
  { dialect: openaiResponses, vendors: ['openai-responses'] },
  { dialect: anthropicMessages, vendors: ['anthropic'] },
  { dialect: gemini, vendors: ['gemini'] },
] as const)('$dialect.name', ({ dialect, vendors }) => {
  describe.each(SECRETS)('$what', (secret) => {
    test.each(fixtureNames('requests', dialect.name))('is seen wherever it stands in the request “%s”', (name) => {
      const body = requestFixture(dialect.name, name);
      expect(hidden(body, 'request', secret, (changed) => requestTexts(dialect, changed))).toEqual([]);
    });

    test.each(vendors)('is seen wherever it stands in an answer of %s', (vendor) => {
      for (const name of fixtureNames('replies', vendor)) {
        const body = replyFixture(vendor, name);
        expect(hidden(body, 'answer', secret, (changed) => replyTexts(dialect, changed))).toEqual([]);
      }
    });

    test.each(vendors)('is seen wherever it stands in an event of %s', (vendor) => {
      for (const name of fixtureNames('streams', vendor)) {
        for (const event of eventsOf(streamFixture(vendor, name))) {
          expect(hidden(event, 'answer', secret, (changed) => eventTexts(dialect, changed))).toEqual([]);
        }
      }
    });
  });
});

describe('texts that do not look like one', () => {
  const DOCUMENT = Buffer.from('Write to jane@example.org, grüße').toString('base64');

  test.each<[ChatDialect, Json]>([
    [
      openaiChat,
      { messages: [{ content: [{ type: 'file', file: { file_data: `data:text/plain;base64,${DOCUMENT}` } }] }] },
    ],
    [openaiChat, { messages: [{ content: [{ type: 'file', file: { file_data: 'data:,jane%40example.org' } }] }] }],
    [
      openaiResponses,
      { input: [{ role: 'user', content: [{ type: 'input_file', file_data: `data:text/csv;base64,${DOCUMENT}` }] }] },
    ],
    [
      anthropicMessages,
      {
        messages: [
          { content: [{ type: 'document', source: { type: 'base64', media_type: 'text/plain', data: DOCUMENT } }] },
        ],
      },
    ],
    [gemini, { contents: [{ parts: [{ inline_data: { mime_type: 'text/plain', data: DOCUMENT } }] }] }],
    [
      gemini,
      { contents: [{ parts: [{ functionResponse: { response: { 'jane@example.org': { '4111 1111': 1 } } } }] }] },
    ],
    [openaiChat, { messages: [], tools: [{ function: { parameters: { properties: { 'jane@example.org': {} } } } }] }],
  ])('are read, and masked in their place, in $0.name %#', ({ requestSegments, writeSegments }, body) => {
    const found = requestSegments(body).filter(({ channel, text }) => channel !== 'media' && /jane|4111/.test(text));
    expect(found.length).toBeGreaterThan(0);
    const masked = found.map(
      ({ id, text }) => [id, text.replace('jane@example.org', '***').replace('4111', '#')] as const,
    );
    writeSegments(body, new Map(masked));
    const again = requestSegments(body).filter(({ channel }) => channel !== 'media');
    expect(again.map(({ text }) => text).join()).not.toMatch(/jane|4111/);
    expect(again.map(({ text }) => text).join()).toContain('***');
  });

  test('keep every field when two of them get one name', () => {
    const body = { messages: [], tools: [{ args: { 'a@b.org': 1, city: 2, 'c@d.org': 3 } }] };
    const keys = openaiChat.requestSegments(body).filter(({ text }) => text.includes('@'));
    openaiChat.writeSegments(body, new Map(keys.map(({ id }) => [id, '***'])));
    expect(body.tools).toEqual([{ args: { '***': 1, city: 2, '***_': 3 } }]);
  });

  test('are no pictures, and no addresses', () => {
    const picture = { type: 'image_url', image_url: { url: 'data:image/png;base64,aGVsbG8=' } };
    const address = { type: 'image_url', image_url: { url: 'https://example.org/a.png' } };
    const segments = openaiChat.requestSegments({ messages: [{ role: 'user', content: [picture, address] }] });
    expect(segments.map(({ channel }) => channel)).toEqual(['media', 'media']);
  });
});
