/** The official Google client and Vercel's, unmodified, against the gateway: only the base URL is new. */
import { createGoogleGenerativeAI } from '@ai-sdk/google';
import { ApiError, FunctionCallingConfigMode, GoogleGenAI, ThinkingLevel } from '@google/genai';
import { embedMany, generateText, jsonSchema, streamText, tool } from 'ai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { startGateway, type TestGateway, testPlugin } from '../support/gateway.ts';

let simulator: Simulator;
let gateway: TestGateway;

/** Models by the way they are reached: through Google's own format, and through another. */
const NATIVE = 'gemini-3-flash';
const TRANSLATED = 'gpt-mini';
const VERTEX = 'gemini-vertex';
const MODELS = [NATIVE, TRANSLATED, VERTEX];

beforeAll(async () => {
  simulator = await startSimulator({ tokenDelayMs: 0, wrongKeys: ['bad'] });
  const refusing = testPlugin('refusing', {
    limit: () => ({ reject: { code: 'quota', message: 'Try again at noon.', headers: { 'retry-after': '7' } } }),
  });
  gateway = await startGateway(
    {
      providers: {
        google: { kind: 'gemini', baseUrl: `${simulator.url}/v1beta`, key: 'AIza-good' },
        keyless: { kind: 'gemini', baseUrl: `${simulator.url}/v1beta`, key: 'bad' },
        vertex: { kind: 'vertex', baseUrl: `${simulator.url}/v1`, project: 'p', location: 'eu', token: 'ya29.good' },
        openai: { kind: 'openai-compatible', baseUrl: `${simulator.url}/v1` },
      },
      models: {
        [NATIVE]: 'google',
        [TRANSLATED]: 'openai',
        [VERTEX]: { provider: 'vertex', model: NATIVE },
        keyless: 'keyless',
        'error-400': 'google',
      },
      plugins: {
        refusing: { at: 'local:refusing' },
        pii: { at: 'local:pii-guard', config: { rules: ['email'] } },
      },
      routes: { '/': {}, '/pii': { plugins: ['pii'] }, '/refusing': { plugins: ['refusing'] } },
    },
    { factories: [refusing] },
  );
});

afterAll(async () => {
  await gateway.stop();
  await simulator.close();
});

function client(route = ''): GoogleGenAI {
  return new GoogleGenAI({ apiKey: 'client-key', httpOptions: { baseUrl: gateway.url + route } });
}

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const one of source) all.push(one);
  return all;
}

const clock = {
  name: 'clock',
  description: 'The time.',
  parametersJsonSchema: { type: 'object', properties: { zone: { type: 'string' } } },
};

describe.each(['', '/pii'])('on the route “%s”', (route) => {
  describe.each(MODELS)('the model %s', (model) => {
    test('S1-24: answers whole and as a stream', async () => {
      const ai = client(route);
      const whole = await ai.models.generateContent({ model, contents: 'Good morning' });
      expect(whole.text).toBe('You said: Good morning');
      expect(whole.candidates?.[0]?.finishReason).toBe('STOP');
      expect(whole.usageMetadata).toMatchObject({ promptTokenCount: 3, totalTokenCount: expect.any(Number) });
      expect(whole.modelVersion).toEqual(expect.any(String));
      const chunks = await collect(await ai.models.generateContentStream({ model, contents: 'Good morning' }));
      expect(chunks.map(({ text }) => text).join('')).toBe('You said: Good morning');
      expect(chunks.length).toBeGreaterThan(2);
      expect(chunks.at(-1)).toMatchObject({ candidates: [{ finishReason: 'STOP' }] });
      expect(chunks.at(-1)?.usageMetadata?.totalTokenCount).toBeGreaterThan(3);
    });

    test('reads instructions, and stops where it is told', async () => {
      const config = { systemInstruction: 'Be kind.', stopSequences: ['three'], temperature: 0.5 };
      const whole = await client(route).models.generateContent({ model, contents: 'one two three four', config });
      expect(whole.text).toBe('You said: one two ');
      const short = await client(route).models.generateContent({
        model,
        contents: 'Hello',
        config: { maxOutputTokens: 2 },
      });
      expect(short.candidates?.[0]?.finishReason).toBe('MAX_TOKENS');
    });

    test('calls a tool and reads its result, over two turns', async () => {
      const ai = client(route);
      const config = { tools: [{ functionDeclarations: [clock] }] };
      const asked = { role: 'user', parts: [{ text: 'call tool clock' }] };
      const whole = await ai.models.generateContent({ model, contents: [asked], config });
      const [call] = whole.functionCalls ?? [];
      expect(call).toMatchObject({ name: 'clock', args: { zone: 'call tool clock' } });
      const answered = { functionResponse: { id: call?.id, name: 'clock', response: { output: 'noon' } } };
      const contents = [asked, whole.candidates![0]!.content!, { role: 'user', parts: [answered] }];
      const next = await ai.models.generateContent({ model, contents, config });
      expect(next.text).toBe('The tool returned: noon');
      const chunks = await collect(await ai.models.generateContentStream({ model, contents: [asked], config }));
      expect(chunks.flatMap((chunk) => chunk.functionCalls ?? [])).toMatchObject([
        { name: 'clock', args: { zone: 'call tool clock' } },
      ]);
    });

    test('must call a tool where it is told to', async () => {
      const toolConfig = {
        functionCallingConfig: { mode: FunctionCallingConfigMode.ANY, allowedFunctionNames: ['clock'] },
      };
      const config = { tools: [{ functionDeclarations: [{ name: 'other' }, clock] }], toolConfig };
      const whole = await client(route).models.generateContent({ model, contents: 'now', config });
      expect(whole.functionCalls).toMatchObject([{ name: 'clock', args: { zone: 'now' } }]);
    });

    test('keeps a chat, whose history it sends back', async () => {
      const chat = client(route).chats.create({ model });
      const chunks = await collect(await chat.sendMessageStream({ message: 'one' }));
      expect(chunks.map(({ text }) => text).join('')).toBe('You said: one');
      expect((await chat.sendMessage({ message: 'two' })).text).toBe('You said: two');
      expect(chat.getHistory(true).at(-1)).toMatchObject({ role: 'model', parts: [{ text: 'You said: two' }] });
    });

    test('thinks where it is told to', async () => {
      const thinkingConfig = { includeThoughts: true, thinkingLevel: ThinkingLevel.LOW };
      const { candidates } = await client(route).models.generateContent({
        model,
        contents: 'Hi',
        config: { thinkingConfig },
      });
      expect(candidates?.[0]?.content?.parts?.[0]).toMatchObject({ thought: true, text: expect.any(String) });
    });

    test('writes JSON by a schema', async () => {
      const config = {
        responseMimeType: 'application/json',
        responseJsonSchema: { type: 'object', properties: { said: { type: 'string' } } },
      };
      const { text } = await client(route).models.generateContent({ model, contents: 'Hi', config });
      expect(JSON.parse(text ?? '')).toEqual({ said: 'Hi' });
    });

    test('counts tokens', async () => {
      expect((await client(route).models.countTokens({ model, contents: 'Good morning' })).totalTokens).toBeGreaterThan(
        1,
      );
    });

    test('gives vectors', async () => {
      const { embeddings } = await client(route).models.embedContent({
        model,
        contents: ['a', 'b'],
        config: { outputDimensionality: 8 },
      });
      expect(embeddings?.map(({ values }) => values?.length)).toEqual([8, 8]);
    });
  });
});

