/**
 * A streamed answer on its way from the provider to the client: what both ways of passing it on have in common.
 *
 * A stream ends in exactly one way: finished, or with an error event in the client's dialect. Until the first event is
 * handed over (the commit point) a failure is still a plain HTTP error.
 */
import type { ChatDialect } from '../dialects/dialect.ts';
import { asGatewayError, GatewayError, isRejection } from '../errors.ts';
import type { Exchange } from '../exchange.ts';
import type { RequestRecord } from '../telemetry/record.ts';
import type { BodyListener, UpstreamReply } from '../upstream.ts';
import { Meter } from './meter.ts';

/** What a relay works with. */
export interface RelayContext {
  exchange: Exchange;
  reply: UpstreamReply;
  dialect: ChatDialect;
  record: RequestRecord;
  /** Whether the client asked for the usage event; when not, it is taken out again. */
  wantsUsage: boolean;
  /** How many answers were asked for: the stream is finished when each is. */
  choices: number;
  /** What the client has of the answer already, from a gateway that has vanished. */
  begun?: Buffer;
  /** Commits: sends the head of the answer. */
  open(): void;
}

/** A line that is not a comment. */
const HAS_DATA = /^[^:\s]/m;
/** How many comments may come before the first event, in UTF-16 units. */
const MAX_PRELUDE = 65_536;

/** Every stream that is open, for the one timer that looks after all of them. */
const OPEN = new Set<Relay>();

export abstract class Relay implements BodyListener {
  protected readonly context: RelayContext;
  protected readonly meter: Meter;
  private pending: Buffer[] = [];
  private lastWriteAt = performance.now();
  private isOver = false;
  /** Comments that came before the first event. */
  private prelude = '';
  private isClientSlow = false;
  private isBusy = false;
  private settle!: { resolve(): void; reject(error: GatewayError): void };
  /** Settles when the stream is over; rejects only before the commit point. */
  readonly ended: Promise<void>;

  constructor(context: RelayContext) {
    this.context = context;
    this.meter = new Meter(context.record);
    this.ended = new Promise((resolve, reject) => {
      this.settle = { resolve, reject };
    });
  }

  /** Begins to listen. */
  start(): this {
    const { exchange, reply } = this.context;
    OPEN.add(this);
    exchange.onGone(() => this.clientGone());
    exchange.onDrain(() => {
      this.isClientSlow = false;
      this.regulate();
    });
    reply.listen(this);
    return this;
  }

  // --- What comes from upstream ---

  /** All pieces of one read are passed on together: one write to the client's socket instead of one for each event. */
  data(chunk: Buffer): void {
    if (this.pending.push(chunk) === 1) queueMicrotask(() => this.flush());
  }

  end(): void {
    this.flush();
    if (!this.isOver) this.upstreamEnded();
  }

  failed(error: Error): void {
    this.flush();
    if (this.isOver) return;
    // What stands between here and the provider may have said already what it was.
    const known = error instanceof GatewayError ? error : undefined;
    this.upstreamBroke(known ?? new GatewayError('stream_broken', BROKEN, { cause: error }));
  }

  private flush(): void {
    const { pending } = this;
    if (pending.length === 0 || this.isOver) return;
    this.pending = [];
    try {
      this.pass(pending.length === 1 ? pending[0]! : Buffer.concat(pending));
    } catch (error) {
      this.fail(asGatewayError(error));
    }
  }

  /** Takes what has come. */
  protected abstract pass(bytes: Buffer): void;
  /** Nothing more will come. */
  protected abstract upstreamEnded(): void;
  /** The provider broke off. */
  protected abstract upstreamBroke(error: GatewayError): void;
  /** Called about once a second while the stream is open. */
  protected tick(_now: number): void {}

  // --- What goes to the client ---

  protected write(out: Buffer | string): void {
    if (out.length === 0 || this.isOver) return;
    const { exchange } = this.context;
    let ready = out;
    if (!exchange.committed) {
      // Comments commit to nothing: what comes after them may still be a plain error.
      const text = out.toString();
      if (!HAS_DATA.test(text) && this.prelude.length + text.length < MAX_PRELUDE) {
        this.prelude += text;
        return;
      }
      if (this.prelude !== '') ready = this.prelude + text;
      this.context.open();
    }
    this.lastWriteAt = performance.now();
    if (!exchange.write(ready)) {
      this.isClientSlow = true;
      this.regulate();
    }
  }

  /** The upstream waits while a guard is behind. */
  protected set busy(isBusy: boolean) {
    this.isBusy = isBusy;
    this.regulate();
  }

  private regulate(): void {
    if (this.isOver) return;
    if (this.isClientSlow || this.isBusy) this.context.reply.pause();
    else this.context.reply.resume();
  }

  /** Ends a stream that came to its end. */
  protected finish(): void {
    if (this.isOver) return;
    const { exchange } = this.context;
    if (!exchange.committed) this.context.open();
    this.over();
    exchange.end();
    this.settle.resolve();
  }

  /** Ends a stream that did not: as a plain error where that is still possible, else with an error event. */
  protected fail(error: GatewayError): void {
    if (this.isOver) return;
    const { exchange, dialect, record, reply } = this.context;
    if (!exchange.committed) {
      this.over();
      reply.abort();
      this.settle.reject(error);
      return;
    }
    record.outcome = isRejection(error.code) ? 'rejected' : 'failed';
    record.code = error.shape.code;
    record.cause = error.details.cause;
    exchange.write(dialect.errorFrame(error.shape));
    this.over();
    reply.abort();
    exchange.end();
    this.settle.resolve();
  }

  private clientGone(): void {
    if (this.isOver) return;
    this.context.record.outcome = 'aborted';
    this.over();
    this.context.reply.abort();
    this.settle.resolve();
  }

  /** Nothing more goes out: it is finished, has failed, or the client has gone. */
  protected get hasEnded(): boolean {
    return this.isOver;
  }

  private over(): void {
    this.isOver = true;
    this.pending = [];
    OPEN.delete(this);
  }

  /** Keeps proxies from closing a silent stream: a comment, which no client takes for an event. */
  beat(now: number, everyMs: number): void {
    try {
      this.tick(now);
    } catch (error) {
      this.fail(asGatewayError(error));
    }
    if (!this.isOver && this.context.exchange.committed && !this.isClientSlow && now - this.lastWriteAt >= everyMs)
      this.write(': ping\n\n');
  }

  /** Ends a stream from outside, when the gateway stops and the time for open answers is up. */
  cut(): void {
    this.fail(
      new GatewayError(
        'draining',
        'The gateway is being restarted and could not wait for the end of this answer. Send the request again.',
      ),
    );
  }
}

/** Looks after every open stream. Answers how to stop. */
export function watchStreams(heartbeatMs: () => number): () => void {
  const timer = setInterval(() => {
    const now = performance.now();
    for (const relay of OPEN) relay.beat(now, heartbeatMs());
  }, 1_000);
  timer.unref();
  return () => clearInterval(timer);
}

/** Ends all open streams with an error event. */
export function cutStreams(): void {
  for (const relay of [...OPEN]) relay.cut();
}

export const BROKEN =
  'The provider broke off in the middle of its answer. What you see is incomplete; send the request again.';
