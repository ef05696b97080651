/**
 * Anthropic's Messages: `POST /v1/messages`.
 * Source: https://platform.claude.com/docs/en/api/messages (fields as of 2026).
 */
import type { Role, Segment } from '../../../proto/contract.ts';
import { badAnswer } from '../../hub/fields.ts';
import { isJsonObject, parseJson } from '../../json.ts';
import { MessagesReader } from '../../providers/anthropic/stream.ts';
import type { ChatDialect, Json, ListedModel, ModelRequest, ReplyFacts, ToolCall } from '../dialect.ts';
import { escapePointer, Segments, writeTexts } from '../segments.ts';
import { readHead } from '../turns.ts';
import { errorBody, errorFrame } from './error.ts';
import { readEvent, skimEvents, textEvent } from './events.ts';
import { cutShort, limitOutput, markLimited } from './quota.ts';
import { fromHub } from './reply.ts';
import { toHub } from './request.ts';
import { breakSeals, dropBroken, hasBrokenSeals } from './seals.ts';
import { contentSegments } from './segments.ts';
import { frame, openWriter } from './stream.ts';
import { readUsage } from './usage.ts';

export const anthropicMessages: ChatDialect = {
  name: 'anthropic-messages',
  operation: 'chat',
  // Its streams always tell.
  asksUsage: false,
  sealsText: true,
  paths: ['/v1/messages', '/messages'],
  readRequest,
  requestSegments,
  replySegments,
  replyTools,
  writeSegments,
  replyFacts,
  skimReply,
  rename,
  limitOutput,
  markLimited,
  toHub,
  fromHub,
  openReader: () => new MessagesReader('gateway'),
  openWriter,
  cutShort,
  readEvent,
  skimEvents,
  textEvent,
  frame,
  errorBody,
  errorFrame,
  listing,
  modelList,
  modelEntry: (model) => JSON.stringify(modelEntry(model)),
};

function rename(body: Json, model: string): void {
  body.model = model;
}

// --- Models ---------------------------------------------------------------------------------------------------------

/** The path is other dialects' as well; who speaks this one says its version with every request. */
function listing(path: string, headers: Readonly<Record<string, string | undefined>>): string | undefined {
  if (headers['anthropic-version'] === undefined) return undefined;
  const groups = /^(?:\/v1)?\/models(?:\/(?<id>.+))?$/.exec(path)?.groups;
  return groups && (groups.id ?? '');
}

function modelEntry({ id }: ListedModel): Json {
  return { type: 'model', id, display_name: id, created_at: '1970-01-01T00:00:00Z' };
}

/** All of them at once: there is no page after the first. */
function modelList(models: ListedModel[]): string {
  const [first, last] = [models[0]?.id ?? null, models.at(-1)?.id ?? null];
  return JSON.stringify({ data: models.map(modelEntry), has_more: false, first_id: first, last_id: last });
}

// --- Requests -------------------------------------------------------------------------------------------------------

function readRequest(body: Json): ModelRequest {
  const { max_tokens: most } = body;
  return {
    body,
    ...readHead(body),
    wantsUsage: true,
    choices: 1,
    maxOutputTokens: typeof most === 'number' && most >= 1 ? most : undefined,
    ...(hasBrokenSeals(body) && { amend: dropBroken }),
  };
}

/** What says how to answer, and nothing that the model reads. */
const SETTINGS = new Set([
  'model',
  'max_tokens',
  'stream',
  'temperature',
  'top_p',
  'top_k',
  'stop_sequences',
  'metadata',
  'service_tier',
  'thinking',
  'tool_choice',
  'cache_control',
  'container',
  'inference_geo',
  'anthropic_version',
  // Addresses and credentials of the vendor's own connections.
  'mcp_servers',
]);

