/**
 * Runs a plugin as a service of its own, over gRPC and over HTTP at once: any plugin of this folder, or one of yours.
 *
 *     node plugins/serve.ts pii-guard --grpc 0.0.0.0:9000 --http 0.0.0.0:8000
 *
 * From code: `const service = await servePlugin(myFactory, { grpc: '127.0.0.1:9000' })`.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import { resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { parse } from 'yaml';
import {
  ConfigProblem,
  type Description,
  HOOKS,
  type Hook,
  isTold,
  type Plugin,
  type PluginFactory,
  PluginFault,
} from '../proto/contract.ts';
import { factoryIn } from '../proto/factory.ts';
import {
  MAX_BATCH,
  MAX_MESSAGE,
  PLUGIN_SERVICE,
  type ReadCall,
  readCall,
  readCalls,
  readDescribeRequest,
  takeBatch,
  UNKNOWN_INSTANCE,
  writeBatch,
  writeDescribeReply,
  writeFault,
  writeVerdict,
} from '../proto/grpc.ts';
import { verdictProblem } from '../proto/verdict.ts';

/** How long calls under way may take after {@link Service.close}, in milliseconds. */
const DRAIN_MS = 10_000;
/** Configs that are kept, each with its plugin; the one that was not used for longest goes first. */
const MAX_INSTANCES = 64;
/**
 * Calls of one session that are worked on at a time; what comes beyond is a fault. To stop reading in place of that
 * would leave the callers' cancellations unread, and a plugin whose own service hangs would hang for good.
 */
const MAX_AT_ONCE = 10_000;

export interface ServeOptions {
  /** `host:port` for gRPC; port 0 takes a free one; without it gRPC is not served. */
  grpc?: string;
  /** `host:port` for HTTP; port 0 takes a free one; without it HTTP is not served. */
  http?: string;
  /** The config for callers that hand over none. It is tried at once. */
  config?: unknown;
  /** PEM texts; with them both ports speak TLS. */
  tls?: { cert: string; key: string };
  /** Where the log goes, a line of JSON each; default: nowhere. Nothing of any request is logged. */
  log?(line: string): void;
}

export interface Service {
  /** Such as `grpc://127.0.0.1:9000`: what `at` says in the gateway's config. Undefined when gRPC is not served. */
  grpcUrl: string | undefined;
  httpUrl: string | undefined;
  /** Says that it no longer serves, answers what was read, and lets go; after 10 seconds by force. */
  close(): Promise<void>;
}

/**
 * Serves a plugin until it is closed.
 *
 * @throws ConfigProblem when the plugin refuses `options.config`, Error when an address cannot be listened on
 */
export async function servePlugin(factory: PluginFactory, options: ServeOptions): Promise<Service> {
  const host = new PluginHost(factory, options);
  const grpc = options.grpc === undefined ? undefined : await serveGrpc(host, options.grpc, options);
  const web = options.http === undefined ? undefined : await serveHttp(host, options.http, options);
  host.note({ message: 'serving', plugin: factory.name, grpc: grpc?.url, http: web?.url });
  let closing: Promise<void> | undefined;
  const close = async () => {
    host.draining = true;
    await Promise.all([grpc?.close(), web?.close()]);
    await host.close();
  };
  return { grpcUrl: grpc?.url, httpUrl: web?.url, close: () => (closing ??= close()) };
}

// --- The plugin, once for each config -------------------------------------------------------------------------------

type Outcome = { verdict: object } | { fault: { code: string; message: string } };

class PluginHost {
  draining = false;
  private readonly factory: PluginFactory;
  private readonly options: ServeOptions;
  private readonly plugins = new Map<string, Plugin>();
  private readonly calls = new Set<Promise<unknown>>();

  constructor(factory: PluginFactory, options: ServeOptions) {
    this.factory = factory;
    this.options = options;
    if (options.config !== undefined) this.instance(options.config);
  }

  /** Makes the plugin for a config, unless there is one. @throws ConfigProblem when the plugin refuses it */
  instance(config: unknown = this.options.config): { key: string; description: Description } {
    const key = createHash('sha256')
      .update(JSON.stringify(config) ?? '')
      .digest('hex');
    const plugin = this.use(key) ?? this.factory.create(config);
    this.plugins.set(key, plugin);
    this.forgetOldest();
    return { key, description: plugin.describe() };
  }

