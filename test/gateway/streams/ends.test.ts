/** Who leaves, who is slow and who is silent: the ends of a stream seen from the client's side. */
import { expect, test } from 'vitest';
import type { ObserveInput } from '../../../proto/contract.ts';
import { type ChatChunk, choice, chunk, textStream, usageOf } from '../../support/chunks.ts';
import { Gate } from '../../support/gate.ts';
import { configFor, startGateway, testPlugin } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { SseStream } from '../../support/sse.ts';
import { AskedGuard } from './asked-guard.ts';
import { askAndLeave, askStream, openStream, readStream } from './chat.ts';

/** Is told how requests ended. */
class Observer {
  readonly told: ObserveInput[] = [];
  readonly #waiting: ((outcome: ObserveInput) => void)[] = [];
  readonly factory = testPlugin('observer', {
    observe: (input) => {
      this.told.push(input);
      this.#waiting.shift()?.(input);
      return undefined;
    },
  });

  next(): Promise<ObserveInput> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

async function start(plugins: Record<string, Record<string, unknown>> = {}, parts: Record<string, unknown> = {}) {
  const upstream = await startScriptedUpstream();
  const observer = new Observer();
  const guard = new AskedGuard('asked');
  const gateway = await startGateway(
    configFor(upstream.url, { plugins: { observer: { at: 'local:observer' }, ...plugins }, ...parts }),
    { factories: [observer.factory, guard.factory] },
  );
  return {
    upstream,
    observer,
    guard,
    gateway,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

const PII = { pii: { at: 'local:pii-guard', config: { rules: ['email'] } } };
const ASKED = { asked: { at: 'local:asked', deadline: '60s' } };
const says = (content: string) => chunk([choice(0, { content })]);
const END = chunk([choice(0, {}, 'stop')]);

test.each([
  ['without a guard', {}],
  ['with a guard', PII],
])(
  'a client that leaves in the middle ends the call upstream, and observers are told once (%s)',
  async (_name, plugins) => {
    await using setup = await start(plugins);
    const { upstream, observer, gateway } = setup;
    upstream.next({ stream: { events: [...textStream('Some words that are said. ').slice(0, -1)], end: 'open' } });
    const told = observer.next();
    const response = await askStream(gateway);
    const stream = new SseStream(response);
    await stream.until(({ content }) => (content[0] ?? '').endsWith('said. '));
    response.connection.destroy();
    expect(await (await upstream.arrived()).closed).toBe('left');
    const outcome = await told;
    expect(outcome).toMatchObject({ status: 200, outcome: 'aborted', streamed: true, upstreamModel: 'test-model' });
    expect(outcome.usage).toMatchObject({ estimated: true });
    expect(outcome.usage!.outputTokens).toBeGreaterThan(0);
    expect(outcome.usage!.inputTokens).toBeGreaterThan(0);
    await fetch(`${gateway.url}/v1/models`);
    expect(observer.told.filter(({ streamed }) => streamed)).toHaveLength(1);
  },
);

test('a client that leaves before the answer begins ends the call upstream', async () => {
  await using setup = await start();
  const { upstream, observer, gateway } = setup;
  upstream.next({ fault: 'silence' });
  const told = observer.next();
  const connection = await askAndLeave(gateway);
  const request = await upstream.arrived();
  connection.destroy();
  expect(await request.closed).toBe('left');
  expect(await told).toMatchObject({ status: 499, outcome: 'aborted' });
});

test('a client that leaves while a guard thinks ends the call upstream, and the guard is not asked again', async () => {
  await using setup = await start(ASKED);
  const { upstream, observer, guard, gateway } = setup;
  const gate = new Gate();
  upstream.next({ stream: { events: [says('a '), gate, says('b '), says('c ')], end: 'open' } });
  const told = observer.next();
  const connection = await askAndLeave(gateway);
  const first = await guard.next();
  gate.open();
  // More text waits for the guard by the time the client leaves.
  for (let turn = 0; turn < 3; turn += 1) await (await fetch(`${gateway.url}/healthz`)).text();
  connection.destroy();
  expect(await (await upstream.arrived()).closed).toBe('left');
  expect(await told).toMatchObject({ outcome: 'aborted' });
  first.release();
  for (let turn = 0; turn < 3; turn += 1) await (await fetch(`${gateway.url}/healthz`)).text();
  expect(guard.asked).toHaveLength(1);
  expect(observer.told).toHaveLength(1);
});

test('observers are told of a finished stream once, with the provider’s own usage', async () => {
  await using setup = await start(PII);
  const { upstream, observer, gateway } = setup;
  const usage = { ...usageOf(3, 4), prompt_tokens_details: { cached_tokens: 2 } };
  upstream.next({ stream: { events: textStream('Hello', { usage }) } });
  const told = observer.next();
  await readStream(gateway);
  expect(await told).toMatchObject({
    status: 200,
    outcome: 'finished',
    usage: { inputTokens: 3, outputTokens: 4, cachedInputTokens: 2 },
  });
  expect(observer.told).toHaveLength(1);
});

test('observers are told of a broken stream', async () => {
  await using setup = await start(PII);
  const { upstream, observer, gateway } = setup;
  upstream.next({ stream: { events: [says('Hello, '), says('you ')], end: 'cut' } });
  const told = observer.next();
  await readStream(gateway);
  expect(await told).toMatchObject({ outcome: 'failed', code: 'stream_broken', usage: { estimated: true } });
});

test.each([
  ['without a guard', {}],
  ['with a guard', PII],
])(
  'a slow reader slows the provider, and gets everything in the end (%s)',
  async (_name, plugins) => {
    // Waiting for the client is not the provider's silence: its timeout must not strike meanwhile.
    await using setup = await start(plugins, { provider: { timeouts: { idle: '300ms' } } });
    const { upstream, gateway } = setup;
    const text = 'word '.repeat(6_000);
    const total = 1_500;
    function* events(): Generator<ChatChunk> {
      for (let i = 0; i < total; i += 1) yield says(text);
      yield END;
    }
    upstream.next({ stream: { events: events() } });
    const response = await askStream(gateway);
    const request = await upstream.arrived();
    expect(await request.untilStuck(1_200)).toBeLessThan((total * text.length) / 2);
    let length = 0;
    let tail = '';
    for await (const piece of response.chunks) {
      length += piece.length;
      tail = (tail + piece.toString('latin1')).slice(-100);
    }
    expect(length).toBeGreaterThan(total * text.length);
    expect(tail).toMatch(/data: \[DONE\]\n\n$/);
    expect(await request.closed).toBe('answered');
  },
  30_000,
);

test('a slow reader that leaves ends the call upstream', async () => {
  await using setup = await start(PII);
  const { upstream, observer, gateway } = setup;
  const text = 'word '.repeat(6_000);
  function* events(): Generator<ChatChunk> {
    for (let i = 0; i < 1_500; i += 1) yield says(text);
  }
  upstream.next({ stream: { events: events() } });
  const told = observer.next();
  const response = await askStream(gateway);
  const request = await upstream.arrived();
  await request.untilStuck();
  response.connection.reset();
  expect(await request.closed).toBe('left');
  expect(await told).toMatchObject({ outcome: 'aborted' });
}, 30_000);

test.each([
  ['the provider', {}],
  ['a guard', ASKED],
])('a comment keeps a stream alive while %s is silent, and no client takes it for an event', async (_name, plugins) => {
  await using setup = await start(plugins, { heartbeat: '10ms' });
  const { upstream, guard, gateway } = setup;
  const gate = new Gate();
  const role = chunk([choice(0, { role: 'assistant', content: '' })]);
  upstream.next({ stream: { events: [role, gate, says('Hello'), END] } });
  const response = await askStream(gateway);
  const read = async () => {
    const { value, done } = await response.chunks.next();
    if (done) throw new Error('The stream ended without a comment.');
    return value.toString();
  };
  let text = await read();
  if (plugins === ASKED) gate.open();
  while (!text.includes(': ping\n\n')) text += await read();
  expect(text).toMatch(/^data: [^\n]+\n\n(?:: ping\n\n)+$/);
  gate.open();
  guard.isOpen = true;
  if (plugins === ASKED) for (const asked of guard.asked) asked.release();
  const result = await new SseStream(response).rest();
  expect(result).toMatchObject({ content: ['Hello'], finish: ['stop'], done: true });
});

test('a gateway that stops ends open streams with an error event', async () => {
  await using setup = await start(PII);
  const { upstream, gateway } = setup;
  upstream.next({ stream: { events: [says('Hello, '), says('jane@exa')], end: 'open' } });
  const stream = await openStream(gateway);
  await stream.until(({ content }) => content[0] === 'Hello, ');
  const stopped = gateway.stop();
  const result = await stream.rest();
  expect(result).toMatchObject({ content: ['Hello, '], errors: [{ code: 'draining' }], done: false, cut: undefined });
  expect(await (await upstream.arrived()).closed).toBe('left');
  await stopped;
});
