/**
 * Where issued keys are kept: Redis, one JSON record for each key, under its id.
 *
 * Nothing waits for a Redis that is away: commands fail at once while there is no connection, which is made anew in the
 * background. One that has gone silent is given up; neither TCP nor the client's own time-outs would notice for minutes.
 */
import { createClient, WatchError } from '@redis/client';
import { type KeyRecord, readRecord } from './record.ts';

const CONNECT_MS = 1_500;
/** How long an answer, or a connection, is waited for before a new connection is made. */
const SILENCE_MS = 3_000;
const MAX_RETRY_MS = 1_000;
/** How long a key that works no more is still listed. */
const KEPT_MS = 30 * 86_400_000;
/** How often a change is tried again when somebody else changed the same key. */
const MAX_TRIES = 5;

/** What the plugin needs of a store. */
export interface KeySource {
  /** The record of an id. @throws Error when the store does not answer */
  get(id: string): Promise<KeyRecord | undefined>;
  close(): void;
}

export interface StoreOptions {
  /** `redis://` or `rediss://`, with user and password where wanted. */
  url: string;
  /** What the names of all entries begin with. */
  namespace: string;
}

type Client = ReturnType<typeof connectionTo>;

/** The keys in Redis. */
export class RedisStore implements KeySource {
  readonly #options: StoreOptions;
  readonly #namespace: string;
  /** Whether a lost connection is made anew. */
  readonly #keepsTrying: boolean;
  #client!: Client;
  #connected!: Promise<unknown>;
  /** When what is still waited for began; undefined while nothing is. */
  #waitingSince: number | undefined;

  /** @param keepsTrying whether a lost connection is made anew; without it {@link ready} tells the first failure */
  constructor(options: StoreOptions, keepsTrying = true) {
    this.#options = options;
    this.#namespace = options.namespace;
    this.#keepsTrying = keepsTrying;
    this.#connect();
  }

  #connect(): void {
    const client = connectionTo(this.#options.url, this.#keepsTrying);
    this.#client = client;
    this.#waitingSince = performance.now();
    const first = new Promise<void>((resolve) => {
      const settled = (waitingSince: number | undefined) => {
        if (this.#client === client) this.#waitingSince = waitingSince;
        resolve();
      };
      client.on('ready', () => settled(undefined));
      // Each failure is told by the command that fails, and the next try begins; unheard, it would end the process.
      client.on('error', () => settled(performance.now()));
    });
    const connected = client.connect();
    connected.catch(() => {});
    this.#connected = this.#keepsTrying ? first : connected;
  }

  /** Resolves when the first try to connect is over. @throws Error when it failed and no other will be made */
  async ready(): Promise<void> {
    await this.#connected;
  }

  async get(id: string): Promise<KeyRecord | undefined> {
    if (this.#waitingSince !== undefined && performance.now() - this.#waitingSince > SILENCE_MS) this.#reconnect();
    await this.#connected;
    const client = this.#client;
    if (client.isReady) this.#waitingSince ??= performance.now();
    const json = await client.get(this.#namespace + id);
    if (this.#client === client) this.#waitingSince = undefined;
    return parsed(json);
  }

  #reconnect(): void {
    if (!this.#keepsTrying) return;
    this.close();
    this.#connect();
  }

  /** Adds a key. @throws Error when its id is taken, which of 64 bits does not happen by chance */
  async add(id: string, record: KeyRecord): Promise<void> {
    const added = await this.#client.set(this.#namespace + id, JSON.stringify(record), {
      condition: 'NX',
      expiration: lastingFor(record),
    });
    if (added === null) throw new Error('there is a key with this id already; try again');
  }

  /** Takes a key out. */
  async remove(id: string): Promise<void> {
    await this.#client.del(this.#namespace + id);
  }

  /**
   * Changes a key, unless somebody else did in between: then it is read and changed again.
   *
   * @param change what becomes of it; it may throw to leave it as it is
   * @returns the changed record, or undefined when there is no such key
   */
  async change(id: string, change: (record: KeyRecord) => KeyRecord): Promise<KeyRecord | undefined> {
    const name = this.#namespace + id;
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      await this.#client.watch(name);
      const record = parsed(await this.#client.get(name));
      if (record === undefined) return undefined;
      const changed = change(record);
      const options = { expiration: lastingFor(changed) };
      const done = await this.#client
        .multi()
        .set(name, JSON.stringify(changed), options)
        .exec()
        .catch(changedMeanwhile);
      if (done !== undefined) return changed;
    }
    throw new Error('somebody else keeps changing this key; try again');
  }

  /** All keys with their ids, in no order. Entries that are no keys are left out. */
  async *all(): AsyncGenerator<[id: string, record: KeyRecord]> {
    const escaped = this.#namespace.replace(/[\\*?[\]]/g, '\\$&');
    const seen = new Set<string>();
    for await (const names of this.#client.scanIterator({ MATCH: `${escaped}*`, COUNT: 500 })) {
      const ids = names.map((name) => name.slice(this.#namespace.length));
      const fresh = ids.filter((id) => /^[0-9a-f]{16}$/.test(id) && !seen.has(id));
      if (fresh.length === 0) continue;
      const found = await this.#client.mGet(fresh.map((id) => this.#namespace + id));
      for (const [i, id] of fresh.entries()) {
        const record = parsedIfSound(found[i] ?? null);
        if (record !== undefined && !seen.has(id)) yield [id, record];
        seen.add(id);
      }
    }
  }

  close(): void {
    if (this.#client.isOpen) this.#client.destroy();
  }
}

function connectionTo(url: string, keepTrying: boolean) {
  return createClient({
    url,
    disableOfflineQueue: true,
    socket: {
      connectTimeout: CONNECT_MS,
      reconnectStrategy: (retries) => keepTrying && Math.min(50 * 2 ** Math.min(retries, 10), MAX_RETRY_MS),
    },
  });
}

function parsed(json: string | null): KeyRecord | undefined {
  return json === null ? undefined : readRecord(json);
}

function parsedIfSound(json: string | null): KeyRecord | undefined {
  try {
    return parsed(json);
  } catch {
    return undefined;
  }
}

/** Redis drops what works no more after a while. */
function lastingFor({ revoked, expires }: KeyRecord) {
  const ends = [revoked, expires].filter((moment) => moment !== undefined).map((moment) => Date.parse(moment));
  return ends.length === 0 ? undefined : ({ type: 'PXAT', value: Math.min(...ends) + KEPT_MS } as const);
}

function changedMeanwhile(error: Error): undefined {
  if (!(error instanceof WatchError)) throw error;
  return undefined;
}