  /** The plugin that a call means; undefined when it has been forgotten. A call that names none means the default. */
  pluginFor(key: string): Plugin | undefined {
    if (key !== '') return this.use(key);
    try {
      return this.use(this.instance().key);
    } catch {
      return undefined;
    }
  }

  private use(key: string): Plugin | undefined {
    const plugin = this.plugins.get(key);
    if (plugin === undefined) return undefined;
    this.plugins.delete(key);
    this.plugins.set(key, plugin);
    return plugin;
  }

  private forgetOldest(): void {
    const [oldest] = this.plugins;
    if (this.plugins.size <= MAX_INSTANCES || oldest === undefined) return;
    this.plugins.delete(oldest[0]);
    Promise.resolve(oldest[1].close?.()).catch(() => {});
  }

  /** Asks the plugin. Never rejects: what is no sound verdict is a fault. */
  async judge(plugin: Plugin, hook: Hook, input: unknown, signal: AbortSignal): Promise<Outcome> {
    if (plugin[hook] === undefined) return faulty('no_such_hook', `the plugin does not answer \`${hook}\``);
    try {
      const answer: unknown = (await plugin[hook](input as never, { signal })) ?? nothing(hook);
      const problem = verdictProblem(hook, input, answer);
      return problem === undefined ? { verdict: answer as object } : faulty('bad_verdict', problem);
    } catch (error) {
      if (!signal.aborted) this.note({ message: 'the plugin could not judge', hook, error: causeOf(error) });
      const code = error instanceof PluginFault ? error.code : 'plugin_threw';
      return faulty(code, 'the plugin could not judge');
    }
  }

  /** What the plugin counts of itself; empty when it counts nothing, or has not been asked for anything yet. */
  async metrics(): Promise<string> {
    const measured = [...this.plugins.values()].find((plugin) => plugin.metrics !== undefined);
    return (await measured?.metrics?.()) ?? '';
  }

  /** Remembers a call while it is under way, so that {@link idle} can wait for it. */
  async counted<T>(call: Promise<T>): Promise<T> {
    this.calls.add(call);
    try {
      return await call;
    } finally {
      this.calls.delete(call);
    }
  }

  async idle(): Promise<void> {
    await Promise.allSettled([...this.calls]);
  }

  /** What is said to a caller when a plugin cannot be made, though its config is its kind. */
  unmade(error: unknown): string {
    this.note({ message: 'the plugin cannot be made', error: causeOf(error) });
    return 'the plugin cannot be made';
  }

  note(fields: object): void {
    this.options.log?.(JSON.stringify({ time: new Date().toISOString(), ...fields }));
  }

  async close(): Promise<void> {
    const plugins = [...this.plugins.values()];
    this.plugins.clear();
    await Promise.allSettled(plugins.map(async (plugin) => plugin.close?.()));
  }
}

/** Who is only told has nothing to answer; any other hook has, and its silence is a fault. */
function nothing(hook: Hook): object | undefined {
  return isTold(hook) ? { allow: {} } : undefined;
}

function faulty(code: string, message: string): Outcome {
  return { fault: { code, message } };
}

/** Where an error was thrown. Its message is left out, for it may quote the text; but a plugin's own fault never does. */
function causeOf(error: unknown): string {
  if (error instanceof PluginFault) return `${error.code}: ${error.message}`;
  if (!(error instanceof Error)) return typeof error;
  const frame = error.stack?.split('\n').find((line) => /^\s+at /.test(line));
  return `${error.name}${frame ?? ''}`.replace(/\s+/g, ' ');
}

/** What must be there for a plugin to be asked at all. */
function inputProblem(hook: Hook, input: unknown): string | undefined {
  const fields = input as Record<string, unknown> | null | undefined;
  if (typeof fields !== 'object' || typeof fields?.request !== 'object' || fields.request === null) {
    return 'the input needs a `request`';
  }
  if ((hook === 'request' || hook === 'response') && !Array.isArray(fields.segments))
    return 'the input needs `segments`';
  if (hook === 'authorize' && !Array.isArray(fields.resources)) return 'the input needs `resources`';
  if (hook === 'endpoint' && (typeof fields.query !== 'string' || typeof fields.body !== 'string'))
    return 'the input needs a `query` and a `body`';
  if (hook === 'stream' && typeof fields.text !== 'string') return 'the input needs a `text`';
  return undefined;
}

