/** What guards see of Gemini's streams: each event is a `GenerateContentResponse` with what is new. */
import { badAnswer, countOf, objectOf, textOf } from '../../hub/fields.ts';
import { isJsonObject } from '../../json.ts';
import { emptyEvent, type Json, NONE, type StreamEvent, type ToolCall } from '../dialect.ts';
import { isLongNumber } from '../segments.ts';
import { isSeal } from './parts.ts';
import { readUsage } from './usage.ts';

/** Reads the data of one event. */
export function readEvent(data: string): StreamEvent {
  const body: unknown = JSON.parse(data);
  if (!isJsonObject(body)) throw new SyntaxError('an event must be an object');
  const event = emptyEvent();
  event.body = body;
  event.model = textOf(body.modelVersion);
  event.usage = readUsage(body.usageMetadata);
  if (body.error) event.error = textOf(objectOf(body.error)?.message) ?? 'error';
  const candidates = candidatesOf(body);
  event.bare = candidates.length > 0;
  candidates.forEach((candidate, i) => readCandidate(event, candidates, candidate, i));
  // A prompt that was blocked has no answer at all.
  if (candidates.length === 0 && objectOf(body.promptFeedback)?.blockReason) event.finished = ['0'];
  for (const key in body) if (!KNOWN.has(key)) addDeep(event, body, key, '0/extra');
  for (const key in body) if (!BARE.has(key)) event.bare = false;
  return event;
}

/** What an event has beside its candidates, and tells nobody anything. */
const KNOWN = new Set(['candidates', 'usageMetadata', 'modelVersion', 'responseId', 'createTime', 'error']);
const BARE = new Set(['candidates', 'modelVersion', 'responseId', 'createTime']);

/** @throws GatewayError when they are there and no list: a client would find them, and no guard */
export function candidatesOf({ candidates }: Json): unknown[] {
  if (candidates === undefined || candidates === null) return NONE;
  if (Array.isArray(candidates)) return candidates;
  throw badAnswer();
}

/** Its own number, else its place in the list. */
export function numberOf({ index }: Json, place: number): number {
  return countOf(index) ?? place;
}

/** Fields of a candidate that hold no text. */
const SILENT = new Set([
  'content',
  'finishReason',
  'index',
  'safetyRatings',
  'tokenCount',
  'avgLogprobs',
  'logprobsResult',
]);

function readCandidate(event: StreamEvent, list: unknown[], candidate: unknown, place: number): void {
  if (!isJsonObject(candidate)) {
    event.bare = false;
    addDeep(event, list as unknown as Json, `${place}`, '0/extra');
    return;
  }
  const index = numberOf(candidate, place);
  readContent(event, candidate, index);
  for (const key in candidate) {
    if (key !== 'content' && key !== 'index') event.bare = false;
    if (!SILENT.has(key)) addDeep(event, candidate, key, `${index}/extra`);
  }
  if (typeof candidate.finishReason === 'string') {
    if (event.finished === NONE) event.finished = [];
    event.finished.push(`${index}`);
  }
  // Log probabilities repeat the text; beside text that is not there they would tell it unseen.
  if (
    candidate.logprobsResult &&
    !event.parts.some(({ channel, text }) => text !== '' && channel === `${index}/text`)
  ) {
    delete candidate.logprobsResult;
    event.isTrimmed = true;
  }
}

function readContent(event: StreamEvent, candidate: Json, index: number): void {
  const { content } = candidate;
  if (!isJsonObject(content) || !Array.isArray(content.parts)) {
    if (content !== undefined && content !== null) addDeep(event, candidate, 'content', `${index}/extra`);
    return;
  }
  for (const key in content) if (key !== 'parts' && key !== 'role') addDeep(event, content, key, `${index}/extra`);
  content.parts.forEach((part: unknown, i) => {
    if (isJsonObject(part)) readPart(event, candidate, part, index);
    else addDeep(event, content.parts as Json, `${i}`, `${index}/extra`);
  });
}

function readPart(event: StreamEvent, candidate: Json, part: Json, index: number): void {
  for (const key in part) {
    const value = part[key];
    if (key === 'text' && typeof value === 'string') {
      addText(event, candidate, part, `${index}/${part.thought === true ? 'reasoning' : 'text'}`);
    } else if (key !== 'thought') {
      event.bare = false;
      readOther(event, part, key, index);
    }
  }
}

