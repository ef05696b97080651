/** A service that authorises for Envoy, as a test wants it to answer. */
import { fileURLToPath } from 'node:url';
import type { ServerUnaryCall, sendUnaryData } from '@grpc/grpc-js';
import { loadSync, type MethodDefinition, type ServiceDefinition } from '@grpc/proto-loader';
import { listening } from '../contract/ways.ts';

const PROTO = fileURLToPath(new URL('../../proto', import.meta.url));
const loaded = loadSync('envoy/service/auth/v3/external_auth.proto', { includeDirs: [PROTO], longs: Number });
const { Check } = loaded['envoy.service.auth.v3.Authorization'] as ServiceDefinition & {
  Check: MethodDefinition<object, object>;
};

/** The parts of a CheckRequest that tests look at. */
export interface Asked {
  attributes: {
    request: {
      time: { seconds: number };
      http: { headers: Record<string, string>; body?: string; size: number; [field: string]: unknown };
    };
    contextExtensions?: Record<string, string>;
    metadataContext: { filterMetadata: Record<string, Struct> };
  };
}

interface Struct {
  fields?: Record<string, Value>;
}

interface Value {
  structValue?: Struct;
  listValue?: { values?: Value[] };
  nullValue?: number;
  stringValue?: string;
  numberValue?: number;
  boolValue?: boolean;
}

/** A reply as an object, as bytes, or no reply at all. */
export type Answer = object | Buffer | undefined;
type Call = ServerUnaryCall<Buffer, Buffer>;

/** What a handler may do in place of answering. */
export interface Refused {
  code: number;
  details?: string;
}

export interface AuthzServer {
  /** `ext-authz://127.0.0.1:PORT`. */
  at: string;
  port: number;
  asked: Asked[];
  /** The metadata of each call. */
  metadata: Record<string, unknown>[];
  /** How many calls the other side took back. */
  cancelled: number;
  [Symbol.asyncDispose](): Promise<void>;
}

/** @param answer gives the reply to each check; `undefined` answers never, `{ code }` with that gRPC status */
export async function authzServer(answer: (asked: Asked) => Answer | Refused, port = 0): Promise<AuthzServer> {
  const server = { asked: [] as Asked[], metadata: [] as Record<string, unknown>[], cancelled: 0 };
  const check = (call: Call, reply: sendUnaryData<Buffer>) => {
    const asked = Check.requestDeserialize(call.request) as Asked;
    server.asked.push(asked);
    server.metadata.push(call.metadata.getMap());
    call.on('cancelled', () => {
      server.cancelled += 1;
    });
    const given = answer(asked);
    if (given === undefined) return;
    if ('code' in given) reply({ code: given.code as number, details: (given as Refused).details ?? '' });
    else reply(null, Buffer.isBuffer(given) ? given : Check.responseSerialize(given));
  };
  const asItIs = (bytes: Buffer) => bytes;
  const method = { ...Check, requestDeserialize: asItIs, responseSerialize: asItIs };
  const { url, close } = await listening((one) => one.addService({ Check: method } as never, { Check: check }), port);
  const at = url.replace('grpc:', 'ext-authz:');
  return Object.assign(server, { at, port: Number(new URL(url).port), [Symbol.asyncDispose]: async () => close() });
}

/** A google.protobuf.Struct as the JSON that it stands for. */
export function plain({ fields = {} }: Struct): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, plainValue(value)]));
}

function plainValue(value: Value): unknown {
  if (value.structValue) return plain(value.structValue);
  if (value.listValue) return (value.listValue.values ?? []).map(plainValue);
  return value.stringValue ?? value.numberValue ?? value.boolValue ?? null;
}
