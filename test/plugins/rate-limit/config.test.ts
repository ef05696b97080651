import { describe, expect, test } from 'vitest';
import { rateLimit } from '../../../plugins/rate-limit/plugin.ts';
import { problemsOf as findProblems } from '../problems.ts';

const problemsOf = (config: unknown) => findProblems(rateLimit, config);

const SOUND = { max: 10, window: '1m' };

describe('the config of rate-limit', () => {
  test.each([[undefined], [{}], [{ limits: [] }], [[]], ['limits'], [{ limits: [{}] }]])('refuses %o', (config) => {
    expect(problemsOf(config)).not.toEqual({});
  });

  test.each([
    [{ limits: [SOUND] }],
    [{ keyBudgets: true }],
    [{ keyBudgets: { onRedisLoss: 'allow', reserve: 'with-answer' } }],
    [{ redis: ['redis://a:1', 'rediss://user:secret@b:2/3'], limits: [{ ...SOUND, algorithm: 'fixed' }] }],
    [{ limits: [{ type: 'cost', max: 0.005, window: 'month', reserve: true }] }],
    [{ limits: [{ type: 'concurrent', max: 4, per: 'key' }] }],
    [{ limits: [{ requestsPerMinute: 60, burst: 10, per: ['tenant', 'header:x-team'] }] }],
    [{ limits: [{ ...SOUND, algorithm: 'gcra', burst: 3, headers: { 'x-task': ['', 'title'] } }] }],
  ])('takes %o', (config) => {
    expect(problemsOf(config)).toEqual({});
  });

  test('lists every problem with its place', () => {
    const limits = [
      { window: '1m' },
      { ...SOUND, name: 'b', max: 1.5 },
      { ...SOUND, name: 'c', per: ['all', 'model'] },
      { ...SOUND, name: 'd', reserve: true, debt: false },
      { ...SOUND, name: 'e', burst: 5 },
      { name: 'f', max: 5, window: 'month', algorithm: 'gcra', type: 'tokens' },
      { name: 'g', type: 'concurrent', max: 5, window: '1m', algorithm: 'gcra' },
      { name: 'h', requestsPerMinute: 5, max: 1, type: 'tokens' },
      { ...SOUND, name: 'b' },
      { name: 'j', type: 'cost', max: 10_000_000, window: '1m' },
    ];
    expect(problemsOf({ limits, reservation: '1s' })).toEqual({
      reservation: 'It must be 2s at least.',
      'limits.0.max': 'This is missing; or write requestsPerMinute (and burst) instead.',
      'limits.1.max': 'This must be a whole number.',
      'limits.2.per': '`all` means one bucket, so it stands alone.',
      'limits.3.reserve': 'Only limits of tokens and cost can reserve an estimate.',
      'limits.3.debt': 'Only limits of tokens and cost can run into debt.',
      'limits.4.burst': 'It goes with `algorithm: gcra`.',
      'limits.5.algorithm': 'A calendar month is a fixed window.',
      'limits.6.window': 'Open answers are counted as long as they are open.',
      'limits.6.algorithm': 'Open answers are counted as long as they are open.',
      'limits.7.max': 'requestsPerMinute says this already.',
      'limits.7.type': 'requestsPerMinute counts requests.',
      'limits.8.name': 'Another limit is called b: give each its own name.',
      'limits.9.max': 'At most 9000000 dollars.',
    });
  });

  test('knows no other settings, times, parts or addresses', () => {
    expect(
      problemsOf({
        redis: 'http://:secret@redis',
        limits: [{ max: 1, window: 'fortnight', per: 'header:X-Team', color: 1 }],
        x: 1,
      }),
    ).toEqual({
      redis: expect.any(String),
      'limits.0.window': expect.stringContaining('calendar word'),
      'limits.0.per': expect.stringContaining('header:NAME in lower case'),
      'limits.0.color': 'This setting is not known.',
      x: 'This setting is not known.',
    });
    expect(JSON.stringify(problemsOf({ redis: 'http://:secret@redis' }))).not.toContain('secret');
  });
});
