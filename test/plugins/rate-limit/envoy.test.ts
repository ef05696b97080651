/** The service that speaks Envoy's rate limit protocol, over an engine of the test's own and a Redis that is not there. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { status } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Check, Decision, Settlement } from '../../../plugins/rate-limit/engine.ts';
import { type EnvoyConfig, readEnvoyConfig } from '../../../plugins/rate-limit/envoy-config.ts';
import { EnvoyLimits } from '../../../plugins/rate-limit/envoy-limits.ts';
import { EnvoyRateLimits, type RateLimitRequest, serveEnvoy } from '../../../plugins/rate-limit/envoy-service.ts';
import { RedisLost } from '../../../plugins/redis/link.ts';
import type { Allow } from '../../../proto/contract.ts';
import { limit } from '../../contract/facts.ts';
import { connectTo } from '../../contract/ways.ts';
import { freePort } from '../../support/free-port.ts';

const OK = 1;
const OVER = 2;
const UNLIMITED = 0xffffffff;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'envoy-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** The config that these files make together. */
function configOf(...texts: string[]): EnvoyConfig {
  const files = texts.map((text, i) => {
    const file = join(folder, `${i}.yaml`);
    writeFileSync(file, text);
    return file;
  });
  return readEnvoyConfig(files);
}

function problemOf(...texts: string[]): string {
  try {
    configOf(...texts);
    return '';
  } catch (error) {
    return (error as Error).message;
  }
}

const TREE = `
domain: demo
descriptors:
  - key: route
    value: openai
    rate_limit: { unit: minute, requests_per_unit: 2 }
  - key: route
    value: open*
    rate_limit: { unit: HOUR, requests_per_unit: 20 }
  - key: route
    rate_limit: { unit: day, requests_per_unit: 30 }
    descriptors:
      - key: user
        rate_limit: { unit: minute, requests_per_unit: 1, name: person }
      - key: user
        value: 007
        rate_limit: { unlimited: true, replaces: [{ name: all }] }
  - key: file
    value: "*.pdf"
    share_threshold: true
    descriptors: [{ key: size, rate_limit: { unit: week, requests_per_unit: 5 } }]
  - key: path
    value: a*b*c
    rate_limit: { unit: second, requests_per_unit: 5 }
  - { key: all, rate_limit: { unit: year, requests_per_unit: 4, name: all } }
  - { key: free, rate_limit: { unlimited: true, name: all } }
  - { key: ends, value: "ab*ba", rate_limit: { unit: year, requests_per_unit: 4 } }
  - { key: shadow, shadow_mode: true, rate_limit: { unit: minute, requests_per_unit: 1 } }
  - { key: never, rate_limit: { unit: minute, requests_per_unit: 0 } }
  - { key: old, detailed_metric: true, value_to_metric: true, rate_limit: { unit: month, requests_per_unit: 9 } }
`;

/** Windows that never end, and what Redis was asked. */
class Counts {
  readonly used = new Map<string, number>();
  rounds = 0;
  lost: RedisLost | undefined;

  async decide(checks: readonly Check[]): Promise<Decision> {
    this.rounds++;
    if (this.lost) throw this.lost;
    const readings = checks.map(({ key, max, take }) => {
      const left = max - (this.used.get(key) ?? 0);
      const agrees = left >= Math.max(1, take);
      return { agrees, left, wholeMs: 0, moreMs: 34_000, waitMs: 0, reserved: 0 };
    });
    const allowed = readings.every(({ agrees }) => agrees);
    if (allowed) for (const [i, { key, take }] of checks.entries()) this.#take(key, take, readings[i]!);
    return { id: '', allowed, readings, at: 0 };
  }

  async settle(_id: string, settlements: readonly Settlement[]): Promise<number[]> {
    for (const { key, used, max, debt } of settlements) {
      const beyond = (this.used.get(key) ?? 0) + used;
      this.used.set(key, debt ? beyond : Math.min(max, beyond));
    }
    return [];
  }

