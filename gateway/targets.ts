/**
 * Step 7 of a request's life: which of the model's targets answer it. They are asked in the order of the model's
 * strategy until one has begun to answer; what may be a provider's passing fault moves on to the next, what is the
 * client's own mistake does not. A stream that breaks later is gone on with by the same rules.
 */
import {
  type Answer,
  type Attempt,
  attempt,
  type Begun,
  type BegunStream,
  type Join,
  type Outgoing,
  type StreamedAnswer,
  type WholeAnswer,
} from './attempt.ts';
import type { ChatDialect } from './dialects/dialect.ts';
import { asGatewayError, GatewayError } from './errors.ts';
import type { HubUsage } from './hub/reply.ts';
import type { Life } from './life.ts';
import type { StreamReader } from './providers/provider.ts';
import { namedTargets } from './routing/named.ts';
import { isNotSent } from './routing/passing.ts';
import {
  type CompiledModel,
  type Attempt as Next,
  type Outcome,
  type Plan,
  plan,
  type RoutedTarget,
} from './routing/router.ts';
import { HubStream, type HubStreamOptions, type Leg } from './stream/hub-stream.ts';
import { Recorded } from './stream/recorded.ts';
import { BROKEN } from './stream/relay.ts';
import type { Said } from './stream/said.ts';
import { GONE, type UpstreamReply } from './upstream.ts';

/** Asks the model's targets for an answer: whole, or a stream in the client's dialect that has begun to speak. */
export async function callTargets(
  life: Life,
  model: CompiledModel,
  outgoing: Outgoing,
): Promise<WholeAnswer | StreamedAnswer> {
  const calls = new Calls(life, model, outgoing);
  life.exchange.onGone(() => calls.abandon());
  return calls.answer();
}

/** The tries that one request makes. */
class Calls {
  private readonly life: Life;
  private readonly model: CompiledModel;
  private readonly outgoing: Outgoing;
  private readonly plan: Plan;
  private readonly open = new Set<Attempt>();
  private isAbandoned = false;
  /** The target whose stream is being passed on, and since when. */
  private current: RoutedTarget | undefined;
  private startedAt = 0;

  constructor(life: Life, model: CompiledModel, outgoing: Outgoing) {
    this.life = life;
    this.model = model;
    this.outgoing = outgoing;
    const { record } = life;
    this.plan = plan(model, {
      identity: record.facts.identity,
      headers: record.headers,
      promptTokens: record.estimatedInputTokens,
      model: record.facts.model ?? model.id,
      route: life.route.prefix,
      streamed: outgoing.request.stream,
      goOn: namedTargets(record.headers, model.targets),
    });
  }

  /** The client has gone, or the gateway gives up: nobody waits for any of them. */
  abandon(): void {
    this.isAbandoned = true;
    for (const one of this.open) one.abort();
  }

  async answer(): Promise<WholeAnswer | StreamedAnswer> {
    const { begun } = this.outgoing;
    if (begun !== undefined) return this.streamed(this.takenOver(begun), []);
    const answer = await this.inTurn((next) => this.hedged(next));
    return answer.kind === 'whole' ? answer : this.streamed(this.stream(answer), answer.leftOut);
  }

  private streamed(reply: UpstreamReply, leftOut: string[]): StreamedAnswer {
    return { kind: 'stream', reply, leftOut, ended: () => this.ended() };
  }

  /** A stream is over: what became of it is the last target's. */
  private ended(): void {
    const { outcome } = this.life.record;
    const durationMs = performance.now() - this.startedAt;
    if (outcome === 'failed') this.tell({ ok: false, code: 'stream_broken', durationMs });
    else this.tell({ ok: outcome !== 'aborted', durationMs });
  }

  private tell(outcome: Outcome): void {
    if (this.current !== undefined) this.plan.tell(this.current, outcome);
  }

  /** Tries one target after the other. Throws the failure that tells most when none answers. */
  private async inTurn<T>(ask: (next: Next) => Promise<T>, broken?: GatewayError): Promise<T> {
    let failure = broken;
    let told: GatewayError | undefined;
    for (let next = this.plan.next(failure); next !== undefined; next = this.plan.next(failure)) {
      try {
        if (next.waitMs > 0) await this.wait(next.waitMs);
        if (this.isAbandoned) throw GONE;
        return await ask(next);
      } catch (error) {
        if (error === GONE) {
          this.plan.tell(next.target, { ok: false, durationMs: 0 });
          throw error;
        }
        failure = asGatewayError(error);
        // That one target cannot do what was asked says less than why another one, which can, did not.
        if (told === undefined || !isNotSent(failure)) told = failure;
      }
    }
    if (told === undefined) throw broken ?? new GatewayError('internal', 'The model has no target.');
    throw this.plan.verdict(told);
  }

