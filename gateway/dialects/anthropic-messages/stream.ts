/**
 * Events of a streamed message, written from the hub's events.
 * Source: https://platform.claude.com/docs/en/build-with-claude/streaming: `message_start`, then for each block
 * `content_block_start`, its deltas and `content_block_stop`, at last `message_delta` with the reason and the usage, and
 * `message_stop`.
 */
import type { Finish, HubEvent, HubUsage } from '../../hub/reply.ts';
import type { Json, StreamWriter, WriterOptions } from '../dialect.ts';
import { errorFrame } from './error.ts';
import {
  messageHead,
  redactedBlock,
  textBlock,
  thinkingBlock,
  toolBlock,
  writtenCitation,
  writtenEnd,
} from './reply.ts';
import { NO_USAGE, writtenUsage } from './usage.ts';

/** Opens the writer of one streamed answer. */
export function openWriter(options: WriterOptions): StreamWriter {
  return new MessageWriter(options);
}

/** Frames an event's object: its type stands in the `event` line as well, which clients go by. */
export function frame(body: Json): string {
  const { type } = body;
  const isName = typeof type === 'string' && /^\w+$/.test(type);
  return `${isName ? `event: ${type}\n` : ''}data: ${JSON.stringify(body)}\n\n`;
}

type ContentEvent = Extract<HubEvent, { choice: number }>;

/** A block that has begun and not ended. */
interface Block {
  index: number;
  kind: 'text' | 'thinking' | 'tool';
  /** What of a tool's arguments is still open. */
  arguments: OpenJson;
}

class MessageWriter implements StreamWriter {
  private readonly options: WriterOptions;
  private hasBegun = false;
  private isOver = false;
  private blocks = 0;
  /** The text or thoughts that are open; tools whose arguments have not ended may be open beside them. */
  private current: Block | undefined;
  private readonly tools = new Map<number, Block>();
  private usage: HubUsage | undefined;
  private finish: { finish: Finish; stopSequence?: string } = { finish: 'stop' };
  private isRefused = false;

  constructor(options: WriterOptions) {
    this.options = options;
  }

  write(event: HubEvent): string {
    if (this.isOver) return '';
    switch (event.type) {
      case 'start':
        return this.begin(event);
      case 'usage':
        this.usage = event.usage;
        return '';
      case 'end':
        return this.end();
      case 'error':
        this.isOver = true;
        return errorFrame(event.error.shape);
      default:
        // A message has room for one answer; several were refused at the request.
        return event.choice === 0 ? this.begin() + this.content(event) : '';
    }
  }

  private begin(start: Omit<HubEvent & { type: 'start' }, 'type'> = {}): string {
    this.usage ??= start.usage;
    if (this.hasBegun) return '';
    this.hasBegun = true;
    const message = {
      ...messageHead(start.id, start.model ?? this.options.model),
      content: [],
      stop_reason: null,
      stop_sequence: null,
      usage: writtenUsage(this.usage ?? NO_USAGE, start.serviceTier),
    };
    return frame({ type: 'message_start', message });
  }

  private content(event: ContentEvent): string {
    switch (event.type) {
      case 'text':
        return event.text === '' ? '' : this.said('text', { type: 'text_delta', text: event.text });
      case 'refusal':
        this.isRefused = true;
        return this.content({ ...event, type: 'text' });
      case 'citation':
        return this.said('text', { type: 'citations_delta', citation: writtenCitation(event.citation) });
      case 'reasoning':
        return event.text === '' ? '' : this.said('thinking', { type: 'thinking_delta', thinking: event.text });
      case 'signature':
        return this.said('thinking', { type: 'signature_delta', signature: event.signature });
      case 'redacted':
        return this.closeCurrent() + this.start(redactedBlock(event.data)) + this.stop(this.blocks - 1);
      case 'tool-call':
        return this.startTool(event);
      case 'tool-arguments':
        return this.goOn(event);
      case 'part-end':
        return this.endPart();
      case 'finish':
        this.finish = event;
        return this.closeAll();
      default:
        // Media that a model made: none can be asked for in this dialect.
        return '';
    }
  }

