/** A guard that looks at nothing: what is left of a call to it is the way there and back. */
import type { PluginFactory } from '../../proto/contract.ts';

export const allow: PluginFactory = {
  name: 'allow',
  create: () => ({
    describe: () => ({ contract: 1, name: 'allow', version: '1.0.0', hooks: ['request'], rewrites: false }),
    request: () => ({ allow: {} }),
  }),
};
