/** `npm run test:failover`: runs every scenario and prints the table. Exits with 1 when any ends as it must not. */
import { type Result, scenarios, startRig } from './scenarios.ts';

const AT_ONCE = 12;

const all = scenarios();
await using rig = await startRig(all);
const results: Result[] = [];
const waiting = [...all];
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      results.push(await rig.run(next));
      if (process.stderr.isTTY) process.stderr.write(`\r${results.length} of ${all.length}`);
    }
  }),
);
print(results);

function print(list: Result[]): void {
  const order = new Map(all.map((scenario, i) => [key(scenario), i]));
  const sorted = list.toSorted((a, b) => order.get(key(a))! - order.get(key(b))!);
  const rows = sorted.map(({ dialect, first, second, mode, when, fault, rescue, tool, wanted, got, isRight, ms }) => [
    isRight ? 'ok' : 'WRONG',
    dialect,
    `${first} → ${rescue === 'replay' ? 'openai' : second}`,
    tool ? `${mode}, tool call` : mode,
    when,
    fault,
    mode === 'stream' && when === 'after' ? rescue : '',
    wanted,
    isRight ? '' : got,
    `${Math.round(ms)}`,
  ]);
  const head = ['', 'client speaks', 'providers', 'mode', 'first token', 'fault', 'rescue', 'ends in', 'but got', 'ms'];
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  for (const row of [head, ...rows])
    process.stdout.write(
      `${row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd()}\n`,
    );
  const wrong = sorted.filter(({ isRight }) => !isRight).length;
  process.stdout.write(`\n${sorted.length} scenarios, ${sorted.length - wrong} as they must be, ${wrong} not\n`);
  if (wrong > 0) process.exitCode = 1;
}

function key({ dialect, first, mode, when, fault, rescue, tool }: Result | (typeof all)[number]): string {
  return [dialect, first, mode, when, fault, rescue, tool].join(' ');
}
