import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import {
  Client,
  credentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { servePlugin } from '../../plugins/serve.ts';
import type { Description } from '../../proto/contract.ts';
import {
  PLUGIN_SERVICE,
  type ReadCall,
  readCalls,
  writeBatch,
  writeDescribeReply,
  writeVerdict,
} from '../../proto/grpc.ts';
import { echo } from '../contract/echo-plugin.ts';
import { authorize, limit, prompt } from '../contract/facts.ts';
import { connectTo, listening } from '../contract/ways.ts';
import { freePort } from './foreign.ts';
import { losesNothing } from './forgetful.ts';

type Stream = ServerDuplexStream<Buffer, Buffer>;
type Unary = ServerUnaryCall<Buffer, Buffer>;

const description: Description = { contract: 1, name: 'raw', version: '1', hooks: ['limit'], rewrites: false };

/** A plugin of which every message can be seen. */
function raw(session: (stream: Stream, calls: ReadCall[]) => void, more: { port?: number; version?: string } = {}) {
  const seen = { describes: [] as Unary[], sessions: [] as Stream[] };
  const health = new HealthImplementation({ '': 'SERVING' });
  const started = listening((server) => {
    health.addToServer(server);
    server.addService(PLUGIN_SERVICE, {
      Describe: (call: Unary, reply: sendUnaryData<Buffer>) => {
        seen.describes.push(call);
        reply(null, writeDescribeReply({ ...description, version: more.version ?? '1' }, 'i-1') as Buffer);
      },
      Call: () => {},
      Session: (stream: Stream) => {
        seen.sessions.push(stream);
        stream.on('error', () => {});
        stream.on('data', (bytes: Buffer) => session(stream, readCalls(bytes)));
      },
    });
  }, more.port);
  return started.then((server) => ({ ...server, ...seen, health }));
}

const allow = (...ids: number[]) => writeBatch(ids.map((id) => writeVerdict(id, { allow: { grant: `g${id}` } })));
const answerAll = (stream: Stream, calls: ReadCall[]) => stream.write(allow(...calls.map(({ id }) => id)));

afterEach(() => {
  vi.restoreAllMocks();
});

describe('a session', () => {
  test('carries the calls of one tick in one message, and takes answers in any order', async () => {
    const batches: ReadCall[][] = [];
    const server = await raw((stream, calls) => {
      batches.push(calls);
      stream.write(allow(...calls.map(({ id }) => id).reverse()));
    });
    const connection = await connectTo(server.url);
    const answers = await Promise.all([1, 2, 3].map((tokens) => connection.ask('limit', limit(tokens))));
    expect(answers).toEqual([{ allow: { grant: 'g1' } }, { allow: { grant: 'g2' } }, { allow: { grant: 'g3' } }]);
    expect(batches.map((calls) => calls.length)).toEqual([3]);
    expect(batches[0]!.map(({ instance }) => instance)).toEqual(['i-1', 'i-1', 'i-1']);
    await connection.close();
    server.close();
  });

  test('tells the plugin when a caller gives up, and takes no answer after that', async () => {
    const calls: ReadCall[] = [];
    const server = await raw((stream, batch) => {
      calls.push(...batch);
      if (batch.some(({ cancel }) => cancel)) stream.write(allow(1));
    });
    const connection = await connectTo(server.url);
    const gone = new AbortController();
    const asked = Promise.resolve(connection.ask('limit', limit(), { signal: gone.signal }));
    await vi.waitFor(() => expect(calls).toHaveLength(1));
    gone.abort();
    await expect(asked).rejects.toMatchObject({ code: 'cancelled' });
    await vi.waitFor(() => expect(calls[1]).toMatchObject({ id: 1, cancel: true }));
    await connection.close();
    server.close();
  });

  test('is not opened for a call that nobody waits for', async () => {
    const server = await raw(answerAll);
    const connection = await connectTo(server.url);
    await expect(connection.ask('limit', limit(), { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'cancelled',
    });
    await connection.close();
    server.close();
  });

  test('that the plugin ends in good order loses nothing: what it did not read is asked again', async () => {
    let first = true;
    const server = await raw((stream, calls) => {
      if (!first) return answerAll(stream, calls);
      first = false;
      return stream.end();
    });
    const connection = await connectTo(server.url);
    olderBy(10_000);
    expect(await connection.ask('limit', limit())).toEqual({ allow: { grant: 'g1' } });
    expect(server.sessions).toHaveLength(2);
    await connection.close();
    server.close();
  });

  test('that breaks again and again is not opened in a hurry', async () => {
    const server = await raw((stream) => stream.end());
    const connection = await connectTo(server.url);
    await expect(connection.ask('limit', limit())).rejects.toMatchObject({ name: 'PluginUnavailable' });
    expect(connection).toMatchObject({ state: 'down', problem: 'it ended the session' });
    expect(server.sessions).toHaveLength(1);
    await connection.close();
    server.close();
  });

  test('is opened for each of the connections that the mount wants, and they take turns', async () => {
    const server = await raw(answerAll);
    const connection = await connectTo(server.url, { options: { connections: 3 } });
    await vi.waitFor(() => expect(server.sessions).toHaveLength(3));
    expect(new Set(server.sessions.map((stream) => stream.getPeer())).size).toBe(3);
    await connection.close();
    server.close();
  });

  test('fails what is under way when the connection is closed', async () => {
    const server = await raw(() => {});
    const connection = await connectTo(server.url);
    const asked = connection.ask('limit', limit());
    await connection.close();
    await connection.close();
    await expect(asked).rejects.toMatchObject({ name: 'PluginUnavailable' });
    await expect(connection.ask('limit', limit())).rejects.toMatchObject({ name: 'PluginUnavailable' });
    server.close();
  });
});

describe('a plugin over gRPC', () => {
  test('gets the headers of the mount with all that it is asked', async () => {
    const server = await raw(answerAll);
    const connection = await connectTo(server.url, { options: { headers: { 'x-api-key': 'k' } } });
    await connection.ask('limit', limit());
    expect(server.describes[0]!.metadata.get('x-api-key')).toEqual(['k']);
    expect(server.sessions[0]!.metadata.get('x-api-key')).toEqual(['k']);
    await connection.close();
    server.close();
  });

  test('that was down is reached when it comes, and tells its description then', async () => {
    const port = await freePort();
    const connection = await connectTo(`grpc://127.0.0.1:${port}`);
    const told = new Promise<void>((resolve) => connection.onDescription(resolve));
    expect(connection).toMatchObject({ state: 'down', description: undefined });
    const server = await raw(answerAll, { port });
    await told;
    expect(connection).toMatchObject({ state: 'up', problem: undefined, description: { name: 'raw' } });
    expect(await connection.ask('limit', limit())).toEqual({ allow: { grant: 'g1' } });
    await connection.close();
    server.close();
  });

  test('that is replaced by another version tells its new description', async () => {
    const server = await raw(answerAll);
    const connection = await connectTo(server.url);
    const versions: string[] = [];
    const told = new Promise<void>((resolve) =>
      connection.onDescription(() => {
        versions.push(connection.description!.version);
        resolve();
      }),
    );
    server.close();
    const again = await raw(answerAll, { port: Number(server.url.split(':').at(-1)), version: '2' });
    await told;
    expect(versions).toEqual(['2']);
    expect(await connection.ask('limit', limit())).toEqual({ allow: { grant: 'g1' } });
    await connection.close();
    again.close();
  });

  test('that refuses its config is refused with its reasons', async () => {
    const service = await servePlugin(echo, { grpc: '127.0.0.1:0' });
    const connection = await connectTo(service.grpcUrl!, { config: { refuse: true } });
    expect(connection).toMatchObject({ state: 'refused', problem: 'refuse: must not be true', description: undefined });
    await expect(connection.ask('request', prompt('hello'))).rejects.toMatchObject({ name: 'PluginUnavailable' });
    await connection.close();
    await service.close();
  });

  test('that has forgotten its config gets it again, and no call is lost', () => losesNothing({ grpc: '127.0.0.1:0' }));

  test('that says that it is not serving is down, and up again when it says so', async () => {
    const server = await raw(answerAll);
    const connection = await connectTo(server.url);
    await connection.ask('limit', limit());
    server.health.setStatus('', 'NOT_SERVING');
    await vi.waitFor(() =>
      expect(connection).toMatchObject({ state: 'down', problem: 'it says that it is not serving' }),
    );
    server.health.setStatus('', 'SERVING');
    await vi.waitFor(() => expect(connection.state).toBe('up'));
    await connection.close();
    server.close();
  });

  test('that stops while calls come in answers what it has read', async () => {
    const service = await servePlugin(echo, { grpc: '127.0.0.1:0' });
    const connection = await connectTo(service.grpcUrl!);
    await connection.ask('authorize', authorize('a'));
    const asked = Array.from({ length: 50 }, () => connection.ask('authorize', authorize('a')));
    await asked[0];
    await service.close();
    for (const one of await Promise.allSettled(asked)) expect(one.status).toBe('fulfilled');
    await connection.close();
  });
});

describe('what is no contract', () => {
  test('ends its own session, and the service goes on', async () => {
    const service = await servePlugin(echo, { grpc: '127.0.0.1:0' });
    const connection = await connectTo(service.grpcUrl!);
    const client = new Client(service.grpcUrl!.replace('grpc://', ''), credentials.createInsecure());
    const asItIs = (bytes: Buffer) => bytes;
    const { Session, Call, Describe } = PLUGIN_SERVICE;
    const session = client.makeBidiStreamRequest(Session.path, asItIs, asItIs);
    session.on('error', () => {});
    const ended = new Promise((resolve) => session.on('status', resolve));
    session.write(Buffer.from([0xff, 0xff]));
    expect(await ended).toMatchObject({ code: status.INVALID_ARGUMENT });
    for (const { path } of [Call, Describe]) {
      const error = new Promise((resolve) => {
        client.makeUnaryRequest(path, asItIs, asItIs, Buffer.from([0xff, 0xff]), resolve);
      });
      expect(await error).toMatchObject({ code: status.INVALID_ARGUMENT });
    }
    expect(await connection.ask('authorize', authorize('a'))).toEqual({ allow: { decisions: [true] } });
    client.close();
    await connection.close();
    await service.close();
  });
});

describe('the process', () => {
  test.each(['grpc', 'http', 'webhook'])('is not kept alive by a closed %s connection', async (scheme) => {
    const { connectUrl } = { connectUrl: new URL('../../gateway/connect/connect.ts', import.meta.url).href };
    const at = `${scheme}://127.0.0.1:${await freePort()}`;
    const code = `import { connect } from '${connectUrl}';
      const log = { info() {}, warn() {} };
      const connection = await connect({ name: 'x', at: '${at}', baseDir: '.', options: {}, log }, {});
      await connection.close();
      console.log('closed');`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', code], {
      timeout: 10_000,
    });
    expect(stdout).toBe('closed\n');
  });
});

/** Time goes on by `ms`, for who measures how long something lived. */
function olderBy(ms: number): void {
  const now = performance.now.bind(performance);
  vi.spyOn(performance, 'now').mockImplementation(() => now() + ms);
}
