/**
 * A provider's stream in the client's dialect: read as hub events, written as the client's frames. To those who pass it
 * on it is an answer like any other.
 *
 * Where it breaks after its beginning, it is rescued: another provider goes on from the text that was sent (`continue`),
 * or answers anew and what it says must begin with that text (`replay`). The client sees one stream with one beginning
 * and one end. What cannot be joined honestly ends as what it is, a failure.
 */
import type { ChatDialect, StreamWriter } from '../dialects/dialect.ts';
import { asGatewayError, GatewayError } from '../errors.ts';
import type { HubEvent, HubUsage } from '../hub/reply.ts';
import type { StreamReader } from '../providers/provider.ts';
import type { BodyListener, UpstreamReply } from '../upstream.ts';
import { borderOf, FrameReader, frameData, isErrorFrame, MAX_FRAME } from './frames.ts';
import { BROKEN } from './relay.ts';
import { Said } from './said.ts';

/** One provider's part of a stream. */
export interface Leg {
  reply: UpstreamReply;
  reader: StreamReader;
  /** Whether its bytes are the client's dialect and go out as they come. */
  passes: boolean;
  /** How it goes on from the one before; undefined for the first. */
  joins?: 'continue' | 'replay';
  /** Longest silence between two pieces of content, in ms; undefined: what the connection allows. */
  stallMs: number | undefined;
  /** Called when it breaks after its beginning. */
  onBroken(failure: GatewayError): void;
}

/** What a stream may do when it breaks. */
export interface Rescue {
  /** The next provider's part, when it has begun to speak; rejects with why there is none. */
  next(said: Said, failure: GatewayError): Promise<Leg>;
  /** The usage of the broken part, where its provider told none. */
  estimate(said: Said): HubUsage;
}

export interface HubStreamOptions {
  dialect: ChatDialect;
  /** The name that the client asked for. */
  model: string;
  /** Undefined: a broken stream stays broken. */
  rescue: Rescue | undefined;
  /** Whether the answer must be JSON, so that a join has to be checked; asked at a join only. */
  wantsJson(): boolean;
  /** Longest text that is kept to join at, in UTF-16 units. */
  maxSaid: number;
  /**
   * The first part was passed on before, by a gateway that has vanished: it is read and not sent. This is its text as
   * providers may read it, with the masks that the client was spared.
   */
  begunWith?: string;
}

export class HubStream implements UpstreamReply {
  readonly status: number;
  readonly headers: UpstreamReply['headers'];
  private readonly options: HubStreamOptions;
  private readonly writer: StreamWriter;
  private readonly said: Said;
  private leg: Leg;
  private listener: BodyListener | undefined;
  private isPaused = false;
  private isOver = false;
  private isJoined = false;
  /** Bytes of an event that has not ended, where bytes pass. */
  private rest: Buffer | undefined;
  private stall: NodeJS.Timeout | undefined;
  /** What the parts before this one have cost. */
  private spent: HubUsage | undefined;
  private lastUsage: HubUsage | undefined;

  constructor(first: Leg, options: HubStreamOptions) {
    this.leg = first;
    this.options = options;
    this.status = first.reply.status;
    this.headers = first.passes ? first.reply.headers : { ...first.reply.headers, 'content-type': 'text/event-stream' };
    // Whoever passes it on takes the usage out again when the client did not ask for it.
    this.writer = options.dialect.openWriter({ model: options.model, wantsUsage: true });
    this.said = new Said(options.maxSaid);
  }

  listen(listener: BodyListener): void {
    this.listener = listener;
    this.attach(this.leg);
  }

  collect(): Promise<Buffer> {
    throw new Error('a stream is not collected');
  }

  pause(): void {
    this.isPaused = true;
    this.leg.reply.pause();
  }

  resume(): void {
    this.isPaused = false;
    this.leg.reply.resume();
  }

  abort(): void {
    if (this.isOver) return;
    this.over();
    this.leg.reply.abort();
  }

  private over(): void {
    this.isOver = true;
    clearTimeout(this.stall);
    this.listener = undefined;
  }

