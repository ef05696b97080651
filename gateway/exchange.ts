/**
 * One request and its answer, as a door hands it to the pipeline. HTTP is the first door; the pipeline knows nothing of
 * Fastify, sockets or frames.
 */
export interface Exchange {
  readonly method: string;
  /** Normalised: percent-escapes of unreserved characters decoded, `//`, `.` and `..` resolved. */
  readonly path: string;
  /** What stands after the `?`, as it was sent. */
  readonly query: string;
  /** Names in lower case; a repeated header is joined with `, `. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  /** `performance.now()` when the head had been read. */
  readonly startedAt: number;
  /** True once the client has gone. */
  readonly gone: boolean;
  /** True once the head of the answer is out. */
  readonly committed: boolean;

  /** Reads the whole body; rejects with `body_too_large` above `limit` bytes, `body_timeout` when it dawdles. */
  readBody(limit: number): Promise<Buffer>;
  /** Answers at once. Header names and values alternate. */
  reply(status: number, headers: string[], body: string | Buffer): void;
  /** Commits to a streamed answer. */
  open(status: number, headers: string[]): void;
  /** Answers false when the client is slow: wait for {@link onDrain}. */
  write(chunk: string | Buffer): boolean;
  end(): void;
  /** Cuts the connection: the client must not take what it has for a whole answer. */
  destroy(): void;
  onDrain(listener: () => void): void;
  /** Calls once when the client goes before the answer is complete; at once when it has gone already. */
  onGone(listener: () => void): void;
}
