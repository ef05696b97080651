/** One request's way through the targets: what moves on, what is tried again and when, and what is left alone. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type ErrorCode, GatewayError } from '../../../gateway/errors.ts';
import { compileCondition } from '../../../gateway/routing/condition.ts';
import { FAILED, failure, LATE, limited, modelOf, run, targetOf, UNREACHABLE } from './models.ts';

const fine = () => undefined;

/** Has a target fail until its circuit opens. */
function breakDown({ model, clock }: ReturnType<typeof modelOf>, name: string): void {
  const { health } = model.targets.find(({ provider }) => provider.name === name)!;
  for (let i = 0; i < 5; i += 1) health.failed(health.circuit.enter(clock.now), clock.now, model.policy.breaker!);
}

function thrownBy(action: () => unknown): GatewayError {
  try {
    action();
  } catch (error) {
    if (error instanceof GatewayError) return error;
  }
  throw new Error('it threw no GatewayError');
}

describe('S2-13, S1-78: by default', () => {
  const passing: [string, GatewayError][] = [
    ['429', limited()],
    ['408', failure('upstream_timeout', { status: 408 })],
    ['409', failure('upstream_invalid_request', { status: 409 })],
    ['500', FAILED],
    ['503', failure('upstream_overloaded', { status: 503 })],
    ['529', failure('upstream_overloaded', { status: 529 })],
    ['a timeout', LATE],
    ['a lost connection', UNREACHABLE],
    ['an unreadable answer', failure('upstream_bad_answer')],
    ['a stream that broke', failure('stream_broken')],
    ['a field that this target has no word for', failure('unsupported_field')],
  ];
  test.each(passing)('%s moves on to the next target at once', (_title, failed) => {
    const one = modelOf(['a', 'b']);
    expect(run(one.plan(), (name) => (name === 'a' ? failed : undefined))).toEqual(['a', 'b']);
    expect(one.told[`movedOn ${failed.code}`]).toBe(1);
  });

  const lasting: [string, GatewayError][] = [
    ...[400, 404, 413, 422].map((status): [string, GatewayError] => [
      String(status),
      failure('upstream_invalid_request', { status }),
    ]),
    ['a refused key', failure('upstream_refused_key', { status: 401 })],
    ['a defect of our own', failure('internal')],
  ];
  test.each(lasting)('%s does not', (_title, failed) => {
    expect(run(modelOf(['a', 'b']).plan(), () => failed)).toEqual(['a']);
  });

  test('each target is asked once; a connection that broke is tried once more at the end', () => {
    expect(run(modelOf(['a', 'b']).plan(), () => FAILED)).toEqual(['a', 'b']);
    expect(run(modelOf(['a']).plan(), () => FAILED)).toEqual(['a']);
    expect(run(modelOf(['a']).plan(), () => UNREACHABLE)).toEqual(['a', 'a after 37.5']);
    expect(run(modelOf(['a', 'b']).plan(), () => UNREACHABLE)).toEqual(['a', 'b', 'a after 37.5']);
  });
});

describe('S4-20: what is moved on from', () => {
  const on = (...triggers: (number | string)[]) => ({ retry: { on: new Set(triggers) } });

  test('is the config’s to say, also a wrong key and a client’s mistake', () => {
    const codes = on(400, 401, 403, 404, 429, '5xx');
    for (const status of [400, 404]) {
      const failed = failure('upstream_invalid_request', { status });
      expect(run(modelOf(['a', 'b'], codes).plan(), (name) => (name === 'a' ? failed : undefined))).toEqual(['a', 'b']);
    }
    for (const status of [401, 403]) {
      const failed = failure('upstream_refused_key', { status });
      expect(run(modelOf(['a', 'b'], codes).plan(), (name) => (name === 'a' ? failed : undefined))).toEqual(['a', 'b']);
    }
    expect(run(modelOf(['a', 'b'], codes).plan(), () => UNREACHABLE)).toEqual(['a']);
  });

  test('with `attempts: 2` is two tries in total: a target each, or both at the only one', () => {
    const two = { retry: { attempts: 2 } };
    expect(run(modelOf(['a', 'b', 'c'], two).plan(), () => FAILED)).toEqual(['a', 'b']);
    expect(run(modelOf(['a'], two).plan(), () => FAILED)).toEqual(['a', 'a after 37.5']);
  });

  test('S1-76, S1-77: with `attempts: 1` the first call shows the 429 and the second is served elsewhere', () => {
    const one = modelOf(['a', 'b'], { retry: { attempts: 1 } });
    const answer = (name: string) => (name === 'a' ? limited(60_000) : undefined);
    expect(run(one.plan(), answer)).toEqual(['a']);
    expect(run(one.plan(), answer)).toEqual(['b']);
    one.clock.now = 60_000;
    expect(run(one.plan(), answer)).toEqual(['a']);
  });

  test('a wrong key opens the circuit where it is moved on from; a client’s mistake never does', () => {
    const one = modelOf(['a', 'b'], on('4xx'));
    const failing = (code: ErrorCode, status: number) => {
      for (let i = 0; i < 10; i += 1) run(one.plan(), (name) => (name === 'a' ? failure(code, { status }) : undefined));
      return one.model.targets[0]!.health.state(one.clock.now);
    };
    expect(failing('upstream_invalid_request', 400)).toBe('healthy');
    expect(failing('upstream_refused_key', 401)).toBe('failed');
  });
});

