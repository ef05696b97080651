/**
 * The hub's request as a response's.
 * Source: https://platform.openai.com/docs/api-reference/responses/create
 */
import type { Json } from '../../../dialects/dialect.ts';
import { isOwnSeal } from '../../../dialects/openai-responses/seals.ts';
import { invalid } from '../../../hub/fields.ts';
import type {
  Citation,
  HubMessage,
  HubPart,
  HubRequest,
  HubTool,
  MediaPart,
  OutputFormat,
  ReasoningPart,
  ToolResultPart,
} from '../../../hub/request.ts';
import type { CallFacts } from '../../provider.ts';
import { effortOf, shortId, urlOf } from '../request.ts';

/** Writes a response's request. @throws GatewayError 400 where a single value has no counterpart */
export function writeResponse(request: HubRequest, { model, stream }: CallFacts): Json {
  const input = request.messages.flatMap(writtenMessage);
  return withoutAbsent({
    model,
    input,
    stream: stream ? true : undefined,
    ...writtenTools(request),
    max_output_tokens: bound(request),
    temperature: request.temperature,
    top_p: request.topP,
    text: writtenText(request),
    reasoning: writtenReasoning(request),
    ...writtenTold(request, model),
    ...writtenNotes(request),
    // Kept by OpenAI otherwise: nobody who speaks another dialect has asked for that.
    store: false,
  });
}

