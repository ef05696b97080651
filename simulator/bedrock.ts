/**
 * Bedrock as the simulated model speaks it: `/model/{id}/converse`, `converse-stream` in AWS' frames, and `invoke` for
 * vectors.
 */
import { EventStreamCodec } from '@smithy/eventstream-codec';
import { z } from 'zod';
import { checkSignature } from './aws-signature.ts';
import { embed } from './embedding.ts';
import {
  type Access,
  bearer,
  type Call,
  newId,
  ok,
  type Reply,
  read,
  type StreamPiece,
  signatureOf,
  type WholeReply,
  type WireFormat,
} from './format.ts';
import {
  type Answer,
  answer,
  checkCalls,
  countTokens,
  fragments,
  type Prompt,
  Refusal,
  type Source,
  type Turn,
  words,
} from './model.ts';

const codec = new EventStreamCodec(
  (bytes) => Buffer.from(bytes as Uint8Array).toString(),
  (text) => Buffer.from(text),
);
const PADDING = 'abcdefghijklmnopqrstuvwxyz';

const ToolResult = z.looseObject({
  toolUseId: z.string(),
  content: z.array(z.looseObject({ text: z.string().optional(), json: z.unknown().optional() })),
});
const ReasoningText = z.looseObject({ text: z.string(), signature: z.string().optional() });
const Block = z.looseObject({
  text: z.string().optional(),
  toolUse: z.looseObject({ toolUseId: z.string(), name: z.string(), input: z.unknown().optional() }).optional(),
  toolResult: ToolResult.optional(),
  reasoningContent: z.looseObject({ reasoningText: ReasoningText.optional() }).optional(),
});
type Block = z.infer<typeof Block>;
const Message = z.looseObject({ role: z.enum(['user', 'assistant']), content: z.array(Block).min(1) });
const OfferedTool = z.looseObject({
  toolSpec: z
    .looseObject({
      name: z.string().regex(/^[\w-]{1,64}$/),
      inputSchema: z.looseObject({ json: z.record(z.string(), z.unknown()) }),
    })
    .optional(),
});
const Empty = z.looseObject({});
const ToolConfig = z.looseObject({
  tools: z.array(OfferedTool).min(1),
  toolChoice: z
    .looseObject({
      auto: Empty.optional(),
      any: Empty.optional(),
      tool: z.looseObject({ name: z.string() }).optional(),
    })
    .optional(),
});
const ConverseRequest = z.looseObject({
  messages: z.array(Message).min(1),
  system: z.array(z.looseObject({ text: z.string().optional() })).optional(),
  inferenceConfig: z
    .looseObject({
      maxTokens: z.int().min(1).optional(),
      stopSequences: z.array(z.string().min(1)).max(2500).optional(),
    })
    .optional(),
  toolConfig: ToolConfig.optional(),
  additionalModelRequestFields: z.looseObject({ thinking: z.looseObject({ type: z.string() }).optional() }).optional(),
  outputConfig: z.looseObject({ textFormat: z.looseObject({ type: z.string() }).optional() }).optional(),
});
type ConverseRequest = z.infer<typeof ConverseRequest>;
const CountRequest = z.looseObject({ input: z.looseObject({ converse: ConverseRequest.optional() }) });

const Dimensions = z.int().min(1).max(4096).optional();
/** `invoke` hands bodies to the model as they are: these are Titan's and Cohere's. */
const TitanRequest = z.looseObject({ inputText: z.string().min(1), dimensions: Dimensions });
const CohereRequest = z.looseObject({
  texts: z.array(z.string()).min(1).max(96),
  input_type: z.string(),
  embedding_types: z.array(z.enum(['float'])).optional(),
  output_dimension: Dimensions,
});
const DIMENSIONS = 1024;

