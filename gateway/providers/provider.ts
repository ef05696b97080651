/**
 * A provider is what a vendor speaks: it writes a request, reads an answer, a stream and an error, and knows how to sign.
 * Pure: it opens no connection.
 */
import type { Json, OutputLimitField } from '../dialects/dialect.ts';
import type { ErrorCode, ErrorDetails } from '../errors.ts';
import type { Supports } from '../hub/features.ts';
import type { EmbeddingsReply, HubEvent, HubReply, TokenCount } from '../hub/reply.ts';
import type { EmbeddingsRequest, HubRequest } from '../hub/request.ts';

/** A provider's refusal, in the gateway's words. */
export interface ProviderError {
  code: ErrorCode;
  message: string;
  details: ErrorDetails;
  /** How long the provider wants to be left alone, in milliseconds, by `Retry-After` or its own reset headers. */
  retryAfterMs?: number;
}

/** The head of a provider's answer. */
export type ReplyHeaders = Readonly<Record<string, string | string[] | undefined>>;

/** A request before the provider's credentials are put in. */
export interface UnsignedCall {
  method: string;
  /** Path and query, from the origin's root. */
  path: string;
  /** Names in lower case and values alternate. */
  headers: string[];
  /** Undefined: none. */
  body: Buffer | string | undefined;
}

/** What an upstream request needs beside its body. */
export interface UpstreamCall {
  method: string;
  path: string;
  /** Names and values alternate. */
  headers: string[];
}

/** What a request is about, beside its body. */
export interface CallFacts {
  /** The model's name at the provider. */
  model: string;
  stream: boolean;
}

/** What can be asked of a provider, and what it answers. */
export interface Operations {
  chat: { request: HubRequest; reply: HubReply };
  embeddings: { request: EmbeddingsRequest; reply: EmbeddingsReply };
  count: { request: HubRequest; reply: TokenCount };
}
export type Operation = keyof Operations;

/**
 * One call of a vendor's API. Where a client's dialect is the endpoint's own, the body passes through; everything else
 * is written by `write` and read by `read`.
 */
export interface Endpoint<O extends Operation> {
  /** The dialect whose bodies it takes and gives as they are; undefined when no client speaks it. */
  dialect?: string;
  /** What becomes of each feature; the table of the documentation. */
  supports: Supports;
  /** Path and query, from the origin's root. */
  path(facts: CallFacts): string;
  /** What this call wants beside `content-type` and the credentials; names in lower case and values alternate. */
  headers?(facts: CallFacts): string[];
  /**
   * Writes a request whose features it supports (anything else has been refused before).
   * @throws GatewayError `invalid_request` that names the client's field, where a single value has no counterpart
   */
  write(request: Operations[O]['request'], facts: CallFacts): Json;
  /**
   * Looks at a body of its own dialect that passes through, before anything is sent; default: nothing is refused.
   * @throws GatewayError `invalid_request` that names the client's field
   */
  check?(body: Json): void;
  /** Changes a body of its own dialect that passes through, where the vendor's variant differs; default: nothing. */
  adapt?(body: Json, facts: CallFacts): void;
  /** Whether a body needs no {@link adapt}, and so may go on byte for byte; default: none does without. */
  fits?(body: Json): boolean;
  /** Reads a whole answer. @throws GatewayError `upstream_bad_answer` */
  read(body: Json): Operations[O]['reply'];
}

export interface ChatEndpoint extends Endpoint<'chat'> {
  /** Reads one streamed answer. */
  openReader(): StreamReader;
  /**
   * Whether an assistant message at the end is gone on from: `yes` as documented, `try` where it depends on the model (a
   * refusal is remembered), `no` where it would be taken for a turn of its own.
   */
  prefill: 'yes' | 'try' | 'no';
}

/** Reads the bytes of one streamed answer, cut anywhere. */
export interface StreamReader {
  /**
   * The events that are complete now.
   * @throws GatewayError `upstream_bad_answer` when the bytes are none of the format
   */
  push(bytes: Buffer): HubEvent[];
  /** The connection has ended: what that means, such as `end` where the format has no other mark. */
  end(): HubEvent[];
  /**
   * Whether there was something that takes a place in the answer and is no event of the hub, so that what another
   * provider says would get a wrong place in it; default: never.
   */
  readonly hasUnknown?: boolean;
}

export interface Provider {
  /** Name in the config. */
  readonly name: string;
  /** The vendor as telemetry names it. */
  readonly telemetryName: string;
  /** Scheme, host and port. */
  readonly origin: string;
  /** What stands before the vendor's own paths (`/v1/files`), where the base URL has more than a version; default: nothing. */
  readonly passthroughBase?: string;
  readonly timeouts: { connect: number; firstByte: number; idle: number };
  /** Whether streams are asked for their usage. */
  readonly streamUsage: boolean;
  /** What becomes of a feature that it has no word for: refused, or left out and told. */
  readonly unmapped: 'refuse' | 'leave-out';
  /** Where it wants the bound on an answer, in OpenAI's dialect. */
  readonly outputLimitField: OutputLimitField;
  /** Names of the client's headers that may go along. */
  readonly forwardedHeaders: readonly string[];
  /** What it can be asked; the first of each is what other dialects are translated to. */
  readonly endpoints: {
    readonly chat: readonly ChatEndpoint[];
    readonly embeddings?: readonly Endpoint<'embeddings'>[];
    readonly count?: readonly Endpoint<'count'>[];
  };
  /** Puts the credentials in. @throws GatewayError `upstream_refused_key` when there are none, with the reason */
  sign(call: UnsignedCall): UpstreamCall | Promise<UpstreamCall>;
  /** An answer above 299. */
  readError(status: number, body: unknown, headers: ReplyHeaders): ProviderError;
}
