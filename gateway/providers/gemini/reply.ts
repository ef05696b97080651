/** Gemini's answers → hub. Source: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse. */
import type { Json } from '../../dialects/dialect.ts';
import { marked } from '../../dialects/gemini/seals.ts';
import { readUsage } from '../../dialects/gemini/usage.ts';
import { GatewayError } from '../../errors.ts';
import { badAnswer, countOf, objectOf, objectsOf, textOf } from '../../hub/fields.ts';
import type { Finish, HubChoice, HubReply, Logprob, ReplyPart } from '../../hub/reply.ts';
import type { Citation } from '../../hub/request.ts';
import { madeUpId } from './ids.ts';

/** Reads a whole answer. @throws GatewayError `upstream_bad_answer` */
export function readReply(body: Json): HubReply {
  const candidates = objectsOf(body.candidates);
  const blocked = blockOf(body);
  if (candidates.length === 0 && blocked === undefined) throw badAnswer();
  const id = textOf(body.responseId);
  const choices =
    candidates.length === 0
      ? [{ index: 0, parts: [], finish: 'content-filter' as const }]
      : candidates.map((candidate, i) => readCandidate(candidate, i, id));
  return {
    id,
    model: textOf(body.modelVersion),
    created: createdOf(body.createTime),
    choices,
    usage: readUsage(body.usageMetadata),
  };
}

/** Why a prompt was blocked: then the answer is 200 and has no candidates. */
export function blockOf({ promptFeedback }: Json): string | undefined {
  return textOf(objectOf(promptFeedback)?.blockReason);
}

/** An RFC 3339 time in seconds. */
export function createdOf(time: unknown): number | undefined {
  const ms = typeof time === 'string' ? Date.parse(time) : Number.NaN;
  return Number.isNaN(ms) ? undefined : Math.floor(ms / 1000);
}

/** A candidate's own number, else its place in the list. */
export function indexOf({ index }: Json, place: number): number {
  return countOf(index) ?? place;
}

/** The parts of a candidate; none where it was stopped before it said anything. */
export function partsOf({ content }: Json): Json[] {
  return objectsOf(objectOf(content)?.parts);
}

function readCandidate(candidate: Json, place: number, id: string | undefined): HubChoice {
  const index = indexOf(candidate, place);
  const parts = new Parts(id, index);
  for (const part of partsOf(candidate)) parts.add(part);
  const finish = finishOf(candidate.finishReason, parts.hasCalls);
  if (finish === undefined) throw badAnswer();
  parts.cite(citationsOf(candidate));
  const logprobs = logprobsOf(candidate.logprobsResult);
  return { index, parts: parts.list, finish, ...(logprobs.length > 0 && { logprobs }) };
}

/** The parts of one answer in the hub's words. */
class Parts {
  readonly list: ReplyPart[] = [];
  private readonly id: string | undefined;
  private readonly choice: number;
  private calls = 0;

  constructor(id: string | undefined, choice: number) {
    this.id = id;
    this.choice = choice;
  }

  get hasCalls(): boolean {
    return this.calls > 0;
  }

  /** Images that the model only drew while it thought, and runs of Google's own tools, have no place in other formats. */
  add(part: Json): void {
    const { thought, inlineData } = part;
    const text = textOf(part.text);
    const seal = textOf(part.thoughtSignature);
    const call = objectOf(part.functionCall);
    const media = objectOf(inlineData);
    if (call !== undefined) this.addCall(call, seal);
    else {
      if (text !== undefined && text !== '') this.addText(text, thought === true);
      if (media !== undefined && thought !== true) this.addMedia(media);
      if (seal !== undefined) this.addSeal(seal);
    }
  }

  private addCall(call: Json, signature: string | undefined): void {
    this.list.push({ type: 'tool-call', ...readCall(call, this.id, this.choice, this.calls), signature });
    this.calls += 1;
  }

  private addText(text: string, isThought: boolean): void {
    const last = this.list.at(-1);
    if (isThought && last?.type === 'reasoning' && last.signature === undefined) last.text += text;
    else if (isThought) this.list.push({ type: 'reasoning', text });
    else if (last?.type === 'text') last.text += text;
    else this.list.push({ type: 'text', text });
  }

  private addMedia(media: Json): void {
    const [mediaType, data] = [textOf(media.mimeType), textOf(media.data)];
    if (mediaType !== undefined && data !== undefined) this.list.push({ type: 'media', mediaType, data });
  }

  private addSeal(seal: string): void {
    const last = this.list.at(-1);
    if (last?.type === 'reasoning' && last.signature === undefined) last.signature = marked(seal);
    else this.list.push({ type: 'reasoning', text: '', signature: marked(seal) });
  }

  cite(citations: Sourced[]): void {
    if (citations.length === 0) return;
    let text = this.list.find((part) => part.type === 'text');
    if (text === undefined) {
      text = { type: 'text', text: '' };
      this.list.push(text);
    }
    const said = text.text;
    text.citations = citations.map((citation) => placed(citation, said));
  }
}

