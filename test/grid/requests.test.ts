/** One request a case and dialect, and what every provider is sent for it; see test/fixtures/README.md. */
import { existsSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Json } from '../../gateway/dialects/dialect.ts';
import { caseNames, fixtureFile, replyFixture } from '../support/fixture.ts';
import { expectGoldenJson, settled } from '../support/golden.ts';
import { DIALECTS, type GridDialect, type GridProvider, PROVIDERS, Rig } from './rig.ts';

/** What became of a request. */
type Outcome =
  /** The provider was sent the client's own bytes. */
  | { path: string; passed: true }
  | { path: string; body: Json; leftOut?: string }
  | { refused: { status: number; answer: Json } };

function requestOf(name: string, { dialect }: GridDialect): string | undefined {
  const file = fixtureFile(name, `request.${dialect.name}.json`);
  return existsSync(file) ? readFileSync(file, 'utf8') : undefined;
}

const CASES = caseNames().filter((name) => DIALECTS.some((client) => requestOf(name, client) !== undefined));

async function outcome(rig: Rig, client: GridDialect, body: string): Promise<Outcome> {
  const before = rig.upstream.requests.length;
  const response = await rig.send(client, body);
  const answer = await response.json<Json>();
  if (rig.upstream.requests.length === before) return { refused: { status: response.status, answer } };
  expect(response.status).toBe(200);
  const sent = rig.upstream.requests.at(-1)!;
  const path = decodeURIComponent(sent.path);
  const text = sent.body.toString();
  if (text === body) return { path, passed: true };
  const leftOut = response.header('x-wardgate-left-out');
  return { path, body: JSON.parse(settled(text, body)) as Json, ...(leftOut !== undefined && { leftOut }) };
}

describe.each(PROVIDERS)('what $name is sent', (provider: GridProvider) => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await Rig.start(provider);
    rig.upstream.always(({ path }) => ({ whole: replyFixture(answering(provider, path), 'text') }));
  });
  afterAll(async () => rig[Symbol.asyncDispose]());

  test.each(CASES)('for the case %s', async (name) => {
    const found: Record<string, Outcome> = {};
    for (const client of DIALECTS) {
      // The client asks for the provider's own model, so that nothing has to be renamed.
      const body = requestOf(name, client)?.replace(/"model": "[^"]*"/, `"model": "${provider.model}"`);
      if (body === undefined) continue;
      const became = await outcome(rig, client, body);
      found[client.dialect.name] = became;
      // Another vendor's thoughts, which OpenAI would refuse, are taken out on the way.
      const passes = provider.takes.includes(client.dialect.name) && !body.includes('"reasoning_details"');
      if (passes) expect(became).toMatchObject({ passed: true });
      if ('refused' in became) expect(JSON.stringify(became)).toMatch(/"status":400,.*The field `[^`]+`/);
    }
    expectGoldenJson(name, `written.${provider.name}.json`, found);
  });
});

/** The format that a provider answers in at a path: OpenAI has two. */
function answering({ vendor }: GridProvider, path: string): string {
  if (!vendor.startsWith('openai')) return vendor;
  return path.includes('/responses') ? 'openai-responses' : 'openai';
}
