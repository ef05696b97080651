/**
 * The config of the service that speaks Envoy's rate limit protocol: files as envoyproxy/ratelimit reads them, one domain
 * each, or one of our own with the settings of Redis and several domains of the same form.
 */
import { readFileSync } from 'node:fs';
import { type Document, LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { durationMs, parseConfig } from '../../proto/config.ts';
import { ConfigProblem } from '../../proto/contract.ts';
import { connection } from '../redis/settings.ts';

/** Names, and lengths in seconds, by the numbers of `RateLimitResponse.RateLimit.Unit`. Windows begin with 1970. */
export const UNITS = [
  ['unknown', 0],
  ['second', 1],
  ['minute', 60],
  ['hour', 3_600],
  ['day', 86_400],
  ['month', 2_592_000],
  ['year', 31_536_000],
  ['week', 604_800],
] as const;

const UNIT_NAMES: string[] = UNITS.slice(1).map(([name]) => name);

/** All values are texts here: `value: 007` is what it looks like. */
const flag = z.stringFormat('flag', /^(true|false)$/i, 'Write true or false.').transform((text) => /true/i.test(text));
const number = z
  .string()
  .regex(/^\d{1,10}$/, 'Write a whole number.')
  .transform(Number)
  .refine((value) => value <= 0xffffffff, 'It must be 4294967295 at most.');

const rateLimit = z
  .strictObject({
    unit: z
      .string()
      .toLowerCase()
      .refine((text) => UNIT_NAMES.includes(text), `Write one of ${UNIT_NAMES.join(', ')}.`)
      .optional(),
    requests_per_unit: number.optional(),
    unlimited: flag.default(false),
    name: z.string().default(''),
    replaces: z.array(z.strictObject({ name: z.string().min(1) })).default([]),
  })
  .superRefine(({ unit, requests_per_unit, unlimited, name, replaces }, context) => {
    const say = (field: string, message: string) => context.addIssue({ code: 'custom', path: [field], message });
    if (unlimited && unit !== undefined) say('unit', 'What is unlimited has no unit.');
    if (!unlimited && unit === undefined) say('unit', `This is missing; write one of ${UNIT_NAMES.join(', ')}.`);
    if (!unlimited && requests_per_unit === undefined) say('requests_per_unit', 'This is missing.');
    if (name !== '' && replaces.some((one) => one.name === name)) say('replaces', 'A limit cannot replace itself.');
  });

const descriptor = z
  .strictObject({
    key: z.string().min(1, 'A key cannot be empty.'),
    value: z.string().default(''),
    rate_limit: rateLimit.optional(),
    get descriptors() {
      return z.array(descriptor).default([]);
    },
    shadow_mode: flag.default(false),
    share_threshold: flag.default(false),
    quota_mode: flag.refine((on) => !on, 'quota_mode is not known here: take it out, or write shadow_mode.').optional(),
    // What its metrics are called, and words about it: nothing to do here.
    detailed_metric: flag.optional(),
    value_to_metric: flag.optional(),
    metadata: z.unknown().optional(),
  })
  .superRefine(({ descriptors, share_threshold, value }, context) => {
    distinct(descriptors, context, ['descriptors']);
    if (!share_threshold || value.includes('*')) return;
    context.addIssue({ code: 'custom', path: ['share_threshold'], message: 'It goes with a `*` in the value.' });
  });

/** A node of the tree as a file has it. */
export type DescriptorConfig = z.output<typeof descriptor>;

const domain = z
  .strictObject({
    domain: z.string({ error: 'Name the domain.' }).min(1, 'Name the domain.'),
    descriptors: z.array(descriptor).default([]),
  })
  .superRefine(({ descriptors }, context) => distinct(descriptors, context, ['descriptors']));

const own = z.strictObject({
  redis: connection.redis,
  deadline: connection.deadline,
  prefix: z.string().max(128).default('{wardgate}:envoy:'),
  onRedisLoss: z
    .enum(['unavailable', 'allow', 'reject'], { error: 'Write unavailable, allow or reject.' })
    .default('unavailable')
    .describe('While Redis is away: an error for the caller’s own policy, OK, or OVER_LIMIT.'),
  domains: z.array(domain).min(1, 'Name at least one domain.'),
});

export interface EnvoyConfig {
  redis: string[];
  deadlineMs: number;
  prefix: string;
  onRedisLoss: 'unavailable' | 'allow' | 'reject';
  domains: z.output<typeof domain>[];
}

/**
 * @param files of envoyproxy's form, and at most one of our own
 * @throws Error with one line for each problem: file, line, path and what would be right
 */
export function readEnvoyConfig(files: readonly string[]): EnvoyConfig {
  const read = files.map((file) => readFile(file));
  const settings = read.filter((one) => 'redis' in one);
  if (settings.length > 1) throw new Error('only one of the files may have settings beside its domains');
  const domains = read.flatMap((one) => ('redis' in one ? one.domains : [one]));
  const twice = domains.find((one, i) => domains.findIndex((other) => other.domain === one.domain) < i);
  if (twice !== undefined) throw new Error(`the domain ${twice.domain} stands in the config twice`);
  const { redis, deadline, prefix, onRedisLoss } = settings[0] ?? parseConfig(own.omit({ domains: true }), {});
  return { redis: [redis].flat(), deadlineMs: durationMs(deadline), prefix, onRedisLoss, domains };
}

function readFile(file: string): z.output<typeof own> | z.output<typeof domain> {
  const lines = new LineCounter();
  const document = parseDocument(readFileSync(file, 'utf8'), { schema: 'failsafe', lineCounter: lines, merge: true });
  const [broken] = document.errors;
  if (broken !== undefined) throw new Error(`${file}: ${broken.message}`);
  const value: unknown = document.toJS({ maxAliasCount: 100 });
  const isOwn = typeof value === 'object' && value !== null && 'domains' in value;
  try {
    return isOwn ? parseConfig(own, value) : parseConfig(domain, value);
  } catch (error) {
    if (!(error instanceof ConfigProblem)) throw error;
    const told = error.problems.map(({ path, message }) => {
      return `${file}:${lineOf(document, lines, path)}: ${path.join('.') || 'config'}: ${message}`;
    });
    throw new Error(told.join('\n'));
  }
}

/** The line of a place, or of the nearest thing around it that is there. */
function lineOf(document: Document, lines: LineCounter, path: (string | number)[]): number {
  for (let length = path.length; length >= 0; length--) {
    const node = document.getIn(path.slice(0, length), true) as { range?: [number, number, number] } | undefined;
    if (node?.range) return lines.linePos(node.range[0]).line;
  }
  return 1;
}

function distinct(descriptors: DescriptorConfig[], context: z.RefinementCtx, path: string[]): void {
  const known = new Set<string>();
  for (const [i, { key, value }] of descriptors.entries()) {
    const both = JSON.stringify([key, value]);
    if (known.has(both)) context.addIssue({ code: 'custom', path: [...path, i], message: 'It stands here twice.' });
    known.add(both);
  }
}
