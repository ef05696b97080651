/** Requests to issuers: where they may go, how long they may take, and how much may come back. */
import { isIP } from 'node:net';
import { PluginFault } from '../../proto/contract.ts';

/** Longest answer of an issuer that is read, in bytes; a discovery document or a key set has some thousands. */
const MAX_ANSWER = 524_288;

/** The issuer could not be asked, or did not answer in a way that can be used: nothing can be decided, now. */
export class IssuerUnavailable extends PluginFault {
  constructor(message: string, options?: ErrorOptions) {
    super('issuer_unavailable', message);
    this.cause = options?.cause;
  }
}

/** `fetch`, as far as it is used here and by openid-client. */
export type Fetch = (
  url: string,
  options: { method?: string; headers?: RequestInit['headers']; body?: RequestInit['body']; signal?: AbortSignal },
) => Promise<Response>;

/**
 * A `fetch` that follows no redirect, gives up after `timeoutMs`, and reads no more than 512 KiB.
 *
 * @param isAllowed whether a URL may be asked at all: an issuer's document names further ones
 * @returns a function that rejects with {@link IssuerUnavailable}, whose message names the address without its query
 */
export function outgoing(timeoutMs: number, isAllowed: (url: URL) => boolean): Fetch {
  return async (address, { method, headers, body, signal }) => {
    const url = new URL(address);
    const place = `${url.origin}${url.pathname}`;
    if (!isAllowed(url)) throw new IssuerUnavailable(`${place} is not to be asked over plain http`);
    const late = AbortSignal.timeout(timeoutMs);
    try {
      const response = await fetch(url, {
        method,
        headers,
        body,
        redirect: 'manual',
        signal: signal === undefined ? late : AbortSignal.any([signal, late]),
      });
      return await readWhole(response);
    } catch (cause) {
      throw new IssuerUnavailable(`${place} cannot be asked: ${reasonOf(cause)}`, { cause });
    }
  };
}

/** The answer with its body in memory, so that the deadline and the bound hold for all of it. */
async function readWhole(response: Response): Promise<Response> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > MAX_ANSWER) throw new Error(`the answer is longer than ${MAX_ANSWER} bytes`);
    chunks.push(chunk);
  }
  // A busy or broken server says nothing about a token, a code or a session.
  if (response.status >= 500 || response.status === 429) throw new Error(`status ${response.status}`);
  const { status } = response;
  const type = response.headers.get('content-type') ?? '';
  return new Response(size === 0 ? null : Buffer.concat(chunks), { status, headers: { 'content-type': type } });
}

function reasonOf(cause: unknown): string {
  const { code } = ((cause as Error).cause ?? cause) as { code?: unknown };
  return typeof code === 'string' ? code : (cause as Error).message;
}

/** Whether a host is this machine, by name or number: nobody stands in between. */
export function isLoopback(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, '');
  if (isIP(host) === 4) return host.startsWith('127.');
  return host === '::1' || host === 'localhost' || host.endsWith('.localhost');
}

/** The failure to ask, when an error of openid-client was made of one. */
export function unavailability(error: unknown): IssuerUnavailable | undefined {
  const { cause } = error as { cause?: unknown };
  return [error, cause].find((one) => one instanceof IssuerUnavailable);
}

/** Gives up waiting, after so many milliseconds, for work that others wait for as well. @throws `late` */
export function within<T>(ms: number, work: Promise<T>, late: Error): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(late), Math.max(0, ms));
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