test('what a guard masks, the model never sees', async () => {
  for (const model of MODELS) {
    const { text } = await client('/pii').models.generateContent({ model, contents: 'I am jo@example.com' });
    expect(text).not.toContain('jo@example.com');
    const chunks = await collect(
      await client('/pii').models.generateContentStream({ model, contents: 'I am jo@example.com' }),
    );
    expect(chunks.map((chunk) => chunk.text).join('')).toBe(text);
  }
});

test('models are listed, and looked up', async () => {
  const models = await collect(await client().models.list());
  expect(models.map(({ name }) => name)).toEqual([...MODELS, 'keyless', 'error-400'].map((name) => `models/${name}`));
  expect(await client().models.get({ model: NATIVE })).toMatchObject({ name: `models/${NATIVE}` });
});

describe('an error', () => {
  const thrown = async (call: Promise<unknown>): Promise<ApiError> =>
    call.then(
      () => Promise.reject(new Error('it was not refused')),
      (error: unknown) => {
        if (error instanceof ApiError) return error;
        throw error;
      },
    );

  test.each([
    ['an unknown model', '', { model: 'nobody', contents: 'Hi' }, 404, 'NOT_FOUND'],
    ['a used-up quota', '/refusing', { model: NATIVE, contents: 'Hi' }, 429, 'RESOURCE_EXHAUSTED'],
    ['the gateway’s bad key', '', { model: 'keyless', contents: 'Hi' }, 502, 'UNAVAILABLE'],
    ['what Google refuses', '', { model: 'error-400', contents: 'Hi' }, 400, 'INVALID_ARGUMENT'],
    [
      'a field that the provider has no word for',
      '',
      { model: TRANSLATED, contents: 'Hi', config: { cachedContent: 'cachedContents/1' } },
      400,
      'INVALID_ARGUMENT',
    ],
  ])('for %s is Google’s', async (_, route, request, status, word) => {
    const error = await thrown(client(route).models.generateContent(request));
    expect(error.status).toBe(status);
    expect(JSON.parse(error.message)).toMatchObject({ error: { code: status, status: word } });
    const streamed = await thrown(client(route).models.generateContentStream(request));
    expect(streamed.status).toBe(status);
  });

  test('names the field that was not translated', async () => {
    const config = { safetySettings: [{ category: 'HARM_CATEGORY_HARASSMENT', threshold: 'OFF' }] } as never;
    const error = await thrown(client().models.generateContent({ model: TRANSLATED, contents: 'Hi', config }));
    expect(error.message).toContain('`safetySettings`');
    await client().models.generateContent({ model: NATIVE, contents: 'Hi', config });
  });
});

describe.each(MODELS)('Vercel’s client and the model %s', (name) => {
  const google = () => createGoogleGenerativeAI({ baseURL: `${gateway.url}/v1beta`, apiKey: 'client-key' });

  test('answer whole and as a stream', async () => {
    const whole = await generateText({ model: google()(name), prompt: 'Good morning', system: 'Be kind.' });
    expect([whole.text, whole.finishReason]).toEqual(['You said: Good morning', 'stop']);
    const stream = streamText({ model: google()(name), prompt: 'Good morning' });
    expect((await collect(stream.textStream)).join('')).toBe('You said: Good morning');
    expect((await stream.usage).totalTokens).toBeGreaterThan(3);
  });

  test('call a tool', async () => {
    const tools = {
      clock: tool({
        inputSchema: jsonSchema<{ zone: string }>({ type: 'object', properties: { zone: { type: 'string' } } }),
      }),
    };
    const { toolCalls } = await generateText({ model: google()(name), prompt: 'call tool clock', tools });
    expect(toolCalls).toMatchObject([{ toolName: 'clock', input: { zone: 'call tool clock' } }]);
  });

  test('give vectors', async () => {
    const { embeddings } = await embedMany({ model: google().embedding(name), values: ['a', 'b'] });
    expect(embeddings).toHaveLength(2);
  });
});
