/**
 * Which target is asked, when another one is, and when one is left alone.
 *
 * A plan is one request's way through the targets of its model. It opens no connection and keeps no timer: whoever sends
 * the requests asks it for the next target, and tells it what became of each.
 */
import type { Identity } from '../../proto/contract.ts';
import { type ErrorCode, GatewayError } from '../errors.ts';
import type { Provider } from '../providers/provider.ts';
import type { RetryBudget } from './budget.ts';
import type { Permit } from './circuit.ts';
import { type Condition, type ConditionVariables, conditionVariables } from './condition.ts';
import type { TargetHealth } from './health.ts';
import { isConnectionLost, isNotSent, isPassing, isTargetsFault, type Triggers } from './passing.ts';
import type { Strategy } from './strategies.ts';

/** In milliseconds; undefined: no bound. */
export interface TargetTimeouts {
  /** One try, until its answer begins; for an answer that is not streamed, until it is whole. */
  attempt: number | undefined;
  /** One try, until the first piece of content of a stream; keep-alives are none. */
  firstToken: number | undefined;
  /** Between two pieces of content of a stream. */
  stall: number | undefined;
  /** All tries and the waits between them. */
  total: number | undefined;
}

/** One target of a model. */
export interface RoutedTarget {
  provider: Provider;
  /** Undefined: the name that the client asked for. */
  model: string | undefined;
  weight: number;
  /** The lowest is asked first by the strategy `priority`. */
  priority: number;
  /** Undefined: it is there for every request. */
  when: Condition | undefined;
  health: TargetHealth;
  timeouts: TargetTimeouts;
  /** The model's picks so far when this one was picked last; 0: never. */
  pickedAt: number;
}

/** How a model's targets are used; times in milliseconds. */
export interface RoutingPolicy {
  pick: Strategy;
  retry: {
    /** Tries in total, the first included; undefined: each target `perTarget` times. */
    attempts: number | undefined;
    perTarget: number;
    baseMs: number;
    maxMs: number;
    /** The longest wait for a target that said when it wants to be asked again. */
    maxWaitMs: number;
    on: Triggers;
  };
  /** Undefined: none. */
  breaker: { failures: number; cooldownMs: number } | undefined;
  /** How long a target that is over its limit is left alone, when it does not say, and at most. */
  cooldown: { defaultMs: number; maxMs: number };
  /** When a second request is sent beside the first; undefined: never. */
  hedgeAfter: number | 'p95' | undefined;
  rescue: 'continue' | 'replay' | 'off';
}

/** What the plans of all models share. */
export interface RoutingEvents {
  /** A clock that never goes back, in milliseconds. */
  now(): number;
  /** From 0 up to 1. */
  random(): number;
  retried(target: RoutedTarget): void;
  movedOn(reason: ErrorCode): void;
  hedged(outcome: 'won' | 'lost' | 'failed' | 'denied'): void;
  /** A target is to be left alone for so many milliseconds. */
  cooled(target: RoutedTarget, ms: number): void;
  conditionFailed(model: string): void;
}

/** A failure for which there are targets of its own. */
export type FallbackKind = 'contextWindow' | 'contentPolicy';

export interface CompiledModel {
  id: string;
  targets: RoutedTarget[];
  policy: RoutingPolicy;
  /** Targets for requests that the others refused for this reason. */
  fallbacks: Partial<Record<FallbackKind, RoutedTarget[]>>;
  budget: RetryBudget;
  events: RoutingEvents;
  /** Picks so far. */
  picks: number;
}

/** What the choice may depend on. */
export interface RoutingFacts {
  /** The client's own order of where to go on when the first target fails; undefined: the strategy's. */
  goOn?: readonly RoutedTarget[];
  identity: Identity | undefined;
  headers: Readonly<Record<string, string | undefined>>;
  /** The name that the client asked for. */
  model: string;
  /** The route's prefix. */
  route: string;
  /** An estimate. */
  promptTokens: number;
  streamed: boolean;
}

/** What became of an attempt; times in milliseconds from its start. */
export interface Outcome {
  ok: boolean;
  /** Why it failed; undefined with `ok: false`: it was given up, which says nothing of the target. */
  code?: ErrorCode;
  /** How long the target wants to be left alone. */
  retryAfterMs?: number;
  firstTokenMs?: number;
  durationMs: number;
}

/** A target to ask, in how many milliseconds; tries are counted from 1. */
export interface Attempt {
  target: RoutedTarget;
  waitMs: number;
  /** How long it may take from then on, in milliseconds: the target's own bound, or what is left of the total. */
  timeoutMs: number | undefined;
  attempt: number;
}

