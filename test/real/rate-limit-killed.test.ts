/** A gateway that is killed with answers under way, and another on the same Redis that sees what becomes of them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { stringify } from 'yaml';
import { ask, prompt } from '../gateway/chat.ts';
import { textStream } from '../support/chunks.ts';
import { freePort } from '../support/free-port.ts';
import { Gate } from '../support/gate.ts';
import { configFor, startGateway } from '../support/gateway.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { realServer } from './servers.ts';

const redis = realServer('redis');
const POLL = { timeout: 20_000, interval: 100 };
/** How long a reservation lives, in milliseconds. */
const LIFETIME = 2000;

/** A gateway as a process of its own. */
async function startProcess(config: object): Promise<AsyncDisposable & { url: string; process: ChildProcess }> {
  const folder = await mkdtemp(join(tmpdir(), 'wardgate-killed-'));
  const file = join(folder, 'wardgate.yaml');
  await writeFile(file, stringify(config));
  const url = `http://127.0.0.1:${await freePort()}`;
  const args = ['gateway/main.ts', '--config', file, '--listen', url.slice('http://'.length), '--metrics', 'off'];
  const child = spawn(process.execPath, args, { stdio: 'ignore' });
  await expect
    .poll(
      () =>
        fetch(`${url}/healthz`)
          .then(({ ok }) => ok)
          .catch(() => false),
      POLL,
    )
    .toBe(true);
  return {
    url,
    process: child,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await rm(folder, { recursive: true, force: true });
    },
  };
}

test.skipIf(!redis.here)(
  'S3-27: kill -9 of a gateway frees its open answers and what they reserved, when that expires',
  async () => {
    const end = new Gate();
    await using upstream = await startScriptedUpstream();
    upstream.always({ stream: { events: [...textStream('Hello there').slice(0, 3), end] } });
    const limits = [
      { per: 'all', type: 'concurrent', max: 2 },
      { per: 'all', type: 'tokens', max: 100, window: '1h', reserve: 'with-answer', answerTokens: 40 },
    ];
    const settings = {
      redis: redis.url,
      prefix: `test:${process.pid}:kill:`,
      deadline: '2s',
      reservation: '2s',
      limits,
    };
    const config = configFor(upstream.url, {
      plugins: { quota: { at: 'local:rate-limit', deadline: '5s', config: settings } },
    });
    await using doomed = await startProcess(config);
    await using other = await startGateway(config);
    const streamed = (url: string) => ask({ url }, prompt('Hello', { stream: true }));
    const open = await Promise.all([streamed(doomed.url), streamed(doomed.url)]);
    expect(open.map(({ status }) => status)).toEqual([200, 200]);
    // They are renewed as long as they are open, longer than a reservation lives.
    for (const begun = Date.now(); Date.now() < begun + 1.5 * LIFETIME; await sleep(200)) {
      expect((await streamed(other.url)).status).toBe(429);
    }
    doomed.process.kill('SIGKILL');
    await expect.poll(async () => (await streamed(other.url)).status, POLL).toBe(200);
    end.open();
  },
);
