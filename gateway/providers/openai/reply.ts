/**
 * Chat completions and vectors, read into the hub. What is not as documented is as if absent.
 * Source: https://platform.openai.com/docs/api-reference/chat/object, and what compatible servers send: thoughts as
 * `reasoning_content` (DeepSeek, vLLM, xAI), `reasoning` (Groq, OpenRouter, Ollama), `reasoning_details` (OpenRouter) or
 * parts of the content (Mistral); sources in lists of their own (Perplexity); arguments as objects.
 */
import { randomUUID } from 'node:crypto';
import type { Json } from '../../dialects/dialect.ts';
import { badAnswer, countOf, objectOf, objectsOf, textOf } from '../../hub/fields.ts';
import type { EmbeddingsReply, Finish, HubChoice, HubReply, HubUsage, Logprob, ReplyPart } from '../../hub/reply.ts';
import type { Citation, ReasoningPart, ToolCallPart } from '../../hub/request.ts';
import { isJsonObject } from '../../json.ts';
import { reportedError } from './error.ts';

/** Reads a whole answer of the provider `name`. @throws GatewayError `upstream_bad_answer`, or what it reports in a 200 */
export function readChat(body: Json, name: string): HubReply {
  const error = reportedError(body, name);
  if (error !== undefined) throw error;
  const choices = objectsOf(body.choices).filter((choice) => isJsonObject(choice.message));
  if (choices.length === 0) throw badAnswer();
  const reply: HubReply = { ...headOf(body), choices: choices.map(readChoice) };
  addCitations(reply.choices, outerCitations(body));
  const usage = usageOf(body);
  if (usage !== undefined) reply.usage = usage;
  return reply;
}

/** What an answer and each chunk of one tell of themselves; some servers leave fields blank. */
export function headOf(body: Json): Pick<HubReply, 'id' | 'model' | 'created' | 'serviceTier'> {
  const [id, model, tier] = [textOf(body.id), textOf(body.model), textOf(body.service_tier)];
  const created = countOf(body.created);
  return {
    ...(id && { id }),
    ...(model && { model }),
    ...(created && { created: Math.floor(created) }),
    ...(tier && { serviceTier: tier }),
  };
}

function readChoice(choice: Json, position: number): HubChoice {
  const message = objectOf(choice.message) ?? {};
  const refusal = textOf(message.refusal);
  const parts: ReplyPart[] = [...thoughtsOf(message), ...contentOf(message)];
  if (refusal) parts.push({ type: 'refusal', text: refusal });
  parts.push(...imagesOf(message), ...callsOf(message));
  const hasCalls = parts.some(({ type }) => type === 'tool-call');
  return {
    index: indexOf(choice, position),
    parts,
    ...finishOf(choice, Boolean(refusal), hasCalls),
    ...logprobsOf(choice, refusal ? 'refusal' : 'content'),
  };
}

/** The number of a choice; where there is none, its place. */
export function indexOf({ index }: Json, position: number): number {
  return Number.isSafeInteger(index) && (index as number) >= 0 ? (index as number) : position;
}

// --- Content ------------------------------------------------------------------------------------------------------

/** Text, as a string or, from Mistral, as parts beside thoughts. */
function contentOf(message: Json): ReplyPart[] {
  const text = typeof message.content === 'string' ? message.content : partsText(message.content);
  if (text === '') return [];
  const citations = citationsOf(message.annotations);
  return [{ type: 'text', text, ...(citations.length > 0 && { citations }) }];
}

/** The text of content that comes in parts. */
export function partsText(content: unknown): string {
  return objectsOf(content)
    .map((part) => (part.type === 'text' ? (textOf(part.text) ?? '') : ''))
    .join('');
}

/** The thoughts of content that comes in parts. */
function partsThoughts(content: unknown): string {
  return objectsOf(content)
    .map((part) => (part.type === 'thinking' ? (textOf(part.thinking) ?? partsText(part.thinking)) : ''))
    .join('');
}

/** Thoughts of a message or of a delta; the same ones may be told under several names. */
export function thoughtsOf(message: Json): ReasoningPart[] {
  const details = objectsOf(message.reasoning_details).flatMap(readDetail);
  if (details.length > 0) return details;
  const text = textOf(message.reasoning_content) || textOf(message.reasoning) || partsThoughts(message.content);
  return text === '' ? [] : [{ type: 'reasoning', text }];
}

