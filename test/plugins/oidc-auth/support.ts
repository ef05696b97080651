/** Asking the plugin as the core does, and reading what it says. */
import { expect } from 'vitest';
import { oidcAuth } from '../../../plugins/oidc-auth/plugin.ts';
import {
  type AllowOrReject,
  type AuthenticateInput,
  ConfigProblem,
  type Identity,
  type Plugin,
  type Reject,
} from '../../../proto/contract.ts';
import { verdictProblem } from '../../../proto/verdict.ts';
import type { TestIssuer } from '../../support/issuer.ts';

/** A config for one issuer; cool-downs are short, so that tests need not wait. */
export function configOf(
  issuer: TestIssuer,
  more: Record<string, unknown> = {},
  settings: Record<string, unknown> = {},
) {
  return {
    issuers: [{ issuer: issuer.url, audience: 'account', ...more }],
    keyCooldown: '20ms',
    ...settings,
  };
}

/** A plugin that is closed at the end of its block. */
export function pluginFor(config: unknown): Plugin & AsyncDisposable {
  const plugin = oidcAuth.create(config);
  return Object.assign(plugin, { [Symbol.asyncDispose]: async () => plugin.close?.() });
}

export function inputWith(headers: Record<string, string> = {}, more: object = {}): AuthenticateInput {
  return { request: { id: 'r1', method: 'POST', path: '/v1/chat/completions', route: '/', headers, ...more } };
}

/** Asks, and checks that the contract accepts the answer. */
export async function ask(plugin: Plugin, headers: Record<string, string>, more: object = {}): Promise<AllowOrReject> {
  const input = inputWith(headers, more);
  const answer = await plugin.authenticate!(input);
  expect(verdictProblem('authenticate', input, answer)).toBeUndefined();
  return answer;
}

export function bearer(plugin: Plugin, token: string): Promise<AllowOrReject> {
  return ask(plugin, { authorization: `Bearer ${token}` });
}

export function identityIn(answer: AllowOrReject): Identity {
  expect(answer).toHaveProperty('allow.identity');
  return (answer as { allow: { identity: Identity } }).allow.identity;
}

export function rejection(answer: AllowOrReject): Reject {
  expect(answer).toHaveProperty('reject');
  return (answer as { reject: Reject }).reject;
}

/** The reason that goes into the log. */
export function reasonIn(answer: AllowOrReject): string | undefined {
  return rejection(answer)
    .findings?.map(({ label }) => label)
    .join();
}

export function problemsOf(config: unknown): { path: (string | number)[]; message: string }[] {
  try {
    void oidcAuth.create(config).close?.();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigProblem);
    return (error as ConfigProblem).problems;
  }
  return [];
}
