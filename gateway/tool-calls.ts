/**
 * Tool calls that a model asks for, on their way to the client that would run them: each is authorised by its name
 * before any of its arguments goes out, in whole answers and in streams.
 */
import type { ToolCall } from './dialects/dialect.ts';
import { GatewayError } from './errors.ts';
import * as hooks from './hooks.ts';
import type { Mount } from './mount.ts';
import type { RequestRecord } from './telemetry/record.ts';

/** The most tool calls of one answer that are followed. */
const MAX_CALLS = 1_024;

/** The tool calls of one answer. */
export class ToolCalls {
  private readonly authorizers: Mount[];
  private readonly record: RequestRecord;
  /** The name of each call so far: some servers send it in pieces, and some clients put the pieces together. */
  private readonly names = new Map<string, string>();
  private readonly ids = new Map<string, string>();

  constructor(authorizers: Mount[], record: RequestRecord) {
    this.authorizers = authorizers;
    this.record = record;
  }

  /**
   * Lets the calls pass, at once where nothing is new; throws, or rejects with, a GatewayError where one may not.
   * A call whose arguments come before its name is refused: nobody can know what they are for.
   */
  permit(calls: readonly ToolCall[]): Promise<void> | undefined {
    const asked = new Set<string>();
    for (const { call, id, name } of calls) {
      const isNext = id !== undefined && this.ids.get(call) !== id;
      const known = isNext ? undefined : this.names.get(call);
      if (name === undefined || name === '') {
        if (known === undefined) throw refused(undefined);
        continue;
      }
      if (name === known) continue;
      if (this.names.size >= MAX_CALLS) throw refused(name);
      // Of a name in pieces, both what has come and what it makes must be allowed.
      const whole = (known ?? '') + name;
      this.names.set(call, whole);
      if (id !== undefined) this.ids.set(call, id);
      asked.add(name).add(whole);
    }
    return asked.size === 0 ? undefined : this.ask([...asked]);
  }

  private async ask(names: string[]): Promise<void> {
    const resources = names.map((name) => ({ type: 'tool' as const, name }));
    const allowed = await hooks.authorize(this.authorizers, this.record, { action: 'tool.call', resources });
    const denied = allowed.indexOf(false);
    if (denied >= 0) throw refused(names[denied]);
  }
}

function refused(name: string | undefined): GatewayError {
  // The model chose the name: only what looks like one is repeated.
  const tool = name !== undefined && /^[\w.:-]{1,64}$/.test(name) ? `the tool “${name}”` : 'a tool';
  return new GatewayError(
    'forbidden',
    `The answer was stopped: the model wanted to use ${tool}, which you may not use here. Ask for something else, or ask the gateway’s operator for access.`,
    { publicCode: 'tool_not_allowed' },
  );
}
