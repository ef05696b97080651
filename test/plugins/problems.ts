import { expect } from 'vitest';
import { ConfigProblem, type PluginFactory } from '../../proto/contract.ts';

/** What a plugin has against a config: messages by their place. */
export function problemsOf(factory: PluginFactory, config: unknown): Record<string, string> {
  try {
    void factory.create(config).close?.();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigProblem);
    return Object.fromEntries(
      (error as ConfigProblem).problems.map((problem) => [problem.path.join('.'), problem.message]),
    );
  }
  return {};
}
