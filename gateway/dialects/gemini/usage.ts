/** Gemini's `usageMetadata`: https://ai.google.dev/api/generate-content#UsageMetadata. */
import { countOf, objectOf } from '../../hub/fields.ts';
import type { HubUsage } from '../../hub/reply.ts';
import type { Json } from '../dialect.ts';

/** Thoughts are not among the candidates' tokens, and what Google's own tools read is not in the prompt's. */
export function readUsage(metadata: unknown): HubUsage | undefined {
  const usage = objectOf(metadata);
  if (usage === undefined) return undefined;
  const [prompt, candidates, thoughts, cached] = [
    countOf(usage.promptTokenCount),
    countOf(usage.candidatesTokenCount),
    countOf(usage.thoughtsTokenCount),
    countOf(usage.cachedContentTokenCount),
  ];
  if (prompt === undefined && candidates === undefined) return undefined;
  return {
    inputTokens: (prompt ?? 0) + (countOf(usage.toolUsePromptTokenCount) ?? 0),
    outputTokens: (candidates ?? 0) + (thoughts ?? 0),
    ...(cached !== undefined && { cachedInputTokens: cached }),
    ...(thoughts !== undefined && { reasoningTokens: thoughts }),
  };
}

export function writeUsage(usage: HubUsage | undefined): Json | undefined {
  if (usage === undefined) return undefined;
  const { inputTokens, outputTokens, cachedInputTokens, reasoningTokens } = usage;
  return {
    promptTokenCount: inputTokens,
    ...(cachedInputTokens !== undefined && { cachedContentTokenCount: cachedInputTokens }),
    candidatesTokenCount: Math.max(0, outputTokens - (reasoningTokens ?? 0)),
    ...(reasoningTokens !== undefined && { thoughtsTokenCount: reasoningTokens }),
    totalTokenCount: inputTokens + outputTokens,
  };
}
