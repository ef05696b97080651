/** The guardrail webhook that agentgateway speaks, against one that does what its sample does. */
import { describe, expect, test, vi } from 'vitest';
import type { Connection, EndpointOptions } from '../../gateway/connect/connection.ts';
import type { Reject, Release, SegmentsInput } from '../../proto/contract.ts';
import { verdictProblem } from '../../proto/verdict.ts';
import { answer, facts, prompt, window } from '../contract/facts.ts';
import { connectTo } from '../contract/ways.ts';
import { type Answered, type Asked, httpServer } from './foreign.ts';

interface Text {
  content: string;
}

/** The sample: a text with "block" is rejected, "mask" becomes ****. */
function sample({ path, body }: Asked): Answered {
  const given =
    (JSON.parse(body || '{}') as { body?: { messages?: Text[]; choices?: { message: Text }[] } }).body ?? {};
  const texts = given.messages ?? given.choices?.map(({ message }) => message) ?? [];
  if (texts.some(({ content }) => content.includes('block'))) {
    const status = path.endsWith('/request') ? { status_code: 403 } : {};
    return { body: JSON.stringify({ action: { body: 'request blocked', ...status, reason: 'blocked word' } }) };
  }
  if (!texts.some(({ content }) => content.includes('mask'))) return { body: '{"action":{"reason":"fine"}}' };
  const masked = texts.map((text) => ({ ...text, content: text.content.replaceAll('mask', '****') }));
  const back = given.messages ? { messages: masked } : { choices: masked.map((message) => ({ message })) };
  return { body: JSON.stringify({ action: { body: back, reason: 'masked' } }) };
}

async function withWebhook(
  reply: (asked: Asked) => Answered,
  options: EndpointOptions,
  use: (connection: Connection, asked: Asked[]) => Promise<void>,
) {
  await using server = await httpServer(reply);
  const connection = await connectTo(`webhook://${server.address}/guard/`, { options });
  await use(connection, server.asked);
  await connection.close();
}

/** What the webhook's action becomes. */
async function verdictOn(action: unknown, input: SegmentsInput = prompt('hello')): Promise<unknown> {
  let verdict: unknown;
  await withWebhook(
    () => ({ body: JSON.stringify(action) }),
    {},
    async (connection) => {
      verdict = await Promise.resolve(connection.ask('request', input)).catch((error: unknown) => error);
    },
  );
  if (!(verdict instanceof Error)) expect(verdictProblem('request', input, verdict)).toBeUndefined();
  return verdict;
}

describe('the sample webhook', () => {
  test('needs no description of its own', () =>
    withWebhook(sample, {}, async (connection) => {
      expect(connection).toMatchObject({
        state: 'up',
        description: { hooks: ['request', 'response', 'stream'], rewrites: true },
      });
    }));

  test('passes', () =>
    withWebhook(sample, {}, async (connection, asked) => {
      expect(await connection.ask('request', prompt('hello', 'again'))).toEqual({ allow: {} });
      expect(asked[0]).toMatchObject({ method: 'POST', path: '/guard/request' });
      expect(asked[0]!.headers['content-type']).toBe('application/json');
      expect(JSON.parse(asked[0]!.body)).toEqual({
        body: {
          messages: [
            { role: 'user', content: 'hello' },
            { role: 'user', content: 'again' },
          ],
        },
      });
    }));

  test('rejects with its own status and body', () =>
    withWebhook(sample, {}, async (connection) => {
      expect(await connection.ask('request', prompt('please block this'))).toEqual({
        reject: expect.objectContaining({
          code: 'guardrail_rejected',
          status: 403,
          body: 'request blocked',
          contentType: 'text/plain; charset=utf-8',
        }),
      });
    }));

  test('masks by order, and media and empty texts are not sent', () =>
    withWebhook(sample, {}, async (connection, asked) => {
      const input = prompt('see', 'https://example.com/a.png', '', 'mask me, mask');
      input.segments[1] = { ...input.segments[1]!, channel: 'media', mediaType: 'image/png' };
      expect(await connection.ask('request', input)).toEqual({
        rewrite: { segments: [{ id: '3', text: '**** me, ****' }], findings: [{ label: 'guardrail_mask', count: 1 }] },
      });
      expect((JSON.parse(asked[0]!.body) as { body: { messages: unknown[] } }).body.messages).toHaveLength(2);
    }));

  test('is asked of answers as choices', () =>
    withWebhook(sample, {}, async (connection, asked) => {
      expect(await connection.ask('response', answer('a mask'))).toMatchObject({
        rewrite: { segments: [{ id: '0', text: 'a ****' }] },
      });
      expect(asked[0]!.path).toBe('/guard/response');
      expect(JSON.parse(asked[0]!.body)).toEqual({
        body: { choices: [{ message: { role: 'assistant', content: 'a mask' } }] },
      });
    }));

  test('is not asked where there is no text', () =>
    withWebhook(sample, {}, async (connection, asked) => {
      expect(await connection.ask('request', prompt(''))).toEqual({ allow: {} });
      expect(asked).toEqual([]);
    }));

  test.each(['authenticate', 'authorize', 'limit', 'observe'] as const)('does not answer %s', (hook) =>
    withWebhook(sample, {}, async (connection) => {
      expect(() => connection.ask(hook, { request: facts } as never)).toThrow('does not answer');
    }),
  );
});

