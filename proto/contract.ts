/**
 * The contract between the gateway and its plugins, version 1.
 *
 * One interface, three places to run: the objects below are the same in process, as JSON over HTTP, and as the protobuf
 * messages of `plugin.proto` (JSON and protobuf share their field names). A plugin is an object with one method per
 * hook that it answers.
 *
 * A verdict has exactly one of the keys that its hook may answer ({@link HOOKS}). Anything else that a plugin does
 * (throw, answer late, answer nothing or something malformed) is a fault, and a fault is never an allow.
 */

/** The version of this contract; a plugin that describes itself with another one is refused. */
export const CONTRACT_VERSION = 1;

/**
 * The hooks in the order of a request's life, and the verdicts that each may answer. `endpoint` stands apart: it is not
 * asked about a request, it answers one.
 */
export const HOOKS = {
  authenticate: ['allow', 'reject'],
  authorize: ['allow', 'reject'],
  recall: ['allow', 'respond', 'reject'],
  limit: ['allow', 'reject'],
  renew: ['allow'],
  request: ['allow', 'rewrite', 'reject'],
  response: ['allow', 'rewrite', 'reject'],
  stream: ['release', 'reject'],
  remember: ['allow'],
  observe: ['allow'],
  endpoint: ['respond'],
} as const satisfies Record<string, readonly VerdictKind[]>;

/** Whether a plugin is only told something here: then answering nothing is an answer. */
export function isTold(hook: Hook): boolean {
  return HOOKS[hook].length === 1 && HOOKS[hook][0] === 'allow';
}

export type Hook = keyof typeof HOOKS;
export type VerdictKind = 'allow' | 'rewrite' | 'reject' | 'release' | 'respond';

/** Who asks. Made by an `authenticate` plugin; every later hook sees it. */
export interface Identity {
  /** Stable id of the person or program, unique within `issuer`. Never a secret. */
  subject: string;
  /** Who vouches for the subject: an issuer URL, or the name of the plugin. */
  issuer?: string;
  username?: string;
  email?: string;
  groups?: string[];
  roles?: string[];
  tenant?: string;
  /** Further claims by the authenticator's allow list. */
  claims?: Record<string, unknown>;
}

/** What every hook is told of the request it belongs to. Header names are in lower case. */
export interface RequestFacts {
  /** Unique id of the request, also in the answer's `x-request-id`. */
  id: string;
  method: string;
  /** The normalised path, route prefix included, without the query. */
  path: string;
  /** Matched route prefix, such as `/openai`. */
  route: string;
  /** All headers at `authenticate` and `endpoint`; later only those that the mount names (`headers: [...]`). */
  headers?: Record<string, string>;
  /** Constants that the route gives to its plugins. */
  context?: Record<string, string>;
  /** The model that the client asked for, once it is known. */
  model?: string;
  /** Provider of the first target, once it is known. */
  provider?: string;
  identity?: Identity;
  /**
   * `authorize`: the beginning of the body as UTF-8, as much of it as the plugin's description or its mount asks for.
   * Absent where nothing asks, and where no body has been read.
   */
  body?: string;
  /** Bytes of the whole body, beside `body`: more than `body` has when that was cut. */
  bodySize?: number;
}

export interface AuthenticateInput {
  request: RequestFacts;
}

/** `type:name`, such as `model:gpt-4o`; the action says what is to be done with it. */
export interface Resource {
  type: 'model' | 'tool' | 'server' | 'route';
  name: string;
}

export interface AuthorizeInput {
  request: RequestFacts;
  action: Action;
  resources: Resource[];
}

/**
 * What is to be done with the resources: `model.use` for a call, `model.list` for filtering the list of models,
 * `tool.call` for a tool call that the model asks for, before the client sees any of its arguments.
 */
export type Action = 'model.use' | 'model.list' | 'tool.call';

/** What an authorizer is asked that does not say more. */
export const DEFAULT_ACTIONS: readonly Action[] = ['model.use', 'model.list'];

/**
 * Has this been answered already? Asked of whole requests with an `idempotency-key`, before anything costs money. Allow
 * claims the key for this request (`grant`); respond is the first request's answer; reject says that it is still being
 * answered, or was another request.
 */