/** Bedrock's Converse, whole and streamed, its count of tokens, and its vectors. */
export const bedrock: WireFormat = {
  requestIdHeader: 'x-amzn-requestid',
  routes: [
    { method: 'POST', path: /^\/model\/(?<model>[^/]+)\/converse$/, answer: converse },
    { method: 'POST', path: /^\/model\/(?<model>[^/]+)\/converse-stream$/, answer: converseStream },
    { method: 'POST', path: /^\/model\/(?<model>[^/]+)\/count-tokens$/, answer: count },
    { method: 'POST', path: /^\/model\/(?<model>[^/]+)\/invoke$/, answer: invoke },
  ],
  authenticate,
  refuse,
};

function authenticate(call: Call, { wrongKeys, awsSecrets }: Access): void {
  const key = bearer(call.headers);
  if (key === undefined) checkSignature(call, 'bedrock', awsSecrets);
  else if (wrongKeys.has(key)) throw new Refusal(403, 'The API key is not a valid one.', 'AccessDeniedException');
}

function refuse(refusal: Refusal): WholeReply {
  const { status, message, retryAfterS } = refusal;
  const wait: Record<string, string> = retryAfterS === undefined ? {} : { 'retry-after': String(retryAfterS) };
  return { status, headers: { 'x-amzn-errortype': exceptionOf(refusal), ...wait }, json: { message } };
}

const EXCEPTIONS: Record<number, string> = {
  403: 'AccessDeniedException',
  404: 'ResourceNotFoundException',
  408: 'ModelTimeoutException',
  424: 'ModelErrorException',
  429: 'ThrottlingException',
  503: 'ServiceUnavailableException',
};

function exceptionOf({ status, code }: Refusal): string {
  if (code?.endsWith('Exception')) return code;
  return EXCEPTIONS[status] ?? (status >= 500 ? 'InternalServerException' : 'ValidationException');
}

function converse(call: Call): Reply {
  const said = asked(call);
  const content = blocksOf(said).map(({ whole }) => whole);
  const { messageStop, metadata } = endOf(said);
  return ok({ output: { message: { role: 'assistant', content } }, ...messageStop, ...metadata });
}

function converseStream(call: Call): Reply {
  const contentType = 'application/vnd.amazon.eventstream';
  return { status: 200, contentType, stream: events(asked(call)), failure, keepAlive: new Uint8Array() };
}

function failure({ message, code }: Refusal): Uint8Array {
  const type = code ?? 'modelStreamErrorException';
  return frame({ 'message-type': 'exception', 'exception-type': type }, { message, originalStatusCode: 500 });
}

function asked({ body, parameters: { model = '' }, prefill }: Call): Answer {
  const request = read(ConverseRequest, body);
  checkTurns(request);
  checkThoughts(request);
  return answer({ ...promptOf(request, model), prefill });
}

function promptOf(request: ConverseRequest, model: string): Omit<Prompt, 'prefill'> {
  const { toolConfig, inferenceConfig: config, additionalModelRequestFields: fields } = request;
  const turns = turnsOf(request);
  checkCalls(turns);
  return {
    model,
    turns,
    tools: (toolConfig?.tools ?? []).flatMap(({ toolSpec }) => {
      return toolSpec ? [{ name: toolSpec.name, parameters: toolSpec.inputSchema.json }] : [];
    }),
    toolChoice: toolConfig?.toolChoice?.tool ?? (toolConfig?.toolChoice?.any ? 'required' : 'auto'),
    json: request.outputConfig?.textFormat?.type === 'json_schema',
    thinks: (fields?.thinking?.type ?? 'disabled') !== 'disabled',
    maxTokens: config?.maxTokens ?? Number.POSITIVE_INFINITY,
    stop: config?.stopSequences ?? [],
  };
}

function turnsOf({ system = [], messages }: Pick<ConverseRequest, 'system' | 'messages'>): Turn[] {
  const first: Turn[] = system.length > 0 ? [{ role: 'system', text: textOf(system) }] : [];
  return [
    ...first,
    ...messages.flatMap(({ role, content }) => (role === 'user' ? userTurns(content) : [assistantTurn(content)])),
  ];
}