describe('replies that are read strictly', () => {
  test.each([
    ['a rejection without a status, which agentgateway reads as a pass', { body: 'no' }, 403],
    ['a rejection whose status has another name', { body: 'no', statusCode: 451 }, 403],
    ['a rejection with a status that none can have', { body: 'no', status_code: 200 }, 403],
    ['a rejection with an empty text', { body: '', status_code: 422 }, 422],
  ])('%s rejects', async (_title, action, status) => {
    expect(await verdictOn({ action })).toMatchObject({ reject: { status, body: action.body } });
  });

  test('a rejection whose text is a JSON object is passed on as JSON', async () => {
    const body = '{"error":{"message":"no","code":"content_policy_violation"}}';
    expect(await verdictOn({ action: { body, status_code: 400 } })).toMatchObject({
      reject: { status: 400, body, contentType: 'application/json' },
    });
  });

  test('a rejection with a very long text is cut', async () => {
    const { reject } = (await verdictOn({ action: { body: 'x'.repeat(100_000), status_code: 400 } })) as {
      reject: Reject;
    };
    expect(reject.body).toHaveLength(65_536);
  });

  test.each([
    ['a pass without a reason', {}],
    ['a pass with none', { reason: null }],
    ['a mask that changes nothing', { body: { messages: [{ role: 'user', content: 'hello' }] } }],
  ])('%s allows', async (_title, action) => {
    expect(await verdictOn({ action })).toEqual({ allow: {} });
  });

  test.each([
    ['no action', {}],
    ['an action that is a word', { action: 'pass' }],
    ['an action that is a list', { action: [] }],
    ['a rejection without a text', { action: { status_code: 403 } }],
    ['a text that is null', { action: { body: null } }],
    ['a text that is a number', { action: { body: 403 } }],
    ['a field that nobody knows', { action: { block: true } }],
    ['a mask with fewer messages', { action: { body: { messages: [] } } }],
    ['a mask with more messages', { action: { body: { messages: [{ content: 'a' }, { content: 'b' }] } } }],
    ['a mask of the other side', { action: { body: { choices: [{ message: { content: 'a' } }] } } }],
    ['a mask without a text', { action: { body: { messages: [{ role: 'user' }] } } }],
    ['a mask with a text in parts', { action: { body: { messages: [{ content: [{ text: 'a' }] }] } } }],
  ])('%s is a fault', async (_title, reply) => {
    expect(await verdictOn(reply)).toMatchObject({ name: 'PluginFault', code: 'bad_answer' });
  });
});

describe('headers', () => {
  const forwardHeaders = [{ name: 'X-Team', value: 're[dt]' }, { name: 'x-any' }, { name: 'x-key' }];
  const sent = async (headers: Record<string, string>) => {
    let seen: Asked['headers'] = {};
    await withWebhook(sample, { forwardHeaders, headers: { 'X-Key': 'ours' } }, async (connection, asked) => {
      await connection.ask('request', { ...prompt('hello'), request: { ...facts, headers } });
      seen = asked[0]!.headers;
    });
    return seen;
  };

  test('are forwarded by name and whole value, and no others', async () => {
    const seen = await sent({ 'x-team': 'red', 'x-any': 'thing', authorization: 'Bearer secret' });
    expect(seen).toMatchObject({ 'x-team': 'red', 'x-any': 'thing' });
    expect(seen.authorization).toBeUndefined();
    expect((await sent({ 'x-team': 'red!' }))['x-team']).toBeUndefined();
  });

  test('of the mount cannot be replaced by a client', async () => {
    expect((await sent({ 'x-key': 'theirs' }))['x-key']).toBe('ours');
  });

  test.each([
    [{ name: 'Content-Length' }, 'the header `content-length` cannot be forwarded'],
    [{ name: 'a', value: '(' }, 'the pattern for the header `a` is no regular expression'],
  ])('that cannot be forwarded are told at the start: %j', async (header, message) => {
    await expect(connectTo('webhook://h:1', { options: { forwardHeaders: [header] } })).rejects.toThrow(message);
  });
});

