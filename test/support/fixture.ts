/** Requests and streams of the vendors, as they are on the wire; test/fixtures holds one file a case. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Json } from '../../gateway/dialects/dialect.ts';

const ROOT = join(import.meta.dirname, '..', 'fixtures');

/** A vendor's stream; `.sse` unless the name says another ending. */
export function streamFixture(vendor: string, name: string): Buffer {
  return readFileSync(join(ROOT, 'streams', vendor, name.includes('.') ? name : `${name}.sse`));
}

/** A request in a dialect. */
export function requestFixture(dialect: string, name: string): Json {
  return JSON.parse(readFileSync(join(ROOT, 'requests', dialect, `${name}.json`), 'utf8')) as Json;
}

/** The cases that there are, such as `text` and `parallel-tools`. */
export function fixtureNames(kind: 'streams' | 'requests' | 'replies', folder: string): string[] {
  return readdirSync(join(ROOT, kind, folder)).map((file) => file.replace(/\.\w+$/, ''));
}
