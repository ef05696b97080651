import {
  BedrockRuntimeClient,
  type BedrockRuntimeClientConfig,
  type ContentBlock,
  ConverseCommand,
  type ConverseCommandInput,
  ConverseStreamCommand,
  type ConverseStreamOutput,
  CountTokensCommand,
  InvokeModelCommand,
  type Message,
  ModelStreamErrorException,
  ThrottlingException,
} from '@aws-sdk/client-bedrock-runtime';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { overHttp1 } from '../support/aws-http1.ts';
import { send } from '../support/client.ts';

const SECRET = { accessKeyId: 'AKIDSIMULATED', secretAccessKey: 'a/secret+of/the=test' };
/** A colon and a slash must be encoded in the path, and once more in what is signed. */
const MODEL = 'arn:aws:bedrock:us-east-1::inference-profile/global.anthropic.claude-sonnet-4-20250514-v1:0';

let simulator: Simulator;
let bedrock: BedrockRuntimeClient;

beforeAll(async () => {
  simulator = await startSimulator({
    tokenDelayMs: 0,
    wrongKeys: ['ABSKwrong'],
    awsSecrets: { [SECRET.accessKeyId]: SECRET.secretAccessKey },
  });
  bedrock = client({ credentials: SECRET });
});
afterAll(() => simulator.close());

function client(config: BedrockRuntimeClientConfig): BedrockRuntimeClient {
  const endpoint = { endpoint: simulator.url, requestHandler: overHttp1 };
  return new BedrockRuntimeClient({ region: 'us-east-1', maxAttempts: 1, ...endpoint, ...config });
}

const user = (...content: ContentBlock[]): Message => ({ role: 'user', content });
const ask = (text: string): ConverseCommandInput => ({ modelId: MODEL, messages: [user({ text })] });
const spec = (name: string, properties = {}) => {
  return { toolSpec: { name, inputSchema: { json: { type: 'object', properties } } } };
};
const toolConfig = { tools: [spec('search_documents', { query: { type: 'string' } }), spec('clock')] };

async function events(input: ConverseCommandInput): Promise<ConverseStreamOutput[]> {
  const { stream } = await bedrock.send(new ConverseStreamCommand(input));
  const all: ConverseStreamOutput[] = [];
  for await (const event of stream ?? []) all.push(event);
  return all;
}