  #take(key: string, take: number, reading: { left: number }): void {
    this.used.set(key, (this.used.get(key) ?? 0) + take);
    reading.left -= take;
  }
}

type Pairs = Record<string, string>;

function descriptor(pairs: Pairs, hits?: number): NonNullable<RateLimitRequest['descriptors']>[number] {
  const entries = Object.entries(pairs).map(([key, value]) => ({ key, value }));
  return hits === undefined ? { entries } : { entries, hitsAddend: { value: hits } };
}

function serviceOf(onRedisLoss: EnvoyConfig['onRedisLoss'] = 'unavailable', text = TREE) {
  const counts = new Counts();
  const logged: string[] = [];
  const service = new EnvoyRateLimits({ ...configOf(text), onRedisLoss }, counts, (line) => logged.push(line));
  const ask = (...descriptors: NonNullable<RateLimitRequest['descriptors']>) =>
    service.shouldRateLimit({ domain: 'demo', descriptors });
  /** The overall code, then each status as code and what is left. */
  const codes = async (...descriptors: NonNullable<RateLimitRequest['descriptors']>) => {
    const { overallCode, statuses } = await ask(...descriptors);
    return [overallCode, ...statuses.map(({ code, limitRemaining }) => [code, limitRemaining])];
  };
  return { service, counts, logged, ask, codes };
}

