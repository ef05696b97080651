/**
 * The gate of a stream guard: a pattern without which it can find nothing, so that a window is released without a call.
 */

/**
 * What could make a match take more than linear time, or see beyond the window: quantifiers, look-around and
 * back-references. Character classes may hold any of these signs.
 */
const FORBIDDEN = /[*+?{]|\\[1-9k]|\(\?[=!<]/;
const CLASSES = /\[(?:[^\]\\]|\\.)*\]|\\[^1-9k]/g;

/** Whether a pattern may be a gate: ECMAScript with the `u` flag, without quantifiers. */
function isGate(pattern: string): boolean {
  const outside = pattern.replace(CLASSES, '').replaceAll('(?:', '(');
  return pattern.length <= 2_000 && !FORBIDDEN.test(outside);
}

/** Compiles a gate; a pattern that is not one gates nothing: every window is asked about. */
export function compileGate(pattern: string | undefined): RegExp | undefined {
  if (pattern === undefined || !isGate(pattern)) return undefined;
  try {
    return new RegExp(pattern, 'u');
  } catch {
    return undefined;
  }
}
