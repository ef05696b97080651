/**
 * A stream that guards look at while it passes. Every event is read; the new text of each channel goes through the
 * guards as one window; events go out again with what was released of their text. An event whose text nobody changed
 * goes out as the bytes that came.
 *
 * While a guard that is not in process thinks, what arrives joins the next window: a slow guard costs lag, not calls.
 */
import type { EventPart, Json, StreamEvent } from '../dialects/dialect.ts';
import { asGatewayError, GatewayError } from '../errors.ts';
import type { ToolCalls } from '../tool-calls.ts';
import { Channel, type ChannelContext } from './channel.ts';
import { FrameReader, frameData, isErrorFrame } from './frames.ts';
import { usageSoFar } from './meter.ts';
import { BROKEN, Relay, type RelayContext } from './relay.ts';

/** How many events may wait for a slow guard before the provider has to. */
const MAX_WAITING = 256;

/** What looks at the stream. */
interface GuardContext extends ChannelContext {
  /** Set where tool calls are authorised. */
  tools: ToolCalls | undefined;
}

/** One event on its way. */
interface Item {
  frame: string;
  event: StreamEvent | undefined;
  isChanged: boolean;
}

/** The new text of one channel. */
interface Window {
  channel: Channel;
  parts: { part: EventPart; item: Item }[];
  text: string;
  owed: string;
  last: boolean;
  /** The event that ends the channel: what was held goes out before it. */
  endsAt: Item | undefined;
}

export class Guarded extends Relay {
  private readonly guards: GuardContext;
  private readonly reader = new FrameReader();
  private readonly channels = new Map<string, Channel>();
  /** What was released of each channel, where the dialect says it again at the end. */
  private readonly said = new Map<string, string>();
  /** What the provider said on each, where the dialect seals it. */
  private readonly sealed = new Map<string, string>();
  private waiting: Item[] = [];
  private isGuarding = false;
  /** What to do once everything that waits has been passed on. */
  private afterwards: (() => void) | undefined;
  private like: Json = {};
  private isClosing = false;

  constructor(context: RelayContext, guards: GuardContext) {
    super(context);
    this.guards = guards;
    if (context.begun !== undefined && context.dialect.repeatsText) this.remember(context.begun);
  }

  /** What was said before this gateway went on with the answer counts where the dialect says it again. */
  private remember(begun: Buffer): void {
    for (const frame of new FrameReader().push(begun)) {
      const data = frameData(frame);
      const parts = data === undefined ? [] : this.context.dialect.readEvent(data).parts;
      for (const { channel, text } of parts) this.said.set(channel, this.saidOn(channel) + text);
    }
  }

  protected pass(bytes: Buffer): void {
    if (this.isClosing) return;
    try {
      for (const frame of this.reader.push(bytes)) {
        this.waiting.push(this.read(frame));
        if (this.isSpent) break;
      }
    } catch (error) {
      // What came before is passed on first.
      this.upstreamBroke(asGatewayError(error));
      return;
    }
    if (this.isSpent) this.cutShort();
    this.work();
    // Only what a guard has still to answer counts: guards in process have emptied the queue by now.
    if (this.waiting.length > MAX_WAITING) this.busy = true;
  }

  private read(frame: string): Item {
    const data = frameData(frame);
    if (data === undefined) return { frame, event: undefined, isChanged: false };
    let event: StreamEvent;
    try {
      event = this.context.dialect.readEvent(data);
    } catch {
      // What cannot be read cannot be guarded.
      throw new GatewayError(
        'upstream_bad_answer',
        'The provider sent an event that cannot be read. The answer was stopped.',
      );
    }
    this.meter.see(event);
    if (event.body !== undefined) this.like = this.context.dialect.remember?.(this.like, event.body) ?? event.body;
    if (event.error !== undefined || isErrorFrame(frame)) {
      throw new GatewayError(
        this.context.exchange.committed ? 'stream_broken' : 'upstream_failed',
        'The provider reported an error in its answer. Try again.',
      );
    }
    const isLimited = this.context.record.isOutputLimited && event.finished.length > 0 && event.body !== undefined;
    const isMarked = isLimited && this.context.dialect.markLimited(event.body!);
    return { frame, event, isChanged: event.isTrimmed || isMarked };
  }

  /** The provider went on although the quota is used up, by an estimate of 4 characters a token. */
  private get isSpent(): boolean {
    const { isOutputLimited, outputTokens = 0, answerChars } = this.context.record;
    return isOutputLimited && !this.meter.hasFinished && answerChars > outputTokens * 4;
  }

