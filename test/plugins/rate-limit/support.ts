import { expect } from 'vitest';
import { readConfig } from '../../../plugins/rate-limit/config.ts';
import { RateLimit } from '../../../plugins/rate-limit/plugin.ts';
import type { Allow, LimitInput, ObserveInput, Reject, RequestFacts, Usage } from '../../../proto/contract.ts';
import { verdictProblem } from '../../../proto/verdict.ts';

/** Nothing listens there. */
export const NOWHERE = 'redis://127.0.0.1:1';

type Rest = Partial<Omit<LimitInput, 'request'>>;

/** A limiter, asked in few words. Every answer is held against the contract. */
export class Desk implements AsyncDisposable {
  readonly plugin: RateLimit;

  constructor(config: Record<string, unknown>, clock?: () => number) {
    this.plugin = new RateLimit(readConfig(config), clock);
  }

  /** Waits until Redis is connected. */
  async ready(): Promise<this> {
    await expect.poll(() => this.plugin.metrics(), { timeout: 10_000 }).toContain('wardgate_quota_redis_up 1');
    return this;
  }

  async ask(facts: Partial<RequestFacts> = {}, rest: Rest = {}) {
    const input: LimitInput = { request: factsOf(facts), estimatedInputTokens: 10, ...rest };
    const answer = await this.plugin.limit(input);
    expect(verdictProblem('limit', input, answer)).toBeUndefined();
    return answer;
  }

  async allowed(facts: Partial<RequestFacts> = {}, rest: Rest = {}): Promise<Allow> {
    const answer = await this.ask(facts, rest);
    expect(answer).toHaveProperty('allow');
    return (answer as { allow: Allow }).allow;
  }

  async refused(facts: Partial<RequestFacts> = {}, rest: Rest = {}): Promise<Reject> {
    const answer = await this.ask(facts, rest);
    expect(answer).toHaveProperty('reject');
    return (answer as { reject: Reject }).reject;
  }

  /** How many of `count` requests at once pass. */
  async passing(count: number, facts: Partial<RequestFacts> = {}, rest: Rest = {}): Promise<number> {
    const answers = await Promise.all(Array.from({ length: count }, () => this.ask(facts, rest)));
    return answers.filter((answer) => 'allow' in answer).length;
  }

  /** The end of a request that has used so many tokens. */
  async settle(grant: string | undefined, tokens?: number, rest: Partial<ObserveInput> = {}): Promise<void> {
    const usage: Usage | undefined = tokens === undefined ? undefined : { inputTokens: 0, outputTokens: tokens };
    const common = { request: factsOf(), status: 200, outcome: 'finished', streamed: false, durationMs: 1, trace: [] };
    await this.plugin.observe({ ...common, grant, usage, ...rest } as ObserveInput);
  }

  async renew(grant: string | undefined): Promise<void> {
    await this.plugin.renew({ request: factsOf(), grant: grant! });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.plugin.close();
  }
}

export function factsOf(facts: Partial<RequestFacts> = {}): RequestFacts {
  return { id: 'r1', method: 'POST', path: '/v1/chat/completions', route: '/', model: 'gpt-4o', ...facts };
}

/** A person of a tenant. */
export function person(subject: string, tenant?: string): Partial<RequestFacts> {
  return { identity: { subject, tenant } };
}

/** Who came with an API key that has a budget. */
export function keyHolder(id: string, budget?: object): Partial<RequestFacts> {
  return { identity: { subject: id, issuer: 'api-key-auth', claims: { 'api-key': { id, budget } } } };
}
