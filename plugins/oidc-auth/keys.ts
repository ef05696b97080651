/**
 * The keys of one issuer: fetched when first needed, looked for again when a token names one that is not known, kept when
 * the issuer is away.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey } from 'jose';
import { IssuerUnavailable, within } from './outgoing.ts';

/** More keys than any issuer has; a set beyond it is refused whole. */
const MAX_KEYS = 100;
/** After failures the next look waits twice as long each time, up to this many milliseconds. */
const MAX_FAILURE_PAUSE_MS = 10_000;

export interface KeysOptions {
  /** Fetches the key set. Rejects when the issuer cannot be asked. */
  load(): Promise<JSONWebKeySet>;
  /** The shortest time between the beginnings of two looks, in milliseconds. */
  cooldownMs: number;
  /** How long one token waits for keys, in milliseconds. */
  waitMs: number;
  /** How often the keys are fetched anew without being asked for, in milliseconds. */
  refreshMs: number;
  /** Called when a key is no longer published: what it signed may not be believed further. */
  onWithdrawn(): void;
  /** Told once when the issuer goes away, not with each failure. */
  warn(message: string): void;
}

/** Answers the key that a token names, for jose. */
export class Keys {
  readonly #options: KeysOptions;
  #find: JWTVerifyGetKey | undefined;
  /** The keys as texts, to see when one is gone. */
  #published: ReadonlySet<string> = new Set();
  #looking: Promise<void> | undefined;
  /** Looks begun so far, and the last one of them that brought keys. */
  #begun = 0;
  #brought = 0;
  /** `performance.now()` when the last look that brought keys began. */
  #broughtAt = Number.NEGATIVE_INFINITY;
  #failure: { error: Error; until: number; pauseMs: number } | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #closed = new AbortController();

  constructor(options: KeysOptions) {
    this.#options = options;
  }

  /**
   * The key for a token's header. A key that is not known is looked for, once for all who wait.
   *
   * @throws IssuerUnavailable when the keys cannot be fetched, jose's errors when the issuer has no such key
   */
  readonly forToken: JWTVerifyGetKey = async (header, token) => {
    if (this.#find === undefined) await this.#lookedSince(1);
    // A look under way may have left before the key was there.
    const begun = this.#begun;
    try {
      return await this.#find!(header, token);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
    }
    await this.#lookedSince(begun + 1);
    return this.#find!(header, token);
  };

  /** Looks again, for a token that names no key and fits none of those known. @throws IssuerUnavailable */
  renewed(): Promise<void> {
    return this.#lookedSince(this.#begun + 1);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#closed.abort();
  }

  /** Waits until the look of that number, or a later one, has brought keys. */
  async #lookedSince(look: number): Promise<void> {
    const late = new IssuerUnavailable('the keys did not come in time');
    const deadline = performance.now() + this.#options.waitMs;
    // With a cool-down that is longer than anybody waits, the keys are as new as they can be.
    if (this.#looking === undefined && this.#find !== undefined && this.#cooldownLeft() > this.#options.waitMs) return;
    while (this.#brought < look) await within(deadline - performance.now(), this.#look(this.#cooldownLeft()), late);
  }

  #cooldownLeft(): number {
    return this.#broughtAt + this.#options.cooldownMs - performance.now();
  }

  /** One look at a time, after a pause. While the issuer is known to be away it fails at once. */
  #look(pauseMs: number): Promise<void> {
    const { until = 0, error } = this.#failure ?? {};
    if (this.#looking === undefined && performance.now() < until) return Promise.reject(error);
    this.#looking ??= this.#lookNow(pauseMs).finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async #lookNow(pauseMs: number): Promise<void> {
    if (pauseMs > 0) await sleep(pauseMs, undefined, { ref: false, signal: this.#closed.signal });
    const look = ++this.#begun;
    const begunAt = performance.now();
    try {
      this.#take(await this.#options.load());
      this.#brought = look;
      this.#broughtAt = begunAt;
      this.#failure = undefined;
    } catch (cause) {
      throw this.#failed(cause);
    }
    this.#timer ??= setInterval(() => void this.#look(0).catch(() => {}), this.#options.refreshMs).unref();
  }

  #take(set: JSONWebKeySet): void {
    if (set?.keys?.length > MAX_KEYS) throw new Error(`the issuer publishes more than ${MAX_KEYS} keys`);
    const find = createLocalJWKSet(set);
    // No issuer means it: everybody would be locked out until it says better.
    if (set.keys.length === 0) throw new Error('the issuer publishes no keys');
    const published = new Set(set.keys.map((key) => JSON.stringify(key)));
    const isWithdrawn = [...this.#published].some((key) => !published.has(key));
    // The set that is in use has its keys imported already.
    if (this.#find === undefined || isWithdrawn || published.size !== this.#published.size) this.#find = find;
    this.#published = published;
    if (isWithdrawn) this.#options.onWithdrawn();
  }

  #failed(cause: unknown): Error {
    const error =
      cause instanceof IssuerUnavailable ? cause : new IssuerUnavailable((cause as Error).message, { cause });
    if (this.#failure === undefined) {
      const consequence = this.#find === undefined ? 'its tokens cannot be checked' : 'going on with the keys known';
      this.#options.warn(`${error.message}; ${consequence}`);
    }
    const pauseMs = Math.min(MAX_FAILURE_PAUSE_MS, (this.#failure?.pauseMs ?? this.#options.cooldownMs / 2) * 2);
    this.#failure = { error, pauseMs, until: performance.now() + pauseMs };
    return error;
  }
}