/** One request's way through a model's targets. Every attempt that it gives is to be told the end of. */
export interface Plan {
  /**
   * The next target to ask; undefined when there is none left, or when another try would not help.
   *
   * @param failure why the last attempt failed; undefined at the first
   * @throws GatewayError at the first call, when no target takes such a request, or when all of them have failed too often
   */
  next(failure?: GatewayError): Attempt | undefined;
  /** An attempt's first token is there, so many milliseconds after its start. Its end is still to be told. */
  began(target: RoutedTarget, firstTokenMs: number): void;
  /** Tells what became of the last attempt at a target. */
  tell(target: RoutedTarget, outcome: Outcome): void;
  /** When a second request is to be sent beside the first, in milliseconds from its start; undefined: never. */
  readonly hedgeAfterMs: number | undefined;
  /** A target for the second request; undefined when none is fit, or too many were sent already. */
  hedge(): Attempt | undefined;
  /** What the client is told when `next` has none left: the failure itself, or the sum of several providers' failures. */
  verdict(failure: GatewayError): GatewayError;
}

/** A try that has less time than this, in milliseconds, is not begun: timers go off a little early. */
const SHORTEST_TRY_MS = 5;

/** Makes the plan of one request. */
export function plan(model: CompiledModel, facts: RoutingFacts): Plan {
  return new RequestPlan(model, facts);
}

/** What a plan remembers of a target that it has given. */
interface Tried {
  tries: number;
  permit: Permit;
  startedAt: number;
  /** Whether the end of the last attempt is still to be told. */
  isOpen: boolean;
  hasBegun: boolean;
  isHedge: boolean;
}

class RequestPlan implements Plan {
  private readonly model: CompiledModel;
  private readonly facts: RoutingFacts;
  private readonly startedAt: number;
  private candidates: readonly RoutedTarget[] = [];
  private readonly tried = new Map<RoutedTarget, Tried>();
  private readonly failures: { target: RoutedTarget; failure: GatewayError }[] = [];
  private attempts = 0;
  private last: RoutedTarget | undefined;
  private hasFallenBack = false;
  private hadOneMore = false;

  constructor(model: CompiledModel, facts: RoutingFacts) {
    this.model = model;
    this.facts = facts;
    this.startedAt = model.events.now();
  }

  next(failure?: GatewayError): Attempt | undefined {
    const now = this.model.events.now();
    if (this.last === undefined) return this.first(now);
    if (failure === undefined) return this.elsewhere(now);
    this.failures.push({ target: this.last, failure });
    if (isNotSent(failure)) return this.notSent(now, failure);
    const special = this.fallBack(failure, now);
    if (special !== undefined) return special;
    const { attempts = Number.POSITIVE_INFINITY, on } = this.model.policy.retry;
    if (!isPassing(failure, on) || this.attempts >= attempts) return undefined;
    return this.sameAgain(now) ?? this.elsewhere(now, failure) ?? this.allAgain(now, failure);
  }

  private first(now: number): Attempt {
    const { model, facts } = this;
    model.budget.earn(now);
    this.candidates = this.fitting(model.targets);
    if (this.candidates.length === 0) {
      throw new GatewayError(
        'model_not_found',
        `No target of the model “${facts.model}” takes such a request. Choose another model, or ask the gateway’s operator.`,
        { param: 'model' },
      );
    }
    const target = this.pickReady(now) ?? this.pickCooling(now);
    if (target === undefined) throw this.allOpen(now);
    return this.give(target, now, 0);
  }

  /** The targets whose condition is true; a condition that cannot be evaluated is not. */
  private fitting(targets: readonly RoutedTarget[]): readonly RoutedTarget[] {
    let variables: ConditionVariables | undefined;
    if (targets.every(({ when }) => when === undefined)) return targets;
    return targets.filter(({ when }) => {
      if (when === undefined) return true;
      variables ??= conditionVariables(this.facts);
      const answer = when(variables);
      if (answer === undefined) this.model.events.conditionFailed(this.model.id);
      return answer === true;
    });
  }

  /** Another target may have a word for what this one has not. That was no try: nothing was sent. */
  private notSent(now: number, failure: GatewayError): Attempt | undefined {
    this.attempts -= 1;
    return this.elsewhere(now, failure);
  }

  /** A request that is too long, or not to their taste, has targets of its own where the config names some. */
  private fallBack({ fallback }: GatewayError, now: number): Attempt | undefined {
    const targets = fallback === undefined ? undefined : this.model.fallbacks[fallback];
    if (targets === undefined || this.hasFallenBack) return undefined;
    this.hasFallenBack = true;
    this.candidates = this.fitting(targets).filter((target) => !this.tried.has(target));
    const target = this.pickReady(now) ?? this.pickCooling(now);
    if (target === undefined) return undefined;
    this.model.events.movedOn(this.failures.at(-1)!.failure.code);
    return this.give(target, now, 0);
  }

