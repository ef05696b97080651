/**
 * Gemini: `POST /v1beta/models/{model}:generateContent` and `:streamGenerateContent?alt=sse`, and the same under
 * Vertex' longer paths. Source: https://ai.google.dev/api/generate-content (v1beta, 2026).
 */
import type { Segment, Usage } from '../../../proto/contract.ts';
import { GatewayError } from '../../errors.ts';
import { invalid, textOf } from '../../hub/fields.ts';
import { isJsonObject, parseJson } from '../../json.ts';
import { GeminiReader } from '../../providers/gemini/stream.ts';
import type { ChatDialect, Json, ListedModel, ModelRequest, PathFacts, ReplyFacts, ToolCall } from '../dialect.ts';
import { escapePointer, Segments, writeTexts } from '../segments.ts';
import { candidatesOf, eventHead, numberOf, readEvent, skimEvents, textEvent, toolOf } from './events.ts';
import { errorBody, errorFrame, frame } from './frames.ts';
import { contentSegments } from './parts.ts';
import { fromHub } from './reply.ts';
import { toHub } from './request.ts';
import { camel, camelKeys, fieldOf, nameIn } from './spelling.ts';
import { openWriter } from './stream.ts';
import { readUsage, writeUsage } from './usage.ts';

export const gemini: ChatDialect = {
  name: 'gemini',
  operation: 'chat',
  asksUsage: false,
  // The official client leaves out events that do not begin with their data.
  takesEventIds: false,
  paths: [],
  pathPattern: pathOf('generateContent|streamGenerateContent'),
  readPath,
  readRequest,
  requestSegments,
  replySegments,
  replyTools,
  writeSegments,
  replyFacts: (body) => ({ usage: readUsage(body.usageMetadata), model: textOf(body.modelVersion) }),
  skimReply,
  limitOutput,
  markLimited,
  toHub,
  fromHub,
  openReader: () => new GeminiReader('gateway'),
  openWriter,
  cutShort,
  readEvent,
  skimEvents,
  textEvent,
  frame,
  errorBody,
  errorFrame,
  listing,
  modelList: (models) => JSON.stringify({ models: models.map(modelEntry) }),
  modelEntry: (model) => JSON.stringify(modelEntry(model)),
};

// --- Paths --------------------------------------------------------------------------------------------------------

/** The paths of some methods: Google's own, and Vertex', which name a project, a location and a publisher. */
export function pathOf(methods: string): RegExp {
  const vertex = '(?:projects/[^/]+/locations/[^/]+/)?(?:publishers/google/)?';
  return new RegExp(`^/v1(?:beta1?|alpha)?/${vertex}models/(?<model>.+):(?<action>${methods})$`);
}

function readPath({ model = '', action }: Record<string, string | undefined>, query: string): PathFacts {
  const stream = action === 'streamGenerateContent';
  const parameters = new URLSearchParams(query);
  // Google knows its own parameters by both names.
  if (stream && parameters.get('alt') !== 'sse' && parameters.get('$alt') !== 'sse')
    throw new GatewayError(
      'invalid_request',
      'Streams are sent as server-sent events here: add `?alt=sse` to the path.',
      { param: 'alt' },
    );
  return { model: decoded(model), stream };
}

/** A model's name as it stood before the client wrote it into a path. @throws GatewayError 400 when it cannot be read */
export function decoded(model: string): string {
  try {
    return decodeURIComponent(model);
  } catch {
    throw invalid('model', 'is not written as a path must be');
  }
}

/** Its own paths, and the shared one where the client brings its key as Google has it. */
function listing(path: string, headers: Readonly<Record<string, string | undefined>>): string | undefined {
  const groups = /^\/(?<version>v1(?:beta1?|alpha)?)\/(?:publishers\/google\/)?models(?:\/(?<id>.+))?$/.exec(
    path,
  )?.groups;
  if (groups === undefined) return undefined;
  const isOwn = groups.version !== 'v1' || path.includes('/publishers/') || headers['x-goog-api-key'] !== undefined;
  return isOwn ? decoded(groups.id ?? '') : undefined;
}

function modelEntry({ id }: ListedModel): Json {
  const supportedGenerationMethods = ['generateContent', 'countTokens'];
  return { name: `models/${id}`, version: id, displayName: id, supportedGenerationMethods };
}

// --- Requests -----------------------------------------------------------------------------------------------------

