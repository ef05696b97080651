/** What OPA's result decides. Undefined is a no; what is neither a yes nor a no is thrown. */
import type { AllowOrReject, AuthorizeInput } from '../../proto/contract.ts';
import { noDecision } from './faults.ts';
import type { Answer } from './opa.ts';

/** A policy's message is cut to this length, in UTF-16 units. */
const MAX_MESSAGE = 500;
const CODE = /^[a-z][a-z0-9_]{0,63}$/;

/** One answer for each resource, and what a policy says to a no. */
export interface Decision {
  decisions: boolean[];
  /** `reason`, where it is fit to be an error's code. */
  code: string | undefined;
  message: string | undefined;
  /** Its id in OPA's decision log. */
  id: string | undefined;
}

/**
 * Reads a result: true or false for all resources, or a list of those that are allowed (their names, as a set of Rego
 * gives, or one boolean for each); or an object that has one of these, by default as `allow`.
 *
 * @throws OpaFault when it is something else
 */
export function decisionOf(
  { result, id }: Answer,
  allow: string,
  { resources }: Pick<AuthorizeInput, 'resources'>,
): Decision {
  const isPackage = typeof result === 'object' && result !== null && !Array.isArray(result);
  const members = isPackage ? (result as Record<string, unknown>) : {};
  const rule = isPackage ? own(members, allow) : result;
  return { decisions: decided(rule, resources), code: codeIn(members), message: messageIn(members), id };
}

function decided(rule: unknown, resources: AuthorizeInput['resources']): boolean[] {
  if (rule === undefined) return resources.map(() => false);
  if (typeof rule === 'boolean') return resources.map(() => rule);
  if (!Array.isArray(rule)) throw noDecision('it is neither true, nor false, nor a list');
  if (rule.every((one) => typeof one === 'string')) {
    const names = new Set(rule);
    return resources.map(({ name }) => names.has(name));
  }
  if (!rule.every((one) => typeof one === 'boolean')) {
    throw noDecision('its list holds something else than names, or than true and false');
  }
  if (rule.length !== resources.length) throw noDecision('its list has another length than the resources');
  return rule;
}

function own(members: Record<string, unknown>, name: string): unknown {
  return Object.hasOwn(members, name) ? members[name] : undefined;
}

function codeIn(members: Record<string, unknown>): string | undefined {
  const reason = own(members, 'reason');
  return typeof reason === 'string' && CODE.test(reason) ? reason : undefined;
}

/** The policy's sentence, on one line. */
function messageIn(members: Record<string, unknown>): string | undefined {
  const message = own(members, 'message');
  if (typeof message !== 'string') return undefined;
  const line = message.replace(/[\s\p{Cc}]+/gu, ' ').trim();
  return line === '' ? undefined : line.slice(0, MAX_MESSAGE).toWellFormed();
}

const WORDS = {
  'model.use': 'You may not use this model. Choose another one, or ask the operator of this gateway for access.',
  'model.list': 'You may not use any of these models. Ask the operator of this gateway for access.',
  'tool.call': 'The policy of this gateway does not allow the tool that the model wanted to use.',
};

/** A no to all is a rejection with the policy's words; a list of models is only made shorter. */
export function verdictOf(decision: Decision, action: AuthorizeInput['action']): AllowOrReject {
  const { decisions, code = 'policy_denied', message = WORDS[action], id: decisionId } = decision;
  if (action === 'model.list' || decisions.includes(true)) return { allow: { decisions, decisionId } };
  return { reject: { code, message, status: 403, decisionId } };
}
