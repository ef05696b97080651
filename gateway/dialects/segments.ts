/** The pieces of text in a body, each with its place, and the way back into it: JSON pointers (RFC 6901). */
import type { Channel, Role, Segment } from '../../proto/contract.ts';
import { isJsonObject } from '../json.ts';
import type { Json } from './dialect.ts';

/** Numbers from here on are read as text; shorter ones identify nobody. */
const LONG_NUMBER = 1e6;

/** Whether a value is a number that may be a card's or a person's, and so is read as text. */
export function isLongNumber(value: unknown): value is number {
  return typeof value === 'number' && Math.abs(value) >= LONG_NUMBER;
}

/** Collects segments with their places. */
export class Segments {
  readonly list: Segment[] = [];

  add(path: string, value: unknown, role: Role, channel: Channel, old: boolean): void {
    if (typeof value !== 'string' || value === '') return;
    const segment: Segment = { id: path, role, channel, path, text: value };
    if (old) segment.old = true;
    this.list.push(segment);
  }

  /** Bytes in base64, a `data:` URL, or an address. */
  media(path: string, text: string, { role, old, mediaType }: { role: Role; old: boolean; mediaType?: string }): void {
    this.list.push({ id: path, role, channel: 'media', path, text, mediaType, old: old || undefined });
  }

  /**
   * Every string inside a value of unknown shape: nothing that a model reads may slip by unread. A long number may be a
   * card's, so it is read as well.
   */
  deep(path: string, value: unknown, role: Role, channel: Channel, old: boolean): void {
    if (typeof value === 'string') this.add(path, value, role, channel, old);
    else if (isLongNumber(value)) this.add(path, String(value), role, channel, old);
    else if (Array.isArray(value)) value.forEach((item, i) => this.deep(`${path}/${i}`, item, role, channel, old));
    else if (isJsonObject(value)) {
      for (const [key, item] of Object.entries(value))
        this.deep(`${path}/${escapePointer(key)}`, item, role, channel, old);
    }
  }
}

/** Writes a value where a pointer leads. */
export function writePointer(body: Json, pointer: string, value: string): void {
  const keys = pointer.split('/').slice(1).map(unescapePointer);
  const last = keys.pop() as string;
  let at: unknown = body;
  for (const key of keys) at = (at as Json)[key];
  (at as Json)[last] = value;
}

export function escapePointer(key: string): string {
  return key.replaceAll('~', '~0').replaceAll('/', '~1');
}

export function unescapePointer(key: string): string {
  return key.includes('~') ? key.replaceAll('~1', '/').replaceAll('~0', '~') : key;
}
