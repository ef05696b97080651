/**
 * Every error that the gateway itself may answer: code → status and type. The client sees the message, a sentence for
 * a person; the log sees the cause. A dialect shapes it (`Dialect.errorBody`), for an HTTP body and for the last event
 * of a stream alike.
 */
export const ERRORS = {
  // The client's request
  invalid_request: { status: 400, type: 'invalid_request_error' },
  invalid_json: { status: 400, type: 'invalid_request_error' },
  unsupported_field: { status: 400, type: 'invalid_request_error' },
  missing_model: { status: 400, type: 'invalid_request_error' },
  unsupported_media_type: { status: 415, type: 'invalid_request_error' },
  body_too_large: { status: 413, type: 'invalid_request_error' },
  body_timeout: { status: 408, type: 'invalid_request_error' },
  not_found: { status: 404, type: 'invalid_request_error' },
  model_not_found: { status: 404, type: 'invalid_request_error' },
  method_not_allowed: { status: 405, type: 'invalid_request_error' },
  // What the plugins said
  unauthenticated: { status: 401, type: 'authentication_error' },
  forbidden: { status: 403, type: 'permission_error' },
  conflict: { status: 409, type: 'invalid_request_error' },
  rate_limited: { status: 429, type: 'rate_limit_error' },
  content_rejected: { status: 403, type: 'invalid_request_error' },
  guard_unavailable: { status: 503, type: 'server_error' },
  // The provider
  upstream_unreachable: { status: 502, type: 'server_error' },
  upstream_failed: { status: 502, type: 'server_error' },
  upstream_refused_key: { status: 502, type: 'server_error' },
  upstream_bad_answer: { status: 502, type: 'server_error' },
  upstream_timeout: { status: 504, type: 'server_error' },
  upstream_overloaded: { status: 503, type: 'server_error' },
  upstream_rate_limited: { status: 429, type: 'rate_limit_error' },
  upstream_invalid_request: { status: 400, type: 'invalid_request_error' },
  stream_broken: { status: 502, type: 'server_error' },
  // The rest of a stream
  resume_expired: { status: 410, type: 'invalid_request_error' },
  resume_unavailable: { status: 503, type: 'server_error' },
  // The gateway
  draining: { status: 503, type: 'server_error' },
  internal: { status: 500, type: 'server_error' },
} as const satisfies Record<string, { status: number; type: string }>;

export type ErrorCode = keyof typeof ERRORS;

/** Whether a plugin said no, or said nothing; anything else is a failure. */
export function isRejection(code: ErrorCode): boolean {
  return REJECTIONS.has(code);
}

const REJECTIONS = new Set<ErrorCode>([
  'unauthenticated',
  'forbidden',
  'conflict',
  'rate_limited',
  'content_rejected',
  'guard_unavailable',
]);

/** What a dialect needs to know to shape an error. */
export interface ErrorShape {
  status: number;
  type: string;
  code: string;
  message: string;
  param?: string;
}

/** What may be said beyond code and message. */
export interface ErrorDetails {
  /** For the log alone. */
  cause?: unknown;
  /** Replaces the status of the table. */
  status?: number;
  /** Replaces the table's code in the answer: a plugin's own code, or a provider's. */
  publicCode?: string;
  /** Replaces the table's type: a provider's own. */
  type?: string;
  headers?: Record<string, string>;
  /** Whole values of `set-cookie`. */
  cookies?: string[];
  /** Sent as it is in place of the dialect's error body. */
  body?: string | Buffer;
  contentType?: string;
  param?: string;
  /** The provider's own status, for what decides where to go on. */
  upstreamStatus?: number;
  /** How long the provider wants to be left alone, in milliseconds. */
  retryAfterMs?: number;
}

/** Codes by which all providers' refusals of this kind are known. */
const FALLBACKS: Readonly<Record<string, 'contextWindow' | 'contentPolicy' | undefined>> = {
  context_length_exceeded: 'contextWindow',
  content_filter: 'contentPolicy',
  content_policy_violation: 'contentPolicy',
};

/** An error with an answer for the client. */
export class GatewayError extends Error {
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, { cause: details.cause });
    this.name = 'GatewayError';
    this.code = code;
    this.details = details;
  }

  get status(): number {
    return this.details.status ?? ERRORS[this.code].status;
  }

  /** How long the provider wants to be left alone, in milliseconds. */
  get retryAfterMs(): number | undefined {
    return this.details.retryAfterMs;
  }

  /** The provider's own status, where it answered at all. */
  get upstreamStatus(): number | undefined {
    return this.details.upstreamStatus;
  }

  /** What a refused request was too much of, where other models may take it. */
  get fallback(): 'contextWindow' | 'contentPolicy' | undefined {
    return FALLBACKS[this.details.publicCode ?? ''];
  }

  /** What the client is told. */
  get shape(): ErrorShape {
    const { publicCode, type, param } = this.details;
    return {
      status: this.status,
      type: type ?? ERRORS[this.code].type,
      code: publicCode ?? this.code,
      message: this.message,
      param,
    };
  }
}

/** Whatever was thrown, as an error with an answer. */
export function asGatewayError(thrown: unknown): GatewayError {
  if (thrown instanceof GatewayError) return thrown;
  return new GatewayError('internal', 'The gateway failed. The fault has been logged; try again.', { cause: thrown });
}
