/**
 * Envoy's rate limit service (envoy.service.ratelimit.v3) over the engine: an Envoy or an agentgateway counts in the same
 * Redis, by the same scripts, as the plugin does.
 *
 * As envoyproxy/ratelimit does, it counts each descriptor for itself, also beyond its limit and whatever the others say: a
 * caller tells the tokens of an answer when it has been given. What goes beyond a limit is forgotten with its window.
 */
import { fileURLToPath } from 'node:url';
import { Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData, status } from '@grpc/grpc-js';
import { loadSync, type ServiceDefinition } from '@grpc/proto-loader';
import { HealthImplementation } from 'grpc-health-check';
import { RedisLink, RedisLost } from '../redis/link.ts';
import { type Check, Engine, newId, type Reading } from './engine.ts';
import { type EnvoyConfig, UNITS } from './envoy-config.ts';
import { type Entry, EnvoyLimits, type Found } from './envoy-limits.ts';

const OK = 1;
const OVER_LIMIT = 2;
/** What is left of something unlimited. */
const UNLIMITED = 0xffffffff;
/** Most hits that one descriptor counts at once. */
const MAX_HITS = 0xffffffff;
const MAX_DESCRIPTORS = 100;
const MAX_ENTRIES = 32;
/** The largest request, in bytes. */
const MAX_REQUEST = 256 * 1024;
const MAX_IN_FLIGHT = 10_000;
/** How long calls under way may take when it stops, in milliseconds. */
const DRAIN_MS = 10_000;

const SERVICE = 'envoy.service.ratelimit.v3.RateLimitService';
const PROTO = fileURLToPath(new URL('../../proto', import.meta.url));

/** The message as proto-loader reads it: what is not there is absent. */
export interface RateLimitRequest {
  domain?: string;
  descriptors?: {
    entries?: Entry[];
    limit?: { requestsPerUnit?: number; unit?: number };
    hitsAddend?: { value?: number };
  }[];
  hitsAddend?: number;
}

export interface DescriptorStatus {
  code: number;
  currentLimit?: { requestsPerUnit: number; unit: number; name: string };
  limitRemaining: number;
  durationUntilReset?: { seconds: number };
}

/** The message as proto-loader writes it. */
export interface RateLimitResponse {
  overallCode: number;
  statuses: DescriptorStatus[];
}

/** A call that cannot be answered, as gRPC tells it. */
class CallError extends Error {
  readonly code: status;

  constructor(code: status, message: string) {
    super(message);
    this.code = code;
  }
}

/** What stands behind a descriptor: its limit, if it has one, and what it adds. */
interface Asked {
  found: Found | undefined;
  hits: number;
}

/** See the head of this file. */
export class EnvoyRateLimits {
  readonly #limits: EnvoyLimits;
  readonly #engine: Pick<Engine, 'decide' | 'settle'>;
  readonly #onRedisLoss: EnvoyConfig['onRedisLoss'];
  readonly #log: (line: string) => void;
  #isLost = false;

  constructor(
    config: Pick<EnvoyConfig, 'domains' | 'onRedisLoss'>,
    engine: Pick<Engine, 'decide' | 'settle'>,
    log: (line: string) => void = () => {},
  ) {
    this.#limits = new EnvoyLimits(config);
    this.#engine = engine;
    this.#onRedisLoss = config.onRedisLoss;
    this.#log = log;
  }

