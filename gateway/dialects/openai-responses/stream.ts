/**
 * The events of a streamed response, written from the hub's events.
 * Source: https://platform.openai.com/docs/api-reference/responses-streaming: items are announced, their parts too, text
 * comes in deltas, and each end says the whole text again; the last event holds the whole response. There is no `[DONE]`.
 */
import type { GatewayError } from '../../errors.ts';
import type { Finish, HubEvent, HubUsage, Logprob, PlacedItem } from '../../hub/reply.ts';
import type { Citation } from '../../hub/request.ts';
import type { Json, StreamWriter, WriterOptions } from '../dialect.ts';
import { frame } from './events.ts';
import {
  callItem,
  ending,
  Ids,
  imageItem,
  isImage,
  messageItem,
  responseHead,
  thoughtItem,
  writtenCitation,
  writtenLogprob,
  writtenSound,
} from './reply.ts';
import { sealedCall, sealedThought } from './seals.ts';

/** Opens the writer of one streamed answer. */
export function openWriter(options: WriterOptions): StreamWriter {
  return new ResponseWriter(options);
}

type Start = Extract<HubEvent, { type: 'start' }>;
type CallStart = Extract<HubEvent, { type: 'tool-call' }>;
type ContentEvent = Exclude<Extract<HubEvent, { choice: number }>, { type: 'finish' }>;

/** The most items whose places are kept; no answer has as many. */
const MOST = 1024;

/** An item that is being written; its place in the output is `index`. */
interface Open {
  index: number;
  id: string;
}

interface Message extends Open {
  content: Json[];
  part: Part | undefined;
}

interface Part {
  type: 'output_text' | 'refusal';
  text: string;
  annotations: Json[];
  logprobs: Logprob[];
}

interface Thought extends Open {
  text: string;
  isShown: boolean;
  seal: { signature?: string; redacted?: string };
}

interface Call extends Open {
  callId: string;
  name: string;
  arguments: string;
}

class ResponseWriter implements StreamWriter {
  private readonly options: WriterOptions;
  private start: Start | undefined;
  private ids: Ids | undefined;
  private head: Json | undefined;
  private sequence = 0;
  /** The output so far; what is still open has no place in it yet. */
  private readonly output: Json[] = [];
  private items = 0;
  private message: Message | undefined;
  private thought: Thought | undefined;
  private readonly calls = new Map<number, Call>();
  /** The call that the next `part-end` ends. */
  private latest: number | undefined;
  private usage: HubUsage | undefined;
  private finish: Finish | undefined;
  private isOver = false;

  constructor(options: WriterOptions) {
    this.options = options;
  }

  write(event: HubEvent): string {
    if (this.isOver) return '';
    switch (event.type) {
      case 'start':
        // Nothing goes out yet: until there is content, another provider may take over unseen. The first id stays.
        this.start ??= event;
        this.usage = event.usage ?? this.usage;
        return '';
      case 'usage':
        this.usage = event.usage;
        return '';
      case 'finish':
        if (event.choice === 0) this.finish = event.finish;
        return '';
      case 'end':
        return this.end();
      case 'error':
        return this.broken(event.error);
      default:
        // One answer is all that the format has.
        return event.choice === 0 ? this.content(event) : '';
    }
  }

  private content(event: ContentEvent): string {
    if (event.type === 'part-end') return this.endPart();
    const begun = this.begin();
    switch (event.type) {
      case 'text':
        return begun + this.openMessage(event.item) + this.say('output_text', event.text, event.logprobs ?? []);
      case 'refusal':
        return begun + this.say('refusal', event.text, event.logprobs ?? []);
      case 'citation':
        return begun + this.cite(event.citation);
      case 'reasoning':
        return begun + this.think(event.text);
      case 'signature':
        return begun + this.seal({ signature: event.signature });
      case 'redacted':
        return begun + this.closeThought() + this.seal({ redacted: event.data }) + this.closeThought();
      case 'tool-call':
        return begun + this.call(event);
      case 'tool-arguments':
        return begun + this.argue(event.call, event.text);
      default:
        return begun + this.media(event);
    }
  }

  // --- The response ---

  /** The beginning goes out with the first content. */
  private begin(): string {
    if (this.head !== undefined) return '';
    const { model, created, serviceTier, id } = this.start ?? {};
    this.ids = new Ids(id);
    this.head = responseHead(this.ids.response, { model: model ?? this.options.model, created, serviceTier });
    return (
      this.event('response.created', { response: this.head }) +
      this.event('response.in_progress', { response: this.head })
    );
  }

