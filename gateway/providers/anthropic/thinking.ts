/**
 * How much Claude is to think. From 4.6 on it decides itself (`adaptive`) and is told an effort; before, it wants a number
 * of tokens that is part of the answer's bound.
 * Source: https://platform.claude.com/docs/en/build-with-claude/thinking
 */
import type { Json } from '../../dialects/dialect.ts';
import { invalid } from '../../hub/fields.ts';
import type { HubMessage, HubRequest, ReasoningWish } from '../../hub/request.ts';

/** What the config says of thinking and of the answer's bound. */
export interface Bounds {
  /** Tokens of an answer whose client gave no bound. */
  maxTokens: number;
  /** How models are told to think; `auto`: by their names. */
  thinking: 'auto' | 'adaptive' | 'budget';
}

/** The fields that depend on each other. */
export interface Thinking {
  max_tokens: number;
  thinking?: Json;
  /** `output_config.effort`. */
  effort?: string;
}

type Effort = NonNullable<ReasoningWish['effort']>;

/** Tokens for an effort, for models that know a number only. */
const BUDGETS: Readonly<Record<Effort, number>> = {
  minimal: 1_024,
  low: 2_048,
  medium: 8_192,
  high: 16_384,
  xhigh: 24_576,
  max: 24_576,
};

/** The smallest number that is taken. */
const LEAST = 1_024;
/** What every model that thinks can write, thoughts included. */
const MOST = 32_000;

/** @throws GatewayError `invalid_request` that names the client's field */
export function thinkingOf(request: HubRequest, model: string, bounds: Bounds): Thinking {
  const { reasoning: wish, maxOutputTokens } = request;
  const isAdaptive = bounds.thinking === 'auto' ? decidesItself(model) : bounds.thinking === 'adaptive';
  const most = maxOutputTokens ?? bounds.maxTokens;
  if (wish === undefined) return { max_tokens: most };
  // Older models think only when they are told to.
  if (wish.off) return { max_tokens: most, ...(isAdaptive && { thinking: { type: 'disabled' } }) };
  if (wish.budget === undefined && isAdaptive) return adaptive(request, wish, bounds);
  if (wish.budget === undefined && wish.effort === undefined) return { max_tokens: most };
  // It would refuse the request: whoever gave the tools their results did not keep the thoughts that asked for them.
  if (hasLostThoughts(request.messages)) return { max_tokens: most };
  return budgeted(request, wish, bounds);
}

function adaptive({ maxOutputTokens }: HubRequest, { effort, shown }: ReasoningWish, bounds: Bounds): Thinking {
  const display = shown === undefined ? {} : { display: shown ? 'summarized' : 'omitted' };
  return {
    max_tokens: maxOutputTokens ?? withRoom(bounds.maxTokens, BUDGETS[effort ?? 'high']),
    thinking: { type: 'adaptive', ...display },
    ...(effort !== undefined && { effort: effort === 'minimal' ? 'low' : effort }),
  };
}

function budgeted(request: HubRequest, wish: ReasoningWish, { maxTokens }: Bounds): Thinking {
  const budget = budgetOf(request, wish);
  return {
    max_tokens: request.maxOutputTokens ?? Math.max(withRoom(maxTokens, budget), budget + 1),
    thinking: { type: 'enabled', budget_tokens: budget, ...(wish.shown === false && { display: 'omitted' }) },
  };
}

/** A default bound with room for thoughts, as far as every model can go. */
function withRoom(maxTokens: number, budget: number): number {
  return Math.max(maxTokens, Math.min(maxTokens + budget, MOST));
}

/** A number that the client gave must fit as it is; an effort makes do with what room there is. */
function budgetOf({ maxOutputTokens, used }: HubRequest, { budget, effort = 'medium' }: ReasoningWish): number {
  const param = used.get('reasoning') ?? 'reasoning';
  if (budget !== undefined && budget < LEAST)
    throw invalid(param, `must be ${LEAST} tokens at least for this provider`);
  const wanted = budget ?? BUDGETS[effort];
  if (maxOutputTokens === undefined || wanted < maxOutputTokens) return wanted;
  if (budget !== undefined) throw invalid(param, 'must be smaller than the bound on the answer, of which it is a part');
  if (maxOutputTokens > LEAST) return Math.max(LEAST, Math.floor(maxOutputTokens / 2));
  throw invalid(
    used.get('max-tokens') ?? 'max_tokens',
    `must be above ${LEAST} for a model that is to think: its thoughts count as well`,
  );
}

/** Two digits at most are a version; more are a date. */
const VERSION = /claude-(?:[a-z]+-)?(\d+)(?:[-.](\d{1,2}))?(?!\d)/;

/** Whether a model decides itself how much to think; names that do not tell are taken for new ones. */
function decidesItself(model: string): boolean {
  return !/claude-(?:instant|v?2)\b/.test(model) && isFromAdaptive(model);
}

/** Whether a model is of version 4.6 or later, or has a name that tells no version. */
export function isFromAdaptive(model: string): boolean {
  const found = VERSION.exec(model);
  return found === null || Number(found[1]) + Number(found[2] ?? 0) / 10 >= 4.6;
}

/** Whether the model waits for tools that it called, without the sealed thoughts that led it to them. */
export function hasLostThoughts(messages: HubMessage[]): boolean {
  const parts = messages.findLast(({ role }) => role === 'assistant')?.parts ?? [];
  const isSealed = parts.some((part) => part.type === 'reasoning' && (part.signature ?? part.redacted) !== undefined);
  return parts.some(({ type }) => type === 'tool-call') && !isSealed;
}
