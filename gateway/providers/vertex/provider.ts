/**
 * Google Cloud's Vertex AI, with Google Cloud's own credentials: Gemini by the kind `vertex`, Claude by the kind
 * `vertex-anthropic`. Two kinds, since each takes another dialect as it is.
 */
import { z } from 'zod';
import type { CommonProviderConfig } from '../../config/schema.ts';
import { readError } from '../gemini/error.ts';
import { signer } from '../openai/provider.ts';
import type { Provider } from '../provider.ts';
import { defineVendor } from '../vendor.ts';
import { claudeEndpoints, readClaudeError } from './claude.ts';
import { tokenSource } from './credentials.ts';
import { geminiEndpoints } from './gemini.ts';

const settings = {
  project: z
    .string()
    .regex(/^[A-Za-z0-9.:-]+$/, 'must be the id of a Google Cloud project')
    .describe('The id of the Google Cloud project.'),
  location: z
    .string()
    .regex(/^[a-z0-9-]+$/, 'must be a location such as global, eu or europe-west4')
    .default('global')
    .describe('Where the models run.'),
  credentials: z
    .string()
    .optional()
    .describe('A service account’s or a workload’s file, as path or JSON; default: Application Default Credentials.'),
  token: z.string().optional().describe('An access token that somebody else renews, in place of credentials.'),
  maxTokens: z
    .int()
    .min(1)
    .default(4_096)
    .describe('`vertex-anthropic`: bound on an answer in tokens where the client gives none.'),
  thinking: z
    .enum(['auto', 'adaptive', 'budget'])
    .default('auto')
    .describe('`vertex-anthropic`: how models are told to think when a client asks for it in another dialect.'),
};

type Config = CommonProviderConfig & z.output<z.ZodObject<typeof settings>>;

const CLAUDE = 'vertex-anthropic';

export const vertex = defineVendor({
  kinds: {
    vertex: { computesUrl: true, telemetryName: 'gcp.vertex_ai', prefill: 'try' },
    [CLAUDE]: { computesUrl: true, telemetryName: 'gcp.vertex_ai', prefill: 'try' },
  },
  settings,
  make,
});

function make(name: string, config: Config): Provider {
  const { project, location, credentials } = config;
  const base = new URL(config.baseUrl ?? `https://${hostOf(location)}/v1`);
  const publishers = `${base.pathname.replace(/\/$/, '')}/projects/${project}/locations/${location}/publishers`;
  const token = tokenSource(name, { token: config.token ?? config.key, credentials });
  const sign = signer(config, []);
  const isClaude = config.kind === CLAUDE;
  return {
    name,
    telemetryName: 'gcp.vertex_ai',
    origin: base.origin,
    timeouts: config.timeouts,
    streamUsage: config.streamUsage,
    unmapped: config.unmapped,
    outputLimitField: 'max_tokens',
    forwardedHeaders: ['traceparent', 'tracestate', ...(isClaude ? ['anthropic-beta'] : [])],
    endpoints: isClaude ? claudeEndpoints(name, publishers, config) : geminiEndpoints(name, publishers),
    async sign(call) {
      const { headers, ...signed } = sign(call);
      return { ...signed, headers: [...headers, 'authorization', `Bearer ${await token()}`] };
    },
    readError: (status, body, headers) => (isClaude ? readClaudeError : readError)(name, status, body, headers),
  };
}

/** The address of a location: `global`, the large regions `eu` and `us`, and single ones have each their own form. */
function hostOf(location: string): string {
  if (location === 'global') return 'aiplatform.googleapis.com';
  if (location === 'eu' || location === 'us') return `aiplatform.${location}.rep.googleapis.com`;
  return `${location}-aiplatform.googleapis.com`;
}
