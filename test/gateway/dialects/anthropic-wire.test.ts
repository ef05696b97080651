/** Anthropic's Messages through the gateway, on the wire: what passes as it is, what guards and limits make of it. */
import { describe, expect, test } from 'vitest';
import type { PluginFactory } from '../../../proto/contract.ts';
import { send } from '../../support/client.ts';
import { cutBySizes } from '../../support/cuts.ts';
import { requestFixture, streamFixture } from '../../support/fixture.ts';
import { Gate } from '../../support/gate.ts';
import { configFor, startGateway, testPlugin } from '../../support/gateway.ts';
import type { Chunking } from '../../support/script.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { soon } from '../chat.ts';

const ASK = { model: 'claude', max_tokens: 99, messages: [{ role: 'user', content: 'Hello' }] };

/** A gateway before an Anthropic of the test's making. */
async function started(plugins: Record<string, Record<string, unknown>> = {}, factories: PluginFactory[] = []) {
  const upstream = await startScriptedUpstream();
  const provider = { kind: 'anthropic', key: 'sk-of-anthropic' };
  const gateway = await startGateway(configFor(upstream.url, { plugins, provider }), { factories, log: 'info' });
  return {
    upstream,
    gateway,
    ask: (body: object | string = ASK, headers: Record<string, string> = {}) =>
      send(`${gateway.url}/v1/messages`, { body, headers: { 'Content-Type': 'application/json', ...headers } }),
    /** Streams a fixture to a client, cut as told. */
    async stream(name: string, chunking: Chunking = 'whole', edit: (text: string) => string = (text) => text) {
      const events = [edit(streamFixture('anthropic', name).toString())];
      upstream.next({ stream: { events, end: 'close-without-done', chunking } });
      return (await this.ask({ ...ASK, stream: true })).text();
    },
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

/** The texts of all deltas of a stream. */
function deltasOf(stream: string): string {
  const data = [...stream.matchAll(/^data: (.*)$/gm)].map(([, json]) => JSON.parse(json!));
  return data.map(({ delta }) => delta?.text ?? delta?.thinking ?? delta?.partial_json ?? '').join('');
}

describe('what passes', () => {
  test('goes on byte by byte, with the client’s version and the gateway’s key', async () => {
    await using rig = await started();
    const body =
      '{ "messages":[{"role":"user","content":"Hi"}], "new":{"b":1,"a":[1e2]},\n"max_tokens":5,"model":"claude" }';
    const answer = '{"model":"claude", "brand_new": [1],"content":[],"usage":{"input_tokens":3,"output_tokens":4}}\n';
    rig.upstream.next({ whole: answer, headers: { 'request-id': 'req_1', 'set-cookie': 'a=b' } });
    const headers = { 'anthropic-version': '2026-10-21', 'anthropic-beta': 'a,b', 'x-api-key': 'sk-client' };
    const response = await rig.ask(body, headers);
    expect([response.status, await response.text()]).toEqual([200, answer]);
    expect([response.header('request-id'), response.header('set-cookie')]).toEqual(['req_1', undefined]);
    const [request] = rig.upstream.requests;
    expect([request!.path, request!.body.toString()]).toEqual(['/v1/messages', body]);
    for (const [name, value] of Object.entries({ ...headers, 'x-api-key': 'sk-of-anthropic' })) {
      expect(request!.headerValues(name)).toEqual([value]);
    }
  });

  test.each(['text', 'parallel-tools', 'reasoning', 'citations', 'cache-usage'])(
    'of the stream “%s” is every byte',
    async (name) => {
      await using rig = await started();
      for (const chunking of ['whole', 'event', 'byte', cutBySizes([7, 1, 90])] as Chunking[]) {
        expect(await rig.stream(name, chunking)).toBe(streamFixture('anthropic', name).toString());
      }
      const crlf = (text: string) => text.replaceAll('\n', '\r\n');
      expect(await rig.stream(name, 'byte', crlf)).toBe(crlf(streamFixture('anthropic', name).toString()));
    },
  );

  test('is metered: the prompt by the first event, the answer by the last', async () => {
    await using rig = await started();
    await rig.stream('cache-usage', 'event');
    const line = () => rig.gateway.logged.find(({ msg }) => msg === 'request');
    await soon(line).toMatchObject({ inputTokens: 2107, outputTokens: 3 });
  });

  test('and breaks off ends in an error event, and never as if it were whole', async () => {
    await using rig = await started();
    const whole = streamFixture('anthropic', 'text').toString();
    for (const cut of [whole.indexOf('wörld'), whole.indexOf('event: message_delta')]) {
      const said = await rig.stream('text', 'event', (text) => text.slice(0, cut));
      expect(said).toMatch(/event: error\ndata: \{"type":"error","error":\{"type":"api_error".*\n\n$/);
      expect(said).not.toContain('message_stop');
    }
  });
});

describe('a guard on text', () => {
  const pii = { pii: { at: 'local:pii-guard', config: { rules: ['email'], action: 'mask' } } };
  const mask = (text: string) => text.replace('Good', 'jane@exam').replace(' morning', 'ple.org, good');

  test('masks what straddles two deltas of a block, however they are cut', async () => {
    await using rig = await started(pii);
    for (const chunking of ['whole', 'event', 'byte'] as Chunking[]) {
      const said = await rig.stream('text', chunking, mask);
      expect(deltasOf(said)).toMatch(/^(?!.*jane).*, good, wörld 🙂$/);
      expect(said).toMatch(/event: message_stop\ndata: \{"type":"message_stop"\}\n\n$/);
    }
  });

  test('lets the rest be as it came, the seal of the thoughts included', async () => {
    await using rig = await started(pii);
    for (const name of ['tools', 'parallel-tools', 'reasoning', 'citations']) {
      expect(deltasOf(await rig.stream(name, 'byte'))).toBe(deltasOf(streamFixture('anthropic', name).toString()));
    }
    expect(await rig.stream('reasoning')).toBe(streamFixture('anthropic', 'reasoning').toString());
  });

  test('masks arguments of tools and what is cited', async () => {
    await using rig = await started(pii);
    const tools = await rig.stream('tools', 'event', (text) =>
      text.replace(' \\"Pa', ' \\"jane@exa').replace('ris', 'mple.org'),
    );
    expect(deltasOf(tools)).not.toContain('jane');
    expect(Object.keys(JSON.parse(deltasOf(tools).slice('I will look it up.'.length)))).toEqual(['city', 'unit']);
    const cited = await rig.stream('citations', 'event', (text) =>
      text.replace('Most grass is green.', 'By joe@example.org'),
    );
    expect(cited).not.toContain('joe@');
  });

  test('sees what is sent: system, tools, results', async () => {
    await using rig = await started(pii);
    rig.upstream.always({ whole: { content: [], usage: { input_tokens: 1, output_tokens: 1 } } });
    const body = JSON.stringify({
      ...requestFixture('anthropic-messages', 'parallel-tools'),
      system: 'To ann@example.org',
    });
    await rig.ask(body.replace('18 °C', 'joe@example.org').replace('The weather', 'From jim@example.org'));
    expect(rig.upstream.requests[0]!.body.toString()).not.toMatch(/(ann|joe|jim)@/);
  });
});

describe('tools that are not allowed', () => {
  const decide = testPlugin('decide', {
    authorize: ({ resources }) => ({ allow: { decisions: resources.map(({ name }) => name !== 'clock') } }),
  });
  const plugins = { decide: { at: 'local:decide', actions: ['tool.call'] } };

  test('stop a stream before any of their arguments, and a whole answer', async () => {
    await using rig = await started(plugins, [decide]);
    expect(deltasOf(await rig.stream('tools', 'event'))).toBe(deltasOf(streamFixture('anthropic', 'tools').toString()));
    const [first, rest] = streamFixture('anthropic', 'parallel-tools')
      .toString()
      .split(/(?=event: content_block_start\n.*toolu_01B)/);
    const isShown = new Gate();
    rig.upstream.next({ stream: { events: [first!, isShown, rest!], end: 'close-without-done' } });
    const answer = await rig.ask({ ...ASK, stream: true });
    isShown.open();
    const said = await answer.text();
    expect(said).toContain('toolu_01A');
    expect(said).not.toContain('toolu_01B');
    expect(said).toMatch(/event: error\ndata: .*"error_code":"tool_not_allowed"/);
    rig.upstream.next({ whole: { content: [{ type: 'tool_use', id: 'c', name: 'clock', input: {} }] } });
    const response = await rig.ask();
    expect([response.status, (await response.json<{ error: object }>()).error]).toMatchObject([
      403,
      { type: 'permission_error', details: { error_code: 'tool_not_allowed' } },
    ]);
  });
});

describe('a quota that pays for less than was asked', () => {
  const grant = testPlugin('grant', { limit: () => ({ allow: { outputTokens: 2 } }) });

  test('bounds the answer, and cuts a stream that goes on all the same', async () => {
    await using rig = await started({ grant: { at: 'local:grant' } }, [grant]);
    const said = await rig.stream('text', 'event', (text) => text.replace(' morning', ' morning to you all'));
    expect(rig.upstream.requests[0]!.json()).toMatchObject({ max_tokens: 2 });
    expect(said).toMatch(
      /event: content_block_stop\n.*\n\nevent: message_delta\n.*"stop_reason":"max_tokens".*"quota_exhausted".*\n\nevent: message_stop\n.*\n\n$/,
    );
  });
});
