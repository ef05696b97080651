/**
 * The hub's messages as Converse's: turns of user and assistant in alternation, each a list of blocks.
 * Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
 */
import { createHash } from 'node:crypto';
import type { Json } from '../../dialects/dialect.ts';
import { invalid } from '../../hub/fields.ts';
import type { HubMessage, HubPart, HubRequest, MediaPart, ReasoningPart, ToolResultPart } from '../../hub/request.ts';
import { isJsonObject, parseJson } from '../../json.ts';
import { type Family, familyOf } from './models.ts';

/** One turn. */
export interface Turn {
  role: 'user' | 'assistant';
  content: Json[];
}

/** What the blocks of one request share. */
interface Writing {
  family: Family;
  /** Names that documents have already: no two may have the same. */
  names: Set<string>;
}

/** All turns; neighbours of one role become one, and tool results are the user's. */
export function turnsOf(request: HubRequest, model: string): Turn[] {
  const writing: Writing = { family: familyOf(model), names: new Set() };
  const turns: Turn[] = [];
  for (const message of request.messages) {
    if (message.role === 'system') continue;
    const role = message.role === 'assistant' ? 'assistant' : 'user';
    const content = message.parts.flatMap((part) => blocksOf(part, message, writing));
    if (content.length === 0) continue;
    const last = turns.at(-1);
    if (last?.role === role) for (const block of content) last.content.push(block);
    else turns.push({ role, content });
  }
  return turns;
}

/** The system's words, wherever they stood. */
export function systemOf(messages: HubMessage[]): Json[] {
  return messages
    .filter(({ role }) => role === 'system')
    .flatMap(({ parts, at }) =>
      parts.flatMap((part) => {
        if (part.type !== 'text') throw invalid(at, 'can hold text alone for Bedrock: it is a system message');
        return [...textBlocks(part.text), ...cachePoint(part.cache)];
      }),
    );
}

function blocksOf(part: HubPart, message: HubMessage, writing: Writing): Json[] {
  const blocks = bareBlocks(part, message, writing);
  return 'cache' in part && blocks.length > 0 ? [...blocks, ...cachePoint(part.cache)] : blocks;
}

function bareBlocks(part: HubPart, { at }: HubMessage, writing: Writing): Json[] {
  switch (part.type) {
    case 'text':
    case 'refusal':
      return textBlocks(part.text);
    case 'reasoning':
      return writing.family === 'claude' ? thoughts(part) : [];
    case 'tool-call':
      return [{ toolUse: { toolUseId: toolId(part.id), name: part.name, input: argumentsOf(part.arguments, at) } }];
    case 'tool-result':
      return [{ toolResult: resultOf(part, at, writing) }];
    default:
      return [mediaBlock(part, at, writing)];
  }
}

/** A blank text is refused, and says nothing. */
function textBlocks(text: string): Json[] {
  return text.trim() === '' ? [] : [{ text }];
}

/** A place up to which the prompt is worth caching. */
export function cachePoint(hint: string | undefined): Json[] {
  if (hint === undefined) return [];
  return [{ cachePoint: { type: 'default', ...(TTLS.has(hint) && { ttl: hint }) } }];
}

const TTLS: ReadonlySet<string> = new Set(['5m', '1h']);

/** Thoughts go back sealed or not at all: the model refuses any whose seal is not there. */
function thoughts({ text, signature, redacted }: ReasoningPart): Json[] {
  if (redacted !== undefined) return isOwnSeal(redacted) ? [{ reasoningContent: { redactedContent: redacted } }] : [];
  if (signature === undefined || !isOwnSeal(signature)) return [];
  return [{ reasoningContent: { reasoningText: { text, signature } } }];
}

/** Claude's seals are base64. OpenAI's begin as Fernet tokens do, and those that the gateway has marked hold a colon. */
function isOwnSeal(seal: string): boolean {
  return /^[A-Za-z0-9+/]+={0,2}$/.test(seal) && !seal.startsWith('gAAAA');
}

// --- Tools --------------------------------------------------------------------------------------------------------

/** Ids of other vendors may be longer, or have signs that Bedrock refuses; the call and its result change alike. */
function toolId(id: string): string {
  if (/^[\w-]{1,64}$/.test(id)) return id;
  const hash = createHash('sha256').update(id).digest('hex').slice(0, 16);
  return `${id.replaceAll(/[^\w-]/g, '_').slice(0, 47)}_${hash}`;
}

