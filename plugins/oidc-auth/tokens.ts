/** Bearer tokens: the verdict on each is made once, and remembered by the token's SHA-256 until it expires. */
import { hash } from 'node:crypto';
import type { JWTPayload } from 'jose';
import type { AllowOrReject } from '../../proto/contract.ts';
import { BoundedMap } from './bounded-map.ts';
import { identityOf } from './claims.ts';
import type { Config } from './config.ts';
import { Introspection } from './introspection.ts';
import type { Issuer } from './issuer.ts';
import { type Challenger, type Reason, Refusal, refusal } from './refusals.ts';
import type { Revocations, Session } from './revocations.ts';
import { looksLikeJwt, readToken, verifyAccessToken } from './token.ts';

/** How long a token that no issuer knows is not asked about again, in milliseconds. */
const INACTIVE_MS = 5_000;

/** A token that was found good. */
interface Known {
  verdict: AllowOrReject;
  session: Session;
  /** Milliseconds since the epoch. */
  until: number;
}

export interface TokensOptions {
  config: Config;
  issuers: readonly Issuer[];
  revocations: Revocations;
  challenger: Challenger;
  /** Whether logouts are announced by this issuer, which must be kept as long as its tokens live. */
  logsOut(issuer: Issuer): boolean;
  /** The verdict on what is nobody's here. */
  notMine: AllowOrReject;
}

export class Tokens {
  readonly #options: TokensOptions;
  readonly #byIssuer: ReadonlyMap<string, Issuer>;
  readonly #introspections: readonly Introspection[];
  readonly #known: BoundedMap<Known>;
  /** Opaque tokens that no issuer knows, until when they are not asked about again. */
  readonly #inactive: BoundedMap<number>;
  readonly #underWay = new Map<string, Promise<AllowOrReject>>();
  /** Counts up when what is remembered must be looked at anew. */
  #generation = 0;

  constructor(options: TokensOptions) {
    const { config, issuers } = options;
    this.#options = options;
    this.#byIssuer = new Map(issuers.map((issuer) => [issuer.config.issuer, issuer]));
    this.#introspections = issuers
      .filter((one) => one.config.introspection !== undefined)
      .map((one) => new Introspection(one));
    this.#known = new BoundedMap(config.maxTokens);
    this.#inactive = new BoundedMap(config.maxTokens);
  }

  /** How many tokens are remembered. */
  get size(): number {
    return this.#known.size;
  }

  /** Forgets what was found good: a key that vouched for some of it is withdrawn. */
  forget(): void {
    this.#generation += 1;
    this.#known.clear();
  }

  /** At once for a token that is remembered; else a promise, one for all who bring the same token. */
  judge(token: string): AllowOrReject | Promise<AllowOrReject> {
    const digest = hash('sha256', token, 'base64');
    const known = this.#known.get(digest);
    if (known !== undefined) {
      if (this.#options.revocations.has(known.session)) return this.#refused('logged_out');
      if (Date.now() < known.until) return known.verdict;
      this.#known.delete(digest);
    }
    return this.#underWay.get(digest) ?? this.#verified(token, digest);
  }

  #verified(token: string, digest: string): AllowOrReject | Promise<AllowOrReject> {
    const isJwt = looksLikeJwt(token);
    if (!isJwt && this.#introspections.length === 0) {
      return this.#options.config.opaque === 'reject' ? this.#refused('malformed') : this.#options.notMine;
    }
    const verdict = (isJwt ? this.#verify(token, digest) : this.#introspect(token, digest))
      .catch((error: unknown) => {
        if (error instanceof Refusal) return this.#refused(error.reason);
        throw error;
      })
      .finally(() => this.#underWay.delete(digest));
    this.#underWay.set(digest, verdict);
    return verdict;
  }

  async #verify(token: string, digest: string): Promise<AllowOrReject> {
    const { header, payload } = readToken(token);
    const issuer = this.#byIssuer.get(payload.iss as string);
    if (issuer === undefined) {
      if (this.#options.config.foreign === 'ignore') return this.#options.notMine;
      throw new Refusal('foreign_issuer');
    }
    const generation = this.#generation;
    const claims = await verifyAccessToken(token, issuer, header);
    const until = claims.exp! * 1000 + issuer.config.clockSkew;
    return this.#accept(claims, issuer, { digest, until, generation });
  }

  /** Asks each issuer that may know it; the first that does counts. One that is away may have been the one. */
  async #introspect(token: string, digest: string): Promise<AllowOrReject> {
    if (Date.now() < (this.#inactive.get(digest) ?? 0)) throw new Refusal('inactive');
    const generation = this.#generation;
    let failure: unknown;
    for (const introspection of this.#introspections) {
      try {
        const found = await introspection.ask(token);
        if (found === undefined) continue;
        return this.#accept(found.claims, introspection.issuer, { digest, until: found.until, generation });
      } catch (error) {
        if (error instanceof Refusal) throw error;
        failure = error;
      }
    }
    if (failure !== undefined) throw failure;
    this.#inactive.set(digest, Date.now() + INACTIVE_MS);
    throw new Refusal('inactive');
  }

  #accept(
    claims: JWTPayload,
    issuer: Issuer,
    { digest, until, generation }: { digest: string; until: number; generation: number },
  ): AllowOrReject {
    const session = sessionOf(claims, issuer);
    if (this.#options.revocations.has(session)) throw new Refusal('logged_out');
    if (this.#options.logsOut(issuer) && until - Date.now() > this.#options.config.maxTokenLife) {
      throw new Refusal('lives_too_long');
    }
    const verdict: AllowOrReject = frozen({ allow: { identity: identityOf(claims, issuer.config) } });
    if (generation === this.#generation) this.#known.set(digest, { verdict, session, until });
    return verdict;
  }

  #refused(reason: Reason): AllowOrReject {
    const scopes = this.#options.issuers.flatMap((issuer) => issuer.config.requiredScopes);
    return refusal(this.#options.challenger, reason, [...new Set(scopes)]);
  }
}

function sessionOf({ sid, sub, iat }: JWTPayload, { config }: Issuer): Session {
  return {
    issuer: config.issuer,
    sid: typeof sid === 'string' ? sid : undefined,
    sub: sub as string,
    // What does not say when it was issued may be older than any logout.
    iat: iat ?? 0,
  };
}

/** Verdicts are shared between requests, so nobody may change them. */
function frozen<T extends object>(value: T): T {
  for (const part of Object.values(value)) if (typeof part === 'object' && part !== null) frozen(part);
  return Object.freeze(value);
}
