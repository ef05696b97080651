/**
 * Errors of the Messages API, as answers and in the middle of a stream.
 * Source: https://platform.claude.com/docs/en/api/errors and …/api/rate-limits (reset headers, RFC 3339).
 */
import type { Json } from '../../dialects/dialect.ts';
import { GatewayError } from '../../errors.ts';
import { objectOf, textOf } from '../../hub/fields.ts';
import type { ProviderError, ReplyHeaders } from '../provider.ts';
import { errorReader, headerOf, type Told } from '../refusal.ts';

/** An answer above 299 of the provider `name`. */
export const readError = errorReader({ toldBy, isOutOfCredit, outOfCredit, resetOf });

/** The error that an answer, or an event of one, reports although its status said that all is well. */
export function reportedError(body: Json, name: string): GatewayError {
  const { type } = toldBy(body);
  const { code, message, details } = readError(name, STATUSES[type ?? ''] ?? 500, body, {});
  return new GatewayError(code, message, { ...details, cause: `reported inside an answer: ${type ?? 'no type'}` });
}

function toldBy(body: unknown): Told {
  const error = objectOf(objectOf(body)?.error);
  const type = textOf(error?.type) || undefined;
  return {
    message: textOf(error?.message) || undefined,
    type,
    code: textOf(objectOf(error?.details)?.error_code) || CODES[type ?? ''],
  };
}

/** Codes that clients of other dialects know. */
const CODES: Readonly<Record<string, string>> = {
  not_found_error: 'model_not_found',
  request_too_large: 'request_too_large',
};

const STATUSES: Readonly<Record<string, number>> = {
  invalid_request_error: 400,
  authentication_error: 401,
  billing_error: 402,
  permission_error: 403,
  not_found_error: 404,
  conflict_error: 409,
  request_too_large: 413,
  rate_limit_error: 429,
  api_error: 500,
  timeout_error: 504,
  overloaded_error: 529,
};

/** What waiting does not mend. An empty account is also told as a 400, by its sentence alone. */
function isOutOfCredit(status: number, { code, type, message = '' }: Told): boolean {
  if (status === 402 || type === 'billing_error') return true;
  if (status === 429) return code?.endsWith('spend_limit_reached') === true;
  return status === 400 && message.startsWith('Your credit balance is too low');
}

function outOfCredit(name: string): ProviderError {
  return {
    code: 'upstream_rate_limited',
    message: `The gateway’s account at the provider “${name}” is used up. Ask the gateway’s operator to top it up.`,
    // The official clients try again unless they are told not to.
    details: { publicCode: 'insufficient_quota', headers: { 'x-should-retry': 'false' } },
  };
}

const LIMITS = ['requests', 'tokens', 'input-tokens', 'output-tokens'].map((what) => `anthropic-ratelimit-${what}`);

/** When what is used up is there again, in milliseconds: the latest of those, or else of all. */
function resetOf(headers: ReplyHeaders, now = Date.now()): number | undefined {
  const limits = LIMITS.map((limit) => ({
    isUsedUp: headerOf(headers, `${limit}-remaining`) === '0',
    at: Date.parse(headerOf(headers, `${limit}-reset`) ?? ''),
  })).filter(({ at }) => !Number.isNaN(at));
  const usedUp = limits.filter(({ isUsedUp }) => isUsedUp);
  const counting = usedUp.length > 0 ? usedUp : limits;
  return counting.length === 0 ? undefined : Math.max(0, Math.max(...counting.map(({ at }) => at)) - now);
}
