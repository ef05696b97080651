/** `POST /v2/embed`. Source: https://docs.cohere.com/reference/embed */
import type { Json } from '../../dialects/dialect.ts';
import { badAnswer, countOf, invalid, objectOf } from '../../hub/fields.ts';
import type { EmbeddingsReply } from '../../hub/reply.ts';
import type { EmbeddingsRequest } from '../../hub/request.ts';

/** What the vectors are for. */
export const INPUT_TYPES = ['search_document', 'search_query', 'classification', 'clustering'] as const;
export type InputType = (typeof INPUT_TYPES)[number];

/** Most texts of one call. */
const MOST = 96;

/** @throws GatewayError `invalid_request` that names the client's field */
export function writeEmbeddings(request: EmbeddingsRequest, model: string, type: InputType): Json {
  if (request.input.length > MOST) throw invalid('input', `must be ${MOST} texts at most for Cohere`);
  const texts = request.input.map((text) => {
    if (typeof text === 'string') return text;
    throw invalid(request.used.get('token-input') ?? 'input', 'must be text for Cohere, not token ids');
  });
  return { model, texts, input_type: type, embedding_types: ['float'], output_dimension: request.dimensions };
}

/** @throws GatewayError `upstream_bad_answer` */
export function readEmbeddings({ embeddings, meta }: Json): EmbeddingsReply {
  const vectors = objectOf(embeddings)?.float;
  if (!Array.isArray(vectors) || !vectors.every(isVector)) throw badAnswer();
  const inputTokens = countOf(objectOf(objectOf(meta)?.billed_units)?.input_tokens);
  return { vectors, usage: inputTokens === undefined ? undefined : { inputTokens, outputTokens: 0 } };
}

function isVector(value: unknown): value is number[] {
  return Array.isArray(value) && value.length > 0 && value.every((number) => typeof number === 'number');
}
