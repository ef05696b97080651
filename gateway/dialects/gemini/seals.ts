/**
 * The seals of thoughts, whose vendor must be known again when a conversation comes back: each refuses the others'.
 *
 * In the hub a seal of Gemini's own bears a mark. To Gemini's clients, whose `thoughtSignature` must be base64, other
 * vendors' seals and encrypted thoughts are written as the base64 of a mark and themselves.
 */

const OWN = 'gemini:';
const FOREIGN = 'wardgate:';
/** Nine bytes are twelve characters, whatever follows. */
const FOREIGN_START = Buffer.from(FOREIGN).toString('base64');

/** Gemini's own seal as the hub carries it. The seals of calls need no mark: no other vendor has them. */
export function marked(seal: string): string {
  return OWN + seal;
}

/** A seal as Gemini wrote it; undefined where it is another vendor's. */
export function ownSeal(signature: string | undefined): string | undefined {
  return signature?.startsWith(OWN) ? signature.slice(OWN.length) : undefined;
}

/** What the hub carries of a thought beside its text. */
export interface Sealed {
  signature?: string;
  redacted?: string;
}

/** Writes a seal as a `thoughtSignature`; undefined where there is none. */
export function writeSeal({ signature, redacted }: Sealed): string | undefined {
  const own = ownSeal(signature);
  if (own !== undefined) return own;
  if (signature !== undefined) return Buffer.from(`${FOREIGN}s${signature}`).toString('base64');
  return redacted === undefined ? undefined : Buffer.from(`${FOREIGN}r${redacted}`).toString('base64');
}

/** Reads a `thoughtSignature`; some clients spell base64 for URLs. */
export function readSeal(seal: string): Sealed {
  if (!seal.startsWith(FOREIGN_START)) return { signature: marked(seal) };
  const text = Buffer.from(seal, 'base64').toString('utf8').slice(FOREIGN.length);
  return text.startsWith('r') ? { redacted: text.slice(1) } : { signature: text.slice(1) };
}
