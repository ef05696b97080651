/**
 * api-key-auth: says who holds an API key, and keeps it to the models that it was given. Keys are known by their SHA-256
 * only, and never logged or echoed.
 */
import { timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import { durationMs } from '../../proto/config.ts';
import {
  type AllowOrReject,
  type AuthenticateInput,
  type AuthorizeInput,
  CONTRACT_VERSION,
  ConfigProblem,
  type Description,
  type Identity,
  type Plugin,
  type PluginFactory,
} from '../../proto/contract.ts';
import { CONFIG, type Config, type KeyEntry, readConfig } from './config.ts';
import { KeyFault } from './faults.ts';
import { type KeyClaim, mayUse } from './grants.ts';
import { digestOf, idOf, isMistyped } from './key.ts';
import type { KeyRecord } from './record.ts';
import { RememberedKeys } from './remembered.ts';
import { type KeySource, RedisStore } from './store.ts';

const NAME = 'api-key-auth';
/** Under which name the key's own part stands among the identity's claims. */
const CLAIM = 'api-key';

/** Makes the plugin. @throws ConfigProblem when the config is not its kind or names a key twice */
export const apiKeyAuth: PluginFactory = {
  name: NAME,
  create: (config) => {
    const checked = readConfig(config);
    return new ApiKeyAuth(checked, checked.redis && new RedisStore(checked.redis));
  },
};

/** A key that is known, and the verdict on it, made once. */
interface KnownKey {
  digest: Buffer;
  /** Milliseconds since the epoch; infinite when the key does not expire. */
  expiresAt: number;
  verdict: AllowOrReject;
}

const NOT_MINE: AllowOrReject = frozen({ allow: { challenge: 'Bearer realm="wardgate"' } });
const UNKNOWN = refusal(
  'The API key is not known here. Check that it was copied whole, or ask the operator of this gateway for a new one.',
);
const MISTYPED = refusal(
  'The API key is not complete, or has a typo. Copy it again, from its first character to its last.',
);
const EXPIRED = refusal('The API key has expired. Ask the operator of this gateway for a new one.');
const REVOKED = refusal('The API key has been revoked. Ask the operator of this gateway for a new one.');
const SEVERAL = refusal('The request carries more than one API key. Send exactly one.');
const OTHER_MODEL = modelRefusal();

/** The plugin, with the store of issued keys if there is one. */
export class ApiKeyAuth implements Plugin {
  /** By the digest's bytes as a latin1 string. */
  readonly #known: Map<string, KnownKey>;
  readonly #config: Config;
  readonly #store: KeySource | undefined;
  readonly #issued: RememberedKeys<KnownKey> | undefined;

  constructor(config: Config, store?: KeySource, clock?: () => number) {
    this.#config = config;
    this.#known = knownKeys(config.keys);
    this.#store = store;
    this.#issued = store && new RememberedKeys(store, patienceOf(config), issuedKey, clock);
  }

  describe(): Description {
    const isLimited = this.#issued !== undefined || this.#config.keys.some(({ models }) => models !== undefined);
    return {
      contract: CONTRACT_VERSION,
      name: NAME,
      version: '0.2.0',
      // Where no key is kept to some models there is nothing to ask.
      hooks: isLimited ? ['authenticate', 'authorize'] : ['authenticate'],
      rewrites: false,
      configSchema: z.toJSONSchema(CONFIG, { io: 'input' }),
    };
  }

  authenticate({ request }: AuthenticateInput): AllowOrReject | Promise<AllowOrReject> {
    let presented: string | undefined;
    for (const name of this.#config.headers) {
      const value = request.headers?.[name];
      if (value === undefined) continue;
      const credential = name === 'authorization' ? bearer(value) : value.trim();
      // Two values of one header arrive joined by a comma; which of them was meant cannot be known.
      if (credential.includes(',')) return SEVERAL;
      if (credential === '' || !this.#config.prefix.some((prefix) => credential.startsWith(prefix))) continue;
      if (presented !== undefined && presented !== credential) return SEVERAL;
      presented = credential;
    }
    return presented === undefined ? NOT_MINE : this.#judge(presented);
  }

  /** The models that a key may use travel in its identity, so nothing is looked up here. */
  authorize({ request: { identity }, action, resources }: AuthorizeInput): AllowOrReject {
    const models = identity?.issuer === NAME ? modelsOf(identity) : undefined;
    const decisions = resources.map(({ type, name }) => type !== 'model' || mayUse(models, name));
    return action === 'model.use' && decisions.includes(false) ? OTHER_MODEL : { allow: { decisions } };
  }

  close(): void {
    this.#store?.close();
  }

  /**
   * Looking a digest up in a map takes a time that depends on the digest alone. An attacker cannot steer it towards a
   * known one without a preimage of SHA-256, so it tells nothing of the keys; the comparison itself is constant-time.
   */
  #judge(key: string): AllowOrReject | Promise<AllowOrReject> {
    const digest = digestOf(key);
    const known = this.#known.get(digest.toString('latin1'));
    if (known !== undefined || this.#issued === undefined) return verdictOn(known, digest);
    if (isMistyped(key)) return MISTYPED;
    const issued = this.#issued.find(idOf(digest));
    return issued instanceof Promise ? issued.then((key) => verdictOn(key, digest)) : verdictOn(issued, digest);
  }
}

function verdictOn(known: KnownKey | undefined, digest: Buffer): AllowOrReject {
  if (known === undefined || !timingSafeEqual(known.digest, digest)) return UNKNOWN;
  return Date.now() < known.expiresAt ? known.verdict : EXPIRED;
}

/** What stands after `Bearer`; all of it when several values were joined; nothing when the scheme is another's. */
function bearer(value: string): string {
  if (value.includes(',') && /(?:^|,)\s*bearer\s/i.test(value)) return value;
  return /^bearer +(.*)$/i.exec(value.trim())?.[1] ?? '';
}

/** @throws KeyFault when the identity says that it is of a key, but not of which: what that one may is not known */
function modelsOf({ claims }: Identity): string[] | undefined {
  const claim = claims?.[CLAIM] as Partial<KeyClaim> | undefined;
  if (typeof claim?.id !== 'string') throw lost();
  if (claim.models !== undefined && !Array.isArray(claim.models)) throw lost();
  return claim.models;
}

function lost(): KeyFault {
  return new KeyFault('key_claim_missing', 'the identity of an API key came without the claim that says what it may');
}

function knownKeys(entries: KeyEntry[]): Map<string, KnownKey> {
  const known = new Map<string, KnownKey>();
  for (const [index, entry] of entries.entries()) {
    const digest =
      entry.key === undefined ? Buffer.from(entry.hash!.slice('sha256:'.length), 'hex') : digestOf(entry.key);
    const id = digest.toString('latin1');
    if (known.has(id)) {
      throw new ConfigProblem([{ path: ['keys', index], message: 'This key already stands further up.' }]);
    }
    known.set(id, knownKey(digest, { ...entry, subject: (entry.subject ?? entry.name)!, name: undefined }));
  }
  return known;
}

function issuedKey(record: KeyRecord): KnownKey {
  const key = knownKey(Buffer.from(record.digest, 'hex'), record);
  return record.revoked === undefined ? key : { ...key, verdict: REVOKED, expiresAt: Number.POSITIVE_INFINITY };
}

type Holder = Pick<
  KeyRecord,
  'subject' | 'name' | 'username' | 'groups' | 'roles' | 'tenant' | 'models' | 'budget' | 'expires'
>;

function knownKey(digest: Buffer, holder: Holder): KnownKey {
  const expiresAt = holder.expires === undefined ? Number.POSITIVE_INFINITY : Date.parse(holder.expires);
  return { digest, expiresAt, verdict: frozen({ allow: { identity: identityOf(idOf(digest), holder) } }) };
}

function identityOf(id: string, { subject, name, username, groups, roles, tenant, models, budget }: Holder): Identity {
  const claim: KeyClaim = given({ id, name, models, budget });
  return given({ subject, issuer: NAME, username, groups, roles, tenant, claims: { [CLAIM]: claim } });
}

/** Without what is not given. */
function given<T extends object>(fields: T): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T;
}

function patienceOf({ redis }: Config) {
  const { refresh, outage, timeout } = redis!;
  return { refresh: durationMs(refresh), outage: durationMs(outage), timeout: durationMs(timeout) };
}

/** All refusals share their code and challenge (RFC 6750, section 3); only the sentence differs. */
function refusal(message: string): AllowOrReject {
  const headers = { 'www-authenticate': 'Bearer realm="wardgate", error="invalid_token"' };
  return frozen({ reject: { code: 'invalid_api_key', message, status: 401, headers } });
}

/** Clients of other gateways know this body, type and all, so it is sent as it is. */
function modelRefusal(): AllowOrReject {
  const code = 'model_not_allowed';
  const message = 'Model is not allowed for this API key';
  const body = JSON.stringify({ error: { message, type: 'invalid_request_error', code } });
  return frozen({ reject: { code, message, status: 403, body, contentType: 'application/json' } });
}

/** Verdicts are shared between requests, so nobody may change them. */
function frozen<T extends object>(value: T): T {
  for (const part of Object.values(value)) if (typeof part === 'object' && part !== null) frozen(part);
  return Object.freeze(value);
}
