/** An HTTP/1.1 client on a bare socket: it sends what the test says and shows answers as they were framed. */
import { once } from 'node:events';
import { connect as connectSocket, type Socket } from 'node:net';
import { type HeaderList, valuesOf } from './header-list.ts';

/** What `RawConnection.request` sends. */
export interface RawRequest {
  /** `POST` with a body, else `GET`. */
  method?: string;
  path?: string;
  /** `Host`, and `Content-Length` with a body, are added unless given. A list sends the header several times. */
  headers?: Record<string, string | string[]>;
  /** An object goes out as JSON with its Content-Type. */
  body?: string | Buffer | object;
}

/** Opens a connection to the host and port of a URL. */
export async function openConnection(url: string): Promise<RawConnection> {
  const { hostname, port } = new URL(url);
  const socket = connectSocket({ host: hostname, port: Number(port) || 80 });
  await once(socket, 'connect');
  return new RawConnection(socket, `${hostname}:${port}`);
}

/** Sends one request on a connection of its own and waits for the head of the answer. */
export async function send(url: string, request: RawRequest = {}): Promise<RawResponse> {
  const connection = await openConnection(url);
  const { pathname, search } = new URL(url);
  await connection.request({ path: pathname + search, ...request });
  return connection.response();
}

/** One connection. Nothing is read from it but by the answers' readers, so a test that does not read is a slow reader. */
export class RawConnection {
  readonly socket: Socket;
  /** Resolves when the connection is closed; what the other side sent must have been read for that to be seen. */
  readonly closed: Promise<void>;
  readonly #host: string;
  readonly #reader: SocketReader;
  #method = 'GET';

