/** The browser login: authorization code with PKCE, and the pages around it. */
import { randomUUID } from 'node:crypto';
import {
  authorizationCodeGrant,
  buildAuthorizationUrl,
  buildEndSessionUrl,
  calculatePKCECodeChallenge,
  randomNonce,
  randomPKCECodeVerifier,
  randomState,
} from 'openid-client';
import type { EndpointInput, RequestFacts, Respond } from '../../proto/contract.ts';
import type { LoginConfig } from './config.ts';
import { type CookieJar, cookieJar } from './cookies.ts';
import type { LoginClient } from './login-client.ts';
import { unavailability } from './outgoing.ts';
import { answerPage, personPage, sorryPage, sureToLeavePage } from './pages.ts';
import type { Logout } from './revocations.ts';
import { Seal } from './seal.ts';
import { type LoginSession, sessionFrom } from './session.ts';
import type { SessionCookie } from './session-cookie.ts';
import { isSameOrigin, type Sessions } from './sessions.ts';
import { warn } from './warnings.ts';

/** How long one may take to sign in at the issuer, in milliseconds. */
const PATIENCE_MS = 600_000;
/** Sign-ins that one browser may have begun: one for each tab, within reason. */
const MAX_PENDING = 4;
const MAX_RETURN = 2_000;

/** A sign-in that has begun and not come back. */
interface Pending {
  state: string;
  nonce: string;
  verifier: string;
  /** Where to go afterwards. */
  back: string;
}

export interface LoginOptions {
  config: LoginConfig;
  /** Where the login's own paths begin. */
  path: string;
  client: LoginClient;
  sessions: Sessions;
  cookie: SessionCookie;
  /** How long a logout is kept, in milliseconds. */
  keepMs: number;
  onLogout(logout: Logout): Promise<void>;
}

export class Login {
  readonly #options: LoginOptions;
  /** `publicUrl` without a slash at its end. */
  readonly #base: string;
  readonly #pendingJar: CookieJar;
  readonly #pendingSeal: Seal;

  constructor(options: LoginOptions) {
    const { cookieName, cookieSecret, publicUrl } = options.config;
    this.#options = options;
    this.#base = publicUrl.replace(/\/$/, '');
    this.#pendingJar = cookieJar(`${cookieName}-login`, publicUrl.startsWith('https:'));
    this.#pendingSeal = new Seal(cookieSecret, 'login');
  }

