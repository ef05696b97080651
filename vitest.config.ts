import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // These want real servers or a quiet machine, and are run by name.
    exclude: ['test/real/**', 'test/bench/**'],
    environment: 'node',
    watch: false,
    reporters: ['default'],
    testTimeout: 15_000,
    hookTimeout: 30_000,
    teardownTimeout: 10_000,
    unstubEnvs: true,
    unstubGlobals: true,
  },
});
