/** What replicas of the gateway share with one another, wherever it is kept. */

/**
 * Marks on things that are to be left alone for a while. Nobody waits for any of this: a mark that is lost costs one
 * request that would better have gone elsewhere.
 */
export interface SharedMarks {
  /**
   * Marks `key` for so many milliseconds, for everybody. The time is told from now on rather than by the clock, which
   * replicas need not agree on. Never throws.
   */
  mark(key: string, forMs: number): void;
  /**
   * Calls back for each mark that another replica makes, with the milliseconds that it has left; one's own may be told as
   * well. Answers how to stop it.
   */
  onMark(listener: (key: string, forMs: number) => void): () => void;
  /** Lets go. Marks that are made later go nowhere. */
  close(): void;
}
