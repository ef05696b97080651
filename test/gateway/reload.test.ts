/** A reload puts a new config beside the old one: what runs goes on as it began, what did not change is kept. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { servePlugin } from '../../plugins/serve.ts';
import type { PluginFactory } from '../../proto/contract.ts';
import { textStream } from '../support/chunks.ts';
import { send } from '../support/client.ts';
import { Gate } from '../support/gate.ts';
import { configFor, startGateway, testPlugin } from '../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { readSse, SseStream } from '../support/sse.ts';
import { ask, contentOf, prompt, says, soon } from './chat.ts';

/** Replaces `X` by the label that its config gives, and counts how many of it are open. */
function labeller(): PluginFactory & { open: number; made: number } {
  const factory = {
    name: 'labeller',
    open: 0,
    made: 0,
    create(config: unknown) {
      const { label } = config as { label: string };
      factory.open += 1;
      factory.made += 1;
      let isClosed = false;
      const replace = (text: string) => {
        if (isClosed) throw new Error('asked after it was closed');
        return text.replaceAll('X', label);
      };
      return {
        describe: () => ({
          contract: 1 as const,
          name: 'labeller',
          version: '1',
          hooks: ['response' as const, 'stream' as const],
          rewrites: true,
        }),
        response: ({ segments }: { segments: { id: string; text: string }[] }) => ({
          rewrite: { segments: segments.map(({ id, text }) => ({ id, text: replace(text) })) },
        }),
        stream: ({ text }: { text: string }) => ({ release: { release: replace(text), hold: '' } }),
        close() {
          isClosed = true;
          factory.open -= 1;
        },
      };
    },
  };
  return factory as never;
}

const labelled = (upstream: ScriptedUpstream, label: string, more: object = {}) =>
  configFor(upstream.url, { plugins: { labeller: { at: 'local:labeller', config: { label } } }, ...more });

test('a request finishes on the config that it began with, the next one has the new one', async () => {
  const factory = labeller();
  await using upstream = await startScriptedUpstream();
  const gate = new Gate();
  const chunks = textStream('X1 X2 X3', { size: 3 });
  upstream.next(
    { stream: { events: [...chunks.slice(0, 2), gate, ...chunks.slice(2)] } },
    { ...says('X'), after: gate },
    says('X'),
  );
  await using gateway = await startGateway(labelled(upstream, 'old'), { factories: [factory] });
  const stream = new SseStream(await ask(gateway, prompt('x', { stream: true })));
  await stream.until(({ content }) => content[0] !== undefined && content[0] !== '');
  const whole = ask(gateway);
  await upstream.arrived(1);
  expect(await gateway.reload(labelled(upstream, 'new'))).toBe(true);
  expect(await contentOf(await ask(gateway))).toBe('new');
  expect(factory.open).toBe(2);
  gate.open();
  expect((await stream.rest()).content).toEqual(['old1 old2 old3']);
  expect(await contentOf(await whole)).toBe('old');
  await soon(() => factory.open).toBe(1);
});

test('the end of one old config closes nothing that another old one still uses', async () => {
  const factory = labeller();
  await using upstream = await startScriptedUpstream();
  const gates = [new Gate(), new Gate()];
  const chunks = textStream('X1 X2', { size: 3 });
  for (const gate of gates) upstream.next({ stream: { events: [...chunks.slice(0, 2), gate, ...chunks.slice(2)] } });
  await using gateway = await startGateway(labelled(upstream, 'first'), { factories: [factory] });
  const first = new SseStream(await ask(gateway, prompt('x', { stream: true })));
  await first.until(({ content }) => content[0] === 'first1 ');
  await gateway.reload(labelled(upstream, 'second'));
  const second = new SseStream(await ask(gateway, prompt('x', { stream: true })));
  await second.until(({ content }) => content[0] === 'second1 ');
  await gateway.reload(labelled(upstream, 'third'));
  expect(factory.open).toBe(3);
  gates[0]!.open();
  expect((await first.rest()).content).toEqual(['first1 first2']);
  await soon(() => factory.open).toBe(2);
  gates[1]!.open();
  expect(await second.rest()).toMatchObject({ content: ['second1 second2'], done: true, errors: [] });
  await soon(() => factory.open).toBe(1);
});

