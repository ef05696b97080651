/** Answers of `POST /v2/chat`. Source: https://docs.cohere.com/reference/chat */
import type { Json } from '../../dialects/dialect.ts';
import { GatewayError } from '../../errors.ts';
import { badAnswer, countOf, objectOf, objectsOf, textOf } from '../../hub/fields.ts';
import type { Finish, HubReply, HubUsage, ReplyPart } from '../../hub/reply.ts';
import type { Citation } from '../../hub/request.ts';

/** @throws GatewayError `upstream_bad_answer` */
export function readReply(body: Json): HubReply {
  const message = objectOf(body.message);
  if (message === undefined) throw badAnswer();
  return {
    id: textOf(body.id),
    choices: [{ index: 0, parts: partsOf(message), finish: finishOf(body.finish_reason) }],
    usage: usageOf(body.usage),
  };
}

function partsOf({ content, tool_plan: plan, tool_calls: calls, citations }: Json): ReplyPart[] {
  const planned = textOf(plan);
  const parts: ReplyPart[] = planned ? [{ type: 'reasoning', text: planned }] : [];
  objectsOf(content).forEach((block, i) => {
    const thinking = textOf(block.thinking);
    const text = textOf(block.text);
    if (thinking !== undefined) parts.push({ type: 'reasoning', text: thinking });
    else if (text !== undefined) parts.push({ type: 'text', text, citations: citationsAt(citations, i) });
  });
  for (const call of objectsOf(calls)) parts.push(toolCall(call));
  return parts;
}

function toolCall({ id, function: called }: Json): ReplyPart {
  const { name, arguments: text } = objectOf(called) ?? {};
  const tool = textOf(name);
  if (tool === undefined) throw badAnswer();
  return { type: 'tool-call', id: textOf(id) ?? '', name: tool, arguments: textOf(text) ?? '' };
}

function citationsAt(citations: unknown, index: number): Citation[] | undefined {
  const here = objectsOf(citations).filter((one) => (countOf(one.content_index) ?? 0) === index);
  return here.length === 0 ? undefined : here.flatMap(citationsOf);
}

/** One for each source. */
export function citationsOf({ start, end, sources }: Json): Citation[] {
  const place = { start: countOf(start), end: countOf(end) };
  const known = objectsOf(sources);
  return known.length === 0 ? [place] : known.map((source) => ({ ...place, ...sourceOf(source) }));
}

function sourceOf({ id, document, tool_output: output }: Json): Citation {
  const from = objectOf(document) ?? objectOf(output) ?? {};
  return {
    url: textOf(from.url),
    title: textOf(from.title) ?? textOf(id),
    quote: textOf(from.text) ?? textOf(from.snippet),
  };
}

const FINISHES = new Map<unknown, Finish>([
  ['COMPLETE', 'stop'],
  ['STOP_SEQUENCE', 'stop-sequence'],
  ['MAX_TOKENS', 'length'],
  ['TOOL_CALL', 'tool-calls'],
  ['ERROR_TOXIC', 'content-filter'],
  ['ERROR_LIMIT', 'context-window'],
]);

/** @throws GatewayError where the answer was broken off: that is no finished answer */
export function finishOf(reason: unknown): Finish {
  if (reason === 'ERROR' || reason === 'USER_CANCEL')
    throw new GatewayError('upstream_failed', 'The provider broke off its answer. Try again.');
  if (reason === 'TIMEOUT')
    throw new GatewayError('upstream_timeout', 'The provider did not finish its answer in time. Try again.');
  return FINISHES.get(reason) ?? 'stop';
}

/** `tokens` are what the model read and wrote, `billed_units` what is paid for. */
export function usageOf(value: unknown): HubUsage | undefined {
  const usage = objectOf(value);
  const counts = objectOf(usage?.tokens) ?? objectOf(usage?.billed_units);
  if (counts === undefined) return undefined;
  return {
    inputTokens: countOf(counts.input_tokens) ?? 0,
    outputTokens: countOf(counts.output_tokens) ?? 0,
    cachedInputTokens: countOf(usage?.cached_tokens),
  };
}
