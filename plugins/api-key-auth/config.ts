/** The config of api-key-auth: which keys are known, whose they are, and where clients put them. */
import { z } from 'zod';
import { parseConfig } from '../../proto/config.ts';

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
});

/** One known key as it stands in the config. */
export type KeyEntry = z.infer<typeof keyEntry>;

/** The config of api-key-auth. */
export const CONFIG = z
  .strictObject({
    keys: z.array(keyEntry).min(1, 'Name at least one key.'),
    headers: z
      .array(z.string().regex(HEADER_NAME, 'This is not a header name.').toLowerCase())
      .min(1, 'Name at least one header.')
      .default(['authorization', 'x-api-key', 'api-key'])
      .describe('Where clients may put the key. In `authorization` it stands after `Bearer`, elsewhere alone.'),
    prefix: text.optional().describe('What all keys begin with; other credentials are left to other authenticators.'),
  })
  .superRefine((config, context) => {
    for (const [index, entry] of config.keys.entries()) {
      for (const [field, message] of entryProblems(entry, config.prefix)) {
        context.addIssue({ code: 'custom', path: ['keys', index, ...(field ? [field] : [])], message });
      }
    }
  });

export type Config = z.infer<typeof CONFIG>;

function* entryProblems(entry: KeyEntry, prefix = ''): Generator<[keyof KeyEntry | undefined, string]> {
  if ((entry.hash === undefined) === (entry.key === undefined)) {
    yield [undefined, 'Give either the `hash` of the key or, in a demo, the `key` itself.'];
  }
  if ((entry.subject === undefined) === (entry.name === undefined)) {
    yield [undefined, 'Say whose key it is with `subject` (or `name`, which means the same).'];
  }
  if (entry.key !== undefined && !entry.key.startsWith(prefix)) {
    yield ['key', 'The key does not begin with `prefix`, so it would never be looked at.'];
  }
}

/** Checks a config. @throws ConfigProblem with every problem and its place; none repeats a key. */
export function readConfig(config: unknown): Config {
  return parseConfig(CONFIG, config);
}
