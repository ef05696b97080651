/** The answers to a client that asks for the rest of a stream. */
import type { StreamFacts } from '../../proto/store.ts';
import { withOwn } from '../answer.ts';
import { GatewayError } from '../errors.ts';
import type { Life } from '../life.ts';
import { pairs } from './facts.ts';

/** Header that tells where a client's answer goes on. */
export const HEADER = 'last-event-id';

/** The head of the rest of an answer: as its beginning had it. */
export function begin(life: Life, facts: StreamFacts, number: number): void {
  count(life, 'resumed');
  tell(life, facts, number);
  life.record.streamed = true;
  life.record.status = 200;
  life.exchange.open(200, headOf(life, facts));
  // The head goes out with the first bytes, and the next event may be long in coming.
  life.exchange.write('');
}

/** The client has it all: a browser stops asking when it is told so. */
export function nothingMore(life: Life, facts: StreamFacts, number: number): void {
  count(life, 'complete');
  tell(life, facts, number);
  life.record.status = 204;
  life.exchange.reply(204, headOf(life, { ...facts, head: [] }), '');
}

/** What is unknown, too old or somebody else’s gets the same words: they tell nothing of what there is. */
export function expired(life: Life): GatewayError {
  count(life, 'expired');
  return new GatewayError(
    'resume_expired',
    'The rest of this answer is not kept any more, or was never yours. Send the request again, without `Last-Event-ID`.',
  );
}

export function count({ gateway }: Life, outcome: string): void {
  gateway.metrics.resumes.cell({ outcome }).value += 1;
}

function tell({ record }: Life, { requestId }: StreamFacts, number: number): void {
  record.resumedFrom = `${requestId}#${number}`;
}

function headOf(life: Life, { head }: StreamFacts): string[] {
  const own = withOwn(
    ['x-request-id', life.record.facts.id, 'x-wardgate-resumed', life.exchange.headers[HEADER]!],
    life,
  );
  const names = new Set(own.filter((_, i) => i % 2 === 0));
  return [...pairs(head).filter(([name]) => !names.has(name)), ...pairs(own)].flat();
}
