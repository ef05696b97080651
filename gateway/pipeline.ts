/**
 * The life of a request, from top to bottom. Read this first.
 *
 *   authenticate → body → model → authorize → limit → request guards → provider → response or stream guards → observe
 *
 * Every exit on the way is an error with an answer; all of them are shaped in `refuse`, in the client's dialect.
 */
import type { ObserveInput } from '../proto/contract.ts';
import { answerCors, corsHeaders } from './cors.ts';
import type { Dialect, Json, ModelRequest } from './dialects/dialect.ts';
import { openaiChat } from './dialects/openai-chat.ts';
import { asGatewayError, GatewayError } from './errors.ts';
import type { Exchange } from './exchange.ts';
import type { Gateway } from './gateway.ts';
import * as hooks from './hooks.ts';
import { readJson, serialise } from './json.ts';
import type { Model, Route, Snapshot, Target } from './snapshot.ts';
import { Guarded } from './stream/guarded.ts';
import { PassThrough } from './stream/pass-through.ts';
import type { RelayContext } from './stream/relay.ts';
import { Restorer } from './stream/restore.ts';
import type { RequestRecord } from './telemetry/record.ts';
import { GONE, type UpstreamReply } from './upstream.ts';

/** What a request carries along once its route is known. */
interface Life {
  gateway: Gateway;
  snapshot: Snapshot;
  route: Route;
  /** The path without the route's prefix. */
  path: string;
  exchange: Exchange;
  record: RequestRecord;
  dialect: Dialect;
}

/** Serves one request. Never rejects. */
export async function serve(exchange: Exchange, gateway: Gateway): Promise<void> {
  const { snapshot } = gateway;
  const route = snapshot.route(exchange.path);
  const record = gateway.record(exchange, route?.prefix ?? '');
  snapshot.enter();
  gateway.metrics.openRequests.value += 1;
  try {
    if (route === undefined) throw new GatewayError('not_found', 'There is nothing at this path.');
    const path = route.prefix === '/' ? exchange.path : exchange.path.slice(route.prefix.length) || '/';
    await live({ gateway, snapshot, route, path, exchange, record, dialect: openaiChat });
  } catch (error) {
    if (error === GONE || exchange.gone) record.outcome = 'aborted';
    else refuse(exchange, record, route, asGatewayError(error), openaiChat, gateway);
  } finally {
    gateway.metrics.openRequests.value -= 1;
    settle(record, route, gateway);
    snapshot.leave();
  }
}

async function live(life: Life): Promise<void> {
  const { exchange, route, record } = life;
  if (exchange.method === 'OPTIONS') return answerCors(exchange, route, record);

  // 1. Who is this? On headers alone: a stranger cannot make us read a body or learn which models exist.
  if (route.hooks.authenticate !== null) await identify(life);

  const endpoint = ENDPOINTS[life.path];
  if (endpoint === undefined) return describeModel(life);
  if (endpoint.method !== exchange.method) {
    throw new GatewayError('method_not_allowed', `Use ${endpoint.method} here.`, {
      headers: { allow: endpoint.method },
    });
  }
  return endpoint.run(life);
}

const ENDPOINTS: Record<string, { method: string; run(life: Life): Promise<void> } | undefined> = {
  __proto__: null as never,
  '/v1/chat/completions': { method: 'POST', run: chat },
  '/chat/completions': { method: 'POST', run: chat },
  '/v1/models': { method: 'GET', run: listModels },
  '/models': { method: 'GET', run: listModels },
  '/health': { method: 'GET', run: health },
};

async function identify({ route, record }: Life): Promise<void> {
  const identity = await hooks.authenticate(route.hooks.authenticate!, record);
  record.facts.identity = identity;
  // What is in shadow is never obeyed, so it does not make strangers of anybody either.
  const isAsked = route.hooks.authenticate!.some(
    ({ connection, policy }) => !policy.shadow && connection.description?.hooks.includes('authenticate'),
  );
  if (identity !== undefined || route.config.identity === 'optional' || !isAsked) return;
  throw new GatewayError(
    'unauthenticated',
    'You are not signed in, or your key is missing. Sign in again, or send your key as `Authorization: Bearer …`.',
    {
      headers: { 'www-authenticate': 'Bearer realm="wardgate"' },
    },
  );
}

