/** A real OPA of a test's own, where this machine has the program, and policies for one that is shared. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../support/free-port.ts';

const { XDG_CACHE_HOME = join(homedir(), '.cache'), WARDGATE_CACHE = join(XDG_CACHE_HOME, 'wardgate') } = process.env;

/** OPA's program; `has` says whether it is there. */
export const PROGRAM = process.env.OPA_PROGRAM ?? join(WARDGATE_CACHE, 'bin/opa');
export const has = existsSync(PROGRAM);

export interface RunningOpa extends AsyncDisposable {
  url: string;
  port: number;
  /** What it has written so far: its own log and the decisions, a line of JSON each. */
  readonly lines: Record<string, unknown>[];
}

/** Starts one with the policies of these files and waits until it answers. */
export async function startOpa(args: string[], port?: number): Promise<RunningOpa> {
  const taken = port ?? (await freePort());
  const fixed = ['run', '--server', '--addr', `127.0.0.1:${taken}`, '--disable-telemetry', '--ignore', '*_test.rego'];
  const child = spawn(PROGRAM, [...fixed, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  const exited = once(child, 'exit');
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  const url = `http://127.0.0.1:${taken}`;
  const stop = async () => {
    child.kill('SIGKILL');
    await exited;
  };
  await answering(url, () => child.exitCode !== null).catch(async (error: unknown) => {
    await stop();
    throw new Error(`OPA did not start: ${log}`, { cause: error });
  });
  const read = () => log.split('\n').filter((line) => line.startsWith('{') && line.endsWith('}'));
  return {
    url,
    port: taken,
    get lines() {
      return read().map((line) => JSON.parse(line) as Record<string, unknown>);
    },
    [Symbol.asyncDispose]: stop,
  };
}

async function answering(url: string, isOver: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !isOver(); i += 1) {
    const response = await fetch(`${url}/health`).catch(() => undefined);
    await response?.body?.cancel();
    // With --authorization=basic a stranger is told 401: it is there.
    if (response !== undefined) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`nothing answers at ${url}`);
}

/** Gives a policy file to an OPA as another package, so that tests on one server do not meet; answers how to take it back. */
export async function lend(
  url: string,
  file: string,
  name: string,
  packageName?: string,
): Promise<() => Promise<void>> {
  const text = readFileSync(file, 'utf8');
  const body = packageName === undefined ? text : text.replace(/^package .*$/m, `package ${packageName}`);
  const put = await fetch(`${url}/v1/policies/${name}`, { method: 'PUT', body });
  if (!put.ok) throw new Error(`OPA refuses ${file}: ${await put.text()}`);
  return async () => {
    await fetch(`${url}/v1/policies/${name}`, { method: 'DELETE' });
  };
}
