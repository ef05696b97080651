/** What guards of text can do to a prompt and to a whole answer, and how they are asked together. */
import { describe, expect, test } from 'vitest';
import type { Plugin, PluginFactory, Segment, SegmentsInput, TextVerdict } from '../../../proto/contract.ts';
import { completion, toolCallCompletion } from '../../support/chunks.ts';
import { send } from '../../support/client.ts';
import { Gate } from '../../support/gate.ts';
import { configFor, startGateway, testPlugin } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { ask, contentOf, errorOf, prompt, says, soon } from '../chat.ts';

/** Rewrites every segment that `change` changes. */
function rewriter(
  name: string,
  change: (text: string, segment: Segment) => string,
  ...hooks: ('request' | 'response')[]
) {
  const guard = ({ segments }: SegmentsInput): TextVerdict => {
    const changed = segments
      .map((segment) => ({ id: segment.id, text: change(segment.text, segment) }))
      .filter(({ text }, i) => text !== segments[i]!.text);
    return changed.length > 0 ? { rewrite: { segments: changed } } : { allow: {} };
  };
  return testPlugin(name, Object.fromEntries((hooks.length ? hooks : ['request']).map((hook) => [hook, guard])));
}

/** A gateway with these plugins mounted in order, each with what the test adds to its mount. */
async function guarded(factories: PluginFactory[], mounts: Record<string, object> = {}, more: object = {}) {
  const upstream = await startScriptedUpstream();
  const plugins = Object.fromEntries(factories.map(({ name }) => [name, { at: `local:${name}`, ...mounts[name] }]));
  const gateway = await startGateway(configFor(upstream.url, { plugins, ...more }), { factories, log: 'info' });
  return {
    upstream,
    gateway,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

describe('rewrite', () => {
  test('guards that rewrite are asked in order, each seeing what the one before made of it', async () => {
    const factories = [rewriter('a', (text) => `${text}a`), rewriter('b', (text) => `${text}b`)];
    await using rig = await guarded(factories);
    rig.upstream.next(says());
    expect((await ask(rig.gateway, prompt('x'))).status).toBe(200);
    expect(rig.upstream.requests[0]!.json()).toMatchObject({ messages: [{ role: 'user', content: 'xab' }] });
  });

  test('an answer is rewritten the same way, every choice of it', async () => {
    const factories = [rewriter('a', (text) => text.replaceAll('secret', '***'), 'response')];
    await using rig = await guarded(factories);
    rig.upstream.next({ whole: completion(['one secret', 'two', 'secret three']) });
    const { choices } = await (await ask(rig.gateway)).json<{ choices: { message: { content: string } }[] }>();
    expect(choices.map(({ message }) => message.content)).toEqual(['one ***', 'two', '*** three']);
  });

  test('every place of a prompt that a model reads is a segment, and can be rewritten', async () => {
    const seen: Segment[] = [];
    const upper = rewriter('upper', (text, segment) => {
      seen.push(segment);
      return segment.channel === 'media' ? text : `[${text}]`;
    });
    await using rig = await guarded([upper]);
    rig.upstream.next(says());
    const args = '{"city":"x"}';
    const body = {
      model: 'm',
      messages: [
        { role: 'system', content: 'sys' },
        { role: 'developer', content: [{ type: 'text', text: 'dev' }] },
        { role: 'user', content: 'old' },
        {
          role: 'assistant',
          content: null,
          reasoning_content: 'why',
          tool_calls: [{ id: 'c', type: 'custom', custom: { name: 'f', input: 'in' } }],
        },
        { role: 'tool', tool_call_id: 'c', content: 'result' },
        {
          role: 'user',
          name: 'jo',
          content: [
            { type: 'text', text: 'new' },
            { type: 'image_url', image_url: { url: 'https://x/y.png' } },
          ],
        },
      ],
      tools: [{ type: 'function', function: { name: 'f', description: 'desc', parameters: { type: 'object' } } }],
      later_field: 'kept',
    };
    expect(args).toBeDefined();
    expect((await ask(rig.gateway, body)).status).toBe(200);
    const sent = rig.upstream.requests[0]!.json<typeof body & { messages: Record<string, unknown>[] }>();
    expect(sent.messages).toEqual([
      { role: 'system', content: '[sys]' },
      { role: 'developer', content: [{ type: 'text', text: '[dev]' }] },
      { role: 'user', content: '[old]' },
      {
        role: 'assistant',
        content: null,
        reasoning_content: '[why]',
        tool_calls: [{ id: 'c', type: 'custom', custom: { name: 'f', input: '[in]' } }],
      },
      { role: 'tool', tool_call_id: 'c', content: '[result]' },
      {
        role: 'user',
        name: '[jo]',
        content: [
          { type: 'text', text: '[new]' },
          { type: 'image_url', image_url: { url: 'https://x/y.png' } },
        ],
      },
    ]);
    expect(sent.tools[0]!.function.description).toBe('[desc]');
    expect(sent.later_field).toBe('[kept]');
    const old = seen.filter((segment) => segment.old).map(({ text }) => text);
    expect(old).toEqual(['old', 'why', 'in', 'result']);
    expect(seen.find(({ text }) => text === 'result')).toMatchObject({ role: 'tool', channel: 'tool-result' });
    expect(seen.find(({ text }) => text === 'why')).toMatchObject({ role: 'assistant', channel: 'reasoning' });
    expect(seen.find(({ text }) => text === 'desc')).toMatchObject({ channel: 'tool-definition' });
  });

  test('rewritten tool arguments stay JSON: a mask in place of a number gets quotes', async () => {
    const mask = rewriter('mask', (text) => text.replace('4111111111111111', '<CARD>'), 'response');
    await using rig = await guarded([mask]);
    rig.upstream.next({ whole: toolCallCompletion([{ name: 'pay', arguments: '{"card":4111111111111111,"n":1}' }]) });
    const { choices } = await (await ask(rig.gateway)).json<{
      choices: { message: { tool_calls: { function: { arguments: string } }[] } }[];
    }>();
    expect(JSON.parse(choices[0]!.message.tool_calls[0]!.function.arguments)).toEqual({ card: '<CARD>', n: 1 });
  });

  test('tool arguments that a guard broke beyond repair are a fault, not an answer', async () => {
    const breaker = rewriter('breaker', () => '{"half":', 'response');
    await using rig = await guarded([breaker]);
    rig.upstream.next({ whole: toolCallCompletion([{ name: 'pay', arguments: '{"card":1}' }]) });
    const response = await ask(rig.gateway);
    expect(await errorOf(response)).toMatchObject({ status: 503, code: 'guard_unavailable' });
    expect(response.received.toString()).not.toContain('half');
  });

  test('placeholders are restored in the answer, after all guards, and only for this request', async () => {
    const seen: string[] = [];
    const masker = testPlugin('masker', {
      request: ({ segments }) => ({
        rewrite: {
          segments: [{ id: segments[0]!.id, text: segments[0]!.text.replace('jane@example.com', '<P1>') }],
          placeholders: [{ placeholder: '<P1>', original: 'jane@example.com' }],
        },
      }),
    });
    const reader = testPlugin('reader', {
      response({ segments }) {
        seen.push(segments[0]!.text);
        return { allow: {} };
      },
    });
    await using rig = await guarded([masker, reader], { masker: { hooks: ['request'] } });
    rig.upstream.next(says('I wrote to <P1>.'), {
      whole: toolCallCompletion([{ name: 'mail', arguments: { to: '<P1>' } }]),
    });
    expect(await contentOf(await ask(rig.gateway, prompt('write to jane@example.com')))).toBe(
      'I wrote to jane@example.com.',
    );
    expect(rig.upstream.requests[0]!.body.toString()).not.toContain('jane@example.com');
    expect(seen[0]).toBe('I wrote to <P1>.');
    expect(await (await ask(rig.gateway, prompt('write to jane@example.com'))).text()).toContain(
      '{\\"to\\":\\"jane@example.com\\"}',
    );
  });
});

describe('reject', () => {
  test('a rejected prompt never reaches the model', async () => {
    const strict = testPlugin('strict', {
      request: () => ({ reject: { code: 'pii_detected', message: 'Remove it.' } }),
    });
    await using rig = await guarded([strict]);
    expect(await errorOf(await ask(rig.gateway))).toEqual({
      status: 403,
      code: 'pii_detected',
      message: 'Remove it.',
      type: 'invalid_request_error',
      param: 'strict',
    });
    expect(rig.upstream.requests).toEqual([]);
  });

  test('a rejected answer is not shown', async () => {
    const strict = testPlugin('strict', {
      response: () => ({ reject: { code: 'unfit', message: 'Not fit to show.' } }),
    });
    await using rig = await guarded([strict]);
    rig.upstream.next(says('the unfit words'));
    const response = await ask(rig.gateway);
    expect(await errorOf(response)).toMatchObject({ status: 403, code: 'unfit' });
    expect(response.received.toString()).not.toContain('unfit words');
  });

  const own: [string, object, object, { status: number; type: string; body: string }][] = [
    [
      'a plugin’s own status, body and type are passed on as it gave them',
      { status: 451, body: 'not here', contentType: 'text/x-note' },
      {},
      { status: 451, type: 'text/x-note', body: 'not here' },
    ],
    [
      'a body without a type is plain text',
      { body: 'no' },
      {},
      { status: 403, type: 'text/plain; charset=utf-8', body: 'no' },
    ],
    [
      'the mount’s `rejection` comes before the plugin’s own',
      { status: 451, body: 'mine', contentType: 'text/x-note' },
      { rejection: { status: 418, body: '{"e":1}', contentType: 'application/json' } },
      { status: 418, type: 'application/json', body: '{"e":1}' },
    ],
    [
      'S1-80: a configured status and body',
      {},
      { rejection: { status: 403, body: 'Request blocked due to sensitive content' } },
      { status: 403, type: 'text/plain; charset=utf-8', body: 'Request blocked due to sensitive content' },
    ],
  ];
  test.each(own)('%s', async (_title, reject, mount, wanted) => {
    const strict = testPlugin('strict', { request: () => ({ reject: { code: 'c', message: 'm', ...reject } }) });
    await using rig = await guarded([strict], { strict: mount });
    const response = await ask(rig.gateway);
    expect({ status: response.status, type: response.header('content-type'), body: await response.text() }).toEqual(
      wanted,
    );
    expect(response.headerValues('content-length')).toEqual([String(Buffer.byteLength(wanted.body))]);
  });

  test('a `rejection` for what a guard refuses does not dress up a guard that failed', async () => {
    const broken = testPlugin('broken', {
      request: () => {
        throw new Error('x');
      },
    });
    await using rig = await guarded([broken], { broken: { rejection: { status: 418, body: 'teapot' } } });
    expect(await errorOf(await ask(rig.gateway))).toMatchObject({ status: 503, code: 'guard_unavailable' });
  });

  test('a plugin’s headers cannot frame the answer or replace what the gateway says of it', async () => {
    const headers = {
      'content-length': '3',
      'transfer-encoding': 'chunked',
      connection: 'keep-alive, x',
      'retry-after': '9',
    };
    const strict = testPlugin('strict', { request: () => ({ reject: { code: 'c', message: 'm', headers } }) });
    await using rig = await guarded([strict]);
    const response = await ask(rig.gateway);
    expect(await errorOf(response)).toMatchObject({ status: 403, code: 'c' });
    expect(response.headerValues('content-length')).toHaveLength(1);
    expect(response.headerValues('transfer-encoding')).toEqual([]);
    expect(response.header('retry-after')).toBe('9');
  });
});

describe('side by side', () => {
  /** Waits at a gate when asked. */
  function waiting(name: string, asked: string[], gate: Gate, verdict: TextVerdict = { allow: {} }, rewrites = false) {
    const request: Plugin['request'] = async () => {
      asked.push(name);
      await gate.opened;
      return verdict;
    };
    return testPlugin(name, { request }, rewrites);
  }

  test('neighbours that only inspect are asked at once; the one that rewrites waits for both', async () => {
    const asked: string[] = [];
    const gate = new Gate();
    const factories = [
      waiting('a', asked, gate),
      waiting('b', asked, gate),
      waiting('c', asked, gate, { allow: {} }, true),
    ];
    await using rig = await guarded(factories);
    rig.upstream.next(says());
    const answer = ask(rig.gateway);
    await soon(() => asked).toEqual(['a', 'b']);
    gate.open();
    expect((await answer).status).toBe(200);
    expect(asked).toEqual(['a', 'b', 'c']);
  });

  test('of several that reject, the first in the route’s order is heard', async () => {
    const asked: string[] = [];
    const gate = new Gate();
    gate.open();
    const reject = (code: string): TextVerdict => ({ reject: { code, message: 'No.' } });
    const factories = [
      waiting('a', asked, gate),
      waiting('b', asked, gate, reject('b')),
      waiting('c', asked, gate, reject('c')),
    ];
    await using rig = await guarded(factories);
    expect(await errorOf(await ask(rig.gateway))).toMatchObject({ code: 'b', param: 'b' });
  });
});

describe('history', () => {
  /** Rejects segments with `bad`, masks `secret`, as a plugin that knows nothing of history. */
  function judge(names: boolean): PluginFactory {
    return testPlugin('judge', {
      request({ segments }) {
        const bad = segments.filter(({ text }) => text.includes('bad')).map(({ id }) => id);
        if (bad.length > 0) return { reject: { code: 'bad_words', message: 'No.', ...(names && { segments: bad }) } };
        const secret = segments.filter(({ text }) => text.includes('secret'));
        if (secret.length === 0) return { allow: {} };
        return { rewrite: { segments: secret.map(({ id, text }) => ({ id, text: text.replace('secret', '***') })) } };
      },
    });
  }

  const chat = (...turns: string[]) => ({ model: 'm', messages: turns.map((content) => ({ role: 'user', content })) });

  async function sent(history: string, names: boolean, ...turns: string[]) {
    await using rig = await guarded([judge(names)], { judge: { history } });
    rig.upstream.next(says());
    const { status } = await ask(rig.gateway, chat(...turns));
    return {
      status,
      turns: rig.upstream.requests[0]?.json<ReturnType<typeof chat>>().messages.map(({ content }) => content),
    };
  }

  test.each([true, false])('`reject`: an old bad turn blocks (segments named: %s)', async (names) => {
    expect(await sent('reject', names, 'bad', 'fine')).toEqual({ status: 403, turns: undefined });
  });

  test.each(['mask', 'skip'])('`%s`: an old bad turn blocks no new one', async (history) => {
    for (const names of [true, false]) {
      const { status, turns } = await sent(history, names, 'bad', 'fine');
      expect(status).toBe(200);
      expect(turns).toEqual([history === 'mask' ? '[removed by policy]' : 'bad', 'fine']);
    }
  });

  test.each(['mask', 'skip'])('`%s`: a new bad turn is rejected', async (history) => {
    for (const names of [true, false]) expect((await sent(history, names, 'bad', 'bad')).status).toBe(403);
    expect((await sent(history, true, 'fine', 'bad')).status).toBe(403);
  });

  test('a new bad turn that is named is not asked about twice', async () => {
    let calls = 0;
    const judge = testPlugin('judge', {
      request({ segments }) {
        calls += 1;
        return { reject: { code: 'bad_words', message: 'No.', segments: [segments.at(-1)!.id] } };
      },
    });
    await using rig = await guarded([judge], { judge: { history: 'mask' } });
    expect((await ask(rig.gateway, chat('bad', 'bad'))).status).toBe(403);
    expect(calls).toBe(1);
  });

  test.each(['reject', 'mask', 'skip'])('`%s`: masks always apply, to old turns too', async (history) => {
    expect(await sent(history, true, 'secret', 'secret')).toEqual({ status: 200, turns: ['***', '***'] });
  });

  test.each(['mask', 'skip'])('`%s`: masks apply to old turns beside a bad one', async (history) => {
    const { turns } = await sent(history, true, 'secret one', 'bad', 'secret two');
    expect(turns).toEqual(['*** one', history === 'mask' ? '[removed by policy]' : 'bad', '*** two']);
  });
});

describe('media', () => {
  const url = `data:image/png;base64,${'A'.repeat(10_000)}`;
  const body = {
    model: 'm',
    messages: [
      {
        role: 'user',
        content: [
          { type: 'image_url', image_url: { url } },
          { type: 'input_audio', input_audio: { data: 'QUJD', format: 'wav' } },
          { type: 'file', file: { filename: 'a.pdf', file_data: 'data:application/pdf;base64,QUJD' } },
        ],
      },
    ],
  };

  async function seenBy(media: boolean): Promise<Segment[]> {
    let seen: Segment[] = [];
    const describe = () => ({
      contract: 1 as const,
      name: 'eye',
      version: '1',
      hooks: ['request' as const],
      rewrites: false,
      media,
    });
    const eye = testPlugin('eye', {
      describe,
      request({ segments }) {
        seen = segments;
        return { allow: {} };
      },
    });
    await using rig = await guarded([eye]);
    rig.upstream.next(says());
    expect((await ask(rig.gateway, body)).status).toBe(200);
    expect(rig.upstream.requests[0]!.json()).toEqual(body);
    return seen;
  }

  test('images, sounds and files are segments with their types', async () => {
    const seen = await seenBy(true);
    expect(seen.filter(({ channel }) => channel === 'media').map(({ mediaType }) => mediaType)).toEqual([
      'image/png',
      'audio/wav',
      'application/pdf',
    ]);
    expect(seen.map(({ text }) => text)).toContain('a.pdf');
  });

  test('a plugin that asks for the bytes gets all of them; others get the reference alone', async () => {
    expect((await seenBy(true))[0]!.text).toBe(url);
    const [image] = await seenBy(false);
    expect(image!.text.length).toBeLessThan(2_100);
    expect(image!.text).toMatch(/^data:image\/png/);
  });
});

describe('shadow', () => {
  test('a plugin in shadow is asked and recorded, and obeyed at no hook', async () => {
    const asked: string[] = [];
    const no = { reject: { code: 'no', message: 'No.' } };
    const note = (hook: string) => () => {
      asked.push(hook);
      return no;
    };
    const shadow = testPlugin('shadow', {
      authenticate: note('authenticate'),
      authorize: note('authorize'),
      limit: note('limit'),
      request: note('request'),
      response: note('response'),
    });
    await using rig = await guarded([shadow], { shadow: { shadow: true } }, { trace: { header: true } });
    rig.upstream.next(says());
    const response = await ask(rig.gateway);
    expect(response.status).toBe(200);
    expect(asked).toEqual(['authenticate', 'authorize', 'limit', 'request', 'response']);
    expect(response.header('x-wardgate-trace')).toMatch(
      /^shadow\/authenticate=reject;shadow;ms=[\d.]+;code=no, shadow\/authorize=reject;shadow/,
    );
  });

  test('its rewrites change nothing and its faults stop nothing, its grant comes back', async () => {
    const grants: unknown[] = [];
    const shadow = testPlugin('shadow', {
      limit: () => ({ allow: { grant: 'g' } }),
      request: ({ segments }) => ({ rewrite: { segments: [{ id: segments[0]!.id, text: 'changed' }] } }),
      response: () => {
        throw new Error('broken');
      },
      observe: ({ grant }) => void grants.push(grant) as undefined,
    });
    await using rig = await guarded([shadow], { shadow: { shadow: true } });
    rig.upstream.next(says());
    expect(await contentOf(await ask(rig.gateway, prompt('as it was')))).toBe('Hi there');
    expect(rig.upstream.requests[0]!.json()).toEqual(prompt('as it was'));
    await soon(() => grants).toEqual(['g']);
  });
});

describe('the decision trace', () => {
  const finder = () =>
    testPlugin('finder', {
      request: ({ segments }) => ({
        rewrite: {
          segments: [{ id: segments[0]!.id, text: '***' }],
          findings: [{ label: 'E-MAIL ADDRESS', count: 2 }],
        },
      }),
    });

  test('is in the log, with what was found and without any text', async () => {
    await using rig = await guarded([finder()]);
    rig.upstream.next(says('the answer'));
    const response = await ask(rig.gateway, prompt('my secret words'));
    await response.text();
    expect(response.header('x-wardgate-trace')).toBeUndefined();
    await soon(() => rig.gateway.logged.find(({ msg }) => msg === 'request')).toBeDefined();
    const line = rig.gateway.logged.find(({ msg }) => msg === 'request')!;
    expect(line.trace).toMatch(/^finder\/request=rewrite;ms=[\d.]+;E-MAIL_ADDRESS=2$/);
    expect(rig.gateway.logText).not.toMatch(/secret words|the answer/);
  });

  test('is a header only where the config says so', async () => {
    await using rig = await guarded([finder()], {}, { trace: { header: true } });
    rig.upstream.next(says());
    const response = await ask(rig.gateway);
    expect(response.header('x-wardgate-trace')).toMatch(/^finder\/request=rewrite;ms=[\d.]+;E-MAIL_ADDRESS=2$/);
  });
});

test('a prompt of many segments is judged in time that grows with their number, not with its square', async () => {
  const messages = (count: number) =>
    Array.from({ length: count }, (_, i) => ({ role: 'user', content: `Write to p${i}@example.com.` }));
  await using upstream = await startScriptedUpstream();
  upstream.always({ whole: completion('ok') });
  const plugins = { pii: { at: 'local:pii-guard', config: { rules: ['email'] } } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }));
  const answer = await send(`${gateway.url}/v1/chat/completions`, { body: { model: 'm', messages: messages(40_000) } });
  expect(answer.status).toBe(200);
  expect(upstream.requests[0]!.body.includes('@example.com')).toBe(false);
});
