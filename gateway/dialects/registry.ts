/** Which dialect is spoken at which path. A new dialect is one file and its paths here. */
import type { Dialect } from './dialect.ts';
import { openaiChat } from './openai-chat.ts';

/** The dialect of a chat call at this path, without the route's prefix; undefined when there is none. */
export function chatDialect(path: string): Dialect | undefined {
  return CHAT.get(path);
}

const CHAT = new Map<string, Dialect>([
  ['/v1/chat/completions', openaiChat],
  ['/chat/completions', openaiChat],
]);

/** What answers are shaped in where the path tells no dialect. */
export const DEFAULT_DIALECT: Dialect = openaiChat;
