/** The pieces of text in Gemini's contents: of requests and whole answers alike. */
import type { Channel, Role } from '../../../proto/contract.ts';
import { textOf } from '../../hub/fields.ts';
import { isJsonObject } from '../../json.ts';
import type { Json } from '../dialect.ts';
import { escapePointer, type Segments } from '../segments.ts';
import { camel, fieldOf } from './spelling.ts';

/** Where a part stands. */
export interface Place {
  role: Role;
  old: boolean;
}

/** Whether a value is a seal as Google writes them: base64, which says nothing to anybody. */
export function isSeal(value: unknown): boolean {
  return typeof value === 'string' && /[A-Za-z]/.test(value) && /^(?:[A-Za-z0-9+/]+|[A-Za-z0-9_-]+)={0,2}$/.test(value);
}

/** The parts of one content; `path` is its JSON pointer. What is no list of parts is read all the same. */
export function contentSegments(segments: Segments, path: string, content: unknown, place: Place): void {
  if (!isJsonObject(content)) {
    segments.deep(path, content, place.role, 'text', place.old);
    return;
  }
  for (const [key, value] of Object.entries(content)) {
    const at = `${path}/${escapePointer(key)}`;
    if (key === 'parts' && Array.isArray(value)) {
      value.forEach((part, i) => partSegments(segments, `${at}/${i}`, part, place));
    } else if (key !== 'role') segments.deep(at, value, place.role, 'text', place.old);
  }
}

function partSegments(segments: Segments, path: string, part: unknown, place: Place): void {
  if (!isJsonObject(part)) {
    segments.deep(path, part, place.role, 'text', place.old);
    return;
  }
  const channel: Channel = part.thought === true ? 'reasoning' : 'text';
  for (const [key, value] of Object.entries(part)) {
    fieldSegments(segments, `${path}/${escapePointer(key)}`, camel(key), value, { ...place, channel });
  }
}

function fieldSegments(
  segments: Segments,
  path: string,
  field: string,
  value: unknown,
  place: Place & { channel: Channel },
): void {
  const { role, channel, old } = place;
  if (field === 'inlineData' && isJsonObject(value)) blobSegments(segments, path, value, place);
  else if (field === 'fileData' && isJsonObject(value)) fileSegments(segments, path, value, place);
  else if (field === 'functionCall' && isJsonObject(value)) callSegments(segments, path, value, place);
  else if (field === 'functionResponse' && isJsonObject(value)) resultSegments(segments, path, value, old);
  else if (field !== 'thoughtSignature' || !isSeal(value)) segments.deep(path, value, role, channel, old);
}

function blobSegments(segments: Segments, path: string, blob: Json, place: Place): void {
  mediaSegments(segments, path, blob, place, 'data');
}

function fileSegments(segments: Segments, path: string, file: Json, place: Place): void {
  mediaSegments(segments, path, file, place, 'fileUri');
}

function mediaSegments(segments: Segments, path: string, media: Json, { role, old }: Place, reference: string): void {
  const mediaType = textOf(fieldOf(media, 'mimeType')) ?? 'application/octet-stream';
  for (const [key, value] of Object.entries(media)) {
    const at = `${path}/${escapePointer(key)}`;
    if (camel(key) === reference && typeof value === 'string') {
      segments.media(at, value, { role, old, mediaType });
    } else if (camel(key) !== 'mimeType') segments.deep(at, value, role, 'text', old);
  }
}

/** Arguments are an object here: each string in them is a text of its own. */
function callSegments(segments: Segments, path: string, call: Json, { role, old }: Place): void {
  for (const [key, value] of Object.entries(call)) {
    if (key !== 'id' && key !== 'name') segments.deep(`${path}/${escapePointer(key)}`, value, role, 'text', old);
  }
}

function resultSegments(segments: Segments, path: string, result: Json, old: boolean): void {
  for (const [key, value] of Object.entries(result)) {
    const at = `${path}/${escapePointer(key)}`;
    if (key === 'parts' && Array.isArray(value)) {
      value.forEach((part, i) => partSegments(segments, `${at}/${i}`, part, { role: 'tool', old }));
    } else if (key !== 'id' && key !== 'name') segments.deep(at, value, 'tool', 'tool-result', old);
  }
}