  /** @throws {@link CallError} when the request makes no sense, or Redis is away and the config says so */
  async shouldRateLimit(request: RateLimitRequest): Promise<RateLimitResponse> {
    const asked = withoutReplaced(this.#asked(request));
    const statuses = await this.#statuses(asked);
    const isOver = statuses.some(({ code }) => code === OVER_LIMIT);
    return { overallCode: isOver ? OVER_LIMIT : OK, statuses };
  }

  #asked({ domain = '', descriptors = [], hitsAddend = 0 }: RateLimitRequest): Asked[] {
    if (domain === '') throw invalid('a request names its domain');
    if (descriptors.length === 0 || descriptors.length > MAX_DESCRIPTORS) {
      throw invalid(`a request has 1 to ${MAX_DESCRIPTORS} descriptors`);
    }
    return descriptors.map(({ entries = [], limit, hitsAddend: own }) => {
      if (entries.length > MAX_ENTRIES) throw invalid(`a descriptor has ${MAX_ENTRIES} entries at most`);
      const hits = Math.min(own === undefined ? Math.max(1, hitsAddend) : (own.value ?? 0), MAX_HITS);
      if (limit === undefined) return { found: this.#limits.find(domain, entries), hits };
      const { requestsPerUnit: max = 0, unit = 0 } = limit;
      if (unit === 0 || UNITS[unit] === undefined) throw invalid('the limit of a descriptor has no unit');
      return { found: this.#limits.override(domain, entries, { max, unit }), hits };
    });
  }

  async #statuses(asked: Asked[]): Promise<DescriptorStatus[]> {
    const checks = checksOf(asked);
    try {
      const readings = checks.length === 0 ? [] : await this.#count(checks);
      if (checks.length > 0) this.#told(undefined);
      const byKey = new Map(checks.map(({ key }, i) => [key, readings[i]!]));
      return asked.map(({ found }) => statusOf(found, found && byKey.get(found.key)));
    } catch (error) {
      if (!(error instanceof RedisLost)) throw error;
      this.#told(error);
      if (this.#onRedisLoss === 'unavailable') throw new CallError(status.UNAVAILABLE, error.message);
      const isAllowed = this.#onRedisLoss === 'allow';
      return asked.map(({ found }) => statusOf(isAllowed ? undefined : found, undefined));
    }
  }

  /** Counts each for itself. Where all have room that is one round trip, and a few where some have not. */
  async #count(checks: Check[]): Promise<Reading[]> {
    const { allowed, readings } = await this.#engine.decide(checks);
    if (allowed) return readings;
    // Of what has no room for all its hits, the last ones are taken.
    const partly = checks.filter(({ take }, i) => !readings[i]!.agrees && readings[i]!.left > 0 && take > 0);
    const fit = checks.filter((_, i) => readings[i]!.agrees);
    const [counted] = await Promise.all([
      fit.length === 0 ? [] : this.#count(fit),
      partly.length > 0 &&
        this.#engine.settle(
          newId(),
          partly.map((check) => ({ ...check, reserved: 0, used: check.take, debt: false })),
        ),
    ]);
    return readings.map((reading, i) => (reading.agrees ? counted[fit.indexOf(checks[i]!)]! : reading));
  }

  /** Each change is logged once. */
  #told(lost: RedisLost | undefined): void {
    if ((lost !== undefined) === this.#isLost) return;
    this.#isLost = lost !== undefined;
    this.#log(lost === undefined ? 'Redis answers again' : `${lost.message}; callers are told: ${this.#onRedisLoss}`);
  }
}

function invalid(message: string): CallError {
  return new CallError(status.INVALID_ARGUMENT, message);
}

function withoutReplaced(asked: Asked[]): Asked[] {
  const replaced = new Set(asked.flatMap(({ found }) => found?.limit.replaces ?? []));
  if (replaced.size === 0) return asked;
  return asked.map((one) => {
    const { name, unlimited } = one.found?.limit ?? { name: '', unlimited: false };
    return unlimited || !replaced.has(name) ? one : { ...one, found: undefined };
  });
}

