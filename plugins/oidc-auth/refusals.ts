/**
 * Why a token is refused. The reason goes into the findings, for the operator; the client is told no more than it needs
 * to do something about it, because whoever tries forged tokens learns from each difference.
 */
import type { AllowOrReject } from '../../proto/contract.ts';

const NOT_VALID = 'Your sign-in is not valid here. Sign out and in again.';
const OVER = 'Your sign-in has expired. Sign out and in again.';

/** Each reason with the sentence that its client reads. */
const REASONS = {
  malformed: NOT_VALID,
  alg_none: NOT_VALID,
  alg_symmetric: NOT_VALID,
  alg_not_allowed: NOT_VALID,
  bad_key_id: NOT_VALID,
  unknown_key: NOT_VALID,
  bad_signature: NOT_VALID,
  foreign_issuer: NOT_VALID,
  wrong_audience: NOT_VALID,
  wrong_party: NOT_VALID,
  wrong_type: NOT_VALID,
  wrong_header_type: NOT_VALID,
  not_yet_valid: NOT_VALID,
  missing_claim: NOT_VALID,
  wrong_claim: NOT_VALID,
  lives_too_long: NOT_VALID,
  inactive: OVER,
  expired: OVER,
  logged_out: OVER,
  duplicate_credentials: 'The request carries more than one credential. Send exactly one.',
  insufficient_scope: 'Your sign-in does not cover this. Sign out and in again, or ask the operator of this gateway.',
} as const;

export type Reason = keyof typeof REASONS;

/** Ends a verification. */
export class Refusal extends Error {
  readonly reason: Reason;

  constructor(reason: Reason) {
    super(reason);
    this.name = 'Refusal';
    this.reason = reason;
  }
}

/** What a gateway says of itself in its challenges (RFC 6750, section 3; RFC 9728, section 5.1). */
export interface Challenger {
  realm: string;
  /** URL of the protected resource's metadata. */
  resourceMetadata?: string;
}

/** The challenge for a request without a credential: no error, for nothing was wrong (RFC 6750, section 3.1). */
export function challengeOf({ realm, resourceMetadata }: Challenger, ...more: string[]): string {
  const metadata = resourceMetadata === undefined ? [] : [`resource_metadata="${resourceMetadata}"`];
  return `Bearer ${[`realm="${realm}"`, ...more, ...metadata].join(', ')}`;
}

/** @param scopes which ones were wanted, for `insufficient_scope` */
export function refusal(challenger: Challenger, reason: Reason, scopes: readonly string[] = []): AllowOrReject {
  const code = reason === 'insufficient_scope' ? reason : 'invalid_token';
  const message = REASONS[reason];
  const parts = [`error="${code}"`, `error_description="${message}"`];
  if (reason === 'insufficient_scope' && scopes.length > 0) parts.push(`scope="${scopes.join(' ')}"`);
  return {
    reject: {
      code,
      message,
      status: reason === 'insufficient_scope' ? 403 : 401,
      headers: { 'www-authenticate': challengeOf(challenger, ...parts) },
      findings: [{ label: reason, count: 1 }],
    },
  };
}
