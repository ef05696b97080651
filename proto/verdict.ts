/**
 * Is this a verdict that the hook can honour? Both sides ask: the gateway of every answer, wherever it came from, and
 * `serve.ts` before it sends one.
 */
import {
  type Allow,
  type AuthorizeInput,
  DECISION_ID,
  HOOKS,
  type Hook,
  type Identity,
  MAX_REMEMBERED,
  type Placeholder,
  type Reject,
  type Release,
  type Respond,
  type Rewrite,
  type SegmentsInput,
  type StreamInput,
  type Verdict,
  type VerdictKind,
} from './contract.ts';

/** A body that a plugin brings along is passed on up to this size, in UTF-16 units. */
export const MAX_REJECT_BODY = 65_536;
const MAX_COOKIES = 16;
const MIN_RENEW_MS = 500;
/** A timer that is set for longer goes off at once. */
const MAX_RENEW_MS = 2 ** 31 - 1;
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
  respond: respondProblem,
};

function allowProblem(allow: Allow, hook: Hook, input: AuthorizeInput): string | undefined {
  if (hook === 'authenticate') return authenticateProblem(allow);
  if (hook === 'authorize') {
    return decisionsProblem(allow.decisions, input.resources.length) ?? decisionIdProblem(allow.decisionId);
  }
  if (allow.grant !== undefined && typeof allow.grant !== 'string') return 'a grant is a string';
  const { outputTokens, renewMs } = allow;
  if (outputTokens !== undefined && !(Number.isInteger(outputTokens) && outputTokens >= 0)) {
    return '`outputTokens` is a number of tokens';
  }
  if (renewMs !== undefined && !(typeof renewMs === 'number' && renewMs >= MIN_RENEW_MS && renewMs <= MAX_RENEW_MS)) {
    return `\`renewMs\` lies between ${MIN_RENEW_MS} and ${MAX_RENEW_MS} milliseconds`;
  }
  return headersProblem(allow.headers);
}

function authenticateProblem({ identity, challenge, login, cookies, headers }: Allow): string | undefined {
  const unsound = identity === undefined ? undefined : identityProblem(identity);
  if (unsound !== undefined) return unsound;
  if (challenge !== undefined && !isHeaderValue(challenge)) return 'the challenge is not a header value';
  if (login !== undefined && !(isHeaderValue(login) && /^(?:\/(?![/\\])|https?:\/\/)/.test(login))) {
    return 'the login is neither a path nor a URL';
  }
  return cookiesProblem(cookies) ?? headersProblem(headers);
}

const IDENTITY_TEXTS = ['issuer', 'username', 'email', 'tenant'] as const;
const IDENTITY_LISTS = ['groups', 'roles'] as const;

/** Everybody who is asked later reads it, so one that is not as the contract has it is nobody's. */
function identityProblem(identity: Identity): string | undefined {
  if (!isText(identity?.subject)) return 'an identity needs a subject';
  for (const name of IDENTITY_TEXTS) {
    if (identity[name] !== undefined && typeof identity[name] !== 'string') return `\`${name}\` is a text`;
  }
  for (const name of IDENTITY_LISTS) {
    const list: unknown = identity[name];
    const sound = list === undefined || (Array.isArray(list) && list.every((one) => typeof one === 'string'));
    if (!sound) return `\`${name}\` is a list of texts`;
  }
  const claims: unknown = identity.claims;
  const sound = claims === undefined || (typeof claims === 'object' && claims !== null && !Array.isArray(claims));
  return sound ? undefined : '`claims` is an object';
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
  if (reject.status !== undefined && !isStatus(reject.status, 400)) {
    return 'the status of a rejection lies between 400 and 599';
  }
  return decisionIdProblem(reject.decisionId) ?? answerProblem(reject);
}

function decisionIdProblem(id: unknown): string | undefined {
  const isSound = id === undefined || (typeof id === 'string' && DECISION_ID.test(id));
  return isSound ? undefined : 'the id of a decision is up to 128 letters, digits, `_`, `.`, `:` and `-`';
}

function respondProblem(respond: Respond, hook: Hook): string | undefined {
  if (!isStatus(respond.status, 200)) return 'the status of an answer lies between 200 and 599';
  return answerProblem(respond, hook === 'recall' ? MAX_REMEMBERED : MAX_REJECT_BODY);
}

/** What goes to the client as the plugin wrote it. */
function answerProblem(
  { body, contentType, cookies, headers }: Omit<Respond, 'status'>,
  mostChars = MAX_REJECT_BODY,
): string | undefined {
  if (body !== undefined && !(typeof body === 'string' && body.length <= mostChars)) {
    return `a body is a string of at most ${mostChars} characters`;
  }
  if (contentType !== undefined && !isHeaderValue(contentType)) return 'the content type is not a header value';
  return cookiesProblem(cookies) ?? headersProblem(headers);
}

function isStatus(status: unknown, least: number): boolean {
  return Number.isInteger(status) && (status as number) >= least && (status as number) <= 599;
}

function cookiesProblem(cookies: unknown): string | undefined {
  if (cookies === undefined) return undefined;
  const sound = Array.isArray(cookies) && cookies.length <= MAX_COOKIES && cookies.every(isHeaderValue);
  return sound ? undefined : `cookies are a list of at most ${MAX_COOKIES} header values`;
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
  if (headers === undefined) return undefined;
  if (typeof headers !== 'object' || headers === null) return 'headers must be an object';
  for (const [name, value] of Object.entries(headers)) {
    if (!HEADER_NAME.test(name) || !isHeaderValue(value)) {
      return 'a header has a bad name or value';
    }
  }
  return undefined;
}

function isHeaderValue(value: unknown): value is string {
  return typeof value === 'string' && HEADER_VALUE.test(value);
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}

/** The kind of a sound verdict. */
export function kindOf(verdict: Verdict): VerdictKind {
  for (const kind in verdict) return kind as VerdictKind;
  throw new TypeError('a verdict has one key');
}
