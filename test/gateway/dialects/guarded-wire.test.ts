/** Every client dialect before every vendor, whole and streamed: what guards forbid does not reach the client, nor the vendor. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { send } from '../../support/client.ts';
import { replyFixture, streamFixture } from '../../support/fixture.ts';
import { startGateway, type TestGateway, testPlugin } from '../../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';

const KINDS: Record<string, object> = {
  openai: { kind: 'openai', api: 'chat' },
  'openai-responses': { kind: 'openai', api: 'responses' },
  anthropic: { kind: 'anthropic' },
  gemini: { kind: 'gemini' },
};
const VENDORS = Object.keys(KINDS);

/** No tool may be called. */
const noTools = testPlugin('no-tools', {
  authorize: ({ action, resources }) => ({ allow: { decisions: resources.map(() => action !== 'tool.call') } }),
});

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  const provider = (settings: object) => ({ ...settings, baseUrl: `${upstream.url}/v1`, key: 'k' });
  const pii = (action: string) => ({ at: 'local:pii-guard', config: { rules: ['email'], action } });
  gateway = await startGateway(
    {
      providers: Object.fromEntries(VENDORS.map((vendor) => [vendor, provider(KINDS[vendor]!)])),
      models: Object.fromEntries(
        VENDORS.map((vendor) => [vendor, { targets: [{ provider: vendor }], rescue: 'off', breaker: false }]),
      ),
      plugins: {
        mask: pii('mask'),
        reject: pii('reject'),
        'no-tools': { at: 'local:no-tools', actions: ['tool.call'] },
      },
      routes: {
        '/mask': { plugins: ['mask'] },
        '/reject': { plugins: ['reject'] },
        '/tools': { plugins: ['no-tools'] },
      },
    },
    { factories: [noTools], log: 'info' },
  );
});

afterAll(async () => {
  await gateway.stop();
  await upstream.close();
});

interface Asked {
  path: string;
  body: Json;
}

/** What each dialect asks, with a text in the system's place, the user's and a tool's description. */
const DIALECTS: Record<string, (model: string, stream: boolean, text: string) => Asked> = {
  'openai-chat': (model, stream, text) => ({
    path: '/v1/chat/completions',
    body: {
      ...{ model, stream },
      messages: [
        { role: 'system', content: `S ${text}` },
        { role: 'user', content: [{ type: 'text', text: `U ${text}` }] },
      ],
      tools: [
        { type: 'function', function: { name: 'get_weather', description: `T ${text}`, parameters: schema(text) } },
      ],
    },
  }),
  'openai-responses': (model, stream, text) => ({
    path: '/v1/responses',
    body: {
      ...{ model, stream },
      instructions: `S ${text}`,
      input: [{ role: 'user', content: [{ type: 'input_text', text: `U ${text}` }] }],
      tools: [
        { type: 'function', name: 'get_weather', description: `T ${text}`, parameters: schema(text), strict: false },
      ],
    },
  }),
  'anthropic-messages': (model, stream, text) => ({
    path: '/v1/messages',
    body: {
      ...{ model, stream, max_tokens: 99 },
      system: [{ type: 'text', text: `S ${text}` }],
      messages: [{ role: 'user', content: [{ type: 'text', text: `U ${text}` }] }],
      tools: [{ name: 'get_weather', description: `T ${text}`, input_schema: schema(text) }],
    },
  }),
  gemini: (model, stream, text) => ({
    path: `/v1beta/models/${model}:${stream ? 'streamGenerateContent?alt=sse' : 'generateContent'}`,
    body: {
      system_instruction: { parts: [{ text: `S ${text}` }] },
      contents: [{ role: 'user', parts: [{ text: `U ${text}` }] }],
      tools: [
        {
          function_declarations: [
            { name: 'get_weather', description: `T ${text}`, parameters_json_schema: schema(text) },
          ],
        },
      ],
    },
  }),
};

function schema(text: string): object {
  return {
    type: 'object',
    properties: { city: { type: 'string', description: `D ${text}` }, [text]: { type: 'string' } },
  };
}

const cases = Object.keys(DIALECTS).flatMap((dialect) =>
  VENDORS.flatMap((vendor) => [false, true].map((stream) => ({ dialect, vendor, stream }))),
);

describe.each(cases)('$dialect before $vendor, streamed: $stream', ({ dialect, vendor, stream }) => {
  /** Asks on a route; the vendor answers with a fixture. */
  async function ask(
    route: string,
    name: string,
    text = 'Hello',
    edit: (answer: string) => string = (answer) => answer,
  ) {
    upstream.always(({ path }) => {
      // OpenAI is asked by its own name for each of its APIs, where the client speaks it.
      const format = path.endsWith('/responses')
        ? 'openai-responses'
        : path.endsWith('/completions')
          ? 'openai'
          : vendor;
      if (!stream) return { whole: edit(JSON.stringify(replyFixture(format, name))) };
      const events = [edit(streamFixture(format, name).toString())];
      return { stream: { events, end: 'close-without-done', chunking: 'byte' } };
    });
    const { path, body } = DIALECTS[dialect]!(vendor, stream, text);
    const before = upstream.requests.length;
    const response = await send(`${gateway.url}${route}${path}`, { body });
    return { status: response.status, text: await response.text(), sent: upstream.requests.slice(before) };
  }

  const leak = (answer: string) => answer.replaceAll(/Good|Hello/g, 'jane@example.org');

  test('what is asked is masked, wherever it stands', async () => {
    const { status, sent } = await ask('/mask', 'text', 'jane@example.org');
    expect(status).toBe(200);
    const body = sent[0]!.body.toString();
    expect(body).not.toContain('jane@');
    for (const place of 'SUTD') expect(body).toMatch(new RegExp(`"${place} [^"]*[A-Z*<]`));
  });

  test('what is asked and forbidden is not sent', async () => {
    const { status, text, sent } = await ask('/reject', 'text', 'jane@example.org');
    expect([status, text.includes('jane@'), sent]).toEqual([403, false, []]);
  });

  test('what is answered is masked', async () => {
    const { status, text } = await ask('/mask', 'text', 'Hello', leak);
    expect(status).toBe(200);
    expect(text).not.toContain('jane@');
    expect(text.match(/morning|World/)).not.toBeNull();
  });

  test('what is answered and forbidden is not shown', async () => {
    const { text } = await ask('/reject', 'text', 'Hello', leak);
    expect(text).not.toContain('jane');
    expect(text).toContain('error');
    expect(text).not.toMatch(/morning|World/);
  });

  test('a tool that is not allowed is not called', async () => {
    const { text } = await ask('/tools', 'tools');
    expect(text).toContain('which you may not use here');
    expect(text).not.toMatch(/aris/);
  });
});
