/**
 * `ext-authz://host:port`: a service that authorises for Envoy (envoy.service.auth.v3 over gRPC), such as opa-envoy or
 * Authorino, as it is.
 *
 * It answers `authorize`, one `Check` a call, and sees what the mount shows it: the headers that it names, as much of the
 * body as it says, the route's context as `context_extensions`, the identity as the claims of Envoy's JWT filter. What the
 * service would change in the request, or add to a good answer, is not done.
 */
import { fileURLToPath } from 'node:url';
import { Client, type ClientUnaryCall, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { loadSync, type MethodDefinition, type ServiceDefinition } from '@grpc/proto-loader';
import {
  type AllowOrReject,
  type AuthorizeInput,
  type CallOptions,
  CONTRACT_VERSION,
  type Description,
  type Hook,
} from '../../proto/contract.ts';
import { DESCRIBE_MS } from './backoff.ts';
import {
  type Connection,
  type Endpoint,
  EndpointProblem,
  type HookInput,
  PluginFault,
  PluginUnavailable,
} from './connection.ts';
import { type CheckResponse, verdictIn } from './ext-authz-reply.ts';
import { checkRequest } from './ext-authz-request.ts';
import { Line } from './line.ts';
import { readTls } from './tls.ts';

/** The largest reply that is read, in bytes. */
const MAX_REPLY = 1024 * 1024;
/** Calls that wait for their answer; more are refused at once. */
const MAX_PENDING = 10_000;
/** A call that nobody cancels is given up after this time, in milliseconds: deadlines are set elsewhere. */
const LONGEST_MS = 60_000;

const CHANNEL_OPTIONS = {
  'grpc.max_receive_message_length': MAX_REPLY,
  // A peer that vanished without a word is noticed within 70 seconds. More often would be `too_many_pings` to some.
  'grpc.keepalive_time_ms': 60_000,
  'grpc.keepalive_timeout_ms': 10_000,
  // The channel makes its connection anew by itself, by the same delays as the other ways.
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 10_000,
  'grpc.use_local_subchannel_pool': 1,
  'grpc.enable_retries': 0,
  'grpc.service_config_disable_resolution': 1,
  'grpc.enable_http_proxy': 0,
};

const PROTO = fileURLToPath(new URL('../../proto', import.meta.url));

type Check = MethodDefinition<object, CheckResponse>;

const SERVICE = 'envoy.service.auth.v3.Authorization';
const loaded = loadSync('envoy/service/auth/v3/external_auth.proto', { includeDirs: [PROTO] });
const CHECK = (loaded[SERVICE] as ServiceDefinition).Check as Check;

/** By these, grpc-js or a proxy says that the service was not reached. */
const AWAY = new Set([status.UNAVAILABLE, status.DEADLINE_EXCEEDED, status.CANCELLED, status.INTERNAL, status.UNKNOWN]);

/** A health check of the whole server, as its message is written. */
const NOTHING = Buffer.alloc(0);
const asItIs = (bytes: Buffer): Buffer => bytes;

/**
 * Connects, and goes on trying in the background when the service is down. It does not describe itself, so its
 * description is there at once.
 *
 * @throws {@link EndpointProblem} when the address, the config or the certificates make no sense
 */
export async function connectExtAuthz(endpoint: Endpoint): Promise<Connection> {
  const connection = new ExtAuthzConnection(endpoint, addressOf(endpoint));
  await connection.start();
  return connection;
}

function addressOf({ at, config }: Endpoint): string {
  const address = /^ext-authz:\/\/([^/?#@]+:\d+)\/?$/.exec(at)?.[1];
  if (address === undefined) throw new EndpointProblem('ext-authz:// is followed by host:port');
  if (config !== undefined) throw new EndpointProblem('an ext-authz service takes no `config`: its policy is its own');
  return address;
}

class ExtAuthzConnection extends Line {
  private readonly client: Client;
  private readonly metadata = new Metadata();
  private readonly described: Description;
  private readonly pending = new Set<ClientUnaryCall>();
  private closed = false;

  constructor(endpoint: Endpoint, address: string) {
    super(endpoint);
    const { ca, cert, key, serverName } = readTls(endpoint);
    const { tls, headers = {} } = endpoint.options;
    const name = serverName && { 'grpc.ssl_target_name_override': serverName };
    const trust = tls === undefined ? credentials.createInsecure() : credentials.createSsl(ca, key, cert);
    this.client = new Client(address, trust, { ...CHANNEL_OPTIONS, ...name });
    for (const [key, value] of Object.entries(headers)) this.metadata.set(key, value);
    this.described = {
      contract: CONTRACT_VERSION,
      name: endpoint.name,
      version: 'ext-authz',
      hooks: ['authorize'],
      rewrites: false,
      actions: ['model.use', 'model.list'],
    };
    this.standing.description = this.described;
  }

  /**
   * Asks for its health, as gRPC has it. A service without that says so, and is there. A `Check` would be a decision in
   * its log that nobody asked for.
   */
  protected override async reach(): Promise<void> {
    const error = await this.health();
    if (this.closed) return;
    if (error !== undefined && AWAY.has(error.code)) throw new Error(`${status[error.code]}: ${error.details}`);
    this.reached(this.described);
  }

  private health(): Promise<ServiceError | undefined> {
    const path = '/grpc.health.v1.Health/Check';
    return new Promise((resolve) => {
      const deadline = Date.now() + DESCRIBE_MS;
      const done = (error: ServiceError | null) => {
        this.pending.delete(call);
        resolve(error ?? undefined);
      };
      const call = this.client.makeUnaryRequest(
        path,
        asItIs,
        asItIs,
        NOTHING,
        this.metadata.clone(),
        { deadline },
        done,
      );
      this.pending.add(call);
    });
  }

  override ask<H extends Hook>(hook: H, input: HookInput[H], options?: CallOptions): Promise<unknown> {
    if (hook !== 'authorize') throw new PluginFault('no_such_hook', `ext-authz does not answer \`${hook}\``);
    return this.guarded(() => this.judge(input as AuthorizeInput, options?.signal), options?.signal);
  }

  private async judge(input: AuthorizeInput, signal: AbortSignal | undefined): Promise<AllowOrReject> {
    if (signal?.aborted) throw cancelled();
    if (this.closed) throw new PluginUnavailable('the connection was closed');
    if (this.pending.size >= MAX_PENDING) throw new PluginUnavailable('too many calls are under way');
    const reply = await this.check(checkRequest(input), signal);
    if (this.state !== 'up') this.reached(this.described);
    return verdictIn(reply, input.resources.length);
  }

  private check(request: object, signal: AbortSignal | undefined): Promise<CheckResponse> {
    const { path, requestSerialize: write, responseDeserialize: read } = CHECK;
    return new Promise((resolve, reject) => {
      const deadline = Date.now() + LONGEST_MS;
      const done = (error: ServiceError | null, reply?: CheckResponse) => {
        this.pending.delete(call);
        signal?.removeEventListener('abort', cancel);
        if (reply) resolve(reply);
        else reject(signal?.aborted ? cancelled() : this.failure(error));
      };
      const call = this.client.makeUnaryRequest(path, write, read, request, this.metadata.clone(), { deadline }, done);
      const cancel = () => call.cancel();
      this.pending.add(call);
      signal?.addEventListener('abort', cancel, { once: true });
    });
  }

  /** What the service says in words may hold what it was asked: only the code is taken over. */
  private failure(error: ServiceError | null): PluginFault {
    const code = error?.code ?? status.UNKNOWN;
    const message = `the call failed: ${status[code]}`;
    if (code === status.UNAVAILABLE || this.closed) return new PluginUnavailable(message);
    if (code === status.UNIMPLEMENTED) this.standing.out('refused', `there is no ${SERVICE} at this address`);
    return new PluginFault('grpc_error', message);
  }

  override async close(): Promise<void> {
    this.closed = true;
    await super.close();
    for (const call of this.pending) call.cancel();
    this.client.close();
  }
}

function cancelled(): PluginFault {
  return new PluginFault('cancelled', 'nobody waits for the answer');
}
