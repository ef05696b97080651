/**
 * Marks that all replicas of the gateway share: a sorted set by the time when each runs out, and a channel that tells of
 * new ones at once. Times are counted by Redis's own clock, so that replicas need not agree on theirs.
 *
 * Nobody waits for Redis. While it is away each replica knows its own marks only; when it is back, all that is in the set
 * is read again, and now and then besides, in case a message was lost.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { createClient } from '@redis/client';
import type { SharedMarks } from '../../proto/marks.ts';
import { RedisLink, Script } from './link.ts';

const CONNECT_MS = 1_000;
const DEADLINE_MS = 1_000;
const PING_MS = 2_000;
/** Marks on their way to Redis at a time; those beyond stay here. */
const MAX_IN_FLIGHT = 100;
/** Marks that are kept for the others, and that are read at a time. */
const MAX_MARKS = 5_000;
/** The longest name of what is marked, in UTF-16 units. */
const MAX_KEY = 1_024;
/** How often all of them are read again, in milliseconds. */
const REREAD_MS = 30_000;
const FIRST_RETRY_MS = 50;
const MAX_RETRY_MS = 1_000;

/** KEYS: the set. ARGV: what is marked, for how many milliseconds, the channel, the message, the most that are kept. */
const MARK = new Script(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], 'GT', now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[5])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
if last then redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', math.ceil(last))) end
return redis.call('PUBLISH', ARGV[3], ARGV[4])`);

/** KEYS: the set. ARGV: the most that are read. Answers what is marked and the milliseconds that are left, in turn. */
const READ = new Script(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answer = {}
local marks = redis.call('ZRANGE', KEYS[1], '+inf', '(' .. now, 'BYSCORE', 'REV', 'LIMIT', 0, ARGV[1], 'WITHSCORES')
for i = 1, #marks, 2 do
  answer[#answer + 1] = marks[i]
  answer[#answer + 1] = string.format('%.0f', marks[i + 1] - now)
end
return answer`);

type Listener = (key: string, forMs: number) => void;

/** Opens them. Redis need not be there yet. @param prefix of the set's name and the channel's */
export function redisMarks(addresses: readonly string[], prefix = 'wardgate:'): SharedMarks {
  return new RedisMarks(addresses, prefix);
}

class RedisMarks implements SharedMarks {
  readonly #link: RedisLink;
  readonly #addresses: readonly string[];
  readonly #set: string;
  readonly #channel: string;
  /** Names this replica, which need not be told of its own marks. */
  readonly #replica = randomUUID();
  readonly #listeners = new Set<Listener>();
  readonly #closing = new AbortController();
  readonly #rereading: NodeJS.Timeout;

  constructor(addresses: readonly string[], prefix: string) {
    this.#addresses = addresses;
    this.#set = `${prefix}marks`;
    this.#channel = `${prefix}mark`;
    const scripts = [MARK, READ];
    this.#link = new RedisLink({ urls: addresses, deadlineMs: DEADLINE_MS, maxInFlight: MAX_IN_FLIGHT, scripts });
    this.#rereading = setInterval(() => void this.#read(), REREAD_MS).unref();
    void this.#listen();
  }

  mark(key: string, forMs: number): void {
    const ms = Math.ceil(forMs);
    if (!(ms > 0) || key.length > MAX_KEY || this.#closing.signal.aborted) return;
    const message = JSON.stringify({ replica: this.#replica, key, ms });
    const settings = [key, String(ms), this.#channel, message, String(MAX_MARKS)];
    this.#link.run(MARK, [this.#set], settings).catch(() => {});
  }

  onMark(listener: Listener): () => void {
    this.#listeners.add(listener);
    void this.#read();
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#closing.abort();
    clearInterval(this.#rereading);
    this.#listeners.clear();
    this.#link.close();
  }

  #tell(key: string, ms: number): void {
    for (const listener of this.#listeners) listener(key, ms);
  }

  async #read(): Promise<void> {
    const marks = (await this.#link.run(READ, [this.#set], [String(MAX_MARKS)]).catch(() => [])) as unknown[];
    for (let i = 0; i + 1 < marks.length; i += 2) this.#tell(String(marks[i]), Number(marks[i + 1]));
  }

  /** Stays connected to one of the addresses, and reads all marks whenever it was not. */
  async #listen(): Promise<void> {
    const { signal } = this.#closing;
    for (let next = 0, failures = 0; !signal.aborted; next += 1) {
      const isHeard = await this.#hear(this.#addresses[next % this.#addresses.length]!);
      failures = isHeard ? 0 : failures + 1;
      const pause = Math.min(FIRST_RETRY_MS * 2 ** Math.min(failures, 10), MAX_RETRY_MS);
      await sleep(pause, undefined, { signal }).catch(() => {});
    }
  }

  /** Listens until the connection is lost. Answers whether there was one. */
  async #hear(url: string): Promise<boolean> {
    const { signal } = this.#closing;
    const client = subscriberFor(url);
    const over = Promise.withResolvers<void>();
    const end = () => over.resolve();
    client.on('error', end);
    client.on('end', end);
    signal.addEventListener('abort', end, { once: true });
    try {
      await Promise.race([this.#subscribe(client), over.promise.then(() => Promise.reject(new Error('lost')))]);
      void this.#read();
      await over.promise;
      return true;
    } catch {
      return false;
    } finally {
      signal.removeEventListener('abort', end);
      if (client.isOpen) client.destroy();
    }
  }

  async #subscribe(client: ReturnType<typeof subscriberFor>): Promise<void> {
    await client.connect();
    await client.subscribe(this.#channel, (message) => {
      const mark = readMark(message);
      if (mark !== undefined && mark.replica !== this.#replica) this.#tell(mark.key, mark.ms);
    });
  }
}

function subscriberFor(url: string) {
  return createClient({
    url,
    disableOfflineQueue: true,
    disableClientInfo: true,
    maintNotifications: 'disabled',
    pingInterval: PING_MS,
    socket: { connectTimeout: CONNECT_MS, socketTimeout: 2 * PING_MS + DEADLINE_MS, reconnectStrategy: false },
  });
}

/** What others wrote is checked as well: other versions may stand beside this one. */
function readMark(message: string): { replica: unknown; key: string; ms: number } | undefined {
  try {
    const { replica, key, ms } = JSON.parse(message) as Record<string, unknown>;
    const isSound = typeof key === 'string' && key.length <= MAX_KEY && typeof ms === 'number' && ms > 0;
    return isSound ? { replica, key, ms } : undefined;
  } catch {
    return undefined;
  }
}