describe('a file of envoyproxy/ratelimit', () => {
  const limits = () => new EnvoyLimits(configOf(TREE));
  const found = (pairs: Pairs, domain = 'demo') => limits().find(domain, descriptor(pairs).entries!)?.limit;

  test.each<[string, Pairs, object | undefined]>([
    ['key and value', { route: 'openai' }, { max: 2, unit: 2 }],
    ['a wildcard before the key alone', { route: 'openrouter' }, { max: 20, unit: 3 }],
    ['the key alone', { route: 'x' }, { max: 30, unit: 4 }],
    ['the key alone, without a value', { route: '' }, { max: 30, unit: 4 }],
    ['one level down', { route: 'x', user: 'jo' }, { max: 1, name: 'person' }],
    ['a value that looks like a number', { route: 'x', user: '007' }, { unlimited: true }],
    ['several wildcards', { path: 'aXbXbc' }, { max: 5, unit: 1 }],
    ['a month', { old: 'x' }, { max: 9, unit: 5 }],
    ['deeper than the tree: none', { route: 'openai', user: 'jo' }, undefined],
    ['less deep than the tree: none', { file: 'a.pdf' }, undefined],
    ['another key: none', { user: 'jo' }, undefined],
    ['another order: none', { user: 'jo', route: 'x' }, undefined],
    ['a part that is missing: none', { path: 'ac' }, undefined],
    ['a wildcard whose ends overlap: none', { ends: 'aba' }, undefined],
    ['a wildcard whose ends touch', { ends: 'abba' }, { max: 4 }],
    ['a name of every object: none', { constructor: 'x' }, undefined],
  ])('%s', (_title, pairs, expected) => {
    if (expected === undefined) expect(found(pairs)).toBeUndefined();
    else expect(found(pairs)).toMatchObject(expected);
  });

  test('a domain that there is not has no limits', () => {
    expect(found({ route: 'openai' }, 'other')).toBeUndefined();
    expect(limits().override('other', [], { max: 1, unit: 1 })).toBeUndefined();
  });

  test('is counted where no other entries can pose as it; with share_threshold one count for the pattern', () => {
    const key = (pairs: Pairs) => limits().find('demo', descriptor(pairs).entries!)!.key;
    const keys: Pairs[] = [
      { route: 'x', user: 'y' },
      { route: 'x|user=y' },
      { route: 'x=y' },
      { route: 'X', user: 'y' },
    ];
    expect(new Set(keys.map(key)).size).toBe(4);
    expect(key({ file: 'a.pdf', size: '1' })).toBe(key({ file: 'b.pdf', size: '1' }));
    expect(key({ file: 'a.pdf', size: '1' })).not.toBe(key({ file: 'a.pdf', size: '2' }));
    expect(key({ route: 'r'.repeat(100_000) })).toMatch(/^[0-9a-f]{64}$/);
    expect(key({ route: 'a\ud800' })).toContain('%EF%BF%BD');
  });

  test('a value that would make a pattern backtrack for ever is looked through once', () => {
    const many = configOf(
      `domain: d\ndescriptors: [{ key: k, value: "${'a*'.repeat(30)}b", rate_limit: { unlimited: true } }]`,
    );
    expect(new EnvoyLimits(many).find('d', [{ key: 'k', value: 'a'.repeat(200_000) }])).toBeUndefined();
  });

  test.each<[string, string, string]>([
    ['no domain', 'descriptors: []', '0.yaml:1: domain: Name the domain.'],
    [
      'an unknown key',
      'domain: d\ndescriptors:\n  - key: a\n    burst: 1',
      '0.yaml:4: descriptors.0.burst: This setting',
    ],
    [
      'an unknown key below',
      'domain: d\ndescriptors: [{ key: a, rate_limit: { unit: day, requests_per_unit: 1, cost: 1 } }]',
      'descriptors.0.rate_limit.cost: This setting',
    ],
    ['no key', 'domain: d\ndescriptors: [{ value: a }]', 'descriptors.0.key: '],
    [
      'another unit',
      'domain: d\ndescriptors: [{ key: a, rate_limit: { unit: decade, requests_per_unit: 1 } }]',
      'rate_limit.unit: Write one of second, minute',
    ],
    [
      'no unit',
      'domain: d\ndescriptors: [{ key: a, rate_limit: { requests_per_unit: 1 } }]',
      'rate_limit.unit: This is missing',
    ],
    [
      'no number',
      'domain: d\ndescriptors: [{ key: a, rate_limit: { unit: day } }]',
      'requests_per_unit: This is missing',
    ],
    [
      'a number below zero',
      'domain: d\ndescriptors: [{ key: a, rate_limit: { unit: day, requests_per_unit: -1 } }]',
      'requests_per_unit: Write a whole number.',
    ],
    [
      'an unlimited unit',
      'domain: d\ndescriptors: [{ key: a, rate_limit: { unit: day, unlimited: true } }]',
      'rate_limit.unit: What is unlimited has no unit.',
    ],
    [
      'the same twice',
      'domain: d\ndescriptors: [{ key: a, value: b }, { key: a, value: b }]',
      'descriptors.1: It stands here twice.',
    ],
    [
      'the same twice below',
      'domain: d\ndescriptors: [{ key: a, descriptors: [{ key: b }, { key: b }] }]',
      'descriptors.0.descriptors.1: ',
    ],
    [
      'a share of nothing',
      'domain: d\ndescriptors: [{ key: a, share_threshold: true }]',
      'share_threshold: It goes with',
    ],
    ['a quota mode', 'domain: d\ndescriptors: [{ key: a, quota_mode: true }]', 'quota_mode is not known here'],
    ['no YAML', 'domain: [', '0.yaml: '],
    ['a list', '- a', 'config: '],
    ['its own form without domains', 'domains: []\nredis: redis://x:1', '0.yaml:1: domains: Name at least one domain.'],
    [
      'another way to lose Redis',
      'domains: [{ domain: d }]\nonRedisLoss: ignore',
      '0.yaml:2: onRedisLoss: Write unavailable',
    ],
  ])('%s is told with its place', (_title, text, problem) => {
    expect(problemOf(text)).toContain(problem);
  });

  test('several files are one config, each domain once, and one of them may have settings', () => {
    const own = 'redis: redis://there:1\ndeadline: 20ms\nonRedisLoss: allow\ndomains: [{ domain: b }]';
    const config = configOf('domain: a', own);
    expect(config).toMatchObject({ redis: ['redis://there:1'], deadlineMs: 20, onRedisLoss: 'allow' });
    expect(config.domains.map(({ domain }) => domain)).toEqual(['a', 'b']);
    expect(configOf('domain: a')).toMatchObject({ redis: ['redis://localhost:6379'], onRedisLoss: 'unavailable' });
    expect(problemOf('domain: a', 'domain: a')).toContain('the domain a stands in the config twice');
    expect(problemOf(own, own)).toContain('only one of the files');
  });

  test('S1-44: the demo’s', () => {
    const config = readEnvoyConfig(['deploy/ratelimit/config.yaml']);
    const limit = (value: string) => new EnvoyLimits(config).find('agentgateway', [{ key: 'route', value }])?.limit;
    const routes = { openai: 10, anthropic: 500, gemini: 500, bedrock: 200, mcp: 100 };
    for (const [route, max] of Object.entries(routes)) expect(limit(route)).toMatchObject({ max, unit: 2 });
    expect(limit('other')).toBeUndefined();
  });
});