function withoutAbsent(fields: Json): Json {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

// --- Items --------------------------------------------------------------------------------------------------------

function writtenMessage({ role, parts, at }: HubMessage): Json[] {
  if (role === 'assistant') return writtenAnswer(parts);
  const items: Json[] = parts.filter((part) => part.type === 'tool-result').map((part) => writtenResult(part, at));
  const content = parts.flatMap((part) => writtenPart(part, at));
  if (content.length > 0 || items.length === 0) items.push({ role: role === 'tool' ? 'user' : role, content });
  return items;
}

function writtenResult({ id, parts, isError }: ToolResultPart, at: string): Json {
  return { type: 'function_call_output', call_id: id, output: writtenOutput(parts, isError ? 'Error: ' : '', at) };
}

/** Text alone is written as one string. */
function writtenOutput(parts: HubPart[], before: string, at: string): string | Json[] {
  if (parts.every(({ type }) => type === 'text')) {
    return before + parts.flatMap((part) => (part.type === 'text' ? [part.text] : [])).join('\n\n');
  }
  const content = parts.flatMap((part) => writtenPart(part, at));
  return before === '' ? content : [{ type: 'input_text', text: before.trimEnd() }, ...content];
}

function writtenPart(part: HubPart, at: string): Json[] {
  if (part.type === 'text') return [{ type: 'input_text', text: part.text }];
  if (part.type === 'image') return [writtenImage(part, at)];
  if (part.type === 'file') return [writtenFile(part, at)];
  return [];
}

function writtenImage(part: MediaPart, at: string): Json {
  const { source, detail = 'auto' } = part;
  if (source.kind === 'id') return { type: 'input_image', file_id: source.id, detail };
  return { type: 'input_image', image_url: urlOf(part, at), detail };
}

function writtenFile(part: MediaPart, at: string): Json {
  const { source, name } = part;
  if (source.kind === 'id') return { type: 'input_file', file_id: source.id };
  if (source.kind === 'url') return { type: 'input_file', file_url: source.url };
  if (source.kind === 'data') {
    return { type: 'input_file', filename: name ?? 'document.pdf', file_data: urlOf(part, at) };
  }
  return { type: 'input_text', text: name === undefined ? source.text : `${name}:\n\n${source.text}` };
}

// --- The model's own turns ----------------------------------------------------------------------------------------

/** Each thought and each call is an item of its own, between the texts as they came. */
function writtenAnswer(parts: HubPart[]): Json[] {
  const items: Json[] = [];
  let content: Json[] | undefined;
  let thoughts = '';
  for (const part of parts) {
    if (part.type === 'text' || part.type === 'refusal') {
      if (content === undefined) {
        content = [];
        items.push({ role: 'assistant', content });
      }
      content.push(part.type === 'text' ? writtenSaid(part) : { type: 'refusal', refusal: part.text });
      continue;
    }
    if (part.type === 'reasoning') {
      const item = writtenThought(part, thoughts);
      thoughts = item === undefined ? part.text : '';
      if (item === undefined) continue;
      items.push(item);
    } else if (part.type === 'tool-call') {
      const { id, name, arguments: args } = part;
      items.push({ type: 'function_call', call_id: id, name, arguments: args || '{}' });
    }
    content = undefined;
  }
  return items;
}

/**
 * A thought that OpenAI sealed itself; it refuses others, and knows those without a seal by ids that it keeps no more.
 * Some formats hand its text and its seal back one after the other: `before` is the text that stood alone.
 */
function writtenThought({ text, signature, redacted }: ReasoningPart, before: string): Json | undefined {
  const seal = redacted ?? signature;
  if (seal === undefined || !isOwnSeal(seal)) return undefined;
  const summary = [text || before]
    .filter((shown) => shown !== '')
    .map((shown) => ({ type: 'summary_text', text: shown }));
  return { type: 'reasoning', summary, encrypted_content: seal };
}

function writtenSaid({ text, citations }: { text: string; citations?: Citation[] }): Json {
  return {
    type: 'output_text',
    text,
    annotations: (citations ?? []).flatMap(({ url, title, start, end }) => {
      if (url === undefined) return [];
      return [
        { type: 'url_citation', url, title: title ?? '', start_index: start ?? 0, end_index: end ?? text.length },
      ];
    }),
  };
}

// --- Tools --------------------------------------------------------------------------------------------------------

function writtenTools({ tools, toolChoice, parallelToolCalls }: HubRequest): Json {
  if (tools.length === 0) return {};
  const choice = typeof toolChoice === 'object' ? { type: 'function', name: toolChoice.name } : toolChoice;
  return { tools: tools.map(writtenTool), tool_choice: choice, parallel_tool_calls: parallelToolCalls };
}

/** Schemas are enforced here unless that is declined, which not every schema can bear. */
function writtenTool({ name, description, parameters, strict }: HubTool): Json {
  return withoutAbsent({
    type: 'function',
    name,
    description,
    parameters: parameters ?? { type: 'object', properties: {} },
    strict: strict ?? false,
  });
}

// --- How to answer ------------------------------------------------------------------------------------------------

/** The smallest bound that OpenAI takes. */
const LEAST = 16;

function bound({ maxOutputTokens: most, used }: HubRequest): number | undefined {
  if (most === undefined || most >= LEAST) return most;
  throw invalid(used.get('max-tokens') ?? 'max_tokens', `must be ${LEAST} at least for this provider`);
}

function writtenText({ format, verbosity }: HubRequest): Json | undefined {
  if (format === undefined && verbosity === undefined) return undefined;
  return withoutAbsent({ format: format && writtenFormat(format), verbosity });
}

function writtenFormat(format: OutputFormat): Json {
  if (format.type === 'json') return { type: 'json_object' };
  const { name, description, schema, strict } = format;
  // Enforced here unless that is declined; chat completions enforce it only where that is asked for.
  return withoutAbsent({
    type: 'json_schema',
    name: name ?? 'answer',
    description,
    schema,
    strict: strict ?? false,
  });
}

/** Who did not ask for thoughts need not be spared them: most models know the word only if they think at all. */
function writtenReasoning({ reasoning, used }: HubRequest): Json | undefined {
  const effort = used.has('reasoning') ? effortOf(reasoning) : undefined;
  const summary = reasoning?.shown ? 'auto' : undefined;
  return effort === undefined && summary === undefined ? undefined : withoutAbsent({ effort, summary });
}

/** Models that think; others refuse to be asked for the seals of thoughts. */
const THINKS = /^(?:o\d|gpt-[5-9](?!.*-chat)|codex|computer-use)/;

/** What is told beside the text. */
function writtenTold(request: HubRequest, model: string): Json {
  const { reasoning, logprobs, topLogprobs, used } = request;
  const thinks = THINKS.test(model) || (used.has('reasoning') && reasoning?.off !== true);
  const include = [
    ...(thinks ? ['reasoning.encrypted_content'] : []),
    ...(logprobs ? ['message.output_text.logprobs'] : []),
  ];
  return { include: include.length > 0 ? include : undefined, top_logprobs: topLogprobs };
}

function writtenNotes({ user, metadata, serviceTier }: HubRequest): Json {
  return {
    service_tier: serviceTier === 'standard_only' ? 'default' : serviceTier,
    safety_identifier: user === undefined ? undefined : shortId(user),
    metadata,
  };
}
