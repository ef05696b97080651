/** Requests in the hub's words, and what vendors' streams are read into. */
import { expect } from 'vitest';
import { GatewayError } from '../../gateway/errors.ts';
import type { HubEvent } from '../../gateway/hub/reply.ts';
import type { HubMessage, HubPart, HubRequest } from '../../gateway/hub/request.ts';
import type { StreamReader } from '../../gateway/providers/provider.ts';

/** A request that says hello, and whatever else is given. */
export function hubRequest(more: Partial<HubRequest> = {}): HubRequest {
  return { messages: [says('user', 'hello')], tools: [], used: new Map(), unknown: [], ...more };
}

/** A message; a string is one part of text. */
export function says(role: HubMessage['role'], ...parts: (HubPart | string)[]): HubMessage {
  return { role, at: 'messages[0]', parts: parts.map((part) => (typeof part === 'string' ? textPart(part) : part)) };
}

function textPart(text: string): HubPart {
  return { type: 'text', text };
}

/** All events of a stream that comes in these pieces. */
export function readPieces(reader: StreamReader, pieces: Buffer[]): HubEvent[] {
  return [...pieces.flatMap((piece) => reader.push(piece)), ...reader.end()];
}

/** Runs what may fail, but with an error of the gateway's own alone. */
export function orGatewayError(run: () => void): void {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(GatewayError);
  }
}

/** The error that ends a stream. */
export function errorOf(events: HubEvent[]): GatewayError | undefined {
  const last = events.at(-1);
  return last?.type === 'error' ? last.error : undefined;
}
