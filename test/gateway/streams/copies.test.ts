/** What repeats or measures a text must not outlive a change of it. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { choice, chunk } from '../../support/chunks.ts';
import { configFor, startGateway, type TestGateway } from '../../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { askWhole, dataOf, readStream } from './chat.ts';

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  const plugins = { pii: { at: 'local:pii-guard', config: { rules: ['email'] } } };
  gateway = await startGateway(configFor(upstream.url, { plugins }));
});

afterAll(async () => {
  await gateway.stop();
  await upstream.close();
});

/** Log probabilities repeat a token as text and as bytes. */
function logprobsOf(text: string) {
  const token = { token: text, logprob: -0.1, bytes: [...Buffer.from(text)] };
  return { content: [{ ...token, top_logprobs: [token] }], refusal: null };
}

function said(text: string) {
  const one = { ...choice(0, { content: text }), logprobs: logprobsOf(text) };
  return { ...chunk([one as never]), obfuscation: 'x'.repeat(text.length) };
}

const END = chunk([choice(0, {}, 'stop')]);

test.each(['event', 'whole'] as const)(
  'log probabilities and padding of masked text are taken out (by %s)',
  async (chunking) => {
    const pieces = ['Write ', 'to ', 'jane', '.roe', '@exam', 'ple.com', ' now', '.'];
    upstream.next({ stream: { events: [...pieces.map(said), END], chunking } });
    const { rawText, content, chunks } = await readStream(gateway);
    expect(content).toEqual(['Write to <EMAIL> now.']);
    for (const piece of pieces.slice(2, 6)) {
      expect(rawText).not.toContain(piece);
      expect(rawText).not.toContain(JSON.stringify([...Buffer.from(piece)]));
    }
    for (const one of chunks) {
      const { content: shown } = one.choices[0]!.delta as { content?: string };
      const isOwn = shown !== undefined && pieces.includes(shown) && one.choices[0]!.logprobs !== null;
      if (isOwn) expect(one.obfuscation).toHaveLength(shown.length);
      else expect(one).not.toHaveProperty('obfuscation');
      if (shown !== undefined && !isOwn) expect(one.choices[0]!.logprobs).toBeNull();
    }
  },
);

test('log probabilities and padding of clean text stay', async () => {
  const events = [said('Hello, '), said('you! '), END];
  upstream.next({ stream: { events } });
  expect(dataOf(await readStream(gateway))).toEqual([...events.map((event) => JSON.stringify(event)), '[DONE]']);
});

test('log probabilities of a whole answer go when any of its text is masked, and stay otherwise', async () => {
  const whole = (text: string) => ({
    choices: [
      { index: 0, message: { role: 'assistant', content: text }, logprobs: logprobsOf(text), finish_reason: 'stop' },
    ],
  });
  upstream.next({ whole: whole('To jane@example.com') }, { whole: whole('To you') });
  expect(await (await askWhole(gateway)).json()).toMatchObject({
    choices: [{ message: { content: 'To <EMAIL>' }, logprobs: null }],
  });
  expect(await (await askWhole(gateway)).json()).toEqual(whole('To you'));
});

test('log probabilities beside no text of their own are taken out: they would tell it unseen', async () => {
  const hidden = { ...choice(0, { content: '' }), logprobs: logprobsOf('jane@example.com') };
  upstream.next({ stream: { events: [said('Hello, '), chunk([hidden as never]), END] } });
  const { rawText, done } = await readStream(gateway);
  expect(rawText).not.toContain('jane');
  expect(done).toBe(true);
});
