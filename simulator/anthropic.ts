/** Anthropic's Messages as the simulated model speaks it: `/v1/messages`, at Anthropic's own door and at Vertex'. */
import { z } from 'zod';
import {
  type Access,
  bearer,
  type Call,
  header,
  newId,
  ok,
  type Reply,
  read,
  type StreamPiece,
  signatureOf,
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
  type Source,
  type ToolCall,
  type Turn,
  words,
} from './model.ts';

const MODEL = { type: 'model', id: 'simulated', display_name: 'Simulated', created_at: '2025-01-01T00:00:00Z' };
const LEAST_BUDGET_TOKENS = 1024;
/** The versions of the API: https://platform.claude.com/docs/en/api/versioning */
const VERSIONS = ['2023-06-01', '2026-10-21'];
const NEWEST_VERSION = '2026-10-21';
const VERTEX_VERSION = 'vertex-2023-10-16';
/** The newest version takes none of these, whatever their value. */
const SAMPLING = ['temperature', 'top_p', 'top_k'];

const Block = z.looseObject({ type: z.string() });
const Content = z.union([z.string(), z.array(Block)]);
const Message = z.looseObject({ role: z.enum(['user', 'assistant', 'system']), content: Content });
const OfferedTool = z.looseObject({ name: z.string(), input_schema: z.record(z.string(), z.unknown()).optional() });
const Thinking = z.union([
  z.looseObject({ type: z.literal('enabled'), budget_tokens: z.int().min(LEAST_BUDGET_TOKENS) }),
  z.looseObject({ type: z.enum(['adaptive', 'disabled']) }),
]);
const Counted = z.strictObject({
  messages: z.array(Message).min(1),
  system: Content.nullish(),
  tools: z.array(OfferedTool).nullish(),
  tool_choice: z
    .looseObject({
      type: z.enum(['auto', 'any', 'tool', 'none']),
      name: z.string().optional(),
      disable_parallel_tool_use: z.boolean().optional(),
    })
    .nullish(),
  thinking: Thinking.nullish(),
  cache_control: z.unknown().optional(),
  mcp_servers: z.unknown().optional(),
  output_config: z.looseObject({ format: z.looseObject({ type: z.literal('json_schema') }).nullish() }).nullish(),
  context_management: z.unknown().optional(),
});
const MessagesRequest = Counted.extend({
  model: z.string().min(1),
  max_tokens: z.int().min(1),
  stream: z.boolean().nullish(),
  stop_sequences: z.array(z.string().regex(/\S/)).nullish(),
  temperature: z.number().min(0).max(1).nullish(),
  top_p: z.number().nullish(),
  top_k: z.int().nullish(),
  metadata: z.looseObject({ user_id: z.string().nullish() }).nullish(),
  service_tier: z.enum(['auto', 'standard_only']).nullish(),
  container: z.unknown().optional(),
  inference_geo: z.string().nullish(),
  speed: z.string().nullish(),
});
type MessagesRequest = z.infer<typeof MessagesRequest>;

/** Anthropic's Messages, its count of tokens and its list of models; the last only for who sends `anthropic-version`. */
export const anthropic: WireFormat = {
  requestIdHeader: 'request-id',
  routes: [
    { method: 'POST', path: /^\/v1\/messages$/, answer: messages },
    { method: 'POST', path: /^\/v1\/messages\/count_tokens$/, answer: count },
    { method: 'GET', path: /^\/v1\/models$/, isMeant: hasVersion, answer: listModels },
    { method: 'GET', path: /^\/v1\/models\/(?<id>.+)$/, isMeant: hasVersion, answer: oneModel },
    { method: 'POST', path: vertexPath('rawPredict'), answer: (call) => onVertex(call, false) },
    { method: 'POST', path: vertexPath('streamRawPredict'), answer: (call) => onVertex(call, true) },
  ],
  authenticate,
  refuse,
};

function vertexPath(verb: string): RegExp {
  return new RegExp(`^/v1/projects/[^/]+/locations/[^/]+/publishers/anthropic/models/(?<model>[^/:]+):${verb}$`);
}

function isVertex({ path }: Call): boolean {
  return path.startsWith('/v1/projects/');
}

function versionOf({ headers }: Call): string | undefined {
  return header(headers, 'anthropic-version');
}

function hasVersion(headers: Call['headers']): boolean {
  return 'anthropic-version' in headers;
}

