/** A plugin as a service: what `serve.ts` answers to who speaks plain HTTP, and how it starts and stops. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Service, servePlugin } from '../../plugins/serve.ts';
import type { PluginFactory } from '../../proto/contract.ts';
import { echo } from '../contract/echo-plugin.ts';
import { authorize, prompt } from '../contract/facts.ts';
import { connectTo } from '../contract/ways.ts';
import { faulty } from './faulty-plugin.ts';
import { runProcess, serveProcess } from './process.ts';

const post = (url: string, body: string | object, headers: Record<string, string> = {}) =>
  fetch(url, { method: 'POST', headers, body: typeof body === 'string' ? body : JSON.stringify(body) });

describe('plain HTTP', () => {
  let service: Service;
  let url: string;
  const logged: string[] = [];
  beforeAll(async () => {
    service = await servePlugin(faulty, { http: '127.0.0.1:0', log: (line) => logged.push(line) });
    url = service.httpUrl!;
  });
  afterAll(() => service.close());

  test('a hook may be asked at once, without describe', async () => {
    const reply = await post(`${url}/request`, prompt('hello'));
    expect(reply.status).toBe(200);
    expect(reply.headers.get('content-type')).toBe('application/json');
    expect(await reply.json()).toEqual({ allow: {} });
  });

  test.each(['/healthz', '/readyz'])('GET %s', async (path) => {
    expect((await fetch(url + path)).status).toBe(200);
  });

  test.each([
    ['a path that is no hook', '/toString', prompt('a'), {}, 404],
    ['text that is no JSON', '/request', 'hello', {}, 400],
    ['an input without its segments', '/request', { request: {} }, {}, 400],
    ['null', '/request', 'null', {}, 400],
    ['an instance that it does not know', '/request', prompt('a'), { 'x-wardgate-instance': 'other' }, 409],
    ['a hook that it does not answer', '/limit', { request: {} }, {}, 500],
    ['more than 16 MiB', '/request', prompt('x'.repeat(17 * 1024 * 1024)), {}, 413],
  ])('%s', async (_title, path, body, headers, status) => {
    const reply = await post(url + path, body, headers);
    expect(reply.status).toBe(status);
    expect(await reply.json()).not.toHaveProperty('allow');
  });

  test('GET of a hook', async () => {
    expect((await fetch(`${url}/request`)).status).toBe(405);
  });

  test('a plugin that throws answers a fault, and neither it nor the log says a word of the text', async () => {
    const reply = await post(`${url}/request`, prompt('throw'));
    expect(reply.status).toBe(500);
    expect(await reply.json()).toEqual({ fault: { code: 'plugin_threw', message: 'the plugin could not judge' } });
    expect(logged.some((line) => line.includes('the plugin could not judge'))).toBe(true);
    expect(logged.join()).not.toContain('hunter2');
  });

  test('a plugin that says why it cannot judge is quoted in the log, and its code goes to the gateway', async () => {
    const reply = await post(`${url}/request`, prompt('cannot judge'));
    expect(reply.status).toBe(500);
    expect(await reply.json()).toEqual({ fault: { code: 'server_away', message: 'the plugin could not judge' } });
    expect(logged.join()).toContain('server_away: Start the server.');
  });
});

describe('configs', () => {
  test('one that the plugin refuses is told with its problems', async () => {
    const service = await servePlugin(echo, { http: '127.0.0.1:0' });
    const reply = await post(`${service.httpUrl}/describe`, { contract: 1, config: { refuse: true } });
    expect(reply.status).toBe(422);
    expect(await reply.json()).toEqual({
      error: 'refuse: must not be true',
      problems: [{ path: ['refuse'], message: 'must not be true' }],
    });
    await service.close();
  });

  test('its own is for who hands over none', async () => {
    const service = await servePlugin(echo, { grpc: '127.0.0.1:0', config: { word: 'rose' } });
    const connection = await connectTo(service.grpcUrl!);
    expect(await connection.ask('request', prompt('a rose'))).toMatchObject({
      rewrite: { segments: [{ text: 'a <W>' }] },
    });
    await connection.close();
    await service.close();
  });

  test('its own is tried at once', async () => {
    await expect(servePlugin(echo, { config: { refuse: true } })).rejects.toThrow('refuse: must not be true');
  });

  test('beyond 64 the one that was not used for longest is closed; the rest when the service stops', async () => {
    const closed: string[] = [];
    const named: PluginFactory = {
      name: 'named',
      create: (config) => ({ ...echo.create({}), close: () => void closed.push((config as { name: string }).name) }),
    };
    const service = await servePlugin(named, { http: '127.0.0.1:0' });
    for (let i = 0; i <= 64; i += 1) await post(`${service.httpUrl}/describe`, { config: { name: `c${i}` } });
    expect(closed).toEqual(['c0']);
    await service.close();
    expect(closed).toHaveLength(65);
  });
});

describe('the command', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'serve-'));
    const limits = 'limits: [{ maxTokens: 1, tokensPerFill: 1, fillInterval: "${INTERVAL:-1d}", per: all }]';
    await writeFile(join(folder, 'limit.yaml'), limits);
    await writeFile(join(folder, 'bad.yaml'), 'limits: 3');
    await writeFile(join(folder, 'unset.yaml'), 'limits: ${NO_SUCH_VARIABLE_HERE}');
  });
  afterAll(() => rm(folder, { recursive: true }));

  test('--help says how, and which plugins there are', async () => {
    const { code, out } = await runProcess('--help');
    expect(code).toBe(0);
    expect(out).toContain('--grpc');
    expect(out).toContain('local-limit');
  });

  test.each([
    ['no plugin', [], 2, ''],
    ['an unknown one', ['nobody'], 1, 'there is no plugin `nobody`'],
    ['an unknown option', ['local-limit', '--port', '1'], 1, "Unknown option '--port'"],
    ['an address without a port', ['local-limit', '--grpc', 'localhost'], 1, '--grpc wants HOST:PORT or off'],
    ['half of a certificate', ['local-limit', '--tls-cert', 'a.pem'], 1, '--tls-cert and --tls-key go together'],
  ])('%s', async (_title, args, status, message) => {
    const { code, err } = await runProcess(...args);
    expect(code).toBe(status);
    expect(err).toContain(message);
    expect(err).not.toContain('    at ');
  });

  test.each([
    ['bad.yaml', 'limits'],
    ['unset.yaml', 'NO_SUCH_VARIABLE_HERE'],
    ['missing.yaml', 'ENOENT'],
  ])('a config that cannot be used: %s', async (file, message) => {
    const { code, err } = await runProcess('local-limit', '--config', join(folder, file));
    expect(code).toBe(1);
    expect(err).toContain(message);
  });

  test('serves a plugin with its config, until SIGTERM', async () => {
    const served = await serveProcess('local-limit', '--config', join(folder, 'limit.yaml'));
    const input = { request: prompt('a').request, estimatedInputTokens: 1 };
    expect(await (await post(`${served.httpUrl}/limit`, input)).json()).toHaveProperty('allow');
    expect(await (await post(`${served.httpUrl}/limit`, input)).json()).toHaveProperty('reject');
    served.child.kill('SIGTERM');
    expect(await served.exited).toBe(0);
  });

  test.each(['grpcUrl', 'httpUrl'] as const)('SIGTERM finishes what is under way: %s', async (url) => {
    const served = await serveProcess('./test/connect/faulty-plugin.ts');
    const connection = await connectTo(served[url]);
    const asked = served.line('asked');
    const answer = connection.ask('request', prompt('until SIGTERM'));
    await asked;
    served.child.kill('SIGTERM');
    expect(await answer).toEqual({ allow: { findings: [{ label: 'TERMINATED', count: 1 }] } });
    expect(await served.exited).toBe(0);
    await connection.close();
  });

  test("a plugin of one's own is served from code", async () => {
    const service = await servePlugin(echo, { grpc: '127.0.0.1:0', http: '127.0.0.1:0' });
    expect(service.grpcUrl).toMatch(/^grpc:\/\/127\.0\.0\.1:\d+$/);
    const connection = await connectTo(service.grpcUrl!);
    expect(await connection.ask('authorize', authorize('a'))).toEqual({ allow: { decisions: [true] } });
    await connection.close();
    await service.close();
    await service.close();
  });
});
