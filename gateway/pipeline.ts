/**
 * The life of a request, from top to bottom. Read this first.
 *
 *   authenticate → body → model → authorize → recall → limit → request guards → provider → response or stream guards
 *   → remember → observe
 *
 * Every exit on the way is an error with an answer; all of them are shaped in `refuse`, in the client's dialect.
 */
import type { ObserveInput, Segment } from '../proto/contract.ts';
import { answerJson, replyHead, withOwn } from './answer.ts';
import { outputLimit, type StreamedAnswer, type WholeAnswer, wantedTokens } from './attempt.ts';
import { answerCors } from './cors.ts';
import type { ChatDialect, Dialect, Json, ModelRequest, PathFacts } from './dialects/dialect.ts';
import { DEFAULT_DIALECT, findCall, findListing, type Listing } from './dialects/registry.ts';
import { serveEndpoint } from './endpoint.ts';
import { asGatewayError, GatewayError, isRejection } from './errors.ts';
import type { Exchange } from './exchange.ts';
import { type Gateway, priceOf } from './gateway.ts';
import * as hooks from './hooks.ts';
import { estimateTokens } from './hub/estimate.ts';
import { answerAgain, keepAnswer } from './idempotency.ts';
import { parseJson, readJson, serialise, structureOf } from './json.ts';
import type { Life } from './life.ts';
import { describeModel, listModels } from './models.ts';
import { passThrough } from './passthrough.ts';
import { resumable, resume } from './resume/resume.ts';
import type { Model, Route, Snapshot } from './snapshot.ts';
import { Guarded } from './stream/guarded.ts';
import { usageSoFar } from './stream/meter.ts';
import { PassThrough } from './stream/pass-through.ts';
import type { RelayContext } from './stream/relay.ts';
import { Restorer } from './stream/restore.ts';
import { callTargets } from './targets.ts';
import { type RequestRecord, reasonOf } from './telemetry/record.ts';
import { ToolCalls } from './tool-calls.ts';
import { GONE } from './upstream.ts';

/** Serves one request. Never rejects. */
export async function serve(exchange: Exchange, gateway: Gateway): Promise<void> {
  const { snapshot } = gateway;
  const route = snapshot.route(exchange.path);
  const record = gateway.record(exchange, route);
  snapshot.enter();
  gateway.metrics.openRequests.value += 1;
  exchange.onGone(() => record.abandon());
  // Errors before the path is known have a shape too.
  let dialect: Dialect = DEFAULT_DIALECT;
  try {
    const owner = snapshot.endpoint(exchange.path);
    if (owner !== undefined) return await serveEndpoint({ exchange, record, route, snapshot }, owner);
    if (route === undefined) throw new GatewayError('not_found', 'There is nothing at this path.');
    const path = route.prefix === '/' ? exchange.path : exchange.path.slice(route.prefix.length) || '/';
    const call = findCall(path, exchange.query);
    const listing = call === undefined ? findListing(path, exchange.headers) : undefined;
    dialect = call?.dialect ?? listing?.dialect ?? DEFAULT_DIALECT;
    await live({ gateway, snapshot, route, path, exchange, record, dialect }, call?.path, listing);
  } catch (error) {
    if (error === GONE || exchange.gone) record.outcome = 'aborted';
    else refuseSafely({ exchange, record, route, snapshot, dialect }, asGatewayError(error), gateway);
  } finally {
    gateway.metrics.openRequests.value -= 1;
    const observed = settled({ record, route, gateway, snapshot });
    if (observed === undefined) snapshot.leave();
    else void observed.finally(() => snapshot.leave());
  }
}

/** An answer that another gateway began, and of which the client has everything up to here. */
export interface Taken {
  /** The request's body. */
  body: Buffer;
  /** The events so far, in the client's dialect, and their text. */
  events: Buffer;
  text: string;
}

async function live(life: Life, call: PathFacts | undefined, listing: Listing | undefined): Promise<void> {
  const { exchange, route, record, path } = life;
  if (exchange.method === 'OPTIONS') return answerCors(exchange, route, record);

  // 1. Who is this? On headers alone: a stranger cannot make us read a body or learn which models exist.
  if (route.hooks.authenticate !== null) await identify(life);

  // Who lost the connection gets the rest of an answer that has been begun.
  if (await resume(life)) return;

  if (call !== undefined) return only('POST', life, () => ask(life, call));
  if (listing !== undefined) {
    return only('GET', life, () => (listing.id === undefined ? listModels(life) : describeModel(life, listing.id)));
  }
  if (path === '/health') return only('GET', life, health);
  if (route.passthrough !== undefined) return passThrough(life, route.passthrough);
  throw new GatewayError(
    'not_found',
    'There is nothing at this path. Chat is at /v1/chat/completions, /v1/responses, /v1/messages and /v1beta/models/…, the models at /v1/models.',
  );
}

