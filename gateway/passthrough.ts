/**
 * The rest of a vendor's API: what no dialect knows goes to the route's provider as it is, with the provider's credentials
 * in place of the client's. Only hooks that need no text can be asked about it.
 */
import { replyHead } from './answer.ts';
import { forwardedHeaders } from './attempt.ts';
import { GatewayError } from './errors.ts';
import * as hooks from './hooks.ts';
import { identityHeaders } from './identity.ts';
import type { Life } from './life.ts';
import type { Provider } from './providers/provider.ts';
import type { UpstreamReply } from './upstream.ts';

/** What a route passes through, and to whom. */
export interface Passthrough {
  provider: Provider;
  /** Whether that may be although guards are mounted, which cannot read it. */
  unguarded: boolean;
}

/** Passes a request on as it is. */
export async function passThrough(life: Life, { provider, unguarded }: Passthrough): Promise<void> {
  const { exchange, gateway, route, record, snapshot, path } = life;
  const { hooks: asked } = route;
  const isGuarded = asked.request !== null || asked.response !== null || asked.stream !== null;
  if (isGuarded && !unguarded) {
    throw new GatewayError(
      'forbidden',
      'This path is not open: the guards of this gateway cannot read what goes through it.',
    );
  }
  record.facts.model = PASSED;
  record.facts.provider = provider.name;
  await permit(life);
  const body =
    exchange.method === 'GET' || exchange.method === 'HEAD'
      ? undefined
      : await exchange.readBody(snapshot.config.limits.body);
  const type = exchange.headers['content-type'];
  const call = await provider.sign({
    method: exchange.method,
    path: `${provider.passthroughBase ?? ''}${path}${safeQuery(exchange.query)}`,
    headers: [
      ...(type === undefined ? [] : ['content-type', type]),
      ...route.upstreamHeaders,
      ...identityHeaders(route.identityHeaders, record.facts.identity),
      ...forwardedHeaders(record, provider),
    ],
    body,
  });
  const request = gateway.upstream.send(provider, call, body);
  exchange.onGone(() => request.abort());
  record.isSent = true;
  await copy(life, await request.reply);
}

/** What is asked for has no model's name; rules name it so. */
const PASSED = 'passthrough';

async function permit({ route, record }: Life): Promise<void> {
  const authorizers = route.hooks.authorize['model.use'];
  if (authorizers !== null) {
    const resources = [{ type: 'model' as const, name: PASSED }];
    const [isAllowed] = await hooks.authorize(authorizers, record, { action: 'model.use', resources });
    if (!isAllowed)
      throw new GatewayError('forbidden', 'You may not use this path. Ask the gateway’s operator for access.');
  }
  if (route.hooks.limit === null) return;
  await hooks.limit(route.hooks.limit, record, {
    estimatedInputTokens: record.estimatedInputTokens,
    maxOutputTokens: undefined,
    price: undefined,
  });
}

/** Some vendors take a key there; the client's own never goes upstream. */
function safeQuery(query: string): string {
  const kept = query
    .split('&')
    .filter((pair) => pair !== '' && !/^(?:key|api[-_]key|access_token)(?:=|$)/i.test(decoded(pair)));
  return kept.length === 0 ? '' : `?${kept.join('&')}`;
}

function decoded(pair: string): string {
  try {
    return decodeURIComponent(pair);
  } catch {
    return pair;
  }
}

/** Hands the answer on as it comes. */
function copy(life: Life, reply: UpstreamReply): Promise<void> {
  const { exchange, record } = life;
  const type = reply.headers['content-type'];
  const head = replyHead(life, { reply, leftOut: [] }, true);
  head[1] = typeof type === 'string' ? type : 'application/octet-stream';
  record.status = reply.status;
  exchange.open(reply.status, head);
  return new Promise((done) => {
    exchange.onGone(done);
    exchange.onDrain(() => reply.resume());
    reply.listen({
      data(chunk) {
        if (!exchange.write(chunk)) reply.pause();
      },
      end() {
        exchange.end();
        done();
      },
      failed() {
        // The head is out: the client must not take what it has for the whole.
        record.outcome = 'failed';
        record.code = 'stream_broken';
        exchange.destroy();
        done();
      },
    });
  });
}
