/**
 * Asking plugins: the one place that knows order, deadline, fault policy, what makes a verdict valid, and what is
 * recorded of it.
 *
 * A plugin that failed has not said yes. Late, thrown, empty, malformed, unreachable, a verdict that the hook cannot
 * honour: each is a fault, and a fault rejects unless the config says `onFault: allow`.
 */
import type {
  Action,
  Allow,
  AllowOrReject,
  AuthenticateInput,
  AuthorizeInput,
  EndpointInput,
  HistoryPolicy,
  Hook,
  Identity,
  LimitInput,
  ObserveInput,
  Placeholder,
  RecallInput,
  Reject,
  RememberInput,
  RenewInput,
  RequestFacts,
  Respond,
  Segment,
  SegmentsInput,
  StreamInput,
  Verdict,
} from '../proto/contract.ts';
import { isTold, PluginFault } from '../proto/contract.ts';
import { kindOf, verdictProblem } from '../proto/verdict.ts';
import { ERRORS, GatewayError } from './errors.ts';
import { answers, decides, type Mount, shownBody } from './mount.ts';
import { repairJson } from './stream/json-text.ts';
import type { RequestRecord, Told } from './telemetry/record.ts';

export type HookInput =
  | AuthenticateInput
  | AuthorizeInput
  | LimitInput
  | SegmentsInput
  | StreamInput
  | ObserveInput
  | EndpointInput
  | RecallInput
  | RememberInput
  | RenewInput;

/** A verdict to obey, or `undefined`: in shadow, or a fault that the config forgives. */
export type Judgement = Verdict | undefined;

// --- One question ---------------------------------------------------------------------------------------------------

/**
 * Asks one plugin one question. A plugin in process that answers at once is judged at once: no promise, no timer.
 */
export function ask(mount: Mount, hook: Hook, input: HookInput, record: RequestRecord): Judgement | Promise<Judgement> {
  const question: Question = { mount, hook, input, record, startedAt: performance.now() };
  const settle = (answer: unknown) => judge(question, answer);
  const fail = (error: unknown) => fault(question, error);
  try {
    const cancel = new LazyAbort();
    const answer = mount.connection.ask(hook, input, cancel);
    if (!(answer instanceof Promise)) return settle(answer);
    if (!RESERVES.has(hook)) record.open.add(cancel);
    return race(answer, mount.policy.deadline, cancel)
      .finally(() => record.open.delete(cancel))
      .then(settle, fail);
  } catch (error) {
    return fail(error);
  }
}

/** What is asked here may reserve something: the answer is waited for also when the client has gone, to give it back. */
const RESERVES: ReadonlySet<Hook> = new Set(['limit', 'recall']);

/** An abort signal that costs nothing until a plugin looks at it. */
class LazyAbort {
  #controller: AbortController | undefined;
  #reason: Error | undefined;

  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    if (this.#reason) this.#controller.abort(this.#reason);
    return this.#controller.signal;
  }

  abort(reason: Error): void {
    this.#reason = reason;
    this.#controller?.abort(reason);
  }
}

/** The deadline is raced, not only signalled: a plugin that ignores the signal is late all the same. */
function race(answer: Promise<unknown>, deadlineMs: number, cancel: LazyAbort): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      const late = new Error(`no answer within ${deadlineMs} ms`);
      late.name = 'TimeoutError';
      reject(late);
      cancel.abort(late);
    }, deadlineMs);
    answer.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

interface Question {
  mount: Mount;
  hook: Hook;
  input: HookInput;
  record: RequestRecord;
  /** `performance.now()` when it was asked. */
  startedAt: number;
}

function judge(question: Question, answer: unknown): Judgement {
  const { mount, hook, input, record, startedAt } = question;
  // Who is only told has nothing to answer.
  const verdict = (answer === undefined && isTold(hook) ? { allow: {} } : answer) as Verdict;
  const problem = verdictProblem(hook, input, verdict) ?? rewriteProblem(input, verdict);
  if (problem !== undefined) return fault(question, new PluginFault('bad_verdict', problem));
  const kind = kindOf(verdict);
  const { code, findings, decisionId } = (verdict as { [key: string]: Told })[kind]!;
  const ms = performance.now() - startedAt;
  if (isDenial(hook, verdict)) record.asked(mount, hook, 'reject', ms, { code: 'denied', findings, decisionId });
  else record.asked(mount, hook, kind, ms, { code, findings, decisionId });
  // A reservation is settled also where it is not obeyed, or the shadow's counts would drift.
  if (hook === 'limit' && 'allow' in verdict) keepGrant(mount, verdict.allow, record);
  if (hook === 'recall' && 'allow' in verdict) record.repeatable?.claims.set(mount, verdict.allow.grant);
  return mount.policy.shadow ? undefined : verdict;
}

