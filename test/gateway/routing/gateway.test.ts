/** Routing as clients see it: which provider answers, what the log and the metrics say, and what outlives a reload. */
import { describe, expect, test } from 'vitest';
import type { SharedMarks } from '../../../proto/marks.ts';
import { type ChatChunk, completion, errorBody, textStream, usageOf } from '../../support/chunks.ts';
import { send } from '../../support/client.ts';
import { Gate } from '../../support/gate.ts';
import { type StartOptions, startGateway, testPlugin } from '../../support/gateway.ts';
import type { Script } from '../../support/script.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { readSse } from '../../support/sse.ts';
import { ask, contentOf, errorOf, prompt, says, soon } from '../chat.ts';
import { samples } from '../prometheus.ts';
import { askAndLeave } from '../streams/chat.ts';

type Settings = Record<string, unknown>;

/** A gateway whose model `best` has three providers, `a`, `b` and `c`; each says its name unless the test scripts it. */
async function rig(model: Settings = {}, targets: Record<string, Settings> = {}, options: StartOptions = {}) {
  const names = ['a', 'b', 'c'] as const;
  const upstreams = {} as Record<(typeof names)[number], ScriptedUpstream>;
  for (const name of names) upstreams[name] = (await startScriptedUpstream()).always(says(name));
  const config = (more: Settings = {}) => ({
    providers: Object.fromEntries(
      names.map((name) => [
        name,
        { kind: 'openai-compatible', baseUrl: `${upstreams[name].url}/v1`, key: `key-${name}` },
      ]),
    ),
    models: {
      best: {
        ...model,
        targets: names.map((name) => ({ provider: name, model: `m-${name}`, ...targets[name] })),
        ...more,
      },
    },
    routes: { '/': {} },
  });
  const gateway = await startGateway(
    { ...config(), ...(options.openMarks && { redis: 'redis://unused' }) },
    { metrics: true, log: 'info', ...options },
  );
  return {
    ...upstreams,
    gateway,
    config,
    /** What a stream says. */
    async streams(): Promise<string> {
      const { events } = await readSse(await ask(gateway, prompt('x', { model: 'best', stream: true })));
      const chunks = events.filter(({ data }) => data !== '[DONE]').map(({ data }) => JSON.parse(data) as ChatChunk);
      return chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('');
    },
    /** Who answers. */
    async asks(more: Settings = {}, headers: Record<string, string> = {}): Promise<string> {
      const response = await ask(gateway, prompt('x', { model: 'best', ...more }), { headers });
      return response.status === 200 ? contentOf(response) : String(response.status);
    },
    async metric(name: string, labels: Record<string, string> = {}): Promise<number | undefined> {
      const all = samples(await (await send(`${gateway.metricsUrl}/metrics`)).text());
      const isMeant = (one: { name: string; labels: Record<string, string> }) =>
        one.name === name && Object.entries(labels).every(([label, value]) => one.labels[label] === value);
      return all.find(isMeant)?.value;
    },
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      for (const name of names) await upstreams[name].close();
    },
  };
}

const FAILING: Script = { whole: errorBody('it burns'), status: 500 };
function limited(seconds?: number): Script {
  const headers = seconds === undefined ? undefined : { 'retry-after': String(seconds) };
  return { whole: errorBody('too many'), status: 429, headers };
}
function streams(text: string): Script {
  return { stream: { events: textStream(text, { usage: usageOf(3, 4) }) } };
}

