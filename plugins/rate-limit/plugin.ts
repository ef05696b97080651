/** rate-limit: requests, tokens, money and open answers, counted in Redis for all replicas together. */
import { z } from 'zod';
import { durationMs } from '../../proto/config.ts';
import {
  type Allow,
  type AllowOrReject,
  type CallOptions,
  CONTRACT_VERSION,
  type Description,
  type LimitInput,
  type ObserveInput,
  type Plugin,
  type PluginFactory,
  type Reject,
  type RenewInput,
  type RequestFacts,
} from '../../proto/contract.ts';
import { apiKeyOf, keysOf } from '../quota/keys.ts';
import { retryHeaders } from '../quota/words.ts';
import { type RedisLink, RedisLost } from '../redis/link.ts';
import { Outbox } from '../redis/outbox.ts';
import { linkOf } from '../redis/settings.ts';
import { checkOf, counts, paidFor, usedOf } from './checks.ts';
import { CONFIG, type Config, compileLimit, KEY_BUDGET, keyBudgetLimits, type Limit, readConfig } from './config.ts';
import { Engine, newId, type Reading, SCRIPTS, type Settlement } from './engine.ts';
import { type Granted, readGrant, writeGrant } from './grant.ts';
import { type Asked, LocalShares } from './local.ts';
import * as metrics from './metrics.ts';
import { rateHeaders, refusalHeaders, type Standing, sentence } from './words.ts';

const NAME = 'rate-limit';
/** Settlements that wait for a lost Redis; a process that ends loses them, and their reservations expire. */
const MAX_UNSETTLED = 10_000;
/** Budgets of API keys that are kept compiled. */
const MAX_BUDGETS = 1000;
/** When to try again while Redis is away, in milliseconds. */
const LOST_RETRY_MS = 2000;

/** Makes the plugin. @throws ConfigProblem when the config is not its kind */
export const rateLimit: PluginFactory = {
  name: NAME,
  create: (config) => new RateLimit(readConfig(config)),
};

/** The plugin. Without Redis it answers at once, each limit as it was told to. */
export class RateLimit implements Plugin {
  readonly #config: Config;
  readonly #limits: readonly Limit[];
  readonly #budgets = new Map<string, Limit[]>();
  readonly #link: RedisLink;
  readonly #engine: Engine;
  readonly #local: LocalShares;
  readonly #outbox = new Outbox(MAX_UNSETTLED);
  readonly #unregister: () => void;
  readonly #lifetimeMs: number;

  /** @param clock of the local shares: milliseconds that never go back */
  constructor(config: Config, clock: () => number = () => performance.now()) {
    this.#config = config;
    this.#limits = config.limits.map((limit) => compileLimit(limit, config));
    this.#lifetimeMs = durationMs(config.reservation);
    this.#link = linkOf(config, Object.values(SCRIPTS));
    this.#engine = new Engine(this.#link, { prefix: config.prefix, lifetimeMs: this.#lifetimeMs });
    this.#local = new LocalShares(config.maxKeys, this.#lifetimeMs, clock);
    this.#unregister = metrics.register({ up: () => this.#link.up, waiting: () => this.#outbox.size });
  }

  /** Counts by key, for whoever asks for more than `limit` does. */
  get engine(): Engine {
    return this.#engine;
  }

  describe(): Description {
    return {
      contract: CONTRACT_VERSION,
      name: NAME,
      version: '0.1.0',
      hooks: ['limit', 'renew', 'observe'],
      rewrites: false,
      configSchema: z.toJSONSchema(CONFIG, { io: 'input' }),
    };
  }

