/** Converse's answers. Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html */
import type { Json } from '../../dialects/dialect.ts';
import { GatewayError } from '../../errors.ts';
import { badAnswer, countOf, objectOf, objectsOf, textOf } from '../../hub/fields.ts';
import type { Finish, HubReply, HubUsage, ReplyPart, TokenCount } from '../../hub/reply.ts';
import type { Citation } from '../../hub/request.ts';

/** @throws GatewayError `upstream_bad_answer` */
export function readConverse(body: Json): HubReply {
  const message = objectOf(objectOf(body.output)?.message);
  if (message === undefined) throw badAnswer();
  return {
    ...newId(),
    choices: [
      {
        index: 0,
        parts: objectsOf(message.content).flatMap(partOf),
        finish: finishOf(body.stopReason),
        stopSequence: stopSequenceOf(body),
      },
    ],
    usage: usageOf(body.usage),
    serviceTier: textOf(objectOf(body.serviceTier)?.type),
  };
}

/** Bedrock names no answer; `created` is in seconds. */
export function newId(): { id: string; created: number } {
  const now = Date.now();
  return { id: `bedrock-${now}`, created: Math.floor(now / 1000) };
}

function partOf(block: Json): ReplyPart[] {
  const text = textOf(block.text);
  if (text !== undefined) return [{ type: 'text', text }];
  const { toolUse, reasoningContent, citationsContent, image } = block;
  const call = objectOf(toolUse);
  if (call !== undefined) return toolCall(call);
  const thought = objectOf(reasoningContent);
  if (thought !== undefined) return thoughtOf(thought);
  const cited = objectOf(citationsContent);
  if (cited !== undefined) return citedText(cited);
  const picture = objectOf(image);
  return picture === undefined ? [] : mediaOf(picture);
}

/** What a tool of Bedrock's own side was asked is nothing for the client to answer. */
export function isServerTool(call: Json): boolean {
  return call.type === 'server_tool_use';
}

function toolCall(call: Json): ReplyPart[] {
  const name = textOf(call.name);
  if (isServerTool(call)) return [];
  if (name === undefined) throw badAnswer();
  const id = textOf(call.toolUseId) ?? '';
  return [{ type: 'tool-call', id, name, arguments: JSON.stringify(objectOf(call.input) ?? {}) }];
}

function thoughtOf({ reasoningText, redactedContent }: Json): ReplyPart[] {
  const redacted = textOf(redactedContent);
  if (redacted !== undefined) return [{ type: 'reasoning', text: '', redacted }];
  const { text, signature } = objectOf(reasoningText) ?? {};
  return [{ type: 'reasoning', text: textOf(text) ?? '', signature: textOf(signature) }];
}

function citedText({ content, citations }: Json): ReplyPart[] {
  const text = objectsOf(content)
    .map((piece) => textOf(piece.text) ?? '')
    .join('');
  return [{ type: 'text', text, citations: objectsOf(citations).map(citationOf) }];
}

/** Converse tells places in the documents, not in the answer. */
export function citationOf({ title, source, sourceContent, location }: Json): Citation {
  const where = Object.values(objectOf(location) ?? {})
    .map(objectOf)
    .find((place) => place !== undefined);
  const from = textOf(source);
  const quote = objectsOf(sourceContent)
    .map((piece) => textOf(piece.text) ?? '')
    .join('');
  return {
    url: textOf(where?.url) ?? (from !== undefined && /^https?:/.test(from) ? from : undefined),
    title: textOf(title),
    quote: quote || undefined,
    document: countOf(where?.documentIndex),
  };
}

function mediaOf({ format, source }: Json): ReplyPart[] {
  const data = textOf(objectOf(source)?.bytes);
  return data === undefined ? [] : [{ type: 'media', mediaType: imageType(format), data }];
}

export function imageType(format: unknown): string {
  return `image/${textOf(format) ?? 'png'}`;
}

const FINISHES = new Map<unknown, Finish>([
  ['end_turn', 'stop'],
  ['stop_sequence', 'stop-sequence'],
  ['tool_use', 'tool-calls'],
  ['max_tokens', 'length'],
  ['model_context_window_exceeded', 'context-window'],
  ['guardrail_intervened', 'content-filter'],
  ['content_filtered', 'content-filter'],
]);

/** @throws GatewayError `upstream_bad_answer` where the model broke its own format: that is no finished answer */
export function finishOf(reason: unknown): Finish {
  if (reason === 'malformed_model_output' || reason === 'malformed_tool_use')
    throw new GatewayError('upstream_bad_answer', 'The model wrote an answer that cannot be read. Try again.');
  return FINISHES.get(reason) ?? 'stop';
}

/** Which stop sequence it was, as Claude tells when asked. */
export function stopSequenceOf(body: Json): string | undefined {
  return textOf(objectOf(body.additionalModelResponseFields)?.stop_sequence);
}

/** Bedrock counts what the cache gave, and what it took, beside `inputTokens`. */
export function usageOf(value: unknown): HubUsage | undefined {
  const usage = objectOf(value);
  if (usage === undefined) return undefined;
  const read = countOf(usage.cacheReadInputTokens);
  const written = countOf(usage.cacheWriteInputTokens);
  return {
    inputTokens: (countOf(usage.inputTokens) ?? 0) + (read ?? 0) + (written ?? 0),
    outputTokens: countOf(usage.outputTokens) ?? 0,
    cachedInputTokens: read,
    cacheWriteTokens: written,
  };
}

/** @throws GatewayError `upstream_bad_answer` */
export function readCount({ inputTokens }: Json): TokenCount {
  const count = countOf(inputTokens);
  if (count === undefined) throw badAnswer();
  return { inputTokens: count };
}
