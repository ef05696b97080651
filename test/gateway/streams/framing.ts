/** Arbitrary streams as servers frame them, for tests that do not look inside. */
import fc from 'fast-check';
import { type ChatChunk, choice, chunk, frame } from '../../support/chunks.ts';

/** Text of all kinds, with what looks like framing, usage or an end of the stream inside. */
const wildText: fc.Arbitrary<string> = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 20 }),
  fc.constantFrom(
    'data: [DONE]\n\n',
    '"usage":{"a":1}',
    '"error":',
    '\r\n\r\n',
    '🙂',
    '</s>',
    '{"finish_reason":"stop"}',
  ),
);

/** Fields that no version of the dialect knows. */
const unknownFields = fc.dictionary(
  fc.constantFrom('x_groq', 'moderation', 'service_tier', 'zz', '0', 'provider'),
  fc.oneof(wildText, fc.integer(), fc.constant(null), fc.dictionary(fc.constantFrom('a', 'b'), wildText)),
  { maxKeys: 3 },
);

const delta = fc.oneof(
  wildText.map((content) => ({ content })),
  fc.constant({ content: null }),
  fc.constant({}),
  fc
    .tuple(fc.nat({ max: 3 }), wildText)
    .map(([index, text]) => ({ tool_calls: [{ index, function: { arguments: text } }] })),
  unknownFields,
);

/** One chunk of a choice, with unknown fields beside it. */
const wildChunk: fc.Arbitrary<ChatChunk> = fc
  .tuple(delta, fc.nat({ max: 2 }), unknownFields)
  .map(([said, index, extra]) => ({ ...chunk([choice(index, said)]), ...extra }));

/** How one server ends its lines: one way throughout. */
const framing = fc.record({
  newline: fc.constantFrom('\n' as const, '\r\n' as const, '\r' as const),
  space: fc.boolean(),
});

const comment = fc.constantFrom(': keep-alive', ':', 'id: 7', 'retry: 3000', ': data: {"choices":[]}');

/**
 * A whole stream as one text: comments, ids, pretty-printed data over several lines, a byte order mark, any line end.
 * It ends as it should, with `[DONE]`.
 */
export const wildStream: fc.Arbitrary<string> = fc
  .tuple(
    framing,
    fc.boolean(),
    fc.array(fc.tuple(wildChunk, fc.option(comment), fc.nat({ max: 5 })), { minLength: 1, maxLength: 12 }),
  )
  .map(([{ newline, space }, hasMark, events]) => {
    const first = frame(chunk([choice(0, { role: 'assistant', content: 'x' })]), { newline, space });
    const frames = events.map(([event, line, spread]) => {
      const data = spread === 0 ? JSON.stringify(event, null, 1) : JSON.stringify(event);
      return `${line === null ? '' : line + newline + (spread % 2 ? newline : '')}${frame(data, { newline, space })}`;
    });
    const end = frame(chunk([0, 1, 2].map((index) => choice(index, {}, 'stop'))), { newline, space });
    return `${hasMark ? '\uFEFF' : ''}${first}${frames.join('')}${end}data: [DONE]${newline}${newline}`;
  });
