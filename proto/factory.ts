/** Finds the plugin in a module, for `local:./file.ts` and for `serve.ts` alike. */
import type { PluginFactory } from './contract.ts';

/**
 * The default export of a plugin's module, or its only export that is a {@link PluginFactory}.
 *
 * @param from how messages call the module
 * @throws Error when there is none, or more than one and no default
 */
export function factoryIn(module: object, from: string): PluginFactory {
  const exported = module as Record<string, unknown>;
  if (isFactory(exported.default)) return exported.default;
  const found = Object.values(exported).filter(isFactory);
  if (found.length === 1) return found[0]!;
  const count = found.length === 0 ? 'no plugin' : 'more than one plugin and no default';
  throw new Error(`${from} exports ${count}: export one object with a \`name\` and a \`create(config)\``);
}

function isFactory(value: unknown): value is PluginFactory {
  if (typeof value !== 'object' || value === null) return false;
  const { name, create } = value as Partial<PluginFactory>;
  return typeof name === 'string' && typeof create === 'function';
}
