/**
 * The demo by its own lines: the gateway of docker-compose.yml, its plugins in process, in front of the real Keycloak,
 * OpenFGA, OPA and Redis and a simulated model.
 */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { type RawResponse, send } from '../support/client.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';
import { readSse } from '../support/sse.ts';
import { realServer } from './servers.ts';

const run = promisify(execFile);
const servers = ['keycloak', 'openfga', 'opa', 'redis', 'opa-envoy'] as const;
const [keycloak, openfga, opa, redis, opaEnvoy] = servers.map(realServer) as [Server, Server, Server, Server, Server];
type Server = ReturnType<typeof realServer>;

const PLUGINS = {
  API_KEY_AUTH: 'api-key-auth',
  CEL_AUTHZ: 'cel-authz',
  LOCAL_LIMIT: 'local-limit',
  OIDC_AUTH: 'oidc-auth',
  OPENFGA_AUTHZ: 'openfga-authz',
  PII_GUARD: 'pii-guard',
  RATE_LIMIT: 'rate-limit',
  USAGE_LOG: 'usage-log',
};

let simulator: Simulator;
let gateway: TestGateway;

/** The config as it is deployed; what containers call each other is what it is called here. */
async function startDemo(): Promise<TestGateway> {
  const config = readFileSync('deploy/compose/wardgate.yaml', 'utf8')
    .replaceAll('http://keycloak:8080', keycloak.url)
    .replaceAll('http://openfga:8080', openfga.url)
    .replaceAll('redis://redis:6379', redis.url)
    .replaceAll('{ to: stdout }', '{ to: /dev/null }');
  const inProcess = Object.fromEntries(Object.entries(PLUGINS).map(([name, plugin]) => [name, `local:${plugin}`]));
  const environment = {
    ...inProcess,
    OPA: `ext-authz://${opaEnvoy.url}`,
    KEYCLOAK_URL: keycloak.url,
    SIMULATED_MODEL_URL: `${simulator.url}/v1`,
    OPENAI_BASE_URL: `${simulator.url}/v1`,
  };
  return startGateway(config, { environment, log: 'info' });
}

async function token(...args: string[]): Promise<string> {
  const env = { ...process.env, KEYCLOAK_HOST: new URL(keycloak.url).host };
  return (await run('./keycloak/get-keycloak-token.sh', args, { env })).stdout.trim();
}

function chat(route: string, { bearer, model = 'gpt-4o', headers = {}, stream }: Chat = {}): Promise<RawResponse> {
  const body = { model, stream, messages: [{ role: 'user', content: 'Hello, jane.roe@example.com' }] };
  const credential: Record<string, string> = bearer === undefined ? {} : { Authorization: `Bearer ${bearer}` };
  return send(`${gateway.url}${route}/v1/chat/completions`, { body, headers: { ...credential, ...headers } });
}

interface Chat {
  bearer?: string;
  model?: string;
  headers?: Record<string, string>;
  stream?: boolean;
}

/** The demo's refusal, byte by byte. */
async function expectRefused(response: RawResponse): Promise<void> {
  expect(response.status).toBe(403);
  expect(response.header('content-type')).toBe('text/plain');
  expect(response.header('content-length')).toBe('20');
  expect(await response.text()).toBe('authorization failed');
}

