/**
 * A message, written from the hub's answer.
 * Source: https://platform.claude.com/docs/en/api/messages (the response) and the types of the official client.
 */
import { randomUUID } from 'node:crypto';
import type { Finish, HubChoice, HubReply, ReplyPart } from '../../hub/reply.ts';
import type { Citation, ToolCallPart } from '../../hub/request.ts';
import { isJsonObject, parseJson } from '../../json.ts';
import type { Json } from '../dialect.ts';
import { NO_USAGE, writtenUsage } from './usage.ts';

/** Writes a whole answer; `model` is told where the provider tells none. Only one choice has room in a message. */
export function fromHub(reply: HubReply, model: string): Json {
  const choice = reply.choices[0] ?? { index: 0, parts: [], finish: 'stop' };
  return {
    ...messageHead(reply.id, reply.model ?? model),
    content: choice.parts.flatMap(writtenBlock),
    ...writtenEnd(choice.finish, choice.stopSequence, hasRefusal(choice)),
    usage: writtenUsage(reply.usage ?? NO_USAGE, reply.serviceTier),
  };
}

function hasRefusal({ parts }: HubChoice): boolean {
  return parts.some(({ type }) => type === 'refusal');
}

/** What a message says before its content. */
export function messageHead(id: string | undefined, model: string): Json {
  return { id: id ?? `msg_${randomUUID().replaceAll('-', '')}`, type: 'message', role: 'assistant', model };
}

/** How a message ended; a refusal in words is one, whatever else ended it. */
export function writtenEnd(finish: Finish, stopSequence: string | undefined, isRefused: boolean): Json {
  const reason = isRefused && finish === 'stop' ? 'refusal' : REASONS[finish];
  return { stop_reason: reason, stop_sequence: stopSequence ?? null };
}

const REASONS: Readonly<Record<Finish, string>> = {
  stop: 'end_turn',
  'stop-sequence': 'stop_sequence',
  length: 'max_tokens',
  'context-window': 'model_context_window_exceeded',
  'tool-calls': 'tool_use',
  'content-filter': 'refusal',
  refusal: 'refusal',
  pause: 'pause_turn',
};

/** A message has no place for media that a model made; none can be asked for in this dialect. */
function writtenBlock(part: ReplyPart): Json[] {
  switch (part.type) {
    case 'text':
      return [textBlock(part.text, part.citations)];
    case 'refusal':
      return [textBlock(part.text, undefined)];
    case 'reasoning':
      return part.redacted === undefined
        ? [thinkingBlock(part.text, part.signature ?? '')]
        : [redactedBlock(part.redacted)];
    case 'tool-call':
      return [{ ...toolBlock(part.id, part.name), input: inputOf(part) }];
    default:
      return [];
  }
}

export function textBlock(text: string, citations: Citation[] | undefined): Json {
  return { type: 'text', text, citations: citations === undefined ? null : citations.map(writtenCitation) };
}

export function thinkingBlock(thinking: string, signature: string): Json {
  return { type: 'thinking', thinking, signature };
}

export function redactedBlock(data: string): Json {
  return { type: 'redacted_thinking', data };
}

/** A call without its input yet. */
export function toolBlock(id: string, name: string): Json {
  return { type: 'tool_use', id, name, input: {} };
}

/** What a model wrote that is no JSON object reaches the client as it is, under a name of its own. */
function inputOf({ arguments: args }: ToolCallPart): Json {
  const input = args.trim() === '' ? {} : parseJson(args);
  return isJsonObject(input) ? input : { arguments: args };
}

/** A page that is cited, or else a document of the prompt. */
export function writtenCitation({ url, title, quote = '', document }: Citation): Json {
  if (url !== undefined) {
    return { type: 'web_search_result_location', url, title: title ?? null, cited_text: quote, encrypted_index: '' };
  }
  return {
    type: 'char_location',
    cited_text: quote,
    document_index: document ?? 0,
    document_title: title ?? null,
    start_char_index: 0,
    end_char_index: quote.length,
    file_id: null,
  };
}
