/** A gateway with one of the example configs, in front of a simulated model. */
import { readFileSync } from 'node:fs';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { type StartOptions, startGateway, type TestGateway } from '../support/gateway.ts';

export interface Example extends AsyncDisposable {
  gateway: TestGateway;
  simulator: Simulator;
}

/** Starts a simulated model and a gateway from the text of a config that finds the model at `$UPSTREAM`. */
export async function startExample(
  file: string,
  { environment, ...options }: StartOptions = {},
  edit: (text: string) => string = (text) => text,
): Promise<Example> {
  const simulator = await startSimulator({ tokenDelayMs: 0 });
  const upstream = `${simulator.url}/v1`;
  const config = edit(readFileSync(file, 'utf8'));
  const gateway = await startGateway(config, {
    log: 'info',
    metrics: true,
    environment: { UPSTREAM: upstream, WARDGATE_SIMULATOR_URL: upstream, ...environment },
    ...options,
  });
  return {
    gateway,
    simulator,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await simulator.close();
    },
  };
}

/** A whole answer as OpenAI's clients read it. */
export interface ChatCompletion {
  id: string;
  object: string;
  created: number;
  model: string;
  choices: { index: number; finish_reason: string; message: { role: string; content: string } }[];
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
}
