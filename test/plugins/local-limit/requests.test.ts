import { describe, expect, it } from 'vitest';
import { Bench, person } from './support.ts';

const TEN_PER_MINUTE = { limits: [{ per: 'identity', maxTokens: 10, tokensPerFill: 10, fillInterval: '1m' }] };

describe('a limit of requests', () => {
  it('S1-40: lets ten through in a minute and answers the eleventh with 429', () => {
    const bench = new Bench({ limits: [{ maxTokens: 10, tokensPerFill: 10, fillInterval: '1m' }] });
    expect(bench.passing(10)).toBe(10);
    const { code, status, headers } = bench.refused();
    expect({ code, status }).toEqual({ code: 'rate_limit_exceeded', status: 429 });
    expect(headers).toMatchObject({
      'x-ratelimit-limit': '10',
      'x-ratelimit-remaining': '0',
      'x-ratelimit-reset': '60',
    });
  });

  it('S1-40, S4-03: answers with the plain body where the config gives one', () => {
    const limits = [{ maxTokens: 1, tokensPerFill: 1, fillInterval: '100s' }];
    const bench = new Bench({ limits, body: 'rate limit exceeded' });
    bench.allowed();
    expect(bench.refused()).toMatchObject({ status: 429, body: 'rate limit exceeded', contentType: 'text/plain' });
  });

  it('S1-104: tells a person what was used and when to come back', () => {
    const bench = new Bench(TEN_PER_MINUTE);
    bench.passing(10, person('ann'));
    bench.now += 18_000;
    const { message, headers } = bench.refused(person('ann'));
    expect(message).toBe('You have used your 10 requests for this minute. Try again in 42 seconds.');
    expect(headers).toEqual({
      'x-ratelimit-limit': '10',
      'x-ratelimit-remaining': '0',
      'x-ratelimit-reset': '42',
      'ratelimit-policy': '"requests-per-identity";q=10;w=60',
      ratelimit: '"requests-per-identity";r=0;t=42',
      'retry-after': '42',
    });
  });

  it('is whole again after its interval, and not a millisecond earlier', () => {
    const bench = new Bench(TEN_PER_MINUTE);
    bench.passing(10);
    bench.now += 59_999;
    expect(bench.refused().headers?.['retry-after']).toBe('1');
    bench.now += 1;
    expect(bench.passing(11)).toBe(10);
  });

  it('counts its interval from the first request, so that waiting beforehand earns no second helping', () => {
    const bench = new Bench(TEN_PER_MINUTE);
    bench.now += 59_000;
    expect(bench.passing(11)).toBe(10);
    bench.now += 2000;
    expect(bench.passing(1)).toBe(0);
  });

  it('does not count what it refuses', () => {
    const bench = new Bench(TEN_PER_MINUTE);
    bench.passing(1000);
    bench.now += 60_000;
    expect(bench.passing(20)).toBe(10);
  });

  it('is not given back when the request is rejected later', () => {
    const bench = new Bench({ limits: [{ maxTokens: 1, tokensPerFill: 1, fillInterval: '1m' }] });
    const { grant } = bench.allowed();
    bench.settle(undefined, { outcome: 'rejected', status: 403, grant });
    bench.refused();
  });

  it('tells a client library not to try again at once when the wait is long', () => {
    const bench = new Bench({ limits: [{ maxTokens: 1, tokensPerFill: 1, fillInterval: '1h' }] });
    bench.allowed();
    expect(bench.refused()).toMatchObject({
      message: 'Everybody together has used the 1 request for this hour. Try again in 1 hour.',
      headers: { 'retry-after': '3600', 'x-should-retry': 'false' },
    });
  });

  it('can speak in words and with a status of the config', () => {
    const limits = [{ maxTokens: 1, tokensPerFill: 1, fillInterval: '1m' }];
    const bench = new Bench({ limits, message: 'Rate limit exceeded', status: 503 });
    bench.allowed();
    expect(bench.refused()).toMatchObject({ message: 'Rate limit exceeded', status: 503 });
  });
});

