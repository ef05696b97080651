import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { readConfig } from '../../../plugins/opa-authz/config.ts';
import { OpaAuthz, opaAuthz } from '../../../plugins/opa-authz/plugin.ts';
import { type AllowOrReject, type AuthorizeInput, ConfigProblem, type RequestFacts } from '../../../proto/contract.ts';
import { verdictProblem } from '../../../proto/verdict.ts';
import { freePort, httpServer, tcpServer } from '../../connect/foreign.ts';
import { authorize, facts } from '../../contract/facts.ts';
import { ask, errorOf, prompt, says } from '../../gateway/chat.ts';
import { send } from '../../support/client.ts';
import { configFor, startGateway } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { opaServer, type Question } from './opa-server.ts';

const LIST: AuthorizeInput = { ...authorize('a', 'b', 'c'), action: 'model.list' };

interface Told {
  verdict: AllowOrReject;
  questions: Question[];
}

/** Asks a fresh plugin whose OPA gives this result, and checks that the contract accepts the verdict. */
async function askWith(result: unknown, input: AuthorizeInput = authorize('a'), config = {}): Promise<Told> {
  await using opa = await opaServer(() => result);
  const plugin = opaAuthz.create({ url: opa.url, ...config });
  try {
    const verdict = await plugin.authorize!(input);
    expect(verdictProblem('authorize', input, verdict)).toBeUndefined();
    return { verdict, questions: opa.questions };
  } finally {
    await plugin.close?.();
  }
}

async function verdictOn(result: unknown, input?: AuthorizeInput, config?: object): Promise<AllowOrReject> {
  return (await askWith(result, input, config)).verdict;
}

/** The input that a request becomes. */
async function inputFor(request: Partial<RequestFacts>, more: Partial<AuthorizeInput> = {}) {
  const { questions } = await askWith(true, { ...authorize('a'), ...more, request: { ...facts, ...request } });
  expect(questions).toHaveLength(1);
  return questions[0]!.body.input;
}

function problemsOf(config: unknown): { path: string; message: string }[] {
  try {
    opaAuthz.create(config);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigProblem);
    return (error as ConfigProblem).problems.map(({ path, message }) => ({ path: path.join('.'), message }));
  }
  return [];
}

const DENIED = { reject: expect.objectContaining({ code: 'policy_denied', status: 403 }) };

