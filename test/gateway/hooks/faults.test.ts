/** A plugin that failed has not said yes: every kind of fault, at every hook, under both policies. */
import { describe, expect, test } from 'vitest';
import type { Hook, Plugin } from '../../../proto/contract.ts';
import { textStream } from '../../support/chunks.ts';
import { configFor, startGateway, testPlugin } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { readSse } from '../../support/sse.ts';
import { ask, errorOf, prompt, says, soon } from '../chat.ts';

const HOOKS: Hook[] = ['authenticate', 'authorize', 'limit', 'request', 'response', 'stream', 'observe'];

/** What a plugin may do instead of answering. */
const FAULTS: Record<string, () => unknown> = {
  'never answers': () => new Promise(() => {}),
  throws: () => {
    throw new Error('secret cause');
  },
  'rejects its promise': () => Promise.reject(new Error('secret cause')),
  'throws something that is no error': () => {
    // biome-ignore lint/style/useThrowOnlyError: plugins may
    throw 'secret cause';
  },
  'answers null': () => null,
  'answers nothing': () => Promise.resolve(undefined),
  'answers a text': () => 'allow',
  'answers an empty object': () => ({}),
  'answers two verdicts': () => ({ allow: {}, reject: { code: 'x', message: 'y' } }),
  'answers an unknown verdict': () => ({ maybe: {} }),
  'answers `allow: true`': () => ({ allow: true }),
  'rejects without a message': () => ({ reject: { code: 'x' } }),
  'rejects with a status of success': () => ({ reject: { code: 'x', message: 'y', status: 200 } }),
  'rejects with a header that would split the answer': () => ({
    reject: { code: 'x', message: 'y', headers: { 'x-a': 'b\r\nSet-Cookie: c=d' } },
  }),
  'rejects with a body beyond 64 KiB': () => ({ reject: { code: 'x', message: 'y', body: 'z'.repeat(65_537) } }),
};

/** Sound verdicts, at hooks that cannot honour them, or that do not fit what was asked. */
const MISFITS: [Hook, string, unknown][] = [
  ['authenticate', 'a rewrite', { rewrite: { segments: [] } }],
  ['authenticate', 'an identity without a subject', { allow: { identity: { username: 'jo' } } }],
  ['authenticate', 'an identity with an issuer that is no text', { allow: { identity: { subject: 'a', issuer: 7 } } }],
  ['authenticate', 'an identity with a text for groups', { allow: { identity: { subject: 'a', groups: 'staff' } } }],
  ['authenticate', 'an identity with a role that is none', { allow: { identity: { subject: 'a', roles: [1] } } }],
  ['authenticate', 'an identity with claims that are none', { allow: { identity: { subject: 'a', claims: null } } }],
  ['authenticate', 'an identity with a list of claims', { allow: { identity: { subject: 'a', claims: [] } } }],
  ['authorize', 'no decisions', { allow: {} }],
  ['authorize', 'too few decisions', { allow: { decisions: [] } }],
  ['authorize', 'too many decisions', { allow: { decisions: [true, true] } }],
  ['authorize', 'a decision that is no boolean', { allow: { decisions: ['yes'] } }],
  ['limit', 'a release', { release: { release: '', hold: '' } }],
  ['limit', 'a grant that is no text', { allow: { grant: 7 } }],
  ['limit', 'headers that split the answer', { allow: { headers: { 'x-a': 'b\nc: d' } } }],
  ['request', 'a rewrite of a segment that it was not given', { rewrite: { segments: [{ id: '/nope', text: 'x' }] } }],
  ['request', 'a rewrite without a text', { rewrite: { segments: [{ id: '/messages/0/content' }] } }],
  ['request', 'a release', { release: { release: 'x', hold: '' } }],
  ['response', 'a rewrite of a segment that it was not given', { rewrite: { segments: [{ id: '/nope', text: 'x' }] } }],
  ['stream', 'a rewrite', { rewrite: { segments: [] } }],
  ['stream', 'an allow', { allow: {} }],
  ['stream', 'a hold that is no suffix', { release: { release: '', hold: 'elsewhere' } }],
];

interface Outcome {
  status: number;
  code: string | undefined;
  reached: boolean;
  logged: string;
  shown: string;
}

type Answer = (input: never, options?: { signal?: AbortSignal }) => unknown;

