/** local-limit: token buckets for requests and for tokens, in this process's memory. */
import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import {
  type Allow,
  type AllowOrReject,
  CONTRACT_VERSION,
  type Description,
  type LimitInput,
  type ObserveInput,
  type Plugin,
  type PluginFactory,
} from '../../proto/contract.ts';
import { msUntil, take } from '../quota/bucket.ts';
import { Buckets, CROWDED_SWEEP_MS, type Held } from '../quota/buckets.ts';
import { applies, keysOf } from '../quota/keys.ts';
import { totalOf, wholeTokens } from '../quota/tokens.ts';
import { retryHeaders, sentence } from '../quota/words.ts';
import { CONFIG, type Config, compileLimit, type Limit, readConfig } from './config.ts';
import { rateHeaders, told } from './words.ts';

const NAME = 'local-limit';
const CODE = 'rate_limit_exceeded';

/** Makes the plugin. @throws ConfigProblem when the config is not its kind */
export const localLimit: PluginFactory = {
  name: NAME,
  // The wall clock may be set back or forth, and a bucket must not notice.
  create: (config) => new LocalLimit(readConfig(config), () => performance.now()),
};

/** One bucket that a request falls under. */
interface Claim {
  limit: Limit;
  /** Of the limit in the config. */
  index: number;
  key: string;
  bucket: Held;
}

/** The plugin with its clock, which tells milliseconds and never goes back. */
export class LocalLimit implements Plugin {
  readonly #config: Config;
  readonly #limits: readonly Limit[];
  readonly #buckets: Buckets;
  readonly #clock: () => number;
  /** Marks this instance's grants: what another one reserved was not taken from these buckets. */
  readonly #tag = randomBytes(6).toString('base64url');

  constructor(config: Config, clock: () => number) {
    this.#config = config;
    this.#limits = config.limits.map(compileLimit);
    this.#buckets = new Buckets(config.maxKeys);
    this.#clock = clock;
  }

  /** How many buckets are remembered. */
  get size(): number {
    return this.#buckets.size;
  }

  describe(): Description {
    return {
      contract: CONTRACT_VERSION,
      name: NAME,
      version: '0.1.0',
      hooks: ['limit', 'observe'],
      rewrites: false,
      configSchema: z.toJSONSchema(CONFIG, { io: 'input' }),
    };
  }

  /** Takes from all buckets or from none. */
  limit(input: LimitInput): AllowOrReject {
    const now = this.#clock();
    const claims = this.#claims(input, now);
    let refusing: Claim | undefined;
    let longest = 0;
    let fresh = 0;
    for (const claim of claims) {
      if (!claim.bucket.kept) fresh++;
      const wait = msUntil(claim.bucket, claim.limit.rate, needed(claim.limit, input), now);
      if (wait > longest) {
        longest = wait;
        refusing = claim;
      }
    }
    if (refusing !== undefined) return this.#refusal(refusing, needed(refusing.limit, input), longest, now);
    if (fresh > 0 && !this.#buckets.hasRoom(fresh, now)) return this.#crowded();
    return { allow: this.#admit(claims, input, now) };
  }

  /** Settles the token buckets: what was used is charged, less what was reserved. */
  observe({ request, usage, grant }: ObserveInput): undefined {
    const used = totalOf(usage);
    const reserved = this.#reservedBy(grant);
    if (used === 0 && reserved === undefined) return;
    const now = this.#clock();
    for (const claim of this.#claims({ request }, now)) {
      if (claim.limit.type === 'tokens') this.#settle(claim, used - (reserved?.[claim.index] ?? 0), now);
    }
  }

  #claims({ request }: Pick<LimitInput, 'request'>, now: number): Claim[] {
    const claims: Claim[] = [];
    for (let index = 0; index < this.#limits.length; index++) {
      const limit = this.#limits[index]!;
      if (!applies(limit, request)) continue;
      for (const key of keysOf(limit, String(index), request)) {
        claims.push({ limit, index, key, bucket: this.#buckets.look(key, limit.rate, now) });
      }
    }
    return claims;
  }

  #admit(claims: Claim[], input: LimitInput, now: number): Allow {
    let tightest: Claim | undefined;
    for (const claim of claims) {
      this.#take(claim, takenBefore(claim.limit, input), now);
      if (tightest === undefined || shareLeft(claim) < shareLeft(tightest)) tightest = claim;
    }
    if (tightest === undefined) return {};
    const headers = rateHeaders(tightest.limit, tightest.bucket, now);
    const grant = this.#grantFor(claims, input);
    return grant === undefined ? { headers } : { headers, grant };
  }

  #take({ bucket, key, limit }: Claim, tokens: number, now: number): void {
    if (tokens === 0) return;
    take(bucket, limit.rate, tokens, now);
    // Settling may pass `maxKeys`, at most by the requests in flight: a charge must not be lost.
    if (tokens > 0) this.#buckets.keep(key, bucket);
  }

  #settle(claim: Claim, tokens: number, now: number): void {
    const { limit, bucket } = claim;
    this.#take(claim, limit.debt ? tokens : Math.min(tokens, Math.max(0, bucket.level)), now);
  }

  /** `tag:amounts`, one amount per limit of the config. The grant itself remembers, so nothing here must. */
  #grantFor(claims: Claim[], input: LimitInput): string | undefined {
    if (!claims.some(({ limit }) => limit.reserve !== false)) return undefined;
    const amounts = this.#limits.map(() => 0);
    for (const { limit, index } of claims) if (limit.reserve !== false) amounts[index] = takenBefore(limit, input);
    return `${this.#tag}:${amounts.join(',')}`;
  }

  #reservedBy(grant: string | undefined): number[] | undefined {
    if (!grant?.startsWith(`${this.#tag}:`)) return undefined;
    return grant
      .slice(this.#tag.length + 1)
      .split(',')
      .map((amount) => wholeTokens(Number(amount)));
  }

  #refusal({ limit, bucket }: Claim, tokens: number, waitMs: number, now: number): AllowOrReject {
    return this.#reject(sentence(told(limit), tokens, bucket.level, waitMs), {
      ...rateHeaders(limit, bucket, now),
      ...retryHeaders(waitMs),
    });
  }

  #crowded(): AllowOrReject {
    const message = 'Too many different clients are being counted at the moment. Try again in some seconds.';
    return this.#reject(message, retryHeaders(CROWDED_SWEEP_MS));
  }

  #reject(message: string, headers: Record<string, string>): AllowOrReject {
    const { status, body, contentType } = this.#config;
    return {
      reject: {
        code: CODE,
        message: this.#config.message?.replaceAll('{sentence}', () => message) ?? message,
        status,
        headers,
        ...(body !== undefined && { body, contentType }),
      },
    };
  }
}

/** What a bucket must hold for the request to pass: without a reservation, anything at all. */
function needed(limit: Limit, input: LimitInput): number {
  return Math.max(1, takenBefore(limit, input));
}

/** What is taken before the request goes on. */
function takenBefore(limit: Limit, input: LimitInput): number {
  if (limit.type === 'requests') return 1;
  if (limit.reserve === false) return 0;
  const answer = limit.reserve === 'with-answer' ? wholeTokens(input.maxOutputTokens ?? 0) : 0;
  return wholeTokens(input.estimatedInputTokens) + answer;
}

function shareLeft({ bucket, limit }: Claim): number {
  return bucket.level / limit.rate.max;
}