function authenticate(call: Call, { wrongKeys }: Access): void {
  const key = isVertex(call) ? bearer(call.headers) : (header(call.headers, 'x-api-key') ?? bearer(call.headers));
  if (key === undefined)
    throw new Refusal(401, `The header ${isVertex(call) ? 'authorization' : 'x-api-key'} is missing.`);
  if (wrongKeys.has(key)) throw new Refusal(401, 'The API key is not a valid one.');
  if (isVertex(call) || VERSIONS.includes(versionOf(call) ?? '')) return;
  throw new Refusal(400, `The header anthropic-version must be one of ${VERSIONS.join(', ')}.`);
}

function refuse(refusal: Refusal, requestId: string): WholeReply {
  const { status } = refusal;
  return { status, headers: limitHeaders(refusal), json: { ...errorOf(refusal), request_id: requestId } };
}

function errorOf({ status, message, code }: Refusal): { type: string; error: object } {
  const wanted = code?.endsWith('_error') ? code : undefined;
  return {
    type: 'error',
    error: { type: wanted ?? TYPES[status] ?? (status >= 500 ? 'api_error' : 'invalid_request_error'), message },
  };
}

const TYPES: Record<number, string> = {
  401: 'authentication_error',
  402: 'billing_error',
  403: 'permission_error',
  404: 'not_found_error',
  409: 'conflict_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  504: 'timeout_error',
  529: 'overloaded_error',
};

/** Anthropic's waits: `retry-after` in seconds, and the time of day when a limit is full again. */
function limitHeaders({ retryAfterS, resetS }: Refusal): Record<string, string> {
  const name = 'anthropic-ratelimit-requests';
  const reset = new Date(Date.now() + (resetS ?? 0) * 1000).toISOString();
  return {
    ...(retryAfterS === undefined ? {} : { 'retry-after': String(retryAfterS) }),
    ...(resetS === undefined ? {} : { [`${name}-remaining`]: '0', [`${name}-reset`]: reset }),
  };
}

/** In the middle of a stream Anthropic is mostly overloaded. */
function failure({ message, code }: Refusal): string {
  return typedSse(errorOf(new Refusal(529, message, code)));
}

function listModels(): Reply {
  return ok({ data: [MODEL], has_more: false, first_id: MODEL.id, last_id: MODEL.id });
}

function oneModel({ parameters: { id = '' } }: Call): Reply {
  return ok({ ...MODEL, id, display_name: id });
}

function count({ body }: Call): Reply {
  const counted = read(Counted.extend({ model: z.string().min(1) }), body);
  return ok({ input_tokens: countTokens(turnsOf(counted)) });
}

/** Vertex has the model in the path and the version in the body. */
function onVertex(call: Call, stream: boolean): Reply {
  const { anthropic_version: version, ...body } = { ...(call.body as Record<string, unknown> | null) };
  if (version !== VERTEX_VERSION) {
    throw new Refusal(400, `anthropic_version: must be ${VERTEX_VERSION}.`);
  }
  if ('model' in body) throw new Refusal(400, 'model: the model stands in the path, not in the body.');
  return messages({ ...call, body: { ...body, stream, model: call.parameters.model } });
}

function messages(call: Call): Reply {
  const request = read(MessagesRequest, call.body);
  if (versionOf(call) === NEWEST_VERSION) checkVersion(request);
  checkThinking(request);
  checkEnding(request);
  const said = answer({ ...promptOf(request), prefill: call.prefill });
  const blocks = blocksOf(said);
  if (!request.stream)
    return ok(
      messageOf(
        request,
        said,
        blocks.map(({ whole }) => whole),
      ),
    );
  return { status: 200, stream: events(request.model, said, blocks), failure, keepAlive: typedSse({ type: 'ping' }) };
}

function promptOf(request: MessagesRequest): Omit<Prompt, 'prefill'> {
  const turns = turnsOf(request);
  checkCalls(turns);
  return {
    model: request.model,
    turns,
    tools: (request.tools ?? []).map(({ name, input_schema: parameters }) => ({ name, parameters })),
    toolChoice: toolChoiceOf(request),
    parallel: request.tool_choice?.disable_parallel_tool_use !== true,
    json: request.output_config?.format?.type === 'json_schema',
    thinks: (request.thinking?.type ?? 'disabled') !== 'disabled',
    maxTokens: request.max_tokens,
    stop: request.stop_sequences ?? [],
  };
}

