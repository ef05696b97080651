/**
 * OpenAI embeddings: `POST /v1/embeddings`.
 * Source: https://platform.openai.com/docs/api-reference/embeddings
 */
import type { Segment } from '../../../proto/contract.ts';
import { countOf, Fields, invalid, objectOf, textOf } from '../../hub/fields.ts';
import type { EmbeddingsReply } from '../../hub/reply.ts';
import type { EmbeddingsRequest } from '../../hub/request.ts';
import type { EmbeddingsDialect, Json, ModelRequest, ReplyFacts } from '../dialect.ts';
import { openaiChat } from '../openai-chat/dialect.ts';
import { escapePointer, Segments, writeTexts } from '../segments.ts';

const { errorBody, errorFrame, modelList, modelEntry } = openaiChat;

export const openaiEmbeddings: EmbeddingsDialect = {
  name: 'openai-embeddings',
  operation: 'embeddings',
  paths: ['/v1/embeddings', '/embeddings'],
  readRequest,
  requestSegments,
  unreadable: (body) => (inputOf(body).some((item) => typeof item !== 'string') ? 'input' : undefined),
  // Vectors hold no text, and call no tool.
  replySegments: () => [],
  replyTools: () => [],
  writeSegments(body, rewritten) {
    writeTexts(body, rewritten);
  },
  replyFacts,
  skimReply: () => undefined,
  rename: (body, model) => {
    body.model = model;
  },
  // There is no answer to be bounded.
  limitOutput: () => {},
  markLimited: () => false,
  errorBody,
  errorFrame,
  modelList,
  modelEntry,
  toHub,
  fromHub,
};

// --- Requests -----------------------------------------------------------------------------------------------------

function readRequest(body: Json): ModelRequest {
  const { model } = body;
  if (model !== undefined && typeof model !== 'string') throw invalid('model', 'must be a string');
  inputOf(body);
  return { body, model, stream: false, wantsUsage: false, maxOutputTokens: undefined, choices: 1 };
}

/** One text or many, or the token ids of one or of many. */
function inputOf({ input }: Json): (string | number[])[] {
  if (typeof input === 'string') return [input];
  if (!Array.isArray(input) || input.length === 0) throw invalid('input', 'must be a text or a list that is not empty');
  if (isTokens(input)) return [input];
  const odd = input.findIndex((item: unknown) => typeof item !== 'string' && !isTokens(item));
  if (odd >= 0) throw invalid(`input[${odd}]`, 'must be a text or a list of token ids');
  return input;
}

function isTokens(value: unknown): value is number[] {
  return Array.isArray(value) && value.length > 0 && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

const SETTINGS = new Set(['model', 'encoding_format', 'dimensions', 'user']);

/** Token ids are no text that a guard could read. */
function requestSegments({ input, ...rest }: Json): Segment[] {
  const segments = new Segments();
  // Some servers put a text of the client's before each input.
  for (const [key, value] of Object.entries(rest)) {
    if (!SETTINGS.has(key)) segments.deep(`/${escapePointer(key)}`, value, 'user', 'text', false);
  }
  if (typeof input === 'string') segments.add('/input', input, 'user', 'text', false);
  else if (Array.isArray(input)) {
    input.forEach((text, i) => {
      segments.add(`/input/${i}`, text, 'user', 'text', false);
    });
  }
  return segments.list;
}

function toHub(body: Json): EmbeddingsRequest {
  const fields = new Fields(body);
  // Said in the answer again, whatever the provider does.
  fields.word('encoding_format', ['float', 'base64'] as const);
  fields.skip('model', 'input');
  const input = inputOf(body);
  const hub: EmbeddingsRequest = { input, used: new Map(), unknown: [] };
  if (input.some((item) => typeof item !== 'string')) hub.used.set('token-input', 'input');
  const dimensions = fields.number('dimensions');
  if (dimensions !== undefined) {
    if (!Number.isSafeInteger(dimensions) || dimensions < 1)
      throw invalid('dimensions', 'must be a whole number from 1 on');
    hub.dimensions = dimensions;
    hub.used.set('dimensions', 'dimensions');
  }
  const user = fields.string('user');
  if (user !== undefined && user !== '') {
    hub.user = user;
    hub.used.set('user', 'user');
  }
  hub.unknown.push(...fields.unread());
  return hub;
}

// --- Replies ------------------------------------------------------------------------------------------------------

function replyFacts({ usage, model }: Json): ReplyFacts {
  const inputTokens = countOf(objectOf(usage)?.prompt_tokens);
  return { usage: inputTokens ? { inputTokens, outputTokens: 0 } : undefined, model: textOf(model) };
}

function fromHub(reply: EmbeddingsReply, model: string, request: Json): Json {
  const inputTokens = reply.usage?.inputTokens ?? 0;
  return {
    object: 'list',
    data: reply.vectors.map((vector, index) => ({
      object: 'embedding',
      index,
      embedding: request.encoding_format === 'base64' ? base64(vector) : vector,
    })),
    model: reply.model ?? model,
    usage: { prompt_tokens: inputTokens, total_tokens: inputTokens },
  };
}

/** 32-bit floats, little end first: what the official clients ask for unasked. */
function base64(vector: number[]): string {
  const bytes = Buffer.alloc(vector.length * 4);
  vector.forEach((value, i) => {
    bytes.writeFloatLE(value, i * 4);
  });
  return bytes.toString('base64');
}