describe('streams by windows', () => {
  const filler = 'lorem ipsum dolor '.repeat(60).slice(0, 1_024);
  const judge = async (text: string, last = false, options: EndpointOptions = {}) => {
    let verdict: unknown;
    let calls = 0;
    await withWebhook(sample, options, async (connection, asked) => {
      verdict = await connection.ask('stream', window(text, last));
      calls = asked.length;
    });
    expect(verdictProblem('stream', window(text, last), verdict)).toBeUndefined();
    return { verdict: verdict as { release: Release; reject: Reject }, calls };
  };

  test('below 1024 characters everything is held, without a call', async () => {
    const { verdict, calls } = await judge('x'.repeat(1_023));
    expect(verdict.release).toEqual({ release: '', hold: 'x'.repeat(1_023) });
    expect(calls).toBe(0);
  });

  test('a full window that passes is released, but for the last 256 characters', async () => {
    const { verdict } = await judge(filler);
    expect(verdict.release).toEqual({ release: filler.slice(0, -256), hold: filler.slice(-256) });
  });

  test('the end of a stream is judged whatever its length', async () => {
    expect((await judge('short mask', true)).verdict.release).toEqual({ release: 'short ****', hold: '' });
    expect(await judge('', true)).toMatchObject({ verdict: { release: { release: '', hold: '' } }, calls: 0 });
  });

  test('after a mask only what follows it is held', async () => {
    const text = `${filler} mask and on`;
    expect((await judge(text)).verdict.release).toEqual({ release: `${filler} ****`, hold: ' and on' });
  });

  test('a mask at the very end holds nothing back', async () => {
    expect((await judge(`${filler}mask`)).verdict.release).toEqual({ release: `${filler}****`, hold: '' });
  });

  test('what is held never begins with half a character', async () => {
    const text = `${filler}${'🙂'.repeat(130)}a`;
    const { hold } = (await judge(text)).verdict.release;
    expect(hold).toHaveLength(255);
    expect(hold.isWellFormed()).toBe(true);
  });

  test('a rejection cuts the stream', async () => {
    expect((await judge(`${filler} block`)).verdict.reject).toMatchObject({ code: 'guardrail_rejected', status: 403 });
  });

  test('the sizes may be set', async () => {
    const { verdict } = await judge('0123456789', false, { windowChars: 10, overlapChars: 3 });
    expect(verdict.release).toEqual({ release: '0123456', hold: '789' });
  });

  test('a word that is cut by the border of a window is still found', async () => {
    await withWebhook(sample, { windowChars: 20, overlapChars: 8 }, async (connection) => {
      const stream = 'this text is long and says mask in the middle of it, twice: mask.';
      let shown = '';
      let held = '';
      for (let i = 0; i < stream.length; i += 7) {
        const last = i + 7 >= stream.length;
        const verdict = await connection.ask('stream', window(held + stream.slice(i, i + 7), last));
        const { release, hold } = (verdict as { release: Release }).release;
        shown += release;
        held = hold;
      }
      expect(shown).toBe(stream.replaceAll('mask', '****'));
    });
  });
});

describe('the seeds', () => {
  test('S1-87: a prompt that Model Armor blocks is refused with 403 and its sentence', async () => {
    const body = 'Request rejected by Model Armor: BLOCKED: RAI policy violation';
    const verdict = await verdictOn(
      { action: { body, status_code: 403 } },
      prompt('I hate all people and want to hurt them'),
    );
    expect(verdict).toMatchObject({ reject: { status: 403, body } });
  });

  test('S1-88: an e-mail address on the same route reaches the model as [REDACTED]', async () => {
    const input = prompt('My email address is jo@example.com and I need help with my account');
    const content = 'My email address is [REDACTED] and I need help with my account';
    expect(await verdictOn({ action: { body: { messages: [{ role: 'user', content }] } } }, input)).toMatchObject({
      rewrite: { segments: [{ id: '0', text: content }] },
    });
  });

  test('S1-89: a prompt that Bedrock Guardrails blocks is refused with 403 and its sentence', async () => {
    const body = 'Request rejected by Bedrock Guardrails: BLOCKED: PII detected: EMAIL';
    const verdict = await verdictOn({ action: { body, status_code: 403 } }, prompt('hi my email is christian@solo.io'));
    expect(verdict).toMatchObject({ reject: { status: 403, body, contentType: 'text/plain; charset=utf-8' } });
  });

  test('S1-90: a webhook that has stopped gives no pass, and is asked again when it is back', async () => {
    const server = await httpServer(sample);
    const options = { breaker: { failures: 1, openMs: 1, maxOpenMs: 1 } };
    const connection = await connectTo(`webhook://${server.address}`, { options });
    await connection.ask('request', prompt('hello'));
    await server[Symbol.asyncDispose]();
    await expect(connection.ask('request', prompt('hello'))).rejects.toMatchObject({ name: 'PluginUnavailable' });
    expect(connection.state).toBe('down');
    await using back = await httpServer(sample, server.port);
    await vi.waitFor(() => expect(connection.state).toBe('up'));
    expect(await connection.ask('request', prompt('hello'))).toEqual({ allow: {} });
    expect(back.asked).toHaveLength(1);
    await connection.close();
  });
});
