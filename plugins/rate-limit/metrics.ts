/**
 * What the plugin counts of itself, as Prometheus text: once for a process, so that figures go on when the config changes.
 * Labels are names from the config, never who asks.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Loss } from '../redis/link.ts';
import { NANO_USD } from './money.ts';

/** Seconds. */
const BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];

/** Figures of a plugin instance that are read when the metrics are. */
export interface Live {
  up(): boolean;
  /** Settlements that wait for Redis. */
  waiting(): number;
}

const registers = [new Registry()];
const live = new Set<Live>();

const decisions = counter('decisions_total', 'Requests decided, by outcome: admitted, refused, lost.', 'outcome');
const refusals = counter('refusals_total', 'Refusals, by the limit that takes longest.', 'limit');
const reservations = counter('reserved_total', 'Amounts reserved before the answer (cost: USD).', 'unit');
const settlements = counter('settled_total', 'Amounts charged after the answer (cost: USD).', 'unit');
const overshoot = counter('overshoot_total', 'Amounts charged beyond a limit (cost: USD).', 'unit');
const losses = counter('redis_lost_total', 'Scripts without an answer, by why.', 'loss');
const latency = new Histogram({
  name: 'wardgate_quota_redis_seconds',
  help: 'Time that Redis took, by script.',
  labelNames: ['script'],
  buckets: BUCKETS,
  registers,
});
gauge('redis_up', 'Whether a primary Redis is connected.', (all) => (all.every((one) => one.up()) ? 1 : 0));
gauge('unsettled', 'Settlements that wait for Redis to come back.', (all) =>
  all.reduce((sum, one) => sum + one.waiting(), 0),
);

/** Has an instance's figures read, until the answered function is called. */
export function register(instance: Live): () => void {
  live.add(instance);
  return () => void live.delete(instance);
}

/** All of it. */
export function metricsText(): Promise<string> {
  return registers[0]!.metrics();
}

export function decided(outcome: 'admitted' | 'refused' | 'lost'): void {
  decisions.inc({ outcome });
}

export function refused(limit: string): void {
  refusals.inc({ limit });
}

export function reserved(unit: string, amount: number): void {
  if (amount > 0) reservations.inc({ unit }, shown(unit, amount));
}

/** @param beyond how much of it went beyond the limit */
export function settled(unit: string, used: number, beyond: number): void {
  if (used > 0) settlements.inc({ unit }, shown(unit, used));
  if (beyond > 0) overshoot.inc({ unit }, shown(unit, beyond));
}

export function lost(loss: Loss): void {
  losses.inc({ loss });
}

/** Times a script, also one that fails. */
export async function timed<T>(script: 'decide' | 'renew' | 'settle', asked: Promise<T>): Promise<T> {
  const begun = performance.now();
  try {
    return await asked;
  } finally {
    latency.observe({ script }, (performance.now() - begun) / 1000);
  }
}

function counter<Label extends string>(name: string, help: string, label: Label): Counter<Label> {
  return new Counter({ name: `wardgate_quota_${name}`, help, labelNames: [label], registers });
}

function gauge(name: string, help: string, read: (all: Live[]) => number): void {
  const collect = function (this: Gauge) {
    this.set(read([...live]));
  };
  new Gauge({ name: `wardgate_quota_${name}`, help, registers, collect });
}

function shown(unit: string, amount: number): number {
  return unit === 'cost' ? amount / NANO_USD : amount;
}