describe('S2-13: a target that is tried several times', () => {
  test('is waited for, ever longer, up to a second; then comes the next', () => {
    const one = modelOf(['a', 'b'], { retry: { perTarget: 3 }, budget: { ratio: 0, perSecond: 100 } });
    one.clock.random = () => 1;
    expect(run(one.plan(), () => FAILED)).toEqual(['a', 'a after 50', 'a after 100', 'b', 'b after 50', 'b after 100']);
    const long = modelOf(['a'], { retry: { perTarget: 8 }, breaker: undefined });
    long.clock.random = () => 1;
    expect(run(long.plan(), () => FAILED).slice(4)).toEqual([
      'a after 400',
      'a after 800',
      'a after 1000',
      'a after 1000',
    ]);
  });

  test('is waited for half as long at the least, so that those who failed together part', () => {
    const one = modelOf(['a'], { retry: { perTarget: 2 } });
    one.clock.random = () => 0;
    expect(run(one.plan(), () => FAILED)).toEqual(['a', 'a after 25']);
  });

  test('is left as soon as its circuit opens', () => {
    const breaker = { failures: 2, cooldownMs: 10_000 };
    expect(run(modelOf(['a', 'b'], { retry: { perTarget: 4 }, breaker }).plan(), () => FAILED)).toEqual([
      'a',
      'a after 37.5',
      'b',
      'b after 37.5',
    ]);
  });

  test('is asked again when all have failed, while there are attempts', () => {
    expect(run(modelOf(['a', 'b'], { retry: { attempts: 4 } }).plan(), () => FAILED)).toEqual([
      'a',
      'b',
      'a after 37.5',
      'b after 37.5',
    ]);
  });

  test('is not asked again beyond the retry budget, while another target still is', () => {
    const one = modelOf(['a', 'b'], { retry: { perTarget: 3 }, budget: { ratio: 0, perSecond: 1 } });
    expect(run(one.plan(), () => FAILED)).toEqual(['a', 'a after 37.5', 'b']);
    expect(run(one.plan(), () => FAILED)).toEqual(['a', 'b']);
    expect(one.told.retried).toBe(1);
  });

  test('is not asked again when the time for the whole request is up', () => {
    const timeouts = { attempt: undefined, firstToken: undefined, stall: undefined, total: 1_000 };
    const one = modelOf(
      [
        { name: 'a', timeouts },
        { name: 'b', timeouts },
      ],
      { retry: { attempts: 9 } },
    );
    const asked = run(one.plan(), () => {
      one.clock.now += 400;
      return FAILED;
    });
    expect(asked).toEqual(['a', 'b', 'a after 37.5']);
  });

  test('may take as long as it may, and no longer than the whole request', () => {
    const timeouts = { attempt: 700, firstToken: undefined, stall: undefined, total: 1_000 };
    const one = modelOf([{ name: 'a', timeouts }, { name: 'b', timeouts }, 'c']);
    const plan = one.plan();
    const given = [plan.next()!.timeoutMs];
    one.clock.now = 650;
    given.push(plan.next(FAILED)!.timeoutMs, plan.next(FAILED)!.timeoutMs);
    expect(given).toEqual([700, 350, undefined]);
  });
});

