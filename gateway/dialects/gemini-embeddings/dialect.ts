/**
 * Gemini's vectors: `POST /v1beta/models/{model}:embedContent` for one text, `:batchEmbedContents` for many.
 * Source: https://ai.google.dev/api/embeddings.
 */
import type { Segment } from '../../../proto/contract.ts';
import { Fields, invalid } from '../../hub/fields.ts';
import type { EmbeddingsReply } from '../../hub/reply.ts';
import type { EmbeddingsRequest } from '../../hub/request.ts';
import type { EmbeddingsDialect, Json, ModelRequest, PathFacts } from '../dialect.ts';
import { checkModel, decoded, gemini, pathOf } from '../gemini/dialect.ts';
import { contentSegments } from '../gemini/parts.ts';
import { camel, camelKeys } from '../gemini/spelling.ts';
import { readUsage, writeUsage } from '../gemini/usage.ts';
import { escapePointer, Segments, writeTexts } from '../segments.ts';

const { errorBody, errorFrame, modelList, modelEntry } = gemini;

/** What both methods share. */
const EMBEDDINGS = {
  operation: 'embeddings',
  paths: [],
  readPath: ({ model = '' }: Record<string, string | undefined>) => ({ model: decoded(model), stream: false }),
  // Vectors hold no text, and call no tool.
  replySegments: () => [],
  replyTools: () => [],
  writeSegments(body: Json, rewritten: ReadonlyMap<string, string>) {
    writeTexts(body, rewritten);
  },
  replyFacts: (body: Json) => ({ usage: readUsage(body.usageMetadata), model: undefined }),
  skimReply: () => undefined,
  // There is no answer to be bounded.
  limitOutput: () => {},
  markLimited: () => false,
  errorBody,
  errorFrame,
  modelList,
  modelEntry,
} as const;

/** One text. */
export const geminiEmbedding: EmbeddingsDialect = {
  ...EMBEDDINGS,
  name: 'gemini-embedding',
  pathPattern: pathOf('embedContent'),
  readRequest(body, path) {
    textOf(open(body, ''));
    checkModel(body.model, 'model', path);
    return requestOf(body, path);
  },
  requestSegments: (body) => segmentsOf([['', body]]),
  rename: (body, model) => rename(body, model),
  toHub: (body) => hubOf([open(body, '')], []),
  fromHub: (reply) => ({ embedding: { values: reply.vectors[0] ?? [] }, ...usageOf(reply) }),
};

/** Many texts. */
export const geminiEmbeddings: EmbeddingsDialect = {
  ...EMBEDDINGS,
  name: 'gemini-embeddings',
  pathPattern: pathOf('batchEmbedContents'),
  readRequest(body, path) {
    for (const request of batchOf(new Fields(body))) {
      textOf(request);
      checkModel(request.any('model'), request.at('model'), path);
    }
    return requestOf(body, path);
  },
  requestSegments: (body) => segmentsOf((body.requests as unknown[]).map((one, i) => [`/requests/${i}`, one])),
  rename(body, model) {
    for (const request of body.requests as Json[]) rename(request, model);
  },
  toHub(body) {
    const fields = new Fields(body);
    const requests = batchOf(fields);
    return hubOf(requests, fields.unread());
  },
  fromHub: (reply) => ({ embeddings: reply.vectors.map((values) => ({ values })), ...usageOf(reply) }),
};

// --- Requests -----------------------------------------------------------------------------------------------------

function requestOf(body: Json, { model }: PathFacts): ModelRequest {
  return { body, model, stream: false, wantsUsage: false, maxOutputTokens: undefined, choices: 1 };
}

function open(source: unknown, path: string): Fields {
  return new Fields(camelKeys(source, path), path);
}

function batchOf(body: Fields): Fields[] {
  const requests = body.list('requests') ?? [];
  if (requests.length === 0) throw invalid('requests', 'is missing or empty');
  return requests.map((request, i) => open(request, `requests[${i}]`));
}

/** The text of one request: its parts, one after the other. */
function textOf(request: Fields, unknown: string[] = []): string {
  const content = open(request.any('content') ?? {}, request.at('content'));
  content.skip('role');
  const parts = (content.list('parts') ?? []).map((part, i) => open(part, `${content.at('parts')}[${i}]`));
  if (parts.length === 0) throw invalid(content.at('parts'), 'is missing or empty');
  const text = parts.map((part) => part.string('text') ?? '').join('');
  unknown.push(...[content, ...parts].flatMap((fields) => fields.unread()));
  return text;
}

/** The model is named by the path. Vectors of one answer have one length. */
function hubOf(requests: Fields[], unknown: string[]): EmbeddingsRequest {
  const hub: EmbeddingsRequest = { input: [], used: new Map(), unknown };
  for (const request of requests) {
    request.skip('model');
    hub.input.push(textOf(request, unknown));
    const dimensions = request.number('outputDimensionality');
    const path = request.at('outputDimensionality');
    if (dimensions !== undefined && !hub.used.has('dimensions')) hub.used.set('dimensions', path);
    if (request !== requests[0] && dimensions !== hub.dimensions)
      throw invalid(path, 'must be the same for all requests');
    hub.dimensions = dimensions;
    unknown.push(...request.unread());
  }
  return hub;
}

function rename(request: Json, model: string): void {
  if (request.model !== undefined) request.model = `models/${model}`;
}

function segmentsOf(requests: [string, unknown][]): Segment[] {
  const segments = new Segments();
  for (const [at, request] of requests) {
    for (const [key, value] of Object.entries(request as Json)) {
      const path = `${at}/${escapePointer(key)}`;
      if (key === 'content') contentSegments(segments, path, value, { role: 'user', old: false });
      else if (!SETTINGS.has(camel(key))) segments.deep(path, value, 'user', 'text', false);
    }
  }
  return segments.list;
}

const SETTINGS = new Set(['model', 'taskType', 'outputDimensionality']);

// --- Replies ------------------------------------------------------------------------------------------------------

function usageOf({ usage }: EmbeddingsReply): Json {
  return usage === undefined ? {} : { usageMetadata: writeUsage(usage) };
}
