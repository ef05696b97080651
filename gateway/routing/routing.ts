/** What outlives the config: the health of the targets, and the models made ready to be routed. */
import type { SharedMarks } from '../../proto/marks.ts';
import { DEFAULT_ROUTING, type ModelConfig, type TargetConfig } from '../config/schema.ts';
import type { Provider } from '../providers/provider.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { RetryBudget } from './budget.ts';
import { compileCondition } from './condition.ts';
import { HealthTable, STATES, type TargetHealth } from './health.ts';
import type { CompiledModel, RoutedTarget, RoutingEvents, RoutingPolicy, TargetTimeouts } from './router.ts';
import { STRATEGIES } from './strategies.ts';

export interface RoutingOptions {
  metrics: Metrics;
  /** Tells other replicas which targets are to be left alone; default: nobody is told. */
  marks?: SharedMarks;
  /** A clock that never goes back, in milliseconds; default `performance.now`. */
  now?: () => number;
  /** From 0 up to 1; default `Math.random`. */
  random?: () => number;
}

/** The longest that another replica can have a target left alone, in milliseconds: its config may be another one. */
const LONGEST_MARK_MS = 300_000;

export class Routing {
  private readonly health = new HealthTable();
  private readonly events: RoutingEvents;
  private readonly stopListening: (() => void) | undefined;

  constructor({ metrics, marks, now = () => performance.now(), random = Math.random }: RoutingOptions) {
    this.events = {
      now,
      random,
      retried: ({ provider }) => count(metrics.retries.cell({ provider: provider.name })),
      movedOn: (reason) => count(metrics.failovers.cell({ reason })),
      hedged: (outcome) => count(metrics.hedges.cell({ outcome })),
      cooled({ health }, ms) {
        count(metrics.cooldowns.cell({ provider: health.provider, model: health.model }));
        marks?.mark(health.key, ms);
      },
      conditionFailed: (model) => count(metrics.conditionFaults.cell({ model })),
    };
    this.stopListening = marks?.onMark((key, ms) => {
      this.health.find(key)?.cool(now(), Math.min(ms, LONGEST_MARK_MS));
    });
    metrics.watchTargets(() => [...this.health.all()].map((one) => stateOf(one, now())));
  }

  /** Makes the models of a config ready. What is known of targets that it does not have is forgotten. */
  compile(models: Record<string, ModelConfig>, providers: ReadonlyMap<string, Provider>): CompiledModel[] {
    const compiled = Object.entries(models).map(([id, model]) => this.model(id, model, providers));
    this.health.keep(new Set(compiled.flatMap(targetsOf).map(({ health }) => health)));
    return compiled;
  }

  /** Hears of no more marks. */
  close(): void {
    this.stopListening?.();
  }

  private model(id: string, config: ModelConfig, providers: ReadonlyMap<string, Provider>): CompiledModel {
    const whole = wholeModel(config);
    const made = (target: TargetConfig) => this.target(id, target, whole.timeouts, providers.get(target.provider)!);
    const { contextWindow, contentPolicy } = whole.fallbacks;
    const { ratio, perSecond } = whole.retry.budget;
    return {
      id,
      targets: whole.targets.map(made),
      policy: policyOf(whole),
      fallbacks: { contextWindow: contextWindow?.map(made), contentPolicy: contentPolicy?.map(made) },
      budget: new RetryBudget({ ratio, perSecond }, this.events.now()),
      events: this.events,
      picks: 0,
    };
  }

  private target(id: string, config: TargetConfig, common: Partial<TargetTimeouts>, provider: Provider): RoutedTarget {
    const { model, weight, priority, when } = config;
    return {
      provider,
      model,
      weight,
      priority,
      when: when === undefined ? undefined : compileCondition(when),
      health: this.health.of(provider.name, model ?? id),
      timeouts: { ...NO_TIMEOUTS, ...common, ...config.timeouts },
      pickedAt: 0,
    };
  }
}

const NO_TIMEOUTS: TargetTimeouts = { attempt: undefined, firstToken: undefined, stall: undefined, total: undefined };

type WholeModel = Extract<ModelConfig, { targets: unknown }>;

/**
 * The short forms have one target: with nobody to take its place it is not shut off, a stream of it that breaks stays
 * broken, and everything else is as it is by default.
 */
function wholeModel(config: ModelConfig): WholeModel {
  if (typeof config === 'object' && 'targets' in config) return config;
  const only = typeof config === 'string' ? { provider: config } : config;
  return { ...DEFAULT_ROUTING, breaker: false, rescue: 'off', targets: [{ weight: 1, priority: 0, ...only }] };
}

function policyOf({ strategy, retry, breaker, cooldown, hedge, rescue }: WholeModel): RoutingPolicy {
  const { attempts, perTarget, backoff, maxWait, on } = retry;
  return {
    pick: STRATEGIES[strategy],
    retry: { attempts, perTarget, baseMs: backoff.base, maxMs: backoff.max, maxWaitMs: maxWait, on: new Set(on) },
    breaker: breaker === false ? undefined : { failures: breaker.failures, cooldownMs: breaker.cooldown },
    cooldown: { defaultMs: cooldown.default, maxMs: cooldown.max },
    hedgeAfter: hedge?.after,
    rescue,
  };
}

function targetsOf({ targets, fallbacks }: CompiledModel): RoutedTarget[] {
  return [...targets, ...(fallbacks.contextWindow ?? []), ...(fallbacks.contentPolicy ?? [])];
}

function stateOf(health: TargetHealth, now: number) {
  const { provider, model } = health;
  return { labels: { provider, model }, value: STATES.indexOf(health.state(now)) };
}

function count(cell: { value: number }): void {
  cell.value += 1;
}