  /** GET …/login?return=/path */
  async login({ request, query }: EndpointInput): Promise<Respond> {
    const { config, client, path } = this.#options;
    const back = this.#backTo(new URLSearchParams(query).get('return'));
    const pending: Pending = { state: randomState(), nonce: randomNonce(), verifier: randomPKCECodeVerifier(), back };
    const target = buildAuthorizationUrl(await client.configuration(), {
      redirect_uri: `${this.#base}${path}/callback`,
      scope: config.scopes.join(' '),
      state: pending.state,
      nonce: pending.nonce,
      code_challenge: await calculatePKCECodeChallenge(pending.verifier),
      code_challenge_method: 'S256',
    });
    const others = (await this.#pendingOf(request)).slice(0, MAX_PENDING - 1);
    return { ...redirect(target.href), cookies: await this.#keepPending([pending, ...others]) };
  }

  /** GET …/callback?code=…&state=… */
  async callback({ request, query }: EndpointInput): Promise<Respond> {
    const all = await this.#pendingOf(request);
    const state = new URLSearchParams(query).get('state');
    const pending = all.find((one) => one.state === state);
    if (pending === undefined) {
      return this.#sorry(400, 'This sign-in was not begun in this browser, or took longer than ten minutes.');
    }
    const cookies = await this.#keepPending(all.filter((one) => one !== pending));
    const session = await this.#sessionFor(pending, query);
    if (session === undefined)
      return { ...this.#sorry(403, 'The sign-in was refused or went wrong.', pending.back), cookies };
    const kept = await this.#options.cookie.write(session);
    if (kept === undefined)
      return { ...this.#sorry(500, 'Your account has more groups and roles than a cookie holds.'), cookies };
    return { ...redirect(this.#base + pending.back), cookies: [...cookies, ...kept.lines] };
  }

  /** GET or POST …/logout. Only a page of ours, or the person at the address bar, may end a session without asking. */
  async logout({ request }: EndpointInput): Promise<Respond> {
    const isWanted =
      isSameOrigin(request, new URL(this.#base).origin) ||
      (request.method === 'GET' && request.headers?.['sec-fetch-site'] === 'none');
    if (!isWanted) return answerPage(200, sureToLeavePage(`${this.#base}${this.#options.path}/logout`));
    const session = await this.#options.sessions.glance(request);
    const cookies = this.#options.cookie.clear(request.headers?.cookie);
    if (session !== undefined) await this.#end(session);
    return { ...redirect(await this.#farewell(session), 303), cookies };
  }

  /** GET …/userinfo: who am I? A page for people, JSON for programs. */
  async userinfo({ request }: EndpointInput): Promise<Respond> {
    const { sessions, path } = this.#options;
    const found = await sessions.find(request);
    const isPage = /text\/html/.test(request.headers?.accept ?? '');
    if (found === undefined && isPage) return redirect(this.urlFor(`${path}/userinfo`));
    if (found === undefined) return json(401, { error: 'login_required' });
    const { session, cookies } = found;
    const { claims: _claims, ...person } = session.identity;
    if (isPage) return { ...answerPage(200, personPage(person, `${this.#base}${path}/logout`)), cookies };
    return { ...json(200, { ...person, expires: new Date(session.ends).toISOString() }), cookies };
  }

  /**
   * Where one signs in, to come back to a path afterwards: by the public name, because a cookie that was set for another
   * name of this gateway is not there when the issuer sends one back.
   */
  urlFor(back: string): string {
    return `${this.#base}${this.#options.path}/login?return=${encodeURIComponent(back)}`;
  }

  async #sessionFor({ state, nonce, verifier }: Pending, query: string): Promise<LoginSession | undefined> {
    const { client, config, path } = this.#options;
    const url = new URL(`${this.#base}${path}/callback?${query}`);
    const checks = { expectedState: state, expectedNonce: nonce, pkceCodeVerifier: verifier, idTokenExpected: true };
    try {
      const tokens = await authorizationCodeGrant(await client.configuration(), url, checks);
      const origin = { id: randomUUID(), ends: Date.now() + config.sessionLife };
      return await sessionFrom(tokens, client, origin);
    } catch (error) {
      const away = unavailability(error);
      if (away !== undefined) throw away;
      warn(`a sign-in failed: ${nameOf(error)}`);
      return undefined;
    }
  }

  async #end({ id, identity }: LoginSession): Promise<void> {
    const now = Date.now();
    const at = Math.floor(now / 1000);
    await this.#options.onLogout({ issuer: identity.issuer!, sid: id, at, until: now + this.#options.keepMs });
  }

  /** Where one goes after a logout: to the issuer, to end the session there too, if it can be. */
  async #farewell(session: LoginSession | undefined): Promise<string> {
    const { client, config } = this.#options;
    const home = this.#base + config.afterLogout;
    try {
      const parameters = {
        post_logout_redirect_uri: home,
        ...(session?.idToken && { id_token_hint: session.idToken }),
      };
      return buildEndSessionUrl(await client.configuration(), parameters).href;
    } catch {
      return home;
    }
  }

  /** Only a path of this very gateway: anything else would make us a signpost to wherever an attacker likes. */
  #backTo(wanted: string | null): string {
    const { config, path } = this.#options;
    if (wanted === null || wanted.length > MAX_RETURN || !/^\/(?![/\\])[\x21-\x5b\x5d-\x7e]*$/.test(wanted)) {
      return config.afterLogin;
    }
    const { origin, pathname } = new URL(wanted, this.#base);
    const isOwn = origin === new URL(this.#base).origin && !/^\/\//.test(pathname);
    return isOwn && !['login', 'callback', 'logout'].some((one) => pathname === `${path}/${one}`)
      ? wanted
      : config.afterLogin;
  }

  async #pendingOf(request: RequestFacts): Promise<Pending[]> {
    const sealed = this.#pendingJar.read(request.headers?.cookie);
    return (sealed === undefined ? undefined : await this.#pendingSeal.open<Pending[]>(sealed)) ?? [];
  }

  async #keepPending(pending: Pending[]): Promise<string[]> {
    const sealed = await this.#pendingSeal.seal(pending, Date.now() + PATIENCE_MS);
    return this.#pendingJar.write(sealed, pending.length === 0 ? 0 : PATIENCE_MS / 1000) ?? [];
  }

  #sorry(status: number, what: string, back = this.#options.config.afterLogin): Respond {
    return answerPage(status, sorryPage(what, this.urlFor(back)));
  }
}

function redirect(location: string, status = 302): Respond {
  return { status, headers: { location, 'cache-control': 'no-store' } };
}

function json(status: number, body: object): Respond {
  const headers = { 'cache-control': 'no-store' };
  return { status, headers, contentType: 'application/json', body: JSON.stringify(body) };
}

/** The error's own code, where it is one: its message may hold what the browser sent. */
function nameOf(error: unknown): string {
  const { error: code, reason, name } = error as { error?: unknown; reason?: unknown; name?: unknown };
  return [code, reason, name].find((one) => typeof one === 'string' && /^\w{1,64}$/.test(one)) as string;
}
