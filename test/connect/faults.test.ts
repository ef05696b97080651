/** A plugin that failed has not said yes: every fault, by every way, as the connection tells it. */

import { type ServerDuplexStream, type ServerUnaryCall, type sendUnaryData, status } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Connection, HookInput } from '../../gateway/connect/connection.ts';
import type { Description, Hook } from '../../proto/contract.ts';
import { PLUGIN_SERVICE, writeBatch, writeDescribeReply, writeVerdict } from '../../proto/grpc.ts';
import { verdictProblem } from '../../proto/verdict.ts';
import { authorize, prompt } from '../contract/facts.ts';
import { connectTo, listening, type Running, WAYS } from '../contract/ways.ts';
import { calls, faulty, misdeeds } from './faulty-plugin.ts';
import { type Answered, freePort, httpServer, tcpServer } from './foreign.ts';
import { serveProcess } from './process.ts';

/** What became of a question that must not end well: the error, or why the answer is no verdict. */
async function faultOf<H extends Hook>(connection: Connection, hook: H, input: HookInput[H], signal?: AbortSignal) {
  let answer: unknown;
  try {
    answer = await connection.ask(hook, input, { signal });
  } catch (error) {
    return error as Error & { code?: string };
  }
  const problem = verdictProblem(hook, input, answer);
  expect(problem, 'a fault looked like a verdict').toBeDefined();
  return { message: problem! };
}

describe.each(Object.entries(WAYS))('a plugin that misbehaves, by %s', (way, start) => {
  let running: Running;
  beforeAll(async () => {
    running = await start(faulty, undefined);
  });
  afterAll(() => running.close());

  test.each(misdeeds)('%s', async (misdeed) => {
    // What is too large for a wire is not too large in process.
    if (way === 'local' && misdeed === 'too much') return;
    const fault = await faultOf(running.connection, 'request', prompt(misdeed));
    if (way === 'local') return;
    expect(fault.message).not.toContain('hunter2');
    if (misdeed === 'throw') expect(fault).toMatchObject({ name: 'PluginFault', code: 'plugin_threw' });
  });

  test('is asked a hook that it does not answer', async () => {
    await faultOf(running.connection, 'authorize', authorize('a'));
  });

  test('answers soundly after all that', async () => {
    expect(await running.connection.ask('request', prompt('hello'))).toEqual({ allow: {} });
  });

  test('never answers: the caller gives up, and the plugin is told', async () => {
    const before = calls();
    const late = new AbortController();
    const asked = faultOf(running.connection, 'request', prompt('never'), late.signal);
    await vi.waitFor(() => expect(calls().asked).toBe(before.asked + 1));
    late.abort(Object.assign(new Error('late'), { name: 'TimeoutError' }));
    await asked;
    await vi.waitFor(() => expect(calls().aborted).toBe(before.aborted + 1));
    expect(await running.connection.ask('request', prompt('hello'))).toEqual({ allow: {} });
  });
});

describe.each([
  ['grpc', 'grpcUrl'],
  ['http', 'httpUrl'],
] as const)('a plugin process by %s', (_way, url) => {
  test('is killed while a call is under way: the call fails at once', async () => {
    const served = await serveProcess('./test/connect/faulty-plugin.ts');
    const connection = await connectTo(served[url]);
    const asked = served.line('asked');
    const fault = faultOf(connection, 'request', prompt('never'));
    await asked;
    served.child.kill('SIGKILL');
    expect(await fault).toMatchObject({ name: 'PluginUnavailable', code: 'plugin_unavailable' });
    expect(await faultOf(connection, 'request', prompt('hello'))).toMatchObject({ name: 'PluginUnavailable' });
    await connection.close();
  });
});

describe('nobody listens', () => {
  test.each(['grpc', 'http', 'webhook'])(
    'by %s: it connects all the same, and each call is refused',
    async (scheme) => {
      const connection = await connectTo(`${scheme}://127.0.0.1:${await freePort()}`);
      expect(connection.state).toBe('down');
      expect(connection.problem).toMatch(/ECONNREFUSED/);
      expect(await faultOf(connection, 'request', prompt('hello'))).toMatchObject({ name: 'PluginUnavailable' });
      await connection.close();
    },
  );
});

describe('what answers is no plugin', () => {
  test.each(['grpc', 'http', 'webhook'])('garbage bytes by %s', async (scheme) => {
    await using server = await tcpServer((socket) => {
      socket.on('data', () => socket.end(Buffer.from('\x00\x01\xfe\xffgarbage, not a protocol\r\n\r\n', 'latin1')));
    });
    const connection = await connectTo(`${scheme}://${server.address}`, {
      options: scheme === 'http' ? { hooks: ['request'] } : {},
    });
    const fault = await faultOf(connection, 'request', prompt('hello'));
    expect(fault).toMatchObject({ name: 'PluginUnavailable' });
    expect(fault.message).not.toContain('garbage');
    await connection.close();
  });

  test('a server that accepts and says nothing: connecting takes a second, and calls are refused', async () => {
    await using server = await tcpServer(() => {});
    const connection = await connectTo(`grpc://${server.address}`);
    expect(connection.state).toBe('down');
    expect(await faultOf(connection, 'request', prompt('hello'))).toMatchObject({ name: 'PluginUnavailable' });
    await connection.close();
  });

  test('a gRPC server without our service', async () => {
    const server = await listening(() => {});
    const connection = await connectTo(server.url);
    expect(connection).toMatchObject({ state: 'refused', problem: expect.stringContaining('PluginService') });
    await faultOf(connection, 'request', prompt('hello'));
    await connection.close();
    server.close();
  });
});

