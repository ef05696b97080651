/** Session cookies at `authenticate`: opened once and remembered, refreshed before their tokens expire. */
import { ResponseBodyError, refreshTokenGrant } from 'openid-client';
import type { AllowOrReject, RequestFacts } from '../../proto/contract.ts';
import { BoundedMap } from './bounded-map.ts';
import type { LoginClient } from './login-client.ts';
import { IssuerUnavailable, unavailability } from './outgoing.ts';
import { Refusal } from './refusals.ts';
import type { Revocations } from './revocations.ts';
import { type LoginSession, sessionFrom } from './session.ts';
import type { Sealed, SessionCookie } from './session-cookie.ts';

/** Sessions that are remembered opened. */
const MAX_OPEN = 10_000;
/** Tokens are refreshed when they have no longer to live than this, in milliseconds. */
const MARGIN_MS = 60_000;
/** How long a refresh that failed is not tried again, in milliseconds. */
const FAILURE_PAUSE_MS = 2_000;
const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS']);

/** A session that was opened from its cookie, or has come of a refresh. */
interface Open {
  session: LoginSession;
  verdict: AllowOrReject;
  /** `set-cookie` lines for who does not have this session's cookie yet. */
  lines?: string[];
  /** What it was refreshed to: who still brings the old cookie gets the new one. */
  next?: Open;
  refreshing?: Promise<Open | undefined>;
  /** Milliseconds since the epoch: before it no refresh is tried; infinite when the issuer has refused one. */
  retryAt: number;
}

/** The session of a request, and the cookies that it is to be answered with, if any. */
export interface Found {
  session: LoginSession;
  cookies?: string[];
}

export interface SessionsOptions {
  client: LoginClient;
  cookie: SessionCookie;
  revocations: Revocations;
  /** Origin by which browsers call this gateway. */
  origin: string;
  /** The verdict on a request without a session. @param cookies that end one */
  stranger(request: RequestFacts, cookies?: string[]): AllowOrReject;
}

export class Sessions {
  readonly #options: SessionsOptions;
  readonly #open = new BoundedMap<Open>(MAX_OPEN);

  constructor(options: SessionsOptions) {
    this.#options = options;
  }

