/**
 * The hub's request as a chat completion's.
 * Source: https://platform.openai.com/docs/api-reference/chat/create
 */
import { createHash } from 'node:crypto';
import type { Json, OutputLimitField } from '../../dialects/dialect.ts';
import { invalid } from '../../hub/fields.ts';
import type {
  EmbeddingsRequest,
  HubMessage,
  HubPart,
  HubRequest,
  HubTool,
  MediaPart,
  OutputFormat,
  ReasoningPart,
  ReasoningWish,
  ToolCallPart,
  ToolChoice,
  ToolResultPart,
} from '../../hub/request.ts';
import type { CallFacts } from '../provider.ts';

/** Where a compatible server's format differs from OpenAI's. */
export interface Variant {
  outputLimitField: OutputLimitField;
  /** Whether streams are asked for their usage. */
  streamUsage: boolean;
  /** Where an id of the end user belongs; default `user`. */
  userField?: 'user' | 'safety_identifier';
  /** The field of an assistant message that takes its earlier thoughts; default: none does. */
  thoughtsField?: 'reasoning_content' | 'reasoning' | 'reasoning_details';
  /** Whether tool calls take back Google's seal of the thought that led to them; others refuse the field. */
  takesSeals?: boolean;
  /** Has the last word on a written body. */
  adjust?(body: Json, request: HubRequest): void;
}

/** Writes a chat completion's request. @throws GatewayError 400 where a single value has no counterpart */
export function writeChat(request: HubRequest, { model, stream }: CallFacts, variant: Variant): Json {
  const body: Json = {
    model,
    messages: request.messages.flatMap((message) => writtenMessages(message, variant)),
    ...(stream && { stream: true, ...(variant.streamUsage && { stream_options: { include_usage: true } }) }),
    ...writtenTools(request),
    ...writtenSampling(request, variant),
    ...writtenReasoning(request),
    ...writtenNotes(request, variant),
  };
  if (request.format !== undefined) body.response_format = writtenFormat(request.format);
  variant.adjust?.(body, request);
  return body;
}

// --- Messages -----------------------------------------------------------------------------------------------------

/** Each tool result is a message of its own. */
function writtenMessages(message: HubMessage, variant: Variant): Json[] {
  const results = message.parts.filter((part) => part.type === 'tool-result');
  const rest = message.parts.filter((part) => part.type !== 'tool-result');
  const written = results.map(writtenResult);
  if (rest.length === 0 && results.length > 0) return written;
  const { role, name } = message;
  const own = role === 'assistant' ? writtenAnswer(rest, variant) : { content: writtenContent(rest, message.at) };
  written.push({ role: role === 'tool' ? 'user' : role, ...own, ...(name !== undefined && { name }) });
  return written;
}

function writtenResult({ id, parts, isError }: ToolResultPart): Json {
  const text = textOfParts(parts, '\n\n');
  return { role: 'tool', tool_call_id: id, content: isError ? `Error: ${text}` : text };
}

function textOfParts(parts: HubPart[], between: string): string {
  return parts.flatMap((part) => (part.type === 'text' ? [part.text] : [])).join(between);
}

/**
 * Text alone is written as one string, pieces with a blank line between: many compatible servers take a list in the
 * user's messages only, some in none.
 */
function writtenContent(parts: HubPart[], at: string): string | Json[] {
  if (parts.every(({ type }) => type === 'text')) return textOfParts(parts, '\n\n');
  return parts.flatMap((part) => writtenPart(part, at));
}

function writtenPart(part: HubPart, at: string): Json[] {
  if (part.type === 'text') return [{ type: 'text', text: part.text }];
  if (part.type === 'image') return [writtenImage(part, at)];
  if (part.type === 'file') return [writtenFile(part, at)];
  if (part.type === 'audio') return [writtenAudio(part, at)];
  if (part.type === 'video') return [{ type: 'video_url', video_url: { url: urlOf(part, at) } }];
  return [];
}

/** @throws GatewayError 400 where it has no address and no bytes */
export function urlOf({ source }: MediaPart, at: string): string {
  if (source.kind === 'url') return source.url;
  if (source.kind === 'data') return `data:${source.mediaType};base64,${source.data}`;
  throw invalid(at, 'names a file in a way that this provider has no word for');
}

function writtenImage(part: MediaPart, at: string): Json {
  const { detail } = part;
  return { type: 'image_url', image_url: { url: urlOf(part, at), ...(detail !== undefined && { detail }) } };
}

function writtenFile(part: MediaPart, at: string): Json {
  const { source, name } = part;
  if (source.kind === 'id') return { type: 'file', file: { file_id: source.id } };
  if (source.kind !== 'text') {
    return { type: 'file', file: { filename: name ?? 'document.pdf', file_data: urlOf(part, at) } };
  }
  return { type: 'text', text: name === undefined ? source.text : `${name}:\n\n${source.text}` };
}

const AUDIO_FORMATS: Readonly<Record<string, string>> = {
  'audio/wav': 'wav',
  'audio/x-wav': 'wav',
  'audio/wave': 'wav',
  'audio/mpeg': 'mp3',
  'audio/mp3': 'mp3',
};

function writtenAudio({ source }: MediaPart, at: string): Json {
  const format = source.kind === 'data' ? AUDIO_FORMATS[source.mediaType] : undefined;
  if (source.kind !== 'data' || format === undefined) throw invalid(at, 'has sound that is neither WAV nor MP3');
  return { type: 'input_audio', input_audio: { data: source.data, format } };
}

