/** Answers woven from clean text and values that a guard finds, and the ways in which a model may say them. */
import fc from 'fast-check';
import { type ChatChunk, type ChunkChoice, choice, chunk } from '../../support/chunks.ts';

/** A value with its mask as a stream has it. */
export interface Entity {
  value: string;
  mask: string;
}

export const ENTITIES: Entity[] = [
  { value: 'jane.roe@example.com', mask: '<EMAIL>' },
  { value: 'ünal@bücher.example.org', mask: '<EMAIL>' },
  { value: '4111 1111 1111 1111', mask: '<CARD>' },
  { value: '5555555555554444', mask: '<CARD>' },
  { value: '219-09-9999', mask: '<SSN>' },
  { value: 'DE89370400440532013000', mask: '<IBAN>' },
];

/** The rules that find them. */
export const RULES = ['email', 'credit-card', 'us-ssn', 'iban'];

/** Clean text that keeps a guard busy: it looks like the beginning of something and is not. */
const CLEAN = [
  ' and ',
  ' write to ',
  ' (see above), ',
  ' @ ',
  ' 12 ',
  ' a.b ',
  ' 🙂 ',
  ' — ',
  '.\n',
  ' 4111 ',
  ' DE89 ',
  ' jane ',
  ' "x" ',
  ' <EMAIL> ',
];

/** One text: what the model says, and the same with every value masked. */
export interface Woven {
  said: string;
  masked: string;
  values: string[];
}

const piece: fc.Arbitrary<Entity> = fc.oneof(
  fc.constantFrom(...CLEAN).map((value) => ({ value, mask: value })),
  fc.constantFrom(...ENTITIES),
);

/** Pieces are set apart by spaces, so that two of them never make a third. */
export const woven: fc.Arbitrary<Woven> = fc.array(piece, { maxLength: 7 }).map((pieces) => ({
  said: pieces.map(({ value }) => value).join(' , '),
  masked: pieces.map(({ mask }) => mask).join(' , '),
  values: pieces.filter(({ value, mask }) => value !== mask).map(({ value }) => value),
}));

/** Tool arguments: a JSON object with woven texts. */
const wovenArguments: fc.Arbitrary<Woven> = fc.array(woven, { minLength: 1, maxLength: 3 }).map((texts) => ({
  said: JSON.stringify(Object.fromEntries(texts.map(({ said }, i) => [`k${i}`, said]))),
  masked: JSON.stringify(Object.fromEntries(texts.map(({ masked }, i) => [`k${i}`, masked]))),
  values: texts.flatMap(({ values }) => values),
}));

export const NOTHING: Woven = { said: '', masked: '', values: [] };

/** What one choice says. */
export interface WovenChoice {
  content: Woven;
  reasoning: Woven;
  refusal: Woven;
  tools: Woven[];
}

export const wovenChoice: fc.Arbitrary<WovenChoice> = fc.record({
  content: woven,
  reasoning: fc.oneof({ weight: 2, arbitrary: fc.constant(NOTHING) }, woven),
  refusal: fc.oneof({ weight: 3, arbitrary: fc.constant(NOTHING) }, woven),
  tools: fc.array(wovenArguments, { maxLength: 3 }),
});

/** How an answer is cut into deltas: sizes in characters, over and over, and what follows what. */
export interface Rhythm {
  sizes: number[];
  /** Which of the texts that are left speaks next, as fractions of their number. */
  turns: number[];
  /** Whether the finish comes with the last delta, in place of an event of its own. */
  finishesAtOnce: boolean;
}

export const rhythm: fc.Arbitrary<Rhythm> = fc.record({
  sizes: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 6 }),
  turns: fc.array(fc.double({ min: 0, max: 0.999, noNaN: true }), { minLength: 1, maxLength: 12 }),
  finishesAtOnce: fc.boolean(),
});

/** The events of an answer. Each choice begins with its role and finishes once all of its texts have been said. */
export function eventsOf(choices: WovenChoice[], { sizes, turns, finishesAtOnce }: Rhythm): ChatChunk[] {
  const events = choices.map((_, index) => chunk([choice(index, { role: 'assistant', content: '' })]));
  const queues = choices.flatMap((said, index) => queuesOf(said, sizes).map((deltas) => ({ index, deltas })));
  const left = choices.map(
    (_, index) => queues.filter((queue) => queue.index === index).flatMap(({ deltas }) => deltas).length,
  );
  choices.forEach((_, index) => left[index] === 0 && events.push(chunk([choice(index, {}, 'stop')])));
  let open = queues.filter(({ deltas }) => deltas.length > 0);
  for (let turn = 0; open.length > 0; turn += 1) {
    const { index, deltas } = open[Math.floor(turns[turn % turns.length]! * open.length)]!;
    const said: ChunkChoice = choice(index, deltas.shift()!);
    left[index]! -= 1;
    if (left[index] === 0 && finishesAtOnce) said.finish_reason = 'stop';
    events.push(chunk([said]));
    if (left[index] === 0 && !finishesAtOnce) events.push(chunk([choice(index, {}, 'stop')]));
    open = open.filter((queue) => queue.deltas.length > 0);
  }
  return events;
}

function queuesOf({ content, reasoning, refusal, tools }: WovenChoice, sizes: number[]): Record<string, unknown>[][] {
  return [
    cut(content.said, sizes).map((text) => ({ content: text })),
    cut(reasoning.said, sizes).map((text) => ({ reasoning_content: text })),
    cut(refusal.said, sizes).map((text) => ({ refusal: text })),
    ...tools.map((tool, index) => [
      { tool_calls: [{ index, id: `call_${index}`, type: 'function', function: { name: 'send', arguments: '' } }] },
      ...cut(tool.said, sizes).map((text) => ({ tool_calls: [{ index, function: { arguments: text } }] })),
    ]),
  ];
}

/** Cuts a text into pieces of so many characters; surrogate pairs stay whole. */
export function cut(text: string, sizes: number[]): string[] {
  const characters = [...text];
  const pieces: string[] = [];
  for (let from = 0; from < characters.length; ) {
    const size = sizes[pieces.length % sizes.length]!;
    pieces.push(characters.slice(from, from + size).join(''));
    from += size;
  }
  return pieces;
}

/** The same answer, whole. */
export function wholeOf(choices: WovenChoice[]): Record<string, unknown> {
  return {
    id: 'chatcmpl-test',
    object: 'chat.completion',
    created: 1_700_000_000,
    model: 'test-model',
    choices: choices.map(({ content, reasoning, refusal, tools }, index) => ({
      index,
      message: {
        role: 'assistant',
        content: content.said,
        reasoning_content: reasoning.said,
        refusal: refusal.said,
        tool_calls: tools.map((tool, i) => ({
          id: `call_${i}`,
          type: 'function',
          function: { name: 'send', arguments: tool.said },
        })),
      },
      logprobs: null,
      finish_reason: 'stop',
    })),
  };
}
