/** Gemini's streams → hub: each event is a whole `GenerateContentResponse` with what is new; the connection's end ends it. */
import type { Json } from '../../dialects/dialect.ts';
import { marked } from '../../dialects/gemini/seals.ts';
import { readUsage } from '../../dialects/gemini/usage.ts';
import { objectOf, textOf } from '../../hub/fields.ts';
import type { HubEvent, HubUsage } from '../../hub/reply.ts';
import { SseReader } from '../sse.ts';
import { streamError } from './error.ts';
import { blockOf, citationsOf, createdOf, finishOf, indexOf, logprobsOf, partsOf, placed, readCall } from './reply.ts';

/** How much of an answer is remembered to find the places of citations in it, in UTF-16 units. */
const MAX_SAID = 1024 * 1024;

/** What is known of one choice. */
interface Choice {
  calls: number;
  isFinished: boolean;
  said: string;
  /** Citations that were told: later events repeat them. */
  cited: Set<string>;
}

export class GeminiReader extends SseReader {
  private readonly name: string;
  private readonly choices = new Map<number, Choice>();
  private hasStarted = false;
  private hasFailed = false;
  private id: string | undefined;

  /** `name` is the provider's, for its errors. */
  constructor(name: string) {
    super();
    this.name = name;
  }

  protected read(body: Json, events: HubEvent[]): void {
    if (this.hasFailed) return;
    if (body.error !== undefined) {
      this.hasFailed = true;
      events.push({ type: 'error', error: streamError(this.name, body) });
      return;
    }
    const usage = readUsage(body.usageMetadata);
    if (!this.hasStarted) this.start(body, usage, events);
    const { candidates } = body;
    if (Array.isArray(candidates)) candidates.forEach((one: unknown, i) => this.candidate(objectOf(one), i, events));
    if (blockOf(body) !== undefined && this.choices.size === 0) this.block(events);
    if (usage !== undefined) events.push({ type: 'usage', usage });
  }

  private start(body: Json, usage: HubUsage | undefined, events: HubEvent[]): void {
    this.hasStarted = true;
    this.id = textOf(body.responseId);
    const { modelVersion, createTime } = body;
    events.push({ type: 'start', id: this.id, model: textOf(modelVersion), created: createdOf(createTime), usage });
  }

  private choice(index: number): Choice {
    let choice = this.choices.get(index);
    if (choice === undefined) {
      choice = { calls: 0, isFinished: false, said: '', cited: new Set() };
      this.choices.set(index, choice);
    }
    return choice;
  }

  private candidate(candidate: Json | undefined, place: number, events: HubEvent[]): void {
    if (candidate === undefined) return;
    const index = indexOf(candidate, place);
    const choice = this.choice(index);
    if (choice.isFinished) return;
    let logprobs = logprobsOf(candidate.logprobsResult);
    for (const part of partsOf(candidate)) {
      const text = textOf(part.text);
      const isText = text !== undefined && text !== '' && part.thought !== true;
      if (isText) choice.said = choice.said.length < MAX_SAID ? choice.said + text : choice.said;
      if (isText && logprobs.length > 0) {
        events.push({ type: 'text', choice: index, text, logprobs });
        logprobs = [];
        this.seal(part, index, events);
      } else this.part(part, index, choice, events);
    }
    this.cite(candidate, index, choice, events);
    this.finish(candidate, index, choice, events);
  }

  private part(part: Json, index: number, choice: Choice, events: HubEvent[]): void {
    const call = objectOf(part.functionCall);
    if (call !== undefined) {
      this.call(call, textOf(part.thoughtSignature), index, choice, events);
      return;
    }
    const text = textOf(part.text);
    const media = objectOf(part.inlineData);
    if (text !== undefined && text !== '')
      events.push({ type: part.thought === true ? 'reasoning' : 'text', choice: index, text });
    const [mediaType, data] = [textOf(media?.mimeType), textOf(media?.data)];
    if (mediaType !== undefined && data !== undefined && part.thought !== true)
      events.push({ type: 'media', choice: index, mediaType, data });
    this.seal(part, index, events);
  }

  private seal(part: Json, index: number, events: HubEvent[]): void {
    const seal = textOf(part.thoughtSignature);
    if (seal !== undefined) events.push({ type: 'signature', choice: index, signature: marked(seal) });
  }

  /** A call comes whole. */
  private call(call: Json, signature: string | undefined, index: number, choice: Choice, events: HubEvent[]): void {
    const number = choice.calls;
    choice.calls += 1;
    const { id, name, arguments: text } = readCall(call, this.id, index, number);
    events.push(
      { type: 'tool-call', choice: index, call: number, id, name, signature },
      { type: 'tool-arguments', choice: index, call: number, text },
      { type: 'part-end', choice: index },
    );
  }

  private cite(candidate: Json, index: number, choice: Choice, events: HubEvent[]): void {
    for (const sourced of citationsOf(candidate)) {
      const key = JSON.stringify(sourced);
      if (choice.cited.has(key)) continue;
      choice.cited.add(key);
      events.push({ type: 'citation', choice: index, citation: placed(sourced, choice.said) });
    }
  }

  private finish({ finishReason }: Json, index: number, choice: Choice, events: HubEvent[]): void {
    const finish = finishOf(finishReason, choice.calls > 0);
    if (finish === undefined) return;
    choice.isFinished = true;
    events.push({ type: 'finish', choice: index, finish });
  }

  /** A prompt that was blocked has no candidates. */
  private block(events: HubEvent[]): void {
    this.choice(0).isFinished = true;
    events.push({ type: 'finish', choice: 0, finish: 'content-filter' });
  }

  protected override closed(events: HubEvent[]): void {
    const all = [...this.choices.values()];
    if (!this.hasFailed && all.length > 0 && all.every(({ isFinished }) => isFinished)) events.push({ type: 'end' });
  }
}
