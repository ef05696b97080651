/**
 * What the simulated model answers, whatever the wire format it was asked in: it says back what it was sent.
 * Everything here is a pure function of the prompt, so the same prompt always gets the same answer, word by word, from
 * every vendor's format.
 */

/** One message of the conversation as plain text. */
export interface Turn {
  role: 'system' | 'user' | 'assistant' | 'tool';
  text: string;
  /** The ids of the tool calls that an assistant's turn makes, or the one that a tool's turn answers. */
  calls?: string[];
}

/** A tool that the client offers, with the JSON Schema of its arguments. */
export interface Tool {
  name: string;
  parameters?: Record<string, unknown>;
}

/** What the model does with a conversation that ends with its own words: go on, refuse (400), or start anew. */
export type Prefill = 'continue' | 'reject' | 'ignore';

/** A prompt as every wire format hands it over. */
export interface Prompt {
  model: string;
  turns: Turn[];
  tools: Tool[];
  /** `auto` calls a tool only when the newest user turn asks for one; a name forces that tool. */
  toolChoice: 'auto' | 'none' | 'required' | { name: string };
  /** False when one tool call at most is wanted; true by default. */
  parallel?: boolean;
  /** The answer must be a JSON object. */
  json: boolean;
  /** The model thinks before it answers, because the client asked for it. */
  thinks: boolean;
  /** The longest answer, in tokens. */
  maxTokens: number;
  /** The answer ends before the first of these. */
  stop: string[];
  prefill: Prefill;
}

/** A call of a tool: its name and its arguments as JSON. */
export interface ToolCall {
  name: string;
  arguments: string;
}

/** Where an answer's text comes from. It is the same for every answer that cites. */
export interface Source {
  url: string;
  title: string;
}

/** An answer as every wire format writes it: the thoughts, then the text or the calls. */
export interface Answer {
  /** Empty unless the model thinks. */
  thoughts: string;
  /** Empty when tools are called; the words of the refusal when `finish` is `refusal`. */
  text: string;
  calls: ToolCall[];
  /** The whole text is taken from here. */
  source?: Source;
  /** `blocked`: the prompt itself was filtered, and there is no text. */
  finish: 'stop' | 'sequence' | 'length' | 'tool' | 'refusal' | 'blocked';
  /** The stop sequence that ended the answer. */
  sequence?: string;
  promptTokens: number;
  /** Of thoughts, text and calls together. */
  answerTokens: number;
  thoughtTokens: number;
}

/** Why the model does not answer. Each wire format shapes it in its own way. */
export class Refusal extends Error {
  readonly status: number;
  readonly code: string | null;
  readonly param: string | null;
  /** When to try again, in seconds, as the vendor tells it with a 429 or 503. */
  retryAfterS?: number;
  /** When the vendor's limit is full again, in seconds, where the vendor has a header for it. */
  resetS?: number;

  /** `status` is the HTTP status; `param` names the field of the request that is at fault, if one is. */
  constructor(status: number, message: string, code: string | null = null, param: string | null = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
  }
}

const CHARACTERS_PER_TOKEN = 4;
const FRAGMENT_LENGTH = 8;
const MOST_PIECES = 100_000;
const REFUSED = 'I cannot help with that.';
const SOURCE: Source = { url: 'https://example.com/source', title: 'A simulated source' };

/**
 * Answers a prompt. A tool's result is reported, a wanted tool is called, and anything else is said back.
 *
 * @throws Refusal for a forced tool that was not offered, and for a prefill that is to be rejected
 */
