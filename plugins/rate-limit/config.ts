/** The config of rate-limit, and the limits that it compiles to. */
import { z } from 'zod';
import { durationMs, parseConfig } from '../../proto/config.ts';
import { count, duration, limitName, partsProblem, refusal, scope, scopeOf } from '../quota/fields.ts';
import type { Part, Scope } from '../quota/keys.ts';
import { connection } from '../redis/settings.ts';
import type { Meter } from './engine.ts';
import { MAX_USD, NANO_USD } from './money.ts';
import { policyOf } from './words.ts';

const PARTS = ['identity', 'tenant', 'group', 'key', 'model', 'route', 'all'] as const;
const CALENDAR = { minute: 60_000, hour: 3_600_000, day: 86_400_000, month: 'month' } as const;

/** Up to so many amounts a sliding window remembers each; beyond, it has so many slices. */
const SLICES = 256;
const DEFAULT_ANSWER_TOKENS = 4096;

const header = z.string().regex(/^[!#$%&'*+.^_`|~0-9a-z-]{1,64}$/, 'Header names are written in lower case.');
const PER = `Write one of ${PARTS.join(', ')}, header:NAME in lower case, or a list of them.`;
const part = z.union([z.enum(PARTS), z.templateLiteral(['header:', header])], { error: PER });
const onRedisLoss = z.enum(['reject', 'allow', 'local']);
const share = z.number().positive().max(1).default(0.25);

const limit = z.strictObject({
  name: limitName,
  per: z
    .union([part, z.array(part).min(1)], { error: PER })
    .default('route')
    .describe('What is counted apart; a list means each combination.'),
  type: z.enum(['requests', 'tokens', 'cost', 'concurrent']).default('requests'),
  max: z
    .number()
    .positive()
    .max(Number.MAX_SAFE_INTEGER)
    .optional()
    .describe('Requests, tokens, USD, or open answers.'),
  window: z
    .string()
    .refine(
      (text) => isCalendar(text) || duration.safeParse(text).success,
      'Write a time such as 30s, 1m or 24h, or a calendar word: minute, hour, day, month (UTC).',
    )
    .optional(),
  algorithm: z.enum(['sliding', 'fixed', 'gcra']).optional().describe('Default: sliding; fixed for calendar words.'),
  burst: count.optional().describe('With gcra: how much may come at once. Default: max.'),
  requestsPerMinute: count.optional().describe('In place of max, window and algorithm: gcra with this rate.'),
  reserve: z
    .union([z.boolean(), z.literal('with-answer')], { error: 'Write true, false or with-answer.' })
    .default(false)
    .describe('For tokens and cost: take the estimated prompt before (`with-answer`: and the answer), settle after.'),
  answerTokens: count
    .default(DEFAULT_ANSWER_TOKENS)
    .describe('With `reserve: with-answer`: the most that is reserved for an answer, and the most that one may have.'),
  debt: z.boolean().default(true).describe('For tokens and cost: false forgives what goes beyond the limit.'),
  ...scope,
  headers: z
    .record(header, z.union([z.string(), z.array(z.string()).min(1)]))
    .optional()
    .describe('Counts only requests with these header values; "" is an absent or empty one, "*" any other.'),
  onRedisLoss: onRedisLoss.optional().describe('While Redis is away. Default: as for the plugin.'),
  share: share.describe('With `onRedisLoss: local`: the part of the limit that this process may give.'),
  code: z
    .string()
    .regex(/^[a-z0-9_]{1,64}$/, 'A code is made of lower-case letters, digits and underscores.')
    .default('rate_limit_exceeded'),
  status: refusal.status.unwrap().optional(),
  message: refusal.message,
  body: refusal.body,
  contentType: refusal.contentType.unwrap().optional(),
});

type LimitConfig = z.output<typeof limit>;

const keyBudgets = z.strictObject({
  onRedisLoss: onRedisLoss.default('reject'),
  share,
  reserve: limit.shape.reserve,
  answerTokens: limit.shape.answerTokens,
  message: z.string().min(1).default('Budget exceeded'),
  code: z.string().default('budget_exceeded'),
});

/** The config of rate-limit. */
export const CONFIG = z
  .strictObject({
    ...connection,
    prefix: z
      .string()
      .max(128)
      .default('{wardgate}:limit:')
      .describe('What all keys begin with. Braces keep them on one node of a cluster.'),
    reservation: duration.default('60s').describe('How long a reservation lives unless it is renewed.'),
    limits: z.array(limit).max(64).default([]),
    keyBudgets: z
      .union([z.boolean(), keyBudgets])
      .default(false)
      .describe('Holds API keys to the budgets that api-key-auth tells of them.'),
    onRedisLoss: onRedisLoss.default('reject'),
    maxKeys: count.default(100_000).describe('How many counts a local share may have at once.'),
    ...refusal,
  })
  .superRefine((config, context) => {
    const say = (path: (string | number)[], message: string) => context.addIssue({ code: 'custom', path, message });
    if (config.limits.length === 0 && config.keyBudgets === false) say(['limits'], 'Name at least one limit.');
    if (durationMs(config.reservation) < 2000) say(['reservation'], 'It must be 2s at least.');
    const names = new Set<string>();
    for (const [index, one] of config.limits.entries()) {
      for (const [field, message] of limitProblems(one)) say(['limits', index, field], message);
      const name = nameOf(one);
      if (names.has(name)) say(['limits', index, 'name'], `Another limit is called ${name}: give each its own name.`);
      names.add(name);
    }
  });

export type Config = z.output<typeof CONFIG>;

/** What a refusal by a limit looks like. */
export interface Refusal {
  code: string;
  status: number;
  message?: string;
  body?: string;
  contentType: string;
}

/** A limit made ready for the hot path. */
export interface Limit extends Scope {
  name: string;
  /** Its `RateLimit-Policy`. */
  policy: string;
  type: LimitConfig['type'];
  meter: Omit<Meter, 'key'>;
  reserve: boolean | 'with-answer';
  answerTokens: number;
  debt: boolean;
  headers: [name: string, values: readonly string[]][];
  onRedisLoss: z.output<typeof onRedisLoss>;
  share: number;
  refusal: Refusal;
}

/** Compiles one limit of a checked config. */
export function compileLimit(config: LimitConfig, whole: Config): Limit {
  const name = nameOf(config);
  const meter = meterOf(config);
  const { type, reserve, answerTokens, debt, share } = config;
  return {
    name,
    policy: policyOf(name, type, meter),
    parts: partsOf(config),
    type,
    meter,
    reserve,
    answerTokens,
    debt,
    headers: Object.entries(config.headers ?? {}).map(([one, values]) => [one, [values].flat()]),
    onRedisLoss: config.onRedisLoss ?? whole.onRedisLoss,
    share,
    refusal: refusalOf(config, whole),
    ...scopeOf(config),
  };
}

/** The budget of an API key, as `api-key-auth` writes it into the identity. */
export const KEY_BUDGET = z
  .object({ usd: z.number().positive(), tokens: count, per: duration.default('24h') })
  .partial({ usd: true, tokens: true })
  .refine(({ usd, tokens }) => usd !== undefined || tokens !== undefined);

/** The one or two limits that a key's budget means. */
export function keyBudgetLimits(budget: z.output<typeof KEY_BUDGET>, config: Config): Limit[] {
  const settings = config.keyBudgets === true ? keyBudgets.parse({}) : config.keyBudgets;
  if (settings === false) return [];
  const body = JSON.stringify({
    error: { message: settings.message, type: 'rate_limit_error', code: settings.code },
  });
  const common = { ...settings, per: 'key', window: budget.per, body, contentType: 'application/json' };
  const limits = [];
  if (budget.usd !== undefined) {
    limits.push({ ...common, name: 'key-budget-usd', type: 'cost', max: Math.min(budget.usd, MAX_USD) });
  }
  if (budget.tokens !== undefined)
    limits.push({ ...common, name: 'key-budget-tokens', type: 'tokens', max: budget.tokens });
  return limits.map((one) => compileLimit(limit.parse(one), config));
}

function refusalOf({ code, status, message, body, contentType }: LimitConfig, whole: Config): Refusal {
  return {
    code,
    status: status ?? whole.status,
    message: message ?? whole.message,
    body: body ?? (message === undefined ? whole.body : undefined),
    contentType: contentType ?? whole.contentType,
  };
}

function meterOf(config: LimitConfig): Limit['meter'] {
  const { type, requestsPerMinute, burst } = config;
  if (type === 'concurrent') return { kind: 'leases', span: 0, step: 0, max: config.max!, unit: type };
  if (requestsPerMinute !== undefined) {
    return { kind: 'bucket', span: 60_000, step: requestsPerMinute, max: burst ?? requestsPerMinute, unit: type };
  }
  const max = type === 'cost' ? Math.round(config.max! * NANO_USD) : config.max!;
  const span = spanOf(config.window!);
  if (config.algorithm === 'gcra' && span !== 'month') {
    const most = burst === undefined ? max : type === 'cost' ? burst * NANO_USD : burst;
    return { kind: 'bucket', span, step: max, max: most, unit: type };
  }
  if (span === 'month' || algorithmOf(config) === 'fixed') return { kind: 'fixed', span, step: 0, max, unit: type };
  return { kind: 'sliding', span, step: max <= SLICES ? 1 : Math.ceil(span / SLICES), max, unit: type };
}

function algorithmOf({ algorithm, window }: LimitConfig): 'sliding' | 'fixed' | 'gcra' {
  return algorithm ?? (window !== undefined && isCalendar(window) ? 'fixed' : 'sliding');
}

function spanOf(window: string): number | 'month' {
  return isCalendar(window) ? CALENDAR[window] : durationMs(window);
}

function isCalendar(window: string): window is keyof typeof CALENDAR {
  return Object.hasOwn(CALENDAR, window);
}

function nameOf(config: LimitConfig): string {
  return config.name ?? [config.type, 'per', ...partsOf(config)].join('-').replaceAll('header:', '');
}

function partsOf(config: LimitConfig): Part[] {
  return [config.per].flat() as Part[];
}

function* limitProblems(config: LimitConfig): Generator<[keyof LimitConfig, string]> {
  const problem = partsProblem(partsOf(config));
  if (problem !== undefined) yield ['per', problem];
  if (!limitName.safeParse(nameOf(config)).success) yield ['name', 'This limit needs a name of its own.'];
  yield* amountProblems(config);
  if (config.type === 'tokens' || config.type === 'cost') return;
  if (config.reserve !== false) yield ['reserve', 'Only limits of tokens and cost can reserve an estimate.'];
  if (!config.debt) yield ['debt', 'Only limits of tokens and cost can run into debt.'];
}

function* amountProblems(config: LimitConfig): Generator<[keyof LimitConfig, string]> {
  const { type, max, window, algorithm, requestsPerMinute, burst } = config;
  if (requestsPerMinute !== undefined) {
    for (const field of ['max', 'window', 'algorithm'] as const) {
      if (config[field] !== undefined) yield [field, 'requestsPerMinute says this already.'];
    }
    if (type !== 'requests') yield ['type', 'requestsPerMinute counts requests.'];
    return;
  }
  if (max === undefined) yield ['max', 'This is missing; or write requestsPerMinute (and burst) instead.'];
  else if (type === 'cost' ? max > MAX_USD : !Number.isInteger(max)) {
    yield ['max', type === 'cost' ? `At most ${MAX_USD} dollars.` : 'This must be a whole number.'];
  }
  if (burst !== undefined && algorithm !== 'gcra') yield ['burst', 'It goes with `algorithm: gcra`.'];
  if (type === 'concurrent') {
    if (window !== undefined) yield ['window', 'Open answers are counted as long as they are open.'];
    if (algorithm !== undefined) yield ['algorithm', 'Open answers are counted as long as they are open.'];
    return;
  }
  if (window === undefined) yield ['window', 'This is missing, such as 1m or month.'];
  else if (window === 'month' && algorithm !== undefined && algorithm !== 'fixed') {
    yield ['algorithm', 'A calendar month is a fixed window.'];
  }
}

/** Checks a config. @throws ConfigProblem with every problem and its place */
export function readConfig(config: unknown): Config {
  return parseConfig(CONFIG, config);
}
