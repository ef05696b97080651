import type { PluginFactory } from '../../proto/contract.ts';
import { testPlugin } from '../support/gateway.ts';

/** Plugins that refuse every request, each at its hook: `nobody`, `forbidden` and `exhausted`. */
export const REFUSING: PluginFactory[] = [
  refuse('nobody', 'authenticate', { code: 'bad_key', message: 'This key is not known.' }),
  refuse('forbidden', 'authorize', { code: 'not_yours', message: 'You may not use this model.' }),
  refuse('exhausted', 'limit', { code: 'quota', message: 'Try again later.', headers: { 'retry-after': '7' } }),
];

function refuse(name: string, hook: 'authenticate' | 'authorize' | 'limit', reject: object): PluginFactory {
  return testPlugin(name, { [hook]: () => ({ reject }) });
}

/** The parts of a config with a bare route `/`, a route `/pii`, and one route for each plugin, by its name. */
export function routeForEach(factories: PluginFactory[]) {
  const plugins = Object.fromEntries(factories.map(({ name }) => [name, { at: `local:${name}` }]));
  return {
    plugins: { ...plugins, pii: { at: 'local:pii-guard', config: { rules: ['email'] } } },
    routes: {
      '/': {},
      '/pii': { plugins: ['pii'] },
      ...Object.fromEntries(factories.map(({ name }) => [`/${name}`, { plugins: [name] }])),
    },
  };
}
