/** Vectors: `batchEmbedContents`. Source: https://ai.google.dev/api/embeddings. */
import type { Json } from '../../dialects/dialect.ts';
import { readUsage } from '../../dialects/gemini/usage.ts';
import { badAnswer, invalid, objectOf, objectsOf } from '../../hub/fields.ts';
import type { EmbeddingsReply } from '../../hub/reply.ts';
import type { EmbeddingsRequest } from '../../hub/request.ts';
import type { CallFacts } from '../provider.ts';

export function writeEmbeddings(request: EmbeddingsRequest, { model }: CallFacts): Json {
  return {
    requests: textsOf(request).map((text) => ({
      model: `models/${model.replace(/^models\//, '')}`,
      content: { parts: [{ text }] },
      outputDimensionality: request.dimensions,
    })),
  };
}

/** The texts of a request. @throws GatewayError 400 when there are token ids among them */
export function textsOf({ input, used }: EmbeddingsRequest): string[] {
  return input.map((item) => {
    if (typeof item === 'string') return item;
    throw invalid(used.get('token-input') ?? 'input', 'cannot be token ids for this provider; send texts');
  });
}

/** @throws GatewayError `upstream_bad_answer` when a vector is missing or none */
export function readEmbeddings(body: Json): EmbeddingsReply {
  const vectors = objectsOf(body.embeddings ?? [objectOf(body.embedding)]).map(({ values }) => vectorOf(values));
  if (vectors.length === 0) throw badAnswer();
  return { vectors, usage: readUsage(body.usageMetadata) };
}

export function vectorOf(values: unknown): number[] {
  if (Array.isArray(values) && values.length > 0 && values.every((value) => typeof value === 'number')) return values;
  throw badAnswer();
}
