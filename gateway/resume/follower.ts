/** A client that is handed the events of a stream: those that are kept first, then each as it comes. */
import type { Exchange } from '../exchange.ts';
import type { EventLog } from './event-log.ts';
import type { Numbered } from './numbered.ts';

/** How much is handed over at a time, in bytes. */
const BATCH = 65_536;

export interface FollowerEvents {
  /** The number of the newest event that may be handed over now. */
  newest(): number;
  /** The client has everything, and takes more. */
  caughtUp(): void;
  /** The client has gone before the end. */
  left(): void;
}

export class Follower {
  private readonly client: Exchange;
  private readonly log: EventLog;
  private readonly events: FollowerEvents;
  private next: number;
  private isSlow = false;
  private isOver = false;
  private readonly settle = Promise.withResolvers<void>();
  /** Settles when this client gets nothing more: all is handed over, it has gone, or another one took its place. */
  readonly done: Promise<void> = this.settle.promise;

  /** @param after the number of the event that the client had last */
  constructor(client: Exchange, log: EventLog, after: number, events: FollowerEvents) {
    this.client = client;
    this.log = log;
    this.events = events;
    this.next = after + 1;
  }

  start(): this {
    this.client.onDrain(() => {
      this.isSlow = false;
      this.handOver();
    });
    this.client.onGone(() => this.leave());
    this.handOver();
    return this;
  }

  /** The number of the last event that it was handed. */
  get handed(): number {
    return this.next - 1;
  }

  /** Whether it must be waited for. */
  get isBehind(): boolean {
    return !this.isOver && (this.isSlow || this.next <= this.events.newest());
  }

  /** Takes what has just been written; its events are in the log already. */
  take({ bytes, events }: Numbered): void {
    if (this.isOver) return;
    const mayGo = events.length === 0 || this.events.newest() === this.log.last;
    const isCurrent = !this.isSlow && mayGo && this.next === this.log.last - events.length + 1;
    if (isCurrent) {
      this.next += events.length;
      if (bytes.length > 0) this.isSlow = !this.client.write(bytes);
    } else this.handOver();
  }

  /** Hands over what is kept, as fast as the client takes it; ends when the stream has. */
  handOver(): void {
    const newest = this.events.newest();
    while (!this.isOver && !this.isSlow && this.next <= newest) {
      const batch = this.log.read(this.next, BATCH).slice(0, newest - this.next + 1);
      this.next += batch.length;
      this.isSlow = !this.client.write(batch.length === 1 ? batch[0]! : Buffer.concat(batch));
    }
    if (this.isOver || this.next <= newest) return;
    if (this.log.hasEnded && newest === this.log.last) this.finish();
    else if (!this.isSlow) this.events.caughtUp();
  }

  /** Cuts this client off: what it has is not the whole answer. */
  cut(): void {
    if (this.isOver) return;
    this.over();
    this.client.destroy();
  }

  private finish(): void {
    this.over();
    this.client.end();
  }

  private leave(): void {
    if (this.isOver) return;
    this.over();
    this.events.left();
  }

  private over(): void {
    this.isOver = true;
    this.settle.resolve();
  }
}