  /** A delta of the text or the thoughts that are open, or of a new block of them. */
  private said(kind: 'text' | 'thinking', delta: Json): string {
    let out = this.closeFinishedTools();
    if (this.current?.kind !== kind) {
      out += this.closeCurrent() + this.start(kind === 'text' ? textBlock('', undefined) : thinkingBlock('', ''));
      this.current = { index: this.blocks - 1, kind, arguments: new OpenJson() };
    }
    return out + this.delta(this.current.index, delta);
  }

  private startTool({ call, id, name }: HubEvent & { type: 'tool-call' }): string {
    const out = this.closeCurrent() + this.closeFinishedTools() + this.start(toolBlock(id, name));
    this.tools.set(call, { index: this.blocks - 1, kind: 'tool', arguments: new OpenJson() });
    return out;
  }

  /** Pieces of a call that has ended are white space at most. */
  private goOn({ call, text }: HubEvent & { type: 'tool-arguments' }): string {
    const tool = this.tools.get(call);
    if (tool === undefined) return '';
    tool.arguments.push(text);
    return this.delta(tool.index, { type: 'input_json_delta', partial_json: text });
  }

  private endPart(): string {
    if (this.current !== undefined) return this.closeCurrent();
    const last = [...this.tools.keys()].at(-1);
    return last === undefined ? '' : this.closeTool(last);
  }

  private start(block: Json): string {
    this.blocks += 1;
    return frame({ type: 'content_block_start', index: this.blocks - 1, content_block: block });
  }

  private delta(index: number, delta: Json): string {
    return frame({ type: 'content_block_delta', index, delta });
  }

  private stop(index: number): string {
    return frame({ type: 'content_block_stop', index });
  }

  private closeCurrent(): string {
    if (this.current === undefined) return '';
    const { index } = this.current;
    this.current = undefined;
    return this.stop(index);
  }

  /** Blocks follow each other, except for calls whose arguments arrive interleaved: those stay open. */
  private closeFinishedTools(): string {
    let out = '';
    for (const [call, tool] of this.tools) if (tool.arguments.isWhole) out += this.closeTool(call);
    return out;
  }

  private closeTool(call: number): string {
    const { index } = this.tools.get(call)!;
    this.tools.delete(call);
    return this.stop(index);
  }

  private closeAll(): string {
    let out = this.closeCurrent();
    for (const call of [...this.tools.keys()]) out += this.closeTool(call);
    return out;
  }

  private end(): string {
    const { finish, stopSequence } = this.finish;
    const out = this.begin() + this.closeAll();
    this.isOver = true;
    return (
      out +
      frame({
        type: 'message_delta',
        delta: writtenEnd(finish, stopSequence, this.isRefused),
        usage: writtenUsage(this.usage ?? NO_USAGE),
      }) +
      frame({ type: 'message_stop' })
    );
  }
}

/** Follows a JSON object that comes in pieces, to see where it ends. */
class OpenJson {
  private depth = 0;
  private hasBegun = false;
  private isString = false;
  private isEscaped = false;

  get isWhole(): boolean {
    return this.hasBegun && this.depth === 0;
  }

  push(text: string): void {
    for (let i = 0; i < text.length; i += 1) this.take(text.charCodeAt(i));
  }

  private take(char: number): void {
    if (this.isString) {
      if (this.isEscaped) this.isEscaped = false;
      else if (char === 0x5c) this.isEscaped = true;
      else if (char === 0x22) this.isString = false;
    } else if (char === 0x22) this.isString = true;
    else if (char === 0x7b || char === 0x5b) {
      this.depth += 1;
      this.hasBegun = true;
    } else if (char === 0x7d || char === 0x5d) this.depth -= 1;
  }
}