describe('a decision', () => {
  test('counts up to the limit, and says what is left and until when', async () => {
    const { ask, codes } = serviceOf();
    expect(await ask(descriptor({ route: 'openai' }))).toEqual({
      overallCode: OK,
      statuses: [
        {
          code: OK,
          currentLimit: { requestsPerUnit: 2, unit: 2, name: '' },
          limitRemaining: 1,
          durationUntilReset: { seconds: 34 },
        },
      ],
    });
    expect(await codes(descriptor({ route: 'openai' }))).toEqual([OK, [OK, 0]]);
    expect(await codes(descriptor({ route: 'openai' }))).toEqual([OVER, [OVER, 0]]);
  });

  test('hits are the descriptor’s own, else the request’s, else 1; none is a look', async () => {
    const { service, counts } = serviceOf();
    const left = async (request: RateLimitRequest) =>
      (await service.shouldRateLimit({ domain: 'demo', ...request })).statuses[0]!.limitRemaining;
    const entries = [{ key: 'route', value: 'x' }];
    expect(await left({ descriptors: [{ entries }] })).toBe(29);
    expect(await left({ descriptors: [{ entries }], hitsAddend: 4 })).toBe(25);
    expect(await left({ descriptors: [{ entries, hitsAddend: { value: 5 } }], hitsAddend: 4 })).toBe(20);
    expect(await left({ descriptors: [{ entries, hitsAddend: { value: 0 } }], hitsAddend: 4 })).toBe(20);
    // A wrapper without a value is how gRPC writes 0.
    expect(await left({ descriptors: [{ entries, hitsAddend: {} }] })).toBe(20);
    expect([...counts.used.values()]).toEqual([10]);
  });

  test('tokens beyond the limit are counted as far as it goes, and the next look is over', async () => {
    const { codes, counts } = serviceOf();
    expect(await codes(descriptor({ route: 'x' }, 0))).toEqual([OK, [OK, 30]]);
    expect(await codes(descriptor({ route: 'x' }, 400))).toEqual([OVER, [OVER, 0]]);
    expect([...counts.used.values()]).toEqual([30]);
    expect(await codes(descriptor({ route: 'x' }, 0))).toEqual([OVER, [OVER, 0]]);
    expect(await codes(descriptor({ route: 'x' }, Number.MAX_VALUE))).toEqual([OVER, [OVER, 0]]);
  });

  test('each descriptor counts for itself, in order, also when another is over', async () => {
    const { codes } = serviceOf();
    const both = [descriptor({ route: 'x', user: 'jo' }), descriptor({ nobody: 'x' }), descriptor({ all: 'x' })];
    expect(await codes(...both)).toEqual([OK, [OK, 0], [OK, 0], [OK, 3]]);
    expect(await codes(...both)).toEqual([OVER, [OVER, 0], [OK, 0], [OK, 2]]);
    expect(await codes(...both)).toEqual([OVER, [OVER, 0], [OK, 0], [OK, 1]]);
  });

  test('is one round trip while all have room, and none where nothing is counted', async () => {
    const { codes, counts } = serviceOf();
    await codes(descriptor({ route: 'openai' }), descriptor({ all: 'x' }), descriptor({ old: 'x' }));
    expect(counts.rounds).toBe(1);
    await codes(descriptor({ nobody: 'x' }), descriptor({ route: 'x', user: '007' }));
    expect(counts.rounds).toBe(1);
  });

  test('a descriptor that stands there twice is counted twice', async () => {
    const { codes } = serviceOf();
    const twice = [descriptor({ all: 'x' }), descriptor({ all: 'x' }, 2)];
    expect(await codes(...twice)).toEqual([OK, [OK, 1], [OK, 1]]);
  });

  test('what is unlimited has everything left, and replaces a limit by its name', async () => {
    const { codes } = serviceOf();
    const all = descriptor({ all: 'x' }, 4);
    await codes(all);
    expect(await codes(all)).toEqual([OVER, [OVER, 0]]);
    expect(await codes(all, descriptor({ route: 'x', user: '007' }), descriptor({ free: 'x' }))).toEqual([
      OK,
      [OK, 0],
      [OK, UNLIMITED],
      [OK, UNLIMITED],
    ]);
  });

  test('a limit in shadow is counted and never over', async () => {
    const { codes } = serviceOf();
    for (let i = 0; i < 3; i++) expect(await codes(descriptor({ shadow: 'x' }))).toEqual([OK, [OK, 0]]);
  });

  test('nothing is always over', async () => {
    const { ask } = serviceOf();
    const { overallCode, statuses } = await ask(descriptor({ never: 'x' }, 0));
    expect([overallCode, statuses[0]!.code]).toEqual([OVER, OVER]);
    expect(statuses[0]!.durationUntilReset!.seconds).toBeGreaterThan(0);
    expect(statuses[0]!.durationUntilReset!.seconds).toBeLessThanOrEqual(60);
  });

  test('a limit that the descriptor brings along counts in place of the file’s', async () => {
    const { codes } = serviceOf();
    const own = { ...descriptor({ route: 'openai' }), limit: { requestsPerUnit: 3, unit: 2 } };
    for (const left of [2, 1, 0]) expect(await codes(own)).toEqual([OK, [OK, left]]);
    expect(await codes(own)).toEqual([OVER, [OVER, 0]]);
    expect(await codes(descriptor({ route: 'openai' }))).toEqual([OK, [OK, 1]]);
  });

  test.each<[string, RateLimitRequest]>([
    ['no domain', { descriptors: [descriptor({ route: 'x' })] }],
    ['no descriptors', { domain: 'demo' }],
    ['101 descriptors', { domain: 'demo', descriptors: Array(101).fill(descriptor({ route: 'x' })) }],
    ['33 entries', { domain: 'demo', descriptors: [{ entries: Array(33).fill({ key: 'a', value: 'b' }) }] }],
    [
      'a limit without a unit',
      { domain: 'demo', descriptors: [{ ...descriptor({ a: 'b' }), limit: { requestsPerUnit: 1 } }] },
    ],
    [
      'a limit of an unknown unit',
      { domain: 'demo', descriptors: [{ ...descriptor({ a: 'b' }), limit: { unit: 9 } }] },
    ],
  ])('of a request with %s is an error', async (_title, request) => {
    const { service } = serviceOf();
    await expect(service.shouldRateLimit(request)).rejects.toMatchObject({ code: status.INVALID_ARGUMENT });
  });
});

