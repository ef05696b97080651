/** The sockets of the simulated model: finds the route, reads the body, has the answer made and played. */
import { once } from 'node:events';
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { anthropic } from './anthropic.ts';
import { azure } from './azure.ts';
import { bedrock } from './bedrock.ts';
import { type Behaviour, Behaviours, type DirectivesSource, prefillOf, readDirectives } from './behaviour.ts';
import { cohere } from './cohere.ts';
import { type Access, type Call, header, newId, ok, type Reply, type Route, type WireFormat } from './format.ts';
import { gemini } from './gemini.ts';
import { Refusal } from './model.ts';
import { openaiChat } from './openai-chat.ts';
import { openaiEmbeddings } from './openai-embeddings.ts';
import { openaiResponses } from './openai-responses.ts';
import { play } from './play.ts';

const FORMATS = [anthropic, azure, bedrock, cohere, gemini, openaiChat, openaiEmbeddings, openaiResponses];
/** Words the refusal of a path that nobody serves. */
const NOBODY = openaiChat;
const MAX_BODY_BYTES = 32 * 1024 * 1024;

/** How to start the simulated model. */
export interface SimulatorOptions {
  /** Address to listen on; `127.0.0.1` by default. */
  host?: string;
  /** Port to listen on; 0, the default, takes a free one. */
  port?: number;
  /** Time between two tokens of a stream in milliseconds; 15 by default, 0 for as fast as the client reads. */
  tokenDelayMs?: number;
  /** Pace, faults and prefill by the model's name, `*` for all; see behaviour.ts. */
  models?: Record<string, DirectivesSource>;
  /** Also OpenAI's paths want a key, as OpenAI does and many servers with its API do not; false by default. */
  requireKey?: boolean;
  /** Keys that are refused with the vendor's 401; any other is good. */
  wrongKeys?: string[];
  /** AWS secrets by their access key id. When there are any, AWS signatures are verified with them. */
  awsSecrets?: Record<string, string>;
  /** Gets one line per request, without its text; silent by default. */
  log?: (line: string) => void;
}

/** A running simulated model. */
export interface Simulator {
  /** Where it listens, such as `http://127.0.0.1:9100`; the base URL for OpenAI clients is this plus `/v1`. */
  url: string;
  /** Stops listening, gives answers in flight `graceMs` (0 by default) to end, then breaks them off. */
  close(graceMs?: number): Promise<void>;
}

/** What all requests of one process share. */
interface Process {
  tokenDelayMs: number;
  behaviours: Behaviours;
  access: Access;
  log: (line: string) => void;
}

/**
 * Starts a simulated model; resolves when it listens.
 *
 * @throws Error when the address cannot be had, or when the directives of a model are wrong
 */
export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  const { host = '127.0.0.1', port = 0 } = options;
  const shared = processOf(options);
  const server = createServer((request, response) => {
    response.on('close', () => setImmediate(() => dropIdleWhenClosing(server)));
    void serve(request, response, shared);
  });
  server.listen(port, host);
  await once(server, 'listening');
  const bound = (server.address() as AddressInfo).port;
  const name = host.includes(':') ? `[${host}]` : host;
  return { url: `http://${name}:${bound}`, close: (graceMs = 0) => stop(server, graceMs) };
}

function processOf({ tokenDelayMs = 15, log = () => {}, ...options }: SimulatorOptions): Process {
  return {
    tokenDelayMs,
    behaviours: new Behaviours(options.models),
    access: {
      requireKey: options.requireKey ?? false,
      wrongKeys: new Set(options.wrongKeys),
      awsSecrets: new Map(Object.entries(options.awsSecrets ?? {})),
    },
    log,
  };
}

/** `server.close` drops the connections that are idle at that time; those that become idle later are dropped here. */
function dropIdleWhenClosing(server: Server): void {
  if (!server.listening) server.closeIdleConnections();
}

async function stop(server: Server, graceMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  const deadline = setTimeout(() => server.closeAllConnections(), graceMs);
  await closed;
  clearTimeout(deadline);
}

async function serve(request: IncomingMessage, response: ServerResponse, shared: Process): Promise<void> {
  const target = targetOf(request);
  const format = formatFor(target.path, request.headers) ?? NOBODY;
  const requestId = newId('req_');
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  response.setHeader('x-simulated', 'true');
  response.setHeader(format.requestIdHeader, requestId);
  const exchange = { response, gone: gone.signal, refuse: (refusal: Refusal) => format.refuse(refusal, requestId) };
  const line = `${request.method} ${target.path}`;
  try {
    const { reply, behaviour } = await replyTo(request, target, { format, shared, requestId });
    await play(exchange, reply, { 'token-delay': shared.tokenDelayMs, ...behaviour });
    shared.log(`${line} ${reply.status}`);
  } catch (error) {
    if (!gone.signal.aborted) response.destroy();
    shared.log(`${line} ${gone.signal.aborted ? 'the client left' : `failed: ${error}`}`);
  }
}