interface Door {
  url: string;
  close(): Promise<void>;
}

/** Waits for `done`, but after {@link DRAIN_MS} uses force. */
async function orByForce(done: Promise<unknown>, force: () => void): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, DRAIN_MS);
  });
  await Promise.race([done, late]);
  clearTimeout(timer);
  force();
}

function urlOf(scheme: string, address: string, port: number): string {
  return `${scheme}://${address.slice(0, address.lastIndexOf(':'))}:${port}`;
}

// --- gRPC -----------------------------------------------------------------------------------------------------------

async function serveGrpc(host: PluginHost, address: string, { tls }: ServeOptions): Promise<Door> {
  const server = new Server({
    'grpc.max_receive_message_length': MAX_MESSAGE + MAX_BATCH,
    'grpc.max_send_message_length': MAX_MESSAGE + MAX_BATCH,
  });
  const sessions = new Set<SessionHost>();
  const health = new HealthImplementation({ '': 'SERVING', 'wardgate.plugin.v1.PluginService': 'SERVING' });
  health.addToServer(server);
  server.addService(PLUGIN_SERVICE, {
    Describe: (call: ServerUnaryCall<Buffer, Buffer>, reply: sendUnaryData<Buffer>) => describe(host, call, reply),
    Call: (call: ServerUnaryCall<Buffer, Buffer>, reply: sendUnaryData<Buffer>) => answerCall(host, call, reply),
    Session: (stream: ServerDuplexStream<Buffer, Buffer>) => {
      const session = new SessionHost(host, stream, () => sessions.delete(session));
      sessions.add(session);
    },
  });
  const port = await bind(server, address, tls);
  const close = async () => {
    health.setStatus('', 'NOT_SERVING');
    health.setStatus('wardgate.plugin.v1.PluginService', 'NOT_SERVING');
    // Watchers of the health service stay as long as they like: what is waited for is the sessions and the calls.
    await orByForce(Promise.all([...[...sessions].map((session) => session.drain()), host.idle()]), () =>
      server.forceShutdown(),
    );
  };
  return { url: urlOf(tls ? 'grpcs' : 'grpc', address, port), close };
}

function bind(server: Server, address: string, tls: ServeOptions['tls']): Promise<number> {
  const pair = tls && { private_key: Buffer.from(tls.key), cert_chain: Buffer.from(tls.cert) };
  const credentials = pair ? ServerCredentials.createSsl(null, [pair]) : ServerCredentials.createInsecure();
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, port) => (error ? reject(error) : resolve(port)));
  });
}

function describe(host: PluginHost, call: ServerUnaryCall<Buffer, Buffer>, reply: sendUnaryData<Buffer>): void {
  let config: unknown;
  try {
    config = readDescribeRequest(call.request).config;
  } catch {
    reply({ code: status.INVALID_ARGUMENT, details: 'this is no DescribeRequest' });
    return;
  }
  try {
    const { key, description } = host.instance(config);
    reply(null, writeDescribeReply(description, key) as Buffer);
  } catch (error) {
    // A status travels in a header, whose size is bounded.
    if (error instanceof ConfigProblem)
      reply({ code: status.INVALID_ARGUMENT, details: error.message.slice(0, 4_000) });
    else reply({ code: status.INTERNAL, details: host.unmade(error) });
  }
}

/** One call, on a session or alone: its reply as bytes. */
async function replyTo(host: PluginHost, plugin: Plugin | undefined, call: ReadCall, signal: AbortSignal) {
  const { id, hook, input } = call;
  if (hook === undefined) return writeFault(id, 'bad_call', 'the call names no hook, or more than one');
  if (plugin === undefined) return writeFault(id, UNKNOWN_INSTANCE, 'describe again');
  const problem = inputProblem(hook, input);
  if (problem !== undefined) return writeFault(id, 'bad_call', problem);
  const outcome = await host.judge(plugin, hook, input, signal);
  if ('fault' in outcome) return writeFault(id, outcome.fault.code, outcome.fault.message);
  const bytes = writeVerdict(id, outcome.verdict);
  return bytes.length > MAX_MESSAGE ? writeFault(id, 'too_large', 'the verdict is larger than 16 MiB') : bytes;
}

