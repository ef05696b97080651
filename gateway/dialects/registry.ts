/** Which dialect is spoken at which path. A new dialect is one folder and one line here. */
import { anthropicCountTokens } from './anthropic-count-tokens/dialect.ts';
import { anthropicMessages } from './anthropic-messages/dialect.ts';
import type { Dialect, PathFacts } from './dialect.ts';
import { gemini } from './gemini/dialect.ts';
import { geminiCountTokens } from './gemini-count-tokens/dialect.ts';
import { geminiEmbedding, geminiEmbeddings } from './gemini-embeddings/dialect.ts';
import { openaiChat } from './openai-chat/dialect.ts';
import { openaiEmbeddings } from './openai-embeddings/dialect.ts';
import { openaiResponses } from './openai-responses/dialect.ts';

const DIALECTS: readonly Dialect[] = [
  openaiChat,
  openaiEmbeddings,
  openaiResponses,
  anthropicMessages,
  anthropicCountTokens,
  gemini,
  geminiCountTokens,
  geminiEmbedding,
  geminiEmbeddings,
];

/** A call that a dialect knows, by its path. */
export interface Call {
  dialect: Dialect;
  path: PathFacts;
}

const EXACT = new Map<string, Call>(
  DIALECTS.flatMap((dialect) => dialect.paths.map((path) => [path, { dialect, path: {} }] as const)),
);
const PATTERNS = DIALECTS.filter(({ pathPattern }) => pathPattern !== undefined);

/**
 * The dialect of a call at this path, without the route's prefix; undefined when there is none.
 * @throws GatewayError where the path says something that the dialect does not do
 */
export function findCall(path: string, query: string): Call | undefined {
  return EXACT.get(path) ?? matched(path, query);
}

function matched(path: string, query: string): Call | undefined {
  for (const dialect of PATTERNS) {
    const groups = dialect.pathPattern!.exec(path)?.groups;
    if (groups !== undefined) return { dialect, path: dialect.readPath!({ ...groups }, query) };
  }
  return undefined;
}

/**
 * Whether a path that is no dialect's call is one in another spelling: escaped, in capitals, with parameters or steps.
 * Servers differ in what they make of these, so what is forbidden at the one would be asked for by the other.
 */
export function isDisguisedCall(path: string): boolean {
  let plain = path;
  for (let i = 0; i < 3 && plain.includes('%'); i += 1) plain = unescaped(plain);
  plain = plain.replace(/;[^/]*|[^\x21-\x7e]/g, '').replace(/[/\\]+/g, '/');
  const { pathname } = new URL(`http://any${plain}`);
  const known = pathname.replace(/(?<=.)\/$/, '').toLowerCase();
  return EXACT.has(known) || PATTERNS.some(({ pathPattern }) => new RegExp(pathPattern!, 'i').test(known));
}

/** Without the escapes that stand for ASCII. */
function unescaped(path: string): string {
  return path.replace(/%[0-7][0-9a-f]/gi, decodeURIComponent);
}

/** What answers are shaped in where the path tells no dialect. */
export const DEFAULT_DIALECT: Dialect = openaiChat;

/** A question for the models of a route, or for one of them. */
export interface Listing {
  dialect: Dialect;
  /** Undefined: all of them. */
  id: string | undefined;
}

/** Which models are asked for at a path, and in which dialect; undefined when it asks for none. */
export function findListing(path: string, headers: Readonly<Record<string, string | undefined>>): Listing | undefined {
  for (const dialect of DIALECTS) {
    const id = dialect.listing?.(path, headers);
    if (id !== undefined) return { dialect, id: id === '' ? undefined : id };
  }
  const groups = /^(?:\/v1)?\/models(?:\/(?<id>.+))?$/.exec(path)?.groups;
  return groups && { dialect: DEFAULT_DIALECT, id: groups.id };
}
