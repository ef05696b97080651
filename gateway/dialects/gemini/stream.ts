/**
 * Hub events → Gemini's streams: each event is a `GenerateContentResponse` with what is new. The reasons and the usage
 * stand in the last one; a stream that has none of it broke off. The format has no pieces of a tool call, so the pieces
 * of one are gathered until it is whole.
 */
import { asGatewayError, GatewayError } from '../../errors.ts';
import type { Finish, HubEvent, HubUsage } from '../../hub/reply.ts';
import { isJsonObject, parseJson } from '../../json.ts';
import type { Json, StreamWriter, WriterOptions } from '../dialect.ts';
import { errorFrame, frame } from './frames.ts';
import {
  type Ground,
  writeCall,
  writeFinish,
  writeGrounding,
  writeHead,
  writeLogprobs,
  writeThought,
} from './reply.ts';
import { writeSeal } from './seals.ts';
import { writeUsage } from './usage.ts';

/** The most that is gathered of the tool calls of one answer, in UTF-16 units. */
const MAX_GATHERED = 8 * 1024 * 1024;
/** How much of an answer is remembered to tell the places of citations in it, in UTF-16 units. */
const MAX_SAID = 1024 * 1024;

interface Call {
  id: string;
  name: string;
  signature: string | undefined;
  arguments: string;
}

/** What is known of one choice. */
class Choice {
  readonly calls = new Map<number, Call>();
  readonly grounds: Ground[] = [];
  said = '';
  hasRefused = false;
  finish: Finish | undefined;
}

type Event<T extends HubEvent['type']> = Extract<HubEvent, { type: T }>;

export function openWriter({ model }: WriterOptions): StreamWriter {
  return new Writer(model);
}

class Writer implements StreamWriter {
  private model: string;
  private readonly choices = new Map<number, Choice>();
  private head: Json = {};
  private hasStarted = false;
  private usage: HubUsage | undefined;
  private gathered = 0;

  constructor(model: string) {
    this.model = model;
  }

  write(event: HubEvent): string {
    switch (event.type) {
      case 'start':
        return this.start(event);
      case 'usage':
        this.usage = event.usage;
        return '';
      case 'end':
        return this.end();
      case 'error':
        return errorFrame(asGatewayError(event.error).shape);
      case 'finish':
        this.choice(event.choice).finish = event.finish;
        return '';
      default:
        return this.said(event);
    }
  }

  private start({ id, model, created, usage }: Event<'start'>): string {
    // What goes on from another provider is still the same answer.
    if (this.hasStarted) return '';
    this.hasStarted = true;
    this.usage = usage;
    this.model = model ?? this.model;
    this.head = writeHead({ id, created });
    return '';
  }

  private choice(index: number): Choice {
    let choice = this.choices.get(index);
    if (choice === undefined) {
      choice = new Choice();
      this.choices.set(index, choice);
    }
    return choice;
  }

  private said(event: Exclude<HubEvent, Event<'start' | 'usage' | 'end' | 'error' | 'finish'>>): string {
    const choice = this.choice(event.choice);
    switch (event.type) {
      case 'text':
      case 'refusal':
        return this.text(event, choice);
      case 'reasoning':
        return this.parts(event.choice, [writeThought(event.text, undefined)]);
      case 'signature':
        return this.parts(event.choice, [writeThought('', writeSeal(event))]);
      case 'redacted':
        return this.parts(event.choice, [writeThought('', writeSeal({ redacted: event.data }))]);
      case 'media':
        return this.parts(event.choice, [{ inlineData: { mimeType: event.mediaType, data: event.data } }]);
      case 'citation':
        choice.grounds.push({ citation: event.citation, part: 0, text: choice.said });
        return '';
      case 'part-end':
        return this.parts(event.choice, this.wholeCalls(choice));
      default:
        this.gather(event, choice);
        return '';
    }
  }

  private text({ type, choice: index, text, logprobs = [] }: Event<'text' | 'refusal'>, choice: Choice): string {
    if (type === 'refusal') choice.hasRefused = true;
    else if (choice.said.length < MAX_SAID) choice.said += text;
    const probabilities = logprobs.length > 0 && { logprobsResult: writeLogprobs(logprobs) };
    return this.chunk([{ content: { parts: [{ text }], role: 'model' }, index, ...probabilities }]);
  }

  // --- Tool calls ---

  private gather(event: Event<'tool-call' | 'tool-arguments'>, choice: Choice): void {
    if (event.type === 'tool-call') {
      const { id, name, signature } = event;
      choice.calls.set(event.call, { id, name, signature, arguments: '' });
      return;
    }
    const call = choice.calls.get(event.call);
    if (call === undefined) return;
    this.gathered += event.text.length;
    if (this.gathered > MAX_GATHERED)
      throw new GatewayError('upstream_bad_answer', 'The provider sent a tool call that is too long.');
    call.arguments += event.text;
  }

  /**
   * The calls whose arguments are complete, since nothing can follow the end of an object. They keep their order, so they
   * go as far as the first that may go on; one without arguments is such a call until the answer ends.
   */
  private wholeCalls(choice: Choice): Json[] {
    const calls = [...choice.calls];
    const open = calls.findIndex(([, call]) => !isJsonObject(parseJson(call.arguments)));
    const whole = calls.slice(0, open < 0 ? undefined : open);
    for (const [number] of whole) choice.calls.delete(number);
    return whole.flatMap(([, call]) => writeCall(call, 'tool-calls'));
  }

  // --- Chunks ---

  private parts(index: number, parts: Json[]): string {
    return parts.length === 0 ? '' : this.chunk([{ content: { parts, role: 'model' }, index }]);
  }

  private chunk(candidates: Json[], more: Json = {}): string {
    return frame({ candidates, ...more, modelVersion: this.model, ...this.head });
  }

  private end(): string {
    const usageMetadata = writeUsage(this.usage);
    const last = [...this.choices].map(([index, choice]) => lastOf(index, choice));
    return this.chunk(last, usageMetadata && { usageMetadata });
  }
}

/** What ends a choice. Its text is empty and not absent, or official clients take the answer for a broken one. */
function lastOf(index: number, choice: Choice): Json {
  const finish = choice.finish ?? 'stop';
  const calls = [...choice.calls.values()].flatMap((call) => writeCall(call, finish));
  return {
    content: { parts: calls.length > 0 ? calls : [{ text: '' }], role: 'model' },
    finishReason: writeFinish(finish, choice.hasRefused),
    index,
    ...writeGrounding(choice.grounds),
  };
}
