/** The config of opa-authz: where OPA is, which decision is asked for, and what it is told. */
import { z } from 'zod';
import { durationMs, parseConfig } from '../../proto/config.ts';

const DURATION = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/;
const UNIT_BYTES = { B: 1, KiB: 1024, MiB: 1024 ** 2 };
const SIZE = /^(\d+)(B|KiB|MiB)$/;
/** The most of a body that the gateway shows, in bytes. */
const MAX_BODY = 1024 ** 2;
/** What `body: true` asks for, in bytes. */
const SOME_BODY = 64 * 1024;

/** Rules and packages in the path of a decision: `wardgate/authz`, `my/policies/allow`. */
const PATH = /^[A-Za-z0-9_.-]+(?:\/[A-Za-z0-9_.-]+)*$/;
const VISIBLE = /^[\x21-\x7e]+$/;

const text = z.string().min(1);
const count = z.int().min(1);
const duration = z
  .string()
  .regex(DURATION, 'Write a number and its unit, such as 500ms, 10s, 1m or 2h.')
  .transform(durationMs);

const tls = z.strictObject({
  ca: text.optional().describe('Who may have signed OPA’s certificate: a PEM text or the path of one.'),
  cert: text.optional().describe('The plugin’s own certificate, where OPA asks for one.'),
  key: text.optional(),
  serverName: text.optional().describe('The name that the certificate must have, when it is not the host of `url`.'),
});

export type TlsConfig = z.infer<typeof tls>;

const cache = z.strictObject({
  allowed: duration.prefault('5s').describe('How long a yes is remembered.'),
  denied: duration.prefault('1s').describe('How long a no is remembered.'),
  entries: count.max(1_000_000).default(10_000).describe('How many decisions are remembered at most.'),
});

export type CacheConfig = z.infer<typeof cache>;

/** The config of opa-authz. */
export const CONFIG = z.strictObject({
  url: z
    .url({ protocol: /^https?$/, error: 'Write a URL such as http://opa:8181.' })
    .refine((url) => isPlain(url), 'It has neither a password (write `token`), nor a query, nor a fragment.')
    .describe('Where OPA answers HTTP, such as http://opa:8181.'),
  path: z
    .string()
    .regex(PATH, 'Write the path of a package or rule with slashes, such as wardgate/authz.')
    .refine((path) => !path.split('/').some((part) => /^\.+$/.test(part)), 'It has no dots for folders.')
    .default('wardgate/authz')
    .describe('The decision: a package or a rule, with slashes in place of dots.'),
  allow: text.default('allow').describe('The rule that decides, where the decision is a package.'),
  messages: z.boolean().default(true).describe('Shows the client the `message` that the policy gives with a no.'),
  tools: z.boolean().default(false).describe('Decides on the tool calls of models, too.'),
  body: z
    .union([z.boolean(), z.string().regex(SIZE).transform(bytes), count], {
      error: 'Write true, false or a size such as 8KiB.',
    })
    .default(false)
    .transform((body) => (body === true ? SOME_BODY : body || 0))
    .refine((size) => size <= MAX_BODY, 'The gateway shows 1MiB at most.')
    .describe('How much of the request’s body OPA is told. It holds the prompt, and OPA’s decision log would, too.'),
  token: z
    .string()
    .regex(VISIBLE, 'A token is made of visible ASCII characters.')
    .optional()
    .describe('Sent as a bearer token, for an OPA with --authentication=token.'),
  tls: tls.prefault({}),
  connections: count.max(1_000).default(50).describe('How many connections to OPA may be open at once.'),
  cache: z
    .union([z.literal(false), cache], { error: 'Write false, or { allowed, denied, entries }.' })
    .default(false)
    .describe('Remembers decisions on equal input.'),
});

export type Config = z.infer<typeof CONFIG>;

function isPlain(written: string): boolean {
  const url = URL.parse(written);
  return url === null || (url.username + url.password + url.search + url.hash === '' && !/[?#]/.test(written));
}

function bytes(written: string): number {
  const [, number, unit] = SIZE.exec(written) ?? [];
  return Number(number) * UNIT_BYTES[unit as keyof typeof UNIT_BYTES];
}

/** Checks a config. @throws ConfigProblem with every problem and its place; none repeats the token */
export function readConfig(config: unknown): Config {
  return parseConfig(CONFIG, config);
}