function only(method: 'GET' | 'POST', life: Life, answer: (life: Life) => void | Promise<void>): void | Promise<void> {
  if (life.exchange.method === method) return answer(life);
  throw new GatewayError('method_not_allowed', `Use ${method} here.`, { headers: { allow: method } });
}

function health(life: Life): void {
  answerJson(life, JSON.stringify({ status: 'ok', timestamp: Math.floor(Date.now() / 1000) }));
}

async function identify(life: Life): Promise<void> {
  const { route, record } = life;
  const known = await hooks.authenticate(route.hooks.authenticate!, record);
  record.facts.identity = known.identity;
  // What is in shadow is never obeyed, so it does not make strangers of anybody either.
  const isAsked = route.hooks.authenticate!.some(
    ({ connection, policy }) =>
      !policy.shadow && (policy.hooks ?? connection.description?.hooks)?.includes('authenticate'),
  );
  if (known.identity !== undefined || route.config.identity === 'optional' || !isAsked) return;
  throw stranger(life, known);
}

/** Nobody knew the client: a person with a browser is sent to where one signs in, a program is told what is wanted. */
function stranger({ exchange }: Life, { challenges, login }: hooks.Acquaintance): GatewayError {
  const isPage = exchange.method === 'GET' && /\btext\/html\b/.test(exchange.headers.accept ?? '');
  if (login !== undefined && isPage) {
    return new GatewayError('unauthenticated', 'Sign in first.', {
      status: 302,
      headers: { location: login, 'cache-control': 'no-store' },
      body: '',
    });
  }
  return new GatewayError(
    'unauthenticated',
    'You are not signed in, or your key is missing. Sign out and in again, or send your key as `Authorization: Bearer …`.',
    { headers: { 'www-authenticate': challenges.join(', ') || 'Bearer realm="wardgate"' } },
  );
}

/**
 * Asks a model.
 *
 * @param taken an answer that another gateway has begun and this one goes on with
 */
export async function ask(life: Life, path: PathFacts, taken?: Taken): Promise<void> {
  const { snapshot, route, record, dialect } = life;

  // 2. The body, read once.
  const bytes = taken?.body ?? (await readBody(life));
  const read = readJson(bytes, snapshot.config.limits);
  const request = dialect.readRequest(read.body, path);

  // 3. Model → targets.
  const model = findModel(route, request, record);
  record.streamed = request.stream;
  record.estimatedInputTokens = Math.ceil(bytes.length / 4);

  // 4. May they?  Has this been answered already?  5. Have they quota left?
  if (route.hooks.authorize['model.use'] !== null) await authorize(life, model, bytes);
  if (!request.stream && (await answerAgain(life, bytes))) return;
  if (route.hooks.limit !== null) {
    await hooks.limit(route.hooks.limit, record, {
      estimatedInputTokens: record.estimatedInputTokens,
      maxOutputTokens: wantedTokens(request),
      price: priceOf(snapshot.config, [model.targets[0]?.model, record.facts.model]),
    });
  }

  // 6. Is this fit to send?
  const unreadable = route.hooks.request === null ? undefined : dialect.unreadable?.(request.body);
  if (unreadable !== undefined) {
    throw new GatewayError(
      'invalid_request',
      `The field \`${unreadable}\` holds token ids, which the guards of this gateway cannot read. Send the text itself.`,
      { param: unreadable },
    );
  }
  const guarded =
    route.hooks.request === null
      ? undefined
      : await hooks.guardText(route.hooks.request, 'request', readSegments(dialect, request.body, taken), record);
  const restorer =
    guarded !== undefined && guarded.placeholders.length > 0 ? new Restorer(guarded.placeholders) : undefined;

  // 7. The provider.  8. Is this fit to show?
  if (dialect.operation === 'count' && !model.targets.some(({ provider }) => provider.endpoints.count?.length)) {
    return answerJson(life, await estimateTokens(dialect, request, guarded?.rewritten), [
      'x-wardgate-estimated',
      'true',
    ]);
  }
  const paidTokens = record.outputTokens;
  record.isOutputLimited = outputLimit(request, paidTokens) !== undefined;
  const isRead = isAnswerRead(life, restorer);
  const begun = taken && { events: taken.events, text: guarded?.rewritten.get(BEGUN) ?? taken.text };
  guarded?.rewritten.delete(BEGUN);
  const outgoing = { request, read, bytes, rewritten: guarded?.rewritten, paidTokens, isRead, begun };
  // A streamed answer may outlive its client.
  const kept = request.stream && taken === undefined ? resumable(life, bytes) : life;
  const answer = await callTargets(kept, model, outgoing);
  if (answer.kind === 'whole') await answerWhole(kept, answer, restorer);
  else await relay(kept, answer, { request, restorer, begun: taken?.events });
  if (kept.exchange.gone) record.outcome = 'aborted';
}

