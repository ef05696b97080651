/** Ids for tool calls that came without one, known again when the conversation comes back: the model never saw them. */
import { randomUUID } from 'node:crypto';

const ID = 'gcall_';

/**
 * Makes up an id unlike those of all other answers in a conversation. OpenAI takes 40 characters, Anthropic letters,
 * digits, `_` and `-`.
 */
export function madeUpId(responseId: string | undefined, choice: number, call: number): string {
  const answer = (responseId ?? randomUUID()).replace(/[^A-Za-z0-9_-]/g, '').slice(-20);
  return `${ID}${answer}_${choice}_${call}`;
}

export function isMadeUp(id: string): boolean {
  return id.startsWith(ID);
}