function readDetail(detail: Json): ReasoningPart[] {
  const [data, signature] = [textOf(detail.data), textOf(detail.signature)];
  if (data) return [{ type: 'reasoning', text: '', redacted: data }];
  const text = textOf(detail.text) ?? textOf(detail.summary) ?? '';
  return text || signature ? [{ type: 'reasoning', text, ...(signature && { signature }) }] : [];
}

function callsOf(message: Json): ToolCallPart[] {
  const calls = objectsOf(message.tool_calls).flatMap((call) => {
    const target = objectOf(call.function);
    return target === undefined ? [] : [readCall(target, textOf(call.id), sealOf(call))];
  });
  const single = objectOf(message.function_call);
  return calls.length === 0 && single !== undefined ? [readCall(single)] : calls;
}

function readCall(target: Json, id?: string, signature?: string): ToolCallPart {
  return {
    type: 'tool-call',
    id: id || newCallId(),
    name: textOf(target.name) ?? '',
    arguments: argumentsOf(target.arguments),
    ...(signature && { signature }),
  };
}

/** An id for a call that came without one. */
export function newCallId(): string {
  return `call_${randomUUID().replaceAll('-', '').slice(0, 24)}`;
}

/** Arguments as JSON text; some servers send the object itself. */
export function argumentsOf(value: unknown): string {
  if (!isJsonObject(value)) return textOf(value) ?? '';
  try {
    return JSON.stringify(value);
  } catch {
    // Nested too deep to be written, as no arguments are.
    throw badAnswer();
  }
}

/** Google's seal of the thought that led to a call. */
export function sealOf(call: Json): string | undefined {
  return textOf(objectOf(objectOf(call.extra_content)?.google)?.thought_signature);
}

/** Images that the model made, as OpenRouter tells them. */
export function imagesOf(message: Json): { type: 'media'; mediaType: string; data: string }[] {
  return objectsOf(message.images).flatMap((image) => {
    const url = textOf(objectOf(image.image_url)?.url) ?? '';
    const [, mediaType, data] = /^data:([^;,]{1,100});base64,(.*)$/s.exec(url) ?? [];
    return mediaType === undefined || data === undefined ? [] : [{ type: 'media' as const, mediaType, data }];
  });
}

// --- Citations ----------------------------------------------------------------------------------------------------

/** OpenAI's own form of citations. */
export function citationsOf(annotations: unknown): Citation[] {
  return objectsOf(annotations).flatMap((annotation) => {
    const cited = objectOf(annotation.url_citation);
    return cited === undefined ? [] : [readCitation(cited)];
  });
}

function readCitation(cited: Json): Citation {
  const [url, title, quote] = [textOf(cited.url), textOf(cited.title), textOf(cited.content)];
  const [start, end] = [countOf(cited.start_index), countOf(cited.end_index)];
  return {
    ...(url && { url }),
    ...(title && { title }),
    ...(quote && { quote }),
    ...(start !== undefined && { start }),
    ...(end !== undefined && { end }),
  };
}

/** Perplexity's sources, which stand beside the choices: with titles in `search_results`, else as bare addresses. */
export function outerCitations(body: Json): Citation[] {
  const results = objectsOf(body.search_results).flatMap((result) => {
    const [url, title] = [textOf(result.url), textOf(result.title)];
    return url ? [{ url, ...(title && { title }) }] : [];
  });
  if (results.length > 0 || !Array.isArray(body.citations)) return results;
  return body.citations.flatMap((url: unknown) => (typeof url === 'string' ? [{ url }] : []));
}

function addCitations(choices: HubChoice[], citations: Citation[]): void {
  if (citations.length === 0) return;
  for (const { parts } of choices) {
    const text = parts.find((part) => part.type === 'text');
    if (text !== undefined) text.citations = [...(text.citations ?? []), ...citations];
  }
}

// --- Ends and counts ----------------------------------------------------------------------------------------------

const FINISHES = new Map<string, Finish>([
  ['stop', 'stop'],
  ['end_turn', 'stop'],
  ['eos', 'stop'],
  ['length', 'length'],
  ['max_tokens', 'length'],
  ['model_length', 'context-window'],
  ['tool_calls', 'tool-calls'],
  ['function_call', 'tool-calls'],
  ['content_filter', 'content-filter'],
  ['refusal', 'refusal'],
]);

