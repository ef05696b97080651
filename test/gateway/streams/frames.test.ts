import { createParser, type EventSourceMessage } from 'eventsource-parser';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FrameReader, frameData, isErrorFrame } from '../../../gateway/stream/frames.ts';
import { cutAt, cutBySizes, pieceSizes } from '../../support/cuts.ts';
import { wildStream } from './framing.ts';

function framesOf(pieces: Buffer[]): string[] {
  const reader = new FrameReader();
  const frames = pieces.flatMap((piece) => reader.push(piece));
  const last = reader.end();
  return last === undefined ? frames : [...frames, last];
}

/** What a parser of good standing reads. */
function eventsOf(stream: string): string[] {
  const events: EventSourceMessage[] = [];
  createParser({ onEvent: (event) => events.push(event) }).feed(stream);
  return events.map((event) => event.data);
}

test('S3-01 frames hold the same events, and all bytes, however the stream is framed and cut', () => {
  fc.assert(
    fc.property(wildStream, pieceSizes, (stream, sizes) => {
      const frames = framesOf(cutBySizes(sizes)(Buffer.from(stream)));
      expect(frames.join('')).toBe(stream.replace(/^\uFEFF/, ''));
      expect(frames.map(frameData).filter((data) => data !== undefined)).toEqual(eventsOf(`${stream}\n`));
    }),
    { numRuns: 500 },
  );
});

test.each(['\n', '\r\n', '\r'])('an event of several lines ended by %j is one frame wherever it is cut', (newline) => {
  const stream = Buffer.from(`: c${newline}event: error${newline}data: {"ä":${newline}data: 1}${newline}${newline}`);
  for (let at = 0; at < stream.length; at += 1) {
    const frames = framesOf(cutAt([at])(stream));
    expect(frames.map(frameData)).toEqual(['{"ä":\n1}']);
    expect(isErrorFrame(frames[0]!)).toBe(true);
  }
});

test('what never ended is no frame', () => {
  const reader = new FrameReader();
  expect(reader.push(Buffer.from('data: 1\n\ndata: 2\n'))).toEqual(['data: 1\n\n']);
  expect(reader.end()).toBeUndefined();
  expect(reader.incomplete).toBe('data: 2\n');
});