describe.skipIf(!servers.map(realServer).every(({ here }) => here))('the demo', () => {
  let mcpUser: string;
  let otherUser: string;

  beforeAll(async () => {
    simulator = await startSimulator({ tokenDelayMs: 0 });
    const seed = ['plugins/openfga-authz/seed.ts', `--api-url=${openfga.url}`, '--model=deploy/openfga/model.json'];
    await run(process.execPath, [...seed, '--tuples=deploy/openfga/tuples.yaml']);
    const policy = readFileSync('deploy/opa/authz.rego', 'utf8');
    await fetch(`${opa.url}/v1/policies/demo`, { method: 'PUT', body: policy });
    gateway = await startDemo();
    [mcpUser, otherUser] = await Promise.all([token(), token('other-user', 'user123')]);
  });

  afterAll(async () => {
    await gateway?.stop();
    await simulator?.close();
  });

  describe('Keycloak', () => {
    test('S1-30: without a token the answer is 403, the plain words and 20 bytes', async () => {
      await expectRefused(await chat('/openai'));
    });

    test('S1-31: a browser’s preflight passes without a token', async () => {
      const headers = {
        Origin: 'http://localhost:9999',
        'Access-Control-Request-Method': 'POST',
        'Access-Control-Request-Headers': 'authorization,content-type',
      };
      const response = await send(`${gateway.url}/openai/v1/chat/completions`, { method: 'OPTIONS', headers });
      expect(response.status).toBe(204);
      expect(response.header('access-control-allow-origin')).toBe('*');
      expect(response.header('access-control-allow-headers')).toBe('authorization,content-type');
    });

    test('S1-32, S1-33: with the script’s token the model answers, and never sees the address', async () => {
      const response = await chat('/openai', { bearer: mcpUser, model: 'whatever' });
      expect(response.status).toBe(200);
      const answer = await response.json<{ model: string; choices: { message: { content: string } }[] }>();
      expect(answer.model).toMatch(/^gpt-4o/);
      expect(answer.choices[0]!.message.content).toContain('<EMAIL_');
    });

    test('S1-33: and streams', async () => {
      const said = await readSse(await chat('/openai', { bearer: mcpUser, stream: true }));
      expect(said.done).toBe(true);
    });

    test.each([
      ['made up', () => 'eyJhbGciOiJub25lIn0.eyJzdWIiOiJtY3AtdXNlciJ9.'],
      ['with its signature changed', () => `${mcpUser.slice(0, -4)}AAAA`],
      ['that is none', () => 'wrong'],
      ['sent twice', () => `${mcpUser}, Bearer ${mcpUser}`],
    ])('S1-34: a token %s is 401, not a stranger', async (_what, bearer) => {
      const response = await chat('/openai', { bearer: bearer() });
      expect(response.status).toBe(401);
      expect(response.header('www-authenticate')).toContain('error="invalid_token"');
    });

    test('S1-35: mcp-user may use /policy/openai, other-user lacks the role', async () => {
      expect((await chat('/policy/openai', { bearer: mcpUser })).status).toBe(200);
      await expectRefused(await chat('/policy/openai', { bearer: otherUser }));
      await expectRefused(await chat('/policy/openai'));
    });
  });

  describe('OPA', () => {
    test('S1-91: gpt-4o without the header is 403 with an empty body', async () => {
      const response = await chat('/opa/openai');
      expect(response.status).toBe(403);
      expect(await response.text()).toBe('');
    });

    test('S1-92: gpt-3.5-turbo with the header is answered, with or without a token', async () => {
      const headers = { 'x-opa-passthrough-enabled': 'true' };
      expect((await chat('/opa/openai', { model: 'gpt-3.5-turbo', headers })).status).toBe(200);
      expect((await chat('/opa/openai', { model: 'gpt-3.5-turbo', headers, bearer: mcpUser })).status).toBe(200);
      expect((await chat('/opa/openai', { model: 'gpt-4o', headers })).status).toBe(403);
    });
  });

  describe('OpenFGA', () => {
    test('S1-93: mcp-user may not use gpt-3.5-turbo', async () => {
      expect((await chat('/fga/openai', { bearer: mcpUser, model: 'gpt-3.5-turbo' })).status).toBe(403);
    });

    test('S1-94: mcp-user may use gpt-4o', async () => {
      expect((await chat('/fga/openai', { bearer: mcpUser })).status).toBe(200);
    });

    test('a stranger is sent away before anybody is asked', async () => {
      expect((await chat('/fga/openai')).status).toBe(401);
    });

    test('the list of models has what each person may use', async () => {
      const list = async (bearer: string) => {
        const headers = { Authorization: `Bearer ${bearer}` };
        const { data } = await (await send(`${gateway.url}/fga/openai/v1/models`, { headers })).json<Models>();
        return data.map(({ id }) => id);
      };
      expect(await list(mcpUser)).toEqual(['gpt-4o']);
      expect(await list(await token('alice', 'user123'))).toEqual(['gpt-4o', 'gpt-3.5-turbo']);
      expect(await list(await token('charlie', 'user123'))).toEqual([]);
    });
  });

  describe('API keys', () => {
    test('S1-95: no key and a bad one are 401', async () => {
      expect((await chat('/keyed/openai')).status).toBe(401);
      expect((await chat('/keyed/openai', { bearer: 'agw_sk_wrong' })).status).toBe(401);
    });

    test('S1-95: the demo’s keys are answered', async () => {
      expect((await chat('/keyed/openai', { bearer: 'agw_sk_demo' })).status).toBe(200);
    });
  });
});

interface Models {
  data: { id: string }[];
}
