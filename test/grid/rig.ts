/** Every dialect that clients speak and every provider behind them, with a gateway between the two over real sockets. */

import { existsSync, readFileSync } from 'node:fs';
import { anthropicMessages } from '../../gateway/dialects/anthropic-messages/dialect.ts';
import type { ChatDialect, Json } from '../../gateway/dialects/dialect.ts';
import { gemini } from '../../gateway/dialects/gemini/dialect.ts';
import { openaiChat } from '../../gateway/dialects/openai-chat/dialect.ts';
import { openaiResponses } from '../../gateway/dialects/openai-responses/dialect.ts';
import type { HubReply } from '../../gateway/hub/reply.ts';
import { readMessages } from '../../gateway/providers/anthropic/reply.ts';
import { ConverseReader } from '../../gateway/providers/bedrock/stream.ts';
import { CohereReader } from '../../gateway/providers/cohere/stream.ts';
import { readReply } from '../../gateway/providers/gemini/reply.ts';
import { readChat } from '../../gateway/providers/openai/reply.ts';
import { readResponse } from '../../gateway/providers/openai/responses/reply.ts';
import type { StreamReader } from '../../gateway/providers/provider.ts';
import { type RawResponse, send } from '../support/client.ts';
import { fixtureFile, streamFixture } from '../support/fixture.ts';
import { Gate } from '../support/gate.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';

/** What a client speaks, and how its answers are read again. */
export interface GridDialect {
  dialect: ChatDialect;
  path(model: string, stream: boolean): string;
  /** A request for a stream with its usage. */
  asks(model: string): Json;
  read(body: Json): HubReply;
}

const HELLO = [{ role: 'user', content: 'Hello' }];

export const DIALECTS: readonly GridDialect[] = [
  {
    dialect: openaiChat,
    path: () => '/v1/chat/completions',
    asks: (model) => ({ model, messages: HELLO, stream: true, stream_options: { include_usage: true } }),
    read: (body) => readChat(body, 'up'),
  },
  {
    dialect: openaiResponses,
    path: () => '/v1/responses',
    asks: (model) => ({ model, input: HELLO, stream: true }),
    read: (body) => readResponse(body, 'up'),
  },
  {
    dialect: anthropicMessages,
    path: () => '/v1/messages',
    asks: (model) => ({ model, max_tokens: 256, messages: HELLO, stream: true }),
    read: (body) => readMessages(body, 'up'),
  },
  {
    dialect: gemini,
    path: (model, stream) =>
      `/v1beta/models/${encodeURIComponent(model)}:${stream ? 'streamGenerateContent?alt=sse' : 'generateContent'}`,
    asks: () => ({ contents: [{ role: 'user', parts: [{ text: 'Hello' }] }] }),
    read: (body) => readReply(body),
  },
];

/** A provider as the config has it. */
export interface GridProvider {
  name: string;
  /** Whose answers the fixtures have in its format. */
  vendor: string;
  model: string;
  settings(url: string): Json;
  /** Dialects whose bodies it gets byte for byte. */
  takes: readonly string[];
}

const key = 'provider-key';
const OPENAI = ['openai-chat', 'openai-responses'];
const CLOUD = { project: 'my-project', location: 'global', token: 'ya29.token' };

export const PROVIDERS: readonly GridProvider[] = [
  {
    name: 'openai',
    vendor: 'openai',
    model: 'gpt-5.1',
    settings: (url) => ({ kind: 'openai', baseUrl: `${url}/v1`, key }),
    takes: OPENAI,
  },
  {
    name: 'openai-responses',
    vendor: 'openai-responses',
    model: 'gpt-5.1',
    settings: (url) => ({ kind: 'openai', api: 'responses', baseUrl: `${url}/v1`, key }),
    takes: OPENAI,
  },
  {
    name: 'azure',
    vendor: 'openai',
    model: 'gpt-5.1',
    settings: (url) => ({ kind: 'azure', baseUrl: url, key }),
    takes: OPENAI,
  },
  {
    name: 'openai-compatible',
    vendor: 'openai',
    model: 'qwen3-32b',
    settings: (url) => ({ kind: 'openai-compatible', baseUrl: `${url}/v1`, key }),
    takes: ['openai-chat'],
  },
  {
    name: 'anthropic',
    vendor: 'anthropic',
    model: 'claude-sonnet-4-5',
    settings: (url) => ({ kind: 'anthropic', baseUrl: `${url}/v1`, key }),
    takes: ['anthropic-messages'],
  },
  {
    name: 'gemini',
    vendor: 'gemini',
    model: 'gemini-2.5-flash',
    settings: (url) => ({ kind: 'gemini', baseUrl: `${url}/v1beta`, key }),
    takes: ['gemini'],
  },
  {
    name: 'vertex',
    vendor: 'gemini',
    model: 'gemini-2.5-flash',
    settings: (url) => ({ kind: 'vertex', baseUrl: `${url}/v1`, ...CLOUD }),
    takes: ['gemini'],
  },
  {
    name: 'vertex-anthropic',
    vendor: 'anthropic',
    model: 'claude-sonnet-4-5@20250929',
    settings: (url) => ({ kind: 'vertex-anthropic', baseUrl: `${url}/v1`, ...CLOUD }),
    takes: [],
  },
  {
    name: 'bedrock',
    vendor: 'bedrock',
    model: 'global.anthropic.claude-sonnet-4-5-20250929-v1:0',
    settings: (url) => ({ kind: 'bedrock', baseUrl: url, region: 'us-east-1', key }),
    takes: [],
  },
  {
    name: 'cohere',
    vendor: 'cohere',
    model: 'command-a-reasoning-08-2025',
    settings: (url) => ({ kind: 'cohere', baseUrl: `${url}/v2`, key }),
    takes: [],
  },
];

