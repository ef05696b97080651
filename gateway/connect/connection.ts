/**
 * How the gateway holds on to a plugin, wherever it runs. There is one file per way beside this one; `connect.ts` picks.
 *
 * A connection asks and carries answers. It applies no deadline and judges no verdict: that is policy, and stands in one
 * place elsewhere. What it promises is that a plugin that could not answer never looks like one that did.
 */
import type {
  AuthenticateInput,
  AuthorizeInput,
  CallOptions,
  Description,
  EndpointInput,
  Hook,
  LimitInput,
  ObserveInput,
  PluginFactory,
  RecallInput,
  RememberInput,
  RenewInput,
  SegmentsInput,
  StreamInput,
} from '../../proto/contract.ts';
import { PluginFault } from '../../proto/contract.ts';

/** What each hook is asked with. */
export interface HookInput {
  authenticate: AuthenticateInput;
  authorize: AuthorizeInput;
  limit: LimitInput;
  request: SegmentsInput;
  response: SegmentsInput;
  stream: StreamInput;
  observe: ObserveInput;
  endpoint: EndpointInput;
  recall: RecallInput;
  remember: RememberInput;
  renew: RenewInput;
}

/**
 * `up`: can be asked. `down`: cannot be reached now; it is tried again in the background. `refused`: it was reached and
 * will not do as it is configured (it refuses its config, or speaks another contract); tried again, but rarely.
 */
export type ConnectionState = 'up' | 'down' | 'refused';

export interface Connection {
  /** What the plugin says of itself; undefined until it has been reached for the first time. */
  readonly description: Description | undefined;
  readonly state: ConnectionState;
  /** Why the state is not `up`: one sentence for an operator, without anything of a request. */
  readonly problem: string | undefined;
  /**
   * Asks a hook and gives what came back, unjudged. In process the answer may come at once, without a promise.
   *
   * @throws (or rejects with) {@link PluginUnavailable} when the plugin could not be asked, {@link PluginFault} when it
   * was asked and gave no verdict; in process also whatever the plugin itself throws
   * @param options a raised `signal` cancels. A reason named `TimeoutError` counts against the plugin, any other does not.
   */
  ask<H extends Hook>(hook: H, input: HookInput[H], options?: CallOptions): unknown | Promise<unknown>;
  /** In process only: the plugin's own figures, as Prometheus text. */
  metrics?(): Promise<string>;
  /**
   * Called whenever the description appears or changes. Changes of `state` alone are not told. Answers how to stop it: a
   * connection may outlive many that listen.
   */
  onDescription(listener: () => void): () => void;
  /** Lets go of the plugin: calls in flight fail, nothing keeps the process alive afterwards. May be called twice. */
  close(): Promise<void>;
}

/** Where the log of a connection goes; pino fits as it is. */
export interface ConnectLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** The certificates for `grpcs://` and `https://`: each a PEM text or the path of one, relative to the config file. */
export interface EndpointTls {
  /** Who may have signed the plugin's certificate; default: the authorities that Node knows. */
  ca?: string;
  /** The gateway's own certificate and key, for plugins that ask for one. */
  cert?: string;
  key?: string;
  /** The name that the plugin's certificate must have, when it is not the host of `at`. */
  serverName?: string;
}

/** A client header that a guardrail webhook may see. */
export interface ForwardHeader {
  /** Name of the header, in any case. */
  name: string;
  /** A pattern that the whole value must match (ECMAScript, `u` flag); default: any value. */
  value?: string;
}

/** What a mount may say about the way to its plugin. Each way reads its own part. */
export interface EndpointOptions {
  /** `grpcs:`, `https:` and `webhook:` (which speaks TLS when this is set). */
  tls?: EndpointTls;
  /** Sent with every call, such as an API key of the plugin. Not for `local:`. */
  headers?: Record<string, string>;
  /** Connections to the plugin; default 1 for gRPC, 100 at most for HTTP. */
  connections?: number;
  /** `http:` only: the hooks that the plugin answers, for one that has no `/describe` to say so. */
  hooks?: Hook[];
  /** `http:` only, together with `hooks`: whether the plugin changes texts; default true, which is always safe. */
  rewrites?: boolean;
  /** When to stop asking a plugin that fails. */
  breaker?: BreakerOptions;
  /** `webhook:` only: client headers to forward; default none. */
  forwardHeaders?: ForwardHeader[];
  /** `webhook:` only: how much text of a stream makes one call, in UTF-16 units; default 1024. */
  windowChars?: number;
  /** `webhook:` only: how much of a judged window is seen again with the next one, in UTF-16 units; default 256. */
  overlapChars?: number;
  /** `rls:` only: names of the request headers that the mount is shown, in lower case. */
  shownHeaders?: string[];
}

export interface BreakerOptions {
  /** Consecutive failures that open it; default 5. */
  failures?: number;
  /** How long it stays open at first, in milliseconds; doubles with each failed trial; default 1000. */
  openMs?: number;
  /** The longest time that it stays open, in milliseconds; default 30000. */
  maxOpenMs?: number;
}

/** A plugin as the config names it. */
export interface Endpoint {
  /** Its name in the config. */
  name: string;
  /** Where it is, such as `local:pii-guard` or `grpc://quota:9000`. */
  at: string;
  /** Its own config, as the YAML gave it; undefined when it has none. */
  config: unknown;
  /** Folder of the config file: relative paths begin here. */
  baseDir: string;
  options: EndpointOptions;
  log: ConnectLog;
}

/** A fault that the plugin itself tells. Its own words might hold the text that it was given: only a code is taken over. */
export function toldFault(code: unknown): PluginFault {
  const sound = typeof code === 'string' && /^[a-z][a-z0-9_]{0,63}$/.test(code);
  return new PluginFault(sound ? code : 'plugin_fault', 'the plugin could not judge');
}

/** The plugin could not be asked: it is down, was lost while it was asked, or has failed too often of late. */
export class PluginUnavailable extends PluginFault {
  constructor(message: string, code = 'plugin_unavailable') {
    super(code, message);
    this.name = 'PluginUnavailable';
  }
}

/** Plugins that may run in process, by name: as they are, or as a way to load one when it is first mounted. */
export type PluginSources = Record<string, PluginFactory | (() => Promise<PluginFactory>)>;

/** What `connect` cannot make sense of: a mistake in the config, told at the start. */
export class EndpointProblem extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'EndpointProblem';
  }
}