describe('what OPA is told', () => {
  it('is who, what and which, with the facts of the request', async () => {
    const { body, path } = (await askWith(true)).questions[0]!;
    expect(path).toBe('/v1/data/wardgate/authz');
    expect(body).toEqual({
      input: {
        action: 'model.use',
        resources: [{ type: 'model', name: 'a' }],
        identity: facts.identity,
        request: {
          id: 'req-1',
          method: 'POST',
          path: '/openai/v1/chat/completions',
          route: '/openai',
          headers: { 'x-team': 'red' },
          context: { tier: 'gold' },
          model: 'gpt-4o-mini',
          provider: 'openai',
        },
      },
    });
  });

  it('has no identity for a stranger', async () => {
    expect(await inputFor({ identity: undefined })).not.toHaveProperty('identity');
  });

  it('has the body as it was sent, numbers and all', async () => {
    await using server = await httpServer(() => ({ body: '{"result":true}' }));
    const plugin = opaAuthz.create({ url: `http://${server.address}` });
    const body = '{"seed": 12345678901234567890, "max_tokens":1e400, "model":"a"}';
    await plugin.authorize!({ ...authorize('a'), request: { ...facts, body, bodySize: body.length } });
    expect(server.asked[0]!.body).toContain(`"parsed_body":${body},"truncated_body":false`);
    await plugin.close?.();
  });

  it('has the beginning of a body that was cut, and says so', async () => {
    const { request } = await inputFor({ body: '{"model":"a","mess', bodySize: 9_000 });
    expect(request).toMatchObject({ body: '{"model":"a","mess', truncated_body: true });
    expect(request).not.toHaveProperty('parsed_body');
  });

  it('does not take the beginning of a body for the whole, even when it could be', async () => {
    const { request } = await inputFor({ body: '{"model":"a"}', bodySize: 9_000 });
    expect(request).toMatchObject({ body: '{"model":"a"}', truncated_body: true });
    expect(request).not.toHaveProperty('parsed_body');
  });

  it('has a body that is no JSON as a text, which cannot write into the rest', async () => {
    const body = '{}},"resources":[],"identity":{"roles":["admin"]}';
    const input = await inputFor({ body, bodySize: body.length });
    expect(input.request).toMatchObject({ body, truncated_body: false });
    expect(input).toMatchObject({ identity: { subject: 'jo' }, resources: [{ name: 'a' }] });
  });

  it('is one question for a whole list', async () => {
    const { questions, verdict } = await askWith(['c', 'a', 'z'], LIST);
    expect(questions).toHaveLength(1);
    expect(questions[0]!.body.input).toMatchObject({ action: 'model.list', resources: [{}, {}, {}] });
    expect(verdict).toEqual({ allow: { decisions: [true, false, true], decisionId: 'd-1' } });
  });

  it('brings the trace and the token along', async () => {
    const headers = {
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      authorization: 'Bearer jo',
    };
    const input = { ...authorize('a'), request: { ...facts, headers } };
    const { questions } = await askWith(true, input, { token: 'opa-token' });
    expect(questions[0]!.headers).toMatchObject({
      traceparent: headers.traceparent,
      authorization: 'Bearer opa-token',
      'content-type': 'application/json',
    });
  });

  it('is asked at the path of the config, beneath that of the URL', async () => {
    await using opa = await opaServer(() => true);
    const plugin = opaAuthz.create({ url: `${opa.url}/opa/`, path: 'my.org/policies/allow' });
    await plugin.authorize!(authorize('a'));
    expect(opa.questions[0]!.path).toBe('/opa/v1/data/my.org/policies/allow');
    await plugin.close?.();
  });
});

describe('what the policy decides', () => {
  it.each([
    ['true', true, [true, true, true]],
    ['false', false, [false, false, false]],
    ['undefined', undefined, [false, false, false]],
    ['names', ['b'], [false, true, false]],
    ['no names', [], [false, false, false]],
    ['names of others', ['d', 'A'], [false, false, false]],
    ['one boolean for each', [true, false, true], [true, false, true]],
    ['a package', { allow: ['a'], granted: 7 }, [true, false, false]],
    ['a package with true', { allow: true }, [true, true, true]],
    ['a package that does not define it', { allowed: true }, [false, false, false]],
    ['an empty package', {}, [false, false, false]],
  ])('for a list: %s', async (_title, result, decisions) => {
    expect(await verdictOn(result, LIST)).toEqual({ allow: { decisions, decisionId: 'd-1' } });
  });

  it('S1-92: for a call, a yes lets it through and a no is 403', async () => {
    expect(await verdictOn(true)).toEqual({ allow: { decisions: [true], decisionId: 'd-1' } });
    expect(await verdictOn({ allow: ['a', 'b'] })).toEqual({ allow: { decisions: [true], decisionId: 'd-1' } });
    for (const result of [false, undefined, [], ['b'], {}]) expect(await verdictOn(result)).toEqual(DENIED);
  });

  it('is read by the name that the config gives it', async () => {
    expect(await verdictOn({ allowed: true, allow: false }, undefined, { allow: 'allowed' })).toHaveProperty('allow');
    expect(await verdictOn({ x: 1 }, undefined, { allow: 'constructor' })).toEqual(DENIED);
  });

  it('brings a code and a sentence, on one line and of a bearable length', async () => {
    const told = { allow: false, reason: 'no_budget', message: ` Ask\n your\u0000 lead.${' x'.repeat(500)}` };
    const { reject } = (await verdictOn(told)) as { reject: { code: string; message: string } };
    expect(reject.code).toBe('no_budget');
    expect(reject.message).toMatch(/^Ask your lead\. x/);
    expect(reject.message).toHaveLength(500);
  });

  it('keeps its sentences to itself where the config says so, and odd ones always', async () => {
    const words = { reject: expect.objectContaining({ message: expect.stringContaining('Choose another one') }) };
    expect(await verdictOn({ message: 'internal' }, undefined, { messages: false })).toEqual(words);
    expect(await verdictOn({ message: ['set'], reason: ['set'] })).toEqual(words);
    expect(await verdictOn({ message: ' ', reason: 'Not A Code' })).toEqual(words);
  });

  it('says to a tool call that it is about a tool', async () => {
    const input: AuthorizeInput = { ...authorize(), action: 'tool.call', resources: [{ type: 'tool', name: 'rm' }] };
    expect(await verdictOn(['rm'], input, { tools: true })).toEqual({
      allow: { decisions: [true], decisionId: 'd-1' },
    });
    expect(await verdictOn([], input, { tools: true })).toMatchObject({
      reject: { message: expect.stringContaining('tool') },
    });
  });
});

