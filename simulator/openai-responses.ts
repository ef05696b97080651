/** OpenAI's Responses as the simulated model speaks it: `/v1/responses`, whole or as typed events. */
import { z } from 'zod';
import {
  type Call,
  newId,
  ok,
  type Reply,
  read,
  type StreamPiece,
  signatureOf,
  typedSse,
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
  type Tool,
  type Turn,
  words,
} from './model.ts';
import { openai } from './openai.ts';

const ROLES = { system: 'system', developer: 'system', user: 'user', assistant: 'assistant' } as const;

const InputPart = z.looseObject({ type: z.string(), text: z.string().optional(), refusal: z.string().optional() });
const Content = z.union([z.string(), z.array(InputPart)]);
const Message = z.looseObject({
  type: z.literal('message').optional(),
  role: z.enum(['system', 'developer', 'user', 'assistant']),
  content: Content,
});
const CallItem = z.looseObject({
  type: z.literal('function_call'),
  call_id: z.string(),
  name: z.string(),
  arguments: z.string(),
});
const ResultItem = z.looseObject({ type: z.literal('function_call_output'), call_id: z.string(), output: Content });
const ReasoningItem = z.looseObject({ type: z.literal('reasoning') });
const Item = z.union([Message, CallItem, ResultItem, ReasoningItem]);
const OfferedTool = z.looseObject({
  type: z.string(),
  name: z.string().optional(),
  parameters: z.record(z.string(), z.unknown()).nullish(),
});
const ResponsesRequest = z.looseObject({
  model: z.string().min(1),
  input: z.union([z.string().min(1), z.array(Item).min(1)]),
  instructions: z.string().nullish(),
  max_output_tokens: z.int().min(16).nullish(),
  stream: z.boolean().nullish(),
  tools: z.array(OfferedTool).nullish(),
  tool_choice: z
    .union([z.enum(['none', 'auto', 'required']), z.looseObject({ type: z.literal('function'), name: z.string() })])
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  reasoning: z.looseObject({ effort: z.string().nullish(), summary: z.string().nullish() }).nullish(),
  include: z.array(z.string()).nullish(),
  text: z
    .looseObject({ format: z.looseObject({ type: z.enum(['text', 'json_object', 'json_schema']) }).nullish() })
    .nullish(),
});
type ResponsesRequest = z.infer<typeof ResponsesRequest>;

/** OpenAI's Responses. Nothing is stored: a `previous_response_id` is not found. */
export const openaiResponses: WireFormat = {
  ...openai,
  routes: [
    { method: 'POST', path: /^\/v1\/responses$/, answer: respond },
    { method: 'POST', path: /^\/v1\/responses\/input_tokens$/, answer: countInput },
  ],
};

/** Answers a response, whole or streamed. @throws Refusal when the request is wrong or the prompt is filtered */
export function respond({ body, prefill }: Call): Reply {
  const request = read(ResponsesRequest, body);
  if (typeof request.previous_response_id === 'string') throw notFound(request.previous_response_id);
  const said = answer({ ...promptOf(request), prefill });
  if (said.finish === 'blocked') {
    throw new Refusal(400, 'The prompt was filtered, because it asked for that.', 'content_policy_violation', 'input');
  }
  const items = itemsOf(said, request);
  const response = headOf(request);
  if (!request.stream) return ok({ ...response, ...endOf(said, items) });
  return { status: 200, stream: numbered(events(response, items, endOf(said, items))), failure };
}

function notFound(id: string): Refusal {
  const message = `The response '${id}' is not found: the simulated model stores none.`;
  return new Refusal(400, message, 'previous_response_not_found', 'previous_response_id');
}

function countInput({ body }: Call): Reply {
  const request = read(ResponsesRequest, body);
  return ok({ object: 'response.input_tokens', input_tokens: countTokens(turnsOf(request)) });
}

function failure({ status, message, code, param }: Refusal, sent: number): string {
  const error = { code: code ?? (status >= 500 ? 'server_error' : 'invalid_prompt'), message, param };
  return typedSse({ type: 'error', ...error, sequence_number: sent } as { type: string });
}