  /** The target that has just failed, when it is to be tried several times in a row. */
  private sameAgain(now: number): Attempt | undefined {
    const target = this.last!;
    if (this.tried.get(target)!.tries >= this.model.policy.retry.perTarget) return undefined;
    return this.repeat(target, now);
  }

  /** A target that this request has not asked yet: one that is well, or else one that is over its limit. */
  private elsewhere(now: number, failure?: GatewayError): Attempt | undefined {
    const target = this.pickReady(now) ?? this.pickCooling(now);
    if (target === undefined || this.isTooLate(now)) return undefined;
    if (failure !== undefined) this.model.events.movedOn(failure.code);
    return this.give(target, now, 0);
  }

  /**
   * All have been asked: again from the one that was asked the least, while the config's attempts last. Without a number
   * there, a connection that was lost is tried once more: it may have been an idle one at its end.
   */
  private allAgain(now: number, failure: GatewayError): Attempt | undefined {
    if (this.model.policy.retry.attempts === undefined) {
      if (this.hadOneMore || !isConnectionLost(failure)) return undefined;
      this.hadOneMore = true;
    }
    const tries = (target: RoutedTarget) => this.tried.get(target)?.tries ?? 0;
    const inTurn = this.candidates.toSorted((a, b) => tries(a) - tries(b));
    for (const target of inTurn) {
      const attempt = this.repeat(target, now);
      if (attempt !== undefined) return attempt;
    }
    return undefined;
  }

  /** Another try at a target that was asked already, if that is worth the wait. */
  private repeat(target: RoutedTarget, now: number): Attempt | undefined {
    const { health } = target;
    const { policy, budget, events } = this.model;
    const waitMs = Math.max(this.backoff(this.tried.get(target)?.tries ?? 1), health.coolsUntil - now);
    const longest = Math.max(policy.retry.maxWaitMs, policy.retry.maxMs);
    if (!health.circuit.admits(now) || waitMs > longest || this.isTooLate(now + waitMs)) return undefined;
    if (!budget.spend(now)) return undefined;
    events.retried(target);
    return this.give(target, now, waitMs);
  }

  /** Doubles with each try, up to the longest; half of it is left to chance, so that those who failed together part. */
  private backoff(tries: number): number {
    const { baseMs, maxMs } = this.model.policy.retry;
    return Math.min(maxMs, baseMs * 2 ** (tries - 1)) * (0.5 + 0.5 * this.model.events.random());
  }

  private isTooLate(at: number): boolean {
    const { total } = this.last!.timeouts;
    return total !== undefined && at > this.startedAt + total - SHORTEST_TRY_MS;
  }

  private pickReady(now: number): RoutedTarget | undefined {
    const { goOn } = this.facts;
    if (goOn !== undefined && this.last !== undefined)
      return goOn.find((target) => !this.tried.has(target) && target.health.isReady(now));
    const ready = this.candidates.filter((target) => !this.tried.has(target) && target.health.isReady(now));
    if (ready.length < 2) return ready[0];
    return this.model.policy.pick(ready, { isStream: this.facts.streamed, random: this.model.events.random });
  }

  /** Better to ask one that is over its limit than none: the one whose time is up first. */
  private pickCooling(now: number): RoutedTarget | undefined {
    return this.candidates
      .filter((target) => !this.tried.has(target) && target.health.circuit.admits(now))
      .sort((a, b) => a.health.coolsUntil - b.health.coolsUntil)[0];
  }

  private give(target: RoutedTarget, now: number, waitMs: number, isHedge = false): Attempt {
    const { model, facts } = this;
    const { health } = target;
    const tries = (this.tried.get(target)?.tries ?? 0) + 1;
    const permit = health.circuit.enter(now);
    this.tried.set(target, { tries, permit, startedAt: now + waitMs, isOpen: true, hasBegun: false, isHedge });
    for (const other of this.candidates) if (other !== target) other.health.latency(facts.streamed).passed();
    health.latency(facts.streamed).chosen();
    model.picks += 1;
    target.pickedAt = model.picks;
    this.last = target;
    this.attempts += 1;
    return { target, waitMs, timeoutMs: this.timeLeft(target, now + waitMs), attempt: this.attempts };
  }

  private timeLeft({ timeouts: { attempt, total } }: RoutedTarget, from: number): number | undefined {
    const left = total === undefined ? undefined : this.startedAt + total - from;
    return attempt === undefined || left === undefined ? (attempt ?? left) : Math.min(attempt, left);
  }

