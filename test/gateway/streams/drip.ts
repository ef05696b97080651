/** Pieces of bytes that really arrive one by one: between two of them the event loop turns, so no read joins them. */
import { frame } from '../../support/chunks.ts';
import { cutBySizes } from '../../support/cuts.ts';
import { Gate } from '../../support/gate.ts';

/** Opens by itself in the next turn of the event loop. */
class Turn extends Gate {
  constructor() {
    super();
    setImmediate(this.open);
  }
}

/** The pieces with a turn of the loop after each, for the `events` of a stream. */
export function* drip(pieces: Iterable<Buffer>): Generator<Buffer | Gate> {
  for (const piece of pieces) {
    yield piece;
    yield new Turn();
  }
}

/** Events, or bytes as they stand, in pieces of these sizes, over and over; single bytes by default. */
export function dripped(stream: object[] | string, sizes: number[] = [1]): Generator<Buffer | Gate> {
  const text = typeof stream === 'string' ? stream : stream.map((event) => frame(event)).join('');
  return drip(cutBySizes(sizes)(Buffer.from(text)));
}
