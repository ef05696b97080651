/** What authorizers are asked and shown, and the tool calls that they keep from a client. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Action, AuthorizeInput, Plugin } from '../../../proto/contract.ts';
import {
  completion,
  deltaStream,
  type ToolCallSpec,
  toolCallCompletion,
  toolCallStream,
} from '../../support/chunks.ts';
import { send } from '../../support/client.ts';
import { configFor, startGateway, testPlugin } from '../../support/gateway.ts';
import type { Script } from '../../support/script.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { readSse } from '../../support/sse.ts';
import { ask, contentOf, errorOf, prompt, says, soon } from '../chat.ts';

interface Policy {
  describes?: { actions?: Action[]; body?: number };
  mount?: object;
  decide?: (name: string) => boolean;
  authorize?: Plugin['authorize'];
}

/** A gateway with one authorizer that writes down what it is asked. */
async function rig({ describes, mount, decide = () => true, authorize }: Policy) {
  const asked: AuthorizeInput[] = [];
  const upstream = await startScriptedUpstream();
  const plugin: Partial<Plugin> = {
    describe: () => ({ contract: 1, name: 'rules', version: '1', hooks: ['authorize'], rewrites: false, ...describes }),
    async authorize(input) {
      asked.push(input);
      return authorize ? authorize(input) : { allow: { decisions: input.resources.map(({ name }) => decide(name)) } };
    },
  };
  const config = configFor(upstream.url, {
    plugins: { rules: { at: 'local:rules', ...mount } },
    models: { a: 'up', b: 'up', '*': 'up' },
  });
  const gateway = await startGateway(config, { factories: [testPlugin('rules', plugin)], log: 'info' });
  return {
    asked,
    upstream,
    gateway,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

describe('the body', () => {
  const body = JSON.stringify(prompt('Grüße 🙂 an alle'));

  test('is shown to nobody who does not ask for it', async () => {
    await using on = await rig({});
    on.upstream.always(says());
    await (await ask(on.gateway, body)).text();
    expect(on.asked[0]!.request).not.toHaveProperty('body');
    expect(on.asked[0]!.request).not.toHaveProperty('bodySize');
  });

  test('is shown to a plugin that asks for it, with its size', async () => {
    await using on = await rig({ describes: { body: 1024 } });
    on.upstream.always(says());
    await (await ask(on.gateway, body)).text();
    expect(on.asked[0]!.request).toMatchObject({ body, bodySize: Buffer.byteLength(body) });
  });

  test('is cut between characters at the size that the mount sets', async () => {
    for (const size of Array.from({ length: Buffer.byteLength(body) + 2 }, (_, i) => i + 1)) {
      const shown = new TextDecoder().decode(Buffer.from(body).subarray(0, size), { stream: true });
      await using on = await rig({ describes: { body: 2048 }, mount: { body: size } });
      on.upstream.always(says());
      await (await ask(on.gateway, body)).text();
      expect(on.asked[0]!.request.body).toBe(shown.replaceAll('�', ''));
      expect(on.asked[0]!.request.bodySize).toBe(Buffer.byteLength(body));
    }
  }, 30_000);

  test('is not there for a list of models', async () => {
    await using on = await rig({ describes: { body: 1024 } });
    expect((await send(`${on.gateway.url}/v1/models`)).status).toBe(200);
    expect(on.asked[0]).toMatchObject({ action: 'model.list' });
    expect(on.asked[0]!.request).not.toHaveProperty('body');
  });
});

describe('the actions', () => {
  test('are model.use and model.list for a plugin that does not say', async () => {
    await using on = await rig({});
    on.upstream.always({ whole: toolCallCompletion([{ name: 'search', arguments: {} }]) });
    await (await ask(on.gateway)).text();
    await (await send(`${on.gateway.url}/v1/models`)).text();
    expect(on.asked.map(({ action }) => action)).toEqual(['model.use', 'model.list']);
  });

  test('are those that the plugin describes', async () => {
    await using on = await rig({ describes: { actions: ['model.list'] }, decide: () => false });
    on.upstream.always(says('free'));
    expect(await contentOf(await ask(on.gateway))).toBe('free');
    expect((await (await send(`${on.gateway.url}/v1/models`)).json<{ data: [] }>()).data).toEqual([]);
  });

  test('are those that the mount names, whatever the plugin describes', async () => {
    await using on = await rig({ describes: { actions: ['model.use'] }, mount: { actions: ['tool.call'] } });
    on.upstream.always({ whole: toolCallCompletion([{ name: 'search', arguments: {} }]) });
    await (await ask(on.gateway)).text();
    expect(on.asked.map(({ action }) => action)).toEqual(['tool.call']);
  });
});

const TOOLS: Policy = { describes: { actions: ['tool.call'] }, decide: (name) => !name.includes('evil') };
const GOOD: ToolCallSpec = { name: 'search', arguments: { q: 'weather' } };
const EVIL: ToolCallSpec = { name: 'evil_delete', arguments: { path: 'top-secret-argument' } };

/** Not in a list as they should be; a client that looks for the first one finds it all the same. */
const ODD_CALLS: [string, Record<string, unknown>][] = [
  ['in an object', { tool_calls: { 0: { function: { name: 'evil', arguments: 'top-secret-argument' } } } }],
  ['in a list of lists', { tool_calls: [[{ function: { name: 'evil', arguments: 'top-secret-argument' } }]] }],
  ['as a text', { tool_calls: ['evil(top-secret-argument)'] }],
  ['in a list of the old form', { function_call: [{ name: 'evil', arguments: 'top-secret-argument' }] }],
];

function stream(calls: ToolCallSpec[], options = {}): Script {
  return { stream: { events: toolCallStream(calls, options) } };
}

test('a denial is one in the trace and in the metrics, however the plugin words it', async () => {
  await using on = await rig({ decide: () => false });
  expect(await errorOf(await ask(on.gateway))).toMatchObject({ status: 403, code: 'forbidden' });
  await soon(() => on.gateway.logged.find(({ msg }) => msg === 'request')).toMatchObject({
    trace: expect.stringMatching(/^rules\/authorize=reject;ms=[\d.]+;code=denied$/),
  });
});

test('the id of a decision stands in the trace, and one that is none is a fault', async () => {
  const allow =
    (decisionId: string): Plugin['authorize'] =>
    () => ({ allow: { decisions: [true], decisionId } });
  await using on = await rig({ authorize: allow('4ca636c1-55e4') });
  on.upstream.always(says());
  await (await ask(on.gateway)).text();
  await soon(() => on.gateway.logged.find(({ msg }) => msg === 'request')).toMatchObject({
    trace: expect.stringMatching(/^rules\/authorize=allow;ms=[\d.]+;decision=4ca636c1-55e4$/),
  });
  await using odd = await rig({ authorize: allow('a\nb') });
  expect((await ask(odd.gateway)).status).toBe(503);
});

describe('a tool call in a whole answer', () => {
  test('passes unchanged when it is allowed', async () => {
    await using on = await rig(TOOLS);
    const whole = JSON.stringify(toolCallCompletion([GOOD, { ...GOOD, name: 'lookup' }]));
    on.upstream.always({ whole });
    expect(await (await ask(on.gateway)).text()).toBe(whole);
    expect(on.asked).toHaveLength(1);
    expect(on.asked[0]).toMatchObject({
      action: 'tool.call',
      resources: [
        { type: 'tool', name: 'search' },
        { type: 'tool', name: 'lookup' },
      ],
    });
  });

  test.each<[string, object]>([
    ['that is refused', toolCallCompletion([GOOD, EVIL])],
    [
      'in a second choice',
      { ...completion(['a', 'b']), choices: [...choicesOf(completion('a')), ...choicesOf(toolCallCompletion([EVIL]))] },
    ],
    ['in the old form', messageWith({ function_call: { name: 'evil_delete', arguments: 'top-secret-argument' } })],
    [
      'of a custom tool',
      messageWith({
        tool_calls: [{ id: '1', type: 'custom', custom: { name: 'evil', input: 'top-secret-argument' } }],
      }),
    ],
    [
      'hidden behind another form',
      messageWith({
        tool_calls: [{ function: { name: 'ok' }, custom: { name: 'evil', input: 'top-secret-argument' } }],
      }),
    ],
    ['without a name', messageWith({ tool_calls: [{ function: { arguments: 'top-secret-argument' } }] })],
    [
      'of a kind that nobody knows',
      messageWith({ tool_calls: [{ type: 'mcp', mcp: { tool: 'top-secret-argument' } }] }),
    ],
    [
      'whose name is no text',
      messageWith({ tool_calls: [{ function: { name: ['search'], arguments: 'top-secret-argument' } }] }),
    ],
    ...ODD_CALLS.map(([how, fields]): [string, object] => [how, messageWith(fields)]),
  ])('%s keeps the whole answer back', async (_what, whole) => {
    await using on = await rig(TOOLS);
    on.upstream.always({ whole });
    const response = await ask(on.gateway);
    const text = await response.text();
    expect(response.status).toBe(403);
    expect(JSON.parse(text)).toMatchObject({ error: { code: 'tool_not_allowed', type: 'permission_error' } });
    expect(text).not.toContain('top-secret-argument');
  });

  test('and whatever else it says is kept back when its choices are no list', async () => {
    await using on = await rig(TOOLS);
    on.upstream.always({ whole: { ...messageWith({}), choices: { 0: choicesOf(toolCallCompletion([EVIL]))[0] } } });
    expect(await errorOf(await ask(on.gateway))).toMatchObject({ status: 502, code: 'upstream_bad_answer' });
  });

  test('is named in the message, as long as the name looks like one', async () => {
    await using on = await rig(TOOLS);
    on.upstream.next(
      { whole: toolCallCompletion([EVIL]) },
      { whole: toolCallCompletion([{ ...EVIL, name: 'evil <b>' }]) },
    );
    expect((await errorOf(await ask(on.gateway))).message).toContain('“evil_delete”');
    expect((await errorOf(await ask(on.gateway))).message).not.toContain('<b>');
  });

  test('is kept back when the authorizer fails', async () => {
    await using on = await rig({ ...TOOLS, authorize: () => Promise.reject(new Error('boom')) });
    on.upstream.always({ whole: toolCallCompletion([GOOD]) });
    expect(await errorOf(await ask(on.gateway))).toMatchObject({ status: 503, code: 'guard_unavailable' });
  });
});

describe('a tool call in a stream', () => {
  test('passes byte for byte when it is allowed, and each name is asked about once', async () => {
    await using on = await rig(TOOLS);
    const calls = [GOOD, { ...GOOD, name: 'lookup' }];
    on.upstream.always(stream(calls, { size: 3 }));
    const passed = await (await ask(on.gateway, prompt('x', { stream: true }))).text();
    const direct = await (
      await send(`${on.upstream.url}/v1/chat/completions`, { body: prompt('x', { stream: true }) })
    ).text();
    expect(passed).toBe(direct);
    expect(on.asked.flatMap(({ resources }) => resources.map(({ name }) => name))).toEqual(['search', 'lookup']);
  });

  test('that is refused never shows a byte of its arguments, nor its name, and ends with an error event', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.shuffledSubarray([GOOD, EVIL, { ...GOOD, name: 'lookup' }], { minLength: 1 }),
        fc.record({ size: fc.integer({ min: 1, max: 40 }), interleaved: fc.boolean() }),
        fc.constantFrom('byte', 'event', 'whole'),
        async (calls, options, chunking) => {
          await using on = await rig(TOOLS);
          const events = toolCallStream(calls, options);
          on.upstream.always({ stream: { events, chunking } } as Script);
          const received = await (await ask(on.gateway, prompt('x', { stream: true }))).text();
          const isRefused = calls.includes(EVIL);
          expect(received.includes('top-secret')).toBe(false);
          expect(received.includes('tool_not_allowed')).toBe(isRefused);
          expect(received.includes('[DONE]')).toBe(!isRefused);
        },
      ),
      { numRuns: 40 },
    );
  }, 60_000);

  test.each<[string, Record<string, unknown>[]]>([
    [
      'in pieces',
      [
        call({ name: 'ev', arguments: '' }),
        call({ name: 'il_delete', arguments: '' }),
        call({ arguments: 'top-secret' }),
      ],
    ],
    [
      'in pieces without an index',
      [
        { tool_calls: [{ id: 'a', function: { name: 'ev', arguments: '' } }] },
        { tool_calls: [{ function: { name: 'il_delete', arguments: 'top-secret' } }] },
      ],
    ],
    ['after the arguments', [call({ arguments: 'top-secret' }), call({ name: 'search' })]],
    [
      'beside another form',
      [{ tool_calls: [{ index: 0, function: { name: 'ok' }, custom: { name: 'evil', input: 'top-secret' } }] }],
    ],
    ['in the old form', [{ function_call: { name: 'evil', arguments: 'top-secret' } }]],
    ...ODD_CALLS.map(([how, fields]): [string, Record<string, unknown>[]] => [how, [fields]]),
    ['in the arguments’ event', [call({ name: 'evil', arguments: 'top-secret' })]],
    [
      'as a second call of the same index',
      [call({ name: 'search', arguments: '{}' }), call({ name: 'evil', arguments: 'top-secret' })],
    ],
  ])('with its name %s is stopped', async (_how, deltas) => {
    await using on = await rig(TOOLS);
    on.upstream.always({ stream: { events: deltaStream([deltas], { finish: 'tool_calls' }) } });
    const received = await (await ask(on.gateway, prompt('x', { stream: true }))).text();
    expect(received).toContain('tool_not_allowed');
    expect(received).not.toContain('top-secret');
    expect(received).not.toContain('[DONE]');
    await soon(() => on.gateway.logged.find(({ msg }) => msg === 'request')).toMatchObject({
      outcome: 'rejected',
      code: 'tool_not_allowed',
    });
  });

  test.each<[string, Record<string, unknown>[]]>([
    [
      'repeats its name with every piece',
      [call({ name: 'search', arguments: '{' }), call({ name: 'search', arguments: '}' })],
    ],
    [
      'begins with a piece that says nothing',
      [
        { tool_calls: [{ index: 0, id: 'c', type: 'function', function: { arguments: '' } }] },
        call({ name: 'search', arguments: '{}' }),
      ],
    ],
    [
      'stands without an index beside another',
      [
        { tool_calls: [{ id: 'a', function: { name: 'search', arguments: '{}' } }] },
        { tool_calls: [{ id: 'b', function: { name: 'lookup', arguments: '{' } }] },
        { tool_calls: [{ function: { arguments: '}' } }] },
      ],
    ],
    [
      'has more to say than the dialect knows',
      [{ tool_calls: [{ index: 0, extra_content: { google: {} }, function: { name: 'search', arguments: '{}' } }] }],
    ],
  ])('that %s passes', async (_how, deltas) => {
    await using on = await rig({ ...TOOLS, decide: (name) => ['search', 'lookup'].includes(name) });
    on.upstream.always({ stream: { events: deltaStream([deltas], { finish: 'tool_calls' }) } });
    expect(await readSse(await ask(on.gateway, prompt('x', { stream: true })))).toMatchObject({ done: true });
  });

  test('whose choices are no list is stopped', async () => {
    await using on = await rig(TOOLS);
    const event = toolCallStream([EVIL])[0];
    on.upstream.always({
      stream: { events: [{ ...event, choices: { 0: { index: 0, delta: call(EVIL) } } }] },
    } as Script);
    const received = await (await ask(on.gateway, prompt('x', { stream: true }))).text();
    expect(received).toContain('upstream_bad_answer');
    expect(received).not.toContain('top-secret');
  });

  test('closes the upstream when it is refused', async () => {
    await using on = await rig(TOOLS);
    on.upstream.always({ stream: { events: toolCallStream([EVIL]), end: 'open' } });
    await (await ask(on.gateway, prompt('x', { stream: true }))).text();
    await soon(() => (on.upstream as ScriptedUpstream).openConnections).toBe(0);
  });

  test('that an authorizer is slow about comes late, and what comes meanwhile waits', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const slow: Plugin['authorize'] = async ({ resources }) => {
      await promise;
      return { allow: { decisions: resources.map(() => true) } };
    };
    await using on = await rig({ ...TOOLS, authorize: slow });
    on.upstream.always(stream([GOOD], { size: 2 }));
    const response = ask(on.gateway, prompt('x', { stream: true }));
    await soon(() => on.asked.length).toBe(1);
    resolve();
    expect(await readSse(await response)).toMatchObject({ done: true });
    expect(on.asked).toHaveLength(1);
  });
});

function call(fn: object): Record<string, unknown> {
  return { tool_calls: [{ index: 0, function: fn }] };
}

function messageWith(fields: object): object {
  const whole = completion('');
  return {
    ...whole,
    choices: [{ index: 0, message: { role: 'assistant', content: null, ...fields }, finish_reason: 'tool_calls' }],
  };
}

function choicesOf(whole: Record<string, unknown>): object[] {
  return whole.choices as object[];
}
