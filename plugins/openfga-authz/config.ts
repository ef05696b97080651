/** The config of openfga-authz: where OpenFGA is, and how an identity and a resource are written in its model. */
import { z } from 'zod';
import { durationMs, parseConfig } from '../../proto/config.ts';
import type { Resource } from '../../proto/contract.ts';

const DURATION = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/;
/** A timer that is set for longer goes off at once. */
const MAX_TIMER_MS = 2_147_483_647;
const NAME = /^[A-Za-z0-9_-]{1,50}$/;
/** `TYPE:`, then text with exactly one `{…}` in it. */
const REFERENCE = /^([A-Za-z0-9_-]{1,50}):([^\s:#*{}]*)\{([^{}]+)\}([^\s:#*{}]*)$/;
const ULID = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;

/** OpenFGA's own rule for names of stores. */
export const STORE_NAME = /^[a-zA-Z0-9\s./^_&@-]{3,64}$/;

const FIELDS = ['username', 'subject', 'sub', 'email', 'tenant'] as const;
const LISTS = ['groups', 'roles'] as const;
const CLAIM = 'claims.';

const name = z.string().regex(NAME, 'A name of the model is made of up to 50 letters, digits, dashes and underscores.');
const text = z.string().min(1);
const ulid = z
  .string()
  .regex(ULID, 'This is no id of OpenFGA; ids have 26 characters, such as 01M7Z4S8R85YC77WJEVBFDHFHP.');
const count = z.int().min(1);
const duration = z
  .string()
  .regex(DURATION, 'Write a number and its unit, such as 500ms, 10s, 1m or 2h.')
  .refine((value) => !DURATION.test(value) || durationMs(value) <= MAX_TIMER_MS, 'This is longer than 24 days.')
  .transform(durationMs);
const span = duration.refine((value) => value > 0, 'It must be longer than nothing.');
const url = z.url({ protocol: /^https?$/, error: 'Write a URL such as http://openfga:8080.' });

const credentials = z.union(
  [
    z.strictObject({ token: text.describe('A preshared key, sent as a bearer token.') }),
    z.strictObject({
      issuer: url.describe('Where tokens are had; the path /oauth/token is added when it has none.'),
      audience: text,
      clientId: text,
      clientSecret: text,
    }),
  ],
  { error: 'Write { token } for a preshared key, or { issuer, audience, clientId, clientSecret }.' },
);

/** A written reference, such as `user:{username}`: the type, the field, and the text around it. */
export interface Reference {
  type: string;
  before: string;
  field: string;
  after: string;
}

const user = z
  .string()
  .regex(REFERENCE, 'Write a type, a colon and one field in braces, such as user:{username}.')
  .refine((value) => !REFERENCE.test(value) || isField(referenceOf(value).field), fieldProblem(FIELDS))
  .transform(referenceOf);

/** What a group says of its members: relation and object of a tuple. */
export interface GroupTuple {
  relation: string;
  object: Reference;
}

const tuple = z
  .string()
  .refine(
    (value) => groupTupleOf(value) !== undefined,
    'Write a user, a relation and an object, such as user:{user} member team:{group}.',
  )
  .transform((value) => groupTupleOf(value) as GroupTuple & { userType: string });

const groups = z.strictObject({
  tuple: tuple.prefault('user:{user} member team:{group}').describe('What membership in a group means.'),
  from: text
    .refine((value) => (LISTS as readonly string[]).includes(value) || isClaim(value), fieldProblem(LISTS))
    .default('groups')
    .describe('The list in the identity: groups, roles or claims.NAME.'),
  prefix: text.optional().describe('Only groups that begin so are told to OpenFGA.'),
  strip: z.boolean().default(false).describe('Leaves the prefix out.'),
  map: z.record(text, text).optional().describe('Groups that are called otherwise in OpenFGA.'),
  max: count.max(100).default(100).describe('How many are told at most; OpenFGA takes 100.'),
});

export type GroupsConfig = z.infer<typeof groups>;

const cache = z.strictObject({
  allowed: duration.prefault('10s').describe('How long a yes is remembered.'),
  denied: duration.prefault('2s').describe('How long a no is remembered.'),
  entries: count.max(1_000_000).default(10_000).describe('How many decisions are remembered at most.'),
});

export type CacheConfig = z.infer<typeof cache>;

const typed = z.union([name, z.strictObject({ type: name, relation: name.optional() })], {
  error: 'Write a type of the model, or { type, relation }.',
});

/** The config of openfga-authz. */
export const CONFIG = z
  .strictObject({
    apiUrl: url.describe('Where OpenFGA answers HTTP, such as http://openfga:8080.'),
    credentials: credentials.optional(),
    store: z
      .string()
      .regex(STORE_NAME, 'A store has a name of 3 to 64 letters, digits, dashes and dots.')
      .optional()
      .describe('The name of the store; default: wardgate.'),
    storeId: ulid.optional().describe('Its id, in place of the name.'),
    modelId: ulid.optional().describe('The id of the authorization model; default: the newest of the store.'),
    user: user.prefault('user:{username}').describe('Who asks: a type and one field of the identity.'),
    anonymous: z
      .string()
      .regex(/^[A-Za-z0-9_-]{1,50}:[A-Za-z0-9._~-]{1,200}$/, 'Write a type and an id, such as user:anonymous.')
      .optional()
      .describe('Who a request without an identity is; without it such a request is denied.'),
    issuers: z.array(text).min(1).optional().describe('Denies identities of any other issuer.'),
    groups: groups.optional().describe('Tells OpenFGA the groups of the identity with each question.'),
    relation: name.default('can_use'),
    types: z.strictObject({ model: typed, tool: typed, server: typed, route: typed }).partial().prefault({}),
    tools: z.boolean().default(false).describe('Decides on the tool calls of models, too.'),
    listing: z
      .enum(['batch', 'list-objects'])
      .default('batch')
      .describe('How the list of models is filtered: a check for each, or one list of all that the user may use.'),
    listMaxResults: count.default(1000).describe('OPENFGA_LIST_OBJECTS_MAX_RESULTS of the server.'),
    listDeadline: span.prefault('3s').describe('OPENFGA_LIST_OBJECTS_DEADLINE of the server.'),
    consistency: z.enum(['MINIMIZE_LATENCY', 'HIGHER_CONSISTENCY']).default('MINIMIZE_LATENCY'),
    cache: z
      .union([z.literal(false), cache], { error: 'Write false, or { allowed, denied, entries }.' })
      .optional()
      .describe('Default: on, unless consistency is HIGHER_CONSISTENCY.'),
    timeout: span.prefault('2s').describe('For one question to OpenFGA, retries included.'),
    retries: z.int().min(0).max(5).default(1).describe('After 429, 5xx and a broken connection.'),
    refresh: span.prefault('1m').describe('How often the store and its newest model are looked up again.'),
  })
  .superRefine((config, context) => {
    for (const [path, message] of problems(config)) context.addIssue({ code: 'custom', path, message });
  });

export type Config = z.infer<typeof CONFIG>;

function* problems(config: {
  store?: string;
  storeId?: string;
  user: Partial<Reference>;
  groups?: { tuple: { userType?: string } };
}): Generator<[string[], string]> {
  if (config.store !== undefined && config.storeId !== undefined) {
    yield [['storeId'], 'Give either the name of the store or its id.'];
  }
  const { type } = config.user;
  // One that is refused for what it is has no type to compare.
  const groupType = config.groups?.tuple.userType;
  if (type !== undefined && groupType !== undefined && groupType !== type) {
    yield [['groups', 'tuple'], `Its user must be of the type that \`user\` has: ${type}:{user}.`];
  }
}

/** How resources of one type are written in the model. */
export interface ObjectType {
  type: string;
  relation: string;
}

/** The object type and relation of each type of resource; by default types are called alike. */
export function objectTypes({ types, relation }: Config): Record<Resource['type'], ObjectType> {
  const typeOf = (resource: Resource['type']): ObjectType => {
    const written = types[resource] ?? resource;
    return typeof written === 'string' ? { type: written, relation } : { relation, ...written };
  };
  return { model: typeOf('model'), tool: typeOf('tool'), server: typeOf('server'), route: typeOf('route') };
}

function referenceOf(written: string): Reference {
  const [, type = '', before = '', field = '', after = ''] = REFERENCE.exec(written) ?? [];
  return { type, before, field, after };
}

function groupTupleOf(written: string): (GroupTuple & { userType: string }) | undefined {
  const [subject = '', relation = '', target = '', ...more] = written.split(' ');
  const object = referenceOf(target);
  const [, userType] = /^([A-Za-z0-9_-]{1,50}):\{user\}$/.exec(subject) ?? [];
  if (userType === undefined || !NAME.test(relation) || object.field !== 'group' || more.length > 0) return undefined;
  return { userType, relation, object };
}

function isField(field: string): boolean {
  return (FIELDS as readonly string[]).includes(field) || isClaim(field);
}

function isClaim(field: string): boolean {
  return field.startsWith(CLAIM) && field.length > CLAIM.length;
}

function fieldProblem(known: readonly string[]): string {
  return `The identity has ${known.join(', ')} and claims.NAME.`;
}

/** Checks a config. @throws ConfigProblem with every problem and its place; none repeats a credential. */
export function readConfig(config: unknown): Config {
  return parseConfig(CONFIG, config);
}
