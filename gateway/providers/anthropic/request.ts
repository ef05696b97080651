/**
 * Hub → Messages API.
 * Source: https://platform.claude.com/docs/en/api/messages (version 2023-06-01, fields as of 2026).
 */
import type { Json } from '../../dialects/dialect.ts';
import { invalid } from '../../hub/fields.ts';
import type { HubRequest, HubTool } from '../../hub/request.ts';
import type { CallFacts } from '../provider.ts';
import { cacheControl, systemOf, turnsOf } from './content.ts';
import { type Bounds, type Thinking, thinkingOf } from './thinking.ts';

/** Writes a request. @throws GatewayError `invalid_request` that names the client's field */
export function writeMessages(request: HubRequest, { model, stream }: CallFacts, bounds: Bounds): Json {
  const { effort, ...thinking } = thinkingOf(request, model, bounds);
  return {
    ...writePrompt(request, model),
    ...thinking,
    ...samplingOf(request, thinking),
    tool_choice: choiceOf(request, thinking),
    stop_sequences: stopOf(request),
    output_config: outputOf(request, effort),
    metadata: request.user === undefined ? undefined : { user_id: request.user },
    service_tier: tierOf(request),
    stream: stream ? true : undefined,
  };
}

/** Writes what `count_tokens` takes: the prompt, and what changes its length. */
export function writeCount(request: HubRequest, { model }: CallFacts, bounds: Bounds): Json {
  const { thinking } = thinkingOf(request, model, bounds);
  return {
    ...writePrompt(request, model),
    thinking,
    tool_choice: choiceOf(request, { thinking }),
    output_config: outputOf(request, undefined),
  };
}

function writePrompt({ messages, tools }: HubRequest, model: string): Json {
  const system = systemOf(messages);
  return {
    model,
    system: system.length === 0 ? undefined : system,
    messages: turnsOf(messages),
    tools: tools.length === 0 ? undefined : tools.map(writtenTool),
  };
}

// --- Sampling -----------------------------------------------------------------------------------------------------

function samplingOf(request: HubRequest, { thinking }: Pick<Thinking, 'thinking'>): Json {
  const { temperature, topP, topK, used } = request;
  if (temperature !== undefined && (temperature < 0 || temperature > 1))
    throw invalid(used.get('temperature') ?? 'temperature', 'must be from 0 to 1 for this provider');
  if (!isOn(thinking)) return { temperature, top_p: topP, top_k: topK };
  const sampling = [
    { feature: 'temperature', isOdd: temperature !== undefined && temperature !== 1 },
    { feature: 'top-p', isOdd: topP !== undefined && topP < LEAST_TOP_P },
    { feature: 'top-k', isOdd: topK !== undefined },
  ] as const;
  const odd = sampling.find(({ isOdd }) => isOdd);
  if (odd !== undefined) throw invalid(used.get(odd.feature) ?? odd.feature, `cannot be set ${WHILE_THINKING}`);
  return { top_p: topP };
}

function stopOf({ stop, used }: HubRequest): string[] | undefined {
  if (stop?.some((sequence) => sequence.trim() === ''))
    throw invalid(used.get('stop') ?? 'stop', 'cannot hold a sequence of white space alone for this provider');
  return stop;
}

/** While a model thinks only the most improbable tokens may be cut off. */
const LEAST_TOP_P = 0.95;
const WHILE_THINKING = 'while the model thinks, says this provider: leave it out, or ask for no reasoning';

function isOn(thinking: Json | undefined): boolean {
  return thinking !== undefined && thinking.type !== 'disabled';
}

// --- Tools --------------------------------------------------------------------------------------------------------

function writtenTool({ name, description, parameters, strict, cache }: HubTool): Json {
  return {
    name,
    description,
    input_schema: { type: 'object', ...(parameters ?? { properties: {} }) },
    strict: strict ? true : undefined,
    cache_control: cacheControl(cache),
  };
}

function choiceOf(request: HubRequest, { thinking }: Pick<Thinking, 'thinking'>): Json | undefined {
  const { toolChoice, parallelToolCalls, tools, used } = request;
  if (tools.length === 0) return undefined;
  if (toolChoice === 'none') return { type: 'none' };
  const one = parallelToolCalls === false ? { disable_parallel_tool_use: true } : undefined;
  if (toolChoice === undefined || toolChoice === 'auto')
    return one === undefined && toolChoice === undefined ? undefined : { type: 'auto', ...one };
  if (isOn(thinking)) throw invalid(used.get('tool-choice') ?? 'tool_choice', `cannot demand a tool ${WHILE_THINKING}`);
  return toolChoice === 'required' ? { type: 'any', ...one } : { type: 'tool', name: toolChoice.name, ...one };
}

// --- Settings -----------------------------------------------------------------------------------------------------

function outputOf({ format, used }: HubRequest, effort: string | undefined): Json | undefined {
  if (format?.type === 'json')
    throw invalid(used.get('format.json') ?? 'response_format', 'must have a schema for this provider');
  if (format === undefined && effort === undefined) return undefined;
  return { effort, format: format && { type: 'json_schema', schema: format.schema } };
}

/** With `auto` what the account has of priority is used where there is any. */
const TIERS: Readonly<Record<string, string>> = {
  auto: 'auto',
  priority: 'auto',
  default: 'standard_only',
  standard: 'standard_only',
  standard_only: 'standard_only',
};

function tierOf({ serviceTier, used }: HubRequest): string | undefined {
  if (serviceTier === undefined) return undefined;
  if (Object.hasOwn(TIERS, serviceTier)) return TIERS[serviceTier];
  throw invalid(used.get('service-tier') ?? 'service_tier', 'must be auto, default or priority for this provider');
}
