/** The session of a person who signed in with a browser: what its cookie carries, and how tokens become it. */
import type { JWTPayload } from 'jose';
import type { TokenEndpointResponse, TokenEndpointResponseHelpers } from 'openid-client';
import type { Identity } from '../../proto/contract.ts';
import { identityOf } from './claims.ts';
import type { Issuer } from './issuer.ts';
import type { LoginClient } from './login-client.ts';
import { Refusal } from './refusals.ts';
import { looksLikeJwt, readToken, verifySignature } from './token.ts';

export interface LoginSession {
  /** Ours, for the logout of this one session. */
  id: string;
  identity: Identity;
  /** The issuer's session. */
  sid?: string;
  /** Seconds since the epoch when one signed in. */
  iat: number;
  /** Milliseconds since the epoch: until then the tokens are good. */
  until: number;
  /** Milliseconds since the epoch: then one signs in again. */
  ends: number;
  refreshToken?: string;
  /** Tells the issuer at logout who leaves, so that it need not ask. */
  idToken?: string;
}

type Tokens = TokenEndpointResponse & TokenEndpointResponseHelpers;

/** Where a session comes from: a login, or the session that was refreshed. */
type Origin = Pick<LoginSession, 'id' | 'ends'> & Partial<LoginSession>;

/**
 * The session that the issuer's tokens make.
 *
 * @throws Refusal when they do not fit together, IssuerUnavailable when they cannot be checked
 */
export async function sessionFrom(
  tokens: Tokens,
  { issuer, clientId }: LoginClient,
  origin: Origin,
): Promise<LoginSession> {
  const proved = await claimsOf(tokens, issuer, clientId);
  const claims = { ...proved.access, ...proved.id };
  if (origin.identity !== undefined && claims.sub !== undefined && claims.sub !== origin.identity.subject) {
    throw new Refusal('wrong_claim');
  }
  const sid = claims.sid ?? origin.sid;
  const idToken = tokens.id_token ?? origin.idToken;
  return {
    id: origin.id,
    identity: claims.sub === undefined ? origin.identity! : identityOf(claims, issuer.config),
    ...(typeof sid === 'string' && { sid }),
    iat: origin.iat ?? proved.id?.iat ?? Math.floor(Date.now() / 1000),
    until: Math.min(endOf(tokens, claims), origin.ends),
    ends: origin.ends,
    ...withText('refreshToken', tokens.refresh_token ?? origin.refreshToken),
    ...withText('idToken', idToken),
  };
}

function withText<K extends string>(key: K, value: string | undefined): { [P in K]?: string } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]?: string });
}

/**
 * The claims of both tokens. Roles often stand in the access token alone; it came from the issuer itself just now, for a
 * client of ours, so it need not be meant for this gateway as one that a client brings must.
 */
async function claimsOf(
  tokens: Tokens,
  issuer: Issuer,
  clientId: string,
): Promise<{ id?: JWTPayload; access?: JWTPayload }> {
  const id = tokens.id_token === undefined ? undefined : await proved(tokens.id_token, issuer, clientId);
  if (!looksLikeJwt(tokens.access_token)) return { id };
  const access = await proved(tokens.access_token, issuer).catch((error: unknown) => {
    if (error instanceof Refusal) return undefined;
    throw error;
  });
  return { id, access: id === undefined || id.sub === access?.sub ? access : undefined };
}

async function proved(token: string, issuer: Issuer, audience?: string): Promise<JWTPayload> {
  return verifySignature(token, readToken(token).header, issuer, { audience, requiredClaims: ['exp', 'sub'] });
}

function endOf(tokens: Tokens, { exp }: JWTPayload): number {
  const seconds = tokens.expiresIn();
  return seconds === undefined ? (exp ?? 0) * 1000 : Date.now() + seconds * 1000;
}
