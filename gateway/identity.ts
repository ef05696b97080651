/** What of an identity may leave the gateway by the config's word: in headers to a provider, in labels of metrics. */
import type { Identity } from '../proto/contract.ts';

/** A field of an identity, as the config names it: `username`, or `claims.NAME`. */
export const IDENTITY_FIELD = /^(?:subject|issuer|username|email|groups|roles|tenant|claims\.[\w.:/-]{1,128})$/;

/** Longest value that is passed on, in UTF-16 units. */
const MAX_VALUE = 2_048;

/** The field's values; none where the identity has none, or an object. */
function valuesOf({ claims, ...identity }: Identity, field: string): string[] {
  const claim = field.startsWith('claims.') ? field.slice('claims.'.length) : undefined;
  if (claim === undefined) return textsOf(identity[field as keyof typeof identity]);
  // Claims come from outside: `constructor` must not find what every object has.
  return textsOf(claims !== undefined && Object.hasOwn(claims, claim) ? claims[claim] : undefined);
}

function textsOf(value: unknown): string[] {
  if (Array.isArray(value)) return value.flatMap((one) => (Array.isArray(one) ? [] : textsOf(one)));
  const isPlain = typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean';
  return isPlain && value !== '' ? [String(value)] : [];
}

/** The field as one text, a list joined by commas; undefined where the identity has none. */
export function identityField(identity: Identity | undefined, field: string): string | undefined {
  const values = identity === undefined ? [] : valuesOf(identity, field);
  return values.length === 0 ? undefined : values.join(',');
}

/** Text as part of a header's value: what is not visible ASCII, `%` and `,` are percent-encoded as UTF-8. */
function headerSafe(text: string): string {
  return text.toWellFormed().replace(/[^\x20-\x7e]+|[%,]|^ +| +$/gu, encodeURIComponent);
}

/** Headers from an identity: names and values alternate. What it does not have, or has at great length, is left out. */
export function identityHeaders(named: readonly [string, string][], identity: Identity | undefined): string[] {
  const out: string[] = [];
  if (identity === undefined) return out;
  for (const [name, field] of named) {
    const value = valuesOf(identity, field).map(headerSafe).join(',');
    if (value !== '' && value.length <= MAX_VALUE) out.push(name, value);
  }
  return out;
}
