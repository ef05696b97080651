/** What is known of a plugin elsewhere: its description, and whether it can be reached. Every remote way has one. */
import type { Description } from '../../proto/contract.ts';
import type { ConnectionState, Endpoint } from './connection.ts';
import { sameDescription } from './description.ts';

export class Standing {
  description: Description | undefined;
  state: ConnectionState = 'down';
  problem: string | undefined = 'it has not been reached yet';
  private readonly endpoint: Endpoint;
  private readonly listeners: (() => void)[] = [];

  constructor(endpoint: Endpoint) {
    this.endpoint = endpoint;
  }

  onDescription(listener: () => void): void {
    this.listeners.push(listener);
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

/** An address fit for a log: a password may have been written into it. */
function withoutUserinfo(at: string): string {
  return at.replace(/\/\/[^/@]*@/, '//');
}

/** A plugin was reached and will not work as it is configured; the message says why, to the operator. */
export class Refusal extends Error {}
