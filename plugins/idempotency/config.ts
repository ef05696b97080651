/** The config of idempotency. */
import { z } from 'zod';
import { parseConfig } from '../../proto/config.ts';
import { MAX_REMEMBERED } from '../../proto/contract.ts';
import { duration } from '../quota/fields.ts';
import { connection } from '../redis/settings.ts';

export const CONFIG = z.strictObject({
  ...connection,
  prefix: z
    .string()
    .max(128)
    .default('{wardgate}:idempotency:')
    .describe('What all keys begin with. Braces keep them on one node of a cluster.'),
  window: duration.default('24h').describe('How long an answer is kept.'),
  lease: duration.default('10m').describe('How long a request may take; after it, its key is free again.'),
  maxAnswer: z
    .int()
    .min(0)
    .max(MAX_REMEMBERED)
    .default(MAX_REMEMBERED)
    .describe('The longest answer that is kept, in characters; a longer one frees its key.'),
  onRedisLoss: z
    .enum(['reject', 'allow'])
    .default('reject')
    .describe('While Redis is away: refuse requests with a key, or let them through as if they had none.'),
});

export type Config = z.output<typeof CONFIG>;

/** Checks a config. @throws ConfigProblem with every problem and its place */
export function readConfig(config: unknown): Config {
  return parseConfig(CONFIG, config);
}