  private wait(ms: number): Promise<void> {
    return new Promise((done, reject) => {
      const timer = setTimeout(() => {
        this.open.delete(waiting);
        done();
      }, ms);
      const waiting: Attempt = {
        answer: Promise.resolve() as never,
        abort: () => {
          clearTimeout(timer);
          reject(GONE);
        },
      };
      this.open.add(waiting);
    });
  }

  /** Asks a target and, when it is slow and the model wants that, a second one beside it. */
  private hedged(next: Next): Promise<Answer> {
    const first = this.start(next);
    const { hedgeAfterMs } = this.plan;
    return hedgeAfterMs === undefined ? first.answer : this.besides(next, first, hedgeAfterMs);
  }

  /** The first to begin wins. */
  private async besides(next: Next, first: Attempt, afterMs: number): Promise<Answer> {
    if (!(await isLate(first.answer, afterMs))) return first.answer;
    const other = this.plan.hedge();
    if (other === undefined) return first.answer;
    const second = this.start(other);
    const winner = await firstOf(first, second);
    const [won, lost] = winner === first ? [next, other] : [other, next];
    (winner === first ? second : first).abort();
    // Both may have begun before one of them could be left.
    this.plan.tell(lost.target, { ok: false, durationMs: 0 });
    this.current = won.target;
    this.life.record.facts.provider = won.target.provider.name;
    return winner.answer;
  }

  /** Begins a try, and tells the plan what becomes of it. */
  private start({ target, timeoutMs }: Next, join?: Join): Attempt {
    const { life } = this;
    const startedAt = performance.now();
    const begun = attempt(life, target, this.outgoing, { join, wantsContent: this.wantsContent(target), timeoutMs });
    this.open.add(begun);
    life.record.attempts += 1;
    const answer = begun.answer.then(
      (reply) => {
        this.open.delete(begun);
        this.begun(target, reply, startedAt);
        return reply;
      },
      (error) => {
        this.open.delete(begun);
        throw this.failed(target, error, startedAt);
      },
    );
    return { answer, abort: () => begun.abort() };
  }

  /** With nobody to take its place, what a stream begins with goes out at once. */
  private wantsContent({ timeouts }: RoutedTarget): boolean {
    return this.model.targets.length > 1 || timeouts.firstToken !== undefined;
  }

  private begun(target: RoutedTarget, answer: Answer, startedAt: number): void {
    const durationMs = performance.now() - startedAt;
    if (answer.kind === 'whole') this.plan.tell(target, { ok: true, durationMs });
    else {
      this.plan.began(target, durationMs);
      this.open.add(asAttempt(answer.reply));
    }
    this.current = target;
    this.startedAt = startedAt;
    this.life.record.facts.provider = target.provider.name;
  }

  private failed(target: RoutedTarget, error: unknown, startedAt: number): unknown {
    const durationMs = performance.now() - startedAt;
    if (error === GONE) {
      this.plan.tell(target, { ok: false, durationMs });
      return error;
    }
    const failure = asGatewayError(error);
    const { code, retryAfterMs } = failure;
    this.plan.tell(target, { ok: false, code, retryAfterMs, durationMs });
    this.life.record.facts.provider = target.provider.name;
    this.life.gateway.metrics.upstreamErrors.cell({ provider: target.provider.name, reason: code }).value += 1;
    return failure;
  }

  // --- Streams ---

  /** The answer's stream in the client's dialect; its bytes as they are where nothing has to be done with them. */
  private stream(answer: BegunStream): UpstreamReply {
    const { dialect } = this.life;
    const target = this.current!;
    const isPlain = answer.isNative && !this.canRescue && target.timeouts.stall === undefined;
    if (dialect.operation !== 'chat' || isPlain) return answer.reply;
    return new HubStream(this.leg(answer, target), this.streamOptions(dialect));
  }

  private get canRescue(): boolean {
    return this.model.policy.rescue !== 'off' && this.outgoing.request.choices === 1;
  }

  private streamOptions(dialect: ChatDialect): HubStreamOptions {
    const { life, outgoing } = this;
    return {
      dialect,
      model: life.record.facts.model ?? '',
      rescue: this.canRescue
        ? {
            next: (said, failure) => this.goOn(said, failure),
            abandon: () => this.abandon(),
            spent: (usage) => {
              life.record.usage = usage;
            },
          }
        : undefined,
      estimate: (chars) => this.estimate(chars),
      wantsJson: () => dialect.toHub(outgoing.request.body).format !== undefined,
      maxSaid: life.snapshot.config.limits.reply,
    };
  }

