/**
 * An OpenID Connect issuer over a real socket, for machines without Keycloak: discovery, keys, authorization with PKCE,
 * tokens, refresh with rotation, introspection, RP-initiated and back-channel logout. Its tokens look like Keycloak's.
 *
 *     await using issuer = await startIssuer();
 *     const token = await issuer.token({ aud: 'gateway' });
 */
import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { type CryptoKey, exportJWK, exportSPKI, generateKeyPair, type JWK, type JWTPayload, SignJWT } from 'jose';
import type { Gate } from './gate.ts';

/** The one client that the issuer knows. */
export const CLIENT = { id: 'openweb-ui', secret: 'changeme' };

export interface IssuerOptions {
  /** Of the keys; default RS256. */
  alg?: string;
  /** Path of the realm; default `/realms/mcp-realm`. */
  path?: string;
  /** Seconds that an access token lives; default 900. */
  tokenLife?: number;
}

interface SigningKey {
  kid: string;
  privateKey: CryptoKey;
  publicKey: CryptoKey;
  jwk: JWK;
}

/** What the login was for, while its code has not been used. */
interface Pending {
  query: URLSearchParams;
  session: IssuerSession;
}

/** A person's session at the issuer. */
export interface IssuerSession {
  sid: string;
  sub: string;
  username: string;
  /** The only refresh token that is good; the others have been used. */
  refreshToken?: string;
}

/** Starts an issuer on a free port of 127.0.0.1. */
export async function startIssuer(options: IssuerOptions = {}): Promise<TestIssuer> {
  const issuer = new TestIssuer(options);
  await issuer.rotate();
  await issuer.start();
  return issuer;
}

export class TestIssuer {
  /** Requests so far, by the last part of their path. */
  readonly asked: Record<string, number> = {};
  readonly sessions = new Map<string, IssuerSession>();
  /** Opaque tokens by what introspection says of them. */
  readonly opaque = new Map<string, JWTPayload>();
  /** Where logouts are told, if anywhere. */
  backchannelLogoutUri: string | undefined;
  /** Who signs in at the authorization endpoint; `undefined` refuses. */
  user: string | undefined = 'mcp-user';
  /** Answers wait until it is open. */
  gate: Gate | undefined;
  /** Answers every request in place of the issuer while it is set. */
  instead: ((request: IncomingMessage, response: ServerResponse) => void) | undefined;
  /** Changes what the discovery document says. */
  document: Record<string, unknown> = {};
  readonly #options: Required<IssuerOptions>;
  readonly #codes = new Map<string, Pending>();
  #keys: SigningKey[] = [];
  #server: Server | undefined;
  #port = 0;

  constructor(options: IssuerOptions) {
    this.#options = { alg: 'RS256', path: '/realms/mcp-realm', tokenLife: 900, ...options };
  }

  /** The issuer as tokens name it. */
  get url(): string {
    return `http://127.0.0.1:${this.#port}${this.#options.path}`;
  }

  get kid(): string {
    return this.#keys[0]!.kid;
  }

