/**
 * What another vendor sealed, in the one field that this format has for it: a reasoning item's `encrypted_content`. What
 * an item's own shape does not tell (that the seal is one of thoughts without text, or of the call that follows) is told
 * by a word and a dot before it; base64 has no dot.
 */
import type { ReasoningPart } from '../../hub/request.ts';
import type { Json } from '../dialect.ts';

const SIGNATURE = 'signature.';
const CALL = 'call.';

/** Whether OpenAI sealed it itself: all of its thoughts, encrypted (Fernet's version and the time's first bytes, in base64). */
export function isOwnSeal(seal: string): boolean {
  return seal.startsWith('gAAAA');
}

/** Takes out the seal of a thought whose text was changed, where the seal is one of that text. */
export function unseal(item: Json): void {
  if (isSealed(item)) delete item.encrypted_content;
}

/** Whether an item holds another vendor's seal. */
export function isSealed({ type, encrypted_content: seal }: Json): boolean {
  return type === 'reasoning' && typeof seal === 'string' && !isOwnSeal(seal);
}

/** A reasoning item without its id and status. */
export function sealedThought({ text, signature, redacted }: ReasoningPart): Json {
  const seal = redacted ?? (text === '' && signature !== undefined ? SIGNATURE + signature : signature);
  const summary = text === '' ? [] : [{ type: 'summary_text', text }];
  return { type: 'reasoning', summary, ...(seal !== undefined && { encrypted_content: seal }) };
}

/** A reasoning item that holds the seal of the call after it. */
export function sealedCall(signature: string): Json {
  return { type: 'reasoning', summary: [], encrypted_content: CALL + signature };
}

/** What a reasoning item is: thoughts, or the seal of the call after it. */
export function openSeal(text: string, seal: string | undefined): ReasoningPart | { call: string } {
  if (seal?.startsWith(CALL)) return { call: seal.slice(CALL.length) };
  if (seal?.startsWith(SIGNATURE)) return { type: 'reasoning', text, signature: seal.slice(SIGNATURE.length) };
  if (seal === undefined) return { type: 'reasoning', text };
  return text === '' ? { type: 'reasoning', text, redacted: seal } : { type: 'reasoning', text, signature: seal };
}