describe('what is no decision', () => {
  it.each<[string, unknown]>([
    ['null', null],
    ['a number', 1],
    ['a word', 'true'],
    ['a list of numbers', [1]],
    ['names and booleans', ['a', true]],
    ['too few booleans', [true]],
    ['a package whose rule is a word', { allow: 'yes' }],
    ['a package whose rule is null', { allow: null }],
    ['a package whose rule is an object', { allow: { a: true } }],
  ])('%s is a fault', async (_title, result) => {
    await expect(askWith(result, LIST)).rejects.toMatchObject({ name: 'PluginFault', code: 'opa_no_decision' });
  });

  it.each([
    ['500 with a result', { status: 500, body: '{"result":true}' }],
    ['400', { status: 400, body: '{"code":"invalid_parameter","message":"jo"}' }],
    ['401', { status: 401, body: '{"code":"unauthorized"}' }],
    ['404', { status: 404, body: '{"result":true}' }],
    ['201', { status: 201, body: '{"result":true}' }],
    ['204', { status: 204 }],
    ['302', { status: 302, body: '{"result":true}' }],
    ['a page', { status: 200, type: 'text/html', body: '{"result":true}' }],
    ['no JSON', { status: 200, body: 'true}' }],
    ['half a JSON', { status: 200, body: '{"result":tr' }],
    ['a list', { status: 200, body: '[{"result":true}]' }],
    ['true', { status: 200, body: 'true' }],
    ['null', { status: 200, body: 'null' }],
    ['nothing', { status: 200, body: '' }],
    ['a connection that breaks within the answer', { status: 200, broken: true }],
    ['2 MiB', { status: 200, body: JSON.stringify({ result: true, more: 'x'.repeat(2 * 1024 * 1024) }) }],
  ])('an answer of %s is a fault', async (_title, answer) => {
    const fault = await askWith(answer).catch((error: Error) => error);
    expect(fault).toMatchObject({ name: 'PluginFault', code: 'opa_unavailable' });
    expect((fault as Error).message).not.toContain('jo');
  });

  it('nobody listening is a fault', async () => {
    const plugin = opaAuthz.create({ url: `http://127.0.0.1:${await freePort()}` });
    await expect(plugin.authorize!(authorize('a'))).rejects.toThrow('OPA could not be asked: ECONNREFUSED.');
    await plugin.close?.();
  });

  it('garbage is a fault, and is not quoted', async () => {
    await using server = await tcpServer((socket) => {
      socket.on('data', () => socket.end(Buffer.from('\x00\xffgarbage\r\n\r\n', 'latin1')));
    });
    const plugin = opaAuthz.create({ url: `http://${server.address}` });
    const fault = await Promise.resolve(plugin.authorize!(authorize('a'))).catch((error: Error) => error);
    expect(fault).toMatchObject({ name: 'PluginFault' });
    expect((fault as Error).message).not.toContain('garbage');
    await plugin.close?.();
  });

  it('a question that is taken back ends at once, before and after it was sent', async () => {
    let asked = 0;
    await using server = await tcpServer((socket) => socket.on('data', () => (asked += 1)));
    const plugin = opaAuthz.create({ url: `http://${server.address}` });
    const late = new AbortController();
    const outcome = Promise.resolve(plugin.authorize!(authorize('a'), { signal: late.signal }));
    await vi.waitFor(() => expect(asked).toBe(1));
    late.abort(Object.assign(new Error('late'), { name: 'TimeoutError' }));
    await expect(outcome).rejects.toMatchObject({ name: 'PluginFault' });
    await expect(plugin.authorize!(authorize('a'), { signal: late.signal })).rejects.toMatchObject({
      name: 'PluginFault',
    });
    expect(asked).toBe(1);
    await plugin.close?.();
  });

  it('whatever JSON the result is, only what is plainly a yes allows', async () => {
    let result: unknown;
    await using opa = await opaServer(() => ({ status: 200, body: JSON.stringify({ result }) }));
    const plugin = opaAuthz.create({ url: opa.url });
    const odd = fc.oneof(
      fc.json().map((json) => JSON.parse(json) as unknown),
      fc.record({ allow: fc.jsonValue() }),
    );
    await fc.assert(
      fc.asyncProperty(odd, async (given) => {
        result = given;
        const verdict = await Promise.resolve(plugin.authorize!(authorize('a'))).catch(() => undefined);
        const rule = (given as { allow?: unknown } | null)?.allow ?? given;
        const isYes = rule === true || (Array.isArray(rule) && (rule.includes('a') || rule.includes(true)));
        if (verdict !== undefined && 'allow' in verdict) expect(isYes).toBe(true);
        if (given === true) expect(verdict).toEqual({ allow: { decisions: [true] } });
      }),
      { numRuns: 500 },
    );
    await plugin.close?.();
  });
});

