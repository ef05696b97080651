/**
 * The service that speaks Envoy's rate limit protocol, counting in a real Redis, beside a real envoyproxy/ratelimit with
 * the same file: whatever they are asked, they answer alike.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Client, credentials, type ServiceError, status } from '@grpc/grpc-js';
import { loadSync, type MethodDefinition, type ServiceDefinition } from '@grpc/proto-loader';
import { createClient } from '@redis/client';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { readEnvoyConfig } from '../../plugins/rate-limit/envoy-config.ts';
import { type EnvoyServer, type RateLimitRequest, serveEnvoy } from '../../plugins/rate-limit/envoy-service.ts';
import { forwarder } from '../connect/foreign.ts';
import { ask, prompt, soon } from '../gateway/chat.ts';
import { startExample } from '../seeds/example.ts';
import { freePort } from '../support/free-port.ts';
import { realServer } from './servers.ts';

const redis = realServer('redis');
const { XDG_CACHE_HOME = join(homedir(), '.cache'), WARDGATE_CACHE = join(XDG_CACHE_HOME, 'wardgate') } = process.env;
/** The program itself, where this machine has it: it needs a file of this test. */
const PROGRAM = process.env.RATELIMIT_PROGRAM ?? join(WARDGATE_CACHE, 'bin/ratelimit');
const DOMAIN = `wardgate-test-${process.pid}`;
const PREFIX = `{${DOMAIN}}:`;

const TREE = `
domain: ${DOMAIN}
descriptors:
  - key: a
    value: x
    rate_limit: { unit: day, requests_per_unit: 3 }
    descriptors:
      - { key: b, rate_limit: { unit: week, requests_per_unit: 5 } }
      - { key: b, value: y, rate_limit: { unlimited: true, replaces: [{ name: named }] } }
  - key: a
    value: x*
    share_threshold: true
    rate_limit: { unit: month, requests_per_unit: 4 }
  - { key: a, rate_limit: { unit: YEAR, requests_per_unit: 6, name: named } }
  - { key: b, shadow_mode: true, rate_limit: { unit: day, requests_per_unit: 2 } }
  - { key: c, descriptors: [{ key: a, value: x, rate_limit: { unit: day, requests_per_unit: 7 } }] }
`;

const service = 'envoy.service.ratelimit.v3.RateLimitService';
const proto = fileURLToPath(new URL('../../proto', import.meta.url));
const loaded = loadSync('envoy/service/ratelimit/v3/rls.proto', {
  includeDirs: [proto],
  longs: Number,
  defaults: true,
});
const METHOD = (loaded[service] as ServiceDefinition).ShouldRateLimit as MethodDefinition<object, object>;

interface Status {
  code: number;
  currentLimit: object | null;
  limitRemaining: number;
  durationUntilReset: { seconds: number } | null;
}
interface Answer {
  overallCode: number;
  statuses: Status[];
}

/** One call, as a caller makes it that knows nothing of us. */
function call(client: Client, request: RateLimitRequest): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const done = (error: ServiceError | null, answer?: object) =>
      answer === undefined ? reject(error) : resolve(answer as Answer);
    const { path, requestSerialize, responseDeserialize } = METHOD;
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, done);
  });
}

