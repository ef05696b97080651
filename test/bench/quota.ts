/**
 * What a decision of rate-limit costs, with 1, 4 and 16 limits on one request: in process and over a gRPC Session.
 *
 *     npm run bench:quota -- [--decisions 20000]
 *
 * It starts a Redis of its own, without a disk. CPU is told per decision: of this process (the gateway's side), and of Redis,
 * whose share says how many decisions one Redis can make in a second (it has one thread).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { parseArgs } from 'node:util';
import { connect } from '../../gateway/connect/connect.ts';
import type { Connection } from '../../gateway/connect/connection.ts';
import { rateLimit } from '../../plugins/rate-limit/plugin.ts';
import type { LimitInput } from '../../proto/contract.ts';
import { type OwnRedis, startRedis } from '../real/redis.ts';
import { freePort } from '../support/free-port.ts';

const AT_ONCE = 64;
const PEOPLE = 100;
/** One after the other, for the time that a request waits. */
const ALONE = 2000;

const MIXED = [
  { max: 1e9, window: '1m', algorithm: 'gcra' },
  { type: 'tokens', max: 1e12, window: 'day', reserve: true },
  { max: 1e6, window: '1h' },
  { type: 'concurrent', max: 1e6 },
];

interface Figures {
  way: string;
  limits: number;
  p50us: number;
  p99us: number;
  perSecond: number;
  gatewayCpuUs: number;
  redisCpuUs: number;
  onePerSecond: number;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { decisions: { type: 'string', default: '20000' } } });
  await using redis = await startRedis('--appendonly', 'no');
  const address = `127.0.0.1:${await freePort()}`;
  const service = spawn(process.execPath, ['plugins/serve.ts', 'rate-limit', '--grpc', address, '--http', 'off']);
  try {
    const figures: Figures[] = [];
    for (const at of ['local:rate-limit', `grpc://${address}`]) {
      for (const limits of [1, 4, 16]) figures.push(await measure(redis, at, limits, Number(values.decisions)));
    }
    console.table(figures);
  } finally {
    await ended(service);
  }
}

async function measure(redis: OwnRedis, at: string, limits: number, decisions: number): Promise<Figures> {
  await redis.command('FLUSHALL');
  const connection = await connectTo(at, {
    ...{ redis: redis.url, deadline: '5s' },
    limits: Array.from({ length: limits }, (_, i) => ({ name: `limit-${i}`, per: 'identity', ...MIXED[i % 4] })),
  });
  for (let i = 0; i < ALONE; i++) await connection.ask('limit', input(i));
  const times: number[] = [];
  for (let i = 0; i < ALONE; i++) {
    const begun = performance.now();
    await connection.ask('limit', input(i));
    times.push((performance.now() - begun) * 1000);
  }
  times.sort((a, b) => a - b);
  const [begun, cpu, redisCpu] = [performance.now(), process.cpuUsage(), await redisSeconds(redis)];
  await together(connection, decisions);
  const seconds = (performance.now() - begun) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const inRedis = ((await redisSeconds(redis)) - redisCpu) / decisions;
  await connection.close();
  return {
    way: at.replace(/:.*/, ''),
    limits,
    p50us: Math.round(times[ALONE / 2]!),
    p99us: Math.round(times[ALONE * 0.99]!),
    perSecond: Math.round(decisions / seconds),
    gatewayCpuUs: Math.round((user + system) / decisions),
    redisCpuUs: Math.round(inRedis * 1e6),
    onePerSecond: Math.round(1 / inRedis),
  };
}

async function together(connection: Connection, decisions: number): Promise<void> {
  let next = 0;
  const client = async () => {
    while (next < decisions) await connection.ask('limit', input(next++));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, client));
}

/** Waits for a service that is starting. */
async function connectTo(at: string, config: object): Promise<Connection> {
  const log = { info() {}, warn() {} };
  for (;;) {
    const endpoint = { name: 'quota', at, config, baseDir: '.', options: {}, log };
    const connection = await connect(endpoint, { 'rate-limit': rateLimit });
    const verdict = await answered(connection);
    if (typeof verdict === 'object' && verdict !== null && 'allow' in verdict) return connection;
    await connection.close();
  }
}

async function answered(connection: Connection): Promise<unknown> {
  try {
    return await connection.ask('limit', input(0));
  } catch {
    return undefined;
  }
}

function input(i: number): LimitInput {
  const identity = { subject: `person-${i % PEOPLE}` };
  const request = { id: 'bench', method: 'POST', path: '/v1/chat/completions', route: '/', model: 'm', identity };
  return { request, estimatedInputTokens: 10 };
}

async function redisSeconds(redis: OwnRedis): Promise<number> {
  const text = String(await redis.command('INFO', 'cpu'));
  const read = (name: string) => Number(new RegExp(`${name}:([\\d.]+)`).exec(text)?.[1]);
  return read('used_cpu_user') + read('used_cpu_sys');
}

function ended(child: ChildProcess): Promise<unknown> {
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  return gone;
}

await main();
