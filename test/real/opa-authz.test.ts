/**
 * opa-authz before a real OPA: the policies of deploy/opa by their own tests, models by role and team through the
 * gateway, decisions found again in OPA's log, and an OPA that goes away and comes back.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { opaAuthz } from '../../plugins/opa-authz/plugin.ts';
import type { AllowOrReject, AuthorizeInput, Identity, Plugin, Resource } from '../../proto/contract.ts';
import { ask, errorOf, prompt, says, soon } from '../gateway/chat.ts';
import { startExample } from '../seeds/example.ts';
import { send } from '../support/client.ts';
import { configFor, startGateway } from '../support/gateway.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { has, lend, PROGRAM, startOpa } from './opa.ts';
import { realServer } from './servers.ts';

const opa = realServer('opa');
const POLICY = 'deploy/opa/wardgate/authz.rego';
const NAME = `wardgate_test_${process.pid}`;

test.skipIf(!has)('the policies pass their own tests', async () => {
  const { stdout } = await promisify(execFile)(PROGRAM, ['test', 'deploy/opa', '--format', 'json']);
  const results = JSON.parse(stdout) as { package: string }[];
  const tested = new Set(results.map((result) => result.package));
  for (const policy of ['authz', 'wardgate.authz', 'system.log']) expect(tested).toContain(`data.${policy}_test`);
  await promisify(execFile)(PROGRAM, ['check', '--strict', 'deploy/opa']);
});

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

describe.skipIf(!opa.here)('models by role and by team', () => {
  let takeBack: () => Promise<void>;
  beforeAll(async () => {
    takeBack = await lend(opa.url, POLICY, NAME, `${NAME}.authz`);
  });
  afterAll(() => takeBack());

  const start = () =>
    startExample('examples/opa.yaml', { environment: { OPA_URL: opa.url, OPA_PATH: `${NAME}/authz` } });

  test.each([
    ['alice, by her role', 'sk-alice', ['gpt-4o', 'gpt-4o-mini', 'gpt-3.5-turbo']],
    ['bob, by his team', 'sk-bob', ['gpt-4o-mini']],
    ['carol, who is in neither', 'sk-carol', []],
  ])('%s: the list shows just what may be used', async (_who, key, models) => {
    await using example = await start();
    const response = await send(`${example.gateway.url}/v1/models`, { headers: bearer(key) });
    const { data } = await response.json<{ data: { id: string }[] }>();
    expect(data.map(({ id }) => id).sort()).toEqual([...models].sort());
    for (const model of ['gpt-4o', 'gpt-4o-mini', 'gpt-3.5-turbo']) {
      const { status } = await ask(example.gateway, prompt('Hello', { model }), { headers: bearer(key) });
      expect([model, status]).toEqual([model, models.includes(model) ? 200 : 403]);
    }
  });

  test('a no has the policy’s own words', async () => {
    await using example = await start();
    const refused = await ask(example.gateway, prompt('Hello', { model: 'gpt-4o' }), { headers: bearer('sk-bob') });
    expect(await errorOf(refused)).toMatchObject({
      status: 403,
      code: 'policy_denied',
      message: 'Your roles and teams do not include the model gpt-4o. Ask the platform team.',
    });
  });

  test('a stranger learns nothing', async () => {
    await using example = await start();
    expect((await ask(example.gateway, prompt('Hello', { model: 'gpt-4o' }))).status).toBe(401);
  });
});

describe.skipIf(!opa.here)('what OPA answers', () => {
  let plugin: Plugin;
  let takeBack: () => Promise<void>;
  beforeAll(async () => {
    takeBack = await lend(opa.url, POLICY, `${NAME}_2`, `${NAME}_2.authz`);
    plugin = opaAuthz.create({ url: opa.url, path: `${NAME}_2/authz`, tools: true });
  });
  afterAll(async () => {
    await plugin.close?.();
    await takeBack();
  });

  const facts = { id: 'r', method: 'POST', path: '/v1/chat/completions', route: '/' };
  async function decided(action: AuthorizeInput['action'], resources: Resource[], identity?: Identity) {
    const model = resources[0]?.name;
    const verdict: AllowOrReject = await plugin.authorize!({
      action,
      resources,
      request: { ...facts, identity, model },
    });
    return 'allow' in verdict ? verdict.allow.decisions : resources.map(() => false);
  }

  test('a list and the calls agree, for whoever asks and whatever the names', async () => {
    const name = fc.oneof(
      fc.constantFrom('gpt-4o', 'gpt-4o-mini', 'gpt-3.5-turbo', 'o3', 'Qwen/Qwen3.5:32b', '*', 'gpt-4', ''),
      fc.string({ unit: 'binary' }),
    );
    const subset = (...all: string[]) => fc.subarray(all);
    const identity = fc.record({
      subject: fc.constant('jo'),
      roles: subset('admin', 'ai-user', 'other'),
      groups: subset('/research', 'support', '*', ''),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(name, { maxLength: 8 }),
        fc.option(identity, { nil: undefined }),
        async (names, who) => {
          const models = names.map((one): Resource => ({ type: 'model', name: one }));
          const listed = await decided('model.list', models, who);
          const used = await Promise.all(models.map(async (model) => (await decided('model.use', [model], who))![0]));
          expect(listed).toEqual(used);
          if (who === undefined) expect(listed).not.toContain(true);
        },
      ),
      { numRuns: 100 },
    );
  });

  test('tools by name', async () => {
    const tool = (name: string): Resource[] => [{ type: 'tool', name }];
    expect(await decided('tool.call', tool('search'), { subject: 'jo' })).toEqual([true]);
    expect(await decided('tool.call', tool('delete_database'), { subject: 'jo' })).toEqual([false]);
    expect(await decided('tool.call', tool('delete_database'), { subject: 'jo', roles: ['admin'] })).toEqual([true]);
    expect(await decided('tool.call', tool('search'))).toEqual([false]);
  });

  test('an undefined decision is a no', async () => {
    const elsewhere = opaAuthz.create({ url: opa.url, path: `${NAME}_2/no/such/rule` });
    const resources: Resource[] = [{ type: 'model', name: 'gpt-4o' }];
    const input: AuthorizeInput = { action: 'model.use', resources, request: facts };
    expect(await elsewhere.authorize!(input)).toHaveProperty('reject');
    await elsewhere.close?.();
  });

  test('a body reaches the policy as JSON, or as the text that it begins with', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'opa-'));
    const file = join(folder, 'body.rego');
    const rule = 'allow if input.request.parsed_body.max_tokens < 1000';
    await writeFile(file, `package x\n${rule}\nallow if startswith(input.request.body, "{\\"m")`);
    const back = await lend(opa.url, file, `${NAME}_3`, `${NAME}_3`);
    const it = opaAuthz.create({ url: opa.url, path: `${NAME}_3/allow`, body: true });
    const verdictOn = (body: string, bodySize = Buffer.byteLength(body)) => {
      const resources: Resource[] = [{ type: 'model', name: 'gpt-4o' }];
      return it.authorize!({ action: 'model.use', resources, request: { ...facts, body, bodySize } });
    };
    expect(await verdictOn('{"max_tokens":999,"text":"größe \\ud83d\\ude42"}')).toHaveProperty('allow');
    expect(await verdictOn('{"max_tokens":1000}')).toHaveProperty('reject');
    // A number that JavaScript would have turned into null, which Rego holds for less than any number.
    expect(await verdictOn('{"max_tokens":1e400}')).toHaveProperty('reject');
    expect(await verdictOn('{"m', 5_000)).toHaveProperty('allow');
    await it.close?.();
    await back();
    await rm(folder, { recursive: true });
  });
});

describe.skipIf(!has)('an OPA of one’s own', () => {
  const args = ['--set', 'decision_logs.console=true', 'deploy/opa'];

  async function guarded(url: string, config = {}) {
    const upstream = await startScriptedUpstream();
    upstream.always(says());
    const keys = [{ key: 'sk-alice', subject: 'alice', roles: ['ai-user'] }];
    const plugins = {
      keys: { at: 'local:api-key-auth', config: { keys } },
      opa: { at: 'local:opa-authz', config: { url, ...config }, headers: ['traceparent'], deadline: '2s' },
    };
    const gateway = await startGateway(configFor(upstream.url, { plugins, models: { 'gpt-4o': 'up' } }), {
      log: 'info',
    });
    const call = (model = 'gpt-4o') =>
      ask(gateway, prompt('a secret prompt', { model }), { headers: bearer('sk-alice') });
    return {
      gateway,
      call,
      async [Symbol.asyncDispose]() {
        await gateway.stop();
        await upstream.close();
      },
    };
  }

  test('its decision log has the id of the request, and nothing of the prompt or the key', async () => {
    await using own = await startOpa(args);
    await using it = await guarded(own.url, { body: true });
    const served = await it.call();
    expect(served.status).toBe(200);
    const logged = () => own.lines.find((line) => line.decision_id !== undefined);
    await soon(logged).toMatchObject({
      path: 'wardgate/authz',
      input: {
        action: 'model.use',
        identity: { subject: 'alice', roles: ['ai-user'] },
        request: { id: served.header('x-request-id'), model: 'gpt-4o' },
      },
      result: { allow: ['gpt-4o'] },
    });
    expect(JSON.stringify(own.lines)).not.toMatch(/secret prompt|sk-alice/);
    const { decision_id: id } = logged() as { decision_id: string };
    await soon(() => it.gateway.logged.find(({ msg }) => msg === 'request')?.trace).toContain(`;decision=${id}`);
  });

  test('that is killed refuses at once, and serves again when it is back', async () => {
    let port: number;
    let it: Awaited<ReturnType<typeof guarded>>;
    {
      await using own = await startOpa(args);
      port = own.port;
      it = await guarded(own.url);
      expect((await it.call()).status).toBe(200);
    }
    await using running = it;
    expect(await errorOf(await running.call())).toMatchObject({ status: 503, code: 'guard_unavailable' });
    expect(running.gateway.logText).toContain('opa_unavailable');
    await using _again = await startOpa(args, port);
    expect((await running.call()).status).toBe(200);
  });

  test('that wants a token serves who has it, and a wrong one is a fault', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'opa-'));
    const policy = join(folder, 'system.rego');
    await writeFile(policy, 'package system.authz\ndefault allow := false\nallow if input.identity == "the-token"\n');
    await using own = await startOpa(['--authentication=token', '--authorization=basic', policy, 'deploy/opa']);
    await using good = await guarded(own.url, { token: 'the-token' });
    expect((await good.call()).status).toBe(200);
    await using bad = await guarded(own.url, { token: 'another' });
    expect((await bad.call()).status).toBe(503);
    expect(bad.gateway.logText).not.toContain('another');
    await rm(folder, { recursive: true });
  });
});
