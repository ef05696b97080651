import { describe, expect, test } from 'vitest';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { FEATURES, type Feature, HINTS } from '../../../gateway/hub/features.ts';
import type { HubEvent } from '../../../gateway/hub/reply.ts';
import type { HubPart, HubRequest } from '../../../gateway/hub/request.ts';
import { PRESETS } from '../../../gateway/providers/openai-compatible/presets.ts';
import { openaiCompatible } from '../../../gateway/providers/openai-compatible/provider.ts';
import type { ChatEndpoint, Provider } from '../../../gateway/providers/provider.ts';
import { cutAt } from '../../support/cuts.ts';
import { fixtureNames, streamFixture } from '../../support/fixture.ts';
import { errorOf, hubRequest, readPieces, says } from '../../support/hub.ts';
import { saidBy } from '../../support/hub-events.ts';

function made(kind: string, more: Json = {}): Provider {
  return openaiCompatible.make('up', {
    kind,
    baseUrl: PRESETS[kind]?.baseUrl === undefined ? 'http://server:8000/v1' : undefined,
    timeouts: { connect: 1, firstByte: 1, idle: 1 },
    streamUsage: true,
    unmapped: 'refuse',
    ...more,
  });
}

function chatOf(kind: string): ChatEndpoint {
  return made(kind).endpoints.chat[0] as ChatEndpoint;
}

function written(kind: string, more: Partial<HubRequest> = {}, stream = false): Json {
  return chatOf(kind).write(hubRequest(more), { model: 'm', stream });
}

function streamed(name: string): HubEvent[] {
  return readPieces(chatOf('openai-compatible').openReader(), [streamFixture('openai-compatible', name)]);
}

const WEATHER = (city: string) => ({ name: 'get_weather', arguments: { city } });
const KINDS = Object.keys(PRESETS);

describe('S3-21: presets', () => {
  test.each([
    ['groq', 'https://api.groq.com', '/openai/v1/chat/completions', 'groq'],
    ['mistral', 'https://api.mistral.ai', '/v1/chat/completions', 'mistral_ai'],
    ['deepseek', 'https://api.deepseek.com', '/v1/chat/completions', 'deepseek'],
    ['together', 'https://api.together.xyz', '/v1/chat/completions', 'together'],
    ['fireworks', 'https://api.fireworks.ai', '/inference/v1/chat/completions', 'fireworks'],
    ['openrouter', 'https://openrouter.ai', '/api/v1/chat/completions', 'openrouter'],
    ['xai', 'https://api.x.ai', '/v1/chat/completions', 'x_ai'],
    ['cerebras', 'https://api.cerebras.ai', '/v1/chat/completions', 'cerebras'],
    ['perplexity', 'https://api.perplexity.ai', '/chat/completions', 'perplexity'],
    ['deepinfra', 'https://api.deepinfra.com', '/v1/openai/chat/completions', 'deepinfra'],
    ['ollama', 'http://127.0.0.1:11434', '/v1/chat/completions', 'ollama'],
    ['vllm', 'http://server:8000', '/v1/chat/completions', 'vllm'],
    ['triton', 'http://server:8000', '/v1/chat/completions', 'triton'],
    ['openai-compatible', 'http://server:8000', '/v1/chat/completions', 'custom'],
  ])('%s lives at its vendor’s address', (kind, origin, path, telemetryName) => {
    const provider = made(kind);
    expect(provider).toMatchObject({ origin, telemetryName });
    expect(provider.endpoints.chat[0]!.path({ model: 'm', stream: true })).toBe(path);
    expect(KINDS).toHaveLength(14);
  });

  test.each(KINDS)('%s decides on every feature, and leaves out hints alone', (kind) => {
    const { supports } = chatOf(kind);
    expect(Object.keys(supports).sort()).toEqual(Object.keys(FEATURES).sort());
    const leftOut = (Object.keys(supports) as Feature[]).filter((feature) => supports[feature] === 'left out');
    expect(leftOut.filter((feature) => !HINTS.has(feature))).toEqual([]);
  });

  test.each(KINDS)('%s goes on from a prefix where it says so, and only there', (kind) => {
    const { prefill, supports } = chatOf(kind);
    expect(supports.prefill.startsWith('mapped')).toBe(prefill !== 'no');
  });

  test('a bound of the answer goes where all of them look for it', () => {
    for (const kind of KINDS) expect(written(kind, { maxOutputTokens: 5 }).max_tokens).toBe(5);
  });
});

