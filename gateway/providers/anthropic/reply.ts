/**
 * Messages → hub. What is not as documented is as if absent.
 * Source: https://platform.claude.com/docs/en/api/messages (the response) and the types of the official client.
 */
import { randomUUID } from 'node:crypto';
import { readTier, readUsage } from '../../dialects/anthropic-messages/usage.ts';
import type { Json } from '../../dialects/dialect.ts';
import { badAnswer, countOf, objectOf, objectsOf, textOf } from '../../hub/fields.ts';
import type { Finish, HubReply, HubUsage, ReplyPart, TokenCount } from '../../hub/reply.ts';
import type { Citation } from '../../hub/request.ts';
import { reportedError } from './error.ts';

/** Reads a whole answer of the provider `name`. @throws GatewayError `upstream_bad_answer`, or what it reports in a 200 */
export function readMessages(body: Json, name: string): HubReply {
  if (body.type === 'error') throw reportedError(body, name);
  if (!Array.isArray(body.content)) throw badAnswer();
  const parts: ReplyPart[] = objectsOf(body.content).flatMap(readBlock);
  const explanation = explanationOf(body);
  if (explanation !== undefined) parts.push({ type: 'refusal', text: explanation });
  const hasCalls = parts.some(({ type }) => type === 'tool-call');
  const usage = readUsage(body.usage);
  return {
    ...headOf(body),
    choices: [{ index: 0, parts, ...(endOf(body) ?? { finish: hasCalls ? 'tool-calls' : 'stop' }) }],
    ...(usage !== undefined && { usage }),
  };
}

/** @throws GatewayError `upstream_bad_answer` */
export function readCount(body: Json): TokenCount {
  const inputTokens = countOf(body.input_tokens);
  if (inputTokens === undefined) throw badAnswer();
  return { inputTokens };
}

/** What a message tells of itself; with the usage, which the beginning of a stream tells too. */
export function headOf(message: Json): Pick<HubReply, 'id' | 'model' | 'serviceTier'> & { usage?: HubUsage } {
  const [id, model, tier] = [textOf(message.id), textOf(message.model), readTier(message.usage)];
  return { ...(id && { id }), ...(model && { model }), ...(tier && { serviceTier: tier }) };
}

function readBlock(block: Json): ReplyPart[] {
  switch (block.type) {
    case 'text':
      return readText(block);
    case 'thinking':
      return readThought(block);
    case 'redacted_thinking': {
      const redacted = textOf(block.data);
      return redacted ? [{ type: 'reasoning', text: '', redacted }] : [];
    }
    case 'tool_use': {
      const { id, name } = callOf(block);
      return [{ type: 'tool-call', id, name, arguments: argumentsOf(block.input) }];
    }
    default:
      // What the vendor's own tools did: none of them can be asked for through the hub.
      return [];
  }
}

function readText(block: Json): ReplyPart[] {
  const text = textOf(block.text) ?? '';
  const citations = objectsOf(block.citations).map(citationOf);
  if (text === '' && citations.length === 0) return [];
  return [{ type: 'text', text, ...(citations.length > 0 && { citations }) }];
}

function readThought(block: Json): ReplyPart[] {
  const [text, signature] = [textOf(block.thinking) ?? '', textOf(block.signature)];
  return text || signature ? [{ type: 'reasoning', text, ...(signature && { signature }) }] : [];
}

/** Which tool is called, by which id. */
export function callOf(block: Json): { id: string; name: string } {
  return {
    id: textOf(block.id) || `toolu_${randomUUID().replaceAll('-', '').slice(0, 24)}`,
    name: textOf(block.name) ?? '',
  };
}

/** A call's input as JSON text. @throws GatewayError `upstream_bad_answer` when it is nested too deep to be written */
export function argumentsOf(input: unknown): string {
  if (objectOf(input) === undefined) return '{}';
  try {
    return JSON.stringify(input);
  } catch {
    throw badAnswer();
  }
}

/** What is cited: a page, a result of a search, or a document of the prompt. Places inside it mean nothing elsewhere. */
export function citationOf(cited: Json): Citation {
  const url = textOf(cited.url) ?? textOf(cited.source);
  const title = textOf(cited.title) ?? textOf(cited.document_title);
  const quote = textOf(cited.cited_text);
  const document = countOf(cited.document_index);
  return {
    ...(url !== undefined && { url }),
    ...(title !== undefined && { title }),
    ...(quote !== undefined && { quote }),
    ...(document !== undefined && { document }),
  };
}

const FINISHES: ReadonlyMap<unknown, Finish> = new Map<unknown, Finish>([
  ['end_turn', 'stop'],
  ['max_tokens', 'length'],
  ['stop_sequence', 'stop-sequence'],
  ['tool_use', 'tool-calls'],
  ['pause_turn', 'pause'],
  ['refusal', 'refusal'],
  ['model_context_window_exceeded', 'context-window'],
]);

/** Why an answer ended; undefined while it has not. A reason that is not known yet is a plain end. */
export function endOf(ended: Json): { finish: Finish; stopSequence?: string } | undefined {
  const reason = textOf(ended.stop_reason);
  if (reason === undefined) return undefined;
  const stopSequence = textOf(ended.stop_sequence);
  return { finish: FINISHES.get(reason) ?? 'stop', ...(stopSequence !== undefined && { stopSequence }) };
}

/** Why the model, or a filter before it, refused. */
export function explanationOf(ended: Json): string | undefined {
  return textOf(objectOf(ended.stop_details)?.explanation) || undefined;
}
