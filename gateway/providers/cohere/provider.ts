/** Cohere's own API, version 2. Source: https://docs.cohere.com/reference/about */
import { z } from 'zod';
import type { Provider } from '../provider.ts';
import { defineVendor } from '../vendor.ts';
import { INPUT_TYPES, readEmbeddings, writeEmbeddings } from './embeddings.ts';
import { readError } from './error.ts';
import { readReply } from './reply.ts';
import { writeRequest } from './request.ts';
import { CohereReader } from './stream.ts';
import { CHAT, EMBEDDINGS } from './supports.ts';

const BASE_URL = 'https://api.cohere.com/v2';

const settings = {
  inputType: z.enum(INPUT_TYPES).default('search_document').describe('What vectors are for.'),
};

export const cohere = defineVendor({
  kinds: { cohere: { baseUrl: BASE_URL } },
  settings,
  make(name, config): Provider {
    const base = new URL(config.baseUrl ?? BASE_URL);
    const root = base.pathname.replace(/\/$/, '');
    const at = (call: string) => () => `${root}/${call}`;
    const fixed = ['accept-encoding', 'identity', 'user-agent', 'wardgate'];
    if (config.key) fixed.push('authorization', `Bearer ${config.key}`);
    for (const [header, value] of Object.entries(config.headers ?? {})) fixed.push(header.toLowerCase(), value);
    return {
      name,
      telemetryName: 'cohere',
      origin: base.origin,
      passthroughBase: root.replace(/\/v\d+$/, ''),
      timeouts: config.timeouts,
      streamUsage: config.streamUsage,
      unmapped: config.unmapped,
      outputLimitField: 'max_tokens',
      forwardedHeaders: ['traceparent', 'tracestate'],
      endpoints: {
        chat: [
          {
            supports: CHAT,
            path: at('chat'),
            write: writeRequest,
            read: readReply,
            openReader: () => new CohereReader(),
            prefill: 'no',
          },
        ],
        embeddings: [
          {
            supports: EMBEDDINGS,
            path: at('embed'),
            write: (request, { model }) => writeEmbeddings(request, model, config.inputType),
            read: readEmbeddings,
          },
        ],
      },
      sign: ({ method, path, headers, body }) => {
        const isTyped = body === undefined || headers.includes('content-type');
        const type = isTyped ? [] : ['content-type', 'application/json'];
        return { method, path, headers: [...type, ...headers, ...fixed] };
      },
      readError: (status, body, headers) => readError(name, status, body, headers),
    };
  },
});
