/** Replicas of the engine as processes of their own. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Check } from '../../plugins/rate-limit/engine.ts';

export interface Task {
  url: string;
  prefix: string;
  lifetimeMs: number;
  check: Check;
  /** How many ask at a time, and how often each. */
  clients: number;
  requests: number;
  /** How wrong this process's clock is. */
  skewMs: number;
  /** How far an answer may go beyond what was reserved for it. */
  beyond: number;
  /** Keeps what was reserved, and the process. */
  hold?: boolean;
}

export interface Admission {
  /** By Redis's clock. */
  at: number;
  amount: number;
  /** How much more was used than reserved. */
  beyond: number;
}

export interface Replica {
  process: ChildProcess;
  /** What it admitted, when it has asked all its questions. */
  done: Promise<Admission[]>;
}

/** Starts one replica. */
export function startReplica(task: Task): Replica {
  const file = fileURLToPath(new URL('rate-limit-replica.ts', import.meta.url));
  const child = fork(file, [JSON.stringify(task)]);
  const done = new Promise<Admission[]>((resolve, reject) => {
    child.once('message', (admissions) => resolve(admissions as Admission[]));
    child.once('exit', (code) => reject(new Error(`the replica ended with ${code}`)));
  });
  done.catch(() => {});
  return { process: child, done };
}

/** The most that was admitted within any `spanMs`, by the recorded moments. */
export function mostWithin(admissions: Admission[], spanMs: number): number {
  const sorted = [...admissions].sort((a, b) => a.at - b.at);
  let [first, sum, most] = [0, 0, 0];
  for (const { at, amount } of sorted) {
    sum += amount;
    while (sorted[first]!.at <= at - spanMs) sum -= sorted[first++]!.amount;
    most = Math.max(most, sum);
  }
  return most;
}
