/** A key as it is stored: whose it is and what it may, and of the key itself only the SHA-256. */
import { z } from 'zod';
import { KeyFault } from './faults.ts';
import { budget, models, text } from './grants.ts';

const moment = z.iso.datetime();

const RECORD = z.object({
  version: z.literal(1),
  /** SHA-256 of the key, in hexadecimal. */
  digest: z.string().regex(/^[0-9a-f]{64}$/),
  /** The key's first characters. */
  start: text,
  subject: text,
  name: text.optional(),
  username: text.optional(),
  groups: z.array(text).optional(),
  roles: z.array(text).optional(),
  tenant: text.optional(),
  models: models.optional(),
  budget: budget.optional(),
  created: moment,
  /** From this moment on the key is refused. */
  expires: moment.optional(),
  revoked: moment.optional(),
  /** The id of the key that took its place. */
  replacedBy: z.string().optional(),
});

/** Moments are ISO 8601 in UTC. */
export type KeyRecord = z.output<typeof RECORD>;

/** Reads a stored record. @throws KeyFault when it is none; what it says is not repeated */
export function readRecord(json: string): KeyRecord {
  try {
    return RECORD.parse(JSON.parse(json));
  } catch {
    throw new KeyFault('key_store_bad_record', 'the key store holds something that is no key of this version');
  }
}

/** Why a key does not work at a moment (milliseconds since the epoch); undefined when it does. */
export function stateOf({ revoked, expires }: KeyRecord, now: number): 'revoked' | 'expired' | undefined {
  if (revoked !== undefined) return 'revoked';
  return expires !== undefined && Date.parse(expires) <= now ? 'expired' : undefined;
}
