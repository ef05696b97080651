/** The config of api-key-auth: which keys are known, whose they are, and where clients put them. */
import { z } from 'zod';
import { durationMs, parseConfig } from '../../proto/config.ts';
import { DURATION } from './duration.ts';
import { budget, models } from './grants.ts';

/** What a key is made of: visible ASCII without the comma, because a comma in a header value joins two of them. */
const KEY = /^[\x21-\x2b\x2d-\x7e]+$/;
const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

const text = z.string().min(1);

const keyEntry = z.strictObject({
  hash: z
    .string()
    .regex(/^sha256:[0-9a-f]{64}$/i, 'A hash is written as sha256: and 64 hexadecimal digits.')
    .optional()
    .describe('SHA-256 of the key, such as sha256:2c26b4…; hash.ts prints it.'),
  key: z
    .string()
    .regex(KEY, 'A key is made of visible ASCII characters without commas and spaces.')
    .optional()
    .describe('The key itself, for demos; it is hashed at start.'),
  subject: text.optional().describe('Stable id of the person or program that holds the key.'),
  name: text.optional().describe('Another spelling of `subject`.'),
  username: text.optional(),
  groups: z.array(text).optional(),
  roles: z.array(text).optional(),
  tenant: text.optional(),
  expires: z
    .union([z.iso.date(), z.iso.datetime({ offset: true })], {
      error: 'Write an ISO date such as 2027-01-31 or 2027-01-31T18:00:00Z.',
    })
    .optional()
    .describe('From this moment on the key is refused; a bare date means its first moment in UTC.'),
  models: models.optional(),
  budget: budget.optional(),
});

const duration = z.string().regex(DURATION, 'Write a number and its unit, such as 500ms, 2s or 1m.');

const redis = z.strictObject({
  url: z
    .string()
    .refine(isRedisUrl, 'Write redis://HOST:PORT, or rediss:// with TLS; user and password stand before the host.')
    .describe('Where issued keys are kept, such as redis://redis:6379.'),
  namespace: text
    .max(128)
    .default('wardgate:keys:')
    .describe('What the names of all entries begin with; keys.ts wants the same.'),
  refresh: duration
    .default('2s')
    .describe('How long an answer of Redis is believed: within this time a revoked key stops.'),
  outage: duration
    .default('30s')
    .describe('How long a key that was seen goes on when Redis does not answer, from its last answer on.'),
  timeout: duration
    .refine((written) => !DURATION.test(written) || durationMs(written) > 0, 'The time must be longer than nothing.')
    .default('250ms')
    .describe('How long an answer of Redis is waited for; less than the deadline of the mount.'),
});

function isRedisUrl(written: string): boolean {
  const url = URL.parse(written);
  return url !== null && /^rediss?:$/.test(url.protocol) && url.hostname !== '';
}

/** One known key as it stands in the config. */
export type KeyEntry = z.infer<typeof keyEntry>;

/** The config of api-key-auth. */
export const CONFIG = z
  .strictObject({
    keys: z.array(keyEntry).default([]).describe('Keys that stand in the config; they work without Redis, too.'),
    redis: redis.optional().describe('Keys that are issued and revoked by keys.ts while the gateway runs.'),
    headers: z
      .array(z.string().regex(HEADER_NAME, 'This is not a header name.').toLowerCase())
      .min(1, 'Name at least one header.')
      .default(['authorization', 'x-api-key', 'api-key', 'x-goog-api-key'])
      .describe('Where clients may put the key. In `authorization` it stands after `Bearer`, elsewhere alone.'),
    prefix: z
      .union([text, z.array(text).min(1)])
      .transform((written) => [written].flat())
      .default([''])
      .describe('What all keys begin with, or a list; other credentials are left to other authenticators.'),
  })
  .superRefine((config, context) => {
    if (config.keys.length === 0 && config.redis === undefined) {
      const message = 'Name at least one key, or say with `redis` where issued ones are kept.';
      context.addIssue({ code: 'custom', path: ['keys'], message });
    }
    for (const [index, entry] of config.keys.entries()) {
      for (const [field, message] of entryProblems(entry, config.prefix)) {
        context.addIssue({ code: 'custom', path: ['keys', index, ...(field ? [field] : [])], message });
      }
    }
  });

export type Config = z.infer<typeof CONFIG>;

function* entryProblems(entry: KeyEntry, prefixes: string[]): Generator<[keyof KeyEntry | undefined, string]> {
  if ((entry.hash === undefined) === (entry.key === undefined)) {
    yield [undefined, 'Give either the `hash` of the key or, in a demo, the `key` itself.'];
  }
  if ((entry.subject === undefined) === (entry.name === undefined)) {
    yield [undefined, 'Say whose key it is with `subject` (or `name`, which means the same).'];
  }
  if (entry.key !== undefined && !prefixes.some((prefix) => entry.key!.startsWith(prefix))) {
    yield ['key', 'The key does not begin with `prefix`, so it would never be looked at.'];
  }
}

/** Checks a config. @throws ConfigProblem with every problem and its place; none repeats a key. */
export function readConfig(config: unknown): Config {
  return parseConfig(CONFIG, config);
}