  /** Ends the stream at its grant: what was held goes out, then a finish that says why; the provider is let go. */
  private cutShort(): void {
    const { record, reply, dialect, wantsUsage } = this.context;
    this.isClosing = true;
    reply.abort();
    record.code = 'quota_exhausted';
    record.usage = usageSoFar(record);
    this.afterwards = () => {
      this.afterwards = undefined;
      this.lastWords(() => {
        this.write(dialect.cutShort(this.like, this.meter.unfinished, wantsUsage ? record.usage : undefined));
        this.finish();
      });
    };
  }

  /** Passes on what waits, as long as the guards answer at once; otherwise goes on when they have. */
  private work(): void {
    while (!this.isGuarding && this.waiting.length > 0) {
      const batch = this.waiting;
      this.waiting = [];
      const guarded = this.guard(batch);
      if (guarded instanceof Promise) {
        this.isGuarding = true;
        guarded.then(
          (out) => this.guardAnswered(out),
          (error) => this.fail(asGatewayError(error)),
        );
      } else this.write(guarded);
    }
    if (!this.isGuarding && this.waiting.length === 0) this.afterwards?.();
  }

  private guardAnswered(out: string): void {
    this.isGuarding = false;
    // Nobody waits for the rest: no guard is asked about it.
    if (this.hasEnded) return;
    this.write(out);
    try {
      this.work();
    } catch (error) {
      this.fail(asGatewayError(error));
    }
    if (this.waiting.length <= MAX_WAITING) this.busy = false;
  }

  /** What a model may not call stops the stream before any of its arguments is seen. */
  private guard(batch: Item[]): string | Promise<string> {
    const permitted = this.guards.tools?.permit(batch.flatMap(({ event }) => event?.tools ?? []));
    return permitted === undefined ? this.guardText(batch) : permitted.then(() => this.guardText(batch));
  }

  private guardText(batch: Item[]): string | Promise<string> {
    const windows = this.windows(batch);
    const results = windows.map(({ channel, text, last }) => channel.push(text, last));
    if (results.some((result) => result instanceof Promise)) {
      return Promise.all(results).then((released) => this.emit(batch, windows, released));
    }
    return this.emit(batch, windows, results as string[]);
  }

  /** The new text of every channel that the batch touches, or ends. */
  private windows(batch: Item[]): Window[] {
    const windows = new Map<Channel, Window>();
    for (const item of batch) {
      if (item.event === undefined) continue;
      for (const part of item.event.parts) {
        if (part.text === '') continue;
        const window = this.windowOf(
          windows,
          part.isWhole ? new Channel(part.channel, this.guards) : this.channel(part.channel),
        );
        if (part.isWhole) window.last = true;
        window.parts.push({ part, item });
        window.text += part.text;
      }
      for (const ended of item.event.closed) this.close(windows, (name) => name === ended, item);
      for (const choice of item.event.finished) this.close(windows, (name) => name.startsWith(`${choice}/`), item);
      if (item.event.done) this.close(windows, () => true, item);
    }
    return [...windows.values()];
  }

  private channel(name: string): Channel {
    let channel = this.channels.get(name);
    if (channel === undefined) {
      channel = new Channel(name, this.guards);
      this.channels.set(name, channel);
    }
    return channel;
  }

  private windowOf(windows: Map<Channel, Window>, channel: Channel): Window {
    let window = windows.get(channel);
    if (window === undefined) {
      window = { channel, parts: [], text: '', owed: channel.owed, last: false, endsAt: undefined };
      windows.set(channel, window);
    }
    return window;
  }

  private close(windows: Map<Channel, Window>, isClosed: (name: string) => boolean, item: Item): void {
    for (const [name, channel] of this.channels) {
      if (!isClosed(name)) continue;
      const window = this.windowOf(windows, channel);
      window.last = true;
      window.endsAt = item;
      this.channels.delete(name);
    }
  }

  /** Puts what was released into the events that brought the text, and writes them. */
  private emit(batch: Item[], windows: Window[], released: string[]): string {
    const before = new Map<Item | undefined, string>();
    windows.forEach((window, i) => {
      this.keep(window, released[i]!);
      const left = distribute(window, released[i]!);
      if (left === '') return;
      const { dialect } = this.context;
      const event = dialect.frame(dialect.textEvent(this.like, window.channel.name, left));
      before.set(window.endsAt, (before.get(window.endsAt) ?? '') + event);
    });
    for (const item of batch) this.agree(item);
    let out = '';
    for (const item of batch) out += (before.get(item) ?? '') + this.frameOf(item);
    return out + (before.get(undefined) ?? '');
  }

  private keep({ channel: { name }, text }: Window, released: string): void {
    const { repeatsText, sealsText } = this.context.dialect;
    if (!repeatsText && !sealsText) return;
    this.said.set(name, this.saidOn(name) + released);
    if (sealsText) this.sealed.set(name, (this.sealed.get(name) ?? '') + text);
  }