/** An authorizer that answered, and allowed nothing of what it was asked about. */
function isDenial(hook: Hook, verdict: Verdict): boolean {
  if (hook !== 'authorize' || !('allow' in verdict)) return false;
  const { decisions = [] } = verdict.allow;
  return decisions.length > 0 && !decisions.includes(true);
}

function keepGrant(mount: Mount, { grant, renewMs }: Allow, record: RequestRecord): void {
  if (grant === undefined) return;
  record.grants.set(mount, grant);
  if (renewMs === undefined) return;
  const renew = () => void ask(mount, 'renew', { request: factsFor(mount, record), grant }, record);
  record.renewals.push(setInterval(renew, renewMs).unref());
}

/** Rewritten tool arguments must still be JSON where they were: the client will parse them. */
function rewriteProblem(input: HookInput, verdict: Verdict): string | undefined {
  if (!('rewrite' in verdict)) return undefined;
  const { segments } = input as SegmentsInput;
  const args = new Map(
    segments.filter(({ channel }) => channel === 'tool-arguments').map(({ id, text }) => [id, text]),
  );
  if (args.size === 0) return undefined;
  for (const rewritten of verdict.rewrite.segments) {
    const before = args.get(rewritten.id);
    if (before === undefined || !isJson(before)) continue;
    rewritten.text = repairJson(rewritten.text);
    if (!isJson(rewritten.text)) return 'rewritten tool arguments are no longer JSON';
  }
  return undefined;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function fault({ mount, hook, record, startedAt }: Question, error: unknown): Judgement {
  record.asked(mount, hook, 'fault', performance.now() - startedAt);
  record.pluginFault(mount, hook, error);
  if (mount.policy.shadow || mount.policy.onFault === 'allow') return undefined;
  return {
    reject: { code: 'guard_unavailable', message: unavailable(mount.name), status: ERRORS.guard_unavailable.status },
  };
}

function unavailable(name: string): string {
  return `The request was stopped because the guard “${name}” did not answer. Nothing was let through unchecked; try again in a moment.`;
}

// --- The hooks of a route ---------------------------------------------------------------------------------------------

/** The plugins that a route asks at each hook, in order; `null` where there are none, which costs one comparison. */
export interface RouteHooks extends Record<Exclude<Hook, 'authorize' | 'endpoint' | 'renew'>, Mount[] | null> {
  authorize: Record<Action, Mount[] | null>;
}

/** Compiles a route's hooks from its mounts, as far as their plugins have described themselves. */
export function compileHooks(mounts: Mount[]): RouteHooks {
  const orNull = (asked: Mount[]) => (asked.length > 0 ? asked : null);
  const at = (hook: Hook) => orNull(mounts.filter((mount) => answers(mount, hook)));
  const about = (action: Action) =>
    orNull(mounts.filter((mount) => answers(mount, 'authorize') && decides(mount, action)));
  return {
    authenticate: at('authenticate'),
    authorize: {
      'model.use': about('model.use'),
      'model.list': about('model.list'),
      'tool.call': about('tool.call'),
    },
    recall: at('recall'),
    limit: at('limit'),
    request: at('request'),
    response: at('response'),
    stream: at('stream'),
    remember: at('remember'),
    observe: at('observe'),
  };
}

/** The facts as a mount may see them: the headers that it names, and no others. */
export function factsFor(mount: Mount, record: RequestRecord): RequestFacts {
  const { facts } = record;
  const names = mount.policy.headers;
  const forwarded = mount.policy.forwardHeaders;
  if (names.length === 0 && forwarded.length === 0) return facts;
  const headers: Record<string, string> = {};
  for (const name of [...names, ...forwarded.map((header) => header.name)]) {
    const value = record.headers[name];
    if (value !== undefined) headers[name] = value;
  }
  return { ...facts, headers };
}

/** Who it is, or what a stranger may do to become known. */
export interface Acquaintance {
  identity: Identity | undefined;
  /** What `www-authenticate` says, one for each plugin that has a say. */
  challenges: string[];
  /** Where a person signs in. */
  login: string | undefined;
}

/**
 * Who is this? The first identity counts; credentials that are a plugin's own and bad are refused at once. When all
 * have spoken and none knew the request, it stays without an identity.
 */
export async function authenticate(mounts: Mount[], record: RequestRecord): Promise<Acquaintance> {
  const input: AuthenticateInput = { request: factsWithHeaders(record) };
  const known: Acquaintance = { identity: undefined, challenges: [], login: undefined };
  for (const mount of mounts) {
    const judged = ask(mount, 'authenticate', input, record);
    const verdict = (judged instanceof Promise ? await judged : judged) as AllowOrReject | undefined;
    if (verdict === undefined) continue;
    if ('reject' in verdict) throw refusal(mount, verdict.reject, 'unauthenticated');
    const { identity, challenge, login, cookies, headers } = verdict.allow;
    if (headers !== undefined) Object.assign(record.replyHeaders, clientHeaders(headers));
    if (cookies !== undefined) record.replyCookies.push(...cookies);
    if (challenge !== undefined) known.challenges.push(challenge);
    known.login ??= login;
    known.identity = identity;
    if (identity !== undefined) break;
  }
  return known;
}

function factsWithHeaders(record: RequestRecord): RequestFacts {
  return { ...record.facts, headers: record.headers as Record<string, string> };
}

/** Has a plugin answer a request to one of its own paths. What it does not answer soundly is not answered otherwise. */
export async function endpoint(
  mount: Mount,
  input: Omit<EndpointInput, 'request'>,
  record: RequestRecord,
): Promise<Respond> {
  const verdict = await ask(mount, 'endpoint', { request: factsWithHeaders(record), ...input }, record);
  if (verdict !== undefined && 'respond' in verdict) {
    const { headers } = verdict.respond;
    return headers === undefined ? verdict.respond : { ...verdict.respond, headers: clientHeaders(headers) };
  }
  throw new GatewayError('guard_unavailable', `“${mount.name}” did not answer. Try again in a moment.`);
}

/** What an authorizer is asked about, beside the request. */
export interface Intent extends Pick<AuthorizeInput, 'action' | 'resources'> {
  /** The client's own bytes, where they have been read. */
  body?: Buffer;
}

/** May they? One answer for each resource; every authorizer must agree. */
export async function authorize(mounts: Mount[], record: RequestRecord, intent: Intent): Promise<boolean[]> {
  const { action, resources, body } = intent;
  const allowed = resources.map(() => true);
  for (const mount of mounts) {
    const request = withBody(factsFor(mount, record), body, shownBody(mount));
    const judged = ask(mount, 'authorize', { request, action, resources }, record);
    const verdict = (judged instanceof Promise ? await judged : judged) as AllowOrReject | undefined;
    if (verdict === undefined) continue;
    if ('reject' in verdict) throw refusal(mount, verdict.reject, 'forbidden');
    verdict.allow.decisions?.forEach((decision, i) => {
      if (!decision) allowed[i] = false;
    });
  }
  return allowed;
}

/** The facts with the beginning of the body: whole characters of its first bytes. */
function withBody(facts: RequestFacts, body: Buffer | undefined, shown: number): RequestFacts {
  if (body === undefined || shown === 0) return facts;
  // A character that the cut went through is left out.
  const text = new TextDecoder().decode(body.subarray(0, shown), { stream: body.length > shown });
  return { ...facts, body: text, bodySize: body.length };
}

/** Have they quota left? Their headers go on the answer, also when a later limit refuses. */
export async function limit(
  mounts: Mount[],
  record: RequestRecord,
  tokens: Omit<LimitInput, 'request'>,
): Promise<void> {
  for (const mount of mounts) {
    const judged = ask(mount, 'limit', { request: factsFor(mount, record), ...tokens }, record);
    const verdict = (judged instanceof Promise ? await judged : judged) as AllowOrReject | undefined;
    if (verdict === undefined) continue;
    if ('reject' in verdict) throw refusal(mount, verdict.reject, 'rate_limited');
    const { headers, outputTokens } = verdict.allow;
    if (headers !== undefined) Object.assign(record.replyHeaders, clientHeaders(headers));
    if (outputTokens !== undefined) record.outputTokens = Math.min(outputTokens, record.outputTokens ?? outputTokens);
  }
}

/** Has this been answered already? The first answer that one of them remembers. */
export async function recall(
  mounts: Mount[],
  record: RequestRecord,
  asked: Omit<RecallInput, 'request'>,
): Promise<Respond | undefined> {
  for (const mount of mounts) {
    const verdict = await ask(mount, 'recall', { request: factsFor(mount, record), ...asked }, record);
    if (verdict === undefined) continue;
    if ('reject' in verdict) throw refusal(mount, verdict.reject, 'conflict');
    if ('respond' in verdict) return verdict.respond;
  }
  return undefined;
}

/** Tells what became of a request whose key was claimed: its answer, or that it may be sent again. */
export function remember(record: RequestRecord): Promise<unknown> | undefined {
  const { repeatable } = record;
  if (repeatable === undefined || repeatable.claims.size === 0) return undefined;
  const { key, fingerprint, claims, answer } = repeatable;
  const outcome = answer === undefined ? ('failed' as const) : ('answered' as const);
  const told = [...claims].map(([mount, grant]) =>
    ask(mount, 'remember', { request: factsFor(mount, record), key, fingerprint, grant, outcome, ...answer }, record),
  );
  return Promise.all(told);
}

/** What the guards made of a text: the segments that changed, and what is to be restored in the answer. */
export interface Guarded {
  rewritten: Map<string, string>;
  placeholders: Placeholder[];
}

/**
 * Is this fit to send, or to show? Guards that rewrite are asked in order, each seeing what the one before made of it;
 * neighbours that only inspect are asked side by side.
 */
export async function guardText(
  mounts: Mount[],
  hook: 'request' | 'response',
  segments: Segment[],
  record: RequestRecord,
): Promise<Guarded> {
  const guarded: Guarded = { rewritten: new Map(), placeholders: [] };
  let current = segments;
  for (const stage of stages(mounts)) {
    const judged = stage.map((mount) => judgeText(mount, hook, current, record));
    const verdicts =
      stage.length === 1 && !(judged[0] instanceof Promise) ? (judged as TextJudgement[]) : await Promise.all(judged);
    verdicts.forEach((verdict, i) => {
      if (verdict !== undefined && 'reject' in verdict) throw refusal(stage[i]!, verdict.reject, 'content_rejected');
    });
    for (const verdict of verdicts) current = applied(verdict, current, guarded);
  }
  return guarded;
}

/** What a text guard decided: the texts to change and to restore, a rejection, or nothing. */
type TextJudgement = { reject: Reject } | { texts: Map<string, string>; placeholders: Placeholder[] } | undefined;

function stages(mounts: Mount[]): Mount[][] {
  if (mounts.length === 1) return [mounts];
  const out: Mount[][] = [];
  let inspecting: Mount[] | undefined;
  for (const mount of mounts) {
    if (mount.connection.description?.rewrites !== false) {
      out.push([mount]);
      inspecting = undefined;
    } else if (inspecting) inspecting.push(mount);
    else {
      inspecting = [mount];
      out.push(inspecting);
    }
  }
  return out;
}

function judgeText(
  mount: Mount,
  hook: 'request' | 'response',
  segments: Segment[],
  record: RequestRecord,
): TextJudgement | Promise<TextJudgement> {
  const shown = shownTo(mount, segments);
  const input: SegmentsInput = { request: factsFor(mount, record), segments: shown, history: mount.policy.history };
  const judged = ask(mount, hook, input, record);
  const settle = (verdict: Judgement) => textJudgement(mount, hook, input, verdict, record);
  return judged instanceof Promise ? judged.then(settle) : settle(judged);
}

/** Media segments keep their bytes only for plugins that ask for them. */
function shownTo(mount: Mount, segments: Segment[]): Segment[] {
  if (mount.connection.description?.media || !segments.some((segment) => segment.channel === 'media')) return segments;
  return segments.map((segment) =>
    segment.channel === 'media' && segment.text.length > MEDIA_REFERENCE
      ? { ...segment, text: `${segment.text.slice(0, MEDIA_REFERENCE)}…` }
      : segment,
  );
}

/** How much of a media reference a plugin sees that did not ask for the bytes, in UTF-16 units: enough for any URL. */
const MEDIA_REFERENCE = 2_048;

function textJudgement(
  mount: Mount,
  hook: Hook,
  input: SegmentsInput,
  verdict: Judgement,
  record: RequestRecord,
): TextJudgement | Promise<TextJudgement> {
  if (verdict === undefined) return undefined;
  if ('rewrite' in verdict) {
    const texts = new Map(verdict.rewrite.segments.map((segment) => [segment.id, segment.text]));
    return { texts, placeholders: verdict.rewrite.placeholders ?? [] };
  }
  if (!('reject' in verdict)) return undefined;
  const isFault = verdict.reject.code === 'guard_unavailable';
  if (hook !== 'request' || isFault || input.history === 'reject' || !input.segments.some((segment) => segment.old))
    return verdict;
  return judgeNewTurn(mount, input, verdict.reject, record);
}

/**
 * The prompt was rejected, and the mount forgives old turns: clients send the whole history each time, so one bad
 * prompt would block a chat for good. What was bad and old is left out and the rest judged again, so that masks still
 * reach every turn that stays; a guard that does not name what was bad is asked about the newest turn alone.
 */
async function judgeNewTurn(
  mount: Mount,
  input: SegmentsInput,
  reject: Reject,
  record: RequestRecord,
): Promise<TextJudgement> {
  let kept = input.segments;
  let judged: Judgement = { reject };
  for (let round = 0; judged !== undefined && 'reject' in judged; round += 1) {
    const next = withoutBadTurns(kept, judged.reject, round < MAX_NAMED_ROUNDS);
    if (next === undefined) return judged;
    kept = next;
    judged = await ask(mount, 'request', { ...input, segments: kept }, record);
  }
  const rewrite = judged !== undefined && 'rewrite' in judged ? judged.rewrite : undefined;
  const texts = new Map(rewrite?.segments.map((segment) => [segment.id, segment.text]));
  if (input.history === ('mask' satisfies HistoryPolicy)) {
    const isKept = new Set(kept);
    for (const segment of input.segments) {
      if (!isKept.has(segment) && segment.channel !== 'media') texts.set(segment.id, REMOVED);
    }
  }
  return { texts, placeholders: rewrite?.placeholders ?? [] };
}

/** A guard may name one bad turn at a time; after so many calls the newest turn is asked about alone. */
const MAX_NAMED_ROUNDS = 4;

/** What is left of the prompt without its old turns that were rejected; undefined when the newest turn was. */
function withoutBadTurns(segments: Segment[], { code, segments: named }: Reject, isNamedOnly: boolean) {
  if (code === 'guard_unavailable' || !segments.some((segment) => segment.old)) return undefined;
  const bad = new Set(named);
  if (segments.some((segment) => !segment.old && bad.has(segment.id))) return undefined;
  const kept = segments.filter((segment) => !segment.old || !bad.has(segment.id));
  return isNamedOnly && kept.length < segments.length ? kept : segments.filter((segment) => !segment.old);
}

/** Stands in the place of an old turn that a guard rejects. */
const REMOVED = '[removed by policy]';

function applied(verdict: TextJudgement, segments: Segment[], guarded: Guarded): Segment[] {
  if (verdict === undefined || 'reject' in verdict || verdict.texts.size === 0) return segments;
  guarded.placeholders.push(...verdict.placeholders);
  for (const [id, text] of verdict.texts) guarded.rewritten.set(id, text);
  return segments.map((segment) => {
    const text = verdict.texts.get(segment.id);
    return text === undefined ? segment : { ...segment, text };
  });
}

/**
 * Tells every observer, after the reply. Nothing that it does can delay or change anything; the promise is there when an
 * observer elsewhere has still to answer, for those who must not close its connection before.
 */
export function observe(
  mounts: Mount[],
  record: RequestRecord,
  outcome: Omit<ObserveInput, 'request' | 'grant'>,
): Promise<unknown> | undefined {
  let pending: Promise<unknown>[] | undefined;
  for (const mount of mounts) {
    const input: ObserveInput = { ...outcome, request: factsFor(mount, record), grant: record.grants.get(mount) };
    const told = ask(mount, 'observe', input, record);
    if (!(told instanceof Promise)) continue;
    pending ??= [];
    pending.push(told);
  }
  return pending && Promise.all(pending);
}

/** A rejection as the client gets it: the mount's own status and body first, then the plugin's, then the table's. */
export function refusal(
  mount: Mount,
  reject: Reject,
  code: 'unauthenticated' | 'forbidden' | 'conflict' | 'rate_limited' | 'content_rejected',
): GatewayError {
  const isFault = reject.code === 'guard_unavailable' && reject.status === ERRORS.guard_unavailable.status;
  const own = isFault ? undefined : mount.policy.rejection;
  return new GatewayError(isFault ? 'guard_unavailable' : code, reject.message, {
    publicCode: reject.code,
    status: own?.status ?? reject.status,
    headers: reject.headers && clientHeaders(reject.headers),
    cookies: reject.cookies,
    body: own?.body ?? reject.body,
    contentType: own?.contentType ?? reject.contentType,
    param: isFault ? undefined : mount.name,
  });
}

/** What frames an answer, or speaks of its connection, is the gateway's to say, whatever a plugin sends along. */
const FRAMING =
  /^(?:connection|content-(?:encoding|length|type)|date|keep-alive|te|trailer|transfer-encoding|upgrade)$/;

function clientHeaders(headers: Record<string, string>): Record<string, string> {
  const out: Record<string, string> = {};
  for (const name in headers) {
    const lower = name.toLowerCase();
    if (!FRAMING.test(lower)) out[lower] = headers[name]!;
  }
  return out;
}
