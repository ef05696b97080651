/** What OpenAI's Responses has words for. */
import type { Supports } from '../../../hub/features.ts';
import { CHAT_SUPPORTS } from '../supports.ts';

export const RESPONSES_SUPPORTS: Supports = {
  ...CHAT_SUPPORTS,
  name: 'left out',
  'image.id': 'mapped',
  'file.text': 'mapped: as text of the message',
  'file.url': 'mapped',
  'audio.data': 'refused',
  'tool-result.media': 'mapped',
  'max-tokens': 'mapped: from 16 on',
  stop: 'refused',
  seed: 'refused',
  choices: 'refused',
  'presence-penalty': 'refused',
  'frequency-penalty': 'refused',
  'logit-bias': 'refused',
  'reasoning.history': 'mapped: what OpenAI sealed itself; other thoughts are left out',
  'reasoning.shown': 'mapped: as a summary',
  citations: 'mapped: addresses; what has none is left out',
};
