/**
 * What the answer of another vendor, or of a server of another make, leaves in a conversation that passes through:
 * thoughts and their seals. OpenAI, Groq, Mistral and Cerebras refuse a request for them (400, 422), so that a chat which
 * another target answered before could not go on; they are no use to any model but their own.
 */
import type { Json } from '../../dialects/dialect.ts';
import { objectsOf } from '../../hub/fields.ts';

const THOUGHTS = ['reasoning_content', 'reasoning', 'reasoning_details'] as const;

/** Whether there is none of it. */
export function hasOwnAlone({ messages }: Json): boolean {
  return objectsOf(messages).every(
    (message) =>
      !THOUGHTS.some((field) => field in message) &&
      !objectsOf(message.tool_calls).some((call) => 'extra_content' in call),
  );
}

/** Takes it out. */
export function dropForeign({ messages }: Json): void {
  for (const message of objectsOf(messages)) {
    for (const field of THOUGHTS) delete message[field];
    for (const call of objectsOf(message.tool_calls)) delete call.extra_content;
  }
}