async function chat(life: Life): Promise<void> {
  const { exchange, snapshot, route, record, dialect } = life;

  // 2. The body, read once.
  const bytes = await readBody(life);
  const request = dialect.readRequest(readJson(bytes, snapshot.config.limits));

  // 3. Model → targets.
  const model = findModel(route, request, record);
  record.streamed = request.stream;
  record.estimatedInputTokens = Math.ceil(bytes.length / 4);

  // 4. May they?  5. Have they quota left?
  if (route.hooks.authorize !== null) await authorize(life, model);
  if (route.hooks.limit !== null) {
    await hooks.limit(route.hooks.limit, record, {
      estimatedInputTokens: record.estimatedInputTokens,
      maxOutputTokens: request.maxOutputTokens,
    });
  }

  // 6. Is this fit to send?
  const guarded =
    route.hooks.request === null
      ? undefined
      : await hooks.guardText(route.hooks.request, 'request', dialect.requestSegments(request.body), record);
  const restorer =
    guarded !== undefined && guarded.placeholders.length > 0 ? new Restorer(guarded.placeholders) : undefined;

  // 7. The provider.  8. Is this fit to show?
  const reply = await callTargets(life, model, (target) => upstreamBody(request, bytes, target, guarded?.rewritten));
  const isStream = String(reply.headers['content-type'] ?? '').startsWith('text/event-stream');
  if (isStream && !request.stream)
    throw new GatewayError(
      'upstream_bad_answer',
      'The provider streamed an answer that was not to be streamed. Try again.',
    );
  if (isStream) await relay(life, reply, request, restorer);
  else await answerWhole(life, reply, restorer);
  if (exchange.gone) record.outcome = 'aborted';
}

async function readBody({ exchange, snapshot }: Life): Promise<Buffer> {
  const type = exchange.headers['content-type'] ?? 'application/json';
  // A form of a web page can send these types to any site without a preflight; JSON it cannot.
  if (!/^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i.test(type)) {
    throw new GatewayError('unsupported_media_type', 'Send the body as `Content-Type: application/json`.');
  }
  if (exchange.headers['content-encoding'] !== undefined)
    throw new GatewayError('unsupported_media_type', 'Send the body without a content encoding.');
  return exchange.readBody(snapshot.config.limits.body);
}

function findModel(route: Route, request: ModelRequest, record: RequestRecord): Model {
  const name = route.config.model ?? request.model ?? route.config.defaultModel;
  if (name === undefined || name === '')
    throw new GatewayError('missing_model', 'Name a model in the field `model`.', { param: 'model' });
  const model = route.findModel(name);
  if (model === undefined) {
    const known = route.models
      .map(({ id }) => id)
      .slice(0, 20)
      .join(', ');
    throw new GatewayError('model_not_found', `There is no such model here.${known ? ` There is: ${known}.` : ''}`, {
      param: 'model',
    });
  }
  record.facts.model = name;
  record.facts.provider = model.targets[0]!.provider.name;
  return model;
}

async function authorize({ route, record }: Life, model: Model): Promise<void> {
  const resource = { type: 'model' as const, name: record.facts.model ?? model.id };
  const [isAllowed] = await hooks.authorize(route.hooks.authorize!, record, 'model.use', [resource]);
  if (!isAllowed)
    throw new GatewayError(
      'forbidden',
      'You may not use this model. Choose another one, or ask the gateway’s operator for access.',
      { param: 'model' },
    );
}

/**
 * What goes upstream: the client's own bytes where nothing has to change, so that unknown fields, their order and their
 * spelling survive.
 */