  private attach(leg: Leg): void {
    // A part that has been left behind has nothing to say any more.
    const isCurrent = () => this.leg === leg && !this.isOver;
    this.leg = leg;
    this.watch();
    leg.reply.listen({
      data: (chunk) => {
        if (isCurrent()) this.guarded(() => this.data(chunk));
      },
      end: () => {
        if (isCurrent()) this.guarded(() => this.ended());
      },
      failed: (cause) => {
        if (isCurrent()) this.broke(new GatewayError('stream_broken', BROKEN, { cause }));
      },
    });
    if (this.isPaused) leg.reply.pause();
  }

  private guarded(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.broke(asGatewayError(error));
    }
  }

  private data(chunk: Buffer): void {
    if (!this.leg.passes) {
      this.take(this.leg.reader.push(chunk));
      return;
    }
    const whole = this.rest === undefined ? chunk : Buffer.concat([this.rest, chunk]);
    const border = borderOf(whole);
    this.rest = border === whole.length ? undefined : whole.subarray(border);
    if ((this.rest?.length ?? 0) > MAX_FRAME)
      throw new GatewayError('upstream_bad_answer', 'The provider sent an event that is too long.');
    if (border > 0) this.passOn(whole.subarray(0, border));
  }

  /** Bytes of the client's own dialect: read along, so that another provider can go on where they end. */
  private passOn(bytes: Buffer): void {
    const events = this.leg.reader.push(bytes);
    const failed = events.findIndex(({ type }) => type === 'error');
    if (this.isRecorded) {
      for (const event of events) this.note(event);
      this.said.reword(this.options.begunWith!);
      return;
    }
    if (failed < 0) {
      for (const event of events) this.note(event);
      this.listener?.data(bytes);
      return;
    }
    for (const event of events.slice(0, failed)) this.note(event);
    this.listener?.data(this.beforeError(bytes));
    this.broke((events[failed] as HubEvent & { type: 'error' }).error);
  }

  /** The events of a run that come before the provider's own error. */
  private beforeError(bytes: Buffer): Buffer {
    const frames = new FrameReader().push(bytes);
    const failed = frames.findIndex((frame) => reportsError(this.options.dialect, frame));
    return Buffer.from(frames.slice(0, failed < 0 ? undefined : failed).join(''));
  }

  private get isRecorded(): boolean {
    return this.options.begunWith !== undefined && !this.isJoined;
  }

  private note(event: HubEvent): void {
    this.look(event);
    // Written for nobody: what the writer remembers is what it will go on from.
    if (this.options.rescue !== undefined) this.writer.write(event);
  }

  /** Reads an event before it goes out. */
  private look(event: HubEvent): void {
    if (this.stall !== undefined && isSpeech(event)) this.stall.refresh();
    if (event.type === 'usage') this.lastUsage = event.usage;
    if (event.type === 'start' && event.usage !== undefined) this.lastUsage = event.usage;
    this.said.note(event);
  }

  private take(events: HubEvent[]): void {
    let out = '';
    for (const event of events) {
      if (this.isOver) break;
      if (event.type === 'error') {
        this.send(out);
        this.broke(event.error);
        return;
      }
      for (const joined of this.isJoined ? this.said.join(event) : [event]) out += this.written(joined);
    }
    this.send(out);
  }

  private written(event: HubEvent): string {
    this.look(event);
    const isAtEnd = event.type === 'finish' && event.finish === 'stop';
    if (isAtEnd && this.isJoined && this.options.wantsJson() && !this.said.isJson) {
      throw new GatewayError('stream_broken', UNJOINED, { cause: 'the joined text is not JSON' });
    }
    return this.writer.write(event.type === 'usage' ? { type: 'usage', usage: this.total(event.usage) } : event);
  }

  private total(usage: HubUsage): HubUsage {
    return this.spent === undefined ? usage : sum(this.spent, usage);
  }

  private send(text: string): void {
    if (text !== '') this.listener?.data(Buffer.from(text));
  }

  private ended(): void {
    if (this.leg.passes) {
      const events = this.leg.reader.end();
      for (const event of events) this.note(event);
      if (!this.said.isFinished) {
        this.broke(new GatewayError('stream_broken', BROKEN, { cause: 'the connection ended before the answer' }));
        return;
      }
      // What is left may be an end without its blank line.
      if (this.rest !== undefined) this.listener?.data(this.rest);
      this.complete('');
      return;
    }
    this.take(this.leg.reader.end());
    if (this.isOver) return;
    if (this.said.isEnded) this.complete('');
    else if (this.said.isFinished) this.complete(this.writer.write({ type: 'end' }));
    else this.broke(new GatewayError('stream_broken', BROKEN, { cause: 'the connection ended before the answer' }));
  }

  private complete(last: string): void {
    this.send(last);
    const { listener } = this;
    this.over();
    listener?.end();
  }

  /** A stall is silence of the model: what only keeps the connection open does not count. */
  private watch(): void {
    clearTimeout(this.stall);
    this.stall = undefined;
    const { stallMs } = this.leg;
    if (stallMs === undefined) return;
    this.stall = setTimeout(() => {
      if (this.isPaused) this.stall?.refresh();
      else this.broke(new GatewayError('upstream_timeout', 'The provider fell silent in the middle of its answer.'));
    }, stallMs);
    this.stall.unref();
  }

  private broke(failure: GatewayError): void {
    if (this.isOver) return;
    clearTimeout(this.stall);
    this.rest = undefined;
    const { leg } = this;
    leg.reply.abort();
    if (this.said.isFinished) {
      // All that was needed had come.
      this.complete(this.said.isEnded ? '' : this.writer.write({ type: 'end' }));
      return;
    }
    leg.onBroken(failure);
    const { rescue } = this.options;
    if (rescue === undefined || !this.said.canBeJoined) this.fail(failure);
    else this.rescue(rescue, failure);
  }

  private rescue(rescue: Rescue, failure: GatewayError): void {
    const cost = this.lastUsage ?? rescue.estimate(this.said);
    this.spent = this.spent === undefined ? cost : sum(this.spent, cost);
    this.lastUsage = undefined;
    // Nobody listens to the broken part any more; whoever comes meanwhile finds the stream waiting.
    rescue.next(this.said, failure).then(
      (leg) => {
        if (this.isOver) {
          leg.reply.abort();
          return;
        }
        this.isJoined = true;
        this.said.beginJoin(leg.joins ?? 'replay');
        this.attach(leg);
      },
      (error) => {
        if (!this.isOver) this.fail(error === undefined ? failure : brokenBy(failure, error));
      },
    );
  }

  private fail(failure: GatewayError): void {
    const { listener } = this;
    this.over();
    listener?.failed(inTheMiddle(failure));
  }
}