export function answer(prompt: Prompt): Answer {
  const said = newestUserText(prompt);
  const begun = prefillOf(prompt);
  const promptTokens = countTokens(prompt.turns);
  if (/\bblock this prompt\b/i.test(said)) return { ...NOTHING_SAID, finish: 'blocked', promptTokens };
  const calls = begun === '' && !hasToolResult(prompt) ? wantedTools(prompt, said).map(callWith(said)) : [];
  const refuses = /\brefuse to answer\b/i.test(said) && calls.length === 0;
  const text = calls.length > 0 ? '' : goOn(refuses ? REFUSED : reply(prompt, said), begun);
  const kept = withinLimits(prompt, text, calls);
  const thoughts = prompt.thinks ? `The user wants an answer to: ${said}` : '';
  const thoughtTokens = tokens(thoughts.length);
  return {
    ...kept,
    thoughts,
    source: /\bcite a source\b/i.test(said) && calls.length === 0 ? SOURCE : undefined,
    finish: kept.finish === 'stop' && refuses ? 'refusal' : kept.finish,
    promptTokens,
    answerTokens: thoughtTokens + tokens(kept.text.length + lengthOfCalls(kept.calls)),
    thoughtTokens,
  };
}

const NOTHING_SAID = { thoughts: '', text: '', calls: [], answerTokens: 0, thoughtTokens: 0 };

/**
 * Every vendor wants the result of a tool call right after it, and no result without its call.
 *
 * @throws Refusal 400 that names the call
 */
export function checkCalls(turns: Turn[]): void {
  const open = new Set<string>();
  for (const { role, calls = [] } of turns) {
    if (role === 'tool') for (const id of calls) close(open, id);
    else if (role !== 'assistant') refuseOpen(open);
    if (role === 'assistant') for (const id of calls) open.add(id);
  }
  refuseOpen(open);
}

function close(open: Set<string>, id: string): void {
  if (open.delete(id)) return;
  throw new Refusal(400, `The result of '${id}' follows no call of that id.`, 'invalid_value', 'messages');
}

function refuseOpen(open: Set<string>): void {
  const [id] = open;
  if (id === undefined) return;
  throw new Refusal(400, `The tool call '${id}' is not followed by its result.`, 'invalid_value', 'messages');
}

/** How many tokens a conversation has; a token is four characters, rounded up once. */
export function countTokens(turns: Turn[]): number {
  return tokens(turns.reduce((length, turn) => length + turn.text.length, 0));
}

/** Cuts text as it is streamed: words with the space that follows them, long words in pieces of 8 characters. */
export function* words(text: string): Generator<string> {
  for (const [word] of text.matchAll(/\S{1,8}\s*|\s+/gu)) yield word;
}

/** Cuts a tool's arguments as they are streamed: every 8 characters, wherever that is. */
export function* fragments(text: string): Generator<string> {
  for (const [fragment] of text.matchAll(/.{1,8}/gsu)) yield fragment;
}

function hasToolResult(prompt: Prompt): boolean {
  return prompt.turns.at(-1)?.role === 'tool';
}

/** What of the answer the client has written itself; empty when the conversation does not end with the assistant. */
function prefillOf({ turns, prefill }: Prompt): string {
  const last = turns.at(-1);
  if (last?.role !== 'assistant' || prefill === 'ignore') return '';
  if (prefill === 'continue') return last.text;
  const message = 'This model does not support assistant message prefill. The last message must be of the user.';
  throw new Refusal(400, message, 'invalid_value', 'messages');
}

/** What is left to say; text that was begun in other words is taken as it is, and the whole answer follows it. */
function goOn(text: string, begun: string): string {
  return text.startsWith(begun) ? text.slice(begun.length) : text;
}

function reply(prompt: Prompt, said: string): string {
  if (hasToolResult(prompt)) return `The tool returned: ${newestToolResults(prompt)}`;
  const length = numberBefore(said, /\bsay (\d+) words\b/i);
  if (length > 0) return Array.from({ length }, (_, at) => `w${at + 1}`).join(' ');
  return prompt.json ? JSON.stringify({ said }) : `You said: ${said}`;
}

function numberBefore(text: string, pattern: RegExp): number {
  return Math.min(Number(pattern.exec(text)?.[1] ?? 0), MOST_PIECES);
}

function newestUserText({ turns }: Prompt): string {
  return turns.findLast((turn) => turn.role === 'user')?.text ?? '';
}

function newestToolResults({ turns }: Prompt): string {
  const before = turns.findLastIndex((turn) => turn.role !== 'tool');
  return turns
    .slice(before + 1)
    .map((turn) => turn.text)
    .join('\n');
}

