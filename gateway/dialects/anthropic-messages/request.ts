/**
 * A request to the Messages API, read into the hub.
 * Source: https://platform.claude.com/docs/en/api/messages (fields as of 2026) and the types of the official client.
 */

import type { Feature } from '../../hub/features.ts';
import { Fields, invalid } from '../../hub/fields.ts';
import { leave, use } from '../../hub/noted.ts';
import type {
  Citation,
  HubMessage,
  HubPart,
  HubRequest,
  HubTool,
  MediaPart,
  MediaSource,
  ReasoningPart,
  ReasoningWish,
  TextPart,
  ToolCallPart,
  ToolResultPart,
} from '../../hub/request.ts';
import type { Json } from '../dialect.ts';
import { type Chat, readTurns } from '../turns.ts';

/** Reads a request; throws `invalid_request` with a sentence that names the field. */
export function toHub(body: Json): HubRequest {
  const fields = new Fields(body);
  const hub: HubRequest = { messages: [], tools: [], used: new Map(), unknown: [] };
  // The pipeline has read these: they name the target and the way of answering, not the answer.
  fields.skip('model', 'stream', 'anthropic_version');
  readSystem(fields, hub);
  readMessages(fields, hub);
  readTools(fields, hub);
  readBounds(fields, hub);
  readThinking(fields, hub);
  readOutput(fields, hub);
  readNotes(fields, hub);
  hub.unknown.push(...fields.unread());
  return hub;
}

// --- Messages -----------------------------------------------------------------------------------------------------

const ROLES = ['user', 'assistant', 'system'] as const;

function readSystem(fields: Fields, hub: HubRequest): void {
  const parts = readContent(fields, 'system', { hub, called: new Map() });
  if (parts.length === 0) return;
  use(hub, 'system', 'system');
  hub.messages.push({ role: 'system', parts, at: 'system' });
}

function readMessages(fields: Fields, hub: HubRequest): void {
  const last = readTurns(fields, hub, readMessage);
  // At the top it marks the last block that can be kept.
  const cache = readCache(fields, hub);
  const lastPart = last?.parts.findLast((part) => part.type !== 'reasoning' && part.type !== 'refusal');
  if (cache !== undefined && lastPart !== undefined) Object.assign(lastPart, { cache });
}

function readMessage(fields: Fields, chat: Chat): void {
  const { hub } = chat;
  const role = fields.word('role', ROLES);
  if (role === undefined) throw invalid(fields.at('role'), 'is missing');
  if (!fields.has('content')) throw invalid(fields.at('content'), 'is missing');
  if (role === 'system') {
    use(hub, hub.messages.some((other) => other.role !== 'system') ? 'system.later' : 'system', fields.path);
  }
  const parts = readContent(fields, 'content', chat);
  for (const run of role === 'user' ? runs(parts) : [parts]) {
    hub.messages.push({ role: run[0]?.type === 'tool-result' ? 'tool' : role, parts: run, at: fields.path });
  }
  leave(hub, fields);
}

/** A user's message holds results of tools beside what the user says; in the hub each is a message of its own. */
function runs(parts: HubPart[]): HubMessage['parts'][] {
  const all: HubPart[][] = [];
  for (const part of parts) {
    const last = all.at(-1);
    if (last !== undefined && (last[0]?.type === 'tool-result') === (part.type === 'tool-result')) last.push(part);
    else all.push([part]);
  }
  return all.length === 0 ? [[]] : all;
}

// --- Content ------------------------------------------------------------------------------------------------------

function readContent(fields: Fields, name: string, chat: Chat): HubPart[] {
  const content = fields.any(name);
  if (content === undefined) return [];
  if (typeof content === 'string') return content === '' ? [] : [{ type: 'text', text: content }];
  if (!Array.isArray(content)) throw invalid(fields.at(name), 'must be a string or a list');
  return (fields.objects(name) ?? []).flatMap((block) => readBlock(block, chat));
}

