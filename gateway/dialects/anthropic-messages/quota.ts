/** What a quota does to a request and to an answer. */
import type { Usage } from '../../../proto/contract.ts';
import { isJsonObject } from '../../json.ts';
import type { Json } from '../dialect.ts';
import { frame } from './stream.ts';

/** Tells an answer that a quota cut apart from one that the model's own limit cut. */
const LIMITED = {
  code: 'quota_exhausted',
  message: 'The answer was cut because your quota is used up. Ask again when it is there again.',
};

/** The smallest budget of thoughts that the vendor takes, in tokens. */
const LEAST_BUDGET = 1024;

/** Bounds the answer; the thoughts are part of it and must leave room for it. */
export function limitOutput(body: Json, most: number): void {
  const own = body.max_tokens;
  const bound = typeof own === 'number' && own >= 1 ? Math.min(own, most) : most;
  body.max_tokens = bound;
  const { thinking } = body;
  if (!isJsonObject(thinking) || typeof thinking.budget_tokens !== 'number' || thinking.budget_tokens < bound) return;
  if (bound > LEAST_BUDGET) thinking.budget_tokens = bound - 1;
  else delete body.thinking;
}

/** Marks an answer, or the event that tells how it ended. */
export function markLimited(body: Json): boolean {
  const ended = isJsonObject(body.delta) ? body.delta : body;
  if (ended.stop_reason !== 'max_tokens') return false;
  body.wardgate = LIMITED;
  return true;
}

/** The end of a stream; `like` is the event before it, which tells whether a block is open. */
export function cutShort(like: Json, _choices: string[], usage: Usage | undefined): string {
  const isOpen = like.type === 'content_block_start' || like.type === 'content_block_delta';
  const counts = usage && { input_tokens: usage.inputTokens, output_tokens: usage.outputTokens };
  const last = {
    type: 'message_delta',
    delta: { stop_reason: 'max_tokens', stop_sequence: null },
    usage: counts ?? { output_tokens: 0 },
    wardgate: LIMITED,
  };
  return [...(isOpen ? [{ type: 'content_block_stop', index: like.index }] : []), last, { type: 'message_stop' }]
    .map(frame)
    .join('');
}