describe('S3-22: a strategy', () => {
  test('S2-11: priority asks the lowest while it is well', async () => {
    await using one = await rig({}, { a: { priority: 2 }, b: { priority: 1 }, c: { priority: 3 } });
    expect([await one.asks(), await one.asks()]).toEqual(['b', 'b']);
    one.b.next(FAILING);
    expect(await one.asks()).toBe('a');
    expect(one.a.requests[0]!.json().model).toBe('m-a');
    expect(one.a.requests[0]!.header('authorization')).toBe('Bearer key-a');
  });

  test('S2-08: round-robin asks each in turn, also with many requests at once', async () => {
    await using one = await rig({ strategy: 'round-robin' });
    const answers = await Promise.all(Array.from({ length: 30 }, () => one.asks()));
    expect(answers.filter((name) => name === 'a')).toHaveLength(10);
    expect(answers.filter((name) => name === 'b')).toHaveLength(10);
  });

  test('S2-09: weighted gives shares; 0 is none', async () => {
    await using one = await rig({ strategy: 'weighted' }, { a: { weight: 0 }, b: { weight: 1 }, c: { weight: 3 } });
    const answers = await Promise.all(Array.from({ length: 60 }, () => one.asks()));
    expect(answers).not.toContain('a');
    expect(new Set(answers)).toEqual(new Set(['b', 'c']));
  });

  test('S2-10: least-latency tries each, then asks the fastest', async () => {
    await using one = await rig({ strategy: 'least-latency' });
    one.a.next({ ...says('a'), latencyMs: 300 });
    one.c.next({ ...says('c'), latencyMs: 300 });
    const answers: string[] = [];
    for (let i = 0; i < 6; i += 1) answers.push(await one.asks());
    expect(answers).toEqual(['a', 'b', 'c', 'b', 'b', 'b']);
  });

  test('S3-22: conditional chooses by headers, size, stream and identity', async () => {
    const who = testPlugin('who', {
      authenticate: ({ request }) => ({
        allow: { identity: { subject: request.headers?.['x-user'] ?? 'nobody', claims: { plan: 'pro' } } },
      }),
    });
    const targets = {
      a: { when: 'headers["x-tier"] == "gold" || promptTokens > 1000' },
      b: { when: 'identity.subject == "jane" && identity.claims.plan == "pro"' },
    };
    await using one = await rig({}, targets, { factories: [who] });
    await one.gateway.reload({
      ...one.config(),
      plugins: { who: { at: 'local:who' } },
      routes: { '/': { plugins: ['who'] } },
    });
    expect(await one.asks({}, { 'X-Tier': 'gold' })).toBe('a');
    expect(await one.asks({ user: 'x'.repeat(5_000) })).toBe('a');
    expect(await one.asks({}, { 'X-User': 'jane' })).toBe('b');
    expect(await one.asks({}, { 'X-User': 'joe' })).toBe('c');
  });

  test('a request that no target is meant for is told so', async () => {
    const never = { when: 'headers["x-tier"] == "gold"' };
    await using one = await rig({}, { a: never, b: never, c: never });
    const error = await errorOf(await ask(one.gateway, prompt('x', { model: 'best' })));
    expect(error).toMatchObject({ status: 404, code: 'model_not_found', param: 'model' });
  });

  test('a condition that is no CEL is a problem of the config, with its place', async () => {
    await expect(rig({}, { b: { when: 'promptTokens >' } })).rejects.toThrow(
      /line \d+: models\.best\.targets\.1\.when: is no CEL expression/,
    );
  });
});

