/**
 * Azure OpenAI. Source: https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle (v1) and …/reference
 * (deployments). A model's name is that of its deployment.
 */
import { z } from 'zod';
import type { CommonProviderConfig } from '../../config/schema.ts';
import { bearer, chatEndpoint, embeddingsEndpoint, providerOf, REFUSES_FOREIGN, signer } from '../openai/provider.ts';
import { preferred, responsesEndpoint, responsesSettings } from '../openai/responses/endpoint.ts';
import { CHAT_SUPPORTS } from '../openai/supports.ts';
import type { CallFacts, Provider } from '../provider.ts';
import { defineVendor } from '../vendor.ts';

const settings = {
  ...responsesSettings,
  apiVersion: z
    .string()
    .regex(/^(preview|latest|v1|\d{4}-\d{2}-\d{2}(-preview)?)$/, 'must be a date such as 2024-10-21, or preview')
    .optional()
    .describe('A date: the older API with a path for each deployment; default: the v1 API.'),
  deployment: z
    .string()
    .min(1)
    .optional()
    .describe('The older API, with this deployment whatever the model is called.'),
  token: z.string().optional().describe('A token of Entra ID, in place of a key.'),
};

type Config = CommonProviderConfig & z.output<z.ZodObject<typeof settings>>;

const PRESET = { telemetryName: 'azure.ai.openai', outputLimitField: 'max_completion_tokens' } as const;

export const azure = defineVendor({ kinds: { azure: PRESET }, settings, make });

function make(name: string, config: Config): Provider {
  const variant = { outputLimitField: PRESET.outputLimitField, streamUsage: config.streamUsage };
  const base = new URL(config.baseUrl ?? '');
  const path = (call: string) => (facts: CallFacts) => pathOf(base, config, call, facts);
  const chat = chatEndpoint(name, {
    path: path('/chat/completions'),
    variant,
    supports: CHAT_SUPPORTS,
    ...REFUSES_FOREIGN,
  });
  const credentials = config.token ? bearer(config.token) : config.key ? ['api-key', config.key] : [];
  return {
    ...providerOf(name, config, PRESET),
    origin: base.origin,
    endpoints: {
      // The older API has no Responses for a deployment.
      chat: isOlder(config) ? [chat] : preferred(config.api, chat, responsesEndpoint(name, path('/responses'), config)),
      embeddings: [embeddingsEndpoint(name, path('/embeddings'))],
    },
    sign: signer(config, credentials),
  };
}

/** Whether the config means the API with a path for each deployment. */
function isOlder({ apiVersion, deployment }: Pick<Config, 'apiVersion' | 'deployment'>): boolean {
  return deployment !== undefined || /^\d/.test(apiVersion ?? '');
}

/** The older API's version where the config names a deployment alone. */
const CLASSIC = '2024-10-21';

/** The base URL may stop at the host, or go on to `/openai` or `/openai/v1`. */
function pathOf(base: URL, { apiVersion, deployment }: Config, call: string, { model }: CallFacts): string {
  const root = base.pathname
    .replace(/\/+$/, '')
    .replace(/\/v1$/, '')
    .replace(/\/openai$/, '');
  if (isOlder({ apiVersion, deployment })) {
    const place = `${root}/openai/deployments/${encodeURIComponent(deployment ?? model)}`;
    return `${place}${call}?api-version=${apiVersion ?? CLASSIC}`;
  }
  return `${root}/openai/v1${call}${apiVersion === undefined ? '' : `?api-version=${apiVersion}`}`;
}
