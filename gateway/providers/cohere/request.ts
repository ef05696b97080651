/** A request for `POST /v2/chat`. Source: https://docs.cohere.com/reference/chat */
import type { Json } from '../../dialects/dialect.ts';
import { invalid } from '../../hub/fields.ts';
import type { HubMessage, HubPart, HubRequest, MediaPart, ReasoningWish, ToolResultPart } from '../../hub/request.ts';
import type { CallFacts } from '../provider.ts';

/** @throws GatewayError `invalid_request` that names the client's field */
export function writeRequest(request: HubRequest, { model, stream }: CallFacts): Json {
  const { used } = request;
  checkTier(request);
  return {
    model,
    stream,
    messages: request.messages.flatMap((message) => messagesOf(message, model)),
    ...toolsOf(request),
    max_tokens: request.maxOutputTokens,
    temperature: request.temperature,
    p: request.topP,
    k: request.topK,
    stop_sequences: request.stop?.length ? request.stop : undefined,
    seed: request.seed,
    presence_penalty: penalty(request.presencePenalty, used.get('presence-penalty') ?? 'presence_penalty'),
    frequency_penalty: penalty(request.frequencyPenalty, used.get('frequency-penalty') ?? 'frequency_penalty'),
    response_format: formatOf(request),
    thinking: thinkingOf(request.reasoning),
  };
}

function checkTier({ serviceTier, used }: HubRequest): void {
  if (serviceTier === undefined || serviceTier === 'auto' || serviceTier === 'default') return;
  throw invalid(used.get('service-tier') ?? 'service_tier', 'cannot be other than auto or default for Cohere');
}

function penalty(value: number | undefined, param: string): number | undefined {
  if (value === undefined || (value >= 0 && value <= 1)) return value;
  throw invalid(param, 'must be from 0 to 1 for Cohere');
}

function formatOf({ format }: HubRequest): Json | undefined {
  if (format === undefined) return undefined;
  return { type: 'json_object', ...(format.type === 'json-schema' && { json_schema: format.schema }) };
}

/** Cohere knows a number of tokens, or as many as it takes. */
const BUDGETS: Partial<Record<NonNullable<ReasoningWish['effort']>, number>> = {
  minimal: 1_024,
  low: 2_048,
  medium: 8_192,
};

function thinkingOf(wish: ReasoningWish | undefined): Json | undefined {
  if (wish === undefined) return undefined;
  if (wish.off) return { type: 'disabled' };
  const budget = wish.budget ?? (wish.effort && BUDGETS[wish.effort]);
  return { type: 'enabled', ...(budget !== undefined && { token_budget: budget }) };
}

// --- Tools --------------------------------------------------------------------------------------------------------

function toolsOf({ tools, toolChoice }: HubRequest): Json {
  if (tools.length === 0) return {};
  const name = typeof toolChoice === 'object' ? toolChoice.name : undefined;
  const offered = name === undefined ? tools : tools.filter((tool) => tool.name === name);
  return {
    tools: offered.map(({ name: called, description, parameters }) => ({
      type: 'function',
      function: { name: called, description, parameters: parameters ?? { type: 'object', properties: {} } },
    })),
    strict_tools: tools.some(({ strict }) => strict) || undefined,
    tool_choice: choiceOf(toolChoice),
  };
}

function choiceOf(choice: HubRequest['toolChoice']): string | undefined {
  if (choice === undefined || choice === 'auto') return undefined;
  return choice === 'none' ? 'NONE' : 'REQUIRED';
}

// --- Messages -----------------------------------------------------------------------------------------------------

/** Results are messages of their own, and come first: they answer the turn before. */
function messagesOf(message: HubMessage, model: string): Json[] {
  const results = message.parts.filter((part) => part.type === 'tool-result').map((part) => resultOf(part, message.at));
  const parts = message.parts.filter((part) => part.type !== 'tool-result');
  const own = message.role === 'assistant' ? assistantOf(parts, message.at, model) : spokenOf(message, parts);
  return own === undefined ? results : [...results, own];
}

function spokenOf({ role, at }: HubMessage, parts: HubPart[]): Json | undefined {
  const content = parts.flatMap((part) => contentOf(part, at));
  if (content.length === 0) return undefined;
  return { role: role === 'system' ? 'system' : 'user', content };
}

function contentOf(part: HubPart, at: string): Json[] {
  if (part.type === 'text' || part.type === 'refusal')
    return part.text === '' ? [] : [{ type: 'text', text: part.text }];
  if (part.type === 'image') return [{ type: 'image_url', image_url: imageOf(part, at) }];
  if (part.type === 'reasoning') return [];
  throw invalid(at, 'holds what Cohere does not take: it reads text and images');
}

function imageOf({ source, detail }: MediaPart, at: string): Json {
  const shown = detail === undefined ? {} : { detail };
  if (source.kind === 'data') return { url: `data:${source.mediaType};base64,${source.data}`, ...shown };
  if (source.kind === 'url') return { url: source.url, ...shown };
  throw invalid(at, 'has an image that Cohere does not hold; send it inline or by URL');
}

function assistantOf(parts: HubPart[], at: string, model: string): Json | undefined {
  const calls = parts.filter((part) => part.type === 'tool-call');
  const text = parts.filter((part) => part.type !== 'tool-call').flatMap((part) => contentOf(part, at));
  const thoughts = parts.map((part) => (part.type === 'reasoning' ? part.text : '')).join('');
  const content = thoughts !== '' && THINKS.test(model) ? [{ type: 'thinking', thinking: thoughts }, ...text] : text;
  if (content.length === 0 && calls.length === 0) return undefined;
  return {
    role: 'assistant',
    content: content.length > 0 ? content : undefined,
    tool_plan: thoughts !== '' && calls.length > 0 && PLANS.test(model) ? thoughts : undefined,
    tool_calls: calls.length > 0 ? calls.map(callOf) : undefined,
  };
}

/** Models that think, and those before them that plan their tool calls. Neither takes the other's words. */
const THINKS = /reasoning/;
const PLANS = /^command-(?:r|a-03-2025)/;

function callOf(part: HubPart): Json | undefined {
  if (part.type !== 'tool-call') return undefined;
  return { id: part.id, type: 'function', function: { name: part.name, arguments: part.arguments || '{}' } };
}

function resultOf({ id, parts, isError }: ToolResultPart, at: string): Json {
  const text = parts.map((part) => {
    if (part.type === 'text' || part.type === 'refusal') return part.text;
    throw invalid(at, 'has a tool result that holds more than text, which Cohere does not take');
  });
  const data = text.join('\n');
  const content = isError ? [{ type: 'document', document: { data: { error: data } } }] : data;
  return { role: 'tool', tool_call_id: id, content };
}
