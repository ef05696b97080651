/** A gateway as a process of its own, to be killed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { stringify } from 'yaml';
import { freePort } from '../support/free-port.ts';

export interface GatewayProcess extends AsyncDisposable {
  url: string;
  process: ChildProcess;
}

/** Starts it on a free port, and waits until it answers. */
export async function startProcess(config: object): Promise<GatewayProcess> {
  const folder = await mkdtemp(join(tmpdir(), 'wardgate-process-'));
  const file = join(folder, 'wardgate.yaml');
  await writeFile(file, stringify(config));
  const url = `http://127.0.0.1:${await freePort()}`;
  const args = ['gateway/main.ts', '--config', file, '--listen', url.slice('http://'.length), '--metrics', 'off'];
  const child = spawn(process.execPath, args, { stdio: 'ignore' });
  const isUp = () =>
    fetch(`${url}/healthz`)
      .then(({ ok }) => ok)
      .catch(() => false);
  await expect.poll(isUp, { timeout: 20_000, interval: 100 }).toBe(true);
  return {
    url,
    process: child,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await rm(folder, { recursive: true, force: true });
    },
  };
}
