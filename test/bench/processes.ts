/** Processes of the bench: pinned to a core, held while others are measured, and what they have used so far. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

/** True where /proc says what a process has used. Elsewhere CPU and memory are left out. */
export const KNOWS_USAGE = process.platform === 'linux';

/** Gateways get core 0 alone; upstream, client and this process share the others. Undefined: no pinning here. */
export const CORES =
  availableParallelism() > 1 && spawnSync('taskset', ['-V']).status === 0
    ? { gateway: '0', harness: `1-${availableParallelism() - 1}` }
    : undefined;

export interface Command {
  program: string;
  args: string[];
  env?: Record<string, string>;
}

const started = new Set<Held>();

/** A process group that can be held and resumed. */
export class Held {
  readonly child: ChildProcess;
  private readonly log: string;

  private constructor(child: ChildProcess, log: string) {
    this.child = child;
    this.log = log;
    started.add(this);
    child.on('error', () => {});
    child.once('exit', () => started.delete(this));
  }

  /** Starts a program on the gateways' core, with what it prints in the file `log`. */
  static start({ program, args, env }: Command, log: string): Held {
    const [name, ...rest] = CORES ? ['taskset', '-c', CORES.gateway, program, ...args] : [program, ...args];
    const file = openSync(log, 'w');
    const options = { detached: true, env: { ...process.env, ...env } };
    const child = spawn(name!, rest, { ...options, stdio: ['ignore', 'ignore', file] });
    closeSync(file);
    return new Held(child, log);
  }

  /** Waits for an answer, of whatever status, at a URL. @throws with what the program printed when there is none */
  async ready(url: string, withinMs = 20_000): Promise<void> {
    const until = performance.now() + withinMs;
    while (performance.now() < until && this.child.exitCode === null && this.child.pid !== undefined) {
      const answers = await fetch(url, { signal: AbortSignal.timeout(1_000) }).then(
        async (response) => (await response.arrayBuffer()) && true,
        () => false,
      );
      if (answers) return;
      await sleep(50);
    }
    throw new Error(`it did not start: ${readFileSync(this.log, 'utf8').slice(-1_000).trim() || 'it said nothing'}`);
  }

  hold(): void {
    this.signal('SIGSTOP');
  }

  resume(): void {
    this.signal('SIGCONT');
  }

  async end(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null || this.child.pid === undefined) return;
    const exited = once(this.child, 'exit');
    this.resume();
    this.signal('SIGTERM');
    const force = setTimeout(() => this.signal('SIGKILL'), 3_000);
    await exited;
    clearTimeout(force);
  }

  signal(name: NodeJS.Signals): void {
    try {
      if (this.child.pid !== undefined) process.kill(-this.child.pid, name);
    } catch {
      // It is gone already.
    }
  }
}

/** Ends what is still running, at once: for exits that nobody planned. */
export function endAllNow(): void {
  for (const held of started) held.signal('SIGKILL');
}

/** The process with this id and all its descendants. */
function tree(pid: number): number[] {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
  );
  return [pid, ...children.flatMap((child) => orNothing(() => tree(child)) ?? [])];
}

/** Nanoseconds on a core so far, of processes and their descendants. Undefined where that cannot be known. */
export function cpuNs(pids: number[]): number | undefined {
  if (!KNOWS_USAGE) return undefined;
  return sum(pids, (pid) => {
    const tasks = readdirSync(`/proc/${pid}/task`);
    return tasks
      .map((task) => Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]))
      .reduce((a, b) => a + b, 0);
  });
}

/** Resident memory in MB, of processes and their descendants. */
export function memoryMb(pids: number[]): number | undefined {
  if (!KNOWS_USAGE) return undefined;
  return sum(pids, (pid) => {
    const kilobytes = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0;
    return Number(kilobytes) / 1024;
  });
}

function sum(pids: number[], of: (pid: number) => number): number {
  const all = pids.flatMap((pid) => orNothing(() => tree(pid)) ?? []);
  return all.map((pid) => orNothing(() => of(pid)) ?? 0).reduce((a, b) => a + b, 0);
}

/** A process may end while it is looked at. */
function orNothing<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
