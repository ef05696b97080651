/**
 * Streams for guards that know whole answers only: text is gathered into windows, and each is asked about as if it were
 * an answer. The tail of a window is held and seen again with the next one, so a value that lies across a border and is
 * no longer than the overlap is seen whole.
 */
import type { Placeholder, StreamInput, TextVerdict } from '../../proto/contract.ts';
import { ask, type Judgement } from '../hooks.ts';
import type { Mount } from '../mount.ts';
import type { RequestRecord } from '../telemetry/record.ts';

const SEGMENT = 'window';

/** Asks a `response` guard about one window of a stream. */
export function askWindowed(mount: Mount, input: StreamInput, record: RequestRecord): Judgement | Promise<Judgement> {
  const { size, overlap } = mount.policy.window;
  if (!input.last && input.text.length < size) return { release: { release: '', hold: input.text } };
  const segments = [
    { id: SEGMENT, role: 'assistant', channel: 'text', path: input.channel, text: input.text } as const,
  ];
  const judged = ask(mount, 'response', { request: input.request, segments: [...segments], history: 'reject' }, record);
  const settle = (verdict: Judgement) => asRelease(verdict as TextVerdict | undefined, input, overlap);
  return judged instanceof Promise ? judged.then(settle) : settle(judged);
}

function asRelease(verdict: TextVerdict | undefined, input: StreamInput, overlap: number): Judgement {
  if (verdict !== undefined && 'reject' in verdict) return verdict;
  const rewrite = verdict !== undefined && 'rewrite' in verdict ? verdict.rewrite : undefined;
  const text = rewrite?.segments[0]?.text ?? input.text;
  const placeholders: Placeholder[] = rewrite?.placeholders ?? [];
  const hold = input.last ? '' : sharedTail(text, input.text, overlap);
  return { release: { release: text.slice(0, text.length - hold.length), hold, placeholders } };
}

/** The longest common tail of the judged and the raw text, at most `most` units, never half a surrogate pair. */
function sharedTail(judged: string, raw: string, most: number): string {
  const bound = Math.min(most, judged.length, raw.length);
  let length = 0;
  while (length < bound && judged.charCodeAt(judged.length - 1 - length) === raw.charCodeAt(raw.length - 1 - length))
    length += 1;
  const first = raw.charCodeAt(raw.length - length);
  if (length > 0 && first >= 0xdc00 && first <= 0xdfff) length -= 1;
  return length === 0 ? '' : raw.slice(-length);
}
