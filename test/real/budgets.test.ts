/** The command that shows and resets what has been used, as a person runs it. */
import { execFile } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { Desk, keyHolder, person } from '../plugins/rate-limit/support.ts';
import { realServer } from './servers.ts';

const redis = realServer('redis');
let made = 0;

interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

function budgets(args: string[], environment: Record<string, string> = {}): Promise<Ran> {
  const { promise, resolve } = Promise.withResolvers<Ran>();
  const env = { ...process.env, REDIS_URL: redis.url, ...environment };
  execFile(process.execPath, ['plugins/rate-limit/budgets.ts', ...args], { env }, (error, stdout, stderr) =>
    resolve({ code: Number(error?.code ?? 0), stdout, stderr }),
  );
  return promise;
}

/** A limiter of which some has been used. */
async function used() {
  const prefix = `test:${process.pid}:budgets:${made++}:`;
  const limits = [
    { name: 'daily', per: 'identity', type: 'tokens', max: 1000, window: 'day', reserve: true },
    { name: 'open', per: ['tenant', 'model'], type: 'concurrent', max: 3 },
  ];
  const desk = new Desk({ redis: redis.url, prefix, deadline: '2s', limits, keyBudgets: true });
  const holder = keyHolder('key-1', { usd: 0.005 });
  await desk.settle((await desk.allowed(holder)).grant, 50, { costUsd: 0.0051 });
  await desk.allowed(person('ann', 'acme & sons'), { estimatedInputTokens: 300 });
  return { desk, holder, prefix, [Symbol.asyncDispose]: () => desk.plugin.close() };
}

describe.skipIf(!redis.here)('budgets', () => {
  test('S1-95: shows what is used, reserved and left', async () => {
    await using on = await used();
    const { code, stdout } = await budgets(['show', '--prefix', on.prefix]);
    expect(code).toBe(0);
    const lines = stdout.split('\n').map((line) => line.split(/ {2,}/));
    expect(lines[0]).toEqual(['LIMIT', 'WHO', 'USED', 'RESERVED', 'OF', 'LEFT', 'WHOLE IN']);
    expect(lines.find(([name]) => name === 'key-budget-usd')).toEqual([
      ...['key-budget-usd', 'key=key-1', '0.0051', '0', '0.005 USD', '-0.0001'],
      // A day and the slice of it that the last use lies in.
      '25 hours',
    ]);
    expect(lines.find(([, who]) => who === 'identity=ann')?.slice(2, 6)).toEqual(['0', '300', '1000 tokens', '700']);
    expect(lines.find(([, who]) => who === 'tenant=acme & sons model=gpt-4o')).toContain('3 concurrent');
  });

  test('S1-95: resets one key and leaves the others', async () => {
    await using on = await used();
    await on.desk.refused(on.holder);
    expect(await budgets(['reset', '--key', 'key-1', '--prefix', on.prefix])).toMatchObject({ code: 0 });
    await on.desk.allowed(on.holder);
    const { stdout } = await budgets(['show', '--subject', 'ann', '--prefix', on.prefix, '--json']);
    expect(JSON.parse(stdout)).toMatchObject([{ limit: 'daily', who: 'identity=ann', reserved: 300, left: 700 }]);
  });

  test('finds by limit and by any part', async () => {
    await using on = await used();
    for (const which of [
      ['--part', 'tenant=acme & sons'],
      ['--limit', 'open', '--part', 'model=gpt-4o', '--part', 'tenant=acme & sons'],
    ]) {
      const { stdout } = await budgets(['show', ...which, '--prefix', on.prefix, '--json']);
      expect(JSON.parse(stdout)).toHaveLength(1);
    }
    expect(await budgets(['show', '--key', '*', '--prefix', on.prefix])).toMatchObject({
      code: 3,
      stdout: '',
      stderr: 'Nothing has been used of such a limit.\n',
    });
  });

  test.each([
    [[], 'Say what to do: show or reset. --help tells more.'],
    [['reset'], 'Say which: --key, --subject, --limit, --part, or --all.'],
    [['show', 'me'], 'show does not want that many words.'],
    [['show', '--part', 'acme'], '--part wants NAME=VALUE, such as tenant=acme.'],
    [['show', '--redis', 'localhost'], '--redis wants redis:// or rediss://.'],
    [['show', '--colour'], "Unknown option '--colour'"],
  ])('%j is not understood', async (args, why) => {
    const { code, stdout, stderr } = await budgets(args);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain(why);
  });

  test('says when no Redis answers, without its password', async () => {
    const { code, stderr } = await budgets(['show'], { REDIS_URL: 'redis://:hunter2@127.0.0.1:1' });
    expect(code).toBe(1);
    expect(stderr).toBe('No primary Redis answers at 127.0.0.1:1. Start it, or name another with --redis.\n');
  });
});