describe('Retry-After', () => {
  test('is waited for at the only target, where another try is wanted', () => {
    const one = modelOf(['a'], { retry: { attempts: 2 } });
    expect(run(one.plan(), (_name, attempt) => (attempt === 1 ? limited(3_000) : undefined))).toEqual([
      'a',
      'a after 3000',
    ]);
  });

  test('is not waited for when it is too long: the client is told instead', () => {
    const one = modelOf(['a'], { retry: { attempts: 2 } });
    expect(run(one.plan(), () => limited(11_000))).toEqual(['a']);
  });

  test('leaves the target alone for as long, for every request', () => {
    const one = modelOf(['a', 'b']);
    run(one.plan(), (name) => (name === 'a' ? limited(7_000) : undefined));
    expect(run(one.plan(), fine)).toEqual(['b']);
    one.clock.now = 6_999;
    expect(run(one.plan(), fine)).toEqual(['b']);
    one.clock.now = 7_000;
    expect(run(one.plan(), fine)).toEqual(['a']);
    expect(one.told['cooled a 7000']).toBe(1);
  });

  test('is ten seconds when it is missing, and five minutes at most', () => {
    const one = modelOf(['a', 'b', 'c']);
    run(one.plan(), (name) => (name === 'c' ? undefined : name === 'a' ? limited() : limited(86_400_000)));
    expect(one.told).toMatchObject({ 'cooled a 10000': 1, 'cooled b 300000': 1 });
  });

  test('counts of an overloaded target as well', () => {
    const one = modelOf(['a', 'b']);
    run(one.plan(), (name) =>
      name === 'a' ? failure('upstream_overloaded', { status: 503, retryAfterMs: 5_000 }) : undefined,
    );
    expect(run(one.plan(), fine)).toEqual(['b']);
  });

  test('with all targets over their limits the one whose time is up first is asked rather than none', () => {
    const one = modelOf(['a', 'b']);
    run(one.plan(), (name) => (name === 'a' ? limited(9_000) : limited(4_000)));
    expect(run(one.plan(), fine)).toEqual(['b']);
  });

  test('still holds when an older request goes well meanwhile, and is over when a younger one does', () => {
    const one = modelOf(['a', 'b']);
    const older = one.plan();
    const { target } = older.next()!;
    one.clock.now = 1;
    run(one.plan(), (name) => (name === 'a' ? limited(60_000) : limited(90_000)));
    older.tell(target, { ok: true, durationMs: 5 });
    expect(target.health.isCooling(one.clock.now)).toBe(true);
    one.clock.now = 2;
    expect(run(one.plan(), fine)).toEqual(['a']);
    expect(target.health.isCooling(one.clock.now)).toBe(false);
  });

  test('that is shorter than an earlier one does not end that one', () => {
    const one = modelOf(['a', 'b']);
    const [older, newer] = [one.plan(), one.plan()];
    const { target } = older.next()!;
    newer.next();
    older.tell(target, { ok: false, code: 'upstream_rate_limited', retryAfterMs: 9_000, durationMs: 1 });
    newer.tell(target, { ok: false, code: 'upstream_rate_limited', retryAfterMs: 1_000, durationMs: 1 });
    one.clock.now = 8_999;
    expect(run(one.plan(), fine)).toEqual(['b']);
    expect(one.told).toEqual({ 'cooled a 9000': 1 });
  });

  test('of an only target does not lock anybody out', () => {
    const one = modelOf(['a']);
    run(one.plan(), () => limited(60_000));
    expect(run(one.plan(), fine)).toEqual(['a']);
  });

  test('a limit does not open the circuit', () => {
    const one = modelOf(['a']);
    for (let i = 0; i < 20; i += 1) run(one.plan(), () => limited(1_000));
    expect(one.model.targets[0]!.health.circuit.isClosed).toBe(true);
  });
});

describe('S2-14: a broken target', () => {
  test('is not asked, until one request tries it after the cooldown', () => {
    const one = modelOf(['a', 'b']);
    breakDown(one, 'a');
    expect(run(one.plan(), fine)).toEqual(['b']);
    one.clock.now = 10_000;
    const probe = one.plan();
    expect(probe.next()!.target.provider.name).toBe('a');
    expect(run(one.plan(), fine)).toEqual(['b']);
    probe.tell(one.model.targets[0]!, { ok: true, durationMs: 1 });
    expect(run(one.plan(), fine)).toEqual(['a']);
  });

  test('when all are, the client is told at once, and until when', () => {
    const one = modelOf(['a', 'b']);
    breakDown(one, 'a');
    one.clock.now = 2_500;
    breakDown(one, 'b');
    const error = thrownBy(() => one.plan().next());
    expect([error.code, error.status, error.details.headers]).toEqual([
      'upstream_overloaded',
      503,
      { 'retry-after': '8' },
    ]);
    expect(error.message).toContain('Try again in 8 seconds');
  });

  test('that is the last one left ends the way: the failure of the one that was asked is told', () => {
    const one = modelOf(['a', 'b']);
    breakDown(one, 'b');
    expect(run(one.plan(), () => FAILED)).toEqual(['a']);
  });

  test('who goes away, or is too slow against another, says nothing of the target', () => {
    const one = modelOf(['a']);
    for (let i = 0; i < 20; i += 1) {
      const plan = one.plan();
      plan.tell(plan.next()!.target, { ok: false, durationMs: 1 });
    }
    expect(one.model.targets[0]!.health.state(0)).toBe('healthy');
  });

  test('a told end counts once', () => {
    const one = modelOf(['a']);
    const plan = one.plan();
    const { target } = plan.next()!;
    for (let i = 0; i < 20; i += 1) plan.tell(target, { ok: false, code: 'upstream_failed', durationMs: 1 });
    expect(target.health.circuit.failures).toBe(1);
  });

  test('`breaker: false` never stops asking', () => {
    const one = modelOf(['a'], { breaker: undefined });
    for (let i = 0; i < 20; i += 1) run(one.plan(), () => FAILED);
    expect(run(one.plan(), fine)).toEqual(['a']);
  });
});

