/** What the reply of a rate limit service decides, and what a client is told of it. */
import { isUtf8 } from 'node:buffer';
import type { Allow, AllowOrReject, Reject } from '../../proto/contract.ts';
import { PluginFault } from '../../proto/contract.ts';
import { MAX_REJECT_BODY } from '../../proto/verdict.ts';
import { contentTypeOf } from '../json.ts';
import { type HeaderValue, headerIn } from './envoy-header.ts';
import type { Descriptor } from './rls-config.ts';

/** `RateLimitResponse.Code` by its numbers. 0 is UNKNOWN, and what an empty reply says. */
const OK = 1;
const OVER_LIMIT = 2;

/** `RateLimitResponse.RateLimit.Unit` by its numbers: its name, and its length in seconds. */
const UNITS: [string, number][] = [
  ['', 0],
  ['second', 1],
  ['minute', 60],
  ['hour', 3_600],
  ['day', 86_400],
  ['month', 2_592_000],
  ['year', 31_536_000],
  ['week', 604_800],
];

/** Client libraries ignore a `retry-after` above 60 s and try again at once, unless they are told not to. */
const SDK_PATIENCE_SECONDS = 60;
/** The longest wait that is told, in seconds: no unit is longer. */
const LONGEST_SECONDS = 366 * 86_400;
/** Most headers that a service may add, and most characters of their names and values. */
const MAX_HEADERS = 32;
const MAX_HEADER_TEXT = 8_192;

interface DescriptorStatus {
  code?: number;
  currentLimit?: { requestsPerUnit?: number; unit?: number; name?: string };
  limitRemaining?: number;
  durationUntilReset?: { seconds?: number; nanos?: number };
}

/** The message as proto-loader reads it: what is not there is absent. */
export interface RateLimitResponse {
  overallCode?: number;
  statuses?: DescriptorStatus[];
  responseHeadersToAdd?: HeaderValue[];
  rawBody?: Buffer;
}

/** A descriptor as it was sent. */
export interface Asked {
  descriptor: Descriptor;
  entries: { key: string; value: string }[];
  hits: number;
}

/** One limit as it stands. */
interface Standing {
  isOver: boolean;
  name: string | undefined;
  limit: number;
  remaining: number;
  /** Until the window ends, in seconds, 1 at least; undefined when the service does not say. */
  reset: number | undefined;
  unit: string;
  windowSeconds: number;
  asked: Asked;
}

/**
 * @param asked what the reply answers; a service may answer all of it by one code, without statuses
 * @param mount its name, and what comes back to it when the request has ended
 * @throws {@link PluginFault} when the reply is neither plainly a yes nor a no
 */
export function verdictIn(
  reply: RateLimitResponse,
  asked: Asked[],
  mount: { name: string; grant?: string },
): AllowOrReject {
  const { overallCode = 0, statuses = [] } = reply;
  const standings = statuses.length === asked.length ? standingsIn(statuses, asked) : [];
  if (overallCode === OVER_LIMIT) return { reject: rejection(reply, standings, mount.name) };
  if (overallCode !== OK) throw malformed('it says neither OK nor OVER_LIMIT');
  if (statuses.length > 0 && statuses.length !== asked.length) throw malformed('it has another number of statuses');
  if (!statuses.every(({ code }) => code === OK || code === OVER_LIMIT)) throw malformed('one status is unknown');
  return { allow: allowance(reply, standings, mount) };
}

function malformed(what: string): PluginFault {
  return new PluginFault('bad_answer', `the service's reply decides nothing: ${what}`);
}

function allowance(reply: RateLimitResponse, standings: Standing[], mount: { name: string; grant?: string }): Allow {
  const share = ({ remaining, limit }: Standing) => remaining / Math.max(1, limit);
  const tightest = standings.toSorted((one, other) => share(one) - share(other))[0];
  const headers = { ...(tightest && rateHeaders(tightest, mount.name)), ...headersIn(reply) };
  return mount.grant === undefined ? { headers } : { headers, grant: mount.grant };
}

function rejection(reply: RateLimitResponse, standings: Standing[], name: string): Reject {
  const longest = standings
    .filter(({ isOver }) => isOver)
    .toSorted((one, other) => (other.reset ?? 0) - (one.reset ?? 0))[0];
  const own = longest === undefined ? {} : { ...rateHeaders(longest, name), ...retryHeaders(longest) };
  const { 'content-type': contentType, ...told } = headersIn(reply);
  const body = bodyIn(reply);
  return {
    code: 'rate_limit_exceeded',
    message: longest === undefined ? 'The limit for these requests is reached. Try again later.' : sentence(longest),
    headers: { ...own, ...told },
    ...(body !== undefined && { body, contentType: contentType ?? contentTypeOf(body) }),
  };
}

