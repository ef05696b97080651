/** Which failures another try may mend, and which of them speak against the target. */
import type { ErrorCode, GatewayError } from '../errors.ts';

/** Statuses, `4xx` and `5xx`, and the words for what has no status. */
export type Triggers = ReadonlySet<number | string>;

/** The word for a failure that may have no status. */
const WORDS: Partial<Record<ErrorCode, 'connection' | 'timeout' | 'bad-answer'>> = {
  upstream_unreachable: 'connection',
  stream_broken: 'connection',
  upstream_timeout: 'timeout',
  upstream_bad_answer: 'bad-answer',
};

/** The statuses that a code may stand for, where the provider's own is not known. */
const STATUSES: Partial<Record<ErrorCode, number[]>> = {
  upstream_rate_limited: [429],
  upstream_overloaded: [503],
  upstream_failed: [500, 502],
  upstream_refused_key: [401, 403],
};

/** The target's own failures. A client's mistake is never one, so that no client can shut a target off for others. */
const TARGETS_FAULTS: ReadonlySet<ErrorCode> = new Set([
  'upstream_unreachable',
  'upstream_timeout',
  'upstream_failed',
  'upstream_overloaded',
  'upstream_bad_answer',
  'stream_broken',
]);

/** Whether a request could not be written for a target, which says nothing of how another one takes it. */
export function isNotSent({ code }: GatewayError): boolean {
  return code === 'unsupported_field' || code === 'invalid_request';
}

/** Whether another try may help. */
export function isPassing(failure: GatewayError, on: Triggers): boolean {
  const word = WORDS[failure.code];
  return (word !== undefined && on.has(word)) || statusesOf(failure).some((status) => hasStatus(on, status));
}

/** Whether a failure counts for the circuit: a refused key does where the config moves on from it. */
export function isTargetsFault(code: ErrorCode, on: Triggers): boolean {
  if (code === 'upstream_refused_key') return STATUSES[code]!.some((status) => hasStatus(on, status));
  return TARGETS_FAULTS.has(code);
}

/** Whether the provider was not there, or went before it had answered, or in the middle of it. */
export function isConnectionLost({ code }: GatewayError): boolean {
  return WORDS[code] === 'connection';
}

function statusesOf({ code, upstreamStatus, details }: GatewayError): number[] {
  if (upstreamStatus !== undefined) return [upstreamStatus];
  if (code === 'upstream_invalid_request') return details.status === undefined ? [] : [details.status];
  return STATUSES[code] ?? [];
}

function hasStatus(on: Triggers, status: number): boolean {
  return on.has(status) || on.has(`${Math.floor(status / 100)}xx`);
}
