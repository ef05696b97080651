import { basename } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type Source, source, sources } from './sources.ts';

const PARTS = ['gateway', 'plugins', 'proto', 'simulator'] as const;
type Part = (typeof PARTS)[number];

/** `plugins → proto ← gateway`: who may import what of ours, besides itself. */
const MAY_IMPORT: Record<Part, Part[]> = { gateway: ['proto'], plugins: ['proto'], proto: [], simulator: [] };

/** The one place that knows both sides. */
const COMPOSITION_ROOT = 'gateway/main.ts';

const VENDORS = /openai|anthropic|claude|gemini|groq|vllm|ollama|bedrock|triton|mistral|openrouter|cerebras|deepseek/i;

/** A vendor's name stands in these; a plugin may speak of the vendor that it is named after. */
const VENDOR_HOMES = /^gateway\/(providers|dialects)\//;

const ours = PARTS.flatMap((part) => sources(`${part}/**/*.ts`));

describe('imports', () => {
  test.each(PARTS)('of %s run one way', (part) => {
    expect(ours.filter((file) => partOf(file.path) === part).flatMap(wrongImports)).toEqual([]);
  });

  test('of the pipeline and the hooks know neither Fastify nor undici', () => {
    expect(ours.flatMap(transportImports)).toEqual([]);
  });

  test('reach no dev tool, test or deployment file', () => {
    const strays = ours.flatMap((file) => file.imports.filter((name) => /^(test|deploy|vitest)\b/.test(name)));
    expect(strays).toEqual([]);
  });
});

describe('files', () => {
  test('stand in no folder named utils, helpers or common', () => {
    expect(ours.map((file) => file.path).filter((path) => /\/(utils?|helpers?|common)(\/|\.ts$)/.test(path))).toEqual(
      [],
    );
  });

  test('are no barrels', () => {
    expect(ours.filter((file) => file.barrel || basename(file.path) === 'index.ts').map((file) => file.path)).toEqual(
      [],
    );
  });

  test('name no vendor outside of the providers and dialects', () => {
    expect(ours.flatMap(vendorsNamed)).toEqual([]);
  });
});

describe('these rules', () => {
  test('see every kind of import', () => {
    const text = [
      "import '../plugins/a.ts';",
      "import type { B } from '../plugins/b.ts';",
      "export { c } from '../plugins/c.ts';",
      "export * from '../plugins/d.ts';",
      "const e = await import('../plugins/e.ts');",
      'const f = await import(`../plugins/${name}/plugin.ts`);',
      "// import '../plugins/g.ts';",
    ].join('\n');
    const found = ['a.ts', 'b.ts', 'c.ts', 'd.ts', 'e.ts', ''].map((name) => `plugins/${name}`);
    expect(source('gateway/x.ts', text).imports.sort()).toEqual(found.sort());
    expect(wrongImports(source('gateway/x.ts', text))).toHaveLength(6);
    expect(wrongImports(source(COMPOSITION_ROOT, text))).toEqual([]);
  });

  test('look at code, not at comments', () => {
    expect(vendorsNamed(source('gateway/x.ts', '/* As OpenAI does. */ const a = 1; // OpenAI'))).toEqual([]);
    expect(vendorsNamed(source('gateway/x.ts', "const a = 'an // openai';"))).toEqual(['gateway/x.ts:1 names openai']);
    expect(vendorsNamed(source('gateway/providers/x.ts', "const a = 'openai';"))).toEqual([]);
  });

  test('know a barrel', () => {
    expect(source('proto/x.ts', "export * from './a.ts';\nexport { b } from './b.ts';").barrel).toBe(true);
    expect(source('proto/x.ts', "export * from './a.ts';\nexport const b = 1;").barrel).toBe(false);
    expect(source('proto/x.ts', 'export {};\nexport const b = 1;').barrel).toBe(false);
  });
});

function partOf(path: string): Part | undefined {
  return PARTS.find((part) => path.startsWith(`${part}/`));
}

function wrongImports({ path, imports }: Source): string[] {
  const from = partOf(path) as Part;
  const allowed = path === COMPOSITION_ROOT ? PARTS : [from, ...MAY_IMPORT[from]];
  const wrong = imports.filter((name) => partOf(name) && !allowed.includes(partOf(name) as Part));
  return wrong.map((name) => `${path} imports ${name}`);
}

function transportImports({ path, imports }: Source): string[] {
  if (!/^gateway\/(pipeline|hooks)\b/.test(path)) return [];
  return imports.filter((name) => /^(fastify|undici)\b/.test(name)).map((name) => `${path} imports ${name}`);
}

function vendorsNamed({ path, code }: Source): string[] {
  if (path.startsWith('simulator/') || VENDOR_HOMES.test(path)) return [];
  const own = /^plugins\/([^/]+)\//.exec(path)?.[1] ?? '';
  return code.split('\n').flatMap((line, i) => {
    const name = VENDORS.exec(line)?.[0].toLowerCase();
    return name === undefined || own.includes(name) ? [] : [`${path}:${i + 1} names ${name}`];
  });
}
