/** docker-compose.yml for real: builds the image, starts the profiles beside whatever runs already, and removes them. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { freePort } from '../support/free-port.ts';

const PROJECT = 'wardgate-test';
const FILE = readFileSync('docker-compose.yml', 'utf8');
/** Every port that compose publishes, by its variable. */
const PORTS = [...FILE.matchAll(/127\.0\.0\.1:\$\{(\w+):-/g)].map(([, name]) => name!);
/** Free ports, no setting from a developer's own .env, and the simulated model alone. */
const ENVIRONMENT: NodeJS.ProcessEnv = {
  ...process.env,
  ...Object.fromEntries(await Promise.all(PORTS.map(async (name) => [name, String(await freePort())]))),
  DEMO_API_KEY: 'demo-key',
  OPENAI_API_KEY: '',
  OPENAI_BASE_URL: '',
};
const GATEWAY = `http://127.0.0.1:${ENVIRONMENT.WARDGATE_PORT}`;
const READY = `http://127.0.0.1:${ENVIRONMENT.WARDGATE_METRICS_PORT}/readyz`;
const KEYCLOAK = `localhost:${ENVIRONMENT.KEYCLOAK_PORT}`;
const REALM = `http://${KEYCLOAK}/realms/mcp-realm/protocol/openid-connect`;
/** Its image is gigabytes, and has a test of its own. */
const UI = 'open-webui';
const OPENS = { 'x-opa-passthrough-enabled': 'true' };
const ONCE = ['openfga-migrate', 'openfga-seed'];
const PROMPT = 'Write to jane.roe@example.com, card 4111 1111 1111 1111.';

/** The demo's lines, which are the same wherever the gateway runs. */
const demo: Record<string, () => Promise<void>> = {
  'S1-30: without a token: 403 authorization failed; with a wrong one: 401': async () => {
    const refused = await ask('/openai/v1', {}, '');
    expect(refused.status).toBe(403);
    expect(refused.headers.get('content-type')).toBe('text/plain');
    expect(refused.headers.get('content-length')).toBe('20');
    expect(await refused.text()).toBe('authorization failed');
    expect((await ask('/openai/v1', {}, `${await token()}x`)).status).toBe(401);
  },
  'S1-31: a preflight needs no token': async () => {
    const headers = { origin: 'http://localhost:9999', 'access-control-request-method': 'POST' };
    const response = await fetch(`${GATEWAY}/openai/v1/chat/completions`, { method: 'OPTIONS', headers });
    expect(response.status).toBe(204);
    expect(response.headers.get('access-control-allow-origin')).toBe('*');
  },
  'S1-32, S1-33: with the token of the script: 200 from gpt-4o, whatever model is asked for': async () => {
    const response = await ask('/openai/v1', {}, await token());
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({ object: 'chat.completion', model: 'gpt-4o' });
  },
  'S1-35: the role supply-chain opens /policy/openai': async () => {
    expect((await ask('/policy/openai/v1', {}, await token('mcp-user'))).status).toBe(200);
    const refused = await ask('/policy/openai/v1', {}, await token('other-user'));
    expect([refused.status, await refused.text()]).toEqual([403, 'authorization failed']);
  },
  'S1-91, S1-92: OPA wants the header and a gpt-3.5 model, and no token': async () => {
    const refused = await ask('/opa/openai/v1', { model: 'gpt-4o' }, '');
    expect([refused.status, await refused.text()]).toEqual([403, '']);
    for (const own of ['', await token()]) {
      expect((await ask('/opa/openai/v1', { model: 'gpt-3.5-turbo' }, own, OPENS)).status).toBe(200);
      expect((await ask('/opa/openai/v1', { model: 'gpt-4o' }, own, OPENS)).status).toBe(403);
    }
  },
  'OPA knows by its own API which role may use which model': async () => {
    const status = async (user: string, model: string) =>
      (await ask('/rego/openai/v1', { model }, await token(user))).status;
    expect(await status('mcp-user', 'gpt-4o')).toBe(200);
    expect(await status('other-user', 'gpt-4o')).toBe(403);
    expect(await status('other-user', 'gpt-4o-mini')).toBe(200);
  },
  'S1-93, S1-94: OpenFGA knows who may use which model': async () => {
    const status = async (user: string, model: string) =>
      (await ask('/fga/openai/v1', { model }, await token(user))).status;
    expect(await status('mcp-user', 'gpt-3.5-turbo')).toBe(403);
    expect(await status('mcp-user', 'gpt-4o')).toBe(200);
    expect(await status('alice', 'gpt-3.5-turbo')).toBe(200);
    expect(await status('charlie', 'gpt-4o')).toBe(403);
    expect((await ask('/fga/openai/v1', { model: 'gpt-4o' }, '')).status).toBe(401);
  },
  'S1-95: keys have their models': async () => {
    const status = async (model: string, key: string) => (await ask('/keyed/openai/v1', { model }, key)).status;
    expect(await status('cheap', '')).toBe(401);
    expect(await status('cheap', 'agw_sk_wrong')).toBe(401);
    expect(await status('cheap', 'agw_sk_cheap')).toBe(200);
    expect(await status('smart', 'agw_sk_cheap')).toBe(403);
    expect(await status('smart', 'agw_sk_demo')).toBe(200);
  },
  'S1-40: a person’s 11th prompt within a minute is 429, with the headers and until when': async () => {
    const own = await token('dave');
    for (let i = 0; i < 10; i += 1) expect((await ask('/openai/v1', {}, own)).status).toBe(200);
    const refused = await ask('/openai/v1', {}, own);
    expect(refused.status).toBe(429);
    expect(refused.headers.get('x-ratelimit-limit')).toBe('10');
    expect(refused.headers.get('x-ratelimit-remaining')).toBe('0');
    expect(await refused.text()).toMatch(
      /rate limit exceeded\. You have used your 10 requests for this minute\. Try again/,
    );
    expect((await ask('/openai/v1', {}, own, { 'x-openwebui-task': 'title_generation' })).status).toBe(200);
  },
  'S1-41, S1-42, S1-43: 500 and 200 tokens a minute, and no limit': async () => {
    const say = (route: string, words: number) =>
      ask(`${route}/v1`, { messages: [{ role: 'user', content: 'word '.repeat(words) }] }, '');
    for (const [route, words] of [
      ['/anthropic', 300],
      ['/bedrock', 300],
    ] as const) {
      expect((await say(route, words)).status).toBe(200);
      expect((await say(route, words)).status).toBe(429);
    }
    for (let i = 0; i < 12; i += 1) expect((await say('/gemini', 100)).status).toBe(200);
  },
  'S1-44: envoyproxy/ratelimit counts by its own file': async () => {
    const statuses = [];
    for (let i = 0; i < 21; i += 1) statuses.push((await ask('/envoy/openai/v1', {}, '')).status);
    expect(statuses[0]).toBe(200);
    expect(statuses).toContain(429);
  },
};

describe('S1-02 profile all', () => {
  beforeAll(() => up('all'));
  afterAll(() => down());

  test('has every service healthy, without root, capabilities or a disk to write to', async () => {
    const services = (await servicesOf('all')).filter((name) => !ONCE.includes(name));
    const ids = (await compose('ps', '--quiet')).split('\n').filter(Boolean);
    expect(ids).toHaveLength(services.length);
    for (const container of JSON.parse(await docker('inspect', ...ids))) {
      expect(container.State.Health.Status).toBe('healthy');
      expect(container.Config.User).toMatch(/^(?!0\b|root\b)\w+/);
      expect(container.HostConfig).toMatchObject({ ReadonlyRootfs: true, CapDrop: ['ALL'], Privileged: false });
    }
  });

  for (const [row, check] of Object.entries(demo)) test(row, check);

  test('a logout at Keycloak ends the tokens of the session within seconds', async () => {
    const body = { grant_type: 'password', username: 'alice', password: 'user123', scope: 'openid' };
    const session = (await (await keycloak('token', body)).json()) as { access_token: string; refresh_token: string };
    expect((await ask('/openai/v1', {}, session.access_token)).status).toBe(200);
    expect((await keycloak('logout', { refresh_token: session.refresh_token })).status).toBe(204);
    await eventually(async () => expect((await ask('/openai/v1', {}, session.access_token)).status).toBe(401));
    expect((await ask('/openai/v1', {}, await token('alice'))).status).toBe(200);
  });

  test('OpenFGA keeps its tuples over a restart, and a second seeding changes nothing', async () => {
    await compose('restart', 'openfga');
    const bob = await token('bob');
    await eventually(async () => expect((await ask('/fga/openai/v1', { model: 'gpt-4o' }, bob)).status).toBe(200));
    await compose('--profile', 'all', 'up', '--detach', '--force-recreate', '--no-deps', 'openfga');
    await compose('--profile', 'all', 'run', '--rm', '--no-deps', 'openfga-seed');
    expect(await compose('logs', '--no-log-prefix', 'openfga-seed')).toContain('15 written, 0 there already');
    await eventually(async () => expect((await ask('/fga/openai/v1', { model: 'gpt-4o' }, bob)).status).toBe(200));
  });

  test.each([
    ['openfga', '/fga/openai/v1', 'bob'],
    ['opa', '/opa/openai/v1', 'mcp-user'],
  ])('refuses while %s is away', async (service, route, user) => {
    const own = await token(user);
    await compose('stop', service);
    // What was decided some seconds ago is remembered.
    await eventually(async () => expect((await ask(route, { model: 'gpt-3.5-turbo' }, own, OPENS)).status).toBe(503));
    await compose('start', service);
    await eventually(async () => expect((await ask(route, { model: 'gpt-3.5-turbo' }, own, OPENS)).status).toBe(200));
  });

  test('goes on for holders of tokens while Keycloak is away', async () => {
    const known = await token('mcp-user');
    expect((await ask('/openai/v1', {}, known)).status).toBe(200);
    await compose('stop', 'keycloak');
    expect((await ask('/openai/v1', {}, known)).status).toBe(200);
    await compose('--profile', 'all', 'up', '--detach', '--wait', '--no-deps', 'keycloak');
    expect((await ask('/openai/v1', {}, await token('mcp-user'))).status).toBe(200);
  }, 300_000);

  test('refuses a stranger and a wrong key', async () => {
    expect((await ask('/v1', {}, '')).status).toBe(401);
    expect((await ask('/v1', {}, 'wrong')).status).toBe(401);
  });

  test('masks a prompt, whole and streamed', async () => {
    const whole = await (await ask('/v1')).text();
    expect(whole).toContain('You said: Write to <EMAIL_1>, card <CARD_1>.');
    const streamed = await ask('/v1', { stream: true });
    expect(streamed.headers.get('content-type')).toContain('text/event-stream');
    const text = await streamed.text();
    expect(text).toMatch(/data: \[DONE\]\s*$/);
    expect(text).not.toContain('jane.roe');
  });

  test('writes one access line for a request, and a line of usage', async () => {
    const id = (await ask('/v1')).headers.get('x-request-id') as string;
    await eventually(async () => {
      expect((await compose('logs', '--no-log-prefix', 'gateway')).split(id)).toHaveLength(2);
      expect((await compose('logs', '--no-log-prefix', 'usage-log')).split(id)).toHaveLength(2);
    });
  });

  test('refuses when a guard is away, and serves again when it is back', async () => {
    await compose('stop', 'pii-guard');
    const refused = await ask('/v1');
    expect(refused.status).toBe(503);
    expect(await refused.text()).toContain('guard_unavailable');
    expect((await ask('/open/v1')).status).toBe(200);
    await compose('start', 'pii-guard');
    await eventually(async () => expect((await ask('/v1')).status).toBe(200));
  });

  test('starts the gateway also while a guard is away', async () => {
    await compose('stop', 'api-key-auth');
    await compose('restart', 'gateway');
    await eventually(async () => expect((await ask('/open/v1')).status).toBe(200));
    expect((await ask('/v1')).status).toBe(503);
    await compose('start', 'api-key-auth');
    await eventually(async () => expect((await ask('/v1')).status).toBe(200));
  });

  test('S1-95: a budget survives a restart of everything that counts it', async () => {
    const cheap = async () => (await ask('/keyed/openai/v1', { model: 'cheap' }, 'agw_sk_cheap')).status;
    await eventually(async () => expect(await cheap()).toBe(429));
    await compose('restart', 'redis', 'rate-limit', 'gateway');
    await eventually(async () => expect((await ask('/open/v1')).status).toBe(200));
    await eventually(async () => expect(await cheap()).toBe(429));
    expect((await ask('/keyed/openai/v1', { model: 'smart' }, 'agw_sk_demo')).status).toBe(200);
  });

  test('S1-45: the limiter taken away refuses, as its mount says', async () => {
    await compose('stop', 'ratelimit');
    await eventually(async () => expect((await ask('/envoy/openai/v1', {}, '')).status).toBe(503));
    await compose('stop', 'redis');
    await eventually(async () => expect((await ask('/bedrock/v1', {}, '')).status).toBe(503));
    await compose('start', 'redis', 'ratelimit');
    await eventually(async () => expect((await ask('/open/v1')).status).toBe(200));
  });

  test('issues a key and shows what was used, by the commands of the README', async () => {
    const keys = ['exec', '-T', 'api-key-auth', 'node', 'plugins/api-key-auth/keys.ts'];
    const key = (await compose(...keys, 'issue', '--redis', 'redis://redis:6379', '--subject', 'jo')).trim();
    expect((await ask('/v1', {}, key)).status).toBe(200);
    const budgets = ['exec', '-T', 'rate-limit', 'node', 'plugins/rate-limit/budgets.ts'];
    const shown = await compose(...budgets, 'show', '--redis', 'redis://redis:6379', '--all');
    expect(shown).toContain('key-budget');
  });

  test('limits requests', async () => {
    const statuses = await Promise.all(Array.from({ length: 30 }, async () => (await ask('/v1')).status));
    expect(new Set(statuses)).toEqual(new Set([200, 429]));
  });

  test('lets a stream end when the gateway is told to stop', async () => {
    await eventually(async () => expect((await ask('/v1')).status).toBe(200));
    const stream = await ask('/open/v1', { stream: true, messages: [{ role: 'user', content: 'word '.repeat(100) }] });
    const [text] = await Promise.all([stream.text(), compose('stop', 'gateway')]);
    expect(text).toMatch(/data: \[DONE\]\s*$/);
  });
});

describe('S1-04 profile infra, and run-proxy-local.sh', () => {
  let proxy: ChildProcess;

  beforeAll(async () => {
    await up('infra');
    proxy = spawn('bash', ['run-proxy-local.sh'], { env: ENVIRONMENT, stdio: 'inherit' });
    await eventually(async () => expect(await (await fetch(READY)).text()).not.toContain('"down"'));
  });
  afterAll(async () => {
    const ended = once(proxy, 'close');
    if (proxy.kill('SIGTERM')) await ended;
    await down();
  });

  test('has no gateway in a container', async () => {
    expect((await compose('ps', '--services')).split('\n')).not.toContain('gateway');
  });

  for (const [row, check] of Object.entries(demo)) test(row, check);
});

describe('S1-03 profile minimal', () => {
  beforeAll(() => up('minimal'));
  afterAll(() => down());

  test('serves /open with a limit and a guard, and lets nothing through where guards are missing', async () => {
    expect((await compose('ps', '--services')).trim().split('\n').sort()).toEqual([
      'gateway',
      'rate-limit',
      'ratelimit',
      'redis',
      'simulated-model',
    ]);
    expect(await (await ask('/open/v1')).text()).toContain('<EMAIL_1>');
    expect((await ask('/v1')).status).toBe(503);
  });
});

async function up(profile: string): Promise<void> {
  const options = ['--detach', '--build', '--wait', '--wait-timeout', '300'];
  await compose('--profile', profile, 'up', ...options, ...(await servicesOf(profile)));
}

async function servicesOf(profile: string): Promise<string[]> {
  const services = (await compose('--profile', profile, 'config', '--services')).trim().split('\n');
  return services.filter((name) => name !== UI);
}

async function down(): Promise<void> {
  await compose('--profile', 'all', '--profile', 'infra', 'down', '--volumes');
}

function compose(...args: string[]): Promise<string> {
  return docker('compose', '--project-name', PROJECT, ...args);
}

async function docker(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)('docker', args, { env: ENVIRONMENT, maxBuffer: 64 * 1024 * 1024 });
  return stdout;
}

function ask(base: string, body: object = {}, credential = 'demo-key', headers: object = {}): Promise<Response> {
  const authorization = credential && { authorization: `Bearer ${credential}` };
  return fetch(`${GATEWAY}${base}/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers, ...authorization },
    body: JSON.stringify({ model: 'simulated', messages: [{ role: 'user', content: PROMPT }], ...body }),
  });
}

async function token(user = 'mcp-user'): Promise<string> {
  const env = { ...ENVIRONMENT, KEYCLOAK_HOST: KEYCLOAK };
  return (await promisify(execFile)('keycloak/get-keycloak-token.sh', [user], { env })).stdout.trim();
}

function keycloak(endpoint: string, form: Record<string, string>): Promise<Response> {
  const client = { client_id: 'openweb-ui', client_secret: 'changeme' };
  return fetch(`${REALM}/${endpoint}`, { method: 'POST', body: new URLSearchParams({ ...client, ...form }) });
}

/** Repeats a check for at most 40 s, once a second. */
async function eventually(check: () => Promise<void>): Promise<void> {
  for (let left = 40; ; left -= 1) {
    try {
      return await check();
    } catch (error) {
      if (left === 0) throw error;
      await sleep(1_000);
    }
  }
}
