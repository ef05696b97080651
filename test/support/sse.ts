/** Reads a stream of chat chunks as a client would, and collects what it said. */
import { createParser, type EventSourceMessage } from 'eventsource-parser';
import type { ChatChunk, Usage } from './chunks.ts';

/** A tool call put together from its fragments. */
interface CollectedToolCall {
  id: string | undefined;
  name: string;
  arguments: string;
}

/** What a stream said. The lists have one entry per choice. */
export interface SseResult {
  content: string[];
  reasoning: string[];
  refusal: string[];
  toolCalls: CollectedToolCall[][];
  /** `undefined` for a choice that did not finish. */
  finish: (string | undefined)[];
  usage: Usage | undefined;
  /** Whether `[DONE]` came. */
  done: boolean;
  /** Error objects (the value of `error`), bare or in an event named `error`, and data that was not JSON. */
  errors: unknown[];
  chunks: ChatChunk[];
  events: EventSourceMessage[];
  comments: string[];
  /** Every byte received, as text. */
  rawText: string;
  /** Why reading failed, when the connection was cut before the body's end. */
  cut: Error | undefined;
}

/** Where the bytes come from: a `RawResponse`, the `Response` of fetch, or any iterable of bytes. */
export type SseSource =
  | AsyncIterable<Uint8Array>
  | { chunks: AsyncIterable<Uint8Array> }
  | { body: AsyncIterable<Uint8Array> | null };

/** Reads a stream to its end. */
export function readSse(source: SseSource): Promise<SseResult> {
  return new SseStream(source).rest();
}

/** A stream read event by event, for tests that do something in the middle of it. */
export class SseStream {
  /** What has been said so far. */
  readonly result: SseResult = emptyResult();
  readonly #bytes: AsyncIterator<Uint8Array>;
  readonly #waiting: EventSourceMessage[] = [];
  readonly #decoder = new TextDecoder();
  readonly #parser = createParser({
    onEvent: (event) => this.#waiting.push(event),
    onComment: (comment) => this.result.comments.push(comment),
  });

  constructor(source: SseSource) {
    this.#bytes = bytesOf(source)[Symbol.asyncIterator]();
  }

  /** The next event, or `undefined` at the end. */
  async next(): Promise<EventSourceMessage | undefined> {
    while (this.#waiting.length === 0) if (!(await this.#read())) return undefined;
    const event = this.#waiting.shift()!;
    collect(this.result, event);
    return event;
  }

  /** Reads until `reached` says yes to what has been collected. @throws when the stream ends first */
  async until(reached: (result: SseResult) => boolean): Promise<SseResult> {
    while (!reached(this.result)) {
      if (!(await this.next())) throw new Error(`The stream ended before that: ${this.result.rawText}`);
    }
    return this.result;
  }

  /** Reads to the end. */
  async rest(): Promise<SseResult> {
    while (await this.next());
    return this.result;
  }

  async #read(): Promise<boolean> {
    try {
      const { done, value } = await this.#bytes.next();
      if (done) return false;
      const text = this.#decoder.decode(value, { stream: true });
      this.result.rawText += text;
      this.#parser.feed(text);
      return true;
    } catch (error) {
      this.result.cut = error instanceof Error ? error : new Error(String(error));
      return false;
    }
  }
}

function bytesOf(source: SseSource): AsyncIterable<Uint8Array> {
  if ('chunks' in source) return source.chunks;
  if (!('body' in source)) return source;
  if (!source.body) throw new Error('The response has no body.');
  return source.body;
}

function emptyResult(): SseResult {
  return {
    content: [],
    reasoning: [],
    refusal: [],
    toolCalls: [],
    finish: [],
    usage: undefined,
    done: false,
    errors: [],
    chunks: [],
    events: [],
    comments: [],
    rawText: '',
    cut: undefined,
  };
}

function collect(result: SseResult, event: EventSourceMessage): void {
  result.events.push(event);
  if (event.data === '[DONE]') {
    result.done = true;
    return;
  }
  const data = parse(event.data);
  if (data === undefined) result.errors.push(event.data);
  else if (data.error || event.event === 'error') result.errors.push(data.error ?? data);
  else collectChunk(result, data as ChatChunk);
}

function parse(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

interface Delta {
  content?: string | null;
  reasoning_content?: string;
  reasoning?: string;
  refusal?: string | null;
  tool_calls?: { index?: number; id?: string; function?: { name?: string; arguments?: string } }[];
}

function collectChunk(result: SseResult, chunk: ChatChunk): void {
  result.chunks.push(chunk);
  if (chunk.usage) result.usage = chunk.usage;
  for (const { index, delta, finish_reason } of chunk.choices ?? []) {
    const { content, reasoning_content, reasoning, refusal, tool_calls = [] } = (delta ?? {}) as Delta;
    result.content[index] = (result.content[index] ?? '') + (content ?? '');
    result.reasoning[index] = (result.reasoning[index] ?? '') + (reasoning_content ?? reasoning ?? '');
    result.refusal[index] = (result.refusal[index] ?? '') + (refusal ?? '');
    result.finish[index] = finish_reason ?? result.finish[index];
    result.toolCalls[index] ??= [];
    for (const fragment of tool_calls) collectToolCall(result.toolCalls[index], fragment);
  }
}

function collectToolCall(calls: CollectedToolCall[], fragment: NonNullable<Delta['tool_calls']>[number]): void {
  const at = fragment.index ?? 0;
  calls[at] ??= { id: undefined, name: '', arguments: '' };
  const call = calls[at];
  call.id ??= fragment.id;
  call.name += fragment.function?.name ?? '';
  call.arguments += fragment.function?.arguments ?? '';
}
