/** How a plugin checks its own config: once, whole, with every problem and its place. */
import type { z } from 'zod';
import { ConfigProblem } from './contract.ts';

/** Answers the config as the schema has it. Throws a {@link ConfigProblem} that repeats no value. */
export function parseConfig<Schema extends z.ZodType>(schema: Schema, config: unknown): z.output<Schema> {
  const result = schema.safeParse(config ?? {});
  if (result.success) return result.data;
  throw new ConfigProblem(
    result.error.issues.flatMap((issue) => {
      const path = issue.path as (string | number)[];
      if (issue.code !== 'unrecognized_keys') return [{ path, message: issue.message }];
      return issue.keys.map((key) => ({ path: [...path, key], message: 'This setting is not known.' }));
    }),
  );
}
