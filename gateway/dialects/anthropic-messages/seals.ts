/**
 * Thoughts are sealed by a signature, which the vendor checks when they come back. What a guard changed has none any more
 * and would be refused, and with it the whole conversation: it is taken out on its way back.
 * Source: https://platform.claude.com/docs/en/build-with-claude/thinking (preserving thinking blocks).
 */
import { isJsonObject } from '../../json.ts';
import type { Json } from '../dialect.ts';

/** Whether a conversation has thoughts whose seal the gateway has broken. */
export function hasBrokenSeals(body: Json): boolean {
  return messagesOf(body).some((message) => blocksOf(message).some(isBroken));
}

/** Breaks the seals of the thoughts at these places. */
export function breakSeals(body: Json, changed: ReadonlyMap<string, unknown>): void {
  markBroken(body, '', changed);
  messagesOf(body).forEach((message, i) => {
    markBroken(message, `/messages/${i}`, changed);
  });
}

function markBroken(holder: Json, path: string, changed: ReadonlyMap<string, unknown>): void {
  blocksOf(holder).forEach((block, i) => {
    if (changed.has(`${path}/content/${i}/thinking`) && block.type === 'thinking') block.signature = '';
  });
}

/** Takes the thoughts out whose seal is broken. */
export function dropBroken(body: Json): void {
  if (!hasBrokenSeals(body)) return;
  for (const message of messagesOf(body)) {
    if (Array.isArray(message.content)) message.content = message.content.filter((block) => !isBroken(block));
  }
  body.messages = messagesOf(body).filter(({ content }) => !Array.isArray(content) || content.length > 0);
  // Models before 4.6 do not go on thinking after a call of a tool whose thoughts are not there.
  if (isJsonObject(body.thinking) && body.thinking.type === 'enabled' && hasLostThoughts(body)) delete body.thinking;
}

function hasLostThoughts(body: Json): boolean {
  const last = messagesOf(body).findLast(({ role }) => role === 'assistant');
  const types = last === undefined ? [] : blocksOf(last).map(({ type }) => type);
  return types.includes('tool_use') && !types.includes('thinking') && !types.includes('redacted_thinking');
}

function isBroken(block: unknown): boolean {
  return isJsonObject(block) && block.type === 'thinking' && block.signature === '';
}

function messagesOf({ messages }: Json): Json[] {
  return Array.isArray(messages) ? messages.filter(isJsonObject) : [];
}

function blocksOf({ content }: Json): Json[] {
  return Array.isArray(content) ? content.map((block) => (isJsonObject(block) ? block : {})) : [];
}
