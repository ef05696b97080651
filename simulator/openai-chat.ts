/** OpenAI's Chat Completions as the simulated model speaks it: `/v1/chat/completions` and `/v1/models`. */
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import type { Reply, StreamPiece, WireFormat } from './format.ts';
import { type Answer, answer, fragments, type Prompt, Refusal, type Tool, type Turn, words } from './model.ts';

const MODEL_CREATED_S = 1_700_000_000;
const LISTED_MODELS = ['simulated'];

const ROLES = {
  system: 'system',
  developer: 'system',
  user: 'user',
  assistant: 'assistant',
  tool: 'tool',
  function: 'tool',
} as const;

const Part = z.looseObject({ type: z.string(), text: z.string().optional(), refusal: z.string().optional() });
const Message = z.looseObject({
  role: z.enum(['system', 'developer', 'user', 'assistant', 'tool', 'function']),
  content: z.union([z.string(), z.array(Part)]).nullish(),
});
const OfferedTool = z.looseObject({
  type: z.string(),
  function: z.looseObject({ name: z.string(), parameters: z.record(z.string(), z.unknown()).optional() }).optional(),
});
const NamedChoice = z.looseObject({ type: z.literal('function'), function: z.looseObject({ name: z.string() }) });
const TokenLimit = z.int().min(1).nullish();
const StopSequence = z.string().min(1);
const ChatRequest = z.looseObject({
  model: z.string().min(1),
  messages: z.array(Message).min(1),
  n: z.int().min(1).max(128).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  max_tokens: TokenLimit,
  max_completion_tokens: TokenLimit,
  stop: z.union([StopSequence, z.array(StopSequence).max(4)]).nullish(),
  tools: z.array(OfferedTool).nullish(),
  tool_choice: z.union([z.enum(['none', 'auto', 'required']), NamedChoice]).nullish(),
  response_format: z.looseObject({ type: z.enum(['text', 'json_object', 'json_schema']) }).nullish(),
});
type ChatRequest = z.infer<typeof ChatRequest>;

/** OpenAI's Chat Completions and its list of models. */
export const openaiChat: WireFormat = {
  routes: [
    { method: 'POST', path: /^\/v1\/chat\/completions$/, answer: complete },
    { method: 'GET', path: /^\/v1\/models$/, answer: listModels },
    { method: 'GET', path: /^\/v1\/models\/(?<id>.+)$/, answer: (_body, { id }) => ok(modelCard(id ?? '')) },
  ],
  refuse,
};

function refuse({ status, message, code, param }: Refusal): Reply {
  const kind = kindOfError(status);
  return {
    status,
    headers: status === 429 ? { 'retry-after': '1' } : {},
    json: { error: { message, type: kind.type, param, code: code ?? kind.code } },
  };
}

function kindOfError(status: number): { type: string; code: string | null } {
  if (status >= 500) return { type: 'server_error', code: null };
  if (status === 429) return { type: 'requests', code: 'rate_limit_exceeded' };
  const codes: Record<number, string> = { 401: 'invalid_api_key', 404: 'model_not_found' };
  return { type: 'invalid_request_error', code: codes[status] ?? null };
}

function ok(json: unknown): Reply {
  return { status: 200, json };
}

function listModels(): Reply {
  return ok({ object: 'list', data: LISTED_MODELS.map(modelCard) });
}

function modelCard(id: string): object {
  return { id, object: 'model', created: MODEL_CREATED_S, owned_by: 'simulated' };
}

function complete(body: unknown): Reply {
  const request = read(body);
  const said = answer(promptOf(request));
  const choices = request.n ?? 1;
  if (!request.stream) return ok(completion(request.model, said, choices));
  return { status: 200, stream: chunks(request, said, choices) };
}

function read(body: unknown): ChatRequest {
  const parsed = ChatRequest.safeParse(body);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  const param = path.join('.');
  if (param === '') throw new Refusal(400, 'The body must be a JSON object.');
  if (isMissing(body, path)) {
    throw new Refusal(400, `Missing required parameter: '${param}'.`, 'missing_required_parameter', param);
  }
  throw new Refusal(400, `Invalid value for '${param}': ${message}.`, 'invalid_value', param);
}

