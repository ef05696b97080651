/**
 * What the ways to a foreign gRPC service have in common: one unary method, TLS, bounds, and a watch by gRPC's own health
 * check. Such a service does not describe itself, so its description is there at once.
 */
import { fileURLToPath } from 'node:url';
import { Client, type ClientUnaryCall, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { loadSync, type MethodDefinition, type ServiceDefinition } from '@grpc/proto-loader';
import { CONTRACT_VERSION, type Description, PluginFault } from '../../proto/contract.ts';
import { DESCRIBE_MS } from './backoff.ts';
import { type Endpoint, EndpointProblem, PluginUnavailable } from './connection.ts';
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

/** By these, grpc-js or a proxy says that the service was not reached. */
const AWAY = new Set([status.UNAVAILABLE, status.DEADLINE_EXCEEDED, status.CANCELLED, status.INTERNAL, status.UNKNOWN]);

/** A health check of the whole server, as its message is written. */
const NOTHING = Buffer.alloc(0);
const asItIs = (bytes: Buffer): Buffer => bytes;

/** A method of a foreign service, as its `.proto` has it. Of its reply, what is not there is absent. */
export interface ForeignMethod<Reply extends object> {
  service: string;
  definition: MethodDefinition<object, Reply>;
}

/** Loads a method. @param file below `proto/` */
export function foreignMethod<Reply extends object>(
  file: string,
  service: string,
  method: string,
): ForeignMethod<Reply> {
  const methods = loadSync(file, { includeDirs: [PROTO], longs: Number })[service] as ServiceDefinition;
  return { service, definition: methods[method] as unknown as MethodDefinition<object, Reply> };
}

/** `host:port` of an `at`, whatever its scheme. @throws {@link EndpointProblem} when there is more or less to it */
function foreignAddress({ at }: Endpoint): string {
  const [, scheme, address] = /^([a-z-]+):\/\/([^/?#@]+:\d+)?\/?$/.exec(at) ?? [];
  if (address === undefined) throw new EndpointProblem(`${scheme ?? at.split(':')[0]}:// is followed by host:port`);
  return address;
}

/** A line by unary calls of one method. */
export abstract class UnaryLine<Reply extends object> extends Line {
  private readonly client: Client;
  private readonly metadata = new Metadata();
  private readonly method: ForeignMethod<Reply>;
  private readonly described: Description;
  private readonly pending = new Set<ClientUnaryCall>();
  private closed = false;

  /**
   * @param description what the service answers, on its behalf
   * @throws {@link EndpointProblem} when the address or the certificates make no sense
   */
  constructor(
    endpoint: Endpoint,
    method: ForeignMethod<Reply>,
    description: Omit<Description, 'contract' | 'name' | 'rewrites'>,
  ) {
    super(endpoint);
    this.method = method;
    const { ca, cert, key, serverName } = readTls(endpoint);
    const { tls, headers = {} } = endpoint.options;
    const name = serverName && { 'grpc.ssl_target_name_override': serverName };
    const trust = tls === undefined ? credentials.createInsecure() : credentials.createSsl(ca, key, cert);
    this.client = new Client(foreignAddress(endpoint), trust, { ...CHANNEL_OPTIONS, ...name });
    for (const [key, value] of Object.entries(headers)) this.metadata.set(key, value);
    this.described = { contract: CONTRACT_VERSION, name: endpoint.name, rewrites: false, ...description };
    this.standing.description = this.described;
  }

  /**
   * Asks for its health, as gRPC has it. A service without that says so, and is there. A call of its own would be a
   * decision in its log that nobody asked for.
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

  /** One call of the method, with its own words. A reply shows that the service is there. */
  protected async call(request: object, signal: AbortSignal | undefined): Promise<Reply> {
    if (signal?.aborted) throw cancelled();
    if (this.closed) throw new PluginUnavailable('the connection was closed');
    if (this.pending.size >= MAX_PENDING) throw new PluginUnavailable('too many calls are under way');
    const reply = await this.answerTo(request, signal);
    if (this.state !== 'up') this.reached(this.described);
    return reply;
  }

  private answerTo(request: object, signal: AbortSignal | undefined): Promise<Reply> {
    const { path, requestSerialize: write, responseDeserialize: read } = this.method.definition;
    return new Promise((resolve, reject) => {
      const deadline = Date.now() + LONGEST_MS;
      const done = (error: ServiceError | null, reply?: Reply) => {
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
    if (code === status.UNIMPLEMENTED)
      this.standing.out('refused', `there is no ${this.method.service} at this address`);
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
