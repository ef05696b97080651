import { describe, expect, test, vi } from 'vitest';
import { servePlugin } from '../../plugins/serve.ts';
import { echo } from '../contract/echo-plugin.ts';
import { authorize, limit } from '../contract/facts.ts';
import { connectTo } from '../contract/ways.ts';
import { certificateFor } from '../support/certificate.ts';
import { type Asked, httpServer } from './foreign.ts';
import { losesNothing } from './forgetful.ts';

const DESCRIPTION = { contract: 1, name: 'ten-lines', version: '1', hooks: ['limit'], rewrites: false };

const json = (value: unknown, status = 200) => ({ status, body: JSON.stringify(value) });
const describing = (asked: Asked) => (asked.path.endsWith('/describe') ? json(DESCRIPTION) : json({ allow: {} }));

describe('a plugin over HTTP', () => {
  test('gets its config with /describe, and each hook at its own path', async () => {
    await using server = await httpServer(describing);
    const options = { headers: { Authorization: 'Bearer plugin-key' } };
    const connection = await connectTo(`http://${server.address}/base/`, { config: { a: 1 }, options });
    expect(connection).toMatchObject({ state: 'up', description: DESCRIPTION });
    expect(await connection.ask('limit', limit())).toEqual({ allow: {} });
    const [described, asked] = server.asked;
    expect(described).toMatchObject({ path: '/base/describe', body: '{"contract":1,"config":{"a":1}}' });
    expect(asked).toMatchObject({ path: '/base/limit', headers: { authorization: 'Bearer plugin-key' } });
    expect(JSON.parse(asked!.body)).toEqual(limit());
    await connection.close();
  });

  test('without /describe is refused with what to do', async () => {
    await using server = await httpServer(() => ({ status: 404, body: '{}' }));
    const connection = await connectTo(`http://${server.address}`);
    expect(connection.state).toBe('refused');
    expect(connection.problem).toContain('POST /describe');
    expect(connection.problem).toContain('hooks: [request, response]');
    await connection.close();
  });

  test('without /describe is asked all the same where the mount names its hooks', async () => {
    await using server = await httpServer((asked) => (asked.path === '/limit' ? json({ allow: {} }) : { status: 404 }));
    const connection = await connectTo(`http://${server.address}`, { options: { hooks: ['limit'] } });
    expect(connection).toMatchObject({ state: 'up', description: { hooks: ['limit'], rewrites: true } });
    expect(await connection.ask('limit', limit())).toEqual({ allow: {} });
    await connection.close();
  });

  test('without /describe cannot be given a config, and says so', async () => {
    await using server = await httpServer(() => ({ status: 404 }));
    const connection = await connectTo(`http://${server.address}`, { config: { a: 1 }, options: { hooks: ['limit'] } });
    expect(connection).toMatchObject({
      state: 'refused',
      problem: expect.stringContaining('cannot be given its config'),
    });
    await connection.close();
  });

  test('that does not say whether it rewrites is taken for one that does', async () => {
    const { rewrites, ...silent } = DESCRIPTION;
    await using server = await httpServer(() => json(silent));
    const connection = await connectTo(`http://${server.address}`);
    expect(connection.description?.rewrites).toBe(!rewrites);
    await connection.close();
  });

  test.each([
    ['its config', json({ error: 'limits: is missing' }, 422), 'limits: is missing'],
    ['its config without a word', { status: 422, body: '' }, 'it answered /describe with 422'],
    [
      'our contract',
      json({ ...DESCRIPTION, contract: 9 }),
      'it speaks version 9 of the contract, this gateway speaks 1',
    ],
  ])('that refuses %s is refused with the reason', async (_title, answer, problem) => {
    await using server = await httpServer(() => answer);
    const connection = await connectTo(`http://${server.address}`);
    expect(connection).toMatchObject({ state: 'refused', problem });
    await connection.close();
  });

  test('that has forgotten its config gets it again, and no call is lost', () => losesNothing({ http: '127.0.0.1:0' }));

  test('that has failed too often is left alone, and asked again when it is back', async () => {
    let broken = false;
    await using server = await httpServer((asked) => (broken ? { status: 503, body: '{}' } : describing(asked)));
    const connection = await connectTo(`http://${server.address}`, { options: { breaker: { failures: 2 } } });
    broken = true;
    await expect(connection.ask('limit', limit())).rejects.toThrow('the plugin answered 503');
    expect(connection.state).toBe('up');
    await expect(connection.ask('limit', limit())).rejects.toThrow('the plugin answered 503');
    expect(connection.state).toBe('down');
    await expect(connection.ask('limit', limit())).rejects.toMatchObject({ code: 'breaker_open' });
    broken = false;
    await vi.waitFor(() => expect(connection.state).toBe('up'));
    expect(await connection.ask('limit', limit())).toEqual({ allow: {} });
    await connection.close();
  });
});

describe('with TLS', () => {
  const certificate = certificateFor('plugin.test');

  test.each(['grpcUrl', 'httpUrl'] as const)('a plugin whose authority the mount names is trusted: %s', async (url) => {
    const service = await servePlugin(echo, { grpc: '127.0.0.1:0', http: '127.0.0.1:0', tls: certificate });
    expect(service[url]).toMatch(/^(grpcs|https):/);
    const trusting = { tls: { ca: './cert.pem', serverName: 'plugin.test' } };
    const connection = await connectTo(service[url]!, { baseDir: certificate.folder, options: trusting });
    expect(await connection.ask('authorize', authorize('a'))).toEqual({ allow: { decisions: [true] } });
    await connection.close();
    const strange = await connectTo(service[url]!);
    expect(strange.state).toBe('down');
    await strange.close();
    await service.close();
  });
});
