/**
 * Errors in this dialect, as a body and as the last event of a stream.
 * Source: https://platform.claude.com/docs/en/api/errors. The gateway's code stands in `details.error_code`, where the
 * vendor has its own codes and its client looks for them.
 */
import type { ErrorShape } from '../../errors.ts';

export function errorBody({ status, code, message, param }: ErrorShape): string {
  const details = { error_code: code, ...(param !== undefined && { param }) };
  return JSON.stringify({ type: 'error', error: { type: typeOf(status), message, details } });
}

export function errorFrame(error: ErrorShape): string {
  return `event: error\ndata: ${errorBody(error)}\n\n`;
}

function typeOf(status: number): string {
  return TYPES[status] ?? (status >= 500 ? 'api_error' : 'invalid_request_error');
}

const TYPES: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  402: 'billing_error',
  403: 'permission_error',
  404: 'not_found_error',
  409: 'conflict_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  503: 'overloaded_error',
  504: 'timeout_error',
  529: 'overloaded_error',
};