  /** Listens, on the same port as before if there was one. */
  async start(): Promise<void> {
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch(() => response.destroy());
    });
    this.#server.listen(this.#port, '127.0.0.1');
    await once(this.#server, 'listening');
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  /** Goes away: nobody listens on its port. */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** Signs with a new key from now on. The old ones stay published unless `withdraw` is set. */
  async rotate({ withdraw = false, kid = randomUUID() } = {}): Promise<void> {
    const { privateKey, publicKey } = await generateKeyPair(this.#options.alg, { extractable: true });
    const jwk = { ...(await exportJWK(publicKey)), kid, use: 'sig', alg: this.#options.alg };
    this.#keys = [{ kid, privateKey, publicKey, jwk }, ...(withdraw ? [] : this.#keys)];
  }

  /** The public key as PEM, which an attacker may have as well. */
  publicPem(): Promise<string> {
    return exportSPKI(this.#keys[0]!.publicKey);
  }

  /** What an access token says unless a test says otherwise; `undefined` leaves a claim out. */
  claims(more: JWTPayload = {}): JWTPayload {
    const now = Math.floor(Date.now() / 1000);
    const standard: JWTPayload = {
      iss: this.url,
      aud: 'account',
      sub: 'f3a1c2d4-0001',
      typ: 'Bearer',
      azp: CLIENT.id,
      sid: 'session-1',
      iat: now,
      exp: now + this.#options.tokenLife,
      jti: randomUUID(),
      scope: 'openid email profile',
      preferred_username: 'mcp-user',
      name: 'MCP User',
      email: 'user@mcp.example.com',
      email_verified: true,
      realm_access: { roles: ['supply-chain', 'ai-agents'] },
      groups: ['finance'],
    };
    return Object.fromEntries(Object.entries({ ...standard, ...more }).filter(([, value]) => value !== undefined));
  }

  /** An access token. */
  token(more: JWTPayload = {}, header: Record<string, unknown> = {}): Promise<string> {
    return this.sign(this.claims(more), header);
  }

  /** A logout token as Keycloak sends it. */
  logoutToken(more: JWTPayload = {}, header: Record<string, unknown> = {}): Promise<string> {
    const { iss, iat, jti, sub, sid } = this.claims();
    const events = { 'http://schemas.openid.net/event/backchannel-logout': {} };
    const claims = { iss, iat, jti, sub, sid, aud: CLIENT.id, exp: iat! + 120, typ: 'Logout', events, ...more };
    return this.sign(withoutUndefined(claims), { typ: 'logout+jwt', ...header });
  }

  sign(payload: JWTPayload, header: Record<string, unknown> = {}, key = this.#keys[0]!): Promise<string> {
    const protectedHeader = withoutUndefined({ alg: this.#options.alg, typ: 'JWT', kid: key.kid, ...header });
    return new SignJWT(payload).setProtectedHeader(protectedHeader as { alg: string }).sign(key.privateKey);
  }

  /** Ends a session as an administrator does: its refresh token is good no longer, and the client is told. */
  async endSession(sid: string): Promise<void> {
    const session = this.sessions.get(sid);
    this.sessions.delete(sid);
    if (this.backchannelLogoutUri === undefined) return;
    const body = new URLSearchParams({ logout_token: await this.logoutToken({ sid, sub: session?.sub }) });
    await fetch(this.backchannelLogoutUri, { method: 'POST', body });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url);
    const name = url.pathname.split('/').at(-1)!;
    this.asked[name] = (this.asked[name] ?? 0) + 1;
    await this.gate?.opened;
    if (this.instead !== undefined) return this.instead(request, response);
    if (!url.pathname.startsWith(`${this.#options.path}/`)) return json(response, 404, {});
    const form = new URLSearchParams(request.method === 'POST' ? await text(request) : url.search);
    if (name === 'openid-configuration') return json(response, 200, this.#document());
    if (name === 'certs') return json(response, 200, { keys: this.#keys.map(({ jwk }) => jwk) });
    if (name === 'auth') return this.#authorize(form, response);
    if (name === 'logout') return this.#logout(form, response);
    if (!isClient(request, form)) return json(response, 401, { error: 'invalid_client' });
    if (name === 'introspect') return json(response, 200, this.#introspected(form.get('token') ?? ''));
    return this.#tokens(form, response);
  }

  #document(): Record<string, unknown> {
    const at = (name: string) => `${this.url}/protocol/openid-connect/${name}`;
    return {
      issuer: this.url,
      authorization_endpoint: at('auth'),
      token_endpoint: at('token'),
      introspection_endpoint: at('token/introspect'),
      end_session_endpoint: at('logout'),
      jwks_uri: at('certs'),
      id_token_signing_alg_values_supported: [this.#options.alg],
      authorization_response_iss_parameter_supported: true,
      ...this.document,
    };
  }

  #authorize(query: URLSearchParams, response: ServerResponse): void {
    const back = new URL(query.get('redirect_uri')!);
    back.searchParams.set('state', query.get('state') ?? '');
    back.searchParams.set('iss', this.url);
    if (this.user === undefined) back.searchParams.set('error', 'access_denied');
    else {
      const session = { sid: randomUUID(), sub: `sub-of-${this.user}`, username: this.user };
      const code = randomUUID();
      this.sessions.set(session.sid, session);
      this.#codes.set(code, { query, session });
      back.searchParams.set('code', code);
    }
    response.writeHead(302, { location: back.href }).end();
  }

  async #logout(query: URLSearchParams, response: ServerResponse): Promise<void> {
    const hint = JSON.parse(Buffer.from(query.get('id_token_hint')?.split('.')[1] ?? 'e30', 'base64url').toString());
    if (typeof hint.sid === 'string') await this.endSession(hint.sid);
    response.writeHead(302, { location: query.get('post_logout_redirect_uri') ?? '/' }).end();
  }

  async #tokens(form: URLSearchParams, response: ServerResponse): Promise<void> {
    const session = this.#sessionFor(form);
    if (session === undefined) return json(response, 400, { error: 'invalid_grant' });
    session.refreshToken = randomUUID();
    const { sub, sid, username } = session;
    const nonce = this.#codes.get(form.get('code') ?? '')?.query.get('nonce') ?? undefined;
    this.#codes.delete(form.get('code') ?? '');
    const who = { sub, sid, preferred_username: username };
    json(response, 200, {
      access_token: await this.token(who),
      token_type: 'Bearer',
      expires_in: this.#options.tokenLife,
      refresh_token: session.refreshToken,
      id_token: await this.token({
        ...who,
        aud: CLIENT.id,
        typ: 'ID',
        nonce,
        realm_access: undefined,
        scope: undefined,
      }),
    });
  }

  /** Each code and each refresh token is good once. */
  #sessionFor(form: URLSearchParams): IssuerSession | undefined {
    const token = form.get('refresh_token');
    if (form.get('grant_type') === 'refresh_token') {
      return [...this.sessions.values()].find((one) => one.refreshToken === token);
    }
    const pending = this.#codes.get(form.get('code') ?? '');
    if (pending === undefined) return undefined;
    const challenge = createHash('sha256')
      .update(form.get('code_verifier') ?? '')
      .digest('base64url');
    const isSame = form.get('redirect_uri') === pending.query.get('redirect_uri');
    return isSame && challenge === pending.query.get('code_challenge') ? pending.session : undefined;
  }

  #introspected(token: string): object {
    const claims = this.opaque.get(token);
    return claims === undefined ? { active: false } : { active: true, ...claims };
  }
}

/** client_secret_basic or client_secret_post. */
function isClient(request: IncomingMessage, form: URLSearchParams): boolean {
  const basic = Buffer.from(request.headers.authorization?.slice('Basic '.length) ?? '', 'base64').toString();
  const [id, secret] =
    basic === '' ? [form.get('client_id'), form.get('client_secret')] : basic.split(':').map(decodeURIComponent);
  return id === CLIENT.id && secret === CLIENT.secret;
}

function withoutUndefined<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as T;
}

function json(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}
