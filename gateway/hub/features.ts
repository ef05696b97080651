/**
 * Everything that a client may use beyond plain text turns, by name. A provider says of each what becomes of it; the
 * table in the documentation is generated from that.
 */
export const FEATURES = {
  system: 'system and developer messages',
  'system.later': 'system messages after the first turn',
  name: 'names of speakers',
  prefill: 'an assistant message at the end, to go on from',
  'image.data': 'images, inline',
  'image.url': 'images by URL',
  'image.id': 'images by a vendor’s file id',
  'image.detail': 'an image’s resolution',
  'file.data': 'documents, inline',
  'file.text': 'documents as text',
  'file.url': 'documents by URL',
  'file.id': 'documents by a vendor’s file id',
  'audio.data': 'sound, inline',
  'video.data': 'films, inline',
  'video.url': 'films by URL',
  tools: 'tools',
  'tools.strict': 'tools with enforced schemas',
  'tool-choice': 'which tool to use',
  'tool-choice.none': 'use no tool',
  'tool-choice.required': 'use any tool',
  'tool-choice.name': 'use this tool',
  'parallel-tools': 'whether several tools at once',
  'tool-result.media': 'images and documents in tool results',
  'tool-result.error': 'tool results marked as errors',
  'max-tokens': 'bound on the answer',
  temperature: 'temperature',
  'top-p': 'nucleus sampling',
  'top-k': 'top-k sampling',
  stop: 'stop sequences',
  seed: 'seed',
  choices: 'several answers',
  'presence-penalty': 'presence penalty',
  'frequency-penalty': 'frequency penalty',
  'logit-bias': 'biases of tokens',
  logprobs: 'log probabilities',
  'format.json': 'JSON answers',
  'format.schema': 'JSON answers by a schema',
  reasoning: 'how much to think',
  'reasoning.history': 'earlier thoughts, sent back',
  'reasoning.shown': 'whether thoughts are shown',
  verbosity: 'verbosity',
  'service-tier': 'service tier',
  citations: 'earlier citations, sent back',
  refusal: 'earlier refusals, sent back',
  cache: 'hints for the vendor’s prompt cache',
  user: 'an id of the end user',
  metadata: 'the client’s own notes',
  store: 'not to be stored by the vendor',
  dimensions: 'length of the vectors',
  'token-input': 'token ids in place of text',
} as const;

export type Feature = keyof typeof FEATURES;

/**
 * What becomes of a feature at a provider.
 *
 * - `mapped`: said in the provider's own words; a note may tell what is different.
 * - `refused`: the format has no word for it: 400, naming the client's field.
 * - `left out`: it changes nothing of the answer (a hint, a note), so the request goes on without it, and the answer says
 *   so in `x-wardgate-left-out`.
 */
export type Support = 'mapped' | `mapped: ${string}` | 'refused' | 'left out';

/** Complete on purpose: a new feature must be decided for every format. */
export type Supports = Readonly<Record<Feature, Support>>;

/** What a provider may leave out without changing the answer. */
export const HINTS: ReadonlySet<Feature> = new Set<Feature>([
  'name',
  'image.detail',
  'cache',
  'user',
  'metadata',
  'store',
  'citations',
  'reasoning.history',
  'reasoning.shown',
]);
