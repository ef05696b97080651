/**
 * The hub: a request as no vendor writes it and all can be written from. Client dialects are read into it, provider
 * formats are written from it, so that N dialects and M providers need N + M translations.
 *
 * What a client used is noted by feature and place (`used`); a provider says of every feature whether its format has a
 * word for it (`Supports`). What it has none for is refused by the place's name, never lost on the way.
 */
import type { Json } from '../dialects/dialect.ts';
import type { Feature } from './features.ts';

/** A conversation and what is wanted of the answer. */
export interface HubRequest {
  messages: HubMessage[];
  tools: HubTool[];
  toolChoice?: ToolChoice;
  parallelToolCalls?: boolean;
  maxOutputTokens?: number;
  temperature?: number;
  topP?: number;
  topK?: number;
  stop?: string[];
  seed?: number;
  /** How many answers; default 1. */
  choices?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  /** Token id → bias, −100 to 100. */
  logitBias?: Record<string, number>;
  logprobs?: boolean;
  topLogprobs?: number;
  format?: OutputFormat;
  reasoning?: ReasoningWish;
  verbosity?: 'low' | 'medium' | 'high';
  serviceTier?: string;
  user?: string;
  metadata?: Record<string, string>;
  /** Where the client used each feature, as a path that it will recognise, such as `messages[2].content[0].image_url`. */
  used: Map<Feature, string>;
  /** Paths of fields that the client's dialect does not know, or knows and the hub has no word for. */
  unknown: string[];
}

export interface HubMessage {
  /** `system`: instructions, wherever they stand; `tool`: results alone. */
  role: 'system' | 'user' | 'assistant' | 'tool';
  parts: HubPart[];
  /** Who speaks, where the dialect tells. */
  name?: string;
  /** The client's path of it. */
  at: string;
}

/** Any part may carry the hint that what comes before it is worth caching. */
interface Cacheable {
  /** How long, as the client wrote it (`5m`, `1h`); empty for the vendor's default. */
  cache?: string;
}

export type HubPart = TextPart | MediaPart | ReasoningPart | ToolCallPart | ToolResultPart | RefusalPart;

export interface TextPart extends Cacheable {
  type: 'text';
  text: string;
  citations?: Citation[];
}

/** An image, document, sound or film. */
export interface MediaPart extends Cacheable {
  type: 'image' | 'file' | 'audio' | 'video';
  source: MediaSource;
  /** A file's name or title. */
  name?: string;
  /** An image's resolution, as OpenAI has it. */
  detail?: 'low' | 'high' | 'auto';
}

export type MediaSource =
  /** `data` is base64; `mediaType` such as `image/png`. */
  | { kind: 'data'; mediaType: string; data: string }
  /** Text of a document, as it is. */
  | { kind: 'text'; mediaType: string; text: string }
  | { kind: 'url'; url: string; mediaType?: string }
  /** A file that the vendor holds. */
  | { kind: 'id'; id: string };

/** What the model thought. What its vendor signed must come back to it unchanged. */
export interface ReasoningPart {
  type: 'reasoning';
  text: string;
  signature?: string;
  /** Thoughts that the vendor encrypted, in its own form. */
  redacted?: string;
}

export interface ToolCallPart extends Cacheable {
  type: 'tool-call';
  id: string;
  name: string;
  /** JSON text of an object; empty means `{}`. */
  arguments: string;
  /** The vendor's seal of the thought that led to it (Gemini's `thoughtSignature`), base64. */
  signature?: string;
}

export interface ToolResultPart extends Cacheable {
  type: 'tool-result';
  /** The call that it answers. */
  id: string;
  /** The tool's name, where the dialect tells or an earlier call told. */
  name?: string;
  parts: HubPart[];
  isError?: boolean;
}

export interface RefusalPart {
  type: 'refusal';
  text: string;
}

export interface HubTool extends Cacheable {
  name: string;
  description?: string;
  /** JSON Schema of the arguments; undefined: no arguments. */
  parameters?: Json;
  strict?: boolean;
}

export type ToolChoice = 'auto' | 'none' | 'required' | { name: string };

export type OutputFormat =
  | { type: 'json' }
  | { type: 'json-schema'; schema: Json; name?: string; description?: string; strict?: boolean };

/** How much the model shall think. */
export interface ReasoningWish {
  /** Off, whatever else is said. */
  off?: boolean;
  effort?: 'minimal' | 'low' | 'medium' | 'high' | 'xhigh' | 'max';
  /** Tokens. */
  budget?: number;
  /** Whether the client wants to read the thoughts; default: the vendor's. */
  shown?: boolean;
}

/** Where an answer has something from. */
export interface Citation {
  url?: string;
  title?: string;
  /** The text that is cited. */
  quote?: string;
  /** The place in the part's text that it supports, in UTF-16 units. */
  start?: number;
  end?: number;
  /** A document of the prompt, by its position. */
  document?: number;
}

/** Texts to be turned into vectors. */
export interface EmbeddingsRequest {
  /** Texts, or token ids where a client counted them itself. */
  input: (string | number[])[];
  dimensions?: number;
  user?: string;
  used: Map<Feature, string>;
  unknown: string[];
}
