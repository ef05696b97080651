/**
 * Puts the detectors together: each tells what it has found and from where on it cannot know yet; what overlaps is one span,
 * and nothing is settled that could still become part of one.
 *
 * Why the answer does not depend on how a text is cut: whether there is a match at a position is decided by each detector
 * from the text behind it and at most 64 units before it, and no window ends (`settled`) within a match or within a group
 * of overlapping ones. So every group is seen whole by exactly one window.
 */
import type { Scanner, ScanResult, Span } from '../../proto/scanner.ts';
import type { Detector, Match } from './detectors/detector.ts';
import { normalize, type View } from './normalize.ts';

const NOTHING: readonly Span[] = Object.freeze([]);

export function createScanner(detectors: readonly Detector[]): Scanner {
  return {
    scan(text, before, last) {
      if (text === '') return { spans: [], settled: 0 };
      const view = normalize(before, text, last);
      const found: Match[] = [];
      let open = view.text.length;
      for (const detect of detectors) {
        const from = detect(view, found);
        if (from < open) open = from;
      }
      if (found.length === 0)
        return { spans: NOTHING as Span[], settled: last ? text.length : settledAt(view, open, text) };
      return resolve(view, found, open, last ? text.length : -1, text);
    },
  };
}

/** Groups what overlaps, in order; stops at the first group that an undecided match may still join. */
function resolve(view: View, found: Match[], open: number, settled: number, text: string): ScanResult {
  found.sort((one, other) => one.start - other.start);
  const spans: Span[] = [];
  let until = open;
  for (let index = 0; index < found.length; ) {
    const start = found[index]!.start;
    if (start >= open) break;
    let best = found[index]!;
    let end = best.end;
    for (index++; index < found.length && found[index]!.start < end; index++) {
      const match = found[index]!;
      end = Math.max(end, match.end);
      if (isStronger(match, best)) best = match;
    }
    if (end > open) {
      until = start;
      break;
    }
    const { label, action, mask } = best.rule;
    spans.push({ start: view.rawStart(start), end: view.rawEnd(end), label, action, mask });
  }
  return { spans, settled: settled >= 0 ? settled : settledAt(view, until, text) };
}

/** A rejection beats all; then the longer match names the span, then the more specific rule. */
function isStronger(match: Match, best: Match): boolean {
  const rejects = Number(match.rule.action === 'reject') - Number(best.rule.action === 'reject');
  if (rejects !== 0) return rejects > 0;
  const longer = match.end - match.start - (best.end - best.start);
  return longer !== 0 ? longer > 0 : match.rule.priority < best.rule.priority;
}

/** The raw offset, moved back when it would stand between the halves of a surrogate pair. */
function settledAt(view: View, at: number, text: string): number {
  const raw = view.rawStart(at);
  const code = raw > 0 && raw < text.length ? text.charCodeAt(raw) : 0;
  const inPair = code >= 0xdc00 && code < 0xe000 && text.charCodeAt(raw - 1) >> 10 === 0x36;
  return inPair ? raw - 1 : Math.max(0, raw);
}
