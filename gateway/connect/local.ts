/** `local:NAME` and `local:./file.ts`: a plugin inside the gateway's own process. */
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { CallOptions, Description, Hook, Plugin, PluginFactory } from '../../proto/contract.ts';
import { PluginFault } from '../../proto/contract.ts';
import { factoryIn } from '../../proto/factory.ts';
import { type Connection, type Endpoint, EndpointProblem, type HookInput, type PluginSources } from './connection.ts';
import { descriptionProblem } from './description.ts';

/**
 * Makes the plugin. It is up from then on.
 *
 * @throws ConfigProblem when the plugin refuses its config, {@link EndpointProblem} when there is no such plugin
 */
export async function connectLocal(endpoint: Endpoint, factories: PluginSources): Promise<Connection> {
  const factory = await find(endpoint, factories);
  const plugin = factory.create(endpoint.config);
  const description = plugin.describe();
  const problem = descriptionProblem(description);
  if (problem) throw new EndpointProblem(`${endpoint.at} ${problem}`);
  return new LocalConnection(plugin, description);
}

async function find(endpoint: Endpoint, factories: PluginSources): Promise<PluginFactory> {
  const name = endpoint.at.slice('local:'.length);
  if (/^\.{0,2}\//.test(name)) return fromFile(resolve(endpoint.baseDir, name), endpoint.at);
  if (Object.hasOwn(factories, name)) {
    const source = factories[name]!;
    return typeof source === 'function' ? source() : source;
  }
  const known = Object.keys(factories).sort().join(', ') || 'none';
  throw new EndpointProblem(`there is no plugin \`${name}\` (there is: ${known}); a file is written local:./file.ts`);
}

async function fromFile(file: string, at: string): Promise<PluginFactory> {
  let module: object;
  try {
    module = await import(pathToFileURL(file).href);
  } catch (cause) {
    throw new EndpointProblem(`${at} cannot be loaded: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  try {
    return factoryIn(module, at);
  } catch (cause) {
    throw new EndpointProblem((cause as Error).message);
  }
}

class LocalConnection implements Connection {
  readonly state = 'up';
  readonly problem = undefined;
  readonly description: Description;
  private readonly plugin: Plugin;
  private closed = false;

  constructor(plugin: Plugin, description: Description) {
    this.plugin = plugin;
    this.description = description;
  }

  /** The hot path: no promise, no copy, no lookup beyond the method's own. */
  ask<H extends Hook>(hook: H, input: HookInput[H], options?: CallOptions): unknown {
    const { plugin } = this;
    if (plugin[hook] === undefined) throw new PluginFault('no_such_hook', `the plugin does not answer \`${hook}\``);
    return plugin[hook](input as never, options);
  }

  async metrics(): Promise<string> {
    return (await this.plugin.metrics?.()) ?? '';
  }

  /** A plugin in process never changes. */
  onDescription(): () => void {
    return () => {};
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.plugin.close?.();
  }
}
