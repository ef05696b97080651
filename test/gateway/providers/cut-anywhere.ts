import fc from 'fast-check';
import { expect } from 'vitest';
import type { HubEvent } from '../../../gateway/hub/reply.ts';
import { cutAt, cutBySizes, pieceSizes } from '../../support/cuts.ts';

/** Expects the same events of a stream cut in two at each byte, into single bytes, and into pieces of any sizes. */
export function expectSameWhereverCut(bytes: Buffer, eventsOf: (pieces: Buffer[]) => HubEvent[]): void {
  const whole = eventsOf([bytes]);
  for (let at = 1; at < bytes.length; at += 1) expect(eventsOf(cutAt([at])(bytes))).toEqual(whole);
  expect(eventsOf(cutBySizes([1])(bytes))).toEqual(whole);
  fc.assert(
    fc.property(pieceSizes, (sizes) => {
      expect(eventsOf(cutBySizes(sizes)(bytes))).toEqual(whole);
    }),
    { numRuns: 30 },
  );
}
