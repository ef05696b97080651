/** usage-log: one line of JSON per request: who, what, how much, how long. Never what was said. */
import { z } from 'zod';
import {
  CONTRACT_VERSION,
  type Description,
  type ObserveInput,
  type Plugin,
  type PluginFactory,
} from '../../proto/contract.ts';
import { CONFIG, type Config, readConfig } from './config.ts';
import { lineOf } from './line.ts';
import { Sink } from './sink.ts';

const NAME = 'usage-log';

/** Makes the plugin. @throws ConfigProblem when the config is not its kind or its file cannot be opened */
export const usageLog: PluginFactory = {
  name: NAME,
  create: (config) => new UsageLog(readConfig(config)),
};

class UsageLog implements Plugin {
  readonly #config: Config;
  readonly #sink: Sink;

  constructor(config: Config) {
    this.#config = config;
    this.#sink = new Sink(config);
  }

  describe(): Description {
    return {
      contract: CONTRACT_VERSION,
      name: NAME,
      version: '0.1.0',
      hooks: ['observe'],
      rewrites: false,
      configSchema: z.toJSONSchema(CONFIG, { io: 'input' }),
    };
  }

  observe(input: ObserveInput): undefined {
    const { identity, trace } = this.#config;
    this.#sink.write(lineOf(input, { identity, trace, dropped: this.#sink.dropped }));
  }

  close(): Promise<void> {
    return this.#sink.close();
  }
}
