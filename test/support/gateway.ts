/**
 * A gateway in the test's own process, from a config written in the test, on a free port of 127.0.0.1.
 *
 *     await using upstream = await startScriptedUpstream();
 *     await using gateway = await startGateway(configFor(upstream.url, { plugins: { pii: { at: 'local:pii-guard' } } }));
 *     const response = await send(`${gateway.url}/v1/chat/completions`, { body });
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { stringify } from 'yaml';
import type { PluginSources } from '../../gateway/connect/connection.ts';
import type { Gateway } from '../../gateway/gateway.ts';
import { type RunOptions, run } from '../../gateway/run.ts';
import { apiKeyAuth } from '../../plugins/api-key-auth/plugin.ts';
import { celAuthz } from '../../plugins/cel-authz/plugin.ts';
import { localLimit } from '../../plugins/local-limit/plugin.ts';
import { oidcAuth } from '../../plugins/oidc-auth/plugin.ts';
import { opaAuthz } from '../../plugins/opa-authz/plugin.ts';
import { piiGuard } from '../../plugins/pii-guard/plugin.ts';
import { usageLog } from '../../plugins/usage-log/plugin.ts';
import { HOOKS, type Hook, type Plugin, type PluginFactory } from '../../proto/contract.ts';

/** Plugins whose libraries take long to load. */
const LOADED_WHEN_MOUNTED: PluginSources = {
  idempotency: async () => (await import('../../plugins/idempotency/plugin.ts')).idempotency,
  'openfga-authz': async () => (await import('../../plugins/openfga-authz/plugin.ts')).openfgaAuthz,
  'rate-limit': async () => (await import('../../plugins/rate-limit/plugin.ts')).rateLimit,
};

/** A config as an object, or as the YAML that would stand in the file. */
export type ConfigSource = Record<string, unknown> | string;

export interface StartOptions {
  /** Plugins for `local:NAME` besides the gateway's own. */
  factories?: PluginFactory[];
  /** For `${NAME}` in the config; empty by default. */
  environment?: Record<string, string | undefined>;
  /** Opens the second port, on a free one; off by default. */
  metrics?: boolean;
  /** Collects what is logged at this level and above into `logged`; silent by default. */
  log?: 'debug' | 'info' | 'warn' | 'error';
  /** Opens what replicas share at the config's `redis`; they share nothing by default. */
  openMarks?: RunOptions['openMarks'];
  openStreams?: RunOptions['openStreams'];
}

export interface TestGateway extends AsyncDisposable {
  /** Such as `http://127.0.0.1:40123`, without a path. */
  readonly url: string;
  readonly metricsUrl: string | undefined;
  /** The parsed lines of the log. */
  readonly logged: Record<string, unknown>[];
  /** Every byte of the log, to look for what must not be in it. */
  readonly logText: string;
  /** The running gateway itself, for what cannot be seen from outside. */
  readonly gateway: Gateway;
  /** The config's file. */
  readonly file: string;
  /** Puts a new config in the file and has it read; false when it was refused. Without one the file is read again. */
  reload(config?: ConfigSource): Promise<boolean>;
  stop(): Promise<void>;
}

/** Starts a gateway. Objects get `drain: 10ms`, so that an open stream does not hold up the end of a test. */
export async function startGateway(config: ConfigSource, options: StartOptions = {}): Promise<TestGateway> {
  const folder = await mkdtemp(join(tmpdir(), 'wardgate-test-'));
  const file = join(folder, 'wardgate.yaml');
  const lines: string[] = [];
  const log = pino({ level: options.log ?? 'silent', base: null }, { write: (line: string) => void lines.push(line) });
  const own = [apiKeyAuth, celAuthz, localLimit, oidcAuth, opaAuthz, piiGuard, usageLog, ...(options.factories ?? [])];
  await writeFile(file, yamlOf(config));
  const running = await run({
    file,
    environment: options.environment ?? {},
    factories: { ...LOADED_WHEN_MOUNTED, ...Object.fromEntries(own.map((factory) => [factory.name, factory])) },
    log,
    listen: '127.0.0.1:0',
    metrics: options.metrics ? '127.0.0.1:0' : false,
    watch: false,
    openMarks: options.openMarks,
    openStreams: options.openStreams,
  }).catch(async (error: unknown) => {
    await rm(folder, { recursive: true, force: true });
    throw error;
  });
  let stopped: Promise<void> | undefined;
  const stop = () => {
    stopped ??= running.stop().then(() => rm(folder, { recursive: true, force: true }));
    return stopped;
  };
  return {
    url: running.url,
    metricsUrl: running.metricsUrl,
    gateway: running.gateway,
    file,
    get logged() {
      return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    },
    get logText() {
      return lines.join('');
    },
    async reload(next) {
      if (next !== undefined) await writeFile(file, yamlOf(next));
      return running.reload();
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function yamlOf(config: ConfigSource): string {
  return typeof config === 'string' ? config : stringify({ drain: '10ms', ...config });
}

/** The parts of a config that `configFor` leaves to the test; what is not named here goes in as it is. */
export interface ConfigParts {
  /** Mounted on the one route in this order. */
  plugins?: Record<string, Record<string, unknown>>;
  /** More settings of the provider. */
  provider?: Record<string, unknown>;
  /** More settings of the route. */
  route?: Record<string, unknown>;
  [setting: string]: unknown;
}

/** A config with one provider, `up`, that serves every model, and one route, `/`, with all the plugins. */
export function configFor(upstreamUrl: string, parts: ConfigParts = {}): Record<string, unknown> {
  const { plugins = {}, provider, route, ...settings } = parts;
  return {
    providers: { up: { kind: 'openai-compatible', baseUrl: `${upstreamUrl}/v1`, key: 'upstream-key', ...provider } },
    models: { '*': 'up' },
    plugins,
    routes: { '/': { plugins: Object.keys(plugins), ...route } },
    ...settings,
  };
}

/** A plugin written in a test, for `at: local:NAME`. `describe` is made up from its methods unless it has one. */
export function testPlugin(name: string, plugin: Partial<Plugin>, rewrites = true): PluginFactory {
  const hooks = (Object.keys(HOOKS) as Hook[]).filter((hook) => plugin[hook] !== undefined);
  const describe = () => ({ contract: 1 as const, name, version: '1.0.0', hooks, rewrites });
  return { name, create: () => ({ describe, ...plugin }) };
}