describe('a target that is over its limit', () => {
  test('S1-78: is left alone from then on, and the log and the metrics say so', async () => {
    await using one = await rig();
    one.a.next(limited(60));
    expect([await one.asks(), await one.asks(), await one.asks()]).toEqual(['b', 'b', 'b']);
    expect(one.a.requests).toHaveLength(1);
    await soon(() => one.gateway.logged.filter(({ msg }) => msg === 'request').length).toBe(3);
    const lines = one.gateway.logged.filter(({ msg }) => msg === 'request');
    expect(lines.map(({ attempts, provider }) => [attempts, provider])).toEqual([
      [2, 'b'],
      [undefined, 'b'],
      [undefined, 'b'],
    ]);
    const cooling = { provider: 'a', model: 'm-a' };
    expect(await one.metric('wardgate_target_state', cooling)).toBe(1);
    expect(await one.metric('wardgate_target_state', { provider: 'b' })).toBe(0);
    expect(await one.metric('wardgate_target_cooldowns_total', cooling)).toBe(1);
    expect(await one.metric('wardgate_failovers_total', { reason: 'upstream_rate_limited' })).toBe(1);
  });

  test('is told of to other replicas, and heard of from them, for five minutes at most', async () => {
    const marked: unknown[] = [];
    let tell: (key: string, forMs: number) => void = () => {};
    const marks: SharedMarks = {
      mark: (...mark) => marked.push(mark),
      onMark(listener) {
        tell = listener;
        return () => {};
      },
      close: () => marked.push('closed'),
    };
    await using one = await rig({}, {}, { openMarks: async () => marks });
    expect(await one.asks()).toBe('a');
    for (const key of ['nobody/m-a', '__proto__', 'a/m-a']) tell(key, 1e12);
    expect(await one.asks()).toBe('b');
    one.b.next(limited(60));
    expect(await one.asks()).toBe('c');
    expect(marked).toEqual([['b/m-b', 60_000]]);
    await one.gateway.stop();
    expect(marked.at(-1)).toBe('closed');
  });

  test('that the config does not name any more is forgotten', async () => {
    await using one = await rig();
    one.a.next(limited(60));
    await one.asks();
    await one.gateway.reload(one.config({ targets: [{ provider: 'b', model: 'm-b' }] }));
    expect(await one.metric('wardgate_target_state', { provider: 'a' })).toBeUndefined();
    expect(await one.metric('wardgate_target_state', { provider: 'b' })).toBe(0);
  });

  test('is asked again when its time is over', async () => {
    await using one = await rig({ cooldown: { default: '50ms', max: '50ms' } });
    one.a.next(limited(60));
    expect(await one.asks()).toBe('b');
    await expect.poll(() => one.asks(), { interval: 10 }).toBe('a');
  });

  test('stays so when the config is read again', async () => {
    await using one = await rig();
    one.a.next(limited(60));
    await one.asks();
    expect(await one.gateway.reload(one.config({ strategy: 'priority' }))).toBe(true);
    expect(await one.asks()).toBe('b');
  });

  test('is waited for where `Retry-After` is short and nobody else is there', async () => {
    await using one = await rig({ retry: { attempts: 2 } });
    const only = [{ provider: 'a', model: 'm-a' }];
    await one.gateway.reload(one.config({ targets: only }));
    one.a.next({ whole: errorBody('too many'), status: 429, headers: { 'retry-after-ms': '40' } });
    expect(await one.asks()).toBe('a');
    const [first, second] = one.a.requests;
    expect(second!.arrivedAtMs - first!.arrivedAtMs).toBeGreaterThanOrEqual(39);
    expect(await one.metric('wardgate_upstream_retries_total', { provider: 'a' })).toBe(1);
  });
});

describe('S2-14: a target that keeps failing', () => {
  test('is not asked any more, is tried once after the cooldown, and is asked again when that goes well', async () => {
    await using one = await rig({ breaker: { failures: 3, cooldown: '80ms' } });
    one.a.always(FAILING);
    for (let i = 0; i < 5; i += 1) expect(await one.asks()).toBe('b');
    expect(one.a.requests).toHaveLength(3);
    await expect.poll(() => one.metric('wardgate_target_state', { provider: 'a' })).toBe(2);
    const asked = new Gate();
    one.a.next({ ...says('a'), after: asked });
    const probe = one.asks();
    await one.a.arrived(3);
    expect(await Promise.all([one.asks(), one.asks(), one.asks()])).toEqual(['b', 'b', 'b']);
    expect(one.a.requests).toHaveLength(4);
    asked.open();
    expect(await probe).toBe('a');
    one.a.always(says('a'));
    expect(await one.asks()).toBe('a');
    expect(await one.metric('wardgate_target_state', { provider: 'a' })).toBe(0);
  });

  test('when all do, clients are refused at once, and told until when', async () => {
    await using one = await rig({ breaker: { failures: 1, cooldown: '30s' } });
    for (const name of ['a', 'b', 'c'] as const) one[name].always(FAILING);
    expect(await one.asks()).toBe('502');
    const response = await ask(one.gateway, prompt('x', { model: 'best' }));
    expect([response.status, response.header('retry-after')]).toEqual([503, '30']);
    expect((await errorOf(response)).message).toContain('Try again in 30 seconds');
    expect([one.a, one.b, one.c].map(({ requests }) => requests.length)).toEqual([1, 1, 1]);
  });

  test('in the middle of its streams is found out too', async () => {
    await using one = await rig({ breaker: { failures: 2, cooldown: '30s' }, rescue: 'off' });
    one.a.always({ stream: { events: textStream('Hi there'), cutAfterBytes: 400 } });
    one.b.always(streams('b'));
    for (let i = 0; i < 2; i += 1) await ask(one.gateway, prompt('x', { model: 'best', stream: true })).then(readSse);
    await expect.poll(() => one.metric('wardgate_target_state', { provider: 'a' })).toBe(3);
    expect(await one.streams()).toBe('b');
  });

  test('clients that leave say nothing of it', async () => {
    await using one = await rig({ breaker: { failures: 1 } });
    for (let i = 0; i < 3; i += 1) {
      one.a.next({ fault: 'silence' });
      const connection = await askAndLeave(one.gateway, '', { model: 'best' });
      const request = await one.a.arrived(i);
      connection.destroy();
      expect(await request.closed).toBe('left');
    }
    expect(await one.asks()).toBe('a');
  });
});

