/** Models for the tests of routing: a clock that stands still until it is moved, chance that is scripted, and counts. */
import type { ErrorCode } from '../../../gateway/errors.ts';
import { GatewayError } from '../../../gateway/errors.ts';
import type { Provider } from '../../../gateway/providers/provider.ts';
import { RetryBudget } from '../../../gateway/routing/budget.ts';
import { TargetHealth } from '../../../gateway/routing/health.ts';
import {
  type CompiledModel,
  type Plan,
  plan,
  type RoutedTarget,
  type RoutingFacts,
  type RoutingPolicy,
} from '../../../gateway/routing/router.ts';
import { STRATEGIES } from '../../../gateway/routing/strategies.ts';

export type Settings = Omit<Partial<RoutingPolicy>, 'retry' | 'pick'> & {
  strategy?: keyof typeof STRATEGIES;
  retry?: Partial<RoutingPolicy['retry']>;
  budget?: { ratio: number; perSecond: number };
};

export type TargetSettings = Partial<Omit<RoutedTarget, 'provider' | 'health'>> & { name: string };

export const FACTS: RoutingFacts = {
  identity: undefined,
  headers: {},
  model: 'm',
  route: '/',
  promptTokens: 10,
  streamed: true,
};

/** What is moved on from when the config says nothing. */
const DEFAULT_ON = new Set([408, 409, 429, '5xx', 'connection', 'timeout', 'bad-answer']);

/** A model with these targets: names, or more. */
export function modelOf(targets: (string | TargetSettings)[], settings: Settings = {}) {
  const { strategy = 'priority', retry, budget = { ratio: 0.2, perSecond: 10 }, ...policy } = settings;
  const clock = { now: 0, random: () => 0.5 };
  const told: Record<string, number> = {};
  const count = (what: string) => {
    told[what] = (told[what] ?? 0) + 1;
  };
  const model: CompiledModel = {
    id: 'm',
    targets: targets.map(targetOf),
    policy: {
      pick: STRATEGIES[strategy],
      breaker: { failures: 5, cooldownMs: 10_000 },
      cooldown: { defaultMs: 10_000, maxMs: 300_000 },
      hedgeAfter: undefined,
      rescue: 'continue',
      ...policy,
      retry: {
        attempts: undefined,
        perTarget: 1,
        baseMs: 50,
        maxMs: 1_000,
        maxWaitMs: 10_000,
        on: DEFAULT_ON,
        ...retry,
      },
    },
    fallbacks: {},
    budget: new RetryBudget(budget, 0),
    events: {
      now: () => clock.now,
      random: () => clock.random(),
      retried: () => count('retried'),
      movedOn: (reason) => count(`movedOn ${reason}`),
      hedged: (outcome) => count(`hedge ${outcome}`),
      cooled: ({ health }, ms) => count(`cooled ${health.provider} ${ms}`),
      conditionFailed: () => count('conditionFailed'),
    },
    picks: 0,
  };
  return { model, clock, told, plan: (facts: Partial<RoutingFacts> = {}) => plan(model, { ...FACTS, ...facts }) };
}

export function targetOf(settings: string | TargetSettings): RoutedTarget {
  const { name, ...rest } = typeof settings === 'string' ? { name: settings } : settings;
  return {
    provider: { name } as Provider,
    model: undefined,
    weight: 1,
    priority: 0,
    when: undefined,
    health: new TargetHealth(name, 'm'),
    timeouts: { attempt: undefined, firstToken: undefined, stall: undefined, total: undefined },
    pickedAt: 0,
    ...rest,
  };
}

/** A provider's failure. */
export function failure(code: ErrorCode, details: { status?: number; retryAfterMs?: number } = {}): GatewayError {
  return new GatewayError(code, code, { upstreamStatus: details.status, retryAfterMs: details.retryAfterMs });
}

export const FAILED = failure('upstream_failed', { status: 500 });
export const UNREACHABLE = failure('upstream_unreachable');
export const LATE = failure('upstream_timeout');
export function limited(retryAfterMs?: number): GatewayError {
  return failure('upstream_rate_limited', { status: 429, retryAfterMs });
}

/**
 * Goes through a plan as the gateway does: `answer` says of each target how it fails, undefined when it answers. Gives the
 * names of all that were asked, with the waits that are not 0.
 */
export function run(one: Plan, answer: (name: string, attempt: number) => GatewayError | undefined): string[] {
  const asked: string[] = [];
  let failed: GatewayError | undefined;
  for (let next = one.next(); next !== undefined; next = one.next(failed)) {
    const { name } = next.target.provider;
    asked.push(next.waitMs > 0 ? `${name} after ${next.waitMs}` : name);
    failed = answer(name, next.attempt);
    const { code, retryAfterMs } = failed ?? {};
    one.tell(next.target, { ok: failed === undefined, code, retryAfterMs, durationMs: 100 });
    if (failed === undefined) break;
  }
  return asked;
}
