/** The simulated model as a program: `node simulator/main.ts --help`. */
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { type DirectivesSource, readDirectives } from './behaviour.ts';
import { type SimulatorOptions, startSimulator } from './server.ts';

const GRACE_MS = 5000;
const HELP = `Usage: node simulator/main.ts [options]

A simulated model that says back what it was sent. It speaks OpenAI's Chat Completions, Responses and Embeddings (at
Azure's paths too), Anthropic's Messages, Gemini (at Vertex' paths too), Bedrock's Converse and Cohere's Chat.

  --host <address>     where to listen (SIMULATOR_HOST, default 127.0.0.1)
  --port <number>      port to listen on, 0 for any free one (SIMULATOR_PORT, default 9100)
  --token-delay <ms>   time between two tokens of a stream (default 15)
  --latency-ms <ms>    time before any answer (default 0)
  --fail-every <n>     every n-th request for a model fails with 503
  --faults <json>      what each model does, by name, * for all (SIMULATOR_FAULTS), such as
                       '{"gpt-5":"status=429;retry-after=60","*":"latency=20"}'
  --require-key        OpenAI's paths want a key as well; the other vendors' always do
  --wrong-keys <list>  keys that are refused, separated by commas (SIMULATOR_WRONG_KEYS)
  --help               show this text

SIMULATOR_AWS_SECRETS='{"AKIA…":"secret"}' has AWS signatures verified and not only looked at.

What a model does is said in directives, joined by semicolons: for the process as above, behind a tilde in the model's
name ("model": "gpt-5~error-after=3"), or in the header x-simulate. The later of these wins.

  latency, first-token-delay, token-delay, keepalives    in milliseconds
  status, code, retry-after, limit-reset                 the vendor's error, waits in seconds
  hang, reset                                            no answer; the connection reset in place of one
  reset-after, error-after, stall-after, truncate-after, end-after, garbage-after
                                                         what becomes of a stream after so many tokens
  fail-every, fail-first                                 which requests the faults strike; status 503 without another
  prefill                                                continue, reject or ignore
`;

try {
  await main();
} catch (error) {
  console.error(`simulated model: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      host: { type: 'string', default: process.env.SIMULATOR_HOST || '127.0.0.1' },
      port: { type: 'string', default: process.env.SIMULATOR_PORT || '9100' },
      'token-delay': { type: 'string', default: '15' },
      'latency-ms': { type: 'string', default: '0' },
      'fail-every': { type: 'string' },
      faults: { type: 'string', default: process.env.SIMULATOR_FAULTS || '{}' },
      'require-key': { type: 'boolean', default: false },
      'wrong-keys': { type: 'string', default: process.env.SIMULATOR_WRONG_KEYS ?? '' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return void process.stdout.write(HELP);
  const options: SimulatorOptions = {
    host: values.host,
    port: wholeNumber('the port', values.port, 65_535),
    tokenDelayMs: wholeNumber('--token-delay', values['token-delay'], 60_000),
    models: modelsOf(values),
    requireKey: values['require-key'],
    wrongKeys: values['wrong-keys'].split(',').filter((key) => key !== ''),
    awsSecrets: objectOf('SIMULATOR_AWS_SECRETS', process.env.SIMULATOR_AWS_SECRETS || '{}', z.string()),
    log: (line) => console.log(`simulated: ${line}`),
  };
  const simulator = await startSimulator(options);
  console.log(`The simulated model listens on ${simulator.url} (answers are simulated: it says back what it is sent).`);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void simulator.close(GRACE_MS));
}

interface ModelFlags {
  faults: string;
  'latency-ms': string;
  'fail-every'?: string | undefined;
}

function modelsOf({
  faults,
  'latency-ms': latency,
  'fail-every': every,
}: ModelFlags): Record<string, DirectivesSource> {
  const named = objectOf('--faults', faults, z.union([z.string(), z.record(z.string(), z.unknown())]));
  const forAll = {
    ...readDirectives(named['*'] ?? ''),
    ...(latency === '0' ? {} : { latency: wholeNumber('--latency-ms', latency, 60_000) }),
    ...(every === undefined ? {} : { 'fail-every': wholeNumber('--fail-every', every, 1_000_000) }),
  };
  return { ...named, '*': forAll };
}

function objectOf<T>(name: string, text: string, value: z.ZodType<T>): Record<string, T> {
  const parsed = z.record(z.string(), value).safeParse(jsonOf(text));
  if (parsed.success) return parsed.data;
  throw new Error(`${name} must be a JSON object of texts by name, such as {"NAME":"text"}.`);
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function wholeNumber(name: string, text: string, most: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value <= most) return value;
  throw new Error(`${name} must be a whole number from 0 to ${most}, not '${text}'.`);
}
