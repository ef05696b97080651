/** What is learnt of a stream while it passes: its usage, its first token, and whether it came to an end. */
import type { StreamEvent } from '../dialects/dialect.ts';
import type { RequestRecord } from '../telemetry/record.ts';

export class Meter {
  /** The upstream marked the end, or finished every choice. */
  isDone = false;
  hasFinished = false;
  private readonly record: RequestRecord;

  constructor(record: RequestRecord) {
    this.record = record;
  }

  get hasContent(): boolean {
    return this.record.firstTokenAt !== undefined;
  }

  see(event: StreamEvent): void {
    const { record } = this;
    if (event.done) this.isDone = true;
    if (event.finished.length > 0) this.hasFinished = true;
    if (event.usage !== undefined) record.usage = event.usage;
    if (event.model !== undefined) record.upstreamModel ??= event.model;
    for (const { text } of event.parts) {
      if (text === '') continue;
      record.answerChars += text.length;
      // Empty deltas are no token: the clock stops at the first text.
      record.firstTokenAt ??= performance.now();
    }
  }
}
