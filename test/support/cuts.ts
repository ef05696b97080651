/** Ways to cut bytes into the pieces in which a network may deliver them, and arbitraries of such cuts. */
import fc from 'fast-check';

/** Cuts at absolute offsets: `cutAt([2, 5])` of 8 bytes gives pieces of 2, 3 and 3. Offsets outside are ignored. */
export function cutAt(offsets: number[]): (bytes: Buffer) => Buffer[] {
  return (bytes) => {
    const inside = [...new Set(offsets)].filter((at) => at > 0 && at < bytes.length).sort((a, b) => a - b);
    return [0, ...inside].map((start, index) => bytes.subarray(start, inside[index] ?? bytes.length));
  };
}

/** Cuts into pieces of these sizes in bytes, over and over: `cutBySizes([1, 3])` gives 1, 3, 1, 3, … */
export function cutBySizes(sizes: number[]): (bytes: Buffer) => Buffer[] {
  return (bytes) => {
    const pieces: Buffer[] = [];
    for (let start = 0; start < bytes.length; start += pieces.at(-1)!.length) {
      pieces.push(bytes.subarray(start, start + sizes[pieces.length % sizes.length]!));
    }
    return pieces;
  };
}

/** Any pattern of piece sizes in bytes for `cutBySizes`; it shrinks towards few and small pieces. */
export const pieceSizes: fc.Arbitrary<number[]> = fc.array(fc.integer({ min: 1, max: 97 }), {
  minLength: 1,
  maxLength: 12,
});

/** Any offsets at which to cut `length` bytes, none included. */
export function cutOffsets(length: number): fc.Arbitrary<number[]> {
  if (length < 2) return fc.constant([]);
  const offset = fc.integer({ min: 1, max: length - 1 });
  return fc.uniqueArray(offset, { maxLength: 24 }).map((offsets) => offsets.sort((a, b) => a - b));
}
