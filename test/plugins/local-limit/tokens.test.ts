import { describe, expect, it } from 'vitest';
import { Bench, person } from './support.ts';

function tokens(maxTokens: number, rest: object = {}): Bench {
  const limit = { type: 'tokens', maxTokens, tokensPerFill: maxTokens, fillInterval: '1m', ...rest };
  return new Bench({ limits: [limit] });
}

describe('a limit of tokens that charges after', () => {
  it('S4-01, S4-02, S4-03: one token lets the first call pass whatever it costs, the second is 429', () => {
    const limits = [{ maxTokens: 1, tokensPerFill: 1, fillInterval: '100s', type: 'tokens' }];
    const bench = new Bench({ limits, body: 'rate limit exceeded', contentType: 'text/plain' });
    expect(bench.allowed().grant).toBeUndefined();
    bench.settle(20);
    expect(bench.refused()).toMatchObject({ status: 429, body: 'rate limit exceeded' });
  });

  it('carries the debt of an oversized answer', () => {
    const bench = tokens(100);
    bench.allowed();
    bench.settle(250);
    bench.now += 60_000;
    expect(bench.refused().message).toBe(
      'Everybody together has used the 100 tokens for this minute. Try again in 1 minute.',
    );
    bench.now += 60_000;
    expect(bench.allowed().headers?.['x-ratelimit-remaining']).toBe('50');
  });

  it('S4-02: stops at zero where `debt` is false, as the reference does', () => {
    const bench = tokens(100, { debt: false });
    bench.allowed();
    bench.allowed();
    bench.settle(250);
    bench.settle(250);
    expect(bench.refused().headers?.['retry-after']).toBe('60');
    bench.now += 60_000;
    expect(bench.allowed().headers?.['x-ratelimit-remaining']).toBe('100');
  });

  it('S4-02: neither pays off nor adds to a bucket at zero where `debt` is false', () => {
    const bench = tokens(100, { debt: false, tokensPerFill: 1, fillInterval: '1s' });
    for (const used of [100, 50, 50]) bench.settle(used);
    expect(bench.refused().headers).toMatchObject({ 'retry-after': '1', 'x-ratelimit-remaining': '0' });
  });

  it('S1-41: charges prompt and answer', () => {
    const bench = tokens(500, { per: 'identity' });
    bench.allowed(person('ann'));
    bench.settle(undefined, { usage: { inputTokens: 20, outputTokens: 480 } }, person('ann'));
    expect(bench.refused(person('ann')).message).toBe(
      'You have used your 500 tokens for this minute. Try again in 1 minute.',
    );
    bench.allowed(person('bob'));
  });

  it('charges a stream that the client has left', () => {
    const bench = tokens(100);
    bench.allowed();
    bench.settle(100, { outcome: 'aborted', status: 200, streamed: true });
    bench.refused();
  });

  it('charges nothing when nothing was used', () => {
    const bench = tokens(1);
    bench.allowed();
    bench.settle(undefined, { outcome: 'rejected', status: 403 });
    bench.settle(undefined, { outcome: 'failed', status: 502 });
    bench.allowed();
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, -5])('does not believe a usage of %d', (count) => {
    const bench = tokens(10);
    bench.settle(count);
    expect(bench.allowed().headers?.['x-ratelimit-remaining']).toBe('10');
  });

  it('names the unit in its policy', () => {
    expect(tokens(500).allowed().headers).toMatchObject({
      'ratelimit-policy': '"tokens-per-route";q=500;w=60;qu="tokens"',
    });
  });
});

describe('a limit of tokens that reserves', () => {
  it('takes the estimate before and charges the rest after', () => {
    const bench = tokens(100, { reserve: true });
    const { grant, headers } = bench.allowed({}, 30);
    expect(headers?.['x-ratelimit-remaining']).toBe('70');
    bench.settle(50, { grant });
    expect(bench.allowed({}, 50).headers?.['x-ratelimit-remaining']).toBe('0');
  });

  it('gives back what was estimated too much', () => {
    const bench = tokens(100, { reserve: true });
    const { grant } = bench.allowed({}, 80);
    bench.settle(10, { grant });
    expect(bench.allowed({}, 1).headers?.['x-ratelimit-remaining']).toBe('89');
  });

  it.each(['rejected', 'failed', 'aborted'] as const)('gives everything back when it was %s unused', (outcome) => {
    const bench = tokens(100, { reserve: true });
    const { grant } = bench.allowed({}, 100);
    bench.refused({}, 1);
    bench.settle(undefined, { outcome, grant });
    bench.allowed({}, 100);
  });

  it('never gives back beyond the brim', () => {
    const bench = tokens(100, { reserve: true });
    const { grant } = bench.allowed({}, 100);
    bench.now += 60_000;
    bench.settle(undefined, { outcome: 'aborted', grant });
    expect(bench.allowed({}, 1).headers?.['x-ratelimit-remaining']).toBe('99');
  });

  it('does not let two through that together are too much', () => {
    const bench = tokens(100, { reserve: true, per: 'identity' });
    bench.allowed(person('ann'), 60);
    bench.now += 20_000;
    expect(bench.refused(person('ann'), 60).message).toBe(
      'This request is estimated at 60 tokens, and you have 40 left. Try again in 40 seconds.',
    );
  });

  it('S1-41: refuses for good what can never fit, and says so', () => {
    const bench = tokens(500, { reserve: true, per: 'identity' });
    const { message, headers } = bench.refused(person('ann'), 501);
    expect(message).toBe('This request is estimated at 501 tokens, and you have at most 500 at once. Shorten it.');
    expect(headers).toMatchObject({ 'x-should-retry': 'false' });
    expect(headers).not.toHaveProperty('retry-after');
  });

  it('reserves the answer’s bound too where it is told to', () => {
    const bench = tokens(100, { reserve: 'with-answer' });
    const { grant, headers } = bench.allowed({}, 10, 60);
    expect(headers?.['x-ratelimit-remaining']).toBe('30');
    bench.settle(15, { grant });
    expect(bench.allowed({}, 0).headers?.['x-ratelimit-remaining']).toBe('85');
  });

  it('settles each of several limits by what it reserved itself', () => {
    const bench = new Bench({
      limits: [
        { per: 'all', maxTokens: 5, tokensPerFill: 5, fillInterval: '1m' },
        { per: 'all', type: 'tokens', reserve: true, maxTokens: 100, tokensPerFill: 100, fillInterval: '1m' },
        { per: 'identity', type: 'tokens', maxTokens: 90, tokensPerFill: 90, fillInterval: '1m' },
      ],
    });
    const { grant } = bench.allowed(person('ann'), 30);
    bench.settle(40, { grant }, person('ann'));
    expect(bench.allowed(person('ann'), 0).headers?.ratelimit).toBe('"tokens-per-identity";r=50;t=60');
    expect(bench.allowed(person('bob'), 0).headers?.ratelimit).toBe('"requests-per-all";r=2;t=60');
  });

  it('takes no grant of another instance for its own', () => {
    const { grant } = tokens(100, { reserve: true }).allowed({}, 90);
    const bench = tokens(100, { reserve: true });
    bench.allowed({}, 50);
    bench.settle(10, { grant });
    bench.settle(undefined, { grant: 'nonsense' });
    expect(bench.allowed({}, 0).headers?.['x-ratelimit-remaining']).toBe('40');
  });
});