export interface RecallInput {
  request: RequestFacts;
  /** The client's key, 1–255 visible ASCII characters. Who asks is part of it: two identities never share one. */
  key: string;
  /** SHA-256 of method, path and body, in hexadecimal. */
  fingerprint: string;
}

/** What became of a request whose key was claimed; told once. */
export interface RememberInput extends RecallInput {
  /** The claim that this plugin gave in `recall`. */
  grant?: Grant;
  /** `failed`: there is nothing to remember, so that the request may be sent again. */
  outcome: 'answered' | 'failed';
  /** HTTP status, body and its type, as the client got them. */
  status?: number;
  contentType?: string;
  body?: string;
}

/** The longest answer that is remembered, in UTF-16 units. */
export const MAX_REMEMBERED = 1024 * 1024;

/** USD per million tokens. */
export interface Price {
  input: number;
  output: number;
  cachedInput?: number;
}

export interface LimitInput {
  request: RequestFacts;
  /** Estimate of the prompt's tokens (characters / 4, rounded up) plus nothing for the answer. */
  estimatedInputTokens: number;
  /** The client's own bound on the answer (`max_tokens`) for all its choices together, when it gave one. */
  maxOutputTokens?: number;
  /** Of the model's first target, when the price table has it. */
  price?: Price;
}

/** Asked while a request with a grant is open: a grant that is not renewed may expire. */
export interface RenewInput {
  request: RequestFacts;
  grant: Grant;
}

export type Role = 'system' | 'user' | 'assistant' | 'tool';
export type Channel = 'text' | 'reasoning' | 'refusal' | 'tool-arguments' | 'tool-result' | 'tool-definition' | 'media';

/** One piece of text that a model reads or writes, with its place. */
export interface Segment {
  /** Unique within the call; a rewrite names it. */
  id: string;
  role: Role;
  channel: Channel;
  /** Where it stands in the body, as a JSON pointer (RFC 6901), such as `/messages/2/content/0/text`. */
  path: string;
  /** The text; for media the reference (URL or data URL without its bytes). */
  text: string;
  /** True for turns before the newest user turn: the client sends the whole history each time. */
  old?: boolean;
  /** MIME type of a media segment. */
  mediaType?: string;
}

/** What a mount does when something in an old turn would be rejected. */
export type HistoryPolicy = 'reject' | 'mask' | 'skip';

export interface SegmentsInput {
  request: RequestFacts;
  segments: Segment[];
  history: HistoryPolicy;
}

export interface StreamInput {
  request: RequestFacts;
  /** The text channel: choice and kind, such as `0/text` or `0/tool-arguments/1`. */
  channel: string;
  /** Up to {@link LOOKBEHIND} UTF-16 units of original text that have already been released: for look-behind only. */
  before: string;
  /** The unreleased text: what the guard held last time, and what has come since. */
  text: string;
  /** True when no more text will come on this channel; `hold` must then be empty. */
  last: boolean;
}

/** How much released text a stream guard sees again, in UTF-16 units. */
export const LOOKBEHIND = 64;

/** A request to a path that the plugin serves itself, such as the callback of a login. */
export interface EndpointInput {
  request: RequestFacts;
  /** What stands after the `?`, as it was sent; empty without one. */
  query: string;
  /** The body as UTF-8, {@link MAX_ENDPOINT_BODY} bytes at most. */
  body: string;
}

/** The longest body that reaches an `endpoint`, in bytes; a longer one is refused with 413. */
export const MAX_ENDPOINT_BODY = 65_536;

/** What was found, without the text: fit for logs and metrics. */
export interface Finding {
  label: string;
  count: number;
}

/** Lets a masked value be restored in the answer to the same request; never logged. */
export interface Placeholder {
  placeholder: string;
  original: string;
}

/** A reservation that comes back to the same plugin in `observe`. Opaque to the core. */
export type Grant = string;

/** What the id of a decision is made of. */
export const DECISION_ID = /^[\w.:-]{1,128}$/;

