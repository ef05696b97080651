/** What the expressions speak of: the request's facts, as CEL values. */
import type { AuthorizeInput, Identity, RequestFacts, Resource } from '../../proto/contract.ts';

/** The variables of one question. */
export interface Variables {
  /** Null for a stranger. */
  identity: Map<string, unknown> | null;
  /** The claims, with `sub`, `iss` and the like; empty for a stranger. */
  jwt: Map<string, unknown>;
  request: RequestVariable;
  action: string;
  resource: ResourceVariable;
}

export const VARIABLES = ['action', 'identity', 'jwt', 'request', 'resource'];

/** What every identity has; a text that is not known is empty, and so is a list. */
export const IDENTITY_FIELDS = ['subject', 'issuer', 'username', 'email', 'tenant', 'groups', 'roles', 'claims'];

/** Claims that are nested deeper are left out. */
const MAX_DEPTH = 32;

export class RequestVariable {
  readonly method: string;
  readonly path: string;
  readonly route: string;
  readonly model: string;
  readonly provider: string;
  readonly headers: Map<string, string>;
  readonly context: Map<string, string>;

  constructor(facts: RequestFacts) {
    this.method = facts.method;
    this.path = facts.path;
    this.route = facts.route;
    this.model = facts.model ?? '';
    this.provider = facts.provider ?? '';
    this.headers = new Map(Object.entries(facts.headers ?? {}));
    this.context = new Map(Object.entries(facts.context ?? {}));
  }
}

export class ResourceVariable {
  readonly type: string;
  readonly name: string;

  constructor({ type, name }: Resource) {
    this.type = type;
    this.name = name;
  }
}

/** What all resources of a question share. */
export type Facts = Omit<Variables, 'resource'>;

/** The facts of a question, and the variables for one of its resources. */
export function factsOf({ request, action }: AuthorizeInput): Facts {
  const { identity, jwt } = personOf(request.identity);
  return { identity, jwt, request: new RequestVariable(request), action };
}

type Person = Pick<Variables, 'identity' | 'jwt'>;

/** An authenticator in the same process gives the same identity again and again: it is made a CEL value once. */
const PEOPLE = new WeakMap<Identity, Person>();

function personOf(identity: Identity | undefined): Person {
  if (identity === undefined) return { identity: null, jwt: new Map() };
  const known = PEOPLE.get(identity);
  if (known !== undefined) return known;
  const person = valuesOf(identity);
  PEOPLE.set(identity, person);
  return person;
}

function valuesOf(identity: Identity): Person {
  const { subject, issuer = '', username = '', email = '', tenant = '' } = identity;
  const groups = textsOf(identity.groups);
  const roles = textsOf(identity.roles);
  const claims = celValue(identity.claims ?? {}, 0) as Map<string, unknown>;
  // The names that a token of OpenID Connect has for them, for expressions that were written for one. Who somebody is was
  // said by the authenticator; no claim may say otherwise.
  const named = new Map<string, unknown>(Object.entries({ preferred_username: username, email, groups }));
  for (const [name, value] of named) if (value === '') named.delete(name);
  const jwt = new Map([...named, ...claims, ['sub', subject], ['iss', issuer]]);
  const fields = { subject, issuer, username, email, tenant, groups, roles, claims };
  return { identity: new Map<string, unknown>(Object.entries(fields)), jwt };
}

function textsOf(list: string[] | undefined): string[] {
  return Array.isArray(list) ? list.filter((one) => typeof one === 'string') : [];
}

/**
 * JSON as CEL has it. Objects become maps, so that no name, such as `constructor`, means more than a name. Whole numbers
 * become `int`; what JSON does not have is left out.
 */
function celValue(value: unknown, depth: number): unknown {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number') return Number.isSafeInteger(value) ? BigInt(value) : value;
  if (typeof value !== 'object' || depth > MAX_DEPTH) return undefined;
  if (Array.isArray(value)) return value.map((one) => celValue(one, depth + 1)).filter((one) => one !== undefined);
  const entries = Object.entries(value).map(([name, one]) => [name, celValue(one, depth + 1)] as const);
  return new Map(entries.filter(([, one]) => one !== undefined));
}
