/** Lone surrogates, which any client can send and no UTF-8 can carry. */
import { describe, expect, test } from 'vitest';
import type { PluginFactory } from '../../proto/contract.ts';
import { verdictProblem } from '../../proto/verdict.ts';
import { prompt, window } from '../contract/facts.ts';
import { WAYS } from '../contract/ways.ts';

/** Holds the last three units of each window, and says how it sees the rest. */
const holding: PluginFactory = {
  name: 'holding',
  create: () => ({
    describe: () => ({ contract: 1, name: 'holding', version: '1', hooks: ['request', 'stream'], rewrites: true }),
    request: ({ segments }) => ({ rewrite: { segments: segments.map(({ id, text }) => ({ id, text: `${text}!` })) } }),
    stream: ({ text, last }) => {
      const hold = last ? '' : text.slice(-3);
      return { release: { release: text.slice(0, text.length - hold.length), hold } };
    },
  }),
};

const SMILE = '🙂';

describe.each(['grpc Session', 'grpc Call', 'http'])('by %s', (way) => {
  test('a prompt with half a character reaches the plugin with U+FFFD in its place', async () => {
    const { connection, close } = await WAYS[way]!(holding, undefined);
    expect(await connection.ask('request', prompt('a\ud83d b'))).toEqual({
      rewrite: { segments: [{ id: '0', text: 'a\ufffd b!' }] },
    });
    await close();
  });

  test.each([
    ['half a character at the end is kept back', `abcdef${SMILE[0]}`, false, 'abc', `def${SMILE[0]}`],
    ['half a character alone is held without a call', SMILE[0]!, false, '', SMILE[0]],
    ['half a character within what is held stays raw', 'abcd\udc00f', false, 'abc', 'd\udc00f'],
    ['half a character at the very end is let go', `ab${SMILE[0]}`, true, 'ab\ufffd', ''],
    ['whole characters are whole', `abc${SMILE}d`, false, 'abc', `${SMILE}d`],
  ])('%s', async (_title, text, last, release, hold) => {
    const { connection, close } = await WAYS[way]!(holding, undefined);
    const verdict = await connection.ask('stream', window(text, last));
    expect(verdictProblem('stream', window(text, last), verdict)).toBeUndefined();
    expect(verdict).toEqual({ release: { release, hold } });
    await close();
  });
});
