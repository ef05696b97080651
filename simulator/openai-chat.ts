/** OpenAI's Chat Completions as the simulated model speaks it: `/v1/chat/completions` and `/v1/models`. */
import { z } from 'zod';
import { type Call, newId, ok, type Reply, read, type StreamPiece, sse, type WireFormat } from './format.ts';
import {
  type Answer,
  answer,
  checkCalls,
  fragments,
  type Prompt,
  Refusal,
  type Tool,
  type ToolCall,
  type Turn,
  words,
} from './model.ts';
import { chatFailure, openai } from './openai.ts';

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
  tool_calls: z.array(z.looseObject({ id: z.string() })).nullish(),
  tool_call_id: z.string().nullish(),
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
  parallel_tool_calls: z.boolean().nullish(),
  reasoning_effort: z.string().nullish(),
  logprobs: z.boolean().nullish(),
  response_format: z.looseObject({ type: z.enum(['text', 'json_object', 'json_schema']) }).nullish(),
});
type ChatRequest = z.infer<typeof ChatRequest>;

/** OpenAI's Chat Completions and its list of models. */
export const openaiChat: WireFormat = {
  ...openai,
  routes: [
    { method: 'POST', path: /^\/v1\/chat\/completions$/, answer: complete },
    { method: 'GET', path: /^\/v1\/models$/, answer: listModels },
    {
      method: 'GET',
      path: /^\/v1\/models\/(?<id>.+)$/,
      answer: ({ parameters }) => ok(modelCard(parameters.id ?? '')),
    },
  ],
};

function listModels(): Reply {
  return ok({ object: 'list', data: LISTED_MODELS.map(modelCard) });
}

function modelCard(id: string): object {
  return { id, object: 'model', created: MODEL_CREATED_S, owned_by: 'simulated' };
}

/** Answers a chat completion, whole or streamed. @throws Refusal when the request is wrong or the prompt is filtered */
export function complete({ body, prefill }: Call): Reply {
  const request = read(ChatRequest, body);
  const said = answer({ ...promptOf(request), prefill });
  if (said.finish === 'blocked') {
    throw new Refusal(
      400,
      'The prompt was filtered, because it asked for that.',
      'content_policy_violation',
      'messages',
    );
  }
  const common = { request, said, choices: request.n ?? 1 };
  if (!request.stream) return ok(completion(common));
  return { status: 200, stream: chunks(common), failure: chatFailure };
}

function promptOf(request: ChatRequest): Omit<Prompt, 'prefill'> {
  const choice = request.tool_choice ?? 'auto';
  const turns = request.messages.map(turn);
  checkCalls(turns);
  return {
    model: request.model,
    turns,
    tools: (request.tools ?? []).flatMap(({ function: offered }): Tool[] => (offered ? [offered] : [])),
    toolChoice: typeof choice === 'object' ? choice.function : choice,
    parallel: request.parallel_tool_calls ?? true,
    json: (request.response_format?.type ?? 'text') !== 'text',
    thinks: (request.reasoning_effort ?? 'none') !== 'none',
    maxTokens: request.max_completion_tokens ?? request.max_tokens ?? Number.POSITIVE_INFINITY,
    stop: [request.stop ?? []].flat(),
  };
}

function turn({ role, content, tool_calls: made, tool_call_id: answered }: z.infer<typeof Message>): Turn {
  const text = Array.isArray(content) ? content.map(textOfPart).join('\n') : (content ?? '');
  const calls = made?.map(({ id }) => id) ?? (answered ? [answered] : []);
  return { role: ROLES[role], text, calls };
}

/** An image, a sound or a file is said back as its kind in brackets. */
function textOfPart(part: z.infer<typeof Part>): string {
  return part.text ?? part.refusal ?? `[${part.type}]`;
}

/** What the answer to one request is made of. */
interface Completion {
  request: ChatRequest;
  said: Answer;
  choices: number;
}

function completion({ request, said, choices }: Completion): object {
  return {
    ...head('chat.completion', request.model),
    choices: Array.from({ length: choices }, (_, index) => ({
      index,
      message: message(said),
      logprobs: request.logprobs ? logprobs([...words(said.text)]) : null,
      finish_reason: finishReason(said),
    })),
    usage: usage(said, choices),
  };
}

