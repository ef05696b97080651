/**
 * A client that lost its connection asks again with `Last-Event-ID` and gets the rest of its answer. Source: WHATWG
 * HTML, "Server-sent events": the id of the last event that arrived, and 204 when there is nothing more to come.
 */
import { GatewayError } from '../errors.ts';
import type { Life } from '../life.ts';
import { type EventId, readEventId } from './event-id.ts';
import { factsOf, ownerOf } from './facts.ts';
import { Following } from './following.ts';
import type { KeptStream } from './kept-stream.ts';
import { isWanted, type ResumePolicy } from './policy.ts';
import { begin, count, expired, HEADER, nothingMore } from './replies.ts';
import { ResumableExchange } from './resumable-exchange.ts';

/**
 * The life of a request whose streamed answer outlives its client, where the route and the client want that; else the
 * life as it is.
 *
 * @param body the request's body, as it came
 */
export function resumable(life: Life, body: Buffer): Life {
  const { exchange, route, record, gateway } = life;
  const policy = route.resume;
  if (policy === undefined || !isWanted(policy, life)) return life;
  const kept = new ResumableExchange(exchange, (head, producer) => {
    if (!isEventStream(head)) return undefined;
    const stream = gateway.streams.open(factsOf(life, head, body), policy, producer);
    if (stream === undefined) return undefined;
    record.outlivesClient = true;
    share(life, policy, stream);
    return stream;
  });
  kept.onGone(() => {
    record.outlivesClient = false;
    record.abandon();
  });
  return { ...life, exchange: kept };
}

function isEventStream(head: string[]): boolean {
  return head.some((name, i) => i % 2 === 0 && name === 'content-type' && /^text\/event-stream\b/i.test(head[i + 1]!));
}

function share({ gateway }: Life, { store }: ResumePolicy, stream: KeptStream): void {
  if (store !== 'redis') return;
  // The client waits for nothing: without a store the stream can be resumed here alone.
  gateway.streams.share()?.then(
    (shared) => shared.add(stream),
    () => {},
  );
}

/** Answers a request for the rest of a stream; false when this is none. */
export async function resume(life: Life): Promise<boolean> {
  const { exchange, route, record, snapshot } = life;
  const said = exchange.headers[HEADER];
  if (route.resume === undefined || said === undefined || said === '') return false;
  if (exchange.method !== 'GET' && exchange.method !== 'POST')
    throw new GatewayError('method_not_allowed', 'Use GET or POST here.', { headers: { allow: 'GET, POST' } });
  const wanted = readEventId(said);
  if (wanted === undefined) {
    count(life, 'malformed');
    throw new GatewayError(
      'invalid_request',
      'The `Last-Event-ID` is not one of this gateway’s. Send the `id` of the last event that you have, as it came.',
      { param: HEADER },
    );
  }
  const body = await exchange.readBody(snapshot.config.limits.body);
  const kept = life.gateway.streams.find(wanted.stream);
  if (kept === undefined) await resumeElsewhere(life, wanted, body);
  else await resumeHere(life, wanted, kept);
  if (exchange.gone) record.outcome = 'aborted';
  return true;
}

async function resumeHere(life: Life, { number }: EventId, kept: KeptStream): Promise<void> {
  const { facts, log } = kept;
  if (facts.owner !== ownerOf(life) || !log.has(number)) throw expired(life);
  if (log.hasEnded && number === log.last) return nothingMore(life, facts, number);
  begin(life, facts, number);
  kept.copy?.claim();
  await kept.attach(life.exchange, number);
}

async function resumeElsewhere(life: Life, wanted: EventId, body: Buffer): Promise<void> {
  const { route, gateway } = life;
  const shared = route.resume?.store === 'redis' ? gateway.streams.share() : undefined;
  if (shared === undefined) throw expired(life);
  try {
    const { store } = await shared;
    const found = await store.find(wanted.stream);
    if (found === undefined || found.facts.owner !== ownerOf(life)) throw expired(life);
    await new Following(life, store, { wanted, found, body }).run();
  } catch (error) {
    if (error instanceof GatewayError) throw error;
    count(life, 'unavailable');
    throw new GatewayError(
      'resume_unavailable',
      'The rest of this answer cannot be looked up at the moment. Ask again in some seconds.',
      { headers: { 'retry-after': '2' }, cause: error },
    );
  }
}