  /** Takes from all limits or from none, in one round trip. */
  async limit(input: LimitInput, options?: CallOptions): Promise<AllowOrReject> {
    const asked = this.#asked(input);
    if (asked.length === 0) return { allow: {} };
    const id = newId();
    const checks = asked.map(({ check }) => check);
    let readings: Reading[];
    try {
      ({ readings } = await metrics.timed('decide', this.#engine.decide(checks, id)));
    } catch (error) {
      if (!(error instanceof RedisLost)) throw error;
      metrics.lost(error.loss);
      // What it has reserved all the same goes back.
      if (error.mayBeDone) this.#outbox.add(() => this.#engine.cancel(id, checks));
      return this.#withoutRedis(asked, input);
    }
    // Nobody waits any more: the grant would not come back.
    if (options?.signal?.aborted) await this.#outbox.do(() => this.#engine.cancel(id, checks));
    return this.#answer(id, asked, readings, input);
  }

  /** Keeps the reservations of an open request. */
  async renew({ grant }: RenewInput): Promise<{ allow: Allow }> {
    const { id, promises } = readGrant(grant);
    const held = promises.filter(({ reserved }) => reserved > 0);
    if (held.length > 0) await metrics.timed('renew', this.#engine.renew(id, held));
    return { allow: {} };
  }

  /** Gives back what was reserved and charges what was used. What Redis cannot take now it is told later. */
  async observe(outcome: ObserveInput): Promise<undefined> {
    if (outcome.grant === undefined) return;
    const { id, promises } = readGrant(outcome.grant);
    this.#local.settle(id, (unit) => (unit === 'requests' ? undefined : usedOf(unit, outcome)));
    const settlements = promises.map((held) => ({ ...held, used: usedOf(held.unit, outcome) }));
    await this.#outbox.do(() => this.#settle(id, settlements));
  }

  /** Prometheus text of all instances in this process. */
  metrics(): Promise<string> {
    return metrics.metricsText();
  }

  async close(): Promise<void> {
    this.#unregister();
    await this.#outbox.close(() => this.#link.close());
  }

  async #settle(id: string, settlements: readonly Settlement[]): Promise<void> {
    const beyond = await metrics.timed('settle', this.#engine.settle(id, settlements));
    if (beyond === undefined) return;
    for (const [i, { unit, used }] of settlements.entries()) metrics.settled(unit, used, beyond[i] ?? 0);
  }

  #asked(input: LimitInput): Asked[] {
    const asked: Asked[] = [];
    for (const limit of this.#limitsFor(input.request)) {
      if (!counts(limit, input.request)) continue;
      for (const key of keysOf(limit, limit.name, input.request)) {
        asked.push({ limit, check: checkOf(limit, key, input) });
      }
    }
    return asked;
  }

  #limitsFor(request: RequestFacts): readonly Limit[] {
    const budget = this.#config.keyBudgets === false ? undefined : apiKeyOf(request)?.budget;
    return budget === undefined ? this.#limits : [...this.#limits, ...this.#budgetLimits(budget)];
  }

  /** @throws ZodError for a budget that cannot be read: nobody may pass by it */
  #budgetLimits(budget: unknown): Limit[] {
    const name = JSON.stringify(budget);
    let limits = this.#budgets.get(name);
    if (limits === undefined) {
      limits = keyBudgetLimits(KEY_BUDGET.parse(budget), this.#config);
      if (this.#budgets.size >= MAX_BUDGETS) this.#budgets.clear();
      this.#budgets.set(name, limits);
    }
    return limits;
  }

  #answer(id: string, asked: readonly Asked[], readings: readonly Reading[], input: LimitInput): AllowOrReject {
    const standings = asked.map(({ limit, check }, i) => ({
      limit,
      reading: readings[i]!,
      needed: check.take + check.least,
    }));
    const refusing = standings.filter(({ reading }) => !reading.agrees);
    if (refusing.length > 0) return this.#refusal(refusing);
    metrics.decided('admitted');
    const promises = asked.flatMap(({ limit, check }, i) =>
      limit.type === 'requests' ? [] : [{ ...check, reserved: readings[i]!.reserved, debt: limit.debt }],
    );
    for (const { unit, reserved } of promises) metrics.reserved(unit, reserved);
    return { allow: this.#allow(standings, { id, promises }, input) };
  }

  #allow(standings: readonly Standing[], granted: Granted, input: LimitInput): Allow {
    const headers = rateHeaders(standings);
    if (granted.promises.length === 0) return { headers };
    const paid = standings.flatMap(({ limit, reading }) => paidFor(limit, reading.reserved, input) ?? []);
    const isHeld = granted.promises.some(({ reserved }) => reserved > 0);
    return {
      headers,
      grant: writeGrant(granted),
      ...(paid.length > 0 && { outputTokens: Math.max(0, Math.min(...paid)) }),
      ...(isHeld && { renewMs: Math.max(500, Math.floor(this.#lifetimeMs / 3)) }),
    };
  }

  /** Tells of the limit that takes longest, so that nobody comes back too early. */
  #refusal(refusing: readonly Standing[]): AllowOrReject {
    const slowest = refusing.reduce((a, b) => (b.reading.waitMs > a.reading.waitMs ? b : a));
    const { refusal, name } = slowest.limit;
    metrics.decided('refused');
    metrics.refused(name);
    const { code, status, body, contentType } = refusal;
    const message = refusal.message?.replaceAll('{sentence}', () => sentence(slowest)) ?? sentence(slowest);
    const reject: Reject = { code, message, status, headers: refusalHeaders(slowest) };
    return { reject: body === undefined ? reject : { ...reject, body, contentType } };
  }

  /** Each limit as it was told: one that rejects is enough; those with a share must have something left. */
  #withoutRedis(asked: readonly Asked[], input: LimitInput): AllowOrReject {
    metrics.decided('lost');
    if (asked.some(({ limit }) => limit.onRedisLoss === 'reject')) return { reject: UNAVAILABLE };
    const id = newId();
    const shared = asked.filter(({ limit }) => limit.onRedisLoss === 'local');
    const readings = this.#local.decide(id, shared);
    const standings = shared.map(({ limit, check }, i) => ({
      limit: shareOf(limit),
      reading: readings[i]!,
      needed: check.take + check.least,
    }));
    const refusing = standings.filter(({ reading }) => !reading.agrees);
    if (refusing.length > 0) return this.#refusal(refusing);
    const promises = asked
      .filter(({ limit }) => limit.type !== 'requests')
      .map(({ limit, check }) => ({ ...check, reserved: 0, debt: limit.debt }));
    return { allow: this.#allow(standings, { id, promises }, input) };
  }
}

const UNAVAILABLE: Reject = {
  code: 'quota_unavailable',
  message: 'Your quota cannot be looked up at the moment. Try again in some seconds.',
  status: 503,
  headers: retryHeaders(LOST_RETRY_MS),
};

/** A limit as a local share knows it: its headers tell of the share. */
function shareOf(limit: Limit): Limit {
  const max = Math.max(1, Math.floor(limit.meter.max * limit.share));
  return { ...limit, meter: { ...limit.meter, max } };
}
