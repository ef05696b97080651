/**
 * Goes on with an answer whose gateway has vanished in the middle of it: the client has asked another replica for the
 * rest, with the request that began it. The request lives once more, guards and limits included, but for its first part.
 */
import { findCall } from './dialects/registry.ts';
import { asGatewayError, GatewayError } from './errors.ts';
import type { Exchange } from './exchange.ts';
import type { Life } from './life.ts';
import { ask } from './pipeline.ts';
import { Numberer } from './resume/numbered.ts';
import type { Orphan } from './resume/streams.ts';
import { BROKEN } from './stream/relay.ts';
import { GONE } from './upstream.ts';

/** Ends the answer, whole or with an error event; false where it cannot be gone on with. */
export async function takeOver(life: Life, { stream, last, body, events: recorded }: Orphan): Promise<boolean> {
  const call = findCall(life.path, life.exchange.query);
  if (call?.dialect.operation !== 'chat') return false;
  const events = await recorded();
  // Whose client has more than was told of the stream could get the same words twice.
  if (events === undefined || numberOf(events) !== last) return false;
  const text = textOf(call.dialect.openReader().push(events));
  const exchange = new GoingOn(life.exchange, new Numberer(stream, last));
  const going: Life = { ...life, exchange, dialect: call.dialect };
  try {
    await ask(going, call.path, { body, events, text });
  } catch (error) {
    if (error !== GONE && !exchange.gone) fail(going, asGatewayError(error));
  }
  return true;
}

function numberOf(events: Buffer): number {
  return [...events.toString('latin1').matchAll(/^id: /gm)].length;
}

function textOf(events: { type: string; text?: string }[]): string {
  return events.map(({ type, text }) => (type === 'text' ? text : '')).join('');
}

/** Once text has gone out there is one sentence for the person who reads it, whatever it was. */
function fail({ exchange, record, dialect }: Life, { code, details }: GatewayError): void {
  if (dialect.operation !== 'chat') return;
  const { shape } = new GatewayError('stream_broken', BROKEN);
  record.outcome = 'failed';
  record.code = shape.code;
  record.cause = details.cause ?? code;
  exchange.write(dialect.errorFrame(shape));
  exchange.end();
}

/** A client's connection on which a part of the answer is out; what follows goes on with its numbers. */
class GoingOn implements Exchange {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly headers: Exchange['headers'];
  readonly startedAt: number;
  readonly committed = true;
  private readonly client: Exchange;
  private readonly numberer: Numberer;

  constructor(client: Exchange, numberer: Numberer) {
    this.client = client;
    this.numberer = numberer;
    this.method = client.method;
    this.path = client.path;
    this.query = client.query;
    this.headers = client.headers;
    this.startedAt = client.startedAt;
  }

  get gone(): boolean {
    return this.client.gone;
  }

  readBody(limit: number): Promise<Buffer> {
    return this.client.readBody(limit);
  }

  reply(): void {
    // An answer is under way: there cannot be another one.
    this.client.destroy();
  }

  open(): void {}

  write(chunk: string | Buffer): boolean {
    return this.client.write(this.numberer.push(chunk).bytes);
  }

  end(): void {
    this.client.end();
  }

  destroy(): void {
    this.client.destroy();
  }

  onDrain(listener: () => void): void {
    this.client.onDrain(listener);
  }

  onGone(listener: () => void): void {
    this.client.onGone(listener);
  }
}
