/**
 * The rest of a vendor's API: what no dialect knows goes to the route's provider as it is, with the provider's credentials
 * in place of the client's. Only hooks that need no text can be asked about it.
 */
import { replyHead } from './answer.ts';
import { forwardedHeaders } from './attempt.ts';
import { isDisguisedCall } from './dialects/registry.ts';
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
  if (isDisguisedCall(path)) throw new GatewayError('not_found', 'Write the path as the API’s documentation has it.');
  const withBody = METHODS.get(exchange.method);
  if (withBody === undefined) {
    throw new GatewayError('method_not_allowed', 'This method is not passed on.', { headers: { allow: ALLOWED } });
  }
  record.facts.model = PASSED;
  record.facts.provider = provider.name;
  await permit(life);
  const body = withBody ? await exchange.readBody(snapshot.config.limits.body) : undefined;
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
  const reply = await request.reply;
  refuseOdd(reply, provider);
  await copy(life, reply);
}

/** The methods that go on, and whether they have a body. TRACE would have the provider's key sent back. */
const METHODS = new Map([
  ['GET', false],
  ['HEAD', false],
  ['POST', true],
  ['PUT', true],
  ['PATCH', true],
  ['DELETE', true],
]);
const ALLOWED = [...METHODS.keys()].join(', ');

/**
 * Where a provider sends people elsewhere, or has something against the gateway's key, its answer would tell them what is
 * not theirs: signed addresses, accounts, pieces of the key.
 */
function refuseOdd(reply: UpstreamReply, provider: Provider): void {
  const { status, headers } = reply;
  const encoding = headers['content-encoding'] ?? 'identity';
  const isOdd = (status >= 300 && status < 400) || status === 401 || status === 403 || status === 407;
  if (!isOdd && encoding === 'identity') return;
  reply.abort();
  if (!isOdd) {
    throw new GatewayError('upstream_bad_answer', `The provider “${provider.name}” compressed its answer unasked.`);
  }
  const { code, message, details } = provider.readError(status, undefined, headers);
  throw new GatewayError(code, message, { ...details, cause: `status ${status}` });
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
  const kept = query.split('&').filter((pair) => pair !== '' && !CREDENTIAL.test(nameOf(pair)));
  return kept.length === 0 ? '' : `?${kept.join('&')}`;
}

/** Names by which vendors take keys, tokens and signed requests. */
const CREDENTIAL =
  /^(?:\$?key|api[-_]?key|(?:ocp-apim-)?subscription-key|(?:access|oauth|bearer|auth)[-_]?token|token|x-(?:amz|goog)-.*)$/i;

/** A parameter's name as the other side may read it. */
function nameOf(pair: string): string {
  return new URLSearchParams(pair).keys().next().value?.trim() ?? '';
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
