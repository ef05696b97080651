/**
 * Google's Gemini API: https://ai.google.dev/api, version v1beta. The key goes into a header: in the URL, where Google
 * takes it as well, it would stand in logs.
 */

import { signer } from '../openai/provider.ts';
import type { CallFacts, ChatEndpoint, Endpoint } from '../provider.ts';
import { defineVendor, type NoSettings } from '../vendor.ts';
import { readCount, writeCount } from './count.ts';
import { readEmbeddings, writeEmbeddings } from './embeddings.ts';
import { readError } from './error.ts';
import { readReply } from './reply.ts';
import { writeRequest } from './request.ts';
import { GeminiReader } from './stream.ts';
import { CHAT, EMBEDDINGS } from './supports.ts';

const BASE_URL = 'https://generativelanguage.googleapis.com/v1beta';

export const gemini = defineVendor<NoSettings>({
  kinds: { gemini: { baseUrl: BASE_URL, telemetryName: 'gcp.gemini', prefill: 'try' } },
  settings: {},
  make(name, config) {
    const base = new URL(config.baseUrl ?? BASE_URL);
    const root = `${base.pathname.replace(/\/$/, '')}/`;
    return {
      name,
      telemetryName: 'gcp.gemini',
      origin: base.origin,
      timeouts: config.timeouts,
      streamUsage: config.streamUsage,
      unmapped: config.unmapped,
      outputLimitField: 'max_tokens',
      forwardedHeaders: ['traceparent', 'tracestate'],
      endpoints: { chat: [chat(name, root)], embeddings: embeddings(root), count: [count(root)] },
      sign: signer(config, config.key ? ['x-goog-api-key', config.key] : []),
      readError: (status, body, headers) => readError(name, status, body, headers),
    };
  },
});

function chat(name: string, root: string): ChatEndpoint {
  return {
    dialect: 'gemini',
    supports: CHAT,
    path: ({ model, stream }) => root + modelPath(model) + generate(stream),
    write: writeRequest,
    read: readReply,
    openReader: () => new GeminiReader(name),
    prefill: 'try',
  };
}

/** What is asked of a model; without `alt=sse` a stream would be one JSON list, piece by piece. */
export function generate(stream: boolean): string {
  return stream ? ':streamGenerateContent?alt=sse' : ':generateContent';
}

/** Many texts or one; other dialects are written as many. */
function embeddings(root: string): Endpoint<'embeddings'>[] {
  const format = { supports: EMBEDDINGS, write: writeEmbeddings, read: readEmbeddings };
  const path = (method: string) => (facts: CallFacts) => root + modelPath(facts.model) + method;
  return [
    { ...format, dialect: 'gemini-embeddings', path: path(':batchEmbedContents') },
    { ...format, dialect: 'gemini-embedding', path: path(':embedContent') },
  ];
}

function count(root: string): Endpoint<'count'> {
  return {
    dialect: 'gemini-count-tokens',
    supports: CHAT,
    path: ({ model }) => `${root}${modelPath(model)}:countTokens`,
    write: writeCount,
    read: readCount,
  };
}

/** `models/…`, or what the model's name says itself, such as `tunedModels/…`. */
function modelPath(model: string): string {
  const name = model.includes('/') ? model : `models/${model}`;
  return name.split('/').map(encodeURIComponent).join('/');
}
