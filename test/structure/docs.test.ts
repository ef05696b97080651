/** Documentation that is made from the code. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { supportPage } from '../../gateway/providers/table.ts';

test('the table of features is what the providers do (npm run features)', () => {
  expect(readFileSync('docs/providers.md', 'utf8')).toBe(supportPage());
});
