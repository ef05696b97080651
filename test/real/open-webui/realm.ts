/** A copy of the demo's realm in a real Keycloak, with a name of its own, so that a run shares no session with another. */
import { readFileSync } from 'node:fs';

/** The copy, and what the script does to it as Keycloak's administrator. */
export interface Realm extends AsyncDisposable {
  readonly name: string;
  /** The `iss` of its tokens. */
  readonly issuer: string;
  /** Ends a user's sessions at Keycloak: Open WebUI gets no new tokens, and the gateway is told. */
  endSessions(username: string): Promise<void>;
  /** Where Keycloak posts that a session of Open WebUI has ended. */
  tellOfLogouts(url: string): Promise<void>;
  /** How long an access token lives that is given out from now on. */
  setTokenLife(seconds: number): Promise<void>;
}

interface Client {
  id: string;
  attributes: Record<string, string>;
}

/** Imports the copy for an Open WebUI at `webuiUrl`. @throws when Keycloak's administrator is not admin/admin */
export async function importRealm(keycloakUrl: string, webuiUrl: string): Promise<Realm> {
  const name = `open-webui-${process.pid}`;
  const ask = await administrator(keycloakUrl);
  const definition = readFileSync('keycloak/mcp-realm-realm.json', 'utf8')
    .replaceAll('http://localhost:9999', webuiUrl)
    .replaceAll(/\$\{\w+:([^}]*)\}/g, '$1'); // Keycloak fills in its environment only when it starts
  const realm = JSON.parse(definition) as { realm: string };
  await ask('POST', '/admin/realms', { ...realm, realm: name });
  const path = `/admin/realms/${name}`;
  return {
    name,
    issuer: `${keycloakUrl}/realms/${name}`,
    async endSessions(username) {
      const [user] = (await ask('GET', `${path}/users?exact=true&username=${username}`)) as { id: string }[];
      await ask('POST', `${path}/users/${user?.id}/logout`);
    },
    async tellOfLogouts(url) {
      const [client] = (await ask('GET', `${path}/clients?clientId=openweb-ui`)) as Client[];
      const attributes = { ...client!.attributes, 'backchannel.logout.url': url };
      await ask('PUT', `${path}/clients/${client!.id}`, { ...client, attributes });
    },
    async setTokenLife(seconds) {
      await ask('PUT', path, { accessTokenLifespan: seconds });
    },
    async [Symbol.asyncDispose]() {
      await ask('DELETE', path);
    },
  };
}

type Ask = (method: string, path: string, body?: object) => Promise<unknown>;

/** Asks Keycloak's admin API, each time with a new token: the administrator's live for a minute. */
async function administrator(keycloakUrl: string): Promise<Ask> {
  const { KEYCLOAK_ADMIN = 'admin', KEYCLOAK_ADMIN_PASSWORD = 'admin' } = process.env;
  const form = { grant_type: 'password', client_id: 'admin-cli', username: KEYCLOAK_ADMIN };
  const token = async () => {
    const body = new URLSearchParams({ ...form, password: KEYCLOAK_ADMIN_PASSWORD });
    const url = `${keycloakUrl}/realms/master/protocol/openid-connect/token`;
    return ((await read(await fetch(url, { method: 'POST', body }))) as { access_token: string }).access_token;
  };
  return async (method, path, body) => {
    const headers = { authorization: `Bearer ${await token()}`, 'content-type': 'application/json' };
    return read(await fetch(`${keycloakUrl}${path}`, { method, headers, body: body && JSON.stringify(body) }));
  };
}

async function read(response: Response): Promise<unknown> {
  const text = await response.text();
  if (!response.ok) throw new Error(`Keycloak answered ${response.status} at ${response.url}: ${text}`);
  return text === '' ? undefined : JSON.parse(text);
}