describe('decisions that are remembered', () => {
  async function remembering(cache: unknown, use: (it: OpaAuthz, world: World) => Promise<void>) {
    const world = { now: 0, asked: 0, result: true as unknown };
    await using opa = await opaServer(() => {
      world.asked += 1;
      return world.result;
    });
    const plugin = new OpaAuthz(readConfig({ url: opa.url, cache }), () => world.now);
    await use(plugin, world).finally(() => plugin.close());
  }
  interface World {
    now: number;
    asked: number;
    result: unknown;
  }

  it('none, unless the config says so', () =>
    remembering(false, async (plugin, world) => {
      await plugin.authorize(authorize('a'));
      await plugin.authorize(authorize('a'));
      expect(world.asked).toBe(2);
    }));

  it('hold for their time, whatever the id of the request, and a no for a shorter one', () =>
    remembering({}, async (plugin, world) => {
      await plugin.authorize(authorize('a'));
      const other = { ...authorize('a'), request: { ...facts, id: 'req-2' } };
      world.now = 4_999;
      expect(await plugin.authorize(other)).toHaveProperty('allow');
      expect(world.asked).toBe(1);
      world.now = 5_000;
      world.result = false;
      expect(await plugin.authorize(other)).toHaveProperty('reject');
      world.now = 5_999;
      await plugin.authorize(other);
      expect(world.asked).toBe(2);
      world.now = 6_000;
      world.result = true;
      expect(await plugin.authorize(other)).toHaveProperty('allow');
    }));

  it('are of the same input only', () =>
    remembering({ allowed: '1h' }, async (plugin, world) => {
      const request = { ...facts, body: '{}', bodySize: 2 };
      const inputs: AuthorizeInput[] = [
        authorize('a'),
        authorize('b'),
        authorize('a', 'b'),
        { ...authorize('a'), action: 'model.list' },
        { ...authorize('a'), request: { ...facts, identity: { subject: 'other' } } },
        { ...authorize('a'), request: { ...facts, identity: undefined } },
        { ...authorize('a'), request: { ...facts, headers: { 'x-team': 'blue' } } },
        { ...authorize('a'), request: { ...facts, context: {} } },
        { ...authorize('a'), request },
        { ...authorize('a'), request: { ...request, bodySize: 3 } },
      ];
      for (const input of inputs) await plugin.authorize(input);
      for (const input of inputs) await plugin.authorize(input);
      expect(world.asked).toBe(inputs.length);
    }));

  it('are as many as the config says', () =>
    remembering({ allowed: '1h', entries: 2 }, async (plugin, world) => {
      for (const name of ['a', 'b', 'c']) await plugin.authorize(authorize(name));
      await plugin.authorize(authorize('b'));
      await plugin.authorize(authorize('c'));
      expect(world.asked).toBe(3);
      await plugin.authorize(authorize('a'));
      expect(world.asked).toBe(4);
    }));

  it('are no faults', () =>
    remembering({ denied: '1h' }, async (plugin, world) => {
      world.result = 'odd';
      await expect(plugin.authorize(authorize('a'))).rejects.toThrow();
      world.result = true;
      expect(await plugin.authorize(authorize('a'))).toHaveProperty('allow');
    }));
});