/** The place of an answer's beginning among the segments of its prompt. */
const BEGUN = '#begun';

/** All that the next model will read: the prompt, and what of its answer the client has already. */
function readSegments(dialect: Dialect, body: Json, taken: Taken | undefined): Segment[] {
  const segments = dialect.requestSegments(body);
  if (taken === undefined || taken.text === '') return segments;
  return [...segments, { id: BEGUN, path: BEGUN, role: 'assistant', channel: 'text', text: taken.text }];
}

/** Whether anybody looks into the answer: a guard, an authorizer of tools, a mask to be undone, a grant to be kept. */
function isAnswerRead({ route, record }: Life, restorer: Restorer | undefined): boolean {
  const { response, authorize } = route.hooks;
  return response !== null || authorize['tool.call'] !== null || restorer !== undefined || record.isOutputLimited;
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

/** Longest name of a model that is looked up, in UTF-16 units. */
const MAX_MODEL_NAME = 256;

/** Steps of a path: where a name becomes a part of one, `allowed/../other` would ask for another model than was allowed. */
const STEPS = /(?:^|[/\\])\.{0,2}(?:[/\\]|$)/;

/** Whether a name may become a label, a field of the log and a part of a provider's path. */
function isFit(name: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: no name has any
  return name.length <= MAX_MODEL_NAME && name.isWellFormed() && !/[\x00-\x1f\x7f]/.test(name) && !STEPS.test(name);
}

/** Fields by which some providers try other models than the one that is allowed, limited and priced here. */
const OTHER_MODELS = ['models', 'fallbacks'];

function findModel(route: Route, request: ModelRequest, record: RequestRecord): Model {
  for (const param of OTHER_MODELS) {
    if ((request.body[param] ?? undefined) === undefined) continue;
    throw new GatewayError(
      'invalid_request',
      `The field \`${param}\` is not taken: ask for one model. Which others stand in for it, the gateway’s config says.`,
      { param },
    );
  }
  const name = route.config.model ?? request.model ?? route.config.defaultModel;
  if (name === undefined || name === '')
    throw new GatewayError('missing_model', 'Name a model in the field `model`.', { param: 'model' });
  const model = isFit(name) ? route.findModel(name) : undefined;
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

async function authorize({ route, record }: Life, model: Model, body: Buffer): Promise<void> {
  const resources = [{ type: 'model' as const, name: record.facts.model ?? model.id }];
  const authorizers = route.hooks.authorize['model.use']!;
  const [isAllowed] = await hooks.authorize(authorizers, record, { action: 'model.use', resources, body });
  if (!isAllowed)
    throw new GatewayError(
      'forbidden',
      'You may not use this model. Choose another one, or ask the gateway’s operator for access.',
      { param: 'model' },
    );
}

// --- A whole answer -----------------------------------------------------------------------------------------------

async function answerWhole(life: Life, answer: WholeAnswer, restorer: Restorer | undefined): Promise<void> {
  const { exchange, route, record, dialect } = life;
  const { reply, bytes, body, facts } = answer;
  const { 'tool.call': toolAuthorizers } = route.hooks.authorize;
  record.usage = facts.usage;
  record.upstreamModel = facts.model;
  if (facts.usage === undefined)
    record.answerChars = charsOf(dialect.replySegments(body ?? (parseJson(bytes) as Json)));
  let out: Buffer | string = bytes;
  if (body !== undefined && isAnswerRead(life, restorer)) {
    if (toolAuthorizers !== null) await new ToolCalls(toolAuthorizers, record).permit(dialect.replyTools(body));
    out = await guardWhole(life, body, bytes, restorer);
  }
  if (exchange.gone) return;
  record.status = reply.status;
  keepAnswer(record, reply.status, out);
  exchange.reply(reply.status, replyHead(life, answer, false), out);
}

function charsOf(segments: Segment[]): number {
  return segments.reduce((sum, { channel, text }) => sum + (channel === 'media' ? 0 : text.length), 0);
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
  const isCut = record.isOutputLimited && dialect.markLimited(body);
  if (rewritten.size === 0 && !isCut) return bytes;
  const { hasLongNumbers } = structureOf(bytes.toString('utf8'), Number.POSITIVE_INFINITY);
  return serialise({ body, hasLongNumbers }, bytes, (target) => {
    dialect.writeSegments(target, rewritten);
    if (isCut) dialect.markLimited(target);
  });
}

// --- A streamed answer ----------------------------------------------------------------------------------------------

/** What a stream is to be passed on with. */
interface Passage {
  request: ModelRequest;
  restorer: Restorer | undefined;
  begun: Buffer | undefined;
}

async function relay(life: Life, answer: StreamedAnswer, { request, restorer, begun }: Passage): Promise<void> {
  const { exchange, gateway, route, record } = life;
  const context: RelayContext = {
    exchange,
    reply: answer.reply,
    dialect: life.dialect as ChatDialect,
    record,
    wantsUsage: request.wantsUsage,
    choices: request.choices,
    begun,
    open() {
      record.status = 200;
      exchange.open(200, replyHead(life, answer, true));
    },
  };
  const { 'tool.call': toolAuthorizers } = route.hooks.authorize;
  const isGuarded = route.hooks.stream !== null || toolAuthorizers !== null || restorer !== undefined;
  const isRead = isGuarded || record.isOutputLimited;
  const tools = toolAuthorizers === null ? undefined : new ToolCalls(toolAuthorizers, record);
  const guards = { mounts: route.hooks.stream ?? [], tools, restorer, record };
  gateway.metrics.openStreams.value += 1;
  try {
    await (isRead ? new Guarded(context, guards) : new PassThrough(context)).start().ended;
  } finally {
    gateway.metrics.openStreams.value -= 1;
    answer.ended();
  }
}

// --- The ends -------------------------------------------------------------------------------------------------------

/** An answer that cannot be written at all must not end the process: the client's connection is cut. */
function refuseSafely(refused: Refused, error: GatewayError, gateway: Gateway): void {
  try {
    refuse(refused, error);
  } catch (cause) {
    gateway.log.error({ requestId: refused.record.facts.id, cause: reasonOf(cause) }, 'a refusal could not be written');
    refused.exchange.destroy();
  }
}

/** Who is refused; the route is not always known by then. */
type Refused = Pick<Life, 'exchange' | 'record' | 'snapshot' | 'dialect'> & { route: Route | undefined };

/** The one place where errors and rejections get their shape. */
function refuse(refused: Refused, error: GatewayError): void {
  const { exchange, record, dialect } = refused;
  const { shape, details } = error;
  record.outcome = isRejection(error.code) ? 'rejected' : 'failed';
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
  for (const cookie of details.cookies ?? []) headers.push('set-cookie', cookie);
  exchange.reply(error.status, withOwn(headers, refused), details.body ?? dialect.errorBody(shape));
}

interface Ended {
  record: RequestRecord;
  route: Route | undefined;
  gateway: Gateway;
  snapshot: Snapshot;
}

/** A defect here costs one record, not the process: nobody waits for this promise any more. */
function settled(ended: Ended): Promise<unknown> | undefined {
  try {
    return settle(ended);
  } catch (error) {
    const { gateway, record } = ended;
    gateway.log.error({ requestId: record.facts.id, cause: reasonOf(error) }, 'the record of a request was lost');
    return undefined;
  }
}

/** 9. What became of it: quotas are settled with the true usage, the record is written. Also when the client has gone. */
function settle({ record, route, gateway, snapshot }: Ended): Promise<unknown> | undefined {
  const durationMs = record.elapsed();
  for (const timer of record.renewals) clearInterval(timer);
  if (record.status === 0) record.status = 499;
  // Who leaves before the answer has had the provider read the prompt all the same.
  const isOwed = record.answerChars > 0 || (record.outcome === 'aborted' && record.isSent);
  const isPart = record.streamed && record.outcome !== 'finished';
  if (isOwed && (record.usage === undefined || isPart)) record.usage = usageSoFar(record);
  gateway.settle(record, durationMs, snapshot);
  const remembered = hooks.remember(record);
  if (route === undefined || route.hooks.observe === null) return remembered;
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
  const observed = hooks.observe(route.hooks.observe, record, outcome);
  return remembered === undefined ? observed : Promise.all([remembered, observed]);
}
