/** The config of oidc-auth: which issuers are believed, what their tokens must say, and how people and servers log in and out. */
import { z } from 'zod';
import { durationMs, parseConfig } from '../../proto/config.ts';
import { isLoopback } from './outgoing.ts';

const DURATION = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/;

/** Asymmetric algorithms alone: a shared secret (HS…) cannot tell the issuer from whoever verifies. */
const ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
] as const;

const text = z.string().min(1);
const texts = z.union([text.transform((one) => [one]), z.array(text).min(1)], {
  error: 'Write a text, or a list of texts.',
});
const duration = z
  .string()
  .regex(DURATION, 'Write a number and its unit, such as 500ms, 30s, 5m, 12h or 1d.')
  .transform(durationMs);

const url = z
  .string()
  .refine((written) => isPlainUrl(written), 'Write a whole http(s) URL without user, password and fragment.');

function isPlainUrl(written: string): boolean {
  if (!URL.canParse(written)) return false;
  const { protocol, username, password, hash } = new URL(written);
  return /^https?:$/.test(protocol) && username === '' && password === '' && hash === '';
}

const mapping = z
  .strictObject({
    username: texts
      .default(['preferred_username'])
      .describe('Claim with the user name; of a list, the first that is there.'),
    email: texts.default(['email']),
    unverifiedEmail: z.boolean().default(false).describe('true: the e-mail counts also without `email_verified`.'),
    groups: texts.default(['groups']).describe('Claims with groups; those of a list are put together.'),
    roles: texts
      .default(['realm_access.roles'])
      .describe('Claims with roles; a dot leads into a claim that is an object.'),
    tenant: texts.optional().describe('Claim with the tenant; default: none.'),
  })
  .prefault({});

const introspection = z.strictObject({
  clientId: text,
  clientSecret: text,
  cache: duration.prefault('30s').describe('How long an answer is believed, at most until the token expires.'),
});

const claimValue = z.union([z.string(), z.number(), z.boolean(), z.array(z.union([z.string(), z.number()])).min(1)]);

const issuer = z.strictObject({
  issuer: url.describe('The issuer, letter by letter as tokens have it in `iss`.'),
  discoveryUrl: url
    .optional()
    .describe('Where its discovery document is, when that is not below the issuer: an inner host name, for one.'),
  metadata: z
    .strictObject({
      jwks_uri: url.optional(),
      authorization_endpoint: url.optional(),
      token_endpoint: url.optional(),
      introspection_endpoint: url.optional(),
      end_session_endpoint: url.optional(),
    })
    .default({})
    .describe('In place of what the discovery document says; named whole, that document is not fetched.'),
  audience: texts.optional().describe('One of these must be in `aud`.'),
  azp: texts
    .optional()
    .describe('The client that the token was made for (`azp`, else `client_id`) must be one of these.'),
  algorithms: z
    .array(z.enum(ALGORITHMS, { error: `Write some of ${ALGORITHMS.join(', ')}: no others are accepted.` }))
    .min(1)
    .default(['RS256', 'PS256', 'ES256', 'EdDSA'])
    .describe('What tokens may be signed with. Never HS… or none.'),
  typ: texts.default(['Bearer']).describe('What the claim `typ` may say, where a token has it.'),
  headerTyp: texts.optional().describe('What the header’s `typ` must say; default: JWT, at+jwt or nothing.'),
  clockSkew: duration.prefault('10s').refine((ms) => ms <= 300_000, 'More than 5m is no skew.'),
  requiredClaims: z
    .union([z.array(text), z.record(text, claimValue)], {
      error: 'Write a list of claims, or claims with their values.',
    })
    .default([])
    .describe('Claims that must be there, or that must have (or hold) a value, or one of a list.'),
  requiredScopes: z.array(text).default([]),
  introspection: introspection.optional().describe('Asks the issuer of tokens that are no JWT (RFC 7662).'),
  backchannelLogout: texts.optional().describe('Client ids whose logout tokens are accepted (`aud`).'),
  identity: mapping,
  claims: z.array(text).default([]).describe('Claims that go with the identity as they are.'),
});

