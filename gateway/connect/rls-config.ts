/** What a mount of a rate limit service says in its `config`: which descriptors a request has. */
import { z } from 'zod';
import { parseConfig } from '../../proto/config.ts';
import { compileTemplate, type Template } from './template.ts';

/** By the numbers of `envoy.type.v3.RateLimitUnit`, from 1. */
const UNITS = ['second', 'minute', 'hour', 'day', 'month', 'year'] as const;

/** A descriptor made ready for the hot path. */
export interface Descriptor {
  /** In order: a service looks for them level by level. */
  entries: [string, Template][];
  type: 'requests' | 'tokens';
  /** For tokens: the estimated prompt is counted before the answer, and only the rest after it. */
  estimate: boolean;
  /** `RateLimitOverride` as proto-loader writes it: what the service takes in place of its own config. */
  limit: { requestsPerUnit: number; unit: number } | undefined;
}

export interface RlsConfig {
  domain: string;
  descriptors: Descriptor[];
}

/**
 * @param shown names of the headers that the mount is shown, in lower case
 * @throws ConfigProblem with every problem and its place
 */
export function readRlsConfig(config: unknown, shown: readonly string[]): RlsConfig {
  return parseConfig(configOf(shown), config);
}

function configOf(shown: readonly string[]) {
  const value = z.string({ error: 'Write a text; a number stands in quotes.' }).transform((text, context): Template => {
    const compiled = compileTemplate(text, shown);
    if (typeof compiled !== 'string') return compiled;
    context.addIssue({ code: 'custom', message: compiled });
    return () => undefined;
  });
  // JavaScript puts keys that are numbers first, and the order counts.
  const key = z.string().regex(/[^\d]/, 'A key cannot be a number.');
  const descriptor = z.strictObject({
    entries: z
      .record(key, value, { error: 'Write keys and texts, such as { route: chat }.' })
      .transform((entries) => Object.entries(entries))
      .refine((entries) => entries.length > 0, 'Name at least one key.'),
    type: z.enum(['requests', 'tokens'], { error: 'Write requests or tokens.' }).default('requests'),
    estimate: z.boolean().default(false),
    limit: z
      .strictObject({
        requestsPerUnit: z.int().min(0).max(0xffffffff),
        unit: z.enum(UNITS, { error: `Write one of ${UNITS.join(', ')}.` }),
      })
      .transform(({ requestsPerUnit, unit }) => ({ requestsPerUnit, unit: UNITS.indexOf(unit) + 1 }))
      .optional(),
  });
  return z.strictObject({
    domain: z.string({ error: 'Name the domain of the service’s config.' }).min(1),
    descriptors: z
      .array(
        descriptor
          .refine(({ estimate, type }) => !estimate || type === 'tokens', {
            path: ['estimate'],
            message: 'Only a descriptor of `type: tokens` can estimate.',
          })
          .transform((one): Descriptor => ({ ...one, limit: one.limit })),
        { error: 'List the descriptors of a request.' },
      )
      .min(1, 'Name at least one descriptor.')
      .max(64),
  });
}
