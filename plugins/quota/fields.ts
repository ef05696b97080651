/** Settings that every plugin with limits has, under the same names. */
import { z } from 'zod';
import { durationMs } from '../../proto/config.ts';

const DURATION = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/;

/** Such as `500ms`, `100s`, `1m`, `2h`, `1d`; {@link durationMs} reads it. */
export const duration = z
  .string()
  .regex(DURATION, 'Write a number and its unit, such as 500ms, 100s, 1m, 2h or 1d.')
  .refine((text) => durationMs(text) !== 0, 'The interval must be longer than nothing.');

export const count = z.int().min(1).max(Number.MAX_SAFE_INTEGER);
const names = z.array(z.string().min(1)).min(1);

export const limitName = z
  .string()
  .regex(/^[A-Za-z0-9 ._:-]{1,64}$/, 'A name is made of up to 64 letters, digits, spaces, dots, dashes and colons.')
  .optional()
  .describe('What the limit is called in the `RateLimit` headers.');

/** Whom a limit counts. */
export const scope = {
  models: names.optional().describe('Counts only requests for these models.'),
  routes: names.optional().describe('Counts only requests on these routes.'),
  groups: names.optional().describe('Counts only members of these groups.'),
};

/** What a refusal looks like. */
export const refusal = {
  status: z.int().min(400).max(599).default(429),
  message: z
    .string()
    .min(1)
    .optional()
    .describe(
      'In place of the sentence that names the limit and the wait; `{sentence}` in it stands for that sentence.',
    ),
  body: z.string().max(65_536).optional().describe('Sent as it is in place of an error in the client’s dialect.'),
  contentType: z.string().min(1).default('text/plain').describe('The type of `body`.'),
};

/** The settings of {@link scope}, made ready for the hot path. */
export function scopeOf({ models, routes, groups }: { models?: string[]; routes?: string[]; groups?: string[] }) {
  return { models: models && new Set(models), routes: routes && new Set(routes), groups: groups && new Set(groups) };
}

/** What is wrong with a list of parts, if anything is. */
export function partsProblem(parts: readonly string[]): string | undefined {
  if (parts.length > 1 && parts.includes('all')) return '`all` means one bucket, so it stands alone.';
  return new Set(parts).size < parts.length ? 'One part stands here twice.' : undefined;
}
