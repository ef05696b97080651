/** The plugin's config: read strictly, so that a misspelt rule is an error at start and not a leak. */
import { isSupportedCountry } from 'libphonenumber-js/max';
import { RE2JS } from 're2js';
import { z } from 'zod';
import { ConfigProblem } from '../../proto/contract.ts';
import { RULE_NAMES, type RuleName } from './rules.ts';

const ACTIONS = ['mask', 'restore', 'reject'] as const;

/** Other spellings, in lower case without hyphens and underscores: those of agentgateway's regex guard among them. */
const ALIASES: Record<string, RuleName> = {
  ...Object.fromEntries(RULE_NAMES.map((name) => [plain(name), name])),
  ssn: 'us-ssn',
  itin: 'us-itin',
  sin: 'ca-sin',
  nhs: 'uk-nhs',
  phonenumber: 'phone',
  emailaddress: 'email',
  card: 'credit-card',
  ipaddress: 'ip',
  secrets: 'secret',
  apikey: 'secret',
};

function plain(name: string): string {
  return name.toLowerCase().replace(/[-_ ]/g, '');
}

const ruleName = z.string().transform((name, context): RuleName => {
  const spelling = plain(name);
  // Every object has a `constructor`, too.
  if (Object.hasOwn(ALIASES, spelling)) return ALIASES[spelling]!;
  context.addIssue({ code: 'custom', message: `There is no rule "${name}". Rules are: ${RULE_NAMES.join(', ')}.` });
  return z.NEVER;
});

const action = z
  .enum(ACTIONS)
  .describe(
    'mask: put a mask in its place; restore: mask, and put the original back into the answer; reject: refuse the request',
  );
const mask = z
  .string()
  .min(1)
  .max(200)
  .describe('What stands in place of a match; {n} becomes a number, the same for equal values');

const builtInRule = z.strictObject({
  rule: ruleName.describe(`One of ${RULE_NAMES.join(', ')}`),
  action: action.optional(),
  mask: mask.optional(),
  lenient: z.boolean().optional().describe('credit-card only: accept numbers whose check digit is wrong'),
});

const customRule = z.strictObject({
  name: z
    .string()
    .regex(
      /^[A-Za-z][A-Za-z0-9_-]{0,63}$/,
      'A name is a letter followed by letters, digits, hyphens and underscores, 64 at most.',
    ),
  pattern: z.string().min(1).max(1000).describe('Regular expression in RE2 syntax, matched within a line'),
  action: action.optional(),
  mask: mask.optional(),
});

const rule = z.union([ruleName, builtInRule, customRule]);

export const configSchema = z.strictObject({
  rules: z.array(rule).min(1).optional().describe('What to look for; all built-in rules when missing'),
  action: action.default('mask'),
  masks: z.enum(['numbered', 'plain']).default('numbered').describe('numbered: <EMAIL_1>; plain: <EMAIL_ADDRESS>'),
  mask: mask.optional(),
  regions: z
    .array(
      z
        .string()
        .refine(
          (region) => isSupportedCountry(region),
          'Not a country that phone numbers are known of; write two capital letters, such as GB.',
        ),
    )
    .default(['US', 'GB', 'DE', 'IL', 'IN', 'CA', 'BR'])
    .describe('Countries whose national phone numbers are found; +… numbers are found for all'),
  rejection: z
    .strictObject({
      status: z.int().min(400).max(599).optional(),
      body: z.string().max(65_536).optional(),
      contentType: z.string().optional(),
      message: z.string().min(1).optional(),
    })
    .default({}),
});

export type BuiltInRule = z.output<typeof builtInRule>;
export type CustomRule = z.output<typeof customRule>;
export type Config = Omit<z.output<typeof configSchema>, 'rules'> & { rules: (BuiltInRule | CustomRule)[] };

/** Reads the config or throws a ConfigProblem that lists everything wrong with it. */
export function readConfig(config: unknown): Config {
  const given: unknown = config ?? {};
  const parsed = configSchema.safeParse(given);
  const problems = [...ruleProblems(given), ...(parsed.success ? [] : otherProblems(parsed.error.issues))];
  if (!parsed.success || problems.length > 0) throw new ConfigProblem(problems);
  const rules = (parsed.data.rules ?? RULE_NAMES).map((entry) => (typeof entry === 'string' ? { rule: entry } : entry));
  return { ...parsed.data, rules };
}

/** All problems but those of single rules, which {@link ruleProblems} tells better. */
function otherProblems(issues: z.core.$ZodIssue[]): Problem[] {
  return issues
    .map((issue) => ({ path: steps(issue.path), message: issue.message }))
    .filter(({ path }) => !(path[0] === 'rules' && path.length > 1));
}

function steps(path: PropertyKey[]): (string | number)[] {
  return path.map((step) => (typeof step === 'symbol' ? String(step) : step));
}

interface Problem {
  path: (string | number)[];
  message: string;
}

/** Says what is wrong with each rule; a union would only say that nothing fits. */
function ruleProblems(config: unknown): Problem[] {
  if (typeof config !== 'object' || config === null || !('rules' in config) || !Array.isArray(config.rules)) return [];
  return config.rules.flatMap((entry: unknown, index) => {
    const schema = typeof entry === 'string' ? ruleName : isObject(entry) && 'rule' in entry ? builtInRule : customRule;
    const parsed = schema.safeParse(entry);
    if (!parsed.success) {
      return parsed.error.issues.map((issue) => ({
        path: ['rules', index, ...steps(issue.path)],
        message: issue.message,
      }));
    }
    return oddities(parsed.data).map((problem) => ({
      path: ['rules', index, ...problem.path],
      message: problem.message,
    }));
  });
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

function oddities(entry: RuleName | BuiltInRule | CustomRule): Problem[] {
  if (typeof entry === 'string') return [];
  if ('pattern' in entry) return patternProblems(entry.pattern);
  if (entry.lenient === undefined || entry.rule === 'credit-card') return [];
  return [{ path: ['lenient'], message: 'Only the rule credit-card knows `lenient`.' }];
}

function patternProblems(pattern: string): Problem[] {
  try {
    RE2JS.compile(pattern);
    return [];
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return [{ path: ['pattern'], message: `Not a regular expression in RE2 syntax (${reason}).` }];
  }
}
