/** A running gateway: started from a config, reloaded when it changes, stopped without cutting anybody off. */
import { watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { Server } from 'node:http';
import { type AddressInfo, isIPv6 } from 'node:net';
import { basename, dirname, resolve } from 'node:path';
import type { Logger } from 'pino';
import type { SharedMarks } from '../proto/marks.ts';
import type { StreamStore } from '../proto/store.ts';
import { ConfigError, type LoadedConfig, loadConfig } from './config/load.ts';
import type { PluginSources } from './connect/connection.ts';
import { Gateway } from './gateway.ts';
import { makeMetricsServer } from './metrics-server.ts';
import { Routing } from './routing/routing.ts';
import { makeServer } from './server.ts';
import { Connections, type Snapshot } from './snapshot.ts';
import { cutStreams, watchStreams } from './stream/relay.ts';
import { takeOver } from './take-over.ts';
import type { AccessLog } from './telemetry/log.ts';
import { Metrics } from './telemetry/metrics.ts';
import { Upstream } from './upstream.ts';

export const VERSION = '0.1.0';

export interface RunOptions {
  file: string;
  /** The file as it was read already, when it was. */
  loaded?: LoadedConfig;
  environment: Record<string, string | undefined>;
  /** Plugins that may run in process, by name. */
  factories: PluginSources;
  log: Logger;
  /** Takes one line a request; default: the log itself. */
  access?: AccessLog;
  /** Replace the config's own addresses; `metrics: false` switches the second port off. */
  listen?: string;
  metrics?: string | false;
  /** Opens the store of streams that another replica may go on with, at the config's `redis`. */
  openStreams?: (addresses: string[]) => Promise<StreamStore>;
  /** Opens what replicas share at the config's `redis`; default: they share nothing. */
  openMarks?: (addresses: string[]) => Promise<SharedMarks>;
  /** Reload when the file changes; default true. */
  watch?: boolean;
}

export interface RunningGateway {
  /** Where it answers, such as `http://127.0.0.1:3000`. */
  url: string;
  metricsUrl: string | undefined;
  gateway: Gateway;
  /** Reads the config again. Answers false, and changes nothing, when it cannot be used. */
  reload(): Promise<boolean>;
  /** Lets open answers finish, at most for the config's `drain`, then ends them with an error event. */
  stop(): Promise<void>;
}

/** Starts a gateway. Throws a ConfigError, or an Error that says what to do when an address is taken. */
export async function run(options: RunOptions): Promise<RunningGateway> {
  const { file, environment, factories, log } = options;
  const loaded = options.loaded ?? (await loadConfig(file, environment));
  const metrics = new Metrics(loaded.config.metricNames, VERSION);
  const connections = new Connections(factories, log);
  const addresses = [loaded.config.redis ?? []].flat();
  const marks = addresses.length > 0 ? await options.openMarks?.(addresses) : undefined;
  const routing = new Routing({ metrics, marks });
  const access = options.access ?? ((line: object) => log.info(line, 'request'));
  const gateway = new Gateway(
    await connections.snapshot(loaded, metrics, routing),
    new Upstream(),
    metrics,
    log,
    access,
  );
  const { openStreams } = options;
  if (addresses.length > 0 && openStreams) gateway.streams.openStore = () => openStreams(addresses);
  gateway.streams.takeOver = takeOver;
  const drain = { isOn: false };
  const { limits } = loaded.config;
  const app = makeServer(gateway, { maxHeaderSize: limits.headers, requestTimeout: limits.bodyTime }, () => drain.isOn);
  const stopWatching = watchStreams(() => gateway.snapshot.config.heartbeat);
  const reloader = new Reloader(options, { gateway, connections, routing }, loaded);
  const metricsServer = makeMetricsServer(gateway, () => drain.isOn);
  const metricsAddress = options.metrics ?? loaded.config.metrics;
  await app.ready();
  const server = app.server as Server;
  try {
    await listen(server, options.listen ?? loaded.config.listen);
    if (metricsAddress !== false) await listen(metricsServer, metricsAddress);
  } catch (error) {
    server.close();
    await gateway.upstream.close();
    marks?.close();
    throw error;
  }
  if (options.watch !== false) reloader.watch();
  return {
    url: urlOf(server),
    metricsUrl: metricsAddress === false ? undefined : urlOf(metricsServer),
    gateway,
    reload: () => reloader.reload(),
    async stop() {
      drain.isOn = true;
      reloader.stop();
      const { drain: drainMs } = gateway.snapshot.config;
      const cutting = setTimeout(cutStreams, drainMs);
      await stopServer(server, drainMs);
      // A stream without a client has no connection that would hold the server up.
      gateway.streams.letGo();
      await idle(gateway.snapshot);
      clearTimeout(cutting);
      stopWatching();
      await gateway.streams.close();
      metricsServer.close();
      metricsServer.closeAllConnections();
      await connections.closeUnused([]);
      await gateway.upstream.close();
      marks?.close();
    },
  };
}

async function stopServer(server: Server, drainMs: number): Promise<void> {
  const closed = new Promise<void>((done) => server.close(() => done()));
  // A kept-alive connection becomes idle when its answer ends, and would hold the stop until the client lets go of it.
  server.closeIdleConnections();
  const closing = setInterval(() => server.closeIdleConnections(), 100);
  const closingAll = setTimeout(() => server.closeAllConnections(), drainMs + 1_000);
  await closed;
  clearInterval(closing);
  clearTimeout(closingAll);
}

/** Waits until the last observers have been told, each within its deadline. */
function idle(snapshot: Snapshot): Promise<void> {
  return new Promise((done) => snapshot.whenIdle(done));
}

function listen(server: Server, address: string): Promise<void> {
  const at = address.lastIndexOf(':');
  const host = address.slice(0, at).replace(/^\[|\]$/g, '');
  const port = Number(address.slice(at + 1));
  return new Promise((done, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const why =
        error.code === 'EADDRINUSE'
          ? 'is taken by another program; stop that one, or choose another port'
          : `cannot be used (${error.code})`;
      reject(new Error(`The address ${address} ${why}.`, { cause: error }));
    });
    server.listen({ host, port, backlog: 4096 }, done);
  });
}

