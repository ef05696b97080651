/**
 * Long runs of token characters (base64 in both alphabets) in a text. Ordinary words are shorter, so looking at every sixteenth
 * character finds all of them for a tenth of what a pattern costs.
 */
import { isToken } from '../characters.ts';

/** Every key is, or holds, a run of at least this length. */
export const RUN_MIN = 16;

/** Calls `visit` with each run of at least {@link RUN_MIN} token characters that reaches into the text from `from` on. */
export function visitRuns(text: string, from: number, visit: (start: number, end: number) => void): void {
  for (let at = from + RUN_MIN - 1; at < text.length; at += RUN_MIN) {
    if (!isToken(text.charCodeAt(at))) continue;
    let start = at;
    while (start > from && isToken(text.charCodeAt(start - 1))) start--;
    let end = at + 1;
    while (end < text.length && isToken(text.charCodeAt(end))) end++;
    if (end - start < RUN_MIN) continue;
    visit(start, end);
    at = end;
  }
}
