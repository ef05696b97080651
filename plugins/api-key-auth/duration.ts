/** Times as people write them in the config and on the command line. */
const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A whole number and its unit: `500ms`, `30s`, `15m`, `24h`, `90d`. */
export const DURATION = /^(\d{1,9})(ms|s|m|h|d)$/;

/** Milliseconds of a text that {@link DURATION} matches. */
export function durationMs(text: string): number {
  const [, number, unit] = DURATION.exec(text)!;
  return Number(number) * UNIT_MS[unit as keyof typeof UNIT_MS];
}
