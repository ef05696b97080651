/** Every config that this repository shows is sound, for the gateway and for editors alike. */
import { execFile } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';

const FILES = globSync('examples/*.yaml').sort();
const SHOWN = [...FILES, ...globSync(['gateway/default.yaml', 'deploy/**/wardgate*.yaml', 'plugins/examples/*.yaml'])];
const KEYS = { OPENAI_API_KEY: 'sk-x', GROQ_API_KEY: 'gsk-x' };

/** What an editor checks by: one schema for each of the two forms. */
const { then: short, else: long } = JSON.parse(readFileSync('gateway/config/wardgate.schema.json', 'utf8')) as {
  then: Record<string, unknown>;
  else: Record<string, unknown>;
};

function complaints(text: string): string[] {
  const config: object = parse(text, { merge: true });
  const schema = z.fromJSONSchema('llm' in config ? short : long);
  return schema.safeParse(config).error?.issues.map(({ path, message }) => `${path.join('.')}: ${message}`) ?? [];
}

test('there is an example of each kind', () => {
  expect(FILES.map((file) => file.replace('examples/', ''))).toEqual(
    expect.arrayContaining([
      'drag-race.yaml',
      'guardrails.yaml',
      'local-rate-limit.yaml',
      'mini-gateway.yaml',
      'real-providers.yaml',
    ]),
  );
});

describe.each(FILES)('%s', (file) => {
  test('is sound to `--check`', async () => {
    const options = { env: { PATH: process.env.PATH, ...KEYS } };
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ['gateway/main.ts', '--check', '--config', file],
      options,
    );
    expect(stdout).toBe(`${file} is sound.\n`);
  });

  test('says in its first lines what it is for and how to start it', () => {
    const text = readFileSync(file, 'utf8');
    expect(text.split('\n')[0]).toBe('# yaml-language-server: $schema=../gateway/config/wardgate.schema.json');
    expect(text.split('\n')[1]).toMatch(/^# [A-Z].{20,}/);
    expect(text).toContain(`npm start -- --config ${file}`);
  });
});

test.each(SHOWN)('%s is sound to an editor', (file) => {
  expect(complaints(readFileSync(file, 'utf8'))).toEqual([]);
});

test.each([
  ['an unknown key', 'providers: {}\nmodels: {}\nroutes: {}\nlisten_on: 3000\n'],
  ['an address without a port', 'providers: {}\nmodels: {}\nroutes: {}\nlisten: localhost\n'],
  ['a provider of no kind', 'providers: {a: {kind: nobody}}\nmodels: {}\nroutes: {}\n'],
  ['a misspelt key in the short form', 'llm: {models: [{name: a, provider: openai, prams: {}}]}\n'],
])('an editor complains of %s', (_what, text) => {
  expect(complaints(text)).not.toEqual([]);
});
