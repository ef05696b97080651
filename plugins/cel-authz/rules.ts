/**
 * The rules of one config, asked together.
 *
 * A `deny` that is true refuses, a `require` that is not true refuses, and of the `allow` rules one must be true; where
 * there is none, a `require` that speaks lets pass. An expression that cannot be answered is neither true nor false,
 * and the question is a fault where its answer would have mattered.
 */
import { PluginFault } from '../../proto/contract.ts';
import type { Rule } from './config.ts';
import type { Answer, Undecided } from './expression.ts';
import type { Variables } from './variables.ts';

/** Passed, or refused by a rule; without one because none lets it pass. */
export type Decision = { isAllowed: true } | { isAllowed: false; rule: Rule | undefined };

/** The rules by what they do, so that deciding goes through each list once. */
export interface Rules {
  deny: Rule[];
  require: Rule[];
  allow: Rule[];
}

/** Sorts rules by what they do; in each list they stay in the order of the config. */
export function sorted(rules: Rule[]): Rules {
  const by = (effect: Rule['effect']) => rules.filter((rule) => rule.effect === effect);
  return { deny: by('deny'), require: by('require'), allow: by('allow') };
}

/** The rule is the config's, and no secret. */
class Unanswered extends PluginFault {
  constructor({ reason, source }: Undecided) {
    super('rule_unanswered', `a rule could not be answered (${reason}): ${source}`);
  }
}

const PASSED: Decision = { isAllowed: true };

/** Decides on one resource. @throws {@link Unanswered} when it depends on an expression that could not be answered */
export function decide(rules: Rules, variables: Variables): Decision {
  let open: Undecided | undefined;
  for (const rule of rules.deny) {
    const answer = both(rule, variables);
    if (answer === true) return { isAllowed: false, rule };
    if (answer !== false) open ??= answer;
  }
  for (const rule of rules.require) {
    const answer = implied(rule, variables);
    if (answer === false) return { isAllowed: false, rule };
    if (answer !== true) open ??= answer;
  }
  const passes = passed(rules, variables);
  if (passes === false) return { isAllowed: false, rule: speaker(rules.allow, variables) };
  open ??= passes === true ? undefined : passes;
  if (open === undefined) return PASSED;
  throw new Unanswered(open);
}

/** Whether some rule lets it pass. */
function passed({ allow, require }: Rules, variables: Variables): Answer {
  let open: Undecided | undefined;
  for (const rule of allow.length > 0 ? allow : require) {
    const answer = both(rule, variables);
    if (answer === true) return true;
    if (answer !== false) open ??= answer;
  }
  return open ?? false;
}

/** `when` and the rule's own expression. */
function both({ when, test }: Rule, variables: Variables): Answer {
  const applies = when === undefined || when(variables);
  if (applies === false) return false;
  const answer = test(variables);
  return answer === false ? false : applies === true ? answer : applies;
}

/** Where `when` is true, the rule's own expression. */
function implied({ when, test }: Rule, variables: Variables): Answer {
  const applies = when === undefined || when(variables);
  if (applies === false) return true;
  const answer = test(variables);
  return answer === true ? true : applies === true ? answer : applies;
}

/** The `allow` rule that explains why none was true: the first that speaks here and has something to say. */
function speaker(allow: Rule[], variables: Variables): Rule | undefined {
  return allow.find(({ message, when }) => message !== undefined && (when === undefined || when(variables) === true));
}
