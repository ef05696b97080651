/** What becomes of an answer whose quota is used up. */
import type { Usage } from '../../../proto/contract.ts';
import { objectOf } from '../../hub/fields.ts';
import type { Json } from '../dialect.ts';
import { frame } from './events.ts';
import { writtenUsage } from './usage.ts';

/** Tells an answer that a quota cut apart from one that the model's own limit cut. */
const LIMITED = {
  code: 'quota_exhausted',
  message: 'The answer was cut because your quota is used up. Ask again when it is there again.',
};

/** Bounds the answer's tokens. */
export function limitOutput(body: Json, most: number): void {
  const own = body.max_output_tokens;
  body.max_output_tokens = typeof own === 'number' && own >= 1 ? Math.min(own, most) : most;
}

/** Marks an answer, or the event that ends a stream with it; false when its length did not end it. */
export function markLimited(body: Json): boolean {
  const response = objectOf(body.response) ?? body;
  if (objectOf(response.incomplete_details)?.reason !== 'max_output_tokens') return false;
  response.wardgate = LIMITED;
  return true;
}

/**
 * The end of a stream at its quota. The answer is told without its output: clients keep what they were shown, and what
 * they were not shown is nobody's.
 */
export function cutShort(like: Json, _choices: string[], usage: Usage | undefined): string {
  const response = {
    ...objectOf(like.response),
    object: 'response',
    status: 'incomplete',
    error: null,
    incomplete_details: { reason: 'max_output_tokens' },
    usage: usage === undefined ? null : writtenUsage(usage),
    wardgate: LIMITED,
  };
  const { output: _output, ...told } = response as Json;
  return frame({ type: 'response.incomplete', sequence_number: like.sequence_number ?? 0, response: told });
}
