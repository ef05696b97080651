/** Keeps a project's code name in the house: who writes it is refused; where an answer says it, it is masked. */
import type { Hook, PluginFactory, Segment } from '../../proto/contract.ts';

const NAME = 'bluebird';
const MESSAGE = 'Your message names a project that must not leave the house. Take the name out and send it again.';
const hooks: Hook[] = ['request', 'response', 'stream'];
const mask = (text: string) => text.replace(/bluebird/gi, '[project]');
const named = (segments: Segment[]) => segments.filter(({ text }) => mask(text) !== text);
/** How much of the end of a text may become the name when more has come. */
const unfinished = (text: string) =>
  [7, 6, 5, 4, 3, 2, 1].find((n) => NAME.startsWith(text.slice(-n).toLowerCase())) ?? 0;

export const codeName: PluginFactory = {
  name: 'code-name',
  create: () => ({
    describe: () => ({ contract: 1, name: 'code-name', version: '1.0.0', hooks, rewrites: true }),
    request({ segments }) {
      const bad = named(segments).filter(({ channel }) => channel !== 'tool-result');
      if (bad.length === 0) return { allow: {} };
      return { reject: { code: 'code_name', message: MESSAGE, segments: bad.map(({ id }) => id) } };
    },
    response: ({ segments }) => ({
      rewrite: { segments: named(segments).map(({ id, text }) => ({ id, text: mask(text) })) },
    }),
    stream({ text, last }) {
      const cut = text.length - (last ? 0 : Math.min(unfinished(text), text.length));
      return { release: { release: mask(text.slice(0, cut)), hold: text.slice(cut) } };
    },
  }),
};
