/**
 * Logouts that all replicas know and that survive restarts: a sorted set in Redis, by the time when each runs out, and a
 * channel that tells of new ones at once.
 */
import { createClient } from '@redis/client';
import { PluginFault } from '../../proto/contract.ts';
import type { RedisConfig } from './config.ts';
import type { Logout, Revocations } from './revocations.ts';
import { warn } from './warnings.ts';

const CONNECT_MS = 1_000;
const COMMAND_MS = 1_000;
const PING_MS = 2_000;
const MAX_RETRY_MS = 2_000;
/** How often all of them are read again, in case a message was lost. */
const REREAD_MS = 30_000;
/** Logouts that are read at a time. */
const MAX_READ = 100_000;

export class SharedLogouts {
  readonly #config: RedisConfig;
  readonly #revocations: Revocations;
  readonly #client: ReturnType<typeof clientFor>;
  readonly #subscriber: ReturnType<typeof clientFor>;
  #first: Promise<void> | undefined;
  #state: 'new' | 'here' | 'away' = 'new';
  readonly #settled = Promise.withResolvers<void>();
  #timer: NodeJS.Timeout | undefined;

  constructor(config: RedisConfig, revocations: Revocations) {
    this.#config = config;
    this.#revocations = revocations;
    this.#client = clientFor(config.url);
    this.#subscriber = clientFor(config.url);
  }

  /**
   * Whether the logouts are known: `undefined` when they are, a promise while they are read for the first time.
   *
   * @throws LogoutsUnavailable when Redis is away and the config says `onFault: reject`
   */
  known(): undefined | Promise<void> {
    if (this.#state === 'here') return undefined;
    this.#first ??= this.#start();
    if (this.#state === 'new') return this.#first.then(() => void this.known());
    if (this.#config.onFault === 'reject')
      throw new PluginFault('logouts_unavailable', 'Redis is away, so it is not known who has logged out');
    return undefined;
  }

  /** Tells the others. What cannot be told now is told when Redis is back. */
  async add(logout: Logout): Promise<void> {
    this.#first ??= this.#start();
    await this.#first;
    if (this.#state === 'here') await this.#write([logout]).catch((error: unknown) => this.#lost(error));
  }

  close(): void {
    clearInterval(this.#timer);
    for (const client of [this.#client, this.#subscriber]) client.destroy();
  }

  /** Connects, and resolves when the logouts have been read or Redis has turned out to be away. */
  #start(): Promise<void> {
    for (const client of [this.#client, this.#subscriber]) {
      client.on('error', (error) => this.#lost(error));
      client.on('ready', () => void this.#read());
    }
    this.#subscriber.once('ready', () => {
      const listen = (message: string) => this.#take(message);
      // After a lost connection the client subscribes by itself.
      this.#subscriber.subscribe(this.#channel, listen).catch((error: unknown) => this.#lost(error));
    });
    for (const client of [this.#client, this.#subscriber]) client.connect().catch(() => {});
    this.#timer = setInterval(() => void this.#read(), REREAD_MS).unref();
    return this.#settled.promise;
  }

  get #channel(): string {
    return `${this.#config.prefix}logout`;
  }

  get #set(): string {
    return `${this.#config.prefix}logouts`;
  }

  /** Reads what others know, and writes what only we know: it was learnt while Redis was away, or Redis has forgotten it. */
  async #read(): Promise<void> {
    if (!this.#client.isReady || !this.#subscriber.isReady) return;
    try {
      const limit = { LIMIT: { offset: 0, count: MAX_READ } };
      const entries = await this.#client.zRangeByScore(this.#set, Date.now(), '+inf', limit);
      const known = new Set(entries);
      await this.#write([...this.#revocations.current()].filter((one) => !known.has(JSON.stringify(one))));
      for (const entry of entries) this.#take(entry);
      this.#state = 'here';
      this.#settled.resolve();
    } catch (error) {
      this.#lost(error);
    }
  }

  async #write(logouts: Logout[]): Promise<void> {
    if (logouts.length === 0) return;
    const entries = logouts.map((logout) => ({ score: logout.until, value: JSON.stringify(logout) }));
    const last = Math.ceil(Math.max(...entries.map(({ score }) => score)));
    const change = this.#client.multi().zAdd(this.#set, entries).zRemRangeByScore(this.#set, '-inf', Date.now());
    for (const { value } of entries) change.publish(this.#channel, value);
    await change.pExpireAt(this.#set, last, 'GT').pExpireAt(this.#set, last, 'NX').exec();
  }

  #take(entry: string): void {
    const logout = readLogout(entry);
    if (logout !== undefined) this.#revocations.add(logout);
  }

  #lost(error: unknown): void {
    if (this.#state !== 'away') {
      const consequence =
        this.#config.onFault === 'reject' ? 'nobody is let in meanwhile' : 'going on with the logouts known here';
      warn(`Redis cannot be reached (${(error as { code?: string }).code ?? (error as Error).name}); ${consequence}`);
    }
    this.#state = 'away';
    this.#settled.resolve();
  }
}

function clientFor(url: string) {
  return createClient({
    url,
    disableOfflineQueue: true,
    pingInterval: PING_MS,
    commandOptions: { timeout: COMMAND_MS },
    socket: {
      connectTimeout: CONNECT_MS,
      socketTimeout: 2 * PING_MS + COMMAND_MS,
      reconnectStrategy: (tries) => Math.min(MAX_RETRY_MS, 50 * 2 ** tries),
    },
  });
}

/** What others wrote is checked as well: other versions may stand beside this one. */
function readLogout(entry: string): Logout | undefined {
  try {
    const { issuer, sid, sub, at, until } = JSON.parse(entry) as Record<string, unknown>;
    const isSound = typeof issuer === 'string' && typeof at === 'number' && typeof until === 'number';
    if (!isSound) return undefined;
    if (typeof sid === 'string') return { issuer, sid, at, until };
    return typeof sub === 'string' ? { issuer, sub, at, until } : undefined;
  } catch {
    return undefined;
  }
}
