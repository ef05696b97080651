/** What the ways without a session have in common: the breaker, and the watch over a plugin that is away. */
import type { Description } from '../../proto/contract.ts';
import { atMost, Backoff, FIRST_ATTEMPT_MS, REFUSED_AGAIN_MS } from './backoff.ts';
import { Breaker } from './breaker.ts';
import type { Endpoint } from './connection.ts';
import { type HttpTarget, Poster } from './post.ts';
import { Refusal, StandingConnection } from './standing.ts';

export abstract class Line extends StandingConnection {
  protected readonly endpoint: Endpoint;
  private readonly reviver: Reviver;
  private readonly breaker: Breaker;

  constructor(endpoint: Endpoint) {
    super(endpoint);
    this.endpoint = endpoint;
    this.breaker = new Breaker(endpoint.options.breaker);
    this.reviver = new Reviver(() => this.attempt());
  }

  /** Tries to reach the plugin, and waits for that for up to one second. */
  start(): Promise<void> {
    return this.reviver.start(FIRST_ATTEMPT_MS);
  }

  /** Finds out whether the plugin can be asked, and calls {@link reached} when it can. @throws when it cannot */
  protected abstract reach(): Promise<void>;

  protected reached(description: Description): void {
    this.breaker.reset();
    this.standing.up(description);
  }

  /** @returns the delay before the next attempt in milliseconds, 0 for the usual one, undefined when none is needed */
  private async attempt(): Promise<number | undefined> {
    try {
      await this.reach();
      return undefined;
    } catch (error) {
      const refused = error instanceof Refusal;
      this.standing.out(refused ? 'refused' : 'down', (error as Error).message);
      return refused ? REFUSED_AGAIN_MS : 0;
    }
  }

  /** A call past the breaker. When it opens, the plugin is watched in the background until it is back. */
  protected guarded(call: () => Promise<unknown>, signal: AbortSignal | undefined): Promise<unknown> {
    try {
      this.breaker.enter();
    } catch (refusal) {
      return Promise.reject(refusal);
    }
    const answer = this.breaker.watch(call(), signal);
    answer.catch((error: Error) => {
      if (!this.breaker.open) return;
      if (this.standing.state === 'up') this.standing.out('down', error.message);
      this.reviver.wake();
    });
    return answer;
  }

  async close(): Promise<void> {
    this.reviver.close();
  }
}

/** A line over HTTP. */
export abstract class HttpLine extends Line {
  protected readonly poster: Poster;

  constructor(endpoint: Endpoint, target: HttpTarget) {
    super(endpoint);
    this.poster = new Poster(endpoint, target);
  }

  override async close(): Promise<void> {
    await super.close();
    await this.poster.close();
  }
}

/** Tries something until it goes well, and again when told that it no longer does. Never keeps the process alive. */
class Reviver {
  private readonly attempt: () => Promise<number | undefined>;
  private readonly backoff = new Backoff();
  private busy = false;
  private closed = false;

  /** @param attempt gives the delay before the next one, 0 for the usual; undefined when it went well; never rejects */
  constructor(attempt: () => Promise<number | undefined>) {
    this.attempt = attempt;
  }

  /** Begins at once, and waits for the first attempt for up to `ms`. */
  async start(ms: number): Promise<void> {
    await atMost(this.run(), ms);
  }

  /** Something failed: tries again after a delay, unless that is under way already. */
  wake(): void {
    if (this.busy || this.closed) return;
    this.busy = true;
    this.backoff.again(() => this.run());
  }

  private async run(): Promise<void> {
    this.busy = true;
    const delay = await this.attempt();
    if (this.closed) return;
    if (delay !== undefined) {
      this.backoff.again(() => this.run(), delay || undefined);
      return;
    }
    this.busy = false;
    this.backoff.reset();
  }

  close(): void {
    this.closed = true;
    this.backoff.stop();
  }
}
