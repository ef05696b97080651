/**
 * The caller's side of a plugin call, a process of its own: asks the plugin at `at` about 1 KB of text, 32 questions at
 * a time, by the same code as the gateway.
 */
import { connect } from '../../gateway/connect/connect.ts';
import type { SegmentsInput } from '../../proto/contract.ts';
import { allow } from './allow.ts';

export interface PluginCallJob {
  at: string;
  seconds: number;
}

export type FromPluginCalls = { at: 'begin' } | { at: 'end'; calls: number };

const AT_ONCE = 32;

const input: SegmentsInput = {
  request: { id: 'bench', method: 'POST', path: '/v1/chat/completions', route: '/', model: 'gpt-4o-mini' },
  segments: [
    { id: '0', role: 'user', channel: 'text', path: '/messages/0/content', text: 'plain words and '.repeat(64) },
  ],
  history: 'reject',
};

async function run({ at, seconds }: PluginCallJob): Promise<void> {
  const log = { info() {}, warn() {} };
  const endpoint = { name: 'allow', at, config: undefined, baseDir: '.', options: {}, log };
  const connection = await connect(endpoint, { allow });
  let calls = 0;
  const askFor = async (forMs: number) => {
    const until = performance.now() + forMs;
    const one = async () => {
      for (; performance.now() < until; calls++) await connection.ask('request', input);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, one));
  };
  await askFor(seconds * 500);
  calls = 0;
  process.send?.({ at: 'begin' } satisfies FromPluginCalls);
  await askFor(seconds * 1000);
  process.send?.({ at: 'end', calls } satisfies FromPluginCalls);
  await connection.close();
}

process.on('message', (job: PluginCallJob) => void run(job));
process.on('disconnect', () => process.exit());
