/** The hub's answers: whole, and as events of a stream. */
import type { Usage } from '../../proto/contract.ts';
import type { GatewayError } from '../errors.ts';
import type { Citation, ReasoningPart, RefusalPart, TextPart, ToolCallPart } from './request.ts';

/** A whole answer. */
export interface HubReply {
  id?: string;
  /** The model as the provider names it. */
  model?: string;
  /** Unix time in seconds. */
  created?: number;
  choices: HubChoice[];
  usage?: HubUsage;
  serviceTier?: string;
}

export interface HubChoice {
  index: number;
  parts: ReplyPart[];
  finish: Finish;
  /** The stop sequence that ended it. */
  stopSequence?: string;
  logprobs?: Logprob[];
}

export type ReplyPart = TextPart | ReasoningPart | ToolCallPart | RefusalPart | GeneratedMedia;

/** An image or sound that the model made; `data` is base64. */
export interface GeneratedMedia {
  type: 'media';
  mediaType: string;
  data: string;
}

/** Why an answer ended. */
export type Finish =
  | 'stop'
  | 'stop-sequence'
  | 'length'
  /** The model's context is full. */
  | 'context-window'
  | 'tool-calls'
  /** A filter of the vendor's. */
  | 'content-filter'
  /** The model's own refusal. */
  | 'refusal'
  /** A long turn of server-side tools that the client may let go on. */
  | 'pause';

/** `inputTokens` includes cached ones, `outputTokens` includes reasoning, as in OpenAI's counting. */
export interface HubUsage extends Usage {
  /** Prompt tokens written to the vendor's cache; part of `inputTokens`. */
  cacheWriteTokens?: number;
}

export interface Logprob {
  token: string;
  logprob: number;
  bytes?: number[] | null;
  top?: { token: string; logprob: number; bytes?: number[] | null }[];
}

/**
 * What happens in a stream. Every delta is passed on as it came: none is gathered, none is split.
 * `choice` counts answers from 0; `call` counts the tool calls of a choice from 0.
 */
export type HubEvent =
  /** First, once. */
  | { type: 'start'; id?: string; model?: string; created?: number; serviceTier?: string; usage?: HubUsage }
  | { type: 'text'; choice: number; text: string; logprobs?: Logprob[]; item?: PlacedItem }
  | { type: 'citation'; choice: number; citation: Citation }
  | { type: 'reasoning'; choice: number; text: string }
  /** The seal of the thoughts before it. */
  | { type: 'signature'; choice: number; signature: string }
  | { type: 'redacted'; choice: number; data: string }
  | { type: 'refusal'; choice: number; text: string; logprobs?: Logprob[] }
  | { type: 'tool-call'; choice: number; call: number; id: string; name: string; signature?: string }
  | { type: 'tool-arguments'; choice: number; call: number; text: string }
  | { type: 'media'; choice: number; mediaType: string; data: string }
  /** The part (text, thoughts, tool call) that was open has ended; where it is left out, the next kind ends it. */
  | { type: 'part-end'; choice: number }
  | { type: 'finish'; choice: number; finish: Finish; stopSequence?: string }
  /** Cumulative: the last one counts. */
  | { type: 'usage'; usage: HubUsage }
  /** The stream has ended as its format ends one that is complete. */
  | { type: 'end' }
  /** The provider reports an error in the middle; nothing follows. */
  | { type: 'error'; error: GatewayError };

/** The id and the number that a vendor gave to what a text belongs to: a stream that another provider goes on with keeps them. */
export interface PlacedItem {
  id: string;
  index: number;
}

/** Vectors, in the order of the texts. */
export interface EmbeddingsReply {
  model?: string;
  vectors: number[][];
  usage?: HubUsage;
}

export interface TokenCount {
  inputTokens: number;
  /** True when it was estimated, for want of a provider that counts. */
  estimated?: boolean;
}
