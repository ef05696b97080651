/** What the tests of resuming have in common: streams whose bytes are known beforehand, and clients that lose them. */
import { type RawResponse, send } from '../../support/client.ts';
import { configFor, type StartOptions, startGateway, type TestGateway, testPlugin } from '../../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';

/** Takes who asks from the header `x-who`, as `subject@issuer`; a stranger has none. */
export const WHO = testPlugin('who', {
  authenticate: ({ request }) => {
    const [subject, issuer] = (request.headers?.['x-who'] ?? '').split('@');
    return { allow: subject ? { identity: { subject, issuer } } : {} };
  },
});

export interface Rig extends AsyncDisposable {
  upstream: ScriptedUpstream;
  gateway: TestGateway;
}

/** A gateway whose one route keeps streams as `resume` says. */
export async function startRig(
  resume: unknown = true,
  parts: Record<string, unknown> = {},
  options: StartOptions = {},
): Promise<Rig> {
  const upstream = await startScriptedUpstream();
  const { route = {}, ...rest } = parts as { route?: Record<string, unknown> };
  const config = configFor(upstream.url, { ...rest, route: { resume, ...route } });
  const gateway = await startGateway(config, { ...options, factories: [WHO, ...(options.factories ?? [])] });
  return {
    upstream,
    gateway,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

type Headers = Record<string, string>;

/** Asks for a stream. */
export function ask(
  { gateway }: { gateway: { url: string } },
  headers: Headers = {},
  content = 'Say something.',
): Promise<RawResponse> {
  const body = { model: 'any-model', messages: [{ role: 'user', content }], stream: true };
  return send(`${gateway.url}/v1/chat/completions`, { headers, body });
}

/** Asks for the rest, after the event of this id. */
export function askRest(
  { gateway }: { gateway: { url: string } },
  lastEventId: string,
  headers: Headers = {},
): Promise<RawResponse> {
  return send(`${gateway.url}/v1/chat/completions`, { headers: { 'Last-Event-ID': lastEventId, ...headers } });
}

/** The name of the stream that an answer is. */
export function streamOf(response: RawResponse): string {
  const id = response.header('x-wardgate-stream-id');
  if (id === undefined) throw new Error('The answer cannot be resumed.');
  return id;
}

/** Reads until so many bytes of the body are there, and cuts the connection; answers no more than those. */
export async function readAndLeave(response: RawResponse, bytes: number): Promise<Buffer> {
  if (bytes > 0) for await (const _ of response.chunks) if (response.received.length >= bytes) break;
  response.connection.reset();
  return response.received.subarray(0, bytes);
}

/** Reads until a text has come, and stays. */
export async function readUntil(response: RawResponse, text: string): Promise<string> {
  for (;;) {
    if (response.received.includes(text)) return response.received.toString();
    const { done } = await response.chunks.next();
    if (done) throw new Error(`The stream ended before ${text}: ${response.received}`);
  }
}

/** What a client has of a stream: whole events, and the id of the last. */
export function wholeEvents(bytes: Buffer): { bytes: Buffer; lastId: string | undefined } {
  const end = bytes.lastIndexOf('\n\n');
  const whole = bytes.subarray(0, end < 0 ? 0 : end + 2);
  const ids = [...whole.toString('latin1').matchAll(/^id: (.+)$/gm)];
  return { bytes: whole, lastId: ids.at(-1)?.[1] };
}

/** The bytes of a stream that says these events, `data: …` each, from the number `from` on. */
export function numbered(stream: string, events: string[], from = 1): Buffer {
  return Buffer.from(events.map((event, i) => `id: ${stream}-${from + i}\n${event}`).join(''));
}
