/**
 * Limits in Redis: one script for each decision, whatever the number of limits, by Redis's own clock.
 *
 * It knows amounts and keys, nothing of requests, people or headers.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type RedisLink, Script } from '../redis/link.ts';

/** How something is counted, and under which key. Amounts are whole numbers below 2^53. */
export interface Meter {
  key: string;
  /**
   * `fixed`: windows of the UTC clock. `sliding`: the last `span`, never more than `max` in any of them. `bucket`: GCRA,
   * `max` at once, `step` in each `span`. `leases`: what is reserved and nothing else.
   */
  kind: 'fixed' | 'sliding' | 'bucket' | 'leases';
  /** Milliseconds; `month` for the calendar's, with `fixed`. */
  span: number | 'month';
  /** `sliding`: milliseconds of a slice. `bucket`: what comes back in each span. Else 0. */
  step: number;
  max: number;
  /** For people who look into Redis. */
  unit: string;
}

/** What one limit is asked for. */
export interface Check extends Meter {
  /** Taken for good. With nothing to take or to reserve, one must be left all the same. */
  take: number;
  /** What must be had beside it, and what is reserved if there is so much. */
  least: number;
  most: number;
}

/** How one limit stands. Times are milliseconds from now. */
export interface Reading {
  agrees: boolean;
  /** Below zero while there is a debt. */
  left: number;
  /** Until nothing is used any more. */
  wholeMs: number;
  /** Until there is more than now. */
  moreMs: number;
  /** Until what was asked for can be had; endless when it never can. */
  waitMs: number;
  reserved: number;
}

export interface Decision {
  /** All limits agreed and have been taken from; else none has. */
  allowed: boolean;
  /** Names the reservations. */
  id: string;
  /** One for each check, in order. */
  readings: Reading[];
  /** When, by Redis's clock: milliseconds since 1970. */
  at: number;
}

/** What is given back and charged at the end. */
export interface Settlement extends Meter {
  reserved: number;
  used: number;
  /** Whether it may go below zero. */
  debt: boolean;
}

export interface EngineOptions {
  /** What all keys begin with. Braces in it keep them on one node of a cluster. */
  prefix: string;
  /** Milliseconds after which a reservation that is not renewed expires. */
  lifetimeMs: number;
}

/** How long a settlement is remembered, in milliseconds, so that a repeated one changes nothing. */
const SETTLED_MS = 3_600_000;
/** A reservation whose amount is not known here. */
const WHATEVER = -1;

/** See the head of this file. Every method throws RedisLost when there is no answer in time. */
export class Engine {
  readonly #link: RedisLink;
  readonly #options: EngineOptions;
  readonly #scripts: typeof SCRIPTS;

  /** @param scripts in place of its own, for tests that move Redis's clock */
  constructor(link: RedisLink, options: EngineOptions, scripts = SCRIPTS) {
    this.#link = link;
    this.#options = options;
    this.#scripts = scripts;
  }

  /** Takes and reserves at all limits, or at none. `id` must be new. */
  decide(checks: readonly Check[], id = newId()): Promise<Decision> {
    return this.#ask(checks, id, '1');
  }

  /** The same answer, but nothing changes. */
  peek(checks: readonly Check[]): Promise<Decision> {
    return this.#ask(checks, '', '0');
  }

  /**
   * Gives back the reservations of an id and charges what was used, once.
   *
   * @returns how far each limit was taken beyond its maximum; undefined when the id was settled before
   */
  async settle(id: string, settlements: readonly Settlement[]): Promise<number[] | undefined> {
    const keys = [this.#settled(id), ...settlements.map(({ key }) => this.#options.prefix + key)];
    const args = [id, String(this.#options.lifetimeMs), String(SETTLED_MS)];
    for (const one of settlements) args.push(...meterArgs(one), ...numbers(one.reserved, one.used, one.debt ? 1 : 0));
    const beyond = (await this.#link.run(this.#scripts.settle, keys, args)) as number[];
    return settlements.length > 0 && beyond.length === 0 ? undefined : beyond;
  }

  /** Gives back all that was reserved under an id whose decision never came. */
  async cancel(id: string, meters: readonly Meter[]): Promise<void> {
    await this.settle(
      id,
      meters.map((meter) => ({ ...meter, reserved: WHATEVER, used: 0, debt: true })),
    );
  }

  /** Lets reservations live for another lifetime. False when they were settled before. */
  async renew(id: string, held: readonly (Meter & { reserved: number })[]): Promise<boolean> {
    const keys = [this.#settled(id), ...held.map(({ key }) => this.#options.prefix + key)];
    const args = [id, String(this.#options.lifetimeMs)];
    for (const one of held) args.push(...meterArgs(one), ...numbers(one.reserved));
    return (await this.#link.run(this.#scripts.renew, keys, args)) === 1;
  }

  async #ask(checks: readonly Check[], id: string, taking: '0' | '1'): Promise<Decision> {
    const keys = checks.map(({ key }) => this.#options.prefix + key);
    const args = [id, String(this.#options.lifetimeMs), taking];
    for (const check of checks) args.push(...meterArgs(check), ...numbers(check.take, check.least, check.most));
    const answer = (await this.#link.run(this.#scripts.decide, keys, args)) as number[];
    const readings = checks.map((_, i) => readingOf(answer.slice(i * 6, i * 6 + 6)));
    return { id, readings, allowed: readings.every(({ agrees }) => agrees), at: answer.at(-1)! };
  }

  #settled(id: string): string {
    return `${this.#options.prefix}settled:${id}`;
  }
}

/** 96 random bits: the name of a decision. */
export function newId(): string {
  return randomBytes(12).toString('base64url');
}

function readingOf([agrees, left, wholeMs, moreMs, waitMs, reserved]: number[]): Reading {
  return {
    agrees: agrees === 1,
    left: left!,
    wholeMs: wholeMs!,
    moreMs: moreMs!,
    waitMs: waitMs === -1 ? Number.POSITIVE_INFINITY : waitMs!,
    reserved: reserved!,
  };
}

function meterArgs({ kind, span, step, max, unit }: Meter): string[] {
  return [kind, String(span), ...numbers(step, max), unit];
}

function numbers(...values: number[]): string[] {
  return values.map((value) => value.toFixed(0));
}

/** The scripts, each with the part that they share in front of it. */
export function scriptsWith(meters: string) {
  const script = (name: string) => new Script(`${meters}\n${lua(name)}`);
  return { decide: script('decide'), settle: script('settle'), renew: script('renew') };
}

/** The text of a script of this folder. */
export function lua(name: string): string {
  return readFileSync(new URL(`lua/${name}.lua`, import.meta.url), 'utf8');
}

/** What the engine runs. */
export const SCRIPTS = scriptsWith(lua('meters'));
