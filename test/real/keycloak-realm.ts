/** A realm of a test's own in the real Keycloak: the demo's, under another name, so that its keys may be turned over. */
import { generateKeyPair, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';

/** What Keycloak answers to a password. */
export interface RealTokens {
  access_token: string;
  refresh_token: string;
  id_token: string;
}

export class KeycloakRealm implements AsyncDisposable {
  readonly name: string;
  readonly #admin: string;
  readonly #base: string;

  constructor(admin: string, base: string, name: string) {
    this.#admin = admin;
    this.#base = base;
    this.name = name;
  }

  /** The issuer, by the address that this realm is used through. */
  get issuer(): string {
    return `${this.#base}/realms/${this.name}`;
  }

  /** Tokens of a user of the demo, in a session of their own. */
  tokens(username = 'mcp-user', password = 'user123'): Promise<RealTokens> {
    return this.#granted({ grant_type: 'password', scope: 'openid', username, password });
  }

  /** New tokens of the same session; Keycloak makes them in a fraction of the time that it takes for a password. */
  refreshed({ refresh_token }: RealTokens): Promise<RealTokens> {
    return this.#granted({ grant_type: 'refresh_token', refresh_token });
  }

  /** Signs with a new RSA key from now on; the old one stays published. Made here: Keycloak takes seconds for one. */
  async rotateKeys(priority: number): Promise<void> {
    const { id } = await this.read<{ id: string }>('');
    const { privateKey } = await promisify(generateKeyPair)('rsa', { modulusLength: 2048 });
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    const config = {
      priority: [`${priority}`],
      enabled: ['true'],
      active: ['true'],
      algorithm: ['RS256'],
      privateKey: [pem],
    };
    const key = { name: `rsa-${priority}`, providerId: 'rsa', providerType: 'org.keycloak.keys.KeyProvider' };
    await this.change('POST', '/components', { ...key, parentId: id, config });
  }

  /** Changes a client: its fields, and single attributes. */
  async changeClient(clientId: string, fields: object, attributes: Record<string, string> = {}): Promise<void> {
    const [client] = await this.read<{ id: string; attributes: object }[]>(`/clients?clientId=${clientId}`);
    const changed = { ...client, ...fields, attributes: { ...client!.attributes, ...attributes } };
    await this.change('PUT', `/clients/${client!.id}`, changed);
  }

  async read<T>(path: string): Promise<T> {
    return (await (await this.#ask('GET', path)).json()) as T;
  }

  async change(method: 'POST' | 'PUT' | 'DELETE', path: string, body?: object): Promise<void> {
    await (await this.#ask(method, path, body)).body?.cancel();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.change('DELETE', '');
  }

  async #granted(form: Record<string, string>): Promise<RealTokens> {
    const body = new URLSearchParams({ client_id: 'openweb-ui', client_secret: 'changeme', ...form });
    const response = await fetch(`${this.issuer}/protocol/openid-connect/token`, { method: 'POST', body });
    if (!response.ok) throw new Error(`Keycloak gave no token: ${response.status} ${await response.text()}`);
    return (await response.json()) as RealTokens;
  }

  async #ask(method: string, path: string, body?: object): Promise<Response> {
    const authorization = `Bearer ${await adminToken(this.#admin)}`;
    const response = await fetch(`${this.#admin}/admin/realms/${this.name}${path}`, {
      method,
      headers: { authorization, 'content-type': 'application/json' },
      body: body && JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response;
  }
}

/**
 * Makes a copy of the demo's realm.
 *
 * @param admin where the administrator asks
 * @param base where everybody else does; it is part of the issuer's name
 */
export async function copyOfDemoRealm(admin: string, base = admin): Promise<KeycloakRealm> {
  const name = `test-${randomUUID()}`;
  const realm = JSON.parse(
    readFileSync('keycloak/mcp-realm-realm.json', 'utf8').replaceAll(
      'default-roles-mcp-realm',
      `default-roles-${name}`,
    ),
  ) as { clients: { attributes: Record<string, string> }[] };
  for (const { attributes } of realm.clients) delete attributes['backchannel.logout.url'];
  const response = await fetch(`${admin}/admin/realms`, {
    method: 'POST',
    headers: { authorization: `Bearer ${await adminToken(admin)}`, 'content-type': 'application/json' },
    body: JSON.stringify({ ...realm, realm: name }),
  });
  if (!response.ok) throw new Error(`The realm was not made: ${response.status} ${await response.text()}`);
  return new KeycloakRealm(admin, base, name);
}

/** A token of the master realm's administrator; it lives a minute, so each use gets its own. */
async function adminToken(base: string): Promise<string> {
  const { KEYCLOAK_ADMIN: username = 'admin', KEYCLOAK_ADMIN_PASSWORD: password = 'admin' } = process.env;
  const body = new URLSearchParams({ grant_type: 'password', client_id: 'admin-cli', username, password });
  const response = await fetch(`${base}/realms/master/protocol/openid-connect/token`, { method: 'POST', body });
  const { access_token: token } = (await response.json()) as { access_token?: string };
  if (token === undefined) throw new Error('Keycloak does not know the administrator.');
  return token;
}