  private end(): string {
    const begun = this.begin();
    const closed = this.closeSpeech() + this.closeCalls();
    this.isOver = true;
    const ended = ending(this.finish ?? 'stop', this.usage);
    const response = { ...this.head, ...ended, output: Object.values(this.output) };
    return begun + closed + this.event(`response.${ended.status}`, { response });
  }

  private broken({ shape }: GatewayError): string {
    this.isOver = true;
    const { code, message, param } = shape;
    return this.event('error', { code, message, param: param ?? null });
  }

  private event(type: string, body: Json): string {
    const written = frame({ type, sequence_number: this.sequence, ...body });
    this.sequence += 1;
    return written;
  }

  // --- Items ---

  private newItem(prefix: 'msg' | 'rs' | 'fc' | 'ig'): Open {
    this.items += 1;
    return { index: this.items - 1, id: this.ids!.item(prefix) };
  }

  private added({ index }: Open, item: Json): string {
    return this.event('response.output_item.added', { output_index: index, item });
  }

  private done({ index }: Open, item: Json): string {
    this.output[index] = item;
    return this.event('response.output_item.done', { output_index: index, item });
  }

  /** The part that was open has ended. */
  private endPart(): string {
    if (this.thought !== undefined) return this.closeThought();
    if (this.message?.part !== undefined) return this.closePart(this.message);
    const { latest } = this;
    this.latest = undefined;
    return latest === undefined ? '' : this.closeCall(latest);
  }

  private closeSpeech(): string {
    return this.closeMessage() + this.closeThought();
  }

  // --- Messages ---

  private say(type: Part['type'], text: string, logprobs: Logprob[]): string {
    const opened = this.openPart(type);
    const { message, part } = this.speaking();
    part.text += text;
    part.logprobs.push(...logprobs);
    const isText = type === 'output_text';
    return (
      opened +
      this.event(`response.${type}.delta`, {
        item_id: message.id,
        output_index: message.index,
        content_index: message.content.length,
        delta: text,
        ...(isText && { logprobs: logprobs.map(writtenLogprob) }),
      })
    );
  }

  /** The message and the part that {@link openPart} has opened. */
  private speaking(): { message: Message; part: Part } {
    return { message: this.message!, part: this.message!.part! };
  }

  private openPart(type: Part['type']): string {
    const before = this.openMessage();
    const message = this.message!;
    if (message.part?.type === type) return before;
    const ended = message.part === undefined ? '' : this.closePart(message);
    message.part = { type, text: '', annotations: [], logprobs: [] };
    return before + ended + this.partEvent('added', message, writtenPart(message.part));
  }

  /** A message that was begun elsewhere keeps its name and its place. */
  private openMessage(placed?: PlacedItem): string {
    const isNext = placed !== undefined && this.message !== undefined && placed.id !== this.message.id;
    const before = this.closeThought() + (isNext ? this.closeMessage() : '');
    this.latest = undefined;
    if (this.message !== undefined) return before;
    if (placed !== undefined && placed.index < MOST) this.items = Math.max(this.items, placed.index);
    const { index, id } = this.newItem('msg');
    this.message = { index, id: placed?.id ?? id, content: [], part: undefined };
    return before + this.added(this.message, messageItem(this.message.id, [], 'in_progress'));
  }

  private partEvent(what: 'added' | 'done', { id, index, content }: Message, part: Json): string {
    const place = { item_id: id, output_index: index, content_index: content.length };
    return this.event(`response.content_part.${what}`, { ...place, part });
  }

  private closePart(message: Message): string {
    const part = message.part!;
    const written = writtenPart(part);
    const place = { item_id: message.id, output_index: message.index, content_index: message.content.length };
    const said = part.type === 'refusal' ? { refusal: part.text } : { text: part.text, logprobs: written.logprobs };
    const out =
      this.event(`response.${part.type}.done`, { ...place, ...said }) + this.partEvent('done', message, written);
    message.content.push(written);
    message.part = undefined;
    return out;
  }

  private closeMessage(): string {
    const { message } = this;
    if (message === undefined) return '';
    const ended = message.part === undefined ? '' : this.closePart(message);
    this.message = undefined;
    return ended + this.done(message, messageItem(message.id, message.content));
  }

  private cite(citation: Citation): string {
    const opened = this.message?.part?.type === 'output_text' ? '' : this.openPart('output_text');
    const { message, part } = this.speaking();
    const annotation = writtenCitation(citation, part.text.length);
    part.annotations.push(annotation);
    return (
      opened +
      this.event('response.output_text.annotation.added', {
        item_id: message.id,
        output_index: message.index,
        content_index: message.content.length,
        annotation_index: part.annotations.length - 1,
        annotation,
      })
    );
  }

