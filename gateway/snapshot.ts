/**
 * The config, compiled: routes with their hooks, models with their targets. Immutable; a reload makes a new one beside
 * it, and requests in flight finish on theirs.
 */
import { ConfigProblem } from '../proto/contract.ts';
import { ConfigError, type LoadedConfig } from './config/load.ts';
import type { Config, CorsConfig, PluginConfig, RouteConfig } from './config/schema.ts';
import { connect } from './connect/connect.ts';
import { type Connection, type ConnectLog, EndpointProblem, type PluginSources } from './connect/connection.ts';
import { compileHooks, type RouteHooks } from './hooks.ts';
import { answers, type Mount, mount, redescribe } from './mount.ts';
import type { Passthrough } from './passthrough.ts';
import type { Provider } from './providers/provider.ts';
import { makeProvider } from './providers/registry.ts';
import { policyOf, type ResumePolicy } from './resume/policy.ts';
import type { CompiledModel } from './routing/router.ts';
import type { Routing } from './routing/routing.ts';
import { type Metrics, PluginMetrics } from './telemetry/metrics.ts';

/** What clients may ask for. */
export type Model = CompiledModel;

export interface Route {
  prefix: string;
  config: RouteConfig;
  cors: CorsConfig | undefined;
  /** What is asked here, in order. */
  mounts: Mount[];
  hooks: RouteHooks;
  /** How streamed answers are kept for those who lose their connection; undefined: they are not. */
  resume: ResumePolicy | undefined;
  /** Added to what goes upstream; names and values alternate. */
  upstreamHeaders: string[];
  /** Names of headers in lower case, and the field of the identity that each tells the provider. */
  identityHeaders: [string, string][];
  /** Where the rest of a vendor's API goes; undefined: nowhere. */
  passthrough: Passthrough | undefined;
  /** The model that serves a name here; undefined when there is none, or not on this route. */
  findModel(name: string): Model | undefined;
  /** What `GET /v1/models` lists. */
  models: Model[];
}

/** Everything that a request looks at. */
export class Snapshot {
  readonly config: Config;
  readonly mounts: Mount[];
  private readonly routes: Route[];
  /** Paths that plugins serve themselves. */
  private endpoints: ReadonlyMap<string, Mount> = new Map();
  private readonly providers: Map<string, Provider>;
  private users = 0;
  private onIdle: (() => void) | undefined;
  /** Each ends what a connection tells this snapshot. */
  private readonly listening: (() => void)[];

  constructor(config: Config, mounts: Mount[], routing: Routing) {
    this.config = config;
    this.mounts = mounts;
    this.providers = new Map(
      Object.entries(config.providers).map(([name, provider]) => [name, makeProvider(name, provider)]),
    );
    this.routes = compileRoutes(config, { providers: this.providers, mounts, routing });
    this.listening = mounts.map((one) => one.connection.onDescription(() => this.described(one)));
    // It may have come while the other plugins were being reached.
    for (const one of mounts) redescribe(one);
    this.findEndpoints();
  }

  /** Lets go of the connections: those that a newer snapshot has kept would hold on to this one. */
  retire(): void {
    for (const stop of this.listening) stop();
  }

  /** What a remote plugin answers is known when it has been reached; until then it is asked everything. */
  private described(mounted: Mount): void {
    redescribe(mounted);
    for (const route of this.routes) {
      if (route.mounts.includes(mounted)) route.hooks = compileHooks(route.mounts);
    }
    this.findEndpoints();
  }

  /** Of two plugins with one path the first counts; one in shadow is never obeyed, so it serves none. */
  private findEndpoints(): void {
    const found = new Map<string, Mount>();
    for (const mounted of this.mounts) {
      if (mounted.policy.shadow || !answers(mounted, 'endpoint')) continue;
      for (const path of mounted.connection.description?.endpoints ?? []) {
        if (!found.has(path)) found.set(path, mounted);
      }
    }
    this.endpoints = found;
  }

  /** The plugin that serves a path itself. */
  endpoint(path: string): Mount | undefined {
    return this.endpoints.get(path);
  }

  /** The route with the longest prefix of a path. */
  route(path: string): Route | undefined {
    for (const route of this.routes) {
      const { prefix } = route;
      if (prefix === '/' || path === prefix || (path.startsWith(prefix) && path.charCodeAt(prefix.length) === 0x2f))
        return route;
    }
    return undefined;
  }

  /** The vendor behind a provider's name, as telemetry names it. */
  telemetryName(provider: string): string {
    return this.providers.get(provider)?.telemetryName ?? '';
  }

  /** A request begins to use this snapshot. */
  enter(): void {
    this.users += 1;
  }

  /** A request has ended. */
  leave(): void {
    this.users -= 1;
    if (this.users === 0) this.onIdle?.();
  }

  /** Calls back when no request uses it any more; at once when none does. */
  whenIdle(callback: () => void): void {
    if (this.users === 0) callback();
    else this.onIdle = callback;
  }
}

interface Parts {
  providers: Map<string, Provider>;
  mounts: Mount[];
  routing: Routing;
}

function compileRoutes(config: Config, { providers, mounts, routing }: Parts): Route[] {
  const table = new ModelTable(routing.compile(config.models, providers));
  return Object.entries(config.routes)
    .map(([prefix, route]) => ({
      ...compileRoute(prefix, route, table, mounts),
      passthrough: passthroughOf(route, providers),
    }))
    .sort((a, b) => b.prefix.length - a.prefix.length);
}