describe('through the gateway', () => {
  async function withPolicy(
    allowed: (input: Question['body']['input']) => unknown,
    use: (gateway: { url: string; logText: string }, questions: Question[]) => Promise<void>,
  ): Promise<void> {
    await using upstream = await startScriptedUpstream();
    upstream.always(says());
    await using opa = await opaServer(allowed);
    const plugins = { opa: { at: 'local:opa-authz', config: { url: opa.url }, headers: ['x-team'] } };
    const models = { cheap: 'up', dear: 'up' };
    const config = configFor(upstream.url, { plugins, models });
    await using gateway = await startGateway(config, { log: 'warn' });
    await use(gateway, opa.questions);
  }

  it('a call is let through or refused with the policy’s words', () =>
    withPolicy(
      () => ({ allow: ['cheap'], message: 'Only cheap models, please.' }),
      async (gateway, questions) => {
        const headers = { 'x-team': 'red', cookie: 'secret' };
        expect((await ask(gateway, prompt('my prompt', { model: 'cheap' }), { headers })).status).toBe(200);
        expect(await errorOf(await ask(gateway, prompt('my prompt', { model: 'dear' })))).toMatchObject({
          status: 403,
          code: 'policy_denied',
          message: 'Only cheap models, please.',
        });
        expect(questions[0]!.body.input).toMatchObject({
          action: 'model.use',
          request: { headers: { 'x-team': 'red' } },
        });
        expect(JSON.stringify(questions)).not.toMatch(/my prompt|secret/);
      },
    ));

  it('a list shows what may be used, by one question', () =>
    withPolicy(
      () => ['dear'],
      async (gateway, questions) => {
        const response = await send(`${gateway.url}/v1/models`);
        const { data } = await response.json<{ data: { id: string }[] }>();
        expect(data.map(({ id }) => id)).toEqual(['dear']);
        expect(questions).toHaveLength(1);
      },
    ));

  it('a policy that decides nothing is 503, and its mistake is in the log alone', () =>
    withPolicy(
      () => 'yes',
      async (gateway) => {
        const error = await errorOf(await ask(gateway, prompt('hello', { model: 'cheap' })));
        expect(error).toMatchObject({ status: 503, code: 'guard_unavailable' });
        expect(gateway.logText).toContain('opa_no_decision: The policy');
        expect(error.message).not.toContain('policy');
      },
    ));
});

