/**
 * Is this a verdict that the hook can honour? Both sides ask: the gateway of every answer, wherever it came from, and
 * `serve.ts` before it sends one.
 */
import {
  type Allow,
  type AuthorizeInput,
  HOOKS,
  type Hook,
  type Placeholder,
  type Reject,
  type Release,
  type Rewrite,
  type SegmentsInput,
  type StreamInput,
  type Verdict,
  type VerdictKind,
} from './contract.ts';

/** A body that a rejection brings along is passed on up to this size, in UTF-16 units. */
export const MAX_REJECT_BODY = 65_536;
const MAX_PLACEHOLDERS = 10_000;
const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

/**
 * Names what is wrong with a plugin's answer, or answers `undefined` when it is sound.
 *
 * @param input what the plugin was asked: a verdict is judged against it
 */
export function verdictProblem(hook: Hook, input: unknown, answer: unknown): string | undefined {
  if (typeof answer !== 'object' || answer === null) return 'the answer is empty';
  const keys = Object.keys(answer);
  const kind = keys[0] as VerdictKind;
  if (keys.length !== 1) return 'the answer must have exactly one verdict';
  if (!(HOOKS[hook] as readonly string[]).includes(kind)) return `\`${hook}\` cannot answer this verdict`;
  const body = (answer as Record<string, unknown>)[kind];
  if (typeof body !== 'object' || body === null) return `\`${kind}\` must be an object`;
  return CHECKS[kind](body as never, hook, input as never);
}

const CHECKS: { [K in VerdictKind]: (body: never, hook: Hook, input: never) => string | undefined } = {
  allow: allowProblem,
  rewrite: rewriteProblem,
  reject: rejectProblem,
  release: releaseProblem,
};

function allowProblem(allow: Allow, hook: Hook, input: AuthorizeInput): string | undefined {
  if (hook === 'authenticate' && allow.identity !== undefined && !isText(allow.identity?.subject)) {
    return 'an identity needs a subject';
  }
  if (hook === 'authorize') return decisionsProblem(allow.decisions, input.resources.length);
  if (allow.grant !== undefined && typeof allow.grant !== 'string') return 'a grant is a string';
  return allow.headers === undefined ? undefined : headersProblem(allow.headers);
}

function decisionsProblem(decisions: unknown, wanted: number): string | undefined {
  const sound =
    Array.isArray(decisions) && decisions.length === wanted && decisions.every((one) => typeof one === 'boolean');
  return sound ? undefined : `\`authorize\` must answer ${wanted} decisions`;
}

function rewriteProblem(rewrite: Rewrite, _hook: Hook, input: SegmentsInput): string | undefined {
  if (!Array.isArray(rewrite.segments)) return 'a rewrite needs segments';
  const known = new Set(input.segments.map((segment) => segment.id));
  for (const segment of rewrite.segments) {
    if (!known.has(segment?.id)) return 'a rewrite names a segment that it was not given';
    if (typeof segment.text !== 'string') return 'a rewritten segment needs a text';
  }
  return placeholdersProblem(rewrite.placeholders);
}

function rejectProblem(reject: Reject): string | undefined {
  if (!isText(reject.code) || !isText(reject.message)) return 'a rejection needs a code and a message';
  const { status, body, contentType } = reject;
  if (status !== undefined && !(Number.isInteger(status) && status >= 400 && status <= 599)) {
    return 'the status of a rejection lies between 400 and 599';
  }
  if (body !== undefined && !(typeof body === 'string' && body.length <= MAX_REJECT_BODY)) {
    return `the body of a rejection is a string of at most ${MAX_REJECT_BODY} characters`;
  }
  if (contentType !== undefined && !(typeof contentType === 'string' && HEADER_VALUE.test(contentType))) {
    return 'the content type is not a header value';
  }
  return reject.headers === undefined ? undefined : headersProblem(reject.headers);
}

function releaseProblem(release: Release, _hook: Hook, input: StreamInput): string | undefined {
  if (typeof release.release !== 'string' || typeof release.hold !== 'string') return 'a release needs two strings';
  if (release.hold !== '' && input.last) return 'nothing can be held when no more text will come';
  if (!input.text.endsWith(release.hold)) return 'what is held must be a suffix of what was given';
  return release.placeholders === undefined ? undefined : placeholdersProblem(release.placeholders);
}

function placeholdersProblem(placeholders: Placeholder[] | undefined): string | undefined {
  if (placeholders === undefined) return undefined;
  if (!Array.isArray(placeholders) || placeholders.length > MAX_PLACEHOLDERS) return 'too many placeholders';
  const sound = placeholders.every((one) => isText(one?.placeholder) && typeof one.original === 'string');
  return sound ? undefined : 'a placeholder needs a name and an original';
}

function headersProblem(headers: unknown): string | undefined {
  if (typeof headers !== 'object' || headers === null) return 'headers must be an object';
  for (const [name, value] of Object.entries(headers)) {
    if (!HEADER_NAME.test(name) || typeof value !== 'string' || !HEADER_VALUE.test(value)) {
      return 'a header has a bad name or value';
    }
  }
  return undefined;
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}

/** The kind of a sound verdict. */
export function kindOf(verdict: Verdict): VerdictKind {
  for (const kind in verdict) return kind as VerdictKind;
  throw new TypeError('a verdict has one key');
}
