/**
 * From a scanner to a guard: who can find things in a text gets the `request`, `response` and `stream` hooks from here.
 *
 * A whole text is a stream with one window, so the same text always gets the same verdict, however it was cut.
 */
import type {
  Finding,
  HistoryPolicy,
  Placeholder,
  Plugin,
  Reject,
  Segment,
  SegmentsInput,
  StreamInput,
  StreamVerdict,
  TextVerdict,
} from './contract.ts';

/** What to do with a match. `restore` masks and lets the core put the original back into the answer. */
export type MatchAction = 'mask' | 'restore' | 'reject';

/** A match: UTF-16 offsets into the scanned text, `start < end`. */
export interface Span {
  start: number;
  end: number;
  /** What it is, such as `EMAIL_ADDRESS`: fit for logs. */
  label: string;
  action: MatchAction;
  /** What stands in its place when it is masked, such as `<EMAIL_ADDRESS>`. For `restore` a number is put in. */
  mask: string;
}

export interface ScanResult {
  /** In order, without overlap, each the longest possible match; none reaches beyond `settled`. */
  spans: Span[];
  /**
   * Text before this offset is decided, whatever comes later; from here on it may be the beginning of a match.
   * Equals the text's length when `last` is set.
   */
  settled: number;
}

/**
 * Finds things in a text. Must give the same answer however the text is cut: scanning windows one after another, each
 * beginning where the one before was settled, finds the same spans as scanning the whole.
 */
export interface Scanner {
  /**
   * @param text what has not been decided yet
   * @param before up to 64 UTF-16 units that stand before `text` and are decided: for look-behind only
   * @param last whether nothing follows
   */
  scan(text: string, before: string, last: boolean): ScanResult;
}

/** The settings of a guard made from a scanner. */
export interface GuardOptions {
  /** Code of a rejection. */
  code: string;
  /** The sentence for the person, given the labels that were found. */
  message(labels: string[]): string;
  /** Optional overrides of the rejection. */
  status?: number;
  body?: string;
  contentType?: string;
}

type Guard = Required<Pick<Plugin, 'request' | 'response' | 'stream'>>;

/** The three text hooks of a plugin, made from its scanner. */
export function guardFrom(scanner: Scanner, options: GuardOptions): Guard {
  return {
    request: (input) => judgeSegments(scanner, options, input, new Numbering(input.segments)),
    response: (input) => judgeSegments(scanner, options, input, undefined),
    stream: (input) => judgeWindow(scanner, options, input),
  };
}

function judgeSegments(
  scanner: Scanner,
  options: GuardOptions,
  input: SegmentsInput,
  numbering: Numbering | undefined,
): TextVerdict {
  const found = new Findings();
  const rejected: string[] = [];
  const labels = new Set<string>();
  const rewritten: { id: string; text: string }[] = [];
  for (const segment of input.segments) {
    if (segment.channel === 'media') continue;
    const { spans } = scanner.scan(segment.text, '', true);
    if (spans.length === 0) continue;
    const kept = spans.filter((span) => !isForgiven(span, segment, input.history));
    found.add(kept);
    const bad = kept.filter((span) => span.action === 'reject' && !(segment.old && input.history === 'mask'));
    if (bad.length > 0) rejected.push(segment.id);
    for (const span of bad) labels.add(span.label);
    if (kept.length > 0)
      rewritten.push({ id: segment.id, text: replaced(segment.text, kept, segment.channel, numbering) });
  }
  if (rejected.length > 0) return { reject: { ...rejection(options, [...labels], found), segments: rejected } };
  if (rewritten.length === 0) return { allow: { findings: found.list() } };
  return { rewrite: { segments: rewritten, placeholders: numbering?.placeholders ?? [], findings: found.list() } };
}

/** An old turn that would be rejected is left as it is where the mount says so. Masks are never forgiven. */
function isForgiven(span: Span, segment: Segment, history: HistoryPolicy): boolean {
  return span.action === 'reject' && segment.old === true && history === 'skip';
}

