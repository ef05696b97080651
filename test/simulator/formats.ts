/** Every wire format that streams, as a bare client needs it: how to ask, and how to read what comes. */
import { EventStreamCodec } from '@smithy/eventstream-codec';
import { createParser } from 'eventsource-parser';

/** What is asked, in no vendor's words. */
export interface Question {
  model: string;
  text: string;
  stream?: boolean;
  /** What the assistant has already said of the answer. */
  begun?: string | undefined;
}

/** What a stream said before it ended, however it ended. */
export interface Streamed {
  text: string;
  /** The vendor's own sign of a complete answer was seen. */
  finished: boolean;
  /** The vendor's own sign of an error was seen. */
  failed: boolean;
  /** Bytes after the last whole event. */
  rest: number;
}

/** One vendor's format. */
export interface Format {
  name: string;
  path(question: Question): string;
  headers: Record<string, string>;
  body(question: Question): object;
  textOf(answer: unknown): unknown;
  /** Where the vendor says when to try again. */
  waitOf(headers: (name: string) => string | undefined, answer: unknown): string | undefined;
  read(bytes: Buffer): Streamed;
}

/** What the events of a stream mean. */
interface Meaning {
  text(event: unknown): unknown;
  isFinish(event: unknown): boolean;
  isFailure(event: unknown): boolean;
}

const bearer = { authorization: 'Bearer any' };
const retryAfter: Format['waitOf'] = (header) => header('retry-after');
const messages = ({ text, begun }: Question) => [
  { role: 'user', content: text },
  ...(begun === undefined ? [] : [{ role: 'assistant', content: begun }]),
];

const openaiChat: Format = {
  name: 'OpenAI chat',
  path: () => '/v1/chat/completions',
  headers: bearer,
  body: (question) => ({ model: question.model, stream: question.stream, messages: messages(question) }),
  textOf: (answer) => at(answer, 'choices.0.message.content'),
  waitOf: retryAfter,
  read: fromSse({
    text: (event) => at(event, 'choices.0.delta.content'),
    isFinish: (event) => at(event, 'choices.0.finish_reason') === 'stop',
    isFailure: (event) => at(event, 'error') !== undefined,
  }),
};

const openaiResponses: Format = {
  name: 'OpenAI responses',
  path: () => '/v1/responses',
  headers: bearer,
  body: (question) => ({ model: question.model, stream: question.stream, input: messages(question) }),
  textOf: (answer) => at(answer, 'output.0.content.0.text'),
  waitOf: retryAfter,
  read: fromSse({
    text: (event) => (at(event, 'type') === 'response.output_text.delta' ? at(event, 'delta') : undefined),
    isFinish: (event) => at(event, 'type') === 'response.completed',
    isFailure: (event) => at(event, 'type') === 'error',
  }),
};

const anthropic: Format = {
  name: 'Anthropic',
  path: () => '/v1/messages',
  headers: { 'x-api-key': 'any', 'anthropic-version': '2023-06-01' },
  body: ({ model, stream, ...question }) => ({
    model,
    stream,
    max_tokens: 1000,
    messages: messages({ model, ...question }),
  }),
  textOf: (answer) => at(answer, 'content.0.text'),
  waitOf: retryAfter,
  read: fromSse({
    text: (event) => at(event, 'delta.text'),
    isFinish: (event) => at(event, 'type') === 'message_stop',
    isFailure: (event) => at(event, 'type') === 'error',
  }),
};

const geminiMeaning: Meaning = {
  text: (event) => at(event, 'candidates.0.content.parts.0.text'),
  isFinish: (event) => at(event, 'candidates.0.finishReason') === 'STOP',
  isFailure: (event) => at(event, 'error') !== undefined,
};

const gemini: Format = {
  name: 'Gemini',
  path: ({ model, stream }) =>
    `/v1beta/models/${model}:${stream ? 'streamGenerateContent?alt=sse' : 'generateContent'}`,
  headers: { 'x-goog-api-key': 'any' },
  body: ({ text, begun }) => ({
    contents: [
      { role: 'user', parts: [{ text }] },
      ...(begun === undefined ? [] : [{ role: 'model', parts: [{ text: begun }] }]),
    ],
  }),
  textOf: (answer) => at(answer, 'candidates.0.content.parts.0.text'),
  waitOf: (_, answer) => String(at(answer, 'error.details.0.retryDelay')).replace('s', ''),
  read: fromSse(geminiMeaning),
};

