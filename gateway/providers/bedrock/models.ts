/**
 * What differs from model to model: `additionalModelRequestFields`, which Converse hands to the model as they are.
 * Source: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html and the vendors' own pages.
 */
import type { Json } from '../../dialects/dialect.ts';
import { invalid } from '../../hub/fields.ts';
import type { HubRequest, ReasoningWish } from '../../hub/request.ts';
import { hasLostThoughts, isFromAdaptive } from '../anthropic/thinking.ts';

/** Whose words a model takes. An ARN of one's own (an application's inference profile) does not tell. */
export type Family = 'claude' | 'nova' | 'gpt-oss' | 'mistral' | 'cohere' | 'other';

const FAMILIES: [RegExp, Family][] = [
  [/anthropic\.claude/, 'claude'],
  [/amazon\.nova/, 'nova'],
  [/openai\.gpt-oss/, 'gpt-oss'],
  [/mistral\./, 'mistral'],
  [/cohere\./, 'cohere'],
];

export function familyOf(model: string): Family {
  return FAMILIES.find(([pattern]) => pattern.test(model))?.[1] ?? 'other';
}

/** Fields beside Converse's own. */
export interface Extras {
  /** `additionalModelRequestFields`. */
  fields: Json;
  /** `outputConfig.effort`. */
  effort?: string;
}

/** @throws GatewayError `invalid_request` where the model has no word for what the client asked */
export function extrasOf(request: HubRequest, model: string): Extras {
  const family = familyOf(model);
  const reasoning = reasoningOf(request, model, family);
  const fields = { ...topK(request, family), ...reasoning.fields, ...oneTool(request, family) };
  return { fields, effort: reasoning.effort };
}

function topK({ topK: most, used }: HubRequest, family: Family): Json {
  if (most === undefined) return {};
  if (family === 'claude' || family === 'mistral') return { top_k: most };
  if (family === 'nova') return { inferenceConfig: { topK: most } };
  if (family === 'cohere') return { k: most };
  throw invalid(used.get('top-k') ?? 'top_k', 'cannot be said to this model on Bedrock; leave it out');
}

/** Claude's own tool choice carries the flag; Converse's must not stand beside it. */
function oneTool({ tools, toolChoice, parallelToolCalls, used }: HubRequest, family: Family): Json {
  if (parallelToolCalls !== false || tools.length === 0 || toolChoice === 'none') return {};
  const param = used.get('parallel-tools') ?? 'parallel_tool_calls';
  if (family !== 'claude') throw invalid(param, 'cannot be said to this model on Bedrock; leave it out');
  return { tool_choice: { ...claudeChoice(toolChoice), disable_parallel_tool_use: true } };
}

function claudeChoice(choice: HubRequest['toolChoice']): Json {
  if (typeof choice === 'object') return { type: 'tool', name: choice.name };
  return { type: choice === 'required' ? 'any' : 'auto' };
}

function reasoningOf(request: HubRequest, model: string, family: Family): Partial<Extras> {
  const { reasoning } = request;
  if (reasoning === undefined) return {};
  if (reasoning.off) return withoutThinking(request, model, family);
  if (family === 'claude') return claudeThinking(request, reasoning, model);
  const param = request.used.get('reasoning') ?? 'reasoning';
  if (reasoning.budget !== undefined)
    throw invalid(param, 'cannot be a number of tokens for this model on Bedrock; say how much effort instead');
  if (family === 'nova') return { fields: { reasoningConfig: novaReasoning(reasoning) } };
  if (reasoning.effort === undefined) return {};
  if (family === 'gpt-oss') return { fields: { reasoning_effort: THREE[reasoning.effort] } };
  return { effort: FIVE[reasoning.effort] };
}

/** Where thinking has to be asked for, nothing needs to be said; models that know no such field would refuse it. */
function withoutThinking({ used }: HubRequest, model: string, family: Family): Partial<Extras> {
  const param = used.get('reasoning');
  if (family === 'gpt-oss' && param !== undefined)
    throw invalid(param, 'cannot be off for this model on Bedrock: it always thinks; ask for low effort');
  return family === 'claude' && isFromAdaptive(model) ? { fields: { thinking: { type: 'disabled' } } } : {};
}

type Effort = NonNullable<ReasoningWish['effort']>;

const THREE: Record<Effort, string> = {
  minimal: 'low',
  low: 'low',
  medium: 'medium',
  high: 'high',
  xhigh: 'high',
  max: 'high',
};
const FIVE: Record<Effort, string> = { ...THREE, xhigh: 'xhigh', max: 'max' };

function novaReasoning({ effort }: ReasoningWish): Json {
  return { type: 'enabled', maxReasoningEffort: effort === undefined ? 'medium' : THREE[effort] };
}

/** Thinking tokens for an effort, for models that know a number only. */
const BUDGETS: Record<Effort, number> = {
  minimal: 1_024,
  low: 2_048,
  medium: 8_192,
  high: 16_384,
  xhigh: 24_576,
  max: 32_768,
};
const LEAST_BUDGET = 1_024;

/**
 * Claude decides itself how much to think from 4.6 on (`adaptive`, with an effort); before, it wants a number of tokens.
 * Source: https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-extended-thinking.html
 */
function claudeThinking(request: HubRequest, wish: ReasoningWish, model: string): Partial<Extras> {
  if (wish.budget === undefined && isFromAdaptive(model)) {
    const display = wish.shown === undefined ? {} : { display: wish.shown ? 'summarized' : 'omitted' };
    return {
      fields: { thinking: { type: 'adaptive', ...display } },
      effort: wish.effort === undefined ? undefined : FIVE[wish.effort],
    };
  }
  // It would refuse the request: whoever gave the tools their results did not keep the thoughts that asked for them.
  if (hasLostThoughts(request.messages)) return {};
  return { fields: { thinking: { type: 'enabled', budget_tokens: budgetOf(request, wish) } } };
}

function budgetOf({ maxOutputTokens, used }: HubRequest, { budget, effort }: ReasoningWish): number {
  // A number that the client gave is its own affair.
  if (budget !== undefined) return budget;
  const wanted = BUDGETS[effort ?? 'medium'];
  if (maxOutputTokens === undefined || wanted < maxOutputTokens) return wanted;
  if (maxOutputTokens > LEAST_BUDGET) return Math.max(LEAST_BUDGET, Math.floor(maxOutputTokens / 2));
  throw invalid(
    used.get('max-tokens') ?? 'max_tokens',
    `must be above ${LEAST_BUDGET} for a model that is to think: its thoughts count as well`,
  );
}
