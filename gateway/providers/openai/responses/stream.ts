/**
 * The events of a streamed response, read into the hub's.
 * Source: https://platform.openai.com/docs/api-reference/responses-streaming. Deltas give their events at once; what only
 * the end of an item tells (a text without deltas, a seal) is given there.
 */
import type { Json } from '../../../dialects/dialect.ts';
import { badAnswer, objectOf, objectsOf, textOf } from '../../../hub/fields.ts';
import type { HubEvent, PlacedItem } from '../../../hub/reply.ts';
import type { StreamReader } from '../../provider.ts';
import { SseReader } from '../../sse.ts';
import { failureOf } from './error.ts';
import { citationOf, finishOf, headOf, logprobsOf, pictureOf, sealed, usageOf } from './reply.ts';

/** Opens the reader of one streamed answer of the provider `name`. */
export function openReader(name: string): StreamReader {
  return new ResponseReader(name);
}

/** The most items of an answer, and parts of an item, that are kept apart; none has as many. */
const MOST = 1024;

/** What is known of an item of the output. */
interface Item {
  /** The call's number; undefined until a tool call has begun. */
  call: number | undefined;
  /** The parts that have said anything, such as `text/0` or `cited/0/1`. */
  said: Set<string>;
}

class ResponseReader extends SseReader {
  private readonly name: string;
  private readonly items = new Map<number, Item>();
  private calls = 0;
  /** Kinds of what was said, which tell why it ended. */
  private readonly kinds = new Set<string>();
  private hasBegun = false;
  private isOver = false;

  constructor(name: string) {
    super();
    this.name = name;
  }

  protected override read(body: Json, events: HubEvent[]): void {
    if (this.isOver) return;
    const type = textOf(body.type) ?? '';
    const response = objectOf(body.response);
    if (type === 'error' || body.error) this.fail(body, events);
    else if (type === 'response.failed') this.fail(objectOf(response?.error), events);
    else if (type === 'response.completed' || type === 'response.incomplete') this.finish(response ?? {}, events);
    else if (response !== undefined) this.begin(response, events);
    else if (type.startsWith('response.')) {
      this.begin({}, events);
      this.readPiece(type.slice('response.'.length), body, events);
    }
  }

  // --- The response -----------------------------------------------------------------------------------------------

  private begin(response: Json, events: HubEvent[]): void {
    if (this.hasBegun) return;
    this.hasBegun = true;
    events.push({ type: 'start', ...headOf(response) });
  }

  private fail(error: Json | undefined, events: HubEvent[]): void {
    this.isOver = true;
    events.push({ type: 'error', error: failureOf(error, this.name) });
  }

  private finish(response: Json, events: HubEvent[]): void {
    this.begin(response, events);
    this.isOver = true;
    const said = [...this.kinds].map((type) => ({ type }));
    events.push({ type: 'finish', choice: 0, finish: finishOf(response, said) });
    const usage = usageOf(response.usage);
    if (usage !== undefined) events.push({ type: 'usage', usage });
    events.push({ type: 'end' });
  }

  // --- Pieces of it -----------------------------------------------------------------------------------------------

  private readPiece(type: string, body: Json, events: HubEvent[]): void {
    const item = this.itemOf(numberOf(body.output_index));
    const delta = textOf(body.delta) ?? '';
    switch (type) {
      case 'output_item.added':
        if (objectOf(body.item)?.type === 'function_call') this.startCall(item, objectOf(body.item)!, events);
        break;
      case 'content_part.added':
        // The parts of a message are parts of their own.
        if (item.said.size > 0 && numberOf(body.content_index) > 0) events.push(PART_END);
        break;
      case 'output_text.delta':
        this.say(item, 'text', saidBy(body, delta), events);
        break;
      case 'refusal.delta':
        this.say(item, 'refusal', saidBy(body, delta), events);
        break;
      case 'output_text.annotation.added':
        this.cite(item, [numberOf(body.content_index), numberOf(body.annotation_index)], body.annotation, events);
        break;
      case 'reasoning_summary_text.delta':
        this.think(item, `summary/${numberOf(body.summary_index)}`, delta, events);
        break;
      case 'reasoning_text.delta':
        this.think(item, `content/${numberOf(body.content_index)}`, delta, events);
        break;
      case 'function_call_arguments.delta':
        this.argue(item, delta, events);
        break;
      case 'output_item.done':
        this.endItem(item, objectOf(body.item) ?? {}, events);
        break;
    }
  }

  private itemOf(index: number): Item {
    let item = this.items.get(index);
    if (item === undefined) {
      if (this.items.size >= MOST) throw badAnswer();
      item = { call: undefined, said: new Set() };
      this.items.set(index, item);
    }
    if (item.said.size > MOST) throw badAnswer();
    return item;
  }