describe('requests per minute with a burst', () => {
  const config = { limits: [{ per: ['tenant', 'model'], requestsPerMinute: 60, burst: 10 }] };

  it('S2-12: starts full, lets the burst through at once, then one each second', () => {
    const bench = new Bench(config);
    expect(bench.passing(20)).toBe(10);
    bench.now += 999;
    expect(bench.passing(1)).toBe(0);
    bench.now += 1;
    expect(bench.passing(2)).toBe(1);
    bench.now += 5000;
    expect(bench.passing(10)).toBe(5);
    bench.now += 3_600_000;
    expect(bench.passing(20)).toBe(10);
  });

  it('S2-12: counts each tenant and each model apart', () => {
    const bench = new Bench(config);
    expect(bench.passing(11, { ...person('a', 'tenant-A'), model: 'gpt-mini' })).toBe(10);
    expect(bench.passing(11, { ...person('b', 'tenant-A'), model: 'gpt-mini' })).toBe(0);
    expect(bench.passing(11, { ...person('a', 'tenant-A'), model: 'llama-8b' })).toBe(10);
    expect(bench.passing(11, { ...person('c', 'tenant-B'), model: 'gpt-mini' })).toBe(10);
  });

  it('S2-12: says when the next one may come', () => {
    const bench = new Bench(config);
    bench.passing(10, person('a', 'tenant-A'));
    bench.now += 300;
    const { message, headers } = bench.refused(person('a', 'tenant-A'));
    expect(message).toBe('Your organisation has used its 10 requests that may come at once. Try again in 1 second.');
    expect(headers).toMatchObject({ 'retry-after': '1', 'ratelimit-policy': '"requests-per-tenant-model";q=10;w=10' });
  });

  it('takes the requests of a minute for the burst where none is given', () => {
    expect(new Bench({ limits: [{ requestsPerMinute: 6 }] }).passing(10)).toBe(6);
  });
});

describe('whose bucket it is', () => {
  const one = (rest: object) =>
    new Bench({ limits: [{ maxTokens: 1, tokensPerFill: 1, fillInterval: '1m', ...rest }] });

  it('is the route’s by default, as agentgateway has it', () => {
    const bench = one({});
    bench.allowed({ route: '/openai', ...person('ann') });
    bench.refused({ route: '/openai', ...person('bob') });
    bench.allowed({ route: '/gemini', ...person('ann') });
  });

  it('is everybody’s with `all`', () => {
    const bench = one({ per: 'all' });
    bench.allowed({ route: '/openai' });
    bench.refused({ route: '/gemini', model: 'x' });
  });

  it('is one for all strangers', () => {
    const bench = one({ per: 'identity' });
    bench.allowed();
    bench.refused();
    bench.allowed(person('-'));
  });

  it('is not the same for one name from two issuers', () => {
    const bench = one({ per: 'identity' });
    bench.allowed({ identity: { subject: '1', issuer: 'https://a' } });
    bench.allowed({ identity: { subject: '1', issuer: 'https://b' } });
    bench.refused({ identity: { subject: '1', issuer: 'https://a' } });
  });

  it('cannot be another’s by a name that looks like two', () => {
    const bench = one({ per: ['tenant', 'model'] });
    bench.allowed({ ...person('x', 'a'), model: 'b|1:c' });
    bench.allowed({ ...person('x', 'a|1:b'), model: 'c' });
  });

  it('is that of every group that a person is in', () => {
    const bench = one({ per: 'group' });
    bench.allowed(person('ann', undefined, ['red', 'blue', 'red']));
    bench.refused(person('bob', undefined, ['blue']));
    bench.refused(person('cid', undefined, ['green', 'red']));
    bench.allowed(person('dee', undefined, ['green']));
  });

  it('can be kept to some groups, models or routes', () => {
    const bench = one({ per: 'group', groups: ['basic'], models: ['gpt-4o'], routes: ['/openai'] });
    const counted = { ...person('ann', undefined, ['basic', 'staff']), route: '/openai' };
    bench.allowed(counted);
    bench.refused(counted);
    expect(bench.allowed({ ...counted, model: 'other' })).toEqual({});
    expect(bench.allowed({ ...counted, model: undefined })).toEqual({});
    expect(bench.allowed({ ...counted, route: '/' })).toEqual({});
    expect(bench.allowed({ ...person('bob', undefined, ['staff']), route: '/openai' })).toEqual({});
  });
});

