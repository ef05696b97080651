/** Picks the way to a plugin by the scheme of its `at`. Each way is loaded when it is first needed. */
import { type Connection, type Endpoint, EndpointProblem, type PluginSources } from './connection.ts';

type Way = (endpoint: Endpoint, factories: PluginSources) => Promise<Connection>;

const WAYS: Record<string, () => Promise<Way>> = {
  local: async () => (await import('./local.ts')).connectLocal,
  grpc: async () => (await import('./grpc.ts')).connectGrpc,
  grpcs: async () => (await import('./grpc.ts')).connectGrpc,
  http: async () => (await import('./http.ts')).connectHttp,
  https: async () => (await import('./http.ts')).connectHttp,
  webhook: async () => (await import('./webhook.ts')).connectWebhook,
  'ext-authz': async () => (await import('./ext-authz.ts')).connectExtAuthz,
  rls: async () => (await import('./rls.ts')).connectRls,
};

/** The schemes that `at` may have. */
export const SCHEMES: readonly string[] = Object.keys(WAYS);

/**
 * Connects to a plugin.
 *
 * A plugin elsewhere that is down, or refuses its config, is no error here: the connection says so by its `state` and
 * goes on trying. To know its description where that is possible, the first attempt is awaited for up to one second.
 *
 * @param factories the plugins that run in process, by name
 * @throws {@link EndpointProblem} when `at` makes no sense; ConfigProblem when a plugin in process refuses its config
 */
export async function connect(endpoint: Endpoint, factories: PluginSources): Promise<Connection> {
  const scheme = /^([a-z][a-z0-9-]*):/.exec(endpoint.at)?.[1] ?? '';
  const load = Object.hasOwn(WAYS, scheme) ? WAYS[scheme] : undefined;
  if (load === undefined) {
    throw new EndpointProblem(`\`at\` must begin with one of ${SCHEMES.map((one) => `${one}:`).join(', ')}`);
  }
  return (await load())(endpoint, factories);
}