/** @throws GatewayError 400 when a body names another model than its path, which alone was allowed, limited and priced */
export function checkModel(given: unknown, at: string, { model = '' }: PathFacts): void {
  if (given === undefined || given === null || given === model) return;
  if (typeof given !== 'string' || !`/${given}`.endsWith(`/models/${model}`))
    throw invalid(at, 'must be the model that the path names');
}

function readRequest(body: Json, path: PathFacts): ModelRequest {
  const { model, stream = false } = path;
  const { contents } = camelKeys(body, '') as Json;
  checkModel(body.model, 'model', path);
  if (!Array.isArray(contents)) throw invalid('contents', 'is missing or not a list');
  if (!contents.every(isJsonObject)) throw invalid('contents', 'must be a list of objects');
  const config = configOf(body);
  const [choices, bound] = [fieldOf(config, 'candidateCount'), fieldOf(config, 'maxOutputTokens')];
  return {
    body,
    model,
    stream,
    // Every stream tells it.
    wantsUsage: true,
    choices: typeof choices === 'number' && choices > 1 ? Math.floor(choices) : 1,
    maxOutputTokens: isBound(bound) ? bound : undefined,
    // The path names it; what it is called upstream is another matter.
    ...(body.model !== undefined && { amend: withoutModel }),
  };
}

function withoutModel(body: Json): void {
  delete body.model;
}

/** @throws GatewayError 400 when it is no object, or has a field by both of its names */
function configOf(body: Json): Json {
  const name = nameIn(body, 'generationConfig');
  const config = body[name] ?? {};
  if (!isJsonObject(config)) throw invalid(name, 'must be an object');
  camelKeys(config, name);
  return config;
}

function isBound(value: unknown): value is number {
  return typeof value === 'number' && value >= 1;
}

function requestSegments(body: Json): Segment[] {
  const segments = new Segments();
  addRequest(segments, '', body);
  return segments.list;
}

/** Every text of a request that stands at a JSON pointer. */
export function addRequest(segments: Segments, at: string, body: Json): void {
  for (const [key, value] of Object.entries(body)) {
    const path = `${at}/${escapePointer(key)}`;
    const field = camel(key);
    if (field === 'contents') contentsSegments(segments, path, value);
    else if (field === 'systemInstruction') contentSegments(segments, path, value, { role: 'system', old: false });
    else if (field === 'generationConfig') configSegments(segments, path, value);
    else if (field === 'tools') segments.deep(path, value, 'system', 'tool-definition', false);
    else if (!SETTINGS.has(field)) segments.deep(path, value, 'system', 'text', false);
  }
}

/** Fields that no model reads. */
const SETTINGS = new Set(['model', 'safetySettings', 'toolConfig', 'cachedContent', 'serviceTier', 'store', 'labels']);

function contentsSegments(segments: Segments, path: string, contents: unknown): void {
  const list = Array.isArray(contents) ? contents : [contents];
  const newest = list.findLastIndex(isUsersTurn);
  list.forEach((content, i) => {
    const role = isJsonObject(content) && content.role === 'model' ? 'assistant' : 'user';
    const at = Array.isArray(contents) ? `${path}/${i}` : path;
    contentSegments(segments, at, content, { role, old: i < newest });
  });
}

/** A turn in which the user says something, and not only tools do. */
function isUsersTurn(content: unknown): boolean {
  if (!isJsonObject(content)) return true;
  if (content.role !== undefined && content.role !== 'user') return false;
  const { parts } = content;
  return !Array.isArray(parts) || !parts.every((part) => isJsonObject(part) && fieldOf(part, 'functionResponse'));
}

/** Of the settings the model reads the schemas alone, and whatever is not known to be a setting. */
function configSegments(segments: Segments, path: string, config: unknown): void {
  if (!isJsonObject(config)) return;
  for (const [key, value] of Object.entries(config)) {
    if (!CONFIG.has(camel(key)))
      segments.deep(`${path}/${escapePointer(key)}`, value, 'system', 'tool-definition', false);
  }
}

/** What says how to answer; see https://ai.google.dev/api/generate-content#generationconfig. */
const CONFIG = new Set([
  ...['stopSequences', 'responseMimeType', 'responseModalities', 'candidateCount', 'maxOutputTokens', 'temperature'],
  ...['topP', 'topK', 'seed', 'presencePenalty', 'frequencyPenalty', 'responseLogprobs', 'logprobs', 'speechConfig'],
  ...['thinkingConfig', 'imageConfig', 'mediaResolution', 'enableEnhancedCivicAnswers', 'audioTimestamp'],
  ...['routingConfig', 'modelSelectionConfig', 'enableAffectiveDialog'],
]);

