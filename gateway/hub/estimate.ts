/**
 * The length of a prompt where no provider of the model counts it: OpenAI's o200k encoding over its text, which is near
 * enough for budgets and context windows (other vendors' encodings differ by 10 to 30 %). The answer says that it is an
 * estimate.
 */
import type { CountDialect, Json, ModelRequest } from '../dialects/dialect.ts';

/** What a turn costs beside its text, in tokens (OpenAI cookbook, "How to count tokens"). */
const PER_SEGMENT = 4;
/** Longest text that is encoded, in UTF-16 units; what is beyond counts a token for four characters. */
const MAX_ENCODED = 262_144;

/** The answer to a question for the length of a prompt, in the client's dialect. */
export async function estimateTokens(
  dialect: CountDialect,
  { body }: ModelRequest,
  rewritten: ReadonlyMap<string, string> | undefined,
): Promise<string> {
  // Its table takes 60 ms to load, and most gateways never need it.
  const { countTokens } = await import('gpt-tokenizer/encoding/o200k_base');
  let inputTokens = 0;
  for (const { id, channel, text } of dialect.requestSegments(body)) {
    if (channel === 'media') continue;
    const shown = rewritten?.get(id) ?? text;
    const encoded = shown.slice(0, MAX_ENCODED);
    inputTokens += PER_SEGMENT + countTokens(encoded) + Math.ceil((shown.length - encoded.length) / 4);
  }
  return JSON.stringify(dialect.fromHub({ inputTokens, estimated: true }) satisfies Json);
}
