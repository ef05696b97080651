/**
 * Something that speaks like OpenFGA and can be made to fail: what a real one does only on a bad day. It knows a list of
 * `user relation object` and nothing of models; whether decisions are right is tested against a real one.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';

interface Key {
  user: string;
  relation: string;
  object: string;
}

/** One question as it came in, whichever call it came by. */
export interface Asked {
  path: string;
  headers: IncomingMessage['headers'];
  body: {
    tuple_key?: Key;
    checks?: { tuple_key: Key; correlation_id: string; contextual_tuples?: { tuple_keys: Key[] } }[];
    contextual_tuples?: { tuple_keys: Key[] };
    authorization_model_id?: string;
    consistency?: string;
    user?: string;
    relation?: string;
    type?: string;
  };
}

/** An answer in place of the usual one; a string goes out as it is; `hang` answers nothing. */
export type Odd = { status?: number; body: unknown; headers?: Record<string, string> } | 'hang' | 'cut' | undefined;

export class FakeOpenfga implements AsyncDisposable {
  /** Every check, batch check and list, in order. */
  readonly asked: Asked[] = [];
  /** Such as `user:bob can_use model:gpt-4o`. */
  readonly allowed: Set<string>;
  /** Looked at first for every request. */
  odd: (path: string, body: Asked['body']) => Odd | Promise<undefined> = () => undefined;
  stores = [{ id: '01M7Z4S8R85YC77WJEVBFDHFHP', name: 'wardgate' }];
  /** The newest model. */
  modelId = '01M7Z4S8SATDASYHX5RH9H838F';
  /** Older ones that may still be named in questions. */
  knownModels: string[] = [];
  /** Relations by type. */
  model: Record<string, Record<string, object>> = {
    user: {},
    team: { member: { this: {} } },
    model: { can_use: { this: {} } },
    tool: { can_use: { this: {} } },
  };
  /** Requests for stores and models. */
  lookUps = 0;
  connections = 0;
  openRequests = 0;
  readonly #server = createServer((request, response) => void this.#serve(request, response));

  constructor(allowed: string[]) {
    this.allowed = new Set(allowed);
    this.#server.on('connection', () => {
      this.connections += 1;
    });
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async listen(port = 0): Promise<this> {
    this.#server.listen(port, '127.0.0.1');
    await once(this.#server, 'listening');
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.openRequests += 1;
    response.once('close', () => {
      this.openRequests -= 1;
    });
    const path = (request.url ?? '').replace(/^\/stores\/\w+/, '').replace(/\?.*/, '');
    const sent = await text(request);
    const body = (sent.startsWith('{') ? JSON.parse(sent) : {}) as Asked['body'];
    if (request.method === 'POST') this.asked.push({ path, headers: request.headers, body });
    else this.lookUps += 1;
    const odd = await this.odd(path, body);
    if (odd === 'hang') return;
    if (odd === 'cut') return void request.socket.destroy();
    const answer = odd ?? this.#answer(path, request.url ?? '', body);
    const written = typeof answer.body === 'string' ? answer.body : JSON.stringify(answer.body);
    response.writeHead(answer.status ?? 200, { 'content-type': 'application/json', ...answer.headers }).end(written);
  }

  #answer(path: string, url: string, body: Asked['body']): Exclude<Odd, string | undefined> {
    const storeId = /^\/stores\/(\w+)/.exec(url)?.[1];
    if (path === '/stores') return { body: { stores: this.stores, continuation_token: '' } };
    if (path.startsWith('/authorization-models')) return { body: { authorization_models: [this.#model()] } };
    if (!this.stores.some(({ id }) => id === storeId)) {
      return { status: 404, body: { code: 'store_id_not_found', message: 'Store ID not found' } };
    }
    if (![this.modelId, ...this.knownModels].includes(body.authorization_model_id!)) {
      return { status: 400, body: { code: 'authorization_model_not_found', message: 'Authorization Model not found' } };
    }
    if (path === '/check') return { body: { allowed: this.#isAllowed(body.tuple_key!) } };
    if (path === '/batch-check') return { body: { result: this.#batch(body) } };
    return { body: { objects: this.#objects(body) } };
  }

  #batch({ checks = [] }: Asked['body']): object {
    // In another order than they were asked in.
    const answers = checks.map(({ tuple_key: key, correlation_id: id }) => [id, { allowed: this.#isAllowed(key) }]);
    return Object.fromEntries(answers.reverse());
  }

  #objects({ user, relation, type }: Asked['body']): string[] {
    const granted = [...this.allowed].map((line) => line.split(' '));
    return granted
      .filter(([a, b, c]) => a === user && b === relation && c?.startsWith(`${type}:`))
      .map(([, , c]) => c!);
  }

  #isAllowed({ user, relation, object }: Key): boolean {
    return this.allowed.has(`${user} ${relation} ${object}`);
  }

  #model(): object {
    const types = Object.entries(this.model).map(([type, relations]) => ({ type, relations }));
    return { id: this.modelId, schema_version: '1.1', type_definitions: types };
  }
}

/** Starts one that allows just what is written here, such as `user:bob can_use model:gpt-4o`. */
export function startFakeOpenfga(...allowed: string[]): Promise<FakeOpenfga> {
  return new FakeOpenfga(allowed).listen();
}
