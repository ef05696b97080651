/**
 * A connection to Redis that never makes anybody wait: each command has a deadline, a Redis that is away costs nothing,
 * and the way back is found in the background.
 *
 * The connection counts as lost when it ends, when {@link MAX_LATE} commands in a row were late, or when Redis says that
 * it is only a replica. Then every command fails at once until a primary answers again; with several addresses they are
 * tried in turn, so that a failover is followed.
 */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { createClient, ErrorReply } from '@redis/client';

const CONNECT_MS = 1000;
const FIRST_RETRY_MS = 50;
const MAX_RETRY_MS = 1000;
/** Between two looks whether a silent Redis is still there. */
const HEARTBEAT_MS = 1000;
/** Late commands in a row after which the connection is given up. */
const MAX_LATE = 3;

export interface LinkOptions {
  /** `redis://` or `rediss://`, with user and password where wanted; at least one. */
  urls: readonly string[];
  /** The longest that a command may take, in milliseconds. */
  deadlineMs: number;
  /** Commands under way at a time; what comes beyond fails at once. */
  maxInFlight: number;
  /** Told to each Redis before it is used, so that it knows them when they are asked for by hash. */
  scripts?: readonly Script[];
}

/**
 * Why a command has no answer: no connection (`down`), one that was lost meanwhile (`cut`), no answer in time (`late`),
 * too many under way (`busy`), or Redis could not do it (`refused`).
 */
export type Loss = 'down' | 'cut' | 'late' | 'busy' | 'refused';

/** A command without an answer. */
export class RedisLost extends Error {
  readonly loss: Loss;

  constructor(loss: Loss, cause?: unknown) {
    super(`Redis gave no answer: ${loss}`, { cause });
    this.name = 'RedisLost';
    this.loss = loss;
  }

  /** Whether it may have been done all the same. */
  get mayBeDone(): boolean {
    return this.loss === 'late' || this.loss === 'cut';
  }
}

/** A Lua script, known to Redis by its SHA-1. */
export class Script {
  readonly source: string;
  readonly sha: string;

  constructor(source: string) {
    this.source = source;
    this.sha = createHash('sha1').update(source).digest('hex');
  }
}

type Client = ReturnType<typeof clientFor>;

/** See the head of this file. */
export class RedisLink {
  readonly #options: LinkOptions;
  readonly #closing = new AbortController();
  readonly #first: Promise<void>;
  #client: Client | undefined;
  #lose: ((reason: unknown) => void) | undefined;
  #inFlight = 0;
  #late = 0;

  constructor(options: LinkOptions) {
    this.#options = options;
    const first = Promise.withResolvers<void>();
    this.#first = first.promise;
    void this.#keepConnected(first.resolve);
  }

  /** Whether a primary is connected. */
  get up(): boolean {
    return this.#client !== undefined;
  }

  /** Resolves when the first try to connect is over, however it went. */
  get tried(): Promise<void> {
    return this.#first;
  }

  /** Sends a command. @throws RedisLost when there is no answer within the deadline */
  send(...command: string[]): Promise<unknown> {
    return this.#inTime((client) => client.sendCommand(command));
  }

  /** Runs a script by its hash, and tells its text to a Redis that does not know it. @throws RedisLost as `send` does */
  run({ sha, source }: Script, keys: readonly string[], args: readonly string[]): Promise<unknown> {
    const rest = [String(keys.length), ...keys, ...args];
    return this.#inTime((client) =>
      client.sendCommand(['EVALSHA', sha, ...rest]).catch((error: unknown) => {
        if (!says(error, 'NOSCRIPT')) throw error;
        return client.sendCommand(['EVAL', source, ...rest]);
      }),
    );
  }

  /** Lets go; every later command fails. */
  close(): void {
    this.#closing.abort();
    this.#lose?.(new RedisLost('down'));
  }

  async #inTime(command: (client: Client) => Promise<unknown>): Promise<unknown> {
    if (this.#inFlight >= this.#options.maxInFlight) throw new RedisLost('busy');
    this.#inFlight++;
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(this.#wasLate()), this.#options.deadlineMs);
    try {
      return await Promise.race([this.#answer(command), late.promise]);
    } finally {
      clearTimeout(timer);
      this.#inFlight--;
    }
  }

  async #answer(command: (client: Client) => Promise<unknown>): Promise<unknown> {
    if (this.#client === undefined) await this.#first;
    const client = this.#client;
    if (client === undefined) throw new RedisLost('down');
    try {
      const answer = await command(client);
      this.#late = 0;
      return answer;
    } catch (error) {
      if (says(error, 'READONLY')) this.#lose?.(error);
      throw new RedisLost(error instanceof ErrorReply ? 'refused' : 'cut', error);
    }
  }

  #wasLate(): RedisLost {
    const lost = new RedisLost('late');
    if (++this.#late >= MAX_LATE) this.#lose?.(lost);
    return lost;
  }

  async #keepConnected(tried: () => void): Promise<void> {
    const { signal } = this.#closing;
    const { urls } = this.#options;
    for (let failures = 0, next = 0; !signal.aborted; next++) {
      const client = clientFor(urls[next % urls.length]!);
      try {
        const { lost } = await this.#connect(client);
        failures = 0;
        tried();
        await lost;
      } catch {
        failures++;
      }
      this.#client = undefined;
      if (client.isOpen) client.destroy();
      // Every address is tried once before the first pause.
      if (next % urls.length === urls.length - 1) tried();
      else if (failures < urls.length) continue;
      await sleep(Math.min(FIRST_RETRY_MS * 2 ** Math.min(failures, 10), MAX_RETRY_MS), undefined, { signal }).catch(
        () => {},
      );
    }
  }

  /** Connects to a primary, and answers a promise that rejects when it is lost. */
  async #connect(client: Client): Promise<{ lost: Promise<never> }> {
    const lost = Promise.withResolvers<never>();
    lost.promise.catch(() => {});
    this.#lose = lost.reject;
    client.on('error', lost.reject);
    client.on('end', () => lost.reject(new RedisLost('down')));
    const timer = setTimeout(() => lost.reject(new RedisLost('late')), CONNECT_MS);
    try {
      await Promise.race([this.#prepare(client), lost.promise]);
    } finally {
      clearTimeout(timer);
    }
    this.#closing.signal.throwIfAborted();
    this.#client = client;
    this.#late = 0;
    void this.#heartbeat(client);
    return { lost: lost.promise };
  }

  /** @throws RedisLost when it is no primary */
  async #prepare(client: Client): Promise<void> {
    await client.connect();
    const role = await client.sendCommand(['ROLE']);
    if (!Array.isArray(role) || String(role[0]) !== 'master') throw new RedisLost('refused');
    const { scripts = [] } = this.#options;
    await Promise.all(scripts.map(({ source }) => client.sendCommand(['SCRIPT', 'LOAD', source])));
  }

  /** A Redis that has gone silent is noticed also while nobody asks it anything. */
  async #heartbeat(client: Client): Promise<void> {
    for (;;) {
      await sleep(HEARTBEAT_MS, undefined, { ref: false });
      if (this.#client !== client) return;
      await this.send('PING').catch(() => {});
    }
  }
}

function clientFor(url: string) {
  return createClient({
    url,
    disableOfflineQueue: true,
    disableClientInfo: true,
    maintNotifications: 'disabled',
    socket: { connectTimeout: CONNECT_MS, reconnectStrategy: false },
  });
}

function says(error: unknown, word: string): boolean {
  return error instanceof Error && error.message.includes(word);
}