  /** A stream whose first part another gateway has passed on. */
  private takenOver(begun: Begun): UpstreamReply {
    const { dialect } = this.life;
    if (dialect.operation !== 'chat' || !this.canRescue) throw new GatewayError('stream_broken', BROKEN);
    const first: Leg = {
      reply: new Recorded(begun.events),
      reader: dialect.openReader(),
      passes: true,
      stallMs: undefined,
      onBroken: () => {},
    };
    return new HubStream(first, { ...this.streamOptions(dialect), begunWith: begun.text });
  }

  private leg({ reply, endpoint, isNative }: BegunStream, target: RoutedTarget, joins?: Join['mode']): Leg {
    const reader: StreamReader = endpoint.openReader();
    return {
      reply,
      reader,
      passes: isNative,
      joins,
      stallMs: target.timeouts.stall,
      onBroken: (failure) =>
        this.plan.tell(target, {
          ok: false,
          code: failure?.code,
          retryAfterMs: failure?.retryAfterMs,
          durationMs: performance.now() - this.startedAt,
        }),
    };
  }

  /** Has another target go on where a stream broke. */
  private async goOn(said: Said, failure: GatewayError): Promise<Leg> {
    const { rescues } = this.life.gateway.metrics;
    try {
      const leg = await this.inTurn((next) => this.joined(next, said), failure);
      rescues.cell({ outcome: leg.joins ?? 'replay' }).value += 1;
      return leg;
    } catch (error) {
      if (error !== GONE) rescues.cell({ outcome: 'failed' }).value += 1;
      throw error;
    }
  }

  private async joined(next: Next, said: Said, mode = this.joinMode(next.target, said)): Promise<Leg> {
    try {
      const answer = await this.start(next, { said, mode }).answer;
      if (answer.kind === 'stream') return this.leg(answer, next.target, mode);
      throw new GatewayError('upstream_bad_answer', 'The provider did not stream its answer.');
    } catch (error) {
      if (mode === 'replay' || !isRefused(error)) throw error;
      const leg = await this.joined(next, said, 'replay');
      // This model takes no beginning of an answer: remembered, so that it is not asked for it again.
      const { noPrefill } = this.life.gateway;
      if (isFromUpstream(error) && noPrefill.size < MAX_REMEMBERED) noPrefill.add(keyOf(next.target));
      return leg;
    }
  }

  private joinMode({ provider, model }: RoutedTarget, said: Said): Join['mode'] {
    const { dialect, gateway } = this.life;
    const own = provider.endpoints.chat.find((endpoint) => endpoint.dialect === dialect.name);
    const { prefill } = own ?? provider.endpoints.chat[0]!;
    const text = said.soFar;
    // Half a character cannot be sent.
    const isSendable = text.trim() !== '' && text.isWellFormed();
    const isPossible = prefill !== 'no' && isSendable && !gateway.noPrefill.has(keyOf({ provider, model }));
    return isPossible && this.model.policy.rescue === 'continue' ? 'continue' : 'replay';
  }

  private estimate(chars: number): HubUsage {
    const { estimatedInputTokens } = this.life.record;
    return { inputTokens: estimatedInputTokens, outputTokens: Math.ceil(chars / 4), estimated: true };
  }
}

/** How many models are remembered to take no prefix: clients may name the models of a pattern. */
const MAX_REMEMBERED = 1_000;

function keyOf({ provider, model }: Pick<RoutedTarget, 'provider' | 'model'>): string {
  return `${provider.name} ${model ?? ''}`;
}

function isRefused(error: unknown): boolean {
  return isFromUpstream(error) || (error instanceof GatewayError && isNotSent(error));
}

function isFromUpstream(error: unknown): boolean {
  return error instanceof GatewayError && error.code === 'upstream_invalid_request';
}

function asAttempt(reply: UpstreamReply): Attempt {
  return { answer: undefined as never, abort: () => reply.abort() };
}

/** Whether an answer is not there after a while; a failure is there. */
function isLate(answer: Promise<unknown>, afterMs: number): Promise<boolean> {
  return new Promise((done) => {
    const timer = setTimeout(() => done(true), afterMs);
    const there = () => {
      clearTimeout(timer);
      done(false);
    };
    answer.then(there, there);
  });
}

/** Whichever answers first; where one fails, the other. */
function firstOf(a: Attempt, b: Attempt): Promise<Attempt> {
  return Promise.any([a.answer.then(() => a), b.answer.then(() => b)]).catch(() => a);
}
