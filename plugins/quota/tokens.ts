/** Token counts as limits take them: whole and sane whatever a provider reports. */
import type { Usage } from '../../proto/contract.ts';

/** A count rounded up; 0 for what is no count. */
export function wholeTokens(count: number): number {
  return count > 0 && Number.isFinite(count) ? Math.ceil(count) : 0;
}

/** Tokens of prompt and answer together. */
export function totalOf(usage: Usage | undefined): number {
  return usage === undefined ? 0 : wholeTokens(usage.inputTokens) + wholeTokens(usage.outputTokens);
}