describe('the config', () => {
  const URL = 'http://opa:8181';

  it('lists every problem with its place, and repeats no token', () => {
    const problems = problemsOf({
      url: 'opa:8181',
      path: '/v1/data/x',
      token: 'a secret',
      cache: { allowed: 'soon', x: 1 },
      body: '2MiB',
      tls: { ca: '/no/such/file', pin: 'x' },
      policy: 'x',
    });
    expect(problems.map(({ path }) => path)).toEqual(
      expect.arrayContaining(['url', 'path', 'token', 'cache.allowed', 'cache.x', 'body', 'tls.pin', 'policy']),
    );
    expect(JSON.stringify(problems)).not.toContain('secret');
  });

  it.each([
    [undefined, 'url'],
    [{}, 'url'],
    [{ url: 'ftp://opa' }, 'url'],
    [{ url: 'http://user:password@opa' }, 'url'],
    [{ url: 'http://opa/?x' }, 'url'],
    [{ url: URL, path: '' }, 'path'],
    [{ url: URL, path: 'a/../b' }, 'path'],
    [{ url: URL, path: 'a?x' }, 'path'],
    [{ url: URL, body: -1 }, 'body'],
    [{ url: URL, body: 1.5 }, 'body'],
    [{ url: URL, body: 2_000_000 }, 'body'],
    [{ url: URL, cache: true }, 'cache'],
    [{ url: URL, cache: { entries: 0 } }, 'cache.entries'],
    [{ url: URL, tls: { ca: '/no/such/file' } }, 'tls.ca'],
  ])('refuses %o', (config, path) => {
    expect(problemsOf(config).map((problem) => problem.path)).toContain(path);
  });

  it('is told in the description, with what the plugin wants to see', () => {
    const described = opaAuthz.create({ url: URL }).describe();
    expect(described).toMatchObject({ hooks: ['authorize'], actions: ['model.use', 'model.list'], rewrites: false });
    expect(described).not.toHaveProperty('body');
    expect(described.configSchema).toMatchObject({ type: 'object', required: ['url'], additionalProperties: false });
    expect(opaAuthz.create({ url: URL, tools: true, body: true }).describe()).toMatchObject({
      actions: ['model.use', 'model.list', 'tool.call'],
      body: 65_536,
    });
    expect(opaAuthz.create({ url: URL, body: '8KiB' }).describe()).toMatchObject({ body: 8_192 });
    expect(opaAuthz.create({ url: URL, body: 100 }).describe()).toMatchObject({ body: 100 });
  });
});

describe('an OPA with TLS', () => {
  it('is trusted by the authority and the name of the config, and by no other', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'opa-tls-'));
    const files = { key: join(folder, 'key.pem'), cert: join(folder, 'cert.pem') };
    const name = ['-subj', '/CN=opa.test', '-addext', 'subjectAltName=DNS:opa.test'];
    const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-days', '2'];
    const out = ['-keyout', files.key, '-out', files.cert];
    execFileSync('openssl', ['req', '-x509', '-nodes', ...kind, ...name, ...out], { stdio: 'ignore' });
    const pair = { key: readFileSync(files.key), cert: readFileSync(files.cert) };
    const server = createServer(pair, (_request, response) => {
      response.setHeader('content-type', 'application/json').end('{"result":true}');
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const verdictBy = async (tls: object) => {
      const plugin = opaAuthz.create({ url, tls });
      return Promise.resolve(plugin.authorize!(authorize('a'))).finally(() => plugin.close?.());
    };
    expect(await verdictBy({ ca: files.cert, serverName: 'opa.test' })).toEqual({
      allow: { decisions: [true] },
    });
    expect(await verdictBy({ ca: String(pair.cert), serverName: 'opa.test' })).toHaveProperty('allow');
    await expect(verdictBy({ ca: files.cert })).rejects.toThrow('ERR_TLS_CERT_ALTNAME_INVALID');
    await expect(verdictBy({ serverName: 'opa.test' })).rejects.toThrow('DEPTH_ZERO_SELF_SIGNED_CERT');
    server.closeAllConnections();
    server.close();
    rmSync(folder, { recursive: true });
  });
});
