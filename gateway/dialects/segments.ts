/** The pieces of text in a body, each with its place, and the way back into it: JSON pointers (RFC 6901). */
import { isUtf8 } from 'node:buffer';
import type { Channel, Role, Segment } from '../../proto/contract.ts';
import { isJsonObject } from '../json.ts';
import type { Json } from './dialect.ts';

/** Numbers from here on are read as text; shorter ones identify nobody. */
const LONG_NUMBER = 1e6;

/** Whether a value is a number that may be a card's or a person's, and so is read as text. */
export function isLongNumber(value: unknown): value is number {
  return typeof value === 'number' && Math.abs(value) >= LONG_NUMBER;
}

/** Names of fields as programs have them: they say nothing of anybody. */
const FIELD_NAME = /^[$a-z][A-Za-z_]{0,31}$/;

/** Ends of ids that are no pointers of their own: a pointer never has `~k` or `~b`, since `~` is escaped in it. */
const KEY = '~k';
const BYTES = '~b';

/** Collects segments with their places. */
export class Segments {
  readonly list: Segment[] = [];

  add(path: string, value: unknown, role: Role, channel: Channel, old: boolean): void {
    if (typeof value !== 'string' || value === '') return;
    const segment: Segment = { id: path, role, channel, path, text: value };
    if (old) segment.old = true;
    this.list.push(segment);
  }

  /** Bytes in base64, a `data:` URL, or an address. Of a document that is a text in bytes, the text is read as well. */
  media(path: string, text: string, { role, old, mediaType }: { role: Role; old: boolean; mediaType?: string }): void {
    this.list.push({ id: path, role, channel: 'media', path, text, mediaType, old: old || undefined });
    const document = /^(?:image|audio|video)\//.test(mediaType ?? '') ? undefined : readDocument(text);
    if (document === undefined || document.text === '') return;
    this.list.push({ id: path + BYTES, role, channel: 'text', path, text: document.text, old: old || undefined });
  }

  /** A key that is no plain name of a field may hold anything; it is read in an object that the model reads. */
  private key(path: string, key: string, role: Role, old: boolean): void {
    if (FIELD_NAME.test(key)) return;
    this.list.push({ id: path + KEY, role, channel: 'text', path, text: key, old: old || undefined });
  }

  /** Every string of an answer that stands beside what is known of it. */
  beside(body: Json, known: ReadonlySet<string>): void {
    for (const [key, value] of Object.entries(body)) {
      if (!known.has(key)) this.deep(`/${escapePointer(key)}`, value, 'assistant', 'text', false);
    }
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
      for (const [key, item] of Object.entries(value)) {
        const at = `${path}/${escapePointer(key)}`;
        this.key(at, key, role, old);
        this.deep(at, item, role, channel, old);
      }
    }
  }
}

/** Writes texts back into the body that their segments came from. */
export function writeTexts(body: Json, rewritten: ReadonlyMap<string, string>): void {
  const keys: [string, string][] = [];
  for (const [id, text] of rewritten) {
    if (id.endsWith(KEY)) keys.push([id.slice(0, -KEY.length), text]);
    else if (id.endsWith(BYTES)) writeDocument(body, id.slice(0, -BYTES.length), text);
    else writePointer(body, id, text);
  }
  // The innermost first: the way to the others leads through their old names.
  keys.sort(([one], [other]) => other.split('/').length - one.split('/').length);
  for (const [pointer, text] of keys) renameKey(body, pointer, text);
}

/** Where a pointer leads: the object or list, and the key in it. */
function placeOf(body: Json, pointer: string): { holder: Json; key: string } {
  const keys = pointer.split('/').slice(1).map(unescapePointer);
  const key = keys.pop() as string;
  return { holder: keys.reduce<Json>((at, name) => at[name] as Json, body), key };
}

/** Writes a value where a pointer leads. */
function writePointer(body: Json, pointer: string, value: string): void {
  const { holder, key } = placeOf(body, pointer);
  holder[key] = value;
}

/** Gives a field another name in its place; of two with one name the later gets a longer one, so that none is lost. */
function renameKey(body: Json, pointer: string, name: string): void {
  const { holder, key } = placeOf(body, pointer);
  const fields = Object.entries(holder);
  let own = name;
  while (own !== key && Object.hasOwn(holder, own)) own += '_';
  for (const [field] of fields) delete holder[field];
  for (const [field, value] of fields) {
    Object.defineProperty(holder, field === key ? own : field, {
      value,
      enumerable: true,
      writable: true,
      configurable: true,
    });
  }
}

// --- Documents ----------------------------------------------------------------------------------------------------

/** A text in bytes: what stands before it, whether it is base64, and the text. */
interface TextDocument {
  head: string;
  isBase64: boolean;
  text: string;
}

/** The text of a document that is given as bytes; undefined where the bytes are none, or stand elsewhere. */
function readDocument(given: string): TextDocument | undefined {
  const head = /^data:[^,]{0,1024},/i.exec(given)?.[0] ?? '';
  const isBase64 = head === '' || /;base64,$/i.test(head);
  const rest = given.slice(head.length);
  const bytes = isBase64 ? Buffer.from(rest, 'base64') : Buffer.from(unescaped(rest));
  // An address is no base64: what can be read of it as such is far less than there is.
  if (isBase64 && bytes.length < Math.floor(rest.length / 2)) return undefined;
  return isUtf8(bytes) && !bytes.includes(0) ? { head, isBase64, text: bytes.toString('utf8') } : undefined;
}

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function writeDocument(body: Json, pointer: string, text: string): void {
  const { holder, key } = placeOf(body, pointer);
  const { head = '', isBase64 = true } = readDocument(String(holder[key])) ?? {};
  holder[key] = head + (isBase64 ? Buffer.from(text).toString('base64') : encodeURIComponent(text));
}

// --- Pointers -----------------------------------------------------------------------------------------------------

export function escapePointer(key: string): string {
  return key.replaceAll('~', '~0').replaceAll('/', '~1');
}

export function unescapePointer(key: string): string {
  return key.includes('~') ? key.replaceAll('~1', '/').replaceAll('~0', '~') : key;
}
