/** S3-04, S3-14: a client that is cut off at any byte gets the rest, and has every byte once. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { choice, chunk } from '../../support/chunks.ts';
import { Gate } from '../../support/gate.ts';
import type { StreamItem } from '../../support/script.ts';
import { ask, askRest, numbered, type Rig, readAndLeave, startRig, streamOf, wholeEvents } from './resuming.ts';

const SEEDS = 1_000;
const SLICES = 10;
const WORDS = ['word ', 'größe ', '\u{1F600}', '日本語', '\\"quoted\\" ', 'a\u0000b ', ' ', 'x'.repeat(300)];

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
});
afterAll(() => rig[Symbol.asyncDispose]());

/** Mulberry32: the same numbers for the same seed. */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

function eventsOf(random: (below: number) => number): string[] {
  const said = Array.from({ length: 1 + random(20) }, () =>
    chunk([choice(0, { content: WORDS[random(WORDS.length)] })]),
  );
  const chunks = [...said, chunk([choice(0, {}, 'stop')])];
  return [...chunks.map((one) => `data: ${JSON.stringify(one)}\n\n`), 'data: [DONE]\n\n'];
}

/** Puts a gate somewhere into the stream: what is behind it comes when the client has gone. */
function withGate(events: string[], gate: Gate | undefined, at: number): StreamItem[] {
  return gate === undefined ? events : [...events.slice(0, at), gate, ...events.slice(at)];
}

async function resumed(seed: number): Promise<void> {
  const random = randomOf(seed);
  const events = eventsOf(random);
  const gate = random(2) === 0 ? new Gate() : undefined;
  const at = 1 + random(events.length - 1);
  const bytes = events.slice(0, at).join('');
  rig.upstream.next({ stream: { events: withGate(events, gate, at), end: 'close-without-done' } });
  let response = await ask(rig);
  const stream = streamOf(response);
  const expected = numbered(stream, events);
  let have = Buffer.alloc(0);
  let lastId = `${stream}-0`;
  // What stands before the gate is there, whether anybody reads it or not.
  let readable = gate === undefined ? expected.length : Buffer.byteLength(bytes) + at * `id: ${stream}-1\n`.length;
  for (let cuts = 1 + random(3); cuts > 0; cuts -= 1) {
    const piece = await readAndLeave(response, random(Math.max(1, readable - have.length)));
    const { bytes: whole, lastId: seen } = wholeEvents(piece);
    have = Buffer.concat([have, whole]);
    lastId = seen ?? lastId;
    if (cuts === 1 || random(2) === 0) {
      gate?.open();
      readable = expected.length;
    }
    response = await askRest(rig, lastId);
    expect(response.status).toBe(200);
  }
  have = Buffer.concat([have, await response.bytes()]);
  expect(have.equals(expected), `have ${have.length} of ${expected.length} bytes`).toBe(true);
}

test.each(Array.from({ length: SLICES }, (_, slice) => slice))(
  'every byte comes once, wherever the client is cut off, once or several times (slice %i)',
  { timeout: 60_000 },
  async (slice) => {
    for (let i = 0; i < SEEDS / SLICES; i += 1) {
      const seed = slice * 1_000 + i;
      await resumed(seed).catch((error: unknown) => {
        throw new Error(`seed ${seed}`, { cause: error });
      });
    }
  },
);
