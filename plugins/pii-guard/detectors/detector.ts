/** What a detector is: it looks at a window and tells what it has found and from where on it cannot know yet. */
import type { View } from '../normalize.ts';
import type { ActiveRule } from '../rules.ts';

/** A possible span. Offsets are those of the view's text. */
export interface Match {
  start: number;
  end: number;
  rule: ActiveRule;
}

/**
 * Adds to `found` the matches that begin at or after `view.from`, in any order, and returns the least offset from which
 * on a match may begin that more text could make, change or undo; the text's length when there is none, never less than `view.from`.
 *
 * The answer for one start must depend on nothing but the text after it and the 48 raw units before it (few characters
 * and {@link View.context}): that is what makes the whole independent of where a stream is cut. Matches that begin
 * at or after the returned offset are dropped by the caller, so a detector need not be careful with them.
 */
export type Detector = (view: View, found: Match[]) => number;

/** What is known of a possible match: its end when positive, or one of these. */
export const NONE = -1;
/** The text ends before it is decided. */
export const UNDECIDED = -2;
