/** Marks in a real Redis: every replica hears of them, also one that comes later, and a Redis that is away harms nobody. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { redisMarks } from '../../plugins/redis/marks.ts';
import type { SharedMarks } from '../../proto/marks.ts';
import { type OwnRedis, startRedis } from './redis.ts';
import { realServer } from './servers.ts';

const POLL = { timeout: 10_000, interval: 20 };

describe.skipIf(!realServer('redis').here)('marks in a real Redis', () => {
  let redis: OwnRedis;
  const opened: SharedMarks[] = [];

  beforeAll(async () => {
    redis = await startRedis();
  });

  afterAll(async () => {
    for (const marks of opened) marks.close();
    await redis[Symbol.asyncDispose]();
  });

  /** A replica, and what it has heard of. */
  function replica(prefix: string, url = redis.url) {
    const heard = new Map<string, number>();
    const marks = redisMarks([url], prefix);
    opened.push(marks);
    const stop = marks.onMark((key, ms) => heard.set(key, ms));
    return { marks, heard, stop };
  }

  /** Marks until the others hear of it: they may not be listening yet. */
  async function isHeard(from: SharedMarks, heard: Map<string, number>, key: string): Promise<void> {
    await expect
      .poll(() => {
        from.mark(key, 60_000);
        return heard.get(key);
      }, POLL)
      .toBeDefined();
    expect(heard.get(key)).toBeLessThanOrEqual(60_000);
    expect(heard.get(key)).toBeGreaterThan(50_000);
  }

  test('every other replica hears of one, with the time that is left; not only the first', async () => {
    const [a, b, c] = [replica('all:'), replica('all:'), replica('all:')];
    await isHeard(a.marks, b.heard, 'up/m');
    await expect.poll(() => c.heard.has('up/m'), POLL).toBe(true);
  });

  test('a replica that comes later reads what still holds, and not what has run out', async () => {
    const a = replica('later:');
    await isHeard(a.marks, replica('later:').heard, 'long/m');
    a.marks.mark('short/m', 30);
    await sleep(60);
    const late = replica('later:');
    await expect.poll(() => late.heard.has('long/m'), POLL).toBe(true);
    expect(late.heard.has('short/m')).toBe(false);
  });

  test('a mark is never shortened, and the set goes when the last has run out', async () => {
    const a = replica('once:');
    a.marks.mark('up/m', 60_000);
    await expect.poll(() => redis.command('ZCARD', 'once:marks'), POLL).toBe(1);
    a.marks.mark('up/m', 10);
    a.marks.mark('other/m', 10);
    await expect.poll(() => redis.command('ZCARD', 'once:marks'), POLL).toBe(2);
    await sleep(30);
    const b = replica('once:');
    await expect.poll(() => b.heard.get('up/m') ?? 0, POLL).toBeGreaterThan(50_000);
    expect(b.heard.has('other/m')).toBe(false);
    expect(await redis.command('PTTL', 'once:marks')).toBeLessThanOrEqual(60_000);
    expect(await redis.command('PTTL', 'once:marks')).toBeGreaterThan(50_000);
  });

  test('nonsense on the channel is passed over', async () => {
    const [a, b] = [replica('odd:'), replica('odd:')];
    await isHeard(a.marks, b.heard, 'up/m');
    for (const message of ['', 'null', '[]', '{"key":1,"ms":5}', '{"key":"x","ms":"5"}', '{"key":"x","ms":-1}', '{'])
      await redis.command('PUBLISH', 'odd:mark', message);
    await isHeard(a.marks, b.heard, 'next/m');
    expect([...b.heard.keys()].sort()).toEqual(['next/m', 'up/m']);
  });

  test('nobody who has stopped listening is told, and a closed one marks nothing', async () => {
    const [a, b, c] = [replica('stop:'), replica('stop:'), replica('stop:')];
    await isHeard(a.marks, b.heard, 'one/m');
    b.stop();
    c.marks.close();
    c.marks.mark('closed/m', 60_000);
    const heard = new Map<string, number>();
    b.marks.onMark((key, ms) => heard.set(key, ms));
    await isHeard(a.marks, heard, 'two/m');
    expect(b.heard.has('two/m')).toBe(false);
    expect(heard.has('closed/m')).toBe(false);
  });

  test('a Redis that dies takes nothing along but the news, and is found again', async () => {
    await using own = await startRedis();
    const [a, b] = [replica('away:', own.url), replica('away:', own.url)];
    await isHeard(a.marks, b.heard, 'before/m');
    await own.kill();
    for (let i = 0; i < 1_000; i += 1) a.marks.mark(`lost${i}/m`, 60_000);
    await own.start();
    await isHeard(a.marks, b.heard, 'after/m');
  });
});
