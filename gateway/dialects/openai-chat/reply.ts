/**
 * A chat completion, written from the hub's answer.
 * Source: https://platform.openai.com/docs/api-reference/chat/object; thoughts as DeepSeek (`reasoning_content`) and
 * OpenRouter (`reasoning_details`) have them, made images as OpenRouter (`images`), seals of tool calls as Google's
 * compatible endpoint (`extra_content`).
 */
import { randomUUID } from 'node:crypto';
import type { Finish, GeneratedMedia, HubChoice, HubReply, HubUsage, Logprob, ReplyPart } from '../../hub/reply.ts';
import type { Citation, ReasoningPart, TextPart, ToolCallPart } from '../../hub/request.ts';
import type { Json } from '../dialect.ts';

/** Writes a whole answer; `model` is told where the provider tells none. */
export function fromHub(reply: HubReply, model: string): Json {
  return {
    id: reply.id ?? newId(),
    object: 'chat.completion',
    created: reply.created ?? now(),
    model: reply.model ?? model,
    choices: reply.choices.map(writtenChoice),
    // Clients read its fields without asking whether it is there.
    usage: writtenUsage(reply.usage ?? { inputTokens: 0, outputTokens: 0 }),
    ...(reply.serviceTier !== undefined && { service_tier: reply.serviceTier }),
  };
}

/** An id for an answer whose provider gave none. */
export function newId(): string {
  return `chatcmpl-${randomUUID().replaceAll('-', '')}`;
}

/** Unix time in seconds. */
export function now(): number {
  return Math.floor(Date.now() / 1000);
}

function writtenChoice({ index, parts, finish, logprobs }: HubChoice): Json {
  const hasRefusal = parts.some(({ type }) => type === 'refusal');
  return {
    index,
    message: writtenMessage(parts),
    logprobs: logprobs === undefined ? null : writtenLogprobs(logprobs, hasRefusal),
    finish_reason: finishReason(finish, hasRefusal),
  };
}

function writtenMessage(parts: ReplyPart[]): Json {
  const texts = parts.filter((part) => part.type === 'text');
  const calls = parts.filter((part) => part.type === 'tool-call');
  const refusals = parts.filter((part) => part.type === 'refusal');
  const citations = writtenCitations(texts);
  const isSilent = texts.length === 0 && (calls.length > 0 || refusals.length > 0);
  return {
    role: 'assistant',
    content: isSilent ? null : joined(texts),
    refusal: refusals.length === 0 ? null : joined(refusals),
    ...writtenThoughts(parts.filter((part) => part.type === 'reasoning')),
    ...(citations.length > 0 && { annotations: citations }),
    ...(calls.length > 0 && { tool_calls: calls.map(writtenCall) }),
    ...writtenMedia(parts.filter((part) => part.type === 'media')),
  };
}

function joined(parts: { text: string }[]): string {
  return parts.map(({ text }) => text).join('');
}

function writtenThoughts(thoughts: ReasoningPart[]): Json {
  if (thoughts.length === 0) return {};
  const details = thoughts.map(({ text, signature, redacted }, index): Json => {
    if (redacted !== undefined) return { type: 'reasoning.encrypted', data: redacted, index };
    return { type: 'reasoning.text', text, ...(signature && { signature }), index };
  });
  const isSealed = thoughts.some(({ redacted, signature }) => redacted ?? signature);
  return { reasoning_content: joined(thoughts), ...(isSealed && { reasoning_details: details }) };
}

function writtenCall({ id, name, arguments: args, signature }: ToolCallPart): Json {
  return {
    id,
    type: 'function',
    function: { name, arguments: args === '' ? '{}' : args },
    ...sealOf(signature),
  };
}

/** Where a tool call carries the seal of the thought that led to it. */
export function sealOf(signature: string | undefined): Json {
  return signature === undefined ? {} : { extra_content: { google: { thought_signature: signature } } };
}

function writtenCitations(texts: TextPart[]): Json[] {
  const written: Json[] = [];
  let offset = 0;
  for (const { text, citations } of texts) {
    for (const citation of citations ?? []) written.push(writtenCitation(citation, offset, offset + text.length));
    offset += text.length;
  }
  return written;
}

/**
 * One citation. `from` is where its part begins in the message's text, in UTF-16 units; one that names no place of its
 * own supports the part until `to`.
 */
export function writtenCitation(citation: Citation, from: number, to: number): Json {
  const { url, title, quote, start, end, document } = citation;
  return {
    type: 'url_citation',
    url_citation: {
      url: url ?? '',
      title: title ?? '',
      start_index: start === undefined ? from : from + start,
      end_index: end === undefined ? to : from + end,
      ...(quote !== undefined && { content: quote }),
      ...(document !== undefined && { document_index: document }),
    },
  };
}

function writtenMedia(media: GeneratedMedia[]): Json {
  return media.length === 0 ? {} : { images: media.map(writtenImage) };
}

/** An image, or other thing that is not text, that the model made. */
export function writtenImage({ mediaType, data }: { mediaType: string; data: string }): Json {
  return { type: 'image_url', image_url: { url: `data:${mediaType};base64,${data}` } };
}

/** Log probabilities of the tokens, those of a refusal in their own list. */
export function writtenLogprobs(logprobs: Logprob[], isRefusal: boolean): Json {
  const tokens = logprobs.map(({ token, logprob, bytes, top }) => ({
    token,
    logprob,
    bytes: bytes ?? null,
    top_logprobs: (top ?? []).map((other) => ({
      token: other.token,
      logprob: other.logprob,
      bytes: other.bytes ?? null,
    })),
  }));
  return isRefusal ? { content: null, refusal: tokens } : { content: tokens, refusal: null };
}

const FINISHES: Readonly<Record<Finish, string>> = {
  stop: 'stop',
  'stop-sequence': 'stop',
  pause: 'stop',
  length: 'length',
  'context-window': 'length',
  'tool-calls': 'tool_calls',
  'content-filter': 'content_filter',
  refusal: 'content_filter',
};

/** A refusal in words is an answer like any other, as OpenAI has it; one without words is a filter's. */
export function finishReason(finish: Finish, hasRefusal: boolean): string {
  return finish === 'refusal' && hasRefusal ? 'stop' : FINISHES[finish];
}

/** The usage, with the details that are known. */
export function writtenUsage(usage: HubUsage): Json {
  const { inputTokens, outputTokens, cachedInputTokens, cacheWriteTokens, reasoningTokens } = usage;
  return {
    prompt_tokens: inputTokens,
    completion_tokens: outputTokens,
    total_tokens: inputTokens + outputTokens,
    ...((cachedInputTokens !== undefined || cacheWriteTokens !== undefined) && {
      prompt_tokens_details: {
        cached_tokens: cachedInputTokens ?? 0,
        ...(cacheWriteTokens !== undefined && { cache_write_tokens: cacheWriteTokens }),
      },
    }),
    ...(reasoningTokens !== undefined && { completion_tokens_details: { reasoning_tokens: reasoningTokens } }),
  };
}
