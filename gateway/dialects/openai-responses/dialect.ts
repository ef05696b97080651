/**
 * OpenAI Responses: `POST /v1/responses`.
 * Source: https://platform.openai.com/docs/api-reference/responses (fields as of 2026).
 */
import type { ErrorShape } from '../../errors.ts';
import { invalid, textOf } from '../../hub/fields.ts';
import { isJsonObject, parseJson } from '../../json.ts';
import { openReader } from '../../providers/openai/responses/stream.ts';
import type { ChatDialect, Json, ModelRequest, ReplyFacts } from '../dialect.ts';
import { openaiChat } from '../openai-chat/dialect.ts';
import { frame, readEvent, remember, skimEvents, textEvent } from './events.ts';
import { replySegments, replyTools, requestSegments, writeSegments } from './items.ts';
import { cutShort, limitOutput, markLimited } from './quota.ts';
import { fromHub } from './reply.ts';
import { toHub } from './request.ts';
import { openWriter } from './stream.ts';
import { readUsage } from './usage.ts';

const { errorBody, modelList, modelEntry } = openaiChat;

export const openaiResponses: ChatDialect = {
  name: 'openai-responses',
  operation: 'chat',
  // Every answer ends with its usage, unasked.
  asksUsage: false,
  repeatsText: true,
  sealsText: true,
  paths: ['/v1/responses', '/responses'],
  readRequest,
  requestSegments,
  replySegments,
  replyTools,
  writeSegments,
  replyFacts: (body) => ({ usage: readUsage(body.usage), model: textOf(body.model) }),
  skimReply,
  rename: (body, model) => {
    body.model = model;
  },
  limitOutput,
  markLimited,
  cutShort,
  readEvent,
  skimEvents,
  remember,
  textEvent,
  frame,
  errorBody,
  errorFrame,
  modelList,
  modelEntry,
  toHub,
  fromHub,
  openReader: () => openReader('gateway'),
  openWriter,
};

function readRequest(body: Json): ModelRequest {
  const { model, input, stream, max_output_tokens: most } = body;
  if (model !== undefined && typeof model !== 'string') throw invalid('model', 'must be a string');
  const isList = Array.isArray(input) && input.every(isJsonObject);
  // A stored prompt may stand in its place.
  if ((input ?? undefined) !== undefined && typeof input !== 'string' && !isList)
    throw invalid('input', 'must be a string or a list of objects');
  if (stream !== undefined && stream !== null && typeof stream !== 'boolean')
    throw invalid('stream', 'must be true or false');
  return {
    body,
    model,
    stream: stream === true,
    wantsUsage: true,
    maxOutputTokens: typeof most === 'number' && most >= 1 ? most : undefined,
    choices: 1,
  };
}

/**
 * Quotes inside strings are escaped, so `"usage":` can be nothing but a key. An answer repeats the client's tools and
 * schemas, which may have such a key too: where there are any, it is read whole.
 */
function skimReply(reply: string): ReplyFacts | undefined {
  if (reply[0] !== '{' || !/"tools": ?\[\]/.test(reply) || /"(?:schema|variables)":/.test(reply)) return undefined;
  const usage = after(reply, '"usage":', /\s*(\{(?:[^{}]|\{[^{}]*\})*\})/y);
  const model = after(reply, '"model":', /\s*"([^"\\]*)"/y);
  const read = usage === undefined ? undefined : readUsage(parseJson(usage));
  return read && model !== undefined ? { usage: read, model } : undefined;
}

/** What a pattern's group finds after a key, where the text has that key once. */
function after(text: string, key: string, pattern: RegExp): string | undefined {
  const at = text.indexOf(key);
  if (at < 0 || text.indexOf(key, at + 1) >= 0) return undefined;
  pattern.lastIndex = at + key.length;
  return pattern.exec(text)?.[1];
}

/** The error event of a stream is flat. */
function errorFrame({ message, code, param }: ErrorShape): string {
  return frame({ type: 'error', sequence_number: 0, code, message, param: param ?? null });
}
