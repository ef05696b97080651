/** Streams of `POST /v2/chat`. Source: https://docs.cohere.com/v2/docs/streaming */
import type { Json } from '../../dialects/dialect.ts';
import { asGatewayError, GatewayError } from '../../errors.ts';
import { badAnswer, countOf, objectOf, textOf } from '../../hub/fields.ts';
import type { HubEvent } from '../../hub/reply.ts';
import { SseReader } from '../sse.ts';
import { citationsOf, finishOf, usageOf } from './reply.ts';

export class CohereReader extends SseReader {
  private readonly calls = new Map<number, number>();
  private hasBegun = false;
  private isOver = false;

  protected read(body: Json, events: HubEvent[]): void {
    if (this.isOver) return;
    if (!this.hasBegun) {
      this.hasBegun = true;
      events.push({ type: 'start', id: textOf(body.id) });
    }
    const delta = objectOf(body.delta) ?? {};
    const message = objectOf(delta.message) ?? {};
    switch (body.type) {
      case 'content-start':
      case 'content-delta':
        contentDelta(message, events);
        break;
      case 'tool-plan-delta':
        thought(message.tool_plan, events);
        break;
      case 'tool-call-start':
        this.callStart(countOf(body.index) ?? 0, firstOf(message.tool_calls), events);
        break;
      case 'tool-call-delta':
        this.callDelta(countOf(body.index) ?? 0, firstOf(message.tool_calls), events);
        break;
      case 'citation-start':
        for (const citation of citationsOf(firstOf(message.citations)))
          events.push({ type: 'citation', choice: 0, citation });
        break;
      case 'content-end':
      case 'tool-call-end':
        events.push({ type: 'part-end', choice: 0 });
        break;
      case 'message-end':
        this.messageEnd(delta, events);
    }
  }

  private callStart(index: number, { id, function: called }: Json, events: HubEvent[]): void {
    const { name, arguments: text } = objectOf(called) ?? {};
    const tool = textOf(name);
    if (tool === undefined) throw badAnswer();
    const call = this.calls.size;
    this.calls.set(index, call);
    events.push({ type: 'tool-call', choice: 0, call, id: textOf(id) ?? '', name: tool });
    argumentsDelta(call, text, events);
  }

  private callDelta(index: number, { function: called }: Json, events: HubEvent[]): void {
    const call = this.calls.get(index);
    if (call === undefined) throw badAnswer();
    argumentsDelta(call, objectOf(called)?.arguments, events);
  }

  private messageEnd({ finish_reason: reason, usage, error }: Json, events: HubEvent[]): void {
    this.isOver = true;
    const told = textOf(error);
    try {
      if (told !== undefined)
        throw new GatewayError('upstream_failed', 'The provider broke off its answer. Try again.', { cause: told });
      events.push({ type: 'finish', choice: 0, finish: finishOf(reason) });
    } catch (thrown) {
      events.push({ type: 'error', error: asGatewayError(thrown) });
      return;
    }
    const counts = usageOf(usage);
    if (counts !== undefined) events.push({ type: 'usage', usage: counts });
    events.push({ type: 'end' });
  }
}

function contentDelta({ content }: Json, events: HubEvent[]): void {
  const { text, thinking } = firstOf(content);
  thought(thinking, events);
  const words = textOf(text);
  if (words) events.push({ type: 'text', choice: 0, text: words });
}

function thought(value: unknown, events: HubEvent[]): void {
  const text = textOf(value);
  if (text) events.push({ type: 'reasoning', choice: 0, text });
}

function argumentsDelta(call: number, value: unknown, events: HubEvent[]): void {
  const text = textOf(value);
  if (text) events.push({ type: 'tool-arguments', choice: 0, call, text });
}

/** The one object of an event, which is a list of one at the start of a message. */
function firstOf(value: unknown): Json {
  return objectOf(Array.isArray(value) ? value[0] : value) ?? {};
}
