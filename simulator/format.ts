/** What a wire format is to the server. Another vendor's format is one more file that exports a `WireFormat`. */
import { createHash, randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import type { z } from 'zod';
import { type Prefill, Refusal } from './model.ts';

/** One piece of a stream as it goes out. A `token` takes the time that a model needs for it; the rest is framing. */
export interface StreamPiece {
  bytes: string | Uint8Array;
  token: boolean;
}

/** An answer in one piece. */
export interface WholeReply {
  status: number;
  headers?: Record<string, string>;
  json: unknown;
}

/** An answer as it is thought of, with status 200. */
export interface StreamReply {
  status: 200;
  /** `text/event-stream` by default. */
  contentType?: string;
  stream: Iterable<StreamPiece>;
  /** The event with which the vendor tells, in the middle of a stream, that it cannot go on; `sent` pieces went before. */
  failure(refusal: Refusal, sent: number): string | Uint8Array;
  /** What the vendor sends while the model is silent; a comment of Server-Sent Events by default. */
  keepAlive?: string | Uint8Array;
}

export type Reply = WholeReply | StreamReply;

/** A request as it reaches a wire format. */
export interface Call {
  method: string;
  /** The path as it was sent, without the query. */
  path: string;
  query: URLSearchParams;
  headers: IncomingHttpHeaders;
  /** The named groups of the route's path, decoded. */
  parameters: Record<string, string>;
  /** The parsed body; undefined with a GET. */
  body: unknown;
  /** The body as it was sent, for a signature. */
  bytes: Buffer;
  /** What the model does with an answer that the client has begun. */
  prefill: Prefill;
}

/** Whose requests are answered. Any key is good unless it is named here. */
export interface Access {
  /** Also OpenAI's paths need a key. Without this they do not, as in the many servers that speak OpenAI's API. */
  requireKey: boolean;
  /** Keys that are refused. */
  wrongKeys: ReadonlySet<string>;
  /** AWS secrets by their access key id. When there are any, signatures are verified with them. */
  awsSecrets: ReadonlyMap<string, string>;
}

/** One method and path; the named groups of `path` are handed to `answer` beside the parsed body. */
export interface Route {
  method: 'GET' | 'POST';
  path: RegExp;
  /** Two vendors have the same path for one thing; a request is this one's when its headers say so. */
  isMeant?(headers: IncomingHttpHeaders): boolean;
  /** @throws Refusal when the request cannot be answered */
  answer(call: Call): Reply;
}

/** A vendor's wire format: what it serves, whom, and how it words a refusal. */
export interface WireFormat {
  routes: Route[];
  /** The header of every answer that names the request. */
  requestIdHeader: string;
  /** @throws Refusal when the request has no key, or a wrong one */
  authenticate(call: Call, access: Access): void;
  refuse(refusal: Refusal, requestId: string): WholeReply;
}

/** An answer in one piece with status 200. */
export function ok(json: unknown): WholeReply {
  return { status: 200, json };
}

/** One Server-Sent Event; without a name it has only data. */
export function sse(data: object | string, event?: string): string {
  const text = typeof data === 'string' ? data : JSON.stringify(data);
  return `${event === undefined ? '' : `event: ${event}\n`}data: ${text}\n\n`;
}

/** One Server-Sent Event that is named by the `type` of its data. */
export function typedSse(data: { type: string }): string {
  return sse(data, data.type);
}

/** An id as vendors make them: the prefix and 32 hexadecimal digits. */
export function newId(prefix: string): string {
  return prefix + randomUUID().replaceAll('-', '');
}

/** The token of an `Authorization: Bearer …` header. */
export function bearer({ authorization }: IncomingHttpHeaders): string | undefined {
  return /^bearer\s+(\S+)$/i.exec(authorization ?? '')?.[1];
}

/** The one value of a header. */
export function header(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/** @throws Refusal 400 that names the field at fault, when the body is not what the schema wants */
export function read<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const { path, message } = issue;
  const param = path.join('.');
  if (issue.code === 'unrecognized_keys') throw unknownField([...path, issue.keys[0]!].join('.'));
  if (param === '') throw new Refusal(400, 'The body must be a JSON object.');
  if (isMissing(body, path)) {
    throw new Refusal(400, `Missing required parameter: '${param}'.`, 'missing_required_parameter', param);
  }
  throw new Refusal(400, `Invalid value for '${param}': ${message}.`, 'invalid_value', param);
}

function unknownField(param: string): Refusal {
  return new Refusal(400, `Unknown parameter: '${param}'.`, 'unknown_parameter', param);
}

function isMissing(body: unknown, path: PropertyKey[]): boolean {
  const at = (value: unknown, key: PropertyKey) => (value as Record<PropertyKey, unknown> | undefined)?.[key];
  return path.reduce(at, body) === undefined;
}

/** Vendors sign a model's thoughts so that nobody else's are replayed as its own; so does this, without a secret. */
export function signatureOf(thoughts: string): string {
  return createHash('sha256').update(`simulated:${thoughts}`).digest('base64');
}
