/** A gateway that is killed with answers under way, and another on the same Redis that sees what becomes of them. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { ask, prompt } from '../gateway/chat.ts';
import { textStream } from '../support/chunks.ts';
import { Gate } from '../support/gate.ts';
import { configFor, startGateway } from '../support/gateway.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { startProcess } from './gateway-process.ts';
import { realServer } from './servers.ts';

const redis = realServer('redis');
const POLL = { timeout: 20_000, interval: 100 };
/** How long a reservation lives, in milliseconds. */
const LIFETIME = 2000;

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
