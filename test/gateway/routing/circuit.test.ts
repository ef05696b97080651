/** The circuit breaker: by examples, and against a model of it under any sequence of events. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Circuit } from '../../../gateway/routing/circuit.ts';
import { TargetHealth } from '../../../gateway/routing/health.ts';

const POLICY = { failures: 3, cooldownMs: 1_000 };

function opened(): Circuit {
  const circuit = new Circuit();
  for (let i = 0; i < 3; i += 1) circuit.failed(circuit.enter(0), 0, POLICY);
  return circuit;
}

describe('S2-14: a circuit', () => {
  test('opens after so many failures in a row; a success between them starts the count again', () => {
    const circuit = new Circuit();
    for (const isOk of [false, false, true, false, false]) {
      const permit = circuit.enter(0);
      if (isOk) circuit.succeeded(permit);
      else circuit.failed(permit, 0, POLICY);
    }
    expect(circuit.isClosed).toBe(true);
    circuit.failed(circuit.enter(0), 0, POLICY);
    expect(circuit.isClosed).toBe(false);
  });

  test('lets nothing pass while open, and one probe when the cooldown is over', () => {
    const circuit = opened();
    expect(circuit.admits(999)).toBe(false);
    expect(circuit.admits(1_000)).toBe(true);
    circuit.enter(1_000);
    expect(circuit.admits(1_000)).toBe(false);
    expect(circuit.isProbing(1_000)).toBe(true);
  });

  test('closes when the probe goes well', () => {
    const circuit = opened();
    circuit.succeeded(circuit.enter(1_000));
    expect([circuit.isClosed, circuit.failures]).toEqual([true, 0]);
  });

  test('opens for another cooldown when the probe fails', () => {
    const circuit = opened();
    circuit.failed(circuit.enter(1_500), 1_600, POLICY);
    expect(circuit.opensAt(1_600)).toBe(2_600);
  });

  test('makes room for another probe when nobody waits for the first any more, and when its end is never told', () => {
    const circuit = opened();
    circuit.released(circuit.enter(1_000));
    expect(circuit.admits(1_000)).toBe(true);
    const lost = circuit.enter(1_000);
    expect(circuit.admits(60_999)).toBe(false);
    expect(circuit.admits(61_000)).toBe(true);
    circuit.succeeded(circuit.enter(61_000));
    circuit.failed(lost, 61_000, { failures: 1, cooldownMs: 1_000 });
    expect(circuit.isClosed).toBe(true);
  });

  test('closes on trial when a probe’s stream begins: it opens again if that breaks, and not if it is whole', () => {
    const broken = opened();
    const permit = broken.enter(1_000);
    broken.began(permit, POLICY);
    expect(broken.admits(1_000)).toBe(true);
    broken.failed(permit, 1_200, POLICY);
    expect(broken.opensAt(1_200)).toBe(2_200);
    const whole = opened();
    const other = whole.enter(1_000);
    whole.began(other, POLICY);
    whole.succeeded(other);
    expect(whole.failures).toBe(0);
  });

  test('a stream that has begun does not make up for failures: who always breaks in the middle is found out', () => {
    const circuit = new Circuit();
    for (let i = 0; i < 3; i += 1) {
      const permit = circuit.enter(0);
      circuit.began(permit, POLICY);
      circuit.failed(permit, 0, POLICY);
    }
    expect(circuit.isClosed).toBe(false);
  });

  test('forgets what began before it opened', () => {
    const circuit = new Circuit();
    const old = circuit.enter(0);
    for (let i = 0; i < 3; i += 1) circuit.failed(circuit.enter(0), 0, POLICY);
    circuit.succeeded(old);
    expect(circuit.isClosed).toBe(false);
    const probe = circuit.enter(1_000);
    circuit.failed(old, 1_000, POLICY);
    expect(circuit.isProbing(1_000)).toBe(true);
    circuit.succeeded(probe);
    expect(circuit.isClosed).toBe(true);
  });

  const TELLS = {
    succeed: (circuit: Circuit, permit: number) => circuit.succeeded(permit),
    fail: (circuit: Circuit, permit: number, now: number) => circuit.failed(permit, now, POLICY),
    release: (circuit: Circuit, permit: number) => circuit.released(permit),
  };
  type Step = ['wait', number] | ['enter'] | ['succeed' | 'fail' | 'release', number];
  const step: fc.Arbitrary<Step> = fc.oneof(
    fc.tuple(fc.constant('wait' as const), fc.integer({ min: 0, max: 40_000 })),
    fc.tuple(fc.constant('enter' as const)),
    fc.tuple(fc.constantFrom('succeed' as const, 'fail' as const, 'release' as const), fc.nat(20)),
  );

  test('never has two probes under way, and admits just what the model of it does', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const circuit = new Circuit();
        const model = new Model();
        const permits: number[] = [];
        let now = 0;
        for (const one of steps) {
          if (one[0] === 'wait') now += one[1];
          expect(circuit.admits(now)).toBe(model.admits(now));
          expect(circuit.isClosed).toBe(model.state === 'closed');
          if (one[0] === 'enter' && circuit.admits(now)) {
            permits.push(circuit.enter(now));
            model.enter(now);
          }
          if (one[0] === 'wait' || one[0] === 'enter' || permits.length === 0) continue;
          const at = one[1] % permits.length;
          TELLS[one[0]](circuit, permits[at]!, now);
          model.tell(at, one[0], now);
        }
      }),
    );
  });
});

/** The same in other words: attempts remember when they began, and what has ended since. */
class Model {
  state: 'closed' | 'open' | 'probing' = 'closed';
  private era = 0;
  private failures = 0;
  private until = 0;
  private readonly eras: number[] = [];
  private probe = -1;
  private probeAt = 0;

  admits(now: number): boolean {
    if (this.state === 'probing') return now >= this.probeAt + 60_000;
    return this.state === 'closed' || now >= this.until;
  }

  enter(now: number): void {
    if (this.state !== 'closed') {
      this.state = 'probing';
      this.era += 1;
      this.probe = this.eras.length;
      this.probeAt = now;
    }
    this.eras.push(this.era);
  }

  tell(attempt: number, what: 'succeed' | 'fail' | 'release', now: number): void {
    if (this.eras[attempt] !== this.era) return;
    if (what === 'release') {
      if (attempt === this.probe && this.state === 'probing') this.state = 'open';
    } else if (what === 'succeed') {
      this.state = 'closed';
      this.failures = 0;
    } else {
      this.failures += 1;
      if (this.state === 'closed' && this.failures < 3) return;
      this.state = 'open';
      this.until = now + 1_000;
      this.era += 1;
    }
  }
}

describe('S3-22: a target is', () => {
  test('healthy, degraded, failed and recovering', () => {
    const health = new TargetHealth('up', 'm');
    const states = [health.state(0)];
    health.failed(health.circuit.enter(0), 0, POLICY);
    states.push(health.state(0));
    for (let i = 0; i < 2; i += 1) health.failed(health.circuit.enter(0), 0, POLICY);
    states.push(health.state(0), health.state(1_000));
    const probe = health.circuit.enter(1_000);
    states.push(health.state(1_000));
    health.succeeded(probe, 1_000);
    states.push(health.state(1_000));
    health.cool(1_000, 1_000);
    states.push(health.state(1_999), health.state(2_000));
    expect(states).toEqual([
      'healthy',
      'degraded',
      'failed',
      'recovering',
      'recovering',
      'healthy',
      'degraded',
      'healthy',
    ]);
  });
});
