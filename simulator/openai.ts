/** What all of OpenAI's paths have in common: the key, the errors, the header that names a request. */
import { type Access, bearer, type Call, sse, type WholeReply } from './format.ts';
import { Refusal } from './model.ts';

/** The part of a wire format that is the same for chat, responses and embeddings. */
export const openai = { requestIdHeader: 'x-request-id', authenticate, refuse };

function authenticate({ headers }: Call, { requireKey, wrongKeys }: Access): void {
  const key = bearer(headers);
  if (key === undefined && !requireKey) return;
  if (key === undefined) throw new Refusal(401, 'The request has no API key: send Authorization: Bearer KEY.');
  if (wrongKeys.has(key)) throw new Refusal(401, 'The API key is not a valid one.', 'invalid_api_key');
}

function refuse(refusal: Refusal): WholeReply {
  return { status: refusal.status, headers: limitHeaders(refusal), json: { error: errorOf(refusal) } };
}

/** The object under `error`, in a body and in an event of a stream alike. */
export function errorOf({ status, message, code, param }: Refusal): object {
  const kind = kindOfError(status);
  return { message, type: kind.type, param, code: code ?? kind.code };
}

/** The event of a chat stream that breaks. */
export function chatFailure(refusal: Refusal): string {
  return sse({ error: errorOf(refusal) });
}

/** OpenAI's waits: `retry-after` in seconds, and when a limit is full again, such as `7s`. */
export function limitHeaders({ status, retryAfterS, resetS }: Refusal): Record<string, string> {
  const after = retryAfterS ?? (status === 429 && resetS === undefined ? 1 : undefined);
  return {
    ...(after === undefined ? {} : { 'retry-after': String(after) }),
    ...(resetS === undefined
      ? {}
      : { 'x-ratelimit-remaining-requests': '0', 'x-ratelimit-reset-requests': `${resetS}s` }),
  };
}

function kindOfError(status: number): { type: string; code: string | null } {
  if (status >= 500) return { type: 'server_error', code: null };
  if (status === 429) return { type: 'requests', code: 'rate_limit_exceeded' };
  const codes: Record<number, string> = { 401: 'invalid_api_key', 404: 'model_not_found' };
  return { type: 'invalid_request_error', code: codes[status] ?? null };
}
