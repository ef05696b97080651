/**
 * What Prometheus sees. Model metrics have OpenTelemetry's GenAI names, the reference gateway's (`agentgateway_…`, which
 * existing dashboards query), or both; the numbers are counted once.
 */
import { collectDefaultMetrics, Registry } from 'prom-client';
import type { Hook, Usage } from '../../proto/contract.ts';
import {
  type Cell,
  Count,
  type Distribution,
  Histogram,
  type HistogramName,
  type Labels,
  type Observation,
  observe,
} from './cells.ts';

/** Boundaries: OpenTelemetry semantic conventions for GenAI metrics (2026); the 0.001 of `perToken` is agentgateway's. */
const BOUNDS = {
  tokens: [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864],
  duration: [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92],
  firstToken: [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10],
  perToken: [0.001, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5],
  request: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 80],
  plugin: [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1, 5],
};

export type MetricNames = readonly ('otel' | 'agentgateway')[];

/** The series of one route, provider, model and answer's model. */
export interface ModelSeries {
  inputTokens: Distribution;
  outputTokens: Distribution;
  duration: Distribution;
  firstToken: Distribution;
  perToken: Distribution;
  cost: Cell;
}

/** The series of one route, model and status. */
export interface RequestSeries {
  requests: Cell;
  duration: Distribution;
}

/** How one mounted plugin is counted. */
export class PluginMetrics {
  private readonly metrics: Metrics;
  private readonly plugin: string;
  private readonly calls = new Map<string, Cell>();
  private readonly findings = new Map<string, Cell>();
  private readonly times = new Map<Hook, Distribution>();

  constructor(metrics: Metrics, plugin: string) {
    this.metrics = metrics;
    this.plugin = plugin;
  }

  /** One call: `verdict` is a kind, `fault`, or either with `shadow_` before it. */
  called(hook: Hook, verdict: string, ms: number): void {
    const key = hook + verdict;
    let cell = this.calls.get(key);
    if (cell === undefined) {
      cell = this.metrics.pluginCalls.cell({ plugin: this.plugin, hook, verdict });
      this.calls.set(key, cell);
    }
    cell.value += 1;
    let time = this.times.get(hook);
    if (time === undefined) {
      time = this.metrics.pluginTimes.cell({ plugin: this.plugin, hook });
      this.times.set(hook, time);
    }
    time.observe(ms / 1000);
  }

  found(label: string, count: number): void {
    let cell = this.findings.get(label);
    if (cell === undefined) {
      cell = this.metrics.pluginFindings.cell({ plugin: this.plugin, label });
      if (this.findings.size < 1_000) this.findings.set(label, cell);
    }
    cell.value += count;
  }
}

export class Metrics {
  readonly registry = new Registry();
  readonly pluginCalls: Count;
  readonly pluginFindings: Count;
  readonly pluginTimes: Histogram;
  readonly openRequests: Cell;
  readonly openStreams: Cell;
  readonly resumableStreams: Cell;
  readonly resumes: Count;
  readonly reloads: Count;
  readonly upstreamErrors: Count;
  readonly retries: Count;
  readonly failovers: Count;
  readonly hedges: Count;
  readonly cooldowns: Count;
  readonly conditionFaults: Count;
  readonly rescues: Count;
  private readonly requests: Count;
  private readonly durations: Histogram;
  private readonly costs: Count;
  private readonly model: Record<'tokens' | 'duration' | 'firstToken' | 'perToken', Histogram>;
  private readonly modelSeries = new Map<string, ModelSeries>();
  private readonly requestSeries = new Map<string, RequestSeries>();

