/** Step 7 of a request's life: what goes upstream, and to which of the model's targets. */
import type { Dialect, Json, ModelRequest } from './dialects/dialect.ts';
import { asGatewayError, GatewayError } from './errors.ts';
import { identityHeaders } from './identity.ts';
import { parseJson, type ReadJson, serialise } from './json.ts';
import type { Life } from './life.ts';
import type { Provider } from './providers/provider.ts';
import type { Model, Target } from './snapshot.ts';
import type { RequestRecord } from './telemetry/record.ts';
import { GONE, type UpstreamReply } from './upstream.ts';

/** A request as the guards left it. */
export interface Outgoing {
  request: ModelRequest;
  read: ReadJson;
  /** The client's own bytes. */
  bytes: Buffer;
  /** Texts that guards changed, by segment. */
  rewritten: ReadonlyMap<string, string> | undefined;
  /** The most answer tokens that the limits paid for. */
  paidTokens: number | undefined;
}

/** The most tokens that a client wants of all choices together; undefined when it bounds none. */
export function wantedTokens({ maxOutputTokens, choices }: ModelRequest): number | undefined {
  return maxOutputTokens === undefined ? undefined : Math.min(maxOutputTokens * choices, Number.MAX_SAFE_INTEGER);
}

/** The most tokens of one choice that the limits paid for, when the client wants more. */
export function outputLimit(request: ModelRequest, paid: number | undefined): number | undefined {
  if (paid === undefined) return undefined;
  const most = Math.max(1, Math.floor(paid / request.choices));
  return request.maxOutputTokens === undefined || most < request.maxOutputTokens ? most : undefined;
}

/**
 * What goes upstream: the client's own bytes where nothing has to change, so that unknown fields, their order and their
 * spelling survive.
 */
function upstreamBody(
  { request, read, bytes, rewritten, paidTokens }: Outgoing,
  name: string | undefined,
  { provider }: Target,
  dialect: Dialect,
): Buffer | string {
  const asksUsage = request.stream && !request.wantsUsage && provider.streamUsage;
  const renamed = name === request.model ? undefined : name;
  const most = outputLimit(request, paidTokens);
  const isRewritten = rewritten !== undefined && rewritten.size > 0;
  if (!asksUsage && renamed === undefined && !isRewritten && most === undefined) return bytes;
  const { body } = request;
  const isPlain = renamed === undefined && !isRewritten && most === undefined;
  if (isPlain && body.stream_options === undefined) return withUsageOption(bytes);
  return serialise(read, bytes, (changed: Json) => {
    if (isRewritten) dialect.writeSegments(changed, rewritten);
    if (renamed !== undefined) changed.model = renamed;
    if (most !== undefined) dialect.limitOutput(changed, most, provider.outputLimitField);
    if (asksUsage) changed.stream_options = { ...(changed.stream_options as Json | undefined), include_usage: true };
  });
}

/** Puts the option in front of the client's bytes, which stay as they are. */
function withUsageOption(bytes: Buffer): Buffer {
  return Buffer.concat([USAGE_OPTION, bytes.subarray(bytes.indexOf(0x7b) + 1)]);
}

const USAGE_OPTION = Buffer.from('{"stream_options":{"include_usage":true},');

/**
 * Asks the targets in turn until one begins to answer. What may be the provider's passing fault (unreachable, too slow,
 * over its limit, failing) moves on to the next; what is the client's own mistake does not.
 */
export async function callTargets(life: Life, model: Model, outgoing: Outgoing): Promise<UpstreamReply> {
  const { gateway, exchange, record, dialect } = life;
  let failure: GatewayError | undefined;
  for (const target of model.targets) {
    if (exchange.gone) throw GONE;
    record.facts.provider = target.provider.name;
    try {
      return await attempt(life, target, upstreamBody(outgoing, target.model ?? record.facts.model, target, dialect));
    } catch (error) {
      if (error === GONE) throw error;
      failure = asGatewayError(error);
      gateway.metrics.upstreamErrors.cell({ provider: target.provider.name, reason: failure.code }).value += 1;
      if (!MOVES_ON.has(failure.code)) throw failure;
    }
  }
  throw failure ?? new GatewayError('internal', 'The model has no target.');
}

const MOVES_ON = new Set([
  'upstream_unreachable',
  'upstream_timeout',
  'upstream_failed',
  'upstream_overloaded',
  'upstream_rate_limited',
  'upstream_bad_answer',
]);

async function attempt(
  { gateway, route, exchange, snapshot, record }: Life,
  { provider }: Target,
  body: Buffer | string,
): Promise<UpstreamReply> {
  const request = gateway.upstream.send(
    provider,
    provider.chatCall([
      ...route.upstreamHeaders,
      ...identityHeaders(route.identityHeaders, record.facts.identity),
      ...forwardedHeaders(record, provider),
    ]),
    body,
  );
  record.isSent = true;
  exchange.onGone(() => request.abort());
  const reply = await request.reply;
  const encoding = reply.headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity') {
    reply.abort();
    throw new GatewayError(
      'upstream_bad_answer',
      `The provider “${provider.name}” compressed its answer although it was asked not to.`,
    );
  }
  if (reply.status < 300) return reply;
  const error = await reply.collect(Math.min(MAX_ERROR, snapshot.config.limits.reply)).catch(() => Buffer.alloc(0));
  const retryAfter = reply.headers['retry-after'];
  const { code, message, details } = provider.readError(
    reply.status,
    parseJson(error),
    typeof retryAfter === 'string' ? retryAfter : undefined,
  );
  throw new GatewayError(code, message, { ...details, cause: `status ${reply.status}` });
}

/** The longest error body that is read, in bytes. */
const MAX_ERROR = 65_536;

/** The client's headers that may go upstream; everything else stays here, its credentials first of all. */
function forwardedHeaders({ headers, facts }: RequestRecord, provider: Provider): string[] {
  const out = ['x-request-id', facts.id];
  for (const name of provider.forwardedHeaders) {
    const value = headers[name];
    if (value !== undefined) out.push(name, value);
  }
  return out;
}
