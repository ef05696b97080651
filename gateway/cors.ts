/** CORS, as browsers ask for it. Source: WHATWG Fetch, "CORS protocol". */
import type { CorsConfig } from './config/schema.ts';
import type { Exchange } from './exchange.ts';
import type { Route } from './snapshot.ts';
import type { RequestRecord } from './telemetry/record.ts';

/** What scripts may read beside the safe-listed headers: they need it to show limits and to report errors. */
const EXPOSED =
  'x-request-id, retry-after, ratelimit, ratelimit-policy, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, x-should-retry, x-wardgate-trace, x-wardgate-stream-id, x-wardgate-resumed';

/** Answers an OPTIONS request before any hook: a preflight carries no credential. */
export function answerCors(exchange: Exchange, route: Route, record: RequestRecord): void {
  record.status = 204;
  const headers = ['allow', 'GET, POST, OPTIONS', 'x-request-id', record.facts.id];
  if (route.cors !== undefined) {
    headers.push(...corsHeaders(route.cors, exchange));
    const wanted = exchange.headers['access-control-request-headers'];
    const allowed = route.cors.headers.includes('*') ? wanted : route.cors.headers.join(', ');
    headers.push(
      'access-control-allow-methods',
      'GET, POST, OPTIONS',
      'access-control-max-age',
      String(Math.round(route.cors.maxAge / 1000)),
    );
    if (allowed) headers.push('access-control-allow-headers', allowed);
  }
  exchange.reply(204, headers, '');
}

/** The headers of an answer that a browser may hand to a page; none when the page's origin is not allowed. */
export function corsHeaders(cors: CorsConfig, exchange: Exchange): string[] {
  const { origin } = exchange.headers;
  if (cors.origins.includes('*')) return ['access-control-allow-origin', '*', 'access-control-expose-headers', EXPOSED];
  const vary = ['vary', 'origin'];
  if (origin === undefined || !cors.origins.includes(origin)) return vary;
  return [...vary, 'access-control-allow-origin', origin, 'access-control-expose-headers', EXPOSED];
}
