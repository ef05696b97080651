/**
 * Errors that a response reports although its status said that all is well: in the response itself (`response.failed`),
 * or as an event, flat as documented or in an object of its own as it is sent too.
 * Source: https://platform.openai.com/docs/api-reference/responses-streaming/error
 */
import type { Json } from '../../../dialects/dialect.ts';
import type { GatewayError } from '../../../errors.ts';
import { objectOf, textOf } from '../../../hub/fields.ts';
import { reportedError } from '../error.ts';

/** What went wrong, in the gateway's words. */
export function failureOf(error: Json | undefined, name: string): GatewayError {
  const { code, message, param, type } = objectOf(error?.error) ?? error ?? {};
  const told = { code, message, param, ...(type !== 'error' && { type }), status: statusOf(textOf(code) ?? '') };
  return reportedError({ error: told }, name)!;
}

/** Status by the error's code; undefined where the shared reading of errors knows it. */
function statusOf(code: string): number | undefined {
  if (/image|policy|^invalid_|^context_length/.test(code)) return 400;
  return /overloaded|slow_down/.test(code) ? 503 : undefined;
}
