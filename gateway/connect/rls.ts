/**
 * `rls://host:port`: a service that limits for Envoy (envoy.service.ratelimit.v3 over gRPC), such as envoyproxy/ratelimit
 * or Limitador, as it is.
 *
 * At `limit` it is asked once, with the descriptors that the mount's config makes of the request: those of requests count
 * 1, those of tokens nothing (the service only looks) or the estimated prompt. At `observe` it is told the true tokens,
 * less what was counted before; its verdict on them is too late to matter. Nothing can be given back: the protocol only
 * adds. A request that lacks what a descriptor is made of has no such descriptor, and one without any is not limited.
 */
import type { AllowOrReject, CallOptions, LimitInput, ObserveInput, RequestFacts } from '../../proto/contract.ts';
import { PluginFault } from '../../proto/contract.ts';
import type { Connection, Endpoint, HookInput } from './connection.ts';
import { type Descriptor, type RlsConfig, readRlsConfig } from './rls-config.ts';
import { type Asked, type RateLimitResponse, verdictIn } from './rls-reply.ts';
import { foreignMethod, UnaryLine } from './unary.ts';

const SHOULD_RATE_LIMIT = foreignMethod<RateLimitResponse>(
  'envoy/service/ratelimit/v3/rls.proto',
  'envoy.service.ratelimit.v3.RateLimitService',
  'ShouldRateLimit',
);

/** Most hits that one call counts: a service may keep no more than 32 bits. */
const MAX_HITS = 0xffffffff;
/** How long a charge may take, in milliseconds. Nobody waits for it, so the mount's deadline does not cut it. */
const CHARGE_MS = 5_000;

/**
 * Connects, and goes on trying in the background when the service is down.
 *
 * @throws EndpointProblem when the address or the certificates make no sense, ConfigProblem when the config does not
 */
export async function connectRls(endpoint: Endpoint): Promise<Connection> {
  const connection = new RlsConnection(endpoint, readRlsConfig(endpoint.config, endpoint.options.shownHeaders ?? []));
  await connection.start();
  return connection;
}

class RlsConnection extends UnaryLine<RateLimitResponse> {
  private readonly config: RlsConfig;

  constructor(endpoint: Endpoint, config: RlsConfig) {
    const countsTokens = config.descriptors.some(({ type }) => type === 'tokens');
    super(endpoint, SHOULD_RATE_LIMIT, { version: 'rls', hooks: countsTokens ? ['limit', 'observe'] : ['limit'] });
    this.config = config;
  }

  override ask<H extends keyof HookInput>(hook: H, input: HookInput[H], options?: CallOptions): unknown {
    if (hook === 'limit') return this.limit(input as LimitInput, options?.signal);
    if (hook === 'observe') return this.charge(input as ObserveInput);
    throw new PluginFault('no_such_hook', `a rate limit service does not answer \`${hook}\``);
  }

  private limit(input: LimitInput, signal: AbortSignal | undefined): AllowOrReject | Promise<unknown> {
    const estimated = hitsOf(input.estimatedInputTokens);
    const asked = this.asked(input.request, ({ type, estimate }) =>
      type === 'requests' ? 1 : estimate ? estimated : 0,
    );
    if (asked.length === 0) return { allow: {} };
    const grant = asked.some(({ descriptor }) => descriptor.estimate) ? String(estimated) : undefined;
    return this.guarded(async () => {
      const reply = await this.call(this.message(asked), signal);
      return verdictIn(reply, asked, { name: this.endpoint.name, grant });
    }, signal);
  }

  private charge({ request, usage, grant }: ObserveInput): undefined | Promise<unknown> {
    const used = hitsOf((usage?.inputTokens ?? 0) + (usage?.outputTokens ?? 0));
    const rest = hitsOf(used - hitsOf(Number(grant ?? 0)));
    const asked = this.asked(request, ({ type, estimate }) => (type === 'requests' ? 0 : estimate ? rest : used));
    const charged = asked.filter(({ hits }) => hits > 0);
    if (charged.length === 0) return undefined;
    const signal = AbortSignal.timeout(CHARGE_MS);
    return this.guarded(async () => {
      await this.call(this.message(charged), signal);
      return { allow: {} };
    }, signal);
  }

  /** The descriptors that the request has all the values for. */
  private asked(request: RequestFacts, hits: (descriptor: Descriptor) => number): Asked[] {
    const asked: Asked[] = [];
    for (const descriptor of this.config.descriptors) {
      const entries = entriesOf(descriptor, request);
      if (entries !== undefined) asked.push({ descriptor, entries, hits: hits(descriptor) });
    }
    return asked;
  }

  /** As proto-loader writes it. Of the request itself 0 hits would count as 1: each descriptor says its own. */
  private message(asked: Asked[]): object {
    const descriptors = asked.map(({ descriptor: { limit }, entries, hits }) => ({
      entries,
      hitsAddend: { value: hits },
      ...(limit && { limit }),
    }));
    return { domain: this.config.domain, descriptors };
  }
}

function entriesOf({ entries }: Descriptor, request: RequestFacts): { key: string; value: string }[] | undefined {
  const made: { key: string; value: string }[] = [];
  for (const [key, template] of entries) {
    const value = template(request);
    if (value === undefined) return undefined;
    made.push({ key, value });
  }
  return made;
}

/** A count as the protocol has it, whatever a provider or a peer says. */
function hitsOf(count: number): number {
  return count > 0 ? Math.min(Math.ceil(count), MAX_HITS) : 0;
}
