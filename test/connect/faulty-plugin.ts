/** A plugin that does what the prompt says, and nothing right. It also runs as a process of its own. */
import { type Plugin, type PluginFactory, PluginFault, type TextVerdict } from '../../proto/contract.ts';

const MISDEEDS: Record<string, () => unknown> = {
  throw: () => {
    throw new Error('the prompt was: throw, my password is hunter2');
  },
  'cannot judge': () => {
    throw new PluginFault('server_away', 'Start the server.');
  },
  reject: () => Promise.reject(new Error('later')),
  nothing: () => undefined,
  null: () => null,
  text: () => 'allow',
  'no verdict': () => ({}),
  'two verdicts': () => ({ allow: {}, reject: { code: 'a', message: 'b' } }),
  'allow that is true': () => ({ allow: true }),
  'a verdict of another hook': () => ({ release: { release: '', hold: '' } }),
  'a segment that was not given': () => ({ rewrite: { segments: [{ id: 'other', text: '' }] } }),
  'a header with a line break': () => ({ reject: { code: 'a', message: 'b', headers: { a: 'b\r\nc: d' } } }),
  'too much': () => ({ rewrite: { segments: [{ id: '0', text: 'x'.repeat(17 * 1024 * 1024) }] } }),
};

/** What it can be told to do. */
export const misdeeds = Object.keys(MISDEEDS);

let asked = 0;
let aborted = 0;
/** How many calls that it never answers have reached it, and how many of them were taken back. */
export const calls = () => ({ asked, aborted });

export const faulty: PluginFactory = {
  name: 'faulty',
  create: (): Plugin => ({
    describe: () => ({ contract: 1, name: 'faulty', version: '1', hooks: ['request', 'response'], rewrites: true }),
    request: ({ segments }, options) => {
      const word = segments[0]!.text;
      if (word === 'never') return never(options?.signal);
      if (word === 'until SIGTERM') return untilTermination();
      return (MISDEEDS[word]?.() ?? (MISDEEDS[word] ? undefined : { allow: {} })) as TextVerdict;
    },
    response: () => ({ allow: {} }),
  }),
};

function never(signal: AbortSignal | undefined): Promise<TextVerdict> {
  asked += 1;
  say();
  return new Promise((_resolve, reject) => {
    signal?.addEventListener('abort', () => {
      aborted += 1;
      reject(new Error('taken back'));
    });
  });
}

function untilTermination(): Promise<TextVerdict> {
  say();
  return new Promise((resolve) => {
    const verdict = { allow: { findings: [{ label: 'TERMINATED', count: 1 }] } };
    process.once('SIGTERM', () => setTimeout(resolve, 50, verdict));
  });
}

/** For who runs it as a process of its own. */
function say(): void {
  if (process.env.SAY_ASKED) process.stdout.write('asked\n');
}
