/** One try at one target: what goes upstream, and what its answer is in the client's dialect. */
import type { Dialect, Json, ModelRequest, ReplyFacts } from './dialects/dialect.ts';
import { GatewayError } from './errors.ts';
import type { Feature } from './hub/features.ts';
import { badAnswer } from './hub/fields.ts';
import type { EmbeddingsRequest, HubRequest } from './hub/request.ts';
import { leftOut } from './hub/support.ts';
import { identityHeaders } from './identity.ts';
import { isJsonObject, isTooDeep, parseJson, type ReadJson, serialise } from './json.ts';
import type { Life } from './life.ts';
import type { CallFacts, ChatEndpoint, Endpoint, Operation, Operations, Provider } from './providers/provider.ts';
import type { RoutedTarget } from './routing/router.ts';
import { lookAtDialect, lookAtEvents, primed } from './stream/prime.ts';
import type { Said } from './stream/said.ts';
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
  /** Whether whole answers are looked into, so that they have to be parsed. */
  isRead: boolean;
  /** What the client has of the answer already, from a gateway that has vanished. */
  begun?: Begun;
}

/** The beginning of an answer. */
export interface Begun {
  /** Its events, in the client's dialect. */
  events: Buffer;
  /** Its text as a provider may read it: with the masks that its prompt has. */
  text: string;
}

/** How a target is asked. */
export interface Manner {
  /** How long it may take until its answer begins, or is whole, in milliseconds; undefined: as long as the provider may. */
  timeoutMs: number | undefined;
  /** What it goes on from. */
  join?: Join;
  /** Whether a stream has begun only when it has said something: until then another target can take its place. */
  wantsContent: boolean;
}

/** How a try goes on from what another target has said. */
export interface Join {
  said: Said;
  mode: 'continue' | 'replay';
}

/** What came of a try. */
export type Answer = WholeAnswer | BegunStream;

interface Answered {
  /** Head of the provider's answer. */
  reply: UpstreamReply;
  /** The client's paths of what did not go along. */
  leftOut: string[];
}

export interface WholeAnswer extends Answered {
  kind: 'whole';
  bytes: Buffer;
  /** Parsed where it had to be. */
  body: Json | undefined;
  facts: ReplyFacts;
}

/** A provider's stream that has begun to speak. */
export interface BegunStream extends Answered {
  kind: 'stream';
  endpoint: ChatEndpoint;
  /** Whether the bytes are the client's dialect already. */
  isNative: boolean;
}

/** A stream in the client's dialect. */
export interface StreamedAnswer extends Answered {
  kind: 'stream';
  /** To be called when the stream is over, however it ended. */
  ended(): void;
}

/** A try under way. `answer` settles once there is a whole answer, or a stream has begun to speak. */
export interface Attempt {
  readonly answer: Promise<Answer>;
  abort(): void;
}

/** Asks a target. */
export function attempt(life: Life, target: RoutedTarget, outgoing: Outgoing, manner: Manner): Attempt {
  const stop = new Stop();
  const answer = tried(life, target, outgoing, { ...manner, stop });
  const { timeoutMs } = manner;
  return {
    answer: timeoutMs === undefined ? answer : inTime(answer, stop, { afterMs: timeoutMs, name: target.provider.name }),
    abort: () => stop.now(GONE),
  };
}

interface Late {
  afterMs: number;
  /** The provider's. */
  name: string;
}

function late(name: string): GatewayError {
  return new GatewayError('upstream_timeout', `The provider “${name}” did not answer in time. Try again.`);
}

/** What is ended for its lateness says so, whatever it was doing. */
async function inTime(answer: Promise<Answer>, stop: Stop, { afterMs, name }: Late): Promise<Answer> {
  const timer = setTimeout(() => stop.now(late(name)), afterMs);
  try {
    return await answer;
  } catch (thrown) {
    throw thrown === GONE ? (stop.reason ?? thrown) : thrown;
  } finally {
    clearTimeout(timer);
  }
}

/** Ends a try at any time: whatever it waits for rejects. */
class Stop {
  /** Why it was ended. */
  reason: Error | undefined;
  private request: { abort(): void } | undefined;
  private listener: ((reason: Error) => void) | undefined;

  /** What has to be ended. */
  watch(request: { abort(): void }): void {
    this.request = request;
    if (this.reason !== undefined) request.abort();
  }

  /** Calls when it is ended, in place of who was to be called before. */
  onStop(listener: (reason: Error) => void): void {
    if (this.reason === undefined) this.listener = listener;
    else listener(this.reason);
  }

  /** A promise that nothing else ends. */
  bounded<T>(waited: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.onStop(reject);
      waited.then(resolve, reject);
    });
  }

  now(reason: Error): void {
    if (this.reason !== undefined) return;
    this.reason = reason;
    this.request?.abort();
    this.listener?.(reason);
  }
}

