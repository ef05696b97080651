/** The head of an answer: what is told of the provider's, and what the gateway adds. */
import { corsHeaders } from './cors.ts';
import type { Life } from './life.ts';
import { SHOWN_HEADERS } from './providers/registry.ts';
import type { Route } from './snapshot.ts';
import type { UpstreamReply } from './upstream.ts';

/** What makes proxies pass events on as they come. Sources: nginx (X-Accel-Buffering), RFC 9111 (no-transform). */
const STREAM_HEADERS = ['cache-control', 'no-cache, no-transform', 'x-accel-buffering', 'no'];

/** Headers of a provider's answer that its client is told. */
const SHOWN = ['x-simulated', ...SHOWN_HEADERS];

/** The head of a provider's answer as the client gets it: names and values alternate. */
export function replyHead(
  life: Life,
  { reply, leftOut }: { reply: UpstreamReply; leftOut: string[] },
  isStream: boolean,
): string[] {
  const { record } = life;
  const own = reply.headers['content-type'];
  const type = isStream ? (typeof own === 'string' ? own : 'text/event-stream') : 'application/json';
  const head = ['content-type', type, 'x-request-id', record.facts.id];
  if (isStream) head.push(...STREAM_HEADERS);
  // What else a provider says of its answer concerns the gateway: its own limits, account, cookies and connection.
  for (const name of SHOWN) {
    const value = reply.headers[name];
    if (typeof value === 'string') head.push(name, value);
  }
  if (leftOut.length > 0) head.push('x-wardgate-left-out', told(leftOut));
  return withOwn(head, life);
}

/** The longest list of fields that a header tells, in characters. */
const MAX_TOLD = 1_024;

/** Names of fields are the client's own, so they may hold anything. */
function told(fields: string[]): string {
  const line = fields.map((field) => field.replace(/[^\x21-\x2b\x2d-\x7e]/g, '?')).join(', ');
  return line.length > MAX_TOLD ? `${line.slice(0, MAX_TOLD)}...` : line;
}

/** Answers with JSON of the gateway's own. `extra` are headers: names and values alternate. */
export function answerJson(life: Life, body: string, extra: string[] = []): void {
  const head = ['content-type', 'application/json', 'x-request-id', life.record.facts.id, ...extra];
  life.record.status = 200;
  life.exchange.reply(200, withOwn(head, life), body);
}

/** Adds what plugins, the trace and CORS want on every answer. */
export function withOwn(
  head: string[],
  { record, route, exchange, snapshot }: Pick<Life, 'record' | 'exchange' | 'snapshot'> & { route: Route | undefined },
): string[] {
  for (const name in record.replyHeaders) head.push(name, record.replyHeaders[name]!);
  for (const cookie of record.replyCookies) head.push('set-cookie', cookie);
  if (snapshot.config.trace.header && record.trace.length > 0) head.push('x-wardgate-trace', record.traceLine);
  if (route?.cors !== undefined) head.push(...corsHeaders(route.cors, exchange));
  return head;
}
