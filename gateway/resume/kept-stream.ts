/**
 * A streamed answer that outlives its client: what comes from the provider is kept, and handed to whoever is attached.
 * While a client is attached and slow, the provider waits for it; while none is, what is kept is bounded.
 */
import type { StreamFacts } from '../../proto/store.ts';
import type { Exchange } from '../exchange.ts';
import { EventLog } from './event-log.ts';
import { Follower } from './follower.ts';
import type { Numbered } from './numbered.ts';
import type { ResumePolicy } from './policy.ts';
import type { Shelf } from './shelf.ts';

/** Who writes the stream. */
export interface Producer {
  /** It may go on. */
  drained(): void;
  /** Nobody wants the rest. */
  abandoned(): void;
}

const NOBODY: Producer = { drained() {}, abandoned() {} };

/** Where the stream is kept once more, for other replicas. */
export interface Copy {
  /** The number of the newest event that a client may be handed: what it has, another replica should know. */
  readonly heard: number;
  /** Something has changed. */
  wake(): void;
  /** A client of this replica reads it now. */
  claim(): void;
  /** Nothing more is to be had from here: what is not complete there never will be. */
  giveUp(): void;
}

export class KeptStream {
  readonly id: string;
  readonly facts: StreamFacts;
  readonly policy: ResumePolicy;
  readonly log = new EventLog();
  copy: Copy | undefined;
  private readonly shelf: Shelf;
  /** Let go of at the end: it leads to the request, its body and its connection. */
  private producer: Producer;
  private follower: Follower | undefined;
  /** The last event that the newest client was handed. */
  private handed = 0;
  private isReadElsewhere = false;
  private state: 'open' | 'ended' | 'gone' = 'open';
  private timer: NodeJS.Timeout | undefined;

  constructor(named: { id: string; facts: StreamFacts; policy: ResumePolicy }, shelf: Shelf, producer: Producer) {
    this.id = named.id;
    this.facts = named.facts;
    this.policy = named.policy;
    this.shelf = shelf;
    this.producer = producer;
  }

  /** True once nobody can have the rest any more. */
  get isGone(): boolean {
    return this.state === 'gone';
  }

  get isOpen(): boolean {
    return this.state === 'open';
  }

  /** Whether somebody is being handed the answer, here or in another replica. */
  get isAttached(): boolean {
    return this.follower !== undefined || this.isReadElsewhere;
  }

  // --- From the provider ---

  /** Answers false when the provider should wait for {@link Producer.drained}. */
  write(written: Numbered): boolean {
    if (this.state !== 'open') return true;
    this.log.append(written.events);
    this.copy?.wake();
    this.follower?.take(written);
    this.tidy();
    return !this.isCongested;
  }

  /** The answer is complete, be it with an error event. */
  finish(): void {
    if (this.state !== 'open') return;
    this.state = 'ended';
    this.log.hasEnded = true;
    this.producer = NOBODY;
    this.follower?.handOver();
    this.shelf.ended(this);
    this.wait(this.policy.window, () => this.expire());
    this.copy?.wake();
  }

  /** Lets go of it: who asks for the rest is told that there is none. */
  giveUp(): void {
    if (this.state === 'gone') return;
    const wasOpen = this.state === 'open';
    this.state = 'gone';
    clearTimeout(this.timer);
    const { follower } = this;
    this.follower = undefined;
    follower?.cut();
    this.log.clear();
    this.shelf.remove(this);
    this.copy?.giveUp();
    const { producer } = this;
    this.producer = NOBODY;
    if (wasOpen) producer.abandoned();
  }

  /** The copy knows more. */
  heard(): void {
    this.follower?.handOver();
  }

  // --- To a client ---

  /** Hands a client what comes after an event. Another one that is attached is cut off. Resolves when nothing more comes. */
  attach(client: Exchange, after: number): Promise<void> {
    const { follower: before } = this;
    const follower: Follower = new Follower(client, this.log, after, {
      newest: () => Math.min(this.log.last, this.copy?.heard ?? this.log.last),
      caughtUp: () => this.producer.drained(),
      left: () => this.left(follower),
    });
    this.follower = follower;
    this.isReadElsewhere = false;
    before?.cut();
    if (this.state === 'open') clearTimeout(this.timer);
    void follower.done.then(() => {
      if (this.follower === follower) this.follower = undefined;
    });
    follower.start();
    return follower.done;
  }

  /** A client reads it in another replica, and has been handed the events up to a number; undefined: none does now. */
  readElsewhere(handed: number | undefined): void {
    if (this.state !== 'open') return;
    if (handed === undefined) {
      if (!this.isReadElsewhere) return;
      this.isReadElsewhere = false;
      this.awaitClient();
    } else {
      const { follower } = this;
      this.follower = undefined;
      follower?.cut();
      clearTimeout(this.timer);
      this.isReadElsewhere = true;
      this.handed = handed;
      this.tidy();
    }
    if (!this.isCongested) this.producer.drained();
  }

  private left(follower: Follower): void {
    if (this.follower !== follower) return;
    this.follower = undefined;
    this.handed = follower.handed;
    if (this.state !== 'open') return;
    this.awaitClient();
    this.tidy();
    this.producer.drained();
  }

  private awaitClient(): void {
    this.wait(this.policy.grace, () => this.giveUp());
  }

  private expire(): void {
    // Who is still taking the last of it may do so; nobody else finds it.
    this.shelf.hide(this);
    const { follower } = this;
    if (follower === undefined) this.giveUp();
    else void follower.done.then(() => this.giveUp());
  }

  private wait(ms: number, then: () => void): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(then, ms).unref();
  }

  // --- Bounds ---

  /** A client in another replica is told of once a second: half of the space is for what comes meanwhile. */
  private get isCongested(): boolean {
    if (this.follower !== undefined) return this.follower.isBehind;
    return this.isReadElsewhere && this.log.size > this.policy.size / 2;
  }

  /** Lets go of what was handed over long ago. What was never handed over must not outgrow its bounds. */
  private tidy(): void {
    const { log, shelf, policy, follower } = this;
    const room = shelf.roomFor(this, policy);
    log.trim(this.isReadElsewhere ? Math.min(room, policy.size / 2) : room, follower?.handed ?? this.handed);
    shelf.resized(this);
    // The provider waits for a client that is there, so what it has still to take cannot grow much.
    if (log.size > room && follower === undefined) this.giveUp();
  }
}