export interface Allow {
  /** `authenticate`: who it is. Without it the plugin has no opinion ("not mine"). */
  identity?: Identity;
  /** `authorize`: one answer per resource, in order. Missing or of another length is a fault. */
  decisions?: boolean[];
  /** `authenticate` without an identity: what `www-authenticate` says when nobody knew the client (RFC 9110, 11.6.1). */
  challenge?: string;
  /**
   * `authenticate` without an identity: the path or URL where a person signs in. When nobody knew the client, a browser
   * that opens a page is sent there (302).
   */
  login?: string;
  /** `authenticate`: whole values of `set-cookie` for the answer. */
  cookies?: string[];
  /** `authenticate`, `limit`: headers for the client, such as `x-ratelimit-remaining`. */
  headers?: Record<string, string>;
  /** `limit`: what was reserved. `recall`: the claim. */
  grant?: Grant;
  /**
   * `limit`: the most answer tokens that the grant pays for. The provider is told so, and an answer that goes on is cut
   * there.
   */
  outputTokens?: number;
  /** `authorize`: the id of the decision in the plugin's own log, for the trace ({@link DECISION_ID}). */
  decisionId?: string;
  /** `limit`: how often the grant wants to be renewed while the request is open, in milliseconds, 500 at least. */
  renewMs?: number;
  findings?: Finding[];
}

export interface Rewrite {
  /** The segments that change, by id. Those not named stay. */
  segments: { id: string; text: string }[];
  placeholders?: Placeholder[];
  findings?: Finding[];
}

export interface Reject {
  /** Machine-readable, snake_case, such as `pii_detected`. */
  code: string;
  /** One sentence for a person: what, why, what to do. Never what was matched. */
  message: string;
  findings?: Finding[];
  /** `request`, `response`: ids of the segments that caused it, so that old turns can be told from the new one. */
  segments?: string[];
  /** HTTP status, 400–599; default by hook: 401, 403, 429, 403. */
  status?: number;
  /** Headers for the client, such as `www-authenticate` or `retry-after`. */
  headers?: Record<string, string>;
  /** Whole values of `set-cookie`. */
  cookies?: string[];
  /** As in {@link Allow}. */
  decisionId?: string;
  /** A body to send as it is in place of the dialect's error (at most 64 KiB), with its content type. */
  body?: string;
  contentType?: string;
}

export interface Release {
  /** What may go out now, masked if need be. */
  release: string;
  /** The raw tail to see again; a suffix of the text that was given. */
  hold: string;
  placeholders?: Placeholder[];
  findings?: Finding[];
}

/** The whole answer to a request at one of the plugin's own paths. */
export interface Respond {
  /** 200–599. */
  status: number;
  headers?: Record<string, string>;
  /** Whole values of `set-cookie`. */
  cookies?: string[];
  /** At most 64 KiB, from `recall` at most {@link MAX_REMEMBERED}; default empty. */
  body?: string;
  /** Default `text/plain; charset=utf-8`. */
  contentType?: string;
}

/** Exactly one key. */
export type Verdict =
  | { allow: Allow }
  | { rewrite: Rewrite }
  | { reject: Reject }
  | { release: Release }
  | { respond: Respond };
export type AllowOrReject = { allow: Allow } | { reject: Reject };
export type TextVerdict = { allow: Allow } | { rewrite: Rewrite } | { reject: Reject };
export type StreamVerdict = { release: Release } | { reject: Reject };

export interface Usage {
  inputTokens: number;
  outputTokens: number;
  cachedInputTokens?: number;
  reasoningTokens?: number;
  /** True when the provider told none and the core counted characters / 4. */
  estimated?: boolean;
}

/** What became of one plugin call, for the record. */
export interface TraceEntry {
  plugin: string;
  hook: Hook;
  verdict: VerdictKind | 'fault' | 'none';
  code?: string;
  decisionId?: string;
  findings?: Finding[];
  /** Milliseconds; summed over the windows of a stream. */
  ms: number;
  calls: number;
  shadow?: boolean;
}

/** The end of a request, told once to every `observe` plugin of its route. */
export interface ObserveInput {
  request: RequestFacts;
  /** HTTP status sent to the client; 499 when the client had gone before one was sent. */
  status: number;
  outcome: 'finished' | 'rejected' | 'failed' | 'aborted';
  /** Error code of a rejection or failure. */
  code?: string;
  streamed: boolean;
  upstreamModel?: string;
  provider?: string;
  usage?: Usage;
  costUsd?: number;
  /** Milliseconds since the request's head was read. */
  durationMs: number;
  firstTokenMs?: number;
  /** The grant that this plugin gave in `limit`, if it did. */
  grant?: Grant;
  trace: TraceEntry[];
}