function toolChoiceOf({ tool_choice: choice }: MessagesRequest): Prompt['toolChoice'] {
  if (choice?.type === 'tool') return { name: choice.name ?? '' };
  return choice?.type === 'any' ? 'required' : choice?.type === 'none' ? 'none' : 'auto';
}

function turnsOf({ system, messages: said }: z.infer<typeof Counted>): Turn[] {
  const first: Turn[] = system ? [{ role: 'system', text: textOf(system) }] : [];
  return [...first, ...said.flatMap(turnsOfMessage)];
}

function turnsOfMessage({ role, content }: z.infer<typeof Message>): Turn[] {
  if (role === 'assistant') return [assistantTurn(content)];
  return role === 'user' ? userTurns(content) : [{ role, text: textOf(content) }];
}

/** The results of tools stand at the beginning of a user's message; the text after them is a turn of its own. */
function userTurns(content: z.infer<typeof Content>): Turn[] {
  if (typeof content === 'string') return [{ role: 'user', text: content }];
  const results = content.filter(({ type }) => type === 'tool_result');
  const rest = content.filter(({ type }) => type !== 'tool_result');
  const tools = results.map((block): Turn => {
    return { role: 'tool', text: textOf(read(Content, block.content ?? '')), calls: [String(block.tool_use_id)] };
  });
  return rest.length === 0 ? tools : [...tools, { role: 'user', text: textOf(rest) }];
}

function assistantTurn(content: z.infer<typeof Content>): Turn {
  if (typeof content === 'string') return { role: 'assistant', text: content };
  const calls = content.filter(({ type }) => type === 'tool_use').map(({ id }) => String(id));
  const silent = ['tool_use', 'thinking', 'redacted_thinking'];
  return { role: 'assistant', text: textOf(content.filter(({ type }) => !silent.includes(type))), calls };
}

/** An image or a document is said back as its kind in brackets. */
function textOf(content: z.infer<typeof Content>): string {
  if (typeof content === 'string') return content;
  return content.map(({ type, text }) => (typeof text === 'string' ? text : `[${type}]`)).join('\n');
}

/** What the newest version takes no more: sampling, the assistant's documents, and citations of the user's text. */
function checkVersion(request: MessagesRequest): void {
  const sampling = SAMPLING.find((name) => name in request);
  if (sampling) throw new Refusal(400, `${sampling}: not supported in version ${NEWEST_VERSION}.`);
  for (const [at, { role, content }] of request.messages.entries()) {
    if (typeof content === 'string') continue;
    const isDocument = role === 'assistant' && content.some(({ type }) => type === 'document');
    if (isDocument) throw new Refusal(400, `messages.${at}: a document block must not stand in an assistant message.`);
    const cites = ({ type, citations }: z.infer<typeof Block>) => type === 'text' && (citations as [] | null)?.length;
    const isCited = role === 'user' && content.some(cites);
    if (isCited) throw new Refusal(400, `messages.${at}: a user message must not have citations.`);
  }
}

/** Thoughts that are sent back must be signed, and while the model thinks a call of a tool must come with them. */
function checkThinking({ messages: said, thinking, max_tokens: most }: MessagesRequest): void {
  for (const [at, { role, content }] of said.entries()) {
    if (role !== 'assistant' || typeof content === 'string') continue;
    const forged = content.some(
      (block) => block.type === 'thinking' && block.signature !== signatureOf(String(block.thinking)),
    );
    if (forged) throw new Refusal(400, `messages.${at}: the signature of a thinking block is invalid.`);
    const calls = content.some(({ type }) => type === 'tool_use');
    if (thinking?.type !== 'enabled' || !calls || /^(redacted_)?thinking$/.test(content[0]?.type ?? '')) continue;
    throw new Refusal(400, `messages.${at}: a message with tool_use must start with its thinking block.`);
  }
  if (thinking?.type !== 'enabled' || most > (thinking as { budget_tokens: number }).budget_tokens) return;
  throw new Refusal(400, 'max_tokens: must be greater than thinking.budget_tokens.');
}

/** The first message is the user's, and text that the model is to go on with does not end with a space. */
function checkEnding({ messages: said }: MessagesRequest): void {
  if (said[0]?.role !== 'user') throw new Refusal(400, 'messages: the first message must be of the user.');
  const last = said.at(-1)!;
  if (last.role !== 'assistant' || !/\s$/.test(assistantTurn(last.content).text)) return;
  throw new Refusal(400, 'messages: the final assistant content must not end with trailing whitespace.');
}

