/** Paths that a plugin serves itself, beside all routes: the callback of a login, a logout that an issuer announces. */
import { MAX_ENDPOINT_BODY } from '../proto/contract.ts';
import { withOwn } from './answer.ts';
import { GatewayError } from './errors.ts';
import * as hooks from './hooks.ts';
import type { Life } from './life.ts';
import type { Mount } from './mount.ts';
import type { Route } from './snapshot.ts';

/** A request at a plugin's own path; the route around it counts for telemetry alone. */
type Called = Pick<Life, 'exchange' | 'record' | 'snapshot'> & { route: Route | undefined };

/** Has the plugin answer. Nobody is asked who this is: whoever calls has yet to sign in, or is no person at all. */
export async function serveEndpoint(called: Called, owner: Mount): Promise<void> {
  const { exchange, record } = called;
  const { method, query } = exchange;
  if (method !== 'GET' && method !== 'POST') {
    throw new GatewayError('method_not_allowed', 'Use GET or POST here.', { headers: { allow: 'GET, POST' } });
  }
  const body = method === 'POST' ? (await exchange.readBody(MAX_ENDPOINT_BODY)).toString('utf8') : '';
  const answer = await hooks.endpoint(owner, { query, body }, record);
  record.status = answer.status;
  const head = ['content-type', answer.contentType ?? 'text/plain; charset=utf-8', 'x-request-id', record.facts.id];
  for (const [name, value] of Object.entries(answer.headers ?? {})) head.push(name, value);
  for (const cookie of answer.cookies ?? []) head.push('set-cookie', cookie);
  exchange.reply(answer.status, withOwn(head, { ...called, route: undefined }), answer.body ?? '');
}
