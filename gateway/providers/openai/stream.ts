/**
 * Chat completion chunks, read into the hub's events. Each delta gives its events at once.
 * Source: https://platform.openai.com/docs/api-reference/chat-streaming; what compatible servers do otherwise: tool calls
 * without an index, whole calls in one chunk, ids repeated, the usage in any chunk, blank first chunks (Azure).
 */
import type { Json } from '../../dialects/dialect.ts';
import { badAnswer, objectOf, objectsOf, textOf } from '../../hub/fields.ts';
import type { HubEvent } from '../../hub/reply.ts';
import { isJsonObject } from '../../json.ts';
import type { StreamReader } from '../provider.ts';
import { SseReader } from '../sse.ts';
import { reportedError } from './error.ts';
import {
  argumentsOf,
  citationsOf,
  finishOf,
  headOf,
  imagesOf,
  indexOf,
  logprobsOf,
  newCallId,
  outerCitations,
  partsText,
  sealOf,
  thoughtsOf,
  usageOf,
} from './reply.ts';

/** Opens the reader of one streamed answer of the provider `name`. */
export function openReader(name: string): StreamReader {
  return new ChunkReader(name);
}

/** The most choices, and calls of one choice, that are kept apart; nobody asks for as many. */
const MOST = 1024;

/** What is known of a choice. */
interface Choice {
  index: number;
  calls: Call[];
  hasRefusal: boolean;
  isFinished: boolean;
}

/** A tool call that has begun: by the provider's index, where it has one, and by its id. */
interface Call {
  index: number | undefined;
  id: string;
}

class ChunkReader extends SseReader {
  private readonly name: string;
  private readonly choices = new Map<number, Choice>();
  private hasBegun = false;
  private hasCited = false;
  private isOver = false;

  constructor(name: string) {
    super();
    this.name = name;
  }

  protected override read(body: Json, events: HubEvent[]): void {
    if (this.isOver) return;
    const error = reportedError(body, this.name);
    if (error !== undefined) {
      this.isOver = true;
      events.push({ type: 'error', error });
      return;
    }
    const choices = objectsOf(body.choices);
    // Azure's first chunk tells of the prompt's filters and has neither id nor model.
    if (choices.length > 0) this.begin(body, events);
    choices.forEach((choice, i) => {
      this.readChoice(choice, i, events);
    });
    this.cite(body, choices, events);
    const usage = usageOf(body);
    if (usage === undefined) return;
    this.begin(body, events);
    events.push({ type: 'usage', usage });
  }

  protected override done(events: HubEvent[]): void {
    if (this.isOver) return;
    this.isOver = true;
    this.begin({}, events);
    events.push({ type: 'end' });
  }

  /** Some servers leave `[DONE]` out; what has finished has ended. */
  protected override closed(events: HubEvent[]): void {
    const choices = [...this.choices.values()];
    if (choices.length > 0 && choices.every(({ isFinished }) => isFinished)) this.done(events);
  }

  private begin(body: Json, events: HubEvent[]): void {
    if (this.hasBegun) return;
    this.hasBegun = true;
    events.push({ type: 'start', ...headOf(body) });
  }

  private readChoice(source: Json, position: number, events: HubEvent[]): void {
    const choice = this.choiceOf(indexOf(source, position));
    // Some servers say the whole message in the only chunk.
    const delta = objectOf(source.delta) ?? objectOf(source.message);
    if (delta !== undefined) readDelta(source, delta, choice, events);
    if (textOf(source.finish_reason) === undefined || choice.isFinished) return;
    choice.isFinished = true;
    const ended = finishOf(source, choice.hasRefusal, choice.calls.length > 0);
    events.push({ type: 'finish', choice: choice.index, ...ended });
  }

  private choiceOf(index: number): Choice {
    let choice = this.choices.get(index);
    if (choice === undefined) {
      if (this.choices.size >= MOST) throw badAnswer();
      choice = { index, calls: [], hasRefusal: false, isFinished: false };
      this.choices.set(index, choice);
    }
    return choice;
  }

  /** Perplexity repeats its sources in every chunk. */
  private cite(body: Json, choices: Json[], events: HubEvent[]): void {
    if (this.hasCited || choices.length === 0) return;
    const citations = outerCitations(body);
    this.hasCited = citations.length > 0;
    const choice = this.choices.keys().next().value ?? 0;
    for (const citation of citations) events.push({ type: 'citation', choice, citation });
  }
}

function readDelta(source: Json, delta: Json, choice: Choice, events: HubEvent[]): void {
  const { index } = choice;
  for (const { text, signature, redacted } of thoughtsOf(delta)) {
    if (text !== '') events.push({ type: 'reasoning', choice: index, text });
    if (signature !== undefined) events.push({ type: 'signature', choice: index, signature });
    if (redacted !== undefined) events.push({ type: 'redacted', choice: index, data: redacted });
  }
  const text = typeof delta.content === 'string' ? delta.content : partsText(delta.content);
  const logprobs = logprobsOf(source, 'content');
  if (text !== '' || logprobs.logprobs !== undefined) events.push({ type: 'text', choice: index, text, ...logprobs });
  const refusal = textOf(delta.refusal);
  if (refusal) {
    choice.hasRefusal = true;
    events.push({ type: 'refusal', choice: index, text: refusal, ...logprobsOf(source, 'refusal') });
  }
  for (const citation of citationsOf(delta.annotations)) events.push({ type: 'citation', choice: index, citation });
  for (const image of imagesOf(delta)) events.push({ ...image, choice: index });
  for (const call of objectsOf(delta.tool_calls)) readCall(call, choice, events);
  // The older form, of one call without an id.
  if (isJsonObject(delta.function_call)) readCall({ index: 0, function: delta.function_call }, choice, events);
}

/** A piece of a tool call, which may begin one. */
function readCall(piece: Json, choice: Choice, events: HubEvent[]): void {
  const target = objectOf(piece.function);
  if (target === undefined) return;
  const name = textOf(target.name);
  let call = callOf(piece, name, choice);
  if (call < 0) {
    if (choice.calls.length >= MOST) throw badAnswer();
    const id = textOf(piece.id) || newCallId();
    const signature = sealOf(piece);
    call = choice.calls.push({ index: numbered(piece), id }) - 1;
    events.push({
      type: 'tool-call',
      choice: choice.index,
      call,
      id,
      name: name ?? '',
      ...(signature && { signature }),
    });
  }
  const text = argumentsOf(target.arguments);
  if (text !== '') events.push({ type: 'tool-arguments', choice: choice.index, call, text });
}

function numbered({ index }: Json): number | undefined {
  return typeof index === 'number' ? index : undefined;
}

/**
 * Which of the calls a piece goes on with; −1 when it begins another. An index counts, unless the piece names another
 * id: Gemini's compatible endpoint says 0 for all. Without an index the id counts, and without either a name begins.
 */
function callOf(piece: Json, name: string | undefined, { calls }: Choice): number {
  const [index, id] = [numbered(piece), textOf(piece.id)];
  const isOther = (call: Call) => Boolean(id) && Boolean(name) && call.id !== id;
  if (index !== undefined) return calls.findLastIndex((call) => call.index === index && !isOther(call));
  if (id) return calls.findLastIndex((call) => call.id === id);
  return name ? -1 : calls.length - 1;
}
