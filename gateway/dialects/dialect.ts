/**
 * A dialect is what clients speak: it reads a request, finds its segments, and writes a reply, an event or an error.
 */
import type { Segment, Usage } from '../../proto/contract.ts';
import type { ErrorShape } from '../errors.ts';

/** A JSON object that came from outside. */
export type Json = Record<string, unknown>;

/** Where a provider wants the bound on an answer. */
export type OutputLimitField = 'max_tokens' | 'max_completion_tokens';

/** What the pipeline needs to know of a request; the body keeps everything else. */
export interface ModelRequest {
  body: Json;
  model: string | undefined;
  stream: boolean;
  /** Whether the client asked for the usage of a stream itself. */
  wantsUsage: boolean;
  maxOutputTokens: number | undefined;
  /** How many answers were asked for. */
  choices: number;
}

/** What is metered of a whole reply. */
export interface ReplyFacts {
  usage: Usage | undefined;
  model: string | undefined;
}

/** Text that a streamed event carries: one part of one channel. */
export interface EventPart {
  /** Choice and kind, such as `0/text` or `1/tool-arguments/0`. */
  channel: string;
  text: string;
  /** True when it neither goes on from an earlier event nor goes on in a later one. */
  isWhole: boolean;
  /** Writes other text into the event's object. */
  set(text: string): void;
}

/** A tool call that a model asks for, or a piece of one. */
export interface ToolCall {
  /** Tells the calls of one answer apart, such as `0/tool-arguments/1`. */
  call: string;
  /** The call's own id, where no index tells whether a piece begins another call. */
  id?: string;
  /** What is to be called; undefined where the piece does not say. */
  name: string | undefined;
}

/** One event of a stream, read. */
export interface StreamEvent {
  /** The parsed object, which `EventPart.set` changes; undefined for `[DONE]` and comments. */
  body: Json | undefined;
  parts: EventPart[];
  /** The tool calls that it begins or goes on with. */
  tools: ToolCall[];
  /** Choices that end with this event: no more text comes on their channels. */
  finished: string[];
  usage: Usage | undefined;
  /** The upstream's own error in the middle of its stream. */
  error: string | undefined;
  /** The end of the stream as the dialect marks it. */
  done: boolean;
  /** True when reading took something out that no guard could follow: the event must not go out as it came. */
  isTrimmed: boolean;
  /** True when the event carries nothing but its parts, so that it may be left out when they are empty. */
  bare: boolean;
  /** True when it carries the usage alone: left out when the client did not ask for it. */
  usageOnly: boolean;
  model: string | undefined;
}

export interface Dialect {
  readonly name: string;
  /** Reads a request; throws `invalid_request` with a sentence that names the field. */
  readRequest(body: Json): ModelRequest;
  /** Every piece of text that the model will read. */
  requestSegments(body: Json): Segment[];
  /** Every piece of text that the model wrote. */
  replySegments(body: Json): Segment[];
  /** Every tool that the model asks for. */
  replyTools(body: Json): ToolCall[];
  /** Puts rewritten text back into the body that the segments came from. */
  writeSegments(body: Json, rewritten: ReadonlyMap<string, string>): void;
  /** What a whole reply tells of itself. */
  replyFacts(body: Json): ReplyFacts;
  /**
   * The same of a reply that is passed on unread, without parsing it whole; undefined when that cannot be told from its
   * text, which is one character a byte.
   */
  skimReply(text: string): ReplyFacts | undefined;
  /** Bounds the answer's tokens, in the field that the client used, else in the provider's. */
  limitOutput(body: Json, tokens: number, field: OutputLimitField): void;
  /** Says of an answer, or of an event, that ended for its length that a quota set it; false when it did not end so. */
  markLimited(body: Json): boolean;
  /** The events that end a stream whose quota is used up; `like` is any event of it. */
  cutShort(like: Json, choices: string[], usage: Usage | undefined): string;
  /** Reads the data of one event. */
  readEvent(data: string): StreamEvent;
  /** An event of its own for text that was held when its channel ended; `like` is any event of the stream. */
  textEvent(like: Json, channel: string, text: string): Json;
  /** Frames an event's object. */
  frame(body: Json): string;
  errorBody(error: ErrorShape): string;
  errorFrame(error: ErrorShape): string;
  /** The answer to `GET /v1/models`. */
  modelList(models: { id: string; ownedBy: string }[]): string;
  /** The answer to `GET /v1/models/{id}`. */
  modelEntry(model: { id: string; ownedBy: string }): string;
}
