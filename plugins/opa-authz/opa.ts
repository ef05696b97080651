/** OPA's data API over HTTP (openpolicyagent.org/docs/rest-api, "Get a Document (with Input)"). */
import { readFileSync } from 'node:fs';
import { Pool } from 'undici';
import { ConfigProblem, DECISION_ID } from '../../proto/contract.ts';
import type { Config, TlsConfig } from './config.ts';
import { OpaFault, unavailable } from './faults.ts';

/** The largest answer that is read, in bytes. */
const MAX_ANSWER = 1024 ** 2;
/** A connection that carries nothing is closed after this time, in milliseconds: before most servers do it. */
const KEEP_ALIVE_MS = 4_000;
/** How long opening a connection may take, in milliseconds. */
const CONNECT_MS = 2_000;
/** A question that nobody takes back is given up after this time, in milliseconds: deadlines are the gateway's. */
const LONGEST_MS = 10_000;

/** What OPA answers to a question. */
export interface Answer {
  result: unknown;
  id: string | undefined;
}

/** The connections to one OPA, and one decision of its. */
export class Opa {
  readonly #pool: Pool;
  readonly #path: string;
  readonly #headers: Record<string, string>;

  /** @throws ConfigProblem when a certificate cannot be read */
  constructor({ url, path, token, tls, connections }: Config) {
    const { origin, pathname } = new URL(url);
    this.#path = `${pathname.replace(/\/+$/, '')}/v1/data/${path}`;
    this.#headers = { 'content-type': 'application/json', accept: 'application/json' };
    if (token !== undefined) this.#headers.authorization = `Bearer ${token}`;
    this.#pool = new Pool(origin, {
      connections,
      keepAliveTimeout: KEEP_ALIVE_MS,
      headersTimeout: LONGEST_MS,
      bodyTimeout: LONGEST_MS,
      maxResponseSize: MAX_ANSWER,
      allowH2: false,
      connect: { ...readTls(tls), servername: tls.serverName, timeout: CONNECT_MS },
    });
  }

  /**
   * Asks for the decision.
   *
   * @param trace headers of a W3C trace, so that OPA's decision log has its id
   * @returns the `result`, undefined when the policy defines none; and the decision's id, when OPA keeps a decision log
   * @throws {@link OpaFault} when there was no answer, or one that OPA does not give
   */
  async decide(question: string, trace: Record<string, string>, signal?: AbortSignal): Promise<Answer> {
    const answer = parsed(await this.#post(question, trace, signal));
    if (typeof answer !== 'object' || answer === null || Array.isArray(answer)) {
      throw unavailable('the answer is no JSON object');
    }
    const { result, decision_id: id } = answer as { result?: unknown; decision_id?: unknown };
    return { result, id: typeof id === 'string' && DECISION_ID.test(id) ? id : undefined };
  }

  async #post(body: string, trace: Record<string, string>, signal: AbortSignal | undefined): Promise<string> {
    const headers = { ...trace, ...this.#headers };
    const request = { method: 'POST', path: this.#path, headers, body, signal } as const;
    try {
      const { statusCode, headers: answered, body: answer } = await this.#pool.request(request);
      const text = await answer.text();
      if (statusCode !== 200) throw unavailable(`it answered ${statusCode}`);
      if (!/^application\/json\s*(;|$)/i.test(String(answered['content-type']))) {
        throw unavailable('the answer is not application/json');
      }
      return text;
    } catch (error) {
      // What a parser says of garbage may quote it: only the code is taken over.
      throw error instanceof OpaFault ? error : unavailable(codeOf(error));
    }
  }

  async close(): Promise<void> {
    await this.#pool.destroy();
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw unavailable('the answer is no JSON');
  }
}

function codeOf(error: unknown): string {
  const { code, name } = error as NodeJS.ErrnoException;
  return name === 'AbortError' || name === 'TimeoutError' ? 'nobody waits for the answer' : String(code ?? 'no answer');
}

/** Certificates are PEM texts, or files beside the working directory. */
function readTls(tls: TlsConfig): { ca?: Buffer; cert?: Buffer; key?: Buffer } {
  const read = (name: 'ca' | 'cert' | 'key') => {
    const value = tls[name];
    if (value === undefined) return undefined;
    return value.startsWith('-----BEGIN') ? Buffer.from(value) : readFile(value, name);
  };
  return { ca: read('ca'), cert: read('cert'), key: read('key') };
}

function readFile(path: string, name: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    const message = `It cannot be read: ${(cause as NodeJS.ErrnoException).code}.`;
    throw new ConfigProblem([{ path: ['tls', name], message }]);
  }
}
