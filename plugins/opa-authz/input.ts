/** What OPA is told: the `input` of the policy. */
import { hash } from 'node:crypto';
import type { AuthorizeInput, RequestFacts } from '../../proto/contract.ts';

/**
 * The body of the question as JSON. The client's own JSON goes in as it was sent: numbers that a JavaScript number could
 * not hold would become others, and the policy would decide on a request that nobody made.
 */
export function questionOf({ request, action, resources }: AuthorizeInput): string {
  const { identity, body, bodySize, ...facts } = request;
  const rest = JSON.stringify({ action, resources, identity, request: facts });
  // Both objects end here; what is told of the body goes in before.
  return `{"input":${rest.slice(0, -2)}${bodyMembers(request)}}}}`;
}

function bodyMembers({ body, bodySize = 0 }: RequestFacts): string {
  if (body === undefined) return '';
  const isCut = bodySize > Buffer.byteLength(body);
  const told = !isCut && isJson(body) ? `"parsed_body":${body}` : `"body":${JSON.stringify(body)}`;
  return `,${told},"truncated_body":${isCut}`;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** The same for questions that differ in nothing but the request's id. */
export function keyOf(input: AuthorizeInput): string {
  return hash('sha256', questionOf({ ...input, request: { ...input.request, id: '' } }), 'base64');
}
