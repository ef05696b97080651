/** The project's own TypeScript as the structure tests see it: what each file imports, and its code without comments. */
import { globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseSync } from 'oxc-parser';

export interface Source {
  /** From the root of the project, such as `gateway/main.ts`. */
  path: string;
  /** Every module that is named in an import, a re-export or an `import()`, resolved when it is a file of ours. */
  imports: string[];
  /** The text with each comment blanked out. */
  code: string;
  /** True when the file does nothing but export what others define. */
  barrel: boolean;
}

/** Paths match globs such as `gateway/**`; `node_modules` is left out. */
export function sources(pattern: string): Source[] {
  return globSync(pattern, { exclude: ['**/node_modules/**'] })
    .sort()
    .map((path) => source(path, readFileSync(path, 'utf8')));
}

/** Reads one file's text as if it stood at `path`. */
export function source(path: string, text: string): Source {
  const { module, program, comments, errors } = parseSync(path, text);
  if (errors.length > 0) throw new SyntaxError(`${path}: ${errors[0]?.message}`);
  const named = [
    ...module.staticImports.map((one) => one.moduleRequest.value),
    ...module.staticExports.flatMap((one) => one.entries.flatMap((entry) => entry.moduleRequest?.value ?? [])),
    ...module.dynamicImports.map((one) => literalStart(text.slice(one.moduleRequest.start, one.moduleRequest.end))),
  ];
  return {
    path,
    imports: [...new Set(named.map((name) => resolved(path, name)))],
    code: comments.reduce((code, { start, end }) => blanked(code, start, end), text),
    barrel:
      program.body.length > 0 &&
      program.body.every((node) => /^Export/.test(node.type) && 'source' in node && node.source),
  };
}

/** Line breaks stay, so that line numbers do. */
function blanked(text: string, start: number, end: number): string {
  return text.slice(0, start) + text.slice(start, end).replace(/[^\n]/g, ' ') + text.slice(end);
}

/** What is certain of an `import()`'s argument: a literal, or a template up to its first expression. */
function literalStart(expression: string): string {
  return /^(['"`])(.*?)(?:\1|\$\{|$)/s.exec(expression)?.[2] ?? expression;
}

function resolved(from: string, name: string): string {
  return name.startsWith('.') ? join(dirname(from), name) : name;
}
