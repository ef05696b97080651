/** Tokens that say nothing themselves: the issuer is asked (RFC 7662), and its answer believed for a short time. */
import { ClientSecretBasic, tokenIntrospection } from 'openid-client';
import type { Claims } from './claims.ts';
import type { Issuer } from './issuer.ts';
import { IssuerUnavailable, unavailability } from './outgoing.ts';
import { Refusal } from './refusals.ts';
import { checkClaims } from './token.ts';

/** Questions to one issuer at a time; whoever tries made-up tokens must not make us flood it. */
const MAX_AT_ONCE = 64;
/** What a token may be made of (RFC 6750, section 2.1). */
const TOKEN = /^[\w.~+/-]+=*$/;

export interface Introspected {
  claims: Claims;
  /** Milliseconds since the epoch until which the answer is believed. */
  until: number;
}

export class Introspection {
  readonly issuer: Issuer;
  #underWay = 0;

  constructor(issuer: Issuer) {
    this.issuer = issuer;
  }

  /**
   * What the issuer says of a token; undefined when it does not know it, or no longer.
   *
   * @throws Refusal when the token is for others, IssuerUnavailable when the issuer cannot be asked
   */
  async ask(token: string): Promise<Introspected | undefined> {
    if (!TOKEN.test(token)) throw new Refusal('malformed');
    if (this.#underWay >= MAX_AT_ONCE) throw new IssuerUnavailable('too many tokens are being introspected');
    this.#underWay += 1;
    try {
      return this.#read(await this.#answer(token));
    } finally {
      this.#underWay -= 1;
    }
  }

  async #answer(token: string): Promise<Claims> {
    const { clientId, clientSecret } = this.issuer.config.introspection!;
    const client = await this.issuer.client(clientId, ClientSecretBasic(clientSecret), ['introspection_endpoint']);
    return tokenIntrospection(client, token).catch((error: Error) => {
      // Whatever went wrong, it says nothing of the token: our own client may be the one that was refused.
      throw (
        unavailability(error) ?? new IssuerUnavailable(`the introspection failed: ${error.message}`, { cause: error })
      );
    });
  }

  #read(claims: Claims): Introspected | undefined {
    if (claims.active !== true) return undefined;
    const { config } = this.issuer;
    if (claims.iss !== undefined && claims.iss !== config.issuer) throw new Refusal('foreign_issuer');
    const audiences = [claims.aud].flat();
    if (config.audience !== undefined && !config.audience.some((one) => audiences.includes(one))) {
      throw new Refusal('wrong_audience');
    }
    const expires = typeof claims.exp === 'number' ? claims.exp * 1000 + config.clockSkew : Number.POSITIVE_INFINITY;
    if (expires <= Date.now()) throw new Refusal('expired');
    checkClaims(claims, config);
    return { claims, until: Math.min(expires, Date.now() + config.introspection!.cache) };
  }
}