async function answerCall(host: PluginHost, call: ServerUnaryCall<Buffer, Buffer>, reply: sendUnaryData<Buffer>) {
  const cancelled = new AbortController();
  call.on('cancelled', () => cancelled.abort());
  let read: ReadCall;
  try {
    read = readCall(call.request);
  } catch {
    reply({ code: status.INVALID_ARGUMENT, details: 'this is no HookCall' });
    return;
  }
  const plugin = host.pluginFor(read.instance);
  if (plugin === undefined) reply({ code: status.FAILED_PRECONDITION, details: 'unknown instance: describe again' });
  else reply(null, (await host.counted(replyTo(host, plugin, read, cancelled.signal))) as Buffer);
}

/** One session: reads batches of calls, and sends what has been answered in one turn of the event loop as one batch. */
class SessionHost {
  private readonly host: PluginHost;
  private readonly stream: ServerDuplexStream<Buffer, Buffer>;
  private readonly underWay = new Map<number, AbortController>();
  private readonly done: () => void;
  private answered: Uint8Array[] = [];
  private flushing = false;
  private ending = false;
  private drained: (() => void) | undefined;

  constructor(host: PluginHost, stream: ServerDuplexStream<Buffer, Buffer>, done: () => void) {
    this.host = host;
    this.stream = stream;
    this.done = done;
    // Tells the other side at once that there is a session here.
    stream.sendMetadata(new Metadata());
    stream.on('data', (bytes: Buffer) => this.read(bytes));
    stream.on('end', () => this.finish());
    stream.on('cancelled', () => this.gone());
    stream.on('error', () => this.gone());
  }

  private read(bytes: Buffer): void {
    let calls: ReadCall[];
    try {
      calls = readCalls(bytes);
    } catch {
      this.stream.emit('error', { code: status.INVALID_ARGUMENT, details: 'this is no SessionRequest' });
      return;
    }
    for (const call of calls) {
      if (call.cancel) this.underWay.get(call.id)?.abort();
      else if (this.underWay.size < MAX_AT_ONCE) void this.answer(call);
      else this.answered.push(writeFault(call.id, 'overloaded', 'too many calls are under way'));
    }
    if (this.answered.length > 0) this.flushSoon();
  }

  private async answer(call: ReadCall): Promise<void> {
    const cancelled = new AbortController();
    this.underWay.set(call.id, cancelled);
    const reply = await replyTo(this.host, this.host.pluginFor(call.instance), call, cancelled.signal);
    this.underWay.delete(call.id);
    if (!cancelled.signal.aborted) this.answered.push(reply);
    this.flushSoon();
  }

  private flushSoon(): void {
    if (this.flushing) return;
    this.flushing = true;
    setImmediate(() => {
      this.flushing = false;
      this.flush();
    });
  }

  private flush(): void {
    while (this.answered.length > 0) this.stream.write(writeBatch(takeBatch(this.answered)));
    if (this.ending && this.underWay.size === 0) this.end();
  }

  /** Reads no more; ends in good order when all that was read has been answered. */
  private finish(): void {
    this.ending = true;
    this.stream.pause();
    this.flushSoon();
  }

  drain(): Promise<void> {
    return new Promise((resolve) => {
      this.drained = resolve;
      this.finish();
    });
  }

  private end(): void {
    this.stream.once('finish', () => this.drained?.());
    this.stream.end();
    this.done();
  }

  private gone(): void {
    for (const call of this.underWay.values()) call.abort();
    this.done();
    this.drained?.();
  }
}

// --- HTTP -----------------------------------------------------------------------------------------------------------

