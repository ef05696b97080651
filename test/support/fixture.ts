/** Requests, answers and streams of the vendors, as they are on the wire; test/fixtures holds one folder a case. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Json } from '../../gateway/dialects/dialect.ts';

const ROOT = join(import.meta.dirname, '..', 'fixtures');

/** What the files' names begin with. */
const WORDS = { requests: 'request', replies: 'reply', streams: 'stream' } as const;

/** A vendor's stream; `.sse` unless the name says another ending. */
export function streamFixture(vendor: string, name: string): Buffer {
  const [folder, ending = 'sse'] = name.split('.');
  return readFileSync(fixtureFile(folder!, `stream.${vendor}.${ending}`));
}

/** A request in a dialect. */
export function requestFixture(dialect: string, name: string): Json {
  return jsonFixture(name, `request.${dialect}`);
}

/** A vendor's whole answer. */
export function replyFixture(vendor: string, name: string): Json {
  return jsonFixture(name, `reply.${vendor}`);
}

function jsonFixture(name: string, file: string): Json {
  return JSON.parse(readFileSync(fixtureFile(name, `${file}.json`), 'utf8')) as Json;
}

/** Where a file of a case is, or is to be. */
export function fixtureFile(name: string, file: string): string {
  return join(ROOT, name, file);
}

/** The cases that there are of a dialect or vendor, such as `text` and `parallel-tools`. */
export function fixtureNames(kind: keyof typeof WORDS, of: string): string[] {
  return caseNames().filter((name) => readdirSync(join(ROOT, name)).some((file) => isOf(file, `${WORDS[kind]}.${of}`)));
}

function isOf(file: string, stem: string): boolean {
  return file.startsWith(`${stem}.`) && !file.slice(stem.length + 1).includes('.');
}

/** The folders of test/fixtures. */
export function caseNames(): string[] {
  return readdirSync(ROOT, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)
    .sort();
}
