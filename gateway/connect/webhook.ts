/**
 * `webhook://host:port/base`: the guardrail webhook that agentgateway speaks, unmodified.
 *
 * `POST /request` carries the prompt as messages, `POST /response` an answer as choices; the reply is one of Pass, Mask
 * and Reject, which differ in their fields alone. Source: agentgateway v1.4, `llm/policy/webhook.rs`, and its OpenAPI
 * document "AI Gateway GuardRail Webhook API" 0.1.0. Where agentgateway reads a reject that lacks its status as a pass,
 * this does not: a string `body` rejects, and what is none of the three is a fault.
 */
import {
  type CallOptions,
  CONTRACT_VERSION,
  type Description,
  type Hook,
  PluginFault,
  type Reject,
  type RequestFacts,
  type Segment,
  type SegmentsInput,
  type StreamInput,
  type StreamVerdict,
  type TextVerdict,
} from '../../proto/contract.ts';
import { MAX_REJECT_BODY } from '../../proto/verdict.ts';
import { contentTypeOf, isJsonObject } from '../json.ts';
import { DESCRIBE_MS } from './backoff.ts';
import { type Connection, type Endpoint, EndpointProblem, type HookInput } from './connection.ts';
import { HttpLine } from './line.ts';
import { httpTarget, jsonOf } from './post.ts';
import { askWellFormed, wellFormedJson } from './wellformed.ts';

/** The status of a rejection that names none, or none that a rejection can have. */
const REJECTED = 403;