  /** At once for a session that is remembered and fresh. @throws IssuerUnavailable when it must be refreshed and cannot be */
  authenticate(request: RequestFacts): AllowOrReject | Promise<AllowOrReject> {
    const { cookie, stranger, origin } = this.#options;
    const sealed = cookie.read(request.headers?.cookie);
    if (sealed === undefined) return stranger(request);
    if (!SAFE_METHODS.has(request.method) && !isSameOrigin(request, origin)) return CROSS_SITE;
    const known = this.#open.get(sealed.digest);
    if (known !== undefined && this.#isFresh(known)) return known.verdict;
    return this.#authenticate(request, sealed);
  }

  /** The session that a request belongs to, refreshed if need be; undefined when there is none, or none any longer. */
  async find(request: RequestFacts): Promise<Found | undefined> {
    const sealed = this.#options.cookie.read(request.headers?.cookie);
    const first = sealed && (await this.#opened(sealed));
    if (first === undefined) return undefined;
    const open = newest(first);
    if (this.#isOver(open.session)) return undefined;
    const current = this.#isFresh(open) ? open : await this.#refreshed(open);
    return current && { session: current.session, ...(current !== first && { cookies: current.lines }) };
  }

  /** The session of a request as it stands in its cookie, whether or not its tokens are still good. */
  async glance(request: RequestFacts): Promise<LoginSession | undefined> {
    const sealed = this.#options.cookie.read(request.headers?.cookie);
    const open = sealed && (await this.#opened(sealed));
    return open && newest(open).session;
  }

  async #authenticate(request: RequestFacts, sealed: Sealed): Promise<AllowOrReject> {
    const found = await this.find(request);
    if (found === undefined)
      return this.#options.stranger(request, this.#options.cookie.clear(request.headers?.cookie));
    // The same object each time, where there is one.
    const known = this.#open.peek(sealed.digest);
    if (found.cookies === undefined && known?.session === found.session) return known.verdict;
    return { allow: { identity: found.session.identity, ...(found.cookies && { cookies: found.cookies }) } };
  }

  async #opened(sealed: Sealed): Promise<Open | undefined> {
    const known = this.#open.get(sealed.digest);
    if (known !== undefined) return known;
    const { cookie, client } = this.#options;
    const session = await cookie.open(sealed);
    // A config may have named another issuer when it was sealed; that one's refresh token is not this one's to see.
    if (session?.identity.issuer !== client.issuer.config.issuer) return undefined;
    // Meanwhile another request may have opened the same one, and there is but one refresh of it.
    const open = this.#open.peek(sealed.digest) ?? openOf(session);
    this.#open.set(sealed.digest, open);
    return open;
  }

  #isOver({ id, sid, iat, ends, identity }: LoginSession): boolean {
    const { revocations } = this.#options;
    const person = { issuer: identity.issuer!, sub: identity.subject, iat };
    return Date.now() >= ends || revocations.has({ ...person, sid }) || revocations.has({ ...person, sid: id });
  }

  #isFresh({ session, next }: Open): boolean {
    if (next !== undefined || this.#isOver(session)) return false;
    const margin = session.refreshToken === undefined ? 0 : MARGIN_MS;
    return Date.now() < session.until - margin;
  }

  /** One refresh for all who bring the same session. While it fails, the session goes on as long as its tokens do. */
  async #refreshed(open: Open): Promise<Open | undefined> {
    const { session, retryAt } = open;
    if (session.refreshToken === undefined || retryAt === Number.POSITIVE_INFINITY) return asLongAsItLives(open);
    if (Date.now() < retryAt) return orUnavailable(open, new IssuerUnavailable('a refresh has just failed'));
    open.refreshing ??= this.#refresh(open).finally(() => {
      open.refreshing = undefined;
    });
    try {
      return await open.refreshing;
    } catch (error) {
      open.retryAt = Date.now() + FAILURE_PAUSE_MS;
      return orUnavailable(open, error);
    }
  }

  async #refresh(open: Open): Promise<Open | undefined> {
    try {
      open.next = await this.#renewed(open.session);
      return open.next;
    } catch (error) {
      if (!(error instanceof ResponseBodyError || error instanceof Refusal)) {
        throw unavailability(error) ?? new IssuerUnavailable((error as Error).message, { cause: error });
      }
      // Another replica may have used the same refresh token a moment ago: the access token is good as long as it lives.
      open.retryAt = Number.POSITIVE_INFINITY;
      return asLongAsItLives(open);
    }
  }

  async #renewed(session: LoginSession): Promise<Open> {
    const { client, cookie } = this.#options;
    const tokens = await refreshTokenGrant(await client.configuration(), session.refreshToken!);
    const renewed = await sessionFrom(tokens, client, session);
    const written = await cookie.write(renewed);
    const open: Open = { ...openOf(renewed), lines: written?.lines };
    if (written !== undefined) this.#open.set(written.digest, open);
    return open;
  }
}

const CROSS_SITE: AllowOrReject = {
  reject: {
    code: 'cross_site_request',
    message:
      'The request comes from another site, so your sign-in does not count for it. Open this gateway’s own page.',
    status: 403,
    findings: [{ label: 'cross_site', count: 1 }],
  },
};

function openOf(session: LoginSession): Open {
  return { session, verdict: { allow: { identity: session.identity } }, retryAt: 0 };
}

/** What a session has become by refreshes; the way there is made short. */
function newest(open: Open): Open {
  let last = open;
  while (last.next !== undefined) last = last.next;
  if (last !== open) open.next = last;
  return last;
}

function asLongAsItLives(open: Open): Open | undefined {
  return Date.now() < open.session.until ? open : undefined;
}

function orUnavailable(open: Open, error: unknown): Open {
  if (Date.now() < open.session.until) return open;
  throw error;
}

/**
 * Whether a browser says that a page of ours makes this request (Fetch Metadata; `Origin` for browsers without). Who says
 * nothing is no browser, and has no business with a cookie.
 */
export function isSameOrigin({ headers = {} }: RequestFacts, origin: string): boolean {
  const site = headers['sec-fetch-site'];
  return site === undefined ? headers.origin === origin : site === 'same-origin';
}
