/** api-key-auth: says who holds an API key. Keys are known by their SHA-256 only, and never logged or echoed. */
import { hash, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import {
  type AllowOrReject,
  type AuthenticateInput,
  CONTRACT_VERSION,
  ConfigProblem,
  type Description,
  type Identity,
  type Plugin,
  type PluginFactory,
} from '../../proto/contract.ts';
import { CONFIG, type Config, type KeyEntry, readConfig } from './config.ts';

const NAME = 'api-key-auth';

/** Makes the plugin. @throws ConfigProblem when the config is not its kind or names a key twice */
export const apiKeyAuth: PluginFactory = {
  name: NAME,
  create: (config) => new ApiKeyAuth(readConfig(config)),
};

/** A key that is known, and the verdict on it, made once. */
interface KnownKey {
  digest: Buffer;
  /** Milliseconds since the epoch; infinite when the key does not expire. */
  expiresAt: number;
  verdict: AllowOrReject;
}

const NOT_MINE: AllowOrReject = frozen({ allow: {} });
const UNKNOWN = refusal(
  'The API key is not known here. Check that it was copied whole, or ask the operator of this gateway for a new one.',
);
const EXPIRED = refusal('The API key has expired. Ask the operator of this gateway for a new one.');
const SEVERAL = refusal('The request carries more than one API key. Send exactly one.');

class ApiKeyAuth implements Plugin {
  /** By the digest's bytes as a latin1 string. */
  readonly #known: Map<string, KnownKey>;
  readonly #headers: readonly string[];
  readonly #prefix: string;

  constructor(config: Config) {
    this.#known = knownKeys(config.keys);
    this.#headers = config.headers;
    this.#prefix = config.prefix ?? '';
  }

  describe(): Description {
    return {
      contract: CONTRACT_VERSION,
      name: NAME,
      version: '0.1.0',
      hooks: ['authenticate'],
      rewrites: false,
      configSchema: z.toJSONSchema(CONFIG, { io: 'input' }),
    };
  }

  authenticate({ request }: AuthenticateInput): AllowOrReject {
    let presented: string | undefined;
    for (const name of this.#headers) {
      const value = request.headers?.[name];
      if (value === undefined) continue;
      const credential = name === 'authorization' ? bearer(value) : value.trim();
      // Two values of one header arrive joined by a comma; which of them was meant cannot be known.
      if (credential.includes(',')) return SEVERAL;
      if (credential === '' || !credential.startsWith(this.#prefix)) continue;
      if (presented !== undefined && presented !== credential) return SEVERAL;
      presented = credential;
    }
    return presented === undefined ? NOT_MINE : this.#judge(presented);
  }

  /**
   * Looking a digest up in a map takes a time that depends on the digest alone. An attacker cannot steer it towards a
   * known one without a preimage of SHA-256, so it tells nothing of the keys; the comparison itself is constant-time.
   */
  #judge(key: string): AllowOrReject {
    const digest = hash('sha256', key, 'buffer');
    const known = this.#known.get(digest.toString('latin1'));
    if (known === undefined || !timingSafeEqual(known.digest, digest)) return UNKNOWN;
    return Date.now() < known.expiresAt ? known.verdict : EXPIRED;
  }
}

/** What stands after `Bearer`; all of it when several values were joined; nothing when the scheme is another's. */
function bearer(value: string): string {
  if (value.includes(',') && /(?:^|,)\s*bearer\s/i.test(value)) return value;
  return /^bearer +(.*)$/i.exec(value.trim())?.[1] ?? '';
}

function knownKeys(entries: KeyEntry[]): Map<string, KnownKey> {
  const known = new Map<string, KnownKey>();
  for (const [index, entry] of entries.entries()) {
    const digest = digestOf(entry);
    const id = digest.toString('latin1');
    if (known.has(id)) {
      throw new ConfigProblem([{ path: ['keys', index], message: 'This key already stands further up.' }]);
    }
    const expiresAt = entry.expires === undefined ? Number.POSITIVE_INFINITY : Date.parse(entry.expires);
    known.set(id, { digest, expiresAt, verdict: frozen({ allow: { identity: identityOf(entry) } }) });
  }
  return known;
}

function digestOf(entry: KeyEntry): Buffer {
  if (entry.key !== undefined) return hash('sha256', entry.key, 'buffer');
  return Buffer.from(entry.hash!.slice('sha256:'.length), 'hex');
}

function identityOf(entry: KeyEntry): Identity {
  const { username, groups, roles, tenant } = entry;
  return {
    subject: (entry.subject ?? entry.name)!,
    issuer: NAME,
    ...(username !== undefined && { username }),
    ...(groups !== undefined && { groups }),
    ...(roles !== undefined && { roles }),
    ...(tenant !== undefined && { tenant }),
  };
}

/** All refusals share their code and challenge (RFC 6750, section 3); only the sentence differs. */
function refusal(message: string): AllowOrReject {
  const headers = { 'www-authenticate': 'Bearer realm="wardgate", error="invalid_token"' };
  return frozen({ reject: { code: 'invalid_api_key', message, status: 401, headers } });
}

/** Verdicts are shared between requests, so nobody may change them. */
function frozen<T extends object>(value: T): T {
  for (const part of Object.values(value)) if (typeof part === 'object' && part !== null) frozen(part);
  return Object.freeze(value);
}
