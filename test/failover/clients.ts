/**
 * What a client of each dialect sends and what it makes of an answer, written apart from the gateway's own reading of
 * them: the judge of the failover table may not share a mistake with the judged.
 */
import { createParser } from 'eventsource-parser';

// biome-ignore lint/suspicious/noExplicitAny: what does not fit throws, and the table says so
type Json = Record<string, any>;

/** What a client got. */
export interface Seen {
  text: string;
  /** Tool calls: name and arguments. */
  tools: string[];
  /** How often the answer began and finished, as its dialect says so. */
  begins: number;
  finishes: string[];
  /** Whether the stream's own end mark came, where the dialect has one. */
  ended: boolean;
  /** The typed error, whole or as an event: what a program reads (a type or status word) and what a person does. */
  error: { type: string; message: string } | undefined;
  /** Anything that no client could read. */
  broken: string[];
  usage: { input: number; output: number } | undefined;
  ids: Set<string>;
}

export interface Client {
  dialect: string;
  path(model: string, stream: boolean): string;
  headers?: Record<string, string>;
  body(model: string, ask: Ask): Json;
  readWhole(body: Json, seen: Seen): void;
  readEvent(event: { name: string | undefined; data: Json }, seen: Seen): void;
  /** The error of a body or of an event. */
  readError(body: Json): Seen['error'];
  /** What ends a stream besides a finish: a `[DONE]`, an event, or the end of the body. */
  endMark: 'done' | 'event' | 'close';
}

export interface Ask {
  text: string;
  stream: boolean;
  tool?: boolean;
  json?: boolean;
}

const WEATHER = {
  type: 'object',
  properties: { city: { type: 'string' } },
  required: ['city'],
  additionalProperties: false,
};

const openaiChat: Client = {
  dialect: 'openai-chat',
  path: () => '/v1/chat/completions',
  body: (model, { text, stream, tool, json }) => ({
    model,
    stream,
    ...(stream && { stream_options: { include_usage: true } }),
    ...(json && { response_format: { type: 'json_object' } }),
    messages: [{ role: 'user', content: text }],
    ...(tool && { tools: [{ type: 'function', function: { name: 'get_weather', parameters: WEATHER } }] }),
  }),
  readWhole({ id, choices, usage }, seen) {
    const [{ message, finish_reason: finish }] = choices;
    seen.ids.add(id);
    seen.begins += 1;
    seen.text += message.content ?? '';
    for (const call of message.tool_calls ?? []) seen.tools.push(`${call.function.name}${call.function.arguments}`);
    seen.finishes.push(finish);
    seen.usage = usage && { input: usage.prompt_tokens, output: usage.completion_tokens };
    seen.ended = true;
  },
  readEvent({ data: { id, choices, usage } }, seen) {
    seen.ids.add(id);
    if (usage) seen.usage = { input: usage.prompt_tokens, output: usage.completion_tokens };
    for (const { delta, finish_reason: finish } of choices ?? []) {
      if (delta?.role) seen.begins += 1;
      seen.text += delta?.content ?? '';
      for (const { index, function: called } of delta?.tool_calls ?? []) {
        seen.tools[index] = `${seen.tools[index] ?? ''}${called?.name ?? ''}${called?.arguments ?? ''}`;
      }
      if (finish) seen.finishes.push(finish);
    }
  },
  readError: ({ error }) => error && { type: `${error.type}/${error.code}`, message: error.message },
  endMark: 'done',
};

const openaiResponses: Client = {
  dialect: 'openai-responses',
  path: () => '/v1/responses',
  body: (model, { text, stream, tool, json }) => ({
    model,
    stream,
    input: text,
    ...(json && { text: { format: { type: 'json_object' } } }),
    ...(tool && { tools: [{ type: 'function', name: 'get_weather', parameters: WEATHER, strict: false }] }),
  }),
  readWhole({ id, output, status, usage }, seen) {
    seen.ids.add(id);
    seen.begins += 1;
    for (const item of output) {
      if (item.type === 'message') for (const { text } of item.content) seen.text += text ?? '';
      if (item.type === 'function_call') seen.tools.push(`${item.name}${item.arguments}`);
    }
    seen.finishes.push(status);
    seen.usage = usage && { input: usage.input_tokens, output: usage.output_tokens };
    seen.ended = true;
  },
  readEvent({ name, data }, seen) {
    if (data.type !== name) seen.broken.push(`event ${name} has the type ${data.type}`);
    if (data.type === 'response.created') {
      seen.begins += 1;
      seen.ids.add(data.response.id);
    }
    if (data.type === 'response.output_text.delta') seen.text += data.delta;
    if (data.type === 'response.output_text.done' && !seen.text.endsWith(data.text))
      seen.broken.push('the done event says another text than its deltas');
    if (data.type === 'response.output_item.added' && data.item.type === 'function_call')
      seen.tools.push(data.item.name);
    if (data.type === 'response.function_call_arguments.delta') seen.tools[seen.tools.length - 1] += data.delta;
    if (['response.completed', 'response.incomplete', 'response.failed'].includes(data.type)) {
      const whole: Seen = emptySeen();
      openaiResponses.readWhole(data.response, whole);
      if (data.type !== 'response.failed' && whole.text !== seen.text)
        seen.broken.push('the last event says another text than the deltas');
      seen.usage = whole.usage;
      seen.ids.add(data.response.id);
      seen.finishes.push(data.type);
      seen.ended = true;
      if (data.type === 'response.failed')
        seen.error = { type: data.response.error?.code, message: data.response.error?.message };
    }
  },
  readError: (body) => {
    const error = body.type === 'error' ? body : body.error;
    return error?.message === undefined ? undefined : { type: `${error.type}/${error.code}`, message: error.message };
  },
  endMark: 'event',
};