/**
 * Why a choice ended. Some servers say `stop` where they should say `tool_calls`; vLLM tells the stop sequence beside it.
 * Words that nobody documents end an answer like any other.
 */
export function finishOf(
  choice: Json,
  hasRefusal: boolean,
  hasCalls: boolean,
): { finish: Finish; stopSequence?: string } {
  const finish = FINISHES.get(textOf(choice.finish_reason) ?? '') ?? 'stop';
  if (finish !== 'stop') return { finish };
  if (hasCalls) return { finish: 'tool-calls' };
  if (hasRefusal) return { finish: 'refusal' };
  const stopSequence = textOf(choice.stop_reason);
  return stopSequence === undefined ? { finish } : { finish: 'stop-sequence', stopSequence };
}

/** Log probabilities of a choice, or of a chunk of one. */
export function logprobsOf(choice: Json, kind: 'content' | 'refusal'): { logprobs?: Logprob[] } {
  const logprobs = objectOf(choice.logprobs);
  const tokens = logprobs === undefined ? [] : objectsOf(logprobs[kind]);
  return tokens.length === 0 ? {} : { logprobs: tokens.flatMap(readLogprob) };
}

/** One token's. */
export function readLogprob(told: Json): Logprob[] {
  const token = tokenOf(told);
  if (token === undefined) return [];
  return [{ ...token, top: objectsOf(told.top_logprobs).flatMap((other) => tokenOf(other) ?? []) }];
}

function tokenOf({ token, logprob, bytes }: Json): Omit<Logprob, 'top'> | undefined {
  if (typeof token !== 'string' || typeof logprob !== 'number') return undefined;
  const isBytes = Array.isArray(bytes) && bytes.every((byte) => typeof byte === 'number');
  return { token, logprob, bytes: isBytes ? (bytes as number[]) : null };
}

/** The counts of an answer or of a chunk, wherever they stand; undefined when there are none. */
export function usageOf(body: Json): HubUsage | undefined {
  const usage = objectOf(body.usage) ?? objectOf(objectOf(body.x_groq)?.usage);
  if (usage === undefined) return undefined;
  const [inputTokens, outputTokens] = [countOf(usage.prompt_tokens), countOf(usage.completion_tokens)];
  if (inputTokens === undefined && outputTokens === undefined) return undefined;
  const [input, output] = [objectOf(usage.prompt_tokens_details), objectOf(usage.completion_tokens_details)];
  // DeepSeek and Moonshot tell the cached ones by names of their own.
  const cached =
    countOf(input?.cached_tokens) ?? countOf(usage.prompt_cache_hit_tokens) ?? countOf(usage.cached_tokens);
  const [written, reasoning] = [countOf(input?.cache_write_tokens), countOf(output?.reasoning_tokens)];
  return {
    inputTokens: inputTokens ?? 0,
    outputTokens: outputTokens ?? 0,
    ...(cached !== undefined && { cachedInputTokens: cached }),
    ...(written !== undefined && { cacheWriteTokens: written }),
    ...(reasoning !== undefined && { reasoningTokens: reasoning }),
  };
}

// --- Vectors ------------------------------------------------------------------------------------------------------

/** Reads vectors, in the order of their texts. @throws GatewayError `upstream_bad_answer` */
export function readEmbeddings(body: Json, name: string): EmbeddingsReply {
  const error = reportedError(body, name);
  if (error !== undefined) throw error;
  const data = objectsOf(body.data);
  const vectors = data.map((item, i) => ({ at: indexOf(item, i), vector: vectorOf(item.embedding) }));
  if (vectors.length === 0) throw badAnswer();
  const model = textOf(body.model);
  const inputTokens = countOf(objectOf(body.usage)?.prompt_tokens);
  return {
    ...(model && { model }),
    vectors: vectors.sort((a, b) => a.at - b.at).map(({ vector }) => vector),
    ...(inputTokens !== undefined && { usage: { inputTokens, outputTokens: 0 } }),
  };
}

/** Numbers, or base64 of 32-bit floats, little end first. */
function vectorOf(embedding: unknown): number[] {
  if (Array.isArray(embedding) && embedding.every((value) => typeof value === 'number')) return embedding;
  if (typeof embedding !== 'string') throw badAnswer();
  const bytes = Buffer.from(embedding, 'base64');
  if (bytes.length === 0 || bytes.length % 4 !== 0) throw badAnswer();
  return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(i * 4));
}
