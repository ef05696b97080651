/** Anthropic's API: https://platform.claude.com/docs/en/api/overview. */
import { z } from 'zod';
import type { CommonProviderConfig } from '../../config/schema.ts';
import type { ChatEndpoint, Endpoint, Provider, UnsignedCall } from '../provider.ts';
import { defineVendor } from '../vendor.ts';
import { readError } from './error.ts';
import { readCount, readMessages } from './reply.ts';
import { writeCount, writeMessages } from './request.ts';
import { MessagesReader } from './stream.ts';
import { CHAT, COUNT } from './supports.ts';
import type { Bounds } from './thinking.ts';

const BASE_URL = 'https://api.anthropic.com/v1';

/** Of the API, where the client names none: what the gateway itself writes is of this one. */
const VERSION = '2023-06-01';

const settings = {
  maxTokens: z
    .int()
    .min(1)
    .default(4_096)
    .describe('Bound on an answer in tokens where the client gives none: the API wants one.'),
  thinking: z
    .enum(['auto', 'adaptive', 'budget'])
    .default('auto')
    .describe('How models are told to think when a client asks for it in another dialect; auto: by their names.'),
};

type Config = CommonProviderConfig & z.output<z.ZodObject<typeof settings>>;

export const anthropic = defineVendor({
  kinds: { anthropic: { baseUrl: BASE_URL, prefill: 'try' } },
  settings,
  make(name, config): Provider {
    const base = new URL(config.baseUrl ?? BASE_URL);
    const root = base.pathname.replace(/\/$/, '');
    const fixed = fixedHeaders(config);
    return {
      name,
      telemetryName: 'anthropic',
      origin: base.origin,
      timeouts: config.timeouts,
      streamUsage: config.streamUsage,
      unmapped: config.unmapped,
      outputLimitField: 'max_tokens',
      forwardedHeaders: ['traceparent', 'tracestate', 'anthropic-version', 'anthropic-beta'],
      endpoints: { chat: [chat(name, root, config)], count: [count(root, config)] },
      sign: ({ method, path, headers }) => ({ method, path, headers: withVersion([...headers, ...fixed]) }),
      readError: (status, body, headers) => readError(name, status, body, headers),
    };
  },
});

/** Keys of a signed-in person are bearer tokens. */
function fixedHeaders({ key, headers }: Config): string[] {
  const fixed = ['accept-encoding', 'identity', 'user-agent', 'wardgate'];
  if (key?.startsWith('sk-ant-oat')) fixed.push('authorization', `Bearer ${key}`);
  else if (key) fixed.push('x-api-key', key);
  for (const [header, value] of Object.entries(headers ?? {})) fixed.push(header.toLowerCase(), value);
  return fixed;
}

function withVersion(headers: UnsignedCall['headers']): string[] {
  const isSaid = headers.some((name, i) => i % 2 === 0 && name === 'anthropic-version');
  return isSaid ? headers : [...headers, 'anthropic-version', VERSION];
}

function chat(name: string, root: string, bounds: Bounds): ChatEndpoint {
  return {
    dialect: 'anthropic-messages',
    supports: CHAT,
    path: () => `${root}/messages`,
    write: (request, facts) => writeMessages(request, facts, bounds),
    read: (body) => readMessages(body, name),
    openReader: () => new MessagesReader(name),
    prefill: 'try',
  };
}

function count(root: string, bounds: Bounds): Endpoint<'count'> {
  return {
    dialect: 'anthropic-count-tokens',
    supports: COUNT,
    path: () => `${root}/messages/count_tokens`,
    write: (request, facts) => writeCount(request, facts, bounds),
    read: readCount,
  };
}
