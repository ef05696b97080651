/** What is learnt of a stream while it passes: its usage, its first token, and whether it came to an end. */
import type { Usage } from '../../proto/contract.ts';
import type { StreamEvent } from '../dialects/dialect.ts';
import type { RequestRecord } from '../telemetry/record.ts';

export class Meter {
  /** The upstream marked the end. */
  isDone = false;
  private readonly begun = new Set<string>();
  private readonly finished = new Set<string>();
  private readonly record: RequestRecord;

  constructor(record: RequestRecord) {
    this.record = record;
  }

  get hasContent(): boolean {
    return this.record.firstTokenAt !== undefined;
  }

  /** Every choice that was seen has finished. */
  get hasFinished(): boolean {
    if (this.finished.size === 0) return false;
    for (const choice of this.begun) if (!this.finished.has(choice)) return false;
    return true;
  }

  /** The choices that have begun and not finished. */
  get unfinished(): string[] {
    return [...this.begun].filter((choice) => !this.finished.has(choice));
  }

  see(event: StreamEvent): void {
    const { record } = this;
    if (event.done) this.isDone = true;
    for (const choice of event.finished) this.finished.add(choice);
    if (event.usage !== undefined) record.usage = merged(record.usage, event.usage);
    if (event.model !== undefined) record.upstreamModel ??= event.model;
    for (const { channel, text } of event.parts) {
      this.begun.add(channel.slice(0, channel.indexOf('/')));
      if (text === '') continue;
      record.answerChars += text.length;
      // Empty deltas are no token: the clock stops at the first text.
      record.firstTokenAt ??= performance.now();
    }
  }
}

/**
 * The usage of an answer that did not come to its end: what was told of it, and no less than what was seen of it, by an
 * estimate of 4 characters a token. What a provider tells at the beginning knows nothing of the answer's length.
 */
export function usageSoFar({ usage, estimatedInputTokens, answerChars }: RequestRecord): Usage {
  const least = Math.ceil(answerChars / 4);
  if (usage === undefined) return { inputTokens: estimatedInputTokens, outputTokens: least, estimated: true };
  return usage.outputTokens >= least ? usage : { ...usage, outputTokens: least, estimated: true };
}

/** Some formats tell the prompt's tokens at the beginning of a stream, and at its end those of the answer alone. */
function merged(before: Usage | undefined, now: Usage): Usage {
  if (before === undefined || now.inputTokens > 0) return now;
  return { ...before, ...now, inputTokens: before.inputTokens };
}
