/** OpenAI's embeddings as the simulated model makes them: `/v1/embeddings`, as numbers or as base64. */
import { z } from 'zod';
import { embed } from './embedding.ts';
import { type Call, ok, type Reply, read, type WireFormat } from './format.ts';
import { countTokens } from './model.ts';
import { openai } from './openai.ts';

const DIMENSIONS = 1536;

const Tokens = z.array(z.int().min(0)).min(1);
const EmbeddingsRequest = z.looseObject({
  model: z.string().min(1),
  input: z.union([
    z.string().min(1),
    Tokens,
    z.array(z.string().min(1)).min(1).max(2048),
    z.array(Tokens).min(1).max(2048),
  ]),
  dimensions: z.int().min(1).max(4096).nullish(),
  encoding_format: z.enum(['float', 'base64']).nullish(),
});
type EmbeddingsRequest = z.infer<typeof EmbeddingsRequest>;

/** OpenAI's embeddings. */
export const openaiEmbeddings: WireFormat = {
  ...openai,
  routes: [{ method: 'POST', path: /^\/v1\/embeddings$/, answer: embedAll }],
};

/** Answers with a vector per input. @throws Refusal when the request is wrong */
export function embedAll({ body }: Call): Reply {
  const request = read(EmbeddingsRequest, body);
  const texts = textsOf(request.input);
  const tokens = countTokens(texts.map((text) => ({ role: 'user', text })));
  return ok({
    object: 'list',
    data: texts.map((text, index) => ({ object: 'embedding', index, embedding: encoded(text, request) })),
    model: request.model,
    usage: { prompt_tokens: tokens, total_tokens: tokens },
  });
}

/** Tokens come as numbers; the vector is then that of the numbers' text. */
function textsOf(input: EmbeddingsRequest['input']): string[] {
  if (typeof input === 'string') return [input];
  if (typeof input[0] === 'number') return [input.join(' ')];
  return (input as (string | number[])[]).map((one) => (typeof one === 'string' ? one : one.join(' ')));
}

/** base64 has the numbers as 32-bit floats, the least significant byte first. */
function encoded(text: string, { dimensions, encoding_format: format }: EmbeddingsRequest): number[] | string {
  const vector = embed(text, dimensions ?? DIMENSIONS);
  if (format !== 'base64') return vector;
  const bytes = Buffer.alloc(vector.length * 4);
  for (const [at, value] of vector.entries()) bytes.writeFloatLE(value, at * 4);
  return bytes.toString('base64');
}
