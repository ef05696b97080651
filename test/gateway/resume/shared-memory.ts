/** A store in the test's own memory that replicas share; it can be away, and its writers can be dead. */
import type {
  FoundStream,
  StreamChange,
  StreamLook,
  StreamPiece,
  StreamReader,
  StreamStore,
} from '../../../proto/store.ts';

interface Kept extends FoundStream {
  /** By number; those before `oldest` are gone. */
  events: string[];
  oldest: number;
  hasEnded: boolean;
  reader: string | undefined;
}

export class SharedMemory {
  readonly streams = new Map<string, Kept>();
  readonly dead = new Set<string>();
  isAway = false;
  /** How many events are read at a time. */
  piece = 2;
  #replicas = 0;

  /** The store as one replica has it. */
  open(): StreamStore {
    this.#replicas += 1;
    return new Replica(this, `replica-${this.#replicas}`);
  }
}

class Replica implements StreamStore {
  readonly #memory: SharedMemory;
  readonly #name: string;

  constructor(memory: SharedMemory, name: string) {
    this.#memory = memory;
    this.#name = name;
  }

  async write(stream: string, { facts, first, events, oldest, hasEnded, claims }: StreamChange): Promise<boolean> {
    this.#check();
    const { streams } = this.#memory;
    if (facts) streams.set(stream, { facts, writer: this.#name, events: [], oldest, hasEnded, reader: undefined });
    const kept = streams.get(stream);
    if (kept === undefined) return false;
    events.forEach((event, i) => {
      kept.events[first + i] = event;
    });
    Object.assign(kept, { oldest, hasEnded: kept.hasEnded || hasEnded, ...(claims && { reader: undefined }) });
    return true;
  }

  async touch(): Promise<void> {
    this.#check();
  }

  async drop(stream: string): Promise<void> {
    this.#check();
    this.#memory.streams.delete(stream);
  }

  async find(stream: string): Promise<FoundStream | undefined> {
    this.#check();
    return this.#memory.streams.get(stream);
  }

  async read(stream: string, { writer, reader, after, takes }: StreamLook): Promise<StreamPiece> {
    this.#check();
    const kept = this.#memory.streams.get(stream);
    if (kept === undefined) return { state: 'unknown', oldest: 1, newest: 0, events: [] };
    if (takes) kept.reader = reader;
    else if (kept.reader !== reader) return { state: 'taken', oldest: 1, newest: 0, events: [] };
    const state = kept.hasEnded ? 'ended' : this.#memory.dead.has(writer) ? 'orphaned' : 'open';
    const events = kept.events.slice(after + 1, after + 1 + this.#memory.piece);
    return { state, oldest: kept.oldest, newest: Math.max(0, kept.events.length - 1), events };
  }

  async beat(): Promise<StreamReader[]> {
    this.#check();
    return [];
  }

  close(): void {}

  #check(): void {
    if (this.#memory.isAway) throw new Error('the store is away');
  }
}
