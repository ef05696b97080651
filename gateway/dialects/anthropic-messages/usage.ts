/**
 * Token counts of the Messages API: `input_tokens` are those alone that neither came from the cache nor went into it.
 * Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching (tracking cache performance).
 */
import { countOf, objectOf, textOf } from '../../hub/fields.ts';
import type { HubUsage } from '../../hub/reply.ts';
import type { Json } from '../dialect.ts';

export const NO_USAGE: HubUsage = { inputTokens: 0, outputTokens: 0 };

/** Reads the counts of an answer or of an event; undefined when there are none. */
export function readUsage(value: unknown): HubUsage | undefined {
  const usage = objectOf(value);
  const [input, output] = [countOf(usage?.input_tokens), countOf(usage?.output_tokens)];
  if (usage === undefined || (input === undefined && output === undefined)) return undefined;
  const cached = countOf(usage.cache_read_input_tokens);
  const written = countOf(usage.cache_creation_input_tokens);
  const thoughts = countOf(objectOf(usage.output_tokens_details)?.thinking_tokens);
  return {
    inputTokens: (input ?? 0) + (cached ?? 0) + (written ?? 0),
    outputTokens: output ?? 0,
    ...(cached !== undefined && { cachedInputTokens: cached }),
    ...(written !== undefined && { cacheWriteTokens: written }),
    ...(thoughts !== undefined && { reasoningTokens: thoughts }),
  };
}

/** The tier that served the answer, in the hub's words. */
export function readTier(value: unknown): string | undefined {
  const tier = textOf(objectOf(value)?.service_tier);
  return tier === 'standard' ? 'default' : tier;
}

/** The tiers that an answer may have been served by. */
const TIERS: Readonly<Record<string, string>> = { default: 'standard', priority: 'priority', batch: 'batch' };

/** `serviceTier` is in the hub's words; one that the API does not have is left out. */
export function writtenUsage(usage: HubUsage, serviceTier?: string): Json {
  const tier = Object.hasOwn(TIERS, serviceTier ?? '') ? TIERS[serviceTier!] : undefined;
  const { inputTokens, outputTokens, cachedInputTokens = 0, cacheWriteTokens = 0, reasoningTokens } = usage;
  return {
    input_tokens: Math.max(0, inputTokens - cachedInputTokens - cacheWriteTokens),
    cache_creation_input_tokens: cacheWriteTokens,
    cache_read_input_tokens: cachedInputTokens,
    output_tokens: outputTokens,
    ...(reasoningTokens !== undefined && { output_tokens_details: { thinking_tokens: reasoningTokens } }),
    ...(tier !== undefined && { service_tier: tier }),
  };
}
