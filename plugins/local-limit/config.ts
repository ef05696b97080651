/** The config of local-limit, and the limits that it compiles to. */
import { z } from 'zod';
import { durationMs, parseConfig } from '../../proto/config.ts';
import type { Rate } from '../quota/bucket.ts';
import { count, duration, limitName, partsProblem, refusal, scope, scopeOf } from '../quota/fields.ts';
import type { Scope } from '../quota/keys.ts';
import { policyOf } from './words.ts';

const PARTS = ['identity', 'tenant', 'group', 'model', 'route', 'all'] as const;
type Part = (typeof PARTS)[number];

const limit = z.strictObject({
  name: limitName,
  per: z
    .union([z.enum(PARTS), z.array(z.enum(PARTS)).min(1)], {
      error: `Write one of ${PARTS.join(', ')}, or a list of them.`,
    })
    .default('route')
    .describe('What has a bucket of its own; a list means each combination.'),
  type: z.enum(['requests', 'tokens']).default('requests'),
  maxTokens: count.optional().describe('What a bucket holds at most, and at first.'),
  tokensPerFill: count.optional().describe('What is put back each interval.'),
  fillInterval: duration.optional(),
  requestsPerMinute: count.optional().describe('In place of the three above: one request comes back each 60 s / this.'),
  burst: count.optional().describe('With requestsPerMinute: how many may come at once. Default: requestsPerMinute.'),
  reserve: z
    .union([z.boolean(), z.literal('with-answer')], { error: 'Write true, false or with-answer.' })
    .default(false)
    .describe(
      'For tokens: take the estimated prompt before (`with-answer`: and max_tokens), settle with the truth after.',
    ),
  debt: z.boolean().default(true).describe('For tokens: false forgives what an answer costs beyond the bucket.'),
  ...scope,
});

type LimitConfig = z.infer<typeof limit>;

/** The config of local-limit. */
export const CONFIG = z
  .strictObject({
    limits: z.array(limit).min(1, 'Name at least one limit.'),
    maxKeys: count.default(100_000).describe('How many buckets may be in use at once; beyond it new keys are refused.'),
    ...refusal,
  })
  .superRefine((config, context) => {
    for (const [index, one] of config.limits.entries()) {
      for (const [field, message] of limitProblems(one)) {
        context.addIssue({ code: 'custom', path: ['limits', index, ...(field ? [field] : [])], message });
      }
    }
  });

export type Config = z.infer<typeof CONFIG>;

/** A limit made ready for the hot path. */
export interface Limit extends Scope {
  name: string;
  /** Its `RateLimit-Policy`. */
  policy: string;
  type: 'requests' | 'tokens';
  rate: Rate;
  reserve: boolean | 'with-answer';
  debt: boolean;
}

/** Compiles one limit of a checked config. */
export function compileLimit(config: LimitConfig): Limit {
  const { type } = config;
  const name = config.name ?? [type, 'per', ...partsOf(config)].join('-');
  const rate = rateOf(config);
  return {
    name,
    policy: policyOf(name, type, rate),
    parts: partsOf(config),
    type,
    rate,
    reserve: config.reserve,
    debt: config.debt,
    ...scopeOf(config),
  };
}

/** Requests are whole, so a refill that trickles is the same as one request after each whole 60 s / n. */
function rateOf(config: LimitConfig): Rate {
  const { requestsPerMinute, burst, maxTokens, tokensPerFill, fillInterval } = config;
  if (requestsPerMinute !== undefined) {
    return { max: burst ?? requestsPerMinute, perFill: 1, intervalMs: 60_000 / requestsPerMinute };
  }
  return { max: maxTokens!, perFill: tokensPerFill!, intervalMs: durationMs(fillInterval!) };
}

function partsOf(config: LimitConfig): Part[] {
  return typeof config.per === 'string' ? [config.per] : config.per;
}

function* limitProblems(config: LimitConfig): Generator<[keyof LimitConfig | undefined, string]> {
  yield* rateProblems(config);
  const problem = partsProblem(partsOf(config));
  if (problem !== undefined) yield ['per', problem];
  if (config.type === 'tokens') return;
  if (config.reserve !== false) yield ['reserve', 'Only a limit of `type: tokens` can reserve an estimate.'];
  if (!config.debt) yield ['debt', 'Only a limit of `type: tokens` can run into debt.'];
}

function* rateProblems(config: LimitConfig): Generator<[keyof LimitConfig | undefined, string]> {
  const bucket = ['maxTokens', 'tokensPerFill', 'fillInterval'] as const;
  if (config.requestsPerMinute !== undefined) {
    for (const field of bucket) if (config[field] !== undefined) yield [field, 'requestsPerMinute says this already.'];
    if (config.type === 'tokens') yield ['type', 'requestsPerMinute counts requests.'];
    return;
  }
  if (config.burst !== undefined) yield ['burst', 'It goes with requestsPerMinute; here maxTokens says the same.'];
  for (const field of bucket) {
    if (config[field] === undefined) yield [field, 'This is missing; or write requestsPerMinute (and burst) instead.'];
  }
  const { maxTokens, tokensPerFill } = config;
  if (maxTokens !== undefined && tokensPerFill !== undefined && tokensPerFill > maxTokens) {
    yield ['tokensPerFill', `It cannot be more than maxTokens, which is ${maxTokens}.`];
  }
}

/** Checks a config. @throws ConfigProblem with every problem and its place */
export function readConfig(config: unknown): Config {
  return parseConfig(CONFIG, config);
}