const geminiArray: Format = {
  ...gemini,
  name: 'Gemini without alt=sse',
  path: ({ model, stream }) => `/v1beta/models/${model}:${stream ? 'streamGenerateContent' : 'generateContent'}`,
  read: fromArray(geminiMeaning),
};

const bedrock: Format = {
  name: 'Bedrock',
  path: ({ model, stream }) => `/model/${encodeURIComponent(model)}/converse${stream ? '-stream' : ''}`,
  headers: bearer,
  body: (question) => ({
    messages: messages(question).map(({ role, content }) => ({ role, content: [{ text: content }] })),
  }),
  textOf: (answer) => at(answer, 'output.message.content.0.text'),
  waitOf: retryAfter,
  read: fromFrames({
    text: (event) => at(event, 'contentBlockDelta.delta.text'),
    isFinish: (event) => at(event, 'metadata') !== undefined,
    isFailure: (event) => at(event, 'modelStreamErrorException') !== undefined,
  }),
};

const cohere: Format = {
  name: 'Cohere',
  path: () => '/v2/chat',
  headers: bearer,
  body: (question) => ({ model: question.model, stream: question.stream, messages: messages(question) }),
  textOf: (answer) => at(answer, 'message.content.0.text'),
  waitOf: retryAfter,
  read: fromSse({
    text: (event) => (at(event, 'type') === 'content-delta' ? at(event, 'delta.message.content.text') : undefined),
    isFinish: (event) => at(event, 'delta.finish_reason') === 'COMPLETE',
    isFailure: (event) => at(event, 'delta.finish_reason') === 'ERROR',
  }),
};

/** Every format; `name` is for `test.each`. */
export const formats = [openaiChat, openaiResponses, anthropic, gemini, geminiArray, bedrock, cohere];

/** What stands at a place in JSON, such as `choices.0.delta`; undefined when it does not. */
function at(json: unknown, path: string): unknown {
  return path.split('.').reduce((value, key) => (value as Record<string, unknown> | null | undefined)?.[key], json);
}

function streamed(events: unknown[], { text, isFinish, isFailure }: Meaning, rest: number): Streamed {
  const said = events.map((event) => String(text(event) ?? '')).join('');
  return { text: said, finished: events.some(isFinish), failed: events.some(isFailure), rest };
}

function fromSse(meaning: Meaning): Format['read'] {
  return (bytes) => {
    const events: unknown[] = [];
    const parser = createParser({ onEvent: ({ data }) => events.push(...parsed(data)) });
    const text = bytes.toString();
    const end = text.lastIndexOf('\n\n') + 2;
    parser.feed(text.slice(0, end));
    return streamed(events, meaning, text.length - end);
  };
}

/** Each chunk is one element of the array, and no text of the tests has what stands between them. */
function fromArray(meaning: Meaning): Format['read'] {
  return (bytes) => {
    const pieces = bytes.toString().trimStart().replace(/^\[/, '').replace(/\]$/, '').split(',\r\n');
    const events = pieces.flatMap(parsed);
    return streamed(events, meaning, pieces.length - events.length);
  };
}

const codec = new EventStreamCodec(
  (bytes) => Buffer.from(bytes as Uint8Array).toString(),
  (text) => Buffer.from(text),
);

function fromFrames(meaning: Meaning): Format['read'] {
  return (bytes) => {
    const events: unknown[] = [];
    let at = 0;
    while (at + 4 <= bytes.length && at + bytes.readUInt32BE(at) <= bytes.length) {
      const { headers, body } = codec.decode(bytes.subarray(at, at + bytes.readUInt32BE(at)));
      const name = (headers[':event-type'] ?? headers[':exception-type'])?.value as string;
      events.push({ [name]: JSON.parse(Buffer.from(body).toString()) });
      at += bytes.readUInt32BE(at);
    }
    return streamed(events, meaning, bytes.length - at);
  };
}

function parsed(text: string): unknown[] {
  try {
    return [JSON.parse(text) as unknown];
  } catch {
    return [];
  }
}