describe('the official client', () => {
  test('reads a whole answer; its signature is verified', async () => {
    const answer = await bedrock.send(new ConverseCommand(ask('Hello there, world')));
    expect(answer).toMatchObject({
      output: { message: { role: 'assistant', content: [{ text: 'You said: Hello there, world' }] } },
      stopReason: 'end_turn',
      usage: { inputTokens: 5, outputTokens: 7, totalTokens: 12 },
      metrics: { latencyMs: expect.any(Number) },
    });
  });

  test('reads a stream, with the usage after the stop', async () => {
    const all = await events(ask('Hello there, world'));
    expect(all.map((event) => Object.keys(event)[0])).toEqual([
      'messageStart',
      ...Array.from({ length: 5 }, () => 'contentBlockDelta'),
      'contentBlockStop',
      'messageStop',
      'metadata',
    ]);
    const text = all.map(({ contentBlockDelta }) => contentBlockDelta?.delta?.text ?? '');
    expect(text.join('')).toBe('You said: Hello there, world');
    expect(all.at(-1)).toMatchObject({ metadata: { usage: { inputTokens: 5, outputTokens: 7, totalTokens: 12 } } });
  });

  test('calls two tools at once in a stream, in pieces', async () => {
    const all = await events({ ...ask('call all tools'), toolConfig });
    const starts = all.flatMap(({ contentBlockStart }) => contentBlockStart ?? []);
    expect(starts).toMatchObject([
      { contentBlockIndex: 0, start: { toolUse: { name: 'search_documents' } } },
      { contentBlockIndex: 1, start: { toolUse: { name: 'clock' } } },
    ]);
    const deltas = all.flatMap(({ contentBlockDelta }) => contentBlockDelta ?? []);
    const inputs = [0, 1].map((index) => {
      return deltas.filter(({ contentBlockIndex: at }) => at === index).map(({ delta }) => delta?.toolUse?.input);
    });
    expect(inputs.map((parts) => JSON.parse(parts.join('')))).toEqual([
      { query: 'call all tools' },
      { text: 'call all tools' },
    ]);
    expect(all.at(-2)).toEqual({ messageStop: { stopReason: 'tool_use' } });
  });

  test('calls a tool and sends its result back', async () => {
    const input = { ...ask('call tool'), toolConfig };
    const { output, stopReason } = await bedrock.send(new ConverseCommand(input));
    expect(stopReason).toBe('tool_use');
    const { toolUseId } = output?.message?.content?.[0]?.toolUse ?? {};
    const result = user({ toolResult: { toolUseId, content: [{ text: 'noon' }, { json: { zone: 'UTC' } }] } });
    const messages = [...input.messages!, output?.message as Message, result];
    const answer = await bedrock.send(new ConverseCommand({ ...input, messages }));
    expect(answer.output?.message?.content).toEqual([{ text: 'The tool returned: noon\n{"zone":"UTC"}' }]);
    await expect(bedrock.send(new ConverseCommand({ modelId: MODEL, messages }))).rejects.toThrow(/toolConfig/);
  });

  test('sees thoughts with a signature, and may send them back as they were only', async () => {
    const thinking = { additionalModelRequestFields: { thinking: { type: 'enabled', budget_tokens: 1024 } } };
    const { output } = await bedrock.send(new ConverseCommand({ ...ask('hi'), ...thinking }));
    const content = output?.message?.content as ContentBlock[];
    expect(content).toMatchObject([
      { reasoningContent: { reasoningText: { text: 'The user wants an answer to: hi' } } },
      { text: 'You said: hi' },
    ]);
    const next = (replayed: ContentBlock[]) => {
      const messages = [user({ text: 'hi' }), { role: 'assistant' as const, content: replayed }, user({ text: 'so' })];
      return bedrock.send(new ConverseCommand({ modelId: MODEL, messages }));
    };
    expect((await next(content)).output?.message?.content).toEqual([{ text: 'You said: so' }]);
    const forged = { reasoningContent: { reasoningText: { text: 'other', signature: 'forged' } } };
    await expect(next([forged as ContentBlock, content[1]!])).rejects.toThrow(/signature/);
    const streamed = await events({ ...ask('hi'), ...thinking });
    expect(streamed.map((event) => Object.keys(event)[0]).filter((name) => name === 'contentBlockStop')).toHaveLength(
      2,
    );
  });

  test('reads why an answer ended, citations, and a count of tokens', async () => {
    const stop = async (text: string, inferenceConfig = {}) => {
      return (await bedrock.send(new ConverseCommand({ ...ask(text), inferenceConfig }))).stopReason;
    };
    expect(await stop('hello', { maxTokens: 2 })).toBe('max_tokens');
    expect(await stop('one two', { stopSequences: ['two'] })).toBe('stop_sequence');
    expect(await stop('please refuse to answer')).toBe('content_filtered');
    expect(await stop('block this prompt')).toBe('guardrail_intervened');
    const cited = await bedrock.send(new ConverseCommand(ask('cite a source')));
    expect(cited.output?.message?.content?.[0]?.citationsContent?.citations).toMatchObject([
      { title: 'A simulated source' },
    ]);
    const counted = await bedrock.send(
      new CountTokensCommand({ modelId: MODEL, input: { converse: { messages: [user({ text: 'twelve chars' })] } } }),
    );
    expect(counted.inputTokens).toBe(3);
  });

  test('has texts embedded, as Titan and as Cohere do it', async () => {
    const invoke = async (body: object) => {
      const answer = await bedrock.send(new InvokeModelCommand({ modelId: MODEL, body: JSON.stringify(body) }));
      return JSON.parse(answer.body.transformToString()) as Record<string, unknown>;
    };
    const titan = await invoke({ inputText: 'twelve chars', dimensions: 4 });
    expect(titan).toEqual({ embedding: expect.any(Array), inputTextTokenCount: 3 });
    expect(titan.embedding).toHaveLength(4);
    const texts = { texts: ['twelve chars'], input_type: 'search_document', output_dimension: 4 };
    expect(await invoke(texts)).toMatchObject({ embeddings: [titan.embedding] });
    const byType = await invoke({ ...texts, embedding_types: ['float'] });
    expect(byType).toMatchObject({ embeddings: { float: [titan.embedding] }, response_type: 'embeddings_by_type' });
  });

  test('meets an exception in the middle of a stream', async () => {
    const failing = { ...ask('one two three four'), modelId: 'claude~error-after=3' };
    await expect(events(failing)).rejects.toThrow(ModelStreamErrorException);
    const throttled = { ...failing, modelId: 'claude~error-after=3;code=throttlingException' };
    await expect(events(throttled)).rejects.toThrow(ThrottlingException);
  });

  test('meets an error in place of an answer', async () => {
    const asked = bedrock.send(new ConverseCommand({ ...ask('hi'), modelId: 'error-429' }));
    await expect(asked).rejects.toThrow(ThrottlingException);
  });
});