async function tried(
  life: Life,
  target: RoutedTarget,
  outgoing: Outgoing,
  { join, wantsContent, stop }: Manner & { stop: Stop },
): Promise<Answer> {
  const { gateway, snapshot, dialect, record } = life;
  const { provider } = target;
  const facts: CallFacts = { model: target.model ?? record.facts.model ?? '', stream: outgoing.request.stream };
  const written = write(outgoing, facts, dialect, { provider, join });
  const { endpoint, body, isNative } = written;
  const signed = provider.sign({
    method: 'POST',
    path: endpoint.path(facts),
    headers: ['content-type', 'application/json', ...(endpoint.headers?.(facts) ?? []), ...ownHeaders(life, provider)],
    body,
  });
  const call = signed instanceof Promise ? await stop.bounded(signed) : signed;
  const request = gateway.upstream.send(provider, call, body);
  stop.watch(request);
  record.isSent = true;
  const reply = await request.reply;
  await refuseErrors(reply, provider, snapshot.config.limits.reply);
  const streams = isStream(reply);
  if (streams && !outgoing.request.stream) {
    reply.abort();
    throw new GatewayError(
      'upstream_bad_answer',
      'The provider streamed an answer that was not to be streamed. Try again.',
    );
  }
  if (streams && dialect.operation === 'chat') {
    const chat = endpoint as ChatEndpoint;
    const passes = isNative && join === undefined;
    const look = passes ? lookAtDialect(dialect, wantsContent) : lookAtEvents(chat.openReader(), wantsContent);
    const begun = await primed(reply, look, { firstTokenMs: target.timeouts.firstToken, stop });
    return { kind: 'stream', reply: begun, endpoint: chat, isNative: passes, leftOut: written.leftOut };
  }
  const bytes = await reply.collect(snapshot.config.limits.reply);
  const whole = isNative
    ? readNative(dialect, bytes, outgoing.isRead)
    : translate(written, bytes, life, outgoing.request.body);
  return { kind: 'whole', reply, leftOut: written.leftOut, ...whole };
}

// --- What goes upstream -------------------------------------------------------------------------------------------

interface Written {
  endpoint: Endpoint<Operation>;
  body: Buffer | string;
  /** Whether the endpoint takes the client's dialect as it is. */
  isNative: boolean;
  leftOut: string[];
}

function write(
  outgoing: Outgoing,
  facts: CallFacts,
  dialect: Dialect,
  { provider, join }: { provider: Provider; join: Join | undefined },
): Written {
  const endpoints: readonly Endpoint<Operation>[] = provider.endpoints[dialect.operation] ?? [];
  const native = endpoints.find((endpoint) => endpoint.dialect === dialect.name);
  if (native !== undefined && join?.mode !== 'continue') {
    native.check?.(outgoing.request.body);
    return {
      endpoint: native,
      body: nativeBody(outgoing, facts, dialect, { provider, endpoint: native }),
      isNative: true,
      leftOut: [],
    };
  }
  const endpoint = native ?? endpoints[0];
  if (endpoint === undefined) {
    throw new GatewayError(
      'unsupported_field',
      `The provider “${provider.name}” cannot do this for the model. Ask for another model.`,
      { param: 'model' },
    );
  }
  const request = hubRequest(outgoing, dialect, join);
  const left = leftOut(request, endpoint.supports, provider);
  return { endpoint, body: JSON.stringify(endpoint.write(request, facts)), isNative: false, leftOut: left };
}

/** The request in the hub's words: with what the guards changed, and with what was said already at its end. */
function hubRequest(outgoing: Outgoing, dialect: Dialect, join: Join | undefined): HubRequest | EmbeddingsRequest {
  const { request, rewritten, paidTokens } = outgoing;
  let { body } = request;
  if (rewritten !== undefined && rewritten.size > 0) {
    body = structuredClone(body);
    dialect.writeSegments(body, rewritten);
  }
  const hub = dialect.toHub(body);
  const most = outputLimit(request, paidTokens);
  if (!('messages' in hub)) return hub;
  if (most !== undefined) {
    hub.maxOutputTokens = most;
    hub.used.set('max-tokens', hub.used.get('max-tokens') ?? 'max_tokens');
  }
  if (join?.mode === 'continue') goOnFrom(hub, join.said.soFar);
  return hub;
}

/** White space at the end of a prefix is refused by some models; the join makes up for it. */
function goOnFrom(request: HubRequest, text: string): void {
  request.messages.push({ role: 'assistant', parts: [{ type: 'text', text: text.trimEnd() }], at: 'messages' });
  // A part of the bound is used up, by an estimate of 4 characters a token.
  if (request.maxOutputTokens !== undefined)
    request.maxOutputTokens = Math.max(1, request.maxOutputTokens - Math.ceil(text.length / 4));
  request.used.set('prefill' satisfies Feature, 'messages');
  // The thinking is over: the answer has begun.
  request.reasoning = { off: true };
  request.used.delete('reasoning');
}

/**
 * The client's own bytes where nothing has to change, so that unknown fields, their order and their spelling survive.
 */