describe.skipIf(!redis.here)('the limits of Envoy’s protocol in a real Redis', () => {
  let folder: string;
  let file: string;
  let ours: EnvoyServer;
  const url = () => new URL('/0', redis.url).href;
  const inRedis = createClient({ url: redis.here ? url() : 'redis://none' });
  const clients: Client[] = [];

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ratelimit-'));
    mkdirSync(join(folder, 'config'));
    file = join(folder, 'config/limits.yaml');
    writeFileSync(file, TREE);
    ours = await serveEnvoy({ ...readEnvoyConfig([file]), redis: [url()], prefix: PREFIX }, '127.0.0.1:0');
    await inRedis.connect();
  });
  afterAll(async () => {
    for (const client of clients) client.close();
    await ours.close();
    await forget();
    inRedis.destroy();
    rmSync(folder, { recursive: true });
  });

  function clientOf(address: string): Client {
    const client = new Client(address, credentials.createInsecure());
    clients.push(client);
    return client;
  }

  /** Nothing has been counted. */
  async function forget(): Promise<void> {
    const keys = [...(await inRedis.keys(`${DOMAIN}_*`)), ...(await inRedis.keys(`${PREFIX}*`))];
    if (keys.length > 0) await inRedis.del(keys);
  }

  describe.skipIf(!existsSync(PROGRAM))('beside envoyproxy/ratelimit', () => {
    let process: ChildProcess;
    let theirs: Client;

    beforeAll(async () => {
      const [http, grpc, debug] = await Promise.all([freePort(), freePort(), freePort()]);
      process = spawn(PROGRAM, {
        stdio: 'ignore',
        env: {
          HOST: '127.0.0.1',
          PORT: String(http),
          GRPC_HOST: '127.0.0.1',
          GRPC_PORT: String(grpc),
          DEBUG_HOST: '127.0.0.1',
          DEBUG_PORT: String(debug),
          REDIS_SOCKET_TYPE: 'tcp',
          REDIS_URL: new URL(redis.url).host,
          RUNTIME_ROOT: folder,
          RUNTIME_SUBDIRECTORY: '',
          RUNTIME_WATCH_ROOT: 'false',
          USE_STATSD: 'false',
        },
      });
      theirs = clientOf(`127.0.0.1:${grpc}`);
      const ready = () => call(theirs, { domain: 'none', descriptors: [{ entries: [] }] });
      await vi.waitFor(ready, 30_000);
    });
    afterAll(async () => {
      process.kill();
      await once(process, 'exit');
    });

    const entry = fc.record({ key: fc.constantFrom('a', 'b', 'c'), value: fc.constantFrom('x', 'xz', 'y', '') });
    const hitsAddend = fc.record({ value: fc.integer({ min: 0, max: 4 }) });
    const ofTheFile = fc.record(
      { entries: fc.array(entry, { minLength: 1, maxLength: 3 }), hitsAddend },
      { requiredKeys: ['entries'] },
    );
    /** With a limit of its own: the number is its limit and its unit. */
    const ofItsOwn = fc
      .record({ number: fc.integer({ min: 4, max: 6 }), hitsAddend })
      .map(({ number, hitsAddend }) => ({
        entries: [{ key: 'own', value: String(number) }],
        hitsAddend,
        limit: { requestsPerUnit: number, unit: number },
      }));
    const one = fc.oneof({ arbitrary: ofTheFile, weight: 4 }, ofItsOwn);
    const request = fc.record({
      domain: fc.constantFrom(DOMAIN, DOMAIN, DOMAIN, `${DOMAIN}-other`),
      // A descriptor that stands there twice is judged by its sum here, one after the other there.
      descriptors: fc.uniqueArray(one, {
        minLength: 1,
        maxLength: 3,
        selector: ({ entries }) => JSON.stringify(entries[0]),
      }),
      hitsAddend: fc.nat({ max: 3 }),
    });

    test('answers alike, request after request', async () => {
      const client = clientOf(ours.address);
      let over = 0;
      await fc.assert(
        fc.asyncProperty(fc.array(request, { minLength: 5, maxLength: 25, size: 'max' }), async (requests) => {
          await forget();
          for (const asked of requests) {
            const [expected, given] = [await call(theirs, asked), await call(client, asked)];
            // A look at a limit of which all is used: OK there until it is passed, over here.
            const isLook = (i: number) => asked.descriptors[i]?.hitsAddend?.value === 0;
            const isUsedUp = expected.statuses.some(
              (one, i) => isLook(i) && one.currentLimit && one.limitRemaining === 0,
            );
            if (isUsedUp) continue;
            expect(given.statuses.map(plain)).toEqual(expected.statuses.map(plain));
            expect(given.overallCode).toBe(expected.overallCode);
            for (const [i, one] of given.statuses.entries()) {
              const wait = expected.statuses[i]!.durationUntilReset?.seconds ?? 0;
              expect(Math.abs((one.durationUntilReset?.seconds ?? 0) - wait)).toBeLessThanOrEqual(2);
            }
            if (given.overallCode === 2) over++;
          }
        }),
        { numRuns: 60 },
      );
      // The made-up requests do reach limits.
      expect(over).toBeGreaterThan(0);
    });

    function plain({ code, currentLimit, limitRemaining }: Status): object {
      return { code, currentLimit, limitRemaining };
    }
  });

  test('two servers, many callers: exactly what there is, is given', async () => {
    await forget();
    const second = await serveEnvoy({ ...readEnvoyConfig([file]), redis: [url()], prefix: PREFIX }, '127.0.0.1:0');
    const both = [clientOf(ours.address), clientOf(second.address)];
    const descriptors = [{ entries: [{ key: 'many', value: 'x' }], limit: { requestsPerUnit: 50, unit: 6 } }];
    const answers = await Promise.all(
      Array.from({ length: 200 }, (_, i) => call(both[i % 2]!, { domain: DOMAIN, descriptors })),
    );
    expect(answers.filter(({ overallCode }) => overallCode === 1)).toHaveLength(50);
    await second.close();
  });

  test('S1-40, S1-41: a gateway counts by it as by envoyproxy/ratelimit', async () => {
    const config = readEnvoyConfig(['deploy/ratelimit/config.yaml']);
    const server = await serveEnvoy({ ...config, redis: [url()], prefix: PREFIX }, '127.0.0.1:0');
    const [RATELIMIT_HOST, RATELIMIT_PORT] = server.address.split(':');
    await using example = await startExample('examples/ratelimit.yaml', {
      environment: { RATELIMIT_HOST, RATELIMIT_PORT },
    });
    const minuteNow = () => Math.floor(Date.now() / 60_000);
    let statuses: number[] = [];
    // Once more if the minute ended meanwhile.
    for (let minute = -1; minute !== minuteNow(); ) {
      minute = minuteNow();
      await forget();
      statuses = [];
      for (let i = 0; i < 11; i++) statuses.push((await ask(example.gateway, prompt(), { route: '/openai' })).status);
    }
    expect(statuses).toEqual([...Array<number>(10).fill(200), 429]);
    const long = prompt(Array<string>(300).fill('word').join(' '));
    expect((await ask(example.gateway, long, { route: '/anthropic' })).status).toBe(200);
    await soon(async () => (await ask(example.gateway, prompt(), { route: '/anthropic' })).status).toBe(429);
    await server.close();
  });

  test('Redis goes and comes back: UNAVAILABLE meanwhile, within the deadline', async () => {
    const between = await freePort();
    const config = { ...readEnvoyConfig([file]), redis: [`redis://127.0.0.1:${between}`], prefix: PREFIX };
    const server = await serveEnvoy(config, '127.0.0.1:0');
    const client = clientOf(server.address);
    const asked = { domain: DOMAIN, descriptors: [{ entries: [{ key: 'a', value: 'gone' }] }] };
    const code = () =>
      call(client, asked).then(
        ({ overallCode }) => overallCode,
        (error: ServiceError) => -error.code,
      );
    expect(await code()).toBe(-status.UNAVAILABLE);
    await forget();
    {
      await using _there = await forwarder(new URL(redis.url).host, between);
      await soon(code).toBe(1);
    }
    await soon(code).toBe(-status.UNAVAILABLE);
    await server.close();
  });
});
