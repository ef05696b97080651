/** S3-14 Many streams at once that break in all ways, with clients that leave: nothing stays open. */
import { expect, test } from 'vitest';
import { choice, chunk, errorBody, textStream, usageOf } from '../../support/chunks.ts';
import { openConnection } from '../../support/client.ts';
import type { Script } from '../../support/script.ts';
import { readSse, SseStream } from '../../support/sse.ts';
import { soon } from '../chat.ts';
import { broken, chat, rig } from './rig.ts';

const TEXT = 'The quick brown fox jumps over the lazy dog and runs away.';
const STREAMS = 200;

/** A fault for each number, over and over. */
function faulty(number: number): Script {
  const says = chunk([choice(0, { content: TEXT.slice(0, 5 + (number % 40)) })]);
  const faults: Script[] = [
    broken([says]),
    broken([says], { end: 'cut' }),
    broken([says], { end: 'reset' }),
    broken([says, errorBody('it burns')]),
    broken([says, 'data: {nonsense\n\n']),
    broken([says], { stallAfterEvents: 1 }),
    { fault: 'reset' },
    { whole: errorBody('busy'), status: 503 },
  ];
  return faults[number % faults.length]!;
}

test('two hundred broken streams at once: each has its answer or has left, and nothing stays open', {
  timeout: 60_000,
}, async () => {
  await using one = await rig({
    kinds: ['vllm', 'openai'],
    model: { rescue: 'replay', timeouts: { stall: '300ms' } },
  });
  let asked = 0;
  one.up[0]!.always(() => {
    asked += 1;
    return faulty(asked);
  });
  one.up[1]!.always({ stream: { events: textStream(TEXT, { usage: usageOf(5, 5) }) } });
  const answers = await Promise.all(
    Array.from({ length: STREAMS }, async (_, number) => {
      const client = await openConnection(one.gateway.url);
      await client.request({ path: '/v1/chat/completions', body: chat() });
      const response = await client.response();
      if (number % 5 > 0) return readSse(response);
      await new SseStream(response).next();
      client.destroy();
      return undefined;
    }),
  );
  for (const answer of answers) {
    if (answer === undefined) continue;
    const { content, errors, finish, done } = answer;
    expect({ content, errors, finish, done }).toEqual({ content: [TEXT], errors: [], finish: ['stop'], done: true });
  }
  const told = () => one.gateway.logged.filter(({ outcome }) => outcome !== undefined).length;
  await soon(told).toBe(STREAMS);
  expect(await one.metric('wardgate_open_streams')).toBe(0);
  expect(await one.metric('wardgate_open_requests')).toBe(0);
  // What was given up is closed: no answer is still being sent to nobody.
  const open = () => one.up.flatMap(({ requests }) => requests).filter(({ closedAtMs }) => closedAtMs === undefined);
  await soon(() => open().length).toBe(0);
});