describe('conditions', () => {
  const big = compileCondition('promptTokens > 1000');

  test('S3-22: a target is there for the requests that it is meant for', () => {
    const one = modelOf([{ name: 'long', when: big }, 'a']);
    expect(run(one.plan({ promptTokens: 2_000 }), () => FAILED)).toEqual(['long', 'a']);
    expect(run(one.plan({ promptTokens: 10 }), () => FAILED)).toEqual(['a']);
  });

  test('a request that no target is meant for is refused by name', () => {
    const error = thrownBy(() =>
      modelOf([{ name: 'long', when: big }])
        .plan({ model: 'mine' })
        .next(),
    );
    expect([error.code, error.details.param]).toEqual(['model_not_found', 'model']);
    expect(error.message).toContain('“mine”');
  });

  test('one that cannot be evaluated is not true, and is counted', () => {
    const one = modelOf([{ name: 'x', when: compileCondition('headers["n"].size() / 0 == 1') }, 'a']);
    expect(run(one.plan({ headers: { n: '1' } }), fine)).toEqual(['a']);
    expect(one.told.conditionFailed).toBe(1);
    expect(run(one.plan(), fine)).toEqual(['a']);
    expect(one.told.conditionFailed).toBe(1);
  });
});

describe('S3-22: the kinds of fallback', () => {
  const tooLong = new GatewayError('upstream_invalid_request', 'too long', {
    status: 400,
    publicCode: 'context_length_exceeded',
  });

  test('a prompt that is too long goes to the targets for such, and only there', () => {
    const one = modelOf(['a', 'b']);
    one.model.fallbacks.contextWindow = [targetOf('long')];
    expect(run(one.plan(), (name) => (name === 'long' ? undefined : tooLong))).toEqual(['a', 'long']);
    expect(run(one.plan(), () => tooLong)).toEqual(['a', 'long']);
    expect(run(modelOf(['a', 'b']).plan(), () => tooLong)).toEqual(['a']);
  });

  test('so does what a content policy refuses', () => {
    const one = modelOf(['a']);
    one.model.fallbacks.contentPolicy = [targetOf('b'), targetOf('c')];
    const refused = new GatewayError('upstream_invalid_request', 'no', { status: 400, publicCode: 'content_filter' });
    const answers: Record<string, GatewayError> = { a: refused, b: FAILED };
    expect(run(one.plan(), (name) => answers[name])).toEqual(['a', 'b', 'c']);
    expect(run(one.plan(), (name) => (name === 'a' ? tooLong : undefined))).toEqual(['a']);
  });
});

describe('a hedge', () => {
  test('is sent to another target after the time of the config, and counted by its end', () => {
    const one = modelOf(['a', 'b'], { hedgeAfter: 300 });
    for (const [ok, code] of [[true], [false], [false, 'upstream_failed']] as [boolean, ErrorCode?][]) {
      const plan = one.plan();
      const first = plan.next()!;
      expect(plan.hedgeAfterMs).toBe(300);
      const second = plan.hedge()!;
      expect([first.target.provider.name, second.target.provider.name]).toEqual(['a', 'b']);
      expect(plan.hedge()).toBeUndefined();
      plan.tell(second.target, { ok, code, durationMs: 1 });
      plan.tell(first.target, { ok: !ok, durationMs: 1 });
    }
    expect(one.told).toEqual({ 'hedge won': 1, 'hedge lost': 1, 'hedge failed': 1 });
  });

  test('waits for what 19 answers in 20 need, once that is known', () => {
    const one = modelOf(['a', 'b'], { hedgeAfter: 'p95' });
    for (let i = 1; i <= 20; i += 1) {
      const plan = one.plan();
      const { target } = plan.next()!;
      expect(plan.hedgeAfterMs).toBeUndefined();
      plan.began(target, i * 10);
      plan.tell(target, { ok: true, durationMs: 1_000 });
    }
    const plan = one.plan();
    plan.next();
    expect(plan.hedgeAfterMs).toBe(200);
  });

  test('is not sent where there is no second target, none that is well, or none left in the budget', () => {
    const alone = modelOf(['a'], { hedgeAfter: 300 }).plan();
    alone.next();
    expect([alone.hedgeAfterMs, alone.hedge()]).toEqual([undefined, undefined]);
    const sick = modelOf(['a', 'b'], { hedgeAfter: 300 });
    breakDown(sick, 'b');
    const beside = sick.plan();
    beside.next();
    expect(beside.hedge()).toBeUndefined();
    const poor = modelOf(['a', 'b'], { hedgeAfter: 300, budget: { ratio: 0, perSecond: 0 } });
    const plan = poor.plan();
    plan.next();
    expect(plan.hedge()).toBeUndefined();
    expect(poor.told).toEqual({ 'hedge denied': 1 });
  });
});

