/** oidc-auth: says who brings a token of an OpenID Connect issuer, or has signed in there with a browser. */
import { z } from 'zod';
import {
  type AllowOrReject,
  type AuthenticateInput,
  CONTRACT_VERSION,
  type Description,
  type EndpointInput,
  type Plugin,
  type PluginFactory,
  type RequestFacts,
  type Respond,
} from '../../proto/contract.ts';
import { Backchannel } from './backchannel.ts';
import { CONFIG, type Config, type LoginConfig, readConfig } from './config.ts';
import { Endpoints, type Handler } from './endpoints.ts';
import { Issuer } from './issuer.ts';
import { Login } from './login.ts';
import { LoginClient } from './login-client.ts';
import { IssuerUnavailable } from './outgoing.ts';
import { answerPage, sorryPage } from './pages.ts';
import { type Challenger, challengeOf, refusal } from './refusals.ts';
import { type ResourceMetadata, resourceMetadata } from './resource.ts';
import { type Logout, Revocations } from './revocations.ts';
import { SessionCookie } from './session-cookie.ts';
import { Sessions } from './sessions.ts';
import { SharedLogouts } from './shared-logouts.ts';
import { Tokens } from './tokens.ts';
import { warn } from './warnings.ts';

const NAME = 'oidc-auth';

/** Makes the plugin. @throws ConfigProblem when the config is not its kind */
export const oidcAuth: PluginFactory = {
  name: NAME,
  create: (config) => new OidcAuth(readConfig(config)),
};

class OidcAuth implements Plugin {
  readonly #config: Config;
  readonly #issuers: readonly Issuer[];
  readonly #revocations = new Revocations();
  readonly #shared: SharedLogouts | undefined;
  readonly #tokens: Tokens;
  readonly #sessions: Sessions | undefined;
  readonly #endpoints = new Endpoints();
  readonly #challenge: string;
  readonly #notMine: AllowOrReject;
  readonly #duplicate: AllowOrReject;

