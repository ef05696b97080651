/**
 * A dialect is what clients speak: it reads a request, finds its segments, and writes a reply, an event or an error.
 */
import type { Segment, Usage } from '../../proto/contract.ts';
import type { ErrorShape } from '../errors.ts';
import type { EmbeddingsReply, HubEvent, HubReply, TokenCount } from '../hub/reply.ts';
import type { EmbeddingsRequest, HubRequest } from '../hub/request.ts';
import type { StreamReader } from '../providers/provider.ts';

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
  /** Takes out of the body what the dialect's own vendor would refuse; undefined where it may pass as it is. */
  amend?(body: Json): void;
}

/** What a path says of a request: some dialects name the model and the stream there. */
export interface PathFacts {
  model?: string;
  stream?: boolean;
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

/** A place in an event that repeats the whole text of a channel, or of several one after the other. */
export interface Repeat {
  channels: string[];
  /** What it says. */
  text: string;
  set(text: string): void;
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
  /** Channels that end with this event while their choice goes on. What was held of them goes out before it. */
  closed: string[];
  /** Takes out the vendor's seal of the text that this event closes; called where a guard has changed that text. */
  unseal?(): void;
  /** Places that say again what a channel has said; they are made to say what the client was shown. */
  repeats: Repeat[];
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

/** An event in which nothing was found yet. */
export function emptyEvent(): StreamEvent {
  return {
    body: undefined,
    parts: NONE,
    tools: NONE,
    finished: NONE,
    closed: NONE,
    repeats: NONE,
    usage: undefined,
    error: undefined,
    done: false,
    isTrimmed: false,
    bare: false,
    usageOnly: false,
    model: undefined,
  };
}

/** Shared by all events that have none of something; never written to. */
export const NONE: never[] = [];

/** A model of a list, as every dialect can tell it. */
export interface ListedModel {
  id: string;
  ownedBy: string;
}

/** What all dialects have: the face that the pipeline and the guards see. */
interface Face {
  readonly name: string;
  /** Paths without a route's prefix that speak it, as they are. */
  readonly paths: readonly string[];
  /** False where clients cannot read an event that begins with its id: streams can be resumed only where they ask. */
  readonly takesEventIds?: false;
  /** Paths with the model in them: the groups `model` and `action`. */
  readonly pathPattern?: RegExp;
  /** What a matched path says; only with {@link pathPattern}. */
  readPath?(groups: Record<string, string | undefined>, query: string): PathFacts;
  /** Reads a request; throws `invalid_request` with a sentence that names the field. */
  readRequest(body: Json, path: PathFacts): ModelRequest;
  /** Every piece of text that the model will read. */
  requestSegments(body: Json): Segment[];
  /** Where the request holds text that no guard can read (as token ids), as the client's path; undefined: nowhere. */
  unreadable?(body: Json): string | undefined;
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
  /** Puts another model's name into the body; left out where the path alone names it. */
  rename?(body: Json, model: string): void;
  /** Bounds the answer's tokens, in the field that the client used, else in the provider's. */
  limitOutput(body: Json, tokens: number, field: OutputLimitField): void;
  /** Says of an answer, or of an event, that ended for its length that a quota set it; false when it did not end so. */
  markLimited(body: Json): boolean;
  errorBody(error: ErrorShape): string;
  errorFrame(error: ErrorShape): string;
  /**
   * Whether a GET asks for the models in this dialect's own way: the model's id, empty for all of them; undefined when it
   * does not.
   */
  listing?(path: string, headers: Readonly<Record<string, string | undefined>>): string | undefined;
  /** The answer to a list of the models. */
  modelList(models: ListedModel[]): string;
  /** The answer about one model. */
  modelEntry(model: ListedModel): string;
}

/** What clients speak to a chat model: whole answers and streams. */
export interface ChatDialect extends Face {
  readonly operation: 'chat';
  /** Whether a provider must be asked for the usage of a stream (`stream_options.include_usage`). */
  readonly asksUsage: boolean;
  /** Whether events say again what a channel has said ({@link StreamEvent.repeats}), so that it has to be kept. */
  readonly repeatsText?: boolean;
  /** Whether events seal what a channel has said ({@link StreamEvent.unseal}). */
  readonly sealsText?: boolean;
  /** Reads a request into the hub; throws `invalid_request` with a sentence that names the field. */
  toHub(body: Json): HubRequest;
  /** Writes a whole answer. `model` is the name that the client asked for. */
  fromHub(reply: HubReply, model: string): Json;
  /** Opens a reader of a stream in this dialect. */
  openReader(): StreamReader;
  /** Opens the writer of one streamed answer. */
  openWriter(options: WriterOptions): StreamWriter;
  /** The events that end a stream whose quota is used up; `like` is any event of it. */
  cutShort(like: Json, choices: string[], usage: Usage | undefined): string;
  /** Reads the data of one event; throws a SyntaxError when it is not JSON. */
  readEvent(data: string): StreamEvent;
  /**
   * What a run of whole events is, by a look at its text: `plain` carries nothing but text and may pass unread, `done`
   * ends the stream as well, `read` must be read. Asked after the first token only.
   */
  skimEvents(text: string): 'plain' | 'done' | 'read';
  /**
   * What `like` is to be after an event, where it takes more than the last one; `like` is `{}` before the first. Default:
   * the event itself.
   */
  remember?(like: Json, event: Json): Json;
  /** An event of its own for text that was held when its channel ended; `like` is any event of the stream. */
  textEvent(like: Json, channel: string, text: string): Json;
  /** Frames an event's object. */
  frame(body: Json): string;
}

/** What clients ask for vectors with. */
export interface EmbeddingsDialect extends Face {
  readonly operation: 'embeddings';
  toHub(body: Json): EmbeddingsRequest;
  /** Writes the answer to a request, whose body says how vectors are to be encoded. */
  fromHub(reply: EmbeddingsReply, model: string, request: Json): Json;
}

/** What clients ask for the length of a prompt with. */
export interface CountDialect extends Face {
  readonly operation: 'count';
  toHub(body: Json): HubRequest;
  fromHub(reply: TokenCount): Json;
}

export type Dialect = ChatDialect | EmbeddingsDialect | CountDialect;

export interface WriterOptions {
  /** The name that the client asked for, for where the provider tells none. */
  model: string;
  /** Whether the client asked for the usage of the stream itself. */
  wantsUsage: boolean;
}

/**
 * Writes hub events as frames of the dialect. It keeps all that later events repeat (ids, block numbers, the whole text
 * where the dialect says it again at the end), so that a stream which goes on from another provider reads as one.
 */
export interface StreamWriter {
  /** The frames of one event; empty where the dialect has none for it. `end` writes the dialect's own end. */
  write(event: HubEvent): string;
}
