/**
 * What the simulated model answers, whatever the wire format it was asked in: it says back what it was sent.
 * Everything here is a pure function of the prompt, so the same prompt always gets the same answer.
 */

/** One message of the conversation as plain text. */
export interface Turn {
  role: 'system' | 'user' | 'assistant' | 'tool';
  text: string;
}

/** A tool that the client offers, with the JSON Schema of its arguments. */
export interface Tool {
  name: string;
  parameters?: Record<string, unknown>;
}

/** A prompt as every wire format hands it over. */
export interface Prompt {
  model: string;
  turns: Turn[];
  tools: Tool[];
  /** `auto` calls a tool only when the newest user turn asks for one; a name forces that tool. */
  toolChoice: 'auto' | 'none' | 'required' | { name: string };
  /** The answer must be a JSON object. */
  json: boolean;
  /** The longest answer, in tokens. */
  maxTokens: number;
  /** The answer ends before the first of these. */
  stop: string[];
}

/** An answer as every wire format writes it. With `tool`, `text` is that tool's arguments as JSON. */
export interface Answer {
  text: string;
  tool?: string;
  finish: 'stop' | 'length' | 'tool';
  promptTokens: number;
  answerTokens: number;
}

/** Why the model does not answer. Each wire format shapes it in its own way. */
export class Refusal extends Error {
  readonly status: number;
  readonly code: string | null;
  readonly param: string | null;

  /** `status` is the HTTP status; `param` names the field of the request that is at fault, if one is. */
  constructor(status: number, message: string, code: string | null = null, param: string | null = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
  }
}

const CHARACTERS_PER_TOKEN = 4;

/**
 * Answers a prompt. A tool's result is reported, a wanted tool is called, and anything else is said back.
 *
 * @throws Refusal for a model named `error-<status>`, and for a forced tool that was not offered
 */
export function answer(prompt: Prompt): Answer {
  failOnRequest(prompt.model);
  const tool = hasToolResult(prompt) ? undefined : wantedTool(prompt);
  const said = newestUserText(prompt);
  const text = tool ? JSON.stringify({ [firstStringProperty(tool) ?? 'text']: said }) : reply(prompt, said);
  const kept = withinLimits(text, prompt);
  return {
    text: kept.text,
    tool: tool?.name,
    finish: kept.finish === 'stop' && tool ? 'tool' : kept.finish,
    promptTokens: tokens(prompt.turns.reduce((length, turn) => length + turn.text.length, 0)),
    answerTokens: tokens(kept.text.length),
  };
}

/** Cuts text as it is streamed: words with the space that follows them, long words in pieces of 8 characters. */
export function* words(text: string): Generator<string> {
  for (const [word] of text.matchAll(/\S{1,8}\s*|\s+/gu)) yield word;
}

/** Cuts a tool's arguments as they are streamed: every 8 characters, wherever that is. */
export function* fragments(text: string): Generator<string> {
  for (const [fragment] of text.matchAll(/.{1,8}/gsu)) yield fragment;
}

function failOnRequest(model: string): void {
  const status = /^error-([45]\d\d)$/.exec(model)?.[1];
  if (status) throw new Refusal(Number(status), `The simulated model answers ${status} because its name asks for it.`);
}

function hasToolResult(prompt: Prompt): boolean {
  return prompt.turns.at(-1)?.role === 'tool';
}

function reply(prompt: Prompt, said: string): string {
  if (hasToolResult(prompt)) return `The tool returned: ${newestToolResults(prompt)}`;
  return prompt.json ? JSON.stringify({ said }) : `You said: ${said}`;
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

function wantedTool(prompt: Prompt): Tool | undefined {
  const { tools, toolChoice } = prompt;
  if (typeof toolChoice === 'object') return namedTool(tools, toolChoice.name);
  if (toolChoice === 'required') return tools[0];
  return toolChoice === 'auto' ? toolAskedFor(tools, newestUserText(prompt)) : undefined;
}

function namedTool(tools: Tool[], name: string): Tool {
  const tool = tools.find((offered) => offered.name === name);
  if (!tool)
    throw new Refusal(400, `The tool '${name}' is not among the tools offered.`, 'invalid_value', 'tool_choice');
  return tool;
}

/** "call tool" means the first tool unless one is named after it; "use the tool NAME" means that one alone. */
function toolAskedFor(tools: Tool[], text: string): Tool | undefined {
  const named = /\b(?:use the|call) tool\s+([\w-]+)/i.exec(text)?.[1];
  return tools.find((tool) => tool.name === named) ?? (/\bcall tool\b/i.test(text) ? tools[0] : undefined);
}

function firstStringProperty(tool: Tool): string | undefined {
  const properties: unknown = tool.parameters?.properties;
  if (typeof properties !== 'object' || properties === null) return undefined;
  return Object.entries(properties).find(([, schema]) => (schema as { type?: unknown } | null)?.type === 'string')?.[0];
}

function withinLimits(text: string, { stop, maxTokens }: Prompt): { text: string; finish: 'stop' | 'length' } {
  const ends = stop.map((sequence) => text.indexOf(sequence)).filter((at) => at >= 0);
  const stopped = text.slice(0, Math.min(text.length, ...ends));
  const most = maxTokens * CHARACTERS_PER_TOKEN;
  if (stopped.length <= most) return { text: stopped, finish: 'stop' };
  // A cut between the two halves of a surrogate pair would leave text that is not valid Unicode.
  return { text: stopped.slice(0, most).replace(/[\uD800-\uDBFF]$/, ''), finish: 'length' };
}

function tokens(characters: number): number {
  return Math.ceil(characters / CHARACTERS_PER_TOKEN);
}
