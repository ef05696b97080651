/** All streams of this gateway that can be resumed. They outlive a reload of the config. */
import type { StreamFacts, StreamStore } from '../../proto/store.ts';
import type { Life } from '../life.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { newStreamId } from './event-id.ts';
import { KeptStream, type Producer } from './kept-stream.ts';
import type { ResumePolicy } from './policy.ts';
import { SharedStreams } from './shared-streams.ts';
import { Shelf } from './shelf.ts';

/** A stream whose replica has vanished before its end, and who asks for the rest. */
export interface Orphan {
  stream: string;
  facts: StreamFacts;
  /** The number of the last event that is kept; the client has been handed all up to it. */
  last: number;
  /** The body of the request that asks: the one that began the stream. */
  body: Buffer;
  /** The stream's events from its first to its last; undefined where not all of them are kept any more. */
  events(): Promise<Buffer | undefined>;
}

export class Streams {
  /**
   * Goes on with a stream whose replica has vanished; false when that cannot be done. The head and all events that are
   * kept are out; it must end the answer, too.
   */
  takeOver?: (life: Life, orphan: Orphan) => Promise<boolean>;
  /** How the store that all replicas share is opened; undefined where there is none. */
  openStore?: () => Promise<StreamStore>;
  private readonly findable = new Map<string, KeptStream>();
  private readonly shelves = new Map<string, Shelf>();
  private readonly metrics: Metrics;
  private shared: Promise<SharedStreams> | undefined;

  constructor(metrics: Metrics) {
    this.metrics = metrics;
  }

  find(id: string): KeptStream | undefined {
    return this.findable.get(id);
  }

  /** Begins to keep a stream; undefined when as many are kept already as the policy allows. */
  open(facts: StreamFacts, policy: ResumePolicy, producer: Producer): KeptStream | undefined {
    const shelf = this.shelf(facts.route);
    if (!shelf.admits(policy)) return undefined;
    const stream = new KeptStream({ id: newStreamId(), facts, policy }, shelf, producer);
    shelf.add(stream);
    return stream;
  }

  /** The streams that all replicas share; undefined where they share none. Their store is opened when it is first wanted. */
  share(): Promise<SharedStreams> | undefined {
    this.shared ??= this.openStore?.().then((store) => new SharedStreams(store));
    this.shared?.catch(() => {
      this.shared = undefined;
    });
    return this.shared;
  }

  /** The process is about to end: streams without a client are given up, unless another replica may go on with them. */
  letGo(): void {
    for (const stream of this.findable.values()) {
      if (stream.isOpen && !stream.isAttached && stream.copy === undefined) stream.giveUp();
    }
  }

  /** Waits until the shared store knows what it can be told. */
  async close(): Promise<void> {
    for (const stream of this.findable.values()) if (!stream.isAttached && stream.copy === undefined) stream.giveUp();
    const shared = await this.shared?.catch(() => undefined);
    await shared?.close();
    for (const stream of this.findable.values()) stream.giveUp();
  }

  private shelf(route: string): Shelf {
    let shelf = this.shelves.get(route);
    if (shelf === undefined) {
      shelf = new Shelf(this.findable, this.metrics.resumableStreams);
      this.shelves.set(route, shelf);
    }
    return shelf;
  }
}
