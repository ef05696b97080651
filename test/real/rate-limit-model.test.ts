/** The scripts against a model that remembers everything, with a clock that the test moves. */
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { type Check, Engine, lua, type Meter, scriptsWith } from '../../plugins/rate-limit/engine.ts';
import { RedisLink } from '../../plugins/redis/link.ts';
import { commandTo } from './redis.ts';
import { realServer } from './servers.ts';

const redis = realServer('redis');
const PREFIX = `test:${process.pid}:model:`;
const LIFETIME = 60_000;
/** 2026-01-31, 23:59:30 UTC. */
const START = Date.UTC(2026, 0, 31, 23, 59, 30);

const link = redis.here ? new RedisLink({ urls: [redis.url], deadlineMs: 10_000, maxInFlight: 100 }) : undefined;
const clock = `{ 0, redis.call('GET', '${PREFIX}clock') * 1000 }`;
const engine = () =>
  new Engine(
    link!,
    { prefix: PREFIX, lifetimeMs: LIFETIME },
    scriptsWith(lua('meters').replace(`redis.call('TIME')`, clock)),
  );
let runs = 0;

afterAll(() => link?.close());

interface Charge {
  at: number;
  amount: number;
}

/** One limit, by its definition: every charge and every reservation is remembered. */
class Model {
  readonly #meter: Omit<Meter, 'key'>;
  readonly #charges: Charge[] = [];
  readonly #held = new Map<string, { amount: number; until: number }>();
  readonly #settled = new Set<string>();
  #now = START;

  constructor(meter: Omit<Meter, 'key'>) {
    this.#meter = meter;
  }

  set now(now: number) {
    this.#now = now;
    for (const [id, { until }] of this.#held) if (until <= now) this.#held.delete(id);
  }

  get left(): number {
    const held = [...this.#held.values()].reduce((sum, { amount }) => sum + amount, 0);
    return Math.floor(this.#unused() + 1e-6) - held;
  }

  decide(id: string, { take, least, most }: Pick<Check, 'take' | 'least' | 'most'>): number | undefined {
    if (this.left < Math.max(1, take + least)) return undefined;
    this.#charge(take);
    const reserved = Math.min(most, Math.max(least, this.left));
    if (reserved > 0) this.#held.set(id, { amount: reserved, until: this.#now + LIFETIME });
    return reserved;
  }

  settle(id: string, used: number): void {
    if (this.#settled.has(id)) return;
    this.#settled.add(id);
    this.#held.delete(id);
    this.#charge(used);
  }

  renew(id: string, amount: number): void {
    if (!this.#settled.has(id)) this.#held.set(id, { amount, until: this.#now + LIFETIME });
  }

  #charge(amount: number): void {
    if (amount > 0) this.#charges.push({ at: this.#now, amount });
  }

  #unused(): number {
    const { kind, max } = this.#meter;
    if (kind === 'leases') return max;
    if (kind === 'sliding') return max - this.#slid();
    return kind === 'fixed' ? max - this.#inWindows() : this.#inBucket();
  }

  #slid(): number {
    const { span, step } = this.#meter;
    const slice = (at: number) => Math.floor(at / step);
    const counted = Math.ceil(((span as number) + step - 1) / step);
    const young = this.#charges.filter(({ at }) => slice(this.#now) - slice(at) < counted);
    return young.reduce((sum, { amount }) => sum + amount, 0);
  }

  /** Window by window, the debt of each carried into the next. */
  #inWindows(): number {
    let [used, window] = [0, this.#window(START)];
    const pass = (to: number) => {
      for (; window < to; window++) used = Math.max(0, used - this.#meter.max);
    };
    for (const { at, amount } of this.#charges) {
      pass(this.#window(at));
      used += amount;
    }
    pass(this.#window(this.#now));
    return used;
  }

  #window(at: number): number {
    const { span } = this.#meter;
    if (span !== 'month') return Math.floor(at / span);
    const date = new Date(at);
    return date.getUTCFullYear() * 12 + date.getUTCMonth();
  }

  #inBucket(): number {
    const { max, step, span } = this.#meter;
    let [level, since] = [max, START];
    const fill = (to: number) => {
      level = Math.min(max, level + ((to - since) * step) / (span as number));
      since = to;
    };
    for (const { at, amount } of this.#charges) {
      fill(at);
      level -= amount;
    }
    fill(this.#now);
    return level;
  }
}

const METERS: Record<string, Omit<Meter, 'key'>> = {
  'a log': { kind: 'sliding', span: 10_000, step: 1, max: 5, unit: 'requests' },
  slices: { kind: 'sliding', span: 10_000, step: 40, max: 50, unit: 'tokens' },
  'uneven slices': { kind: 'sliding', span: 10_000, step: 333, max: 50, unit: 'tokens' },
  'a fixed window': { kind: 'fixed', span: 10_000, step: 0, max: 50, unit: 'tokens' },
  'a month': { kind: 'fixed', span: 'month', step: 0, max: 50, unit: 'tokens' },
  'a bucket': { kind: 'bucket', span: 10_000, step: 7, max: 5, unit: 'requests' },
  leases: { kind: 'leases', span: 0, step: 0, max: 3, unit: 'concurrent' },
};

const amounts = fc.oneof(
  fc.constant({ take: 1, least: 0, most: 0 }),
  fc.constant({ take: 0, least: 0, most: 0 }),
  fc.constant({ take: 0, least: 1, most: 1 }),
  fc.record({ take: fc.nat(3), least: fc.nat(10), more: fc.nat(30) }).map(({ take, least, more }) => ({
    ...{ take, least },
    most: least + more,
  })),
);
type Step =
  | { do: 'decide'; amounts: Pick<Check, 'take' | 'least' | 'most'> }
  | { do: 'settle'; which: number; used: number }
  | { do: 'renew'; which: number }
  | { do: 'pass'; ms: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constant('decide' as const), amounts }),
  fc.record({ do: fc.constant('settle' as const), which: fc.nat(), used: fc.nat(40) }),
  fc.record({ do: fc.constant('renew' as const), which: fc.nat() }),
  fc.record({
    do: fc.constant('pass' as const),
    ms: fc.oneof(fc.nat(50), fc.nat(12_000), fc.constantFrom(10_000, 60_000, 9_999, 40 * 86_400_000)),
  }),
);

/** The scripts and the model side by side. */
class Pair {
  readonly #check: Meter;
  readonly #model: Model;
  readonly #engine = engine();
  readonly #admitted: [id: string, reserved: number][] = [];
  #now = START;

  constructor(meter: Omit<Meter, 'key'>) {
    this.#check = { key: `${runs++}`, ...meter };
    this.#model = new Model(meter);
  }

  async take(step: Step): Promise<void> {
    if (step.do === 'pass') await this.#pass(step.ms);
    else if (step.do === 'decide') await this.#decide(step.amounts);
    else if (this.#admitted.length > 0) {
      const [id, reserved] = this.#admitted[step.which % this.#admitted.length]!;
      if (step.do === 'settle') await this.#settle(id, reserved, step.used);
      else if (reserved > 0) await this.#renew(id, reserved);
    }
  }

  async expectSameLeft(): Promise<void> {
    const { readings } = await this.#engine.peek([{ ...this.#check, take: 0, least: 0, most: 0 }]);
    expect(readings[0]!.left).toBe(this.#model.left);
  }

  async #pass(ms: number): Promise<void> {
    this.#now += ms;
    this.#model.now = this.#now;
    await setClock(this.#now);
  }

  async #decide(amounts: Pick<Check, 'take' | 'least' | 'most'>): Promise<void> {
    const { allowed, id, readings } = await this.#engine.decide([{ ...this.#check, ...amounts }]);
    const expected = this.#model.decide(id, amounts);
    expect([allowed, allowed ? readings[0]!.reserved : undefined]).toEqual([expected !== undefined, expected]);
    if (expected !== undefined) this.#admitted.push([id, expected]);
  }

  async #settle(id: string, reserved: number, used: number): Promise<void> {
    await this.#engine.settle(id, [{ ...this.#check, reserved, used, debt: true }]);
    this.#model.settle(id, used);
  }

  async #renew(id: string, reserved: number): Promise<void> {
    await this.#engine.renew(id, [{ ...this.#check, reserved }]);
    this.#model.renew(id, reserved);
  }
}