/** The results of tools stand in a user's message; the text beside them is a turn of its own. */
function userTurns(content: Block[]): Turn[] {
  const tools = content.flatMap(({ toolResult }): Turn[] => {
    return toolResult ? [{ role: 'tool', text: resultOf(toolResult), calls: [toolResult.toolUseId] }] : [];
  });
  const rest = content.filter(({ toolResult }) => !toolResult);
  return rest.length === 0 ? tools : [...tools, { role: 'user', text: textOf(rest) }];
}

function resultOf({ content }: z.infer<typeof ToolResult>): string {
  return content.map(({ text, json }) => text ?? JSON.stringify(json) ?? '').join('\n');
}

function assistantTurn(content: Block[]): Turn {
  const said = content.filter(({ toolUse, reasoningContent }) => !toolUse && !reasoningContent);
  return { role: 'assistant', text: textOf(said), calls: content.flatMap(({ toolUse }) => toolUse?.toolUseId ?? []) };
}

/** An image or a document is said back as its field's name in brackets. */
function textOf(content: { text?: string }[]): string {
  return content.map((block) => block.text ?? `[${Object.keys(block)[0]}]`).join('\n');
}

/** Bedrock merges nothing: the user begins, roles take turns, no text is blank, and tools in the talk must be offered. */
function checkTurns({ messages, toolConfig }: ConverseRequest): void {
  if (messages[0]?.role !== 'user') throw new Refusal(400, 'A conversation must start with a user message.');
  for (const [at, { role, content }] of messages.entries()) {
    if (role === messages[at - 1]?.role)
      throw new Refusal(400, `messages.${at}: two messages of role '${role}' follow each other.`);
    if (content.some(({ text }) => text?.trim() === ''))
      throw new Refusal(400, `messages.${at}: a text block is blank.`);
    const usesTools = content.some(({ toolUse, toolResult }) => toolUse || toolResult);
    if (usesTools && !toolConfig)
      throw new Refusal(400, 'toolConfig must be given when a message has toolUse or toolResult.');
  }
  const last = messages.at(-1)!;
  if (last.role !== 'assistant' || !/\s$/.test(assistantTurn(last.content).text)) return;
  throw new Refusal(400, 'The final assistant content must not end with trailing whitespace.');
}

/** Thoughts that are sent back must be signed. */
function checkThoughts({ messages }: ConverseRequest): void {
  const thoughts = messages.flatMap(({ content }) =>
    content.flatMap((block) => block.reasoningContent?.reasoningText ?? []),
  );
  const forged = thoughts.some(({ text, signature }) => signature !== signatureOf(text));
  if (forged) throw new Refusal(400, 'The signature of a reasoning block is invalid.');
}

/** A block of the answer: as it is when it is complete, how it is announced if it is, and what comes in between. */
interface AnswerBlock {
  whole: object;
  start?: object;
  deltas(): Iterable<{ delta: object; isToken?: boolean }>;
}

function blocksOf({ thoughts, text, calls, source }: Answer): AnswerBlock[] {
  return [
    ...(thoughts === '' ? [] : [reasoningBlock(thoughts)]),
    ...(text === '' ? [] : [textBlock(text, source)]),
    ...calls.map(({ name, arguments: args }) => toolBlock(name, args)),
  ];
}

function reasoningBlock(text: string): AnswerBlock {
  const signature = signatureOf(text);
  return {
    whole: { reasoningContent: { reasoningText: { text, signature } } },
    *deltas() {
      for (const word of words(text)) yield { delta: { reasoningContent: { text: word } }, isToken: true };
      yield { delta: { reasoningContent: { signature } } };
    },
  };
}

/** Text is not announced. */
function textBlock(text: string, source: Source | undefined): AnswerBlock {
  const citations = source ? [citationOf(source, text)] : [];
  return {
    whole: source ? { citationsContent: { content: [{ text }], citations } } : { text },
    *deltas() {
      for (const word of words(text)) yield { delta: { text: word }, isToken: true };
      for (const citation of citations) yield { delta: { citation } };
    },
  };
}