  began(target: RoutedTarget, firstTokenMs: number): void {
    const tried = this.tried.get(target);
    if (tried === undefined || !tried.isOpen || tried.hasBegun) return;
    tried.hasBegun = true;
    target.health.latency(this.facts.streamed).add(firstTokenMs);
    const { breaker } = this.model.policy;
    if (breaker !== undefined) target.health.circuit.began(tried.permit, breaker);
  }

  tell(target: RoutedTarget, outcome: Outcome): void {
    const tried = this.tried.get(target);
    if (tried === undefined || !tried.isOpen) return;
    tried.isOpen = false;
    if (tried.isHedge) this.model.events.hedged(outcome.ok ? 'won' : outcome.code === undefined ? 'lost' : 'failed');
    if (outcome.ok) this.toldWell(target, tried, outcome);
    else this.toldFailure(target, tried.permit, outcome);
  }

  private toldWell(
    target: RoutedTarget,
    { permit, startedAt, hasBegun }: Tried,
    { firstTokenMs, durationMs }: Outcome,
  ): void {
    const { health } = target;
    const { streamed } = this.facts;
    if (!hasBegun) health.latency(streamed).add(streamed ? (firstTokenMs ?? durationMs) : durationMs);
    health.succeeded(permit, startedAt);
  }

  private toldFailure(target: RoutedTarget, permit: Permit, { code, retryAfterMs }: Outcome): void {
    const { policy, events } = this.model;
    const { health } = target;
    const now = events.now();
    const isOverLimit = code === 'upstream_rate_limited';
    if (isOverLimit || (code !== undefined && retryAfterMs !== undefined)) {
      const ms = Math.min(policy.cooldown.maxMs, retryAfterMs ?? policy.cooldown.defaultMs);
      if (health.cool(now, ms)) events.cooled(target, ms);
    }
    if (policy.breaker !== undefined && code !== undefined && isTargetsFault(code, policy.retry.on))
      health.failed(permit, now, policy.breaker);
    else health.circuit.released(permit);
  }

  get hedgeAfterMs(): number | undefined {
    const { hedgeAfter } = this.model.policy;
    if (hedgeAfter === undefined || this.candidates.length < 2) return undefined;
    return hedgeAfter === 'p95' ? this.last?.health.latency(this.facts.streamed).p95 : hedgeAfter;
  }

  hedge(): Attempt | undefined {
    const { budget, events } = this.model;
    const now = events.now();
    const first = this.last;
    const target = this.pickReady(now);
    if (first === undefined || target === undefined || this.isTooLate(now)) return undefined;
    if (budget.spend(now)) return this.give(target, now, 0, true);
    events.hedged('denied');
    return undefined;
  }

  verdict(failure: GatewayError): GatewayError {
    const names = new Set(this.failures.map(({ target }) => target.provider.name));
    if (names.size < 2 || !isPassing(failure, this.model.policy.retry.on)) return failure;
    const failures = this.failures.map((one) => one.failure);
    if (failures.every(({ code }) => code === 'upstream_rate_limited')) {
      return failures.toSorted((a, b) => (a.retryAfterMs ?? 0) - (b.retryAfterMs ?? 0))[0]!;
    }
    const told = new Map(this.failures.map(({ target, failure: { code } }) => [target.provider.name, WORDS[code]]));
    const list = [...told].map(([name, word]) => `“${name}” (${word ?? 'refused'})`).join(', ');
    return new GatewayError('upstream_failed', `All providers failed: ${list}. Try again in a moment.`, {
      cause: failure.details.cause,
    });
  }

  private allOpen(now: number): GatewayError {
    const times = this.candidates.map(({ health }) => health.circuit.opensAt(now));
    const seconds = Math.max(1, Math.ceil((Math.min(...times) - now) / 1_000));
    return new GatewayError(
      'upstream_overloaded',
      `Every provider of the model “${this.facts.model}” has failed too often of late. Try again in ${seconds} seconds.`,
      { headers: { 'retry-after': String(seconds) }, cause: 'breaker_open' },
    );
  }
}

/** What is said of each failure in the sum of several. */
const WORDS: Partial<Record<ErrorCode, string>> = {
  upstream_unreachable: 'not reached',
  upstream_timeout: 'too slow',
  upstream_failed: 'failed',
  upstream_overloaded: 'overloaded',
  upstream_rate_limited: 'at its rate limit',
  upstream_bad_answer: 'answered something unreadable',
  upstream_refused_key: 'refused the gateway’s key',
  stream_broken: 'broke off',
};