describe('what servers name otherwise', () => {
  const prefix = { messages: [says('user', 'Count.'), says('assistant', 'One,')] };
  const call: HubPart = { type: 'tool-call', id: 'toolu_01ABC', name: 'f', arguments: '{}' };
  const result: HubPart = { type: 'tool-result', id: 'toolu_01ABC', parts: [] };

  test('Mistral: the seed, a prefix, ids of calls, and no question for usage', () => {
    const body = written('mistral', { ...prefix, seed: 3 }, true);
    expect(body).toMatchObject({ random_seed: 3, stream: true });
    expect(body).not.toHaveProperty('seed');
    expect(body).not.toHaveProperty('stream_options');
    expect((body.messages as Json[]).at(-1)).toEqual({ role: 'assistant', content: 'One,', prefix: true });
    expect(made('mistral').streamUsage).toBe(false);
    const { messages } = written('mistral', { messages: [says('assistant', call), says('tool', result)] });
    const [asked, answered] = messages as [{ tool_calls: { id: string }[] }, { tool_call_id: string }];
    expect(asked.tool_calls[0]!.id).toMatch(/^[a-z0-9]{9}$/);
    expect(answered.tool_call_id).toBe(asked.tool_calls[0]!.id);
    const passing: Json = { model: 'm', stream: true, stream_options: { include_usage: true } };
    chatOf('mistral').adapt!(passing, { model: 'm', stream: true });
    expect(passing).toEqual({ model: 'm', stream: true });
  });

  test('vLLM: a prefix', () => {
    expect(written('vllm', prefix)).toMatchObject({ continue_final_message: true, add_generation_prompt: false });
    expect(written('vllm')).not.toHaveProperty('continue_final_message');
    expect(written('vllm', { messages: [says('assistant', call)] })).not.toHaveProperty('continue_final_message');
  });

  test('OpenRouter: thoughts, wanted and sent back with their seals', () => {
    const used = new Map([['reasoning', 'thinking'] as const]);
    const wish = (reasoning: HubRequest['reasoning']) => written('openrouter', { reasoning, used });
    expect(wish({ budget: 2000, shown: false }).reasoning).toEqual({ max_tokens: 2000, exclude: true });
    expect(wish({ effort: 'high' }).reasoning).toEqual({ effort: 'high' });
    expect(wish({ off: true }).reasoning).toEqual({ effort: 'none' });
    expect(wish({ effort: 'high' })).not.toHaveProperty('reasoning_effort');
    const thoughts: HubPart[] = [
      { type: 'reasoning', text: 'Hm', signature: 'c2lnbmVk' },
      { type: 'reasoning', text: '', redacted: 'b3BhcXVl' },
    ];
    expect(written('openrouter', { messages: [says('assistant', ...thoughts, 'Yes')] }).messages).toEqual([
      {
        role: 'assistant',
        content: 'Yes',
        reasoning_details: [
          { type: 'reasoning.text', text: 'Hm', signature: 'c2lnbmVk', index: 0 },
          { type: 'reasoning.encrypted', data: 'b3BhcXVl', index: 1 },
        ],
      },
    ]);
  });

  test('DeepSeek: a prefix, at the address of its beta alone', () => {
    const beta = made('deepseek', { baseUrl: 'https://api.deepseek.com/beta/' }).endpoints.chat[0]!;
    expect([beta.prefill, chatOf('deepseek').prefill]).toEqual(['yes', 'no']);
    expect(beta.supports.prefill).toContain('mapped');
    const body = beta.write(hubRequest(prefix), { model: 'm', stream: false });
    expect((body.messages as Json[]).at(-1)).toMatchObject({ content: 'One,', prefix: true });
  });

  test('DeepSeek: earlier thoughts', () => {
    const messages = [says('assistant', { type: 'reasoning', text: 'Hm' }, 'Yes'), says('user', 'Sure?')];
    expect(written('deepseek', { messages }).messages).toEqual([
      { role: 'assistant', content: 'Yes', reasoning_content: 'Hm' },
      { role: 'user', content: 'Sure?' },
    ]);
  });

  test('Gemini’s compatible endpoint: the seal of a tool call', () => {
    const messages = [says('assistant', { ...call, signature: 'c2VhbA==' })];
    expect(written('openai-compatible', { messages }).messages).toMatchObject([
      { tool_calls: [{ extra_content: { google: { thought_signature: 'c2VhbA==' } } }] },
    ]);
  });
});