/** Whose streams the fixtures have. */
export interface GridVendor {
  vendor: string;
  /** Who answers in that format. */
  provider: GridProvider;
  contentType: string;
  /** Dialects that can meet it: OpenAI's Responses are not asked where the client speaks OpenAI's other dialect. */
  clients: readonly GridDialect[];
  openReader(): StreamReader;
}

const SSE = 'text/event-stream; charset=utf-8';

export const VENDORS: readonly GridVendor[] = [
  {
    vendor: 'openai',
    // It alone has the one endpoint, so that all other dialects meet it.
    provider: named('openai-compatible'),
    contentType: SSE,
    clients: DIALECTS,
    openReader: () => openaiChat.openReader(),
  },
  {
    vendor: 'openai-compatible',
    provider: named('openai-compatible'),
    contentType: SSE,
    clients: DIALECTS,
    openReader: () => openaiChat.openReader(),
  },
  {
    vendor: 'openai-responses',
    provider: named('openai-responses'),
    contentType: SSE,
    clients: DIALECTS.filter(({ dialect }) => dialect !== openaiChat),
    openReader: () => openaiResponses.openReader(),
  },
  {
    vendor: 'anthropic',
    provider: named('anthropic'),
    contentType: SSE,
    clients: DIALECTS,
    openReader: () => anthropicMessages.openReader(),
  },
  {
    vendor: 'gemini',
    provider: named('gemini'),
    contentType: SSE,
    clients: DIALECTS,
    openReader: () => gemini.openReader(),
  },
  {
    vendor: 'bedrock',
    provider: named('bedrock'),
    contentType: 'application/vnd.amazon.eventstream',
    clients: DIALECTS,
    openReader: () => new ConverseReader('up'),
  },
  {
    vendor: 'cohere',
    provider: named('cohere'),
    contentType: SSE,
    clients: DIALECTS,
    openReader: () => new CohereReader(),
  },
];

function named(name: string): GridProvider {
  return PROVIDERS.find((provider) => provider.name === name)!;
}

/** How much of a stream can be read before its error; all of one that has none. */
function beginningOf(vendor: GridVendor, bytes: Buffer): number {
  const hasFailed = (end: number) =>
    vendor
      .openReader()
      .push(bytes.subarray(0, end))
      .some(({ type }) => type === 'error');
  let end = bytes.length;
  while (hasFailed(end)) end -= 1;
  return end;
}

/** A vendor's stream of a case. */
export function bytesOf({ vendor }: GridVendor, name: string): Buffer {
  return streamFixture(vendor, vendor === 'bedrock' ? `${name}.bin` : name);
}

/** The file of what a client reads of it. */
export function clientFile({ dialect }: GridDialect, { vendor }: GridVendor): string {
  return `client.${dialect.name}.from.${vendor}.sse`;
}

/** What a client was sent of it, by the grid: the vendor's own bytes where they pass as they are. */
export function sentTo(client: GridDialect, vendor: GridVendor, name: string): Buffer {
  const golden = fixtureFile(name, clientFile(client, vendor));
  return existsSync(golden) ? readFileSync(golden) : bytesOf(vendor, name);
}

/** A gateway in front of one provider, which answers as it is told. */
export class Rig implements AsyncDisposable {
  readonly upstream: ScriptedUpstream;
  readonly #gateway: TestGateway;
  readonly #model: string;

  private constructor(upstream: ScriptedUpstream, gateway: TestGateway, model: string) {
    this.upstream = upstream;
    this.#gateway = gateway;
    this.#model = model;
  }

  static async start({ settings, model }: GridProvider): Promise<Rig> {
    const upstream = await startScriptedUpstream();
    const gateway = await startGateway({
      providers: { up: settings(upstream.url) },
      // A broken stream is one of the cases, and no reason to leave the provider alone.
      models: { '*': { targets: [{ provider: 'up' }], breaker: false } },
      routes: { '/': {} },
    });
    return new Rig(upstream, gateway, model);
  }

  /** Sends a body as it is. */
  send({ path }: GridDialect, body: string): Promise<RawResponse> {
    return this.#post(path(this.#model, false), body);
  }

  /**
   * Asks for a stream, which the provider answers with these bytes. What breaks off does so after the client has seen
   * something of it: before that, it would be no stream but an error.
   */
  async stream(client: GridDialect, vendor: GridVendor, bytes: Buffer): Promise<string> {
    const seen = new Gate();
    const border = beginningOf(vendor, bytes);
    const events = border === bytes.length ? [bytes] : [bytes.subarray(0, border), seen, bytes.subarray(border)];
    this.upstream.next({ contentType: vendor.contentType, stream: { events, end: 'close-without-done' } });
    const response = await this.#post(client.path(this.#model, true), JSON.stringify(client.asks(this.#model)));
    const received: Buffer[] = [];
    for await (const chunk of response.chunks) {
      received.push(chunk);
      seen.open();
    }
    return Buffer.concat(received).toString();
  }

  /** Asks for a whole answer, which is what the provider answers with. */
  async whole(client: GridDialect, whole: Json): Promise<Json> {
    this.upstream.next({ whole });
    const { stream: _, stream_options: __, ...asked } = client.asks(this.#model);
    const response = await this.#post(client.path(this.#model, false), JSON.stringify(asked));
    return response.json();
  }

  #post(path: string, body: string): Promise<RawResponse> {
    return send(`${this.#gateway.url}${path}`, { body, headers: { 'content-type': 'application/json' } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#gateway.stop();
    await this.upstream.close();
  }
}
