/** The config of cel-authz: its rules, each an expression that is compiled here, once. */
import { z } from 'zod';
import { parseConfig } from '../../proto/config.ts';
import { ConfigProblem } from '../../proto/contract.ts';
import { Compiler, type Expression, ExpressionProblem, MAX_EXPRESSION, noWhereMissing } from './expression.ts';

/** What a rule does when its expression is true (`require`: when it is not). */
export const EFFECTS = ['allow', 'require', 'deny'] as const;
export type Effect = (typeof EFFECTS)[number];

const WANTED = 'Write a CEL expression, such as identity != null.';

const expression = z
  .union([z.string(), z.boolean().transform(String)], { error: WANTED })
  .refine((source) => source.trim() !== '', WANTED)
  .refine(
    (source) => source.length <= MAX_EXPRESSION,
    `An expression is at most ${MAX_EXPRESSION} characters long; make two rules of it.`,
  );
const text = z.string().trim().min(1).max(2_000);
const code = z.string().regex(/^[a-z][a-z0-9_]{0,63}$/, 'A code is written in snake_case, such as not_a_member.');

const ruleObject = z.strictObject({
  name: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,64}$/, 'A name is made of up to 64 letters, digits, dots, dashes and underscores.')
    .optional()
    .describe('What the rule is called in the log and the trace; default rule-1, rule-2 and so on.'),
  when: expression.optional().describe('The rule speaks only where this is true; default: everywhere.'),
  allow: expression.optional().describe('True: this rule lets it pass.'),
  require: expression.optional().describe('Anything but true: refused.'),
  deny: expression.optional().describe('True: refused, whatever the other rules say.'),
  message: text.optional().describe('What a person reads who is refused by this rule.'),
  code: code.optional().describe('The code of the refusal.'),
});

const rule = z
  .union([expression, ruleObject], { error: `${WANTED} Or one of allow, require and deny with an expression.` })
  .transform((written): z.output<typeof ruleObject> => (typeof written === 'string' ? { allow: written } : written));

type RuleConfig = z.output<typeof rule>;

/** The config of cel-authz. */
export const CONFIG = z
  .strictObject({
    rules: z.array(rule).min(1, 'Write at least one rule.').max(1_000, 'There can be 1000 rules.'),
    tools: z.boolean().default(false).describe('True: the rules are asked about tool calls too (action tool.call).'),
    message: text.optional().describe('What a person reads who is refused, where the rule has no message of its own.'),
    code: code.default('forbidden').describe('The code of a refusal, where the rule has none of its own.'),
  })
  .superRefine(({ rules }, context) => {
    for (const [index, one] of rules.entries()) {
      if (EFFECTS.filter((effect) => one[effect] !== undefined).length === 1) continue;
      const message = 'A rule has exactly one of `allow`, `require` and `deny`.';
      context.addIssue({ code: 'custom', path: ['rules', index], message });
    }
    if (rules.length > 0 && rules.every(({ deny }) => deny !== undefined)) {
      const message =
        'What no rule lets pass is refused, so with `deny` alone nothing would pass. Add a rule, such as `allow: "true"`.';
      context.addIssue({ code: 'custom', path: ['rules'], message });
    }
  });

/** A rule made ready. */
export interface Rule {
  name: string;
  effect: Effect;
  when: Expression | undefined;
  test: Expression;
  message: string | undefined;
  code: string | undefined;
}

export interface Config extends Omit<z.output<typeof CONFIG>, 'rules'> {
  rules: Rule[];
}

/** Checks a config and compiles its rules. @throws ConfigProblem with every problem, its rule and its place in there */
export function readConfig(config: unknown): Config {
  const checked = parseConfig(CONFIG, config);
  const problems: ConfigProblem['problems'] = [];
  const compiler = new Compiler();
  const compiled = (source: string, path: (string | number)[]) => {
    try {
      return compiler.compile(source);
    } catch (error) {
      if (!(error instanceof ExpressionProblem)) throw error;
      problems.push({ path, message: error.message });
      return undefined;
    }
  };
  const rules = checked.rules.map((one, index) => compiledRule(one, index, compiled));
  if (problems.length > 0) throw new ConfigProblem(problems);
  return { ...checked, rules: rules as Rule[] };
}

function compiledRule(
  config: RuleConfig,
  index: number,
  compiled: (source: string, path: (string | number)[]) => Expression | undefined,
) {
  const { name = `rule-${index + 1}`, message, code: ownCode } = config;
  const effect = EFFECTS.find((one) => config[one] !== undefined)!;
  const when = config.when === undefined ? undefined : compiled(config.when, ['rules', index, 'when']);
  const test = compiled(config[effect]!, ['rules', index, effect]);
  return { name, effect, ...careful(effect, when, test), message, code: ownCode };
}

/** Who lacks a claim is not let in by it: a missing field is a no wherever no is the safe answer, else it is a fault. */
function careful(effect: Effect, when: Expression | undefined, test: Expression | undefined) {
  return {
    when: when && effect === 'allow' ? noWhereMissing(when) : when,
    test: test && effect !== 'deny' ? noWhereMissing(test) : test,
  };
}