const COOKIE_NAME = /^[A-Za-z0-9_-]{1,32}$/;
const secret = z.string().min(32, 'Write at least 32 characters, such as the output of `openssl rand -base64 32`.');
const ownPath = z.string().regex(/^(?:\/(?!\/)[^\s?#\\]*)$/, 'Write a path of this gateway, such as /start.');

const login = z.strictObject({
  issuer: url.optional().describe('Which of the issuers people sign in at; needless with one.'),
  clientId: text,
  clientSecret: text.optional().describe('Without it the client is a public one.'),
  clientAuth: z.enum(['basic', 'post']).default('basic').describe('How the secret goes to the issuer.'),
  publicUrl: url.describe(
    'What people’s browsers call this gateway. The redirect URI is made of it, never of a Host header.',
  ),
  cookieSecret: z
    .union([secret.transform((one) => [one]), z.array(secret).min(1)], {
      error: 'Write one secret of at least 32 characters, or a list of such.',
    })
    .describe('What session cookies are encrypted with: the first seals, all of them open.'),
  cookieName: z.string().regex(COOKIE_NAME, 'Up to 32 letters, digits, _ and -.').default('wardgate'),
  scopes: z.array(text).default(['openid', 'profile', 'email']),
  sessionLife: duration.prefault('12h').describe('After that one signs in again, however often tokens were refreshed.'),
  afterLogin: ownPath.default('/').describe('Where one lands who did not come from a page.'),
  afterLogout: ownPath.default('/'),
});

const redis = z.strictObject({
  url: z.string().regex(/^rediss?:\/\/\S+$/, 'Write redis://… or rediss://….'),
  onFault: z
    .enum(['local', 'reject'])
    .default('local')
    .describe('While it is away: go on with the logouts known here, or refuse everybody (503).'),
  prefix: text.default('wardgate:oidc:').describe('What its keys and channel begin with.'),
});

/** The config of oidc-auth. */
export const CONFIG = z
  .strictObject({
    issuers: z.array(issuer).min(1, 'Name at least one issuer.'),
    foreign: z
      .enum(['reject', 'ignore'])
      .default('reject')
      .describe('A JWT of an issuer that is not named here: refuse it, or leave it to other authenticators.'),
    opaque: z
      .enum(['reject', 'ignore'])
      .default('ignore')
      .describe(
        'A bearer token that is no JWT, where nothing is introspected: leave it to other authenticators, or refuse it.',
      ),
    realm: z
      .string()
      .regex(
        /^[\x20\x21\x23-\x5b\x5d-\x7e]{1,100}$/,
        'Up to 100 printable ASCII characters without quotes and backslashes.',
      )
      .default('wardgate')
      .describe('What the challenge calls this gateway.'),
    resource: url.optional().describe('This gateway as an OAuth resource: its metadata are served (RFC 9728).'),
    path: z
      .string()
      .regex(/^(?:\/[A-Za-z0-9_.~-]+)+$/, 'Write an absolute path such as /oauth2.')
      .default('/oauth2')
      .describe('Where the login’s and the logout’s own paths begin.'),
    timeout: duration
      .prefault('1500ms')
      .refine((ms) => ms >= 10 && ms <= 60_000, 'Between 10ms and 60s.')
      .describe('How long an answer of an issuer is waited for; less than the mount’s deadline.'),
    keyRefresh: duration.prefault('5m').refine((ms) => ms >= 1000 && ms <= 86_400_000, 'Between 1s and 1d.'),
    keyCooldown: duration.prefault('1s').describe('The shortest time between two looks at an issuer’s keys.'),
    maxTokens: z.int().min(1).max(1_000_000).default(10_000).describe('How many verified tokens are remembered.'),
    maxTokenLife: duration
      .prefault('1d')
      .describe('With back-channel logout: how long a logout is kept; tokens that live on after that are refused.'),
    allowInsecure: z
      .boolean()
      .default(false)
      .describe('true: plain http also for issuers that are not on this machine.'),
    redis: z
      .union([redis.shape.url.transform((one) => redis.parse({ url: one })), redis])
      .optional()
      .describe('Shares logouts between replicas and keeps them over restarts.'),
    login: login.optional().describe('Lets people with a browser sign in.'),
  })
  .superRefine((config, context) => {
    for (const { path, message } of problemsOf(config)) context.addIssue({ code: 'custom', path, message });
  });

export type Config = z.output<typeof CONFIG>;
export type IssuerConfig = z.output<typeof issuer>;
export type LoginConfig = z.output<typeof login>;
export type RedisConfig = z.output<typeof redis>;

interface Problem {
  path: (string | number)[];
  message: string;
}

function* problemsOf(config: Config): Generator<Problem> {
  const seen = new Set<string>();
  for (const [index, one] of config.issuers.entries()) {
    const path = ['issuers', index];
    if (seen.has(one.issuer)) yield { path: [...path, 'issuer'], message: 'This issuer already stands further up.' };
    seen.add(one.issuer);
    if (one.audience === undefined && one.azp === undefined) {
      yield {
        path: [...path, 'audience'],
        message: 'Name the `audience` of the tokens, or their authorized parties (`azp`).',
      };
    }
    if (!config.allowInsecure) yield* insecureUrls(one, path);
  }
  if (config.login !== undefined) yield* loginProblems(config.login, config.issuers);
}

function* insecureUrls({ issuer, discoveryUrl, metadata }: IssuerConfig, path: Problem['path']): Generator<Problem> {
  const urls: [Problem['path'], string | undefined][] = [
    [['issuer'], issuer],
    [['discoveryUrl'], discoveryUrl],
    ...Object.entries(metadata).map(([name, value]): [string[], string] => [['metadata', name], value]),
  ];
  for (const [place, url] of urls) {
    if (url === undefined || !URL.canParse(url)) continue;
    const { protocol, hostname } = new URL(url);
    if (protocol === 'https:' || isLoopback(hostname)) continue;
    yield {
      path: [...path, ...place],
      message: 'Plain http can be listened to and changed on its way: use https, or say `allowInsecure: true`.',
    };
  }
}

function* loginProblems(login: LoginConfig, issuers: IssuerConfig[]): Generator<Problem> {
  const isKnown = issuers.some(({ issuer }) => issuer === login.issuer);
  if (login.issuer === undefined ? issuers.length > 1 : !isKnown) {
    yield { path: ['login', 'issuer'], message: 'Name one of the `issuers`.' };
  }
  if (!login.scopes.includes('openid')) {
    yield { path: ['login', 'scopes'], message: 'The scope `openid` is needed: without it nobody says who signed in.' };
  }
  if (login.publicUrl.includes('?')) yield { path: ['login', 'publicUrl'], message: 'Leave out the query.' };
}

/** Checks a config. @throws ConfigProblem with every problem and its place; none repeats a secret */
export function readConfig(config: unknown): Config {
  return parseConfig(CONFIG, config);
}