function compileRoute(
  prefix: string,
  config: RouteConfig,
  table: ModelTable,
  mounts: Mount[],
): Omit<Route, 'passthrough'> {
  const mounted = config.plugins.map((name) => mounts.find((candidate) => candidate.name === name)!);
  const allowed = config.models === undefined ? undefined : new Set(config.models);
  return {
    prefix,
    config,
    cors: corsOf(config),
    mounts: mounted,
    hooks: compileHooks(mounted),
    resume: policyOf(config),
    upstreamHeaders: Object.entries(config.upstreamHeaders ?? {}).flatMap(([name, value]) => [
      name.toLowerCase(),
      value,
    ]),
    identityHeaders: Object.entries(config.identityHeaders ?? {}).map(([name, field]) => [name.toLowerCase(), field]),
    findModel(name) {
      const model = table.find(name);
      return model === undefined || allowed === undefined || allowed.has(model.id) ? model : undefined;
    },
    models: listedOf(config, table, allowed),
  };
}

function passthroughOf({ passthrough }: RouteConfig, providers: Map<string, Provider>): Passthrough | undefined {
  if (passthrough === undefined) return undefined;
  const { provider, unguarded } =
    typeof passthrough === 'string' ? { provider: passthrough, unguarded: false } : passthrough;
  return { provider: providers.get(provider)!, unguarded };
}

/** A route that fixes its model has no other to choose from, whatever a chat's picker would make of the rest. */
function listedOf({ model: name }: RouteConfig, table: ModelTable, allowed: Set<string> | undefined): Model[] {
  if (name === undefined) return table.listed.filter(({ id }) => allowed === undefined || allowed.has(id));
  const fixed = table.find(name);
  return fixed === undefined ? [] : [{ ...fixed, id: name }];
}

function corsOf({ cors }: RouteConfig): CorsConfig | undefined {
  if (cors === false) return undefined;
  return cors === true ? { origins: ['*'], headers: ['*'], maxAge: 600_000 } : cors;
}

/** Models by name; a name may have one `*` at its end. The longest beginning wins. */
class ModelTable {
  readonly listed: Model[] = [];
  private readonly exact = new Map<string, Model>();
  private readonly patterns: { start: string; model: Model }[] = [];

  constructor(models: Model[]) {
    for (const model of models) this.add(model);
    this.patterns.sort((a, b) => b.start.length - a.start.length);
  }

  find(name: string): Model | undefined {
    return this.exact.get(name) ?? this.patterns.find(({ start }) => name.startsWith(start))?.model;
  }

  private add(model: Model): void {
    if (model.id.endsWith('*')) this.patterns.push({ start: model.id.slice(0, -1), model });
    else {
      this.exact.set(model.id, model);
      this.listed.push(model);
    }
  }
}

/** Connections by what they were made from, so that a reload keeps what did not change, a limiter's counts included. */
export class Connections {
  private readonly open = new Map<string, Connection>();
  private readonly factories: PluginSources;
  private readonly log: ConnectLog;

  constructor(factories: PluginSources, log: ConnectLog) {
    this.factories = factories;
    this.log = log;
  }

  /** Compiles a config. Throws a ConfigError when a plugin does not take its own. */
  async snapshot(loaded: LoadedConfig, metrics: Metrics, routing: Routing): Promise<Snapshot> {
    const entries = Object.entries(loaded.config.plugins);
    // Side by side: each plugin that is down takes up to a second to be known as such.
    const made = await Promise.allSettled(
      entries.map(([name, policy]) => this.connection(name, policy, loaded.baseDir)),
    );
    const mounts: Mount[] = [];
    const problems: string[] = [];
    entries.forEach(([name, policy], i) => {
      const result = made[i]!;
      if (result.status === 'rejected') problems.push(...problemsOf(result.reason, name, loaded));
      else mounts.push(mount(name, result.value, policy, new PluginMetrics(metrics, name)));
    });
    if (problems.length > 0) throw new ConfigError(loaded.file, problems);
    return new Snapshot(loaded.config, mounts, routing);
  }

  /** Closes what no snapshot in `kept` mounts. */
  async closeUnused(kept: Snapshot[]): Promise<void> {
    const used = new Set(kept.flatMap((snapshot) => snapshot.mounts.map((mounted) => mounted.connection)));
    for (const [key, connection] of this.open) {
      if (used.has(connection)) continue;
      this.open.delete(key);
      await connection.close();
    }
  }

  private async connection(name: string, policy: PluginConfig, baseDir: string): Promise<Connection> {
    const { at, config, headers, forwardHeaders, window, connections, hooks, tls, credentials } = policy;
    const options = {
      connections: at.startsWith('grpc') ? connections : undefined,
      hooks,
      tls,
      headers: credentials,
      forwardHeaders,
      windowChars: window.size,
      overlapChars: window.overlap,
      shownHeaders: at.startsWith('rls') ? [...headers, ...forwardHeaders.map(({ name }) => name)] : undefined,
    };
    const key = JSON.stringify([name, at, config, options, baseDir]);
    const known = this.open.get(key);
    if (known) return known;
    const made = await connect({ name, at, config, baseDir, options, log: this.log }, this.factories);
    this.open.set(key, made);
    return made;
  }
}

function problemsOf(error: unknown, name: string, loaded: LoadedConfig): string[] {
  if (error instanceof ConfigProblem) {
    return error.problems.map(
      ({ path, message }) => `${loaded.place(['plugins', name, 'config', ...path])}: ${message}`,
    );
  }
  if (error instanceof EndpointProblem) return [`${loaded.place(['plugins', name, 'at'])}: ${error.message}`];
  throw error;
}
