/** Streams of the hub's events: arbitrary legal ones, and what they say all in all. */
import fc from 'fast-check';
import type { Finish, HubEvent, HubReply, HubUsage, ReplyPart } from '../../gateway/hub/reply.ts';

const word = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 8 });

/** Pieces of a JSON object, cut anywhere. */
const jsonPieces: fc.Arbitrary<string[]> = fc
  .tuple(
    fc.dictionary(word, fc.oneof(word, fc.integer(), fc.constantFrom('"}', '\\"{', { a: ['}', '{'] })), { maxKeys: 3 }),
    fc.array(fc.nat({ max: 40 }), { maxLength: 4 }),
  )
  .map(([value, offsets]) => {
    const text = JSON.stringify(value);
    const cuts = [...new Set([0, ...offsets.filter((at) => at < text.length), text.length])].sort((a, b) => a - b);
    return cuts.slice(1).map((end, i) => text.slice(cuts[i], end));
  });

type Part = { kind: 'text' | 'reasoning' | 'refusal'; pieces: string[] } | { kind: 'calls'; calls: string[][] };

const part: fc.Arbitrary<Part> = fc.oneof(
  fc.record({
    kind: fc.constantFrom('text' as const, 'reasoning' as const),
    pieces: fc.array(word, { minLength: 1, maxLength: 3 }),
  }),
  fc.record({ kind: fc.constant('calls' as const), calls: fc.array(jsonPieces, { minLength: 1, maxLength: 3 }) }),
);

/** A legal stream of one choice: parts in any order, calls of tools beside each other with their arguments interleaved. */
export const hubStream: fc.Arbitrary<HubEvent[]> = fc
  .record({
    parts: fc.array(part, { minLength: 1, maxLength: 5 }),
    isMarked: fc.boolean(),
    isInterleaved: fc.boolean(),
    usage: fc.option(fc.record({ inputTokens: fc.nat({ max: 999 }), outputTokens: fc.nat({ max: 999 }) })),
    isUsageFirst: fc.boolean(),
    hasStart: fc.boolean(),
  })
  .map(({ parts, isMarked, isInterleaved, usage, isUsageFirst, hasStart }) => {
    const events: HubEvent[] = hasStart ? [{ type: 'start', id: 'id-1', model: 'model-1' }] : [];
    let call = 0;
    for (const one of parts) {
      if (one.kind === 'calls') {
        events.push(...callEvents(one.calls, call, isInterleaved));
        call += one.calls.length;
      } else for (const text of one.pieces) events.push({ type: one.kind, choice: 0, text });
      if (isMarked && one.kind !== 'calls') events.push({ type: 'part-end', choice: 0 });
    }
    const finish: HubEvent = { type: 'finish', choice: 0, finish: call > 0 ? 'tool-calls' : 'stop' };
    const count: HubEvent[] = usage === null ? [] : [{ type: 'usage', usage }];
    return [...events, ...(isUsageFirst ? [...count, finish] : [finish, ...count]), { type: 'end' }];
  });

function callEvents(calls: string[][], first: number, isInterleaved: boolean): HubEvent[] {
  const begin = (i: number): HubEvent => ({
    type: 'tool-call',
    choice: 0,
    call: first + i,
    id: `call-${first + i}`,
    name: `tool_${i}`,
  });
  const piece = (i: number, text: string): HubEvent => ({ type: 'tool-arguments', choice: 0, call: first + i, text });
  if (!isInterleaved) return calls.flatMap((pieces, i) => [begin(i), ...pieces.map((text) => piece(i, text))]);
  // Each begins a piece later than the one before.
  const events: HubEvent[] = [];
  const rounds = Math.max(...calls.map(({ length }, i) => length + i));
  for (let round = 0; round <= rounds; round += 1) {
    calls.forEach((pieces, i) => {
      const text = pieces[round - i - 1];
      if (round === i) events.push(begin(i));
      else if (text !== undefined) events.push(piece(i, text));
    });
  }
  return events;
}

/** What an answer says, however it was cut into events. */
export interface SaidByHub {
  text: string;
  reasoning: string;
  refusal: string;
  signatures: string[];
  redacted: string[];
  quotes: string[];
  /** Name and arguments of each call, in their order. */
  calls: { id: string; name: string; arguments: unknown }[];
  finish: Finish | undefined;
  stopSequence: string | undefined;
  usage: HubUsage | undefined;
  hasEnded: boolean;
}

function nothing(): SaidByHub {
  return {
    text: '',
    reasoning: '',
    refusal: '',
    signatures: [],
    redacted: [],
    quotes: [],
    calls: [],
    finish: undefined,
    stopSequence: undefined,
    usage: undefined,
    hasEnded: false,
  };
}

/** What a stream of events says. */
export function saidBy(events: HubEvent[]): SaidByHub {
  const said = nothing();
  const args = new Map<number, string>();
  for (const event of events) {
    if (event.type === 'text' || event.type === 'reasoning' || event.type === 'refusal') said[event.type] += event.text;
    else if (event.type === 'signature') said.signatures.push(event.signature);
    else if (event.type === 'redacted') said.redacted.push(event.data);
    else if (event.type === 'citation') said.quotes.push(event.citation.quote ?? '');
    else if (event.type === 'tool-call')
      said.calls[event.call] = { id: event.id, name: event.name, arguments: undefined };
    else if (event.type === 'tool-arguments') args.set(event.call, (args.get(event.call) ?? '') + event.text);
    else if (event.type === 'finish') [said.finish, said.stopSequence] = [event.finish, event.stopSequence];
    else if (event.type === 'usage') said.usage = event.usage;
    else if (event.type === 'end') said.hasEnded = true;
  }
  said.calls.forEach((call, i) => {
    call.arguments = JSON.parse(args.get(i) || '{}');
  });
  return said;
}

/** What a whole answer says in its first choice. */
export function saidByReply({ choices, usage }: HubReply): SaidByHub {
  const [choice] = choices;
  const said = { ...nothing(), finish: choice?.finish, stopSequence: choice?.stopSequence, usage, hasEnded: true };
  for (const one of choice?.parts ?? []) notePart(said, one);
  return said;
}

function notePart(said: SaidByHub, part: ReplyPart): void {
  if (part.type === 'tool-call') {
    said.calls.push({ id: part.id, name: part.name, arguments: JSON.parse(part.arguments || '{}') });
    return;
  }
  if (part.type === 'media') return;
  said[part.type] += part.text;
  if (part.type === 'reasoning' && part.signature !== undefined) said.signatures.push(part.signature);
  if (part.type === 'reasoning' && part.redacted !== undefined) said.redacted.push(part.redacted);
  if (part.type === 'text') said.quotes.push(...(part.citations ?? []).map(({ quote }) => quote ?? ''));
}
