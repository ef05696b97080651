/** Every text of a request and of a reply in this dialect, with its place. */
import type { Channel, Role } from '../../../proto/contract.ts';
import { isJsonObject } from '../../json.ts';
import type { Json } from '../dialect.ts';
import { escapePointer, type Segments } from '../segments.ts';
import { isOpaque } from './events.ts';

/** Where a text stands. */
export interface Place {
  role: Role;
  channel: Channel;
  old: boolean;
}

/** The content of a message or of a tool's result: a text, or blocks. */
export function contentSegments(segments: Segments, path: string, content: unknown, place: Place): void {
  if (!Array.isArray(content)) {
    segments.deep(path, content, place.role, place.channel, place.old);
    return;
  }
  content.forEach((block: unknown, i) => {
    if (isJsonObject(block)) blockSegments(segments, `${path}/${i}`, block, place);
    else segments.deep(`${path}/${i}`, block, place.role, place.channel, place.old);
  });
}

function blockSegments(segments: Segments, path: string, block: Json, place: Place): void {
  for (const [key, value] of Object.entries(block)) {
    // Hints for the cache and names of tools say nothing to the model that another field does not.
    if (key === 'cache_control' || isOpaque(block, key)) continue;
    if (key === 'name' && typeof value === 'string') continue;
    fieldSegments(segments, { path: `${path}/${escapePointer(key)}`, key, value }, block, place);
  }
}

interface Field {
  path: string;
  key: string;
  value: unknown;
}

function fieldSegments(segments: Segments, { path, key, value }: Field, block: Json, place: Place): void {
  const { role, channel, old } = place;
  if (key === 'source' && isJsonObject(value)) sourceSegments(segments, path, value, { ...place, type: block.type });
  else if (key === 'content' || key === 'citations') {
    const isResult = block.type === 'tool_result';
    contentSegments(segments, path, value, isResult ? { role: 'tool', channel: 'tool-result', old } : place);
  } else segments.deep(path, value, role, key === 'thinking' ? 'reasoning' : channel, old);
}

/** Bytes and addresses are media; a document may also be a text, or made of blocks. */
function sourceSegments(segments: Segments, path: string, source: Json, place: Place & { type: unknown }): void {
  const { role, channel, old } = place;
  for (const [key, value] of Object.entries(source)) {
    const at = `${path}/${escapePointer(key)}`;
    const isMedia = (key === 'data' && source.type !== 'text') || key === 'url';
    if (isMedia && typeof value === 'string') {
      const mediaType = typeof source.media_type === 'string' ? source.media_type : DEFAULT_TYPES.get(place.type);
      segments.media(at, value, { role, old, mediaType });
    } else if (key === 'content') contentSegments(segments, at, value, place);
    else if (!NAMES.has(key)) segments.deep(at, value, role, channel, old);
  }
}

const DEFAULT_TYPES = new Map<unknown, string>([
  ['image', 'image/*'],
  ['document', 'application/pdf'],
]);
const NAMES = new Set(['type', 'media_type', 'file_id']);
