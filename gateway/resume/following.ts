/** The rest of a stream that another replica of the gateway writes, or wrote: what the shared store has of it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type FoundStream, LEASE_MS, type StreamPiece, type StreamStore } from '../../proto/store.ts';
import { type ErrorCode, GatewayError } from '../errors.ts';
import type { Life } from '../life.ts';
import { BROKEN } from '../stream/relay.ts';
import { type EventId, newStreamId } from './event-id.ts';
import { fingerprintOf } from './facts.ts';
import { begin, count, expired, nothingMore } from './replies.ts';

/** Between two looks whether there is more, in milliseconds. */
const POLL_MS = 40;
/** How long a store that is away is waited for in the middle of an answer, in milliseconds. */
const PATIENCE_MS = LEASE_MS;

export interface Followed {
  wanted: EventId;
  found: FoundStream;
  /** The body of the request that asks. */
  body: Buffer;
}

export class Following {
  private readonly life: Life;
  private readonly store: StreamStore;
  private readonly followed: Followed;
  private readonly reader = newStreamId();
  private after: number;
  private isSlow = false;
  private wake: (() => void) | undefined;
  private lastWriteAt = performance.now();

  constructor(life: Life, store: StreamStore, followed: Followed) {
    this.life = life;
    this.store = store;
    this.followed = followed;
    this.after = followed.wanted.number;
  }

  /** Hands the client what comes; resolves at the end. Rejects only before anything is handed over. */
  async run(): Promise<void> {
    const { exchange } = this.life;
    exchange.onDrain(() => {
      this.isSlow = false;
      this.wake?.();
    });
    exchange.onGone(() => this.wake?.());
    if (!this.begin(await this.look(true))) return;
    for (;;) {
      const piece = await this.next();
      if (exchange.gone) return;
      if (piece === undefined) return this.fail('resume_unavailable', LOST);
      if (piece.state === 'unknown') return this.fail('stream_broken', BROKEN);
      if (piece.state === 'taken') return exchange.destroy();
      this.handOver(piece);
      const isAll = this.after >= piece.newest;
      // The client says that it has more than there ever was, or than the store was told.
      if (piece.state !== 'open' && this.after > piece.newest) return this.fail('stream_broken', BROKEN);
      if (piece.state === 'ended' && isAll) return exchange.end();
      if (piece.state === 'orphaned' && isAll) return this.goOn();
      if (piece.events.length === 0) await this.pause();
      if (this.isSlow) await this.drained();
    }
  }

  /** Opens the answer; false when there is nothing more to say. */
  private begin({ state, oldest, newest }: StreamPiece): boolean {
    const { life, after } = this;
    const { facts } = this.followed.found;
    const isAhead = after > newest;
    if (state === 'unknown' || after < oldest - 1 || (isAhead && state === 'ended')) throw expired(life);
    // The client has more of it than the store was told before the end came.
    if (isAhead && state === 'orphaned') {
      count(life, 'broken');
      throw new GatewayError('stream_broken', BROKEN);
    }
    if (state === 'ended' && after === newest) {
      nothingMore(life, facts, after);
      return false;
    }
    begin(life, facts, after);
    return true;
  }

  /** All events of the stream, from its first on. */
  private async all(): Promise<Buffer | undefined> {
    const events: string[] = [];
    for (;;) {
      const piece = await this.look(false, events.length);
      if (piece.oldest > 1 || piece.state === 'taken' || piece.state === 'unknown') return undefined;
      events.push(...piece.events);
      if (events.length >= piece.newest) return Buffer.from(events.join(''), 'latin1');
      if (piece.events.length === 0) return undefined;
    }
  }

  private look(takes: boolean, after = this.after): Promise<StreamPiece> {
    const { wanted, found } = this.followed;
    const { reader } = this;
    return this.store.read(wanted.stream, { writer: found.writer, reader, after, takes });
  }

  /** What comes next; undefined when the store stays away. */
  private async next(): Promise<StreamPiece | undefined> {
    const since = performance.now();
    while (!this.life.exchange.gone && performance.now() - since < PATIENCE_MS) {
      try {
        return await this.look(false);
      } catch {
        await this.pause();
      }
    }
    return undefined;
  }

  private handOver({ events }: StreamPiece): void {
    if (events.length === 0) return;
    this.after += events.length;
    this.write(Buffer.from(events.join(''), 'latin1'));
  }

  private write(bytes: Buffer | string): void {
    this.lastWriteAt = performance.now();
    this.isSlow = !this.life.exchange.write(bytes);
  }

  /** The replica that wrote it has vanished: another model goes on where that is possible, else the answer ends as broken. */
  private async goOn(): Promise<void> {
    const { life, followed, after } = this;
    const { body, wanted } = followed;
    const { facts } = followed.found;
    const { takeOver } = life.gateway.streams;
    const isSame = facts.fingerprint === fingerprintOf(body);
    const orphan = { stream: wanted.stream, facts, last: after, body, events: () => this.all() };
    if (isSame && takeOver !== undefined && (await takeOver(life, orphan))) return;
    this.fail('stream_broken', BROKEN);
  }

  /** Ends the answer with an error event, so that nobody takes it for a whole one. */
  private fail(code: ErrorCode, message: string): void {
    const { exchange, record, dialect } = this.life;
    const error = new GatewayError(code, message);
    count(this.life, 'broken');
    record.outcome = 'failed';
    record.code = error.shape.code;
    exchange.write(dialect.errorFrame(error.shape));
    exchange.end();
  }

  private async pause(): Promise<void> {
    const { exchange, snapshot } = this.life;
    if (performance.now() - this.lastWriteAt >= snapshot.config.heartbeat && !this.isSlow) this.write(': ping\n\n');
    if (!exchange.gone) await sleep(POLL_MS);
  }

  /** Waits until a slow client takes more, or has gone; the store is told all the while that it is there. */
  private async drained(): Promise<void> {
    while (this.isSlow && !this.life.exchange.gone) {
      const woken = new Promise<void>((resolve) => {
        this.wake = resolve;
      });
      await Promise.race([woken, sleep(LEASE_MS / 5)]);
      const piece = this.isSlow && !this.life.exchange.gone ? await this.next() : undefined;
      if (piece?.state === 'taken') return this.life.exchange.destroy();
    }
  }
}

const LOST =
  'The rest of this answer cannot be reached at the moment. Ask again in some seconds, with `Last-Event-ID`.';