function message(said: Answer): object {
  const { text, calls, finish } = said;
  const common = { role: 'assistant', ...thoughts(said) };
  if (calls.length > 0) return { ...common, content: null, refusal: null, tool_calls: calls.map(toolCall) };
  if (finish === 'refusal') return { ...common, content: null, refusal: text, annotations: [] };
  return { ...common, content: text, refusal: null, annotations: annotations(said) };
}

/** OpenAI itself only counts thoughts; servers that speak its format show them in this field. */
function thoughts({ thoughts: reasoning }: Answer): object {
  return reasoning === '' ? {} : { reasoning_content: reasoning };
}

function toolCall({ name, arguments: args }: ToolCall): object {
  return { id: newId('call_'), type: 'function', function: { name, arguments: args } };
}

function annotations({ source, text }: Answer): object[] {
  return source ? [{ type: 'url_citation', url_citation: { start_index: 0, end_index: text.length, ...source } }] : [];
}

function finishReason({ finish }: Answer): string {
  return finish === 'tool' ? 'tool_calls' : finish === 'length' ? 'length' : 'stop';
}

/** Every token is as likely as the other: a probability of 0.9. */
function logprobs(tokens: string[]): object {
  const content = tokens.map((token) => {
    return { token, logprob: Math.log(0.9), bytes: [...Buffer.from(token)], top_logprobs: [] };
  });
  return { content, refusal: null };
}

function usage({ promptTokens, answerTokens, thoughtTokens }: Answer, choices: number): object {
  const completionTokens = answerTokens * choices;
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
    completion_tokens_details: { reasoning_tokens: thoughtTokens * choices, audio_tokens: 0 },
  };
}

function head(object: string, model: string): object {
  const created = Math.floor(Date.now() / 1000);
  return { id: newId('chatcmpl-'), object, created, model, system_fingerprint: 'fp_simulated' };
}

/** The stream in OpenAI's order: roles, content (one piece of each choice in turn), finishes, usage, `[DONE]`. */
function* chunks({ request, said, choices }: Completion): Generator<StreamPiece> {
  const wantsUsage = request.stream_options?.include_usage === true;
  const common = head('chat.completion.chunk', request.model);
  const frame = (choice: object[], total: object | null, token = false): StreamPiece => {
    return { bytes: sse({ ...common, choices: choice, ...(wantsUsage ? { usage: total } : {}) }), token };
  };
  const likely = ({ content }: Delta) => (request.logprobs && content ? logprobs([content]) : null);
  const delta = (index: number, change: Delta, finish: string | null = null) => {
    return { index, delta: change, logprobs: likely(change), finish_reason: finish };
  };
  for (let index = 0; index < choices; index++) yield frame([delta(index, firstDelta(said))], null);
  for (const { isToken = true, ...change } of nextDeltas(said)) {
    for (let index = 0; index < choices; index++) yield frame([delta(index, change)], null, isToken);
  }
  for (let index = 0; index < choices; index++) yield frame([delta(index, {}, finishReason(said))], null);
  if (wantsUsage) yield frame([], usage(said, choices));
  yield { bytes: sse('[DONE]'), token: false };
}

interface Delta {
  content?: string | null;
  [field: string]: unknown;
}

function firstDelta({ calls: [first], thoughts: reasoning }: Answer): Delta {
  if (first === undefined) return { role: 'assistant', content: '', refusal: null };
  return { role: 'assistant', content: null, refusal: null, ...(reasoning === '' ? startOfCall(first, 0) : {}) };
}

function startOfCall({ name }: ToolCall, index: number): Delta {
  return { tool_calls: [{ index, ...toolCall({ name, arguments: '' }) }] };
}

function* nextDeltas(said: Answer): Generator<Delta & { isToken?: boolean }> {
  for (const word of words(said.thoughts)) yield { reasoning_content: word };
  for (const [index, call] of said.calls.entries()) {
    if (index > 0 || said.thoughts !== '') yield { ...startOfCall(call, index), isToken: false };
    for (const part of fragments(call.arguments)) yield { tool_calls: [{ index, function: { arguments: part } }] };
  }
  for (const word of words(said.text)) yield said.finish === 'refusal' ? { refusal: word } : { content: word };
  if (said.source) yield { annotations: annotations(said), isToken: false };
}
