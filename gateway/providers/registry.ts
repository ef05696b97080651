/** Which file speaks for which kind of provider. A new vendor is one file and one line here. */
import type { ProviderConfig } from '../config/schema.ts';
import { openaiCompatible } from './openai-compatible.ts';
import type { Provider } from './provider.ts';

/** Makes the provider that the config describes. */
export function makeProvider(name: string, config: ProviderConfig): Provider {
  return openaiCompatible(name, config);
}

/** Headers of the vendors' answers that tell a client something of its answer, and nothing of the gateway's account. */
export const SHOWN_HEADERS: readonly string[] = ['openai-processing-ms', 'openai-version', 'openai-model'];
