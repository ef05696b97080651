/** What the requests of OpenAI's dialects have in common: fields of the same names that mean the same. */

import { Fields, invalid } from '../../hub/fields.ts';
import { leave, use } from '../../hub/noted.ts';
import type {
  HubPart,
  HubRequest,
  HubTool,
  MediaPart,
  MediaSource,
  OutputFormat,
  ToolChoice,
} from '../../hub/request.ts';
import { isJsonObject } from '../../json.ts';

/** @throws GatewayError 400 when it is absent */
export function needObject(fields: Fields, name: string): Fields {
  const object = fields.object(name);
  if (object === undefined) throw invalid(fields.at(name), 'is missing');
  return object;
}

// --- Content ------------------------------------------------------------------------------------------------------

/** How the parts of content are read, by type; any other is one that the hub has no word for. */
export type PartReaders = ReadonlyMap<string, (part: Fields, hub: HubRequest) => HubPart>;

/** Content: a text, or a list of parts; one without a type is text. */
export function readContent(fields: Fields, name: string, readers: PartReaders, hub: HubRequest): HubPart[] {
  const content = fields.any(name);
  if (content === undefined) return [];
  if (typeof content === 'string') return content === '' ? [] : [{ type: 'text', text: content }];
  if (!Array.isArray(content)) throw invalid(fields.at(name), 'must be a string or a list');
  return (fields.objects(name) ?? []).flatMap((part) => readPart(part, readers, hub));
}

function readPart(part: Fields, readers: PartReaders, hub: HubRequest): HubPart[] {
  const read = readers.get(part.string('type') ?? 'text');
  if (read === undefined) {
    hub.unknown.push(part.path);
    return [];
  }
  const value = read(part, hub);
  const cache = readCache(part, hub);
  leave(hub, part);
  return [cache === undefined ? value : ({ ...value, cache } as HubPart)];
}

/** How long what comes before is worth keeping: OpenAI's breakpoint, or the `cache_control` of the compatible servers. */
export function readCache(fields: Fields, hub: HubRequest): string | undefined {
  for (const name of ['prompt_cache_breakpoint', 'cache_control']) {
    const hint = fields.object(name);
    if (hint === undefined) continue;
    hint.skip('mode', 'type');
    use(hub, 'cache', fields.at(name));
    const lasts = hint.string('ttl') ?? '';
    leave(hub, hint);
    return lasts;
  }
  return undefined;
}

export function readRefusal(part: Fields, hub: HubRequest): HubPart {
  use(hub, 'refusal', part.path);
  return { type: 'refusal', text: part.needString('refusal') };
}

// --- Media --------------------------------------------------------------------------------------------------------

/** A data URL (RFC 2397) or the address of something elsewhere. */
export function sourceOf(url: string, path: string): MediaSource {
  if (/^https?:/i.test(url)) return { kind: 'url', url };
  const comma = url.indexOf(',');
  const head = /^data:([^;,]+)(?:;[^;,]+)*;base64$/i.exec(url.slice(0, Math.min(comma, MAX_HEAD)));
  if (comma < 0 || head?.[1] === undefined) throw invalid(path, 'must be an http(s) URL or a base64 data URL');
  return { kind: 'data', mediaType: head[1].toLowerCase(), data: url.slice(comma + 1) };
}

/** The longest head of a data URL, in characters. */
const MAX_HEAD = 256;

/** A file's bytes: the documentation has a data URL; bare base64 is taken for the one type that every model reads. */
export function fileData(data: string, path: string): MediaSource {
  if (/^(?:data|https?):/i.test(data)) return sourceOf(data, path);
  return { kind: 'data', mediaType: 'application/pdf', data };
}

export function readAudio(part: Fields, hub: HubRequest): MediaPart {
  const audio = needObject(part, 'input_audio');
  const format = audio.needString('format');
  const source: MediaSource = {
    kind: 'data',
    mediaType: `audio/${format === 'mp3' ? 'mpeg' : format}`,
    data: audio.needString('data'),
  };
  use(hub, 'audio.data', part.path);
  leave(hub, audio);
  return { type: 'audio', source };
}

// --- Tools --------------------------------------------------------------------------------------------------------

/**
 * The tools, and what may be done with them. `read` reads a function; `target` is where the object of a function's choice
 * has its name.
 */
