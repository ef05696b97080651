import { globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { configJsonSchema } from '../../gateway/config/schema.ts';

const SCHEMA = 'gateway/config/wardgate.schema.json';

test('the schema for editors is the one that the gateway checks by (npm run schema)', () => {
  expect(JSON.parse(readFileSync(SCHEMA, 'utf8'))).toEqual(configJsonSchema());
});

const configs = globSync(['gateway/default.yaml', 'examples/*.yaml', 'deploy/**/wardgate*.yaml']);
test.each(configs)('%s names the schema in its first line', (path) => {
  const [, named = ''] = /^# yaml-language-server: \$schema=(\S+)\n/.exec(readFileSync(path, 'utf8')) ?? [];
  expect(join(dirname(path), named)).toBe(SCHEMA);
});