function readBlock(block: Fields, chat: Chat): HubPart[] {
  const read = BLOCKS.get(block.needString('type'));
  if (read === undefined) {
    chat.hub.unknown.push(block.path);
    return [];
  }
  const part = read(block, chat);
  if (part.type !== 'reasoning' && part.type !== 'refusal') {
    const cache = readCache(block, chat.hub);
    if (cache !== undefined) part.cache = cache;
  }
  leave(chat.hub, block);
  return [part];
}

/** The blocks by type; any other is one that the hub has no word for, such as the results of the vendor's own tools. */
const BLOCKS = new Map<string, (block: Fields, chat: Chat) => HubPart>([
  ['text', readText],
  ['image', readImage],
  ['document', readDocument],
  ['thinking', readThought],
  ['redacted_thinking', readRedacted],
  ['tool_use', readToolUse],
  ['tool_result', readToolResult],
]);

/** How long what comes before is worth keeping. */
function readCache(fields: Fields, hub: HubRequest): string | undefined {
  const hint = fields.object('cache_control');
  if (hint === undefined) return undefined;
  hint.word('type', ['ephemeral']);
  use(hub, 'cache', hint.path);
  const lasts = hint.string('ttl') ?? '';
  leave(hub, hint);
  return lasts;
}

function readText(block: Fields, { hub }: Chat): TextPart {
  const part: TextPart = { type: 'text', text: block.needString('text') };
  const citations = block.objects('citations') ?? [];
  if (citations.length === 0) return part;
  use(hub, 'citations', block.at('citations'));
  part.citations = citations.map(readCitation);
  return part;
}

/** What is cited, and of what. Places inside the document mean nothing elsewhere. */
function readCitation(cited: Fields): Citation {
  const url = cited.string('url') ?? cited.string('source');
  const title = cited.string('title') ?? cited.string('document_title');
  const document = cited.number('document_index');
  return {
    ...(url !== undefined && { url }),
    ...(title !== undefined && { title }),
    quote: cited.string('cited_text'),
    ...(document !== undefined && { document }),
  };
}

function readImage(block: Fields, { hub }: Chat): MediaPart {
  const source = needObject(block, 'source');
  const read = readSource(source);
  if (read.kind === 'text') throw invalid(source.at('type'), 'must be one of `base64`, `url`, `file`');
  use(hub, `image.${read.kind}`, block.path);
  leave(hub, source);
  return { type: 'image', source: read };
}

function readDocument(block: Fields, { hub }: Chat): MediaPart {
  const source = needObject(block, 'source');
  const read = readSource(source);
  use(hub, `file.${read.kind}`, block.path);
  leave(hub, source);
  const name = block.string('title');
  // Whether the answer is to cite it.
  const citations = block.object('citations');
  if (citations?.boolean('enabled')) hub.unknown.push(citations.path);
  return { type: 'file', source: read, ...(name !== undefined && { name }) };
}

function readSource(source: Fields): MediaSource {
  switch (source.word('type', ['base64', 'url', 'file', 'text', 'content'])) {
    case 'base64':
      return { kind: 'data', mediaType: source.needString('media_type'), data: source.needString('data') };
    case 'url':
      return { kind: 'url', url: source.needString('url') };
    case 'file':
      return { kind: 'id', id: source.needString('file_id') };
    case 'text':
      return { kind: 'text', mediaType: source.string('media_type') ?? 'text/plain', text: source.needString('data') };
    case 'content':
      return { kind: 'text', mediaType: 'text/plain', text: blocksText(source) };
    default:
      throw invalid(source.at('type'), 'is missing');
  }
}

/** A document that is made of blocks of text; with anything else in it, it is more than a text. */
function blocksText(source: Fields): string {
  if (typeof source.any('content') === 'string') return source.needString('content');
  const blocks = source.objects('content') ?? [];
  const odd = blocks.find((block) => block.string('type') !== 'text');
  if (odd !== undefined)
    throw invalid(odd.path, 'must be text: a document of other blocks has no counterpart elsewhere');
  return blocks.map((block) => block.needString('text')).join('\n');
}

