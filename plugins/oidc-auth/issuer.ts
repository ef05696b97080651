/** One issuer: what it says of itself, its keys, and the ways to ask it. */
import type { JSONWebKeySet, JWTVerifyGetKey } from 'jose';
import {
  allowInsecureRequests,
  type ClientAuth,
  Configuration,
  customFetch,
  discovery,
  None,
  type ServerMetadata,
} from 'openid-client';
import type { Config, IssuerConfig } from './config.ts';
import { Keys } from './keys.ts';
import { type Fetch, IssuerUnavailable, isLoopback, outgoing, within } from './outgoing.ts';

/** What an issuer tells others: one that is there, or that is not. */
export interface IssuerEvents {
  onWithdrawn(): void;
  warn(message: string): void;
}

/** How long document and keys may take, in milliseconds: a Keycloak that has just started needs some seconds. */
const PATIENCE_MS = 5_000;

/** What the plugin may need of an issuer's document. */
type Needed = keyof IssuerConfig['metadata'];

/** A configured issuer. Nothing is fetched before it is needed. */
export class Issuer {
  readonly config: IssuerConfig;
  readonly keys: Keys;
  /** For what somebody waits for. */
  readonly #fetch: Fetch;
  /** For document and keys: they may come when nobody waits any longer, and do for the next one who asks. */
  readonly #patientFetch: Fetch;
  readonly #timeoutMs: number;
  #metadata: Promise<ServerMetadata> | undefined;

  constructor(config: IssuerConfig, settings: Config, events: IssuerEvents) {
    this.config = config;
    this.#timeoutMs = settings.timeout;
    const isAllowed = policyOf(config, settings.allowInsecure);
    this.#fetch = outgoing(settings.timeout, isAllowed);
    this.#patientFetch = outgoing(Math.max(settings.timeout, PATIENCE_MS), isAllowed);
    this.keys = new Keys({
      load: () => this.#keySet(),
      cooldownMs: settings.keyCooldown,
      waitMs: settings.timeout,
      refreshMs: settings.keyRefresh,
      onWithdrawn: events.onWithdrawn,
      warn: (message) => events.warn(`${config.issuer}: ${message}`),
    });
  }

  /** The key for a token's header, for jose. */
  get keyForToken(): JWTVerifyGetKey {
    return this.keys.forToken;
  }

  /** A client of this issuer, for openid-client. @throws IssuerUnavailable when the issuer's document cannot be had */
  async client(clientId: string, auth: ClientAuth, needed: Needed[]): Promise<Configuration> {
    const late = new IssuerUnavailable('its document did not come in time');
    const described = await within(this.#timeoutMs, this.#described(needed), late);
    const client = new Configuration(described, clientId, undefined, auth);
    client[customFetch] = this.#fetch;
    client.timeout = this.#timeoutMs / 1000;
    // What may be asked without TLS has been decided in `outgoing`, for each address.
    allowInsecureRequests(client);
    return client;
  }

  close(): void {
    this.keys.close();
  }

  async #keySet(): Promise<JSONWebKeySet> {
    try {
      const { jwks_uri } = await this.#described(['jwks_uri']);
      const response = await this.#patientFetch(jwks_uri!, {
        headers: { accept: 'application/json, application/jwk-set+json' },
      });
      if (response.status !== 200) throw new IssuerUnavailable(`${jwks_uri} answered ${response.status}`);
      return (await response.json()) as JSONWebKeySet;
    } catch (error) {
      // It may have moved its keys: the document is read again next time.
      this.#metadata = undefined;
      throw error;
    }
  }

  /** The issuer's document, with the config's own entries in place of its. */
  async #described(needed: Needed[]): Promise<ServerMetadata> {
    const { issuer, metadata } = this.config;
    const told: ServerMetadata = { issuer, ...metadata };
    if (needed.every((name) => told[name] !== undefined)) return told;
    const described = { ...(await this.#discovered()), ...metadata };
    const missing = needed.find((name) => described[name] === undefined);
    if (missing !== undefined) throw new IssuerUnavailable(`${issuer} does not say its ${missing}`);
    return described;
  }

  #discovered(): Promise<ServerMetadata> {
    this.#metadata ??= this.#discover().catch((error: unknown) => {
      this.#metadata = undefined;
      throw error;
    });
    return this.#metadata;
  }

  async #discover(): Promise<ServerMetadata> {
    const { issuer, discoveryUrl } = this.config;
    const found = await discovery(new URL(discoveryUrl ?? issuer), 'wardgate', undefined, None(), {
      execute: [allowInsecureRequests],
      [customFetch]: this.#patientFetch,
    }).catch((cause: Error) => {
      if (cause.cause instanceof IssuerUnavailable) throw cause.cause;
      throw new IssuerUnavailable(`its discovery document cannot be used: ${cause.message}`, { cause });
    });
    const metadata = found.serverMetadata();
    // openid-client compares them as URLs, and not at all when the document stands elsewhere (OpenID Discovery, 4.3).
    if (metadata.issuer !== issuer) throw new IssuerUnavailable('its discovery document is that of another issuer');
    return { ...metadata };
  }
}

/** Over TLS always; in the clear as far as the config does so itself. */
function policyOf({ issuer, discoveryUrl, metadata }: IssuerConfig, allowInsecure: boolean): (url: URL) => boolean {
  const isPlain = [discoveryUrl ?? issuer, ...Object.values(metadata)].some((url) => url?.startsWith('http:'));
  return ({ protocol, hostname }) =>
    protocol === 'https:' || (protocol === 'http:' && isPlain && (allowInsecure || isLoopback(hostname)));
}