function citationOf({ url, title }: Source, text: string): object {
  return { title, source: url, sourceContent: [{ text }], location: { web: { url, domain: new URL(url).host } } };
}

function toolBlock(name: string, args: string): AnswerBlock {
  const use = { toolUseId: newId('tooluse_'), name };
  return {
    whole: { toolUse: { ...use, input: inputOf(args) } },
    start: { toolUse: use },
    *deltas() {
      for (const input of fragments(args)) yield { delta: { toolUse: { input } }, isToken: true };
    },
  };
}

/** Arguments that were cut by the length are no JSON, and an answer in one piece has only what is. */
function inputOf(args: string): unknown {
  try {
    return JSON.parse(args);
  } catch {
    return {};
  }
}

function endOf({ finish, promptTokens, answerTokens }: Answer): { messageStop: object; metadata: object } {
  const reasons = {
    stop: 'end_turn',
    sequence: 'stop_sequence',
    length: 'max_tokens',
    tool: 'tool_use',
    refusal: 'content_filtered',
    blocked: 'guardrail_intervened',
  };
  const totalTokens = promptTokens + answerTokens;
  const usage = { inputTokens: promptTokens, outputTokens: answerTokens, totalTokens };
  return { messageStop: { stopReason: reasons[finish] }, metadata: { usage, metrics: { latencyMs: answerTokens } } };
}

function* events(said: Answer): Generator<StreamPiece> {
  const { messageStop, metadata } = endOf(said);
  yield event('messageStart', { role: 'assistant' });
  for (const [contentBlockIndex, { start, deltas }] of blocksOf(said).entries()) {
    if (start) yield event('contentBlockStart', { contentBlockIndex, start });
    for (const { delta, isToken } of deltas()) yield event('contentBlockDelta', { contentBlockIndex, delta }, isToken);
    yield event('contentBlockStop', { contentBlockIndex });
  }
  yield event('messageStop', messageStop);
  yield event('metadata', metadata);
}

/** Bedrock pads its events, so that their sizes tell little of the words in them. */
function event(type: string, payload: object, token = false): StreamPiece {
  const p = PADDING.slice(0, JSON.stringify(payload).length % PADDING.length);
  return { bytes: frame({ 'message-type': 'event', 'event-type': type }, { ...payload, p }), token };
}

function frame(names: Record<string, string>, payload: object): Uint8Array {
  const all = { ...names, 'content-type': 'application/json' };
  const headers = Object.entries(all).map(([name, value]) => [`:${name}`, { type: 'string', value }] as const);
  return codec.encode({ headers: Object.fromEntries(headers), body: Buffer.from(JSON.stringify(payload)) });
}

function count({ body }: Call): Reply {
  const { input } = read(CountRequest, body);
  if (!input.converse) throw new Refusal(400, 'input.converse must be given: the simulated model counts only that.');
  return ok({ inputTokens: countTokens(turnsOf(input.converse)) });
}

/** Which model it is shows in the body: Cohere's has a list of texts. */
function invoke({ body }: Call): Reply {
  const isCohere = typeof body === 'object' && body !== null && 'texts' in body;
  return ok(isCohere ? embedAll(read(CohereRequest, body)) : embedOne(read(TitanRequest, body)));
}

function embedOne({ inputText: text, dimensions = DIMENSIONS }: z.infer<typeof TitanRequest>): object {
  return { embedding: embed(text, dimensions), inputTextTokenCount: countTokens([{ role: 'user', text }]) };
}

function embedAll({ texts, embedding_types: types, output_dimension: wanted }: z.infer<typeof CohereRequest>): object {
  const float = texts.map((text) => embed(text, wanted ?? DIMENSIONS));
  if (types === undefined) return { id: newId(''), response_type: 'embeddings_floats', embeddings: float, texts };
  return { id: newId(''), response_type: 'embeddings_by_type', embeddings: { float }, texts };
}
