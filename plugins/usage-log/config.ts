/** The config of usage-log. */
import { z } from 'zod';
import { parseConfig } from '../../proto/config.ts';

/** The config of usage-log: where the lines go and what is left out of them. */
export const CONFIG = z.strictObject({
  to: z.string().min(1).default('stdout').describe('`stdout`, or a file that lines are appended to.'),
  identity: z.boolean().default(true).describe('False leaves out who asked.'),
  trace: z.boolean().default(true).describe('False leaves out what the plugins answered.'),
  maxBuffer: z
    .int()
    .min(65_536)
    .default(4_194_304)
    .describe('Bytes that may wait for a slow disk; beyond it lines are dropped and counted.'),
});

export type Config = z.infer<typeof CONFIG>;

/** Checks a config. @throws ConfigProblem with every problem and its place */
export function readConfig(config: unknown): Config {
  return parseConfig(CONFIG, config);
}