describe('S2-13: a target that fails', () => {
  test('is tried again as often as the config says, then the next is', async () => {
    await using one = await rig({ retry: { perTarget: 3, backoff: { base: '1ms', max: '2ms' } } });
    one.a.always(FAILING);
    expect(await one.asks()).toBe('b');
    expect(one.a.requests).toHaveLength(3);
    expect(await one.metric('wardgate_upstream_retries_total', { provider: 'a' })).toBe(2);
  });

  test('in all of its kinds is told of with every provider’s name', async () => {
    await using one = await rig();
    one.a.next(FAILING);
    one.b.next({ whole: '<html>', contentType: 'text/html' });
    one.c.next({ ...FAILING, status: 503 });
    const error = await errorOf(await ask(one.gateway, prompt('x', { model: 'best' })));
    expect(error).toMatchObject({ status: 502, code: 'upstream_failed' });
    expect(error.message).toMatch(/^All providers failed: “a” \(failed\), “b” \(.+\), “c” \(overloaded\)\./);
  });

  test('is not repeated beyond the retry budget', async () => {
    const retry = { perTarget: 2, backoff: { base: '1ms', max: '1ms' }, budget: { ratio: 0, perSecond: 1 } };
    await using one = await rig({ retry, breaker: false });
    one.a.always(FAILING);
    for (let i = 0; i < 6; i += 1) expect(await one.asks()).toBe('b');
    expect(one.a.requests.length).toBeLessThanOrEqual(8);
  });

  test('with a mistake of the client’s is not asked again, and no other is', async () => {
    await using one = await rig();
    one.a.next({ whole: errorBody('no such tool', { code: 'bad_tool' }), status: 400 });
    const error = await errorOf(await ask(one.gateway, prompt('x', { model: 'best' })));
    expect(error).toMatchObject({ status: 400, code: 'bad_tool' });
    expect([one.b.requests.length, one.c.requests.length]).toEqual([0, 0]);
  });
});

describe('a slow target', () => {
  test('whose first content is late is left for the next; keep-alives are no content', async () => {
    await using one = await rig({ timeouts: { firstToken: '150ms' } });
    one.a.next({ stream: { events: [': ping\n\n', ': ping\n\n'], end: 'open' } });
    one.b.next(streams('from b'));
    expect(await one.streams()).toBe('from b');
    expect(await one.a.requests[0]!.closed).toBe('left');
  });

  test('whose whole answer is late is left for the next', async () => {
    await using one = await rig({ timeouts: { attempt: '150ms' } });
    one.a.next({ fault: 'silence' });
    expect(await one.asks()).toBe('b');
    expect(await one.a.requests[0]!.closed).toBe('left');
  });

  test('is given no more tries when the time for the whole request is up', async () => {
    await using one = await rig({ timeouts: { total: '100ms' }, retry: { attempts: 9 } });
    for (const name of ['a', 'b', 'c'] as const) one[name].always({ fault: 'silence' });
    expect(await one.asks()).toBe('504');
    expect([one.a, one.b, one.c].map(({ requests }) => requests.length)).toEqual([1, 0, 0]);
  });
});