  constructor(names: MetricNames, version: string) {
    const { registry } = this;
    collectDefaultMetrics({ register: registry });
    const count = (type: 'counter' | 'gauge', name: string, help: string) => new Count(registry, type, name, help);
    count('gauge', 'wardgate_build_info', 'Version of the gateway.').cell({ version }).value = 1;
    this.openRequests = count('gauge', 'wardgate_open_requests', 'Requests that are being answered.').cell();
    this.openStreams = count('gauge', 'wardgate_open_streams', 'Streams that are open.').cell();
    this.resumableStreams = count(
      'gauge',
      'wardgate_resumable_streams',
      'Streamed answers that are kept for those who lose their connection.',
    ).cell();
    this.resumes = count('counter', 'wardgate_resumes_total', 'Requests for the rest of an answer, by outcome.');
    this.reloads = count('counter', 'wardgate_config_reloads_total', 'Reloads of the config, by result.');
    this.upstreamErrors = count(
      'counter',
      'wardgate_upstream_errors_total',
      'Attempts at a provider that failed, by reason.',
    );
    this.retries = count(
      'counter',
      'wardgate_upstream_retries_total',
      'Tries at a target that the same request had asked before.',
    );
    this.failovers = count(
      'counter',
      'wardgate_failovers_total',
      'Requests that moved on to another target, by reason.',
    );
    this.hedges = count(
      'counter',
      'wardgate_hedges_total',
      'Second requests beside slow ones, by what became of them.',
    );
    this.cooldowns = count('counter', 'wardgate_target_cooldowns_total', 'Times a target wanted to be left alone.');
    this.conditionFaults = count(
      'counter',
      'wardgate_target_condition_faults_total',
      'Conditions of targets (when) that could not be evaluated.',
    );
    this.rescues = count(
      'counter',
      'wardgate_rescues_total',
      'Streams that broke in the middle, by what became of them.',
    );
    this.pluginCalls = count('counter', 'wardgate_plugin_calls_total', 'Plugin calls, by hook and verdict.');
    this.pluginFindings = count('counter', 'wardgate_plugin_findings_total', 'What guards found, by label.');
    this.pluginTimes = new Histogram(registry, BOUNDS.plugin, [
      plain('wardgate_plugin_duration_seconds', 'Time of a plugin call.'),
    ]);
    const isReference = names.includes('agentgateway');
    this.requests = count(
      'counter',
      isReference ? 'agentgateway_requests_total' : 'wardgate_requests_total',
      'Requests, by route, model and status.',
    );
    this.durations = new Histogram(registry, BOUNDS.request, [
      plain(
        isReference ? 'agentgateway_request_duration_seconds' : 'wardgate_request_duration_seconds',
        'Time from the head of a request to the end of its answer.',
      ),
    ]);
    this.costs = count(
      'counter',
      isReference ? 'agentgateway_gen_ai_client_cost_usd_total' : 'wardgate_cost_usd_total',
      'Cost by the price table, in USD.',
    );
    this.model = modelHistograms(registry, names);
  }

  /** Has the state of each target written out, as it is when it is asked for. */
  watchTargets(states: () => Observation[]): void {
    const help = 'Targets: 0 healthy, 1 degraded, 2 recovering, 3 failed (not asked).';
    observe(this.registry, 'wardgate_target_state', help, states);
  }

  /** The series of a model's answers. The values of all labels but the answer's model come from the config. */
  forModel(named: {
    route: string;
    provider: string;
    requestModel: string;
    responseModel: string;
    /** Who asked, as far as the config wants to know. */
    people: Labels;
  }): ModelSeries {
    const { route, provider, requestModel, responseModel, people } = named;
    const key = `${route}\u0000${provider}\u0000${requestModel}\u0000${responseModel}${keyOf(people)}`;
    const known = this.modelSeries.get(key);
    if (known) return known;
    const labels = { operation: 'chat', provider, requestModel, responseModel, route };
    const series: ModelSeries = {
      inputTokens: this.model.tokens.cell({ ...labels, tokenType: 'input', ...people }),
      outputTokens: this.model.tokens.cell({ ...labels, tokenType: 'output', ...people }),
      duration: this.model.duration.cell(labels),
      firstToken: this.model.firstToken.cell(labels),
      perToken: this.model.perToken.cell(labels),
      cost: this.costs.cell({ gen_ai_system: provider, gen_ai_request_model: requestModel, route, ...people }),
    };
    if (this.modelSeries.size < 10_000) this.modelSeries.set(key, series);
    return series;
  }