describe('what servers answer otherwise', () => {
  test('Azure’s first chunk begins nothing, and its filters’ chunks say nothing', () => {
    const events = streamed('azure');
    expect(events[0]).toEqual({ type: 'start', id: 'c-1', model: 'm', created: 1741570283 });
    expect(saidBy(events)).toMatchObject({
      text: 'Hello',
      finish: 'content-filter',
      usage: { inputTokens: 9, outputTokens: 1 },
      hasEnded: true,
    });
  });

  test('thoughts stand in reasoning_content, in reasoning_details or in parts', () => {
    expect(saidBy(streamed('deepseek'))).toMatchObject({
      reasoning: 'Hm.',
      text: 'Yes',
      usage: { inputTokens: 5, outputTokens: 3, cachedInputTokens: 4, reasoningTokens: 2 },
    });
    expect(saidBy(streamed('openrouter'))).toMatchObject({
      reasoning: 'Hm',
      signatures: ['c2lnbmVk'],
      redacted: ['b3BhcXVl'],
      text: 'Yes',
    });
    expect(saidBy(streamed('mistral'))).toMatchObject({ reasoning: 'Hm', text: 'Yes' });
  });

  test.each(['whole-calls', 'no-index', 'index-zero'])('two calls are two calls: %s', (name) => {
    const said = saidBy(streamed(name));
    expect(said.calls.map(({ id: _id, ...call }) => call)).toEqual([WEATHER('Paris'), WEATHER('Rome')]);
    expect(said.calls.map(({ id }) => id)).toEqual(['call_1', 'call_2']);
    // Some of them say `stop` all the same.
    expect(said.finish).toBe('tool-calls');
  });

  test('Google’s seal comes with its call', () => {
    expect(streamed('index-zero')).toContainEqual(
      expect.objectContaining({ type: 'tool-call', id: 'call_1', signature: 'c2VhbA==' }),
    );
  });

  test('the usage may stand in a place of the vendor’s own, and in every chunk', () => {
    expect(saidBy(streamed('groq')).usage).toEqual({ inputTokens: 3, outputTokens: 1 });
    const perplexity = saidBy(streamed('perplexity'));
    expect(perplexity).toMatchObject({ usage: { inputTokens: 4, outputTokens: 2 }, hasEnded: true });
  });

  test('Perplexity’s sources are told once', () => {
    const citations = streamed('perplexity').filter(({ type }) => type === 'citation');
    expect(citations).toEqual([
      { type: 'citation', choice: 0, citation: { url: 'https://example.com/faust', title: 'Faust' } },
    ]);
    const message = { content: 'Goethe.' };
    const body = { citations: ['https://example.com/faust'], choices: [{ message, finish_reason: 'stop' }] };
    expect(chatOf('perplexity').read(body).choices[0]!.parts).toEqual([
      { type: 'text', text: 'Goethe.', citations: [{ url: 'https://example.com/faust' }] },
    ]);
  });

  test('vLLM tells which sequence ended the answer', () => {
    expect(saidBy(streamed('vllm-stop'))).toMatchObject({ finish: 'stop-sequence', stopSequence: 'END' });
  });

  test('an error may stand alone, or beside a choice', () => {
    expect(errorOf(streamed('error-object'))).toMatchObject({ code: 'upstream_overloaded' });
    expect(errorOf(streamed('error-choice'))).toMatchObject({ code: 'upstream_rate_limited' });
  });

  test.each(fixtureNames('streams', 'openai-compatible'))('says the same wherever it is cut: %s', (name) => {
    const bytes = streamFixture('openai-compatible', name);
    const expected = streamed(name);
    for (let at = 1; at < bytes.length; at += 1) {
      expect(readPieces(chatOf('openai-compatible').openReader(), cutAt([at])(bytes))).toEqual(expected);
    }
  });

  test('arguments may be an object, and content a list, in a whole answer as well', () => {
    const message = {
      content: [
        { type: 'thinking', thinking: [{ type: 'text', text: 'Hm' }] },
        { type: 'text', text: 'Yes' },
      ],
      tool_calls: [{ id: 'c', function: { name: 'f', arguments: { a: 1 } } }],
    };
    expect(chatOf('mistral').read({ choices: [{ message, finish_reason: 'stop' }] }).choices).toEqual([
      {
        index: 0,
        finish: 'tool-calls',
        parts: [
          { type: 'reasoning', text: 'Hm' },
          { type: 'text', text: 'Yes' },
          { type: 'tool-call', id: 'c', name: 'f', arguments: '{"a":1}' },
        ],
      },
    ]);
  });
});
