/** The README as the tests see it: its fenced blocks and its tables. */
import { readFileSync } from 'node:fs';

export interface Block {
  /** `sh`, `yaml`, `json` … */
  language: string;
  text: string;
  /** What the comment before it says: `run`, `prints`, or nothing. */
  mark: string | undefined;
  line: number;
}

export const README = readFileSync('README.md', 'utf8');

export function blocks(): Block[] {
  const found = README.matchAll(/(?:^<!-- (\w+) -->\n\n?)?^```(\w+)\n(.*?)^```$/gms);
  return [...found].map((match) => ({
    mark: match[1],
    language: match[2]!,
    text: match[3]!,
    line: README.slice(0, match.index).split('\n').length,
  }));
}

/** The rows of the table whose head begins with these cells, without the head. */
export function table(...head: string[]): string[][] {
  const lines = README.split('\n');
  const at = lines.findIndex((line) => head.every((cell, i) => cells(line)[i] === cell));
  if (at < 0) throw new Error(`the README has no table ${head.join(' | ')}`);
  const rest = lines.slice(at + 2);
  return rest
    .slice(
      0,
      rest.findIndex((line) => !line.startsWith('|')),
    )
    .map(cells);
}

function cells(line: string): string[] {
  return line
    .split('|')
    .slice(1, -1)
    .map((cell) => cell.trim());
}

/** What a variable of that name would hold, with nobody at its address. */
export function madeUp(name: string): string {
  if (name.includes('REDIS')) return 'redis://127.0.0.1:9';
  return name.includes('URL') ? 'http://127.0.0.1:9' : 'a-made-up-value-that-is-longer-than-32-characters';
}
