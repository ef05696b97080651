/** What all requests share: the current config, the pools, the metrics and the log. */
import { randomUUID } from 'node:crypto';
import type { Price } from '../proto/contract.ts';
import type { Config } from './config/schema.ts';
import type { Exchange } from './exchange.ts';
import { Streams } from './resume/streams.ts';
import type { Route, Snapshot } from './snapshot.ts';
import type { AccessLog, Log } from './telemetry/log.ts';
import type { Metrics } from './telemetry/metrics.ts';
import { People } from './telemetry/people.ts';
import { RequestRecord, reasonOf } from './telemetry/record.ts';
import type { Upstream } from './upstream.ts';

export class Gateway {
  /** Replaced by a reload; a request keeps the one that it began with. */
  snapshot: Snapshot;
  readonly upstream: Upstream;
  readonly metrics: Metrics;
  readonly log: Log;
  /** Streamed answers that can be resumed. */
  readonly streams: Streams;
  /** Providers and models that take no beginning of an answer to go on from. */
  readonly noPrefill = new Set<string>();
  private readonly access: AccessLog;
  private readonly people = new People();

  constructor(snapshot: Snapshot, upstream: Upstream, metrics: Metrics, log: Log, access: AccessLog) {
    this.snapshot = snapshot;
    this.upstream = upstream;
    this.metrics = metrics;
    this.streams = new Streams(metrics);
    this.log = log;
    this.access = access;
  }

  /** Begins the record of a request. A client's own request id is kept when it is harmless. */
  record(exchange: Exchange, route: Route | undefined): RequestRecord {
    const given = exchange.headers['x-request-id'];
    const id = given !== undefined && /^[\w.:-]{1,128}$/.test(given) ? given : randomUUID();
    const context = route?.config.context;
    const facts = {
      id,
      method: exchange.method,
      path: exchange.path,
      route: route?.prefix ?? '',
      ...(context !== undefined && { context }),
    };
    return new RequestRecord(facts, believable(exchange.headers, route), exchange.startedAt, this.log);
  }

  /** Counts a request that is over, and writes its line. */
  settle(record: RequestRecord, durationMs: number, snapshot: Snapshot): void {
    const { facts } = record;
    record.costUsd = cost(record, snapshot);
    const vendor = facts.provider === undefined ? '' : snapshot.telemetryName(facts.provider);
    const { metricLabels, metricPeople } = snapshot.config;
    const people = this.people.labels(facts.identity, metricLabels, metricPeople);
    const series = this.metrics.forRequest({
      route: facts.route,
      method: facts.method,
      status: record.status,
      reason: record.code ?? '',
      provider: vendor,
      model: facts.model ?? '',
      people,
    });
    series.requests.value += 1;
    series.duration.observe(durationMs / 1000);
    if (facts.model !== undefined && record.status === 200) {
      const model = this.metrics.forModel({
        route: facts.route,
        provider: vendor,
        requestModel: facts.model,
        responseModel: record.upstreamModel ?? facts.model,
        people,
      });
      this.metrics.settle(model, {
        usage: record.usage,
        durationMs,
        firstTokenMs: record.firstTokenMs,
        costUsd: record.costUsd,
      });
    }
    if (snapshot.config.log.access) this.access(accessLine(record, durationMs));
  }
}

/** The client's headers without those by which the gateway tells who it is: nobody may say that of himself. */
function believable(headers: Exchange['headers'], route: Route | undefined): Exchange['headers'] {
  if (route === undefined || route.identityHeaders.length === 0) return headers;
  const kept = { ...headers };
  for (const [name] of route.identityHeaders) delete kept[name];
  return kept;
}

/** By the price table; undefined without a price or a usage. Prices are USD per million tokens. */
function cost({ usage, upstreamModel, facts }: RequestRecord, { config }: Snapshot): number | undefined {
  const price = priceOf(config, [upstreamModel, facts.model]);
  if (price === undefined || usage === undefined) return undefined;
  const cached = price.cachedInput === undefined ? 0 : Math.min(usage.cachedInputTokens ?? 0, usage.inputTokens);
  const input = (usage.inputTokens - cached) * price.input + cached * (price.cachedInput ?? 0);
  return (input + usage.outputTokens * price.output) / 1_000_000;
}

/** The price of the first of these models that the table has, in USD per million tokens. */
export function priceOf({ prices }: Config, models: (string | undefined)[]): Price | undefined {
  // Names come from outside: one such as `constructor` must not find what every object has.
  const name = models.find((one) => one !== undefined && Object.hasOwn(prices, one));
  return name === undefined ? undefined : prices[name];
}

/** One line a request: everything but what was said. */
function accessLine(record: RequestRecord, durationMs: number): object {
  const { facts, usage } = record;
  return {
    requestId: facts.id,
    route: facts.route,
    method: facts.method,
    path: facts.path.length > 256 ? `${facts.path.slice(0, 256)}…` : facts.path,
    status: record.status,
    outcome: record.outcome,
    code: record.code,
    cause:
      record.cause === undefined ? undefined : typeof record.cause === 'string' ? record.cause : reasonOf(record.cause),
    model: facts.model,
    upstreamModel: record.upstreamModel,
    provider: facts.provider,
    attempts: record.attempts > 1 ? record.attempts : undefined,
    subject: facts.identity?.subject,
    username: facts.identity?.username,
    tenant: facts.identity?.tenant,
    streamed: record.streamed || undefined,
    inputTokens: usage?.inputTokens,
    outputTokens: usage?.outputTokens,
    estimated: usage?.estimated,
    costUsd: record.costUsd,
    firstTokenMs: rounded(record.firstTokenMs),
    resumedFrom: record.resumedFrom,
    durationMs: rounded(durationMs),
    trace: record.trace.length > 0 ? record.traceLine : undefined,
  };
}

function rounded(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.round(ms * 100) / 100;
}
