/** What becomes of each feature at Vertex' endpoints, where they differ from Gemini's own. */
import type { Supports } from '../../hub/features.ts';
import { CHAT as GEMINI } from '../gemini/supports.ts';

/** It keeps nothing, and has no word to ask for that. */
export const CHAT: Supports = { ...GEMINI, store: 'left out' };
