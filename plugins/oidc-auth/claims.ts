/** From the claims of a token to the identity that the other plugins see, bounded in number and length. */
import type { Identity } from '../../proto/contract.ts';
import type { IssuerConfig } from './config.ts';
import { Refusal } from './refusals.ts';

/** Groups, roles and entries of a claim that are kept; a token in a header holds fewer. */
const MAX_VALUES = 500;
/** Longest text that is kept, in UTF-16 units. */
const MAX_LENGTH = 512;
const MAX_DEPTH = 4;
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not get into logs and headers
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/;

export type Claims = Record<string, unknown>;

/**
 * What stands at a path: a claim of that name, else what its dots lead to. Names may have dots themselves, so each dot is
 * tried: `resource_access.my.client.roles` finds the roles of `my.client`.
 */
export function valueAt(claims: Claims, path: string): unknown {
  if (Object.hasOwn(claims, path)) return claims[path];
  for (let dot = path.indexOf('.'); dot > 0; dot = path.indexOf('.', dot + 1)) {
    const within = claims[path.slice(0, dot)];
    if (!Object.hasOwn(claims, path.slice(0, dot)) || !isClaims(within)) continue;
    const value = valueAt(within, path.slice(dot + 1));
    if (value !== undefined) return value;
  }
  return undefined;
}

/** @throws Refusal when the subject is no usable text */
export function identityOf(claims: Claims, config: IssuerConfig): Identity {
  const subject = textIn(claims, ['sub']);
  if (subject === undefined) throw new Refusal('missing_claim');
  const { identity: mapping } = config;
  const isVerified = mapping.unverifiedEmail || claims.email_verified === true;
  const identity: Identity = { subject, issuer: config.issuer };
  assign(identity, 'username', textIn(claims, mapping.username));
  assign(identity, 'email', isVerified ? textIn(claims, mapping.email) : undefined);
  assign(identity, 'tenant', textIn(claims, mapping.tenant ?? []));
  assign(identity, 'groups', textsIn(claims, mapping.groups));
  assign(identity, 'roles', textsIn(claims, mapping.roles));
  assign(identity, 'claims', keptClaims(claims, config.claims));
  return identity;
}

function assign<K extends keyof Identity>(identity: Identity, key: K, value: Identity[K] | undefined): void {
  if (value !== undefined) identity[key] = value;
}

function textIn(claims: Claims, paths: readonly string[]): string | undefined {
  for (const path of paths) {
    const value = valueAt(claims, path);
    if (isShortText(value)) return value;
  }
  return undefined;
}

/** All texts at all paths, each once; undefined when none of the claims is there. */
function textsIn(claims: Claims, paths: readonly string[]): string[] | undefined {
  const values = paths.map((path) => valueAt(claims, path)).filter((value) => value !== undefined);
  if (values.length === 0) return undefined;
  return [...new Set(values.flat().filter(isShortText))].slice(0, MAX_VALUES);
}

function isShortText(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && value.length <= MAX_LENGTH && !CONTROL.test(value);
}

function keptClaims(claims: Claims, paths: readonly string[]): Claims | undefined {
  const kept = paths
    .map((path) => [path, bounded(valueAt(claims, path), MAX_DEPTH)] as const)
    .filter(([, value]) => value !== undefined);
  return kept.length === 0 ? undefined : Object.fromEntries(kept);
}

/** The value without what is too long, too many or too deep. */
function bounded(value: unknown, depth: number): unknown {
  if (typeof value === 'number' || typeof value === 'boolean') return value;
  if (typeof value === 'string') return isShortText(value) ? value : undefined;
  if (depth === 0 || typeof value !== 'object' || value === null) return undefined;
  const inner = (one: unknown) => bounded(one, depth - 1);
  if (Array.isArray(value))
    return value
      .slice(0, MAX_VALUES)
      .map(inner)
      .filter((one) => one !== undefined);
  const entries = Object.entries(value).slice(0, MAX_VALUES);
  return Object.fromEntries(entries.map(([name, one]) => [name, inner(one)]).filter(([, one]) => one !== undefined));
}

/** Whether a value is an object of claims. */
export function isClaims(value: unknown): value is Claims {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
