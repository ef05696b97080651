/**
 * Everything that speaks OpenAI's chat completions beside OpenAI: vendors by name (`presets.ts`), and any other server
 * by its address.
 */
import type { CommonProviderConfig } from '../../config/schema.ts';
import { addressOf, bearer, chatEndpoint, embeddingsEndpoint, providerOf, signer } from '../openai/provider.ts';
import type { Variant } from '../openai/request.ts';
import { CHAT_SUPPORTS } from '../openai/supports.ts';
import type { ChatEndpoint, Provider } from '../provider.ts';
import { defineVendor } from '../vendor.ts';
import { type CompatiblePreset, PRESETS } from './presets.ts';

export const openaiCompatible = defineVendor({ kinds: PRESETS, settings: {}, make });

function make(name: string, config: CommonProviderConfig): Provider {
  const preset = PRESETS[config.kind] ?? {};
  const address = addressOf(config, preset);
  // Where streams tell their usage unasked, asking is an error.
  const streamUsage = config.streamUsage && !preset.tellsUsage;
  return {
    ...providerOf(name, config, preset),
    streamUsage,
    origin: address.origin,
    endpoints: {
      chat: [chat(name, at(preset, config), address.path('/chat/completions'), streamUsage)],
      embeddings: [embeddingsEndpoint(name, address.path('/embeddings'))],
    },
    sign: signer(config, bearer(config.key)),
  };
}

/** The preset at this address: what it does elsewhere alone is taken out. */
function at(preset: CompatiblePreset, { baseUrl }: CommonProviderConfig): CompatiblePreset {
  const { prefillAt } = preset;
  if (prefillAt === undefined || baseUrl?.replace(/\/+$/, '').endsWith(prefillAt)) return preset;
  return { ...preset, prefill: 'no', supports: { ...preset.supports, prefill: 'refused' } };
}

function chat(name: string, preset: CompatiblePreset, path: string, streamUsage: boolean): ChatEndpoint {
  const { thoughtsField, takesSeals, adjust, adapt, fits } = preset;
  const variant: Variant = {
    outputLimitField: preset.outputLimitField ?? 'max_tokens',
    streamUsage,
    ...(takesSeals && { takesSeals }),
    ...(thoughtsField !== undefined && { thoughtsField }),
    ...(adjust !== undefined && { adjust }),
  };
  return chatEndpoint(name, {
    path,
    variant,
    supports: { ...CHAT_SUPPORTS, ...preset.supports },
    prefill: preset.prefill,
    adapt,
    fits,
  });
}
