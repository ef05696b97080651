/** What a key may do: the models it may use, and the budget that it was given. */
import { z } from 'zod';
import { durationMs } from '../../proto/config.ts';
import { DURATION } from './duration.ts';

/** Text without control characters: it is shown in terminals and sent in headers. */
export const text = z
  .string()
  .min(1)
  .max(256, 'At most 256 characters.')
  .regex(/^\P{Cc}+$/u, 'No control characters, please.');

export const models = z
  .array(text.regex(/^[^*]*\*?$/, 'A `*` stands only at the end, such as gpt-4o*.'))
  .min(1, 'Name at least one model, or leave it out: then all may be used.')
  .max(1_000)
  .describe('The models that the key may use; a * at the end stands for any ending. Default: all of the route.');

export const budget = z
  .strictObject({
    usd: z.number('Write an amount, such as 0.5.').positive().max(1e9).optional().describe('US dollars.'),
    tokens: z.int('Write a whole number.').positive().optional().describe('Tokens of prompts and answers.'),
    per: z
      .string()
      .regex(DURATION, 'Write a number and its unit, such as 1h, 24h or 30d.')
      .refine((written) => !DURATION.test(written) || durationMs(written) > 0, 'The time must be longer than nothing.')
      .default('24h')
      .describe('The time that the budget is for.'),
  })
  .refine(({ usd, tokens }) => usd !== undefined || tokens !== undefined, 'Say how much: `usd`, `tokens` or both.')
  .describe('Handed on as a claim, for a plugin that counts.');

export type Budget = z.output<typeof budget>;

/** What travels in the identity's claims, as `api-key`, to those who are asked later. */
export interface KeyClaim {
  id: string;
  name?: string;
  models?: string[];
  budget?: Budget;
}

/** Whether one of the patterns stands for a model's name; without patterns all do. */
export function mayUse(patterns: readonly string[] | undefined, name: string): boolean {
  return patterns === undefined || patterns.some((pattern) => matches(pattern, name));
}

function matches(pattern: string, name: string): boolean {
  return pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}
