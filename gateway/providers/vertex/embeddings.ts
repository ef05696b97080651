/**
 * Vectors at Vertex: `predict`.
 * Source: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api.
 */
import type { Json } from '../../dialects/dialect.ts';
import { badAnswer, countOf, objectOf, objectsOf } from '../../hub/fields.ts';
import type { EmbeddingsReply } from '../../hub/reply.ts';
import type { EmbeddingsRequest } from '../../hub/request.ts';
import { textsOf, vectorOf } from '../gemini/embeddings.ts';

export function writePredict(request: EmbeddingsRequest): Json {
  return {
    instances: textsOf(request).map((content) => ({ content })),
    parameters: request.dimensions === undefined ? undefined : { outputDimensionality: request.dimensions },
  };
}

/** @throws GatewayError `upstream_bad_answer` when a vector is missing or none */
export function readPredict({ predictions }: Json): EmbeddingsReply {
  const embeddings = objectsOf(predictions).map((prediction) => objectOf(prediction.embeddings) ?? {});
  if (embeddings.length === 0) throw badAnswer();
  const counts = embeddings.map(({ statistics }) => countOf(objectOf(statistics)?.token_count) ?? 0);
  return {
    vectors: embeddings.map(({ values }) => vectorOf(values)),
    usage: { inputTokens: counts.reduce((sum, count) => sum + count, 0), outputTokens: 0 },
  };
}
