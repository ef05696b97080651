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
export function replyHead(life: Life, reply: UpstreamReply, isStream: boolean): string[] {
  const { record } = life;
  const own = reply.headers['content-type'];
  const type = isStream && typeof own === 'string' ? own : isStream ? 'text/event-stream' : 'application/json';
  const head = ['content-type', type, 'x-request-id', record.facts.id];
  if (isStream) head.push(...STREAM_HEADERS);
  // What else a provider says of its answer concerns the gateway: its own limits, account, cookies and connection.
  for (const name of SHOWN) {
    const value = reply.headers[name];
    if (typeof value === 'string') head.push(name, value);
  }
  return withOwn(head, life);
}

/** Answers with JSON of the gateway's own. */
export function answerJson(life: Life, body: string): void {
  life.record.status = 200;
  life.exchange.reply(
    200,
    withOwn(['content-type', 'application/json', 'x-request-id', life.record.facts.id], life),
    body,
  );
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