  constructor(socket: Socket, host: string) {
    this.socket = socket;
    this.#host = host;
    this.#reader = new SocketReader(socket);
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()));
    socket.on('error', () => {}); // The reader reports it; without a listener it would end the process.
  }

  /** Sends bytes as they are; resolves when the operating system has taken them or the connection is gone. */
  send(bytes: string | Buffer): Promise<void> {
    return new Promise((resolve) => this.socket.write(bytes, () => resolve()));
  }

  async request({ method, path = '/', headers = {}, body }: RawRequest): Promise<void> {
    this.#method = method ?? (body === undefined ? 'GET' : 'POST');
    const isJson = typeof body === 'object' && !Buffer.isBuffer(body);
    const bytes = Buffer.from(isJson ? JSON.stringify(body) : (body ?? ''));
    const defaults: [string, string][] = [['Host', this.#host]];
    if (isJson) defaults.push(['Content-Type', 'application/json']);
    if (body !== undefined) defaults.push(['Content-Length', String(bytes.length)]);
    const given = Object.entries(headers).flatMap(([name, values]) => [values].flat().map((value) => [name, value]));
    const names = new Set(given.map(([name]) => name?.toLowerCase()));
    const lines = [...defaults.filter(([name]) => !names.has(name.toLowerCase())), ...given];
    const head = [`${this.#method} ${path} HTTP/1.1`, ...lines.map(([name, value]) => `${name}: ${value}`)];
    await this.send(Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`, 'latin1'), bytes]));
  }

  /** Waits for the head of the next answer, past any 1xx. Read its body before asking for another. */
  async response(): Promise<RawResponse> {
    const [version = '', status = '', ...reason] = (await this.#reader.line()).split(' ');
    if (!version.startsWith('HTTP/1.')) throw new Error(`Not an HTTP/1 answer: ${version}`);
    const headers = await readHeaders(this.#reader);
    if (status.startsWith('1')) return this.response();
    const response = new RawResponse(this, Number(status), reason.join(' '), headers);
    response.chunks = response.record(this.#method === 'HEAD' ? noBody() : bodyOf(response, this.#reader));
    return response;
  }

  /** Says that no more will be sent, and goes on reading. */
  end(): void {
    this.socket.end();
  }

  /** Leaves. */
  destroy(): void {
    this.socket.destroy();
  }

  /** Leaves with a TCP reset. */
  reset(): void {
    this.socket.resetAndDestroy();
  }
}

/** One answer. */
export class RawResponse {
  readonly connection: RawConnection;
  readonly status: number;
  readonly statusText: string;
  /** Names and values as received, in order, with duplicates. */
  readonly headers: HeaderList;
  /** The body: HTTP chunks as the other side framed them, else what arrived at a time. Throws when it is cut short. */
  chunks!: AsyncGenerator<Buffer, void>;
  readonly #received: Buffer[] = [];

  constructor(connection: RawConnection, status: number, statusText: string, headers: HeaderList) {
    this.connection = connection;
    this.status = status;
    this.statusText = statusText;
    this.headers = headers;
  }

  headerValues(name: string): string[] {
    return valuesOf(this.headers, name);
  }

  header(name: string): string | undefined {
    return valuesOf(this.headers, name)[0];
  }

  /** The body's bytes that have been read so far, also of a body that was cut. */
  get received(): Buffer {
    return Buffer.concat(this.#received);
  }

  /** Reads the body to its end. @throws when it is cut short */
  async bytes(): Promise<Buffer> {
    for await (const _ of this.chunks);
    return this.received;
  }

  async text(): Promise<string> {
    return (await this.bytes()).toString();
  }

  async json<T = Record<string, unknown>>(): Promise<T> {
    return JSON.parse(await this.text()) as T;
  }

  async *record(chunks: AsyncGenerator<Buffer, void>): AsyncGenerator<Buffer, void> {
    for await (const chunk of chunks) {
      this.#received.push(chunk);
      yield chunk;
    }
  }
}

async function* noBody(): AsyncGenerator<Buffer, void> {}

/** RFC 9112 section 6.3: chunked first, then Content-Length, then until the connection closes. */
async function* bodyOf(response: RawResponse, reader: SocketReader): AsyncGenerator<Buffer, void> {
  if (response.status === 204 || response.status === 304) return;
  if (response.header('transfer-encoding')?.toLowerCase() === 'chunked') return yield* chunkedBody(reader);
  const length = response.header('content-length');
  let left = length === undefined ? Number.POSITIVE_INFINITY : Number(length);
  while (left > 0) {
    const bytes = await reader.some(left);
    if (!bytes && length !== undefined) throw new Error(`The body was cut: ${left} of ${length} bytes are missing.`);
    if (!bytes) return;
    left -= bytes.length;
    yield bytes;
  }
}

async function* chunkedBody(reader: SocketReader): AsyncGenerator<Buffer, void> {
  for (;;) {
    const size = Number.parseInt(await reader.line(), 16);
    if (Number.isNaN(size)) throw new Error('The chunked framing is broken.');
    if (size === 0) return void (await readHeaders(reader));
    yield await reader.exactly(size);
    await reader.line();
  }
}

async function readHeaders(reader: SocketReader): Promise<HeaderList> {
  const headers: HeaderList = [];
  for (let line = await reader.line(); line !== ''; line = await reader.line()) {
    const colon = line.indexOf(':');
    headers.push([line.slice(0, colon), line.slice(colon + 1).trim()]);
  }
  return headers;
}

class SocketReader {
  readonly #source: AsyncIterator<Buffer>;
  #buffer: Buffer = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.#source = socket.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>;
  }

  async line(): Promise<string> {
    let end = this.#buffer.indexOf('\r\n');
    while (end < 0) {
      if (!(await this.#fill())) throw new Error('The connection was closed in the middle of an answer.');
      end = this.#buffer.indexOf('\r\n');
    }
    return this.#take(end + 2).toString('latin1', 0, end);
  }

  async exactly(length: number): Promise<Buffer> {
    while (this.#buffer.length < length) {
      if (!(await this.#fill())) throw new Error('The connection was closed in the middle of a chunk.');
    }
    return this.#take(length);
  }

  async some(atMost: number): Promise<Buffer | undefined> {
    if (this.#buffer.length === 0 && !(await this.#fill())) return undefined;
    return this.#take(Math.min(atMost, this.#buffer.length));
  }

  async #fill(): Promise<boolean> {
    const { done, value } = await this.#source.next();
    if (!done) this.#buffer = Buffer.concat([this.#buffer, value]);
    return !done;
  }

  #take(length: number): Buffer {
    const taken = this.#buffer.subarray(0, length);
    this.#buffer = this.#buffer.subarray(length);
    return taken;
  }
}