  constructor(config: Config) {
    const resource = resourceMetadata(config);
    const challenger: Challenger = { realm: config.realm, resourceMetadata: resource?.url };
    const events = { onWithdrawn: () => this.#tokens.forget(), warn };
    this.#config = config;
    this.#issuers = config.issuers.map((issuer) => new Issuer(issuer, config, events));
    this.#shared = config.redis && new SharedLogouts(config.redis, this.#revocations);
    this.#challenge = challengeOf(challenger);
    this.#notMine = { allow: { challenge: this.#challenge } };
    this.#duplicate = refusal(challenger, 'duplicate_credentials');
    this.#tokens = new Tokens({
      config,
      issuers: this.#issuers,
      revocations: this.#revocations,
      challenger,
      logsOut: (issuer) => this.#clientIdsAt(issuer).length > 0,
      notMine: this.#notMine,
    });
    this.#sessions = config.login && this.#furnishLogin(config.login);
    this.#furnishBackchannel();
    this.#furnishResource(resource);
  }

  describe(): Description {
    const endpoints = this.#endpoints.paths;
    return {
      contract: CONTRACT_VERSION,
      name: NAME,
      version: '0.1.0',
      hooks: endpoints.length > 0 ? ['authenticate', 'endpoint'] : ['authenticate'],
      rewrites: false,
      ...(endpoints.length > 0 && { endpoints }),
      configSchema: z.toJSONSchema(CONFIG, { io: 'input' }),
    };
  }

  authenticate({ request }: AuthenticateInput): AllowOrReject | Promise<AllowOrReject> {
    const unknown = this.#shared?.known();
    return unknown === undefined ? this.#judge(request) : unknown.then(() => this.#judge(request));
  }

  async endpoint(input: EndpointInput): Promise<{ respond: Respond }> {
    await this.#shared?.known();
    return { respond: await this.#endpoints.answer(input) };
  }

  close(): void {
    for (const issuer of this.#issuers) issuer.close();
    this.#shared?.close();
  }

  #judge(request: RequestFacts): AllowOrReject | Promise<AllowOrReject> {
    const token = bearerToken(request.headers?.authorization);
    if (token === SEVERAL) return this.#duplicate;
    if (token !== undefined) return this.#tokens.judge(token);
    return this.#sessions?.authenticate(request) ?? this.#notMine;
  }

  #furnishLogin(config: LoginConfig): Sessions {
    const { path } = this.#config;
    const issuer = this.#loginIssuer(config);
    const client = new LoginClient(issuer, config);
    const cookie = new SessionCookie(config);
    const { origin } = new URL(config.publicUrl);
    const stranger = ({ path: back }: RequestFacts, cookies?: string[]): AllowOrReject => ({
      allow: { challenge: this.#challenge, login: login.urlFor(back), ...(cookies && { cookies }) },
    });
    const sessions = new Sessions({ client, cookie, revocations: this.#revocations, origin, stranger });
    const onLogout = (logout: Logout) => this.#logOut(logout);
    const login = new Login({ config, path, client, sessions, cookie, keepMs: this.#keepMs, onLogout });
    this.#addPage('login', ['GET'], (input) => login.login(input));
    this.#addPage('callback', ['GET'], (input) => login.callback(input));
    this.#addPage('logout', ['GET', 'POST'], (input) => login.logout(input));
    this.#addPage('userinfo', ['GET'], (input) => login.userinfo(input));
    return sessions;
  }

  /** A page for people says in words that the issuer is away. */
  #addPage(name: string, methods: ('GET' | 'POST')[], handle: Handler): void {
    const path = `${this.#config.path}/${name}`;
    this.#endpoints.add(path, methods, async (input) => {
      try {
        return await handle(input);
      } catch (error) {
        if (!(error instanceof IssuerUnavailable)) throw error;
        return answerPage(503, sorryPage('The sign-in service cannot be reached. Try again in a minute.', path));
      }
    });
  }

  #furnishBackchannel(): void {
    const audiences = new Map(
      this.#issuers
        .map((issuer) => [issuer, this.#clientIdsAt(issuer)] as const)
        .filter(([, clientIds]) => clientIds.length > 0),
    );
    if (audiences.size === 0) return;
    const onLogout = (logout: Logout) => this.#logOut(logout);
    const backchannel = new Backchannel({ audiences, keepMs: this.#keepMs, onLogout });
    this.#endpoints.add(`${this.#config.path}/backchannel-logout`, ['POST'], (input) => backchannel.answer(input));
  }

  #clientIdsAt(issuer: Issuer): string[] {
    const { login } = this.#config;
    const own = login !== undefined && this.#loginIssuer(login) === issuer ? [login.clientId] : [];
    return [...(issuer.config.backchannelLogout ?? []), ...own];
  }

  #furnishResource(resource: ResourceMetadata | undefined): void {
    if (resource === undefined) return;
    const { path, body } = resource;
    // Clients in a browser read it from other sites' pages.
    const headers = { 'access-control-allow-origin': '*', 'cache-control': 'max-age=300' };
    this.#endpoints.add(path, ['GET'], () => ({ status: 200, headers, contentType: 'application/json', body }));
  }

  /** How long a logout is kept: as long as anything lives that it ends, in milliseconds. */
  get #keepMs(): number {
    return Math.max(this.#config.maxTokenLife, this.#config.login?.sessionLife ?? 0);
  }

  #loginIssuer(login: LoginConfig): Issuer {
    return this.#issuers.find(({ config }) => config.issuer === login.issuer) ?? this.#issuers[0]!;
  }

  async #logOut(logout: Logout): Promise<void> {
    this.#revocations.add(logout);
    await this.#shared?.add(logout);
  }
}

const SEVERAL = Symbol('more than one credential');

/** What stands after `Bearer`; undefined when the scheme is another's. Several headers arrive joined by commas. */
function bearerToken(header: string | undefined): string | typeof SEVERAL | undefined {
  if (header === undefined) return undefined;
  if (header.includes(',')) return /(?:^|,)\s*bearer\s/i.test(header) ? SEVERAL : undefined;
  return /^bearer +(\S.*)$/i.exec(header.trim())?.[1];
}