/** The limits that have figures: a descriptor without a limit, or with an unlimited one, has none. */
function standingsIn(statuses: DescriptorStatus[], asked: Asked[]): Standing[] {
  return statuses.flatMap(({ code, currentLimit, limitRemaining = 0, durationUntilReset }, i) => {
    if (currentLimit === undefined) return [];
    const { requestsPerUnit: limit = 0, name } = currentLimit;
    const [unit, windowSeconds] = UNITS[currentLimit.unit ?? 0] ?? UNITS[0]!;
    const isOver = code === OVER_LIMIT;
    const remaining = isOver ? 0 : limitRemaining;
    const reset = durationUntilReset && secondsOf(durationUntilReset);
    return [{ isOver, name, limit, remaining, reset, unit, windowSeconds, asked: asked[i]! }];
  });
}

function secondsOf({ seconds = 0, nanos = 0 }: { seconds?: number; nanos?: number }): number {
  return Math.min(Math.max(1, Math.ceil(seconds + nanos / 1e9)), LONGEST_SECONDS);
}

// --- What is told ---------------------------------------------------------------------------------------------------

/** `x-ratelimit-*` in seconds, and the IETF draft's `RateLimit` pair as far as the figures go. */
function rateHeaders({ name, limit, remaining, reset, windowSeconds, asked }: Standing, mount: string) {
  const told = `"${name !== undefined && /^[A-Za-z0-9 ._:-]{1,64}$/.test(name) ? name : mount}"`;
  // The unit is not among the draft's, but left out it would mean requests.
  const unit = asked.descriptor.type === 'tokens' ? ';qu="tokens"' : '';
  return {
    'x-ratelimit-limit': String(limit),
    'x-ratelimit-remaining': String(remaining),
    ...(reset !== undefined && { 'x-ratelimit-reset': String(reset) }),
    'ratelimit-policy': `${told};q=${limit}${windowSeconds > 0 ? `;w=${windowSeconds}` : ''}${unit}`,
    ratelimit: `${told};r=${remaining}${reset === undefined ? '' : `;t=${reset}`}`,
  };
}

function retryHeaders(standing: Standing): Record<string, string> {
  if (isTooLarge(standing)) return { 'x-should-retry': 'false' };
  const { reset } = standing;
  if (reset === undefined) return {};
  const wait = { 'retry-after': String(reset) };
  return reset <= SDK_PATIENCE_SECONDS ? wait : { ...wait, 'x-should-retry': 'false' };
}

/** Whether the request alone is estimated at more than the limit ever has. */
function isTooLarge({ asked: { descriptor, hits }, limit }: Standing): boolean {
  return descriptor.type === 'tokens' && hits > limit;
}

function sentence(standing: Standing): string {
  const { limit, unit, reset, asked } = standing;
  const kind = limit === 1 ? asked.descriptor.type.slice(0, -1) : asked.descriptor.type;
  const amount = `${limit} ${kind}${unit === '' ? '' : ` per ${unit}`}`;
  if (isTooLarge(standing)) {
    return `This request is estimated at ${asked.hits} tokens, and the limit is ${amount}. Shorten it.`;
  }
  return `The limit of ${amount} is reached. Try again ${reset === undefined ? 'later' : `in ${inWords(reset)}`}.`;
}

/** `42 seconds`, `3 minutes`: rounded up, in the largest unit of which it is two or exactly one. */
function inWords(seconds: number): string {
  const fits = (unit: string, size: number) => seconds === size || seconds >= 2 * size || unit === 'second';
  const [unit, size] = (
    [
      ['day', 86_400],
      ['hour', 3_600],
      ['minute', 60],
      ['second', 1],
    ] as const
  ).find(([unit, size]) => fits(unit, size))!;
  return new Intl.NumberFormat('en', { style: 'unit', unit, unitDisplay: 'long', useGrouping: false }).format(
    Math.ceil(seconds / size),
  );
}

/** What the service adds. When one of them must not be sent, none is; a limit sets no cookies. */
function headersIn({ responseHeadersToAdd = [] }: RateLimitResponse): Record<string, string> {
  const headers: Record<string, string> = {};
  let size = 0;
  for (const given of responseHeadersToAdd) {
    const header = headerIn(given);
    if (header === undefined || header[0] === 'set-cookie') return {};
    const [name, text] = header;
    size += name.length + text.length;
    if (text !== '') headers[name] = Object.hasOwn(headers, name) ? `${headers[name]}, ${text}` : text;
  }
  return responseHeadersToAdd.length <= MAX_HEADERS && size <= MAX_HEADER_TEXT ? headers : {};
}

function bodyIn({ rawBody }: RateLimitResponse): string | undefined {
  return rawBody !== undefined && rawBody.length > 0 && isUtf8(rawBody)
    ? rawBody.toString('utf8').slice(0, MAX_REJECT_BODY)
    : undefined;
}
