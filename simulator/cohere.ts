/** Cohere's chat and embeddings as the simulated model speaks them, version 2: `/v2/chat` and `/v2/embed`. */
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
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
  sse,
  typedSse,
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
  type ToolCall,
  type Turn,
  words,
} from './model.ts';

const DIMENSIONS = 1536;

const Part = z.looseObject({ type: z.string(), text: z.string().optional() });
const Content = z.union([z.string(), z.array(Part)]);
const Message = z.looseObject({
  role: z.enum(['system', 'user', 'assistant', 'tool']),
  content: Content.nullish(),
  tool_calls: z.array(z.looseObject({ id: z.string() })).nullish(),
  tool_call_id: z.string().nullish(),
});
const OfferedTool = z.looseObject({
  type: z.literal('function'),
  function: z.looseObject({ name: z.string(), parameters: z.record(z.string(), z.unknown()).optional() }),
});
const ChatRequest = z.looseObject({
  model: z.string().min(1),
  messages: z.array(Message).min(1),
  stream: z.boolean().nullish(),
  tools: z.array(OfferedTool).nullish(),
  tool_choice: z.enum(['REQUIRED', 'NONE']).nullish(),
  max_tokens: z.int().min(0).nullish(),
  stop_sequences: z.array(z.string()).max(5).nullish(),
  response_format: z.looseObject({ type: z.enum(['text', 'json_object']) }).nullish(),
  thinking: z.looseObject({ type: z.enum(['enabled', 'disabled']) }).nullish(),
});
type ChatRequest = z.infer<typeof ChatRequest>;
const EmbedRequest = z.looseObject({
  model: z.string().min(1),
  texts: z.array(z.string()).min(1).max(96),
  input_type: z.string(),
  embedding_types: z.array(z.enum(['float'])).nullish(),
  output_dimension: z.int().min(1).max(4096).nullish(),
});

/** Cohere's chat and embeddings. */
export const cohere: WireFormat = {
  requestIdHeader: 'x-debug-trace-id',
  routes: [
    { method: 'POST', path: /^\/v2\/chat$/, answer: chat },
    { method: 'POST', path: /^\/v2\/embed$/, answer: embedAll },
  ],
  authenticate,
  refuse,
};

function authenticate({ headers }: Call, { wrongKeys }: Access): void {
  const key = bearer(headers);
  if (key === undefined) throw new Refusal(401, 'The request has no API key.');
  if (wrongKeys.has(key)) throw new Refusal(401, 'The API token is not a valid one.');
}

function refuse({ status, message, retryAfterS }: Refusal): WholeReply {
  const headers: Record<string, string> = retryAfterS === undefined ? {} : { 'retry-after': String(retryAfterS) };
  return { status, headers, json: { id: randomUUID(), message } };
}

/** A chat that breaks ends as one that has ended, with a reason that says it has not. */
function failure({ message }: Refusal): string {
  return typedSse({ type: 'message-end', ...{ delta: { error: message, finish_reason: 'ERROR' } } });
}

function chat({ body, prefill }: Call): Reply {
  const request = read(ChatRequest, body);
  const said = answer({ ...promptOf(request), prefill });
  if (said.finish === 'blocked') throw new Refusal(422, 'The prompt was filtered, because it asked for that.');
  if (request.stream) return { status: 200, stream: events(said), failure };
  return ok({ id: randomUUID(), finish_reason: finishReason(said), message: messageOf(said), usage: usage(said) });
}

function promptOf(request: ChatRequest): Omit<Prompt, 'prefill'> {
  const turns = request.messages.map(turnOf);
  checkCalls(turns);
  return {
    model: request.model,
    turns,
    tools: (request.tools ?? []).map(({ function: offered }) => offered),
    toolChoice: request.tool_choice === 'REQUIRED' ? 'required' : request.tool_choice === 'NONE' ? 'none' : 'auto',
    json: request.response_format?.type === 'json_object',
    thinks: request.thinking?.type === 'enabled',
    maxTokens: request.max_tokens ?? Number.POSITIVE_INFINITY,
    stop: request.stop_sequences ?? [],
  };
}

function turnOf({ role, content, tool_calls: made, tool_call_id: answered }: z.infer<typeof Message>): Turn {
  const calls = made?.map(({ id }) => id) ?? (answered ? [answered] : []);
  return { role, text: textOf(content ?? ''), calls };
}

/** A document is said back as what it says, an image as its kind in brackets; thoughts are not said back. */
function textOf(content: z.infer<typeof Content>): string {
  if (typeof content === 'string') return content;
  const said = content.filter(({ type }) => type !== 'thinking');
  return said.map((part) => part.text ?? documentOf(part) ?? `[${part.type}]`).join('\n');
}

