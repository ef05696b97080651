/** The length of a prompt: `countTokens`. Source: https://ai.google.dev/api/tokens. */
import type { Json } from '../../dialects/dialect.ts';
import { badAnswer, countOf } from '../../hub/fields.ts';
import type { TokenCount } from '../../hub/reply.ts';
import type { HubRequest } from '../../hub/request.ts';
import type { CallFacts } from '../provider.ts';
import { writePrompt } from './request.ts';

/** Only inside a whole request are instructions and tools counted too. */
export function writeCount(request: HubRequest, { model }: CallFacts): Json {
  const name = `models/${model.replace(/^models\//, '')}`;
  return { generateContentRequest: { model: name, ...writePrompt(request, model) } };
}

/** @throws GatewayError `upstream_bad_answer` when there is no count */
export function readCount({ totalTokens }: Json): TokenCount {
  const inputTokens = countOf(totalTokens);
  if (inputTokens === undefined) throw badAnswer();
  return { inputTokens };
}
