/** Hub → Gemini's answers. Source: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse. */
import { badAnswer } from '../../hub/fields.ts';
import type { Finish, HubChoice, HubReply, Logprob, ReplyPart } from '../../hub/reply.ts';
import type { Citation, ToolCallPart } from '../../hub/request.ts';
import { isJsonObject, parseJson } from '../../json.ts';
import type { Json } from '../dialect.ts';
import { writeSeal } from './seals.ts';
import { writeUsage } from './usage.ts';

/** Writes a whole answer; `model` is named where the provider names none. */
export function fromHub(reply: HubReply, model: string): Json {
  return {
    candidates: reply.choices.map(writeCandidate),
    ...(reply.usage !== undefined && { usageMetadata: writeUsage(reply.usage) }),
    modelVersion: reply.model ?? model,
    ...writeHead(reply),
  };
}

/** What tells one answer from others. */
export function writeHead({ id, created }: { id?: string; created?: number }): Json {
  const time = new Date((created ?? Number.NaN) * 1000);
  const isTime = !Number.isNaN(time.getTime());
  return { ...(isTime && { createTime: time.toISOString() }), ...(id !== undefined && { responseId: id }) };
}

function writeCandidate({ index, parts, finish, logprobs }: HubChoice): Json {
  const written = parts.flatMap((part) => writePart(part, finish));
  return {
    content: { parts: written, role: 'model' },
    finishReason: writeFinish(
      finish,
      parts.some(({ type }) => type === 'refusal'),
    ),
    index,
    ...writeGrounding(groundsOf(parts)),
    ...(logprobs !== undefined && logprobs.length > 0 && { logprobsResult: writeLogprobs(logprobs) }),
  };
}

function writePart(part: ReplyPart, finish: Finish): Json[] {
  switch (part.type) {
    case 'text':
    case 'refusal':
      return [{ text: part.text }];
    case 'reasoning':
      return [writeThought(part.text, writeSeal(part))];
    case 'tool-call':
      return writeCall(part, finish);
    default:
      return [{ inlineData: { mimeType: part.mediaType, data: part.data } }];
  }
}

/** A part of the thoughts. A seal of nothing is the text's before it. */
export function writeThought(text: string, seal: string | undefined): Json {
  return { text, thought: true, ...(seal !== undefined && { thoughtSignature: seal }) };
}

/**
 * A call; none where the answer's length cut its arguments off, which can only be an object here.
 *
 * @throws GatewayError `upstream_bad_answer` when they are none although the answer is complete
 */
export function writeCall(
  { id, name, arguments: text, signature }: Omit<ToolCallPart, 'type'>,
  finish: Finish,
): Json[] {
  const args = text.trim() === '' ? {} : parseJson(text);
  if (isJsonObject(args))
    return [{ functionCall: { id, name, args }, ...(signature !== undefined && { thoughtSignature: signature }) }];
  if (finish === 'length' || finish === 'context-window') return [];
  throw badAnswer();
}

const FINISHES: Record<Finish, string> = {
  stop: 'STOP',
  'stop-sequence': 'STOP',
  'tool-calls': 'STOP',
  length: 'MAX_TOKENS',
  'context-window': 'MAX_TOKENS',
  'content-filter': 'SAFETY',
  refusal: 'SAFETY',
  pause: 'OTHER',
};

/** A refusal in words has no place of its own: the reason tells it from an answer. */
export function writeFinish(finish: Finish, hasRefused: boolean): string {
  return hasRefused && finish === 'stop' ? 'SAFETY' : FINISHES[finish];
}

export function writeLogprobs(logprobs: Logprob[]): Json {
  const candidate = ({ token, logprob }: { token: string; logprob: number }) => ({ token, logProbability: logprob });
  return {
    chosenCandidates: logprobs.map(candidate),
    topCandidates: logprobs.map(({ top = [] }) => ({ candidates: top.map(candidate) })),
  };
}

/** A citation and the part that it belongs to: by its place in the answer, with its text. */
export interface Ground {
  citation: Citation;
  part: number;
  text: string;
}

function groundsOf(parts: ReplyPart[]): Ground[] {
  return parts.flatMap((part, i) =>
    part.type === 'text' ? (part.citations ?? []).map((citation) => ({ citation, part: i, text: part.text })) : [],
  );
}

/** Sources of an answer, with their places in bytes of UTF-8. */
export function writeGrounding(grounds: Ground[]): Json {
  if (grounds.length === 0) return {};
  return {
    groundingMetadata: {
      groundingChunks: grounds.map(({ citation }) => chunkOf(citation)),
      groundingSupports: grounds.map((ground, i) => ({ segment: segmentOf(ground), groundingChunkIndices: [i] })),
    },
  };
}

function chunkOf({ url, title, quote }: Citation): Json {
  const page = { ...(url !== undefined && { uri: url }), ...(title !== undefined && { title }) };
  // A page of the web has no place for what it says.
  return quote === undefined ? { web: page } : { retrievedContext: { ...page, text: quote } };
}

function segmentOf({ citation: { start = 0, end }, part, text }: Ground): Json {
  const cited = text.slice(start, end);
  const startIndex = Buffer.byteLength(text.slice(0, start));
  return { partIndex: part, startIndex, endIndex: startIndex + Buffer.byteLength(cited), text: cited };
}
