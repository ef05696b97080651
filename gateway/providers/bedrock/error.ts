/**
 * Bedrock's errors: the exception's name stands in a header, the message in the body.
 * Source: https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
 */
import { GatewayError } from '../../errors.ts';
import { objectOf, textOf } from '../../hub/fields.ts';
import type { ProviderError, ReplyHeaders } from '../provider.ts';
import { headerOf, refusal } from '../refusal.ts';

/** What each exception means as a status, where Bedrock's own says another thing. */
const STATUSES = new Map([
  ['accessdenied', 403],
  ['validation', 400],
  ['resourcenotfound', 404],
  ['throttling', 429],
  ['servicequotaexceeded', 429],
  // It is loading, and soon there.
  ['modelnotready', 503],
  ['modeltimeout', 504],
  // The model failed, not the request, whatever its 424 says.
  ['modelerror', 502],
  ['modelstreamerror', 502],
  ['internalserver', 500],
  ['internalfailure', 500],
  ['serviceunavailable', 503],
]);

/** What went wrong, as a word: `ThrottlingException:http://…`, `throttlingException` and `Throttling` are the same. */
function exceptionOf(name: string): string {
  return name
    .replace(/^.*#/, '')
    .replace(/:.*$/s, '')
    .replace(/Exception$/, '')
    .toLowerCase();
}

/** An answer above 299. */
export function readError(name: string, status: number, body: unknown, headers: ReplyHeaders): ProviderError {
  const told = objectOf(body) ?? {};
  const exception = exceptionOf(headerOf(headers, 'x-amzn-errortype') ?? textOf(told.__type) ?? '');
  const message = textOf(told.message) ?? textOf(told.Message);
  return meaning(name, { status: STATUSES.get(exception) ?? status, exception, message }, headers);
}

/** An exception in the middle of a stream, as the event that ends it. */
export function streamError(name: string, type: string, body: unknown): GatewayError {
  const exception = exceptionOf(type);
  const message = textOf(objectOf(body)?.message);
  const status = STATUSES.get(exception) ?? 500;
  const { code, message: sentence, details } = meaning(name, { status, exception, message }, {});
  return new GatewayError(code, sentence, { ...details, cause: type });
}

interface Fault {
  status: number;
  exception: string;
  message: string | undefined;
}

function meaning(name: string, { status, exception, message }: Fault, headers: ReplyHeaders): ProviderError {
  if (status === 401 || status === 403) return refusedKey(name, exception);
  if (status === 404) return refusal(name, status, { message, code: 'model_not_found' }, headers);
  const isTooLong = status === 400 && message !== undefined && TOO_LONG.test(message);
  return refusal(name, status, { message, code: isTooLong ? 'context_length_exceeded' : undefined }, headers);
}

const TOO_LONG = /input is too long|prompt is too long|maximum context length|exceeds? the (?:context|token) limit/i;

/**
 * Which of the three it was is for the operator to know. Bedrock's own message names accounts and roles, so it is not told.
 */
function refusedKey(name: string, exception: string): ProviderError {
  const why = WHY.get(exception) ?? 'does not accept the gateway’s AWS credentials';
  return {
    code: 'upstream_refused_key',
    message: `The provider “${name}” ${why}. Ask the gateway’s operator to see to it.`,
    details: {},
  };
}

const WHY = new Map([
  ['accessdenied', 'does not let the gateway’s AWS account use this model in this region'],
  ['expiredtoken', 'says that the gateway’s AWS credentials have expired'],
  ['invalidsignature', 'does not accept the gateway’s signature: its secret key or its clock is wrong'],
]);

/** Whether an answer says that the credentials are too old, so that others should be looked for. */
export function isExpired(status: number, body: unknown, headers: ReplyHeaders): boolean {
  if (status !== 403 && status !== 400 && status !== 401) return false;
  const name = headerOf(headers, 'x-amzn-errortype') ?? textOf(objectOf(body)?.__type) ?? '';
  return /^(?:expiredtoken|unrecognizedclient)$/.test(exceptionOf(name));
}
