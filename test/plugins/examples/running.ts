/** The examples as a reader of their README runs them: processes, each with its own file and command. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../support/free-port.ts';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

export interface Example extends AsyncDisposable {
  /** Of the gateway. */
  url: string;
}

/** Starts a guard, if it is a process of its own, and a gateway with the example's config in front of a model. */
export async function startExample(
  config: string,
  modelUrl: string,
  guard?: (port: number) => [string, ...string[]],
): Promise<Example> {
  const children: ChildProcess[] = [];
  const port = await freePort();
  const env = { ...process.env, GUARD: `127.0.0.1:${port}`, SIMULATOR: new URL(modelUrl).host };
  const [program, ...args] = guard?.(port) ?? [];
  const service = { ...env, GUARD_GRPC: env.GUARD, GUARD_HTTP: '127.0.0.1:0' };
  if (program) children.push(await listening(spawn(program, args, { cwd: ROOT, env: service }), port));
  const options = ['--config', `plugins/examples/${config}`, '--listen', '127.0.0.1:0', '--metrics', 'off'];
  const gateway = spawn(process.execPath, ['gateway/main.ts', ...options], {
    cwd: ROOT,
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  children.push(gateway);
  const url = /listens on (\S+)/.exec(await saidOf(gateway, 'listens on'))![1]!;
  return { url, [Symbol.asyncDispose]: () => Promise.all(children.map(end)).then(() => undefined) };
}

/** Waits until a program listens. @throws when it ends before, or is not there at all */
async function listening(child: ChildProcess, port: number): Promise<ChildProcess> {
  const errors: string[] = [];
  child.on('error', (error) => errors.push(error.message));
  child.stderr?.on('data', (text) => errors.push(String(text)));
  while (child.exitCode === null && child.pid !== undefined) {
    const answers = await fetch(`http://127.0.0.1:${port}/`).then(
      () => true,
      (error: Error) => (error.cause as NodeJS.ErrnoException | undefined)?.code !== 'ECONNREFUSED',
    );
    if (answers) return child;
    await sleep(20);
  }
  throw new Error(`${child.spawnfile} did not start: ${errors.join('')}`);
}

async function saidOf(child: ChildProcess, wanted: string): Promise<string> {
  let said = '';
  for await (const text of child.stderr!) {
    said += String(text);
    if (said.includes(wanted)) break;
  }
  child.stderr?.on('error', () => {}).resume();
  if (!said.includes(wanted)) throw new Error(`the gateway did not start: ${said}`);
  return said;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}
