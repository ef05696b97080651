import { type FunctionDeclaration, GoogleGenAI, type Part, Type } from '@google/genai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { send } from '../support/client.ts';

let simulator: Simulator;
let google: GoogleGenAI;

beforeAll(async () => {
  simulator = await startSimulator({ tokenDelayMs: 0, wrongKeys: ['wrong'] });
  google = client('any');
});
afterAll(() => simulator.close());

function client(apiKey: string): GoogleGenAI {
  return new GoogleGenAI({ apiKey, httpOptions: { baseUrl: simulator.url } });
}

const MODEL = 'gemini-2.5-flash';
const search: FunctionDeclaration = {
  name: 'search_documents',
  parameters: { type: Type.OBJECT, properties: { limit: { type: Type.NUMBER }, query: { type: Type.STRING } } },
};
const clock: FunctionDeclaration = { name: 'clock' };
const tools = [{ functionDeclarations: [search, clock] }];

async function collected(stream: AsyncIterable<unknown>) {
  const chunks: unknown[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks as Awaited<ReturnType<GoogleGenAI['models']['generateContent']>>[];
}

describe('the official client', () => {
  test('reads a whole answer', async () => {
    const answer = await google.models.generateContent({ model: MODEL, contents: 'Hello there, world' });
    expect(answer.text).toBe('You said: Hello there, world');
    expect(answer.candidates).toMatchObject([{ finishReason: 'STOP', content: { role: 'model' }, index: 0 }]);
    expect(answer.usageMetadata).toMatchObject({ promptTokenCount: 5, candidatesTokenCount: 7, totalTokenCount: 12 });
    expect(answer).toMatchObject({ modelVersion: MODEL, responseId: expect.any(String) });
  });

  test('reads a stream whose every chunk has the usage so far', async () => {
    const stream = await google.models.generateContentStream({ model: MODEL, contents: 'Hello there, world' });
    const chunks = await collected(stream);
    expect(chunks.map(({ text }) => text ?? '')).toEqual(['You ', 'said: ', 'Hello ', 'there, ', 'world', '']);
    expect(chunks.map(({ usageMetadata }) => usageMetadata?.candidatesTokenCount)).toEqual([1, 3, 4, 6, 7, 7]);
    expect(chunks.map(({ candidates }) => candidates?.[0]?.finishReason)).toEqual([
      ...Array(5).fill(undefined),
      'STOP',
    ]);
  });

  test('calls two functions at once, and sends their results back', async () => {
    const contents = [{ role: 'user', parts: [{ text: 'call all tools' }] }];
    const answer = await google.models.generateContent({ model: 'gemini-3-pro', contents, config: { tools } });
    expect(answer.functionCalls).toEqual([
      { name: 'search_documents', args: { query: 'call all tools' } },
      { name: 'clock', args: { text: 'call all tools' } },
    ]);
    expect(answer.candidates?.[0]?.finishReason).toBe('STOP');
    const results = ['one', 'two'].map((result, at) => {
      return { functionResponse: { name: answer.functionCalls?.[at]?.name, response: { result } } };
    });
    const next = (parts: Part[]) => {
      const replayed = [...contents, { role: 'model', parts }, { role: 'user', parts: results }];
      return google.models.generateContent({ model: 'gemini-3-pro', contents: replayed, config: { tools } });
    };
    const said = answer.candidates?.[0]?.content?.parts as Part[];
    expect((await next(said)).text).toBe('The tool returned: one\ntwo');
    await expect(next([{ functionCall: said[0]?.functionCall }, said[1]!])).rejects.toThrow(/thought_signature/);
    await expect(next([{ ...said[0], thoughtSignature: 'forged' }, said[1]!])).rejects.toThrow(/not valid/);
    const skipping = { ...said[0], thoughtSignature: 'skip_thought_signature_validator' };
    expect((await next([skipping, said[1]!])).text).toBe('The tool returned: one\ntwo');
    await expect(next([said[0]!])).rejects.toThrow(/follows no call/);
  });

  test('calls a function in a stream, whole in one chunk', async () => {
    const stream = await google.models.generateContentStream({
      model: MODEL,
      contents: 'call tool',
      config: { tools },
    });
    const calls = (await collected(stream)).flatMap(({ functionCalls }) => functionCalls ?? []);
    expect(calls).toEqual([{ name: 'search_documents', args: { query: 'call tool' } }]);
  });

  test('may call only functions that are allowed', async () => {
    const functionCallingConfig = { mode: 'ANY' as never, allowedFunctionNames: ['clock'] };
    const config = { tools, toolConfig: { functionCallingConfig } };
    const answer = await google.models.generateContent({ model: MODEL, contents: 'hi', config });
    expect(answer.functionCalls?.map(({ name }) => name)).toEqual(['clock']);
  });

  test('sees thoughts when it asks for them; they are counted beside the candidates', async () => {
    const config = { thinkingConfig: { includeThoughts: true } };
    const answer = await google.models.generateContent({ model: MODEL, contents: 'hi', config });
    expect(answer.candidates?.[0]?.content?.parts).toEqual([
      { text: 'The user wants an answer to: hi', thought: true },
      { text: 'You said: hi' },
    ]);
    expect(answer.usageMetadata).toMatchObject({ candidatesTokenCount: 3, thoughtsTokenCount: 8, totalTokenCount: 12 });
    const chunks = await collected(await google.models.generateContentStream({ model: MODEL, contents: 'hi', config }));
    const thoughts = chunks
      .flatMap(({ candidates }) => candidates?.[0]?.content?.parts ?? [])
      .filter(({ thought }) => thought);
    expect(thoughts.map(({ text }) => text).join('')).toBe('The user wants an answer to: hi');
    const counts = chunks.map(({ usageMetadata }) => usageMetadata?.candidatesTokenCount ?? 0);
    expect(counts).toEqual([...thoughts.map(() => 0), 1, 3, 3, 3]);
  });

  test('reads why an answer ended, or why there is none', async () => {
    const finish = async (contents: string, config = {}) => {
      const { candidates, promptFeedback } = await google.models.generateContent({ model: MODEL, contents, config });
      return candidates?.[0]?.finishReason ?? promptFeedback?.blockReason;
    };
    expect(await finish('hello', { maxOutputTokens: 2 })).toBe('MAX_TOKENS');
    expect(await finish('please refuse to answer')).toBe('SAFETY');
    const blocked = await google.models.generateContent({ model: MODEL, contents: 'block this prompt' });
    expect([blocked.candidates, blocked.promptFeedback?.blockReason]).toEqual([undefined, 'SAFETY']);
  });

  test('reads JSON, several candidates and what the answer rests on', async () => {
    const json = await google.models.generateContent({
      model: MODEL,
      contents: 'hi',
      config: { responseMimeType: 'application/json' },
    });
    expect(JSON.parse(json.text ?? '')).toEqual({ said: 'hi' });
    const two = await google.models.generateContent({
      model: MODEL,
      contents: 'cite a source',
      config: { candidateCount: 2 },
    });
    expect(two.candidates?.map(({ index }) => index)).toEqual([0, 1]);
    expect(two.candidates?.[0]?.groundingMetadata?.groundingChunks).toEqual([
      { web: { uri: 'https://example.com/source', title: 'A simulated source' } },
    ]);
  });

  test('counts tokens, embeds and lists models', async () => {
    expect(await google.models.countTokens({ model: MODEL, contents: 'twelve chars' })).toMatchObject({
      totalTokens: 3,
    });
    const { embeddings } = await google.models.embedContent({
      model: 'gemini-embedding-001',
      contents: ['one', 'two', 'one'],
      config: { outputDimensionality: 16 },
    });
    const [one, two, again] = embeddings?.map(({ values }) => values) ?? [];
    expect(one).toHaveLength(16);
    expect(again).toEqual(one);
    expect(two).not.toEqual(one);
    const models = await google.models.list();
    expect(models.page.map(({ name }) => name)).toEqual(['models/simulated']);
  });
});

describe('the wire', () => {
  const contents = [{ role: 'user', parts: [{ text: 'one two' }] }];
  const headers = { 'x-goog-api-key': 'any' };
  const post = (path: string, body: object = { contents }, sent: Record<string, string> = headers) => {
    return send(simulator.url + path, { body, headers: sent });
  };

  test('without alt=sse is one JSON array', async () => {
    const response = await post(`/v1beta/models/${MODEL}:streamGenerateContent`);
    expect(response.header('content-type')).toBe('application/json');
    const chunks = await response.json<{ candidates: { content: { parts: { text: string }[] } }[] }[]>();
    expect(chunks.map(({ candidates }) => candidates[0]?.content.parts[0]?.text).join('')).toBe('You said: one two');
  });

  test('at Vertex has the same answers, for who has a token', async () => {
    const path = `/v1/projects/p/locations/us-central1/publishers/google/models/${MODEL}`;
    const token = { authorization: 'Bearer any' };
    expect(await (await post(`${path}:generateContent`, { contents }, token)).json()).toMatchObject({
      modelVersion: MODEL,
    });
    expect(await (await post(`${path}:streamGenerateContent?alt=sse`, { contents }, token)).text()).toMatch(
      /^data: \{/,
    );
    const predicted = await (await post(`${path}:predict`, { instances: [{ content: 'one' }] }, token)).json();
    expect(predicted).toMatchObject({
      predictions: [{ embeddings: { statistics: { token_count: 1, truncated: false } } }],
    });
    const refused = await post(`${path}:generateContent`);
    expect([refused.status, await refused.json()]).toMatchObject([401, { error: { status: 'UNAUTHENTICATED' } }]);
  });

  test('has errors in Google’s shape', async () => {
    const bare = await post(`/v1beta/models/${MODEL}:generateContent`, { contents }, {});
    expect([bare.status, await bare.json()]).toMatchObject([
      403,
      { error: { code: 403, status: 'PERMISSION_DENIED' } },
    ]);
    const wrong = await post(`/v1beta/models/${MODEL}:generateContent?key=wrong`, { contents }, {});
    expect([wrong.status, await wrong.json()]).toMatchObject([
      400,
      { error: { status: 'INVALID_ARGUMENT', details: [{ reason: 'API_KEY_INVALID' }] } },
    ]);
    const unknown = await post(`/v1beta/models/${MODEL}:generateContent`, { contents, messages: [] });
    expect([unknown.status, await unknown.json()]).toMatchObject([400, { error: { status: 'INVALID_ARGUMENT' } }]);
  });

  test('tells in the body when to try again', async () => {
    const response = await post(`/v1beta/models/${MODEL}~status=429;retry-after=7:generateContent`);
    expect([response.status, await response.json()]).toMatchObject([
      429,
      { error: { status: 'RESOURCE_EXHAUSTED', details: [{ retryDelay: '7s' }] } },
    ]);
  });
});
