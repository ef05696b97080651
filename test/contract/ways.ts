/** Runs a plugin in every place that it can run in, and connects to it there. */
import {
  Client,
  credentials,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { connect } from '../../gateway/connect/connect.ts';
import type { Connection, Endpoint } from '../../gateway/connect/connection.ts';
import { servePlugin } from '../../plugins/serve.ts';
import type { PluginFactory } from '../../proto/contract.ts';
import { PLUGIN_SERVICE } from '../../proto/grpc.ts';

export interface Running {
  connection: Connection;
  close(): Promise<void>;
}

export type Way = (factory: PluginFactory, config: unknown) => Promise<Running>;

/** The four ways of our own contract. */
export const WAYS: Record<string, Way> = {
  local: async (factory, config) => {
    const connection = await connectTo('local:it', { config }, { it: factory });
    return { connection, close: () => connection.close() };
  },
  'grpc Session': async (factory, config) => {
    const service = await servePlugin(factory, { grpc: '127.0.0.1:0' });
    return running(await connectTo(service.grpcUrl!, { config }), service);
  },
  'grpc Call': async (factory, config) => {
    const service = await servePlugin(factory, { grpc: '127.0.0.1:0' });
    const front = await withoutSession(service.grpcUrl!.replace('grpc://', ''));
    return running(await connectTo(front.url, { config }), front, service);
  },
  http: async (factory, config) => {
    const service = await servePlugin(factory, { http: '127.0.0.1:0' });
    return running(await connectTo(service.httpUrl!, { config }), service);
  },
};

function endpoint(at: string, more: Partial<Endpoint> = {}): Endpoint {
  const log = { info: () => {}, warn: () => {} };
  return { name: 'it', at, config: undefined, baseDir: import.meta.dirname, options: {}, log, ...more };
}

export function connectTo(at: string, more: Partial<Endpoint> = {}, factories: Record<string, PluginFactory> = {}) {
  return connect(endpoint(at, more), factories);
}

function running(connection: Connection, ...services: { close(): Promise<void> }[]): Running {
  const close = async () => {
    await connection.close();
    for (const service of services) await service.close();
  };
  return { connection, close };
}

/** A plugin service that offers `Call` alone, in front of one that offers everything. */
async function withoutSession(address: string): Promise<{ url: string; close(): Promise<void> }> {
  const client = new Client(address, credentials.createInsecure());
  const asItIs = (bytes: Buffer) => bytes;
  const forward = (path: string) => (call: ServerUnaryCall<Buffer, Buffer>, reply: sendUnaryData<Buffer>) => {
    const onward = client.makeUnaryRequest(path, asItIs, asItIs, call.request, (error, bytes) => reply(error, bytes));
    call.on('cancelled', () => onward.cancel());
  };
  const { Describe, Call } = PLUGIN_SERVICE;
  const server = await listening((one) =>
    one.addService({ Describe, Call }, { Describe: forward(Describe.path), Call: forward(Call.path) }),
  );
  const close = async () => {
    server.close();
    client.close();
  };
  return { url: server.url, close };
}

/** A gRPC server on a free port of this machine. */
export async function listening(furnish: (server: Server) => void, port = 0): Promise<{ url: string; close(): void }> {
  const server = new Server();
  furnish(server);
  const taken = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return { url: `grpc://127.0.0.1:${taken}`, close: () => server.forceShutdown() };
}