describe('while Redis is away', () => {
  const asked = [descriptor({ route: 'openai' }), descriptor({ nobody: 'x' }), descriptor({ shadow: 'x' })];

  test.each<[EnvoyConfig['onRedisLoss'], unknown]>([
    ['allow', [OK, [OK, 0], [OK, 0], [OK, 0]]],
    ['reject', [OVER, [OVER, 0], [OK, 0], [OK, 0]]],
  ])('callers are told by onRedisLoss: %s', async (onRedisLoss, expected) => {
    const { codes, counts } = serviceOf(onRedisLoss);
    counts.lost = new RedisLost('down');
    expect(await codes(...asked)).toEqual(expected);
  });

  test('by default the call fails, for the caller’s own policy; it is logged once, and that it is back', async () => {
    const { codes, counts, logged } = serviceOf();
    counts.lost = new RedisLost('late');
    for (let i = 0; i < 3; i++) await expect(codes(...asked)).rejects.toMatchObject({ code: status.UNAVAILABLE });
    expect(await codes(descriptor({ nobody: 'x' }))).toEqual([OK, [OK, 0]]);
    counts.lost = undefined;
    await codes(...asked);
    expect(logged).toEqual(['Redis gave no answer: late; callers are told: unavailable', 'Redis answers again']);
  });

  test('a mistake of ours is an error without a word', async () => {
    const { service, counts } = serviceOf();
    counts.decide = () => Promise.reject(new TypeError('secret'));
    await expect(service.shouldRateLimit({ domain: 'demo', descriptors: asked })).rejects.toThrow(TypeError);
  });

  test('the server serves, and tells rls:// that nothing was decided', async () => {
    const config = { ...configOf(TREE), redis: [`redis://127.0.0.1:${await freePort()}`] };
    const server = await serveEnvoy(config, '127.0.0.1:0');
    const told = async (route: string) => {
      const config = { domain: 'demo', descriptors: [{ entries: { [route]: 'x' } }] };
      const connection = await connectTo(`rls://${server.address}`, { config });
      expect(connection.state).toBe('up');
      const asking = Promise.resolve(connection.ask('limit', limit())).catch((error: unknown) => error);
      return asking.finally(() => connection.close());
    };
    expect(await told('route')).toMatchObject({ name: 'PluginUnavailable' });
    expect(((await told('nobody')) as { allow: Allow }).allow).toEqual({ headers: {} });
    await server.close();
  });

  test('an address that is taken is told', async () => {
    const config = configOf(TREE);
    const server = await serveEnvoy(config, '127.0.0.1:0');
    await expect(serveEnvoy(config, server.address)).rejects.toThrow();
    await server.close();
  });
});

