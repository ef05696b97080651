import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { describe, expect, test } from 'vitest';

const SECTIONS = ['Name', 'What it does', 'Config', 'Answers', 'Example'];

/** Parts that several plugins stand on, and no plugins themselves. */
const SHARED = ['plugins/quota', 'plugins/redis'];

/** A folder beneath `plugins/` is a plugin, the examples' folder is a folder of plugins. */
const folders = globSync('plugins/{*,examples/*}/*', { exclude: ['**/node_modules/**'] })
  .filter((path) => !path.startsWith('plugins/examples/') || path.split('/').length > 3)
  .map(dirname)
  .filter((path, i, all) => path !== 'plugins/examples' && !SHARED.includes(path) && all.indexOf(path) === i)
  .sort();

describe.each(folders)('%s', (folder) => {
  test('has a plugin.ts', () => {
    expect(existsSync(`${folder}/plugin.ts`)).toBe(true);
  });

  test(`has a README with the sections ${SECTIONS.join(', ')}, in this order`, () => {
    const headings = readFileSync(`${folder}/README.md`, 'utf8').matchAll(/^## +(.+?) *$/gm);
    expect([...headings].map((heading) => heading[1]).filter((name) => SECTIONS.includes(name as string))).toEqual(
      SECTIONS,
    );
  });
});

test('there are plugins', () => {
  expect(folders).not.toEqual([]);
});
