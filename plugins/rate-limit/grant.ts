/** What a grant says: all that is needed to settle it, whatever the config has become in the meantime. */
import type { Meter } from './engine.ts';

/** One limit in a grant. */
export interface Held extends Meter {
  reserved: number;
  debt: boolean;
}

export interface Granted {
  id: string;
  promises: Held[];
}

type Written = [
  key: string,
  kind: Meter['kind'],
  span: Meter['span'],
  step: number,
  max: number,
  unit: string,
  number,
  0 | 1,
];

/** A grant as text. */
export function writeGrant({ id, promises }: Granted): string {
  const written = promises.map(
    ({ key, kind, span, step, max, unit, reserved, debt }): Written => [
      key,
      kind,
      span,
      step,
      max,
      unit,
      reserved,
      debt ? 1 : 0,
    ],
  );
  return JSON.stringify([id, ...written]);
}

/** Reads a grant. @throws SyntaxError when it is none of ours */
export function readGrant(grant: string): Granted {
  const [id, ...written] = JSON.parse(grant) as [string, ...Written[]];
  const promises = written.map(([key, kind, span, step, max, unit, reserved, debt]) => ({
    ...{ key, kind, span, step, max, unit },
    reserved,
    debt: debt === 1,
  }));
  return { id, promises };
}