describe('the command', () => {
  const SCRIPT = fileURLToPath(new URL('../../../plugins/rate-limit/envoy.ts', import.meta.url));
  const { REDIS_URL: _, ...env } = process.env;
  const run = (...args: string[]) => promisify(execFile)(process.execPath, [SCRIPT, ...args], { env });

  test('says where it serves, and ends in good order', async () => {
    const redis = `127.0.0.1:${await freePort()}`;
    const args = ['--grpc', '127.0.0.1:0', '--config', 'deploy/ratelimit/config.yaml', '--redis', redis];
    const running = spawn(process.execPath, [SCRIPT, ...args], { env, stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = (await once(running.stdout, 'data')) as [Buffer];
    expect(String(line)).toMatch(/^serves agentgateway at 127\.0\.0\.1:\d+\n$/);
    running.kill('SIGTERM');
    expect(await once(running, 'exit')).toEqual([0, null]);
  });

  test('tells what it can do', async () => {
    expect((await run('--help')).stdout).toContain('--config FILE');
  });

  test.each<[string[], string]>([
    [[], '--config wants a file'],
    [['--config', '/nowhere.yaml'], 'ENOENT'],
    [['--config', 'deploy/ratelimit/config.yaml', '--grpc', 'here'], '--grpc wants HOST:PORT, not here'],
    [['--config', 'deploy/ratelimit/config.yaml', '--redis', 'http://x'], '--redis wants an address'],
    [['--config', 'docker-compose.yml'], 'docker-compose.yml:'],
    [['--port', '1'], '--port'],
  ])('%j is refused', async (args, message) => {
    await expect(run(...args)).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining(message) });
  });
});