async function serveHttp(host: PluginHost, address: string, { tls }: ServeOptions): Promise<Door> {
  const listener = (request: http.IncomingMessage, response: http.ServerResponse) => {
    void answerHttp(host, request, response);
  };
  const server = tls ? https.createServer(tls, listener) : http.createServer(listener);
  const [name, port] = splitAddress(address);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, name, resolve);
  });
  const close = async () => {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeIdleConnections();
    await orByForce(closed, () => server.closeAllConnections());
  };
  return { url: urlOf(tls ? 'https' : 'http', address, (server.address() as AddressInfo).port), close };
}

function splitAddress(address: string): [string, number] {
  const colon = address.lastIndexOf(':');
  return [address.slice(0, colon).replace(/^\[|\]$/g, ''), Number(address.slice(colon + 1))];
}

/** A reply over HTTP: its status and what is written as JSON, or as the text that it is. */
type Reply = [number, object | string];

async function answerHttp(host: PluginHost, request: http.IncomingMessage, response: http.ServerResponse) {
  const gone = new AbortController();
  response.on('close', () => {
    if (!response.writableFinished) gone.abort();
  });
  const [code, body] = await httpReply(host, request, gone.signal).catch((): Reply => [400, { error: 'bad request' }]);
  const isText = typeof body === 'string';
  const bytes = Buffer.from(isText ? body : JSON.stringify(body));
  response.writeHead(code, {
    'content-type': isText ? 'text/plain; version=0.0.4; charset=utf-8' : 'application/json',
    'content-length': bytes.length,
    // While draining each answer is the last on its connection; what was not read of a body cannot be skipped.
    ...((host.draining || !request.complete) && { connection: 'close' }),
  });
  response.end(bytes);
}

async function httpReply(host: PluginHost, request: http.IncomingMessage, signal: AbortSignal): Promise<Reply> {
  const path = new URL(request.url ?? '/', 'http://plugin').pathname;
  if (path === '/healthz') return [200, { status: 'ok' }];
  if (path === '/readyz') return host.draining ? [503, { status: 'draining' }] : [200, { status: 'ready' }];
  if (path === '/metrics') return [200, await host.metrics()];
  const hook = path.slice(1);
  if (hook !== 'describe' && !isHook(hook)) return [404, { error: `there is /describe and ${Object.keys(HOOKS)}` }];
  if (request.method !== 'POST') return [405, { error: 'use POST' }];
  const body = await readBody(request);
  if (body === undefined) return [413, { error: 'the body is larger than 16 MiB' }];
  const input = parsed(body);
  if (input === undefined) return [400, { error: 'the body is not JSON' }];
  if (hook === 'describe') return httpDescribe(host, input as { config?: unknown } | null);
  return httpJudge(host, hook, input, String(request.headers['x-wardgate-instance'] ?? ''), signal);
}

function isHook(name: string): name is Hook {
  return Object.hasOwn(HOOKS, name);
}

async function readBody(request: http.IncomingMessage): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_MESSAGE) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function parsed(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString());
  } catch {
    return undefined;
  }
}

function httpDescribe(host: PluginHost, body: { config?: unknown } | null): Reply {
  try {
    const { key, description } = host.instance(body?.config ?? undefined);
    return [200, { ...description, instance: key }];
  } catch (error) {
    if (error instanceof ConfigProblem) return [422, { error: error.message, problems: error.problems }];
    return [500, { error: host.unmade(error) }];
  }
}

async function httpJudge(
  host: PluginHost,
  hook: Hook,
  input: unknown,
  instance: string,
  signal: AbortSignal,
): Promise<Reply> {
  const problem = inputProblem(hook, input);
  if (problem !== undefined) return [400, { error: problem }];
  const plugin = host.pluginFor(instance);
  if (plugin === undefined) return [409, { error: 'unknown instance: describe again' }];
  const outcome = await host.judge(plugin, hook, input, signal);
  return 'fault' in outcome ? [500, outcome] : [200, outcome.verdict];
}

// --- The command ----------------------------------------------------------------------------------------------------

