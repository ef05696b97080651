/**
 * A response, written from the hub's answer.
 * Source: https://platform.openai.com/docs/api-reference/responses/object. Thoughts stand in a reasoning item's summary,
 * which is what clients show, and their seals in its `encrypted_content`.
 */
import { randomUUID } from 'node:crypto';
import type { Finish, GeneratedMedia, HubReply, HubUsage, Logprob, ReplyPart } from '../../hub/reply.ts';
import type { Citation, RefusalPart, TextPart, ToolCallPart } from '../../hub/request.ts';
import type { Json } from '../dialect.ts';
import { sealedCall, sealedThought } from './seals.ts';
import { writtenUsage } from './usage.ts';

/** Writes a whole answer, the first where there are several; `model` is told where the provider tells none. */
export function fromHub(reply: HubReply, model: string): Json {
  const ids = new Ids(reply.id);
  const [choice] = reply.choices;
  const told = { model: reply.model ?? model, created: reply.created, serviceTier: reply.serviceTier };
  return {
    ...responseHead(ids.response, told),
    ...ending(choice?.finish ?? 'stop', reply.usage),
    output: choice === undefined ? [] : writtenItems(choice.parts, choice.logprobs ?? [], ids),
  };
}

// --- Ids ----------------------------------------------------------------------------------------------------------

/** Longest id of a provider's that is kept: OpenAI takes none of more than 64 characters back. */
const MAX_ID = 56;

/** The ids of an answer and its items: the provider's own with the prefixes of this format. */
export class Ids {
  readonly response: string;
  private readonly stem: string;
  private count = 0;

  constructor(id: string | undefined) {
    const own = id?.replace(/^[a-z]+[-_]/i, '').replace(/[^\w-]/g, '');
    this.stem = own && own.length <= MAX_ID ? own : randomUUID().replaceAll('-', '');
    this.response = `resp_${this.stem}`;
  }

  /** The next item's. */
  item(prefix: 'msg' | 'rs' | 'fc' | 'ig'): string {
    this.count += 1;
    return `${prefix}_${this.stem}_${this.count - 1}`;
  }
}

// --- The response -------------------------------------------------------------------------------------------------

/** What every response tells, with what nobody said at its default. */
export function responseHead(id: string, told: { model: string; created?: number; serviceTier?: string }): Json {
  return {
    id,
    object: 'response',
    created_at: told.created ?? Math.floor(Date.now() / 1000),
    status: 'in_progress',
    background: false,
    error: null,
    incomplete_details: null,
    instructions: null,
    max_output_tokens: null,
    metadata: {},
    model: told.model,
    output: [],
    parallel_tool_calls: true,
    previous_response_id: null,
    reasoning: { effort: null, summary: null },
    ...(told.serviceTier !== undefined && { service_tier: told.serviceTier }),
    store: false,
    temperature: null,
    text: { format: { type: 'text' } },
    tool_choice: 'auto',
    tools: [],
    top_p: null,
    truncation: 'disabled',
    usage: null,
    user: null,
  };
}

const INCOMPLETE: Partial<Record<Finish, string>> = {
  length: 'max_output_tokens',
  'context-window': 'max_output_tokens',
  'content-filter': 'content_filter',
};

/** How a response ended. */
export function ending(finish: Finish, usage: HubUsage | undefined): Json {
  const reason = INCOMPLETE[finish];
  return {
    status: reason === undefined ? 'completed' : 'incomplete',
    incomplete_details: reason === undefined ? null : { reason },
    // Clients read its fields without asking whether it is there.
    usage: writtenUsage(usage ?? { inputTokens: 0, outputTokens: 0 }),
  };
}

// --- Items --------------------------------------------------------------------------------------------------------

type Said = TextPart | RefusalPart | GeneratedMedia;

function writtenItems(parts: ReplyPart[], logprobs: Logprob[], ids: Ids): Json[] {
  const items: Json[] = [];
  let message: Json[] | undefined;
  let rest = logprobs;
  for (const part of parts) {
    if (!isSaid(part)) {
      message = undefined;
      items.push(...writtenPart(part, ids));
      continue;
    }
    if (message === undefined) {
      message = [];
      items.push(messageItem(ids.item('msg'), message));
    }
    message.push(writtenSaid(part, rest));
    // They are told for the whole answer, so they go with its first text.
    if (part.type === 'text') rest = [];
  }
  return items;
}

/** What stands in a message; a picture is an item of its own. */
function isSaid(part: ReplyPart): part is Said {
  return part.type === 'text' || part.type === 'refusal' || (part.type === 'media' && !isImage(part));
}

export function isImage({ mediaType }: { mediaType: string }): boolean {
  return mediaType.startsWith('image/');
}

export function messageItem(id: string, content: Json[], status = 'completed'): Json {
  return { id, type: 'message', status, role: 'assistant', content };
}

function writtenSaid(part: Said, logprobs: Logprob[]): Json {
  if (part.type === 'refusal') return { type: 'refusal', refusal: part.text };
  if (part.type === 'media') return writtenSound(part);
  return {
    type: 'output_text',
    text: part.text,
    annotations: (part.citations ?? []).map((citation) => writtenCitation(citation, part.text.length)),
    logprobs: logprobs.map(writtenLogprob),
  };
}

function writtenPart(part: Exclude<ReplyPart, TextPart | RefusalPart>, ids: Ids): Json[] {
  if (part.type === 'media') return [imageItem(ids.item('ig'), part.data)];
  if (part.type === 'reasoning') return [thoughtItem(ids.item('rs'), sealedThought(part))];
  const seal = part.signature === undefined ? [] : [thoughtItem(ids.item('rs'), sealedCall(part.signature))];
  return [...seal, callItem(ids.item('fc'), part)];
}

export function thoughtItem(id: string, thought: Json): Json {
  return { id, ...thought };
}

export function callItem(id: string, call: Omit<ToolCallPart, 'type'>, status = 'completed'): Json {
  const args = call.arguments === '' && status === 'completed' ? '{}' : call.arguments;
  return { id, type: 'function_call', status, arguments: args, call_id: call.id, name: call.name };
}

/** A picture that the model made. */
export function imageItem(id: string, data: string): Json {
  return { id, type: 'image_generation_call', status: 'completed', result: data };
}

/** Sound that the model made; a message's content has a kind for it. */
export function writtenSound({ data }: { data: string }): Json {
  return { type: 'output_audio', data, transcript: '' };
}

/**
 * A citation of a text that is `length` UTF-16 units long; one that names no place of its own supports all of it. The
 * quote has no field in OpenAI's format, and clients pass over one that they do not know.
 */
export function writtenCitation({ url, title, quote, start, end, document }: Citation, length: number): Json {
  const cited = quote === undefined ? {} : { quote };
  const place = { start_index: start ?? 0, end_index: end ?? length };
  if (url !== undefined) return { type: 'url_citation', url, title: title ?? '', ...place, ...cited };
  return { type: 'file_citation', file_id: '', filename: title ?? '', index: document ?? 0, ...place, ...cited };
}

export function writtenLogprob({ token, logprob, bytes, top }: Logprob): Json {
  return {
    token,
    logprob,
    bytes: bytes ?? [],
    top_logprobs: (top ?? []).map((other) => ({
      token: other.token,
      logprob: other.logprob,
      bytes: other.bytes ?? [],
    })),
  };
}