  // --- Thoughts ---

  private think(text: string): string {
    // A seal ends the thoughts that it seals.
    const before = this.thought?.seal.signature === undefined ? '' : this.closeThought();
    const opened = before + this.openThought();
    const thought = this.thought!;
    thought.text += text;
    return opened + this.showThought(thought) + this.summary('text.delta', thought, { delta: text });
  }

  private showThought(thought: Thought): string {
    if (thought.isShown) return '';
    thought.isShown = true;
    return this.summary('part.added', thought, { part: { type: 'summary_text', text: '' } });
  }

  private summary(what: string, { id, index }: Thought, body: Json): string {
    const place = { item_id: id, output_index: index, summary_index: 0 };
    return this.event(`response.reasoning_summary_${what}`, { ...place, ...body });
  }

  private openThought(): string {
    if (this.thought !== undefined) return '';
    const before = this.closeMessage();
    this.latest = undefined;
    this.thought = { ...this.newItem('rs'), text: '', isShown: false, seal: {} };
    return before + this.added(this.thought, { id: this.thought.id, type: 'reasoning', summary: [] });
  }

  private seal(seal: Thought['seal']): string {
    const opened = this.openThought();
    this.thought!.seal = seal;
    return opened;
  }

  private closeThought(): string {
    const { thought } = this;
    if (thought === undefined) return '';
    this.thought = undefined;
    const { text, seal, isShown } = thought;
    const shown = isShown
      ? this.summary('text.done', thought, { text }) +
        this.summary('part.done', thought, { part: { type: 'summary_text', text } })
      : '';
    return shown + this.done(thought, thoughtItem(thought.id, sealedThought({ type: 'reasoning', text, ...seal })));
  }

  // --- Tool calls ---

  private call({ call, id, name, signature }: CallStart): string {
    const before = this.closeSpeech() + (signature === undefined ? '' : this.sealCall(signature));
    const opened: Call = { ...this.newItem('fc'), callId: id, name, arguments: '' };
    this.calls.set(call, opened);
    this.latest = call;
    return before + this.added(opened, writtenCall(opened, 'in_progress'));
  }

  private sealCall(signature: string): string {
    const item = this.newItem('rs');
    const sealed = thoughtItem(item.id, sealedCall(signature));
    return this.added(item, { id: item.id, type: 'reasoning', summary: [] }) + this.done(item, sealed);
  }

  private argue(call: number, delta: string): string {
    const open = this.calls.get(call);
    if (open === undefined) return '';
    open.arguments += delta;
    const place = { item_id: open.id, output_index: open.index };
    return this.event('response.function_call_arguments.delta', { ...place, delta });
  }

  private closeCall(call: number): string {
    const open = this.calls.get(call);
    if (open === undefined) return '';
    this.calls.delete(call);
    const item = writtenCall(open, 'completed');
    const place = { item_id: open.id, output_index: open.index };
    const done = this.event('response.function_call_arguments.done', { ...place, arguments: item.arguments });
    return done + this.done(open, item);
  }

  /** Calls may be told side by side, so each stays open until its own end, or that of the answer. */
  private closeCalls(): string {
    return [...this.calls.keys()].map((call) => this.closeCall(call)).join('');
  }

  // --- Pictures and sound ---

  private media({ mediaType, data }: Extract<HubEvent, { type: 'media' }>): string {
    if (!isImage({ mediaType })) return this.sound(data);
    const before = this.closeSpeech();
    const item = this.newItem('ig');
    const begun = this.added(item, { id: item.id, type: 'image_generation_call', status: 'in_progress', result: null });
    return before + begun + this.done(item, imageItem(item.id, data));
  }

  private sound(data: string): string {
    const before = this.openMessage();
    const message = this.message!;
    const ended = message.part === undefined ? '' : this.closePart(message);
    const part = writtenSound({ data });
    const out = this.partEvent('added', message, { ...part, data: '' }) + this.partEvent('done', message, part);
    message.content.push(part);
    return before + ended + out;
  }
}

function writtenPart({ type, text, annotations, logprobs }: Part): Json {
  if (type === 'refusal') return { type, refusal: text };
  return { type, text, annotations: [...annotations], logprobs: logprobs.map(writtenLogprob) };
}

function writtenCall({ id, callId, name, arguments: args }: Call, status: string): Json {
  return callItem(id, { id: callId, name, arguments: args }, status);
}
