/** Which sessions and people have been logged out. */
import { BoundedMap } from './bounded-map.ts';

/** Logouts that are remembered; beyond it the oldest are forgotten. */
const MAX_LOGOUTS = 100_000;

/** One logout: of a session, or of all that a person had until then. */
export interface Logout {
  issuer: string;
  /** Session id. */
  sid?: string;
  /** Subject; what was issued to it before `at` is over. Only where there is no `sid`. */
  sub?: string;
  /** Seconds since the epoch. */
  at: number;
  /** Milliseconds since the epoch: no token that was issued before lives longer. */
  until: number;
}

/** What a logout is held against. */
export interface Session {
  issuer: string;
  sid?: string;
  sub: string;
  /** Seconds since the epoch when the token was issued. */
  iat: number;
}

/** The logouts that are known in this process. */
export class Revocations {
  readonly #logouts = new BoundedMap<Logout>(MAX_LOGOUTS);

  add(logout: Logout): void {
    const key = keyOf(logout);
    const known = this.#logouts.peek(key);
    if (known === undefined || known.at <= logout.at) this.#logouts.set(key, logout);
  }

  /** On the hot path: two look-ups at most, none while nobody has logged out. */
  has({ issuer, sid, sub, iat }: Session): boolean {
    if (this.#logouts.size === 0) return false;
    if (sid !== undefined && this.#isCurrent(keyOf({ issuer, sid }))) return true;
    const logout = this.#isCurrent(keyOf({ issuer, sub }));
    return logout !== undefined && iat <= logout.at;
  }

  /** All that have not run out. */
  *current(): Generator<Logout> {
    const now = Date.now();
    for (const [, logout] of this.#logouts.entries()) if (now < logout.until) yield logout;
  }

  #isCurrent(key: string): Logout | undefined {
    const logout = this.#logouts.peek(key);
    if (logout === undefined || Date.now() < logout.until) return logout;
    this.#logouts.delete(key);
    return undefined;
  }
}

function keyOf({ issuer, sid, sub }: Pick<Logout, 'issuer' | 'sid' | 'sub'>): string {
  return JSON.stringify(sid === undefined ? [issuer, 'sub', sub] : [issuer, 'sid', sid]);
}
