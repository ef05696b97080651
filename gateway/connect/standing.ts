/** What is known of a plugin elsewhere: its description, and whether it can be reached. Every remote way has one. */
import type { CallOptions, Description, Hook } from '../../proto/contract.ts';
import type { Connection, ConnectionState, Endpoint, HookInput } from './connection.ts';
import { sameDescription } from './description.ts';

class Standing {
  description: Description | undefined;
  state: ConnectionState = 'down';
  problem: string | undefined = 'it has not been reached yet';
  private readonly endpoint: Endpoint;
  private readonly listeners = new Set<() => void>();

  constructor(endpoint: Endpoint) {
    this.endpoint = endpoint;
  }

  onDescription(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  /** It was reached, and is what it says. */
  up(description: Description): void {
    const changed = this.state !== 'up';
    this.state = 'up';
    this.problem = undefined;
    if (changed) this.note('info', 'the plugin can be asked');
    if (sameDescription(this.description, description)) return;
    this.description = description;
    for (const listener of this.listeners) listener();
  }

  /** It cannot be reached, or will not do what is asked of it. Each change is logged once. */
  out(state: 'down' | 'refused', problem: string): void {
    const changed = this.state !== state || this.problem !== problem;
    this.state = state;
    this.problem = problem;
    if (changed) this.note('warn', state === 'down' ? 'the plugin is down' : 'the plugin refuses');
  }

  private note(level: 'info' | 'warn', message: string): void {
    const { name, at, log } = this.endpoint;
    log[level]({ plugin: name, at: withoutUserinfo(at), problem: this.problem }, message);
  }
}

/** A connection that tells what its standing is. */
export abstract class StandingConnection implements Connection {
  protected readonly standing: Standing;

  constructor(endpoint: Endpoint) {
    this.standing = new Standing(endpoint);
  }

  get description(): Description | undefined {
    return this.standing.description;
  }

  get state(): ConnectionState {
    return this.standing.state;
  }

  get problem(): string | undefined {
    return this.standing.problem;
  }

  onDescription(listener: () => void): () => void {
    return this.standing.onDescription(listener);
  }

  abstract ask<H extends Hook>(hook: H, input: HookInput[H], options?: CallOptions): unknown | Promise<unknown>;
  abstract close(): Promise<void>;
}

/** An address fit for a log: a password may have been written into it. */
function withoutUserinfo(at: string): string {
  return at.replace(/\/\/[^/@]*@/, '//');
}

/** A plugin was reached and will not work as it is configured; the message says why, to the operator. */
export class Refusal extends Error {}
