/** Logouts that an issuer announces (OpenID Connect Back-Channel Logout 1.0). */
import type { JWTPayload } from 'jose';
import type { EndpointInput, Respond } from '../../proto/contract.ts';
import { BoundedMap } from './bounded-map.ts';
import { isClaims } from './claims.ts';
import type { Issuer } from './issuer.ts';
import { Refusal } from './refusals.ts';
import type { Logout } from './revocations.ts';
import { readToken, type Unproved, verifySignature } from './token.ts';
import { warn } from './warnings.ts';

const EVENT = 'http://schemas.openid.net/event/backchannel-logout';
/** Ids of logout tokens that are remembered, so that none counts twice. */
const MAX_IDS = 10_000;
/** How long an id is remembered, in milliseconds; no logout token may live longer. */
const MAX_LIFE_MS = 600_000;
const TYPES = new Set(['jwt', 'logout+jwt', 'application/logout+jwt']);

export interface BackchannelOptions {
  /** Client ids whose logout tokens are accepted, by issuer. */
  audiences: ReadonlyMap<Issuer, string[]>;
  /** How long a logout is kept, in milliseconds. */
  keepMs: number;
  onLogout(logout: Logout): Promise<void>;
}

export class Backchannel {
  readonly #options: BackchannelOptions;
  readonly #byIssuer: ReadonlyMap<unknown, Issuer>;
  /** By issuer and id, until when it counts as known. */
  readonly #seen = new BoundedMap<number>(MAX_IDS);

  constructor(options: BackchannelOptions) {
    this.#options = options;
    this.#byIssuer = new Map([...options.audiences.keys()].map((issuer) => [issuer.config.issuer, issuer]));
  }

  /** Answers an issuer. @throws IssuerUnavailable when its keys cannot be had, so that it may try again */
  async answer({ request, body }: EndpointInput): Promise<Respond> {
    const headers = { 'cache-control': 'no-store' };
    try {
      await this.#options.onLogout(await this.#logoutIn(tokenIn(request.headers?.['content-type'], body)));
      return { status: 200, headers };
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      warn(`a logout token was refused: ${error.reason}`);
      return { status: 400, headers, contentType: 'application/json', body: '{"error":"invalid_request"}' };
    }
  }

  /** Section 2.6, step by step. */
  async #logoutIn(token: string): Promise<Logout> {
    const { header, payload } = readToken(token);
    const issuer = this.#byIssuer.get(payload.iss);
    if (issuer === undefined) throw new Refusal('foreign_issuer');
    const claims = await this.#verified(token, header, issuer);
    if (claims.typ !== undefined && claims.typ !== 'Logout') throw new Refusal('wrong_type');
    if (!isClaims(claims.events) || !isClaims(claims.events[EVENT])) throw new Refusal('wrong_type');
    if (claims.nonce !== undefined) throw new Refusal('wrong_type');
    if (claims.exp! - claims.iat! > MAX_LIFE_MS / 1000) throw new Refusal('lives_too_long');
    const logout = this.#read(claims, issuer);
    this.#useOnce(claims, issuer);
    return logout;
  }

  #verified(token: string, header: Unproved['header'], issuer: Issuer): Promise<JWTPayload> {
    if (header.typ !== undefined && !TYPES.has(String(header.typ).toLowerCase()))
      throw new Refusal('wrong_header_type');
    const audience = this.#options.audiences.get(issuer)!;
    return verifySignature(token, header, issuer, { audience, requiredClaims: ['iat', 'exp', 'jti', 'events'] });
  }

  #read({ iat, sid, sub }: JWTPayload, { config }: Issuer): Logout {
    const issuer = config.issuer;
    const until = iat! * 1000 + this.#options.keepMs;
    if (isName(sid)) return { issuer, sid, at: iat!, until };
    if (sid === undefined && isName(sub)) return { issuer, sub, at: iat!, until };
    throw new Refusal('missing_claim');
  }

  #useOnce({ jti }: JWTPayload, { config }: Issuer): void {
    const id = JSON.stringify([config.issuer, jti]);
    if (!isName(jti) || (this.#seen.peek(id) ?? 0) > Date.now()) throw new Refusal('inactive');
    this.#seen.set(id, Date.now() + MAX_LIFE_MS + config.clockSkew);
  }
}

/** Exactly one `logout_token` in a form. @throws Refusal when there is none */
function tokenIn(contentType: string | undefined, body: string): string {
  const isForm = /^application\/x-www-form-urlencoded\s*(?:;|$)/i.test(contentType ?? '');
  const tokens = isForm ? new URLSearchParams(body).getAll('logout_token') : [];
  if (tokens.length !== 1) throw new Refusal('malformed');
  return tokens[0]!;
}

function isName(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && value.length <= 1024;
}
