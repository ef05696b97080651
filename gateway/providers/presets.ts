import type { OutputLimitField } from '../dialects/dialect.ts';

/**
 * Providers by name: what each kind speaks and where it lives. A new OpenAI-compatible vendor is one line here.
 * Base URLs: the vendors' own documentation, 2026.
 */
export interface Preset {
  /** Up to and including the version segment; undefined when the config must say it. */
  baseUrl?: string;
  /** The vendor in `gen_ai.provider.name` (OpenTelemetry's GenAI conventions); default: the kind itself. */
  telemetryName?: string;
  /** Where it wants the bound on an answer; default `max_tokens`, which all compatible servers know. */
  outputLimitField?: OutputLimitField;
}

export const PRESETS: Record<string, Preset> = {
  'openai-compatible': { telemetryName: 'custom' },
  // Its reasoning models refuse `max_tokens`.
  openai: { baseUrl: 'https://api.openai.com/v1', outputLimitField: 'max_completion_tokens' },
  groq: { baseUrl: 'https://api.groq.com/openai/v1' },
  gemini: { baseUrl: 'https://generativelanguage.googleapis.com/v1beta/openai', telemetryName: 'gcp.gemini' },
  mistral: { baseUrl: 'https://api.mistral.ai/v1', telemetryName: 'mistral_ai' },
  deepseek: { baseUrl: 'https://api.deepseek.com/v1' },
  together: { baseUrl: 'https://api.together.xyz/v1' },
  fireworks: { baseUrl: 'https://api.fireworks.ai/inference/v1' },
  openrouter: { baseUrl: 'https://openrouter.ai/api/v1' },
  xai: { baseUrl: 'https://api.x.ai/v1', telemetryName: 'x_ai' },
  cerebras: { baseUrl: 'https://api.cerebras.ai/v1' },
  perplexity: { baseUrl: 'https://api.perplexity.ai' },
  deepinfra: { baseUrl: 'https://api.deepinfra.com/v1/openai' },
  ollama: { baseUrl: 'http://127.0.0.1:11434/v1' },
  vllm: {},
  triton: {},
};
