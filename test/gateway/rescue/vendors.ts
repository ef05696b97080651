/** Two providers in front of which any dialect may stand: the first breaks anywhere, the second goes on. */
import { findCall } from '../../../gateway/dialects/registry.ts';
import type { HubEvent } from '../../../gateway/hub/reply.ts';
import { askAs, CLIENTS, type Seen } from '../../failover/clients.ts';
import { startGateway } from '../../support/gateway.ts';
import type { ReceivedRequest } from '../../support/received-request.ts';
import type { Script } from '../../support/script.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';

export type ClientName = keyof typeof CLIENTS;
export const CLIENT_NAMES = Object.keys(CLIENTS);

/** The kinds of the provider that breaks, each with a format of its own. */
export const FIRST = ['vllm', 'openai', 'anthropic', 'gemini'] as const;
type First = (typeof FIRST)[number];

/**
 * How the second provider goes on: from the prefix that it is given, anew although it is given one, or anew because it
 * takes none.
 */
export const MANNERS = ['continue', 'restart', 'replay'] as const;
export type Manner = (typeof MANNERS)[number];

/** One answer that breaks. */
export interface Break {
  client: ClientName;
  first: First;
  manner: Manner;
  events: HubEvent[];
  /** What the second provider says: the whole text. */
  text: string;
  /** Where the first one's bytes end, from 0 to 1 of their length. */
  at: number;
  chunking: 'event' | 'whole' | 'byte';
  /** The route's prefix; empty: `/`. */
  route?: string;
  prompt?: string;
}

/** What the client saw, and what the second provider was given to go on from. */
export interface Outcome extends Seen {
  status: number;
  prefix: string | undefined;
}

/** @param plugins by route, such as `{ '/masked': { pii: { at: 'local:pii-guard' } } }` */
export async function vendors(plugins: Record<string, Record<string, object>> = {}) {
  const [a, b] = [await startScriptedUpstream(), await startScriptedUpstream()];
  const provider = (kind: string, url: string) => ({ kind, baseUrl: `${url}/v1`, key: 'k' });
  const model = (first: First, second: string, rescue: string) => ({
    rescue,
    breaker: false,
    targets: [
      { provider: `first-${first}`, model: 'm' },
      { provider: second, model: 'm' },
    ],
  });
  const mounted = Object.values(plugins).flatMap((list) => Object.entries(list));
  const gateway = await startGateway({
    providers: {
      ...Object.fromEntries(FIRST.map((kind) => [`first-${kind}`, provider(kind, a.url)])),
      continuing: provider('vllm', b.url),
      replaying: provider('openai', b.url),
    },
    models: Object.fromEntries(
      FIRST.flatMap((first) => [
        [`${first}-continue`, model(first, 'continuing', 'continue')],
        [`${first}-replay`, model(first, 'replaying', 'replay')],
      ]),
    ),
    plugins: Object.fromEntries(mounted),
    routes: {
      '/': {},
      ...Object.fromEntries(Object.entries(plugins).map(([route, list]) => [route, { plugins: Object.keys(list) }])),
    },
  });
  return {
    first: a,
    second: b,
    gateway,
    async run({ client, first, manner, events, text, at, chunking, route = '', prompt = 'Hello' }: Break) {
      let prefix: string | undefined;
      a.next((request) => {
        const bytes = written(request, events);
        const cutAfterBytes = Math.floor(bytes.length * at);
        return { stream: { events: [bytes], chunking, cutAfterBytes, end: 'close-without-done' } };
      });
      b.always((request) => {
        function* goOn(): Generator<Buffer> {
          prefix = prefixOf(request);
          yield written(request, saying(manner === 'continue' ? text.slice(prefix?.length ?? 0) : text));
        }
        return { stream: { events: goOn(), end: 'close-without-done' } } satisfies Script;
      });
      const name = `${first}-${manner === 'replay' ? 'replay' : 'continue'}`;
      const ask = { text: prompt, stream: true };
      const seen = await askAs(CLIENTS[client]!, `${gateway.url}${route}`, name, ask);
      return { ...seen, prefix } satisfies Outcome;
    },
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await a.close();
      await b.close();
    },
  };
}

/** An answer that says a text in pieces of up to four characters. */
export function saying(text: string): HubEvent[] {
  const pieces = text.match(/.{1,4}/gsu) ?? [];
  return [
    { type: 'start', id: 'answer-1', model: 'm' },
    ...pieces.map((piece): HubEvent => ({ type: 'text', choice: 0, text: piece })),
    { type: 'part-end', choice: 0 },
    { type: 'finish', choice: 0, finish: 'stop' },
    { type: 'usage', usage: { inputTokens: 10, outputTokens: 5 } },
    { type: 'end' },
  ];
}

/** The events in the format that the request's path speaks. */
function written(request: ReceivedRequest, events: HubEvent[]): Buffer {
  const [path, query = ''] = request.path.split('?');
  const { dialect } = findCall(path!.replace('/v1/models/', '/v1beta/models/'), query)!;
  if (dialect.operation !== 'chat') throw new Error(`no chat: ${request.path}`);
  const writer = dialect.openWriter({ model: 'm', wantsUsage: true });
  return Buffer.from(events.map((event) => writer.write(event)).join(''));
}

function prefixOf(request: ReceivedRequest): string | undefined {
  const { messages = [] } = request.json<{ messages?: { role: string; content: string }[] }>();
  const last = messages.at(-1);
  return last?.role === 'assistant' ? last.content : undefined;
}
