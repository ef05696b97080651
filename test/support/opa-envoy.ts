/**
 * The wire side of opa-envoy-plugin before any OPA: for machines where the image openpolicyagent/opa:…-envoy is not to
 * be had. It turns a check of Envoy's ext_authz into the input that the plugin makes of it, has the OPA at `opa` evaluate
 * a package, and turns the decision back, after the plugin's documentation (openpolicyagent.org/docs/envoy-primer).
 *
 *     node test/support/opa-envoy.ts http://127.0.0.1:8181 127.0.0.1:9191
 */
import { fileURLToPath } from 'node:url';
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

export interface OpaEnvoy {
  /** `host:port` that speaks gRPC. */
  address: string;
  stop(): Promise<void>;
}

type Json = Record<string, unknown>;
interface Check {
  attributes?: {
    request?: { http?: { path?: string; headers?: Record<string, string>; body?: string } };
    metadataContext?: { filterMetadata?: Record<string, Struct> };
  };
}
interface Struct {
  fields?: Record<string, Value>;
}
interface Value {
  kind?: string;
  structValue?: Struct;
  listValue?: { values?: Value[] };
  [kind: string]: unknown;
}

const PROTO = fileURLToPath(new URL('../../proto', import.meta.url));
const { OK, PERMISSION_DENIED, UNKNOWN } = grpc.status;

/** Serves at a free port of 127.0.0.1, or at `address`. `query` is the decision's path, as in `data.authz`. */
export async function startOpaEnvoy(opa: string, query = 'authz', address = '127.0.0.1:0'): Promise<OpaEnvoy> {
  const definition = loadSync('envoy/service/auth/v3/external_auth.proto', {
    includeDirs: [PROTO],
    longs: String,
    enums: String,
    oneofs: true,
  });
  const server = new grpc.Server();
  server.addService(definition['envoy.service.auth.v3.Authorization'] as grpc.ServiceDefinition, {
    check: (call: grpc.ServerUnaryCall<Check, Json>, reply: grpc.sendUnaryData<Json>) => {
      decide(`${opa}/v1/data/${query}`, call.request).then(
        (decision) => reply(null, decision),
        (error: Error) => reply({ code: UNKNOWN, details: error.message }),
      );
    },
  });
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (error, port) =>
    error ? reject(error) : resolve(port),
  );
  const port = await promise;
  return { address: `${address.replace(/:\d+$/, '')}:${port}`, stop: async () => server.forceShutdown() };
}

async function decide(url: string, check: Check): Promise<Json> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ input: inputOf(check) }),
    signal: AbortSignal.timeout(5_000),
  });
  const { result } = (await response.json()) as { result?: unknown };
  if (!response.ok) throw new Error(`OPA answers with status ${response.status}`);
  return responseTo(result);
}

function inputOf(check: Check): Json {
  const { path = '', headers = {}, body = '' } = check.attributes?.request?.http ?? {};
  const url = new URL(`http://opa${path}`);
  const truncated =
    headers['x-envoy-auth-partial-body'] === 'true' || Number(headers['content-length'] ?? 0) > Buffer.byteLength(body);
  const readable = headers['content-type']?.includes('application/json') && body !== '' && !truncated;
  return {
    attributes: { ...check.attributes, metadataContext: metadataOf(check) },
    parsed_path: url.pathname.slice(1).split('/').map(decodeURIComponent),
    parsed_query: Object.fromEntries([...url.searchParams.keys()].map((name) => [name, url.searchParams.getAll(name)])),
    parsed_body: readable ? JSON.parse(body) : null,
    truncated_body: truncated,
    version: { ext_authz: 'v3', encoding: 'protojson' },
  };
}

function metadataOf(check: Check): Json {
  const filters = Object.entries(check.attributes?.metadataContext?.filterMetadata ?? {});
  return { filterMetadata: Object.fromEntries(filters.map(([name, struct]) => [name, plain(struct)])) };
}

/** google.protobuf.Struct as the JSON that it stands for. */
function plain(struct: Struct = {}): Json {
  return Object.fromEntries(Object.entries(struct.fields ?? {}).map(([name, value]) => [name, plainValue(value)]));
}

function plainValue(value: Value): unknown {
  if (value.kind === 'structValue') return plain(value.structValue);
  if (value.kind === 'listValue') return (value.listValue?.values ?? []).map(plainValue);
  return value.kind === undefined || value.kind === 'nullValue' ? null : value[value.kind];
}

/** A decision is true, false, or an object with `allowed`; anything else is an error, and so no decision. */
function responseTo(decision: unknown): Json {
  if (typeof decision === 'boolean') return { status: { code: decision ? OK : PERMISSION_DENIED } };
  if (decision === undefined) throw new Error('the decision is undefined');
  const { allowed, headers, body, http_status, response_headers_to_add, request_headers_to_remove } = decision as Json;
  if (typeof allowed !== 'boolean') throw new Error('the decision has no boolean `allowed`');
  if (allowed) {
    const okResponse = {
      headers: headerList(headers),
      headersToRemove: request_headers_to_remove ?? [],
      responseHeadersToAdd: headerList(response_headers_to_add),
    };
    return { status: { code: OK }, okResponse };
  }
  const deniedResponse = { status: { code: http_status ?? 403 }, headers: headerList(headers), body: body ?? '' };
  return { status: { code: PERMISSION_DENIED }, deniedResponse };
}

/** An object or a list of objects; a value is a string or a list of strings. */
function headerList(headers: unknown): Json[] {
  const objects = (Array.isArray(headers) ? headers : [headers ?? {}]) as Json[];
  const pairs = objects.flatMap((object) => Object.entries(object));
  return pairs.flatMap(([key, value]) => [value].flat().map((one) => ({ header: { key, value: one } })));
}

const [opa, address] = process.argv.slice(2);
if (import.meta.main && opa !== undefined) {
  const envoy = await startOpaEnvoy(opa, 'authz', address);
  console.log(`ext_authz at ${envoy.address}, decided by ${opa}`);
}
