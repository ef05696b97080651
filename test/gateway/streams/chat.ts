/** Asks a gateway for chat completions, on a connection of its own each time. */
import { openConnection, type RawConnection, type RawResponse, send } from '../../support/client.ts';
import { readSse, type SseResult, SseStream } from '../../support/sse.ts';

/** A prompt in which there is nothing to find. */
const PROMPT = { model: 'any-model', messages: [{ role: 'user', content: 'Say something.' }] };

/** The path of the chat on a route, given as its prefix. */
function chatUrl(gateway: { url: string }, route = ''): string {
  return `${gateway.url}${route}/v1/chat/completions`;
}

/** Asks for a stream and waits for the head of the answer. */
export function askStream(gateway: { url: string }, route = '', body: object = {}): Promise<RawResponse> {
  return send(chatUrl(gateway, route), { body: { ...PROMPT, stream: true, ...body } });
}

/** Asks for a stream and reads it to its end. */
export async function readStream(gateway: { url: string }, route = '', body: object = {}): Promise<SseResult> {
  return readSse(await askStream(gateway, route, body));
}

/** Asks for a stream, to be read event by event. */
export async function openStream(gateway: { url: string }, route = '', body: object = {}): Promise<SseStream> {
  return new SseStream(await askStream(gateway, route, body));
}

/** Asks for a whole answer. */
export function askWhole(gateway: { url: string }, route = '', body: object = {}): Promise<RawResponse> {
  return send(chatUrl(gateway, route), { body: { ...PROMPT, ...body } });
}

/** Sends the request and waits for nothing: the answer may never begin. */
export async function askAndLeave(gateway: { url: string }, route = '', body: object = {}): Promise<RawConnection> {
  const connection = await openConnection(gateway.url);
  await connection.request({ path: `${route}/v1/chat/completions`, body: { ...PROMPT, stream: true, ...body } });
  return connection;
}

/** The events' data, unparsed. */
export function dataOf(result: SseResult): string[] {
  return result.events.map((event) => event.data);
}