function nativeBody(
  { request, read, bytes, rewritten, paidTokens }: Outgoing,
  facts: CallFacts,
  dialect: Dialect,
  { provider, endpoint }: { provider: Provider; endpoint: Endpoint<Operation> },
): Buffer | string {
  const asksUsage =
    dialect.operation === 'chat' && dialect.asksUsage && request.stream && !request.wantsUsage && provider.streamUsage;
  const renamed = dialect.rename === undefined || facts.model === request.model ? undefined : facts.model;
  const most = outputLimit(request, paidTokens);
  const isRewritten = rewritten !== undefined && rewritten.size > 0;
  const isFit = request.amend === undefined && (endpoint.adapt === undefined || endpoint.fits?.(request.body) === true);
  const isPlain = renamed === undefined && !isRewritten && most === undefined && isFit;
  if (isPlain && !asksUsage) return bytes;
  if (isPlain && request.body.stream_options === undefined) return withUsageOption(bytes);
  return serialise(read, bytes, (changed: Json) => {
    if (isRewritten) dialect.writeSegments(changed, rewritten);
    if (renamed !== undefined) dialect.rename!(changed, renamed);
    if (most !== undefined) dialect.limitOutput(changed, most, provider.outputLimitField);
    if (asksUsage) changed.stream_options = { ...(changed.stream_options as Json | undefined), include_usage: true };
    request.amend?.(changed);
    endpoint.adapt?.(changed, facts);
  });
}

/** Puts the option in front of the client's bytes, which stay as they are. */
function withUsageOption(bytes: Buffer): Buffer {
  return Buffer.concat([USAGE_OPTION, bytes.subarray(bytes.indexOf(0x7b) + 1)]);
}

const USAGE_OPTION = Buffer.from('{"stream_options":{"include_usage":true},');

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

function ownHeaders({ route, record }: Life, provider: Provider): string[] {
  return [
    ...route.upstreamHeaders,
    ...identityHeaders(route.identityHeaders, record.facts.identity),
    ...forwardedHeaders(record, provider),
  ];
}

/** The client's headers that may go upstream; everything else stays here, its credentials first of all. */
export function forwardedHeaders({ headers, facts }: RequestRecord, provider: Provider): string[] {
  const out = ['x-request-id', facts.id];
  for (const name of provider.forwardedHeaders) {
    const value = headers[name];
    if (value !== undefined) out.push(name, value);
  }
  return out;
}

// --- What comes back ----------------------------------------------------------------------------------------------

function isStream(reply: UpstreamReply): boolean {
  const type = String(reply.headers['content-type'] ?? '');
  return type.startsWith('text/event-stream') || type.startsWith('application/vnd.amazon.eventstream');
}

/** The longest error body that is read, in bytes. */
const MAX_ERROR = 65_536;

async function refuseErrors(reply: UpstreamReply, provider: Provider, limit: number): Promise<void> {
  const encoding = reply.headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity') {
    reply.abort();
    throw new GatewayError(
      'upstream_bad_answer',
      `The provider “${provider.name}” compressed its answer although it was asked not to.`,
    );
  }
  if (reply.status < 300) return;
  const body = await reply.collect(Math.min(MAX_ERROR, limit)).catch(() => Buffer.alloc(0));
  const { code, message, details, retryAfterMs } = provider.readError(reply.status, parseJson(body), reply.headers);
  throw new GatewayError(code, message, {
    ...details,
    cause: `status ${reply.status}`,
    upstreamStatus: reply.status,
    retryAfterMs,
  });
}

type Read = Pick<WholeAnswer, 'bytes' | 'body' | 'facts'>;

/** An answer in the client's own dialect: its bytes stay, and are parsed only where that is needed. */
function readNative(dialect: Dialect, bytes: Buffer, isRead: boolean): Read {
  const skimmed = isRead ? undefined : dialect.skimReply(bytes.toString('latin1'));
  if (skimmed !== undefined) return { bytes, body: undefined, facts: skimmed };
  const body = parseJson(bytes);
  if (!isJsonObject(body) || isTooDeep(body)) throw badAnswer();
  return { bytes, body, facts: dialect.replyFacts(body) };
}

/** An answer in a vendor's format, written in the client's dialect. */
function translate({ endpoint }: Written, bytes: Buffer, { dialect, record }: Life, request: Json): Read {
  const answer = parseJson(bytes);
  if (!isJsonObject(answer) || isTooDeep(answer)) throw badAnswer();
  const { fromHub }: { fromHub(reply: Operations[Operation]['reply'], model: string, request: Json): Json } = dialect;
  const reply = endpoint.read(answer);
  const body = fromHub(reply, record.facts.model ?? '', request);
  const facts = dialect.replyFacts(body);
  // Formats that want figures get zeros where the provider told none: those are not what it cost.
  if ('choices' in reply && reply.usage === undefined) facts.usage = undefined;
  return { bytes: Buffer.from(JSON.stringify(body)), body, facts };
}
