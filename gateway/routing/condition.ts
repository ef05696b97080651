/**
 * `when:` of a target: a CEL expression (https://github.com/google/cel-spec) that says for which requests it is there.
 *
 * Compiled and checked when the config is read. `matches` runs in re2js, whose time is linear: what is matched comes from
 * clients, and V8's RegExp, which the library would use, can be made to backtrack.
 */
import { type ASTNode, Environment, type ParseResult } from '@marcbachmann/cel-js';
import { RE2JS } from 're2js';
import type { Identity } from '../../proto/contract.ts';

/** The longest expression, in UTF-16 units. */
const MAX_LENGTH = 4_000;
/** How deep an expression, and a claim that it can see, may be nested. */
const MAX_DEPTH = 32;

/** What a condition can speak of. */
export interface ConditionFacts {
  identity: Identity | undefined;
  headers: Readonly<Record<string, string | undefined>>;
  /** The name that the client asked for. */
  model: string;
  /** The route's prefix. */
  route: string;
  /** An estimate. */
  promptTokens: number;
  streamed: boolean;
}

/** The facts as CEL has them. Made once a request, when the first condition is asked. */
export interface ConditionVariables {
  /** Null for a stranger. */
  identity: Map<string, unknown> | null;
  headers: Map<string, string>;
  model: string;
  route: string;
  promptTokens: bigint;
  stream: boolean;
}

/** Answers true or false, and undefined when the expression could not be evaluated. Never throws. */
export type Condition = (variables: ConditionVariables) => boolean | undefined;

/** The method that stands in the place of `matches`. */
const LINEAR = 'matchesLinear';

/** The patterns of all expressions; they come from configs alone, so there are few. */
const patterns = new Map<string, RE2JS>();

const environment = new Environment({ homogeneousAggregateLiterals: false, limits: { maxDepth: MAX_DEPTH } })
  .registerVariable('identity', 'dyn')
  .registerVariable('headers', 'map<string, string>')
  .registerVariable('model', 'string')
  .registerVariable('route', 'string')
  .registerVariable('promptTokens', 'int')
  .registerVariable('stream', 'bool')
  .registerFunction(`string.${LINEAR}(string): bool`, (text: string, pattern: string) =>
    patterns.get(pattern)!.test(text),
  );

/** Compiles an expression. @throws Error whose message says what is wrong with it, for the operator */
export function compileCondition(source: string): Condition {
  if (source.length > MAX_LENGTH) throw new Error(`is longer than ${MAX_LENGTH} characters`);
  const parsed = parse(source);
  replaceMatches(parsed.ast);
  const { valid, type, error } = parsed.check();
  if (!valid) throw new Error(`is no CEL expression: ${error?.summary ?? 'it does not fit its types'}${hint(error)}`);
  if (type !== 'bool' && type !== 'dyn') throw new Error(`answers with ${type}, and must be true or false`);
  return (variables) => evaluate(parsed, variables);
}

function parse(source: string): ParseResult {
  try {
    return environment.parse(source);
  } catch (error) {
    throw new Error(`is no CEL expression: ${(error as { summary?: string }).summary ?? 'it cannot be read'}`);
  }
}

function hint(error: { code?: string } | undefined): string {
  if (error?.code !== 'unknown_variable') return '';
  return '; there are identity, headers, model, route, promptTokens and stream';
}

/** Puts the linear method in the place of `matches`, whose pattern must be a text in quotes so that it is known now. */
function replaceMatches(node: ASTNode): void {
  if (node.op === 'rcall' && (node.args[0] === 'matches' || node.args[0] === LINEAR)) {
    const pattern = node.args[2][0];
    if (pattern?.op !== 'value' || typeof pattern.args !== 'string')
      throw new Error('has a `matches` whose pattern is not a text in quotes');
    patterns.set(pattern.args, linear(pattern.args));
    (node.args as unknown as string[])[0] = LINEAR;
  }
  for (const child of [node.args].flat(4) as unknown[]) if (isNode(child)) replaceMatches(child);
}

function linear(pattern: string): RE2JS {
  try {
    return RE2JS.compile(pattern);
  } catch {
    throw new Error('has a pattern that RE2 does not take (it has no look-around and no back-references)');
  }
}

function isNode(value: unknown): value is ASTNode {
  return typeof value === 'object' && value !== null && 'op' in value && 'args' in value;
}

/** A field or a header that is not there means that the request is not meant, and so no failure. */
function evaluate(parsed: ParseResult, variables: ConditionVariables): boolean | undefined {
  try {
    const value: unknown = parsed(variables);
    return typeof value === 'boolean' ? value : undefined;
  } catch (error) {
    const { code } = error as { code?: unknown };
    return code === 'no_such_key' || code === 'index_out_of_bounds' ? false : undefined;
  }
}

export function conditionVariables(facts: ConditionFacts): ConditionVariables {
  const headers = Object.entries(facts.headers).filter((one): one is [string, string] => one[1] !== undefined);
  return {
    identity: facts.identity === undefined ? null : identityVariable(facts.identity),
    headers: new Map(headers),
    model: facts.model,
    route: facts.route,
    promptTokens: BigInt(Math.ceil(facts.promptTokens)),
    stream: facts.streamed,
  };
}

/** Every field is there, empty where it is not known, so that a condition need not ask for it first. */
function identityVariable(identity: Identity): Map<string, unknown> {
  const { subject, issuer = '', username = '', email = '', tenant = '', groups, roles, claims = {} } = identity;
  const texts = { subject, issuer, username, email, tenant };
  return new Map<string, unknown>([
    ...Object.entries(texts),
    ['groups', celValue(groups ?? [], 0)],
    ['roles', celValue(roles ?? [], 0)],
    ['claims', celValue(claims, 0)],
  ]);
}

/** JSON as CEL has it: objects are maps, so that no name means more than a name, and whole numbers are `int`. */
function celValue(value: unknown, depth: number): unknown {
  if (typeof value === 'number' && Number.isSafeInteger(value)) return BigInt(value);
  if (typeof value !== 'object' || value === null) return value;
  if (depth > MAX_DEPTH) return null;
  if (Array.isArray(value)) return value.map((one) => celValue(one, depth + 1));
  return new Map(Object.entries(value).map(([name, one]) => [name, celValue(one, depth + 1)]));
}