// --- Replies ------------------------------------------------------------------------------------------------------

function replySegments(body: Json): Segment[] {
  const segments = new Segments();
  candidatesOf(body).forEach((candidate, i) => candidateSegments(segments, `/candidates/${i}`, candidate));
  segments.beside(body, REPLY_FACTS);
  return segments.list;
}

/** What a reply tells beside its candidates, and is no text. */
const REPLY_FACTS = new Set(['candidates', 'usageMetadata', 'modelVersion', 'responseId', 'createTime']);
/** Of a candidate; log probabilities go when its text is changed. */
const CANDIDATE_FACTS = new Set([
  'finishReason',
  'index',
  'safetyRatings',
  'tokenCount',
  'avgLogprobs',
  'logprobsResult',
]);

function candidateSegments(segments: Segments, path: string, candidate: unknown): void {
  const place = { role: 'assistant', old: false } as const;
  if (!isJsonObject(candidate)) {
    segments.deep(path, candidate, place.role, 'text', false);
    return;
  }
  for (const [key, value] of Object.entries(candidate)) {
    const at = `${path}/${escapePointer(key)}`;
    if (key === 'content') contentSegments(segments, at, value, place);
    else if (!CANDIDATE_FACTS.has(key)) segments.deep(at, value, place.role, 'text', false);
  }
}

function replyTools(body: Json): ToolCall[] {
  return candidatesOf(body).flatMap((candidate, i) => {
    if (!isJsonObject(candidate) || !isJsonObject(candidate.content)) return [];
    const { parts } = candidate.content;
    const calls = (Array.isArray(parts) ? parts : []).filter(isJsonObject).map(({ functionCall }) => functionCall);
    return calls.filter(isJsonObject).flatMap((call) => toolOf(call, numberOf(candidate, i)) ?? []);
  });
}

/** Besides the text itself, its copies go: log probabilities repeat every token. */
function writeSegments(body: Json, rewritten: ReadonlyMap<string, string>): void {
  writeTexts(body, rewritten);
  if (rewritten.size === 0 || !Array.isArray(body.candidates)) return;
  for (const candidate of body.candidates) if (isJsonObject(candidate)) delete candidate.logprobsResult;
}

/**
 * The usage stands at the end, and holds no string with a brace. Where there are tool calls, their arguments could have a
 * field of that name.
 */
function skimReply(text: string): ReplyFacts | undefined {
  if (text[0] !== '{' || text.includes('"functionCall"')) return undefined;
  const from = text.lastIndexOf('"usageMetadata"');
  const found = from < 0 ? undefined : USAGE.exec(text.slice(from, from + MAX_USAGE))?.[1];
  const usage = found === undefined ? undefined : readUsage(parseJson(found));
  return usage && { usage, model: /"modelVersion": ?"([^"\\]*)"/.exec(text)?.[1] };
}

const USAGE = /^"usageMetadata":\s*(\{(?:[^{}]|\{[^{}]*\})*\})/;
const MAX_USAGE = 4_096;

// --- Quotas -------------------------------------------------------------------------------------------------------

const LIMITED = 'The answer was cut because your quota is used up. Ask again when it is there again.';

function limitOutput(body: Json, most: number): void {
  const name = nameIn(body, 'generationConfig');
  const config = configOf(body);
  const field = nameIn(config, 'maxOutputTokens');
  const own = config[field];
  body[name] = { ...config, [field]: isBound(own) ? Math.min(own, most) : most };
}

function markLimited(body: Json): boolean {
  const candidates = Array.isArray(body.candidates) ? body.candidates : [];
  const cut = candidates.filter((one) => isJsonObject(one) && one.finishReason === 'MAX_TOKENS') as Json[];
  for (const candidate of cut) candidate.finishMessage = LIMITED;
  return cut.length > 0;
}

function cutShort(like: Json, choices: string[], usage: Usage | undefined): string {
  const candidates = choices.map((index) => ({
    content: { parts: [{ text: '' }], role: 'model' },
    finishReason: 'MAX_TOKENS',
    finishMessage: LIMITED,
    index: Number(index),
  }));
  return frame({ candidates, ...(usage && { usageMetadata: writeUsage(usage) }), ...eventHead(like) });
}
