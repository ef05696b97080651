/** How Gemini frames events and errors: server-sent events without names, and google.rpc.Status. */
import type { ErrorShape } from '../../errors.ts';
import type { Json } from '../dialect.ts';

export function frame(body: Json): string {
  return `data: ${JSON.stringify(body)}\n\n`;
}

export function errorFrame(error: ErrorShape): string {
  return `data: ${errorBody(error)}\n\n`;
}

/** The gateway's own code stands where Google has its reasons: in `google.rpc.ErrorInfo`. */
export function errorBody({ status, code, message, param }: ErrorShape): string {
  const info = { '@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason: code, domain: 'wardgate' };
  const violation = {
    '@type': 'type.googleapis.com/google.rpc.BadRequest',
    fieldViolations: [{ field: param, description: message }],
  };
  const details = param === undefined ? [info] : [info, violation];
  return JSON.stringify({ error: { code: status, message, status: wordOf(status, code), details } });
}

/** A provider's own word, else the one that Google has for the status (google.rpc.Code). */
function wordOf(status: number, code: string): string {
  if (/^[A-Z][A-Z_]+$/.test(code)) return code;
  return WORDS[status] ?? (status < 500 ? 'INVALID_ARGUMENT' : 'INTERNAL');
}

const WORDS: Record<number, string> = {
  401: 'UNAUTHENTICATED',
  403: 'PERMISSION_DENIED',
  404: 'NOT_FOUND',
  408: 'DEADLINE_EXCEEDED',
  409: 'ABORTED',
  429: 'RESOURCE_EXHAUSTED',
  502: 'UNAVAILABLE',
  503: 'UNAVAILABLE',
  504: 'DEADLINE_EXCEEDED',
};
