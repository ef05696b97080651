/**
 * The demo by its own lines: the gateway of docker-compose.yml, its plugins in process, in front of the real Keycloak,
 * OpenFGA, OPA and Redis and a simulated model.
 */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { type RawResponse, send } from '../support/client.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';
import { readSse } from '../support/sse.ts';
import { realServer } from './servers.ts';

const run = promisify(execFile);
const servers = ['keycloak', 'openfga', 'opa', 'redis', 'opa-envoy', 'ratelimit'] as const;
const [keycloak, openfga, opa, redis, opaEnvoy, ratelimit] = servers.map(realServer) as Server[] as Six;
type Six = [Server, Server, Server, Server, Server, Server];
type Server = ReturnType<typeof realServer>;

const PLUGINS = {
  API_KEY_AUTH: 'api-key-auth',
  CEL_AUTHZ: 'cel-authz',
  IDEMPOTENCY: 'idempotency',
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
    .replaceAll(/(redis: redis:\/\/\S+)\n( +)(message|limits)/g, `$1\n$2prefix: "{demo-${randomUUID()}}:"\n$2$3`)
    .replaceAll('{ to: stdout }', '{ to: /dev/null }');
  const inProcess = Object.fromEntries(Object.entries(PLUGINS).map(([name, plugin]) => [name, `local:${plugin}`]));
  const environment = {
    ...inProcess,
    OPA: `ext-authz://${opaEnvoy.url}`,
    RATELIMIT: ratelimit.url,
    KEYCLOAK_URL: keycloak.url,
    SIMULATED_MODEL_URL: `${simulator.url}/v1`,
    OPENAI_BASE_URL: `${simulator.url}/v1`,
    ANTHROPIC_BASE_URL: `${simulator.url}/v1`,
    GEMINI_BASE_URL: `${simulator.url}/v1beta`,
    BEDROCK_BASE_URL: simulator.url,
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

  describe('one API, whoever answers', () => {
    const VENDORS = [
      ['S1-20', '/gemini', 'gemini-2.5-flash-lite', /^\S+$/],
      ['S1-21', '/anthropic', 'claude-3-5-sonnet-20241022', /^msg_/],
      ['S1-22', '/bedrock', 'global.anthropic.claude-sonnet-4-20250514-v1:0', /^bedrock-\d{13}$/],
    ] as const;

    test.each(VENDORS)(
      '%s, S1-23: %s answers in OpenAI’s shape, without a key of the client’s',
      async (_row, route, model, id) => {
        const response = await chat(route, { model });
        expect(response.status).toBe(200);
        const body = await response.json<Record<string, unknown> & { usage: Record<string, number> }>();
        expect(body).toMatchObject({
          id: expect.stringMatching(id),
          object: 'chat.completion',
          created: expect.any(Number),
          model,
          choices: [
            { index: 0, finish_reason: 'stop', message: { role: 'assistant', content: 'You said: Hello, <EMAIL_1>' } },
          ],
        });
        expect(body.usage.total_tokens).toBe(body.usage.prompt_tokens! + body.usage.completion_tokens!);
      },
    );

    test.each(VENDORS)('S1-25: %s %s streams in OpenAI’s chunks', async (_row, route, model) => {
      const { content, finish, done, errors } = await readSse(await chat(route, { model, stream: true }));
      expect({ content, finish, done, errors }).toEqual({
        content: ['You said: Hello, <EMAIL_1>'],
        finish: ['stop'],
        done: true,
        errors: [],
      });
    });

    test('S1-24: Gemini’s own API, and Anthropic’s in front of OpenAI', async () => {
      const own = await send(`${gateway.url}/gemini/v1beta/models/gemini-2.5-flash-lite:generateContent`, {
        body: { contents: [{ role: 'user', parts: [{ text: 'Hello' }] }] },
      });
      expect(await own.json()).toMatchObject({
        candidates: [{ content: { role: 'model', parts: [{ text: 'You said: Hello' }] } }],
        usageMetadata: { promptTokenCount: expect.any(Number) },
        modelVersion: 'gemini-2.5-flash-lite',
      });
      const message = await send(`${gateway.url}/compat/anthropic/v1/messages`, {
        headers: { 'anthropic-version': '2023-06-01' },
        body: {
          model: 'claude-anything',
          max_tokens: 100,
          system: [{ type: 'text', text: 'Be brief.' }],
          messages: [{ role: 'user', content: 'Hello' }],
        },
      });
      const read = await message.json<{ usage: { input_tokens: number } }>();
      expect(read).toMatchObject({ type: 'message', role: 'assistant', stop_reason: 'end_turn' });
      // “Be brief.” and “Hello” are 14 characters, 4 a token: the system block went along.
      expect(read.usage.input_tokens).toBe(4);
    });

    test('S1-76, S1-77, S1-78: the first call is already answered by the other model', async () => {
      const response = await chat('/failover/openai', { model: 'gpt-5' });
      expect(await response.json()).toMatchObject({ model: expect.stringContaining('gpt-4o'), choices: [{}] });
    });
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

  describe('limits', () => {
    test('S1-40: of 11 calls to /openai within a minute the 11th is 429, and says until when', async () => {
      const bearer = await token('dave', 'user123');
      const statuses: number[] = [];
      let last: RawResponse | undefined;
      for (let i = 0; i < 11; i += 1) {
        last = await chat('/openai', { bearer });
        statuses.push(last.status);
        if (i < 10) await last.text();
      }
      expect(statuses).toEqual([...Array.from({ length: 10 }, () => 200), 429]);
      expect(last!.header('x-ratelimit-limit')).toBe('10');
      expect(last!.header('x-ratelimit-remaining')).toBe('0');
      expect(Number(last!.header('x-ratelimit-reset'))).toBeGreaterThan(0);
      const { error } = await last!.json<{ error: { message: string } }>();
      expect(error.message).toMatch(
        /^rate limit exceeded\. You have used your 10 requests for this minute\. Try again in (?:\d+ seconds|1 minute)\.$/,
      );
      // The title and the tags of a chat are no prompts.
      const task = await chat('/openai', { bearer, headers: { 'x-openwebui-task': 'title_generation' } });
      expect(task.status).toBe(200);
    });

    const say = (route: string, words: number) => {
      const body = { messages: [{ role: 'user', content: 'word '.repeat(words) }] };
      return send(`${gateway.url}${route}/v1/chat/completions`, { body });
    };

    test('S1-41: 500 tokens a minute from /anthropic: a huge prompt is refused by itself, a long answer uses them up', async () => {
      expect((await say('/anthropic', 500)).status).toBe(429);
      expect((await say('/anthropic', 300)).status).toBe(200);
      const next = await say('/anthropic', 300);
      expect(next.status).toBe(429);
      expect((await next.json<{ error: { message: string } }>()).error.message).toMatch(/^rate limit exceeded\. /);
    });

    test('S1-42: 200 tokens a minute from /bedrock, charged after the answer', async () => {
      expect((await say('/bedrock', 300)).status).toBe(200);
      expect((await say('/bedrock', 1)).status).toBe(429);
    });

    test('S1-43: /gemini has no limit in force', async () => {
      const statuses = await Promise.all(Array.from({ length: 20 }, async () => (await chat('/gemini')).status));
      expect(new Set(statuses)).toEqual(new Set([200]));
    });

    test('S1-44: a rate limit service of Envoy’s protocol counts the same', async () => {
      const statuses: number[] = [];
      for (let i = 0; i < 21; i += 1) statuses.push((await chat('/envoy/openai')).status);
      // It counts by the clock's minutes: the calls may lie in two of them, or in one that others have used before.
      expect(statuses).toContain(429);
      expect(statuses.filter((status) => status !== 429 && status !== 200)).toEqual([]);
      expect(statuses.filter((status) => status === 200).length).toBeLessThanOrEqual(20);
    });

    test('S3-24: a request that is sent again with its key is answered as it was', async () => {
      const headers = { 'Idempotency-Key': randomUUID() };
      const first = await chat('/keyed/openai', { bearer: 'agw_sk_demo', headers });
      const answer = await first.text();
      const again = await chat('/keyed/openai', { bearer: 'agw_sk_demo', headers });
      expect(again.header('idempotent-replayed')).toBe('true');
      expect(await again.text()).toBe(answer);
    });
  });

  describe('API keys', () => {
    test('S1-95: no key and a bad one are 401', async () => {
      expect((await chat('/keyed/openai')).status).toBe(401);
      expect((await chat('/keyed/openai', { bearer: 'agw_sk_wrong' })).status).toBe(401);
    });

    test('S1-95: a key’s other model is 403, its list has what it may use', async () => {
      const response = await chat('/keyed/openai', { bearer: 'agw_sk_cheap', model: 'smart' });
      expect(response.status).toBe(403);
      expect((await response.json<{ error: object }>()).error).toMatchObject({ code: 'model_not_allowed' });
      const headers = { Authorization: 'Bearer agw_sk_cheap' };
      const { data } = await (await send(`${gateway.url}/keyed/openai/v1/models`, { headers })).json<Models>();
      expect(data.map(({ id }) => id)).toEqual(['cheap']);
    });

    test('S1-95: over its budget a key is 429, and the other key’s budget is untouched', async () => {
      const cheap = () => chat('/keyed/openai', { bearer: 'agw_sk_cheap', model: 'cheap' });
      let response = await cheap();
      for (let i = 0; i < 10 && response.status === 200; i += 1) {
        await response.text();
        response = await cheap();
      }
      expect(response.status).toBe(429);
      expect(Number(response.header('retry-after'))).toBeGreaterThan(0);
      expect(await response.json()).toMatchObject({
        error: { message: 'Budget exceeded', type: 'rate_limit_error', code: 'budget_exceeded' },
      });
      expect((await chat('/keyed/openai', { bearer: 'agw_sk_demo' })).status).toBe(200);
    });
  });
});

interface Models {
  data: { id: string }[];
}
