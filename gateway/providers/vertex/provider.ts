/**
 * Gemini's models on Google Cloud: the same bodies at another address, with Google Cloud's own credentials.
 * Source: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference.
 */
import { z } from 'zod';
import { readCount } from '../gemini/count.ts';
import { readError } from '../gemini/error.ts';
import { generate } from '../gemini/provider.ts';
import { readReply } from '../gemini/reply.ts';
import { writePrompt, writeRequest } from '../gemini/request.ts';
import { GeminiReader } from '../gemini/stream.ts';
import { EMBEDDINGS } from '../gemini/supports.ts';
import { signer } from '../openai/provider.ts';
import type { Provider } from '../provider.ts';
import { defineVendor } from '../vendor.ts';
import { tokenSource } from './credentials.ts';
import { readPredict, writePredict } from './embeddings.ts';
import { CHAT } from './supports.ts';

const PLACE = /^[a-z0-9-]+$/;

const settings = {
  project: z
    .string()
    .regex(/^[A-Za-z0-9.:-]+$/, 'must be the id of a Google Cloud project')
    .describe('Its id.'),
  location: z
    .string()
    .regex(PLACE, 'must be a location such as global, eu or europe-west4')
    .default('global')
    .describe('Where the models run.'),
  credentials: z
    .string()
    .optional()
    .describe('A service account’s or a workload’s file, as path or JSON; default: Application Default Credentials.'),
  token: z.string().optional().describe('An access token that somebody else renews, in place of credentials.'),
};

export const vertex = defineVendor({
  kinds: { vertex: { computesUrl: true, telemetryName: 'gcp.vertex_ai', prefill: 'try' } },
  settings,
  make(name, config): Provider {
    const { project, location } = config;
    const base = new URL(config.baseUrl ?? `https://${hostOf(location)}/v1`);
    const models = `${base.pathname.replace(/\/$/, '')}/projects/${project}/locations/${location}/publishers/google/models`;
    const modelPath = (model: string) => `${models}/${encodeURIComponent(model)}`;
    const token = tokenSource(name, { token: config.token ?? config.key, credentials: config.credentials });
    const sign = signer(config, []);
    return {
      name,
      telemetryName: 'gcp.vertex_ai',
      origin: base.origin,
      timeouts: config.timeouts,
      streamUsage: config.streamUsage,
      unmapped: config.unmapped,
      outputLimitField: 'max_tokens',
      forwardedHeaders: ['traceparent', 'tracestate'],
      endpoints: {
        chat: [
          {
            dialect: 'gemini',
            supports: CHAT,
            path: ({ model, stream }) => modelPath(model) + generate(stream),
            write: writeRequest,
            read: readReply,
            openReader: () => new GeminiReader(name),
            prefill: 'try',
          },
        ],
        embeddings: [
          {
            supports: EMBEDDINGS,
            path: ({ model }) => `${modelPath(model)}:predict`,
            write: writePredict,
            read: readPredict,
          },
        ],
        count: [
          {
            dialect: 'gemini-count-tokens',
            supports: CHAT,
            path: ({ model }) => `${modelPath(model)}:countTokens`,
            write: (request, { model }) => writePrompt(request, model),
            read: readCount,
          },
        ],
      },
      async sign(call) {
        const { headers, ...signed } = sign(call);
        return { ...signed, headers: [...headers, 'authorization', `Bearer ${await token()}`] };
      },
      readError: (status, body, headers) => readError(name, status, body, headers),
    };
  },
});

/** The address of a location: `global`, the large regions `eu` and `us`, and single ones have each their own form. */
export function hostOf(location: string): string {
  if (location === 'global') return 'aiplatform.googleapis.com';
  if (location === 'eu' || location === 'us') return `aiplatform.${location}.rep.googleapis.com`;
  return `${location}-aiplatform.googleapis.com`;
}
