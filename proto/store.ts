/**
 * Where streamed answers are kept beside the process that makes them, so that another replica of the gateway can go on
 * with one. Every method rejects when the store is away or late; whoever calls must do without it then.
 */

/** What is known of a stream beside its events. */
export interface StreamFacts {
  /** A digest of who asked, and on which route: only they may resume. */
  owner: string;
  /** The answer's headers; names and values alternate. */
  head: string[];
  /** The id of the request that began it. */
  requestId: string;
  route: string;
  /** The model that the client asked for. */
  model?: string;
  /** SHA-256 of the request's body, in hexadecimal. */
  fingerprint: string;
}

/** What is to be kept of a stream, at a time. */
export interface StreamChange {
  /** Given until the stream has been told of once. */
  facts?: StreamFacts;
  /** The number of the first of `events`, counted from 1; events that are known already are passed over. */
  first: number;
  /** One character a byte (latin1). */
  events: string[];
  /** The number of the oldest event that is still wanted. */
  oldest: number;
  hasEnded: boolean;
  /** Takes the stream from whoever reads it in another replica. */
  claims: boolean;
  /** How long it is to be kept after this, in milliseconds. */
  keepMs: number;
}

/** A stream that is kept, and the replica that writes it. */
export interface FoundStream {
  facts: StreamFacts;
  writer: string;
}

/** One look at a stream. */
export interface StreamLook {
  writer: string;
  /** Names who reads. */
  reader: string;
  /** The number of the last event that the reader's client was handed. */
  after: number;
  /** Becomes the one reader; without it, reads on only as long as nobody else has become that. */
  takes: boolean;
}

/**
 * What was found of a stream: it is being written (`open`), complete (`ended`), its writer has vanished before the end
 * (`orphaned`), somebody else reads it now (`taken`), or there is nothing of that name (`unknown`).
 */
export type StreamState = 'open' | 'ended' | 'orphaned' | 'taken' | 'unknown';

export interface StreamPiece {
  state: StreamState;
  /** The numbers of the oldest and the newest event that are kept; the oldest is one more where none is. */
  oldest: number;
  newest: number;
  /** The next events, one character a byte; not all of them, when they are many. */
  events: string[];
}

/** One who reads a stream of this replica in another one. */
export interface StreamReader {
  stream: string;
  /** The number of the last event that its client was handed. */
  handed: number;
}

export interface StreamStore {
  /**
   * Answers false when the store has lost the stream; there is no use in going on. Changes of one stream may be told before
   * the one before was answered; one that would leave a hole rejects.
   */
  write(stream: string, change: StreamChange): Promise<boolean>;
  /** Keeps a silent stream for `keepMs` more milliseconds. */
  touch(stream: string, keepMs: number): Promise<void>;
  drop(stream: string): Promise<void>;
  find(stream: string): Promise<FoundStream | undefined>;
  read(stream: string, look: StreamLook): Promise<StreamPiece>;
  /** Says that this replica lives, for {@link LEASE_MS} more; answers who reads its streams elsewhere. */
  beat(): Promise<StreamReader[]>;
  close(): void;
}

/** How long a replica is believed to live after it has last said so, in milliseconds. */
export const LEASE_MS = 5_000;
