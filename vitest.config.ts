import { configDefaults, defineConfig } from 'vitest/config';

/** `npm test` needs nothing but this folder; `npm run test:real` is for what wants real servers, such as Keycloak. */
export default defineConfig(({ mode }) => ({
  test: {
    include: [mode === 'real' ? 'test/real/**/*.test.ts' : 'test/**/*.test.ts'],
    exclude: [...configDefaults.exclude, ...(mode === 'real' ? [] : ['test/real/**', 'test/bench/**'])],
    environment: 'node',
    globalSetup: mode === 'real' ? ['test/real/servers.ts'] : [],
    watch: false,
    reporters: ['default'],
    testTimeout: mode === 'real' ? 60_000 : 15_000,
    hookTimeout: mode === 'real' ? 600_000 : 30_000,
    teardownTimeout: 10_000,
    fileParallelism: mode !== 'real',
    unstubEnvs: true,
    unstubGlobals: true,
  },
}));
