/** Is this token one of ours, and good? Signature by jose, claims as the issuer's config says. */
import {
  decodeJwt,
  decodeProtectedHeader,
  errors,
  type JWTPayload,
  type JWTVerifyOptions,
  type JWTVerifyResult,
  jwtVerify,
  type ProtectedHeaderParameters,
} from 'jose';
import { valueAt } from './claims.ts';
import type { IssuerConfig } from './config.ts';
import type { Issuer } from './issuer.ts';
import { type Reason, Refusal } from './refusals.ts';

/** Longest key id that is looked up, in UTF-16 units. */
const MAX_KEY_ID = 512;
/** How many keys are tried on a token that does not name its own. */
const MAX_TRIED_KEYS = 8;
/** Claims that only ID tokens have (OpenID Connect Core, 2 and 3.3.2.11), and logout tokens (Back-Channel Logout, 2.4). */
const FOREIGN_CLAIMS = ['nonce', 'at_hash', 'c_hash', 's_hash', 'events'];
const ACCESS_TOKEN_HEADERS = new Set(['jwt', 'at+jwt', 'application/jwt', 'application/at+jwt']);

/** A token's two readable parts, of which nothing is proved. */
export interface Unproved {
  header: ProtectedHeaderParameters;
  payload: JWTPayload;
}

/** Three parts, the first of which begins as a JSON object does in base64url. */
const JWT = /^e[wxyz][\w-]*\.[\w-]*\.[\w-]*$/;

/** Whether a credential means to be a JWT. What does not may be an opaque token or somebody's API key. */
export function looksLikeJwt(token: string): boolean {
  return JWT.test(token);
}

/** Reads without believing. @throws Refusal when there is nothing to read */
export function readToken(token: string): Unproved {
  try {
    return { header: decodeProtectedHeader(token), payload: decodeJwt(token) };
  } catch {
    throw new Refusal('malformed');
  }
}

/**
 * Verifies an access token of this issuer.
 *
 * @throws Refusal with the reason, IssuerUnavailable when its keys cannot be had
 */
export async function verifyAccessToken(
  token: string,
  issuer: Issuer,
  header: Unproved['header'],
): Promise<JWTPayload> {
  const { config } = issuer;
  const { audience } = config;
  const payload = await verifySignature(token, header, issuer, { audience, requiredClaims: ['exp', 'sub'] });
  checkHeaderType(header.typ, config.headerTyp);
  checkClaims(payload, config);
  return payload;
}

/**
 * Verifies that this issuer signed a token, with an algorithm that is allowed, and checks its times and `iss`.
 *
 * @param checks further ones, for jose
 */
export async function verifySignature(
  token: string,
  header: Unproved['header'],
  issuer: Issuer,
  checks: JWTVerifyOptions,
): Promise<JWTPayload> {
  const { config } = issuer;
  checkAlgorithm(header.alg, config.algorithms);
  if (header.kid !== undefined && (typeof header.kid !== 'string' || header.kid.length > MAX_KEY_ID)) {
    throw new Refusal('bad_key_id');
  }
  const options = {
    issuer: config.issuer,
    algorithms: [...config.algorithms],
    clockTolerance: config.clockSkew / 1000,
    ...checks,
  };
  try {
    const { payload } = await verifyWithKeys(token, header, issuer, options);
    checkIssuedAt(payload, config.clockSkew);
    return payload;
  } catch (error) {
    const reason = reasonOf(error);
    throw reason === undefined ? error : new Refusal(reason);
  }
}

async function verifyWithKeys(
  token: string,
  header: Unproved['header'],
  issuer: Issuer,
  options: JWTVerifyOptions,
): Promise<JWTVerifyResult> {
  try {
    return await verifyWithOneOf(token, issuer, options);
  } catch (error) {
    // Without a key id a new key cannot be told from a wrong signature.
    if (header.kid !== undefined || !(error instanceof errors.JWSSignatureVerificationFailed)) throw error;
    await issuer.keys.renewed();
    return verifyWithOneOf(token, issuer, options);
  }
}

async function verifyWithOneOf(token: string, issuer: Issuer, options: JWTVerifyOptions): Promise<JWTVerifyResult> {
  try {
    return await jwtVerify(token, issuer.keyForToken, options);
  } catch (error) {
    if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error;
    let tried = 0;
    for await (const key of error) {
      if (++tried > MAX_TRIED_KEYS) break;
      const result = await jwtVerify(token, key, options).catch(unlessUnsigned);
      if (result !== undefined) return result;
    }
    throw new errors.JWSSignatureVerificationFailed();
  }
}