test('50 reloads as fast as they go under 200 open streams: none is cut, none mixes two configs, nothing is left over', async () => {
  const STREAMS = 200;
  const RELOADS = 50;
  const factory = labeller();
  const tick = Array.from({ length: RELOADS + 1 }, () => new Gate());
  const chunks = textStream('X'.repeat(RELOADS), { size: 1 });
  await using upstream = await startScriptedUpstream();
  // Each stream says one X between two reloads, so each is open through all that follow its start.
  const [role, ...rest] = chunks;
  const events = [role!, ...rest.flatMap((chunk, i) => (i < RELOADS ? [tick[i]!, chunk] : [chunk]))];
  upstream.always({ stream: { events } });
  await using gateway = await startGateway(labelled(upstream, 'a'), { factories: [factory] });
  const all: Promise<{ content: string[]; done: boolean; errors: unknown[]; cut: Error | undefined }>[] = [];
  for (let round = 0; round < RELOADS; round += 1) {
    // Some more begin under each config, until there are 200.
    if (all.length < STREAMS) {
      const begun = Array.from({ length: 8 }, () => ask(gateway, prompt('x', { stream: true })));
      for (const response of await Promise.all(begun)) all.push(readSse(response));
    }
    tick[round]!.open();
    // One character that no other config has.
    const label = String.fromCharCode(0x4e00 + round);
    expect(await gateway.reload(labelled(upstream, label))).toBe(true);
  }
  tick[RELOADS]!.open();
  const said = await Promise.all(all);
  expect(said).toHaveLength(STREAMS);
  const broken = said.filter(({ done, errors, cut }) => !done || errors.length > 0 || cut !== undefined);
  expect(broken).toEqual([]);
  const labels = said.map(({ content }) => [...new Set(content[0])].join(''));
  expect(labels.filter((label) => label.length !== 1)).toEqual([]);
  expect(said.every(({ content }) => content[0]!.length === RELOADS)).toBe(true);
  expect(new Set(labels).size).toBeGreaterThan(20);
  // One plugin for each config, all but the last one closed; the pool of connections is the same.
  await soon(() => [factory.made, factory.open]).toEqual([RELOADS + 1, 1]);
  expect(upstream.connectionsAccepted).toBe(STREAMS);
  await gateway.stop();
  expect(factory.open).toBe(0);
});

describe('a bad config', () => {
  test('changes nothing, and is told in the log and a metric', async () => {
    const factory = labeller();
    await using upstream = await startScriptedUpstream();
    upstream.always(says('X'));
    await using gateway = await startGateway(labelled(upstream, 'old'), {
      factories: [factory],
      log: 'info',
      metrics: true,
    });
    expect(await gateway.reload({ ...labelled(upstream, 'new'), colour: 'blue' })).toBe(false);
    expect(await gateway.reload('providers: [')).toBe(false);
    expect(await gateway.reload(labelled(upstream, 'new', { plugins: { labeller: { at: 'local:nobody' } } }))).toBe(
      false,
    );
    expect(await contentOf(await ask(gateway))).toBe('old');
    const told = gateway.logged.filter(({ msg }) => String(msg).startsWith('config not reloaded'));
    expect(told.map(({ problems }) => String(problems))).toEqual([
      expect.stringContaining('colour: is not a key of the config'),
      expect.stringMatching(/^line \d+: /),
      expect.stringContaining('there is no plugin `nobody`'),
    ]);
    expect(await gateway.reload(labelled(upstream, 'new'))).toBe(true);
    expect(await contentOf(await ask(gateway))).toBe('new');
    const metrics = await (await send(`${gateway.metricsUrl}/metrics`)).text();
    expect(metrics).toContain('wardgate_config_reloads_total{result="failure"} 3');
    expect(metrics).toContain('wardgate_config_reloads_total{result="success"} 1');
  });

  test('leaves no plugin open that was made before the problem was found', async () => {
    const factory = labeller();
    await using upstream = await startScriptedUpstream();
    await using gateway = await startGateway(labelled(upstream, 'old'), { factories: [factory] });
    const plugins = { labeller: { at: 'local:labeller', config: { label: 'new' } }, bad: { at: 'local:nobody' } };
    for (let i = 0; i < 3; i += 1) expect(await gateway.reload(configFor(upstream.url, { plugins }))).toBe(false);
    await soon(() => factory.open).toBe(1);
  });
});

