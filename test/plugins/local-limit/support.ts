import { expect } from 'vitest';
import { readConfig } from '../../../plugins/local-limit/config.ts';
import { LocalLimit } from '../../../plugins/local-limit/plugin.ts';
import type {
  Allow,
  AllowOrReject,
  LimitInput,
  ObserveInput,
  Reject,
  RequestFacts,
  Usage,
} from '../../../proto/contract.ts';
import { verdictProblem } from '../../../proto/verdict.ts';

/** A limiter whose clock a test moves, asked in few words. Every answer is held against the contract. */
export class Bench {
  now = 1_000_000;
  readonly plugin: LocalLimit;

  constructor(config: unknown) {
    this.plugin = new LocalLimit(readConfig(config), () => this.now);
  }

  ask(facts: Partial<RequestFacts> = {}, estimatedInputTokens = 10, maxOutputTokens?: number): AllowOrReject {
    const input: LimitInput = { request: factsOf(facts), estimatedInputTokens, maxOutputTokens };
    const answer = this.plugin.limit(input);
    expect(verdictProblem('limit', input, answer)).toBeUndefined();
    return answer;
  }

  allowed(facts: Partial<RequestFacts> = {}, estimatedInputTokens = 10, maxOutputTokens?: number): Allow {
    const answer = this.ask(facts, estimatedInputTokens, maxOutputTokens);
    expect(answer).toHaveProperty('allow');
    return (answer as { allow: Allow }).allow;
  }

  refused(facts: Partial<RequestFacts> = {}, estimatedInputTokens = 10, maxOutputTokens?: number): Reject {
    const answer = this.ask(facts, estimatedInputTokens, maxOutputTokens);
    expect(answer).toHaveProperty('reject');
    return (answer as { reject: Reject }).reject;
  }

  /** How many of `count` requests pass. */
  passing(count: number, facts: Partial<RequestFacts> = {}): number {
    return Array.from({ length: count }, () => this.ask(facts)).filter((answer) => 'allow' in answer).length;
  }

  settle(tokens: number | undefined, rest: Partial<ObserveInput> = {}, facts: Partial<RequestFacts> = {}): void {
    const usage: Usage | undefined = tokens === undefined ? undefined : { inputTokens: 0, outputTokens: tokens };
    this.plugin.observe({
      request: factsOf(facts),
      status: 200,
      outcome: 'finished',
      streamed: false,
      durationMs: 1,
      trace: [],
      usage,
      ...rest,
    });
  }
}

function factsOf(facts: Partial<RequestFacts>): RequestFacts {
  return { id: 'r1', method: 'POST', path: '/v1/chat/completions', route: '/', model: 'gpt-4o', ...facts };
}

/** A person of a tenant, in groups. */
export function person(subject: string, tenant?: string, groups?: string[]): Partial<RequestFacts> {
  return { identity: { subject, tenant, groups } };
}
