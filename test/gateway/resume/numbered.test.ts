/** Ids are put in front of events, whatever a provider's framing. */

import { createParser, type EventSourceMessage } from 'eventsource-parser';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { newStreamId, readEventId } from '../../../gateway/resume/event-id.ts';
import { Numberer } from '../../../gateway/resume/numbered.ts';

const STREAM = 'S'.repeat(22);

function textOf(chunks: (string | Buffer)[]): string {
  const numberer = new Numberer(STREAM);
  return Buffer.concat(chunks.map((chunk) => numberer.push(chunk).bytes)).toString('latin1');
}

function read(text: string): EventSourceMessage[] {
  const events: EventSourceMessage[] = [];
  const parser = createParser({ onEvent: (event) => events.push(event) });
  parser.feed(text);
  return events;
}

describe('an event gets its id', () => {
  test.each([
    ['data: a\n\n', `id: ${STREAM}-1\ndata: a\n\n`],
    ['event: x\ndata: a\ndata: b\n\n', `id: ${STREAM}-1\nevent: x\ndata: a\ndata: b\n\n`],
    ['data: a\r\n\r\n', `id: ${STREAM}-1\ndata: a\r\n\r\n`],
    ['data: a\r\r', `id: ${STREAM}-1\ndata: a\r\r`],
    ['\n\ndata: a\n\n', `\n\nid: ${STREAM}-1\ndata: a\n\n`],
    ['\ndata: a\n\n', `id: ${STREAM}-1\ndata: a\n\n`],
    ['\ufeffdata: a\n\n', `id: ${STREAM}-1\ndata: a\n\n`],
    ['id: 7\ndata: a\nid\nid:8\n\n', `id: ${STREAM}-1\ndata: a\n\n`],
    ['data: a\nid: 7\r\nidentity: x\n\n', `id: ${STREAM}-1\ndata: a\nidentity: x\n\n`],
    [': hello\n\ndata: a\n\n', `: hello\n\nid: ${STREAM}-1\ndata: a\n\n`],
    ['retry: 10\nid: 3\n\ndata: a\n\n', `retry: 10\n\nid: ${STREAM}-1\ndata: a\n\n`],
    [': id: 4\n\n', ': id: 4\n\n'],
    ['data: id: 4\n\n', `id: ${STREAM}-1\ndata: id: 4\n\n`],
    ['data\n\n', `id: ${STREAM}-1\ndata\n\n`],
  ])('%j', (given, wanted) => {
    expect(textOf([given])).toBe(wanted);
  });
});

test('what is not UTF-8 goes out as it came', () => {
  const bytes = Buffer.from([...Buffer.from('data: '), 0xff, 0xc3, 0x28, 0x0a, 0x0a]);
  const { bytes: out, events } = new Numberer(STREAM).push(bytes);
  expect(out.equals(Buffer.concat([Buffer.from(`id: ${STREAM}-1\n`), bytes]))).toBe(true);
  expect(events.map((event) => event.equals(out))).toEqual([true]);
});

test('a parser reads the same events as before, each with its own id', () => {
  const line = fc.oneof(
    fc.string({ unit: 'grapheme' }).map((text) => `data: ${text.replace(/[\r\n]/g, '')}`),
    fc.constantFrom('data', 'id: 1', 'id', ': comment', 'event: x', 'retry: 5', 'other: y', 'data:', 'idle: 3'),
  );
  const frame = fc.tuple(fc.array(line, { minLength: 1, maxLength: 5 }), fc.constantFrom('\n', '\r\n'));
  fc.assert(
    fc.property(fc.array(fc.array(frame, { minLength: 1, maxLength: 4 }), { maxLength: 6 }), (writes) => {
      const chunks = writes.map((frames) => frames.map(([lines, end]) => lines.join(end) + end + end).join(''));
      const before = read(chunks.join(''));
      const after = read(Buffer.from(textOf(chunks), 'latin1').toString());
      expect(after.map(({ data, event }) => ({ data, event }))).toEqual(
        before.map(({ data, event }) => ({ data, event })),
      );
      expect(after.map(({ id }) => id)).toEqual(after.map((_, i) => `${STREAM}-${i + 1}`));
    }),
  );
});

test('a name is read as it was written, and nothing else is', () => {
  const stream = newStreamId();
  expect(readEventId(`${stream}-12`)).toEqual({ stream, number: 12 });
  fc.assert(
    fc.property(fc.string(), (text) => {
      fc.pre(!/^[\w-]{22}-\d+$/.test(text));
      expect(readEventId(text)).toBeUndefined();
    }),
  );
});
