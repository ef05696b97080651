/**
 * Vendors and servers that speak OpenAI's chat completions, by name: where each lives and what it does otherwise. A new
 * one is one entry here. Sources: the vendors' own documentation, 2026; each entry's comment says what of it.
 */
import { createHash } from 'node:crypto';
import type { Json } from '../../dialects/dialect.ts';
import type { Feature, Support } from '../../hub/features.ts';
import { isJsonObject } from '../../json.ts';
import { dropForeign, hasOwnAlone } from '../openai/foreign.ts';
import { REFUSES_FOREIGN } from '../openai/provider.ts';
import type { Variant } from '../openai/request.ts';
import type { ChatEndpoint } from '../provider.ts';
import type { Preset } from '../vendor.ts';

export interface CompatiblePreset extends Preset {
  /** The end of the base URLs at which it goes on from a prefix; default: all. */
  prefillAt?: string;
  /** What becomes of features otherwise than at OpenAI. */
  supports?: Partial<Record<Feature, Support>>;
  thoughtsField?: Variant['thoughtsField'];
  takesSeals?: boolean;
  /** Has the last word on a body that was written for it. */
  adjust?: Variant['adjust'];
  /** Changes a body that passes through. */
  adapt?: ChatEndpoint['adapt'];
  /** Whether a body that passes through needs no change. */
  fits?: ChatEndpoint['fits'];
  /** Whether streams tell their usage unasked, and asking is refused. */
  tellsUsage?: boolean;
}

const TEXT_ALONE: CompatiblePreset['supports'] = {
  'image.data': 'refused',
  'image.url': 'refused',
  'image.detail': 'refused',
  'file.data': 'refused',
  'file.id': 'refused',
  'audio.data': 'refused',
};
const NO_FILES: CompatiblePreset['supports'] = {
  'file.data': 'refused',
  'file.id': 'refused',
  'audio.data': 'refused',
};
/** Hints that only OpenAI's platform keeps. */
const NO_NOTES: CompatiblePreset['supports'] = { user: 'left out', metadata: 'left out', store: 'left out' };

export const PRESETS: Readonly<Record<string, CompatiblePreset>> = {
  // It may be Gemini's own endpoint of this format.
  'openai-compatible': { telemetryName: 'custom', takesSeals: true },
  groq: {
    ...REFUSES_FOREIGN,
    baseUrl: 'https://api.groq.com/openai/v1',
    // docs/prefilling: the answer begins with the last message when that is the assistant's.
    prefill: 'try',
    // docs/openai, "Currently unsupported": each is answered with 400.
    supports: {
      ...NO_FILES,
      ...NO_NOTES,
      prefill: 'mapped',
      logprobs: 'refused',
      'logit-bias': 'refused',
      choices: 'refused',
      name: 'left out',
    },
  },
  mistral: {
    baseUrl: 'https://api.mistral.ai/v1',
    telemetryName: 'mistral_ai',
    prefill: 'yes',
    tellsUsage: true,
    supports: {
      ...NO_FILES,
      ...NO_NOTES,
      prefill: 'mapped: `prefix`',
      seed: 'mapped: `random_seed`',
      name: 'left out',
      'image.detail': 'left out',
      logprobs: 'refused',
      'logit-bias': 'refused',
      verbosity: 'refused',
      'service-tier': 'refused',
    },
    adjust: forMistral,
    // Fields that it does not know are refused, this one among them.
    adapt: (body) => {
      delete body.stream_options;
      dropForeign(body);
    },
    fits: (body) => !('stream_options' in body) && hasOwnAlone(body),
  },
  deepseek: {
    baseUrl: 'https://api.deepseek.com/v1',
    // guides/chat_prefix_completion: a beta, at an address of its own.
    prefill: 'yes',
    prefillAt: '/beta',
    supports: {
      ...TEXT_ALONE,
      ...NO_NOTES,
      prefill: 'mapped: `prefix`, with the base URL https://api.deepseek.com/beta',
      'reasoning.history': 'mapped: `reasoning_content`',
      seed: 'refused',
      choices: 'refused',
      'logit-bias': 'refused',
      'parallel-tools': 'refused',
      'format.schema': 'refused',
      verbosity: 'refused',
      'service-tier': 'refused',
    },
    thoughtsField: 'reasoning_content',
    adjust: markPrefix,
  },
  together: { baseUrl: 'https://api.together.xyz/v1', supports: { ...NO_FILES, 'top-k': 'mapped' } },
  fireworks: { baseUrl: 'https://api.fireworks.ai/inference/v1', supports: { ...NO_FILES, 'top-k': 'mapped' } },
  openrouter: {
    baseUrl: 'https://openrouter.ai/api/v1',
    // "Assistant prefill": depends on the model behind it.
    prefill: 'try',
    supports: {
      prefill: 'mapped: where the model can',
      'top-k': 'mapped',
      'file.url': 'mapped',
      'file.id': 'refused',
      'video.data': 'mapped',
      'video.url': 'mapped',
      reasoning: 'mapped',
      'reasoning.history': 'mapped: `reasoning_details`',
      'reasoning.shown': 'mapped',
    },
    thoughtsField: 'reasoning_details',
    adjust: forOpenRouter,
  },
  xai: { baseUrl: 'https://api.x.ai/v1', telemetryName: 'x_ai', supports: { 'logit-bias': 'refused' } },
  cerebras: {
    ...REFUSES_FOREIGN,
    baseUrl: 'https://api.cerebras.ai/v1',
    // resources/openai: each is answered with 400.
    supports: {
      ...TEXT_ALONE,
      'frequency-penalty': 'refused',
      'presence-penalty': 'refused',
      'logit-bias': 'refused',
      'parallel-tools': 'refused',
      'service-tier': 'refused',
    },
  },
  perplexity: {
    baseUrl: 'https://api.perplexity.ai',
    supports: {
      ...NO_FILES,
      ...NO_NOTES,
      tools: 'refused',
      'tools.strict': 'refused',
      'tool-choice': 'refused',
      'tool-choice.none': 'refused',
      'tool-choice.required': 'refused',
      'tool-choice.name': 'refused',
      'parallel-tools': 'refused',
      'top-k': 'mapped',
      'format.json': 'refused',
      seed: 'refused',
      choices: 'refused',
      logprobs: 'refused',
      'logit-bias': 'refused',
      verbosity: 'refused',
      'service-tier': 'refused',
      name: 'left out',
    },
  },
  deepinfra: { baseUrl: 'https://api.deepinfra.com/v1/openai', supports: { ...NO_FILES, 'top-k': 'mapped' } },
  ollama: {
    baseUrl: 'http://127.0.0.1:11434/v1',
    // docs/api/openai-compatibility, "Supported request fields": the others are passed over unread, so they are refused here.
    supports: {
      ...NO_FILES,
      ...NO_NOTES,
      name: 'left out',
      'image.detail': 'left out',
      'tools.strict': 'refused',
      'tool-choice': 'refused',
      'tool-choice.none': 'refused',
      'tool-choice.required': 'refused',
      'tool-choice.name': 'refused',
      'parallel-tools': 'refused',
      choices: 'refused',
      'logit-bias': 'refused',
      verbosity: 'refused',
      'service-tier': 'refused',
    },
  },
  vllm: {
    prefill: 'yes',
    supports: {
      ...NO_NOTES,
      prefill: 'mapped: `continue_final_message`',
      'image.detail': 'left out',
      'file.data': 'refused',
      'file.id': 'refused',
      'video.data': 'mapped',
      'video.url': 'mapped',
      'top-k': 'mapped',
      'parallel-tools': 'refused',
      verbosity: 'refused',
      'service-tier': 'refused',
    },
    adjust: forVllm,
  },
  triton: {},
};