type Awaitable<T> = T | Promise<T>;

/** Raised by the core when the deadline has passed or the client has gone; a plugin may stop working then. */
export interface CallOptions {
  signal?: AbortSignal;
}

/** What guards: one method per hook that it answers. Methods that answer at once need not return a promise. */
export interface Plugin {
  describe(): Description;
  authenticate?(input: AuthenticateInput, options?: CallOptions): Awaitable<AllowOrReject>;
  authorize?(input: AuthorizeInput, options?: CallOptions): Awaitable<AllowOrReject>;
  recall?(input: RecallInput, options?: CallOptions): Awaitable<AllowOrReject | { respond: Respond }>;
  remember?(input: RememberInput, options?: CallOptions): Awaitable<{ allow: Allow } | undefined>;
  renew?(input: RenewInput, options?: CallOptions): Awaitable<{ allow: Allow } | undefined>;
  limit?(input: LimitInput, options?: CallOptions): Awaitable<AllowOrReject>;
  request?(input: SegmentsInput, options?: CallOptions): Awaitable<TextVerdict>;
  response?(input: SegmentsInput, options?: CallOptions): Awaitable<TextVerdict>;
  stream?(input: StreamInput, options?: CallOptions): Awaitable<StreamVerdict>;
  observe?(input: ObserveInput, options?: CallOptions): Awaitable<{ allow: Allow } | undefined>;
  endpoint?(input: EndpointInput, options?: CallOptions): Awaitable<{ respond: Respond }>;
  /** Its figures as Prometheus text, of all its instances in this process together. Names begin with `wardgate_`. */
  metrics?(): Awaitable<string>;
  /** Frees what the plugin holds; called once when it is no longer mounted. */
  close?(): Awaitable<void>;
}

/** What a plugin says of itself. */
export interface Description {
  contract: typeof CONTRACT_VERSION;
  name: string;
  version: string;
  hooks: Hook[];
  /** True when `request`, `response` or `stream` may change text: such plugins run in order, others side by side. */
  rewrites: boolean;
  /**
   * A quantifier-free pattern (ECMAScript, `u` flag): a stream window that it does not match holds nothing for this
   * guard and is released without a call. Quantifiers, groups with back-references and look-around are refused.
   */
  gate?: string;
  /** True when media segments want their bytes. */
  media?: boolean;
  /** `authorize`: the actions that it wants to be asked about; default {@link DEFAULT_ACTIONS}. */
  actions?: Action[];
  /** `authorize`: how many bytes of the body its facts want, 1 MiB at most; default none. */
  body?: number;
  /**
   * The paths that `endpoint` serves: whole, absolute and normalised, such as `/oauth2/callback`. They stand beside all
   * routes and are asked by nobody for an identity.
   */
  endpoints?: string[];
  /** JSON Schema (2020-12) of the plugin's own config. */
  configSchema?: Record<string, unknown>;
}

/** How a plugin is made from its config. Throws {@link ConfigProblem} when the config is not its kind. */
export interface PluginFactory {
  readonly name: string;
  create(config: unknown): Plugin;
}

/** A config that a plugin refuses: each problem with its place and what would be right. */
export class ConfigProblem extends Error {
  readonly problems: { path: (string | number)[]; message: string }[];

  constructor(problems: { path: (string | number)[]; message: string }[]) {
    super(problems.map((problem) => `${problem.path.join('.') || 'config'}: ${problem.message}`).join('; '));
    this.name = 'ConfigProblem';
    this.problems = problems;
  }
}

/**
 * A plugin could not judge. Any error that a plugin throws is a fault; of this one the code and the message are logged,
 * so neither may be made from what a request holds.
 */
export class PluginFault extends Error {
  /** Machine-readable, snake_case, such as `plugin_threw` or `bad_answer`. */
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.name = 'PluginFault';
    this.code = code;
  }
}
