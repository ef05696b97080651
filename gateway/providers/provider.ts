/**
 * A provider is what a vendor speaks: it builds a request and reads an error. Pure: it opens no connection.
 */
import type { OutputLimitField } from '../dialects/dialect.ts';
import type { ErrorCode, ErrorDetails } from '../errors.ts';

/** A provider's refusal, in the gateway's words. */
export interface ProviderError {
  code: ErrorCode;
  message: string;
  details: ErrorDetails;
}

/** What an upstream request needs beside its body. */
export interface UpstreamCall {
  /** Path and query. */
  path: string;
  /** Names and values alternate. */
  headers: string[];
}

export interface Provider {
  /** Name in the config. */
  readonly name: string;
  /** The vendor as telemetry names it. */
  readonly telemetryName: string;
  readonly origin: string;
  readonly timeouts: { connect: number; firstByte: number; idle: number };
  /** Whether streams are asked for their usage. */
  readonly streamUsage: boolean;
  /** Where it wants the bound on an answer. */
  readonly outputLimitField: OutputLimitField;
  /** Names of the client's headers that may go along. */
  readonly forwardedHeaders: readonly string[];
  /** The chat call. `forwarded` are the client's headers that may go along. */
  chatCall(forwarded: string[]): UpstreamCall;
  /** An answer above 399. */
  readError(status: number, body: unknown, retryAfter: string | undefined): ProviderError;
}