function urlOf(server: Server): string {
  const { address, port } = server.address() as AddressInfo;
  return `http://${isIPv6(address) ? `[${address}]` : address}:${port}`;
}

/** What outlives a config. */
interface Parts {
  gateway: Gateway;
  connections: Connections;
  routing: Routing;
}

/** Puts a new snapshot in the place of the old one, one reload at a time. */
class Reloader {
  private readonly options: RunOptions;
  private readonly gateway: Gateway;
  private readonly connections: Connections;
  private readonly routing: Routing;
  private loaded: LoadedConfig;
  /** Snapshots that requests still use. */
  private readonly old = new Set<Snapshot>();
  private running: Promise<boolean> = Promise.resolve(true);
  private watcher: { close(): void } | undefined;
  private text: string | undefined;

  constructor(options: RunOptions, parts: Parts, loaded: LoadedConfig) {
    this.options = options;
    this.gateway = parts.gateway;
    this.connections = parts.connections;
    this.routing = parts.routing;
    this.loaded = loaded;
  }

  reload(): Promise<boolean> {
    this.running = this.running.then(() => this.load());
    return this.running;
  }

  private async load(): Promise<boolean> {
    const { log, file, environment } = this.options;
    const { metrics } = this.gateway;
    try {
      const loaded = await loadConfig(file, environment);
      const snapshot = await this.connections.snapshot(loaded, metrics, this.routing);
      this.replace(snapshot);
      this.warnOfFixed(loaded);
      this.loaded = loaded;
      metrics.reloads.cell({ result: 'success' }).value += 1;
      log.info({ file }, 'config reloaded');
      return true;
    } catch (error) {
      metrics.reloads.cell({ result: 'failure' }).value += 1;
      const problems = error instanceof ConfigError ? error.problems : [String(error)];
      log.error({ file, problems }, 'config not reloaded: it goes on with the old one');
      // Plugins that were made before the problem was found.
      await this.connections.closeUnused([this.gateway.snapshot, ...this.old]);
      return false;
    }
  }

  private replace(snapshot: Snapshot): void {
    const before = this.gateway.snapshot;
    this.gateway.snapshot = snapshot;
    this.old.add(before);
    before.whenIdle(() => {
      this.old.delete(before);
      before.retire();
      void this.connections.closeUnused([this.gateway.snapshot, ...this.old]);
    });
  }

  private warnOfFixed(loaded: LoadedConfig): void {
    const before = this.loaded.config;
    const { listen, metrics, metricNames, limits, redis } = loaded.config;
    const fixed = [
      listen !== before.listen && 'listen',
      String(redis) !== String(before.redis) && 'redis',
      metrics !== before.metrics && 'metrics',
      String(metricNames) !== String(before.metricNames) && 'metricNames',
      limits.headers !== before.limits.headers && 'limits.headers',
      limits.bodyTime !== before.limits.bodyTime && 'limits.bodyTime',
    ].filter(Boolean);
    if (fixed.length > 0) this.options.log.warn({ keys: fixed }, 'these settings change with the next start');
  }

  /** Watches the folder, since editors and Kubernetes replace the file instead of writing into it. */
  watch(): void {
    const { file, log } = this.options;
    const path = resolve(file);
    let timer: NodeJS.Timeout | undefined;
    const look = async () => {
      const text = await readFile(path, 'utf8').catch(() => undefined);
      if (text === undefined || text === this.text) return;
      const isFirst = this.text === undefined;
      this.text = text;
      if (!isFirst) await this.reload();
    };
    void look();
    try {
      const watcher = watch(dirname(path), (_event, name) => {
        if (name !== null && name !== basename(path) && !name.startsWith('..')) return;
        clearTimeout(timer);
        timer = setTimeout(() => void look(), 50);
      });
      watcher.unref();
      watcher.on('error', (error) =>
        log.warn(
          { code: (error as NodeJS.ErrnoException).code },
          'the config file is no longer watched; send SIGHUP to reload',
        ),
      );
      this.watcher = watcher;
    } catch (error) {
      log.warn(
        { code: (error as NodeJS.ErrnoException).code },
        'the config file cannot be watched; send SIGHUP to reload',
      );
    }
  }

  stop(): void {
    this.watcher?.close();
  }
}