/** A tool call's id, name and arguments as JSON text. @throws GatewayError when it names no tool */
export function readCall(
  call: Json,
  responseId: string | undefined,
  choice: number,
  number: number,
): { id: string; name: string; arguments: string } {
  const name = textOf(call.name);
  if (name === undefined || name === '') throw badAnswer();
  return {
    id: textOf(call.id) || madeUpId(responseId, choice, number),
    name,
    arguments: written(objectOf(call.args) ?? {}),
  };
}

/** @throws GatewayError where it is nested so deep that it cannot be written again */
function written(args: Json): string {
  try {
    return JSON.stringify(args);
  } catch {
    throw badAnswer();
  }
}

// --- Why it ended -------------------------------------------------------------------------------------------------

const FINISHES: Record<string, Finish> = { STOP: 'stop', MAX_TOKENS: 'length', CONTINUATION: 'pause' };
/** The model's own words were none: to ask again may help. */
const FAILURES = new Set([
  'MALFORMED_FUNCTION_CALL',
  'MALFORMED_RESPONSE',
  'UNEXPECTED_TOOL_CALL',
  'TOO_MANY_TOOL_CALLS',
]);

/**
 * Why an answer ended; undefined where it has not. What is not known here was stopped for something, so that it never
 * reads as a finished answer.
 *
 * @throws GatewayError `upstream_bad_answer` when the model wrote no answer that can be read
 */
export function finishOf(reason: unknown, hasCalls: boolean): Finish | undefined {
  if (typeof reason !== 'string' || reason === 'FINISH_REASON_UNSPECIFIED') return undefined;
  if (FAILURES.has(reason))
    throw new GatewayError('upstream_bad_answer', 'The model wrote a tool call that cannot be read. Try again.');
  const finish = Object.hasOwn(FINISHES, reason) ? FINISHES[reason] : 'content-filter';
  return finish === 'stop' && hasCalls ? 'tool-calls' : finish;
}

// --- Log probabilities --------------------------------------------------------------------------------------------

/** The tokens of `logprobsResult` with what else might have stood there. */
export function logprobsOf(result: unknown): Logprob[] {
  const { chosenCandidates, topCandidates } = objectOf(result) ?? {};
  const tops = Array.isArray(topCandidates) ? topCandidates : [];
  return objectsOf(chosenCandidates).map((chosen, i) => {
    const top = objectsOf(objectOf(tops[i])?.candidates).map(tokenOf);
    return { ...tokenOf(chosen), ...(top.length > 0 && { top }) };
  });
}

function tokenOf({ token, logProbability }: Json): { token: string; logprob: number } {
  const logprob = typeof logProbability === 'number' && Number.isFinite(logProbability) ? logProbability : 0;
  return { token: textOf(token) ?? '', logprob };
}

// --- Citations ----------------------------------------------------------------------------------------------------

/** A citation whose place is told in bytes of UTF-8, as Google counts. */
export interface Sourced {
  citation: Citation;
  from: number | undefined;
  to: number | undefined;
}

/** What a candidate says of its sources: texts that it repeats, and pages that it looked at. */
export function citationsOf({ citationMetadata, groundingMetadata }: Json): Sourced[] {
  const metadata = objectOf(citationMetadata) ?? {};
  const repeated = objectsOf(metadata.citations ?? metadata.citationSources).map((source) => ({
    citation: { url: textOf(source.uri), title: textOf(source.title) },
    from: countOf(source.startIndex) ?? 0,
    to: countOf(source.endIndex),
  }));
  return [...repeated, ...groundsOf(objectOf(groundingMetadata) ?? {})];
}

function groundsOf({ groundingChunks, groundingSupports }: Json): Sourced[] {
  const chunks = objectsOf(groundingChunks).map(groundOf);
  return objectsOf(groundingSupports).flatMap(({ segment, groundingChunkIndices }) => {
    const place = objectOf(segment);
    const numbers = Array.isArray(groundingChunkIndices) ? groundingChunkIndices : [];
    return numbers.flatMap((number: unknown) => {
      const citation = typeof number === 'number' ? chunks[number] : undefined;
      return citation ? [{ citation, from: countOf(place?.startIndex) ?? 0, to: countOf(place?.endIndex) }] : [];
    });
  });
}

function groundOf({ web, retrievedContext, maps }: Json): Citation {
  const page = objectOf(web) ?? objectOf(retrievedContext) ?? objectOf(maps) ?? {};
  return { url: textOf(page.uri), title: textOf(page.title), quote: textOf(page.text) };
}

/** The citation with its place in UTF-16 units of the text that has been said. */
export function placed({ citation, from, to }: Sourced, text: string): Citation {
  if (from === undefined || to === undefined) return citation;
  const bytes = Buffer.from(text);
  if (to > bytes.length || from > to) return citation;
  const start = bytes.toString('utf8', 0, from).length;
  return { ...citation, start, end: start + bytes.toString('utf8', from, to).length };
}