function needObject(fields: Fields, name: string): Fields {
  const object = fields.object(name);
  if (object === undefined) throw invalid(fields.at(name), 'is missing');
  return object;
}

function readThought(block: Fields, { hub }: Chat): ReasoningPart {
  use(hub, 'reasoning.history', block.path);
  const signature = block.string('signature');
  return { type: 'reasoning', text: block.needString('thinking'), ...(signature && { signature }) };
}

function readRedacted(block: Fields, { hub }: Chat): ReasoningPart {
  use(hub, 'reasoning.history', block.path);
  return { type: 'reasoning', text: '', redacted: block.needString('data') };
}

function readToolUse(block: Fields, { hub, called }: Chat): ToolCallPart {
  const [id, name] = [block.needString('id'), block.needString('name')];
  const caller = block.object('caller');
  if (caller !== undefined && caller.string('type') !== 'direct') hub.unknown.push(caller.path);
  called.set(id, name);
  return { type: 'tool-call', id, name, arguments: JSON.stringify(block.json('input') ?? {}) };
}

function readToolResult(block: Fields, chat: Chat): ToolResultPart {
  const { hub, called } = chat;
  const id = block.needString('tool_use_id');
  const parts = readContent(block, 'content', chat);
  if (parts.some(({ type }) => type !== 'text')) use(hub, 'tool-result.media', block.at('content'));
  const isError = block.boolean('is_error');
  if (isError) use(hub, 'tool-result.error', block.at('is_error'));
  return { type: 'tool-result', id, name: called.get(id), parts, ...(isError && { isError }) };
}

// --- Tools --------------------------------------------------------------------------------------------------------

function readTools(fields: Fields, hub: HubRequest): void {
  for (const tool of fields.objects('tools') ?? []) {
    // What has another type runs at the vendor.
    if ((tool.string('type') ?? 'custom') === 'custom') hub.tools.push(readTool(tool, hub));
    else hub.unknown.push(tool.path);
  }
  if (hub.tools.length > 0) use(hub, 'tools', 'tools');
  const choice = fields.object('tool_choice');
  if (choice !== undefined) readChoice(choice, hub);
}

function readTool(tool: Fields, hub: HubRequest): HubTool {
  const strict = tool.boolean('strict');
  if (strict) use(hub, 'tools.strict', tool.at('strict'));
  // It tells how finely the arguments are streamed; they are passed on as they come anyway.
  tool.skip('eager_input_streaming');
  const callers = tool.strings('allowed_callers');
  if (callers?.some((caller) => caller !== 'direct')) hub.unknown.push(tool.at('allowed_callers'));
  if (tool.boolean('defer_loading')) hub.unknown.push(tool.at('defer_loading'));
  const read: HubTool = {
    name: tool.needString('name'),
    description: tool.string('description'),
    parameters: tool.json('input_schema'),
    strict,
    cache: readCache(tool, hub),
  };
  leave(hub, tool);
  return read;
}

function readChoice(choice: Fields, hub: HubRequest): void {
  const type = choice.word('type', ['auto', 'any', 'tool', 'none']);
  if (choice.boolean('disable_parallel_tool_use')) {
    hub.parallelToolCalls = false;
    use(hub, 'parallel-tools', choice.at('disable_parallel_tool_use'));
  }
  if (type === 'tool') hub.toolChoice = { name: choice.needString('name') };
  else if (type !== undefined) hub.toolChoice = type === 'any' ? 'required' : type;
  if (type !== undefined && type !== 'auto') {
    use(hub, 'tool-choice', choice.path);
    use(hub, CHOICE_FEATURES[type], choice.path);
  }
  leave(hub, choice);
}

