/** How one of several targets is chosen; all of them are fit to be asked. */
import type { RoutedTarget } from './router.ts';

export interface Choice {
  isStream: boolean;
  /** From 0 up to 1. */
  random(): number;
}

/** Chooses one of at least one target, which stand in the order of the config. */
export type Strategy = (targets: readonly RoutedTarget[], choice: Choice) => RoutedTarget;

export const STRATEGIES = {
  /** The lowest priority; of several the first. */
  priority: (targets) => least(targets, ({ priority }) => priority),
  /** By chance, each as often as its weight says; with nothing but zeros the first. */
  weighted(targets, { random }) {
    let left = random() * targets.reduce((sum, { weight }) => sum + weight, 0);
    for (const target of targets) {
      left -= target.weight;
      if (left < 0) return target;
    }
    return targets[0]!;
  },
  /** The one that was chosen the longest ago, which for the same targets is each in turn. */
  'round-robin': (targets) => least(targets, ({ pickedAt }) => pickedAt),
  /** The one whose answers begin the soonest; those that are tried for the first time meanwhile in turn. */
  'least-latency'(targets, { isStream }) {
    const fastest = least(targets, ({ health }) => health.latency(isStream).rank);
    const { rank } = fastest.health.latency(isStream);
    return rank === Number.POSITIVE_INFINITY ? least(targets, ({ pickedAt }) => pickedAt) : fastest;
  },
} as const satisfies Record<string, Strategy>;

/** The first with the lowest number. */
function least(targets: readonly RoutedTarget[], of: (target: RoutedTarget) => number): RoutedTarget {
  return targets.reduce((best, one) => (of(one) < of(best) ? one : best));
}