function unlessUnsigned(error: unknown): undefined {
  if (!(error instanceof errors.JWSSignatureVerificationFailed)) throw error;
}

function checkAlgorithm(alg: unknown, allowed: readonly string[]): void {
  if (typeof alg === 'string' && allowed.includes(alg)) return;
  if (typeof alg !== 'string') throw new Refusal('malformed');
  if (alg.toLowerCase() === 'none') throw new Refusal('alg_none');
  throw new Refusal(/^hs/i.test(alg) ? 'alg_symmetric' : 'alg_not_allowed');
}

function checkIssuedAt({ iat }: JWTPayload, clockSkew: number): void {
  if (iat !== undefined && iat * 1000 > Date.now() + clockSkew) throw new Refusal('not_yet_valid');
}

function checkHeaderType(typ: unknown, wanted: readonly string[] | undefined): void {
  const isRight =
    wanted === undefined
      ? typ === undefined || ACCESS_TOKEN_HEADERS.has(String(typ).toLowerCase())
      : wanted.some((one) => one.toLowerCase() === String(typ).toLowerCase());
  if (!isRight) throw new Refusal('wrong_header_type');
}

/** All that the config asks of an access token's claims but what jose has checked; also of introspected ones. */
export function checkClaims(payload: JWTPayload, config: IssuerConfig): void {
  checkType(payload, config.typ);
  const party = payload.azp ?? payload.client_id;
  if (config.azp !== undefined && !config.azp.some((one) => one === party)) throw new Refusal('wrong_party');
  checkRequired(payload, config.requiredClaims);
  const scopes = scopesOf(payload);
  if (config.requiredScopes.some((one) => !scopes.includes(one))) throw new Refusal('insufficient_scope');
}

/** The same key signs access, ID and logout tokens (Keycloak), so the type must tell them apart. */
function checkType(payload: JWTPayload, accepted: readonly string[]): void {
  if (payload.typ === undefined) {
    if (FOREIGN_CLAIMS.some((claim) => payload[claim] !== undefined)) throw new Refusal('wrong_type');
  } else if (!accepted.some((one) => one === payload.typ)) throw new Refusal('wrong_type');
}

function checkRequired(payload: JWTPayload, required: IssuerConfig['requiredClaims']): void {
  if (Array.isArray(required)) {
    if (required.some((path) => valueAt(payload, path) === undefined)) throw new Refusal('missing_claim');
    return;
  }
  for (const [path, wanted] of Object.entries(required)) {
    const value = valueAt(payload, path);
    if (value === undefined) throw new Refusal('missing_claim');
    const values: unknown[] = Array.isArray(value) ? value : [value];
    const accepted: unknown[] = Array.isArray(wanted) ? wanted : [wanted];
    if (!accepted.some((one) => values.includes(one))) throw new Refusal('wrong_claim');
  }
}

/** `scope` as RFC 8693 has it, `scp` as others write it. */
function scopesOf({ scope, scp }: JWTPayload): string[] {
  const written = scope ?? scp;
  if (typeof written === 'string') return written.split(' ');
  return Array.isArray(written) ? written.filter((one) => typeof one === 'string') : [];
}

const CLAIM_REASONS: Record<string, Reason> = { aud: 'wrong_audience', iss: 'foreign_issuer', nbf: 'not_yet_valid' };

/** What an error of jose says of the token; undefined when it says nothing of it. */
function reasonOf(error: unknown): Reason | undefined {
  if (error instanceof Refusal) return error.reason;
  if (error instanceof errors.JWTExpired) return 'expired';
  if (error instanceof errors.JWTClaimValidationFailed) return CLAIM_REASONS[error.claim] ?? 'missing_claim';
  if (error instanceof errors.JWKSNoMatchingKey) return 'unknown_key';
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'bad_signature';
  if (error instanceof errors.JOSEAlgNotAllowed) return 'alg_not_allowed';
  const isMalformed = [errors.JWSInvalid, errors.JWTInvalid, errors.JOSENotSupported].some(
    (kind) => error instanceof kind,
  );
  return isMalformed ? 'malformed' : undefined;
}