export function readTools(
  fields: Fields,
  hub: HubRequest,
  read: (tool: Fields, hub: HubRequest) => HubTool,
  target: (choice: Fields) => Fields,
): void {
  for (const tool of fields.objects('tools') ?? []) {
    if (tool.string('type') === 'function') hub.tools.push(read(tool, hub));
    else hub.unknown.push(tool.path);
  }
  if (hub.tools.length > 0) use(hub, 'tools', 'tools');
  const choice = readChoice(fields, hub, target);
  if (choice !== undefined) hub.toolChoice = choice;
  const parallel = fields.boolean('parallel_tool_calls');
  if (parallel === undefined) return;
  hub.parallelToolCalls = parallel;
  if (!parallel) use(hub, 'parallel-tools', 'parallel_tool_calls');
}

function readChoice(fields: Fields, hub: HubRequest, target: (choice: Fields) => Fields): ToolChoice | undefined {
  const given = fields.any('tool_choice');
  if (given === undefined || given === 'auto') return given;
  use(hub, 'tool-choice', 'tool_choice');
  if (!isJsonObject(given)) {
    const word = fields.word('tool_choice', ['none', 'auto', 'required'] as const);
    use(hub, word === 'none' ? 'tool-choice.none' : 'tool-choice.required', 'tool_choice');
    return word;
  }
  const choice = new Fields(given, 'tool_choice');
  if (choice.string('type') !== 'function') {
    hub.unknown.push('tool_choice');
    return undefined;
  }
  const named = target(choice);
  const name = named.needString('name');
  use(hub, 'tool-choice.name', 'tool_choice');
  leave(hub, choice, ...(named === choice ? [] : [named]));
  return { name };
}

// --- How to answer ------------------------------------------------------------------------------------------------

export const EFFORTS = ['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'] as const;

/** The format of an answer; `target` is where that of a schema has its fields. */
export function readFormat(given: Fields, hub: HubRequest, target: (format: Fields) => Fields): void {
  const kind = given.string('type');
  if (kind === 'json_object') {
    hub.format = { type: 'json' };
    use(hub, 'format.json', given.path);
  } else if (kind === 'json_schema') {
    const schema = target(given);
    hub.format = readSchema(schema);
    use(hub, 'format.schema', given.path);
    if (schema !== given) leave(hub, schema);
  } else if (kind !== 'text') {
    hub.unknown.push(given.path);
    return;
  }
  leave(hub, given);
}

function readSchema(given: Fields): OutputFormat {
  return {
    type: 'json-schema',
    schema: given.json('schema') ?? {},
    name: given.needString('name'),
    description: given.string('description'),
    strict: given.boolean('strict'),
  };
}

/** `verbosity`, wherever it stands. */
export function readVerbosity(fields: Fields, hub: HubRequest): void {
  const verbosity = fields.word('verbosity', ['low', 'medium', 'high'] as const);
  if (verbosity === undefined) return;
  hub.verbosity = verbosity;
  use(hub, 'verbosity', fields.at('verbosity'));
}

/** What is told beside the prompt: tier, user, notes, hints for the cache, and whether the vendor may store it. */
export function readNotes(fields: Fields, hub: HubRequest): void {
  const tier = fields.string('service_tier');
  if (tier !== undefined && tier !== 'auto') {
    hub.serviceTier = tier;
    use(hub, 'service-tier', 'service_tier');
  }
  const [safety, user] = [fields.string('safety_identifier'), fields.string('user')];
  if (safety || user) {
    hub.user = safety || user;
    use(hub, 'user', safety ? 'safety_identifier' : 'user');
  }
  readMetadata(fields, hub);
  for (const name of ['prompt_cache_key', 'prompt_cache_retention', 'prompt_cache_options']) {
    if (fields.any(name) !== undefined) use(hub, 'cache', name);
  }
  if (fields.boolean('store') === false) use(hub, 'store', 'store');
}

function readMetadata(fields: Fields, hub: HubRequest): void {
  const metadata = fields.json('metadata');
  if (metadata === undefined || Object.keys(metadata).length === 0) return;
  if (!Object.values(metadata).every((value) => typeof value === 'string')) {
    throw invalid('metadata', 'must hold strings alone');
  }
  hub.metadata = metadata as Record<string, string>;
  use(hub, 'metadata', 'metadata');
}
