/**
 * What another vendor sealed, in the one field that this format has for it: a reasoning item's `encrypted_content`. OpenAI
 * refuses a seal that is not its own, so another's bears a word and a dot that tell what it is; base64 has no dot.
 */
import type { ReasoningPart } from '../../hub/request.ts';
import type { Json } from '../dialect.ts';

const SIGNATURE = 'signature.';
const REDACTED = 'redacted.';
const CALL = 'call.';

/** Whether OpenAI sealed it itself: all of its thoughts, encrypted (Fernet's version and the time's first bytes, in base64). */
export function isOwnSeal(seal: string): boolean {
  return seal.startsWith('gAAAA');
}

// --- Written ------------------------------------------------------------------------------------------------------

/** A reasoning item without its id and status. */
export function sealedThought({ text, signature, redacted }: ReasoningPart): Json {
  const seal = redacted ?? signature;
  const summary = text === '' ? [] : [{ type: 'summary_text', text }];
  if (seal === undefined) return { type: 'reasoning', summary };
  const mark = isOwnSeal(seal) ? '' : redacted === undefined ? SIGNATURE : REDACTED;
  return { type: 'reasoning', summary, encrypted_content: mark + seal };
}

/** A reasoning item that holds the seal of the call after it. */
export function sealedCall(signature: string): Json {
  return { type: 'reasoning', summary: [], encrypted_content: CALL + signature };
}

// --- Read ---------------------------------------------------------------------------------------------------------

/** What a reasoning item is: thoughts, or the seal of the call after it. */
export function openSeal(text: string, seal: string | undefined): ReasoningPart | { call: string } {
  if (seal === undefined) return { type: 'reasoning', text };
  if (seal.startsWith(CALL)) return { call: seal.slice(CALL.length) };
  if (seal.startsWith(SIGNATURE)) return { type: 'reasoning', text, signature: seal.slice(SIGNATURE.length) };
  if (seal.startsWith(REDACTED)) return { type: 'reasoning', text, redacted: seal.slice(REDACTED.length) };
  return text === '' ? { type: 'reasoning', text, redacted: seal } : { type: 'reasoning', text, signature: seal };
}

/** Whether an item holds another vendor's seal. */
export function isSealed({ type, encrypted_content: seal }: Json): boolean {
  return type === 'reasoning' && typeof seal === 'string' && /^(?:signature|redacted|call)\./.test(seal);
}

/**
 * Whether an item holds another vendor's thoughts, sealed or not: without a seal it is one that OpenAI would look for by its
 * id, and ids of the gateway's own end in a number.
 */
export function isForeign(item: Json): boolean {
  const { type, id, encrypted_content: seal } = item;
  const isUnsealed = (seal ?? undefined) === undefined && typeof id === 'string' && /^rs_.*_\d+$/.test(id);
  return isSealed(item) || (type === 'reasoning' && isUnsealed);
}

/** Takes out the seal of a thought whose text was changed, where the seal is one of that text. */
export function unseal(item: Json): void {
  if (isSealed(item)) delete item.encrypted_content;
}
