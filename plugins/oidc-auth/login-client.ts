/** This gateway as a client of the issuer that people sign in at. */
import { type ClientAuth, ClientSecretBasic, ClientSecretPost, type Configuration, None } from 'openid-client';
import type { LoginConfig } from './config.ts';
import type { Issuer } from './issuer.ts';

export class LoginClient {
  readonly issuer: Issuer;
  readonly clientId: string;
  readonly #auth: ClientAuth;

  constructor(issuer: Issuer, { clientId, clientSecret, clientAuth }: LoginConfig) {
    this.issuer = issuer;
    this.clientId = clientId;
    this.#auth = authOf(clientSecret, clientAuth);
  }

  /** For openid-client. @throws IssuerUnavailable when the issuer's document cannot be had */
  configuration(): Promise<Configuration> {
    return this.issuer.client(this.clientId, this.#auth, ['authorization_endpoint', 'token_endpoint']);
  }
}

function authOf(secret: string | undefined, way: LoginConfig['clientAuth']): ClientAuth {
  if (secret === undefined) return None();
  return way === 'basic' ? ClientSecretBasic(secret) : ClientSecretPost(secret);
}