describe('what the client is told when all have failed', () => {
  function verdictOf(answers: Record<string, GatewayError>): GatewayError {
    const plan = modelOf(Object.keys(answers)).plan();
    let failed: GatewayError | undefined;
    for (let next = plan.next(); next !== undefined; next = plan.next(failed)) {
      failed = answers[next.target.provider.name]!;
      plan.tell(next.target, { ok: false, code: failed.code, durationMs: 1 });
    }
    return plan.verdict(failed!);
  }

  test('S2-13: of several providers, each with its reason', () => {
    const error = verdictOf({ a: FAILED, b: LATE, c: limited(1_000) });
    expect([error.code, error.status]).toEqual(['upstream_failed', 502]);
    expect(error.message).toBe(
      'All providers failed: “a” (failed), “b” (too slow), “c” (at its rate limit). Try again in a moment.',
    );
  });

  test('of one, and of a client’s own mistake, the failure itself', () => {
    expect(verdictOf({ a: FAILED })).toBe(FAILED);
    const refused = failure('upstream_invalid_request', { status: 400 });
    expect(verdictOf({ a: FAILED, b: refused })).toBe(refused);
  });

  test('of nothing but limits, the one that ends first', () => {
    const first = limited(2_000);
    expect(verdictOf({ a: limited(9_000), b: first, c: limited(5_000) })).toBe(first);
  });
});

test('whatever the targets do, a way ends, asks nobody beyond the attempts, and waits for nobody too long', () => {
  const code = fc.constantFrom<GatewayError | undefined>(
    FAILED,
    LATE,
    UNREACHABLE,
    limited(),
    limited(500),
    limited(1e9),
    failure('upstream_invalid_request', { status: 400 }),
    failure('unsupported_field'),
    undefined,
  );
  const settings = fc.record({
    size: fc.integer({ min: 1, max: 5 }),
    attempts: fc.option(fc.integer({ min: 1, max: 12 }), { nil: undefined }),
    perTarget: fc.integer({ min: 1, max: 4 }),
    strategy: fc.constantFrom(
      'priority' as const,
      'weighted' as const,
      'round-robin' as const,
      'least-latency' as const,
    ),
    failures: fc.integer({ min: 1, max: 5 }),
  });
  fc.assert(
    fc.property(settings, fc.array(fc.array(code, { minLength: 1 }), { maxLength: 20 }), (given, requests) => {
      const names = Array.from({ length: given.size }, (_, i) => `t${i}`);
      const one = modelOf(names, {
        strategy: given.strategy,
        retry: { attempts: given.attempts, perTarget: given.perTarget },
        breaker: { failures: given.failures, cooldownMs: 1_000 },
      });
      for (const answers of requests) {
        let at = 0;
        let notSent = 0;
        let asked: string[];
        try {
          asked = run(one.plan(), () => {
            const answer = answers[at++ % answers.length];
            if (answer?.code === 'unsupported_field') notSent += 1;
            return answer;
          });
        } catch (error) {
          // All circuits are open: time heals them.
          expect((error as GatewayError).code).toBe('upstream_overloaded');
          one.clock.now += 1_000;
          continue;
        }
        expect(asked.length).toBeGreaterThan(0);
        expect(asked.length - notSent).toBeLessThanOrEqual(given.attempts ?? given.size * given.perTarget + 1);
        expect(notSent).toBeLessThanOrEqual(given.size);
        for (const one of asked) expect(Number(/after (.*)/.exec(one)?.[1] ?? 0)).toBeLessThanOrEqual(10_000);
        one.clock.now += 100;
      }
    }),
  );
});
