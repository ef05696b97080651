/** The vectors that the simulated model makes of texts, whatever the wire format: the same text, the same vector. */
import { createHash } from 'node:crypto';

/** A vector of length 1 with as many numbers as asked for, between -1 and 1, drawn from the text's hash. */
export function embed(text: string, dimensions: number): number[] {
  const seed = createHash('sha256').update(text).digest().readUInt32LE();
  const drawn = draw(seed, dimensions);
  const length = Math.hypot(...drawn) || 1;
  return drawn.map((value) => Math.fround(value / length));
}

/** Marsaglia's xorshift: 32 bits of state, which must not be 0. */
function draw(seed: number, count: number): number[] {
  let state = seed || 1;
  return Array.from({ length: count }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2 ** 31;
  });
}
