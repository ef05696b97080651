/**
 * Vectors of the Titan and Cohere models, by `InvokeModel`, which hands bodies to the model as they are.
 * Source: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html and
 * https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed.html
 */
import type { Json } from '../../dialects/dialect.ts';
import { badAnswer, countOf, invalid, objectOf } from '../../hub/fields.ts';
import type { EmbeddingsReply } from '../../hub/reply.ts';
import type { EmbeddingsRequest } from '../../hub/request.ts';
import type { CallFacts } from '../provider.ts';
import { familyOf } from './models.ts';

/** @throws GatewayError `invalid_request` that names the client's field */
export function writeEmbeddings(request: EmbeddingsRequest, { model }: CallFacts): Json {
  const texts = request.input.map((text) => {
    if (typeof text === 'string') return text;
    throw invalid(request.used.get('token-input') ?? 'input', 'must be text for Bedrock, not token ids');
  });
  const { dimensions } = request;
  if (familyOf(model) === 'cohere')
    return {
      texts,
      input_type: 'search_document',
      embedding_types: ['float'],
      ...(dimensions !== undefined && { output_dimension: dimensions }),
    };
  if (texts.length !== 1) throw invalid('input', 'must be one text for this model on Bedrock; ask once for each');
  return { inputText: texts[0], ...(dimensions !== undefined && { dimensions }) };
}

/** @throws GatewayError `upstream_bad_answer` */
export function readEmbeddings({ embedding, embeddings, inputTextTokenCount }: Json): EmbeddingsReply {
  // Cohere answers with a list, or with lists by type where types were asked for.
  const lists = objectOf(embeddings)?.float ?? embeddings ?? [embedding];
  if (!Array.isArray(lists) || !lists.every(isVector)) throw badAnswer();
  const inputTokens = countOf(inputTextTokenCount);
  return { vectors: lists, usage: inputTokens === undefined ? undefined : { inputTokens, outputTokens: 0 } };
}

function isVector(value: unknown): value is number[] {
  return Array.isArray(value) && value.length > 0 && value.every((number) => typeof number === 'number');
}
