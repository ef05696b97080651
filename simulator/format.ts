/** What a wire format is to the server. Another vendor's format is one more file that exports a `WireFormat`. */
import type { Refusal } from './model.ts';

/** One piece of a stream as it goes out. A `token` takes the time that a model needs for it; the rest is framing. */
export interface StreamPiece {
  bytes: string;
  token: boolean;
}

/** An answer in one piece, or a stream of Server-Sent Events with status 200. */
export type Reply =
  | { status: number; headers?: Record<string, string>; json: unknown }
  | { status: 200; stream: Iterable<StreamPiece> };

/** One method and path; the named groups of `path` are handed to `answer` beside the parsed body. */
export interface Route {
  method: 'GET' | 'POST';
  path: RegExp;
  /** @throws Refusal when the request cannot be answered */
  answer(body: unknown, pathParameters: Record<string, string>): Reply;
}

/** A vendor's wire format: what it serves and how it words a refusal. */
export interface WireFormat {
  routes: Route[];
  refuse(refusal: Refusal): Reply;
}
