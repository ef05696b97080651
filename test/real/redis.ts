/** A Redis of a test's own, to be stopped, paused, filled and started again. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createClient } from '@redis/client';
import { freePort } from '../support/free-port.ts';

const { WARDGATE_CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'wardgate') } = process.env;
const INSTALLED = join(WARDGATE_CACHE, 'bin', 'redis-server');
const PROGRAM = existsSync(INSTALLED) ? INSTALLED : 'redis-server';

export interface OwnRedis extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** Sends one command, by a connection of its own. */
  command(...command: string[]): Promise<unknown>;
  /** Ends it at once, as a crash does. */
  kill(): Promise<void>;
  /** Starts it again, on the same port and folder. */
  start(): Promise<void>;
  /** It keeps its connections, and answers nothing. */
  pause(): void;
  resume(): void;
}

/** Starts a Redis on a free port; options such as `'--maxmemory', '2mb'`. What it has answered survives `kill`. */
export async function startRedis(...options: string[]): Promise<OwnRedis> {
  const folder = await mkdtemp(join(tmpdir(), 'wardgate-redis-'));
  const port = await freePort();
  const url = `redis://127.0.0.1:${port}`;
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', ''];
  let child: ChildProcess;
  const command = (...words: string[]) => commandTo(url, words);
  const start = async () => {
    child = spawn(PROGRAM, [...args, '--appendonly', 'yes', '--appendfsync', 'everysec', ...options], {
      stdio: 'ignore',
    });
    for (let left = 200; ; left--) {
      if (await command('PING').catch(() => false)) return;
      if (left === 0) throw new Error('Redis does not start');
      await sleep(50);
    }
  };
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  };
  await start();
  return {
    url,
    port,
    command,
    kill,
    start,
    pause: () => void child.kill('SIGSTOP'),
    resume: () => void child.kill('SIGCONT'),
    async [Symbol.asyncDispose]() {
      await kill();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** One command to a Redis, over a connection of its own. */
export async function commandTo(url: string, words: string[]): Promise<unknown> {
  const client = createClient({ url, disableOfflineQueue: true, socket: { reconnectStrategy: false } });
  client.on('error', () => {});
  try {
    await client.connect();
    return await client.sendCommand(words);
  } finally {
    if (client.isOpen) client.destroy();
  }
}