describe('several limits at once', () => {
  const bench = () =>
    new Bench({
      limits: [
        { name: 'mine', per: 'identity', maxTokens: 2, tokensPerFill: 2, fillInterval: '1m' },
        { name: 'all', per: 'all', maxTokens: 3, tokensPerFill: 3, fillInterval: '1h' },
      ],
    });

  it('take from all or from none', () => {
    const limiter = bench();
    limiter.passing(2, person('ann'));
    expect(limiter.passing(5, person('ann'))).toBe(0);
    expect(limiter.allowed(person('bob')).headers).toMatchObject({ ratelimit: '"all";r=0;t=3600' });
    limiter.now += 60_000;
    expect(limiter.refused(person('bob')).headers).toMatchObject({ ratelimit: '"all";r=0;t=3540' });
  });

  it('name the one that takes longest, so that nobody comes back too early', () => {
    for (const order of [(limits: object[]) => limits, (limits: object[]) => limits.reverse()]) {
      const limits = order([
        { name: 'short', per: 'all', maxTokens: 1, tokensPerFill: 1, fillInterval: '1m' },
        { name: 'long', per: 'all', maxTokens: 1, tokensPerFill: 1, fillInterval: '2m' },
      ]);
      const limiter = new Bench({ limits });
      limiter.allowed();
      expect(limiter.refused().headers).toMatchObject({ 'retry-after': '120', ratelimit: '"long";r=0;t=120' });
    }
  });

  it('tell an allowed request of the one that has the least left', () => {
    const limiter = bench();
    expect(limiter.allowed(person('ann')).headers).toEqual({
      'x-ratelimit-limit': '2',
      'x-ratelimit-remaining': '1',
      'x-ratelimit-reset': '60',
      'ratelimit-policy': '"mine";q=2;w=60',
      ratelimit: '"mine";r=1;t=60',
    });
  });
});

describe('the number of buckets', () => {
  const config = {
    maxKeys: 3,
    limits: [{ per: 'identity', maxTokens: 1, tokensPerFill: 1, fillInterval: '10s' }],
  };

  it('is bounded: when all are in use a new key is refused, and known ones go on', () => {
    const bench = new Bench({ ...config, limits: [{ ...config.limits[0], maxTokens: 2 }] });
    for (const name of ['a', 'b', 'c']) bench.allowed(person(name));
    const { code, message, headers } = bench.refused(person('d'));
    expect(code).toBe('rate_limit_exceeded');
    expect(message).toBe('Too many different clients are being counted at the moment. Try again in some seconds.');
    expect(headers).toEqual({ 'retry-after': '1' });
    bench.allowed(person('a'));
    expect(bench.plugin.size).toBe(3);
  });

  it('makes room by forgetting buckets that are full again', () => {
    const bench = new Bench(config);
    for (const name of ['a', 'b', 'c']) bench.allowed(person(name));
    bench.now += 9999;
    bench.refused(person('d'));
    bench.now += 1001;
    bench.allowed(person('d'));
    expect(bench.plugin.size).toBe(1);
  });

  it('is not raised by giving back what a forgotten bucket has refilled already', () => {
    const limit = {
      per: 'identity',
      type: 'tokens',
      reserve: true,
      maxTokens: 9,
      tokensPerFill: 9,
      fillInterval: '1s',
    };
    const bench = new Bench({ limits: [limit] });
    const { grant } = bench.allowed(person('a'), 9);
    bench.now += 60_000;
    bench.allowed(person('b'), 1);
    expect(bench.plugin.size).toBe(1);
    bench.settle(undefined, { outcome: 'aborted', grant }, person('a'));
    expect(bench.plugin.size).toBe(1);
  });

  it('does not turn away the known when it is at its bound and a request needs no new key', () => {
    const bench = new Bench({ ...config, maxKeys: 1, limits: [{ ...config.limits[0], maxTokens: 5 }] });
    expect(bench.passing(6, person('a'))).toBe(5);
    bench.refused(person('b'));
  });

  it('passes its bound by the requests in flight alone, whose charges must not be lost', () => {
    const limit = { per: 'identity', type: 'tokens', maxTokens: 9, tokensPerFill: 9, fillInterval: '1h' };
    const bench = new Bench({ maxKeys: 1, limits: [limit] });
    for (const name of ['a', 'b']) bench.allowed(person(name));
    for (const name of ['a', 'b']) bench.settle(5, {}, person(name));
    expect(bench.plugin.size).toBe(2);
    bench.refused(person('c'));
    expect(bench.allowed(person('b')).headers?.['x-ratelimit-remaining']).toBe('4');
  });

  it('forgets no bucket that the very request takes from', () => {
    const one = { maxTokens: 1, tokensPerFill: 1, fillInterval: '1m' };
    const bench = new Bench({
      limits: [
        { ...one, per: 'all' },
        { ...one, per: 'identity' },
      ],
    });
    bench.allowed(person('a'));
    bench.now += 60_000;
    bench.allowed(person('b'));
    bench.refused(person('c'));
  });

  it('shrinks by itself when there is room', () => {
    const bench = new Bench({ ...config, maxKeys: 100_000 });
    for (let index = 0; index < 5000; index++) bench.allowed(person(`p${index}`));
    expect(bench.plugin.size).toBe(5000);
    bench.now += 60_000;
    bench.allowed(person('late'));
    expect(bench.plugin.size).toBe(1);
  });
});
