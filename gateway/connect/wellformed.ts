/**
 * Text that is not well-formed Unicode, on its way to a plugin elsewhere.
 *
 * A lone surrogate cannot be written as UTF-8, yet any client can put one into its JSON, and a stream may be cut between
 * the halves of an emoji. Plugins see U+FFFD in its place; what they hold is mapped back to the raw text.
 */
import type { StreamInput } from '../../proto/contract.ts';

/**
 * Asks about a window so that its text survives UTF-8. Half a character at the end is kept back until the other half
 * has come, and is held together with what the plugin holds.
 */
export function askWellFormed(input: StreamInput, ask: (input: StreamInput) => Promise<unknown>): Promise<unknown> {
  const { text, last } = input;
  if (text.isWellFormed()) return ask(input);
  const kept = !last && isHighSurrogate(text.charCodeAt(text.length - 1)) ? text.slice(-1) : '';
  const whole = kept === '' ? text : text.slice(0, -1);
  if (whole === '') return Promise.resolve({ release: { release: '', hold: kept } });
  const sent = whole.toWellFormed();
  return ask({ ...input, text: sent }).then((verdict) => heldRaw(verdict, sent, whole, kept));
}

/** A release whose `hold` is cut from the raw text. What is no release, or holds what was not sent, stays as it is. */
function heldRaw(verdict: unknown, sent: string, whole: string, kept: string): unknown {
  const release = (verdict as { release?: { hold?: unknown } } | undefined)?.release;
  if (typeof release?.hold !== 'string' || !sent.endsWith(release.hold)) return verdict;
  return { release: { ...release, hold: whole.slice(whole.length - release.hold.length) + kept } };
}

function isHighSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdbff;
}

/** JSON without lone surrogates: `JSON.stringify` would write them as escapes, which strict readers refuse. */
export function wellFormedJson(value: unknown): string {
  const json = JSON.stringify(value);
  // A backslash that is itself escaped may look like one: then the slower way is taken for nothing.
  if (!/\\ud[89a-f]/.test(json)) return json;
  return JSON.stringify(value, (_key, one: unknown) => (typeof one === 'string' ? one.toWellFormed() : one));
}
