/** Which folder speaks for which kind of provider. A new vendor is one folder and one line here. */
import type { CommonProviderConfig } from '../config/schema.ts';
import { anthropic } from './anthropic/provider.ts';
import { azure } from './azure/provider.ts';
import { bedrock } from './bedrock/provider.ts';
import { cohere } from './cohere/provider.ts';
import { gemini } from './gemini/provider.ts';
import { openai } from './openai/provider.ts';
import { openaiCompatible } from './openai-compatible/provider.ts';
import type { Provider } from './provider.ts';
import type { Vendor } from './vendor.ts';
import { vertex } from './vertex/provider.ts';

export const VENDORS: readonly Vendor[] = [openai, azure, openaiCompatible, anthropic, gemini, vertex, bedrock, cohere];

/** Makes the provider that the config describes. */
export function makeProvider(name: string, config: CommonProviderConfig): Provider {
  // The schema has let no other kind through.
  const vendor = VENDORS.find(({ kinds }) => Object.hasOwn(kinds, config.kind))!;
  return vendor.make(name, config);
}

/** Headers of the vendors' answers that tell a client something of its answer, and nothing of the gateway's account. */
export const SHOWN_HEADERS: readonly string[] = [
  'openai-processing-ms',
  'openai-version',
  'openai-model',
  'request-id',
  // AWS's own clients tell an error's name by it, where a route passes everything on.
  'x-amzn-errortype',
  'x-amzn-requestid',
];
