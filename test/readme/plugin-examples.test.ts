/** The config in every plugin's README is one that the gateway takes. */
import { globSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { startGateway } from '../support/gateway.ts';
import { madeUp } from './blocks.ts';

const BASE = 'models: { "*": up, gpt-4o: up, gpt-4o-mini: up, gpt-3.5-turbo: up }\n';
const PROVIDER = 'providers: { up: { kind: openai-compatible, baseUrl: "http://127.0.0.1:9/v1" } }\n';

/** The indented lines from `plugins:` up to the first command. */
function configIn(readme: string): string {
  const lines = readme.split('\n');
  const from = lines.indexOf('    plugins:');
  const to = lines.findIndex((line, i) => i > from && /^(?: {4})?\S/.test(line) && line !== '    routes:');
  return lines
    .slice(from, to < 0 ? undefined : to)
    .map((line) => line.slice(4))
    .join('\n');
}

test.each(globSync('plugins/*/README.md', { exclude: ['plugins/examples/**'] }))('%s', async (file) => {
  // Nothing is to be written where the test runs.
  const text = configIn(readFileSync(file, 'utf8')).replace('to: usage.jsonl', 'to: /dev/null');
  const config = parse(text) as { plugins: object; routes?: object };
  expect(Object.keys(config.plugins).length).toBeGreaterThan(0);
  const wanted = [...text.matchAll(/\$\{(\w+)\}/g)].map(([, name]) => [name, madeUp(name!)]);
  const routes = config.routes === undefined ? 'routes: { /: {} }\n' : '';
  const gateway = await startGateway(`${BASE}${PROVIDER}${routes}${text}`, { environment: Object.fromEntries(wanted) });
  await gateway.stop();
});
