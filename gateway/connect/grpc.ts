/**
 * `grpc://host:port` and `grpcs://host:port`: our own protocol, `proto/plugin.proto`.
 *
 * A connection has lanes (one, unless the mount says more), and a lane keeps one link alive: one HTTP/2 connection on
 * which the plugin has described itself. Calls travel on the link's `Session`, many in one message; where a plugin has
 * no `Session`, each is a unary `Call`. A link that is lost fails what was under way and the lane makes a new one.
 */
import { credentials } from '@grpc/grpc-js';
import type { CallOptions, Description, Hook, StreamInput } from '../../proto/contract.ts';
import { atMost, Backoff, FIRST_ATTEMPT_MS, REFUSED_AGAIN_MS } from './backoff.ts';
import { Breaker } from './breaker.ts';
import { type Connection, type Endpoint, EndpointProblem, type HookInput, PluginUnavailable } from './connection.ts';
import { type GrpcTarget, Link, type PendingCall, type Question } from './link.ts';
import { Refusal, StandingConnection } from './standing.ts';
import { readTls } from './tls.ts';
import { askWellFormed } from './wellformed.ts';

/** A link that lived shorter than this, in milliseconds, is made anew only after a delay. */
const SHORT_LIFE_MS = 1_000;

/**
 * Connects, and goes on trying in the background when the plugin is down.
 *
 * @throws {@link EndpointProblem} when the address or the certificates make no sense
 */
export async function connectGrpc(endpoint: Endpoint): Promise<Connection> {
  const connection = new GrpcConnection(endpoint, targetOf(endpoint));
  await atMost(connection.firstAttempt, FIRST_ATTEMPT_MS);
  return connection;
}

function targetOf(endpoint: Endpoint): GrpcTarget {
  const found = /^(grpcs?):\/\/([^/?#@]+:\d+)\/?$/.exec(endpoint.at);
  if (!found) throw new EndpointProblem(`${endpoint.at.split(':')[0]}:// is followed by host:port`);
  const { ca, cert, key, serverName } = readTls(endpoint);
  return {
    address: found[2]!,
    credentials: found[1] === 'grpc' ? credentials.createInsecure() : credentials.createSsl(ca, key, cert),
    serverName,
    headers: endpoint.options.headers ?? {},
    config: endpoint.config,
  };
}

class GrpcConnection extends StandingConnection {
  readonly firstAttempt: Promise<unknown>;
  private readonly breaker: Breaker;
  private readonly lanes: Lane[] = [];
  private turn = 0;

  constructor(endpoint: Endpoint, target: GrpcTarget) {
    super(endpoint);
    this.breaker = new Breaker(endpoint.options.breaker);
    const count = endpoint.options.connections ?? 1;
    for (let i = 0; i < count; i += 1) this.lanes.push(new Lane(target, (lane) => this.changed(lane)));
    this.firstAttempt = Promise.all(this.lanes.map((lane) => lane.open()));
  }

  ask<H extends Hook>(hook: H, input: HookInput[H], options?: CallOptions): Promise<unknown> {
    if (hook !== 'stream') return this.send(hook, input, options?.signal);
    return askWellFormed(input as StreamInput, (window) => this.send(hook, window, options?.signal));
  }

  private send(hook: Hook, input: Question['input'], signal: AbortSignal | undefined): Promise<unknown> {
    try {
      this.breaker.enter();
    } catch (refusal) {
      return Promise.reject(refusal);
    }
    return this.breaker.watch(this.nextLane().ask({ hook, input, signal }), signal);
  }

  /** Lanes take turns; one that is not ready is passed over while another is. */
  private nextLane(): Lane {
    for (let i = 0; i < this.lanes.length; i += 1) {
      this.turn = (this.turn + 1) % this.lanes.length;
      if (this.lanes[this.turn]!.ready) break;
    }
    return this.lanes[this.turn]!;
  }

  private changed(lane: Lane): void {
    const up = this.lanes.find((one) => one.ready && one.problem === undefined);
    if (up?.description) {
      // It was reached a moment ago: what failed before says nothing any more.
      if (lane === up) this.breaker.reset();
      this.standing.up(up.description);
    } else this.standing.out(lane.refused ? 'refused' : 'down', lane.problem ?? 'it is being connected');
  }

  async close(): Promise<void> {
    for (const lane of this.lanes) lane.close();
  }
}

/** Keeps one link alive. */
class Lane {
  description: Description | undefined;
  /** Why this lane cannot be used, or why the plugin says that it should not be. */
  problem: string | undefined;
  refused = false;
  private link: Link | undefined;
  private linkedAt = 0;
  /** The attempt that began the moment a link was lost: calls made meanwhile wait for it. */
  private relinking: Promise<unknown> | undefined;
  private opening: Link | undefined;
  private closed = false;
  private readonly backoff = new Backoff();
  private readonly target: GrpcTarget;
  private readonly changed: (lane: Lane) => void;

  constructor(target: GrpcTarget, changed: (lane: Lane) => void) {
    this.target = target;
    this.changed = changed;
  }

  get ready(): boolean {
    return this.link !== undefined;
  }

  ask(question: Question): Promise<unknown> {
    if (this.link) return this.link.ask(question);
    if (!this.relinking) return Promise.reject(new PluginUnavailable(`the plugin cannot be asked: ${this.problem}`));
    return this.relinking.then(() => {
      if (question.signal?.aborted || !this.link) throw new PluginUnavailable('the plugin was lost');
      return this.link.ask(question);
    });
  }

  /** One attempt to make a link. Never rejects: what went wrong stands in `problem`. */
  async open(): Promise<void> {
    if (this.closed) return;
    const link = new Link(this.target, {
      lost: (problem, unread) => this.lost(link, problem, unread),
      serving: (serving) => this.served(link, serving),
    });
    this.opening = link;
    try {
      this.description = await link.describe();
    } catch (error) {
      link.close();
      if (!this.closed) this.failed(error);
      return;
    }
    if (this.closed) link.close();
    else this.linked(link);
  }

  private linked(link: Link): void {
    this.link = link;
    this.linkedAt = performance.now();
    this.refused = false;
    this.problem = undefined;
    this.backoff.reset();
    link.start();
    this.changed(this);
  }

  private failed(error: unknown): void {
    this.refused = error instanceof Refusal;
    this.problem = (error as Error).message;
    this.backoff.again(() => this.open(), this.refused ? REFUSED_AGAIN_MS : undefined);
    this.changed(this);
  }

  /**
   * @param unread calls that the plugin never read, because it ended the session in good order: they go to the next link
   */
  private lost(link: Link, problem: string, unread: PendingCall[]): void {
    if (this.link !== link) return;
    this.link = undefined;
    this.problem = problem;
    if (this.closed) return;
    if (performance.now() - this.linkedAt < SHORT_LIFE_MS) this.backoff.again(() => this.open(), SHORT_LIFE_MS);
    else this.relink();
    this.changed(this);
    for (const call of unread) this.ask(call).then(call.resolve, call.reject);
  }

  private relink(): void {
    this.relinking = this.open().finally(() => {
      this.relinking = undefined;
    });
  }

  private served(link: Link, serving: boolean): void {
    if (this.link !== link) return;
    this.problem = serving ? undefined : 'it says that it is not serving';
    this.changed(this);
  }

  close(): void {
    this.closed = true;
    this.backoff.stop();
    this.problem = 'the connection is closed';
    this.opening?.close();
    this.link?.close();
    this.link = undefined;
  }
}
