/** docker-compose.yml for real: builds the image, starts the profiles beside whatever runs already, and removes them. */
import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const PROJECT = 'wardgate-test';
/** Free ports, and no setting from a developer's own .env. */
const ENVIRONMENT = { ...process.env, WARDGATE_PORT: '0', WARDGATE_METRICS_PORT: '0', DEMO_API_KEY: 'demo-key' };
const PROMPT = 'Write to jane.roe@example.com, card 4111 1111 1111 1111.';

let url: string;

describe('profile all', () => {
  beforeAll(() => up('all'));
  afterAll(() => down());

  test('has every service healthy, without root, capabilities or a disk to write to', async () => {
    const ids = (await compose('ps', '--quiet')).split('\n').filter(Boolean);
    expect(ids).toHaveLength(6);
    for (const container of JSON.parse(await docker('inspect', ...ids))) {
      expect(container.State.Health.Status).toBe('healthy');
      expect(container.Config.User).toBe('1000:1000');
      expect(container.HostConfig).toMatchObject({ ReadonlyRootfs: true, CapDrop: ['ALL'], Privileged: false });
    }
  });

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
    await findGateway();
    await eventually(async () => expect((await ask('/open/v1')).status).toBe(200));
    expect((await ask('/v1')).status).toBe(503);
    await compose('start', 'api-key-auth');
    await eventually(async () => expect((await ask('/v1')).status).toBe(200));
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

describe('profile minimal', () => {
  beforeAll(() => up('minimal'));
  afterAll(() => down());

  test('serves /open with a limit and a guard, and lets nothing through where guards are missing', async () => {
    expect((await compose('ps', '--services')).trim().split('\n').sort()).toEqual([
      'gateway',
      'local-limit',
      'simulated-model',
    ]);
    expect(await (await ask('/open/v1')).text()).toContain('<EMAIL_1>');
    expect((await ask('/v1')).status).toBe(503);
  });
});

async function up(profile: string): Promise<void> {
  await compose('--profile', profile, 'up', '--detach', '--build', '--wait', '--wait-timeout', '300');
  await findGateway();
}

async function findGateway(): Promise<void> {
  url = `http://${(await compose('port', 'gateway', '3000')).trim()}`;
}

async function down(): Promise<void> {
  await compose('--profile', 'all', 'down', '--volumes');
}

function compose(...args: string[]): Promise<string> {
  return docker('compose', '--project-name', PROJECT, ...args);
}

async function docker(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)('docker', args, { env: ENVIRONMENT, maxBuffer: 64 * 1024 * 1024 });
  return stdout;
}

function ask(base: string, body: object = {}, key = 'demo-key'): Promise<Response> {
  return fetch(`${url}${base}/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(key && { authorization: `Bearer ${key}` }) },
    body: JSON.stringify({ model: 'simulated', messages: [{ role: 'user', content: PROMPT }], ...body }),
  });
}

/** Repeats a check for at most 20 s, twice a second. */
async function eventually(check: () => Promise<void>): Promise<void> {
  for (let left = 40; ; left -= 1) {
    try {
      return await check();
    } catch (error) {
      if (left === 0) throw error;
      await sleep(500);
    }
  }
}
