/**
 * OpenAI's API: https://platform.openai.com/docs/api-reference. What is the same for all who are compatible with it is
 * exported for their folders.
 */
import type { CommonProviderConfig } from '../../config/schema.ts';
import type { Supports } from '../../hub/features.ts';
import type { ChatEndpoint, Endpoint, Provider, UnsignedCall, UpstreamCall } from '../provider.ts';
import { defineVendor, type Preset } from '../vendor.ts';
import { readError } from './error.ts';
import { dropForeign, hasOwnAlone } from './foreign.ts';
import { readChat, readEmbeddings } from './reply.ts';
import { type Variant, writeChat, writeEmbeddings } from './request.ts';
import { preferred, responsesEndpoint, responsesSettings } from './responses/endpoint.ts';
import { openReader } from './stream.ts';
import { CHAT_SUPPORTS, EMBEDDINGS_SUPPORTS } from './supports.ts';

// Its reasoning models refuse `max_tokens`.
const PRESET = { baseUrl: 'https://api.openai.com/v1', outputLimitField: 'max_completion_tokens' } as const;

export const openai = defineVendor({
  kinds: { openai: PRESET },
  settings: responsesSettings,
  make(name, config) {
    const address = addressOf(config, PRESET);
    const variant: Variant = {
      outputLimitField: PRESET.outputLimitField,
      streamUsage: config.streamUsage,
      userField: 'safety_identifier',
    };
    return {
      ...providerOf(name, config, PRESET),
      origin: address.origin,
      endpoints: {
        chat: preferred(
          config.api,
          chatEndpoint(name, {
            path: address.path('/chat/completions'),
            variant,
            supports: CHAT_SUPPORTS,
            ...REFUSES_FOREIGN,
          }),
          responsesEndpoint(name, address.path('/responses'), config),
        ),
        embeddings: [embeddingsEndpoint(name, address.path('/embeddings'))],
      },
      sign: signer(config, bearer(config.key)),
    };
  },
});

/** Where a provider is, and how its paths are joined to what the config says. */
export function addressOf(
  { baseUrl }: Pick<CommonProviderConfig, 'baseUrl'>,
  preset: Preset,
): { origin: string; path(call: string): string } {
  const base = new URL(baseUrl ?? preset.baseUrl ?? '');
  const root = base.pathname.replace(/\/+$/, '');
  return { origin: base.origin, path: (call) => `${root}${call}${base.search}` };
}

/** What a provider has beside its address, its endpoints and its credentials. */
export function providerOf(
  name: string,
  config: CommonProviderConfig,
  preset: Preset,
): Omit<Provider, 'origin' | 'endpoints' | 'sign'> {
  return {
    name,
    telemetryName: preset.telemetryName ?? config.kind,
    timeouts: config.timeouts,
    streamUsage: config.streamUsage,
    unmapped: config.unmapped,
    outputLimitField: preset.outputLimitField ?? 'max_tokens',
    forwardedHeaders: ['traceparent', 'tracestate', 'openai-beta'],
    readError: (status, body, headers) => readError(name, status, body, headers),
  };
}

/** A key as a header's name and value; nothing without one. */
export function bearer(key: string | undefined): string[] {
  return key ? ['authorization', `Bearer ${key}`] : [];
}

/** Puts in the credentials and what the config sends with every call. All of it is built once. */
export function signer(
  { headers }: Pick<CommonProviderConfig, 'headers'>,
  credentials: string[],
): (call: UnsignedCall) => UpstreamCall {
  const fixed = ['accept-encoding', 'identity', 'user-agent', 'wardgate', ...credentials];
  for (const [header, value] of Object.entries(headers ?? {})) fixed.push(header.toLowerCase(), value);
  const json = ['content-type', 'application/json', ...fixed];
  return ({ method, path, headers: own, body }) => {
    const isTyped = body === undefined || own.includes('content-type');
    return { method, path, headers: [...(isTyped ? fixed : json), ...own] };
  };
}

/** What a chat endpoint is made of. */
export interface ChatFormat {
  path: string | ChatEndpoint['path'];
  variant: Variant;
  supports: Supports;
  /** Default `no`. */
  prefill?: ChatEndpoint['prefill'];
  adapt?: ChatEndpoint['adapt'];
  fits?: ChatEndpoint['fits'];
}

/** For those who refuse what another vendor's answer left in a conversation. */
export const REFUSES_FOREIGN: Pick<ChatFormat, 'adapt' | 'fits'> = { adapt: dropForeign, fits: hasOwnAlone };

/** Chat completions at the provider `name`. */
export function chatEndpoint(name: string, format: ChatFormat): ChatEndpoint {
  const { path, variant, supports, prefill, adapt, fits } = format;
  return {
    dialect: 'openai-chat',
    supports,
    path: typeof path === 'string' ? () => path : path,
    write: (request, facts) => writeChat(request, facts, variant),
    read: (body) => readChat(body, name),
    openReader: () => openReader(name),
    prefill: prefill ?? 'no',
    ...(adapt !== undefined && { adapt }),
    ...(fits !== undefined && { fits }),
  };
}

/** Vectors at the provider `name`. */
export function embeddingsEndpoint(
  name: string,
  path: string | Endpoint<'embeddings'>['path'],
): Endpoint<'embeddings'> {
  return {
    dialect: 'openai-embeddings',
    supports: EMBEDDINGS_SUPPORTS,
    path: typeof path === 'string' ? () => path : path,
    write: writeEmbeddings,
    read: (body) => readEmbeddings(body, name),
  };
}
