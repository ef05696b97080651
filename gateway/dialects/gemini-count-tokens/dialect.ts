/**
 * Gemini's count of a prompt's tokens: `POST /v1beta/models/{model}:countTokens`, with the turns alone, with a whole
 * request inside, or, as Vertex has it, with a whole request's fields.
 * Source: https://ai.google.dev/api/tokens.
 */
import { invalid } from '../../hub/fields.ts';
import { isJsonObject } from '../../json.ts';
import type { CountDialect, Json } from '../dialect.ts';
import { addRequest, checkModel, decoded, gemini, pathOf } from '../gemini/dialect.ts';
import { toHub } from '../gemini/request.ts';
import { fieldOf, nameIn } from '../gemini/spelling.ts';
import { escapePointer, Segments } from '../segments.ts';

const { readRequest, writeSegments, errorBody, errorFrame, modelList, modelEntry } = gemini;

export const geminiCountTokens: CountDialect = {
  name: 'gemini-count-tokens',
  operation: 'count',
  paths: [],
  pathPattern: pathOf('countTokens'),
  readPath: ({ model = '' }) => ({ model: decoded(model), stream: false }),
  readRequest(body, path) {
    checkModel(body.model, 'model', path);
    const { amend: _amend, ...request } = readRequest(promptOf(body), path);
    return { ...request, body };
  },
  requestSegments(body) {
    const segments = new Segments();
    const name = nameIn(body, INNER);
    for (const key of Object.keys(body)) {
      const at = key === name ? `/${escapePointer(key)}` : '';
      addRequest(segments, at, key === name ? promptOf(body) : { [key]: body[key] });
    }
    return segments.list;
  },
  // A number is no text.
  replySegments: () => [],
  replyTools: () => [],
  writeSegments,
  // Counting costs nothing.
  replyFacts: () => ({ usage: undefined, model: undefined }),
  skimReply: () => undefined,
  rename(body, model) {
    for (const named of [body, promptOf(body)]) if (named.model !== undefined) named.model = `models/${model}`;
  },
  limitOutput: () => {},
  markLimited: () => false,
  toHub: (body) => toHub(promptOf(body)),
  fromHub: ({ inputTokens }) => ({ totalTokens: inputTokens }),
  errorBody,
  errorFrame,
  modelList,
  modelEntry,
};

const INNER = 'generateContentRequest';

/** The request whose prompt is counted. @throws GatewayError 400 when it is none */
function promptOf(body: Json): Json {
  const inner = fieldOf(body, INNER) ?? body;
  if (!isJsonObject(inner)) throw invalid(nameIn(body, INNER), 'must be an object');
  return inner;
}
