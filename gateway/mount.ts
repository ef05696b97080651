/**
 * A plugin as the config mounts it: a connection, and the policy of asking it.
 */
import { type Action, DEFAULT_ACTIONS, type Hook } from '../proto/contract.ts';
import type { PluginConfig } from './config/schema.ts';
import type { Connection } from './connect/connection.ts';
import { compileGate } from './stream/gate.ts';
import type { PluginMetrics } from './telemetry/metrics.ts';

/** Which hooks a mount is asked at, as far as is known. */
export interface Mount {
  readonly name: string;
  readonly connection: Connection;
  readonly policy: PluginConfig;
  readonly metrics: PluginMetrics;
  /** Kept up to date with the plugin's description. */
  gate: RegExp | undefined;
}

/** Mounts a connection. */
export function mount(name: string, connection: Connection, policy: PluginConfig, metrics: PluginMetrics): Mount {
  return { name, connection, policy, metrics, gate: compileGate(connection.description?.gate) };
}

/** The plugin has said something else of itself, or something for the first time. */
export function redescribe(mounted: Mount): void {
  mounted.gate = compileGate(mounted.connection.description?.gate);
}

/**
 * Whether the mount is asked at a hook. A plugin that has not been reached yet might answer any: it is asked, and its
 * silence is a fault.
 */
export function answers({ connection, policy }: Mount, hook: Hook): boolean {
  const isWanted = policy.hooks === undefined || policy.hooks.includes(hook);
  const { description } = connection;
  if (description === undefined) return isWanted;
  return (isWanted && description.hooks.includes(hook)) || (hook === 'stream' && isWindowed({ connection, policy }));
}

/** Whether an authorizer is asked about an action: the mount's word first, then the plugin's. */
export function decides({ connection, policy }: Mount, action: Action): boolean {
  const { description } = connection;
  if (policy.actions === undefined && description === undefined) return true;
  return (policy.actions ?? description?.actions ?? DEFAULT_ACTIONS).includes(action);
}

/** How much of the body an authorizer is shown, in bytes. */
export function shownBody({ connection, policy }: Mount): number {
  return policy.body ?? connection.description?.body ?? 0;
}

/**
 * Whether streams reach this guard through its `response` hook, window by window: who guards whole answers guards
 * streamed ones too, or a client could dodge it by asking for a stream.
 */
export function isWindowed({ connection, policy }: Pick<Mount, 'connection' | 'policy'>): boolean {
  const { description } = connection;
  const has = (hook: Hook) =>
    description?.hooks.includes(hook) && (policy.hooks === undefined || policy.hooks.includes(hook));
  return has('response') === true && !has('stream');
}
