/**
 * Turns of a conversation as the Messages API wants them: the system's words apart, roles that alternate, the user first,
 * results of tools at the beginning of the user's turn.
 */
import type { Json } from '../../dialects/dialect.ts';
import { invalid } from '../../hub/fields.ts';
import type {
  HubMessage,
  HubPart,
  MediaPart,
  MediaSource,
  ReasoningPart,
  ToolCallPart,
  ToolResultPart,
} from '../../hub/request.ts';
import { isJsonObject, parseJson } from '../../json.ts';

/** The system's words, as blocks. */
export function systemOf(messages: HubMessage[]): Json[] {
  return messages.filter(({ role }) => role === 'system').flatMap(({ parts, at }) => parts.flatMap(systemBlock(at)));
}

function systemBlock(at: string): (part: HubPart) => Json[] {
  return (part) => {
    if (part.type !== 'text') throw invalid(at, 'can only hold text: it is the system’s');
    return textBlocks(part.text, part.cache);
  };
}

/** All turns but the system's. @throws GatewayError `invalid_request` that names the client's message */
export function turnsOf(messages: HubMessage[]): Json[] {
  const turns: { role: 'user' | 'assistant'; content: Json[]; at: string }[] = [];
  for (const { role, parts, at } of messages) {
    if (role === 'system') continue;
    const content = parts.flatMap((part) => blocksOf(part, at));
    // Empty turns are refused, and say nothing.
    if (content.length === 0) continue;
    const speaker = role === 'assistant' ? 'assistant' : 'user';
    const last = turns.at(-1);
    if (last?.role === speaker) last.content.push(...content);
    else turns.push({ role: speaker, content, at });
  }
  const [first] = turns;
  if (first === undefined) throw invalid(messages[0]?.at ?? 'messages', 'cannot be all: a user’s turn is missing');
  if (first.role !== 'user') throw invalid(first.at, 'cannot be the first turn: for this provider the user begins');
  endWithoutSpace(turns.at(-1)!);
  return turns.map(({ role, content }) => ({ role, content: role === 'user' ? resultsFirst(content) : content }));
}

function resultsFirst(content: Json[]): Json[] {
  const isResult = ({ type }: Json) => type === 'tool_result';
  return [...content.filter(isResult), ...content.filter((block) => !isResult(block))];
}

/** A text to go on from that ends in white space is refused. */
function endWithoutSpace({ role, content }: { role: string; content: Json[] }): void {
  const last = content.at(-1);
  if (role === 'assistant' && typeof last?.text === 'string') last.text = last.text.trimEnd();
}

/** Blocks without visible text are refused. */
function textBlocks(text: string, cache?: string): Json[] {
  return text.trim() === '' ? [] : [{ type: 'text', text, cache_control: cacheControl(cache) }];
}

/** The hint that what comes before is worth keeping; any time but the two that there are is the vendor's default. */
export function cacheControl(cache: string | undefined): Json | undefined {
  if (cache === undefined) return undefined;
  return { type: 'ephemeral', ttl: cache === '5m' || cache === '1h' ? cache : undefined };
}

function blocksOf(part: HubPart, at: string): Json[] {
  switch (part.type) {
    case 'text':
      return textBlocks(part.text, part.cache);
    case 'refusal':
      return textBlocks(part.text);
    case 'reasoning':
      return thoughtBlocks(part);
    case 'tool-call':
      return [callBlock(part, at)];
    case 'tool-result':
      return [resultBlock(part, at)];
    default:
      return [mediaBlock(part, at)];
  }
}

/** Only sealed thoughts may go back; another vendor's seal would be refused. */
function thoughtBlocks({ text, signature, redacted }: ReasoningPart): Json[] {
  if (redacted !== undefined) return isOwn(redacted) ? [{ type: 'redacted_thinking', data: redacted }] : [];
  return signature !== undefined && isOwn(signature) ? [{ type: 'thinking', thinking: text, signature }] : [];
}

/** Seals are base64. OpenAI's begin with the version byte of a Fernet token, the gateway's marks hold a colon. */
function isOwn(seal: string): boolean {
  return !seal.startsWith('gAAAA') && !seal.includes(':');
}

function callBlock({ id, name, arguments: text, cache }: ToolCallPart, at: string): Json {
  const input = text.trim() === '' ? {} : parseJson(text);
  if (!isJsonObject(input)) throw invalid(at, 'has a tool call whose arguments are not a JSON object');
  return { type: 'tool_use', id: ownId(id), name, input, cache_control: cacheControl(cache) };
}

function resultBlock({ id, parts, isError, cache }: ToolResultPart, at: string): Json {
  const content = parts.flatMap((part) => blocksOf(part, at));
  return {
    type: 'tool_result',
    tool_use_id: ownId(id),
    content: content.length === 0 ? undefined : content,
    is_error: isError ? true : undefined,
    cache_control: cacheControl(cache),
  };
}

/** Ids hold letters, digits, `_` and `-` alone; other vendors' hold more. */
function ownId(id: string): string {
  return id.replaceAll(/[^\w-]/g, '_');
}

// --- Media --------------------------------------------------------------------------------------------------------

function mediaBlock({ type, source, name, cache }: MediaPart, at: string): Json {
  const cache_control = cacheControl(cache);
  if (type === 'image') return { type: 'image', source: imageSource(source, at), cache_control };
  if (type !== 'file') throw invalid(at, `cannot hold ${type} for this provider`);
  return { type: 'document', source: documentSource(source, at), title: name, cache_control };
}

const IMAGES: ReadonlySet<string> = new Set(['image/jpeg', 'image/png', 'image/gif', 'image/webp']);

function imageSource(source: MediaSource, at: string): Json {
  if (source.kind === 'text') throw invalid(at, 'has an image that is a text');
  if (source.kind !== 'data') return elsewhere(source);
  const mediaType = source.mediaType === 'image/jpg' ? 'image/jpeg' : source.mediaType;
  if (!IMAGES.has(mediaType)) throw invalid(at, 'has an image that is no JPEG, PNG, GIF or WebP');
  return { type: 'base64', media_type: mediaType, data: source.data };
}

function documentSource(source: MediaSource, at: string): Json {
  if (source.kind === 'text') return { type: 'text', media_type: 'text/plain', data: source.text };
  if (source.kind !== 'data') return elsewhere(source);
  if (source.mediaType === 'application/pdf')
    return { type: 'base64', media_type: 'application/pdf', data: source.data };
  if (/^text\/|^application\/json$/.test(source.mediaType)) {
    const text = Buffer.from(source.data, 'base64').toString('utf8');
    return { type: 'text', media_type: 'text/plain', data: text };
  }
  throw invalid(at, 'has a file that is neither PDF nor text');
}

function elsewhere(source: MediaSource & { kind: 'url' | 'id' }): Json {
  return source.kind === 'url' ? { type: 'url', url: source.url } : { type: 'file', file_id: source.id };
}