function documentOf({ document }: Record<string, unknown>): string | undefined {
  return (document as { data?: unknown } | undefined)?.data === undefined ? undefined : JSON.stringify(document);
}

function finishReason({ finish }: Answer): string {
  const reasons: Partial<Record<Answer['finish'], string>> = {
    sequence: 'STOP_SEQUENCE',
    length: 'MAX_TOKENS',
    tool: 'TOOL_CALL',
  };
  return reasons[finish] ?? 'COMPLETE';
}

function messageOf(said: Answer): object {
  const { thoughts, text, calls } = said;
  const content = [
    ...(thoughts === '' ? [] : [{ type: 'thinking', thinking: thoughts }]),
    ...(text === '' ? [] : [{ type: 'text', text }]),
  ];
  return {
    role: 'assistant',
    ...(content.length > 0 ? { content } : {}),
    ...(calls.length > 0 ? { tool_plan: PLAN, tool_calls: calls.map(toolCall) } : {}),
    ...(said.source ? { citations: [citationOf(said)] } : {}),
  };
}

const PLAN = 'I will call a tool.';

function toolCall({ name, arguments: args }: ToolCall): object {
  return { id: newId(`${name}_`), type: 'function', function: { name, arguments: args } };
}

function citationOf({ source, text }: Answer): object {
  const document = { id: 'doc_0', ...source };
  const sources = [{ type: 'document', id: 'doc_0', document }];
  return { start: 0, end: text.length, text, sources, content_index: 0, type: 'TEXT_CONTENT' };
}

function usage({ promptTokens, answerTokens }: Answer): object {
  const counted = { input_tokens: promptTokens, output_tokens: answerTokens };
  return { billed_units: counted, tokens: counted, cached_tokens: 0 };
}

function* events(said: Answer): Generator<StreamPiece> {
  const message = { role: 'assistant', content: [], tool_plan: '', tool_calls: [], citations: [] };
  yield event({ type: 'message-start', id: randomUUID(), delta: { message } });
  yield* eventsOfContent(said);
  if (said.calls.length > 0) yield* eventsOfPlan();
  for (const [index, call] of said.calls.entries()) yield* eventsOfCall(call, index);
  if (said.source) {
    yield event({ type: 'citation-start', index: 0, delta: { message: { citations: citationOf(said) } } });
    yield event({ type: 'citation-end', index: 0 });
  }
  yield event({ type: 'message-end', delta: { finish_reason: finishReason(said), usage: usage(said) } });
  yield { bytes: sse('[DONE]'), token: false };
}

function* eventsOfContent({ thoughts, text }: Answer): Generator<StreamPiece> {
  const blocks = [
    { field: 'thinking', all: thoughts },
    { field: 'text', all: text },
  ].filter(({ all }) => all !== '');
  for (const [index, { field, all }] of blocks.entries()) {
    const delta = (content: object) => ({ index, delta: { message: { content } } });
    yield event({ type: 'content-start', ...delta({ type: field, [field]: '' }) });
    for (const word of words(all)) yield event({ type: 'content-delta', ...delta({ [field]: word }) }, true);
    yield event({ type: 'content-end', index });
  }
}

function* eventsOfPlan(): Generator<StreamPiece> {
  for (const word of words(PLAN))
    yield event({ type: 'tool-plan-delta', delta: { message: { tool_plan: word } } }, true);
}

function* eventsOfCall(call: ToolCall, index: number): Generator<StreamPiece> {
  const delta = (calls: object) => ({ index, delta: { message: { tool_calls: calls } } });
  yield event({ type: 'tool-call-start', ...delta(toolCall({ ...call, arguments: '' })) });
  for (const part of fragments(call.arguments)) {
    yield event({ type: 'tool-call-delta', ...delta({ function: { arguments: part } }) }, true);
  }
  yield event({ type: 'tool-call-end', index });
}

function event(data: { type: string; [field: string]: unknown }, token = false): StreamPiece {
  return { bytes: typedSse(data), token };
}

function embedAll({ body }: Call): Reply {
  const { texts, output_dimension: wanted } = read(EmbedRequest, body);
  const tokens = countTokens(texts.map((text) => ({ role: 'user', text })));
  return ok({
    id: randomUUID(),
    response_type: 'embeddings_by_type',
    embeddings: { float: texts.map((text) => embed(text, wanted ?? DIMENSIONS)) },
    texts,
    meta: { api_version: { version: '2' }, billed_units: { input_tokens: tokens } },
  });
}
