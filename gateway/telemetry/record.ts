/**
 * What is known of one request, from its head to its end: facts for the plugins, and what log, metrics and observers
 * are told. It never holds a prompt or an answer.
 */
import type {
  Finding,
  Hook,
  ObserveInput,
  RequestFacts,
  TraceEntry,
  Usage,
  VerdictKind,
} from '../../proto/contract.ts';
import type { ErrorDetails } from '../errors.ts';
import type { Mount } from '../mount.ts';
import type { Log } from './log.ts';

/** What a verdict says beside its kind. */
export interface Told {
  code?: string;
  decisionId?: string;
  findings?: Finding[];
}

/** A request with an `idempotency-key`, and what is to be told to those who remember its answer. */
export interface Repeatable {
  key: string;
  fingerprint: string;
  /** The claims on the key, by the mount that made them. */
  claims: Map<Mount, string | undefined>;
  answer: { status: number; contentType: string; body: string } | undefined;
}

export class RequestRecord {
  readonly facts: RequestFacts;
  readonly headers: Readonly<Record<string, string | undefined>>;
  /** `performance.now()` when the head had been read. */
  readonly startedAt: number;
  /** Reservations, by the mount that made them. */
  readonly grants = new Map<Mount, string>();
  /** Headers that plugins want on the answer. */
  readonly replyHeaders: Record<string, string> = {};
  /** Whole values of `set-cookie` that plugins want on the answer. */
  readonly replyCookies: string[] = [];
  /** Keeps reservations alive while the request is open. */
  readonly renewals: NodeJS.Timeout[] = [];
  /** The most answer tokens that the limits paid for. */
  outputTokens: number | undefined;
  /** Whether that is less than the client wanted. */
  isOutputLimited = false;
  /** Set for a request that its client may send again. */
  repeatable: Repeatable | undefined;
  readonly trace: TraceEntry[] = [];
  /** HTTP status sent, 0 until then. */
  status = 0;
  outcome: ObserveInput['outcome'] = 'finished';
  code: string | undefined;
  cause: ErrorDetails['cause'];
  streamed = false;
  /** The request whose answer is gone on with, and the number of the last event that the client had of it. */
  resumedFrom: string | undefined;
  /** True while the answer goes on without its client. */
  outlivesClient = false;
  upstreamModel: string | undefined;
  usage: Usage | undefined;
  costUsd: number | undefined;
  firstTokenAt: number | undefined;
  estimatedInputTokens = 0;
  /** Plugin calls that wait for an answer; they are given up when the client goes. */
  readonly open = new Set<{ abort(reason: Error): void }>();
  /** Whether a provider has been asked, and how often. */
  isSent = false;
  attempts = 0;
  /** Characters of answer that were seen, for an estimate when the provider tells no usage. */
  answerChars = 0;
  private readonly log: Log;

  constructor(facts: RequestFacts, headers: Readonly<Record<string, string | undefined>>, startedAt: number, log: Log) {
    this.facts = facts;
    this.headers = headers;
    this.startedAt = startedAt;
    this.log = log;
  }

  /** Writes down one plugin call. The windows of a stream become one entry. */
  asked(mount: Mount, hook: Hook, verdict: VerdictKind | 'fault', ms: number, told: Told = {}): void {
    const { code, findings, decisionId } = told;
    const { shadow } = mount.policy;
    mount.metrics.called(hook, shadow ? `shadow_${verdict}` : verdict, ms);
    if (findings !== undefined) for (const { label, count } of findings) mount.metrics.found(label, count);
    const known =
      hook === 'stream' || hook === 'response'
        ? this.trace.find((entry) => entry.plugin === mount.name && entry.hook === hook)
        : undefined;
    if (known !== undefined) {
      known.ms += ms;
      known.calls += 1;
      if (verdict !== 'release' && verdict !== 'allow') known.verdict = verdict;
      if (code !== undefined) known.code = code;
      if (findings !== undefined) known.findings = merged(known.findings, findings);
      return;
    }
    const entry: TraceEntry = { plugin: mount.name, hook, verdict, ms, calls: 1 };
    if (code !== undefined) entry.code = code;
    if (decisionId !== undefined) entry.decisionId = decisionId;
    if (findings !== undefined && findings.length > 0) entry.findings = findings;
    if (shadow) entry.shadow = true;
    this.trace.push(entry);
  }

  /** A fault's cause goes to the log: what the plugin threw, never what it was asked. */
  pluginFault(mount: Mount, hook: Hook, error: unknown): void {
    this.log.warn({ requestId: this.facts.id, plugin: mount.name, hook, fault: reasonOf(error) }, 'plugin fault');
  }

  /** The client has gone: nobody waits for what the plugins are still asked. */
  abandon(): void {
    if (this.outlivesClient) return;
    const gone = new Error('the client has gone');
    gone.name = 'AbortError';
    for (const call of this.open) call.abort(gone);
  }

  /** Milliseconds since the head was read. */
  elapsed(now = performance.now()): number {
    return now - this.startedAt;
  }

  get firstTokenMs(): number | undefined {
    return this.firstTokenAt === undefined ? undefined : this.firstTokenAt - this.startedAt;
  }

  /** The trace in one header line: `pii/request=rewrite;ms=0.2;EMAIL_ADDRESS=1`. */
  get traceLine(): string {
    return this.trace
      .map(({ plugin, hook, verdict, ms, code, decisionId, findings, shadow }) => {
        const found = (findings ?? [])
          .map(({ label, count }) => `;${label.replace(/[^\w.-]/g, '_')}=${count}`)
          .join('');
        const why = code === undefined ? '' : `;code=${code.replace(/[^\w.-]/g, '_')}`;
        const id = decisionId === undefined ? '' : `;decision=${decisionId}`;
        return `${plugin}/${hook}=${verdict}${shadow ? ';shadow' : ''};ms=${ms.toFixed(2)}${why}${id}${found}`;
      })
      .join(', ');
  }
}

function merged(known: Finding[] | undefined, more: Finding[]): Finding[] {
  const counts = new Map(known?.map(({ label, count }) => [label, count]));
  for (const { label, count } of more) counts.set(label, (counts.get(label) ?? 0) + count);
  return [...counts].map(([label, count]) => ({ label, count }));
}

/** An error for the log: its name and code; the message only where it is our own. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return typeof error;
  const code = (error as { code?: unknown }).code;
  const safe = error.name === 'PluginFault' || error.name === 'PluginUnavailable' || error.name === 'TimeoutError';
  const name = [code, error.name].find((one) => typeof one === 'string' && WORD.test(one)) ?? 'Error';
  return safe ? `${name}: ${error.message.slice(0, 300)}` : `${name}`;
}

/** What a name or a code looks like; anything else may have been made from what the plugin was shown. */
const WORD = /^[\w$]{1,64}$/;