function judgeWindow(scanner: Scanner, options: GuardOptions, input: StreamInput): StreamVerdict {
  const { spans, settled } = scanner.scan(input.text, input.before, input.last);
  if (spans.length === 0) return { release: cutAt(input.text, settled) };
  const found = new Findings();
  found.add(spans);
  const labels = new Set(spans.filter((span) => span.action === 'reject').map((span) => span.label));
  if (labels.size > 0) return { reject: rejection(options, [...labels], found) };
  const channel = input.channel.includes('/tool-arguments') ? 'tool-arguments' : 'text';
  const { release, hold } = cutAt(input.text, settled);
  return { release: { release: replaced(release, spans, channel, undefined), hold, findings: found.list() } };
}

function cutAt(text: string, settled: number): { release: string; hold: string } {
  if (settled >= text.length) return { release: text, hold: '' };
  return { release: text.slice(0, settled), hold: text.slice(settled) };
}

function rejection(options: GuardOptions, labels: string[], found: Findings): Reject {
  const { code, status, body, contentType } = options;
  return { code, message: options.message(labels), findings: found.list(), status, body, contentType };
}

function replaced(text: string, spans: Span[], channel: Segment['channel'], numbering: Numbering | undefined): string {
  let out = '';
  let from = 0;
  for (const span of spans) {
    const original = text.slice(span.start, span.end);
    const mask = numbering ? numbering.mask(span, original) : span.mask.replace(NUMBER, '');
    out += text.slice(from, span.start) + (channel === 'tool-arguments' ? maskedJson(original, mask) : mask);
    from = span.end;
  }
  return out + text.slice(from);
}

/** A number in a mask's template, with the underscore that sets it off. */
const NUMBER = /_?\{n\}/;

/**
 * Masks a match inside serialised JSON. A match that runs over the border of a string (such as `password.*`) keeps the
 * quotes and the punctuation between strings, so that what is left still parses.
 */
function maskedJson(original: string, mask: string): string {
  const escaped = JSON.stringify(mask).slice(1, -1);
  if (!original.includes('"')) return escaped;
  return original
    .split(/(\\?")/)
    .map((piece) => (/[\p{L}\p{N}]/u.test(piece) ? escaped : piece))
    .join('');
}

/** Gives equal values equal numbers, and never a mask that the prompt already contains. */
class Numbering {
  readonly placeholders: Placeholder[] = [];
  private readonly masks = new Map<string, string>();
  private readonly next = new Map<string, number>();
  private readonly taken = new Map<string, ReadonlySet<number>>();
  private readonly segments: Segment[];

  constructor(segments: Segment[]) {
    this.segments = segments;
  }

  mask(span: Span, original: string): string {
    const numbered = span.mask.includes('{n}') ? span.mask : span.action === 'restore' ? `${span.mask}_{n}` : undefined;
    if (numbered === undefined) return span.mask;
    const key = `${span.mask} ${original}`;
    const known = this.masks.get(key);
    if (known !== undefined) return known;
    const mask = this.fresh(numbered);
    this.masks.set(key, mask);
    if (span.action === 'restore') this.placeholders.push({ placeholder: mask, original });
    return mask;
  }

  private fresh(template: string): string {
    const taken = this.takenOf(template);
    let number = (this.next.get(template) ?? 0) + 1;
    while (taken.has(number)) number += 1;
    this.next.set(template, number);
    return template.replace('{n}', String(number));
  }

  /** The numbers of a template that the prompt itself contains: looked for once, however many values there are. */
  private takenOf(template: string): ReadonlySet<number> {
    const known = this.taken.get(template);
    if (known !== undefined) return known;
    const taken = new Set<number>();
    const [before = '', after = ''] = template.split('{n}');
    for (const { text } of this.segments) {
      for (let at = text.indexOf(before); at !== -1; at = text.indexOf(before, at + 1)) {
        const digits = /^\d{1,15}/.exec(text.slice(at + before.length, at + before.length + 16))?.[0];
        if (digits !== undefined && text.startsWith(after, at + before.length + digits.length))
          taken.add(Number(digits));
        if (before === '') break;
      }
    }
    this.taken.set(template, taken);
    return taken;
  }
}

class Findings {
  private readonly counts = new Map<string, number>();

  add(spans: Span[]): void {
    for (const span of spans) this.counts.set(span.label, (this.counts.get(span.label) ?? 0) + 1);
  }

  list(): Finding[] {
    return [...this.counts].map(([label, count]) => ({ label, count }));
  }
}
