/** S3-14 S4-20 A stream may break at any byte, in any dialect, and whoever goes on may do so in any way. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { GatewayError } from '../../../gateway/errors.ts';
import type { HubEvent } from '../../../gateway/hub/reply.ts';
import { CLIENT_NAMES, FIRST, MANNERS, type Outcome, saying, vendors } from './vendors.ts';

/** Enough to be no word of two answers by chance, and all that is hard to cut. */
const text = fc
  .array(
    fc.oneof(fc.string({ unit: 'grapheme', maxLength: 9 }), fc.constantFrom(' ', '\n', '😀', '\r\n', '"}', 'data: ')),
    {
      minLength: 1,
      maxLength: 12,
    },
  )
  .map((pieces) => `The answer ${pieces.join('')} ends.`)
  .filter((one) => one.isWellFormed());

const thoughts: fc.Arbitrary<HubEvent[]> = fc
  .array(fc.string({ minLength: 1, maxLength: 6 }), { maxLength: 2 })
  .map((pieces) => {
    const events = pieces.map((piece): HubEvent => ({ type: 'reasoning', choice: 0, text: piece }));
    return events.length === 0 ? [] : [...events, { type: 'part-end', choice: 0 }];
  });

/** Exactly the whole answer, or a beginning of it and a typed error. */
function check(
  { text: got, begins, finishes, ended, error, broken, ids, status, usage }: Outcome,
  whole: string,
): void {
  expect(broken).toEqual([]);
  expect(ids.size).toBeLessThanOrEqual(1);
  if (error === undefined) {
    expect({ status, got, begins, finishes: finishes.length, ended }).toEqual({
      status: 200,
      got: whole,
      begins: 1,
      finishes: 1,
      ended: true,
    });
    expect(usage?.output).toBeGreaterThan(0);
  } else {
    expect({ finishes, ended }).toEqual({ finishes: [], ended: false });
    expect(error.type).not.toContain('undefined');
    expect(whole.startsWith(got)).toBe(true);
  }
}

test('the client has the whole answer, or its beginning and a typed error', { timeout: 120_000 }, async () => {
  await using rig = await vendors();
  const cases = fc.record({
    client: fc.constantFrom(...CLIENT_NAMES),
    first: fc.constantFrom(...FIRST),
    manner: fc.constantFrom(...MANNERS),
    whole: text,
    thoughts,
    at: fc.integer({ min: 0, max: 1_000 }).map((part) => part / 1_000),
    chunking: fc.constantFrom('event' as const, 'whole' as const, 'byte' as const),
  });
  let rescued = 0;
  await fc.assert(
    fc.asyncProperty(cases, async ({ whole, thoughts: thought, ...one }) => {
      const [start, ...rest] = saying(whole);
      const events = [start!, ...thought, ...rest];
      const seen = await rig.run({ ...one, events, text: whole });
      // Few characters do not tell an answer made anew from one that goes on.
      const isTold = one.manner !== 'restart' || (seen.prefix ?? '').length === 0 || seen.prefix!.length >= 8;
      if (isTold) check(seen, whole);
      if (seen.prefix !== undefined && seen.error === undefined) rescued += 1;
    }),
    { numRuns: 300 },
  );
  expect(rescued).toBeGreaterThan(30);
});

const FAULT = new GatewayError('upstream_failed', 'It burns.');
const RULES = { rules: ['email'] };
const MASKING = { at: 'local:pii-guard', hooks: ['response', 'stream'], config: RULES };
const RESTORING = { at: 'local:pii-guard', config: { ...RULES, action: 'restore' } };
const PLUGINS = { '/masked': { mask: MASKING }, '/restored': { restore: RESTORING } };

test.each(FIRST.flatMap((first) => CLIENT_NAMES.map((client) => ({ first, client }))))(
  'S3-14: a value that lies across the join is masked, and a mask restored: $client at $first',
  { timeout: 60_000 },
  async ({ first, client }) => {
    await using rig = await vendors(PLUGINS);
    for (const [route, said, shown] of [
      ['/masked', 'Write to jane.doe@example.com today.', 'Write to <EMAIL> today.'],
      ['/restored', 'Write to <EMAIL_1> today.', 'Write to jane.doe@example.com today.'],
    ] as const) {
      for (const manner of MANNERS) {
        for (let cut = 9; cut < said.length - 6; cut += 3) {
          const pieces = [said.slice(0, cut), said.slice(cut)];
          const events: HubEvent[] = [
            { type: 'start', id: 'answer-1', model: 'm' },
            { type: 'text', choice: 0, text: pieces[0]! },
            { type: 'error', error: FAULT },
          ];
          const prompt = 'Repeat: jane.doe@example.com';
          const seen = await rig.run({
            client,
            first,
            manner,
            events,
            text: said,
            at: 1,
            chunking: 'event',
            route,
            prompt,
          });
          expect({ cut, manner, text: seen.text, error: seen.error, broken: seen.broken }).toEqual({
            cut,
            manner,
            text: shown,
            error: undefined,
            broken: [],
          });
        }
      }
    }
  },
);
