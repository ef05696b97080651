/**
 * OpenAI's errors, and those of compatible servers: `{error: {…}}`, a list of such (Gemini), the error's fields alone
 * (vLLM, Mistral), or a string.
 * Source: https://platform.openai.com/docs/guides/error-codes, …/guides/rate-limits (reset headers).
 */
import type { Json } from '../../dialects/dialect.ts';
import { GatewayError } from '../../errors.ts';
import { countOf, objectOf, textOf } from '../../hub/fields.ts';
import { isJsonObject } from '../../json.ts';
import type { ProviderError, ReplyHeaders } from '../provider.ts';
import { errorReader, headerOf, type Told } from '../refusal.ts';

/** An answer above 299 of the provider `name`. */
export const readError = errorReader({ toldBy, isOutOfCredit, outOfCredit, resetOf });

/** What waiting does not mend: the account's money is used up. */
function isOutOfCredit(status: number, { code, type }: Told): boolean {
  return status === 402 || (status === 429 && (code === 'insufficient_quota' || type === 'insufficient_quota'));
}

function outOfCredit(name: string, { code }: Told): ProviderError {
  return {
    code: 'upstream_rate_limited',
    message: `The gateway’s account at the provider “${name}” is used up. Ask the gateway’s operator to top it up.`,
    // The official clients try again unless they are told not to.
    details: {
      publicCode: 'insufficient_quota',
      type: code === undefined ? undefined : 'insufficient_quota',
      headers: { 'x-should-retry': 'false' },
    },
  };
}

/** The error object in whatever it is wrapped. */
function toldBy(body: unknown): Told {
  const outer: unknown = Array.isArray(body) ? body[0] : body;
  const error = isJsonObject(outer) ? (outer.error ?? outer) : outer;
  if (typeof error === 'string') return { message: filled(error) };
  if (!isJsonObject(error)) return {};
  return {
    message: filled(error.message) ?? detailOf(isJsonObject(error.message) ? error.message.detail : error.detail),
    code: filled(error.code),
    type: filled(error.type),
    param: filled(error.param),
  };
}

function filled(value: unknown): string | undefined {
  return textOf(value) || undefined;
}

/** FastAPI's form, which Mistral and many small servers have: a sentence, or a list of what is wrong where. */
function detailOf(detail: unknown): string | undefined {
  if (typeof detail === 'string') return filled(detail);
  const first: unknown = Array.isArray(detail) ? detail[0] : undefined;
  if (!isJsonObject(first)) return undefined;
  const place = Array.isArray(first.loc) ? first.loc.slice(1).join('.') : '';
  return filled([place, filled(first.msg)].filter(Boolean).join(': '));
}

// --- Reset headers ------------------------------------------------------------------------------------------------

/** When requests and tokens are there again: the later of the two that are used up, else of both, in milliseconds. */
function resetOf(headers: ReplyHeaders): number | undefined {
  const waits = (['requests', 'tokens'] as const).map((what) => ({
    isUsedUp: headerOf(headers, `x-ratelimit-remaining-${what}`) === '0',
    ms: durationOf(headerOf(headers, `x-ratelimit-reset-${what}`)),
  }));
  const known = waits.filter((wait): wait is { isUsedUp: boolean; ms: number } => wait.ms !== undefined);
  const usedUp = known.filter(({ isUsedUp }) => isUsedUp);
  const counting = usedUp.length > 0 ? usedUp : known;
  return counting.length === 0 ? undefined : Math.max(...counting.map(({ ms }) => ms));
}

const UNITS: Readonly<Record<string, number>> = {
  h: 3_600_000,
  m: 60_000,
  s: 1000,
  ms: 1,
  us: 0.001,
  µs: 0.001,
  ns: 1e-6,
};
const DURATION = /(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)/g;

/** A duration as Go writes it (`1s`, `6m0s`, `20ms`), in milliseconds; bare numbers are seconds. */
function durationOf(text: string | undefined): number | undefined {
  if (text === undefined || text.length > 40) return undefined;
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  if (text === '' || text.replaceAll(DURATION, '') !== '') return undefined;
  let ms = 0;
  for (const [, amount, unit] of text.matchAll(DURATION)) ms += Number(amount) * (UNITS[unit as string] ?? 0);
  return Number.isFinite(ms) ? ms : undefined;
}

// --- Errors in a 200 ----------------------------------------------------------------------------------------------

/** Status by the words that stand for it, where an error comes inside a stream and has none. */
const STATUSES = new Map([
  ['rate_limit_exceeded', 429],
  ['rate_limit_error', 429],
  ['insufficient_quota', 429],
  ['requests', 429],
  ['tokens', 429],
  ['overloaded_error', 503],
  ['overloaded', 503],
  ['engine_overloaded', 503],
  ['service_unavailable', 503],
  ['timeout', 504],
  ['invalid_request_error', 400],
  ['context_length_exceeded', 400],
  ['content_filter', 400],
]);

/** The error that an answer, or an event of one, reports although its status said that all is well. */
export function reportedError(body: Json, name: string): GatewayError | undefined {
  const error = body.error || objectOf(body.x_groq)?.error || (body.object === 'error' ? body : undefined);
  if (!error) return undefined;
  const told = toldBy({ error });
  const { code, message, details } = readError(name, statusOf(error, told), { error }, {});
  // The status belongs to an answer of its own, which this is not.
  return new GatewayError(code, message, {
    ...details,
    cause: `reported inside an answer: ${told.code ?? told.type ?? 'no code'}`,
  });
}

function statusOf(error: unknown, { code, type }: Told): number {
  const numbers = isJsonObject(error) ? [error.code, error.status, error.status_code] : [];
  const told = numbers.map(countOf).find((value) => value !== undefined && value >= 400 && value < 600);
  return told ?? STATUSES.get(code ?? '') ?? STATUSES.get(type ?? '') ?? 500;
}