const HELP = `Runs a Wardgate plugin as a service.

  node plugins/serve.ts PLUGIN [--grpc HOST:PORT] [--http HOST:PORT] [--config FILE.yaml]

  PLUGIN         a folder of plugins/, or the path of a module such as ./my-plugin.ts     WARDGATE_PLUGIN
  --grpc         where to serve gRPC; default 0.0.0.0:9000, "off" for none                WARDGATE_GRPC
  --http         where to serve HTTP with JSON; default 0.0.0.0:8000, "off" for none      WARDGATE_HTTP
  --config       the plugin's config for gateways that hand over none;
                 \${NAME} and \${NAME:-default} stand for environment variables            WARDGATE_PLUGIN_CONFIG
  --tls-cert, --tls-key   PEM files; with them both ports speak TLS                       WARDGATE_TLS_CERT, _KEY
  --help         this text

Health: grpc.health.v1, GET /healthz, GET /readyz. Figures: GET /metrics, if the plugin has any. SIGTERM finishes what is under way.
`;

const FOLDER = fileURLToPath(new URL('.', import.meta.url));

/** Runs the command. Its problems are for a person, so they go to stderr as they are. */
async function main(): Promise<void> {
  const { values, positionals } = readArguments();
  const name = positionals[0] ?? process.env.WARDGATE_PLUGIN;
  if (values.help || name === undefined) {
    process.stdout.write(`${HELP}\nPlugins here: ${pluginsHere().join(', ')}\n`);
    process.exitCode = values.help ? 0 : 2;
    return;
  }
  const factory = await loadFactory(name);
  const service = await servePlugin(factory, {
    grpc: listenAt(values.grpc ?? process.env.WARDGATE_GRPC ?? '0.0.0.0:9000', '--grpc'),
    http: listenAt(values.http ?? process.env.WARDGATE_HTTP ?? '0.0.0.0:8000', '--http'),
    config: readConfig(values.config ?? process.env.WARDGATE_PLUGIN_CONFIG),
    tls: readTls(
      values['tls-cert'] ?? process.env.WARDGATE_TLS_CERT,
      values['tls-key'] ?? process.env.WARDGATE_TLS_KEY,
    ),
    log: (line) => process.stdout.write(`${line}\n`),
  });
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void stop(service));
}

async function stop(service: Service): Promise<void> {
  await service.close();
  process.exit(0);
}

function readArguments() {
  const option = { type: 'string' } as const;
  const options = { grpc: option, http: option, config: option, 'tls-cert': option, 'tls-key': option };
  return parseArgs({ allowPositionals: true, options: { ...options, help: { type: 'boolean', short: 'h' } } });
}

function pluginsHere(): string[] {
  return readdirSync(FOLDER).filter((name) => existsSync(resolve(FOLDER, name, 'plugin.ts')));
}

async function loadFactory(name: string): Promise<PluginFactory> {
  const isPath = /^\.{0,2}\//.test(name);
  const file = isPath ? resolve(name) : resolve(FOLDER, name, 'plugin.ts');
  if (!isPath && !pluginsHere().includes(name)) {
    throw new Error(
      `there is no plugin \`${name}\` (there is: ${pluginsHere().join(', ')}); a file is written ./file.ts`,
    );
  }
  return factoryIn(await import(pathToFileURL(file).href), name);
}

function listenAt(address: string, option: string): string | undefined {
  if (address === 'off') return undefined;
  if (!/^.+:\d{1,5}$/.test(address)) throw new Error(`${option} wants HOST:PORT or off, not ${address}`);
  return address;
}

function readTls(cert: string | undefined, key: string | undefined): ServeOptions['tls'] {
  if (cert === undefined && key === undefined) return undefined;
  if (cert === undefined || key === undefined) throw new Error('--tls-cert and --tls-key go together');
  return { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') };
}

/** Environment variables are put into values, not into the text: a secret cannot change the structure. */
function readConfig(file: string | undefined): unknown {
  return file === undefined ? undefined : withEnvironment(parse(readFileSync(file, 'utf8')));
}

function withEnvironment(value: unknown): unknown {
  if (typeof value === 'string') return value.replace(/\$\{(\w+)(?::-([^}]*))?\}/g, environmentValue);
  if (Array.isArray(value)) return value.map(withEnvironment);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, withEnvironment(one)]));
}

function environmentValue(_all: string, name: string, fallback: string | undefined): string {
  const value = process.env[name] || fallback;
  if (value === undefined) throw new Error(`the config names \${${name}}, which is not set`);
  return value;
}

if (import.meta.main) {
  main().catch((error: Error) => {
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  });
}
