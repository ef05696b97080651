/**
 * One HTTP/2 connection to a plugin that speaks gRPC, from its `Describe` to its end.
 *
 * What is asked in one turn of the event loop goes out as one message of the session, and so do the answers: grpc-js
 * spends nearly all of its time per message, not per byte. Measured with prompts of 1 KB that come back rewritten, on
 * Node 24 and two cores, CPU of the gateway's process per call: 57–69 µs one at a time, 17–21 µs with 8 under way, 12–17
 * with 32, 12–13 with 128.
 */
import {
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { CONTRACT_VERSION, type Description, type Hook, PluginFault, type RequestFacts } from '../../proto/contract.ts';
import {
  MAX_BATCH,
  MAX_MESSAGE,
  PLUGIN_SERVICE,
  type ReadReply,
  readDescribeReply,
  readReplies,
  readReply,
  takeBatch,
  UNKNOWN_INSTANCE,
  writeBatch,
  writeCall,
  writeCancel,
  writeDescribeRequest,
} from '../../proto/grpc.ts';
import { DESCRIBE_MS } from './backoff.ts';
import { PluginUnavailable, toldFault } from './connection.ts';
import { descriptionProblem } from './description.ts';
import { Refusal } from './standing.ts';

export interface GrpcTarget {
  /** `host:port`. */
  address: string;
  credentials: ChannelCredentials;
  serverName: string | undefined;
  /** Sent as metadata with every call. */
  headers: Record<string, string>;
  config: unknown;
}

/** What is to be asked. */
export interface Question {
  hook: Hook;
  input: { request: RequestFacts };
  signal: AbortSignal | undefined;
}

/** A question with somebody waiting for its answer. */
export interface PendingCall extends Question {
  resolve(answer: unknown): void;
  reject(error: unknown): void;
  /** Its id on the session, or the number of its unary call. */
  id: number;
  /** Asked a second time, because the plugin had forgotten its config. */
  again: boolean;
  onAbort: (() => void) | undefined;
  /** Takes back a unary call. */
  cancelUnary: (() => void) | undefined;
}

export interface LinkEvents {
  /**
   * The link can no longer be used.
   *
   * @param problem why, for an operator
   * @param unread calls that the plugin did not read: it ended the session in good order, which it does only after
   * it has answered all that it read
   */
  lost(problem: string, unread: PendingCall[]): void;
  /** What the plugin's health service says, where it has one. */
  serving(serving: boolean): void;
}

/** Calls that wait for their answer on one link; more are refused at once. */
const MAX_PENDING = 10_000;
/** Bytes that may wait to be sent while the plugin does not read. */
const MAX_UNSENT = 2 * MAX_MESSAGE;

const CHANNEL_OPTIONS = {
  'grpc.max_receive_message_length': MAX_MESSAGE,
  'grpc.max_send_message_length': MAX_MESSAGE + MAX_BATCH,
  // A peer that vanished without a word is noticed within 70 seconds. More often would be `too_many_pings` to some.
  'grpc.keepalive_time_ms': 60_000,
  'grpc.keepalive_timeout_ms': 10_000,
  // Each link has its own connection, and makes no second one: the lane decides when to try again.
  'grpc.use_local_subchannel_pool': 1,
  'grpc.enable_retries': 0,
  'grpc.service_config_disable_resolution': 1,
  'grpc.enable_http_proxy': 0,
};

const asItIs = (bytes: Buffer): Buffer => bytes;

export class Link {
  private readonly client: Client;
  private readonly target: GrpcTarget;
  private readonly events: LinkEvents;
  private readonly metadata = new Metadata();
  private readonly pending = new Map<number, PendingCall>();
  private instance = '';
  private session: ClientDuplexStream<Buffer, Buffer> | undefined;
  private health: ClientReadableStream<Buffer> | undefined;
  private describing: Promise<Description> | undefined;
  private unsent: Uint8Array[] = [];
  private unsentBytes = 0;
  private flushing = false;
  private blocked = false;
  private dead = false;
  private lastId = 0;

  constructor(target: GrpcTarget, events: LinkEvents) {
    this.target = target;
    this.events = events;
    const name = target.serverName && { 'grpc.ssl_target_name_override': target.serverName };
    this.client = new Client(target.address, target.credentials, { ...CHANNEL_OPTIONS, ...name });
    for (const [key, value] of Object.entries(target.headers)) this.metadata.set(key, value);
  }

  /**
   * Hands over the config and learns what the plugin answers.
   *
   * @throws Refusal when it will not do as it is configured, Error when it could not be asked
   */
  describe(): Promise<Description> {
    this.describing ??= this.describeNow().finally(() => {
      this.describing = undefined;
    });
    return this.describing;
  }

  private async describeNow(): Promise<Description> {
    const bytes = await this.unaryDescribe();
    let read: { description: unknown; instance: string };
    try {
      read = readDescribeReply(bytes);
    } catch {
      throw new Refusal('it describes itself with something that is not of the contract');
    }
    const problem = descriptionProblem(read.description);
    if (problem) throw new Refusal(`it ${problem}`);
    this.instance = read.instance;
    return read.description as Description;
  }

  private unaryDescribe(): Promise<Buffer> {
    const request = writeDescribeRequest(CONTRACT_VERSION, this.target.config) as Buffer;
    const deadline = Date.now() + DESCRIBE_MS;
    return new Promise((resolve, reject) => {
      const done = (error: ServiceError | null, reply?: Buffer) =>
        error || !reply ? reject(describeError(error)) : resolve(reply);
      const { path } = PLUGIN_SERVICE.Describe;
      this.client.makeUnaryRequest(path, asItIs, asItIs, request, this.metadata.clone(), { deadline }, done);
    });
  }

  /** Opens the session; from now on the end of the link is told. */
  start(): void {
    const { path } = PLUGIN_SERVICE.Session;
    const session = this.client.makeBidiStreamRequest(path, asItIs, asItIs, this.metadata.clone());
    session.on('data', (bytes: Buffer) => this.read(bytes));
    session.on('drain', () => {
      this.blocked = false;
      this.flush();
    });
    // Every end comes as a status too; without a listener an error would be thrown.
    session.on('error', () => {});
    session.on('status', ({ code }) => this.ended(code));
    this.session = session;
    this.watchHealth();
  }

  ask(question: Question): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.send({ ...question, resolve, reject, id: 0, again: false, onAbort: undefined, cancelUnary: undefined });
    });
  }

  private send(call: PendingCall): void {
    call.id = this.nextId();
    const bytes = writeCall(call.id, this.instance, call.hook, call.input);
    const refusal = this.refusal(call, bytes);
    if (refusal) {
      call.reject(refusal);
      return;
    }
    this.pending.set(call.id, call);
    if (call.signal) {
      call.onAbort = () => this.cancel(call);
      call.signal.addEventListener('abort', call.onAbort, { once: true });
    }
    if (this.session) this.enqueue(bytes);
    else this.sendUnary(call, bytes);
  }

  /** Why a call does not even set out. */
  private refusal({ signal }: PendingCall, bytes: Uint8Array): PluginFault | undefined {
    if (this.dead) return new PluginUnavailable('the plugin was lost');
    if (signal?.aborted) return new PluginFault('cancelled', 'nobody waits for the answer');
    if (bytes.length > MAX_MESSAGE) return new PluginFault('too_large', 'the call is larger than 16 MiB');
    if (this.pending.size >= MAX_PENDING) return new PluginUnavailable('too many calls are under way');
    if (this.unsentBytes > MAX_UNSENT) return new PluginUnavailable('the plugin does not read');
    return undefined;
  }

  private nextId(): number {
    do this.lastId = (this.lastId + 1) >>> 0;
    while (this.lastId === 0 || this.pending.has(this.lastId));
    return this.lastId;
  }

  private enqueue(bytes: Uint8Array): void {
    this.unsent.push(bytes);
    this.unsentBytes += bytes.length;
    if (this.flushing || this.blocked) return;
    this.flushing = true;
    setImmediate(() => {
      this.flushing = false;
      this.flush();
    });
  }

  private flush(): void {
    while (this.unsent.length > 0 && this.session && !this.blocked) {
      const batch = writeBatch(takeBatch(this.unsent));
      this.unsentBytes = this.unsent.length === 0 ? 0 : this.unsentBytes - batch.length;
      this.blocked = !this.session.write(batch);
    }
  }

  private read(bytes: Buffer): void {
    let replies: ReadReply[];
    try {
      replies = readReplies(bytes, (id) => this.pending.get(id)?.hook);
    } catch {
      this.lose('it sent what is not of the contract');
      return;
    }
    for (const reply of replies) {
      const call = this.pending.get(reply.id);
      // An answer that nobody waits for any more.
      if (call) this.settle(call, reply);
    }
  }

  private settle(call: PendingCall, { answer, fault }: ReadReply): void {
    if (fault === undefined) {
      this.forget(call);
      call.resolve(answer);
    } else if (fault.code === UNKNOWN_INSTANCE && !call.again) this.askAgain(call);
    else this.fail(call, toldFault(fault.code));
  }

  /** The plugin has forgotten its config: it gets it once more, and then the call. */
  private askAgain(call: PendingCall): void {
    this.forget(call);
    call.again = true;
    this.describe().then(
      () => this.send(call),
      (error: Error) => {
        call.reject(new PluginUnavailable('the plugin has forgotten its config, and did not take it again'));
        this.lose(error.message);
      },
    );
  }

  private cancel(call: PendingCall): void {
    if (this.pending.get(call.id) !== call) return;
    this.fail(call, new PluginFault('cancelled', 'nobody waits for the answer'));
    if (call.cancelUnary) call.cancelUnary();
    else if (this.session) this.enqueue(writeCancel(call.id));
  }

  private fail(call: PendingCall, error: PluginFault): void {
    this.forget(call);
    call.reject(error);
  }

  private forget(call: PendingCall): void {
    this.pending.delete(call.id);
    if (call.onAbort) call.signal?.removeEventListener('abort', call.onAbort);
    call.onAbort = undefined;
  }

  private ended(code: status): void {
    if (this.dead) return;
    if (code === status.UNIMPLEMENTED) this.useUnary();
    else if (code === status.OK) this.lose('it ended the session', true);
    else this.lose(`the session broke: ${status[code]}`);
  }

  /** The plugin has no `Session`: what was written to it was never read, and goes out once more call by call. */
  private useUnary(): void {
    this.session = undefined;
    this.unsent = [];
    this.unsentBytes = 0;
    for (const call of this.pending.values()) {
      this.sendUnary(call, writeCall(call.id, this.instance, call.hook, call.input));
    }
  }

  private sendUnary(call: PendingCall, bytes: Uint8Array): void {
    const { path } = PLUGIN_SERVICE.Call;
    const done = (error: ServiceError | null, reply?: Buffer) => this.settleUnary(call, error, reply);
    const request = this.client.makeUnaryRequest(path, asItIs, asItIs, bytes as Buffer, this.metadata.clone(), done);
    call.cancelUnary = () => request.cancel();
  }

  private settleUnary(call: PendingCall, error: ServiceError | null, bytes: Buffer | undefined): void {
    if (this.pending.get(call.id) !== call) return;
    const code = error?.code ?? status.UNKNOWN;
    const message = `the call failed: ${status[code]}`;
    if (!error && bytes) this.settle(call, readReplySafely(bytes, call.hook));
    else if (code === status.FAILED_PRECONDITION && !call.again) this.askAgain(call);
    else if (code !== status.UNAVAILABLE) this.fail(call, new PluginFault('grpc_error', message));
    else {
      this.fail(call, new PluginUnavailable(message));
      this.lose(message);
    }
  }

  private lose(problem: string, inOrder = false): void {
    if (this.dead) return;
    const calls = this.end();
    if (!inOrder)
      for (const call of calls) call.reject(new PluginUnavailable('the plugin was lost while it was asked'));
    this.events.lost(problem, inOrder ? calls : []);
  }

  /** Lets go of everything, and gives the calls that were under way. */
  private end(): PendingCall[] {
    this.dead = true;
    const calls = [...this.pending.values()];
    for (const call of calls) {
      this.forget(call);
      call.cancelUnary?.();
    }
    this.session?.cancel();
    this.health?.cancel();
    this.client.close();
    this.unsent = [];
    return calls;
  }

  /** Watches the plugin's health service. Without one, the state of the session says enough. */
  private watchHealth(): void {
    const path = '/grpc.health.v1.Health/Watch';
    this.health = this.client.makeServerStreamRequest(path, asItIs, asItIs, Buffer.alloc(0), this.metadata.clone());
    // HealthCheckResponse has one field: an enum whose 1 is SERVING and whose 2 is NOT_SERVING.
    this.health.on('data', (bytes: Buffer) => {
      if (!this.dead && (bytes[1] === 1 || bytes[1] === 2)) this.events.serving(bytes[1] === 1);
    });
    this.health.on('error', () => {});
  }

  /** Calls under way fail at once. */
  close(): void {
    if (this.dead) return;
    for (const call of this.end()) call.reject(new PluginUnavailable('the connection was closed'));
  }
}

function readReplySafely(bytes: Buffer, hook: Hook): ReadReply {
  try {
    return readReply(bytes, hook);
  } catch {
    return { id: 0, fault: { code: 'bad_answer', message: '' } };
  }
}

/** What the config is refused with is for the operator, and holds nothing of any request: it is told in full. */
function describeError(error: ServiceError | null): Error {
  const code = error?.code ?? status.UNKNOWN;
  const details = (error?.details ?? '').slice(0, 2_000);
  if (code === status.INVALID_ARGUMENT || code === status.FAILED_PRECONDITION) return new Refusal(details);
  if (code === status.UNIMPLEMENTED) return new Refusal('there is no wardgate.plugin.v1.PluginService at this address');
  return new Error(`${status[code]}: ${details}`);
}