function wantedTools({ tools, toolChoice, parallel = true }: Prompt, said: string): Tool[] {
  if (typeof toolChoice === 'object') return [namedTool(tools, toolChoice.name)];
  if (toolChoice === 'none') return [];
  const asked = toolsAskedFor(tools, said);
  const wanted = asked.length === 0 && toolChoice === 'required' ? tools.slice(0, 1) : asked;
  return parallel ? wanted : wanted.slice(0, 1);
}

function namedTool(tools: Tool[], name: string): Tool {
  const tool = tools.find((offered) => offered.name === name);
  if (!tool)
    throw new Refusal(400, `The tool '${name}' is not among the tools offered.`, 'invalid_value', 'tool_choice');
  return tool;
}

/** "call tool" means the first tool unless one is named after it; "use the tool NAME" means that one alone. */
function toolsAskedFor(tools: Tool[], text: string): Tool[] {
  if (/\bcall all tools\b/i.test(text)) return tools;
  const named = [...text.matchAll(/\b(?:use the|call) tool\s+([\w-]+)/gi)].map(([, name]) => name);
  const offered = named.flatMap((name) => tools.find((tool) => tool.name === name) ?? []);
  return offered.length === 0 && /\bcall tool\b/i.test(text) ? tools.slice(0, 1) : offered;
}

/** The tool's first string argument holds the message, or letters for as many deltas as the message asks for. */
function callWith(said: string): (tool: Tool) => ToolCall {
  const deltas = numberBefore(said, /\b(\d+) deltas\b/i);
  return (tool) => {
    const name = firstStringProperty(tool) ?? 'text';
    const missing = deltas * FRAGMENT_LENGTH - JSON.stringify({ [name]: '' }).length;
    const value = deltas > 0 ? 'x'.repeat(Math.max(missing, 0)) : said;
    return { name: tool.name, arguments: JSON.stringify({ [name]: value }) };
  };
}

function firstStringProperty(tool: Tool): string | undefined {
  const properties: unknown = tool.parameters?.properties;
  if (typeof properties !== 'object' || properties === null) return undefined;
  const isString = (schema: unknown) => /^string$/i.test(String((schema as { type?: unknown } | null)?.type));
  return Object.entries(properties).find(([, schema]) => isString(schema))?.[0];
}

type Kept = Pick<Answer, 'text' | 'calls' | 'finish' | 'sequence'>;

function withinLimits({ stop, maxTokens }: Prompt, text: string, calls: ToolCall[]): Kept {
  const most = maxTokens * CHARACTERS_PER_TOKEN;
  if (calls.length > 0) {
    const kept = cutCalls(calls, most);
    return { text, calls: kept, finish: lengthOfCalls(kept) < lengthOfCalls(calls) ? 'length' : 'tool' };
  }
  const ends = stop.map((sequence) => ({ sequence, at: text.indexOf(sequence) })).filter(({ at }) => at >= 0);
  const [first] = ends.sort((one, other) => one.at - other.at);
  const stopped = text.slice(0, first?.at);
  if (stopped.length > most) return { text: whole(stopped.slice(0, most)), calls, finish: 'length' };
  return { text: stopped, calls, finish: first ? 'sequence' : 'stop', sequence: first?.sequence };
}

function cutCalls(calls: ToolCall[], most: number): ToolCall[] {
  let left = most;
  return calls.flatMap((call) => {
    const kept = whole(call.arguments.slice(0, Math.max(left, 0)));
    left -= call.arguments.length;
    return kept === '' ? [] : [{ ...call, arguments: kept }];
  });
}

/** A cut between the two halves of a surrogate pair would leave text that is not valid Unicode. */
function whole(text: string): string {
  return text.replace(/[\uD800-\uDBFF]$/, '');
}

function lengthOfCalls(calls: ToolCall[]): number {
  return calls.reduce((length, call) => length + call.arguments.length, 0);
}

function tokens(characters: number): number {
  return Math.ceil(characters / CHARACTERS_PER_TOKEN);
}