/** A block of the answer: as it is when it is complete, as it is announced, and what comes in between. */
interface AnswerBlock {
  whole: object;
  start: object;
  deltas(): Iterable<{ type: string; isToken?: boolean; [field: string]: unknown }>;
}

function blocksOf({ thoughts, text, calls, source }: Answer): AnswerBlock[] {
  return [
    ...(thoughts === '' ? [] : [thinkingBlock(thoughts)]),
    ...(text === '' ? [] : [textBlock(text, source)]),
    ...calls.map(toolBlock),
  ];
}

function thinkingBlock(thinking: string): AnswerBlock {
  const signature = signatureOf(thinking);
  return {
    whole: { type: 'thinking', thinking, signature },
    start: { type: 'thinking', thinking: '', signature: '' },
    *deltas() {
      for (const word of words(thinking)) yield { type: 'thinking_delta', thinking: word, isToken: true };
      yield { type: 'signature_delta', signature };
    },
  };
}

function textBlock(text: string, source: Source | undefined): AnswerBlock {
  const citations = source ? [citationOf(source, text)] : [];
  return {
    whole: { type: 'text', text, ...(source ? { citations } : {}) },
    start: { type: 'text', text: '', ...(source ? { citations: [] } : {}) },
    *deltas() {
      for (const word of words(text)) yield { type: 'text_delta', text: word, isToken: true };
      for (const citation of citations) yield { type: 'citations_delta', citation };
    },
  };
}

function citationOf({ url, title }: Source, text: string): object {
  return { type: 'web_search_result_location', url, title, encrypted_index: signatureOf(url), cited_text: text };
}

/** The first piece of a tool's arguments is empty. */
function toolBlock({ name, arguments: args }: ToolCall): AnswerBlock {
  const use = { type: 'tool_use', id: newId('toolu_'), name };
  return {
    whole: { ...use, input: inputOf(args) },
    start: { ...use, input: {} },
    *deltas() {
      yield { type: 'input_json_delta', partial_json: '' };
      for (const part of fragments(args)) yield { type: 'input_json_delta', partial_json: part, isToken: true };
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

function messageOf({ model }: MessagesRequest, said: Answer, content: object[]): object {
  return { ...headOf(model), content, ...stopOf(said), usage: { ...inputUsage(said), ...outputUsage(said) } };
}

function headOf(model: string): object {
  return { id: newId('msg_'), type: 'message', role: 'assistant', model };
}

function stopOf({ finish, sequence, text }: Answer): object {
  const reasons = { stop: 'end_turn', sequence: 'stop_sequence', length: 'max_tokens', tool: 'tool_use' };
  if (finish !== 'refusal' && finish !== 'blocked') {
    return { stop_reason: reasons[finish], stop_sequence: sequence ?? null, stop_details: null };
  }
  const details = { type: 'refusal', category: null, explanation: text || null };
  return { stop_reason: 'refusal', stop_sequence: null, stop_details: details };
}

function inputUsage({ promptTokens }: Answer): object {
  return { input_tokens: promptTokens, cache_creation_input_tokens: 0, cache_read_input_tokens: 0 };
}

function outputUsage({ answerTokens, thoughtTokens }: Answer): object {
  const details = thoughtTokens > 0 ? { output_tokens_details: { thinking_tokens: thoughtTokens } } : {};
  return { output_tokens: answerTokens, ...details };
}

function* events(model: string, said: Answer, blocks: AnswerBlock[]): Generator<StreamPiece> {
  const nothing = { content: [], stop_reason: null, stop_sequence: null, stop_details: null };
  const usage = { ...inputUsage(said), output_tokens: 1 };
  yield event({ type: 'message_start', message: { ...headOf(model), ...nothing, usage } });
  yield event({ type: 'ping' });
  for (const [index, { start, deltas }] of blocks.entries()) {
    yield event({ type: 'content_block_start', index, content_block: start });
    for (const { isToken, ...delta } of deltas()) yield event({ type: 'content_block_delta', index, delta }, isToken);
    yield event({ type: 'content_block_stop', index });
  }
  yield event({ type: 'message_delta', delta: stopOf(said), usage: outputUsage(said) });
  yield event({ type: 'message_stop' });
}

function event(data: { type: string; [field: string]: unknown }, token = false): StreamPiece {
  return { bytes: typedSse(data), token };
}