/** Headers that belong to the client's own connection or body and are never forwarded, whatever the mount names. */
const NEVER_FORWARDED = new Set([
  'connection',
  'content-encoding',
  'content-length',
  'content-type',
  'expect',
  'host',
  'keep-alive',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/**
 * Connects. A webhook does not describe itself, so its description is there at once.
 *
 * @throws {@link EndpointProblem} when the address, the certificates or a header's pattern make no sense
 */
export async function connectWebhook(endpoint: Endpoint): Promise<Connection> {
  const connection = new WebhookConnection(endpoint);
  await connection.start();
  return connection;
}

type Side = 'request' | 'response';
interface Message {
  role: string;
  content: string;
}

/** What the webhook decided; masked texts in the order in which they were sent. */
type Action = 'pass' | { masked: string[] } | { reject: Reject };

class WebhookConnection extends HttpLine {
  private readonly forwarded: { name: string; value: RegExp }[];
  private readonly windowChars: number;
  private readonly overlapChars: number;
  private readonly described: Description;

  constructor(endpoint: Endpoint) {
    const { options } = endpoint;
    super(endpoint, httpTarget(endpoint, options.tls !== undefined));
    this.forwarded = (options.forwardHeaders ?? []).map(({ name, value }) => forwardedHeader(name, value));
    this.windowChars = options.windowChars ?? 1_024;
    this.overlapChars = Math.min(options.overlapChars ?? 256, this.windowChars >> 1);
    this.described = {
      contract: CONTRACT_VERSION,
      name: endpoint.name,
      version: 'webhook',
      hooks: ['request', 'response', 'stream'],
      rewrites: true,
    };
    this.standing.description = this.described;
  }

  /** Whatever it answers, it is there. */
  protected override async reach(): Promise<void> {
    await this.poster.get('/', AbortSignal.timeout(DESCRIBE_MS));
    this.reached(this.described);
  }

  override ask<H extends Hook>(hook: H, input: HookInput[H], options?: CallOptions): unknown {
    const signal = options?.signal;
    if (hook === 'request' || hook === 'response') return this.judge(hook, input as SegmentsInput, signal);
    if (hook === 'stream') return this.judgeWindow(input as StreamInput, signal);
    throw new PluginFault('no_such_hook', `a webhook does not answer \`${hook}\``);
  }

  private async judge(side: Side, input: SegmentsInput, signal: AbortSignal | undefined): Promise<TextVerdict> {
    const segments = input.segments.filter((segment) => segment.channel !== 'media' && segment.text !== '');
    if (segments.length === 0) return { allow: {} };
    const messages = segments.map(({ role, text }) => ({ role, content: text }));
    const action = await this.post(side, messages, input.request, signal);
    if (action === 'pass') return { allow: {} };
    return 'reject' in action ? action : rewrite(segments, action.masked);
  }

  /** Below the size of a window nothing is asked, and nothing is promised. */
  private judgeWindow(input: StreamInput, signal: AbortSignal | undefined): StreamVerdict | Promise<unknown> {
    const { text, last } = input;
    if (text === '' || (!last && text.length < this.windowChars)) return { release: { release: '', hold: text } };
    return askWellFormed(input, (window) => this.postWindow(window, signal));
  }

  private async postWindow(input: StreamInput, signal: AbortSignal | undefined): Promise<StreamVerdict> {
    const { text, last } = input;
    const action = await this.post('response', [{ role: 'assistant', content: text }], input.request, signal);
    if (action !== 'pass' && 'reject' in action) return action;
    const shown = action === 'pass' ? text : action.masked[0]!;
    const hold = last ? '' : commonTail(shown, text, this.overlapChars);
    return { release: { release: shown.slice(0, shown.length - hold.length), hold } };
  }

  private post(side: Side, messages: Message[], facts: RequestFacts, signal?: AbortSignal): Promise<Action> {
    const body = side === 'request' ? { messages } : { choices: messages.map((message) => ({ message })) };
    const headers = this.headersFor(facts);
    const json = wellFormedJson({ body });
    return this.guarded(async () => {
      const answer = await this.poster.post(`/${side}`, json, headers, signal);
      return actionIn(jsonOf(answer), side, messages.length);
    }, signal) as Promise<Action>;
  }

  private headersFor({ headers = {} }: RequestFacts): Record<string, string> {
    const out: Record<string, string> = {};
    for (const { name, value } of this.forwarded) {
      const given = headers[name];
      if (given !== undefined && value.test(given)) out[name] = given;
    }
    // What the operator wrote cannot be replaced by what a client sends.
    for (const name of Object.keys(this.endpoint.options.headers ?? {})) delete out[name.toLowerCase()];
    return out;
  }
}

function forwardedHeader(given: string, value = '[^]*'): { name: string; value: RegExp } {
  const name = given.toLowerCase();
  if (NEVER_FORWARDED.has(name)) throw new EndpointProblem(`the header \`${name}\` cannot be forwarded`);
  try {
    return { name, value: new RegExp(`^(?:${value})$`, 'u') };
  } catch {
    throw new EndpointProblem(`the pattern for the header \`${name}\` is no regular expression`);
  }
}

function rewrite(segments: Segment[], masked: string[]): TextVerdict {
  const changed = segments
    .map(({ id, text }, i) => ({ id, text: masked[i]!, same: masked[i] === text }))
    .filter(({ same }) => !same)
    .map(({ id, text }) => ({ id, text }));
  if (changed.length === 0) return { allow: {} };
  return { rewrite: { segments: changed, findings: [{ label: 'guardrail_mask', count: changed.length }] } };
}

/** The longest text, up to `most` UTF-16 units, with which both end. It never begins with half a character. */
function commonTail(one: string, other: string, most: number): string {
  const bound = Math.min(one.length, other.length, most);
  let length = 0;
  while (length < bound && one.charCodeAt(one.length - 1 - length) === other.charCodeAt(other.length - 1 - length)) {
    length += 1;
  }
  const tail = length === 0 ? '' : other.slice(-length);
  const first = tail.charCodeAt(0);
  return first >= 0xdc00 && first <= 0xdfff ? tail.slice(1) : tail;
}

// --- Reading the reply ----------------------------------------------------------------------------------------------

/** @throws {@link PluginFault} when the reply is none of Pass, Mask and Reject */
function actionIn(reply: unknown, side: Side, sent: number): Action {
  const action = isJsonObject(reply) ? reply.action : undefined;
  if (!isJsonObject(action)) throw malformed('it has no `action`');
  const { body } = action;
  if (typeof body === 'string') return { reject: rejection(body, action.status_code) };
  if (isJsonObject(body)) return { masked: maskedIn(body, side, sent) };
  if ('body' in action) throw malformed('its `body` is neither a text nor an object');
  // Any other field means that something else was meant: only what is plainly a pass lets a text through.
  if (Object.keys(action).some((key) => key !== 'reason')) throw malformed('it has no `body`, yet is no pass');
  return 'pass';
}

function rejection(given: string, statusCode: unknown): Reject {
  const body = given.slice(0, MAX_REJECT_BODY);
  const sound = Number.isInteger(statusCode) && (statusCode as number) >= 400 && (statusCode as number) <= 599;
  return {
    code: 'guardrail_rejected',
    message: 'A guardrail refused this text. Please rephrase it.',
    status: sound ? (statusCode as number) : REJECTED,
    body,
    contentType: contentTypeOf(body),
  };
}

function maskedIn(body: Record<string, unknown>, side: Side, sent: number): string[] {
  const list = side === 'request' ? body.messages : body.choices;
  if (!Array.isArray(list)) throw malformed(`its mask has no ${side === 'request' ? '`messages`' : '`choices`'}`);
  if (list.length !== sent) throw malformed('its mask has another number of texts than it was sent');
  return list.map((item: unknown) => {
    const message = side === 'request' ? item : isJsonObject(item) ? item.message : undefined;
    if (!isJsonObject(message) || typeof message.content !== 'string') throw malformed('a masked text is missing');
    return message.content;
  });
}

function malformed(what: string): PluginFault {
  return new PluginFault('bad_answer', `the webhook's reply cannot be read: ${what}`);
}
