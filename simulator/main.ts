/** The simulated model as a program: `node simulator/main.ts --help`. */
import { parseArgs } from 'node:util';
import { startSimulator } from './server.ts';

const GRACE_MS = 5000;
const HELP = `Usage: node simulator/main.ts [options]

A simulated model that speaks OpenAI's Chat Completions and says back what it was sent.

  --host <address>     where to listen (SIMULATOR_HOST, default 127.0.0.1)
  --port <number>      port to listen on, 0 for any free one (SIMULATOR_PORT, default 9100)
  --token-delay <ms>   time between two tokens of a stream (default 15)
  --help               show this text
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
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return void process.stdout.write(HELP);
  const port = wholeNumber('the port', values.port, 65_535);
  const tokenDelayMs = wholeNumber('--token-delay', values['token-delay'], 60_000);
  const simulator = await startSimulator({ host: values.host, port, tokenDelayMs, log: console.log });
  console.log(`The simulated model listens on ${simulator.url} (answers are simulated: it says back what it is sent).`);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void simulator.close(GRACE_MS));
}

function wholeNumber(name: string, text: string, most: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value <= most) return value;
  throw new Error(`${name} must be a whole number from 0 to ${most}, not '${text}'.`);
}
