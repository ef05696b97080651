/** A service that authorises for Envoy, as a test wants it to answer. */
import { type Answer, type Refused, type Served, type UnaryServer, unaryServer } from './unary-server.ts';

const CHECK: Served = {
  scheme: 'ext-authz',
  file: 'envoy/service/auth/v3/external_auth.proto',
  service: 'envoy.service.auth.v3.Authorization',
  method: 'Check',
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

export type AuthzServer = UnaryServer<Asked>;

/** @param answer gives the reply to each check; `undefined` answers never, `{ code }` with that gRPC status */
export function authzServer(answer: (asked: Asked) => Answer | Refused, port = 0): Promise<AuthzServer> {
  return unaryServer(CHECK, answer, port);
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
