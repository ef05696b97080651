/** All detectors that begin with a group of digits share one pass over the digits. */
import type { ActiveRule } from '../rules.ts';
import { type Detector, NONE, UNDECIDED } from './detector.ts';
import { DigitGroups } from './digit-groups.ts';

/** Finds one kind of number at a group of digits. */
export interface NumberRule {
  rule: ActiveRule;
  /** The end of the number that begins at a group, or NONE or UNDECIDED. */
  match(groups: DigitGroups, group: number): number;
  /** Where it begins, when that is not the group's first digit: a `+`, a bracket, letters. */
  begin?(groups: DigitGroups, group: number): number;
  /** The least offset at the end of an undecided text where a number may have begun without any digit so far. */
  tail?(text: string, from: number): number;
}

export function numbersDetector(rules: NumberRule[]): Detector {
  const groups = new DigitGroups();
  return (view, found) => {
    const { text } = view;
    groups.read(view);
    let open = text.length;
    if (!view.last) for (const rule of rules) if (rule.tail) open = Math.min(open, rule.tail(text, view.from));
    for (let group = 0; group < groups.count; group++) {
      for (const rule of rules) {
        const end = rule.match(groups, group);
        if (end === NONE) continue;
        const start = rule.begin ? rule.begin(groups, group) : groups.starts[group]!;
        if (start < view.from) continue;
        if (end === UNDECIDED) open = Math.min(open, start);
        else found.push({ start, end, rule: rule.rule });
      }
    }
    return open;
  };
}
