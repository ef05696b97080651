/** Builders of OpenAI's chat chunks, completions and errors, as an upstream sends them. Ids and times are fixed. */

/** Tokens as OpenAI counts them. */
export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  [detail: string]: unknown;
}

/** One choice of a chunk. */
export interface ChunkChoice {
  index: number;
  delta: Record<string, unknown>;
  logprobs: null;
  finish_reason: string | null;
}

/** One `chat.completion.chunk`. */
export interface ChatChunk {
  id: string;
  object: 'chat.completion.chunk';
  created: number;
  model: string;
  choices: ChunkChoice[];
  usage?: Usage | null;
  [extra: string]: unknown;
}

/** What the builders may be told. */
export interface ChunkOptions {
  /** `chatcmpl-test` by default. */
  id?: string;
  /** `test-model` by default. */
  model?: string;
  /** Characters in each piece of text or arguments; 4 by default. Surrogate pairs stay whole. */
  size?: number;
  /** `stop` by default, `tool_calls` for tool calls. */
  finish?: string;
  /** Adds the usage chunk with no choices, and `usage: null` to every other one. */
  usage?: Usage;
  /** More top-level fields for every chunk. */
  extra?: Record<string, unknown>;
}

/** A tool call to build; arguments that are not a string are written as JSON. */
export interface ToolCallSpec {
  /** `call_1`, `call_2`, … by default. */
  id?: string;
  name: string;
  arguments: string | object;
}

/** Figures for `usage`. */
export function usageOf(promptTokens: number, completionTokens: number): Usage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  };
}

/** A stream that says `texts`, one choice each; the choices' pieces take turns. */
export function textStream(texts: string | string[], options: ChunkOptions = {}): ChatChunk[] {
  const choices = [texts].flat().map((text) => pieces(text, options).map((content) => ({ content })));
  return deltaStream(choices, options);
}

/** A stream that thinks before it speaks, in the field that DeepSeek and vLLM (or OpenRouter and Ollama) use. */
export function reasoningStream(
  reasoning: string,
  text: string,
  options: ChunkOptions & { field?: 'reasoning_content' | 'reasoning' } = {},
): ChatChunk[] {
  const thoughts = pieces(reasoning, options).map((part) => ({ [options.field ?? 'reasoning_content']: part }));
  return deltaStream([[...thoughts, ...pieces(text, options).map((content) => ({ content }))]], options);
}

/** A stream in which the model refuses. */
export function refusalStream(text: string, options: ChunkOptions = {}): ChatChunk[] {
  return deltaStream([pieces(text, options).map((refusal) => ({ refusal }))], options);
}

/** A stream that calls tools one after the other, or with their fragments taking turns when `interleaved`. */
export function toolCallStream(
  calls: ToolCallSpec[],
  options: ChunkOptions & { interleaved?: boolean } = {},
): ChatChunk[] {
  const perCall = calls.map((call, index) => toolCallDeltas(call, index, options));
  const deltas = options.interleaved ? takeTurns(perCall) : perCall.flat();
  return deltaStream([deltas], { finish: 'tool_calls', ...options });
}

/** A stream of any deltas, a list per choice: roles first, then the deltas in turn, the finishes, the usage. */
export function deltaStream(choices: Record<string, unknown>[][], options: ChunkOptions = {}): ChatChunk[] {
  const role = choices.map((_, index) => choice(index, { role: 'assistant', content: '' }));
  const deltas = takeTurns(choices.map((list, index) => list.map((delta) => choice(index, delta))));
  const finishes = choices.map((_, index) => choice(index, {}, options.finish ?? 'stop'));
  const chunks = [...role, ...deltas, ...finishes].map((one) => chunk([one], options));
  return options.usage ? [...chunks, usageChunk(options.usage, options)] : chunks;
}

/** One chunk with these choices. */
export function chunk(choices: ChunkChoice[], options: ChunkOptions = {}): ChatChunk {
  return { ...head('chat.completion.chunk', options), choices, ...(options.usage ? { usage: null } : {}) };
}

/** One choice of a chunk. */
export function choice(index: number, delta: Record<string, unknown>, finish: string | null = null): ChunkChoice {
  return { index, delta, logprobs: null, finish_reason: finish };
}

/** The chunk with usage and no choices that comes last before `[DONE]`. */
export function usageChunk(usage: Usage, options: ChunkOptions = {}): ChatChunk {
  return { ...head('chat.completion.chunk', options), choices: [], usage };
}

/** A whole answer that says `texts`, one choice each. */
export function completion(texts: string | string[], options: ChunkOptions = {}): Record<string, unknown> {
  const messages = [texts].flat().map((content) => ({ role: 'assistant', content, refusal: null }));
  return completionOf(messages, { finish: 'stop', ...options });
}

/** A whole answer that calls tools. */
export function toolCallCompletion(calls: ToolCallSpec[], options: ChunkOptions = {}): Record<string, unknown> {
  const message = { role: 'assistant', content: null, refusal: null, tool_calls: calls.map(toolCall) };
  return completionOf([message], { finish: 'tool_calls', ...options });
}

/** OpenAI's error object: the body of an error answer, or an event in the middle of a stream. */
export function errorBody(
  message: string,
  {
    type = 'server_error',
    code = null,
    param = null,
  }: { type?: string; code?: string | null; param?: string | null } = {},
): Record<string, unknown> {
  return { error: { message, type, param, code } };
}

/** An event's bytes in a framing other than the usual `data: …\n\n`. */
export function frame(
  data: object | string,
  { event, newline = '\n', space = true }: { event?: string; newline?: '\n' | '\r\n' | '\r'; space?: boolean } = {},
): string {
  const gap = space ? ' ' : '';
  const text = typeof data === 'string' ? data : JSON.stringify(data);
  const lines = text.split('\n').map((line) => `data:${gap}${line}${newline}`);
  return `${event ? `event:${gap}${event}${newline}` : ''}${lines.join('')}${newline}`;
}

function head<T extends string>(object: T, { id = 'chatcmpl-test', model = 'test-model', extra }: ChunkOptions) {
  return { id, object, created: 1_700_000_000, model, ...extra };
}

function completionOf(messages: object[], options: ChunkOptions): Record<string, unknown> {
  return {
    ...head('chat.completion', options),
    choices: messages.map((message, index) => ({ index, message, logprobs: null, finish_reason: options.finish })),
    usage: options.usage ?? usageOf(5, 5),
  };
}

function toolCall({ id, name, arguments: args }: ToolCallSpec, index: number) {
  const text = typeof args === 'string' ? args : JSON.stringify(args);
  return { id: id ?? `call_${index + 1}`, type: 'function', function: { name, arguments: text } };
}

/** The first fragment carries id, type and name with empty arguments, as OpenAI's does. */
function toolCallDeltas(spec: ToolCallSpec, index: number, options: ChunkOptions): Record<string, unknown>[] {
  const { id, type, function: called } = toolCall(spec, index);
  const first = { index, id, type, function: { name: called.name, arguments: '' } };
  const rest = pieces(called.arguments, options).map((part) => ({ index, function: { arguments: part } }));
  return [first, ...rest].map((fragment) => ({ tool_calls: [fragment] }));
}

function pieces(text: string, { size = 4 }: ChunkOptions): string[] {
  return text.match(new RegExp(`.{1,${size}}`, 'gsu')) ?? [];
}

function takeTurns<T>(lists: T[][]): T[] {
  const longest = Math.max(0, ...lists.map((list) => list.length));
  return Array.from({ length: longest }, (_, turn) => lists.flatMap((list) => list.slice(turn, turn + 1))).flat();
}
