/** What every way to a foreign gRPC service does about one that is away, slow, not what it should be, or behind TLS. */
import { tmpdir } from 'node:os';
import { Server, ServerCredentials, status } from '@grpc/grpc-js';
import { describe, expect, test, vi } from 'vitest';
import type { Connection, EndpointOptions } from '../../gateway/connect/connection.ts';
import { connectTo, listening } from '../contract/ways.ts';
import { certificateFor } from '../support/certificate.ts';
import { freePort, tcpServer } from './foreign.ts';
import type { Answer, Refused, UnaryServer } from './unary-server.ts';

export interface UnaryWay {
  scheme: string;
  serve(answer: () => Answer | Refused, port?: number): Promise<UnaryServer<unknown>>;
  /** Asks something, and gives a sound verdict or the error. */
  ask(connection: Connection, signal?: AbortSignal): Promise<unknown>;
  /** A reply that allows. */
  yes: object;
  /** Part of the name of what is missing at an address where there is something else. */
  service: string;
  config?: unknown;
}

export function itIsAUnaryWay({ scheme, serve, ask, yes, service, config }: UnaryWay): void {
  const connectAt = (address: string, options: EndpointOptions = {}, baseDir = tmpdir()) =>
    connectTo(`${scheme}://${address}`, { config, options, baseDir });

  async function withService(
    answer: () => Answer | Refused,
    use: (connection: Connection, server: UnaryServer<unknown>) => Promise<void>,
    options: EndpointOptions = {},
  ): Promise<void> {
    await using server = await serve(answer);
    const connection = await connectAt(`127.0.0.1:${server.port}`, options);
    await use(connection, server).finally(() => connection.close());
  }

  test('nobody listens: it connects all the same, and each call is refused', async () => {
    const connection = await connectAt(`127.0.0.1:${await freePort()}`);
    expect(connection.state).toBe('down');
    expect(connection.problem).toMatch(/ECONNREFUSED/);
    expect(await ask(connection)).toMatchObject({ name: 'PluginUnavailable' });
    await connection.close();
  });

  test('garbage', async () => {
    await using server = await tcpServer((socket) => {
      socket.on('data', () => socket.end(Buffer.from('\x00\x01\xfe\xffgarbage\r\n\r\n', 'latin1')));
    });
    const connection = await connectAt(server.address);
    expect(connection.state).toBe('down');
    const fault = (await ask(connection)) as Error;
    expect(fault).toMatchObject({ name: 'PluginUnavailable' });
    expect(fault.message).not.toContain('garbage');
    await connection.close();
  });

  test('a server that accepts and says nothing: connecting takes a second, calls as long as their deadline', async () => {
    await using server = await tcpServer(() => {});
    const connection = await connectAt(server.address);
    expect(connection.state).toBe('down');
    expect(await ask(connection, AbortSignal.timeout(50))).toMatchObject({ code: 'cancelled' });
    await connection.close();
  });

  test.each([
    status.UNKNOWN,
    status.INTERNAL,
    status.PERMISSION_DENIED,
    status.RESOURCE_EXHAUSTED,
    status.DEADLINE_EXCEEDED,
    status.UNAVAILABLE,
  ])('a call that fails by the code %i decides nothing, and what the service says of it stays unsaid', (code) =>
    withService(
      () => ({ code, details: 'jo asked' }),
      async (connection) => {
        const fault = (await ask(connection)) as Error;
        expect(fault).toBeInstanceOf(Error);
        expect(fault.name).toBe(code === status.UNAVAILABLE ? 'PluginUnavailable' : 'PluginFault');
        expect(fault.message).not.toContain('jo asked');
      },
    ),
  );

  test('no answer: the caller gives up, and the call is taken back', () =>
    withService(
      () => undefined,
      async (connection, server) => {
        const late = new AbortController();
        const outcome = ask(connection, late.signal);
        await vi.waitFor(() => expect(server.asked).toHaveLength(1));
        late.abort(Object.assign(new Error('late'), { name: 'TimeoutError' }));
        expect(await outcome).toMatchObject({ code: 'cancelled' });
        await vi.waitFor(() => expect(server.cancelled).toBe(1));
        expect(await ask(connection, late.signal)).toMatchObject({ code: 'cancelled' });
        expect(server.asked).toHaveLength(1);
      },
    ));

  test('a gRPC server that serves something else is told to the operator', async () => {
    const server = await listening(() => {});
    const connection = await connectAt(server.url.replace('grpc://', ''));
    expect(await ask(connection)).toMatchObject({ code: 'grpc_error' });
    expect(connection).toMatchObject({ state: 'refused', problem: expect.stringContaining(service) });
    await connection.close();
    server.close();
  });

  test('a service that comes back is asked again', async () => {
    const port = await freePort();
    const connection = await connectAt(`127.0.0.1:${port}`);
    expect(connection.state).toBe('down');
    {
      await using _server = await serve(() => yes, port);
      await vi.waitFor(() => expect(connection.state).toBe('up'), 5_000);
      expect(await ask(connection)).toHaveProperty('allow');
    }
    await vi.waitFor(async () => expect(await ask(connection)).toMatchObject({ name: 'PluginUnavailable' }));
    await using _again = await serve(() => yes, port);
    await vi.waitFor(async () => expect(await ask(connection)).toHaveProperty('allow'), 5_000);
    await connection.close();
  });

  test('one that is away too often is not asked for a while, and watched until it is back', async () => {
    let answer: Answer | Refused = { code: status.UNAVAILABLE };
    const options = { breaker: { failures: 2, openMs: 60_000 } };
    await withService(
      () => answer,
      async (connection, server) => {
        await ask(connection);
        await ask(connection);
        expect(connection.state).toBe('down');
        expect(await ask(connection)).toMatchObject({ code: 'breaker_open' });
        expect(server.asked).toHaveLength(2);
        answer = yes;
        await vi.waitFor(() => expect(connection.state).toBe('up'));
        expect(await ask(connection)).toHaveProperty('allow');
      },
      options,
    );
  });

  test('calls under way end when it is closed, and none is made afterwards', () =>
    withService(
      () => undefined,
      async (connection, server) => {
        const outcome = ask(connection);
        await vi.waitFor(() => expect(server.asked).toHaveLength(1));
        await connection.close();
        expect(await outcome).toMatchObject({ name: 'PluginUnavailable' });
        expect(await ask(connection)).toMatchObject({ name: 'PluginUnavailable' });
        await connection.close();
      },
    ));

  test.each(['host', 'user@host:1', 'host:1/path'])('%s makes no sense as an address', async (address) => {
    await expect(connectAt(address)).rejects.toThrow(`${scheme}:// is followed by host:port`);
  });

  describe('with TLS', () => {
    const certificate = certificateFor('service.test');

    test('a service whose authority the mount names is trusted, another is not', async () => {
      const server = new Server();
      const pair = [{ cert_chain: Buffer.from(certificate.cert), private_key: Buffer.from(certificate.key) }];
      const port = await new Promise<number>((resolve, reject) => {
        server.bindAsync('127.0.0.1:0', ServerCredentials.createSsl(null, pair), (error, bound) =>
          error ? reject(error) : resolve(bound),
        );
      });
      const stateWith = async (tls?: EndpointOptions['tls']) => {
        const connection = await connectAt(`127.0.0.1:${port}`, { tls }, certificate.folder);
        await connection.close();
        return connection.state;
      };
      expect(await stateWith({ ca: './cert.pem', serverName: 'service.test' })).toBe('up');
      expect(await stateWith({ serverName: 'service.test' })).toBe('down');
      expect(await stateWith()).toBe('down');
      server.forceShutdown();
    });
  });
}