function promptOf(request: ResponsesRequest): Omit<Prompt, 'prefill'> {
  const choice = request.tool_choice ?? 'auto';
  const turns = turnsOf(request);
  checkCalls(turns);
  return {
    model: request.model,
    turns,
    tools: (request.tools ?? []).flatMap(({ name, parameters }): Tool[] => {
      return name === undefined ? [] : [{ name, parameters: parameters ?? undefined }];
    }),
    toolChoice: choice,
    parallel: request.parallel_tool_calls ?? true,
    json: (request.text?.format?.type ?? 'text') !== 'text',
    thinks: request.reasoning !== undefined && request.reasoning?.effort !== 'none',
    maxTokens: request.max_output_tokens ?? Number.POSITIVE_INFINITY,
    stop: [],
  };
}

function turnsOf({ input, instructions }: ResponsesRequest): Turn[] {
  const system: Turn[] = instructions ? [{ role: 'system', text: instructions }] : [];
  return [...system, ...(typeof input === 'string' ? [{ role: 'user', text: input } as Turn] : input.flatMap(turnOf))];
}

function turnOf(item: z.infer<typeof Item>): Turn[] {
  if (item.type === 'function_call')
    return [{ role: 'assistant', text: '', calls: [(item as z.infer<typeof CallItem>).call_id] }];
  if (item.type === 'function_call_output') {
    const { call_id: id, output } = item as z.infer<typeof ResultItem>;
    return [{ role: 'tool', text: textOf(output), calls: [id] }];
  }
  if (item.type === 'reasoning') return [];
  const { role, content } = item as z.infer<typeof Message>;
  return [{ role: ROLES[role], text: textOf(content) }];
}

/** An image or a file is said back as its kind in brackets. */
function textOf(content: z.infer<typeof Content>): string {
  if (typeof content === 'string') return content;
  return content.map((part) => part.text ?? part.refusal ?? `[${part.type}]`).join('\n');
}

/** One thing that the model puts out, as it is when it is complete. */
type OutputItem = { id: string; type: string; [field: string]: unknown };

function itemsOf(said: Answer, request: ResponsesRequest): OutputItem[] {
  const status = said.finish === 'length' ? 'incomplete' : 'completed';
  const calls = said.calls.map(({ name, arguments: args }): OutputItem => {
    return { id: newId('fc_'), type: 'function_call', status, call_id: newId('call_'), name, arguments: args };
  });
  const message = { id: newId('msg_'), type: 'message', status, role: 'assistant', content: [partOf(said)] };
  return [...reasoningOf(said, request), ...(calls.length > 0 ? calls : [message])];
}

/** The thoughts themselves are never shown: a summary when it is asked for, and an encrypted copy to send back. */
function reasoningOf({ thoughts }: Answer, { reasoning, include }: ResponsesRequest): OutputItem[] {
  if (thoughts === '') return [];
  const summary = reasoning?.summary ? [{ type: 'summary_text', text: thoughts }] : [];
  const encrypted = include?.includes('reasoning.encrypted_content')
    ? { encrypted_content: signatureOf(thoughts) }
    : {};
  return [{ id: newId('rs_'), type: 'reasoning', summary, ...encrypted }];
}

function partOf({ text, finish, source }: Answer): Part {
  if (finish === 'refusal') return { type: 'refusal', refusal: text };
  const citation = source ? [{ type: 'url_citation', start_index: 0, end_index: text.length, ...source }] : [];
  return { type: 'output_text', text, annotations: citation, logprobs: [] };
}

type Part =
  | { type: 'refusal'; refusal: string }
  | { type: 'output_text'; text: string; annotations: object[]; logprobs: [] };

/** A response before anything is said. */
function headOf(request: ResponsesRequest): object {
  return {
    id: newId('resp_'),
    object: 'response',
    created_at: Math.floor(Date.now() / 1000),
    status: 'in_progress',
    background: false,
    error: null,
    incomplete_details: null,
    instructions: request.instructions ?? null,
    max_output_tokens: request.max_output_tokens ?? null,
    model: request.model,
    output: [],
    parallel_tool_calls: request.parallel_tool_calls ?? true,
    previous_response_id: null,
    reasoning: { effort: request.reasoning?.effort ?? null, summary: request.reasoning?.summary ?? null },
    service_tier: 'default',
    store: false,
    temperature: 1,
    text: request.text ?? { format: { type: 'text' } },
    tool_choice: request.tool_choice ?? 'auto',
    tools: request.tools ?? [],
    top_p: 1,
    truncation: 'disabled',
    usage: null,
    metadata: request.metadata ?? {},
  };
}