  private say(item: Item, type: 'text' | 'refusal', said: Said, events: HubEvent[]): void {
    const { part, text, place } = said;
    const logprobs = logprobsOf(said.logprobs);
    if (text === '' && logprobs.length === 0) return;
    const isFirst = item.said.size === 0;
    item.said.add(`said/${part}`);
    this.kinds.add(type);
    const beside = { ...(logprobs.length > 0 && { logprobs }), ...(isFirst && place && { item: place }) };
    events.push({ type, choice: 0, text, ...beside });
  }

  private cite(item: Item, [part, number]: [number, number], told: unknown, events: HubEvent[]): void {
    item.said.add(`cited/${part}/${number}`);
    for (const citation of citationOf(objectOf(told) ?? {})) events.push({ type: 'citation', choice: 0, citation });
  }

  /** The paragraphs of a summary come as parts. */
  private think(item: Item, part: string, text: string, events: HubEvent[]): void {
    if (text === '') return;
    const isNext = item.said.size > 0 && !item.said.has(part);
    item.said.add(part);
    events.push({ type: 'reasoning', choice: 0, text: isNext ? `\n\n${text}` : text });
  }

  private startCall(item: Item, told: Json, events: HubEvent[]): void {
    if (item.call !== undefined) return;
    item.call = this.calls;
    this.calls += 1;
    this.kinds.add('tool-call');
    const id = textOf(told.call_id) ?? textOf(told.id) ?? '';
    events.push({ type: 'tool-call', choice: 0, call: item.call, id, name: textOf(told.name) ?? '' });
    this.argue(item, textOf(told.arguments) ?? '', events);
  }

  /** Arguments of a call that has not been announced wait for its end, where its name is told. */
  private argue(item: Item, text: string, events: HubEvent[]): void {
    if (item.call === undefined || text === '') return;
    item.said.add('arguments');
    events.push({ type: 'tool-arguments', choice: 0, call: item.call, text });
  }

  // --- Ends of items ----------------------------------------------------------------------------------------------

  /** Says what no delta has said. */
  private endItem(item: Item, told: Json, events: HubEvent[]): void {
    switch (told.type) {
      case 'message':
        this.endMessage(item, told, events);
        break;
      case 'reasoning':
        this.endThought(item, told, events);
        break;
      case 'function_call':
        this.startCall(item, told, events);
        if (!item.said.has('arguments')) this.argue(item, textOf(told.arguments) ?? '', events);
        break;
      case 'image_generation_call':
        for (const picture of pictureOf(told)) events.push({ ...picture, choice: 0 });
        return;
      default:
        // Tools of OpenAI's own, which no request from here offers.
        return;
    }
    events.push(PART_END);
  }

  private endMessage(item: Item, told: Json, events: HubEvent[]): void {
    objectsOf(told.content).forEach((content, part) => {
      const isRefusal = content.type === 'refusal';
      const text = textOf(isRefusal ? content.refusal : content.text) ?? '';
      const said = { part, text, logprobs: content.logprobs };
      if (!item.said.has(`said/${part}`)) this.say(item, isRefusal ? 'refusal' : 'text', said, events);
      objectsOf(content.annotations).forEach((annotation, i) => {
        if (!item.said.has(`cited/${part}/${i}`)) this.cite(item, [part, i], annotation, events);
      });
    });
  }

  private endThought(item: Item, told: Json, events: HubEvent[]): void {
    for (const kind of ['summary', 'content']) {
      objectsOf(told[kind]).forEach((part, i) => {
        if (!item.said.has(`${kind}/${i}`)) this.think(item, `${kind}/${i}`, textOf(part.text) ?? '', events);
      });
    }
    for (const { redacted, signature } of sealed(item.said.size > 0 ? ' ' : '', textOf(told.encrypted_content))) {
      if (redacted !== undefined) events.push({ type: 'redacted', choice: 0, data: redacted });
      else if (signature !== undefined) events.push({ type: 'signature', choice: 0, signature });
    }
  }
}

const PART_END: HubEvent = { type: 'part-end', choice: 0 };

/** A piece of a message. */
interface Said {
  part: number;
  text: string;
  logprobs: unknown;
  place?: PlacedItem;
}

function saidBy(body: Json, text: string): Said {
  const id = textOf(body.item_id);
  return {
    part: numberOf(body.content_index),
    text,
    logprobs: body.logprobs,
    ...(id && { place: { id, index: numberOf(body.output_index) } }),
  };
}

function numberOf(value: unknown): number {
  return Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : 0;
}
