/** A stream guard that fails has not said yes: every fault, before the stream has begun and in the middle of it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { PluginFactory, StreamInput } from '../../../proto/contract.ts';
import { choice, chunk } from '../../support/chunks.ts';
import { Gate } from '../../support/gate.ts';
import { startGateway, type TestGateway, testPlugin } from '../../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { readSse } from '../../support/sse.ts';
import { wordGuard } from './asked-guard.ts';
import { askStream, dataOf, openStream } from './chat.ts';

const TEXT = 'Something that is said.';

/** What a guard may do wrong with a window. */
const FAULTS: Record<string, (input: StreamInput) => unknown> = {
  throws: () => {
    throw new Error(`boom ${TEXT}`);
  },
  'rejects its promise': () => Promise.reject(new Error('boom')),
  'answers late': () => new Promise(() => {}),
  'answers nothing': () => undefined,
  'answers an empty object': () => ({}),
  'answers two verdicts': (input) => ({
    release: { release: input.text, hold: '' },
    reject: { code: 'x', message: 'y' },
  }),
  'allows, which a stream guard cannot': () => ({ allow: {} }),
  'releases without a hold': (input) => ({ release: { release: input.text } }),
  'releases a number': () => ({ release: { release: 5, hold: '' } }),
  'holds what was not given': () => ({ release: { release: '', hold: 'made up' } }),
  'holds from the middle': (input) => ({ release: { release: '', hold: input.text.slice(0, -1) } }),
  'holds at the end': (input) => ({ release: { release: '', hold: input.text } }),
  'rejects without a reason': () => ({ reject: {} }),
};
const names = Object.keys(FAULTS);
const routeOf = (name: string) => `/${name.replace(/\W+/g, '-')}`;

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  const factories: PluginFactory[] = names.map((name) =>
    testPlugin(routeOf(name).slice(1), { stream: FAULTS[name] as never }),
  );
  factories.push(
    testPlugin('hoarder', {
      stream: ({ text, last }) => ({ release: last ? { release: text, hold: '' } : { release: '', hold: text } }),
    }),
    wordGuard('masker', 'that'),
    wordGuard('rejecter', 'that', 'reject'),
  );
  const plugins: Record<string, object> = {};
  const routes: Record<string, object> = {};
  const mount = (name: string, policy: object) => {
    plugins[name] = { at: `local:${name.split('.')[0]}`, deadline: '20ms', ...policy };
    routes[`/${name}`] = { plugins: [name] };
  };
  for (const { name } of factories) {
    mount(name, { hold: { size: 8 } });
    mount(`${name}.allow`, { onFault: 'allow', hold: { size: 8 } });
    mount(`${name}.shadow`, { shadow: true, hold: { size: 8 } });
  }
  const providers = { up: { kind: 'openai-compatible', baseUrl: `${upstream.url}/v1` } };
  gateway = await startGateway({ providers, models: { '*': 'up' }, plugins, routes }, { factories, log: 'warn' });
});

afterAll(async () => {
  await gateway.stop();
  await upstream.close();
});

const FIRST = chunk([choice(0, { role: 'assistant', content: '' })]);
const SAID = chunk([choice(0, { content: TEXT })]);
const END = chunk([choice(0, {}, 'stop')]);

/** The text comes in the very first read, so nothing has been shown yet when the guard is asked. */
function atOnce(route: string) {
  upstream.next({ stream: { events: [FIRST, SAID, END], chunking: 'whole' } });
  return askStream(gateway, route);
}

/** The first event is with the client before the text comes. */
async function inTheMiddle(route: string) {
  const index = upstream.requests.length;
  const gate = new Gate();
  upstream.next({ stream: { events: [FIRST, gate, SAID, END] } });
  const stream = await openStream(gateway, route);
  expect((await stream.next())?.data).toBe(JSON.stringify(FIRST));
  gate.open();
  return { result: await stream.rest(), request: upstream.requests[index]! };
}