/** The last message of a written body, when the answer is to go on from it. */
function prefix({ messages }: Json): Json | undefined {
  const last: unknown = Array.isArray(messages) ? messages.at(-1) : undefined;
  return isJsonObject(last) && last.role === 'assistant' && last.tool_calls === undefined ? last : undefined;
}

/** Says of the last message that the answer goes on from it. */
function markPrefix(body: Json): void {
  const last = prefix(body);
  if (last !== undefined) last.prefix = true;
}

/** https://docs.mistral.ai/api: a seed by another name, a prefix that says so, call ids of nine characters. */
function forMistral(body: Json): void {
  if (body.seed !== undefined) body.random_seed = body.seed;
  delete body.seed;
  markPrefix(body);
  for (const message of body.messages as Json[]) {
    if (typeof message.tool_call_id === 'string') message.tool_call_id = mistralId(message.tool_call_id);
    for (const call of (message.tool_calls ?? []) as Json[]) call.id = mistralId(call.id as string);
  }
}

/** The same short id for a call and its result. */
function mistralId(id: string): string {
  if (/^[A-Za-z0-9]{9}$/.test(id)) return id;
  return createHash('sha256').update(id).digest('hex').slice(0, 9);
}

/** https://docs.vllm.ai, "OpenAI-compatible server", extra parameters: else a new turn would begin after the prefix. */
function forVllm(body: Json): void {
  if (prefix(body) === undefined) return;
  body.continue_final_message = true;
  body.add_generation_prompt = false;
}

/** https://openrouter.ai/docs/use-cases/reasoning-tokens: tokens as they are, and whether the thoughts are shown. */
function forOpenRouter(body: Json, { reasoning, used }: Parameters<NonNullable<Variant['adjust']>>[1]): void {
  if (reasoning === undefined || !(used.has('reasoning') || used.has('reasoning.shown'))) return;
  delete body.reasoning_effort;
  const { off, effort, budget, shown } = reasoning;
  const wish = off ? { effort: 'none' } : budget === undefined ? { effort } : { max_tokens: budget };
  body.reasoning = { ...wish, ...(shown !== undefined && { exclude: !shown }) };
}
