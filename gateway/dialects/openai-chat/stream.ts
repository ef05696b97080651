/**
 * Chat completion chunks, written from the hub's events.
 * Source: https://platform.openai.com/docs/api-reference/chat-streaming: a first chunk with the role for each choice,
 * deltas, a chunk with the finish reason, the usage in a chunk without choices where it was asked for, and `[DONE]`.
 */
import type { GatewayError } from '../../errors.ts';
import type { HubEvent, HubUsage } from '../../hub/reply.ts';
import type { Json, StreamWriter, WriterOptions } from '../dialect.ts';
import {
  finishReason,
  newId,
  now,
  sealOf,
  writtenCitation,
  writtenImage,
  writtenLogprobs,
  writtenUsage,
} from './reply.ts';

/** Opens the writer of one streamed answer. */
export function openWriter(options: WriterOptions): StreamWriter {
  return new ChunkWriter(options);
}

/** What later chunks of a choice depend on. */
interface Choice {
  /** Length of its text so far, in UTF-16 units, and where its open part began. */
  length: number;
  partStart: number;
  /** Its thoughts so far, and whether the last of them goes on. */
  thoughts: number;
  isThinking: boolean;
  hasRefusal: boolean;
  isFinished: boolean;
  /** The calls that have no arguments so far. */
  bareCalls: Set<number>;
}

type ContentEvent = Extract<HubEvent, { choice: number }>;

class ChunkWriter implements StreamWriter {
  private readonly options: WriterOptions;
  private head: Json | undefined;
  private readonly choices = new Map<number, Choice>();
  private usage: HubUsage | undefined;
  private isOver = false;

  constructor(options: WriterOptions) {
    this.options = options;
  }

  write(event: HubEvent): string {
    if (this.isOver) return '';
    if (event.type === 'start') return this.start(event);
    if (event.type === 'usage') return this.count(event.usage);
    if (event.type === 'end') return this.end();
    if (event.type === 'error') return this.broken(event.error);
    return this.content(event);
  }

  /** Nothing goes out yet: until there is content, another provider may take over unseen. The first id stays. */
  private start({ id, model, created, serviceTier, usage }: Extract<HubEvent, { type: 'start' }>): string {
    this.head ??= this.newHead(id, model, created, serviceTier);
    return this.count(usage);
  }

  private newHead(id?: string, model?: string, created?: number, serviceTier?: string): Json {
    return {
      id: id ?? newId(),
      object: 'chat.completion.chunk',
      created: created ?? now(),
      model: model ?? this.options.model,
      ...(serviceTier !== undefined && { service_tier: serviceTier }),
    };
  }

  private count(usage: HubUsage | undefined): string {
    this.usage = usage ?? this.usage;
    return '';
  }

  private content(event: ContentEvent): string {
    const known = this.choices.get(event.choice);
    if (known === undefined && event.type === 'part-end') return '';
    const choice = known ?? this.open(event.choice);
    const first =
      known === undefined ? this.chunk(event.choice, { role: 'assistant', content: '', refusal: null }) : '';
    if (event.type !== 'reasoning' && event.type !== 'signature') choice.isThinking = false;
    if (event.type !== 'text' && event.type !== 'citation') choice.partStart = choice.length;
    if (event.type === 'finish') {
      choice.isFinished = true;
      const ended = { finish_reason: finishReason(event.finish, choice.hasRefusal) };
      return first + this.noArguments(event, choice) + this.chunk(event.choice, {}, ended);
    }
    const delta = deltaOf(event, choice);
    if (delta === undefined) return first;
    return first + this.chunk(event.choice, delta, logprobsOf(event));
  }

  /** Clients parse the arguments as JSON. A call that was cut off says no more than it said. */
  private noArguments({ choice: index, finish }: Extract<HubEvent, { type: 'finish' }>, { bareCalls }: Choice): string {
    if (bareCalls.size === 0 || finish === 'length') return '';
    return this.chunk(index, {
      tool_calls: [...bareCalls].map((call) => ({ index: call, function: { arguments: '{}' } })),
    });
  }

  private open(index: number): Choice {
    const choice: Choice = {
      length: 0,
      partStart: 0,
      thoughts: 0,
      isThinking: false,
      hasRefusal: false,
      isFinished: false,
      bareCalls: new Set(),
    };
    this.choices.set(index, choice);
    return choice;
  }

  private chunk(index: number, delta: Json, beside: Json = {}): string {
    const choice = { index, delta, logprobs: null, finish_reason: null, ...beside };
    return this.frame({ choices: [choice], ...(this.options.wantsUsage && { usage: null }) });
  }

  private frame(body: Json): string {
    this.head ??= this.newHead();
    return `data: ${JSON.stringify({ ...this.head, ...body })}\n\n`;
  }

  private end(): string {
    let out = '';
    for (const [index, { isFinished }] of this.choices) {
      if (!isFinished) out += this.content({ type: 'finish', choice: index, finish: 'stop' });
    }
    const usage = this.usage ?? { inputTokens: 0, outputTokens: 0 };
    if (this.options.wantsUsage) out += this.frame({ choices: [], usage: writtenUsage(usage) });
    this.isOver = true;
    return `${out}data: [DONE]\n\n`;
  }

  private broken({ shape }: GatewayError): string {
    const { message, type, code, param } = shape;
    this.isOver = true;
    return `data: ${JSON.stringify({ error: { message, type, param: param ?? null, code } })}\n\n`;
  }
}

/** The delta of an event; undefined where the format has none for it. */
function deltaOf(event: ContentEvent, choice: Choice): Json | undefined {
  switch (event.type) {
    case 'text':
      choice.length += event.text.length;
      return { content: event.text };
    case 'refusal':
      choice.hasRefusal = true;
      return { refusal: event.text };
    case 'citation':
      return { annotations: [writtenCitation(event.citation, choice.partStart, choice.length)] };
    case 'reasoning':
      return { reasoning_content: event.text, reasoning_details: [thought(choice, { text: event.text })] };
    case 'signature':
      return { reasoning_details: [thought(choice, { signature: event.signature })] };
    case 'redacted':
      return { reasoning_details: [encrypted(choice, event.data)] };
    case 'tool-call':
      choice.bareCalls.add(event.call);
      return { tool_calls: [callStart(event)] };
    case 'tool-arguments':
      if (event.text !== '') choice.bareCalls.delete(event.call);
      return { tool_calls: [{ index: event.call, function: { arguments: event.text } }] };
    case 'media':
      return { images: [writtenImage(event)] };
    default:
      return undefined;
  }
}

/** A piece of the thought that is open. Clients join the pieces of an index, as OpenRouter's stream has it. */
function thought(choice: Choice, piece: Json): Json {
  if (!choice.isThinking) choice.thoughts += 1;
  choice.isThinking = piece.signature === undefined;
  return { type: 'reasoning.text', ...piece, index: choice.thoughts - 1 };
}

function encrypted(choice: Choice, data: string): Json {
  choice.thoughts += 1;
  return { type: 'reasoning.encrypted', data, index: choice.thoughts - 1 };
}

function callStart({ call, id, name, signature }: Extract<HubEvent, { type: 'tool-call' }>): Json {
  return { index: call, id, type: 'function', function: { name, arguments: '' }, ...sealOf(signature) };
}

function logprobsOf(event: ContentEvent): Json {
  if (event.type !== 'text' && event.type !== 'refusal') return {};
  const { logprobs, type } = event;
  return logprobs === undefined ? {} : { logprobs: writtenLogprobs(logprobs, type === 'refusal') };
}