const UNAVAILABLE = { type: 'server_error', param: null, code: 'guard_unavailable' };

describe.each(names)('a guard that %s', (name) => {
  const route = routeOf(name);

  test('before the first event is a plain HTTP error', async () => {
    const response = await atOnce(route);
    expect(response.status).toBe(503);
    expect(response.header('content-type')).toBe('application/json');
    const body = await response.text();
    expect(JSON.parse(body)).toMatchObject({ error: UNAVAILABLE });
    expect(body).not.toContain('boom');
  });

  test('in the middle of a stream ends it with an error event', async () => {
    const { result } = await inTheMiddle(route);
    expect(result.errors).toMatchObject([UNAVAILABLE]);
    expect(Object.keys(result.errors[0] as object).sort()).toEqual(['code', 'message', 'param', 'type']);
    expect(dataOf(result).at(-1)).toBe(JSON.stringify({ error: result.errors[0] }));
    expect(result).toMatchObject({ content: [''], done: false, cut: undefined });
    expect(result.rawText).not.toContain('boom');
  });

  test('lets everything pass where the config says so', async () => {
    const { result } = await inTheMiddle(`${route}.allow`);
    expect(result).toMatchObject({ content: [TEXT], finish: ['stop'], done: true, errors: [] });
    expect((await atOnce(`${route}.allow`)).status).toBe(200);
  });

  test('in shadow changes nothing', async () => {
    const { result } = await inTheMiddle(`${route}.shadow`);
    expect(dataOf(result)).toEqual([...[FIRST, SAID, END].map((event) => JSON.stringify(event)), '[DONE]']);
  });
});

describe('a guard that holds more than its mount allows', () => {
  const upToLast = async (route: string) => {
    const gates = [new Gate(), new Gate()] as const;
    upstream.next({ stream: { events: [FIRST, gates[0], SAID, gates[1], END] } });
    const stream = await openStream(gateway, route);
    await stream.next();
    gates[0].open();
    return { last: gates[1], stream };
  };

  test('ends the stream with an error event', async () => {
    const { stream } = await upToLast('/hoarder');
    const result = await stream.rest();
    expect(result).toMatchObject({ content: [''], done: false });
    expect(result.errors).toMatchObject([{ code: 'guard_hold_exceeded', type: 'server_error', param: null }]);
  });

  test('lets the text go where the config says so', async () => {
    const { stream, last } = await upToLast('/hoarder.allow');
    await stream.until(({ content }) => content[0] === TEXT);
    last.open();
    expect(await stream.rest()).toMatchObject({ content: [TEXT], done: true });
  });

  test('in shadow holds nothing', async () => {
    const { stream, last } = await upToLast('/hoarder.shadow');
    await stream.until(({ content }) => content[0] === TEXT);
    last.open();
    expect(await stream.rest()).toMatchObject({ content: [TEXT], done: true });
  });
});

test.each(['/masker.shadow', '/rejecter.shadow'])('the verdict of %s is not obeyed', async (route) => {
  const { result } = await inTheMiddle(route);
  expect(result).toMatchObject({ content: [TEXT], finish: ['stop'], done: true, errors: [] });
});

test('a rejection is not a fault that may be allowed', async () => {
  const { result, request } = await inTheMiddle('/rejecter.allow');
  expect(result).toMatchObject({ content: [''], errors: [{ code: 'word_found' }], done: false });
  expect(['left', 'answered']).toContain(await request.closed);
  const response = await atOnce('/rejecter.allow');
  expect(response.status).toBe(403);
  expect(await readSse(response)).toMatchObject({ events: [] });
});

test('the log names the guard and the fault, never the text', async () => {
  await (await atOnce(routeOf('throws'))).text();
  expect(gateway.logged).toContainEqual(
    expect.objectContaining({ plugin: 'throws', hook: 'stream', msg: 'plugin fault' }),
  );
  expect(gateway.logText).not.toContain('Something');
});