const ANSWERS: Record<string, Answered> = {
  'a page': { type: 'text/html', body: '<p>{"allow":{}}</p>' },
  'JSON by another name': { type: 'text/plain', body: '{"allow":{}}' },
  'text that is no JSON': { body: 'allow' },
  'half of a JSON': { body: '{"allow":' },
  'a connection that breaks within the answer': { broken: true },
  nothing: { body: '' },
  'a list': { body: '[]' },
  null: { body: 'null' },
  'an empty object': { body: '{}' },
  '500 with a verdict': { status: 500, body: '{"allow":{}}' },
  '503': { status: 503, body: '{"allow":{}}' },
  '302 to a verdict': { status: 302, body: '{"allow":{}}' },
  '204': { status: 204 },
  'more than 16 MiB': { body: JSON.stringify({ allow: { more: 'x'.repeat(17 * 1024 * 1024) } }) },
};

describe.each(['http', 'webhook'])('%s answers', (scheme) => {
  test.each(Object.entries(ANSWERS))('%s', async (_title, answered) => {
    await using server = await httpServer(({ path }) => (path === '/request' ? answered : { status: 404 }));
    const connection = await connectTo(`${scheme}://${server.address}`, { options: { hooks: ['request'] } });
    expect(connection.state).toBe('up');
    await faultOf(connection, 'request', prompt('hello'));
    await connection.close();
  });
});

type Reply = (call: ServerUnaryCall<Buffer, Buffer>, reply: sendUnaryData<Buffer>) => void;
type Session = (stream: ServerDuplexStream<Buffer, Buffer>) => void;

/** A plugin in another language, say, that gets something wrong. */
function grpcPlugin(call: Reply, session?: Session) {
  const description: Description = { contract: 1, name: 'foreign', version: '1', hooks: ['request'], rewrites: false };
  const Describe: Reply = (_call, reply) => reply(null, writeDescribeReply(description, 'i') as Buffer);
  return listening((server) => {
    if (session) server.addService(PLUGIN_SERVICE, { Describe, Call: call, Session: session });
    else server.addService({ Describe: PLUGIN_SERVICE.Describe, Call: PLUGIN_SERVICE.Call }, { Describe, Call: call });
  });
}

const BAD_BYTES: Record<string, Buffer> = {
  'an empty message': Buffer.alloc(0),
  garbage: Buffer.from([0xff, 0xff, 0xff, 0xff, 0x0f, 0x01]),
  'a verdict of another call': writeBatch([writeVerdict(4_711, { allow: {} })]),
  'a reply without a verdict': writeBatch([Buffer.from([0x08, 0x01])]),
  'a verdict of another hook': writeBatch([writeVerdict(1, { release: { release: 'x', hold: '' } })]),
};

describe('a foreign plugin over gRPC', () => {
  test.each(Object.entries(BAD_BYTES))('answers the session with %s', async (_title, bytes) => {
    const server = await grpcPlugin(
      () => {},
      (stream) => stream.on('data', () => stream.write(bytes)),
    );
    const connection = await connectTo(server.url);
    const late = AbortSignal.timeout(500);
    await faultOf(connection, 'request', prompt('hello'), late);
    await connection.close();
    server.close();
  });

  test.each([status.INTERNAL, status.RESOURCE_EXHAUSTED, status.UNAVAILABLE, status.PERMISSION_DENIED])(
    'ends the session with status %i: what was asked fails at once',
    async (code) => {
      const server = await grpcPlugin(
        () => {},
        (stream) => stream.on('data', () => stream.emit('error', { code, details: 'the prompt was hello' })),
      );
      const connection = await connectTo(server.url);
      const fault = await faultOf(connection, 'request', prompt('hello'));
      expect(fault).toMatchObject({ name: 'PluginUnavailable' });
      expect(fault.message).not.toContain('hello');
      await connection.close();
      server.close();
    },
  );

  test.each([status.INTERNAL, status.UNAVAILABLE, status.FAILED_PRECONDITION, status.UNIMPLEMENTED])(
    'answers a call with status %i',
    async (code) => {
      const server = await grpcPlugin((_call, reply) => reply({ code, details: 'the prompt was hello' }));
      const connection = await connectTo(server.url);
      const fault = await faultOf(connection, 'request', prompt('hello'));
      expect(fault.message).not.toContain('hello');
      await connection.close();
      server.close();
    },
  );

  test('sends more than 16 MiB', async () => {
    const huge = Buffer.alloc(17 * 1024 * 1024);
    const server = await grpcPlugin((_call, reply) => reply(null, huge));
    const connection = await connectTo(server.url);
    await faultOf(connection, 'request', prompt('hello'));
    await connection.close();
    server.close();
  });

  test('is not sent a call of more than 16 MiB, and others are not harmed by it', async () => {
    const running = await WAYS['grpc Session']!(faulty, undefined);
    const late = faultOf(running.connection, 'request', prompt('x'.repeat(17 * 1024 * 1024)));
    const other = running.connection.ask('request', prompt('hello'));
    expect(await late).toMatchObject({ code: 'too_large' });
    expect(await other).toEqual({ allow: {} });
    await running.close();
  });
});
