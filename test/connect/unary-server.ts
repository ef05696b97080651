/** A gRPC service of somebody else's with one unary method, as a test wants it to answer. */
import { fileURLToPath } from 'node:url';
import type { ServerUnaryCall, sendUnaryData } from '@grpc/grpc-js';
import { loadSync, type MethodDefinition, type ServiceDefinition } from '@grpc/proto-loader';
import { listening } from '../contract/ways.ts';

const PROTO = fileURLToPath(new URL('../../proto', import.meta.url));

/** A reply as an object, as bytes, or no reply at all. */
export type Answer = object | Buffer | undefined;
type Call = ServerUnaryCall<Buffer, Buffer>;

/** What a handler may do in place of answering. */
export interface Refused {
  code: number;
  details?: string;
}

/** What is served, and by what scheme a mount reaches it. */
export interface Served {
  scheme: string;
  /** Below `proto/`. */
  file: string;
  service: string;
  method: string;
}

export interface UnaryServer<Asked> {
  /** `scheme://127.0.0.1:PORT`. */
  at: string;
  port: number;
  asked: Asked[];
  /** The metadata of each call. */
  metadata: Record<string, unknown>[];
  /** How many calls the other side took back. */
  cancelled: number;
  [Symbol.asyncDispose](): Promise<void>;
}

/** @param answer gives the reply to each call; `undefined` answers never, `{ code }` with that gRPC status */
export async function unaryServer<Asked>(
  { scheme, file, service, method }: Served,
  answer: (asked: Asked) => Answer | Refused,
  port = 0,
): Promise<UnaryServer<Asked>> {
  const loaded = loadSync(file, { includeDirs: [PROTO], longs: Number })[service] as ServiceDefinition;
  const definition = loaded[method] as MethodDefinition<object, object>;
  const server = { asked: [] as Asked[], metadata: [] as Record<string, unknown>[], cancelled: 0 };
  const handle = (call: Call, reply: sendUnaryData<Buffer>) => {
    const asked = definition.requestDeserialize(call.request) as Asked;
    server.asked.push(asked);
    server.metadata.push(call.metadata.getMap());
    call.on('cancelled', () => {
      server.cancelled += 1;
    });
    const given = answer(asked);
    if (given === undefined) return;
    if ('code' in given) reply({ code: given.code as number, details: (given as Refused).details ?? '' });
    else reply(null, Buffer.isBuffer(given) ? given : definition.responseSerialize(given));
  };
  const asItIs = (bytes: Buffer) => bytes;
  const raw = { ...definition, requestDeserialize: asItIs, responseSerialize: asItIs };
  const { url, close } = await listening(
    (one) => one.addService({ [method]: raw } as never, { [method]: handle } as never),
    port,
  );
  const at = url.replace('grpc:', `${scheme}:`);
  return Object.assign(server, { at, port: Number(new URL(url).port), [Symbol.asyncDispose]: async () => close() });
}
