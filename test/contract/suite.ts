/** The contract suite: any plugin, asked the same in every place that it can run in, gives the same verdicts. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Connection, HookInput } from '../../gateway/connect/connection.ts';
import type { Hook, PluginFactory } from '../../proto/contract.ts';
import { verdictProblem } from '../../proto/verdict.ts';
import { type Running, WAYS } from './ways.ts';

/** One question and its verdict. With `expected` left out, the verdict need only be sound and the same everywhere. */
export type Row = { [H in Hook]: { title: string; hook: H; input: HookInput[H]; expected?: object } }[Hook];

/** Asks the rows in order of a plugin that is made anew for each way, so that one with a memory may be tested too. */
export function contractSuite(factory: PluginFactory, config: unknown, rows: Row[]): void {
  const inProcess = factory.create(config);
  const reference: object[] = [];
  beforeAll(async () => {
    for (const row of rows) reference.push(comparable(await inProcess[row.hook]!(row.input as never)));
  });
  afterAll(() => inProcess.close?.());

  describe.each(Object.entries(WAYS))(`${factory.name} by %s`, (_name, way) => {
    let running: Running;
    beforeAll(async () => {
      running = await way(factory, config);
    });
    afterAll(() => running.close());

    test('describes itself', () => {
      expect(running.connection.state).toBe('up');
      expect(running.connection.description).toEqual(plain(inProcess.describe()));
    });

    test.each(rows.map((row, i) => [row.title, row, i] as const))('%s', async (_title, row, i) => {
      const verdict = await asked(running.connection, row);
      expect(verdictProblem(row.hook, row.input, verdict)).toBeUndefined();
      expect(comparable(verdict)).toEqual(row.expected === undefined ? reference[i] : comparable(row.expected));
    });
  });
}

async function asked(connection: Connection, { hook, input }: Row): Promise<unknown> {
  const answer = await connection.ask(hook, input);
  return answer ?? { allow: {} };
}

function plain(value: unknown): object {
  return JSON.parse(JSON.stringify(value)) as object;
}

/** Absent and empty mean the same: protobuf cannot tell them apart. */
function comparable(verdict: unknown): object {
  const keep = (_key: string, value: unknown) =>
    Array.isArray(value) && value.length === 0 ? undefined : isEmptyObject(value) ? undefined : value;
  const [[kind, body] = ['allow', {}]] = Object.entries((verdict ?? { allow: {} }) as object);
  return { [kind]: JSON.parse(JSON.stringify(body, keep) ?? '{}') as object };
}

function isEmptyObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0;
}
