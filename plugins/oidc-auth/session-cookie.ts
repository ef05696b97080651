/** The session cookie: a session in, encrypted, and out again. */
import { hash } from 'node:crypto';
import type { LoginConfig } from './config.ts';
import { type CookieJar, cookieJar } from './cookies.ts';
import { Seal } from './seal.ts';
import type { LoginSession } from './session.ts';

/** With an ID token a session may take this many cookies; beyond it, it does without. */
const ROOMY = 2;

/** A cookie's value and what it is remembered by. */
export interface Sealed {
  value: string;
  /** SHA-256 of the value. */
  digest: string;
}

export class SessionCookie {
  readonly #jar: CookieJar;
  readonly #seal: Seal;

  constructor({ cookieName, cookieSecret, publicUrl }: LoginConfig) {
    this.#jar = cookieJar(cookieName, publicUrl.startsWith('https:'));
    this.#seal = new Seal(cookieSecret, 'session');
  }

  read(header: string | undefined): Sealed | undefined {
    const value = this.#jar.read(header);
    return value === undefined ? undefined : sealed(value);
  }

  /** The session; undefined when it was not sealed here, was changed, or has ended. */
  open({ value }: Sealed): Promise<LoginSession | undefined> {
    return this.#seal.open<LoginSession>(value);
  }

  /** The value, and its `set-cookie` lines; undefined when it fits into no number of cookies that browsers send. */
  async write({ idToken, ...session }: LoginSession): Promise<(Sealed & { lines: string[] }) | undefined> {
    const whole = await this.#lines(idToken === undefined ? session : { ...session, idToken });
    return whole !== undefined && whole.lines.length <= ROOMY ? whole : this.#lines(session);
  }

  clear(header: string | undefined): string[] {
    return this.#jar.clear(header);
  }

  async #lines(session: LoginSession): Promise<(Sealed & { lines: string[] }) | undefined> {
    const value = await this.#seal.seal(session, session.ends);
    const lines = this.#jar.write(value, (session.ends - Date.now()) / 1000);
    return lines === undefined ? undefined : { ...sealed(value), lines };
  }
}

function sealed(value: string): Sealed {
  return { value, digest: hash('sha256', value, 'base64') };
}