type Target = Pick<Call, 'path' | 'query'>;

function targetOf({ url = '/' }: IncomingMessage): Target {
  const [path = '/', ...query] = url.split('?');
  return { path: path.length > 1 ? path.replace(/\/$/, '') : path, query: new URLSearchParams(query.join('?')) };
}

function formatFor(path: string, headers: IncomingHttpHeaders): WireFormat | undefined {
  return FORMATS.find(({ routes }) => routes.some((route) => isFor(route, path, headers)));
}

function isFor(route: Route, path: string, headers: IncomingHttpHeaders): boolean {
  return route.path.test(path) && (route.isMeant?.(headers) ?? true);
}

interface Answering {
  format: WireFormat;
  shared: Process;
  requestId: string;
}

/** Every request gets a reply: what cannot be answered is refused in the words of its format. */
async function replyTo(
  request: IncomingMessage,
  target: Target,
  { format, shared, requestId }: Answering,
): Promise<{ reply: Reply; behaviour: Behaviour }> {
  if (target.path === '/health') return { reply: ok({ status: 'ok', simulated: true }), behaviour: {} };
  let behaviour: Behaviour = {};
  try {
    const bytes = await readBody(request);
    const route = routeFor(format, request, target.path);
    const call = callOf(request, target, { bytes, route });
    format.authenticate(call, shared.access);
    behaviour = behaviourOf(call, shared.behaviours);
    if (behaviour.status !== undefined) throw refusalOf(behaviour.status, behaviour);
    return { reply: route.answer({ ...call, prefill: prefillOf(behaviour) }), behaviour };
  } catch (error) {
    if (error instanceof Refusal) return { reply: format.refuse(error, requestId), behaviour };
    throw error;
  }
}

function routeFor({ routes }: WireFormat, { method, headers }: IncomingMessage, path: string): Route {
  const served = routes.filter((route) => isFor(route, path, headers));
  if (served.length === 0) throw new Refusal(404, `Unknown request URL: ${path}.`, 'unknown_url');
  const route = served.find((candidate) => candidate.method === method);
  if (!route) throw new Refusal(405, `Not allowed to ${method} on ${path}.`, 'method_not_supported');
  return route;
}

function callOf(request: IncomingMessage, target: Target, { bytes, route }: { bytes: Buffer; route: Route }): Call {
  const { method, headers } = request;
  const body = method === 'GET' ? undefined : parse(bytes);
  const parameters = parametersOf(route.path.exec(target.path)?.groups ?? {});
  return { method: method!, ...target, headers, parameters, body, bytes, prefill: 'continue' };
}

function parametersOf(groups: Record<string, string | undefined>): Record<string, string> {
  try {
    return Object.fromEntries(Object.entries(groups).map(([name, value]) => [name, decodeURIComponent(value ?? '')]));
  } catch {
    throw new Refusal(400, 'The path is not percent-encoded as RFC 3986 wants it.');
  }
}

/** What names no model, such as a list of models, meets only the faults of its own header. */
function behaviourOf({ parameters, body, headers }: Call, behaviours: Behaviours): Behaviour {
  const model = parameters.model ?? (body as { model?: unknown } | null | undefined)?.model;
  const wanted = header(headers, 'x-simulate');
  try {
    return typeof model === 'string' ? behaviours.of(model, wanted) : readDirectives(wanted ?? '');
  } catch (error) {
    throw new Refusal(400, (error as Error).message, 'invalid_value', 'model');
  }
}

function refusalOf(status: number, behaviour: Behaviour): Refusal {
  const refusal = new Refusal(status, `The simulated model answers ${status} because it was told to.`, behaviour.code);
  refusal.retryAfterS = behaviour['retry-after'];
  refusal.resetS = behaviour['limit-reset'];
  return refusal;
}

/** Reads to the end even when the body is too large, so that the client gets the 413 and not a reset. */
async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length <= MAX_BODY_BYTES) chunks.push(chunk);
    else chunks.length = 0;
  }
  if (length > MAX_BODY_BYTES) throw new Refusal(413, `The body is larger than ${MAX_BODY_BYTES} bytes.`);
  return Buffer.concat(chunks);
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString());
  } catch {
    throw new Refusal(400, 'We could not parse the JSON body of your request.');
  }
}
