import { describe, expect, test } from 'vitest';
import { Breaker } from '../../gateway/connect/breaker.ts';
import { PluginUnavailable } from '../../gateway/connect/connection.ts';
import { PluginFault } from '../../proto/contract.ts';

/** A breaker with a clock that stands still until it is moved. */
function breakerAt(options = {}) {
  const clock = { now: 0 };
  const breaker = new Breaker(options, () => clock.now);
  const away = async () => {
    breaker.enter();
    await breaker.watch(Promise.reject(new PluginUnavailable('away')), undefined).catch(() => {});
  };
  const well = async () => {
    breaker.enter();
    await breaker.watch(Promise.resolve(1), undefined);
  };
  return { clock, breaker, away, well };
}

describe('the breaker', () => {
  test('opens after five failures in a row, and refuses at once', async () => {
    const { breaker, away, well } = breakerAt();
    for (let i = 0; i < 4; i += 1) await away();
    await well();
    for (let i = 0; i < 4; i += 1) await away();
    expect(breaker.open).toBe(false);
    await away();
    expect(() => breaker.enter()).toThrow(expect.objectContaining({ name: 'PluginUnavailable', code: 'breaker_open' }));
  });

  test('lets one call through after a second, and closes when that goes well', async () => {
    const { clock, breaker, away } = breakerAt({ failures: 1 });
    await away();
    clock.now = 999;
    expect(() => breaker.enter()).toThrow();
    clock.now = 1_000;
    breaker.enter();
    expect(() => breaker.enter()).toThrow();
    await breaker.watch(Promise.resolve(1), undefined);
    expect(breaker.open).toBe(false);
    breaker.enter();
  });

  test('stays open twice as long after each trial that fails, up to the longest time', async () => {
    const { clock, breaker, away } = breakerAt({ failures: 1, openMs: 1_000, maxOpenMs: 3_000 });
    await away();
    for (const wait of [1_000, 2_000, 3_000, 3_000]) {
      clock.now += wait - 1;
      expect(() => breaker.enter()).toThrow();
      clock.now += 1;
      await away();
    }
  });

  test('does not count faults: a client that makes a plugin stumble must not shut it off for others', async () => {
    const { breaker } = breakerAt({ failures: 1 });
    await breaker.watch(Promise.reject(new PluginFault('plugin_threw', 'x')), undefined).catch(() => {});
    expect(breaker.open).toBe(false);
  });

  test('counts lateness, but not a client that has gone', async () => {
    const { breaker } = breakerAt({ failures: 1 });
    const gone = AbortSignal.abort(new Error('the client has gone'));
    await breaker.watch(Promise.reject(new PluginFault('cancelled', 'x')), gone).catch(() => {});
    expect(breaker.open).toBe(false);
    const late = AbortSignal.abort(Object.assign(new Error('late'), { name: 'TimeoutError' }));
    await breaker.watch(Promise.reject(new PluginFault('cancelled', 'x')), late).catch(() => {});
    expect(breaker.open).toBe(true);
  });

  test('a trial that nobody waits for any more makes room for another', async () => {
    const { clock, breaker, away } = breakerAt({ failures: 1 });
    await away();
    clock.now = 1_000;
    breaker.enter();
    const gone = AbortSignal.abort(new Error('the client has gone'));
    await breaker.watch(Promise.reject(new PluginFault('cancelled', 'x')), gone).catch(() => {});
    expect(() => breaker.enter()).not.toThrow();
  });
});
