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
import { borderOf, FrameReader, frameData, MAX_FRAME } from './frames.ts';
import { BROKEN } from './relay.ts';
import { Said, UNJOINED, Unjoined } from './said.ts';

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
  /** Called when it breaks after its beginning; without a failure where it is not to blame. */
  onBroken(failure: GatewayError | undefined): void;
}

/** What a stream may do when it breaks. */
export interface Rescue {
  /** The next provider's part, when it has begun to speak; rejects with why there is none. */
  next(said: Said, failure: GatewayError): Promise<Leg>;
  /** Nobody waits for it any more. */
  abandon(): void;
  /** What the broken parts have cost, for where no end tells what all of them did. */
  spent(usage: HubUsage): void;
}

export interface HubStreamOptions {
  dialect: ChatDialect;
  /** The name that the client asked for. */
  model: string;
  /** Undefined: a broken stream stays broken. */
  rescue: Rescue | undefined;
  /** The usage of a part that said so many characters, where its provider told none. */
  estimate(chars: number): HubUsage;
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
  /** Whether the part under way has broken, and the next is not there: what it may still say does not count. */
  private isBroken = false;
  /** Bytes of an event that has not ended, where bytes pass. */
  private rest: Buffer | undefined;
  private stall: NodeJS.Timeout | undefined;
  /** What the parts before this one have cost. */
  private spent: HubUsage | undefined;
  private lastUsage: HubUsage | undefined;
  /** Characters that the part under way has said, what is not sent included. */
  private chars = 0;

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
    if (this.isBroken) this.options.rescue?.abandon();
    this.leg.reply.abort();
  }

  private over(): void {
    this.isOver = true;
    clearTimeout(this.stall);
    this.listener = undefined;
  }

  private attach(leg: Leg): void {
    // A part that has been left behind has nothing to say any more.
    const isCurrent = () => this.leg === leg && !this.isBroken && !this.isOver;
    this.leg = leg;
    this.isBroken = false;
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
    const failed = events.find((event) => event.type === 'error');
    for (const event of failed === undefined ? events : events.slice(0, events.indexOf(failed))) this.note(event);
    if (this.isRecorded) this.said.reword(this.options.begunWith!);
    else this.listener?.data(failed === undefined ? bytes : this.beforeError(bytes));
    if (failed !== undefined) throw failed.error;
  }

  /** The events of a run that come before the one that its provider's answer breaks at. */
  private beforeError(bytes: Buffer): Buffer {
    const frames = new FrameReader().push(bytes);
    const failed = frames.findIndex((frame) => isFault(this.options.dialect, frame));
    return Buffer.from(frames.slice(0, Math.max(0, failed)).join(''));
  }

  private get isRecorded(): boolean {
    return this.options.begunWith !== undefined && !this.isJoined;
  }

  private note(event: HubEvent): void {
    this.count(event);
    this.look(event);
    // Written for nobody: what the writer remembers is what it will go on from.
    if (this.options.rescue !== undefined) this.writer.write(event);
  }

  private count(event: HubEvent): void {
    if ('text' in event) this.chars += event.text.length;
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
    try {
      for (const event of events) {
        if (event.type === 'error') throw event.error;
        this.count(event);
        for (const joined of this.isJoined ? this.said.join(event) : [event]) out += this.written(joined);
      }
    } finally {
      // What came before a fault has been taken down as said.
      this.send(out);
    }
  }

  private written(event: HubEvent): string {
    const isAtEnd = event.type === 'finish' && event.finish === 'stop';
    if (isAtEnd && this.isJoined && this.options.wantsJson() && !this.said.isJson) {
      this.said.spoil();
      throw new Unjoined('the joined text is not JSON');
    }
    this.look(event);
    if (event.type === 'end') return this.writtenEnd();
    return this.writer.write(event.type === 'usage' ? { type: 'usage', usage: this.total(event.usage) } : event);
  }

  private writtenEnd(): string {
    const usage = this.lastUsage ?? this.options.estimate(this.chars);
    return this.writer.write({ type: 'usage', usage: this.total(usage) }) + this.writer.write({ type: 'end' });
  }

  /** What ends a stream whose finish has passed as it came. */
  private endBehindFinish(): string {
    const { dialect, rescue } = this.options;
    // Without a rescue the writer knows nothing of what has passed.
    if (rescue === undefined) return '';
    const isUsageTold = this.lastUsage !== undefined;
    const isNew = (frame: string) => {
      const { finished, usageOnly } = dialect.readEvent(frameData(frame) ?? '');
      return finished.length === 0 && !(usageOnly && isUsageTold);
    };
    return new FrameReader().push(Buffer.from(this.writtenEnd())).filter(isNew).join('');
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
    else if (this.said.isFinished) this.complete(this.writtenEnd());
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
    this.isBroken = true;
    const { leg } = this;
    leg.reply.abort();
    if (this.said.isFinished) {
      // All that was needed had come.
      this.complete(this.said.isEnded ? '' : leg.passes ? this.endBehindFinish() : this.writtenEnd());
      return;
    }
    leg.onBroken(failure instanceof Unjoined ? undefined : failure);
    const { rescue } = this.options;
    const hasUnknown = leg.passes && leg.reader.hasUnknown === true;
    if (rescue === undefined || !this.said.canBeJoined || hasUnknown) this.fail(failure);
    else this.rescue(rescue, failure);
  }

  private rescue(rescue: Rescue, failure: GatewayError): void {
    this.spend();
    rescue.next(this.said, failure).then(
      (leg) => {
        if (this.isOver) {
          leg.reply.abort();
          return;
        }
        rescue.spent(this.spent!);
        this.isJoined = true;
        this.said.beginJoin(leg.joins ?? 'replay');
        this.attach(leg);
      },
      (error) => {
        if (this.isOver) return;
        rescue.spent(this.spent!);
        this.fail(error === undefined ? failure : brokenBy(failure, error));
      },
    );
  }

  /** A broken part's cost: what its provider told, and no less than what it said. */
  private spend(): void {
    const least = this.options.estimate(this.chars);
    const told = this.lastUsage ?? least;
    const cost =
      told.outputTokens < least.outputTokens ? { ...told, outputTokens: least.outputTokens, estimated: true } : told;
    this.spent = this.total(cost);
    this.lastUsage = undefined;
    this.chars = 0;
  }

  private fail(failure: GatewayError): void {
    const { listener } = this;
    this.over();
    listener?.failed(inTheMiddle(failure));
  }
}

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

/** Whether a frame is none of the dialect, or reports an error. */
function isFault(dialect: ChatDialect, frame: string): boolean {
  try {
    return dialect
      .openReader()
      .push(Buffer.from(frame))
      .some(({ type }) => type === 'error');
  } catch {
    return true;
  }
}

function sum(a: HubUsage, b: HubUsage): HubUsage {
  const total: HubUsage = { inputTokens: a.inputTokens + b.inputTokens, outputTokens: a.outputTokens + b.outputTokens };
  for (const key of ['cachedInputTokens', 'cacheWriteTokens', 'reasoningTokens'] as const) {
    if (a[key] !== undefined || b[key] !== undefined) total[key] = (a[key] ?? 0) + (b[key] ?? 0);
  }
  if (a.estimated || b.estimated) total.estimated = true;
  return total;
}
