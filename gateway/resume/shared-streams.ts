/**
 * Streams that other replicas can go on with: each is told to a store as it grows. What the store cannot be told now it
 * is told later, from what is kept here anyway; nobody waits for it.
 */
import type { StreamReader, StreamStore } from '../../proto/store.ts';
import type { Copy, KeptStream } from './kept-stream.ts';

/** Between two signs of life, in milliseconds. */
const BEAT_MS = 1_000;
/** After the store could not be told something, in milliseconds. */
const RETRY_MS = 500;
/** What the store is told at a time, in bytes. */
const BATCH = 262_144;
/** How many changes of a stream the store may be told of before it has answered. */
const MOST_UNANSWERED = 16;
/** How long a client waits at most until the store knows what it is to be handed, in milliseconds. */
const PATIENCE_MS = 50;
/** How long a stop waits for the store, in milliseconds. */
const LAST_WORDS_MS = 2_000;

export class SharedStreams {
  readonly store: StreamStore;
  private readonly copies = new Map<string, SharedCopy>();
  private readonly timer: NodeJS.Timeout;

  constructor(store: StreamStore) {
    this.store = store;
    this.timer = setInterval(() => void this.beat(), BEAT_MS).unref();
  }

  /** Tells the store of a stream from now on. */
  add(stream: KeptStream): void {
    const copy = new SharedCopy(stream, this.store, () => this.copies.delete(stream.id));
    this.copies.set(stream.id, copy);
    stream.copy = copy;
    copy.wake();
  }

  async close(): Promise<void> {
    const told = Promise.all([...this.copies.values()].map((copy) => copy.done));
    const late = new Promise((resolve) => setTimeout(resolve, LAST_WORDS_MS));
    await Promise.race([told, late]);
    clearInterval(this.timer);
    for (const copy of this.copies.values()) copy.giveUp();
    this.store.close();
  }

  private async beat(): Promise<void> {
    if (this.copies.size === 0) return;
    try {
      const readers = new Map((await this.store.beat()).map((reader) => [reader.stream, reader]));
      for (const [id, copy] of this.copies) copy.beat(readers.get(id));
    } catch {
      // The store is away: the next beat may find it.
    }
  }
}

class SharedCopy implements Copy {
  private readonly stream: KeptStream;
  private readonly store: StreamStore;
  private readonly settle = Promise.withResolvers<void>();
  /** Settles when the store knows all, or never will. */
  readonly done: Promise<void> = this.settle.promise;
  /** The number of the last event that the store knows, and of the last that it was told. */
  private stored = 0;
  private told = 0;
  private unanswered = 0;
  private isKnown = false;
  private isBegun = false;
  private isClaimed = false;
  private hasToldEnd = false;
  private isDone = false;
  private toldAt = 0;
  /** When the store is not waited for any more; undefined: it knows all that it was told. */
  private patience: NodeJS.Timeout | undefined;
  private isLate = false;
  private retry: NodeJS.Timeout | undefined;

  constructor(stream: KeptStream, store: StreamStore, whenDone: () => void) {
    this.stream = stream;
    this.store = store;
    void this.done.then(whenDone);
  }

  wake(): void {
    while (this.unanswered < MOST_UNANSWERED && !this.isDone && this.retry === undefined && this.hasNews) {
      // What was let go of here before the store was told of it is missing there: a hole helps nobody.
      if (this.told + 1 < this.stream.log.first) this.giveUp();
      else this.tell();
    }
  }

  /** A client that has more than the store knows could not go on elsewhere if this process died. */
  get heard(): number {
    return this.isDone || this.isLate || this.retry !== undefined ? Number.POSITIVE_INFINITY : this.stored;
  }

  claim(): void {
    this.isClaimed = true;
    this.wake();
  }

  giveUp(): void {
    if (this.isDone) return;
    this.over();
    this.store.drop(this.stream.id).catch(() => {});
  }

  /** Once a second: a silent stream is kept alive, and a client that reads elsewhere is told of. */
  beat(reader: StreamReader | undefined): void {
    if (this.isDone) return;
    // What was told of a reader before a client came back here does not count any more.
    if (!this.isClaimed) this.stream.readElsewhere(reader?.handed);
    if (performance.now() - this.toldAt < this.keepMs / 3) return;
    this.toldAt = performance.now();
    this.store.touch(this.stream.id, this.keepMs).catch(() => {});
  }

  private get keepMs(): number {
    const { window, grace } = this.stream.policy;
    return this.stream.isOpen ? window + grace : window;
  }

  private tell(): void {
    const { stream, store } = this;
    const { log } = stream;
    const events = log.read(this.told + 1, BATCH);
    const last = this.told + events.length;
    const hasEnded = log.hasEnded && last === log.last;
    const claims = this.isClaimed;
    const change = {
      facts: this.isKnown ? undefined : stream.facts,
      first: this.told + 1,
      events: events.map((event) => event.toString('latin1')),
      oldest: log.first,
      hasEnded,
      claims,
      keepMs: this.keepMs,
    };
    this.told = last;
    this.isBegun = true;
    this.isClaimed = false;
    this.hasToldEnd = hasEnded;
    this.unanswered += 1;
    this.patience ??= setTimeout(() => {
      this.isLate = true;
      stream.heard();
    }, PATIENCE_MS).unref();
    store.write(stream.id, change).then(
      (isKept) => this.answered(isKept, last, hasEnded),
      () => this.failed(claims),
    );
  }

  private answered(isKept: boolean, last: number, hasEnded: boolean): void {
    this.unanswered -= 1;
    this.toldAt = performance.now();
    this.isKnown = true;
    this.stored = Math.max(this.stored, last);
    if (this.stored === this.told) this.calm();
    if (!isKept || hasEnded) this.over();
    else this.wake();
    this.stream.heard();
  }

  /** All that has not been answered is told again: the store passes over what it knows. */
  private failed(claims: boolean): void {
    this.unanswered -= 1;
    this.told = this.stored;
    this.hasToldEnd = false;
    this.isClaimed ||= claims;
    this.later();
    this.stream.heard();
  }

  private get hasNews(): boolean {
    const { log } = this.stream;
    return !this.isBegun || this.isClaimed || this.told < log.last || (log.hasEnded && !this.hasToldEnd);
  }

  private calm(): void {
    clearTimeout(this.patience);
    this.patience = undefined;
    this.isLate = false;
  }

  private later(): void {
    if (this.isDone || this.retry !== undefined) return;
    this.retry = setTimeout(() => {
      this.retry = undefined;
      this.isBegun = this.isKnown;
      this.wake();
    }, RETRY_MS).unref();
  }

  private over(): void {
    this.isDone = true;
    this.calm();
    clearTimeout(this.retry);
    this.settle.resolve();
  }
}