function requestSegments(body: Json): Segment[] {
  const segments = new Segments();
  const messages = body.messages as Json[];
  const newest = messages.findLastIndex(isTurn);
  contentSegments(segments, '/system', body.system, { role: 'system', channel: 'text', old: false });
  messages.forEach((message, i) => {
    const role = roleOf(message.role);
    // The system's words are no turn: they stand for the whole chat.
    const old = i < newest && role !== 'system';
    contentSegments(segments, `/messages/${i}/content`, message.content, { role, channel: 'text', old });
    for (const [key, value] of Object.entries(message)) {
      if (key !== 'role' && key !== 'content')
        segments.deep(`/messages/${i}/${escapePointer(key)}`, value, role, 'text', old);
    }
  });
  for (const field of Object.keys(body)) {
    if (field === 'messages' || field === 'system' || SETTINGS.has(field)) continue;
    segments.deep(
      `/${escapePointer(field)}`,
      body[field],
      'system',
      DEFINITIONS.has(field) ? 'tool-definition' : 'text',
      false,
    );
  }
  return segments.list;
}

const DEFINITIONS = new Set(['tools', 'output_config', 'output_format']);

/** Whether a user speaks, and not a tool alone. */
function isTurn({ role, content }: Json): boolean {
  if (role !== 'user') return false;
  return !Array.isArray(content) || content.some((block) => !isJsonObject(block) || block.type !== 'tool_result');
}

function roleOf(role: unknown): Role {
  return role === 'assistant' || role === 'system' ? role : 'user';
}

// --- Replies --------------------------------------------------------------------------------------------------------

function replySegments(body: Json): Segment[] {
  const segments = new Segments();
  const place = { role: 'assistant', channel: 'text', old: false } as const;
  contentSegments(segments, '/content', blocksOf(body), place);
  if (isJsonObject(body.stop_details)) {
    for (const [key, value] of Object.entries(body.stop_details)) {
      if (key !== 'type') segments.deep(`/stop_details/${escapePointer(key)}`, value, 'assistant', 'refusal', false);
    }
  }
  segments.beside(body, REPLY_FACTS);
  return segments.list;
}

/** What a reply tells of itself, and what is read for itself. */
const REPLY_FACTS = new Set([
  ...['content', 'stop_details', 'id', 'type', 'role', 'model', 'stop_reason', 'stop_sequence', 'usage', 'container'],
]);

/** @throws GatewayError when there is content and no list: a client would find it, and no guard */
function blocksOf({ content }: Json): unknown[] {
  if (content === undefined || content === null) return [];
  if (Array.isArray(content)) return content;
  throw badAnswer();
}

function replyTools(body: Json): ToolCall[] {
  return blocksOf(body).flatMap((block, i) => {
    if (!isJsonObject(block) || typeof block.type !== 'string' || !block.type.endsWith('tool_use')) return [];
    return [{ call: `0/tool-arguments/${i}`, name: typeof block.name === 'string' ? block.name : undefined }];
  });
}

/** What was changed of the thoughts goes to the client without its seal, and not back to the vendor at all. */
function writeSegments(body: Json, rewritten: ReadonlyMap<string, string>): void {
  writeTexts(body, rewritten);
  breakSeals(body, rewritten);
  dropBroken(body);
}

function replyFacts(body: Json): ReplyFacts {
  return { usage: readUsage(body.usage), model: typeof body.model === 'string' ? body.model : undefined };
}

/**
 * The vendor writes the model before the content and the usage last. Quotes inside strings are escaped, so `"usage":` is
 * a key; that what follows it is JSON up to the reply's own brace tells that it is none inside a tool's input.
 */
function skimReply(reply: string): ReplyFacts | undefined {
  const [start, end] = [reply.lastIndexOf('"usage":'), reply.trimEnd().length - 1];
  const head = /^\{[^[]*?"model": ?"([^"\\]*)"/.exec(reply);
  if (start < 0 || reply[end] !== '}' || head === null) return undefined;
  const usage = readUsage(parseJson(reply.slice(start + '"usage":'.length, end)));
  return usage && { usage, model: head[1] };
}