function isMissing(body: unknown, path: PropertyKey[]): boolean {
  const at = (value: unknown, key: PropertyKey) => (value as Record<PropertyKey, unknown> | undefined)?.[key];
  return path.reduce(at, body) === undefined;
}

function promptOf(request: ChatRequest): Prompt {
  const choice = request.tool_choice ?? 'auto';
  return {
    model: request.model,
    turns: request.messages.map(turn),
    tools: (request.tools ?? []).flatMap(({ function: offered }): Tool[] => (offered ? [offered] : [])),
    toolChoice: typeof choice === 'object' ? choice.function : choice,
    json: (request.response_format?.type ?? 'text') !== 'text',
    maxTokens: request.max_completion_tokens ?? request.max_tokens ?? Number.POSITIVE_INFINITY,
    stop: [request.stop ?? []].flat(),
  };
}

function turn({ role, content }: z.infer<typeof Message>): Turn {
  const text = Array.isArray(content) ? content.map(textOfPart).join('\n') : (content ?? '');
  return { role: ROLES[role], text };
}

/** An image, a sound or a file is said back as its kind in brackets. */
function textOfPart(part: z.infer<typeof Part>): string {
  return part.text ?? part.refusal ?? `[${part.type}]`;
}

function completion(model: string, said: Answer, choices: number): object {
  return {
    ...head('chat.completion', model),
    choices: Array.from({ length: choices }, (_, index) => ({
      index,
      message: message(said),
      logprobs: null,
      finish_reason: finishReason(said),
    })),
    usage: usage(said, choices),
  };
}

function message({ tool, text }: Answer): object {
  if (tool === undefined) return { role: 'assistant', content: text, refusal: null, annotations: [] };
  return { role: 'assistant', content: null, refusal: null, tool_calls: [toolCall(tool, text)] };
}

function toolCall(name: string, args: string): object {
  return { id: `call_${hexId()}`, type: 'function', function: { name, arguments: args } };
}

function finishReason({ finish }: Answer): string {
  return finish === 'tool' ? 'tool_calls' : finish;
}

function usage({ promptTokens, answerTokens }: Answer, choices: number): object {
  const completionTokens = answerTokens * choices;
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
    completion_tokens_details: { reasoning_tokens: 0, audio_tokens: 0 },
  };
}

function head(object: string, model: string): object {
  const created = Math.floor(Date.now() / 1000);
  return { id: `chatcmpl-${hexId()}`, object, created, model, system_fingerprint: 'fp_simulated' };
}

function hexId(): string {
  return randomUUID().replaceAll('-', '');
}

/** The stream in OpenAI's order: roles, content (one piece of each choice in turn), finishes, usage, `[DONE]`. */
function* chunks(request: ChatRequest, said: Answer, choices: number): Generator<StreamPiece> {
  const wantsUsage = request.stream_options?.include_usage === true;
  const common = head('chat.completion.chunk', request.model);
  const frame = (choice: object[], total: object | null, token = false): StreamPiece => {
    return { bytes: sse({ ...common, choices: choice, ...(wantsUsage ? { usage: total } : {}) }), token };
  };
  const delta = (index: number, change: object, finish: string | null = null) => {
    return { index, delta: change, logprobs: null, finish_reason: finish };
  };
  for (let index = 0; index < choices; index++) yield frame([delta(index, firstDelta(said))], null);
  for (const change of nextDeltas(said)) {
    for (let index = 0; index < choices; index++) yield frame([delta(index, change)], null, true);
  }
  for (let index = 0; index < choices; index++) yield frame([delta(index, {}, finishReason(said))], null);
  if (wantsUsage) yield frame([], usage(said, choices));
  yield { bytes: 'data: [DONE]\n\n', token: false };
}

function firstDelta({ tool }: Answer): object {
  if (tool === undefined) return { role: 'assistant', content: '', refusal: null };
  return { role: 'assistant', content: null, refusal: null, tool_calls: [{ index: 0, ...toolCall(tool, '') }] };
}

function* nextDeltas({ tool, text }: Answer): Generator<object> {
  if (tool === undefined) for (const word of words(text)) yield { content: word };
  else for (const part of fragments(text)) yield { tool_calls: [{ index: 0, function: { arguments: part } }] };
}

function sse(chunk: object): string {
  return `data: ${JSON.stringify(chunk)}\n\n`;
}