describe.skipIf(!redis.here).each(Object.entries(METERS))('%s', (_name, meter) => {
  test('answers as the model does, whatever is asked and however time passes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
        const pair = new Pair(meter);
        await setClock(START);
        for (const one of steps) {
          await pair.take(one);
          await pair.expectSameLeft();
        }
      }),
      { numRuns: 60 },
    );
  });
});

test.skipIf(!redis.here)('all or none: of limits that disagree nothing is taken, whatever their number', async () => {
  await setClock(START);
  const asked = engine();
  const kinds = Object.values(METERS).map((meter, i) => ({ key: `all-${i}`, ...meter, take: 1, least: 0, most: 0 }));
  const full = { ...kinds[0]!, key: 'full', max: 1 };
  expect((await asked.decide([full])).allowed).toBe(true);
  const { allowed, readings } = await asked.decide([...kinds, full]);
  expect(allowed).toBe(false);
  expect(readings.map(({ agrees }) => agrees)).toEqual([...kinds.map(() => true), false]);
  for (const [i, { left }] of (await asked.peek(kinds)).readings.entries()) expect(left).toBe(kinds[i]!.max);
});

test.skipIf(!redis.here).each(Object.entries(METERS).filter(([, { kind }]) => kind !== 'leases'))(
  '%s: a clock that is set back, as by a failover, gives nothing twice',
  async (_name, meter) => {
    const asked = engine();
    const check = { key: `back-${runs++}`, ...meter, take: 1, least: 0, most: 0 };
    const ask = async (at: number) => {
      await setClock(at);
      return (await asked.decide([check])).allowed;
    };
    for (let i = 0; i < meter.max; i++) expect(await ask(START)).toBe(true);
    for (const back of [1, 999, 40_000, 3_600_000, 32 * 86_400_000]) expect(await ask(START - back)).toBe(false);
    expect(await ask(START)).toBe(false);
    expect(await ask(START + 86_400_000)).toBe(true);
  },
);

test.skipIf(!redis.here)('every key has an end', async () => {
  const names = (await commandTo(redis.url, ['KEYS', `${PREFIX}*`])) as string[];
  expect(names.length).toBeGreaterThan(10);
  for (const name of names.filter((one) => !one.endsWith('clock'))) {
    expect(await link!.send('PTTL', name), name).toBeGreaterThan(0);
  }
  await link!.send('DEL', `${PREFIX}clock`);
});

function setClock(ms: number): Promise<unknown> {
  return link!.send('SET', `${PREFIX}clock`, String(ms));
}
