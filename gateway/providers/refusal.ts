/** A provider's error in the gateway's words: what all vendors share once their own error object has been read. */
import type { ProviderError, ReplyHeaders } from './provider.ts';

/** What the vendor's error object told. */
export interface Told {
  message?: string;
  code?: string;
  type?: string;
  param?: string;
  /** How long to wait, where the vendor says it in a place of its own. */
  retryAfterMs?: number;
}

/**
 * The client's own mistakes are told as the provider told them. What concerns the gateway's key or account is not the
 * client's business: a 401 from upstream would send people looking for a key that they do not have.
 */
export function refusal(name: string, status: number, told: Told, headers: ReplyHeaders): ProviderError {
  const retryAfterMs = told.retryAfterMs ?? retryAfter(headers);
  if (status === 401 || status === 403 || status === 407) {
    return {
      code: 'upstream_refused_key',
      message: `The provider “${name}” refused the gateway’s key. Ask the gateway’s operator to check it.`,
      details: {},
    };
  }
  if (status === 429) return atItsLimit(name, told, retryAfterMs);
  if (status === 503 || status === 529) {
    return {
      code: 'upstream_overloaded',
      message: `The provider “${name}” is overloaded. Try again in a moment.`,
      details: { headers: shownWait(retryAfterMs) },
      retryAfterMs,
    };
  }
  if (status === 408 || status === 504) {
    return {
      code: 'upstream_timeout',
      message: `The provider “${name}” did not answer in time. Try again.`,
      details: {},
    };
  }
  if (status >= 500)
    return {
      code: 'upstream_failed',
      message: `The provider “${name}” failed (status ${status}). Try again.`,
      details: {},
      retryAfterMs,
    };
  // A redirect is not followed: it would carry the key and the prompt to an address that the operator did not choose.
  if (status < 400)
    return {
      code: 'upstream_bad_answer',
      message: `The provider “${name}” sent the request elsewhere (status ${status}). Ask the gateway’s operator to check its address.`,
      details: {},
    };
  const message =
    told.message === undefined
      ? `The provider “${name}” refused the request (status ${status}).`
      : told.message.replace(PRIVATE, '…');
  const details = { status, publicCode: told.code ?? 'invalid_request', type: told.type, param: told.param };
  return { code: 'upstream_invalid_request', message, details };
}

/** What names the gateway's account, or is a key: resources, projects, organizations and credentials of the vendors. */
const PRIVATE = new RegExp(
  [
    'arn:aws[\\w-]*:[^\\s"\'`,;)\\]]+',
    '(?<=\\baccount(?: id)?:? )\\d{12}\\b',
    '(?<=\\bprojects?/)[\\w:.-]+',
    '\\b(?:org|proj|acct|user)[-_][A-Za-z0-9]{12,}',
    '\\b(?:sk|rk|pk|gsk|xai|nvapi|hf|pplx)[-_][\\w*.…-]{6,}',
    '\\b(?:AIza|ya29\\.|AKIA|ASIA|ABSK)[\\w.-]{8,}',
    '(?<=\\bBearer )[^\\s"\'`,;]+',
  ].join('|'),
  'gi',
);

/** Reads an answer above 299 of the provider `name`. */
type ReadError = (name: string, status: number, body: unknown, headers: ReplyHeaders) => ProviderError;

/** What a vendor's errors say in its own words. */
interface Words {
  toldBy(body: unknown): Told;
  /** Whether the account's money is used up, which waiting does not mend, and what is said then. */
  isOutOfCredit(status: number, told: Told): boolean;
  outOfCredit(name: string, told: Told): ProviderError;
  /** How long until the vendor's limits are full again, in milliseconds, by headers of its own. */
  resetOf(headers: ReplyHeaders): number | undefined;
}

/** Reads the errors of a vendor that has accounts to be topped up and headers of its own for its limits. */
export function errorReader({ toldBy, isOutOfCredit, outOfCredit, resetOf }: Words): ReadError {
  return (name, status, body, headers) => {
    const told = toldBy(body);
    if (isOutOfCredit(status, told)) return outOfCredit(name, told);
    if (status === 429) told.retryAfterMs = retryAfter(headers) ?? resetOf(headers);
    return refusal(name, status, told, headers);
  };
}

function atItsLimit(name: string, told: Told, retryAfterMs: number | undefined): ProviderError {
  const until =
    retryAfterMs === undefined ? ' Try again later.' : ` Try again in ${Math.ceil(retryAfterMs / 1000)} seconds.`;
  return {
    code: 'upstream_rate_limited',
    message: `The provider “${name}” is at its rate limit.${until}`,
    details: { headers: shownWait(retryAfterMs), publicCode: told.code ?? 'rate_limit_exceeded' },
    retryAfterMs,
  };
}

function shownWait(ms: number | undefined): Record<string, string> {
  return ms === undefined ? {} : { 'retry-after': `${Math.ceil(ms / 1000)}` };
}

/**
 * How long a provider wants to be left alone, in milliseconds: `retry-after-ms`, else `Retry-After` in seconds or as a
 * date (RFC 9110, 10.2.3).
 */
function retryAfter(headers: ReplyHeaders, now = Date.now()): number | undefined {
  const exact = headerOf(headers, 'retry-after-ms');
  if (exact !== undefined && /^\d+(\.\d+)?$/.test(exact)) return Number(exact);
  const text = headerOf(headers, 'retry-after');
  if (text === undefined) return undefined;
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const date = Date.parse(text);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** A header of a provider's answer; the first where it is repeated. */
export function headerOf(headers: ReplyHeaders, name: string): string | undefined {
  const value = headers[name];
  return typeof value === 'string' ? value : value?.[0];
}