function writtenAnswer(parts: HubPart[], variant: Variant): Json {
  const calls = parts.filter((part) => part.type === 'tool-call');
  const refusals = parts.filter((part) => part.type === 'refusal');
  const text = textOfParts(parts, '');
  return {
    content: text === '' && (calls.length > 0 || refusals.length > 0) ? null : text,
    ...(refusals.length > 0 && { refusal: refusals.map((part) => part.text).join('') }),
    ...writtenThoughts(
      parts.filter((part) => part.type === 'reasoning'),
      variant,
    ),
    ...(calls.length > 0 && { tool_calls: calls.map((call) => writtenCall(call, variant)) }),
  };
}

function writtenThoughts(thoughts: ReasoningPart[], { thoughtsField: field }: Variant): Json {
  if (thoughts.length === 0 || field === undefined) return {};
  if (field !== 'reasoning_details') return { [field]: thoughts.map(({ text }) => text).join('') };
  const details = thoughts.map(({ text, signature, redacted }, index) => {
    if (redacted !== undefined) return { type: 'reasoning.encrypted', data: redacted, index };
    return { type: 'reasoning.text', text, ...(signature !== undefined && { signature }), index };
  });
  return { reasoning_details: details };
}

function writtenCall({ id, name, arguments: args, signature }: ToolCallPart, { takesSeals }: Variant): Json {
  return {
    id,
    type: 'function',
    function: { name, arguments: args === '' ? '{}' : args },
    ...(takesSeals && signature !== undefined && { extra_content: { google: { thought_signature: signature } } }),
  };
}

// --- Tools --------------------------------------------------------------------------------------------------------

/** Without tools the other two are refused by OpenAI, and mean nothing anyway. */
function writtenTools({ tools, toolChoice, parallelToolCalls }: HubRequest): Json {
  if (tools.length === 0) return {};
  return {
    tools: tools.map(writtenTool),
    ...(toolChoice !== undefined && { tool_choice: writtenChoice(toolChoice) }),
    ...(parallelToolCalls !== undefined && { parallel_tool_calls: parallelToolCalls }),
  };
}

function writtenTool({ name, description, parameters, strict }: HubTool): Json {
  return {
    type: 'function',
    function: {
      name,
      ...(description !== undefined && { description }),
      ...(parameters !== undefined && { parameters }),
      ...(strict !== undefined && { strict }),
    },
  };
}

function writtenChoice(choice: ToolChoice): unknown {
  return typeof choice === 'string' ? choice : { type: 'function', function: { name: choice.name } };
}

// --- How to answer ------------------------------------------------------------------------------------------------

/** The most stop sequences that OpenAI takes. */
const MAX_STOPS = 4;

function writtenSampling(request: HubRequest, variant: Variant): Json {
  const { stop, logprobs, topLogprobs } = request;
  if (stop !== undefined && stop.length > MAX_STOPS) {
    throw invalid(request.used.get('stop') ?? 'stop', `cannot hold more than ${MAX_STOPS} sequences at this provider`);
  }
  return withoutAbsent({
    [variant.outputLimitField]: request.maxOutputTokens,
    temperature: request.temperature,
    top_p: request.topP,
    top_k: request.topK,
    stop,
    seed: request.seed,
    n: request.choices,
    presence_penalty: request.presencePenalty,
    frequency_penalty: request.frequencyPenalty,
    logit_bias: request.logitBias,
    logprobs,
    top_logprobs: topLogprobs,
    verbosity: request.verbosity,
  });
}

function withoutAbsent(fields: Json): Json {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

/** Who did not ask for thoughts need not be spared them: most models know the word only if they think at all. */
function writtenReasoning({ reasoning, used }: HubRequest): Json {
  const effort = used.has('reasoning') ? effortOf(reasoning) : undefined;
  return effort === undefined ? {} : { reasoning_effort: effort };
}

/** How much to think in OpenAI's words. A number of tokens has no counterpart, so it becomes the nearest effort. */
export function effortOf(wish: ReasoningWish | undefined): string | undefined {
  if (wish?.off) return 'none';
  if (wish?.effort !== undefined || wish?.budget === undefined) return wish?.effort;
  if (wish.budget <= 1024) return 'low';
  return wish.budget <= 8192 ? 'medium' : 'high';
}

function writtenFormat(format: OutputFormat): Json {
  if (format.type === 'json') return { type: 'json_object' };
  const { name, description, schema, strict } = format;
  return { type: 'json_schema', json_schema: withoutAbsent({ name: name ?? 'answer', description, schema, strict }) };
}

/** The longest id of an end user that OpenAI takes. */
const MAX_USER = 64;

function writtenNotes({ user, metadata, serviceTier, used }: HubRequest, variant: Variant): Json {
  return withoutAbsent({
    service_tier: serviceTier === 'standard_only' ? 'default' : serviceTier,
    [variant.userField ?? 'user']: user === undefined ? undefined : shortId(user),
    metadata,
    store: used.has('store') ? false : undefined,
  });
}

/** Still the same for the same person: a hash is what OpenAI asks for anyway. */
export function shortId(user: string): string {
  return user.length <= MAX_USER ? user : createHash('sha256').update(user).digest('hex');
}

/** Writes a request for vectors. Floats are asked for as such: who wants base64 gets it from the client's dialect. */
export function writeEmbeddings({ input, dimensions, user }: EmbeddingsRequest, { model }: CallFacts): Json {
  return withoutAbsent({ model, input, dimensions, user, encoding_format: 'float' });
}
