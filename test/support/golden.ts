/** What a test found right once and holds against every later run. `UPDATE_GOLDEN=1` writes it anew, to be read by a person. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'vitest';
import { fixtureFile } from './fixture.ts';

const IS_UPDATING = process.env.UPDATE_GOLDEN === '1';

/** Holds a text against `test/fixtures/<name>/<file>`. */
export function expectGoldenText(name: string, file: string, found: string): void {
  const path = fixtureFile(name, file);
  if (IS_UPDATING) writeFileSync(path, found);
  expect(found).toBe(existsSync(path) ? readFileSync(path, 'utf8') : undefined);
}

/** Holds what can be written as JSON against `test/fixtures/<name>/<file>`, whose spacing does not matter. */
export function expectGoldenJson(name: string, file: string, found: unknown): void {
  const path = fixtureFile(name, file);
  if (IS_UPDATING) writeFileSync(path, `${JSON.stringify(found, null, 2)}\n`);
  expect(found).toEqual(existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : undefined);
}

/**
 * A text with what is made up anew each time replaced: long random ids that are not in `known` by `made1`, `made2` and so
 * on, times that are not in it by 0.
 */
export function settled(text: string, known: string): string {
  const made = new Map<string, string>();
  return text
    .replaceAll(/[0-9a-f]{24,}|(?<=\b(?:bedrock-|resp_|msg_|fc_|rs_))\d{13}(?!\d)/g, (id) => {
      if (known.includes(id)) return id;
      if (!made.has(id)) made.set(id, `made${made.size + 1}`);
      return made.get(id)!;
    })
    .replaceAll(/("(?:created|created_at|completed_at)":)(\d{10})\b/g, (whole, field: string, time: string) =>
      known.includes(time) ? whole : `${field}0`,
    )
    .replaceAll(/("createTime":)"([^"]*)"/g, (whole, field: string, time: string) =>
      known.includes(`${Date.parse(time) / 1000}`) ? whole : `${field}0`,
    );
}