/** A gateway whose plugin answers at one hook, each time as the test says. */
async function rigFor(hook: Hook, mount: object = {}) {
  let answer: Answer = () => ({});
  const faulty = testPlugin('faulty', {
    [hook]: (...asked: Parameters<Answer>) => answer(...asked),
  } as Partial<Plugin>);
  const upstream = await startScriptedUpstream();
  upstream.always(hook === 'stream' ? { stream: { events: textStream('Hi there') } } : says('Hi there'));
  const plugins = { faulty: { at: 'local:faulty', deadline: '40ms', ...mount } };
  // A stranger passes here, so that what is seen is what became of the fault.
  const config = configFor(upstream.url, { plugins, route: { identity: 'optional' } });
  const gateway = await startGateway(config, { factories: [faulty], log: 'info' });
  return {
    async outcome(next: Answer): Promise<Outcome> {
      answer = next;
      const [linesBefore, requestsBefore] = [gateway.logged.length, upstream.requests.length];
      const lines = () => gateway.logged.slice(linesBefore);
      const response = await ask(gateway, prompt('Hello', hook === 'stream' ? { stream: true } : {}));
      let code: string | undefined;
      if (response.status !== 200) code = (await errorOf(response)).code;
      else if (hook === 'stream') code = ((await readSse(response)).errors[0] as { code?: string } | undefined)?.code;
      else await response.text();
      await soon(() => lines().some(({ msg }) => msg === 'request')).toBe(true);
      if (hook === 'observe') await soon(() => lines().some(({ msg }) => msg === 'plugin fault')).toBe(true);
      const shown = `${response.headers.flat().join()}${response.received}`;
      const reached = upstream.requests.length > requestsBefore;
      return { status: response.status, code, reached, logged: JSON.stringify(lines()), shown };
    },
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

const BEFORE_MODEL: Hook[] = ['authenticate', 'authorize', 'limit', 'request'];

describe.each(HOOKS)('%s', (hook) => {
  // An observer that answers nothing has done its work.
  const faults = Object.entries(FAULTS).filter(([name]) => hook !== 'observe' || name !== 'answers nothing');

  test('a fault rejects', async () => {
    await using rig = await rigFor(hook);
    for (const [name, answer] of faults) {
      const { status, code, reached, logged, shown } = await rig.outcome(answer);
      if (hook === 'observe') expect({ name, status, code }).toEqual({ name, status: 200, code: undefined });
      else expect({ name, status, code }).toEqual({ name, status: 503, code: 'guard_unavailable' });
      expect(reached, name).toBe(!BEFORE_MODEL.includes(hook));
      expect(logged, name).toContain('"fault":');
      expect(logged + shown, name).not.toMatch(/secret cause|Set-Cookie/);
    }
  });

  test('`onFault: allow` forgives it, and it is logged all the same', async () => {
    await using rig = await rigFor(hook, { onFault: 'allow' });
    for (const [name, answer] of faults) {
      const { status, code, logged } = await rig.outcome(answer);
      // A fault has told of nobody: the caller is a stranger, who may pass on this route.
      expect({ name, status, code }).toEqual({ name, status: 200, code: undefined });
      expect(logged, name).toContain('"fault":');
    }
  });

  test('in shadow it stops nothing', async () => {
    await using rig = await rigFor(hook, { shadow: true });
    for (const [name, answer] of faults) {
      const { status, code } = await rig.outcome(answer);
      expect({ name, status, code }).toEqual({ name, status: 200, code: undefined });
    }
  });
});

test.each(MISFITS)('%s cannot answer %s', async (hook, _what, verdict) => {
  await using rig = await rigFor(hook);
  expect(await rig.outcome(() => verdict)).toMatchObject({ status: 503, code: 'guard_unavailable' });
});

test('the deadline is raced: a plugin that ignores the signal is late all the same, and its late answer is ignored', async () => {
  let signal: AbortSignal | undefined;
  let answer: (verdict: { allow: object }) => void = () => {};
  await using rig = await rigFor('request');
  const { status, logged } = await rig.outcome((_input, options) => {
    signal = options?.signal;
    return new Promise((resolve) => {
      answer = resolve;
    });
  });
  expect(status).toBe(503);
  expect(signal?.aborted).toBe(true);
  expect(logged).toContain('no answer within 40 ms');
  answer({ allow: {} });
});

test('a fault names the guard and tells what to do', async () => {
  await using upstream = await startScriptedUpstream();
  const broken = testPlugin('broken', { request: () => null as never });
  const config = configFor(upstream.url, { plugins: { broken: { at: 'local:broken' } } });
  await using gateway = await startGateway(config, { factories: [broken] });
  const { message, param } = await errorOf(await ask(gateway));
  expect(message).toBe(
    'The request was stopped because the guard “broken” did not answer. Nothing was let through unchecked; try again in a moment.',
  );
  expect(param).toBeNull();
});

test('one fault harms no later request', async () => {
  let isBroken = true;
  const moody = testPlugin('moody', {
    request() {
      if (isBroken) throw new Error('not now');
      return { allow: {} };
    },
  });
  await using upstream = await startScriptedUpstream();
  upstream.always(says());
  const config = configFor(upstream.url, { plugins: { moody: { at: 'local:moody' } } });
  await using gateway = await startGateway(config, { factories: [moody] });
  expect((await ask(gateway)).status).toBe(503);
  isBroken = false;
  expect((await ask(gateway)).status).toBe(200);
});
