/** `serve.ts` as a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

export interface Served {
  child: ChildProcess;
  grpcUrl: string;
  httpUrl: string;
  /** Resolves with the next line of its output that has this text in it. */
  line(text: string): Promise<string>;
  /** Resolves with the exit code, or the signal that ended it. */
  exited: Promise<number | string | null>;
}

/** Starts it, and waits until it serves. */
export async function serveProcess(plugin: string, ...more: string[]): Promise<Served> {
  const env = { ...process.env, SAY_ASKED: '1' };
  const ports = ['--grpc', '127.0.0.1:0', '--http', '127.0.0.1:0'];
  const child = spawn(process.execPath, ['plugins/serve.ts', plugin, ...ports, ...more], { cwd: ROOT, env });
  const exited = once(child, 'exit').then(([code, signal]) => (code ?? signal) as number | string | null);
  const lines = createInterface({ input: child.stdout });
  const line = (text: string) =>
    new Promise<string>((resolve, reject) => {
      lines.on('line', (read) => read.includes(text) && resolve(read));
      lines.once('close', () => reject(new Error(`it ended without saying ${text}`)));
    });
  const { grpc, http } = JSON.parse(await line('"serving"')) as { grpc: string; http: string };
  return { child, grpcUrl: grpc, httpUrl: http, line, exited };
}

/** Runs it to its end. */
export async function runProcess(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const child = spawn(process.execPath, ['plugins/serve.ts', ...args], { cwd: ROOT });
  let out = '';
  let err = '';
  child.stdout.on('data', (chunk) => (out += String(chunk)));
  child.stderr.on('data', (chunk) => (err += String(chunk)));
  const [code] = (await once(child, 'close')) as [number];
  return { code, out, err };
}
