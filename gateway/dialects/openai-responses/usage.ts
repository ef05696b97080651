/** The usage of a response, read and written. Source: https://platform.openai.com/docs/api-reference/responses/object. */
import type { Usage } from '../../../proto/contract.ts';
import { countOf, objectOf } from '../../hub/fields.ts';
import type { HubUsage } from '../../hub/reply.ts';
import type { Json } from '../dialect.ts';

/** Undefined when it tells nothing. */
export function readUsage(value: unknown): Usage | undefined {
  const usage = objectOf(value);
  const [input, output] = [countOf(usage?.input_tokens), countOf(usage?.output_tokens)];
  if (usage === undefined || (input === undefined && output === undefined)) return undefined;
  const cached = countOf(objectOf(usage.input_tokens_details)?.cached_tokens);
  const reasoning = countOf(objectOf(usage.output_tokens_details)?.reasoning_tokens);
  return {
    inputTokens: input ?? 0,
    outputTokens: output ?? 0,
    ...(cached !== undefined && { cachedInputTokens: cached }),
    ...(reasoning !== undefined && { reasoningTokens: reasoning }),
  };
}

/** All fields are there, since clients read them without asking. */
export function writtenUsage(usage: HubUsage): Json {
  const { inputTokens, outputTokens, cachedInputTokens, cacheWriteTokens, reasoningTokens } = usage;
  return {
    input_tokens: inputTokens,
    input_tokens_details: {
      cached_tokens: cachedInputTokens ?? 0,
      ...(cacheWriteTokens !== undefined && { cache_write_tokens: cacheWriteTokens }),
    },
    output_tokens: outputTokens,
    output_tokens_details: { reasoning_tokens: reasoningTokens ?? 0 },
    total_tokens: inputTokens + outputTokens,
  };
}
