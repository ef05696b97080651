import type { Supports } from '../../hub/features.ts';

/** `Converse` and `ConverseStream`. Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html */
export const CHAT: Supports = {
  system: 'mapped',
  'system.later': 'mapped: moved to the front, the only place for them',
  name: 'left out',
  prefill: 'mapped: where the model goes on from one',
  'image.data': 'mapped: PNG, JPEG, GIF, WebP',
  'image.url': 'refused',
  'image.id': 'refused',
  'image.detail': 'left out',
  'file.data': 'mapped: PDF, CSV, Word, Excel, HTML, text, Markdown; names lose signs that Bedrock does not allow',
  'file.text': 'mapped: as a text file',
  'file.url': 'refused',
  'file.id': 'refused',
  'audio.data': 'mapped',
  'video.data': 'mapped',
  'video.url': 'refused',
  tools: 'mapped',
  'tools.strict': 'mapped',
  'tool-choice': 'mapped',
  'tool-choice.none': 'mapped: the tools are left out; refused once tools have been called',
  'tool-choice.required': 'mapped',
  'tool-choice.name': 'mapped',
  'parallel-tools': 'mapped: Claude alone',
  'tool-result.media': 'mapped',
  'tool-result.error': 'mapped',
  'max-tokens': 'mapped',
  temperature: 'mapped: from 0 to 1',
  'top-p': 'mapped',
  'top-k': 'mapped: Claude, Nova, Mistral and Cohere',
  stop: 'mapped',
  seed: 'refused',
  choices: 'refused',
  'presence-penalty': 'refused',
  'frequency-penalty': 'refused',
  'logit-bias': 'refused',
  logprobs: 'refused',
  'format.json': 'refused',
  'format.schema': 'mapped',
  reasoning: 'mapped: as thinking (Claude), reasoningConfig (Nova), reasoning_effort (gpt-oss), else as effort',
  'reasoning.history': 'mapped: Claude’s sealed thoughts; others are left out',
  'reasoning.shown': 'mapped: Claude from 4.6 on; nothing to the others',
  verbosity: 'refused',
  'service-tier': 'mapped: default, flex, priority, reserved; auto says nothing',
  citations: 'left out',
  refusal: 'mapped: as text',
  cache: 'mapped: as cache points',
  user: 'left out',
  metadata: 'mapped: as requestMetadata, which stands in the invocation log',
  store: 'mapped: nothing is stored',
  dimensions: 'refused',
  'token-input': 'refused',
};

const NO_MATTER = 'mapped: changes no count';

/** `CountTokens`: of the prompt alone, so what bounds or shapes the answer is not sent. */
export const COUNT: Supports = {
  ...CHAT,
  'format.schema': NO_MATTER,
  'max-tokens': NO_MATTER,
  temperature: NO_MATTER,
  'top-p': NO_MATTER,
  stop: NO_MATTER,
  'service-tier': NO_MATTER,
  metadata: NO_MATTER,
};

/** `InvokeModel` of the embedding models. */
export const EMBEDDINGS: Supports = {
  ...(Object.fromEntries(Object.keys(CHAT).map((feature) => [feature, 'refused'])) as Supports),
  user: 'left out',
  dimensions: 'mapped: Titan from v2 on, Cohere from v4 on',
};