const anthropic: Client = {
  dialect: 'anthropic-messages',
  path: () => '/v1/messages',
  headers: { 'anthropic-version': '2023-06-01' },
  body: (model, { text, stream, tool }) => ({
    model,
    stream,
    max_tokens: 512,
    messages: [{ role: 'user', content: text }],
    ...(tool && { tools: [{ name: 'get_weather', input_schema: WEATHER }] }),
  }),
  readWhole({ id, content, stop_reason: stop, usage }, seen) {
    seen.ids.add(id);
    seen.begins += 1;
    for (const block of content) {
      if (block.type === 'text') seen.text += block.text;
      if (block.type === 'tool_use') seen.tools.push(`${block.name}${JSON.stringify(block.input)}`);
    }
    seen.finishes.push(stop);
    seen.usage = { input: usage.input_tokens, output: usage.output_tokens };
    seen.ended = true;
  },
  readEvent({ name, data }, seen) {
    if (data.type !== name) seen.broken.push(`event ${name} has the type ${data.type}`);
    if (data.type === 'message_start') {
      seen.begins += 1;
      seen.ids.add(data.message.id);
      seen.usage = { input: data.message.usage.input_tokens, output: 0 };
    }
    if (data.type === 'content_block_start' && data.content_block.type === 'tool_use')
      seen.tools.push(data.content_block.name);
    if (data.type === 'content_block_delta') {
      seen.text += data.delta.text ?? '';
      if (data.delta.partial_json) seen.tools[seen.tools.length - 1] += data.delta.partial_json;
    }
    if (data.type === 'message_delta') {
      seen.finishes.push(data.delta.stop_reason);
      seen.usage = {
        input: data.usage.input_tokens ?? seen.usage?.input ?? 0,
        output: data.usage.output_tokens,
      };
    }
    if (data.type === 'message_stop') seen.ended = true;
  },
  readError: ({ type, error }) => (type === 'error' ? { type: error.type, message: error.message } : undefined),
  endMark: 'event',
};

const gemini: Client = {
  dialect: 'gemini',
  path: (model, stream) =>
    `/v1beta/models/${encodeURIComponent(model)}:${stream ? 'streamGenerateContent?alt=sse' : 'generateContent'}`,
  body: (_model, { text, tool, json }) => ({
    contents: [{ role: 'user', parts: [{ text }] }],
    ...(json && { generationConfig: { responseMimeType: 'application/json' } }),
    ...(tool && { tools: [{ functionDeclarations: [{ name: 'get_weather', parametersJsonSchema: WEATHER }] }] }),
  }),
  readWhole(body, seen) {
    gemini.readEvent({ name: undefined, data: body }, seen);
    seen.ended = true;
  },
  readEvent({ data }, seen) {
    if (data.responseId !== undefined) seen.ids.add(data.responseId);
    seen.begins = 1;
    for (const { content, finishReason } of data.candidates ?? []) {
      for (const part of content?.parts ?? []) {
        if (part.thought !== true) seen.text += part.text ?? '';
        if (part.functionCall) seen.tools.push(`${part.functionCall.name}${JSON.stringify(part.functionCall.args)}`);
      }
      if (finishReason) seen.finishes.push(finishReason);
    }
    const { usageMetadata: usage } = data;
    if (usage?.candidatesTokenCount !== undefined)
      seen.usage = {
        input: usage.promptTokenCount,
        output: usage.candidatesTokenCount + (usage.thoughtsTokenCount ?? 0),
      };
  },
  readError: ({ error }) => error && { type: `${error.status}/${error.code}`, message: error.message },
  endMark: 'close',
};

export const CLIENTS: Record<string, Client> = {
  [openaiChat.dialect]: openaiChat,
  [openaiResponses.dialect]: openaiResponses,
  [anthropic.dialect]: anthropic,
  [gemini.dialect]: gemini,
};

function emptySeen(): Seen {
  return {
    text: '',
    tools: [],
    begins: 0,
    finishes: [],
    ended: false,
    error: undefined,
    broken: [],
    usage: undefined,
    ids: new Set(),
  };
}

/** Asks as a client of a dialect does, and reads the answer to its end. `status` is 0 when the connection was cut. */
export async function askAs(client: Client, url: string, model: string, ask: Ask): Promise<Seen & { status: number }> {
  const seen = emptySeen();
  const response = await fetch(`${url}${client.path(model, ask.stream)}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...client.headers },
    body: JSON.stringify(client.body(model, ask)),
    signal: AbortSignal.timeout(20_000),
  });
  const isStream = response.headers.get('content-type')?.startsWith('text/event-stream') ?? false;
  try {
    if (isStream) await readStream(client, response, seen);
    else readBody(client, JSON.parse(await response.text()), response.status, seen);
  } catch (error) {
    seen.broken.push(String(error));
  }
  return { ...seen, status: response.status };
}

function readBody(client: Client, body: Json, status: number, seen: Seen): void {
  if (status < 300) client.readWhole(body, seen);
  else seen.error = client.readError(body);
}

async function readStream(client: Client, response: Response, seen: Seen): Promise<void> {
  const parser = createParser({
    onEvent({ event, data }) {
      if (seen.error !== undefined) seen.broken.push('something follows the error');
      if (data === '[DONE]') {
        seen.ended = true;
        return;
      }
      const body = JSON.parse(data) as Json;
      const error = client.readError(body);
      if (error === undefined) client.readEvent({ name: event, data: body }, seen);
      else seen.error = error;
    },
  });
  const decoder = new TextDecoder();
  for await (const bytes of response.body!) parser.feed(decoder.decode(bytes as Uint8Array, { stream: true }));
  if (client.endMark === 'close' && seen.error === undefined) seen.ended = seen.finishes.length > 0;
}
