/** One clock for every process of the bench. */

/** Digits of a time in an event. */
export const STAMP_DIGITS = 16;

/** Microseconds of the machine's monotonic clock. */
export function microseconds(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1_000_000 + Math.floor(nanoseconds / 1_000);
}