describe('who is not let in', () => {
  test.each([
    ['a wrong secret', { credentials: { ...SECRET, secretAccessKey: 'wrong' } }, 'InvalidSignatureException'],
    ['an unknown id', { credentials: { ...SECRET, accessKeyId: 'AKIDOTHER' } }, 'UnrecognizedClientException'],
    [
      'a wrong bearer key',
      { token: { token: 'ABSKwrong' }, authSchemePreference: ['httpBearerAuth'] },
      'AccessDeniedException',
    ],
  ])('%s', async (_, config, name) => {
    await expect(client(config).send(new ConverseCommand(ask('hi')))).rejects.toMatchObject({ name });
  });

  test('a request without a signature, with a malformed one, or for another service', async () => {
    const error = async (authorization?: string) => {
      const headers: Record<string, string> = authorization ? { authorization, 'x-amz-date': '20260101T000000Z' } : {};
      const response = await send(`${simulator.url}/model/claude/converse`, { body: {}, headers });
      return [response.status, response.header('x-amzn-errortype')];
    };
    const signature = (service: string, names = 'host;x-amz-date') => {
      const credential = `AKIDSIMULATED/20260101/us-east-1/${service}/aws4_request`;
      return `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=${names}, Signature=${'0'.repeat(64)}`;
    };
    expect(await error()).toEqual([403, 'MissingAuthenticationTokenException']);
    expect(await error('AWS4-HMAC-SHA256 Credential=nothing')).toEqual([403, 'IncompleteSignatureException']);
    expect(await error(signature('bedrock', 'host'))).toEqual([403, 'IncompleteSignatureException']);
    expect(await error(signature('s3'))).toEqual([403, 'InvalidSignatureException']);
    expect(await error(signature('bedrock'))).toEqual([403, 'InvalidSignatureException']);
  });

  test('a bearer key is as good as a signature', async () => {
    const bearer = client({ token: { token: 'ABSKany' }, authSchemePreference: ['httpBearerAuth'] });
    expect((await bearer.send(new ConverseCommand(ask('hi')))).stopReason).toBe('end_turn');
  });
});

describe('what Bedrock would refuse', () => {
  const assistant = (text: string): Message => ({ role: 'assistant', content: [{ text }] });
  test.each([
    ['a conversation that the assistant begins', [assistant('hi')], /start with a user message/],
    ['two messages of one role', [user({ text: 'a' }), user({ text: 'b' })], /follow each other/],
    ['a blank text', [user({ text: ' ' })], /blank/],
    ['a beginning that ends with a space', [user({ text: 'a' }), assistant('You ')], /trailing whitespace/],
  ])('%s', async (_, messages, message) => {
    const asked = bedrock.send(new ConverseCommand({ modelId: MODEL, messages }));
    await expect(asked).rejects.toMatchObject({ name: 'ValidationException', message: expect.stringMatching(message) });
  });
});
