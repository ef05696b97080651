/** The demo's realm in a real Keycloak, and the script that gets a token of it. Rows S1-30 … S1-35 stand on these. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { decodeJwt, type JWTPayload } from 'jose';
import { beforeAll, describe, expect, test } from 'vitest';
import { freePort } from '../support/free-port.ts';
import { realServer } from './servers.ts';

const keycloak = realServer('keycloak');
const realm = JSON.parse(readFileSync('keycloak/mcp-realm-realm.json', 'utf8'));
const users: string[] = realm.users.map((user: { username: string }) => user.username);
const clients: string[] = realm.clients.map((client: { clientId: string }) => client.clientId);
const issuer = `${keycloak.url}/realms/mcp-realm`;

describe.skipIf(!keycloak.here)('S1-32 get-keycloak-token.sh', () => {
  test('prints the access token of mcp-user, alone', async () => {
    const { stdout, stderr } = await script();
    expect(stdout).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+\n$/);
    expect(stderr).toBe('');
    expect(decodeJwt(stdout)).toMatchObject({ typ: 'Bearer', preferred_username: 'mcp-user', iss: issuer });
  });

  test.each(users)('prints the token of %s', async (user) => {
    expect(decodeJwt((await script([user, 'user123'])).stdout).preferred_username).toBe(user);
  });

  test.each([
    ['a wrong password', ['mcp-user', 'wrong'], 'Invalid user credentials'],
    ['a password that is more than a password', ['mcp-user', 'user123&scope=openid'], 'Invalid user credentials'],
    ['an unknown user', ['nobody'], 'Invalid user credentials'],
  ])('prints nothing for %s, says why on stderr, and ends with 1', async (_, args, why) => {
    const failure = await script(args).catch((error) => error);
    expect(failure).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining(why) });
  });

  test('says when nobody is there', async () => {
    const host = `localhost:${await freePort()}`;
    const failure = await script([], host).catch((error) => error);
    expect(failure).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining(`${host} does not answer`) });
  });

  test('says when it is not Keycloak that answers', async () => {
    const failure = await script([], new URL(keycloak.url).host, '/nowhere').catch((error) => error);
    expect(failure).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('no token') });
  });
});

describe.skipIf(!keycloak.here)('S1-34 what is verified', () => {
  let claims: JWTPayload;

  beforeAll(async () => {
    claims = decodeJwt((await script()).stdout);
  });

  test('is in the token', () => {
    expect(claims).toMatchObject({
      iss: issuer,
      typ: 'Bearer',
      azp: 'openweb-ui',
      sub: expect.stringMatching(/^[\da-f-]{36}$/),
      sid: expect.any(String),
      name: 'MCP User',
      preferred_username: 'mcp-user',
      email: 'user@mcp.example.com',
      email_verified: true,
      groups: ['mcp-demo'],
    });
    expect(claims.aud).toEqual(expect.arrayContaining(['account', 'wardgate']));
    expect(claims.exp! - claims.iat!).toBe(900);
  });

  test('S1-35: mcp-user has the role that other-user lacks', async () => {
    expect(rolesOf(claims)).toEqual(expect.arrayContaining(['supply-chain', 'ai-agents']));
    const other = rolesOf(decodeJwt((await script(['other-user', 'user123'])).stdout));
    expect(other).toContain('ai-agents');
    expect(other).not.toContain('supply-chain');
  });

  test.each([
    ['alice', ['acme-eng']],
    ['bob', ['acme-ml']],
    ['charlie', undefined],
  ])('%s is in the groups %j, in the access token, the ID token and userinfo', async (user, groups) => {
    const reply = await tokens({ username: user, password: 'user123', scope: 'openid' });
    expect(decodeJwt(reply.access_token).groups).toEqual(groups);
    expect(decodeJwt(reply.id_token).groups).toEqual(groups);
    const userinfo = await fetch(`${issuer}/protocol/openid-connect/userinfo`, {
      headers: { authorization: `Bearer ${reply.access_token}` },
    });
    expect(await userinfo.json()).toMatchObject({ preferred_username: user, ...(groups && { groups }) });
  });

  test('is what discovery says', async () => {
    const discovery = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();
    expect(discovery).toMatchObject({
      issuer,
      jwks_uri: `${issuer}/protocol/openid-connect/certs`,
      backchannel_logout_supported: true,
      code_challenge_methods_supported: expect.arrayContaining(['S256']),
    });
  });

  test('can be asked for by introspection', async () => {
    const token = (await script()).stdout.trim();
    const response = await fetch(`${issuer}/protocol/openid-connect/token/introspect`, {
      method: 'POST',
      headers: { authorization: `Basic ${Buffer.from('wardgate:changeme').toString('base64')}` },
      body: new URLSearchParams({ token }),
    });
    expect(await response.json()).toMatchObject({ active: true, username: 'mcp-user', groups: ['mcp-demo'] });
  });
});

test.skipIf(!process.env.KEYCLOAK_LOG)('the realm is imported without a warning', () => {
  const log = readFileSync(process.env.KEYCLOAK_LOG!, 'utf8');
  const [imported] = /Importing from directory[\s\S]*Realm 'mcp-realm' imported/.exec(log) ?? [];
  expect(imported).toBeDefined();
  expect(imported).not.toMatch(/\b(WARN|ERROR)\b/);
});

describe.skipIf(!keycloak.here)('the clients', () => {
  test.each([
    ['openweb-ui', 'http://localhost:9999/oauth/oidc/callback', 200],
    ['openweb-ui', 'http://localhost:9998/oauth/oidc/callback', 400],
    ['wardgate', 'http://localhost:3000/oauth2/callback', 200],
    ['wardgate', 'http://localhost:3000/elsewhere', 400],
  ])('%s may send people back to %s: %i', async (client, redirect, status) => {
    expect((await authorize(client, redirect)).status).toBe(status);
  });

  test('wardgate signs in only with PKCE', async () => {
    const response = await authorize('wardgate', 'http://localhost:3000/oauth2/callback', {});
    expect(response.headers.get('location')).toContain('code_challenge_method');
  });

  test('wardgate takes no passwords', async () => {
    expect(await tokens({ client_id: 'wardgate', username: 'mcp-user', password: 'user123' })).toMatchObject({
      error: 'unauthorized_client',
    });
  });

  test.each(clients)('%s tells the gateway of a logout', (id) => {
    const client = realm.clients.find((one: { clientId: string }) => one.clientId === id);
    expect(client.attributes['backchannel.logout.url']).toMatch(/^\$\{WARDGATE_LOGOUT_URL:http:\/\/localhost:3000\//);
  });
});

/** What Keycloak answers to a browser that wants to sign in. */
function authorize(client: string, redirect: string, pkce?: Record<string, string>): Promise<Response> {
  const challenge = { code_challenge: 'a'.repeat(43), code_challenge_method: 'S256' };
  const query = { client_id: client, redirect_uri: redirect, response_type: 'code', scope: 'openid' };
  const search = new URLSearchParams({ ...query, ...(pkce ?? challenge) });
  return fetch(`${issuer}/protocol/openid-connect/auth?${search}`, { redirect: 'manual' });
}

async function tokens(form: Record<string, string>): Promise<{ access_token: string; id_token: string }> {
  const client = { grant_type: 'password', client_id: 'openweb-ui', client_secret: 'changeme' };
  const body = new URLSearchParams({ ...client, ...form });
  const response = await fetch(`${issuer}/protocol/openid-connect/token`, { method: 'POST', body });
  return (await response.json()) as { access_token: string; id_token: string };
}

function rolesOf(claims: JWTPayload): string[] {
  return (claims.realm_access as { roles: string[] }).roles;
}

function script(args: string[] = [], host = new URL(keycloak.url).host, path = '') {
  const env = { ...process.env, KEYCLOAK_HOST: host + path };
  return promisify(execFile)('keycloak/get-keycloak-token.sh', args, { env });
}