  /** An event that says again what a channel has said says what the client was shown; a seal of other text is no seal. */
  private agree(item: Item): void {
    const { event } = item;
    if (
      event?.unseal !== undefined &&
      event.closed.some((name) => this.saidOn(name) !== (this.sealed.get(name) ?? ''))
    ) {
      event.unseal();
      item.isChanged = true;
    }
    for (const { channels, text, set } of item.event?.repeats ?? []) {
      const shown = channels.map((name) => this.saidOn(name)).join('');
      if (shown === text) continue;
      set(shown);
      item.isChanged = true;
    }
  }

  private saidOn(channel: string): string {
    return this.said.get(channel) ?? '';
  }

  private frameOf({ frame, event, isChanged }: Item): string {
    if (event?.usageOnly && !this.context.wantsUsage) return '';
    if (!isChanged || event?.body === undefined) return frame;
    const isEmpty = event.bare && event.parts.every((part) => part.text === '');
    return isEmpty ? '' : this.context.dialect.frame(event.body);
  }

  protected upstreamEnded(): void {
    if (this.isClosing) return;
    try {
      const last = this.reader.end();
      if (last !== undefined) this.waiting.push(this.read(last));
    } catch (error) {
      this.upstreamBroke(asGatewayError(error));
      return;
    }
    this.isClosing = true;
    const isCut = this.reader.incomplete.trim() !== '';
    this.afterwards = () => {
      this.afterwards = undefined;
      if (this.meter.isDone || (this.meter.hasFinished && !isCut)) this.lastWords(() => this.finish());
      else this.brokenOff(new GatewayError('stream_broken', BROKEN));
    };
    this.work();
  }

  protected upstreamBroke(error: GatewayError): void {
    if (this.isClosing) return;
    this.isClosing = true;
    this.afterwards = () => {
      this.afterwards = undefined;
      if (this.meter.isDone) this.finish();
      else this.brokenOff(error);
    };
    this.work();
  }

  /** What was held is judged as it stands and goes out before the error: nothing is lost, nothing goes unseen. */
  private brokenOff(error: GatewayError): void {
    if (this.context.exchange.committed) this.lastWords(() => this.fail(error));
    else this.fail(error);
  }

  private lastWords(then: () => void): void {
    const windows = new Map<Channel, Window>();
    for (const channel of this.channels.values()) this.windowOf(windows, channel).last = true;
    this.channels.clear();
    const list = [...windows.values()];
    const results = list.map(({ channel }) => channel.push('', true));
    Promise.all(results).then(
      (released) => {
        this.write(this.emit([], list, released));
        then();
      },
      (error) => this.fail(asGatewayError(error)),
    );
  }

  protected override tick(now: number): void {
    for (const channel of this.channels.values()) {
      if (channel.isOverdue(now)) {
        throw new GatewayError(
          'guard_unavailable',
          'The answer was stopped because a guard held text back for too long.',
          { publicCode: 'guard_hold_exceeded' },
        );
      }
    }
  }
}

/**
 * Hands released text to the parts of a window, so that events stay as they were where the guards changed nothing: each
 * part gets its own text back, and what a guard put in goes out with the part where it begins. Answers what found no
 * part.
 */
function distribute({ channel, parts, text, owed }: Window, released: string): string {
  if (parts.length === 0) return released;
  const before = owed + text;
  const after = released + channel.owed;
  if (before === after && owed === '' && released.length === text.length) return '';
  const place = placesAfter(before, after);
  let from = 0;
  let end = owed.length;
  for (const { part, item } of parts) {
    end += part.text.length;
    const isLast = end === before.length;
    const upTo = isLast ? released.length : Math.min(place(end), released.length);
    const own = released.slice(from, upTo);
    from = upTo;
    if (own === part.text) continue;
    part.text = own;
    part.set(own);
    item.isChanged = true;
  }
  return '';
}

/** Where an offset of the text lies after the change: what is the same at the beginning and at the end stays in place. */
function placesAfter(before: string, after: string): (offset: number) => number {
  if (before === after) return (offset) => offset;
  const most = Math.min(before.length, after.length);
  let head = 0;
  while (head < most && before.charCodeAt(head) === after.charCodeAt(head)) head += 1;
  let tail = 0;
  while (
    tail < most - head &&
    before.charCodeAt(before.length - 1 - tail) === after.charCodeAt(after.length - 1 - tail)
  )
    tail += 1;
  return (offset) => (offset <= head ? offset : Math.max(offset, before.length - tail) + after.length - before.length);
}
