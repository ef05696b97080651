/** Cohere's errors: `{"message": …}` and a status. Source: https://docs.cohere.com/reference/errors */
import { objectOf, textOf } from '../../hub/fields.ts';
import type { ProviderError, ReplyHeaders } from '../provider.ts';
import { refusal } from '../refusal.ts';

/** A token that is blocked, in place of 403. */
const BLOCKED_TOKEN = 498;

export function readError(name: string, status: number, body: unknown, headers: ReplyHeaders): ProviderError {
  const message = textOf(objectOf(body)?.message);
  if (status === BLOCKED_TOKEN) return refusal(name, 403, {}, headers);
  const code = status === 404 ? 'model_not_found' : undefined;
  return refusal(name, status, { message, code }, headers);
}