describe('what did not change is kept', () => {
  const limited = (upstream: ScriptedUpstream, burst: number, more: object = {}) =>
    configFor(upstream.url, {
      plugins: { limit: { at: 'local:local-limit', config: { limits: [{ requestsPerMinute: 1, burst }] } } },
      ...more,
    });

  test('a limiter’s counts survive a reload that changes something else', async () => {
    await using upstream = await startScriptedUpstream();
    upstream.always(says());
    await using gateway = await startGateway(limited(upstream, 2));
    expect((await ask(gateway)).status).toBe(200);
    expect(await gateway.reload(limited(upstream, 2, { route: { cors: true } }))).toBe(true);
    const second = await ask(gateway);
    expect([
      second.status,
      second.header('x-ratelimit-remaining'),
      second.header('access-control-allow-origin'),
    ]).toEqual([200, '0', '*']);
    expect(await gateway.reload()).toBe(true);
    expect((await ask(gateway)).status).toBe(429);
  });

  test('also when only the policy of asking it changes; a new config of its own is a new plugin', async () => {
    await using upstream = await startScriptedUpstream();
    upstream.always(says());
    await using gateway = await startGateway(limited(upstream, 1));
    expect((await ask(gateway)).status).toBe(200);
    const config = limited(upstream, 1) as { plugins: { limit: object } };
    config.plugins.limit = { ...config.plugins.limit, deadline: '9s', rejection: { status: 418 } };
    expect(await gateway.reload(config)).toBe(true);
    expect((await ask(gateway)).status).toBe(418);
    expect(await gateway.reload(limited(upstream, 2))).toBe(true);
    expect((await ask(gateway)).status).toBe(200);
  });

  test('a plugin that leaves the config is closed once nobody uses it', async () => {
    const factory = labeller();
    await using upstream = await startScriptedUpstream();
    upstream.always(says('X'));
    await using gateway = await startGateway(labelled(upstream, 'a'), { factories: [factory] });
    expect(await gateway.reload(configFor(upstream.url))).toBe(true);
    await soon(() => factory.open).toBe(0);
    expect(await contentOf(await ask(gateway))).toBe('X');
  });
});

test('an old config is forgotten, also by the connections that the new one has kept', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const service = await servePlugin(labeller(), { grpc: '127.0.0.1:0', config: { label: 'a' } });
  await using upstream = await startScriptedUpstream();
  const plugins = { labeller: { at: service.grpcUrl } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }));
  const before = new WeakRef(gateway.gateway.snapshot);
  expect(await gateway.reload(configFor(upstream.url, { plugins, models: { a: 'up' } }))).toBe(true);
  // What a WeakRef has shown stays until the end of the turn.
  await soon(() => {
    collect();
    return before.deref() === undefined;
  }).toBe(true);
  await gateway.stop();
  await service.close();
});

test('routes, models and providers may come and go', async () => {
  await using first = await startScriptedUpstream();
  await using second = await startScriptedUpstream();
  first.always(says('first'));
  second.always(says('second'));
  await using gateway = await startGateway(configFor(first.url));
  expect(await contentOf(await ask(gateway))).toBe('first');
  const config = configFor(second.url, { models: { other: 'up' } });
  config.routes = { '/new': {} };
  expect(await gateway.reload(config)).toBe(true);
  expect((await ask(gateway)).status).toBe(404);
  expect(await contentOf(await ask(gateway, prompt('x', { model: 'other' }), { route: '/new' }))).toBe('second');
});

test('what only a new start can change is told', async () => {
  await using upstream = await startScriptedUpstream();
  await using gateway = await startGateway(configFor(upstream.url), { log: 'warn' });
  const settings = { listen: '127.0.0.1:1', metrics: '127.0.0.1:2', limits: { bodyTime: '7s', depth: 9 } };
  expect(await gateway.reload(configFor(upstream.url, settings))).toBe(true);
  expect(await gateway.reload()).toBe(true);
  expect(gateway.logged).toMatchObject([
    { keys: ['listen', 'metrics', 'limits.bodyTime'], msg: 'these settings change with the next start' },
  ]);
});

test('a request that began before a reload is recorded by the config that it began with', async () => {
  await using upstream = await startScriptedUpstream();
  const gate = new Gate();
  upstream.next({ ...says(), after: gate });
  const priced = (price: number) =>
    configFor(upstream.url, { prices: { 'test-model': { input: price, output: price } } });
  const seen: unknown[] = [];
  const witness = testPlugin('witness', { observe: ({ costUsd }) => void seen.push(costUsd) as undefined });
  const withWitness = (price: number) => {
    const config = priced(price);
    return { ...config, plugins: { witness: { at: 'local:witness' } }, routes: { '/': { plugins: ['witness'] } } };
  };
  await using gateway = await startGateway(withWitness(100_000), { factories: [witness] });
  const answer = ask(gateway);
  await upstream.arrived();
  expect(await gateway.reload(withWitness(200_000))).toBe(true);
  gate.open();
  await (await answer).text();
  await soon(() => seen).toEqual([1]);
});
