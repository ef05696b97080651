/** Grants: what a limit paid for is all that an answer may have; a grant lives as long as its request. */
import { describe, expect, test } from 'vitest';
import { servePlugin } from '../../../plugins/serve.ts';
import type { Allow, LimitInput, ObserveInput, Plugin, RenewInput } from '../../../proto/contract.ts';
import { completion, deltaStream, textStream, usageOf } from '../../support/chunks.ts';
import { openConnection } from '../../support/client.ts';
import { Gate } from '../../support/gate.ts';
import { configFor, startGateway, testPlugin } from '../../support/gateway.ts';
import type { Script } from '../../support/script.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { readSse } from '../../support/sse.ts';
import { ask, prompt, says, soon } from '../chat.ts';

async function rig(allow: Allow, parts: Record<string, unknown> = {}, more: Partial<Plugin> = {}) {
  const upstream = await startScriptedUpstream();
  const asked: LimitInput[] = [];
  const observed: ObserveInput[] = [];
  const quota = testPlugin('quota', {
    limit(input) {
      asked.push(input);
      return { allow };
    },
    observe: (input) => void observed.push(input),
    ...more,
  });
  const config = configFor(upstream.url, { plugins: { quota: { at: 'local:quota' } }, ...parts });
  const gateway = await startGateway(config, { factories: [quota], log: 'debug' });
  return {
    upstream,
    gateway,
    asked,
    observed,
    /** The body that the provider got. */
    sent: () => upstream.requests.at(-1)!.json() as Record<string, unknown>,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

describe('the provider is told what was paid for', () => {
  test.each<[string, object, Record<string, unknown>, object]>([
    ['in the field that compatible servers know', {}, {}, { max_tokens: 50 }],
    ['in the provider’s own field', { provider: { kind: 'openai' } }, {}, { max_completion_tokens: 50 }],
    ['in the field that the client used', {}, { max_completion_tokens: 80 }, { max_completion_tokens: 50 }],
    [
      'in both fields where it used both',
      {},
      { max_tokens: 90, max_completion_tokens: 80 },
      { max_tokens: 50, max_completion_tokens: 50 },
    ],
    ['for each of several choices', {}, { n: 4 }, { max_tokens: 12 }],
    ['for each of choices that are counted in a string', {}, { n: '4' }, { max_tokens: 12 }],
    ['unless the client wants less', {}, { max_tokens: 7 }, { max_tokens: 7 }],
    [
      'where the client wants less in one field and more in the other',
      {},
      { max_tokens: 1e6, max_completion_tokens: 7 },
      { max_tokens: 50, max_completion_tokens: 7 },
    ],
    ['where the client’s bound means none to some servers', {}, { max_tokens: 0 }, { max_tokens: 50 }],
    ['where its bound is no number', {}, { max_completion_tokens: '1000' }, { max_completion_tokens: 50 }],
    ['where its bound is less than nothing', {}, { max_tokens: -1 }, { max_tokens: 50 }],
  ])('%s', async (_how, parts, asked, expected) => {
    await using on = await rig({ outputTokens: 50, grant: 'g' }, parts as Record<string, unknown>);
    on.upstream.always(says());
    await (await ask(on.gateway, prompt('x', asked))).text();
    const { max_tokens, max_completion_tokens } = on.sent();
    expect({ max_tokens, max_completion_tokens }).toEqual({
      max_tokens: undefined,
      max_completion_tokens: undefined,
      ...expected,
    });
  });

  test('and of several limits the least counts', async () => {
    const second = testPlugin('second', { limit: () => ({ allow: { outputTokens: 20 } }) });
    await using upstream = await startScriptedUpstream();
    upstream.always(says());
    const first = testPlugin('first', { limit: () => ({ allow: { outputTokens: 30 } }) });
    const config = configFor(upstream.url, { plugins: { a: { at: 'local:first' }, b: { at: 'local:second' } } });
    await using gateway = await startGateway(config, { factories: [first, second] });
    await (await ask(gateway)).text();
    expect(upstream.requests[0]!.json()).toMatchObject({ max_tokens: 20 });
  });

  test('nothing is added where nothing was said', async () => {
    await using on = await rig({ grant: 'g' });
    on.upstream.always(says());
    const body = '{"model":"test-model",  "messages":[{"role":"user","content":"x"}]}';
    await (await ask(on.gateway, body)).text();
    expect(on.upstream.requests[0]!.body.toString()).toBe(body);
  });
});

describe('an answer that reaches its grant', () => {
  test('as a whole says that a quota cut it', async () => {
    await using on = await rig({ outputTokens: 5, grant: 'g' });
    on.upstream.always({ whole: completion('cut', { finish: 'length', usage: usageOf(3, 5) }) });
    const answer = await (await ask(on.gateway)).json<{ choices: object[] }>();
    expect(answer.choices[0]).toMatchObject({ finish_reason: 'length', wardgate: { code: 'quota_exhausted' } });
  });

  test('is told apart from one that the client’s own bound cut', async () => {
    await using on = await rig({ outputTokens: 50, grant: 'g' });
    const whole = JSON.stringify(completion('cut', { finish: 'length' }));
    on.upstream.always({ whole });
    expect(await (await ask(on.gateway, prompt('x', { max_tokens: 5 }))).text()).toBe(whole);
  });

  test('as a stream that the provider ends says so too', async () => {
    await using on = await rig({ outputTokens: 5, grant: 'g' });
    on.upstream.always({ stream: { events: textStream('It is cut', { finish: 'length' }) } });
    const { events, done } = await readSse(await ask(on.gateway, prompt('x', { stream: true })));
    expect(done).toBe(true);
    expect(JSON.parse(events.at(-2)!.data)).toMatchObject({
      choices: [{ finish_reason: 'length', wardgate: { code: 'quota_exhausted' } }],
    });
  });

  test('as a stream that would go on is cut: a finish, the usage, an end; the provider is let go, the account is what was shown', async () => {
    await using on = await rig({ outputTokens: 10, grant: 'g' });
    const endless = textStream('word '.repeat(200), { size: 5 });
    on.upstream.always({ stream: { events: endless, end: 'open' } } as Script);
    const body = prompt('x', { stream: true, stream_options: { include_usage: true } });
    const { events, content, done } = await readSse(await ask(on.gateway, body));
    expect(done).toBe(true);
    expect(content[0]).toBe('word '.repeat(9));
    expect(JSON.parse(events.at(-3)!.data)).toMatchObject({
      choices: [{ finish_reason: 'length', wardgate: { code: 'quota_exhausted' } }],
    });
    expect(JSON.parse(events.at(-2)!.data)).toMatchObject({ choices: [], usage: { completion_tokens: 12 } });
    await soon(() => on.upstream.openConnections).toBe(0);
    await soon(() => on.observed.length).toBe(1);
    expect(on.observed[0]).toMatchObject({
      outcome: 'finished',
      code: 'quota_exhausted',
      grant: 'g',
      usage: { outputTokens: 12, estimated: true },
    });
  });

  test('as a stream of several choices finishes those that have not', async () => {
    await using on = await rig({ outputTokens: 16, grant: 'g' });
    const events = deltaStream([
      [{ content: 'a'.repeat(40) }, { content: 'b'.repeat(40) }],
      [{ content: 'c'.repeat(4) }, { content: 'd'.repeat(40) }],
    ]);
    on.upstream.always({ stream: { events, end: 'open' } } as Script);
    const seen = await readSse(await ask(on.gateway, prompt('x', { stream: true, n: 2 })));
    expect(seen.done).toBe(true);
    const finish = JSON.parse(seen.events.at(-2)!.data) as { choices: { index: number }[] };
    expect(finish.choices.map(({ index }) => index)).toEqual([0, 1]);
  });

  test('shows what a guard held back, judged, before the finish', async () => {
    const holds = testPlugin('holds', {
      stream: ({ text, last }) => ({
        release: last ? { release: text.toUpperCase(), hold: '' } : { release: '', hold: text },
      }),
    });
    const quota = testPlugin('quota', { limit: () => ({ allow: { outputTokens: 4, grant: 'g' } }) });
    await using upstream = await startScriptedUpstream();
    upstream.always({
      stream: { events: textStream('abcdefghijklmnopqrstuvwxyz', { size: 6 }), end: 'open' },
    } as Script);
    const config = configFor(upstream.url, { plugins: { q: { at: 'local:quota' }, h: { at: 'local:holds' } } });
    await using gateway = await startGateway(config, { factories: [holds, quota] });
    const { content, done } = await readSse(await ask(gateway, prompt('x', { stream: true })));
    expect({ content, done }).toEqual({ content: ['ABCDEFGHIJKLMNOPQR'], done: true });
  });
});

describe('the account', () => {
  test('is estimated from what was answered where the provider tells no usage', async () => {
    await using on = await rig({ grant: 'g' });
    on.upstream.always({ whole: { ...completion('x'.repeat(400)), usage: undefined } } as Script);
    await (await ask(on.gateway)).text();
    await soon(() => on.observed.length).toBe(1);
    expect(on.observed[0]!.usage).toEqual({ inputTokens: expect.any(Number), outputTokens: 100, estimated: true });
    expect(on.observed[0]!.usage!.inputTokens).toBeGreaterThan(10);
  });

  test.each([{}, { stream: true }])(
    'has the prompt of whoever leaves before the answer: the provider has read it %j',
    async (more) => {
      await using on = await rig({ grant: 'g' });
      on.upstream.next({ fault: 'silence' });
      const connection = await openConnection(on.gateway.url);
      await connection.request({ path: '/v1/chat/completions', body: prompt('x'.repeat(4000), more) });
      await soon(() => on.upstream.requests.length).toBe(1);
      connection.socket.destroy();
      await soon(() => on.observed.length).toBe(1);
      expect(on.observed[0]).toMatchObject({ outcome: 'aborted', usage: { outputTokens: 0, estimated: true } });
      expect(on.observed[0]!.usage!.inputTokens).toBeGreaterThan(1000);
    },
  );

  test('has nothing of a request that the provider refused', async () => {
    await using on = await rig({ grant: 'g' });
    on.upstream.next({ whole: '', status: 500 });
    expect((await ask(on.gateway)).status).toBe(502);
    await soon(() => on.observed.length).toBe(1);
    expect(on.observed[0]).not.toHaveProperty('usage.inputTokens');
  });
});

describe('a grant', () => {
  test('is renewed as long as its request is open, and no longer', async () => {
    const renewed: RenewInput[] = [];
    const of = (id: string) => renewed.filter(({ request }) => request.id === id).length;
    await using on = await rig({ grant: 'lease-1', renewMs: 500 }, {}, { renew: (input) => void renewed.push(input) });
    on.upstream.always({ stream: { events: textStream('Hi'), stallAfterEvents: 1 } });
    const open = (id: string) => ask(on.gateway, prompt('x', { stream: true }), { headers: { 'X-Request-Id': id } });
    const first = await open('first');
    await soon(() => of('first')).toBeGreaterThanOrEqual(2);
    expect(renewed[0]).toMatchObject({ grant: 'lease-1', request: { model: 'test-model' } });
    on.upstream.requests[0]!.release();
    await readSse(first);
    await soon(() => on.observed.length).toBe(1);
    const atItsEnd = of('first');
    // The clock of another request tells that the time for a further renewal has passed.
    const second = await open('second');
    await soon(() => of('second')).toBeGreaterThanOrEqual(2);
    expect(of('first')).toBe(atItsEnd);
    on.upstream.requests[1]!.release();
    await readSse(second);
  });

  test('that comes when its client has gone is settled all the same, also from a plugin elsewhere', async () => {
    const asked = new Gate();
    const door = new Gate();
    const observed: ObserveInput[] = [];
    const quota = testPlugin('quota', {
      async limit() {
        asked.open();
        await door.opened;
        return { allow: { grant: 'late' } };
      },
      observe: (input) => void observed.push(input),
    });
    await using upstream = await startScriptedUpstream();
    const service = await servePlugin(quota, { grpc: '127.0.0.1:0' });
    const mount = { at: service.grpcUrl, deadline: '10s' };
    await using gateway = await startGateway(configFor(upstream.url, { plugins: { quota: mount } }));
    const connection = await openConnection(gateway.url);
    await connection.request({ path: '/v1/chat/completions', body: prompt() });
    await asked.opened;
    connection.socket.destroy();
    // What comes later is answered, so the gateway knows of the end by then.
    expect((await ask(gateway, prompt(), { route: '/nowhere' })).status).toBe(404);
    door.open();
    const settled = () => observed.filter(({ request }) => request.path === '/v1/chat/completions');
    await soon(() => settled().length).toBe(1);
    expect(settled()[0]).toMatchObject({ grant: 'late', outcome: 'aborted' });
    expect(settled()[0]).not.toHaveProperty('usage');
    expect(upstream.requests).toHaveLength(0);
    await gateway.stop();
    await service.close();
  });

  test('that cannot be renewed is logged, and its request goes on', async () => {
    const more: Partial<Plugin> = { renew: () => Promise.reject(new Error('away')) };
    await using on = await rig({ grant: 'lease-1', renewMs: 500 }, {}, more);
    on.upstream.always({ stream: { events: textStream('Hi'), stallAfterEvents: 1 } } as Script);
    const response = await ask(on.gateway, prompt('x', { stream: true }));
    await soon(
      () => on.gateway.logged.filter(({ msg, hook }) => msg === 'plugin fault' && hook === 'renew').length,
    ).toBe(1);
    on.upstream.requests[0]!.release();
    expect(await readSse(response)).toMatchObject({ done: true });
  });

  test.each([
    ['too often', { grant: 'g', renewMs: 100 }],
    ['by no time', { grant: 'g', renewMs: '1s' }],
    ['for a part of a token', { outputTokens: 1.5 }],
    ['for less than nothing', { outputTokens: -1 }],
  ])('that is given %s is a fault', async (_how, allow) => {
    await using on = await rig(allow as Allow);
    expect((await ask(on.gateway)).status).toBe(503);
  });
});

test.each([
  [undefined, {}],
  [7, { max_tokens: 7 }],
  [7, { max_tokens: null, max_completion_tokens: 7 }],
  [28, { max_tokens: 7, n: 4 }],
  [90, { max_tokens: 5, max_completion_tokens: 90 }],
  [Number.MAX_SAFE_INTEGER, { max_tokens: 1e300 }],
  [undefined, { max_tokens: 0 }],
  [undefined, { max_tokens: -5 }],
  [undefined, { max_tokens: '7' }],
  [undefined, { max_tokens: 7, max_completion_tokens: '1000' }],
])('a limit is told that the answer may have %s tokens by %j', async (expected, asked) => {
  await using on = await rig({});
  on.upstream.always(says());
  await (await ask(on.gateway, prompt('x', asked))).text();
  expect(on.asked.map(({ maxOutputTokens }) => maxOutputTokens)).toEqual([expected]);
});

test('a limit is told the price of the model, where the table has it', async () => {
  const prices = { 'test-model': { input: 2, output: 4, cachedInput: 1 } };
  await using on = await rig({}, { prices });
  on.upstream.always(says());
  await (await ask(on.gateway)).text();
  await (await ask(on.gateway, prompt('x', { model: 'constructor' }))).text();
  expect(on.asked.map(({ price }) => price)).toEqual([prices['test-model'], undefined]);
});
