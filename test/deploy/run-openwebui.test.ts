/** run-openwebui.sh, with a program in Open WebUI's place that says what it was given. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { freePort } from '../support/free-port.ts';

const DISCOVERY = '/realms/mcp-realm/.well-known/openid-configuration';
const FORM = '/realms/mcp-realm/protocol/openid-connect/auth';
const SETTINGS = 'deploy/open-webui/open-webui.env';

let home: string;
/** Keycloak with its realm, and the gateway, both. */
let server: Server;
let url: string;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'wardgate-openwebui-'));
  await mkdir(join(home, 'venv/bin'), { recursive: true });
  await writeFile(join(home, 'venv/bin/open-webui'), '#!/bin/sh\necho "ARGUMENTS=$*"\npwd\nenv\n', { mode: 0o755 });
  await writeFile(join(home, 'installed'), '0.12.4\n');
  server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url!, 'http://keycloak');
    response.statusCode = [DISCOVERY, FORM, '/openai/v1/models'].includes(pathname) ? 200 : 404;
    if (pathname === FORM && searchParams.get('client_id') !== 'openweb-ui') response.statusCode = 400;
    response.end(response.statusCode === 200 ? '{"issuer":"here"}' : '{"error":"Realm does not exist"}');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterAll(async () => {
  server.close();
  await rm(home, { recursive: true, force: true });
});

describe('starts Open WebUI', () => {
  test('signed in by Keycloak, with the person’s own token at the gateway', async () => {
    const { given } = await run();
    expect(given).toMatchObject({
      OPENID_PROVIDER_URL: `${url}${DISCOVERY}`,
      OAUTH_CLIENT_ID: 'openweb-ui',
      OAUTH_CLIENT_SECRET: 'changeme',
      OAUTH_SCOPES: 'openid email profile',
      OPENAI_API_BASE_URLS: `${url}/openai/v1`,
      DEFAULT_USER_ROLE: 'user',
      BYPASS_MODEL_ACCESS_CONTROL: 'true',
      ENABLE_DIRECT_CONNECTIONS: 'true',
      ENABLE_PERSISTENT_CONFIG: 'false',
      DATA_DIR: join(home, 'data'),
    });
    expect(JSON.parse(given.OPENAI_API_CONFIGS!)).toEqual({
      0: { enable: true, auth_type: 'system_oauth', headers: { 'X-OpenWebUI-Task': '{{TASK}}' } },
    });
  });

  test('at one address, for itself, the browser and Keycloak', async () => {
    const port = String(await freePort());
    const { given } = await run({ PORT: port });
    expect(given.ARGUMENTS).toBe(`serve --host 127.0.0.1 --port ${port}`);
    expect(given).toMatchObject({
      WEBUI_URL: `http://localhost:${port}`,
      OPENID_REDIRECT_URI: `http://localhost:${port}/oauth/oidc/callback`,
    });
  });

  test('with the settings that the environment has, whatever characters they are made of', async () => {
    const secret = `a'b"c $HOME \\ #\nd`;
    const { out } = await run({ OAUTH_CLIENT_SECRET: secret, ENABLE_TITLE_GENERATION: 'true' });
    expect(out).toContain(`OAUTH_CLIENT_SECRET=${secret}\n`);
    expect(out).toContain('ENABLE_TITLE_GENERATION=true\n');
  });

  test('without what else is in the environment: it needs no provider’s key and nobody’s database', async () => {
    const { out } = await run({
      OPENAI_API_KEY: 'sk-of-the-gateway',
      DATABASE_URL: 'postgres://x',
      REDIS_URL: 'redis://x',
    });
    expect(out).not.toMatch(/sk-of-the-gateway|DATABASE_URL|REDIS_URL/);
  });

  test('with paths that are relative to where it was started', async () => {
    const path = relative(process.cwd(), home);
    const { given } = await run({ OPENWEBUI_HOME: path, DATA_DIR: path });
    expect(given.DATA_DIR).toBe(`${process.cwd()}/${path}`);
  });
});

