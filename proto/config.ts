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

const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const DURATION = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/;

/** Milliseconds of `500ms`, `1.5s`, `1m`, `2h`, `1d`; NaN for any other text. Which of them a setting takes is its own to say. */
export function durationMs(text: string): number {
  const [, number, unit] = DURATION.exec(text) ?? [];
  return Number(number) * UNIT_MS[unit as keyof typeof UNIT_MS];
}