function readOther(event: StreamEvent, part: Json, key: string, index: number): void {
  const value = part[key];
  if (key === 'functionCall' && isJsonObject(value)) readCall(event, value, index);
  else if (key === 'inlineData' && isJsonObject(value)) {
    for (const inner in value) if (inner !== 'data') addDeep(event, value, inner, `${index}/extra`);
  } else if (key !== 'thoughtSignature' || !isSeal(value)) addDeep(event, part, key, `${index}/extra`);
}

/** A call comes whole, or, where Vertex was asked for it, its arguments' strings in pieces. */
function readCall(event: StreamEvent, call: Json, index: number): void {
  const tool = toolOf(call, index);
  if (tool !== undefined) event.tools = [...event.tools, tool];
  for (const key in call) {
    if (key === 'partialArgs' && Array.isArray(call.partialArgs)) {
      for (const piece of call.partialArgs) if (isJsonObject(piece)) readPiece(event, piece, index);
    } else if (key !== 'id' && key !== 'name') addDeep(event, call, key, `${index}/tool-arguments/custom`);
  }
}

function readPiece(event: StreamEvent, piece: Json, index: number): void {
  for (const key in piece) {
    if (key !== 'stringValue' && key !== 'jsonPath') addDeep(event, piece, key, `${index}/tool-arguments/custom`);
  }
  if (typeof piece.stringValue !== 'string') return;
  const channel = `${index}/piece/${textOf(piece.jsonPath) ?? ''}`;
  push(event, channel, piece.stringValue, false, (text) => {
    piece.stringValue = text;
  });
}

/**
 * What a call, or a piece of one, asks for: with each name another begins, and a piece without one goes on. What says
 * nothing at all asks for nothing.
 */
export function toolOf(call: Json, index: number): ToolCall | undefined {
  const name = textOf(call.name);
  if (name === undefined && Object.keys(call).length === 0) return undefined;
  return { call: `${index}/tool-arguments`, name, ...(name !== undefined && { id: name }) };
}

// --- Parts --------------------------------------------------------------------------------------------------------

function push(event: StreamEvent, channel: string, text: string, isWhole: boolean, set: (text: string) => void): void {
  const part = { channel, text, isWhole, set };
  if (event.parts === NONE) event.parts = [part];
  else event.parts.push(part);
}

function addText(event: StreamEvent, candidate: Json, part: Json, channel: string): void {
  push(event, channel, part.text as string, false, (text) => {
    part.text = text;
    // What repeats the text must not outlive it.
    delete candidate.logprobsResult;
  });
}

/** Every string inside a value that comes whole, and every number that may be a card's. */
function addDeep(event: StreamEvent, holder: Json, key: string, channel: string): void {
  const value = holder[key];
  if (typeof value === 'string' || isLongNumber(value)) {
    push(event, channel, String(value), true, (text) => {
      holder[key] = text;
    });
  } else if (typeof value === 'object' && value !== null) {
    for (const inner of Object.keys(value)) addDeep(event, value as Json, inner, channel);
  }
}

// --- Text of the gateway's own ------------------------------------------------------------------------------------

/** An event for text that was held when its channel ended. */
export function textEvent(like: Json, channel: string, text: string): Json {
  const [index = '0', kind, ...path] = channel.split('/');
  const part =
    kind === 'piece'
      ? { functionCall: { partialArgs: [{ jsonPath: path.join('/'), stringValue: text }], willContinue: true } }
      : { text, ...(kind === 'reasoning' && { thought: true }) };
  return { candidates: [{ content: { parts: [part], role: 'model' }, index: Number(index) }], ...eventHead(like) };
}

/** What every event of a stream repeats. */
export function eventHead({ modelVersion, createTime, responseId }: Json): Json {
  return {
    ...(modelVersion !== undefined && { modelVersion }),
    ...(createTime !== undefined && { createTime }),
    ...(responseId !== undefined && { responseId }),
  };
}

/**
 * What a run of whole events is, by a look at its text. Quotes inside strings are escaped, so a name in quotes and a colon
 * can be nothing but a key; every event tells the usage so far, and must be read for it.
 */
export function skimEvents(text: string): 'plain' | 'read' {
  return NOT_PLAIN.test(text) ? 'read' : 'plain';
}

const NOT_PLAIN =
  /"(?:finishReason|usageMetadata|error|functionCall|promptFeedback|inlineData|executableCode|codeExecutionResult|groundingMetadata|citationMetadata|logprobsResult)"|^event:/m;
