/**
 * Reads a config file and checks it whole: every problem is listed with its path and line, unknown keys included.
 */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { type Document, isMap, isNode, isPair, isScalar, LineCounter, parseDocument } from 'yaml';
import type { z } from 'zod';
import { expandEnvironment, type MissingVariable } from './environment.ts';
import { fromLlmForm, isLlmForm, llmForm } from './llm-form.ts';
import { type Config, configSchema, type ModelConfig } from './schema.ts';

type Path = (string | number)[];

/** A config that cannot be used. The message lists every problem, one a line. */
export class ConfigError extends Error {
  readonly problems: string[];

  constructor(file: string, problems: string[]) {
    super(`${file} cannot be used:\n${problems.map((problem) => `  ${problem}`).join('\n')}`);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** A config that has been read, and how to point into its file. */
export interface LoadedConfig {
  config: Config;
  file: string;
  /** The folder that relative paths in the config start from. */
  baseDir: string;
  /** `file:line: path` of a place in the config. */
  place(path: Path): string;
}

/** Reads, expands and checks; throws {@link ConfigError}. */
export async function loadConfig(file: string, environment: Record<string, string | undefined>): Promise<LoadedConfig> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    throw new ConfigError(file, [`the file cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`]);
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  if (document.errors.length > 0) {
    throw new ConfigError(
      file,
      document.errors.map((error) => `line ${lines.linePos(error.pos[0]).line}: ${error.message}`),
    );
  }
  const place = (path: Path) => placeOf(document, lines, path);
  const config = check(file, document, environment, place);
  return { config, file, baseDir: dirname(resolve(file)), place };
}

function check(
  file: string,
  document: Document,
  environment: Record<string, string | undefined>,
  place: (path: Path) => string,
): Config {
  const missing: MissingVariable[] = [];
  const raw = expandEnvironment(valuesOf(file, document), environment, missing);
  const problems = missing.map(
    ({ path, name }) =>
      `${place(path)}: the environment variable ${name} is not set; set it or write \${${name}:-default}`,
  );
  const short = isLlmForm(raw) ? llmForm.safeParse(raw) : undefined;
  if (short?.error) {
    throw new ConfigError(file, [...problems, ...short.error.issues.flatMap((issue) => describe(issue, place))]);
  }
  const result = configSchema.safeParse(short === undefined ? raw : fromLlmForm(short.data));
  if (!result.success) problems.push(...result.error.issues.flatMap((issue) => describe(issue, place)));
  else problems.push(...references(result.data, place));
  if (problems.length > 0 || !result.success) throw new ConfigError(file, problems);
  return deepFreeze(result.data);
}

function valuesOf(file: string, document: Document): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    throw new ConfigError(file, [(error as Error).message]);
  }
}

function describe(issue: z.core.$ZodIssue, place: (path: Path) => string): string[] {
  const path = issue.path as Path;
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => `${place([...path, key])}: is not a key of the config`);
  if (issue.code === 'invalid_union') {
    // The branch with the fewest complaints is the one that was meant.
    const branch = issue.errors.toSorted((a, b) => weight(b) - weight(a) || a.length - b.length)[0] ?? [];
    if (weight(branch) > 0)
      return branch.flatMap((inner) =>
        describe({ ...inner, path: [...path, ...inner.path] } as z.core.$ZodIssue, place),
      );
  }
  // A key that its table does not allow: the reason stands inside.
  const message = issue.code === 'invalid_key' ? (issue.issues[0]?.message ?? issue.message) : issue.message;
  return [`${place(path)}: ${message}`];
}

/** How far a union's branch came before it complained: the deeper, the more likely it was meant. */
function weight(branch: readonly z.core.$ZodIssue[]): number {
  return branch.some((issue) => issue.path.length > 0 || issue.code === 'unrecognized_keys') ? 1 : 0;
}

/** Names that are used and defined nowhere. */
function references(config: Config, place: (path: Path) => string): string[] {
  const problems: string[] = [];
  const wants = (table: object, name: string, what: string, path: Path) => {
    if (!Object.hasOwn(table, name))
      problems.push(
        `${place(path)}: there is no ${what} \`${name}\`; known: ${Object.keys(table).join(', ') || 'none'}`,
      );
  };
  for (const [id, model] of Object.entries(config.models)) {
    for (const { provider, path } of providersOf(model))
      wants(config.providers, provider, 'provider', ['models', id, ...path]);
  }
  for (const [prefix, route] of Object.entries(config.routes)) {
    route.plugins.forEach((plugin, i) => {
      const path = ['routes', prefix, 'plugins', i];
      wants(config.plugins, plugin, 'plugin', path);
      // A mount has one grant for a request: a second one would never be settled.
      if (route.plugins.indexOf(plugin) < i)
        problems.push(`${place(path)}: the plugin \`${plugin}\` stands here twice`);
    });
    if (route.passthrough !== undefined) {
      const to = typeof route.passthrough === 'string' ? route.passthrough : route.passthrough.provider;
      wants(config.providers, to, 'provider', ['routes', prefix, 'passthrough']);
    }
    if (typeof route.resume === 'object' && route.resume.store === 'redis' && config.redis === undefined)
      problems.push(`${place(['routes', prefix, 'resume', 'store'])}: needs the setting \`redis\`, with its address`);
    route.models?.forEach((model, i) => wants(config.models, model, 'model', ['routes', prefix, 'models', i]));
  }
  return problems;
}

/** The providers that a model names, and where it does. */
function providersOf(model: ModelConfig): { provider: string; path: Path }[] {
  if (typeof model === 'string') return [{ provider: model, path: [] }];
  if (!('targets' in model)) return [{ provider: model.provider, path: ['provider'] }];
  const { contextWindow = [], contentPolicy = [] } = model.fallbacks;
  const lists: [Path, { provider: string }[]][] = [
    [['targets'], model.targets],
    [['fallbacks', 'contextWindow'], contextWindow],
    [['fallbacks', 'contentPolicy'], contentPolicy],
  ];
  return lists.flatMap(([path, targets]) =>
    targets.map(({ provider }, i) => ({ provider, path: [...path, i, 'provider'] })),
  );
}

function placeOf(document: Document, lines: LineCounter, path: Path): string {
  const offset = offsetOf(document, path);
  const where = path.length === 0 ? 'config' : path.join('.');
  return offset === undefined ? where : `line ${lines.linePos(offset).line}: ${where}`;
}

/** The offset of the key, or of the closest thing around it that the file contains. */
function offsetOf(document: Document, path: Path): number | undefined {
  const parent = path.length > 1 ? document.getIn(path.slice(0, -1), true) : document.contents;
  if (isMap(parent)) {
    const pair = parent.items.find((item) => isPair(item) && isScalar(item.key) && item.key.value === path.at(-1));
    if (pair && isScalar(pair.key) && pair.key.range) return pair.key.range[0];
  }
  const node = document.getIn(path, true);
  if (isNode(node) && node.range) return node.range[0];
  return path.length === 0 ? undefined : offsetOf(document, path.slice(0, -1));
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const item of Object.values(value)) deepFreeze(item);
  }
  return value;
}
