/** What the dialects share whose requests are a list of `messages`. */
import { type Fields, invalid } from '../hub/fields.ts';
import { use } from '../hub/noted.ts';
import type { HubMessage, HubRequest } from '../hub/request.ts';
import { isJsonObject } from '../json.ts';
import type { Json } from './dialect.ts';

/** Model and stream of such a request; throws `invalid_request` with a sentence that names the field. */
export function readHead({ model, messages, stream }: Json): { model: string | undefined; stream: boolean } {
  if (model !== undefined && typeof model !== 'string') throw invalid('model', 'must be a string');
  if (!Array.isArray(messages)) throw invalid('messages', 'is missing or not a list');
  if (!messages.every(isJsonObject)) throw invalid('messages', 'must be a list of objects');
  if (stream !== undefined && stream !== null && typeof stream !== 'boolean')
    throw invalid('stream', 'must be true or false');
  return { model, stream: stream === true };
}

/** What the reading of one message needs of those before it. */
export interface Chat {
  hub: HubRequest;
  /** Names of the tools that were called, by the calls' ids. */
  called: Map<string, string>;
}

/** Reads the messages one after the other into the hub, and answers the last. An assistant's there is to be gone on from. */
export function readTurns(
  fields: Fields,
  hub: HubRequest,
  readMessage: (message: Fields, chat: Chat) => void,
): HubMessage | undefined {
  const chat: Chat = { hub, called: new Map() };
  const list = fields.objects('messages');
  if (list === undefined) throw invalid('messages', 'is missing');
  for (const message of list) readMessage(message, chat);
  const last = hub.messages.at(-1);
  const isBegun = last?.role === 'assistant' && !last.parts.some(({ type }) => type === 'tool-call');
  if (isBegun) use(hub, 'prefill', last.at);
  return last;
}