/** What of a response changes when it has ended. */
function endOf(said: Answer, output: OutputItem[]): { status: string; [field: string]: unknown } {
  const isCut = said.finish === 'length';
  return {
    status: isCut ? 'incomplete' : 'completed',
    completed_at: isCut ? null : Math.floor(Date.now() / 1000),
    incomplete_details: isCut ? { reason: 'max_output_tokens' } : null,
    output,
    usage: {
      input_tokens: said.promptTokens,
      input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 },
      output_tokens: said.answerTokens,
      output_tokens_details: { reasoning_tokens: said.thoughtTokens },
      total_tokens: said.promptTokens + said.answerTokens,
    },
  };
}

/** An event before it has its number. */
type Event = { type: string; isToken?: boolean; [field: string]: unknown };

function* numbered(source: Iterable<Event>): Generator<StreamPiece> {
  let number = 0;
  for (const { type, isToken = false, ...fields } of source) {
    yield { bytes: typedSse({ type, ...fields, sequence_number: number++ } as { type: string }), token: isToken };
  }
}

function* events(response: object, items: OutputItem[], end: ReturnType<typeof endOf>): Generator<Event> {
  yield { type: 'response.created', response };
  yield { type: 'response.in_progress', response };
  for (const [index, item] of items.entries()) yield* eventsOfItem(item, index);
  yield { type: `response.${end.status}`, response: { ...response, ...end } };
}

function* eventsOfItem(item: OutputItem, index: number): Generator<Event> {
  const place = { item_id: item.id, output_index: index };
  yield { type: 'response.output_item.added', output_index: index, item: { ...item, ...emptied(item) } };
  if (item.type === 'reasoning') yield* eventsOfSummary(item.summary as { text: string }[], place);
  if (item.type === 'function_call') yield* eventsOfCall(item.arguments as string, place);
  if (item.type === 'message') yield* eventsOfPart((item.content as [Part])[0], { ...place, content_index: 0 });
  yield { type: 'response.output_item.done', output_index: index, item };
}

/** What of an item is not yet there when it is announced. */
function emptied({ type }: OutputItem): object {
  if (type === 'reasoning') return { summary: [] };
  if (type === 'function_call') return { status: 'in_progress', arguments: '' };
  return { status: 'in_progress', content: [] };
}

function* eventsOfSummary(summary: { text: string }[], place: object): Generator<Event> {
  for (const [index, part] of summary.entries()) {
    const at = { ...place, summary_index: index };
    yield { type: 'response.reasoning_summary_part.added', ...at, part: { ...part, text: '' } };
    for (const delta of words(part.text)) {
      yield { type: 'response.reasoning_summary_text.delta', ...at, delta, isToken: true };
    }
    yield { type: 'response.reasoning_summary_text.done', ...at, text: part.text };
    yield { type: 'response.reasoning_summary_part.done', ...at, part };
  }
}

function* eventsOfCall(args: string, place: object): Generator<Event> {
  for (const delta of fragments(args)) {
    yield { type: 'response.function_call_arguments.delta', ...place, delta, isToken: true };
  }
  yield { type: 'response.function_call_arguments.done', ...place, arguments: args };
}

function* eventsOfPart(part: Part, place: object): Generator<Event> {
  if (part.type === 'refusal') {
    yield { type: 'response.content_part.added', ...place, part: { ...part, refusal: '' } };
    for (const delta of words(part.refusal)) yield { type: 'response.refusal.delta', ...place, delta, isToken: true };
    yield { type: 'response.refusal.done', ...place, refusal: part.refusal };
  } else {
    yield { type: 'response.content_part.added', ...place, part: { ...part, text: '', annotations: [] } };
    yield* eventsOfText(part.text, part.annotations, place);
  }
  yield { type: 'response.content_part.done', ...place, part };
}

function* eventsOfText(text: string, annotations: object[], place: object): Generator<Event> {
  for (const delta of words(text)) {
    yield { type: 'response.output_text.delta', ...place, delta, logprobs: [], isToken: true };
  }
  for (const [index, annotation] of annotations.entries()) {
    yield { type: 'response.output_text.annotation.added', ...place, annotation_index: index, annotation };
  }
  yield { type: 'response.output_text.done', ...place, text, logprobs: [] };
}