describe('a hedge', () => {
  test('is sent when the first is slow: who answers first wins, and the other is left', async () => {
    await using one = await rig({ hedge: { after: '30ms' } });
    one.a.next({ fault: 'silence' });
    expect(await one.asks()).toBe('b');
    expect(await one.a.requests[0]!.closed).toBe('left');
    expect(await one.metric('wardgate_hedges_total', { outcome: 'won' })).toBe(1);
    expect(one.c.requests).toHaveLength(0);
  });

  test('is left when the first is faster after all, and says nothing against its target', async () => {
    await using one = await rig({ hedge: { after: '1ms' }, breaker: { failures: 1 } });
    const gate = new Gate();
    one.a.next({ ...says('a'), after: gate });
    one.b.next({ fault: 'silence' });
    const answer = one.asks();
    await one.b.arrived();
    gate.open();
    expect(await answer).toBe('a');
    expect(await one.b.requests[0]!.closed).toBe('left');
    await expect.poll(() => one.metric('wardgate_hedges_total', { outcome: 'lost' })).toBe(1);
    expect(await one.metric('wardgate_target_state', { provider: 'b' })).toBe(0);
  });

  test('that fails leaves the first its time', async () => {
    await using one = await rig({ hedge: { after: '1ms' } });
    const gate = new Gate();
    one.a.next({ ...says('a'), after: gate });
    one.b.next(FAILING);
    const answer = one.asks();
    await one.b.arrived();
    await expect.poll(() => one.metric('wardgate_hedges_total', { outcome: 'failed' })).toBe(1);
    gate.open();
    expect(await answer).toBe('a');
  });

  test('that begins together with the first is counted once, and one of the two is passed on', async () => {
    await using one = await rig({ hedge: { after: '1ms' }, retry: { budget: { perSecond: 1_000 } } });
    const say = (name: string) => ({ stream: { events: textStream(name) } });
    for (let i = 0; i < 20; i += 1) {
      const gate = new Gate();
      one.a.next({ ...say('from a'), after: gate });
      one.b.next({ ...say('from b'), after: gate });
      const said = one.streams();
      await Promise.all([one.a.arrived(i), one.b.arrived(i)]);
      gate.open();
      expect(['from a', 'from b']).toContain(await said);
    }
    await expect
      .poll(async () => {
        const counts = ['won', 'lost', 'failed'].map((outcome) => one.metric('wardgate_hedges_total', { outcome }));
        return (await Promise.all(counts)).reduce<number>((sum, value) => sum + (value ?? 0), 0);
      })
      .toBe(20);
  });

  test('of a stream is one stream to the client', async () => {
    await using one = await rig({ hedge: { after: '1ms' } });
    const gate = new Gate();
    one.a.next({ ...streams('from a'), after: gate });
    one.b.next(streams('from b'));
    expect(await one.streams()).toBe('from b');
    gate.open();
  });
});

test('S3-22: a prompt that is too long for a model goes to the one for such', async () => {
  const fallbacks = { contextWindow: [{ provider: 'c', model: 'm-long' }] };
  await using one = await rig({ fallbacks });
  await one.gateway.reload(one.config({ targets: [{ provider: 'a' }, { provider: 'b' }] }));
  one.a.next({ whole: errorBody('too long', { code: 'context_length_exceeded' }), status: 400 });
  expect(await one.asks()).toBe('c');
  expect(one.c.requests[0]!.json().model).toBe('m-long');
  expect(one.b.requests).toHaveLength(0);
});

test('S4-20: a wrong key is moved on from where the config says so, and only there', async () => {
  const codes = [400, 401, 403, 404, 429, 500, 502, 503, 504];
  await using one = await rig({ retry: { attempts: 2, on: codes } });
  one.a.always({ whole: errorBody('bad key'), status: 401 });
  expect(await one.asks()).toBe('b');
  await one.gateway.reload(one.config({ retry: {} }));
  const error = await errorOf(await ask(one.gateway, prompt('x', { model: 'best' })));
  expect(error).toMatchObject({ status: 502, code: 'upstream_refused_key' });
});

test('models that share a target share what is known of it', async () => {
  await using one = await rig();
  const targets = (...names: string[]) => ({ targets: names.map((provider) => ({ provider, model: 'same' })) });
  const models = { one: targets('a', 'b'), two: targets('a', 'c') };
  await one.gateway.reload({ ...one.config(), models });
  one.a.next({ ...limited(60), whole: errorBody('x') });
  const said = async (model: string) => contentOf(await ask(one.gateway, prompt('x', { model })));
  expect([await said('one'), await said('two')]).toEqual(['b', 'c']);
  expect(one.a.requests).toHaveLength(1);
});

test('what targets say of themselves is not left out of whole answers: usage is the winner’s', async () => {
  await using one = await rig();
  one.a.next(FAILING);
  one.b.next({ whole: completion('b', { usage: usageOf(7, 9) }) });
  expect(await one.asks()).toBe('b');
  await soon(() =>
    one.gateway.logged.some(({ inputTokens, outputTokens }) => inputTokens === 7 && outputTokens === 9),
  ).toBe(true);
});
