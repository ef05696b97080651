/**
 * CEL expressions (https://github.com/google/cel-spec), compiled and type-checked once.
 *
 * Their cost is bounded: an expression has a length and a depth, its loops run over what it is given, and
 * `matches` runs in re2js, whose time is linear; V8's RegExp, which the library would use, can be made to backtrack.
 */
import {
  type ASTNode,
  Environment,
  type EvaluationError,
  type ParseError,
  type ParseResult,
  type TypeCheckResult,
} from '@marcbachmann/cel-js';
import { RE2JS } from 're2js';
import { IDENTITY_FIELDS, RequestVariable, ResourceVariable, VARIABLES, type Variables } from './variables.ts';

/** The longest expression, in UTF-16 units. */
export const MAX_EXPRESSION = 4_000;
const MAX_DEPTH = 64;

/** What is wrong with an expression, and where in it. */
export class ExpressionProblem extends Error {}

/** An expression that could not be answered for a request. */
export class Undecided {
  readonly source: string;
  readonly reason: string;
  /** Whether all that is wrong is a field or key that is not there. */
  readonly isMissing: boolean;

  constructor(source: string, reason: string, isMissing: boolean) {
    this.source = source;
    this.reason = reason;
    this.isMissing = isMissing;
  }
}

export type Answer = boolean | Undecided;

/** Answers for the variables of one request. Never throws. */
export type Expression = (variables: Variables) => Answer;

/** Takes a field that is not there for a no. */
export function noWhereMissing(expression: Expression): Expression {
  return (variables) => {
    const answer = expression(variables);
    return answer instanceof Undecided && answer.isMissing ? false : answer;
  };
}

/** The method that stands in the place of `matches`. */
const MATCHES = 'matchesLinear';

const MISSING: ReadonlySet<string> = new Set(['no_such_key', 'index_out_of_bounds']);

/** Compiles the expressions of one config, and holds their patterns. */
export class Compiler {
  readonly #patterns = new Map<string, RE2JS>();
  readonly #environment: Environment;

  constructor() {
    const matches = (text: string, pattern: string) => this.#patterns.get(pattern)!.test(text);
    this.#environment = environment().registerFunction(`string.${MATCHES}(string): bool`, matches);
  }

  /** Compiles an expression that answers true or false. @throws ExpressionProblem */
  compile(source: string): Expression {
    const parsed = this.#parse(source);
    this.#prepare(parsed.ast, source);
    const { valid, type, error } = parsed.check();
    if (!valid) throw problem(source, error!);
    if (type !== 'bool' && type !== 'dyn') {
      throw new ExpressionProblem(
        `It answers with ${type}, but a rule wants true or false: compare it with something.`,
      );
    }
    return (variables) => answered(source, parsed, variables);
  }

  #parse(source: string): ParseResult {
    try {
      return this.#environment.parse(source);
    } catch (error) {
      throw problem(source, error as ParseError);
    }
  }

  /** Walks the parts: `matches` gets its linear replacement, and what the type checker cannot know is checked. */
  #prepare(node: ASTNode, source: string): void {
    if (node.op === 'rcall' && (node.args[0] === 'matches' || node.args[0] === MATCHES))
      this.#prepareMatches(node, source);
    if (node.op === '.' && node.args[0].op === 'id' && node.args[0].args === 'identity') {
      const field = node.args[1];
      if (!IDENTITY_FIELDS.includes(field)) {
        const message = `An identity has no ${field}. It has ${IDENTITY_FIELDS.join(', ')}; what else a token says is in jwt.`;
        throw problemAt(source, node.end - field.length, message);
      }
    }
    for (const child of children(node.args)) this.#prepare(child, source);
  }

  /** A pattern stands in the expression as it is, so that it is known and compiled at the start. */
  #prepareMatches(node: Extract<ASTNode, { op: 'rcall' }>, source: string): void {
    (node.args as unknown as [string])[0] = MATCHES;
    const [pattern] = node.args[2];
    if (pattern?.op !== 'value' || typeof pattern.args !== 'string') {
      throw problemAt(source, (pattern ?? node).start, 'The pattern of matches is a text in quotes.');
    }
    try {
      this.#patterns.set(pattern.args, RE2JS.compile(pattern.args));
    } catch {
      throw problemAt(
        source,
        pattern.start,
        'This is no pattern of RE2, which has no look-around and no back-references.',
      );
    }
  }
}

function environment(): Environment {
  return new Environment({
    homogeneousAggregateLiterals: false,
    limits: { maxDepth: MAX_DEPTH },
  })
    .registerType('Request', { ctor: RequestVariable, fields: REQUEST_FIELDS })
    .registerType('Resource', { ctor: ResourceVariable, fields: { type: 'string', name: 'string' } })
    .registerVariable('identity', 'dyn')
    .registerVariable('jwt', 'dyn')
    .registerVariable('request', 'Request')
    .registerVariable('action', 'string')
    .registerVariable('resource', 'Resource');
}

const REQUEST_FIELDS = {
  method: 'string',
  path: 'string',
  route: 'string',
  model: 'string',
  provider: 'string',
  headers: 'map<string, string>',
  context: 'map<string, string>',
};

function answered(source: string, parsed: ParseResult, variables: Variables): Answer {
  try {
    const value: unknown = parsed(variables);
    if (typeof value === 'boolean') return value;
    return new Undecided(source, 'it answered with something else than true or false', false);
  } catch (error) {
    // The message may repeat what was compared; the code cannot.
    const { code = 'failed' } = error as Partial<EvaluationError>;
    return new Undecided(source, code, MISSING.has(code));
  }
}

function problem(source: string, error: NonNullable<TypeCheckResult['error']>): ExpressionProblem {
  const hint = error.code === 'unknown_variable' ? ` There are ${VARIABLES.join(', ')}.` : '';
  return problemAt(source, error.range?.start ?? 0, `${error.summary}.${hint}`);
}

function problemAt(source: string, position: number, message: string): ExpressionProblem {
  const before = source.slice(0, position).split('\n');
  const place = `line ${before.length}, character ${before.at(-1)!.length + 1}`;
  const near = source.slice(position, position + 30).split('\n')[0];
  return new ExpressionProblem(`${message} (${place}${near ? `, at ${near}` : ''})`);
}

function children(args: unknown): ASTNode[] {
  if (Array.isArray(args)) return args.flatMap(children);
  return typeof args === 'object' && args !== null && 'op' in args ? [args as ASTNode] : [];
}