describe('says what to do', () => {
  test.each([
    ['the port is taken', () => ({ PORT: new URL(url).port }), /port \d+ is taken.*PORT=/],
    [
      'Keycloak is away',
      () => ({ KEYCLOAK_URL: 'http://127.0.0.1:9' }),
      /Keycloak does not answer at http:\/\/127.0.0.1:9 /,
    ],
    ['there is no such realm', () => ({ KEYCLOAK_REALM: 'other' }), /no realm at .*\/realms\/other/],
    [
      'the gateway is away',
      () => ({ GATEWAY_URL: 'http://127.0.0.1:9/v1' }),
      /no gateway answers at http:\/\/127.0.0.1:9/,
    ],
    ['the gateway has no such route', () => ({ GATEWAY_URL: `${url}/open/v1` }), /is no route of the gateway/],
    ['Keycloak knows no such client', () => ({ OAUTH_CLIENT_ID: 'chat' }), /refuses .*localhost:\d+: its client chat/],
    ['there is no Python', () => ({ OPENWEBUI_VERSION: '9', PYTHON: 'false' }), /needs Python 3.11 or 3.12.*PYTHON=/],
  ])('when %s', async (_what, environment, message) => {
    const { code, err, out } = await run(environment());
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toMatch(message);
  });

  test('when an option does not exist, and what there is', async () => {
    expect(await run({}, '--fast')).toMatchObject({ code: 1, err: expect.stringContaining("no option '--fast'") });
    expect((await run({}, '--help')).out).toMatch(/GATEWAY_URL.*KEYCLOAK_URL/s);
  });
});

describe('one file of settings', () => {
  test('is read by compose as well, which sets the addresses that containers see and nothing else', async () => {
    const compose = parse(await readFile('docker-compose.yml', 'utf8'), { merge: true });
    const { env_file, environment } = compose.services['open-webui'];
    expect(env_file).toBe(SETTINGS);
    const { given } = await run();
    const names = await settingNames();
    for (const name of Object.keys(environment)) {
      expect(given).toHaveProperty(name);
      expect(names).not.toContain(name);
    }
  });

  test('means the same to a shell and to compose: plain words, or one pair of quotes around a value', async () => {
    const lines = (await readFile(SETTINGS, 'utf8')).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    for (const line of lines)
      expect(line).toMatch(/^[A-Z][A-Z0-9_]*=(?:[\w.-]+|'[^'$]*'|"[\w ]+"|"\$\{[A-Z_]+:-[\w@. -]+\}")$/);
    expect(new Set(await settingNames()).size).toBe(lines.length);
  });
});

async function settingNames(): Promise<string[]> {
  return [...(await readFile(SETTINGS, 'utf8')).matchAll(/^([A-Z][A-Z0-9_]*)=/gm)].map(([, name]) => name!);
}

/** Runs it to its end; `given` is what Open WebUI got: its environment and, as ARGUMENTS, its arguments. */
async function run(environment: Record<string, string> = {}, ...args: string[]) {
  const here = {
    PATH: process.env.PATH,
    HOME: home,
    OPENWEBUI_HOME: home,
    KEYCLOAK_URL: url,
    GATEWAY_URL: `${url}/openai/v1`,
  };
  const env = { ...here, PORT: String(await freePort()), ...environment };
  const { code, stdout, stderr } = await promisify(execFile)('bash', ['run-openwebui.sh', ...args], { env })
    .then((done) => ({ code: 0, ...done }))
    .catch((failed: { code: number; stdout: string; stderr: string }) => failed);
  const given = Object.fromEntries([...stdout.matchAll(/^(\w+)=(.*)$/gm)].map(([, name, value]) => [name!, value!]));
  return { code, out: stdout, err: stderr, given: given as Record<string, string | undefined> };
}
