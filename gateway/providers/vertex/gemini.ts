/**
 * Gemini on Google Cloud: the bodies of Gemini's own API at longer paths.
 * Source: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference.
 */
import { readCount } from '../gemini/count.ts';
import { generate } from '../gemini/provider.ts';
import { readReply } from '../gemini/reply.ts';
import { writePrompt, writeRequest } from '../gemini/request.ts';
import { GeminiReader } from '../gemini/stream.ts';
import { EMBEDDINGS } from '../gemini/supports.ts';
import type { CallFacts, Provider } from '../provider.ts';
import { readPredict, writePredict } from './embeddings.ts';
import { CHAT } from './supports.ts';

/** The endpoints of the provider `name`; `publishers` is their path up to the publisher's name. */
export function geminiEndpoints(name: string, publishers: string): Provider['endpoints'] {
  const path = ({ model }: CallFacts, method: string) =>
    `${publishers}/google/models/${encodeURIComponent(model)}${method}`;
  return {
    chat: [
      {
        dialect: 'gemini',
        supports: CHAT,
        path: (facts) => path(facts, generate(facts.stream)),
        // Here the field is unknown, and unknown fields are refused.
        write: (request, facts) => ({ ...writeRequest(request, facts), store: undefined }),
        read: readReply,
        openReader: () => new GeminiReader(name),
        prefill: 'try',
      },
    ],
    embeddings: [
      {
        supports: EMBEDDINGS,
        path: (facts) => path(facts, ':predict'),
        write: writePredict,
        read: readPredict,
      },
    ],
    count: [
      {
        dialect: 'gemini-count-tokens',
        supports: CHAT,
        path: (facts) => path(facts, ':countTokens'),
        write: (request, { model }) => writePrompt(request, model),
        read: readCount,
      },
    ],
  };
}