function argumentsOf(text: string, at: string): Json {
  const value = text === '' ? {} : parseJson(text);
  if (!isJsonObject(value)) throw invalid(at, 'calls a tool with arguments that are no JSON object');
  return value;
}

function resultOf({ id, parts, isError }: ToolResultPart, at: string, writing: Writing): Json {
  const content = parts.map((part) => resultBlock(part, at, writing));
  return { toolUseId: toolId(id), content, ...(isError && { status: 'error' }) };
}

/** A result may be blank, unlike any other text. */
function resultBlock(part: HubPart, at: string, writing: Writing): Json {
  if (part.type === 'text' || part.type === 'refusal') return { text: part.text };
  if (part.type === 'image' || part.type === 'file' || part.type === 'video') return mediaBlock(part, at, writing);
  throw invalid(at, 'has a tool result that holds neither text nor images, documents or films');
}

// --- Media --------------------------------------------------------------------------------------------------------

const IMAGES = new Map([
  ['image/png', 'png'],
  ['image/jpeg', 'jpeg'],
  ['image/jpg', 'jpeg'],
  ['image/gif', 'gif'],
  ['image/webp', 'webp'],
]);
const DOCUMENTS = new Map([
  ['application/pdf', 'pdf'],
  ['text/csv', 'csv'],
  ['application/msword', 'doc'],
  ['application/vnd.openxmlformats-officedocument.wordprocessingml.document', 'docx'],
  ['application/vnd.ms-excel', 'xls'],
  ['application/vnd.openxmlformats-officedocument.spreadsheetml.sheet', 'xlsx'],
  ['text/html', 'html'],
  ['text/plain', 'txt'],
  ['text/markdown', 'md'],
]);
const SOUNDS = new Map([
  ['audio/mpeg', 'mp3'],
  ['audio/mp3', 'mp3'],
  ['audio/wav', 'wav'],
  ['audio/x-wav', 'wav'],
  ['audio/opus', 'opus'],
  ['audio/aac', 'aac'],
  ['audio/flac', 'flac'],
  ['audio/ogg', 'ogg'],
  ['audio/mp4', 'mp4'],
  ['audio/m4a', 'm4a'],
  ['audio/x-m4a', 'm4a'],
  ['audio/pcm', 'pcm'],
  ['audio/webm', 'webm'],
]);
const FILMS = new Map([
  ['video/mp4', 'mp4'],
  ['video/webm', 'webm'],
  ['video/quicktime', 'mov'],
  ['video/x-matroska', 'mkv'],
  ['video/x-flv', 'flv'],
  ['video/mpeg', 'mpeg'],
  ['video/x-ms-wmv', 'wmv'],
  ['video/3gpp', 'three_gp'],
]);

const MEDIA = {
  image: { word: 'image', formats: IMAGES, says: 'an image' },
  file: { word: 'document', formats: DOCUMENTS, says: 'a document' },
  audio: { word: 'audio', formats: SOUNDS, says: 'sound' },
  video: { word: 'video', formats: FILMS, says: 'a film' },
} as const;

/**
 * Bytes alone: Bedrock would also take what lies in S3, but with the gateway's own rights, which are not the client's.
 */
function mediaBlock({ type, source, name }: MediaPart, at: string, { names }: Writing): Json {
  const { word, formats, says } = MEDIA[type];
  if (source.kind !== 'data' && source.kind !== 'text')
    throw invalid(at, `has ${says} by reference; Bedrock needs it inline`);
  const format = formats.get(source.mediaType.split(';')[0]!.trim().toLowerCase());
  if (format === undefined)
    throw invalid(
      at,
      `has ${says} of a type that Bedrock does not take; send ${[...new Set(formats.values())].join(', ')}`,
    );
  const bytes = source.kind === 'data' ? source.data : Buffer.from(source.text).toString('base64');
  const named = type === 'file' ? { name: documentName(name, names) } : {};
  return { [word]: { format, ...named, source: { bytes } } };
}

/** Letters, digits, single blanks, hyphens, brackets; every document of a conversation by another name. */
function documentName(name: string | undefined, taken: Set<string>): string {
  const plain =
    (name ?? '')
      .replaceAll(/[^A-Za-z0-9\s()[\]-]/g, ' ')
      .replaceAll(/\s+/g, ' ')
      .trim()
      .slice(0, 190) || 'document';
  let own = plain;
  for (let i = 2; taken.has(own); i++) own = `${plain} (${i})`;
  taken.add(own);
  return own;
}