/** One check for each key: a request may name a descriptor twice. */
function checksOf(asked: Asked[]): Check[] {
  const checks = new Map<string, Check>();
  for (const { found, hits } of asked) {
    // Nothing is never had; Redis need not be asked for that.
    if (found === undefined || found.limit.unlimited || found.limit.max === 0) continue;
    const { unit, max } = found.limit;
    const take = Math.min((checks.get(found.key)?.take ?? 0) + hits, Number.MAX_SAFE_INTEGER);
    const span = UNITS[unit]![1] * 1000;
    checks.set(found.key, { key: found.key, kind: 'fixed', span, step: 0, max, unit: 'hits', take, least: 0, most: 0 });
  }
  return [...checks.values()];
}

/** @param reading undefined when there is none: OVER_LIMIT for whatever has a limit */
function statusOf(found: Found | undefined, reading: Reading | undefined): DescriptorStatus {
  if (found === undefined) return { code: OK, limitRemaining: 0 };
  const { max, unit, name, unlimited, isShadow } = found.limit;
  if (unlimited) return { code: OK, limitRemaining: UNLIMITED };
  const isOver = reading === undefined || !reading.agrees;
  return {
    code: isOver && !isShadow ? OVER_LIMIT : OK,
    currentLimit: { requestsPerUnit: max, unit, name },
    limitRemaining: isOver ? 0 : Math.max(0, reading.left),
    durationUntilReset: { seconds: Math.ceil((reading?.moreMs || untilReset(UNITS[unit]![1])) / 1000) },
  };
}

/** Milliseconds until the window ends, by this machine's clock: for windows that Redis knows nothing of. */
function untilReset(seconds: number): number {
  return seconds * 1000 - (Date.now() % (seconds * 1000));
}

// --- The server -----------------------------------------------------------------------------------------------------

export interface EnvoyServer {
  /** `host:port`, as it listens. */
  address: string;
  /** Takes no more calls, and lets those under way end. */
  close(): Promise<void>;
}

/**
 * Serves a config at `host:port`; port 0 takes a free one. A Redis that is away is no error: callers are told.
 *
 * @throws Error when the address cannot be had
 */
export async function serveEnvoy(
  config: EnvoyConfig,
  address: string,
  log: (line: string) => void = () => {},
): Promise<EnvoyServer> {
  const link = new RedisLink({ urls: config.redis, deadlineMs: config.deadlineMs, maxInFlight: MAX_IN_FLIGHT });
  const limits = new EnvoyRateLimits(config, new Engine(link, { prefix: config.prefix, lifetimeMs: 60_000 }), log);
  const server = new Server({ 'grpc.max_receive_message_length': MAX_REQUEST });
  const health = new HealthImplementation({ '': 'SERVING', [SERVICE]: 'SERVING' });
  health.addToServer(server);
  const loaded = loadSync('envoy/service/ratelimit/v3/rls.proto', { includeDirs: [PROTO], longs: Number });
  server.addService(loaded[SERVICE] as ServiceDefinition, {
    ShouldRateLimit: (call: ServerUnaryCall<RateLimitRequest, RateLimitResponse>, reply: sendUnaryData<object>) => {
      limits.shouldRateLimit(call.request).then(
        (response) => reply(null, response),
        (error: unknown) => reply(asServiceError(error, log)),
      );
    },
  });
  const port = await bound(server, address).catch((error: unknown) => {
    link.close();
    throw error;
  });
  const close = async () => {
    health.setStatus('', 'NOT_SERVING');
    await stopped(server);
    link.close();
  };
  return { address: address.replace(/\d+$/, String(port)), close };
}

/** What is no CallError is a mistake of ours: told to the log. */
function asServiceError(error: unknown, log: (line: string) => void): { code: status; details: string } {
  if (error instanceof CallError) return { code: error.code, details: error.message };
  log(`a call failed: ${error instanceof Error ? error.message : String(error)}`);
  return { code: status.INTERNAL, details: 'the call failed' };
}

function bound(server: Server, address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) =>
      error ? reject(error) : resolve(port),
    );
  });
}

function stopped(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      server.forceShutdown();
      resolve();
    }, DRAIN_MS);
    server.tryShutdown(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}