const UNJOINED =
  'The provider broke off in the middle of its answer, and no other could go on from there. What you see is incomplete; send the request again.';

/** Once text has gone out there is one sentence for the person who reads it, whatever it was. */
function inTheMiddle(failure: GatewayError): GatewayError {
  if (failure.code === 'stream_broken') return failure;
  return new GatewayError('stream_broken', BROKEN, { cause: failure.details.cause ?? failure.code });
}

function brokenBy(failure: GatewayError, error: unknown): GatewayError {
  const cause = error instanceof GatewayError ? (error.details.cause ?? error.code) : error;
  return new GatewayError('stream_broken', UNJOINED, { cause: cause ?? failure.details.cause ?? failure.code });
}

function isSpeech({ type }: HubEvent): boolean {
  return type !== 'usage' && type !== 'start';
}

function reportsError(dialect: ChatDialect, frame: string): boolean {
  if (isErrorFrame(frame)) return true;
  const data = frameData(frame);
  return data !== undefined && data !== '' && dialect.readEvent(data).error !== undefined;
}

function sum(a: HubUsage, b: HubUsage): HubUsage {
  const total: HubUsage = { inputTokens: a.inputTokens + b.inputTokens, outputTokens: a.outputTokens + b.outputTokens };
  for (const key of ['cachedInputTokens', 'cacheWriteTokens', 'reasoningTokens'] as const) {
    if (a[key] !== undefined || b[key] !== undefined) total[key] = (a[key] ?? 0) + (b[key] ?? 0);
  }
  if (a.estimated || b.estimated) total.estimated = true;
  return total;
}
