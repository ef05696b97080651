import { describe, expect, test } from 'vitest';
import { compileLimit, type Limit, readConfig } from '../../../plugins/rate-limit/config.ts';
import type { Reading } from '../../../plugins/rate-limit/engine.ts';
import { goDuration, rateHeaders, sentence } from '../../../plugins/rate-limit/words.ts';

function limitOf(config: object): Limit {
  const whole = readConfig({ limits: [config] });
  return compileLimit(whole.limits[0]!, whole);
}

function standing(config: object, reading: Partial<Reading> = {}, needed = 1) {
  const none = { agrees: false, left: 0, wholeMs: 42_000, moreMs: 42_000, waitMs: 42_000, reserved: 0 };
  return { limit: limitOf(config), reading: { ...none, ...reading }, needed };
}

const MONEY = { per: 'key', type: 'cost', max: 5, window: 'month' };
const TOKENS = { per: 'tenant', type: 'tokens', max: 1000, window: 'day' };

describe('what a person reads', () => {
  test.each([
    [standing({ per: 'identity', max: 10, window: '1m' }), 'You have used your 10 requests for this minute.'],
    [standing({ per: 'identity', max: 1, window: '5m' }), 'You have used your 1 request for these 5 minutes.'],
    [standing({ per: 'group', max: 10, window: 'hour' }), 'Your group has used its 10 requests for this hour.'],
    [standing({ ...TOKENS }), 'Your organisation has used its 1000 tokens for this day.'],
    [standing({ ...MONEY }), 'Your key has used its $5 for this month.'],
    [standing({ requestsPerMinute: 60 }), 'Everybody together has used the 60 requests that may come at once.'],
    [standing({ type: 'concurrent', max: 2 }), '2 answers may be under way at a time, and as many are.'],
    [standing(TOKENS, { left: 30 }, 60), 'This request is estimated at 60 tokens, and your organisation has 30 left.'],
    [standing(MONEY, { left: 1_230_000_000 }, 2e9), 'This request is estimated at $2, and your key has $1.23 left.'],
  ])('%#', (one, words) => {
    expect(sentence(one)).toBe(`${words} Try again in 42 seconds.`);
  });

  test('for what can never pass', () => {
    expect(sentence(standing(MONEY, { waitMs: Number.POSITIVE_INFINITY }, 6e9))).toBe(
      'This request is estimated at $6, and your key has at most $5 at once. Shorten it.',
    );
  });
});

describe('what a program reads', () => {
  test('are the figures of the limit with the smallest share left, and OpenAI’s of both kinds', () => {
    const requests = standing({ name: 'r', max: 10, window: '1m' }, { left: 8, wholeMs: 30_000, moreMs: 1 });
    const tokens = standing(TOKENS, { left: 100, wholeMs: 7_200_000 });
    const lavish = standing({ ...TOKENS, name: 'lavish' }, { left: 900 });
    expect(rateHeaders([requests, tokens, lavish])).toEqual({
      'x-ratelimit-limit': '1000',
      'x-ratelimit-remaining': '100',
      'x-ratelimit-reset': '7200',
      'x-ratelimit-limit-requests': '10',
      'x-ratelimit-remaining-requests': '8',
      'x-ratelimit-reset-requests': '30s',
      'x-ratelimit-limit-tokens': '1000',
      'x-ratelimit-remaining-tokens': '100',
      'x-ratelimit-reset-tokens': '2h0m0s',
      'ratelimit-policy': '"tokens-per-tenant";q=1000;w=86400;qu="tokens"',
      ratelimit: '"tokens-per-tenant";r=100;t=42',
    });
  });

  test('show no debt as less than nothing, and money in dollars', () => {
    expect(rateHeaders([standing(MONEY, { left: -3e9 })])).toMatchObject({
      'x-ratelimit-limit': '5',
      'x-ratelimit-remaining': '0',
      ratelimit: '"cost-per-key";r=0;t=42',
    });
  });

  test.each([
    [0, '0ms'],
    [20, '20ms'],
    [999.5, '1000ms'],
    [1000, '1s'],
    [59_001, '1m0s'],
    [360_000, '6m0s'],
    [7_325_000, '2h2m5s'],
  ])('%i ms as Go writes it: %s', (ms, text) => {
    expect(goDuration(ms)).toBe(text);
  });
});
