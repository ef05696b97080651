/**
 * Streams of the Messages API → hub.
 * Source: https://platform.claude.com/docs/en/build-with-claude/streaming; `message_stop` is the only true end.
 */
import { readUsage } from '../../dialects/anthropic-messages/usage.ts';
import type { Json } from '../../dialects/dialect.ts';
import { objectOf, textOf } from '../../hub/fields.ts';
import type { HubEvent } from '../../hub/reply.ts';
import { SseReader } from '../sse.ts';
import { reportedError } from './error.ts';
import { argumentsOf, callOf, citationOf, endOf, explanationOf, headOf } from './reply.ts';

const CHOICE = { choice: 0 } as const;

export class MessagesReader extends SseReader {
  private readonly name: string;
  /** Counts so far: the end of a stream may tell those of the answer alone. */
  private counts: Json = {};
  /** Numbers of the tool calls, by their blocks. */
  private readonly calls = new Map<unknown, number>();
  private isOver = false;
  /** Whether the block that is open has said nothing yet. */
  private isSilent = false;
  private hasOdd = false;

  /** `name` is the provider's, for its errors. */
  constructor(name: string) {
    super();
    this.name = name;
  }

  /** Blocks of the vendor's own tools, and such as are empty. */
  get hasUnknown(): boolean {
    return this.hasOdd || this.isSilent;
  }

  protected read(body: Json, events: HubEvent[]): void {
    if (this.isOver) return;
    switch (body.type) {
      case 'message_start':
        this.start(objectOf(body.message) ?? {}, events);
        break;
      case 'content_block_start':
        this.startBlock(objectOf(body.content_block) ?? {}, body.index, events);
        break;
      case 'content_block_delta':
        this.goOn(objectOf(body.delta) ?? {}, body.index, events);
        break;
      case 'content_block_stop':
        this.hasOdd ||= this.isSilent;
        this.isSilent = false;
        events.push({ type: 'part-end', ...CHOICE });
        break;
      case 'message_delta':
        this.finish(body, events);
        break;
      case 'message_stop':
        this.isOver = true;
        events.push({ type: 'end' });
        break;
      case 'error':
        this.isOver = true;
        events.push({ type: 'error', error: reportedError(body, this.name) });
        break;
      default:
        // `ping`, and what is to come: the vendor asks to pass over events that are not known.
        break;
    }
  }

  private start(message: Json, events: HubEvent[]): void {
    this.counts = objectOf(message.usage) ?? {};
    const usage = readUsage(this.counts);
    events.push({ type: 'start', ...headOf(message), ...(usage !== undefined && { usage }) });
  }

  private startBlock(block: Json, index: unknown, events: HubEvent[]): void {
    const before = events.length;
    const text = textOf(block.text);
    const thinking = textOf(block.thinking);
    if (block.type === 'text' && text) events.push({ type: 'text', ...CHOICE, text });
    else if (block.type === 'thinking' && thinking) events.push({ type: 'reasoning', ...CHOICE, text: thinking });
    else if (block.type === 'redacted_thinking') {
      const data = textOf(block.data);
      if (data) events.push({ type: 'redacted', ...CHOICE, data });
    } else if (block.type === 'tool_use') this.startCall(block, index, events);
    this.isSilent = events.length === before;
  }

  private startCall(block: Json, index: unknown, events: HubEvent[]): void {
    const call = this.calls.size;
    this.calls.set(index, call);
    events.push({ type: 'tool-call', ...CHOICE, call, ...callOf(block) });
    // It begins empty, except where a server knows the whole at once.
    const text = argumentsOf(block.input);
    if (text !== '{}') events.push({ type: 'tool-arguments', ...CHOICE, call, text });
  }

  private goOn(delta: Json, index: unknown, events: HubEvent[]): void {
    const before = events.length;
    this.readDelta(delta, index, events);
    if (events.length > before) this.isSilent = false;
  }

  private readDelta(delta: Json, index: unknown, events: HubEvent[]): void {
    const text = textOf(delta.text ?? delta.thinking ?? delta.partial_json);
    if (delta.type === 'text_delta' && text) events.push({ type: 'text', ...CHOICE, text });
    else if (delta.type === 'thinking_delta' && text) events.push({ type: 'reasoning', ...CHOICE, text });
    else if (delta.type === 'input_json_delta' && text) this.goOnCall(text, index, events);
    else if (delta.type === 'signature_delta') {
      const signature = textOf(delta.signature);
      if (signature) events.push({ type: 'signature', ...CHOICE, signature });
    } else if (delta.type === 'citations_delta') {
      const cited = objectOf(delta.citation);
      if (cited !== undefined) events.push({ type: 'citation', ...CHOICE, citation: citationOf(cited) });
    }
  }

  /** Arguments of what was not begun belong to the vendor's own tools. */
  private goOnCall(text: string, index: unknown, events: HubEvent[]): void {
    const call = this.calls.get(index);
    if (call !== undefined) events.push({ type: 'tool-arguments', ...CHOICE, call, text });
  }

  private finish(body: Json, events: HubEvent[]): void {
    const delta = objectOf(body.delta) ?? {};
    const [end, explanation] = [endOf(delta), explanationOf(delta)];
    if (explanation !== undefined) events.push({ type: 'refusal', ...CHOICE, text: explanation });
    if (end !== undefined) events.push({ type: 'finish', ...CHOICE, ...end });
    const told = Object.entries(objectOf(body.usage) ?? {}).filter(([, value]) => value !== null);
    this.counts = { ...this.counts, ...Object.fromEntries(told) };
    const usage = readUsage(this.counts);
    if (usage !== undefined) events.push({ type: 'usage', usage });
  }
}
