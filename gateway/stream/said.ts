/** What a stream has said so far, and how what another provider says is joined to it. */
import { GatewayError } from '../errors.ts';
import type { HubEvent } from '../hub/reply.ts';

/** From this length on, an answer that begins with what was said is one that began anew. */
const TELLING = 8;

export class Said {
  private readonly max: number;
  private text = '';
  private isTooLong = false;
  private hasThought = false;
  /** Tool calls, refusals, pictures, several choices: what cannot be taken back and not be gone on from. */
  private isBound = false;
  private readonly begun = new Set<number>();
  private readonly finished = new Set<number>();
  private ended = false;

  // --- The join under way ---
  private mode: 'continue' | 'replay' | undefined;
  /** What the text was when the join began. */
  private sent = '';
  /** What the new part has said that is not yet known to be new. */
  private pending = '';

  constructor(max: number) {
    this.max = max;
  }

  /** The text that went out. */
  get soFar(): string {
    return this.text;
  }

  /** Whether another provider may go on from here. */
  get canBeJoined(): boolean {
    return !this.isBound && !this.isTooLong;
  }

  /** Whether the answer was finished, in every choice that began. */
  get isFinished(): boolean {
    if (this.finished.size === 0) return false;
    for (const choice of this.begun) if (!this.finished.has(choice)) return false;
    return true;
  }

  /** Whether the format's own end was seen. */
  get isEnded(): boolean {
    return this.ended;
  }

  get isJson(): boolean {
    try {
      JSON.parse(this.text);
      return true;
    } catch {
      return false;
    }
  }

  /** What was said cannot be gone on from. */
  spoil(): void {
    this.isBound = true;
  }

  /** The same text in other words: what a provider may read of it, and will say again. */
  reword(text: string): void {
    this.text = text;
  }

  /** Takes down what goes out. */
  note(event: HubEvent): void {
    if ('choice' in event && event.type !== 'finish') this.begun.add(event.choice);
    switch (event.type) {
      case 'text':
        this.add(event.choice, event.text);
        break;
      case 'reasoning':
      case 'signature':
      case 'redacted':
        this.hasThought = true;
        break;
      case 'refusal':
      case 'tool-call':
      case 'tool-arguments':
      case 'media':
        this.isBound = true;
        break;
      case 'finish':
        this.finished.add(event.choice);
        break;
      case 'end':
        this.ended = true;
        break;
    }
  }

  private add(choice: number, text: string): void {
    if (choice > 0) this.isBound = true;
    if (this.isTooLong) return;
    if (this.text.length + text.length > this.max) this.isTooLong = true;
    else this.text += text;
  }

  /** Another provider's part begins. */
  beginJoin(mode: 'continue' | 'replay'): void {
    this.mode = this.text === '' ? undefined : mode;
    this.sent = this.text;
    this.pending = '';
  }

  /**
   * What of an event of the new part goes out: nothing that was said already.
   * @throws GatewayError `stream_broken` when the new part does not fit what was said
   */
  join(event: HubEvent): HubEvent[] {
    switch (event.type) {
      case 'start':
        return [];
      case 'reasoning':
      case 'signature':
      case 'redacted':
        // The thoughts of another model cannot be joined to those that were shown.
        return this.hasThought || this.text !== '' ? [] : [event];
      case 'text':
        return this.mode === undefined ? [event] : this.joinText(event);
      case 'part-end':
        return this.mode === undefined ? [event] : [];
      case 'tool-call':
      case 'finish':
      case 'end':
        return [...this.settle(event), event];
      default:
        return [event];
    }
  }

  private joinText(event: HubEvent & { type: 'text' }): HubEvent[] {
    this.pending += event.text;
    const { pending, sent } = this;
    const common = Math.min(pending.length, sent.length);
    if (pending.slice(0, common) !== sent.slice(0, common)) {
      if (this.mode === 'replay') throw diverged();
      // The white space may come in pieces.
      if (this.space.startsWith(pending) && pending !== this.space) return [];
      return this.goOn(this.withoutSpace(pending), event);
    }
    if (pending.length < sent.length) return [];
    // It began anew and has caught up.
    if (this.mode === 'replay' || sent.length >= TELLING) return this.goOn(pending.slice(sent.length), event);
    return this.goOn(this.withoutSpace(pending), event);
  }

  /** White space at the end of what was sent is not sent as a prefix, so a model may say it again. */
  private withoutSpace(text: string): string {
    if (this.space.startsWith(text)) return '';
    return text.startsWith(this.space) ? text.slice(this.space.length) : text;
  }

  private get space(): string {
    return this.sent.slice(this.sent.trimEnd().length);
  }

  private goOn(text: string, { choice }: HubEvent & { type: 'text' }): HubEvent[] {
    this.mode = undefined;
    this.pending = '';
    return text === '' ? [] : [{ type: 'text', choice, text }];
  }

  /** The new part ends before it was clear what it is. */
  private settle(event: HubEvent & { type: 'tool-call' | 'finish' | 'end' }): HubEvent[] {
    const { mode, pending } = this;
    if (mode === undefined) return [];
    // A replay that ends before the place where the first one broke has not said the same.
    if (mode === 'replay') throw diverged();
    const choice = event.type === 'end' ? 0 : event.choice;
    return this.goOn(this.withoutSpace(pending), { type: 'text', choice, text: pending });
  }
}

export const UNJOINED =
  'The provider broke off in the middle of its answer, and no other could go on from there. What you see is incomplete; send the request again.';

const DIVERGED =
  'The provider broke off in the middle of its answer, and another one answers differently. What you see is incomplete; send the request again.';

/** A part does not fit what was said before, which is no fault of its provider. */
export class Unjoined extends GatewayError {
  constructor(cause: string, message = UNJOINED) {
    super('stream_broken', message, { cause });
  }
}

function diverged(): GatewayError {
  return new Unjoined('the replayed answer differs from what was sent', DIVERGED);
}