const CHOICE_FEATURES = {
  any: 'tool-choice.required',
  tool: 'tool-choice.name',
  none: 'tool-choice.none',
} as const satisfies Record<string, Feature>;

// --- How to answer ------------------------------------------------------------------------------------------------

/** Plain numbers, by the client's name, the feature and the hub's name. */
const NUMBERS = [
  ['temperature', 'temperature', 'temperature'],
  ['top_p', 'top-p', 'topP'],
  ['top_k', 'top-k', 'topK'],
] as const;

function readBounds(fields: Fields, hub: HubRequest): void {
  const most = fields.number('max_tokens');
  if (most !== undefined) {
    if (!Number.isSafeInteger(most) || most < 1) throw invalid('max_tokens', 'must be a whole number from 1 on');
    hub.maxOutputTokens = most;
    use(hub, 'max-tokens', 'max_tokens');
  }
  for (const [name, feature, own] of NUMBERS) {
    const value = fields.number(name);
    if (value === undefined) continue;
    hub[own] = value;
    use(hub, feature, name);
  }
  const stop = fields.strings('stop_sequences')?.filter((one) => one !== '') ?? [];
  if (stop.length === 0) return;
  hub.stop = stop;
  use(hub, 'stop', 'stop_sequences');
}

/** `adaptive` leaves it to the model, as every other vendor does that is told nothing. */
function readThinking(fields: Fields, hub: HubRequest): void {
  const thinking = fields.object('thinking');
  if (thinking === undefined) return;
  const type = thinking.word('type', ['enabled', 'adaptive', 'disabled', 'between_tools']);
  if (type === 'between_tools') hub.unknown.push(thinking.at('type'));
  else if (type === 'disabled') wish(hub, { off: true }, thinking.path);
  else if (type === 'enabled') {
    const budget = thinking.number('budget_tokens');
    if (budget === undefined) throw invalid(thinking.at('budget_tokens'), 'is missing');
    // Whoever asks so is shown the thoughts, unless the display says otherwise.
    wish(hub, { budget, shown: true }, thinking.path);
  }
  const display = thinking.word('display', ['summarized', 'omitted']);
  if (display !== undefined) {
    hub.reasoning = { ...hub.reasoning, shown: display === 'summarized' };
    use(hub, 'reasoning.shown', thinking.at('display'));
  }
  leave(hub, thinking);
}

function wish(hub: HubRequest, wanted: ReasoningWish, path: string): void {
  hub.reasoning = { ...hub.reasoning, ...wanted };
  use(hub, 'reasoning', path);
}

function readOutput(fields: Fields, hub: HubRequest): void {
  // The name that the format had before it moved into `output_config`.
  readFormat(fields.object('output_format'), hub);
  const config = fields.object('output_config');
  if (config === undefined) return;
  const effort = config.word('effort', ['low', 'medium', 'high', 'xhigh', 'max']);
  if (effort !== undefined) wish(hub, { effort }, config.at('effort'));
  readFormat(config.object('format'), hub);
  leave(hub, config);
}

function readFormat(format: Fields | undefined, hub: HubRequest): void {
  if (format === undefined) return;
  format.word('type', ['json_schema']);
  hub.format = { type: 'json-schema', schema: format.json('schema') ?? {} };
  use(hub, 'format.schema', format.path);
  leave(hub, format);
}

function readNotes(fields: Fields, hub: HubRequest): void {
  const metadata = fields.object('metadata');
  const user = metadata?.string('user_id');
  if (user !== undefined && user !== '') {
    hub.user = user;
    use(hub, 'user', 'metadata.user_id');
  }
  leave(hub, metadata);
  if (fields.word('service_tier', ['auto', 'standard_only']) === 'standard_only') {
    hub.serviceTier = 'default';
    use(hub, 'service-tier', 'service_tier');
  }
  if (fields.word('speed', ['standard', 'fast']) === 'fast') hub.unknown.push('speed');
}
