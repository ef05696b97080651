/** All detectors that begin with a group of digits share one pass over the digits. */
import type { View } from '../normalize.ts';
import type { ActiveRule } from '../rules.ts';
import { type Detector, type Match, NONE, UNDECIDED } from './detector.ts';
import { DigitGroups } from './digit-groups.ts';

/** Finds one kind of number at a group of digits. */
export interface NumberRule {
  rule: ActiveRule;
  /** Sizes of the groups that such a number begins with; a group that may still grow is looked at whatever its size. */
  begins: { from: number; to: number }[];
  /** The end of the number that begins at a group, or NONE or UNDECIDED. */
  match(groups: DigitGroups, group: number): number;
  /** Where it begins, when that is not the group's first digit: a `+`, a bracket, letters. */
  begin?(groups: DigitGroups, group: number): number;
  /** The least offset at the end of an undecided text where a number may have begun without any digit so far. */
  tail?(text: string, from: number): number;
}

/** Longer groups are treated as groups of this size. */
const SIZE_MAX = 40;

function canBegin(rule: NumberRule, size: number): boolean {
  return rule.begins.some(({ from, to }) => size >= from && size <= to);
}

export function numbersDetector(rules: NumberRule[]): Detector {
  const groups = new DigitGroups();
  const bySize = Array.from({ length: SIZE_MAX + 1 }, (_, size) => rules.filter((rule) => canBegin(rule, size)));
  return (view, found) => {
    groups.read(view);
    let open = view.last ? view.text.length : tailOf(rules, view);
    for (let group = 0; group < groups.count; group++) {
      const likely = groups.grows(group) ? rules : bySize[Math.min(groups.size(group), SIZE_MAX)]!;
      for (const rule of likely) open = matchRule(rule, groups, group, found, open);
    }
    groups.forget();
    return open;
  };
}

function tailOf(rules: NumberRule[], { text, from }: View): number {
  let open = text.length;
  for (const rule of rules) if (rule.tail) open = Math.min(open, rule.tail(text, from));
  return open;
}

/** Notes a match; gives the least undecided offset. */
function matchRule(rule: NumberRule, groups: DigitGroups, group: number, found: Match[], open: number): number {
  const end = rule.match(groups, group);
  if (end === NONE) return open;
  const start = rule.begin ? rule.begin(groups, group) : groups.starts[group]!;
  if (start < groups.view.from) return open;
  if (end === UNDECIDED) return Math.min(open, start);
  found.push({ start, end, rule: rule.rule });
  return open;
}