  forRequest(labels: {
    route: string;
    method: string;
    status: number;
    reason: string;
    provider: string;
    model: string;
    people: Labels;
  }): RequestSeries {
    const { route, method, status, reason, provider, model, people } = labels;
    const key = `${route}\u0000${method}\u0000${status}\u0000${reason}\u0000${provider}\u0000${model}${keyOf(people)}`;
    const known = this.requestSeries.get(key);
    if (known) return known;
    const named = {
      route,
      method,
      status: String(status),
      reason,
      protocol: 'llm',
      gen_ai_system: provider,
      gen_ai_request_model: model,
    };
    // People are told apart by the counter alone: a histogram has 17 lines for each.
    const series = { requests: this.requests.cell({ ...named, ...people }), duration: this.durations.cell(named) };
    if (this.requestSeries.size < 10_000) this.requestSeries.set(key, series);
    return series;
  }

  /** Adds what one request used to the series of its model. Times in milliseconds. */
  settle(
    series: ModelSeries,
    outcome: { usage?: Usage; durationMs: number; firstTokenMs?: number; costUsd?: number },
  ): void {
    const { usage, durationMs, firstTokenMs, costUsd } = outcome;
    series.duration.observe(durationMs / 1000);
    if (costUsd !== undefined) series.cost.value += costUsd;
    if (usage !== undefined) {
      series.inputTokens.observe(usage.inputTokens);
      series.outputTokens.observe(usage.outputTokens);
    }
    if (firstTokenMs === undefined) return;
    series.firstToken.observe(firstTokenMs / 1000);
    const tokens = usage?.outputTokens ?? 0;
    if (tokens > 1) series.perToken.observe((durationMs - firstTokenMs) / 1000 / (tokens - 1));
  }
}

function keyOf(people: Labels): string {
  let key = '';
  for (const name in people) key += `\u0000${name}\u0000${people[name]}`;
  return key;
}

function plain(name: string, help: string): HistogramName {
  return { name, help, labels: (labels) => labels };
}

function modelHistograms(registry: Registry, names: MetricNames): Metrics['model'] {
  const make = (bounds: number[], otel: string, reference: string, help: string) =>
    new Histogram(registry, bounds, [
      ...(names.includes('otel') ? [{ name: otel, help, labels: otelLabels }] : []),
      ...(names.includes('agentgateway') ? [{ name: reference, help, labels: referenceLabels }] : []),
    ]);
  return {
    tokens: make(
      BOUNDS.tokens,
      'gen_ai_client_token_usage',
      'agentgateway_gen_ai_client_token_usage',
      'Tokens of a request, by type.',
    ),
    duration: make(
      BOUNDS.duration,
      'gen_ai_server_request_duration_seconds',
      'agentgateway_gen_ai_server_request_duration',
      'Time of a model’s answer, in seconds.',
    ),
    firstToken: make(
      BOUNDS.firstToken,
      'gen_ai_server_time_to_first_token_seconds',
      'agentgateway_gen_ai_server_time_to_first_token',
      'Time to the first token, in seconds.',
    ),
    perToken: make(
      BOUNDS.perToken,
      'gen_ai_server_time_per_output_token_seconds',
      'agentgateway_gen_ai_server_time_per_output_token',
      'Time per token after the first, in seconds.',
    ),
  };
}

function otelLabels({ operation, provider, requestModel, responseModel, route, tokenType, ...people }: Labels): Labels {
  return {
    gen_ai_operation_name: operation!,
    gen_ai_provider_name: provider!,
    gen_ai_request_model: requestModel!,
    gen_ai_response_model: responseModel!,
    wardgate_route: route!,
    ...(tokenType !== undefined && { gen_ai_token_type: tokenType }),
    ...people,
  };
}

function referenceLabels({
  operation,
  provider,
  requestModel,
  responseModel,
  route,
  tokenType,
  ...people
}: Labels): Labels {
  return {
    gen_ai_operation_name: operation!,
    gen_ai_system: provider!,
    gen_ai_request_model: requestModel!,
    gen_ai_response_model: responseModel!,
    route: route!,
    ...(tokenType !== undefined && { gen_ai_token_type: tokenType }),
    ...people,
  };
}
