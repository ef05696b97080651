/** Gemini's errors, by google.rpc.Status: https://cloud.google.com/apis/design/errors. */
import type { Json } from '../../dialects/dialect.ts';
import { GatewayError } from '../../errors.ts';
import { countOf, objectOf, objectsOf, textOf } from '../../hub/fields.ts';
import type { ProviderError, ReplyHeaders } from '../provider.ts';
import { refusal, type Told } from '../refusal.ts';

/** Reads an answer above 299. */
export function readError(name: string, status: number, body: unknown, headers: ReplyHeaders): ProviderError {
  const error = errorOf(body);
  // A key that is none is a 400 here.
  return refusal(name, refusesKey(error) ? 401 : status, toldOf(error), headers);
}

/** An error in the middle of a stream: the status stands in the object alone. */
export function streamError(name: string, body: Json): GatewayError {
  const error = errorOf(body);
  const status = countOf(error.code) ?? 500;
  const { code, message, details } = readError(name, status >= 400 && status <= 599 ? status : 500, body, {});
  return new GatewayError(code, message, details);
}

/** The error object, which some of Google's endpoints wrap into a list. */
function errorOf(body: unknown): Json {
  const outer = objectOf(Array.isArray(body) ? body[0] : body) ?? {};
  return objectOf(outer.error) ?? outer;
}

function toldOf(error: Json): Told {
  const violation = detailsOf(error, 'BadRequest').flatMap(({ fieldViolations }) => objectsOf(fieldViolations))[0];
  return {
    message: textOf(error.message) || undefined,
    code: textOf(error.status) || undefined,
    param: textOf(violation?.field) || undefined,
    retryAfterMs: delayOf(detailsOf(error, 'RetryInfo')[0]?.retryDelay),
  };
}

/** The details of one kind; their `@type` ends in its name. */
function detailsOf({ details }: Json, kind: string): Json[] {
  return objectsOf(details).filter((detail) => textOf(detail['@type'])?.endsWith(`.${kind}`));
}

/** A protobuf duration such as `34s` or `0.5s`, in milliseconds. */
function delayOf(text: unknown): number | undefined {
  const seconds = typeof text === 'string' ? /^(\d{1,9}(?:\.\d+)?)s$/.exec(text)?.[1] : undefined;
  return seconds === undefined ? undefined : Math.ceil(Number(seconds) * 1000);
}

function refusesKey(error: Json): boolean {
  return detailsOf(error, 'ErrorInfo').some(({ reason }) => textOf(reason)?.startsWith('API_KEY_'));
}