function upstreamBody(
  request: ModelRequest,
  bytes: Buffer,
  target: Target,
  rewritten: Map<string, string> | undefined,
): Buffer | string {
  const asksUsage = request.stream && !request.wantsUsage && target.provider.streamUsage;
  const name = target.model === request.model ? undefined : target.model;
  const isRewritten = rewritten !== undefined && rewritten.size > 0;
  if (!asksUsage && name === undefined && !isRewritten) return bytes;
  const { body } = request;
  if (name === undefined && !isRewritten && body.stream_options === undefined) return withUsageOption(bytes);
  return serialise(body, bytes, (changed: Json) => {
    if (isRewritten) openaiChat.writeSegments(changed, rewritten);
    if (name !== undefined) changed.model = name;
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
async function callTargets(
  life: Life,
  model: Model,
  bodyFor: (target: Target) => Buffer | string,
): Promise<UpstreamReply> {
  const { gateway, route, exchange, record } = life;
  const forwarded = [...route.upstreamHeaders, ...forwardedHeaders(record)];
  let failure: GatewayError | undefined;
  for (const target of model.targets) {
    if (exchange.gone) throw GONE;
    record.facts.provider = target.provider.name;
    try {
      return await attempt(
        life,
        target,
        bodyFor({ ...target, model: target.model ?? wantedName(route, record) }),
        forwarded,
      );
    } catch (error) {
      failure = asGatewayError(error);
      if (error === GONE) throw error;
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

/** The model's name upstream where a target does not give one: what the client, or the route, asked for. */
function wantedName(route: Route, record: RequestRecord): string | undefined {
  return route.config.model ?? record.facts.model;
}

async function attempt(
  { gateway, exchange, snapshot }: Life,
  target: Target,
  body: Buffer | string,
  forwarded: string[],
): Promise<UpstreamReply> {
  const { provider } = target;
  const request = gateway.upstream.send(provider, provider.chatCall(forwarded), body);
  exchange.onGone(() => request.abort());
  const reply = await request.reply;
  if (reply.headers['content-encoding'] !== undefined && reply.headers['content-encoding'] !== 'identity') {
    reply.abort();
    throw new GatewayError(
      'upstream_bad_answer',
      `The provider “${provider.name}” compressed its answer although it was asked not to.`,
    );
  }
  if (reply.status < 300) return reply;
  const error = await reply.collect(Math.min(65_536, snapshot.config.limits.reply)).catch(() => Buffer.alloc(0));
  const retryAfter = reply.headers['retry-after'];
  const { code, message, details } = provider.readError(
    reply.status,
    parsed(error),
    typeof retryAfter === 'string' ? retryAfter : undefined,
  );
  throw new GatewayError(code, message, { ...details, cause: `status ${reply.status}` });
}

function parsed(bytes: Buffer): Json | undefined {
  try {
    return JSON.parse(bytes.toString('utf8')) as Json;
  } catch {
    return undefined;
  }
}

/** The client's headers that may go upstream; everything else stays here, its credentials first of all. */
const FORWARDED = ['traceparent', 'tracestate', 'openai-beta'];

function forwardedHeaders({ headers, facts }: RequestRecord): string[] {
  const out = ['x-request-id', facts.id];
  for (const name of FORWARDED) {
    const value = headers[name];
    if (value !== undefined) out.push(name, value);
  }
  return out;
}

// --- A whole answer -----------------------------------------------------------------------------------------------

async function answerWhole(life: Life, reply: UpstreamReply, restorer: Restorer | undefined): Promise<void> {
  const { exchange, snapshot, route, record, dialect } = life;
  const bytes = await reply.collect(snapshot.config.limits.reply);
  const body = parsed(bytes);
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new GatewayError('upstream_bad_answer', 'The provider’s answer is not what was asked for. Try again.');
  }
  record.usage = dialect.replyUsage(body);
  record.upstreamModel = dialect.replyModel(body);
  const out =
    route.hooks.response === null && restorer === undefined ? bytes : await guardWhole(life, body, bytes, restorer);
  if (exchange.gone) return;
  record.status = reply.status;
  exchange.reply(reply.status, replyHeaders(life, reply, 'application/json'), out);
}

async function guardWhole(
  { route, record, dialect }: Life,
  body: Json,
  bytes: Buffer,
  restorer: Restorer | undefined,
): Promise<Buffer | string> {
  const segments = dialect.replySegments(body);
  const rewritten =
    route.hooks.response === null
      ? new Map<string, string>()
      : (await hooks.guardText(route.hooks.response, 'response', segments, record)).rewritten;
  if (restorer !== undefined) {
    for (const { id, channel, text } of segments) {
      const shown = rewritten.get(id) ?? text;
      const restored = restorer.restore(shown, channel === 'tool-arguments');
      if (restored !== shown) rewritten.set(id, restored);
    }
  }
  return rewritten.size === 0 ? bytes : serialise(body, bytes, (target) => dialect.writeSegments(target, rewritten));
}

// --- A streamed answer ----------------------------------------------------------------------------------------------

async function relay(
  life: Life,
  reply: UpstreamReply,
  request: ModelRequest,
  restorer: Restorer | undefined,
): Promise<void> {
  const { exchange, gateway, route, record, dialect } = life;
  const context: RelayContext = {
    exchange,
    reply,
    dialect,
    record,
    wantsUsage: request.wantsUsage,
    open() {
      record.status = 200;
      exchange.open(200, replyHeaders(life, reply, 'text/event-stream'));
    },
  };
  const isGuarded = route.hooks.stream !== null || restorer !== undefined;
  const guards = { mounts: route.hooks.stream ?? [], restorer, record };
  gateway.metrics.openStreams.value += 1;
  try {
    await (isGuarded ? new Guarded(context, guards) : new PassThrough(context)).start().ended;
  } finally {
    gateway.metrics.openStreams.value -= 1;
  }
}

/** What makes proxies pass events on as they come. Sources: nginx (X-Accel-Buffering), RFC 9111 (no-transform). */
const STREAM_HEADERS = ['cache-control', 'no-cache, no-transform', 'x-accel-buffering', 'no'];

/** Headers of the provider that stay here: hop by hop, about its own connection, or about its own limits and cookies. */
const HIDDEN =
  /^(?:connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|content-length|content-encoding|content-type|date|server|via|alt-svc|set-cookie|strict-transport-security|cache-control|x-accel-buffering|access-control-.*|x-request-id|cf-.*|x-envoy-.*|x-wardgate-.*|vary)$/;

/** Verdicts on header names that have been seen: providers send the same few each time. */
const SEEN = new Map<string, boolean>();

function isShown(name: string): boolean {
  const seen = SEEN.get(name);
  if (seen !== undefined) return seen;
  const shown = !HIDDEN.test(name);
  if (SEEN.size < 1_000) SEEN.set(name, shown);
  return shown;
}

function replyHeaders({ route, record, exchange, snapshot }: Life, reply: UpstreamReply, type: string): string[] {
  const own = reply.headers['content-type'];
  const headers = [
    'content-type',
    type === 'application/json' || typeof own !== 'string' ? type : own,
    'x-request-id',
    record.facts.id,
  ];
  if (type === 'text/event-stream') headers.push(...STREAM_HEADERS);
  for (const name in reply.headers) {
    const value = reply.headers[name];
    if (typeof value === 'string' && isShown(name) && !(name in record.replyHeaders)) headers.push(name, value);
  }
  return withOwnHeaders(headers, record, route, exchange, snapshot.config.trace.header);
}

function withOwnHeaders(
  headers: string[],
  record: RequestRecord,
  route: Route | undefined,
  exchange: Exchange,
  isTraced: boolean,
): string[] {
  for (const name in record.replyHeaders) headers.push(name, record.replyHeaders[name]!);
  if (isTraced && record.trace.length > 0) headers.push('x-wardgate-trace', record.traceLine);
  if (route?.cors !== undefined) headers.push(...corsHeaders(route.cors, exchange));
  return headers;
}

// --- The models -----------------------------------------------------------------------------------------------------

async function listModels(life: Life): Promise<void> {
  const { exchange, route, record, snapshot } = life;
  const listed = await visibleModels(life, route.models);
  const models = listed.map(({ id, targets }) => ({
    id,
    ownedBy: targets.map(({ provider }) => provider.name).join(','),
  }));
  record.status = 200;
  const headers = ['content-type', 'application/json', 'x-request-id', record.facts.id];
  exchange.reply(
    200,
    withOwnHeaders(headers, record, route, exchange, snapshot.config.trace.header),
    life.dialect.modelList(models),
  );
}

async function visibleModels({ route, record }: Life, models: Model[]): Promise<Model[]> {
  if (route.hooks.authorize === null || models.length === 0) return models;
  const resources = models.map(({ id }) => ({ type: 'model' as const, name: id }));
  const allowed = await hooks.authorize(route.hooks.authorize, record, 'model.list', resources);
  return models.filter((_model, i) => allowed[i]);
}

/** `GET /v1/models/{id}`, and every path that is none of ours. */
async function describeModel(life: Life): Promise<void> {
  const { exchange, route, record, path, snapshot } = life;
  const name = exchange.method === 'GET' ? /^(?:\/v1)?\/models\/(.+)$/.exec(path)?.[1] : undefined;
  if (name === undefined)
    throw new GatewayError(
      'not_found',
      'There is nothing at this path. Chat is at /v1/chat/completions, the models at /v1/models.',
    );
  const model = route.models.find(({ id }) => id === name);
  if (model === undefined || (await visibleModels(life, [model])).length === 0)
    throw new GatewayError('model_not_found', 'There is no such model here.');
  record.status = 200;
  const { data } = JSON.parse(
    life.dialect.modelList([{ id: model.id, ownedBy: model.targets.map(({ provider }) => provider.name).join(',') }]),
  ) as { data: Json[] };
  const headers = ['content-type', 'application/json', 'x-request-id', record.facts.id];
  exchange.reply(
    200,
    withOwnHeaders(headers, record, route, exchange, snapshot.config.trace.header),
    JSON.stringify(data[0]),
  );
}

async function health({ exchange, record }: Life): Promise<void> {
  record.status = 200;
  exchange.reply(
    200,
    ['content-type', 'application/json'],
    JSON.stringify({ status: 'ok', timestamp: Math.floor(Date.now() / 1000) }),
  );
}

// --- The ends -------------------------------------------------------------------------------------------------------

/** The one place where errors and rejections get their shape. */
function refuse(
  exchange: Exchange,
  record: RequestRecord,
  route: Route | undefined,
  error: GatewayError,
  dialect: Dialect,
  gateway: Gateway,
): void {
  const { shape, details } = error;
  record.outcome = error.code in REJECTIONS ? 'rejected' : 'failed';
  record.code = shape.code;
  record.cause = details.cause;
  record.status = error.status;
  const headers = [
    'content-type',
    details.contentType ?? (details.body === undefined ? 'application/json' : 'text/plain; charset=utf-8'),
    'x-request-id',
    record.facts.id,
  ];
  for (const name in details.headers) {
    delete record.replyHeaders[name];
    headers.push(name, details.headers[name]!);
  }
  withOwnHeaders(headers, record, route, exchange, gateway.snapshot.config.trace.header);
  exchange.reply(error.status, headers, details.body ?? dialect.errorBody(shape));
}

const REJECTIONS: Record<string, true> = {
  unauthenticated: true,
  forbidden: true,
  rate_limited: true,
  content_rejected: true,
  guard_unavailable: true,
};

/** 9. What became of it: quotas are settled with the true usage, the record is written. Also when the client has gone. */
function settle(record: RequestRecord, route: Route | undefined, gateway: Gateway): void {
  const durationMs = record.elapsed();
  if (record.status === 0) record.status = 499;
  if (record.usage === undefined && record.answerChars > 0) {
    record.usage = {
      inputTokens: record.estimatedInputTokens,
      outputTokens: Math.ceil(record.answerChars / 4),
      estimated: true,
    };
  }
  gateway.settle(record, durationMs);
  if (route === undefined || route.hooks.observe === null) return;
  const outcome: Omit<ObserveInput, 'request' | 'grant'> = {
    status: record.status,
    outcome: record.outcome,
    code: record.code,
    streamed: record.streamed,
    upstreamModel: record.upstreamModel,
    provider: record.facts.provider,
    usage: record.usage,
    costUsd: record.costUsd,
    durationMs,
    firstTokenMs: record.firstTokenMs,
    trace: record.trace,
  };
  hooks.observe(route.hooks.observe, record, outcome);
}
