/** The config of local-limit, and the limits that it compiles to. */
import { z } from 'zod';
import { parseConfig } from '../../proto/config.ts';
import type { Rate } from './bucket.ts';
import { policyOf } from './words.ts';

const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const INTERVAL = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/;

const PARTS = ['identity', 'tenant', 'group', 'model', 'route', 'all'] as const;
/** What a limit counts apart: a bucket for each person, model and so on. */
export type Part = (typeof PARTS)[number];

const count = z.int().min(1).max(Number.MAX_SAFE_INTEGER);
const names = z.array(z.string().min(1)).min(1);

const limit = z.strictObject({
  name: z
    .string()
    .regex(/^[A-Za-z0-9 ._:-]{1,64}$/, 'A name is made of up to 64 letters, digits, spaces, dots, dashes and colons.')
    .optional()
    .describe('What the limit is called in the `RateLimit` headers.'),
  per: z
    .union([z.enum(PARTS), z.array(z.enum(PARTS)).min(1)], {
      error: `Write one of ${PARTS.join(', ')}, or a list of them.`,
    })
    .default('route')
    .describe('What has a bucket of its own; a list means each combination.'),
  type: z.enum(['requests', 'tokens']).default('requests'),
  maxTokens: count.optional().describe('What a bucket holds at most, and at first.'),
  tokensPerFill: count.optional().describe('What is put back each interval.'),
  fillInterval: z
    .string()
    .regex(INTERVAL, 'Write a number and its unit, such as 500ms, 100s, 1m, 2h or 1d.')
    .refine((text) => intervalMs(text) !== 0, 'The interval must be longer than nothing.')
    .optional(),
  requestsPerMinute: count.optional().describe('In place of the three above: one request comes back each 60 s / this.'),
  burst: count.optional().describe('With requestsPerMinute: how many may come at once. Default: requestsPerMinute.'),
  reserve: z
    .union([z.boolean(), z.literal('with-answer')], { error: 'Write true, false or with-answer.' })
    .default(false)
    .describe(
      'For tokens: take the estimated prompt before (`with-answer`: and max_tokens), settle with the truth after.',
    ),
  debt: z.boolean().default(true).describe('For tokens: false forgives what an answer costs beyond the bucket.'),
  models: names.optional().describe('Counts only requests for these models.'),
  routes: names.optional().describe('Counts only requests on these routes.'),
  groups: names.optional().describe('Counts only members of these groups.'),
});

type LimitConfig = z.infer<typeof limit>;

/** The config of local-limit. */
export const CONFIG = z
  .strictObject({
    limits: z.array(limit).min(1, 'Name at least one limit.'),
    maxKeys: count.default(100_000).describe('How many buckets may be in use at once; beyond it new keys are refused.'),
    status: z.int().min(400).max(599).default(429),
    message: z.string().min(1).optional().describe('In place of the sentence that names the limit and the wait.'),
    body: z.string().max(65_536).optional().describe('Sent as it is in place of an error in the client’s dialect.'),
    contentType: z.string().min(1).default('text/plain').describe('The type of `body`.'),
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
export interface Limit {
  name: string;
  /** Its `RateLimit-Policy`. */
  policy: string;
  /** Without `all`. */
  parts: readonly Part[];
  type: 'requests' | 'tokens';
  rate: Rate;
  reserve: boolean | 'with-answer';
  debt: boolean;
  models?: ReadonlySet<string>;
  routes?: ReadonlySet<string>;
  groups?: ReadonlySet<string>;
}

/** Compiles one limit of a checked config. */
export function compileLimit(config: LimitConfig): Limit {
  const { type } = config;
  const name = config.name ?? [type, 'per', ...partsOf(config)].join('-');
  const rate = rateOf(config);
  return {
    name,
    policy: policyOf(name, type, rate),
    parts: partsOf(config).filter((part) => part !== 'all'),
    type,
    rate,
    reserve: config.reserve,
    debt: config.debt,
    models: config.models && new Set(config.models),
    routes: config.routes && new Set(config.routes),
    groups: config.groups && new Set(config.groups),
  };
}

/** Requests are whole, so a refill that trickles is the same as one request after each whole 60 s / n. */
function rateOf(config: LimitConfig): Rate {
  const { requestsPerMinute, burst, maxTokens, tokensPerFill, fillInterval } = config;
  if (requestsPerMinute !== undefined) {
    return { max: burst ?? requestsPerMinute, perFill: 1, intervalMs: 60_000 / requestsPerMinute };
  }
  return { max: maxTokens!, perFill: tokensPerFill!, intervalMs: intervalMs(fillInterval!) };
}

function intervalMs(text: string): number {
  const [, number, unit] = INTERVAL.exec(text) ?? [];
  return Number(number) * UNIT_MS[unit as keyof typeof UNIT_MS];
}

function partsOf(config: LimitConfig): Part[] {
  return typeof config.per === 'string' ? [config.per] : config.per;
}

function* limitProblems(config: LimitConfig): Generator<[keyof LimitConfig | undefined, string]> {
  yield* rateProblems(config);
  const parts = partsOf(config);
  if (new Set(parts).size < parts.length) yield ['per', 'One part stands here twice.'];
  if (parts.length > 1 && parts.includes('all')) yield ['per', '`all` means one bucket, so it stands alone.'];
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
